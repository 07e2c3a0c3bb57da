package procfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// oddName is an executable's name whose first 15 bytes, the comm, are made to be misread.
const oddName = "a) S 0 (\nb\\\xff c d"

func TestProcessOfOddNames(t *testing.T) {
	c := (&child{
		name: oddName, mode: "wait", args: []string{"a b", "", "c\nd\xff", " "},
		env: []string{"ODD=a=b\nc", "NOEQUALS", "", "=x", "LAST= \xff"},
	}).start(t)
	_, p := openProcess(t, c.Pid)

	var s Stat
	check(t, p.Stat(&s))
	got := Stat{PID: s.PID, Comm: s.Comm, PPID: s.PPID, PGroup: s.PGroup, Session: s.Session, Nice: s.Nice}
	session, _ := unix.Getsid(0)
	priority, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	check(t, err)
	want := Stat{PID: c.Pid, Comm: "a) S 0 (\nb\\\xff c ", PPID: os.Getpid(), PGroup: unix.Getpgrp(), Session: session,
		Nice: 20 - priority} // the system call's own form (getpriority(2))
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("stat (-want +got):\n%s", d)
	}
	if s.Threads < 1 || s.Virtual < 1<<20 || s.Resident < 100 || s.KernelThread() || !strings.ContainsRune("RSD", rune(s.State)) {
		t.Errorf("implausible: %+v", s)
	}

	args, cut, err := p.Cmdline()
	if want := strings.Join(c.argv, "\x00") + "\x00"; string(args) != want || cut || err != nil {
		t.Errorf("cmdline %q, %t, %v, want %q", args, cut, err, want)
	}
	env, cut, err := p.Environ()
	if want := strings.Join(c.env, "\x00") + "\x00"; string(env) != want || cut || err != nil {
		t.Errorf("environment %q, %t, %v, want %q", env, cut, err, want)
	}
	path, deleted, err := p.Exe()
	if path != c.path || deleted || err != nil {
		t.Errorf("exe %q, %t, %v, want %q, false", path, deleted, err, c.path)
	}
}

func TestStartTime(t *testing.T) {
	now := func() uint64 {
		var ts unix.Timespec
		check(t, unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts))
		return uint64(ts.Nano())
	}
	before := now()
	c := (&child{name: "child", mode: "wait"}).start(t)
	after := now()
	_, p := openProcess(t, c.Pid)
	var s Stat
	check(t, p.Stat(&s))
	// The kernel cuts to ticks of 10 ms.
	if got := s.StartTimeNs(); got%10_000_000 != 0 || got+10_000_000 <= before || got > after {
		t.Errorf("start time %d ns, started between %d and %d", got, before, after)
	}
}

func TestBootTime(t *testing.T) {
	boot, err := BootTime()
	check(t, err)
	var ts unix.Timespec
	check(t, unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts))
	if off := time.Since(time.Unix(0, boot+ts.Nano())).Abs(); off > time.Second {
		t.Errorf("boot time is %v away from the wall clock", off)
	}
	// The kernel's own word, in whole seconds.
	b, err := os.ReadFile("/proc/stat")
	check(t, err)
	_, rest, ok := strings.Cut(string(b), "\nbtime ")
	var btime int64
	if _, err := fmt.Sscan(rest, &btime); err != nil || !ok {
		t.Fatalf("no btime: %v", err)
	}
	if d := boot/1e9 - btime; d < -1 || d > 1 {
		t.Errorf("boot time %d, /proc/stat says %d", boot/1e9, btime)
	}
}

func TestBootID(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "proc/sys/kernel/random/boot_id")
	check(t, os.MkdirAll(filepath.Dir(file), 0o755))
	check(t, os.WriteFile(file, []byte("f7c0bb2a-3a4e-4ef8-9ee6-f9b1b3ec66e1\n"), 0o644))
	if id, err := At(root).BootID(); id != "f7c0bb2a-3a4e-4ef8-9ee6-f9b1b3ec66e1" || err != nil {
		t.Errorf("boot id %q, %v", id, err)
	}
	check(t, os.WriteFile(file, []byte("\n"), 0o644))
	if id, err := At(root).BootID(); err == nil {
		t.Errorf("boot id %q from an empty file", id)
	}
}

func TestExeDeleted(t *testing.T) {
	c := (&child{name: "prog", mode: "wait"}).start(t)
	_, p := openProcess(t, c.Pid)
	look := func(want string, wantDeleted bool) {
		t.Helper()
		path, deleted, err := p.Exe()
		if path != want || deleted != wantDeleted || err != nil {
			t.Errorf("exe %q, %t, %v, want %q, %t", path, deleted, err, want, wantDeleted)
		}
	}
	check(t, os.Rename(c.path, c.path+"2"))
	look(c.path+"2", false)
	check(t, os.Remove(c.path+"2"))
	look(c.path+"2", true)
	// Somebody else's file of the marked name changes nothing.
	check(t, os.WriteFile(c.path+"2 (deleted)", nil, 0o755))
	look(c.path+"2", true)
}

func TestExeNamedDeleted(t *testing.T) {
	c := (&child{name: "prog (deleted)", mode: "wait"}).start(t)
	_, p := openProcess(t, c.Pid)
	path, deleted, err := p.Exe()
	if path != c.path || deleted || err != nil {
		t.Errorf("exe %q, %t, %v, want %q, false", path, deleted, err, c.path)
	}
	check(t, os.Remove(c.path))
	path, deleted, err = p.Exe()
	if path != c.path || !deleted || err != nil {
		t.Errorf("exe %q, %t, %v, want %q, true", path, deleted, err, c.path)
	}
}

func TestExeInAnotherMountNamespace(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	c := (&child{name: "child", mode: "remount", args: []string{dir}, attr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}}).start(t)
	hidden := filepath.Join(dir, "hidden")
	if _, err := os.Stat(hidden); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s can be seen from here: %v", hidden, err)
	}
	_, p := openProcess(t, c.Pid)
	path, deleted, err := p.Exe()
	if path != hidden || deleted || err != nil {
		t.Errorf("exe %q, %t, %v, want %q, false", path, deleted, err, hidden)
	}
}

func TestDirectories(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "work \n dir")
	check(t, os.Mkdir(dir, 0o755))
	c := (&child{name: "child", mode: "wait", dir: dir}).start(t)
	_, p := openProcess(t, c.Pid)
	if got, err := p.Cwd(); got != dir || err != nil {
		t.Errorf("cwd %q, %v, want %q", got, err, dir)
	}
	if got, err := p.Root(); got != "/" || err != nil {
		t.Errorf("root %q, %v, want /", got, err)
	}
	check(t, os.Remove(dir))
	if got, err := p.Cwd(); got != dir+" (deleted)" || err != nil {
		t.Errorf("cwd %q, %v, want %q", got, err, dir+" (deleted)")
	}
}

func TestStatusOfCredentials(t *testing.T) {
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	attr := &syscall.SysProcAttr{}
	if uid == 0 {
		uid, gid = 4294967294, 1235
		attr.Credential = &syscall.Credential{Uid: uid, Gid: gid, Groups: []uint32{7}}
	}
	// A directory of the test is not for others to enter.
	f, err := os.CreateTemp("", "goshawk-child")
	check(t, err)
	f.Close()
	defer os.Remove(f.Name())
	check(t, os.Chmod(f.Name(), 0o755))
	c := (&child{path: f.Name(), mode: "wait", attr: attr}).start(t)
	_, p := openProcess(t, c.Pid)
	got := Status{TracerPID: 9}
	check(t, p.Status(&got))
	want := Status{TGID: c.Pid, UID: uid, EUID: uid, SUID: uid, FSUID: uid, GID: gid, EGID: gid, SGID: gid, FSGID: gid, NSPID: c.Pid}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("status (-want +got):\n%s", d)
	}
}

func TestIOCountsWrites(t *testing.T) {
	c := (&child{name: "child", mode: "write", args: []string{filepath.Join(t.TempDir(), "out")}}).start(t)
	_, p := openProcess(t, c.Pid)
	got := IO{CancelledWriteBytes: 9}
	check(t, p.IO(&got))
	if got.WriteChars < 1<<20 || got.WriteChars > 2<<20 || got.CancelledWriteBytes != 0 {
		t.Errorf("a process that wrote 1 MiB has %+v", got)
	}
}

func TestFDs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe:[1] \n x")
	f, err := os.Create(path)
	check(t, err)
	defer f.Close()
	gone, err := os.CreateTemp(t.TempDir(), "gone")
	check(t, err)
	defer gone.Close()
	check(t, os.Remove(gone.Name()))
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	sf := os.NewFile(uintptr(sock), "socket")
	defer sf.Close()
	var st unix.Stat_t
	check(t, unix.Fstat(sock, &st))
	c := (&child{name: "child", mode: "wait", files: []*os.File{f, gone, sf}}).start(t)
	_, p := openProcess(t, c.Pid)
	got := map[int]string{}
	check(t, p.FDs(func(fd int, target []byte) {
		if fd >= 3 && fd <= 5 {
			got[fd] = string(target)
		}
	}))
	want := map[int]string{3: path, 4: gone.Name() + " (deleted)", 5: fmt.Sprintf("socket:[%d]", st.Ino)}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("descriptors (-want +got):\n%s", d)
	}
}

func TestMaps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mapped file\n2")
	check(t, os.WriteFile(path, make([]byte, 16384), 0o755))
	var st unix.Stat_t
	check(t, unix.Stat(path, &st))
	c := (&child{name: "child", mode: "map", args: []string{path}}).start(t)
	check(t, os.Remove(path))
	_, p := openProcess(t, c.Pid)
	type m struct {
		Length, Offset, Inode     uint64
		Permissions, Path, Device string
		Deleted                   bool
	}
	var got []m
	stack := false
	check(t, p.Maps(func(x *Map) {
		if x.Inode == st.Ino {
			got = append(got, m{x.End - x.Start, x.Offset, x.Inode, string(x.Permissions), string(x.Path), string(x.Device), x.Deleted})
		}
		stack = stack || string(x.Path) == "[stack]" && x.Inode == 0
	}))
	want := []m{{8192, 4096, st.Ino, "r-xs", strings.ReplaceAll(path, "\n", "\\012"), fmt.Sprintf("%02x:%02x", unix.Major(st.Dev), unix.Minor(st.Dev)), true}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("mappings of the file (-want +got):\n%s", d)
	}
	if !stack {
		t.Error("no stack")
	}
}

func TestNamespaces(t *testing.T) {
	needRoot(t)
	c := (&child{name: "child", mode: "wait", attr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS | unix.CLONE_NEWIPC}}).start(t)
	_, p := openProcess(t, c.Pid)
	var got, own Namespaces
	check(t, p.Namespaces(&got))
	// Following the link is another way to the number.
	inode := func(pid int, name string) uint64 {
		var st unix.Stat_t
		check(t, unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, name), &st))
		return st.Ino
	}
	want := Namespaces{
		Cgroup: inode(c.Pid, "cgroup"), IPC: inode(c.Pid, "ipc"), Mnt: inode(c.Pid, "mnt"), Net: inode(c.Pid, "net"),
		PID: inode(c.Pid, "pid"), User: inode(c.Pid, "user"), UTS: inode(c.Pid, "uts"),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("namespaces (-want +got):\n%s", d)
	}
	_, p = openProcess(t, os.Getpid())
	check(t, p.Namespaces(&own))
	if own.UTS == got.UTS || own.IPC == got.IPC || own.Mnt != got.Mnt {
		t.Errorf("own %+v, child in new UTS and IPC namespaces %+v", own, got)
	}
}

func TestAuditAndCgroup(t *testing.T) {
	_, p := openProcess(t, os.Getpid())
	for name, read := range map[string]func() (uint32, error){"loginuid": p.Loginuid, "sessionid": p.Sessionid} {
		b, err := os.ReadFile("/proc/self/" + name)
		got, gotErr := read()
		if os.IsNotExist(err) { // no audit in this kernel
			if gotErr != ErrGone {
				t.Errorf("%s: %v, want ErrGone", name, gotErr)
			}
			continue
		}
		check(t, err)
		if fmt.Sprint(got) != strings.TrimSpace(string(b)) || gotErr != nil {
			t.Errorf("%s %d, %v, want %s", name, got, gotErr, b)
		}
	}
	want, err := os.ReadFile("/proc/self/cgroup")
	check(t, err)
	if got, err := p.Cgroup(); string(got) != string(want) || err != nil {
		t.Errorf("cgroup %q, %v, want %q", got, err, want)
	}
}

func TestCmdlineIsBounded(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	c := (&child{name: "child", mode: "wait", args: []string{long, long, long}, env: []string{"L=" + long, "M=" + long, "N=" + long}}).start(t)
	_, p := openProcess(t, c.Pid)
	args, cut, err := p.Cmdline()
	if want := strings.Join(c.argv, "\x00")[:256<<10]; string(args) != want || !cut || err != nil {
		t.Errorf("cmdline of %d bytes, %t, %v; want its first 262144", len(args), cut, err)
	}
	env, cut, err := p.Environ()
	if want := strings.Join(c.env, "\x00")[:256<<10]; string(env) != want || !cut || err != nil {
		t.Errorf("environment of %d bytes, %t, %v; want its first 262144", len(env), cut, err)
	}
}

func TestPids(t *testing.T) {
	c := (&child{name: "child", mode: "wait"}).start(t)
	d, _ := openProcess(t, c.Pid)
	for range 2 { // the second time from the start again
		pids, err := d.Pids(nil)
		check(t, err)
		if !slices.Contains(pids, c.Pid) || !slices.Contains(pids, os.Getpid()) || !slices.IsSorted(pids) {
			t.Errorf("%d and %d are not both in, or not in order: %v", c.Pid, os.Getpid(), pids)
		}
	}
}

// A process that ends is gone for whoever holds it, even if its pid is used again.
func TestGone(t *testing.T) {
	c := (&child{name: "child", mode: "wait"}).start(t)
	d, p := openProcess(t, c.Pid)
	check(t, c.Kill())

	// A zombie has a stat, but nothing else worth the name.
	var s Stat
	for range 500 {
		check(t, p.Stat(&s))
		if s.State == 'Z' && s.Virtual == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if s.State != 'Z' || s.Virtual != 0 {
		t.Fatalf("not a zombie: %+v", s)
	}
	if args, _, err := p.Cmdline(); len(args) > 0 || err != nil {
		t.Errorf("cmdline of a zombie: %q, %v", args, err)
	}
	if path, _, err := p.Exe(); path != "" || err != ErrGone {
		t.Errorf("exe of a zombie: %q, %v", path, err)
	}

	c.Wait()
	var sockets Sockets
	for name, err := range map[string]error{
		"stat":       p.Stat(&s),
		"status":     p.Status(new(Status)),
		"io":         p.IO(new(IO)),
		"fds":        p.FDs(func(int, []byte) { t.Error("a descriptor") }),
		"maps":       p.Maps(func(*Map) { t.Error("a mapping") }),
		"namespaces": p.Namespaces(new(Namespaces)),
		"sockets":    sockets.Visit(p),
		"cmdline":    func() error { _, _, err := p.Cmdline(); return err }(),
		"environ":    func() error { _, _, err := p.Environ(); return err }(),
		"cgroup":     func() error { _, err := p.Cgroup(); return err }(),
		"cwd":        func() error { _, err := p.Cwd(); return err }(),
		"loginuid":   func() error { _, err := p.Loginuid(); return err }(),
		"open":       func() error { _, err := d.Process(c.Pid); return err }(),
		"zero":       func() error { _, err := d.Process(0); return err }(),
		"negative":   func() error { _, err := d.Process(-1); return err }(),
	} {
		if err != ErrGone {
			t.Errorf("%s: %v, want ErrGone", name, err)
		}
	}
}

func TestOpenNames(t *testing.T) {
	if _, err := At(t.TempDir()).Open(); err == nil || !strings.HasPrefix(err.Error(), "open \"/") {
		t.Errorf("opening nothing: %v", err)
	}
}

func TestRefusalIsPermission(t *testing.T) {
	if err := processError("read", "exe\x00", 17, unix.EACCES); !errors.Is(err, os.ErrPermission) || !strings.HasPrefix(err.Error(), "read exe of process 17: ") {
		t.Errorf("refusal is %v", err)
	}
}

// Reading a process costs strings only: its name and its paths.
func TestAllocations(t *testing.T) {
	c := (&child{name: "child", mode: "wait"}).start(t)
	_, p := openProcess(t, c.Pid)
	d := p.d
	var s Stat
	var status Status
	got := testing.AllocsPerRun(100, func() {
		p, err := d.Process(c.Pid)
		check(t, err)
		check(t, p.Stat(&s))
		check(t, p.Status(&status))
		p.Cmdline()
		p.Exe()
		p.Cwd()
	})
	if got > 2 {
		t.Errorf("%v allocations a process, want at most 2", got)
	}
	got = testing.AllocsPerRun(100, func() { p.FDs(func(int, []byte) {}) })
	if got > 2 {
		t.Errorf("%v allocations for all descriptors, want at most 2", got)
	}
}
