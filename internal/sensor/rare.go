package sensor

import (
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
)

// rare fills in what a system call of bpf/rare.bpf.h was about; file is that of a kernel.
func rare(e *event.Syscall, r *bpf.GoshawkRecAct, file string) {
	switch bpf.GoshawkActCall(r.Call) {
	case bpf.GoshawkActCallACT_SOCKET:
		e.Operation, e.Object, e.Value = "raw", familyName(uint32(r.Args[0])), int64(int32(r.Args[2]))
		if uint32(r.Args[0]) == unix.AF_PACKET {
			e.Operation = "packet"
			e.Value = int64(uint16(r.Args[2])<<8 | uint16(r.Args[2])>>8) // as linux/if_ether.h has it
		}
		e.Flags = typeName(uint32(r.Args[1]))
	case bpf.GoshawkActCallACT_IO_URING_SETUP:
		e.Value, e.Flags = int64(uint32(r.Args[0])), joinFlags(uringFlags, uint64(r.Value))
	case bpf.GoshawkActCallACT_KEXEC_LOAD:
		e.Flags = joinFlags(kexecFlags, r.Args[3]&0xffff) // the rest names the architecture
	case bpf.GoshawkActCallACT_KEXEC_FILE_LOAD:
		e.Object, e.Flags = file, joinFlags(kexecFileFlags, r.Args[4])
	case bpf.GoshawkActCallACT_SETTIMEOFDAY:
		e.Operation, e.Object, e.Value = "set", "CLOCK_REALTIME", int64(r.Object)
	case bpf.GoshawkActCallACT_CLOCK_SETTIME:
		e.Operation, e.Object, e.Value = "set", clockName(uint32(r.Args[0])), int64(r.Object)
	case bpf.GoshawkActCallACT_CLOCK_ADJTIME:
		e.Operation, e.Object, e.Value = "step", clockName(uint32(r.Args[0])), int64(r.Object)
	case bpf.GoshawkActCallACT_ADJTIMEX:
		e.Operation, e.Object, e.Value = "step", "CLOCK_REALTIME", int64(r.Object)
	case bpf.GoshawkActCallACT_KEYCTL:
		e.Operation = strconv.FormatUint(r.Args[0], 10)
		if r.Args[0] < uint64(len(keyOperations)) {
			e.Operation = keyOperations[r.Args[0]]
		}
		if e.Name == "" {
			e.Value = int64(int32(r.Args[1]))
		}
	case bpf.GoshawkActCallACT_ADD_KEY:
		e.Operation, e.Value = "add", int64(int32(r.Args[4])) // the keyring
	case bpf.GoshawkActCallACT_REQUEST_KEY:
		e.Operation, e.Value = "request", int64(int32(r.Args[3]))
	}
}

// keyOperations are those of keyctl(2), by number (linux/keyctl.h).
var keyOperations = [...]string{
	"get_keyring_id", "join_session_keyring", "update", "revoke", "chown", "setperm", "describe", "clear", "link", "unlink", "search",
	"read", "instantiate", "negate", "set_reqkey_keyring", "set_timeout", "assume_authority", "get_security", "session_to_parent",
	"reject", "instantiate_iov", "invalidate", "get_persistent", "dh_compute", "pkey_query", "pkey_encrypt", "pkey_decrypt",
	"pkey_sign", "pkey_verify", "restrict_keyring", "move", "capabilities", "watch_key",
}

func clockName(n uint32) string {
	switch n {
	case unix.CLOCK_REALTIME:
		return "CLOCK_REALTIME"
	case unix.CLOCK_TAI:
		return "CLOCK_TAI"
	}
	return strconv.FormatInt(int64(int32(n)), 10)
}

func familyName(n uint32) string {
	switch n {
	case unix.AF_INET:
		return "inet"
	case unix.AF_INET6:
		return "inet6"
	case unix.AF_PACKET:
		return "packet"
	case unix.AF_NETLINK:
		return "netlink"
	}
	return strconv.FormatUint(uint64(n), 10)
}

// typeName names the type of a socket with its flags (linux/net.h).
func typeName(n uint32) string {
	names := [...]string{1: "SOCK_STREAM", 2: "SOCK_DGRAM", 3: "SOCK_RAW", 10: "SOCK_PACKET"}
	b := []byte(strconv.FormatUint(uint64(n&0xf), 10))
	if t := n & 0xf; t < uint32(len(names)) && names[t] != "" {
		b = []byte(names[t])
	}
	return string(event.Flags{{unix.SOCK_CLOEXEC, "SOCK_CLOEXEC"}, {unix.SOCK_NONBLOCK, "SOCK_NONBLOCK"}}.Append(b, uint64(n&^0xf)))
}

var (
	// linux/io_uring.h
	uringFlags = event.Flags{
		{1 << 0, "IORING_SETUP_IOPOLL"}, {1 << 1, "IORING_SETUP_SQPOLL"}, {1 << 2, "IORING_SETUP_SQ_AFF"}, {1 << 3, "IORING_SETUP_CQSIZE"},
		{1 << 4, "IORING_SETUP_CLAMP"}, {1 << 5, "IORING_SETUP_ATTACH_WQ"}, {1 << 6, "IORING_SETUP_R_DISABLED"},
		{1 << 7, "IORING_SETUP_SUBMIT_ALL"}, {1 << 8, "IORING_SETUP_COOP_TASKRUN"}, {1 << 9, "IORING_SETUP_TASKRUN_FLAG"},
		{1 << 10, "IORING_SETUP_SQE128"}, {1 << 11, "IORING_SETUP_CQE32"}, {1 << 12, "IORING_SETUP_SINGLE_ISSUER"},
		{1 << 13, "IORING_SETUP_DEFER_TASKRUN"}, {1 << 14, "IORING_SETUP_NO_MMAP"}, {1 << 15, "IORING_SETUP_REGISTERED_FD_ONLY"},
		{1 << 16, "IORING_SETUP_NO_SQARRAY"}, {1 << 17, "IORING_SETUP_HYBRID_IOPOLL"},
	}
	// linux/kexec.h
	kexecFlags = event.Flags{
		{unix.KEXEC_ON_CRASH, "KEXEC_ON_CRASH"}, {unix.KEXEC_PRESERVE_CONTEXT, "KEXEC_PRESERVE_CONTEXT"},
		{4, "KEXEC_UPDATE_ELFCOREHDR"}, {8, "KEXEC_CRASH_HOTPLUG_SUPPORT"},
	}
	kexecFileFlags = event.Flags{
		{unix.KEXEC_FILE_UNLOAD, "KEXEC_FILE_UNLOAD"}, {unix.KEXEC_FILE_ON_CRASH, "KEXEC_FILE_ON_CRASH"},
		{unix.KEXEC_FILE_NO_INITRAMFS, "KEXEC_FILE_NO_INITRAMFS"}, {8, "KEXEC_FILE_DEBUG"}, {16, "KEXEC_FILE_NO_CMA"},
	}
)
