package sensor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The live tests attach to this kernel, make things happen, and compare the events with
// what they did, word for word. They see the whole host, and pick their own events by pid.

// patience is how long a test waits for an event that must come. The machine may be busy.
const patience = 20 * time.Second

// helper is the program built from testdata/helper.c.
var helper string

// The first thread is left alone: /proc/self is what that thread sees, and tests put theirs
// into other namespaces. Only while variables are initialized is it sure to be the first.
var _ = func() bool { runtime.LockOSThread(); return true }()

// TestMain builds the helper and sees that nothing of ours is left at the end.
func TestMain(m *testing.M) {
	code := runTests(m)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "goshawk-sensor-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if helper = os.Getenv("GOSHAWK_TEST_HELPER"); helper == "" {
		helper = filepath.Join(dir, "helper")
		out, err := exec.Command("gcc", "-static", "-O1", "-Wall", "-Werror", "-o", helper, "testdata/helper.c", "-lpthread").CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "build testdata/helper.c: %v\n%s", err, out)
			return 1
		}
	}
	before := leftovers()
	code := m.Run()
	if after := leftovers(); code == 0 && !slices.Equal(before, after) {
		fmt.Fprintf(os.Stderr, "before the tests: %q\nafter: %q\n", before, after)
		return 1
	}
	return code
}

// leftovers lists what a sensor could leave behind: the BPF objects and perf events that
// this process holds (they end with the last descriptor), and the mounts that it sees.
func leftovers() []string {
	var out []string
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		to, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		if strings.HasPrefix(to, "anon_inode:bpf") || strings.Contains(to, "perf_event") || strings.HasPrefix(to, "net:") {
			out = append(out, to)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, "goshawk") || strings.Contains(line, "tracefs") {
			out = append(out, line)
		}
	}
	return out
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: attaches BPF programs")
	}
}

// live is a running sensor, and what it has told so far.
type live struct {
	t      testing.TB
	s      *Sensor
	cancel context.CancelFunc
	done   chan error
	out    chan *event.Batch

	tiers map[string]string // hook → tier in use

	mu      sync.Mutex
	events  []event.Event
	arrived chan struct{} // closed and made anew at each batch
	stopped bool

	collected chan struct{} // closed when all events have arrived
}

// testObject is the object that the live tests run with: the best that this kernel takes, or
// the one that GOSHAWK_TEST_OBJECT names.
func testObject(t testing.TB) *object {
	t.Helper()
	o, err := choose(os.Getenv("GOSHAWK_TEST_OBJECT"))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// watch opens a sensor, each hook at the tier that o forces, or at the best that this kernel
// grants; a program that the verifier does not take is a fault of ours.
func watch(t testing.TB, o Options) *live {
	t.Helper()
	needRoot(t)
	if o.FS == (procfs.FS{}) {
		o.FS = procfs.At("")
	}
	o.Object = testObject(t).name
	if o.BulkBytes == 0 { // room for what else goes on on the machine
		o.CriticalBytes, o.BulkBytes = 8<<20, 16<<20
	}
	o.BootID = "0123456789abcdef0123456789abcdef"
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range s.Hooks() {
		want := o.Tiers[h.Name]
		switch {
		case h.Name == "io_uring" && refusal(t, h.Name, "tp_btf") != "" && h.Tier == "":
		case want == "none" && h.Tier != "", want != "none" && want != "" && h.Tier != want, want == "" && h.Tier == "",
			strings.Contains(h.Refused, "verifier"):
			t.Errorf("hook %s is at tier %q, want %q; refused: %s", h.Name, h.Tier, want, h.Refused)
		}
	}
	tiers := map[string]string{}
	for _, h := range s.Hooks() {
		tiers[h.Name] = h.Tier
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &live{t: t, s: s, tiers: tiers, cancel: cancel, done: make(chan error, 1),
		out: make(chan *event.Batch, 4), arrived: make(chan struct{}), collected: make(chan struct{})}
	go func() {
		l.done <- s.Run(ctx, l.out)
		close(l.out)
	}()
	go func() {
		defer close(l.collected)
		for b := range l.out { // batches are not released: their events are kept
			l.mu.Lock()
			l.events = append(l.events, b.Events...)
			close(l.arrived)
			l.arrived = make(chan struct{})
			l.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		l.stop()
		<-l.collected
	})
	return l
}

// stop ends the sensor as the agent does, and returns when it is closed.
func (l *live) stop() {
	l.t.Helper()
	if l.stopped {
		return
	}
	l.stopped = true
	l.cancel()
	if err := <-l.done; err != nil {
		l.t.Errorf("Run: %v", err)
	}
	if err := l.s.Close(); err != nil {
		l.t.Errorf("Close: %v", err)
	}
}

// snapshot returns the events so far that pred takes, in the order of their arrival.
func (l *live) snapshot(pred func(event.Event) bool) []event.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []event.Event
	for _, e := range l.events {
		if pred(e) {
			out = append(out, e)
		}
	}
	return out
}

// wait returns the first n events that pred takes; it fails the test when fewer come.
func (l *live) wait(t testing.TB, n int, what string, pred func(event.Event) bool) []event.Event {
	t.Helper()
	limit := time.After(patience)
	for {
		l.mu.Lock()
		arrived := l.arrived
		l.mu.Unlock()
		if got := l.snapshot(pred); len(got) >= n {
			return got[:n]
		}
		select {
		case <-arrived:
		case <-limit:
			t.Fatalf("got %d of %d events: %s\n%s", len(l.snapshot(pred)), n, what, l.counts())
		}
	}
}

func (l *live) counts() string {
	var b bytes.Buffer
	for _, c := range l.s.Counts() {
		fmt.Fprintf(&b, "%v %s %s %d\n", c.Kind, c.What, c.Reason, c.N)
	}
	return b.String()
}

// settle waits until what has happened before it has arrived: a process of ours that comes
// and goes is the mark, on the critical ring, and bulk records come before it by time.
func (l *live) settle(t testing.TB) {
	t.Helper()
	pid := run(t, helper, "exit", "0")
	l.wait(t, 1, "end of the mark", of[*event.Exit](event.KindExit, pid))
}

// of selects the events of one kind and process.
func of[T event.Event](kind event.ID, pid int) func(event.Event) bool {
	return func(e event.Event) bool {
		_, ok := e.(T)
		return ok && e.Head().Kind == kind && e.Head().PID == uint32(pid)
	}
}

// run runs a program to its end and returns its pid; how it ends is the test's business.
func run(t testing.TB, path string, args ...string) int {
	t.Helper()
	return runCmd(t, exec.Command(path, args...))
}

func runCmd(t testing.TB, c *exec.Cmd) int {
	t.Helper()
	var stderr bytes.Buffer
	c.Stderr = &stderr
	err := c.Run()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		t.Fatal(err)
	}
	if c.ProcessState.ExitCode() == 125 {
		t.Fatalf("%v: %s", c.Args, stderr.String())
	}
	return c.Process.Pid
}

// ours is the header of an event that a child of this test causes. What no test can know
// beforehand (times, cgroup, pid) is copied from got, once it has been checked.
func ours(t testing.TB, got *event.Header, pid int) event.Header {
	t.Helper()
	now := event.BootNow()
	switch {
	case got.NTime > now || got.NTime+uint64(time.Hour) < now:
		t.Errorf("NTime = %d, now is %d", got.NTime, now)
	case got.Start > got.NTime || got.PStart > got.Start || got.PStart == 0:
		t.Errorf("parent started %d, process %d, event at %d", got.PStart, got.Start, got.NTime)
	}
	if d := time.Since(time.Unix(0, got.Time)); d < -10*time.Millisecond || d > time.Hour {
		t.Errorf("Time = %v, %v ago", time.Unix(0, got.Time), d)
	}
	return event.Header{
		Kind: got.Kind, Time: got.Time, NTime: got.NTime, Start: got.Start, PStart: got.PStart,
		Source: "ebpf", Fidelity: "kernel", BootID: "0123456789abcdef0123456789abcdef",
		PID: uint32(pid), TID: uint32(pid), PPID: uint32(os.Getpid()), Comm: "helper",
		AUID: number(t, "loginuid"), Session: number(t, "sessionid"), TTY: ownTTY(t), CgroupID: ownCgroup(t), CgroupV1: ownCgroupV1(t),
	}
}

func number(t testing.TB, file string) uint32 {
	b, err := os.ReadFile("/proc/self/" + file)
	if errors.Is(err, fs.ErrNotExist) {
		return ^uint32(0) // a kernel without audit
	}
	n, err2 := strconv.ParseUint(string(b), 10, 32)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// ownTTY is the name of this process's terminal, as field 7 of /proc/self/stat gives it.
func ownTTY(t testing.TB) string {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(b, []byte(") "))
	n, err := strconv.ParseUint(strings.Fields(string(rest))[4], 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		return ""
	}
	return newDecoder(&Options{}).tty(uint16(unix.Major(n)), unix.Minor(n))
}

// ownCgroup is the inode of this process's cgroup v2 directory.
func ownCgroup(t testing.TB) uint64 {
	root, err := procfs.At("").Cgroup2()
	if err != nil {
		t.Fatal(err)
	}
	return inode(t, filepath.Join(root, cgroupPath(t, 0)))
}

// ownCgroupV1 is the same in the v1 hierarchy that tells containers apart; 0 without one.
func ownCgroupV1(t testing.TB) uint64 {
	h, name := procfs.At("").ContainerHierarchy()
	if name == "" {
		return 0
	}
	return inode(t, filepath.Join(h.Mount, cgroupPath(t, h.ID)))
}

// cgroupPath is this process's cgroup in a hierarchy.
func cgroupPath(t testing.TB, hierarchy int) (path string) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	procfs.EachCgroup(b, func(l procfs.CgroupLine) {
		if l.Hierarchy == hierarchy {
			path = string(l.Path)
		}
	})
	if path == "" {
		t.Fatalf("no cgroup of hierarchy %d in /proc/self/cgroup", hierarchy)
	}
	return path
}

// mountOf is the number of the mount that a path is on.
func mountOf(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err != nil {
		t.Fatal(err)
	}
	return st.Mnt_id
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// onThread runs f on an OS thread of its own, which ends with it: what f does to its
// namespaces concerns nobody else.
func onThread(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		f()
	}()
	<-done
}

// hasFork says that the machine's system calls include fork(2); arm64 has clone(2) alone.
const hasFork = runtime.GOARCH == "amd64"
