/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a program with the system calls of Linux 3.10 and bpf(2), as RHEL 7 has them: what
 * came later fails as it does there.
 *
 *   oldcalls PROGRAM [ARGUMENT...]
 */
#include <err.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define LAST_OF_3_10 SYS_finit_module
#else
#define LAST_OF_3_10 SYS_kcmp + 1 /* arm64's finit_module */
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define FAIL(errno) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (errno))

int main(int argc, char **argv)
{
	struct sock_filter program[] = {
		LOAD(nr),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 6, 0),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, LAST_OF_3_10, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 4),
		LOAD(args[1]),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 36, 0, 2), /* F_OFD_GETLK to F_OFD_SETLKW */
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 38, 1, 2),
		FAIL(ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		FAIL(EINVAL),
	};
	struct sock_fprog filter = { sizeof(program) / sizeof(*program), program };

	if (argc < 2)
		errx(2, "usage: oldcalls PROGRAM [ARGUMENT...]");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
		err(1, "seccomp");
	execv(argv[1], argv + 1);
	err(1, "%s", argv[1]);
}
