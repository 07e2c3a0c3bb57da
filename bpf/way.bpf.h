/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Other ways to ask than a native system call: those of 32-bit and x32 programs, and io_uring.
 * The tracepoints of system calls tell nothing of them (arch_trace_is_compat_syscall() in
 * kernel/trace/trace_syscalls.c). Where those tracepoints are all there is, as much is told here as
 * the kernel shows elsewhere, at no cost to other calls:
 *
 *   listen of TCP      the change of state (socket.bpf.h)
 *   bind of an inet    cgroup/post_bind
 *   connect of UDP     cgroup/connect, before its outcome is known
 *   all by io_uring    io_uring_complete, with the outcome
 *
 * What is left: accept by 32-bit programs, their unix sockets, and what they are refused; of a
 * bind that io_uring is refused, the address.
 */
#ifndef LEGACY

#define PF_IO_WORKER 0x10
#define CALL_URING_ENTER 426 /* on all architectures */
#define CALL_X32 0x40000000
#define URING_ACCEPT 13
#define URING_CONNECT 16
#define URING_BIND 56
#define URING_LISTEN 57

/* Whether something of this kind is asked for in a way that its hook does not see. Where registers
 * cannot be had, calls of x32 are not known for what they are.
 */
static __always_inline bool other_way(u16 kind, bool have_regs)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct pt_regs *regs;
	u64 number;

	if (!(by_call & (1ULL << kind)))
		return false;
	if (BPF_CORE_READ(t, flags) & PF_IO_WORKER)
		return !uring_hook;
	if (IN_COMPAT_CALL(t))
		return true;
	if (!have_regs)
		return false;
	regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	number = CALL_NUMBER(regs);
	if (number == CALL_URING_ENTER)
		return !uring_hook;
	return (__s64)number > 0 && number & CALL_X32;
}

static __noinline int listens(const struct sock *sk)
{
	struct call c = {.sk = sk, .fd = -1};

	if (!other_way(KIND_LISTEN, task_regs) || is_subflow(sk))
		return 0;
	return simple_done(KIND_LISTEN, &c, 0);
}

/* Cgroup programs are given a socket that shows part of itself. Read from the stack, its address
 * is a number to the verifier, by which all of it may be read.
 */
static __always_inline const struct sock *whole(struct bpf_sock *shown)
{
	const struct sock *sk = NULL;

	bpf_probe_read_kernel(&sk, sizeof(sk), &shown);
	return sk;
}

static __noinline int bound(struct bpf_sock *ctx)
{
	struct call c = {.fd = -1};

	if (!other_way(KIND_BIND, cgroup_task_regs))
		return 1;
	c.sk = whole(ctx);
	simple_done(KIND_BIND, &c, 0);
	return 1;
}

SEC("cgroup/post_bind4")
int on_bind4(struct bpf_sock *ctx)
{
	return bound(ctx);
}

SEC("cgroup/post_bind6")
int on_bind6(struct bpf_sock *ctx)
{
	return bound(ctx);
}

/* A connect of a datagram socket, or what passes for one, to the address that the kernel holds. */
static __noinline int emit_towards(struct bpf_sock_addr *ctx, u16 family, int result)
{
	const struct sock *sk = whole(ctx->sk);
	struct rec_socket *r;

	COUNT(KIND_CONNECT, generated);
	r = RESERVE(bulk, struct rec_socket);
	if (!r) {
		COUNT(KIND_CONNECT, lost_ring);
		return 1;
	}
	fill_head(&r->head, (struct task_struct *)bpf_get_current_task(), KIND_CONNECT, sizeof(*r));
	fill_sock(r, sk);
	r->family = family;
	r->result = result;
	if (family == AF_INET) { /* also of an IPv6 socket */
		__builtin_memset(r->local, 0, sizeof(r->local));
		__builtin_memset(r->remote, 0, sizeof(r->remote));
		BPF_CORE_READ_INTO((u32 *)r->local, sk, __sk_common.skc_rcv_saddr);
		*(u32 *)r->remote = ctx->user_ip4;
	} else {
		*(u32 *)r->remote = ctx->user_ip6[0];
		*(u32 *)(r->remote + 4) = ctx->user_ip6[1];
		*(u32 *)(r->remote + 8) = ctx->user_ip6[2];
		*(u32 *)(r->remote + 12) = ctx->user_ip6[3];
	}
	r->remote_port = bpf_ntohs(ctx->user_port);
	SUBMIT(bulk, r);
	return 1;
}

/* TCP is told by its changes of state. The socket is not bound or connected yet. */
static __noinline int connects(struct bpf_sock_addr *ctx, u16 family)
{
	if (ctx->type != SOCK_DGRAM || !other_way(KIND_CONNECT, cgroup_task_regs) || !wanted(KIND_CONNECT))
		return 1;
	return emit_towards(ctx, family, -EINPROGRESS);
}

SEC("cgroup/connect4")
int on_connect4(struct bpf_sock_addr *ctx)
{
	return connects(ctx, AF_INET);
}

SEC("cgroup/connect6")
int on_connect6(struct bpf_sock_addr *ctx)
{
	return connects(ctx, AF_INET6);
}

/* The socket that a request is about, when its outcome tells of this kind; otherwise NULL.
 * Since 5.19 the tracepoint is given the request, and that its outcome; NULL for the further outcomes
 * of one request (a multishot accept).
 */
static __always_inline const struct sock *asked(const struct io_kiocb *req, u16 kind)
{
	struct socket *socket;
	struct file *file;

	if (!(by_call & (1ULL << kind)))
		return NULL;
	file = BPF_CORE_READ(req, file);
	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

/* io_kiocb.cmd, where a request keeps its arguments, begins where the request does. */
SHARED int asked_connect(const struct io_kiocb *req)
{
	struct io_connect *n = (void *)req;
	struct call c = {.fd = -1};

	if (BPF_CORE_READ(req, opcode) != URING_CONNECT)
		return 0;
	c.sk = asked(req, KIND_CONNECT);
	if (!c.sk)
		return 0;
	c.address = (u64)BPF_CORE_READ(n, addr);
	c.length = BPF_CORE_READ(n, addr_len);
	return connect_done(&c, BPF_CORE_READ(req, cqe.res));
}

SHARED int asked_accept(const struct io_kiocb *req)
{
	struct io_accept *a = (void *)req;
	int res = BPF_CORE_READ(req, cqe.res);
	struct call c = {.fd = -1};
	const struct sock *sk;

	if (BPF_CORE_READ(req, opcode) != URING_ACCEPT)
		return 0;
	sk = asked(req, KIND_ACCEPT);
	if (!sk)
		return 0;
	if (res < 0 || BPF_CORE_READ(a, file_slot)) /* there is no descriptor */
		c.sk = sk;
	return accept_done(&c, res);
}

SHARED int asked_bind(const struct io_kiocb *req)
{
	u8 operation = BPF_CORE_READ(req, opcode);
	u16 kind = operation == URING_BIND ? KIND_BIND : KIND_LISTEN;
	struct call c = {.fd = -1};

	if (operation != URING_BIND && operation != URING_LISTEN)
		return 0;
	c.sk = asked(req, kind);
	return c.sk ? simple_done(kind, &c, BPF_CORE_READ(req, cqe.res)) : 0;
}

#define URING(what)                                                                         \
	SEC("tp_btf/io_uring_complete")                                                     \
	int BPF_PROG(on_uring_##what##_tp_btf, const void *ring, const struct io_kiocb *req) \
	{                                                                                   \
		hold_cpu();                                                                 \
		return release_cpu(asked_##what(req));                                      \
	}                                                                                   \
	SEC("raw_tp/io_uring_complete")                                                     \
	int BPF_PROG(on_uring_##what##_raw_tp, const void *ring, const struct io_kiocb *req) \
	{                                                                                   \
		hold_cpu();                                                                 \
		return release_cpu(asked_##what(req));                                      \
	}

URING(connect)
URING(accept)
URING(bind)

#endif
