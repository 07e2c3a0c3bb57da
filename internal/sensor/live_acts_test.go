package sensor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

// actKinds are the kinds of which TestLiveActs does something.
var actKinds = []event.ID{event.KindCredential, event.KindPtrace, event.KindSignal, event.KindBPF, event.KindMount, event.KindNamespace,
	event.KindMemory, event.KindExec, event.KindExit}

// TestLiveActs does each thing that the hooks on system calls, credentials and signals tell of,
// in a thread of its own, and compares.
func TestLiveActs(t *testing.T) {
	eachTier(t, Options{Kinds: actKinds}, func(t *testing.T, l *live) {
		dir := t.TempDir()
		sleeper := exec.Command(helper, "sleep")
		sleeper.Args = []string{"/bin/sleep", "600"}
		sleeper.Path = "/bin/sleep"
		if _, err := os.Stat(sleeper.Path); err != nil {
			t.Fatal(err)
		}
		if err := sleeper.Start(); err != nil {
			t.Fatal(err)
		}
		target := sleeper.Process.Pid
		defer func() {
			sleeper.Process.Kill()
			sleeper.Wait()
		}()
		// Start returns when the old program is let go, and its memory is not yet the new one's.
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", target)); err != nil || strings.Contains(string(stat), ") S ") {
				break
			}
		}
		mark := fmt.Sprintf("goshawk-test-%d-%d", os.Getpid(), time.Now().UnixNano())
		errs := make(chan error, 1)
		tid := make(chan int, 1)
		go func() { // what it does to itself stays with the thread, which ends
			runtime.LockOSThread()
			tid <- unix.Gettid()
			errs <- act(dir, mark, target)
		}()
		thread := <-tid
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
		want := []string{
			"ptrace seize " + fmt.Sprint(target) + " ok kernel",
			"ptrace process_vm_readv " + fmt.Sprint(target) + " ok kernel",
			"signal 28 " + fmt.Sprint(target) + " ok",
			"mount mount none " + dir + " tmpfs MS_NOSUID|MS_NODEV size=1m ok user",
			"mount umount  " + dir + "  MNT_DETACH  ok user",
			"mount propagation  /  MS_REC|MS_PRIVATE  ok user",
			"namespace unshare mnt 0  ok kernel",
			"namespace chroot  0 " + dir + "/no ENOENT user",
			"memory memfd_create " + mark + "  MFD_CLOEXEC ok user",
			"memory mmap  PROT_READ|PROT_WRITE|PROT_EXEC MAP_PRIVATE|MAP_ANONYMOUS ok kernel",
			"memory mprotect  PROT_READ|PROT_EXEC  ok kernel",
			"bpf prog_load socket_filter test_prog 2 ok",
		}
		setGroup, setUser := "setresgid", "setresuid"
		if tier := l.tiers["credential"]; tier != "tracepoint_pair" && (l.s.object.perf || !kernelAtLeast(5, 15)) {
			setGroup, setUser = "commit_creds", "commit_creds" // which call it was for cannot be read there
		}
		want = append(want, "credential "+setGroup+" gid 0 -> 0 sgid 0 -> 4242 +", "credential "+setUser+" uid 0 -> 4243 suid 0 -> 4243 -")
		if kernelAtLeast(3, 11) {
			var st unix.Stat_t
			if err := unix.Stat("/proc/self/ns/uts", &st); err == nil {
				want = append(want, fmt.Sprintf("namespace setns uts %d  ok kernel", st.Ino))
			}
		}
		lines := map[string]bool{}
		missing := func(w string) bool { return !lines[w] }
		// Signals are in another ring than what ends last.
		for end := time.Now().Add(10 * time.Second); len(lines) == 0 || slices.ContainsFunc(want, missing) && time.Now().Before(end); {
			l.settle(t)
			for _, e := range l.snapshot(func(e event.Event) bool { return e.Head().TID == uint32(thread) }) {
				lines[actLine(e)] = true
			}
		}
		for _, w := range want {
			if missing(w) {
				t.Errorf("not told: %q", w)
			}
		}
		if t.Failed() {
			for line := range lines {
				t.Logf("told: %q", line)
			}
			t.Log(l.counts())
		}
	})
}

// act does what TestLiveActs looks for.
func act(dir, mark string, target int) error {
	steps := []struct {
		what string
		do   func() error
	}{
		{"seize", func() error {
			_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(target), 0, 0, 0, 0)
			return errnoOf(e)
		}},
		{"process_vm_readv", func() error {
			var b [1]byte
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", target))
			if err != nil {
				return err
			}
			var from uint64
			if _, err := fmt.Sscanf(string(text), "%x-", &from); err != nil {
				return err
			}
			remote := []unix.RemoteIovec{{Base: uintptr(from), Len: 1}}
			local := []unix.Iovec{{Base: &b[0], Len: 1}}
			_, err = unix.ProcessVMReadv(target, local, remote, 0)
			return err
		}},
		{"kill", func() error { return unix.Kill(target, unix.SIGWINCH) }},
		{"unshare", func() error { return unix.Unshare(unix.CLONE_NEWNS) }},
		{"make private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"mount", func() error { return unix.Mount("none", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m") }},
		{"umount", func() error { return unix.Unmount(dir, unix.MNT_DETACH) }},
		{"chroot", func() error {
			if err := unix.Chroot(filepath.Join(dir, "no")); err != unix.ENOENT {
				return fmt.Errorf("chroot to nothing: %v", err)
			}
			return nil
		}},
		{"setns", func() error {
			f, err := os.Open("/proc/self/ns/uts")
			if err != nil {
				return err
			}
			defer f.Close()
			return unix.Setns(int(f.Fd()), unix.CLONE_NEWUTS)
		}},
		{"memfd_create", func() error {
			fd, err := unix.MemfdCreate(mark, unix.MFD_CLOEXEC)
			if err == nil {
				err = unix.Close(fd)
			}
			return err
		}},
		{"mmap", func() error {
			b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			if err != nil {
				return err
			}
			return unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC)
		}},
		{"load a program", func() error {
			insns := []uint64{0xb7, 0x95} // r0 = 0; exit
			licence := []byte("GPL\x00")
			var attr struct {
				typ, count       uint32
				insns, licence   uint64
				level, size      uint32
				log              uint64
				version, flags   uint32
				name             [16]byte
				ifindex, attachy uint32
			}
			attr.typ, attr.count = 1, 2
			attr.insns, attr.licence = uint64(uintptr(unsafe.Pointer(&insns[0]))), uint64(uintptr(unsafe.Pointer(&licence[0])))
			copy(attr.name[:], "test_prog")
			fd, _, e := unix.Syscall(unix.SYS_BPF, 5, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
			for e == unix.EAGAIN { // a signal of Go's came while the verifier was at work
				fd, _, e = unix.Syscall(unix.SYS_BPF, 5, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
			}
			runtime.KeepAlive(insns)
			runtime.KeepAlive(licence)
			if e != 0 {
				return e
			}
			return unix.Close(int(fd))
		}},
		{"setresgid", func() error {
			_, _, e := unix.RawSyscall(unix.SYS_SETRESGID, ^uintptr(0), ^uintptr(0), 4242)
			return errnoOf(e)
		}},
		{"setresuid", func() error {
			_, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 4243, 4243, 4243)
			return errnoOf(e)
		}},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

func errnoOf(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// actLine is an event as TestLiveActs compares it.
func actLine(e event.Event) string {
	words := []any{e.Head().Kind}
	switch e := e.(type) {
	case *event.Ptrace:
		words = append(words, e.Request, e.TargetPID, e.Result, e.Fidelity)
	case *event.Signal:
		words = append(words, e.Signal, e.TargetPID, e.Result)
	case *event.Mount:
		words = append(words, e.Operation, e.Source, e.Target, e.FilesystemType, e.Flags, e.Options, e.Result, e.Fidelity)
	case *event.Namespace:
		words = append(words, e.Operation, e.Namespaces, e.Inode, e.TargetPath, e.Result, e.Fidelity)
	case *event.Memory:
		words = append(words, e.Operation, e.Name, e.Protection, e.Flags, e.Result, e.Fidelity)
		if e.Operation != "memfd_create" {
			words = append(words[:2], e.Protection, e.Flags, e.Result, e.Fidelity)
			return strings.Replace(strings.TrimSuffix(fmt.Sprintln(words...), "\n"), e.Operation+" ", e.Operation+"  ", 1)
		}
		words = append(words[:3], "", e.Flags, e.Result, e.Fidelity)
	case *event.BPF:
		words = append(words, e.Operation, e.ProgramType, e.ProgramName, e.Instructions, e.Result)
	case *event.Credential:
		lost := "+"
		if e.OldEffective != e.NewEffective {
			lost = "-"
		}
		if e.OldSGID != e.NewSGID {
			return fmt.Sprintf("credential %s gid %d -> %d sgid %d -> %d %s", e.Operation, e.OldGID, e.NewGID, e.OldSGID, e.NewSGID, lost)
		}
		return fmt.Sprintf("credential %s uid %d -> %d suid %d -> %d %s", e.Operation, e.OldUID, e.NewUID, e.OldSUID, e.NewSUID, lost)
	}
	return strings.TrimSuffix(fmt.Sprintln(words...), "\n")
}

// TestLiveModule loads a module that this kernel comes with, and unloads it.
func TestLiveModule(t *testing.T) {
	if !procfs.At("").HasModules() {
		t.Skip("kernel is built without modules; the stock kernels of make test-kernels load one")
	}
	file := os.Getenv("GOSHAWK_TEST_MODULE")
	if file == "" {
		t.Skip("kernel module to load is not known: name its file in GOSHAWK_TEST_MODULE, as the guests of make test-kernels do")
	}
	// It may be there already.
	_ = unix.DeleteModule(strings.TrimSuffix(filepath.Base(file), ".ko"), 0)
	eachTier(t, Options{Kinds: []event.ID{event.KindModule, event.KindExit}}, func(t *testing.T, l *live) {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		name := strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			t.Fatal(err)
		}
		if err := unix.DeleteModule(name, 0); err != nil {
			t.Fatal(err)
		}
		told := func(operation string) *event.Module {
			return l.wait(t, 1, operation+" of "+name, func(e event.Event) bool {
				m, ok := e.(*event.Module)
				return ok && m.Operation == operation && m.Name == name && m.PID == uint32(os.Getpid())
			})[0].(*event.Module)
		}
		want := file
		if l.s.object.perf || !kernelAtLeast(5, 15) { // the descriptor given cannot be read there
			want = ""
		}
		m := told("load")
		if m.ModulePath != want || want != "" && m.Inode != inode(t, file) {
			t.Errorf("it was loaded from %q, inode %d; want %q, %d", m.ModulePath, m.Inode, want, inode(t, file))
		}
		told("unload")
	})
}
