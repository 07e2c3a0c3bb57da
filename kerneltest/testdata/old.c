/* Runs a program as if the kernel were 3.10 as Red Hat's 7.6 to 7.9 have it, as far as a filter
 * of system calls can pretend: calls that came later are not there, and bpf(2) takes the commands,
 * types of maps and programs, instructions and helpers of that kernel and no others. What it
 * cannot take away is the newer verifier.
 *
 *   old PROGRAM [ARGUMENT]...
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAST_OF_3_10 313 /* finit_module */
#define POISON 0xbad2310 /* where CO-RE found nothing */

static void die(const char *what)
{
	fprintf(stderr, "old: %s: %s\n", what, strerror(errno));
	_exit(125);
}

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(code) BPF_STMT(BPF_RET | BPF_K, code)
#define ERROR(e) ANSWER(SECCOMP_RET_ERRNO | (e))

/* filter installs it in this process, and returns who is to be asked about bpf(2). */
static int filter(void)
{
	struct sock_filter code[] = {
		LOAD(arch),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		ANSWER(SECCOMP_RET_ALLOW), /* 32 bits are none of ours */
		LOAD(nr),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 0, 1),
		ANSWER(SECCOMP_RET_USER_NOTIF),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, LAST_OF_3_10, 0, 1),
		ERROR(ENOSYS),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 4),
		LOAD(args[1]), /* F_OFD_GETLK ... F_OFD_SETLKW: 3.15 */
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 36, 0, 2),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 38, 1, 0),
		ERROR(EINVAL),
		ANSWER(SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof(code) / sizeof(*code), code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		die("no new privileges");
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog);
}

static int member(int n, const int *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (list[i] == n)
			return 1;
	return 0;
}

#define IN(n, list) member(n, list, sizeof(list) / sizeof(*list))

static const int map_types[] = {
	BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PROG_ARRAY, BPF_MAP_TYPE_PERF_EVENT_ARRAY, BPF_MAP_TYPE_PERCPU_HASH,
	BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_STACK_TRACE, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH, BPF_MAP_TYPE_LPM_TRIE,
};
static const int prog_types[] = {BPF_PROG_TYPE_KPROBE, BPF_PROG_TYPE_TRACEPOINT, BPF_PROG_TYPE_PERF_EVENT};
static const int helpers[] = {
	BPF_FUNC_map_lookup_elem, BPF_FUNC_map_update_elem, BPF_FUNC_map_delete_elem, BPF_FUNC_probe_read, BPF_FUNC_probe_read_str,
	BPF_FUNC_ktime_get_ns, BPF_FUNC_trace_printk, BPF_FUNC_tail_call, BPF_FUNC_get_current_pid_tgid, BPF_FUNC_get_current_uid_gid,
	BPF_FUNC_get_current_comm, BPF_FUNC_get_current_task, BPF_FUNC_perf_event_output, BPF_FUNC_get_stackid, BPF_FUNC_get_numa_node_id,
	BPF_FUNC_get_stack, BPF_FUNC_perf_event_read, BPF_FUNC_perf_event_read_value,
};

static int zero(const void *from, const void *to)
{
	for (const char *p = from; p < (const char *)to; p++)
		if (*p)
			return 0;
	return 1;
}

/* refuses says what that kernel would answer to a call of bpf(2), 0 for what it takes. */
static int refuses(int mem, int cmd, uint64_t at, uint64_t size)
{
	static struct bpf_insn insns[4096];
	union bpf_attr a;

	memset(&a, 0, sizeof(a));
	if (size > sizeof(a))
		size = sizeof(a);
	if (pread(mem, &a, size, at) != (ssize_t)size)
		return EFAULT;
	switch (cmd) {
	case BPF_MAP_LOOKUP_ELEM:
	case BPF_MAP_UPDATE_ELEM:
	case BPF_MAP_DELETE_ELEM:
	case BPF_MAP_GET_NEXT_KEY:
	case BPF_OBJ_PIN:
	case BPF_OBJ_GET:
	case BPF_PROG_GET_NEXT_ID:
	case BPF_MAP_GET_NEXT_ID:
	case BPF_PROG_GET_FD_BY_ID:
	case BPF_MAP_GET_FD_BY_ID:
	case BPF_OBJ_GET_INFO_BY_FD:
		return 0;
	case BPF_PROG_DETACH: /* what any kernel refuses is refused where its own function would */
		return a.target_fd == (uint32_t)-1 ? 0 : EINVAL;
	case BPF_MAP_CREATE:
		if (!IN(a.map_type, map_types) || !zero(a.map_name + sizeof(a.map_name), &a + 1))
			return EINVAL;
		return a.map_flags & ~(BPF_F_NO_PREALLOC | BPF_F_NO_COMMON_LRU | BPF_F_NUMA_NODE | BPF_F_RDONLY | BPF_F_WRONLY) ? EINVAL : 0;
	case BPF_PROG_LOAD:
		if (!IN(a.prog_type, prog_types) || !zero(&a.prog_ifindex, &a + 1) || a.prog_flags & ~BPF_F_STRICT_ALIGNMENT)
			return EINVAL;
		if (!a.insn_cnt || a.insn_cnt > 4096)
			return E2BIG;
		if (pread(mem, insns, a.insn_cnt * sizeof(*insns), a.insns) != (ssize_t)(a.insn_cnt * sizeof(*insns)))
			return EFAULT;
		for (uint32_t i = 0; i < a.insn_cnt; i++) {
			struct bpf_insn *in = &insns[i];
			int class = BPF_CLASS(in->code), op = BPF_OP(in->code);

			if (in->code == (BPF_LD | BPF_DW | BPF_IMM)) {
				if (in->src_reg > BPF_PSEUDO_MAP_FD)
					return EINVAL;
				i++;
			} else if (class == BPF_JMP32) {
				return EINVAL;
			} else if (class == BPF_JMP && op == BPF_CALL) {
				if (in->imm == POISON) /* what the verifier must never come to */
					continue;
				if (in->src_reg > BPF_PSEUDO_CALL || (!in->src_reg && !IN(in->imm, helpers)))
					return EINVAL;
			} else if (class == BPF_JMP && op != BPF_EXIT && in->off < 0) {
				return EINVAL; /* back-edge */
			} else if (class == BPF_STX && BPF_MODE(in->code) == BPF_XADD && in->imm) {
				return EINVAL;
			}
		}
		return 0;
	}
	return EINVAL;
}

static void answer(int listener)
{
	struct seccomp_notif call;
	struct seccomp_notif_resp resp;
	char name[32];
	int mem;

	memset(&call, 0, sizeof(call));
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call))
		return; /* who asked is gone */
	memset(&resp, 0, sizeof(resp));
	resp.id = call.id;
	snprintf(name, sizeof(name), "/proc/%d/mem", call.pid);
	mem = open(name, O_RDONLY | O_CLOEXEC);
	if (mem >= 0)
		resp.error = -refuses(mem, call.data.args[0], call.data.args[1], call.data.args[2]);
	else
		resp.error = -EFAULT;
	close(mem);
	if (!resp.error)
		resp.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &resp);
}

static int send_fd(int to, int fd)
{
	char room[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
	struct iovec v = {&byte, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	return sendmsg(to, &m, 0);
}

static int receive_fd(int from)
{
	char room[CMSG_SPACE(sizeof(int))], byte;
	struct iovec v = {&byte, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
	int fd = -1;

	if (recvmsg(from, &m, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&m))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	return fd;
}

static volatile pid_t child;

static void forward(int signal)
{
	kill(child, signal);
}

int main(int argc, char **argv)
{
	int pair[2], listener, status;
	struct pollfd p;

	if (argc < 2 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		die("usage: old PROGRAM [ARGUMENT]...");
	child = fork();
	if (child < 0)
		die("fork");
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		listener = filter();
		if (listener < 0)
			die("seccomp");
		if (send_fd(pair[1], listener) != 1)
			die("send");
		close(listener);
		execv(argv[1], argv + 1);
		die(argv[1]);
	}
	close(pair[1]);
	signal(SIGINT, forward);
	signal(SIGTERM, forward);
	listener = receive_fd(pair[0]);
	if (listener < 0)
		die("receive");
	p.fd = listener;
	p.events = POLLIN;
	for (;;) {
		if (poll(&p, 1, 100) > 0 && p.revents & POLLIN)
			answer(listener);
		if (waitpid(child, &status, WNOHANG) == child)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
}
