package audit

import "strconv"

// x32Bit is set in the number of a call made by the x32 ABI, whose architecture is x86_64
// (asm/unistd.h).
const x32Bit = 0x40000000

// callsX32 are the calls that have numbers of their own in x32, from 512.
var callsX32 = [...]string{
	"rt_sigaction", "rt_sigreturn", "ioctl", "readv", "writev", "recvfrom", "sendmsg", "recvmsg", "execve", "ptrace",
	"rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo", "sigaltstack", "timer_create", "mq_notify", "kexec_load",
	"waitid", "set_robust_list", "get_robust_list", "vmsplice", "move_pages", "preadv", "pwritev", "rt_tgsigqueueinfo",
	"recvmmsg", "sendmmsg", "process_vm_readv", "process_vm_writev", "setsockopt", "getsockopt", "io_setup", "io_submit",
	"execveat", "preadv2", "pwritev2",
}

const firstX32 = 512

// callName names a system call; empty when the architecture or the number is not known: a
// number means another call on each.
func callName(arch uint32, nr uint64) string {
	names := callNames(arch)
	if arch == archX86_64 && nr&x32Bit != 0 {
		if nr &^= x32Bit; nr >= firstX32 {
			names, nr = callsX32[:], nr-firstX32
		}
	}
	if nr >= uint64(len(names)) {
		return ""
	}
	return names[nr]
}

func callNames(arch uint32) []string {
	switch arch {
	case archX86_64:
		return callsAMD64[:]
	case archI386:
		return calls386[:]
	case archAArch64:
		return callsARM64[:]
	case archARM:
		return callsARM[:]
	}
	return nil
}

// typeName names a type of record; a number when it has no name.
func typeName(typ uint16) string {
	if s, ok := typeNames[typ]; ok {
		return s
	}
	if s, ok := newerTypes[typ]; ok {
		return s
	}
	return strconv.Itoa(int(typ))
}

// newerTypes are those that linux/audit.h has and go-libaudit not yet.
var newerTypes = map[uint16]string{
	1338: "DM_CTRL", 1339: "DM_EVENT", 1420: "IPE_ACCESS", 1421: "IPE_CONFIG_CHANGE", 1422: "IPE_POLICY_LOAD",
	1423: "LANDLOCK_ACCESS", 1424: "LANDLOCK_DOMAIN", 1425: "MAC_TASK_CONTEXTS", 1426: "MAC_OBJ_CONTEXTS",
}
