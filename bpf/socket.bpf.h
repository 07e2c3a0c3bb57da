/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Sockets. What happened is read from the kernel's struct sock, after it happened:
 *
 *   TCP connect, close   inet_sock_set_state, below every way to ask for them (system call of
 *                        either width, io_uring, TCP fast open); no cost to other calls
 *   accept, bind, listen, and connects that are not TCP or failed at once
 *                        call.bpf.h
 *   UDP without connect  datagram.bpf.h
 *
 * Who opened a connection is kept by socket until its close, which often happens in a
 * softirq, where the current task is nobody in particular. Of a connection whose beginning was
 * not seen, it is whoever lets go of it first: shuts it down, or closes its last descriptor.
 */

#define AF_UNSPEC 0
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_MPTCP 262
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_FIN_WAIT1 4
#define TCP_FIN_WAIT2 5
#define TCP_CLOSE 7
#define TCP_LAST_ACK 9
#define TCP_LISTEN 10
#define TCP_CLOSING 11
#define ENOENT 2
#define EINTR 4
#define EIO 5
#define EAGAIN 11
#define EALREADY 114
#define EINPROGRESS 115
#define EISCONN 106
#define ERESTARTSYS 512
#define SOCK_DONE 1
#define UNIX_PATH 128 /* sun_path with its zero, in a power of two */

enum state {
	STATE_CONNECTING = 1,
	STATE_OPEN = 2,
};

struct owner {
	struct rec_head head;
	u64 since; /* when connect was asked for, or the connection came to be */
	u32 state;
	u32 in_call; /* connect(2) has not returned */
	int fd;	     /* -1 unknown */
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, NO_PREALLOC);
	__type(key, u64); /* address of the struct sock */
	__type(value, struct owner);
} owners SEC(".maps");

/* Connects that failed below their call and were told then, by thread: the exit of the call,
 * or of the one that asks for the outcome, has nothing to add. Not every connect has such an
 * exit (io_uring, TCP fast open, getsockopt), hence LRU.
 */
struct told {
	u64 sock;
	u64 time;
	int err;
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, struct told);
} told SEC(".maps");

#define TOLD_NS 1000000000 /* a caller learns of the failure sooner than that */

/* The macro reads plain fields too; before 5.6 both were bit fields of one word. */
static __always_inline u16 protocol_of(const struct sock *sk)
{
	return BPF_CORE_READ_BITFIELD_PROBED((struct sock___before_5_6 *)sk, sk_protocol);
}

static __always_inline u16 type_of(const struct sock *sk)
{
	return BPF_CORE_READ_BITFIELD_PROBED((struct sock___before_5_6 *)sk, sk_type);
}

static __always_inline u32 netns_of(const struct sock *sk)
{
	struct sock___before_4_1 *older = (void *)sk;
	struct net___before_3_19 *old;
	struct net *net = NULL;
	u32 inum = 0;

	if (bpf_core_field_exists(sk->__sk_common.skc_net.net))
		net = BPF_CORE_READ(sk, __sk_common.skc_net.net);
	if (bpf_core_field_exists(older->__sk_common.skc_net))
		net = BPF_CORE_READ(older, __sk_common.skc_net);
	old = (void *)net;
	if (bpf_core_field_exists(net->ns.inum))
		inum = BPF_CORE_READ(net, ns.inum);
	if (bpf_core_field_exists(old->proc_inum))
		inum = BPF_CORE_READ(old, proc_inum);
	return inum;
}

/* The kernel gives a socket its number when somebody asks for it; before 4.2, never. */
static __always_inline u64 cookie_of(const struct sock *sk)
{
	if (!bpf_core_field_exists(sk->__sk_common.skc_cookie.counter))
		return 0;
	return BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
}

static __always_inline bool is_tcp(const struct sock *sk)
{
	u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	return (family == AF_INET || family == AF_INET6) && protocol_of(sk) == IPPROTO_TCP && type_of(sk) == SOCK_STREAM;
}

/* fill_sock writes what the socket itself knows; the head and result are the caller's. */
SHARED void fill_sock(struct rec_socket *r, const struct sock *sk)
{
	u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	__builtin_memset((void *)r + sizeof(r->head), 0, sizeof(*r) - sizeof(r->head));
	r->family = family;
	r->type = type_of(sk);
	r->protocol = protocol_of(sk);
	r->cookie = cookie_of(sk);
	r->netns = netns_of(sk);
	r->fd = -1;
	r->path.off = sizeof(*r);
	if (family == AF_INET) {
		BPF_CORE_READ_INTO((u32 *)r->local, sk, __sk_common.skc_rcv_saddr);
		BPF_CORE_READ_INTO((u32 *)r->remote, sk, __sk_common.skc_daddr);
	} else if (family == AF_INET6) {
		BPF_CORE_READ_INTO((struct in6_addr *)r->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO((struct in6_addr *)r->remote, sk, __sk_common.skc_v6_daddr);
	}
	if (family != AF_UNIX) {
		/* inet_put_port() has cleared skc_num by the time of TCP_CLOSE. */
		r->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
		if (!r->local_port)
			r->local_port = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
		r->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	}
}

/* count_bytes says what a connection carried, without repeats. Before 4.19 the kernel counts
 * what was acknowledged, to which belong our SYN and our FIN, and before 4.1 nothing (but
 * RHEL 7 has the counters of 4.1).
 */
static __always_inline void count_bytes(struct rec_socket *r, struct tcp_sock *t, bool connected)
{
	struct sock___before_3_18 *older = (void *)t;
	struct sock *sk = (void *)t;
	unsigned long flags = 0;

	if (bpf_core_field_exists(t->bytes_retrans)) {
		r->sent = BPF_CORE_READ(t, bytes_sent) - BPF_CORE_READ(t, bytes_retrans);
	} else if (bpf_core_field_exists(t->bytes_acked)) {
		u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);

		r->sent = BPF_CORE_READ(t, bytes_acked);
		if (connected && r->sent)
			r->sent--;
		if (r->sent && (state == TCP_FIN_WAIT2 || state == TCP_CLOSING || state == TCP_LAST_ACK) &&
		    BPF_CORE_READ(t, snd_una) == BPF_CORE_READ(t, write_seq))
			r->sent--;
	}
	if (bpf_core_field_exists(t->bytes_received))
		r->received = BPF_CORE_READ(t, bytes_received);
	/* tcp_queue_rcv() counts the peer's FIN, which SOCK_DONE tells of, as a byte */
	if (bpf_core_field_exists(sk->__sk_common.skc_flags))
		flags = BPF_CORE_READ(sk, __sk_common.skc_flags);
	if (bpf_core_field_exists(older->sk_flags))
		flags = BPF_CORE_READ(older, sk_flags);
	if (r->received && flags & (1 << SOCK_DONE))
		r->received--;
}

/* emit_owned sends a record about a socket in the name of its owner. */
SHARED void emit_owned(CTX_PARAM const struct sock *sk, struct owner *o, u16 kind, int result, u64 now)
{
	struct rec_socket *r;
	u32 size = sizeof(*r);

	if (!wanted(kind))
		return;
	COUNT(kind, generated);
	r = RESERVE(bulk, struct rec_socket);
	if (!r) {
		COUNT(kind, lost_ring);
		return;
	}
	__builtin_memcpy(&r->head, &o->head, sizeof(r->head));
	fill_sock(r, sk);
	r->head.time = now;
	r->head.kind = kind;
	r->head.size = size;
	r->duration = o->since ? now - o->since : 0;
	r->result = result;
	r->fd = kind == KIND_CLOSE ? -1 : o->fd; /* by then it is nobody's or another's */
	if (kind == KIND_CLOSE)
		count_bytes(r, (void *)sk, o->head.kind == KIND_CONNECT);
	SUBMIT(bulk, r);
}

/* count_passed counts a close that went by while this CPU ran another program: its socket is
 * gone, and another stands at its address.
 */
static __always_inline void count_passed(u64 key)
{
	struct owner *o = bpf_map_lookup_elem(&owners, &key);

	if (o && o->state == STATE_OPEN && wanted(KIND_CLOSE)) {
		COUNT(KIND_CLOSE, generated);
		COUNT(KIND_CLOSE, lost_busy);
	}
}

/* A socket of one path of a connection over several: its owner tells. */
static __always_inline bool is_subflow(const struct sock *sk)
{
	const struct tcp_sock *t = (void *)sk;

	return bpf_core_field_exists(t->is_mptcp) && is_tcp(sk) && BPF_CORE_READ(t, is_mptcp);
}

/* tcp_close_state(): the process lets go of the connection. */
static __always_inline bool lets_go(int new)
{
	return new == TCP_FIN_WAIT1 || new == TCP_LAST_ACK;
}

#ifndef LEGACY
static int listens(const struct sock *sk);
#endif

SHARED int on_state(CTX_PARAM const struct sock *sk, int old, int new)
{
	u16 kind = new == TCP_SYN_SENT ? KIND_CONNECT : KIND_CLOSE;
	struct owner *o = NULL, fresh;
	u64 key = (u64)sk, now;
	struct told t = {};
	int err;

#ifndef LEGACY
	if (new == TCP_LISTEN)
		return listens(sk);
#endif
	if (new != TCP_SYN_SENT) {
		o = bpf_map_lookup_elem(&owners, &key);
		if (lets_go(new) ? o || !wanted(KIND_CLOSE) || is_subflow(sk) : !o)
			return 0;
	}
	if (!o) {
		if (protocol_of(sk) != IPPROTO_TCP)
			return 0;
		__builtin_memset(&fresh, 0, sizeof(fresh));
		fill_head(&fresh.head, (struct task_struct *)bpf_get_current_task(), kind, 0);
		fresh.fd = -1;
		fresh.state = STATE_OPEN;
		if (new == TCP_SYN_SENT) {
			fresh.since = fresh.head.time;
			fresh.state = STATE_CONNECTING;
			fresh.in_call = 1;
			count_passed(key);
		}
		if (bpf_map_update_elem(&owners, &key, &fresh, BPF_ANY)) {
			COUNT(kind, generated);
			COUNT(kind, lost_map);
		}
		return 0;
	}
	now = now();
	if (new != TCP_CLOSE) {
		emit_owned(CTX sk, o, KIND_CONNECT, 0, now);
		o->state = STATE_OPEN;
		o->since = now;
		return 0;
	}
	/* Whoever deletes the owner reports: accept_done() may be at it on another CPU. The copy
	 * is ours when the deleted element is somebody else's already.
	 */
	fresh = *o;
	if (bpf_map_delete_elem(&owners, &key) == -ENOENT)
		return 0;
	err = BPF_CORE_READ(sk, sk_err);
	if (fresh.state == STATE_OPEN) {
		emit_owned(CTX sk, &fresh, KIND_CLOSE, -err, now);
		return 0;
	}
	/* Without an error, either the call itself failed and its exit will tell why, or the
	 * socket was closed undecided, which was told as in progress.
	 */
	if (!err)
		return 0;
	emit_owned(CTX sk, &fresh, KIND_CONNECT, -err, now);
	t.sock = key;
	t.time = now;
	t.err = -err;
	bpf_map_update_elem(&told, &fresh.head.tid, &t, BPF_ANY);
	return 0;
}

static __always_inline bool state_matters(int old, int new)
{
#ifndef LEGACY
	if (new == TCP_LISTEN)
		return by_call & (1 << KIND_LISTEN);
#endif
	return new == TCP_SYN_SENT || new == TCP_CLOSE || old == TCP_SYN_SENT || lets_go(new);
}

#ifndef LEGACY

/* A softirq may change a socket's state while this CPU runs the program for another. The
 * kernel runs no program within itself, and would pass over the second change; so the hook
 * has two programs, and the second acts when it finds the first under way. User space counts
 * as lost what the first missed and the second did not see.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct state_busy);
} busy SEC(".maps");

static __always_inline int first_on_state(const struct sock *sk, int old, int new)
{
	struct state_busy *b;
	u32 zero = 0;

	if (!state_matters(old, new))
		return 0;
	b = bpf_map_lookup_elem(&busy, &zero);
	if (!b)
		return 0;
	hold_cpu();
	__sync_fetch_and_add(&b->depth, 1);
	on_state(CTX sk, old, new);
	__sync_fetch_and_add(&b->depth, -1);
	return release_cpu(0);
}

static __always_inline int second_on_state(const struct sock *sk, int old, int new)
{
	struct state_busy *b;
	u32 zero = 0;

	b = bpf_map_lookup_elem(&busy, &zero);
	if (!b || !*(volatile u64 *)&b->depth)
		return 0;
	hold_cpu();
	__sync_fetch_and_add(&b->seen, 1);
	if (state_matters(old, new))
		on_state(CTX sk, old, new);
	return release_cpu(0);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state_tp_btf, const struct sock *sk, int old, int new)
{
	return first_on_state(CTX sk, old, new);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state_tp_btf_second, const struct sock *sk, int old, int new)
{
	return second_on_state(CTX sk, old, new);
}

SEC("raw_tp/inet_sock_set_state")
int BPF_PROG(on_state_raw_tp, const struct sock *sk, int old, int new)
{
	return first_on_state(CTX sk, old, new);
}

SEC("raw_tp/inet_sock_set_state")
int BPF_PROG(on_state_raw_tp_second, const struct sock *sk, int old, int new)
{
	return second_on_state(CTX sk, old, new);
}

#endif

/* The kernel runs no two programs of perf events at a time on a CPU, whosesoever: what a softirq changes
 * meanwhile goes by. A close that did is counted when its socket's place is taken again.
 */
struct trace_event_raw_inet_sock_set_state {
	const void *skaddr;
	int oldstate;
	int newstate;
} __attribute__((preserve_access_index));

SEC("tracepoint/sock/inet_sock_set_state")
int on_state_tracepoint(struct trace_event_raw_inet_sock_set_state *ctx)
{
	const struct sock *sk = ctx->skaddr;
	int old = ctx->oldstate, new = ctx->newstate;

	if (!state_matters(old, new))
		return 0;
	hold_cpu();
	return release_cpu(on_state(CTX sk, old, new));
}

#ifdef LEGACY

/* Before 4.16, where that tracepoint came: the function that it is in now. */
SEC("kprobe/tcp_set_state")
int on_state_kprobe(struct pt_regs *ctx)
{
	const struct sock *sk = (void *)FUNC_ARG1(ctx);
	int old = BPF_CORE_READ(sk, __sk_common.skc_state), new = FUNC_ARG2(ctx);

	return state_matters(old, new) ? on_state(CTX sk, old, new) : 0;
}

#endif
