package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// cpuOf is the CPU time of processes since they began, exact (not in ticks), with the
// threads of theirs that have ended.
func cpuOf(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		// As clock_getcpuclockid(3) makes the number: CPUCLOCK_SCHED of a process.
		clock := int32(^uint32(pid)<<3 | 2)
		var t unix.Timespec
		if err := unix.ClockGettime(clock, &t); err != nil {
			return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}

// settled waits until processes have done what the load left them to do, and returns their
// CPU time then.
func settled(ctx context.Context, pids []int) (time.Duration, error) {
	const quiet, patience = 1200 * time.Millisecond, 20 * time.Second
	if len(pids) == 0 {
		return 0, nil
	}
	last, err := cpuOf(pids)
	if err != nil {
		return 0, err
	}
	for begun := time.Now(); time.Since(begun) < patience; {
		if err := pause(ctx, quiet); err != nil {
			return 0, err
		}
		now, err := cpuOf(pids)
		if err != nil {
			return 0, err
		}
		if now-last < quiet/200 {
			return now, nil
		}
		last = now
	}
	return last, nil
}

// idleOf is the share of a core that processes take while we do nothing.
func idleOf(ctx context.Context, pids []int, d time.Duration) (float64, error) {
	before, err := cpuOf(pids)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := pause(ctx, d); err != nil {
		return 0, err
	}
	after, err := cpuOf(pids)
	return float64(after-before) / float64(time.Since(begun)), err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// memory is the most that a side held, in bytes.
type memory struct {
	resident  int64 // VmHWM: with file pages and rings
	anonymous int64 // RssAnon, the most of many looks
}

// memoryWatch looks at processes until it is stopped.
type memoryWatch struct {
	pids []int
	done chan struct{}
	wait sync.WaitGroup
	peak memory
}

func watchMemory(pids []int) *memoryWatch {
	w := &memoryWatch{pids: pids, done: make(chan struct{})}
	w.wait.Go(func() {
		for {
			var now memory
			for _, pid := range pids {
				m := memoryOf(pid)
				now.resident += m.resident
				now.anonymous += m.anonymous
			}
			w.peak.resident = max(w.peak.resident, now.resident)
			w.peak.anonymous = max(w.peak.anonymous, now.anonymous)
			select {
			case <-w.done:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	return w
}

func (w *memoryWatch) stop() memory {
	close(w.done)
	w.wait.Wait()
	return w.peak
}

// memoryOf reads /proc/PID/status; kernel threads have none of it.
func memoryOf(pid int) memory {
	var m memory
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return m
	}
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmHWM":
			m.resident = kb << 10
		case "RssAnon":
			m.anonymous = kb << 10
		}
	}
	return m
}

// machine is what all processors had done by some moment.
type machine struct {
	busy time.Duration
	at   time.Time
}

func readMachine() (machine, error) {
	m := machine{at: time.Now()}
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return m, err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	f := strings.Fields(line)
	if len(f) < 9 {
		return m, fmt.Errorf("read /proc/stat: %q is too short", line)
	}
	for i, s := range f[1:9] { // proc_stat(5): guest time is in user time already
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return m, fmt.Errorf("read /proc/stat: %w", err)
		}
		if i != 3 && i != 4 { // idle, iowait
			m.busy += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return m, nil
}

// others is the share of all processors that since m was not spent on what is known.
func (m machine) others(known time.Duration) (float64, error) {
	now, err := readMachine()
	if err != nil {
		return 0, err
	}
	all := now.at.Sub(m.at) * time.Duration(runtime.NumCPU())
	return max(0, float64(now.busy-m.busy-known)/float64(all)), nil
}

// match is what matching one event against detection rules costs.
type match struct {
	ns, allocations float64
}

// matching has the package of the rules measure it: an exec that none of 200 process rules finds.
func matching(ctx context.Context) (match, error) {
	var m match
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkMatch$/^curl$", "-benchmem", "./internal/rule").CombinedOutput()
	if err != nil {
		return m, fmt.Errorf("measure the matching of rules: %w: %s", err, out)
	}
	found := 0
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 2 || !strings.HasPrefix(f[0], "BenchmarkMatch/curl") {
			continue
		}
		for i := 2; i < len(f); i++ {
			v, err := strconv.ParseFloat(f[i-1], 64)
			if err != nil {
				continue
			}
			switch f[i] {
			case "ns/op":
				m.ns = v
				found++
			case "allocs/op":
				m.allocations = v
				found++
			}
		}
	}
	if found != 2 {
		return m, fmt.Errorf("measure the matching of rules: no result in %q", out)
	}
	return m, nil
}
