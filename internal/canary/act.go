package canary

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// acts asks the kernel for what security watches, in ways that change nothing: most are refused.
func acts(r *round) []*trial {
	r.path2 = "/goshawk-canary-" + r.nonce
	r.number = 0x70000000 | rand.Uint32N(1<<24) // no pid, no user, no type of attachment
	var trials []*trial
	do := func(kind event.ID, hook, what string, match func(e event.Event) bool, act func() error) {
		t := &trial{Result: Result{Kind: kind, What: what}, hooks: []string{hook}, done: time.Now(), match: match}
		t.check = func(e event.Event) string { return wrong("process_id", e.Head().Start != 0) }
		if err := act(); err != nil {
			t.Skipped = fmt.Sprintf("%s: %v", what, err)
		}
		trials = append(trials, t)
	}
	do(event.KindMount, "mount", "unmount what is not there", func(e event.Event) bool {
		x, ok := e.(*event.Mount)
		return ok && x.Result != "ok"
	}, func() error { return refused(unix.Unmount(r.path2, 0)) })
	do(event.KindNamespace, "namespace", "change root to what is not there", func(e event.Event) bool {
		x, ok := e.(*event.Namespace)
		return ok && x.Result != "ok"
	}, func() error { return refused(unix.Chroot(r.path2)) })
	do(event.KindMemory, "memory", "make a file in memory", func(e event.Event) bool {
		x, ok := e.(*event.Memory)
		return ok && x.Operation == "memfd_create"
	}, func() error {
		fd, err := unix.MemfdCreate(r.path2[1:], unix.MFD_CLOEXEC)
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	})
	do(event.KindPtrace, "ptrace", "trace a process that is not there", func(e event.Event) bool {
		_, ok := e.(*event.Ptrace)
		return ok
	}, func() error {
		_, _, err := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_ATTACH, uintptr(r.number), 0, 0, 0, 0)
		return refused(err)
	})
	do(event.KindBPF, "bpf", "detach a program that is not there", func(e event.Event) bool {
		_, ok := e.(*event.BPF)
		return ok
	}, func() error {
		attr := [4]uint32{^uint32(0), ^uint32(0), r.number, 0} // BPF_PROG_DETACH of enum bpf_cmd
		_, _, err := unix.Syscall(unix.SYS_BPF, 9, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		return refused(err)
	})
	do(event.KindSyscall, "syscall", "set the clock to what no clock takes", func(e event.Event) bool {
		_, ok := e.(*event.Syscall)
		return ok
	}, func() error {
		never := unix.Timespec{Sec: -int64(r.number)} // EINVAL, or EPERM without the capability
		_, _, err := unix.Syscall(unix.SYS_CLOCK_SETTIME, unix.CLOCK_REALTIME, uintptr(unsafe.Pointer(&never)), 0)
		if err == unix.EPERM {
			return nil
		}
		return refused(err)
	})
	do(event.KindCredential, "credential", "open files as another user", func(e event.Event) bool {
		x, ok := e.(*event.Credential)
		return ok && x.NewFSUID == r.number
	}, func() error {
		// A thread's own: no other opens anything as that user.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		own, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, uintptr(r.number), 0, 0)
		if now, _, _ := unix.RawSyscall(unix.SYS_SETFSUID, own, 0, 0); uint32(now) != r.number {
			return unix.EPERM
		}
		return nil
	})
	return trials
}

// refused is nil where the kernel said no for the reason that it should.
func refused(err error) error {
	switch err {
	case unix.ENOENT, unix.ESRCH, unix.EINVAL, unix.EBADF, unix.Errno(0), nil:
		return nil
	}
	return err
}

// signal sends the child a signal that changes nothing.
func signal(r *round) *trial {
	t := &trial{Result: Result{Kind: event.KindSignal, What: "send SIGCONT"}, hooks: []string{"signal"}}
	t.match = func(e event.Event) bool {
		_, ok := e.(*event.Signal)
		return ok
	}
	t.check = func(e event.Event) string {
		x := e.(*event.Signal)
		return wrong("signal", x.Signal == int32(unix.SIGCONT)) + wrong("target_pid", r.child == 0 || x.TargetPID == r.child)
	}
	return t
}

// acted reports whether e is what acts did.
func (r *round) acted(e event.Event) bool {
	if r.number == 0 {
		return false
	}
	switch e := e.(type) {
	case *event.Mount:
		return e.Target == r.path2
	case *event.Namespace:
		return e.TargetPath == r.path2
	case *event.Memory:
		return e.Operation == "memfd_create" && strings.HasSuffix(e.Name, r.nonce)
	case *event.Ptrace:
		return e.TargetPID == r.number || e.TargetPID == 0 && e.Result == "ESRCH"
	case *event.Syscall:
		return e.Value == -int64(r.number)
	case *event.BPF:
		return e.AttachType == r.number
	case *event.Credential:
		return e.NewFSUID == r.number || e.OldFSUID == r.number
	}
	return false
}
