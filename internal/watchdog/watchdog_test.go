package watchdog

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/procfs"
)

// TestMain lets the test binary be a watcher and its worker: what it does as either is in the
// environment.
func TestMain(m *testing.M) {
	if os.Getenv("WATCHDOG_TEST") == "" {
		os.Exit(m.Run())
	}
	if watcher, reason := Worker(); watcher != 0 {
		work(reason)
	}
	memory, _ := strconv.ParseInt(os.Getenv("WATCHDOG_TEST_MEMORY"), 10, 64)
	cpu, _ := strconv.Atoi(os.Getenv("WATCHDOG_TEST_CPU"))
	poll := 50 * time.Millisecond
	if d, err := time.ParseDuration(os.Getenv("WATCHDOG_TEST_POLL")); err == nil {
		poll = d
	}
	code, err := Run(context.Background(), Options{
		Limits: Limits{Memory: memory, CPU: cpu, Latency: 300 * time.Millisecond},
		Delay:  100 * time.Millisecond, FirstDelay: 10 * time.Millisecond, MaxDelay: time.Second, Stop: 10 * time.Second, Poll: poll,
		FS: procfs.At(""), Log: func(s string) { fmt.Println("log:", s) },
	})
	fmt.Println("ended:", code, err)
	os.Exit(code)
}

var ballast [][]byte

// work is the worker's life.
func work(reason string) {
	fmt.Printf("worker: %d %q\n", os.Getpid(), reason)
	if reason != "" && !strings.HasPrefix(os.Getenv("WATCHDOG_TEST"), "always") {
		os.Exit(7) // the second of them says why the first died, and ends
	}
	switch strings.TrimPrefix(os.Getenv("WATCHDOG_TEST"), "always ") {
	case "memory":
		time.Sleep(300 * time.Millisecond) // the first look is taken before
		for {
			b := make([]byte, 4<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			ballast = append(ballast, b)
			time.Sleep(5 * time.Millisecond)
		}
	case "burst":
		for !strings.Contains(ownCgroup(), "/"+name+"\n") { // the watcher puts it there
			time.Sleep(10 * time.Millisecond)
		}
		for range 128 {
			b := make([]byte, 4<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			ballast = append(ballast, b)
		}
		fmt.Println("nobody stopped it at 512 MiB")
	case "cpu":
		for n := 0; ; n++ {
			if n < 0 {
				fmt.Println("a number ran over")
			}
		}
	case "panic":
		panic("BUG: a worker that panics")
	case "exit":
		os.Exit(5)
	case "wait":
		stop, hangup := make(chan os.Signal, 1), make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		signal.Notify(hangup, syscall.SIGHUP)
		fmt.Println("waiting")
		for {
			select {
			case <-hangup:
				fmt.Println("hangup")
			case <-stop:
				fmt.Println("stopping")
				os.Exit(0)
			}
		}
	}
}

// ownCgroup is what the kernel says of this process's cgroups.
func ownCgroup() string {
	b, _ := os.ReadFile("/proc/self/cgroup")
	return string(b)
}

// watched is a watcher in a process of its own.
type watched struct {
	t   *testing.T
	cmd *exec.Cmd
	mu  sync.Mutex
	out strings.Builder
}

func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(b)
}

func (w *watched) String() string { w.mu.Lock(); defer w.mu.Unlock(); return w.out.String() }

func watch(t *testing.T, what string, env ...string) *watched {
	t.Helper()
	return watchIn(t, nil, what, env...)
}

// watchIn is watch in a cgroup of version 2, nil for this process's own.
func watchIn(t *testing.T, cgroup *os.File, what string, env ...string) *watched {
	t.Helper()
	w := &watched{t: t, cmd: exec.Command("/proc/self/exe", "-test.run=^$")}
	if cgroup != nil {
		w.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	}
	w.cmd.Env = append(append(os.Environ(), "WATCHDOG_TEST="+what), env...)
	w.cmd.Stdout, w.cmd.Stderr = w, w
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.cmd.Process.Kill(); w.cmd.Wait() })
	return w
}

func (w *watched) until(text string) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(w.String(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not within a minute: %q; it said:\n%s", text, w)
		}
	}
}

// end waits for the watcher's end, and returns its exit code and what was said.
func (w *watched) end() (int, string) {
	w.t.Helper()
	timer := time.AfterFunc(time.Minute, func() { w.cmd.Process.Kill() })
	defer timer.Stop()
	_ = w.cmd.Wait() // the code tells
	return w.cmd.ProcessState.ExitCode(), w.String()
}

// A worker above its bound of memory is killed, and the next one told why.
func TestMemoryLimit(t *testing.T) {
	w := watch(t, "memory", "WATCHDOG_TEST_MEMORY="+strconv.Itoa(64<<20))
	code, out := w.end()
	if code != 7 || !strings.Contains(out, "stopping: Memory limits exceeded: ") || strings.Count(out, "worker:") != 2 {
		t.Errorf("exit %d:\n%s", code, out)
	}
}

// One that takes too much CPU is held by its cgroup where there is one, and killed elsewhere.
func TestCPULimit(t *testing.T) {
	w := watch(t, "cpu", "WATCHDOG_TEST_CPU=5")
	w.until("worker:")
	if !held(t) {
		code, out := w.end()
		if code != 7 || !strings.Contains(out, "Maximum sustainable CPU utilization limit exceeded: 5%") {
			t.Errorf("exit %d:\n%s", code, out)
		}
		return
	}
	var pid int
	if _, err := fmt.Sscanf(w.String()[strings.Index(w.String(), "worker:"):], "worker: %d", &pid); err != nil {
		t.Fatal(err)
	}
	m := &meter{o: &Options{FS: procfs.At("")}, pid: pid}
	// Within the first moments it runs free; then each second has at most its share. On a
	// machine that does not let it run at all this says nothing, and is true.
	var before time.Duration
	for end := time.Now().Add(time.Minute); ; {
		_, cpu, err := m.usage()
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		time.Sleep(2 * time.Second)
		_, after, err := m.usage()
		if err != nil {
			t.Fatalf("the worker is gone: %v\n%s", err, w)
		}
		before = after - cpu
		if share := float64(before) / float64(time.Since(begun)); share < 0.05*float64(runtime.NumCPU())*1.5 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%v of CPU in 2 s", before)
		}
	}
	w.cmd.Process.Signal(syscall.SIGKILL)
}

// Where a unit has Delegate=, with cgroups of version 2 alone, the kernel holds the worker's CPU
// and is the last bound on its memory; so it is for the worker that follows one that died.
func TestLiveDelegation(t *testing.T) {
	const top = "/sys/fs/cgroup"
	read := func(names ...string) string {
		b, _ := os.ReadFile(filepath.Join(append([]string{top}, names...)...))
		return string(b)
	}
	if c := " " + strings.TrimSpace(read("cgroup.controllers")) + " "; os.Geteuid() != 0 || !strings.Contains(c, " memory ") || !strings.Contains(c, " cpu ") {
		t.Skip("needs root, and a kernel that has memory and cpu in cgroup v2, none of version 1")
	}
	const unit = "goshawk-delegated"
	if err := write(top, "cgroup.subtree_control", "+memory +cpu"); err != nil {
		t.Fatal(err)
	}
	in := func(names ...string) string { return filepath.Join(append([]string{top, unit}, names...)...) }
	begin := func(what string, env ...string) *watched {
		if err := os.Mkdir(in(), 0o755); err != nil {
			t.Fatal(err)
		}
		dir, err := os.Open(in())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		return watchIn(t, dir, what, env...)
	}
	end := func(w *watched) {
		w.cmd.Process.Kill()
		w.end()
		for _, dir := range []string{in(name), in(leaf), in()} {
			for end := time.Now().Add(time.Minute); os.Remove(dir) != nil && dirError(dir) == nil; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%s stays: %s", dir, read(strings.TrimPrefix(dir, top), "cgroup.procs"))
				}
			}
		}
	}

	w := begin("cpu", "WATCHDOG_TEST_CPU=5")
	throttled := func() (n int) {
		for line := range strings.Lines(read(unit, name, "cpu.stat")) {
			fmt.Sscanf(line, "nr_throttled %d", &n)
		}
		return n
	}
	for end := time.Now().Add(2 * time.Minute); throttled() < 3; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the kernel does not hold its CPU: %q, %s\n%s", read(unit, name, "cpu.max"), read(unit, name, "cpu.stat"), w)
		}
	}
	if got, want := read(unit, name, "cpu.max"), fmt.Sprintf("%d 100000\n", runtime.NumCPU()*5000); got != want {
		t.Errorf("cpu.max is %q, want %q", got, want)
	}
	if out := w.String(); strings.Count(out, "worker:") != 1 || strings.Contains(out, "exceeded") {
		t.Errorf("a worker that the kernel holds was killed:\n%s", out)
	}
	end(w)

	w = begin("always burst", "WATCHDOG_TEST_MEMORY="+strconv.Itoa(16<<20), "WATCHDOG_TEST_POLL=4s")
	w.until("Memory limits exceeded: the kernel ended it at")
	for end := time.Now().Add(2 * time.Minute); strings.Count(w.String(), "the kernel ended it at") < 4; time.Sleep(50 * time.Millisecond) { // the log and the next worker
		if time.Now().After(end) {
			t.Fatalf("only the first worker was held:\n%s", w)
		}
	}
	end(w)
}

// held reports whether cgroups can be had here.
func held(t *testing.T) bool {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	g, err := hold(procfs.At(""), cmd.Process.Pid, Limits{Memory: 1 << 30, CPU: 50}, 0)
	if err != nil {
		t.Logf("no cgroup: %v", err)
		return false
	}
	defer func() { cmd.Process.Kill(); cmd.Wait(); g.remove() }()
	return g.cpu()
}

// A panic is a death, not an exit code; deaths wait longer each time.
func TestPanicAndBackOff(t *testing.T) {
	w := watch(t, "always panic")
	w.until("ended by aborted")
	for end := time.Now().Add(time.Minute); strings.Count(w.String(), "worker:") < 5; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s", w)
		}
	}
	if !strings.Contains(w.String(), "ended by aborted") {
		t.Errorf("%s", w)
	}
	w.cmd.Process.Signal(syscall.SIGTERM)
	if code, out := w.end(); code != 0 || !strings.Contains(out, "ended: 0") {
		t.Errorf("exit %d: %s", code, out)
	}
}

// A worker that ends by itself ends its watcher with its code.
func TestExit(t *testing.T) {
	if code, out := watch(t, "exit").end(); code != 5 || strings.Count(out, "worker:") != 1 {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestSignals(t *testing.T) {
	w := watch(t, "wait")
	w.until("waiting")
	w.cmd.Process.Signal(syscall.SIGHUP)
	w.until("hangup")
	w.cmd.Process.Signal(syscall.SIGTERM)
	if code, out := w.end(); code != 0 || strings.Count(out, "stopping") != 1 {
		t.Errorf("exit %d: %s", code, out)
	}
}

// A worker does not outlive its watcher, however that dies.
func TestWatcherKilled(t *testing.T) {
	w := watch(t, "wait")
	w.until("waiting")
	var pid int
	if _, err := fmt.Sscanf(w.String()[strings.Index(w.String(), "worker:"):], "worker: %d", &pid); err != nil {
		t.Fatal(err)
	}
	w.cmd.Process.Kill()
	w.end()
	for end := time.Now().Add(time.Minute); syscall.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the worker lives on")
		}
	}
}

func TestWorker(t *testing.T) {
	t.Setenv(envParent, "1")
	if os.Getppid() == 1 {
		t.Setenv(envParent, "2")
	}
	if watcher, _ := Worker(); watcher != 0 {
		t.Error("a variable makes a worker of any process")
	}
}

func TestProfile(t *testing.T) {
	for level, want := range map[int64]Limits{0: {200 << 20, 10, 12 * time.Second}, 1: {100 << 20, 5, 6 * time.Second}, -1: {}} {
		if got := Profile(level); got != want {
			t.Errorf("level %d: %+v", level, got)
		}
	}
}
