package sensor

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"golang.org/x/sys/unix"
)

var processKinds = []event.ID{event.KindExec, event.KindFork, event.KindExit}

func TestLiveProcess(t *testing.T) {
	eachTier(t, Options{Kinds: processKinds}, func(t *testing.T, l *live) {
		t.Run("fork", func(t *testing.T) { forks(t, l) })
		t.Run("exit", func(t *testing.T) { exits(t, l) })
		t.Run("life", func(t *testing.T) { lives(t, l) })
	})
}

// forks makes processes by every call that makes one.
func forks(t *testing.T, l *live) {
	for _, tt := range []struct{ name, how string }{
		{"fork", "fork"}, {"vfork", "vfork"}, {"clone", "clone"}, {"clone sharing memory", "clone-vm"},
		{"clone3", "clone3"}, {"into another pid namespace", "clone-pidns"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := exec.Command(helper, tt.how)
			child := told(t, c)
			pid := c.Process.Pid
			if tt.how == "clone-pidns" || tt.how == "fork" {
				child = 0 // told in another namespace's numbers; two calls, one told
			}
			l.wait(t, 1, "exit", of[*event.Exit](event.KindExit, pid))
			got := l.snapshot(of[*event.Fork](event.KindFork, pid))
			want := 1
			if tt.how == "fork" && hasFork {
				want = 2
			}
			if len(got) != want {
				t.Fatalf("got %d forks, want %d", len(got), want)
			}
			for _, g := range got {
				f := g.(*event.Fork)
				compare(t, &event.Fork{Header: ours(t, &f.Header, pid), ChildPPID: uint32(pid),
					ChildPID: f.ChildPID, ChildStart: f.ChildStart}, f)
				exit := l.wait(t, 1, "the child's end", of[*event.Exit](event.KindExit, int(f.ChildPID)))[0].(*event.Exit)
				if child != 0 && f.ChildPID != uint32(child) {
					t.Errorf("child %d, want %d", f.ChildPID, child)
				}
				if exit.Start != f.ChildStart || f.ChildStart < f.Start || f.ChildStart > f.NTime {
					t.Errorf("child started at %d by its fork, at %d by its exit; fork at %d", f.ChildStart, exit.Start, f.NTime)
				}
			}
		})
	}
	t.Run("CLONE_PARENT", func(t *testing.T) {
		c := exec.Command(helper, "clone-parent")
		child := told(t, c)
		pid := c.Process.Pid
		got := l.wait(t, 1, "fork", of[*event.Fork](event.KindFork, pid))[0].(*event.Fork)
		compare(t, &event.Fork{Header: ours(t, &got.Header, pid), ChildPPID: uint32(os.Getpid()),
			ChildPID: uint32(child), ChildStart: got.ChildStart}, got)
		exit := l.wait(t, 1, "the child's end", of[*event.Exit](event.KindExit, child))[0].(*event.Exit)
		if exit.PPID != uint32(os.Getpid()) {
			t.Errorf("the child's parent is %d, want %d", exit.PPID, os.Getpid())
		}
		unix.Wait4(child, nil, 0, nil)
	})
	t.Run("threads are not processes", func(t *testing.T) {
		pid := run(t, helper, "thread")
		l.wait(t, 1, "exit", of[*event.Exit](event.KindExit, pid))
		if got := l.snapshot(of[*event.Fork](event.KindFork, pid)); len(got) != 0 {
			t.Errorf("got %d forks for a thread", len(got))
		}
	})
}

// told runs a helper that prints the pid of its child.
func told(t *testing.T, c *exec.Cmd) int {
	t.Helper()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return child
}

// exits ends processes in every way, and compares with what wait4(2) told their parent.
func exits(t *testing.T, l *live) {
	for _, tt := range []struct {
		name string
		args []string
		want event.Exit
	}{
		{"code 0", []string{"exit", "0"}, event.Exit{}},
		{"code 7", []string{"exit", "7"}, event.Exit{ExitCode: 7}},
		{"code -1", []string{"exit", "255"}, event.Exit{ExitCode: 255}},
		{"SIGKILL", []string{"signal", "9"}, event.Exit{Signal: 9}},
		{"SIGTERM", []string{"signal", "15"}, event.Exit{Signal: 15}},
		{"SIGSEGV, no core allowed", []string{"signal", "11"}, event.Exit{Signal: 11}},
		{"program that a thread executed", []string{"thread-exec", "helper", "exit", "4"}, event.Exit{ExitCode: 4}},
		{"leader first", []string{"leader-exits", "5"}, event.Exit{ExitCode: 5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if len(tt.args) > 2 {
				tt.args[1] = helper
			}
			c := exec.Command(helper, tt.args...)
			pid := runCmd(t, c)
			l.settle(t)
			es := l.snapshot(of[*event.Exit](event.KindExit, pid))
			if len(es) != 1 {
				t.Fatalf("got %d exits, want 1", len(es))
			}
			got := es[0].(*event.Exit)
			want := tt.want
			want.Header = ours(t, &got.Header, pid)
			want.DurationNs = got.NTime - got.Start
			want.UserNs, want.SystemNs, want.MaxRSS = got.UserNs, got.SystemNs, got.MaxRSS
			if tt.args[0] == "leader-exits" {
				want.TID = got.TID
				if got.TID == got.PID {
					t.Errorf("the leader passed for the last thread")
				}
			}
			compare(t, &want, got)
			status := c.ProcessState.Sys().(syscall.WaitStatus)
			if status.Exited() && status.ExitStatus() != int(got.ExitCode) || status.Signaled() && status.Signal() != syscall.Signal(got.Signal) {
				t.Errorf("got code %d, signal %d; the parent was told %#x", got.ExitCode, got.Signal, status)
			}
		})
	}
	t.Run("all threads at once", func(t *testing.T) {
		codes := map[int]syscall.WaitStatus{}
		for range 50 {
			c := exec.Command(helper, "threads-leave", "8")
			pid := runCmd(t, c)
			codes[pid] = c.ProcessState.Sys().(syscall.WaitStatus)
		}
		l.settle(t)
		for pid, status := range codes {
			got := l.snapshot(of[*event.Exit](event.KindExit, pid))
			if len(got) != 1 {
				t.Fatalf("got %d exits of pid %d, want 1", len(got), pid)
			}
			if e := got[0].(*event.Exit); status.ExitStatus() != int(e.ExitCode) || e.Signal != 0 {
				t.Errorf("got code %d, signal %d; the parent was told %#x", e.ExitCode, e.Signal, status)
			}
		}
	})
	t.Run("a name of its own", func(t *testing.T) {
		pid := run(t, helper, "name", "kworker/0:1\xff")
		got := l.wait(t, 1, "exit", of[*event.Exit](event.KindExit, pid))[0]
		if got.Head().Comm != "kworker/0:1\xff" {
			t.Errorf("Comm = %q", got.Head().Comm)
		}
	})
	t.Run("times and memory", func(t *testing.T) {
		c := exec.Command(helper, "burn", "300", "40")
		began := time.Now()
		pid := runCmd(t, c)
		took := time.Since(began)
		got := l.wait(t, 1, "exit", of[*event.Exit](event.KindExit, pid))[0].(*event.Exit)
		usage := c.ProcessState.SysUsage().(*syscall.Rusage)
		near := func(what string, got uint64, want, off time.Duration) {
			if d := time.Duration(got) - want; d < -off || d > off {
				t.Errorf("%s = %v, want %v within %v", what, time.Duration(got), want, off)
			}
		}
		// wait4(2) sums what its counters have once the process is gone, a little later. The
		// split between user and system is by ticks, and may have moved by some meanwhile.
		user, system := time.Duration(usage.Utime.Nano()), time.Duration(usage.Stime.Nano())
		near("CPU time", got.UserNs+got.SystemNs, user+system, 20*time.Millisecond)
		near("user time", got.UserNs, user, 40*time.Millisecond)
		near("system time", got.SystemNs, system, 40*time.Millisecond)
		if time.Duration(got.DurationNs) > took || time.Duration(got.DurationNs) < 300*time.Millisecond {
			t.Errorf("duration = %v, the parent waited %v", time.Duration(got.DurationNs), took)
		}
		if rss := uint64(usage.Maxrss) << 10; got.MaxRSS != rss || rss < 20<<20 {
			t.Errorf("max rss = %d, want %d", got.MaxRSS, rss)
		}
	})
}

// lives follows processes from fork to exit: one identity all the way, in order.
func lives(t *testing.T, l *live) {
	pid := run(t, helper, "argv0", "again", helper, "exit", "3")
	l.wait(t, 1, "exit", of[*event.Exit](event.KindExit, pid))
	var got []string
	var start uint64
	for _, e := range l.snapshot(func(e event.Event) bool {
		f, ok := e.(*event.Fork)
		return e.Head().PID == uint32(pid) || ok && f.ChildPID == uint32(pid)
	}) {
		got = append(got, e.Head().Kind.String())
		at := e.Head().Start
		if f, ok := e.(*event.Fork); ok {
			at = f.ChildStart
		}
		if start != 0 && at != start {
			t.Errorf("%s: started at %d, before at %d", e.Head().Kind, at, start)
		}
		start = at
	}
	if want := "fork exec exec exit"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// The seed tells of what runs already: with the identity that later events carry.
func TestLiveSeed(t *testing.T) {
	l := watch(t, Options{Kinds: processKinds})
	prog := t.TempDir() + "/sleeper"
	copyHelper(t, prog)
	c := exec.Command(prog, "sleep")
	c.Dir = "/"
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	pid := c.Process.Pid
	exec1 := l.nth(t, pid, 1)

	// Run is going on: a sensor may be seeded before only, so another is asked.
	s, err := Open(Options{Kinds: processKinds, FS: l.s.options.FS, BootID: l.s.options.BootID, Object: l.s.object.name})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ways := []string{"iterator", "procfs"}
	if s.object.perf {
		ways = ways[1:] // older kernels have no iterators
	}
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			if way == "procfs" && s.seed != nil {
				s.seed.Close()
				s.seed, s.seedRefused = nil, unix.EPERM
			}
			var sleeper, init, kernel, self *event.Exec
			began := time.Now()
			if err := s.Seed(context.Background(), func(e *event.Exec) {
				c := *e
				switch {
				case e.PID == uint32(pid):
					sleeper = &c
				case e.PID == 1:
					init = &c
				case e.PID == 2:
					kernel = &c
				case e.PID == uint32(os.Getpid()):
					self = &c
				}
			}); err != nil {
				t.Fatal(err)
			}
			t.Logf("seeded in %v", time.Since(began))
			if sleeper == nil || init == nil || self == nil {
				t.Fatalf("sleeper %v, init %v, self %v", sleeper != nil, init != nil, self != nil)
			}
			want := *exec1
			want.Fidelity = event.FidelityState
			want.NTime, want.Time, want.Filename = sleeper.NTime, sleeper.Time, sleeper.Filename
			if way == "procfs" {
				want.Source = "procfs"
				// What /proc does not tell in one look, or in full.
				want.Inode, want.Mode, want.TTY, want.CgroupID, want.CgroupV1, want.OtherMount = 0, 0, "", 0, 0, false
				if d := int64(want.Start - sleeper.Start); d < 0 || d > 10e6 {
					t.Errorf("start = %d, want %d within a tick", sleeper.Start, want.Start)
				}
				want.Start, want.PStart = sleeper.Start, sleeper.PStart
			}
			compare(t, &want, sleeper)
			if init.PID != 1 || init.Start == 0 || init.PPID != 0 {
				t.Errorf("init: %+v", init)
			}
			if kernel != nil && kernel.Path == "" && (kernel.Comm != "kthreadd" || kernel.Cwd != "" && way == "iterator") {
				t.Errorf("kthreadd: %+v", kernel)
			}
		})
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.Wait()
}
