package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// TestLiveRefused has one rule that cannot be: the others work.
func TestLiveRefused(t *testing.T) {
	needAudit(t)
	dir := t.TempDir()
	l := watch(t, Options{Kinds: []event.ID{event.KindExec, event.KindFile}, Watches: []Watch{
		{Path: filepath.Join(dir, "no", "such"), Dir: true}, {Path: dir, Dir: true}}})
	if got := l.lines(); strings.Count(got, "the kernel refuses the rule for file "+dir+"/no/such: no such file or directory") != 1 {
		t.Errorf("told %q", got)
	}
	before := l.seen("file")
	run(t, "/bin/touch", filepath.Join(dir, "new"))
	eventually(t, "a file made", func() bool { return l.seen("file") > before })
	eventually(t, "an exec", func() bool { return l.seen("exec") > 0 })

	l.stop()
	l = watch(t, Options{Kinds: []event.ID{event.KindFile}, Watches: []Watch{{Path: filepath.Join(dir, "no", "such"), Dir: true}}, NoRing: true})
	if h := l.s.Hooks(); len(h) != 1 || h[0].Tier != "" || !strings.Contains(h[0].Refused, "no such file or directory") {
		t.Errorf("hooks %+v", h)
	}
}

// TestLiveExclusions leaves out a user, an executable and a directory.
func TestLiveExclusions(t *testing.T) {
	needAudit(t)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "out"), 0o755); err != nil {
		t.Fatal(err)
	}
	touch := filepath.Join(dir, "touch")
	b, err := os.ReadFile("/bin/touch")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(touch, b, 0o755); err != nil { // of BusyBox too: it is its name that counts
		t.Fatal(err)
	}
	watched := []Watch{{Path: dir, Dir: true}}
	for i, c := range []struct {
		name string
		o    Options
		in   string
		seen bool
	}{
		{"seen", Options{}, dir, true},
		{"executable", Options{ExcludeExes: []string{touch}}, dir, false},
		{"another executable", Options{ExcludeExes: []string{"/bin/no"}}, dir, true},
		{"executable by rule", Options{ExcludeExes: []string{touch}, exesByRule: true}, dir, false},
		{"directory", Options{ExcludeDirs: []string{dir + "/out"}}, dir + "/out", false},
		{"another directory", Options{ExcludeDirs: []string{dir + "/out"}}, dir, true},
		{"user", Options{ExcludeUIDs: []uint32{0}}, dir, false},
		{"another user", Options{ExcludeUIDs: []uint32{1}}, dir, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Kinds, c.o.Watches = []event.ID{event.KindFile, event.KindUser}, watched
			l := watch(t, c.o)
			run(t, touch, filepath.Join(c.in, fmt.Sprint(i)))
			tellAudit(t, "goshawk test") // comes after it
			eventually(t, "a message of a program", func() bool { return l.seen("user") > 0 })
			if n := l.seen("file"); n > 0 != c.seen {
				t.Errorf("%d events of files: %s", n, l.lines())
			}
			l.stop()
		})
	}
}

// TestLiveRemoved removes our rules, as whoever loads others does.
func TestLiveRemoved(t *testing.T) {
	needAudit(t)
	l := watch(t, Options{Kinds: []event.ID{event.KindExec}})
	c, err := openControl()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	self := uint32(os.Getpid())
	before, err := left(c, self)
	if err != nil || before == 0 {
		t.Fatal(before, err)
	}
	for _, e := range deleteRules(c, l.s.journal.rules) {
		t.Fatal(e)
	}
	eventually(t, "the rules are back", func() bool {
		n, err := left(c, self)
		return err == nil && n == before
	})
	if !strings.Contains(l.lines(), "somebody removed our rules; they are added again") {
		t.Errorf("told %q", l.lines())
	}
	l.stop()
}

// TestLivePanic never lets a full queue stop the machine.
func TestLivePanic(t *testing.T) {
	needAudit(t)
	defer setStatus(t, setFailure, func(s *status) { s.failure = failPanic })()
	l := watch(t, Options{Backlog: 100})
	c, err := openControl()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	s, err := c.status()
	if err != nil || s.failure != failPrintk || s.backlogLimit != 100 || s.backlogWait != 0 {
		t.Errorf("status %+v, %v", s, err)
	}
	l.stop()
	if s, err = c.status(); err != nil || s.failure != failPanic {
		t.Errorf("status %+v, %v", s, err)
	}
}

// TestLiveSettingsOfOthers keeps what somebody set while we ran.
func TestLiveSettingsOfOthers(t *testing.T) {
	needAudit(t)
	defer setStatus(t, setBacklog, func(*status) {})()
	l := watch(t, Options{})
	setStatus(t, setBacklog, func(s *status) { s.backlogLimit = 1234 })
	l.stop()
	c, err := openControl()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if s, err := c.status(); err != nil || s.backlogLimit != 1234 {
		t.Errorf("status %+v, %v", s, err)
	}
}

// TestLiveFailedStart leaves nothing behind.
func TestLiveFailedStart(t *testing.T) {
	needAudit(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t)
	if s, err := Open(testOptions(t, Options{StateDir: filepath.Join(file, "state")})); err == nil {
		s.Close()
		t.Error("opened without a journal")
	}
	// The other end of it: opened, and never run.
	s, err := Open(testOptions(t, Options{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if after := snapshot(t); after != before {
		t.Errorf("audit is not what it was.\nbefore:\n%s\nafter:\n%s", before, after)
	}
}

// TestLiveRing removes a file through io_uring, where no rule on system calls looks.
func TestLiveRing(t *testing.T) {
	needAudit(t)
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l := watch(t, Options{Kinds: []event.ID{event.KindFile}, Watches: []Watch{{Path: dir, Dir: true}}})
	c, err := openControl()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	rules, err := c.rules()
	if err != nil {
		t.Fatal(err)
	}
	listed := false
	for _, raw := range rules {
		l, _ := parseRule(raw)
		listed = listed || l.list == listRing
	}
	if !listed {
		t.Skip("this kernel has no list of rules for io_uring (from Linux 5.16)")
	}
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), roleVar+"=ring", "FILE="+name)
	switch out, err := child.CombinedOutput(); {
	case bytes.HasPrefix(out, []byte("set up io_uring: ")):
		t.Skipf("this kernel lets nobody use it: %s", out)
	case err != nil || len(out) > 0:
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, "the file is removed", func() bool { return l.seen("file") == 1 })
}

// removeByRing removes a file.
func removeByRing(name string) error {
	r, err := openRing()
	if err != nil {
		return err
	}
	defer r.close()
	path, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	e := (*ringEntry)(unsafe.Pointer(&r.sqes[0]))
	*e = ringEntry{opcode: 36, fd: unix.AT_FDCWD, addr: uint64(uintptr(unsafe.Pointer(path)))}
	*(*uint32)(unsafe.Pointer(&r.sq[r.p.sq.array])) = 0
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&r.sq[r.p.sq.tail])), 1)
	const getEvents = 1
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 1, 1, getEvents, 0, 0)
	runtime.KeepAlive(path)
	if errno != 0 {
		return fmt.Errorf("enter: %w", errno)
	}
	if _, err := os.Stat(name); err == nil {
		return errors.New("the file is still there")
	}
	return nil
}

// ringEntry is struct io_uring_sqe.
type ringEntry struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	n, opFlags    uint32
	userData      uint64
	_             [3]uint64
}

// ring is the least of io_uring(7) that runs one operation after the other.
type ring struct {
	fd       int
	sq, sqes []byte
	p        ringParams
}

// ringParams is struct io_uring_params (linux/io_uring.h).
type ringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

func openRing() (*ring, error) {
	r := &ring{}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&r.p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("set up io_uring: %w", errno)
	}
	r.fd = int(fd)
	var err error
	if r.sq, err = unix.Mmap(r.fd, 0, int(r.p.sq.array+4*r.p.sqEntries), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, err
	}
	r.sqes, err = unix.Mmap(r.fd, 0x10000000, int(64*r.p.sqEntries), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return r, err
}

func (r *ring) close() {
	unix.Munmap(r.sq)
	unix.Munmap(r.sqes)
	unix.Close(r.fd)
}
