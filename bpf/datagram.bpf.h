/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* UDP without connect: the first datagram of a socket to each peer passes for a connect. */

struct peer {
	u64 cookie;
	u32 address[4];
	u32 port;
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct peer);
	__type(value, u8);
} peers SEC(".maps");

/* The first datagram that an unconnected UDP socket sends to a peer. The hook is in
 * udp_sendmsg(): whatever brought the datagram there, the address is the kernel's copy.
 */
SHARED int on_datagram(struct bpf_sock_addr *ctx, u16 family)
{
	struct peer p = {};
	struct rec_socket *r;
	u8 one = 1;

	if (!wanted(KIND_CONNECT))
		return 1;
	p.cookie = bpf_get_socket_cookie(ctx);
	if (family == AF_INET) {
		p.address[0] = ctx->user_ip4;
	} else {
		p.address[0] = ctx->user_ip6[0];
		p.address[1] = ctx->user_ip6[1];
		p.address[2] = ctx->user_ip6[2];
		p.address[3] = ctx->user_ip6[3];
	}
	p.port = bpf_ntohs(ctx->user_port);
	if (bpf_map_lookup_elem(&peers, &p))
		return 1;
	bpf_map_update_elem(&peers, &p, &one, BPF_ANY);

	COUNT(KIND_CONNECT, generated);
	r = bpf_ringbuf_reserve(&bulk, sizeof(*r), 0);
	if (!r) {
		COUNT(KIND_CONNECT, lost_ring);
		return 1;
	}
	__builtin_memset(r, 0, sizeof(*r));
	fill_head(&r->head, (struct task_struct *)bpf_get_current_task(), KIND_CONNECT, sizeof(*r));
	r->cookie = p.cookie;
	r->family = family;
	r->type = SOCK_DGRAM;
	r->protocol = ctx->protocol;
	r->fd = -1;
	r->path.off = sizeof(*r);
	__builtin_memcpy(r->remote, p.address, sizeof(r->remote));
	r->remote_port = p.port;
	if (ctx->sk) {
		struct bpf_sock *checked = ctx->sk;
		struct sock *sk;

		/* Read it from the stack: the verifier takes that for a number, which may point
		 * anywhere in a struct sock, and not only into what bpf_sock shows of it.
		 */
		bpf_probe_read_kernel(&sk, sizeof(sk), &checked);
		r->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
		r->local_port = ctx->sk->src_port;
		if (family == AF_INET) {
			*(u32 *)r->local = ctx->sk->src_ip4;
		} else {
			*(u32 *)r->local = ctx->sk->src_ip6[0];
			*(u32 *)(r->local + 4) = ctx->sk->src_ip6[1];
			*(u32 *)(r->local + 8) = ctx->sk->src_ip6[2];
			*(u32 *)(r->local + 12) = ctx->sk->src_ip6[3];
		}
	}
	bpf_ringbuf_submit(r, 0);
	return 1;
}

SEC("cgroup/sendmsg4")
int on_sendmsg4(struct bpf_sock_addr *ctx)
{
	return on_datagram(ctx, AF_INET);
}

SEC("cgroup/sendmsg6")
int on_sendmsg6(struct bpf_sock_addr *ctx)
{
	return on_datagram(ctx, AF_INET6);
}
