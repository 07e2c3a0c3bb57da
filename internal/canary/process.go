package canary

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Argument is what a program that uses a canary must look for first: started with it as
// its first argument, it calls Child and ends with the code that this returns.
const Argument = "canary-child"

// childCode is no code that a failing Go program ends with by itself.
const childCode = 42

// Child is the life of the process that the canary starts: it waits for the end of its
// standard input, so that it cannot exit before its pid is known, and exits.
func Child() (code int) {
	var b [1]byte
	for {
		if _, err := os.Stdin.Read(b[:]); err != nil {
			return childCode
		}
	}
}

// childArgs are the arguments of the process started, as an event shows them.
func childArgs(nonce string) string {
	return os.Args[0] + "\x00" + Argument + "\x00" + nonce + "\x00"
}

// start starts this program as its own child and ends it. /proc/self/exe is this very file,
// whatever lies under its name by now. os.StartProcess would do, but begins with a child of
// its own, to find out whether it may use pidfd_open(2).
func (c *Canary) start(r *round, exit *trial) error {
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	defer out.Close()
	c.mu.Lock()
	r.starting = true
	c.mu.Unlock()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{os.Args[0], Argument, r.nonce}, &syscall.ProcAttr{
		Dir: "/", Files: []uintptr{in.Fd(), in.Fd(), in.Fd()}, Env: []string{"GOMAXPROCS=1", "GOGC=off"},
	})
	c.mu.Lock()
	r.starting = false
	if err == nil && r.child == 0 {
		r.child = uint32(pid)
	}
	exit.done = time.Now()
	c.mu.Unlock()
	if err != nil {
		return err
	}
	_ = unix.Kill(pid, unix.SIGCONT) // which says nothing to it
	// Its pid is its own until we have waited for it.
	stuck := time.AfterFunc(maxStart, func() { unix.Kill(pid, unix.SIGKILL) })
	defer stuck.Stop()
	if err := out.Close(); err != nil {
		return err
	}
	var status syscall.WaitStatus
	for {
		if _, err = syscall.Wait4(pid, &status, 0, nil); err != syscall.EINTR {
			break
		}
	}
	if err == nil && status.ExitStatus() != childCode {
		err = fmt.Errorf("it ended with status %#x", status)
	}
	return err
}

// process starts a process: fork, exec and exit.
func (c *Canary) process(r *round, hooks []event.Hook) []*trial {
	exe, _ := os.Readlink("/proc/self/exe")
	exe = strings.TrimSuffix(exe, " (deleted)")
	fork := &trial{Result: Result{Kind: event.KindFork, What: "start goshawk"}, hooks: []string{"fork"}}
	exec := &trial{Result: Result{Kind: event.KindExec, What: "start goshawk"}, hooks: []string{"exec"}}
	exit := &trial{Result: Result{Kind: event.KindExit, What: fmt.Sprintf("exit with %d", childCode)}, hooks: []string{"exit"}}
	fork.match = func(e event.Event) bool {
		x, ok := e.(*event.Fork)
		return ok && (r.child == 0 || x.ChildPID == r.child)
	}
	fork.check = func(e event.Event) string {
		return wrong("child_process_id", e.(*event.Fork).ChildStart != 0)
	}
	exec.match = func(e event.Event) bool { return e.Head().Kind == event.KindExec }
	exec.check = func(e event.Event) string {
		x := e.(*event.Exec)
		// Seen from a container's root a path is shorter than the kernel knows it.
		return wrong("path", strings.HasSuffix(x.Path, exe)) + wrong("ppid", x.PPID == c.self.Load()) +
			wrong("args_length", x.ArgsLength == uint64(len(x.Args))) + wrong("process_id", x.Start != 0)
	}
	exit.match = func(e event.Event) bool {
		return e.Head().Kind == event.KindExit && e.Head().PID == r.child
	}
	exit.check = func(e event.Event) string {
		x := e.(*event.Exit)
		return wrong("exit_code", x.ExitCode == childCode) + wrong("signal", x.Signal == 0) + wrong("process_id", x.Start != 0)
	}
	sent := signal(r)
	all := []*trial{fork, exec, sent, exit}
	c.mu.Lock()
	for _, t := range all {
		t.done = time.Now()
		c.expect(r, t, hooks)
	}
	c.mu.Unlock()
	if err := c.start(r, exit); err != nil {
		c.mu.Lock()
		r.drop(all, "start goshawk: "+err.Error())
		c.mu.Unlock()
	}
	return all
}

// drop takes back what could not be done.
func (r *round) drop(ts []*trial, why string) {
	for _, t := range ts {
		for i, w := range r.waiting {
			if w == t {
				r.waiting = append(r.waiting[:i], r.waiting[i+1:]...)
				break
			}
		}
		t.Skipped = why
	}
}

// wrong names a field that is not as it should be.
func wrong(field string, right bool) string {
	if right {
		return ""
	}
	return field + " is wrong; "
}
