package audit

import "runtime"

// An abi is one numbering of system calls on this kernel, by its AUDIT_ARCH_* (linux/audit.h).
type abi struct {
	arch uint32
	text string // as records have it
	of   func(c *call) int16
}

const (
	archX86_64  = 0xc000003e
	archI386    = 0x40000003
	archAArch64 = 0xc00000b7
	archARM     = 0x40000028
)

// abis are the native numbering and the 32-bit one beside it. A rule without an arch would
// take the number of one for a call of the other.
var abis = map[string][]abi{
	"amd64": {
		{archX86_64, "c000003e", func(c *call) int16 { return c.x86_64 }},
		{archI386, "40000003", func(c *call) int16 { return c.i386 }},
	},
	"arm64": {
		{archAArch64, "c00000b7", func(c *call) int16 { return c.aarch64 }},
		{archARM, "40000028", func(c *call) int16 { return c.arm }},
	},
}[runtime.GOARCH]

// call is a system call with its numbers, -1 where an ABI does not have it.
type call struct {
	name                       string
	x86_64, i386, aarch64, arm int16
}

// calls are the system calls that our rules name. A test compares them with other tables.
var calls = []call{
	{"execve", 59, 11, 221, 11},
	{"execveat", 322, 358, 281, 387},
	{"fork", 57, 2, -1, 2},
	{"vfork", 58, 190, -1, 190},
	{"clone", 56, 120, 220, 120},
	{"clone3", 435, 435, 435, 435},
	{"exit_group", 231, 252, 94, 248},
	{"socketcall", -1, 102, -1, -1},
	{"connect", 42, 362, 203, 283},
	{"accept", 43, -1, 202, 285},
	{"accept4", 288, 364, 242, 366},
	{"bind", 49, 361, 200, 282},
	{"listen", 50, 363, 201, 284},
	{"setuid", 105, 23, 146, 23},
	{"setgid", 106, 46, 144, 46},
	{"setreuid", 113, 70, 145, 70},
	{"setregid", 114, 71, 143, 71},
	{"setresuid", 117, 164, 147, 164},
	{"setresgid", 119, 170, 149, 170},
	{"setfsuid", 122, 138, 151, 138},
	{"setfsgid", 123, 139, 152, 139},
	{"setgroups", 116, 81, 159, 81},
	{"capset", 126, 185, 91, 185},
	{"setuid32", -1, 213, -1, 213},
	{"setgid32", -1, 214, -1, 214},
	{"setreuid32", -1, 203, -1, 203},
	{"setregid32", -1, 204, -1, 204},
	{"setresuid32", -1, 208, -1, 208},
	{"setresgid32", -1, 210, -1, 210},
	{"setfsuid32", -1, 215, -1, 215},
	{"setfsgid32", -1, 216, -1, 216},
	{"setgroups32", -1, 206, -1, 206},
	{"ptrace", 101, 26, 117, 26},
	{"process_vm_writev", 311, 348, 271, 377},
	{"kill", 62, 37, 129, 37},
	{"tkill", 200, 238, 130, 238},
	{"tgkill", 234, 270, 131, 268},
	{"rt_sigqueueinfo", 129, 178, 138, 178},
	{"rt_tgsigqueueinfo", 297, 335, 240, 363},
	{"pidfd_send_signal", 424, 424, 424, 424},
	{"init_module", 175, 128, 105, 128},
	{"finit_module", 313, 350, 273, 379},
	{"delete_module", 176, 129, 106, 129},
	{"bpf", 321, 357, 280, 386},
	{"mount", 165, 21, 40, 21},
	{"umount", -1, 22, -1, -1},
	{"umount2", 166, 52, 39, 52},
	{"move_mount", 429, 429, 429, 429},
	{"mount_setattr", 442, 442, 442, 442},
	{"pivot_root", 155, 217, 41, 218},
	{"unshare", 272, 310, 97, 337},
	{"setns", 308, 346, 268, 375},
	{"memfd_create", 319, 356, 279, 385},
	{"mprotect", 10, 125, 226, 125},
	{"pkey_mprotect", 329, 380, 288, 394},
	{"mmap", 9, 90, 222, -1},
	{"mmap2", -1, 192, -1, 192},
	{"open", 2, 5, -1, 5},
	{"openat", 257, 295, 56, 322},
	{"openat2", 437, 437, 437, 437},
	{"creat", 85, 8, -1, 8},
	{"truncate", 76, 92, 45, 92},
	{"truncate64", -1, 193, -1, 193},
	{"rename", 82, 38, -1, 38},
	{"renameat", 264, 302, 38, 329},
	{"renameat2", 316, 353, 276, 382},
	{"mkdir", 83, 39, -1, 39},
	{"mkdirat", 258, 296, 34, 323},
	{"rmdir", 84, 40, -1, 40},
	{"link", 86, 9, -1, 9},
	{"linkat", 265, 303, 37, 330},
	{"unlink", 87, 10, -1, 10},
	{"unlinkat", 263, 301, 35, 328},
	{"symlink", 88, 83, -1, 83},
	{"symlinkat", 266, 304, 36, 331},
	{"mknod", 133, 14, -1, 14},
	{"mknodat", 259, 297, 33, 324},
	{"chmod", 90, 15, -1, 15},
	{"fchmod", 91, 94, 52, 94},
	{"fchmodat", 268, 306, 53, 333},
	{"fchmodat2", 452, 452, 452, 452},
	{"chown", 92, 182, -1, 182},
	{"fchown", 93, 95, 55, 95},
	{"lchown", 94, 16, -1, 16},
	{"fchownat", 260, 298, 54, 325},
	{"chown32", -1, 212, -1, 212},
	{"fchown32", -1, 207, -1, 207},
	{"lchown32", -1, 198, -1, 198},
	{"setxattr", 188, 226, 5, 226},
	{"lsetxattr", 189, 227, 6, 227},
	{"fsetxattr", 190, 228, 7, 228},
	{"setxattrat", 463, 463, 463, 463},
	{"removexattr", 197, 235, 14, 235},
	{"lremovexattr", 198, 236, 15, 236},
	{"fremovexattr", 199, 237, 16, 237},
	{"removexattrat", 466, 466, 466, 466},
}

// callNamed returns the call called name; nil when the table lacks it.
func callNamed(name string) *call {
	for i := range calls {
		if calls[i].name == name {
			return &calls[i]
		}
	}
	return nil
}

// ringOps are the operations of io_uring that our rules name, by their numbers in enum
// io_uring_op (linux/io_uring.h). Reads and writes are not audited by the kernel at all
// (audit_skip in io_uring/opdef.c).
var ringOps = []struct {
	name string
	op   uint8
}{
	{"accept", 13}, {"connect", 16}, {"openat", 18}, {"openat2", 28}, {"renameat", 35}, {"unlinkat", 36},
	{"mkdirat", 37}, {"symlinkat", 38}, {"linkat", 39}, {"fsetxattr", 41}, {"setxattr", 42},
	{"ftruncate", 55}, {"bind", 56}, {"listen", 57},
}
