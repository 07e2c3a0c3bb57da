/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* What was asked of a socket and how it ended: accept, bind, listen, and connects that are
 * not TCP or failed at once (socket.bpf.h tells of the others).
 */

/* The arguments of a system call on a socket, as far as they are known. */
struct call {
	const struct sock *sk; /* NULL: the one that fd names */
	u64 since;	       /* 0 unknown */
	__s32 fd;	       /* -1 unknown */
	u32 depth;	       /* calls below this one, which it speaks for */
	u64 address;
	u32 length;
	u32 kernel; /* the address is the kernel's own copy, not user memory */
};

SHARED const struct sock *sock_of(struct task_struct *t, int fd)
{
	struct file **table, *file = NULL;
	struct socket *socket;
	struct fdtable *fdt;

	fdt = BPF_CORE_READ(t, files, fdt);
	if (fd < 0 || (u32)fd >= BPF_CORE_READ(fdt, max_fds))
		return NULL;
	table = BPF_CORE_READ(fdt, fd);
	bpf_probe_read_kernel(&file, sizeof(file), table + fd);
	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

/* put_sun appends a kernel unix address; its length says what is abstract or unnamed. */
SHARED void put_sun(struct rec_socket *r, u8 *to, struct unix_address *a)
{
	int n;

	if (!a)
		return;
	n = BPF_CORE_READ(a, len) - 2;
	if (n <= 0)
		return;
	if (n > 108)
		n = 108;
	if (!bpf_probe_read_kernel(to, BOUND(n, UNIX_PATH), (void *)a + bpf_core_field_offset(struct unix_address, name) + 2))
		r->path.len = n;
}

static __always_inline const struct sock *sock_of_call(struct task_struct *t, struct call *c)
{
	return c->sk ? c->sk : sock_of(t, c->fd);
}

/* What the caller passed, where the kernel kept no address. */
SHARED void put_user_address(struct rec_socket *r, u8 *to, u16 *port, struct call *c)
{
	struct {
		u16 family;
		u16 port;
		u32 four; /* IPv4 address, or IPv6 flow */
		u8 six[16];
	} a = {};

	/* A sockaddr_in has 16 bytes, of which 8 count. Constant sizes please the verifier. */
	if (c->kernel) { /* a sockaddr_storage */
		if (bpf_probe_read_kernel(&a, sizeof(a), (void *)c->address))
			return;
	} else if (c->length >= sizeof(a)) {
		if (bpf_probe_read_user(&a, sizeof(a), (void *)c->address))
			return;
	} else if (c->length < 8 || bpf_probe_read_user(&a, 8, (void *)c->address)) {
		return;
	}
	if (!c->kernel)
		r->head.flags |= FLAG_USER_ADDRESS;
	if (a.family == AF_INET) {
		__builtin_memcpy(to, &a.four, 4);
		*port = bpf_ntohs(a.port);
	} else if (a.family == AF_INET6) {
		__builtin_memcpy(to, a.six, 16);
		*port = bpf_ntohs(a.port);
	}
}

SHARED void put_user_sun(struct rec_socket *r, u8 *to, struct call *c)
{
	u32 n = c->length;

	if (!c->address || n <= 2)
		return;
	n = n > 110 ? 108 : n - 2;
	if (c->kernel) {
		if (bpf_probe_read_kernel(to, BOUND(n, UNIX_PATH), (void *)(c->address + 2)))
			return;
	} else {
		if (bpf_probe_read_user(to, BOUND(n, UNIX_PATH), (void *)(c->address + 2)))
			return;
		r->head.flags |= FLAG_USER_ADDRESS;
	}
	r->path.len = n;
}

/* A record with room for a unix address behind it. */
struct sun_record {
	struct rec_socket r;
	u8 path[UNIX_PATH];
};

SHARED void emit_call(CTX_PARAM struct task_struct *t, const struct sock *sk, u16 kind, long ret, struct call *c)
{
	u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	struct sun_record *s = NULL;
	struct rec_socket *r;
	bool local;

	if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
		return;
	COUNT(kind, generated);
#ifdef LEGACY /* where there is room for either; old verifiers forget a NULL on the stack */
	s = RESERVE(bulk, struct sun_record);
	r = (void *)s;
	local = family == AF_UNIX;
#else
	if (family == AF_UNIX) {
		s = RESERVE(bulk, struct sun_record);
		r = (void *)s;
	} else {
		r = RESERVE(bulk, struct rec_socket);
	}
	ONE_WAY(s); /* what room there is shows in s alone */
	local = s;
#endif
	if (!r) {
		COUNT(kind, lost_ring);
		return;
	}
	fill_head(&r->head, t, kind, local ? sizeof(*s) : sizeof(*r));
	fill_sock(r, sk);
	r->fd = c->fd;
	r->result = ret < 0 ? ret : 0;
	if (c->since)
		r->duration = r->head.time - c->since;
	if (local) {
		__builtin_memset(s->path, 0, sizeof(s->path));
		if (ret < 0 && kind != KIND_ACCEPT) {
			put_user_sun(&s->r, s->path, c);
		} else {
			/* the peer's address is what was connected to */
			if (kind == KIND_CONNECT)
				sk = (void *)BPF_CORE_READ((struct unix_sock *)sk, peer);
			if (sk)
				put_sun(&s->r, s->path, BPF_CORE_READ((struct unix_sock *)sk, addr));
		}
		SUBMIT(bulk, s);
		return;
	}
	if (ret < 0 && kind == KIND_CONNECT)
		put_user_address(r, r->remote, &r->remote_port, c);
	else if (ret < 0 && kind == KIND_BIND)
		put_user_address(r, r->local, &r->local_port, c);
	SUBMIT(bulk, r);
}

/* Whether a failed connect of this thread was told, of this socket or (0) of any. */
static __always_inline bool was_told(struct task_struct *t, u64 sock, int err)
{
	u32 tid = BPF_CORE_READ(t, pid);
	struct told *s = bpf_map_lookup_elem(&told, &tid);
	bool same;

	if (!s)
		return false;
	same = (!sock || s->sock == sock) && now() - s->time < TOLD_NS;
	if (same && err == -EINPROGRESS) /* refused between the call's last look and its exit */
		return true;
	same = same && s->err == err;
	bpf_map_delete_elem(&told, &tid);
	return same;
}

SHARED int connect_done(CTX_PARAM struct call *c, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	const struct sock *sk;
	struct owner *o = NULL;
	u64 key;

	if (!wanted(KIND_CONNECT) && !wanted(KIND_CLOSE))
		return 0;
	if (ret == -EALREADY || ret == -EISCONN)
		return 0;
	sk = sock_of_call(t, c);
	if (!sk)
		return 0;
	if (SETTING(no_state_hook) || !is_tcp(sk)) {
		u16 family = AF_INET;

		/* connect(AF_UNSPEC) takes a datagram socket's peer away */
		if (c->kernel)
			bpf_probe_read_kernel(&family, sizeof(family), (void *)c->address);
		else
			bpf_probe_read_user(&family, sizeof(family), (void *)c->address);
		/* a connection over several paths: the first of its TCP sockets has told */
		if (!SETTING(no_state_hook) && protocol_of(sk) == IPPROTO_MPTCP && (!ret || was_told(t, 0, ret)))
			return 0;
		if (family == AF_UNSPEC)
			return 0;
	} else {
		if (!ret)
			return 0; /* told when the handshake ended */
		key = (u64)sk;
		o = bpf_map_lookup_elem(&owners, &key);
		if (o) {
			/* It goes on without the call: it would block, or a signal or a time limit ended it. */
			if (o->state == STATE_CONNECTING && o->in_call) {
				o->in_call = 0;
				emit_owned(CTX sk, o, KIND_CONNECT, -EINPROGRESS, now());
			}
			return 0;
		}
		if (was_told(t, key, ret))
			return 0;
	}
	if (wanted(KIND_CONNECT))
		emit_call(CTX t, sk, KIND_CONNECT, ret, c);
	return 0;
}

SHARED int accept_done(CTX_PARAM struct call *c, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	const struct sock *sk;
	struct owner fresh;
	u64 key;

	if (!wanted(KIND_ACCEPT) && !wanted(KIND_CLOSE))
		return 0;
	if (ret == -EAGAIN || ret == -EINTR || ret == -ERESTARTSYS)
		return 0; /* nobody was there */
	if (ret >= 0 && !c->sk)
		c->fd = ret;
	sk = sock_of_call(t, c);
	if (!sk)
		return 0;
	if (ret < 0 || !is_tcp(sk)) {
		if (wanted(KIND_ACCEPT))
			emit_call(CTX t, sk, KIND_ACCEPT, ret < 0 ? ret : 0, c);
		return 0;
	}
	/* One head does for the accept and, later, the close. */
	__builtin_memset(&fresh, 0, sizeof(fresh));
	fill_head(&fresh.head, t, KIND_ACCEPT, 0);
	fresh.fd = c->fd;
	fresh.since = c->since ? c->since : fresh.head.time;
	emit_owned(CTX sk, &fresh, KIND_ACCEPT, 0, fresh.head.time);
	if (!wanted(KIND_CLOSE))
		return 0;
	fresh.since = fresh.head.time;
	fresh.state = STATE_OPEN;
	key = (u64)sk;
	count_passed(key);
	if (bpf_map_update_elem(&owners, &key, &fresh, BPF_ANY)) {
		COUNT(KIND_CLOSE, generated);
		COUNT(KIND_CLOSE, lost_map);
		return 0;
	}
	/* Reset by its peer before it was accepted: its change of state went by unowned. */
	if (BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_CLOSE && !bpf_map_delete_elem(&owners, &key))
		emit_owned(CTX sk, &fresh, KIND_CLOSE, -BPF_CORE_READ(sk, sk_err), now());
	return 0;
}

SHARED int simple_done(CTX_PARAM u16 kind, struct call *c, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	const struct sock *sk;

	if (!wanted(kind))
		return 0;
	sk = sock_of_call(t, c);
	if (sk)
		emit_call(CTX t, sk, kind, ret, c);
	return 0;
}

/* The best tiers stand on functions of net/ and security/ that the kernel calls by pointer or
 * from another file, so that no compiler inlines them; below every way to ask (both widths of
 * system call, io_uring), over the kernel's own copy of the address, and no other call pays.
 * None but those of AF_UNIX waits for the peer: a kretprobe has room for a few waiting calls
 * only, and an fexit program on a function that waits could not be taken off before 5.12.
 *
 * The families' own functions say how it ended, security_socket_*() when a security module
 * has forbidden it before. (An LSM program needs what fexit needs, and knows no outcome.)
 */
static __always_inline struct call call_below(const struct sock *sk, u64 address, u32 length)
{
	struct call c = {.sk = sk, .fd = -1, .address = address, .length = length, .kernel = 1};

	return c;
}

static __always_inline struct call call_of_socket(struct socket *socket, u64 address, u32 length)
{
	return call_below(BPF_CORE_READ(socket, sk), address, length);
}

#define O_NONBLOCK 04000

/* How a connect that does not wait ended: with an error, or with a SYN sent. */
SHARED int connect_sent(CTX_PARAM struct call *c, long ret)
{
	const struct sock *sk = c->sk;

	if (is_subflow(sk))
		return 0;
	if (!ret && is_tcp(sk)) {
		if (SETTING(no_state_hook))
			ret = BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_ESTABLISHED ? 0 : -EINPROGRESS;
		else if (BPF_CORE_READ(sk, sk_socket, file, f_flags) & O_NONBLOCK)
			ret = -EINPROGRESS;
		else
			return 0;
	}
	return connect_done(CTX c, ret);
}

/* sock_graft() joins what was accepted to its new socket, in every family. */
static __always_inline int accepted(CTX_PARAM const struct sock *sk)
{
	struct call c = call_below(sk, 0, 0);

	return accept_done(CTX &c, 0);
}

SHARED int bind_done(CTX_PARAM struct call *c, long ret)
{
	return is_subflow(c->sk) ? 0 : simple_done(CTX KIND_BIND, c, ret);
}

SHARED int listen_done(CTX_PARAM struct call *c, long ret)
{
	return is_subflow(c->sk) ? 0 : simple_done(CTX KIND_LISTEN, c, ret);
}

#ifndef LEGACY

SEC("fexit/tcp_v4_connect")
int BPF_PROG(on_connect_sent_fexit, const struct sock *sk, void *address, int length, int ret)
{
	struct call c = call_below(sk, (u64)address, length);

	hold_cpu();
	return release_cpu(connect_sent(CTX &c, ret));
}

SEC("fexit/inet_dgram_connect")
int BPF_PROG(on_connect_fexit, struct socket *socket, void *address, int length, int flags, int ret)
{
	struct call c = call_of_socket(socket, (u64)address, length);

	hold_cpu();
	return release_cpu(connect_done(CTX &c, ret));
}

SEC("fentry/security_sock_graft")
int BPF_PROG(on_accept_fentry, const struct sock *sk)
{
	hold_cpu();
	return release_cpu(accepted(CTX sk));
}

SEC("fexit/inet_bind")
int BPF_PROG(on_bind_fexit, struct socket *socket, void *address, int length, int ret)
{
	struct call c = call_of_socket(socket, (u64)address, length);

	hold_cpu();
	return release_cpu(bind_done(CTX &c, ret));
}

SEC("fexit/inet_listen")
int BPF_PROG(on_listen_fexit, struct socket *socket, int backlog, int ret)
{
	struct call c = call_of_socket(socket, 0, 0);

	hold_cpu();
	return release_cpu(listen_done(CTX &c, ret));
}

SEC("fexit/security_socket_connect")
int BPF_PROG(on_connect_denied_fexit, struct socket *socket, void *address, int length, int ret)
{
	struct call c;

	if (!ret)
		return 0;
	c = call_of_socket(socket, (u64)address, length);
	hold_cpu();
	return release_cpu(connect_done(CTX &c, ret));
}

SEC("fexit/security_socket_accept")
int BPF_PROG(on_accept_denied_fexit, struct socket *socket, struct socket *new, int ret)
{
	struct call c;

	if (!ret)
		return 0;
	c = call_of_socket(socket, 0, 0);
	hold_cpu();
	return release_cpu(accept_done(CTX &c, ret));
}

SEC("fexit/security_socket_bind")
int BPF_PROG(on_bind_denied_fexit, struct socket *socket, void *address, int length, int ret)
{
	struct call c;

	if (!ret)
		return 0;
	c = call_of_socket(socket, (u64)address, length);
	hold_cpu();
	return release_cpu(bind_done(CTX &c, ret));
}

SEC("fexit/security_socket_listen")
int BPF_PROG(on_listen_denied_fexit, struct socket *socket, int backlog, int ret)
{
	struct call c;

	if (!ret)
		return 0;
	c = call_of_socket(socket, 0, 0);
	hold_cpu();
	return release_cpu(listen_done(CTX &c, ret));
}

#endif

/* Tiers that see a call twice: the first look leaves the arguments for the second, by thread. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, NO_PREALLOC);
	__type(key, u32);
	__type(value, struct call);
} calls SEC(".maps");

static __always_inline int call_begins(struct call *c, u16 kind)
{
	u32 tid = bpf_get_current_pid_tgid();

	if (bpf_map_update_elem(&calls, &tid, c, BPF_ANY)) {
		COUNT(kind, generated);
		COUNT(kind, lost_map);
	}
	return 0;
}

static __always_inline bool call_ends(struct call *to)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct call *c = bpf_map_lookup_elem(&calls, &tid);

	if (!c)
		return false;
	if (c->depth) {
		c->depth--;
		return false;
	}
	*to = *c;
	bpf_map_delete_elem(&calls, &tid);
	return true;
}

/* The same by kprobes, where the kernel has no trampolines for BPF. A call below another, for
 * one of its paths or of tcp_v4_connect() for an address in ::ffff:0:0/96, is part of it.
 */
static __always_inline int call_enters(struct call *c, u16 kind)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct call *outer = bpf_map_lookup_elem(&calls, &tid);
	bool part = is_subflow(c->sk);

	if (outer && (part || outer->sk == c->sk)) {
		outer->depth++;
		return 0;
	}
	return part ? 0 : call_begins(c, kind);
}

#define PROBE(name, kind, arguments, done)                                              \
	SEC("kprobe/" #name)                                                            \
	int on_##name##_kprobe(struct pt_regs *ctx)                                     \
	{                                                                               \
		struct call c = arguments;                                              \
                                                                                        \
		return call_enters(&c, kind);                                           \
	}                                                                               \
	SEC("kretprobe/" #name)                                                         \
	int on_##name##_kretprobe(struct pt_regs *ctx)                                  \
	{                                                                               \
		struct call c;                                                          \
		int ret = FUNC_RESULT(ctx);                                             \
                                                                                        \
		return call_ends(&c) ? done : 0;                                        \
	}

#define SOCK_ARGUMENTS call_below((void *)FUNC_ARG1(ctx), FUNC_ARG2(ctx), FUNC_ARG3(ctx))
#define SOCKET_ARGUMENTS call_of_socket((void *)FUNC_ARG1(ctx), FUNC_ARG2(ctx), FUNC_ARG3(ctx))

PROBE(connect_sent, KIND_CONNECT, SOCK_ARGUMENTS, connect_sent(CTX &c, ret))
PROBE(connect, KIND_CONNECT, SOCKET_ARGUMENTS, connect_done(CTX &c, ret))
PROBE(bind, KIND_BIND, SOCKET_ARGUMENTS, bind_done(CTX &c, ret))
PROBE(listen, KIND_LISTEN, SOCKET_ARGUMENTS, listen_done(CTX &c, ret))
PROBE(connect_denied, KIND_CONNECT, SOCKET_ARGUMENTS, ret ? connect_done(CTX &c, ret) : 0)
PROBE(accept_denied, KIND_ACCEPT, SOCKET_ARGUMENTS, ret ? accept_done(CTX &c, ret) : 0)
PROBE(bind_denied, KIND_BIND, SOCKET_ARGUMENTS, ret ? bind_done(CTX &c, ret) : 0)
PROBE(listen_denied, KIND_LISTEN, SOCKET_ARGUMENTS, ret ? listen_done(CTX &c, ret) : 0)

SEC("kprobe/security_sock_graft")
int on_accept_kprobe(struct pt_regs *ctx)
{
	return accepted(CTX (void *)FUNC_ARG1(ctx));
}

#ifndef LEGACY

/* System calls, from 5.15: the exit alone. The registers that carried the arguments still hold
 * them (the system call ABI keeps them), so the entry need not be watched.
 */
static __always_inline void call_from_regs(struct call *c)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());

	*c = (struct call){
		.fd = (int)CALL_ARG1(regs),
		.address = CALL_ARG2(regs),
		.length = CALL_ARG3(regs),
	};
}

SEC("tracepoint/syscalls/sys_exit_connect")
int on_connect_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct call c;

	call_from_regs(&c);
	return connect_done(CTX &c, ctx->ret);
}

/* And at that of accept4(2). */
SEC("tracepoint/syscalls/sys_exit_accept")
int on_accept_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct call c;

	call_from_regs(&c);
	return accept_done(CTX &c, ctx->ret);
}

SEC("tracepoint/syscalls/sys_exit_bind")
int on_bind_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct call c;

	call_from_regs(&c);
	return simple_done(CTX KIND_BIND, &c, ctx->ret);
}

SEC("tracepoint/syscalls/sys_exit_listen")
int on_listen_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct call c;

	call_from_regs(&c);
	return simple_done(CTX KIND_LISTEN, &c, ctx->ret);
}

#endif

/* Before 5.15: the entry too. */
static __always_inline struct call call_of_entry(struct trace_event_raw_sys_enter *ctx, u16 kind)
{
	struct call c = {
		.since = now(),
		.fd = (int)ctx->args[0],
	};

	/* A program that looks past the arguments of its call is not attached, and listen has two. */
	if (kind == KIND_CONNECT || kind == KIND_BIND) {
		c.address = ctx->args[1];
		c.length = (u32)ctx->args[2];
	}
	return c;
}

#define PAIR(name, kind, done)                                            \
	SEC("tracepoint/syscalls/sys_enter_" #name)                       \
	int on_##name##_pair_enter(struct trace_event_raw_sys_enter *ctx) \
	{                                                                 \
		struct call c = call_of_entry(ctx, kind);                 \
                                                                          \
		return call_begins(&c, kind);                             \
	}                                                                 \
	SEC("tracepoint/syscalls/sys_exit_" #name)                        \
	int on_##name##_pair_exit(struct trace_event_raw_sys_exit *ctx)   \
	{                                                                 \
		struct call c;                                            \
                                                                          \
		return call_ends(&c) ? done : 0;                          \
	}

PAIR(connect, KIND_CONNECT, connect_done(CTX &c, ctx->ret))
PAIR(accept, KIND_ACCEPT, accept_done(CTX &c, ctx->ret))
PAIR(accept4, KIND_ACCEPT, accept_done(CTX &c, ctx->ret))
PAIR(bind, KIND_BIND, simple_done(CTX KIND_BIND, &c, ctx->ret))
PAIR(listen, KIND_LISTEN, simple_done(CTX KIND_LISTEN, &c, ctx->ret))
