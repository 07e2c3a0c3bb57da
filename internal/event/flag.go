package event

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// Flags are the flags of a system call, each a bit or bits that mean something together, in the
// order in which they are named.
type Flags []struct {
	Bits uint64
	Name string
}

// AppendNames appends the names of those flags that are set, with a byte between them, and
// returns the bits that have no name.
func (f Flags) AppendNames(dst []byte, bits uint64, between byte) ([]byte, uint64) {
	for i := range f {
		if bits&f[i].Bits != f[i].Bits {
			continue
		}
		if len(dst) > 0 {
			dst = append(dst, between)
		}
		dst = append(dst, f[i].Name...)
		bits &^= f[i].Bits
	}
	return dst, bits
}

// Append appends the names with | between them; the bits that have none are a number.
func (f Flags) Append(dst []byte, bits uint64) []byte {
	dst, rest := f.AppendNames(dst, bits, '|')
	if rest == 0 {
		return dst
	}
	if len(dst) > 0 {
		dst = append(dst, '|')
	}
	return strconv.AppendUint(append(dst, "0x"...), rest, 16)
}

// Flags of calls that more than one source tells of (linux/mount.h, linux/module.h).
var (
	MountFlags = Flags{
		{unix.MS_RDONLY, "MS_RDONLY"}, {unix.MS_NOSUID, "MS_NOSUID"}, {unix.MS_NODEV, "MS_NODEV"},
		{unix.MS_NOEXEC, "MS_NOEXEC"}, {unix.MS_SYNCHRONOUS, "MS_SYNCHRONOUS"}, {unix.MS_REMOUNT, "MS_REMOUNT"},
		{unix.MS_MANDLOCK, "MS_MANDLOCK"}, {unix.MS_DIRSYNC, "MS_DIRSYNC"}, {unix.MS_NOSYMFOLLOW, "MS_NOSYMFOLLOW"},
		{unix.MS_NOATIME, "MS_NOATIME"}, {unix.MS_NODIRATIME, "MS_NODIRATIME"}, {unix.MS_BIND, "MS_BIND"},
		{unix.MS_MOVE, "MS_MOVE"}, {unix.MS_REC, "MS_REC"}, {unix.MS_SILENT, "MS_SILENT"},
		{unix.MS_POSIXACL, "MS_POSIXACL"}, {unix.MS_UNBINDABLE, "MS_UNBINDABLE"}, {unix.MS_PRIVATE, "MS_PRIVATE"},
		{unix.MS_SLAVE, "MS_SLAVE"}, {unix.MS_SHARED, "MS_SHARED"}, {unix.MS_RELATIME, "MS_RELATIME"},
		{unix.MS_I_VERSION, "MS_I_VERSION"}, {unix.MS_STRICTATIME, "MS_STRICTATIME"}, {unix.MS_LAZYTIME, "MS_LAZYTIME"},
	}
	UmountFlags = Flags{
		{unix.MNT_FORCE, "MNT_FORCE"}, {unix.MNT_DETACH, "MNT_DETACH"}, {unix.MNT_EXPIRE, "MNT_EXPIRE"},
		{unix.UMOUNT_NOFOLLOW, "UMOUNT_NOFOLLOW"},
	}
	ModuleFlags = Flags{
		{unix.MODULE_INIT_IGNORE_MODVERSIONS, "MODULE_INIT_IGNORE_MODVERSIONS"},
		{unix.MODULE_INIT_IGNORE_VERMAGIC, "MODULE_INIT_IGNORE_VERMAGIC"},
		{4, "MODULE_INIT_COMPRESSED_FILE"}, // from 5.17
	}
)

// MountOperation says what mount(2) does with flags, which it looks at in this order
// (path_mount() in fs/namespace.c), and returns those that mean something.
func MountOperation(flags uint64) (operation string, meant uint64) {
	const magic = 0xc0ed0000 // MS_MGC_VAL, which programs of old had to add
	if flags&0xffff0000 == magic {
		flags &^= 0xffff0000
	}
	switch {
	case flags&unix.MS_REMOUNT != 0:
		return "remount", flags
	case flags&unix.MS_BIND != 0:
		return "bind", flags
	case flags&(unix.MS_SHARED|unix.MS_PRIVATE|unix.MS_SLAVE|unix.MS_UNBINDABLE) != 0:
		return "propagation", flags
	case flags&unix.MS_MOVE != 0:
		return "move", flags
	}
	return "mount", flags
}

// ptraceRequests are those of linux/ptrace.h, the same on all architectures.
var ptraceRequests = map[uint64]string{
	0: "traceme", 1: "peektext", 2: "peekdata", 3: "peekusr", 4: "poketext", 5: "pokedata", 6: "pokeusr", 7: "cont",
	8: "kill", 9: "singlestep", 12: "getregs", 13: "setregs", 14: "getfpregs", 15: "setfpregs", 16: "attach",
	17: "detach", 24: "syscall", 0x4200: "setoptions", 0x4201: "geteventmsg", 0x4202: "getsiginfo",
	0x4203: "setsiginfo", 0x4204: "getregset", 0x4205: "setregset", 0x4206: "seize", 0x4207: "interrupt",
	0x4208: "listen", 0x4209: "peeksiginfo", 0x420a: "getsigmask", 0x420b: "setsigmask",
	0x420c: "seccomp_get_filter", 0x420d: "seccomp_get_metadata", 0x420e: "get_syscall_info",
	0x420f: "get_rseq_configuration", 0x4210: "set_syscall_user_dispatch_config",
	0x4211: "get_syscall_user_dispatch_config", 0x4212: "set_syscall_info",
}

// PtraceRequest names a request of ptrace(2); one without a name is its number.
func PtraceRequest(n uint64) string {
	if s, ok := ptraceRequests[n]; ok {
		return s
	}
	return strconv.FormatUint(n, 10)
}
