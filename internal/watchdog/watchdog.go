// Package watchdog runs a worker, which is this very program again, holds its memory and CPU
// within bounds, and starts it anew when it died: osquery's watcher.
//
// It must never know what the worker does. The process that runs it has one goroutine that
// starts workers and waits for them, on one thread, with which they die.
package watchdog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/goshawk-project/goshawk/internal/procfs"
)

// Limits hold a worker. Zero is no bound.
type Limits struct {
	Memory  int64         // bytes resident above what it began with
	CPU     int           // percent of all processors
	Latency time.Duration // for how long it may be above CPU
}

// Profile returns osquery's limits by watchdog_level: 0 normal, 1 restrictive, -1 none.
func Profile(level int64) Limits {
	switch {
	case level < 0:
		return Limits{}
	case level == 0:
		return Limits{Memory: 200 << 20, CPU: 10, Latency: 12 * time.Second}
	}
	return Limits{Memory: 100 << 20, CPU: 5, Latency: 6 * time.Second}
}

// Options of Run.
type Options struct {
	Limits
	Delay      time.Duration // after the start of a worker, in which nothing is held against it
	MaxDelay   time.Duration // the longest wait before one is started anew
	FirstDelay time.Duration // the shortest; it doubles with each death
	Stop       time.Duration // how long a worker may take to end when it is asked to
	Poll       time.Duration // 0 is osquery's 3 s
	FS         procfs.FS
	Log        func(string)
	// Waiting is called each second while no worker runs; nil: nobody wants to know.
	Waiting func()
}

// The worker's environment: who watches it, and why the one before it ended.
const (
	envParent = "GOSHAWK_WATCHER"
	envReason = "GOSHAWK_WATCHER_REASON"
)

// Worker reports whether this process is a worker, whose watcher's pid it returns, and why
// the worker before it ended, "" for the first. It takes both out of the environment.
func Worker() (watcher int, reason string) {
	watcher, _ = strconv.Atoi(os.Getenv(envParent))
	reason = os.Getenv(envReason)
	os.Unsetenv(envParent)
	os.Unsetenv(envReason)
	if watcher != os.Getppid() { // somebody else's variable
		return 0, ""
	}
	return watcher, reason
}

const (
	poll       = 3 * time.Second
	longLife   = 10 * time.Minute // after which a death is the first again
	headroom   = 64 << 20         // of the cgroup above the limit: what the kernel holds for the worker
	reasonSize = 1024
)

// Run starts workers with the arguments of this process until one of them ends by itself,
// whose exit code it returns, or ctx ends or SIGTERM or SIGINT comes, which the worker is told. SIGHUP is passed on.
func Run(ctx context.Context, o Options) (code int, err error) {
	if o.Poll == 0 {
		o.Poll = poll
	}
	if o.FirstDelay == 0 {
		o.FirstDelay = time.Second
	}
	// A worker dies with the thread that started it (prctl(2), PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	reason := ""
	for deaths := 0; ; {
		begun := time.Now()
		w, err := start(reason)
		if err != nil {
			return 1, fmt.Errorf("start worker: %w", err)
		}
		var status syscall.WaitStatus
		status, reason = o.watch(ctx, w, signals)
		if status.Exited() {
			return status.ExitStatus(), nil
		}
		if reason == "" {
			reason = fmt.Sprintf("osqueryd worker (%d) ended by %v", w.pid, status.Signal())
		}
		o.Log(reason)
		if ctx.Err() != nil || w.asked {
			return 0, nil
		}
		if time.Since(begun) > longLife {
			deaths = 0
		}
		wait := min(o.FirstDelay<<min(deaths, 16), max(o.MaxDelay, o.FirstDelay))
		deaths++
		if !o.wait(ctx, wait, signals) {
			return 0, nil
		}
	}
}

// wait waits before the next start; false when there is to be none.
func (o *Options) wait(ctx context.Context, d time.Duration, signals <-chan os.Signal) bool {
	end := time.NewTimer(d)
	defer end.Stop()
	ticks := time.NewTicker(time.Second)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case s := <-signals:
			if s != syscall.SIGHUP {
				return false
			}
		case <-end.C:
			return true
		case <-ticks.C:
			if o.Waiting != nil {
				o.Waiting()
			}
		}
	}
}

// worker is a process that was started.
type worker struct {
	pid   int
	ended chan syscall.WaitStatus
	asked bool // to end
}

// start starts this program again. /proc/self/exe is this very file, whatever lies under its
// name by now.
func start(reason string) (*worker, error) {
	env := os.Environ()
	env = append(env, envParent+"="+strconv.Itoa(os.Getpid()), "GOTRACEBACK=crash") // a panic is a signal, not an exit code
	if reason != "" {
		env = append(env, envReason+"="+strings.ToValidUTF8(reason[:min(len(reason), reasonSize)], ""))
	}
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Files: []uintptr{0, 1, 2}, Env: env, // In a group of its own: a terminal's Ctrl-C is the watcher's to pass on.
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	})
	if err != nil {
		return nil, err
	}
	w := &worker{pid: pid, ended: make(chan syscall.WaitStatus, 1)}
	go func() { // ends with the worker
		for {
			var status syscall.WaitStatus
			_, err := syscall.Wait4(pid, &status, 0, nil)
			if err == syscall.EINTR {
				continue
			}
			w.ended <- status
			return
		}
	}()
	return w, nil
}

// watch holds a worker to its limits until it has ended, and says why when it was ended.
func (o *Options) watch(ctx context.Context, w *worker, signals <-chan os.Signal) (status syscall.WaitStatus, reason string) {
	ticks := time.NewTicker(o.Poll)
	defer ticks.Stop()
	m := &meter{o: o, pid: w.pid, begun: time.Now()}
	defer m.close()
	done := ctx.Done()
	var kill <-chan time.Time
	stop := func() {
		w.asked = true
		_ = syscall.Kill(w.pid, syscall.SIGTERM)
		if kill == nil {
			kill = time.After(o.Stop)
		}
	}
	for {
		select {
		case status := <-w.ended:
			if oom := m.oom(); oom != "" && status.Signaled() && reason == "" {
				reason = oom
			}
			return status, reason
		case <-done:
			done = nil
			stop()
		case s := <-signals:
			if s == syscall.SIGHUP {
				_ = syscall.Kill(w.pid, syscall.SIGHUP)
			} else {
				stop()
			}
		case <-kill:
			_ = syscall.Kill(w.pid, syscall.SIGKILL)
		case <-ticks.C:
			// Killed at once: what it was doing then is what the next worker will not do
			// again, and nothing that it acknowledged can be lost.
			if why := m.read(); why != "" && reason == "" && !w.asked {
				reason = why
				_ = syscall.Kill(w.pid, syscall.SIGKILL)
			}
		}
	}
}

// meter reads what a worker uses.
type meter struct {
	o     *Options
	pid   int
	begun time.Time
	first int64 // bytes resident at the first look
	last  time.Duration
	since time.Time // of the last look
	above time.Duration
	group *group // nil: there is none
	tried bool
}

// usage is the worker's resident memory and the CPU time it has taken.
func (m *meter) usage() (resident int64, cpu time.Duration, err error) {
	dir, err := m.o.FS.Open()
	if err != nil {
		return 0, 0, err
	}
	defer dir.Close()
	p, err := dir.Process(m.pid)
	if err != nil {
		return 0, 0, err
	}
	var s procfs.Stat
	if err := p.Stat(&s); err != nil {
		return 0, 0, err
	}
	return int64(s.ResidentBytes()), time.Duration(s.UserMs()+s.SysMs()) * time.Millisecond, nil
}

// read looks at the worker, and says which limit it has exceeded, "" for none.
func (m *meter) read() string {
	resident, cpu, err := m.usage()
	if err != nil {
		return "" // it has ended, or is about to
	}
	now := time.Now()
	if m.first == 0 {
		m.first, m.last, m.since = resident, cpu, now
		return ""
	}
	if now.Sub(m.begun) < m.o.Delay {
		m.last, m.since = cpu, now
		return ""
	}
	if !m.tried {
		m.tried = true
		if m.group, err = hold(m.o.FS, m.pid, m.o.Limits, m.first); err != nil && !errors.Is(err, errNoCgroup) {
			m.o.Log(fmt.Sprintf("hold the worker by cgroup: %v; it is watched instead", err))
		}
	}
	if m.o.Memory > 0 && resident-m.first > m.o.Memory {
		return fmt.Sprintf("osqueryd worker (%d) stopping: Memory limits exceeded: %d bytes", m.pid, resident)
	}
	if m.o.CPU > 0 && !m.group.cpu() {
		spent, passed := cpu-m.last, now.Sub(m.since)
		if spent > passed*time.Duration(runtime.NumCPU()*m.o.CPU)/100 {
			m.above += passed
		} else {
			m.above = 0
		}
		if m.above >= m.o.Latency {
			return fmt.Sprintf("osqueryd worker (%d) stopping: Maximum sustainable CPU utilization limit exceeded: %d%% of all processors for %v", m.pid, m.o.CPU, m.above.Round(time.Second))
		}
	}
	m.last, m.since = cpu, now
	return ""
}

// oom tells that the kernel ended the worker for the bound on its cgroup.
func (m *meter) oom() string {
	if m.group == nil || !m.group.killed() {
		return ""
	}
	return fmt.Sprintf("osqueryd worker (%d) stopping: Memory limits exceeded: the kernel ended it at %d bytes", m.pid, m.first+m.o.Memory+headroom)
}

func (m *meter) close() {
	if m.group != nil {
		m.group.remove()
	}
}
