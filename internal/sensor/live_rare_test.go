package sensor

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// TestLiveClone makes processes with namespaces of their own, and one without.
func TestLiveClone(t *testing.T) {
	if testObject(t).perf {
		t.Skip("the legacy object, for kernels before 5.8, has no hook that sees namespaces made by clone; guests with the modern one tell of them")
	}
	eachTier(t, Options{Kinds: []event.ID{event.KindNamespace, event.KindExit}}, func(t *testing.T, l *live) {
		for _, tt := range []struct {
			flags uintptr
			want  string
		}{
			{syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC, "uts,ipc"},
			{syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET, "mnt,pid,net"},
			{syscall.CLONE_NEWUSER, "user"},
			{0, ""},
		} {
			cmd := exec.Command(helper, "exit", "0")
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: tt.flags}
			if err := cmd.Run(); cmd.Process == nil {
				t.Fatal(err)
			}
			pid := uint32(cmd.Process.Pid)
			mine := func(e event.Event) bool {
				n, ok := e.(*event.Namespace)
				return ok && n.ChildPID == pid && n.Operation == "clone"
			}
			if tt.want == "" {
				l.settle(t)
				if got := l.snapshot(mine); len(got) != 0 {
					t.Errorf("a process with no namespace of its own: told %s", got[0].(*event.Namespace).Namespaces)
				}
				continue
			}
			n := l.wait(t, 1, "clone with "+tt.want, mine)[0].(*event.Namespace)
			if n.Namespaces != tt.want || n.PID != uint32(os.Getpid()) || n.ChildStart == 0 || n.Fidelity != event.FidelityKernel {
				t.Errorf("told %q of child %d by %d, fidelity %s; want %q", n.Namespaces, n.ChildStart, n.PID, n.Fidelity, tt.want)
			}
		}
	})
}

// TestLiveRare makes each of the calls of bpf/rare.bpf.h, and some like them that are nobody's
// business.
func TestLiveRare(t *testing.T) {
	if testObject(t).perf {
		t.Skip("the legacy object, for kernels before 5.8, has no hook on rare calls; guests with the modern one tell of them")
	}
	eachTier(t, Options{Kinds: []event.ID{event.KindSyscall, event.KindExit}}, func(t *testing.T, l *live) {
		mark := fmt.Sprintf("goshawk-%d-%d", os.Getpid(), time.Now().UnixNano())
		type done struct {
			tid   int
			lines []string
		}
		result := make(chan done, 1)
		go func() {
			runtime.LockOSThread() // and the thread ends with its keyring
			result <- done{unix.Gettid(), rareCalls(t, mark)}
		}()
		d := <-result
		if t.Failed() {
			return
		}
		l.settle(t)
		told := map[string]int{}
		for _, e := range l.snapshot(func(e event.Event) bool { return e.Head().TID == uint32(d.tid) }) {
			if s, ok := e.(*event.Syscall); ok {
				told[fmt.Sprintf("%s %s %s %s %d %s %s", s.Syscall, s.Operation, s.Object, s.Name, s.Value, s.Flags, s.Result)]++
			}
		}
		for _, want := range d.lines {
			// A call that this kernel is built without may have no hook.
			if told[want] == 0 && !strings.HasSuffix(want, " ENOSYS") {
				t.Errorf("not told: %q", want)
			}
			told[want]--
		}
		for line, n := range told {
			if n > 0 {
				t.Errorf("told for no reason: %q", line)
			}
		}
	})
}

// rareCalls makes the calls, and returns what is to be told of them.
func rareCalls(t *testing.T, mark string) (lines []string) {
	expect := func(err error, format string, args ...any) {
		result := "ok"
		if errno, ok := err.(syscall.Errno); ok && errno != 0 {
			result = unix.ErrnoName(errno)
		}
		lines = append(lines, fmt.Sprintf(format, args...)+" "+result)
	}
	sock := func(family, typ, protocol int) error {
		fd, err := unix.Socket(family, typ, protocol)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	expect(sock(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP), "socket raw inet  1 SOCK_RAW|SOCK_CLOEXEC")
	expect(sock(unix.AF_PACKET, unix.SOCK_DGRAM, unix.ETH_P_IP>>8|unix.ETH_P_IP&0xff<<8), "socket packet packet  2048 SOCK_DGRAM")
	_ = sock(unix.AF_INET, unix.SOCK_DGRAM, 0) // nobody's business

	var params [120]byte
	params[8] = 1 << 6 // IORING_SETUP_R_DISABLED, of io_uring_params.flags
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)), 0)
	if e == 0 {
		unix.Close(int(fd))
	}
	expect(e, "io_uring_setup    4 IORING_SETUP_R_DISABLED")

	// None of these does anything: the clock stays as it is, and no kernel is loaded.
	never := unix.Timespec{Sec: -7}
	_, _, e = unix.Syscall(unix.SYS_CLOCK_SETTIME, unix.CLOCK_REALTIME, uintptr(unsafe.Pointer(&never)), 0)
	expect(e, "clock_settime set CLOCK_REALTIME  -7 ")
	tv := unix.Timeval{Sec: 7, Usec: 1 << 40}
	_, _, e = unix.Syscall(unix.SYS_SETTIMEOFDAY, uintptr(unsafe.Pointer(&tv)), 0, 0)
	expect(e, "settimeofday set CLOCK_REALTIME  7 ")
	step := unix.Timex{Modes: unix.ADJ_SETOFFSET, Time: unix.Timeval{Sec: 0, Usec: -1}}
	_, _, e = unix.Syscall(unix.SYS_CLOCK_ADJTIME, unix.CLOCK_REALTIME, uintptr(unsafe.Pointer(&step)), 0)
	expect(e, "clock_adjtime step CLOCK_REALTIME  0 ")
	_, _, e = unix.Syscall(unix.SYS_ADJTIMEX, uintptr(unsafe.Pointer(&step)), 0, 0)
	expect(e, "adjtimex step CLOCK_REALTIME  0 ")
	var read unix.Timex
	_, _, _ = unix.Syscall(unix.SYS_ADJTIMEX, uintptr(unsafe.Pointer(&read)), 0, 0) // asks only
	_, _, e = unix.Syscall6(unix.SYS_KEXEC_LOAD, 0, 1<<20, 0, unix.KEXEC_ON_CRASH, 0, 0)
	expect(e, "kexec_load    0 KEXEC_ON_CRASH")

	key, err := unix.AddKey("user", mark, []byte("x"), unix.KEY_SPEC_THREAD_KEYRING)
	expect(err, "add_key add user %s %d ", mark, unix.KEY_SPEC_THREAD_KEYRING)
	if err == nil {
		_, err = unix.KeyctlBuffer(unix.KEYCTL_READ, key, make([]byte, 8), 0)
		expect(err, "keyctl read   %d ", key)
	}
	_, _ = unix.KeyctlGetKeyringID(unix.KEY_SPEC_THREAD_KEYRING, false) // asks only
	typ, name, ring := []byte("user\x00"), []byte(mark+"-no\x00"), unix.KEY_SPEC_THREAD_KEYRING
	_, _, e = unix.Syscall6(unix.SYS_REQUEST_KEY, uintptr(unsafe.Pointer(&typ[0])), uintptr(unsafe.Pointer(&name[0])), 0, uintptr(ring), 0, 0)
	expect(e, "request_key request user %s-no %d ", mark, unix.KEY_SPEC_THREAD_KEYRING)
	return lines
}
