/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* UDP without connect: the first datagram of a socket to each peer passes for a connect. */

struct peer {
	u64 cookie;
	u32 address[4];
	u32 port;
	u32 inode; /* legacy, whose cookie is an address: of the socket */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct peer);
	__type(value, u8);
} peers SEC(".maps");

#ifndef LEGACY

/* The first datagram that an unconnected UDP socket sends to a peer. The hook is in
 * udp_sendmsg(): whatever brought the datagram there, the address is the kernel's copy.
 */
SHARED int on_datagram(struct bpf_sock_addr *ctx, u16 family)
{
	struct peer p = {};
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
	return emit_towards(ctx, family, 0);
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

#else /* LEGACY */

struct msghdr {
	void *msg_name; /* the kernel's copy */
	void *msg_iocb;
} __attribute__((preserve_access_index));

static __always_inline int on_datagram(struct pt_regs *ctx, u16 family)
{
	u64 first = FUNC_ARG1(ctx), second = FUNC_ARG2(ctx), third = FUNC_ARG3(ctx);
	struct msghdr *msg = NULL;
	struct rec_socket *r;
	struct peer p = {};
	struct sock *sk;
	void *name;
	u8 one = 1;
	struct {
		u16 family;
		u16 port;
		u32 four;
		u32 six[4];
	} to = {};

	if (!wanted(KIND_CONNECT))
		return 0;
	if (bpf_core_field_exists(msg->msg_iocb)) { /* since 4.1; before, it is the first argument */
		sk = (void *)first;
		msg = (void *)second;
	} else {
		sk = (void *)second;
		msg = (void *)third;
	}
	name = BPF_CORE_READ(msg, msg_name);
	if (!name || bpf_probe_read_kernel(&to, sizeof(to), name))
		return 0;
	if (family == AF_INET) {
		p.address[0] = to.four;
	} else {
		/* those to IPv4 go on to udp_sendmsg() */
		if (to.family != AF_INET6 || (!to.six[0] && !to.six[1] && to.six[2] == bpf_htonl(0xffff)))
			return 0;
		__builtin_memcpy(p.address, to.six, sizeof(p.address));
	}
	p.cookie = (u64)sk;
	p.port = bpf_ntohs(to.port);
	p.inode = BPF_CORE_READ(sk, sk_socket, file, f_inode, i_ino);
	if (bpf_map_lookup_elem(&peers, &p))
		return 0;
	bpf_map_update_elem(&peers, &p, &one, BPF_ANY);

	COUNT(KIND_CONNECT, generated);
	r = RESERVE(bulk, struct rec_socket);
	if (!r) {
		COUNT(KIND_CONNECT, lost_ring);
		return 0;
	}
	fill_head(&r->head, (struct task_struct *)bpf_get_current_task(), KIND_CONNECT, sizeof(*r));
	fill_sock(r, sk);
	r->family = family;
	if (family == AF_INET) { /* also of an IPv6 socket */
		__builtin_memset(r->local, 0, sizeof(r->local));
		BPF_CORE_READ_INTO((u32 *)r->local, sk, __sk_common.skc_rcv_saddr);
	}
	__builtin_memcpy(r->remote, p.address, sizeof(r->remote));
	r->remote_port = p.port;
	SUBMIT(bulk, r);
	return 0;
}

SEC("kprobe/udp_sendmsg")
int on_datagram4_kprobe(struct pt_regs *ctx)
{
	return on_datagram(ctx, AF_INET);
}

SEC("kprobe/udpv6_sendmsg")
int on_datagram6_kprobe(struct pt_regs *ctx)
{
	return on_datagram(ctx, AF_INET6);
}

#endif
