/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* What was asked of a socket and how it ended: accept, bind, listen, and connects that are
 * not TCP or failed at once (socket.bpf.h tells of the others).
 */

/* The arguments of a system call on a socket, as far as they are known. */
struct call {
	const struct sock *sk; /* NULL: the one that fd names */
	u64 since;	       /* 0 unknown */
	__s64 fd;	       /* -1 unknown */
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
	if (!bpf_probe_read_kernel(to, n, (void *)a + bpf_core_field_offset(struct unix_address, name) + 2))
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

	n = n > 110 ? 108 : n - 2;
	if (!c->address || n > 108)
		return;
	if (c->kernel) {
		if (bpf_probe_read_kernel(to, n, (void *)(c->address + 2)))
			return;
	} else {
		if (bpf_probe_read_user(to, n, (void *)(c->address + 2)))
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

SHARED void emit_call(struct task_struct *t, const struct sock *sk, u16 kind, long ret,
				      struct call *c)
{
	u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	struct rec_socket *r;

	if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
		return;
	COUNT(kind, generated);
	if (family == AF_UNIX) {
		struct sun_record *s = bpf_ringbuf_reserve(&bulk, sizeof(*s), 0);

		if (!s) {
			COUNT(kind, lost_ring);
			return;
		}
		__builtin_memset(s->path, 0, sizeof(s->path));
		fill_head(&s->r.head, t, kind, sizeof(*s));
		fill_sock(&s->r, sk);
		s->r.fd = c->fd;
		s->r.result = ret < 0 ? ret : 0;
		if (c->since)
			s->r.duration = s->r.head.time - c->since;
		if (ret < 0 && kind != KIND_ACCEPT) {
			put_user_sun(&s->r, s->path, c);
		} else if (kind == KIND_CONNECT) {
			struct sock *peer = BPF_CORE_READ((struct unix_sock *)sk, peer);

			if (peer)
				put_sun(&s->r, s->path, BPF_CORE_READ((struct unix_sock *)peer, addr));
		} else {
			put_sun(&s->r, s->path, BPF_CORE_READ((struct unix_sock *)sk, addr));
		}
		bpf_ringbuf_submit(s, 0);
		return;
	}
	r = bpf_ringbuf_reserve(&bulk, sizeof(*r), 0);
	if (!r) {
		COUNT(kind, lost_ring);
		return;
	}
	fill_head(&r->head, t, kind, sizeof(*r));
	fill_sock(r, sk);
	r->fd = c->fd;
	r->result = ret < 0 ? ret : 0;
	if (c->since)
		r->duration = r->head.time - c->since;
	if (ret < 0 && kind == KIND_CONNECT)
		put_user_address(r, r->remote, &r->remote_port, c);
	else if (ret < 0 && kind == KIND_BIND)
		put_user_address(r, r->local, &r->local_port, c);
	bpf_ringbuf_submit(r, 0);
}

/* Whether a failed connect of this thread was told, of this socket or (0) of any. */
static __always_inline bool was_told(struct task_struct *t, u64 sock, int err)
{
	u32 tid = BPF_CORE_READ(t, pid);
	struct told *s = bpf_map_lookup_elem(&told, &tid);
	bool same;

	if (!s)
		return false;
	same = (!sock || s->sock == sock) && bpf_ktime_get_boot_ns() - s->time < TOLD_NS;
	if (same && err == -EINPROGRESS) /* refused between the call's last look and its exit */
		return true;
	same = same && s->err == err;
	bpf_map_delete_elem(&told, &tid);
	return same;
}

SHARED int connect_done(struct call *c, long ret)
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
	if (no_state_hook || !is_tcp(BPF_CORE_READ(sk, __sk_common.skc_family), protocol_of(sk))) {
		u16 family = AF_INET;

		/* connect(AF_UNSPEC) takes a datagram socket's peer away */
		if (c->kernel)
			bpf_probe_read_kernel(&family, sizeof(family), (void *)c->address);
		else
			bpf_probe_read_user(&family, sizeof(family), (void *)c->address);
		/* a connection over several paths: the first of its TCP sockets has told */
		if (!no_state_hook && protocol_of(sk) == IPPROTO_MPTCP && (!ret || was_told(t, 0, ret)))
			return 0;
		if (family != AF_UNSPEC && wanted(KIND_CONNECT))
			emit_call(t, sk, KIND_CONNECT, ret, c);
		return 0;
	}
	if (!ret)
		return 0; /* told when the handshake ended */
	key = (u64)sk;
	o = bpf_map_lookup_elem(&owners, &key);
	if (o) {
		/* It goes on without the call: it would block, or a signal or a time limit ended it. */
		if (o->state == STATE_CONNECTING && o->in_call) {
			o->in_call = 0;
			emit_owned(sk, o, KIND_CONNECT, -EINPROGRESS, bpf_ktime_get_boot_ns());
		}
		return 0;
	}
	if (was_told(t, key, ret) || !wanted(KIND_CONNECT))
		return 0;
	emit_call(t, sk, KIND_CONNECT, ret, c);
	return 0;
}

SHARED int accept_done(struct call *c, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	const struct sock *sk;
	struct owner fresh;
	u64 key;

	if (!wanted(KIND_ACCEPT) && !wanted(KIND_CLOSE))
		return 0;
	if (ret < 0) {
		if (ret == -EAGAIN || ret == -EINTR || ret == -ERESTARTSYS)
			return 0; /* nobody was there */
		sk = sock_of(t, c->fd);
		if (sk && wanted(KIND_ACCEPT))
			emit_call(t, sk, KIND_ACCEPT, ret, c);
		return 0;
	}
	if (!c->sk)
		c->fd = ret;
	sk = sock_of_call(t, c);
	if (!sk)
		return 0;
	if (!is_tcp(BPF_CORE_READ(sk, __sk_common.skc_family), protocol_of(sk))) {
		if (wanted(KIND_ACCEPT))
			emit_call(t, sk, KIND_ACCEPT, 0, c);
		return 0;
	}
	/* One head does for the accept and, later, the close. */
	__builtin_memset(&fresh, 0, sizeof(fresh));
	fill_head(&fresh.head, t, KIND_ACCEPT, 0);
	fresh.fd = c->fd;
	fresh.since = c->since ? c->since : fresh.head.time;
	emit_owned(sk, &fresh, KIND_ACCEPT, 0, fresh.head.time);
	if (!wanted(KIND_CLOSE))
		return 0;
	fresh.since = fresh.head.time;
	fresh.state = STATE_OPEN;
	key = (u64)sk;
	if (bpf_map_update_elem(&owners, &key, &fresh, BPF_ANY)) {
		COUNT(KIND_CLOSE, generated);
		COUNT(KIND_CLOSE, lost_map);
		return 0;
	}
	/* Reset by its peer before it was accepted: its change of state went by unowned. */
	if (BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_CLOSE && !bpf_map_delete_elem(&owners, &key))
		emit_owned(sk, &fresh, KIND_CLOSE, -BPF_CORE_READ(sk, sk_err), bpf_ktime_get_boot_ns());
	return 0;
}

SHARED int simple_done(u16 kind, struct call *c, long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	const struct sock *sk;

	if (!wanted(kind))
		return 0;
	sk = sock_of_call(t, c);
	if (sk)
		emit_call(t, sk, kind, ret, c);
	return 0;
}

/* Tier 1: the functions of net/ below every way to call them (both widths of system call,
 * io_uring). The address is the kernel's copy, and no other system call pays.
 */
static __always_inline const struct sock *sock_of_socket(struct socket *socket)
{
	return BPF_CORE_READ(socket, sk);
}

SEC("fexit/__sys_connect_file")
int BPF_PROG(on_connect_fexit, struct file *file, void *address, int length, int flags, int ret)
{
	struct call c = {.fd = -1, .address = (u64)address, .length = length, .kernel = 1};
	struct socket *socket = BPF_CORE_READ(file, private_data);

	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	c.sk = sock_of_socket(socket);
	hold_cpu();
	return release_cpu(connect_done(&c, ret));
}

/* The third argument changed in 6.10, and the result stands behind the last: an accepted
 * socket tells of success itself.
 */
static __always_inline int accepted(struct socket *new)
{
	struct call c = {.fd = -1, .kernel = 1};

	c.sk = sock_of_socket(new);
	if (!c.sk)
		return 0;
	hold_cpu();
	return release_cpu(accept_done(&c, 0));
}

SEC("fexit/inet_accept")
int BPF_PROG(on_accept_fexit_inet, struct socket *socket, struct socket *new)
{
	return accepted(new);
}

SEC("fexit/unix_accept")
int BPF_PROG(on_accept_fexit_unix, struct socket *socket, struct socket *new)
{
	return accepted(new);
}

#define ON_BIND(name)                                                                             \
	SEC("fexit/" #name "_bind")                                                               \
	int BPF_PROG(on_bind_fexit_##name, struct socket *socket, void *address, int length, int ret) \
	{                                                                                         \
		struct call c = {.fd = -1, .address = (u64)address, .length = length, .kernel = 1}; \
                                                                                                  \
		c.sk = sock_of_socket(socket);                                                    \
		hold_cpu();                                                                       \
		return release_cpu(simple_done(KIND_BIND, &c, ret));                              \
	}

ON_BIND(inet)
ON_BIND(inet6)
ON_BIND(unix)

#define ON_LISTEN(name)                                                                  \
	SEC("fexit/" #name "_listen")                                                    \
	int BPF_PROG(on_listen_fexit_##name, struct socket *socket, int backlog, int ret) \
	{                                                                                \
		struct call c = {.fd = -1, .kernel = 1};                                 \
                                                                                         \
		c.sk = sock_of_socket(socket);                                           \
		hold_cpu();                                                              \
		return release_cpu(simple_done(KIND_LISTEN, &c, ret));                   \
	}

ON_LISTEN(inet)
ON_LISTEN(unix)

/* Tier 2, from 5.15: the exit alone. The registers that carried the arguments still hold
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
	return connect_done(&c, ctx->ret);
}

SEC("tracepoint/syscalls/sys_exit_accept")
int on_accept_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct call c;

	call_from_regs(&c);
	return accept_done(&c, ctx->ret);
}

SEC("tracepoint/syscalls/sys_exit_accept4")
int on_accept4_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct call c;

	call_from_regs(&c);
	return accept_done(&c, ctx->ret);
}

SEC("tracepoint/syscalls/sys_exit_bind")
int on_bind_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct call c;

	call_from_regs(&c);
	return simple_done(KIND_BIND, &c, ctx->ret);
}

SEC("tracepoint/syscalls/sys_exit_listen")
int on_listen_exit(struct trace_event_raw_sys_exit *ctx)
{
	struct call c;

	call_from_regs(&c);
	return simple_done(KIND_LISTEN, &c, ctx->ret);
}

/* Tier 3: the entry leaves the arguments for the exit, by thread. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, 1); /* BPF_F_NO_PREALLOC */
	__type(key, u32);
	__type(value, struct call);
} calls SEC(".maps");

static __always_inline int call_begins(struct trace_event_raw_sys_enter *ctx, u16 kind)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct call c = {
		.since = bpf_ktime_get_boot_ns(),
		.fd = (int)ctx->args[0],
	};

	/* A program that looks past the arguments of its call is not attached, and listen has two. */
	if (kind == KIND_CONNECT || kind == KIND_BIND) {
		c.address = ctx->args[1];
		c.length = (u32)ctx->args[2];
	}
	if (bpf_map_update_elem(&calls, &tid, &c, BPF_ANY)) {
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
	*to = *c;
	bpf_map_delete_elem(&calls, &tid);
	return true;
}

#define PAIR(name, kind, done)                                            \
	SEC("tracepoint/syscalls/sys_enter_" #name)                       \
	int on_##name##_pair_enter(struct trace_event_raw_sys_enter *ctx) \
	{                                                                 \
		return call_begins(ctx, kind);                            \
	}                                                                 \
	SEC("tracepoint/syscalls/sys_exit_" #name)                        \
	int on_##name##_pair_exit(struct trace_event_raw_sys_exit *ctx)   \
	{                                                                 \
		struct call c;                                            \
                                                                          \
		return call_ends(&c) ? done : 0;                          \
	}

PAIR(connect, KIND_CONNECT, connect_done(&c, ctx->ret))
PAIR(accept, KIND_ACCEPT, accept_done(&c, ctx->ret))
PAIR(accept4, KIND_ACCEPT, accept_done(&c, ctx->ret))
PAIR(bind, KIND_BIND, simple_done(KIND_BIND, &c, ctx->ret))
PAIR(listen, KIND_LISTEN, simple_done(KIND_LISTEN, &c, ctx->ret))
