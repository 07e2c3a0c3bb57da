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
 * softirq, where the current task is nobody in particular.
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
#define TCP_CLOSE 7
#define ENOENT 2
#define EINTR 4
#define EAGAIN 11
#define EALREADY 114
#define EINPROGRESS 115
#define EISCONN 106
#define ERESTARTSYS 512
#define SOCK_DONE 1
#define UNIX_PATH 112 /* sun_path with its zero, in eights */

/* Set by user space when nothing is attached to inet_sock_set_state. */
volatile u32 no_state_hook;

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
	__uint(map_flags, 1); /* BPF_F_NO_PREALLOC */
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

static __always_inline u16 protocol_of(const struct sock *sk)
{
	if (bpf_core_field_size(sk->sk_protocol) == 2)
		return BPF_CORE_READ(sk, sk_protocol);
	return BPF_CORE_READ_BITFIELD_PROBED((struct sock___before_5_6 *)sk, sk_protocol);
}

static __always_inline u16 type_of(const struct sock *sk)
{
	if (bpf_core_field_size(sk->sk_protocol) == 2)
		return BPF_CORE_READ(sk, sk_type);
	return BPF_CORE_READ_BITFIELD_PROBED((struct sock___before_5_6 *)sk, sk_type);
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
	r->cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	r->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
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

/* emit_owned sends a record about a socket in the name of its owner. */
SHARED void emit_owned(const struct sock *sk, struct owner *o, u16 kind, int result,
				       u64 now)
{
	struct rec_socket *r;
	u32 size = sizeof(*r);

	if (!wanted(kind))
		return;
	COUNT(kind, generated);
	r = bpf_ringbuf_reserve(&bulk, sizeof(*r), 0);
	if (!r) {
		COUNT(kind, lost_ring);
		return;
	}
	__builtin_memcpy(&r->head, &o->head, sizeof(r->head));
	fill_sock(r, sk);
	r->head.time = now;
	r->head.kind = kind;
	r->head.size = size;
	r->duration = now - o->since;
	r->result = result;
	r->fd = kind == KIND_CLOSE ? -1 : o->fd; /* by then it is nobody's or another's */
	if (kind == KIND_CLOSE) {
		r->sent = BPF_CORE_READ((struct tcp_sock *)sk, bytes_sent) -
			  BPF_CORE_READ((struct tcp_sock *)sk, bytes_retrans);
		r->received = BPF_CORE_READ((struct tcp_sock *)sk, bytes_received);
		/* tcp_queue_rcv() counts the peer's FIN, which SOCK_DONE tells of, as a byte */
		if (r->received && BPF_CORE_READ(sk, __sk_common.skc_flags) & (1 << SOCK_DONE))
			r->received--;
	}
	bpf_ringbuf_submit(r, 0);
}

SHARED int on_state(const struct sock *sk, int old, int new)
{
	struct owner *o, fresh;
	u64 key = (u64)sk, now;
	struct told t = {};
	int err;

	if (new == TCP_SYN_SENT) {
		if (protocol_of(sk) != IPPROTO_TCP)
			return 0;
		__builtin_memset(&fresh, 0, sizeof(fresh));
		fill_head(&fresh.head, (struct task_struct *)bpf_get_current_task(), KIND_CONNECT, 0);
		fresh.since = fresh.head.time;
		fresh.fd = -1;
		fresh.state = STATE_CONNECTING;
		fresh.in_call = 1;
		if (bpf_map_update_elem(&owners, &key, &fresh, BPF_ANY)) {
			COUNT(KIND_CONNECT, generated);
			COUNT(KIND_CONNECT, lost_map);
		}
		return 0;
	}
	o = bpf_map_lookup_elem(&owners, &key);
	if (!o)
		return 0;
	now = bpf_ktime_get_boot_ns();
	if (new != TCP_CLOSE) {
		emit_owned(sk, o, KIND_CONNECT, 0, now);
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
		emit_owned(sk, &fresh, KIND_CLOSE, -err, now);
		return 0;
	}
	/* Without an error, either the call itself failed and its exit will tell why, or the
	 * socket was closed undecided, which was told as in progress.
	 */
	if (!err)
		return 0;
	emit_owned(sk, &fresh, KIND_CONNECT, -err, now);
	t.sock = key;
	t.time = now;
	t.err = -err;
	bpf_map_update_elem(&told, &fresh.head.tid, &t, BPF_ANY);
	return 0;
}

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

static __always_inline bool state_matters(int old, int new)
{
	return new == TCP_SYN_SENT || new == TCP_CLOSE || old == TCP_SYN_SENT;
}

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
	on_state(sk, old, new);
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
		on_state(sk, old, new);
	return release_cpu(0);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state_tp_btf, const struct sock *sk, int old, int new)
{
	return first_on_state(sk, old, new);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state_tp_btf_second, const struct sock *sk, int old, int new)
{
	return second_on_state(sk, old, new);
}

SEC("raw_tp/inet_sock_set_state")
int BPF_PROG(on_state_raw_tp, const struct sock *sk, int old, int new)
{
	return first_on_state(sk, old, new);
}

SEC("raw_tp/inet_sock_set_state")
int BPF_PROG(on_state_raw_tp_second, const struct sock *sk, int old, int new)
{
	return second_on_state(sk, old, new);
}
