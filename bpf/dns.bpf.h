/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Questions to name servers and their answers, as UDP datagrams pass the cgroup hooks. A
 * question leaves in the context of the process that asks; its answer arrives in a softirq
 * and is joined to the question in user space, by socket cookie and query number.
 */

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86DD
#define DNS_BYTES 4096

#ifndef LEGACY

#define DNS_SMALL 512

static __always_inline int emit_dns(struct __sk_buff *skb, bool answer, u16 family, u8 *header, u16 *port,
				    u32 off, u32 n, const u32 room)
{
	struct rec_dns *r = bpf_ringbuf_reserve(&bulk, sizeof(*r) + room, 0);

	if (!r) {
		COUNT(KIND_DNS, lost_ring);
		return 1;
	}
	__builtin_memset(r, 0, sizeof(*r));
	if (answer) { /* the cookie tells whose */
		r->head.time = now();
		r->head.kind = KIND_DNS;
		r->head.size = sizeof(*r) + room;
		r->head.flags = FLAG_ANONYMOUS | FLAG_RESPONSE;
	} else {
		fill_head(&r->head, (struct task_struct *)bpf_get_current_task(), KIND_DNS, sizeof(*r) + room);
	}
	r->cookie = bpf_get_socket_cookie(skb);
	r->family = family;
	r->local_port = bpf_ntohs(port[answer ? 1 : 0]);
	r->remote_port = bpf_ntohs(port[answer ? 0 : 1]);
	if (family == AF_INET) {
		__builtin_memcpy(answer ? r->remote : r->local, header + 12, 4);
		__builtin_memcpy(answer ? r->local : r->remote, header + 16, 4);
	} else {
		__builtin_memcpy(answer ? r->remote : r->local, header + 8, 16);
		__builtin_memcpy(answer ? r->local : r->remote, header + 24, 16);
	}
	if (n > room) {
		n = room;
		r->head.flags |= FLAG_ARGS_CUT;
	}
	r->payload.off = sizeof(*r);
	/* on_packet() saw more than a header. The verifier before 6.8 wants to see it again, as a
	 * mask, which the compiler must not know to be needless: 1 <= n <= room, a power of two.
	 */
	asm volatile("" : "+r"(n));
	n = ((n - 1) & (room - 1)) + 1;
	if (!bpf_skb_load_bytes(skb, off, (u8 *)r + sizeof(*r), n))
		r->payload.len = n;
	SUBMIT(bulk, r);
	return 1;
}

static __always_inline int on_packet(struct __sk_buff *skb, bool answer)
{
	u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;
	u8 header[40];
	u16 port[2];
	u16 family;
	u32 off, n;

	if (!wanted(KIND_DNS))
		return 1;
	/* Nearly every packet is none of ours, and its header is at hand. */
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (data + 20 <= end && data[9] != IPPROTO_UDP)
			return 1;
		/* a fragment after the first has no ports */
		if (bpf_skb_load_bytes(skb, 0, header, 20) || header[9] != IPPROTO_UDP ||
		    (header[6] & 0x1f) || header[7])
			return 1;
		off = (header[0] & 15) * 4;
		family = AF_INET;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (data + 40 <= end && data[6] != IPPROTO_UDP)
			return 1;
		if (bpf_skb_load_bytes(skb, 0, header, 40) || header[6] != IPPROTO_UDP)
			return 1;
		off = 40;
		family = AF_INET6;
	} else {
		return 1;
	}
	if (bpf_skb_load_bytes(skb, off, port, 4) || port[answer ? 0 : 1] != bpf_htons(SETTING(dns_port)))
		return 1;
	off += 8;
	if (skb->len <= off + 12)
		return 1;
	n = skb->len - off;
	COUNT(KIND_DNS, generated);
	if (n <= DNS_SMALL)
		return emit_dns(skb, answer, family, header, port, off, n, DNS_SMALL);
	return emit_dns(skb, answer, family, header, port, off, n, DNS_BYTES);
}

SEC("cgroup_skb/egress")
int on_dns_egress(struct __sk_buff *skb)
{
	return on_packet(skb, false);
}

SEC("cgroup_skb/ingress")
int on_dns_ingress(struct __sk_buff *skb)
{
	return on_packet(skb, true);
}

#else /* LEGACY */

struct sk_buff {
	struct sock *sk;
	unsigned int len, data_len;
	unsigned char *head, *data;
	u16 transport_header; /* offsets from head; before 3.11 four bytes long */
	u16 network_header;
} __attribute__((preserve_access_index));

/* A datagram where it leaves UDP or comes to its socket: both headers are in place and in one
 * piece, which the kernel has seen to.
 */
static __always_inline int on_packet(CTX_PARAM struct sk_buff *skb, struct sock *sk, bool answer)
{
	u8 *data = BPF_CORE_READ(skb, head);
	u32 ip = BPF_CORE_READ(skb, network_header), udp = BPF_CORE_READ(skb, transport_header);
	u8 *linear = BPF_CORE_READ(skb, data) + BPF_CORE_READ(skb, len) - BPF_CORE_READ(skb, data_len);
	struct rec_dns *r;
	u8 header[40], protocol;
	u16 ports[4]; /* source, destination, length, checksum */
	u16 family = AF_INET;
	u64 n, whole, there;

	if (bpf_probe_read_kernel(ports, sizeof(ports), data + udp) ||
	    ports[answer ? 0 : 1] != bpf_htons(SETTING(dns_port)))
		return 0;
	if (bpf_probe_read_kernel(header, sizeof(header), data + ip))
		return 0;
	protocol = header[9];
	if (header[0] >> 4 == 6) {
		family = AF_INET6;
		protocol = header[6];
	}
	ONE_WAY(protocol); /* a stack may be read at constant places only */
	if (protocol != IPPROTO_UDP)
		return 0;
	whole = bpf_ntohs(ports[2]);
	if (whole <= 8 + 12)
		return 0;
	whole -= 8;
	data += udp + 8;
	COUNT(KIND_DNS, generated);
	r = RESERVE(bulk, struct rec_dns);
	if (!r) {
		COUNT(KIND_DNS, lost_ring);
		return 0;
	}
	__builtin_memset(r, 0, sizeof(*r));
	if (answer) { /* the cookie tells whose */
		r->head.time = now();
		r->head.kind = KIND_DNS;
		r->head.flags = FLAG_ANONYMOUS | FLAG_RESPONSE;
	} else {
		fill_head(&r->head, (struct task_struct *)bpf_get_current_task(), KIND_DNS, 0);
	}
	r->cookie = (u64)sk;
	r->family = family;
	r->local_port = bpf_ntohs(ports[answer ? 1 : 0]);
	r->remote_port = bpf_ntohs(ports[answer ? 0 : 1]);
	if (family == AF_INET) {
		__builtin_memcpy(answer ? r->remote : r->local, header + 12, 4);
		__builtin_memcpy(answer ? r->local : r->remote, header + 16, 4);
	} else {
		__builtin_memcpy(answer ? r->remote : r->local, header + 8, 16);
		__builtin_memcpy(answer ? r->local : r->remote, header + 24, 16);
	}
	/* Large datagrams may go on in pages, which are not read. */
	there = linear > data ? linear - data : 0;
	n = whole < there ? whole : there;
	if (n > DNS_BYTES)
		n = DNS_BYTES;
	if (n < whole)
		r->head.flags |= FLAG_ARGS_CUT;
	r->payload.off = sizeof(*r);
	if (n && !bpf_probe_read_kernel(r + 1, BOUND(n, DNS_BYTES), data))
		r->payload.len = n;
	r->head.size = sizeof(*r) + n;
	output(ctx, &bulk, &r->head, KIND_DNS, BOUND(sizeof(*r) + n, 2 * DNS_BYTES));
	return 0;
}

static __always_inline int on_question(CTX_PARAM struct sk_buff *skb)
{
	struct sock *sk = BPF_CORE_READ(skb, sk);

	return sk && wanted(KIND_DNS) ? on_packet(CTX skb, sk, false) : 0;
}

SEC("kprobe/ip_send_skb")
int on_question_kprobe(struct pt_regs *ctx)
{
	return on_question(CTX (void *)FUNC_ARG2(ctx));
}

/* ip6_send_skb() came with 3.19; before, the next function below, which it calls now. */
SEC("kprobe/ip6_send_skb")
int on_question6_kprobe(struct pt_regs *ctx)
{
	struct scratch *s = own_scratch();

	if (s)
		s->told = FUNC_ARG1(ctx);
	return on_question(CTX (void *)FUNC_ARG1(ctx));
}

SEC("kprobe/ip6_local_out")
int on_question6_old_kprobe(struct pt_regs *ctx)
{
	struct scratch *s = own_scratch();
	struct sock *sk = NULL;

	/* since 4.4 the first argument is another */
	if (bpf_core_field_exists(sk->__sk_common.skc_net.net) || !s)
		return 0;
	if (s->told == FUNC_ARG1(ctx)) {
		s->told = 0;
		return 0;
	}
	return on_question(CTX (void *)FUNC_ARG1(ctx));
}

SEC("kprobe/__udp_enqueue_schedule_skb")
int on_answer_kprobe(struct pt_regs *ctx)
{
	struct sock *sk = (void *)FUNC_ARG1(ctx);

	if (!wanted(KIND_DNS) || protocol_of(sk) != IPPROTO_UDP)
		return 0;
	return on_packet(CTX (void *)FUNC_ARG2(ctx), sk, true);
}

#endif
