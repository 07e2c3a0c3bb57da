/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Questions to name servers and their answers, as UDP datagrams pass the cgroup hooks. A
 * question leaves in the context of the process that asks; its answer arrives in a softirq
 * and is joined to the question in user space, by socket cookie and query number.
 */

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86DD
#define DNS_BYTES 4096

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
	bpf_ringbuf_submit(r, 0);
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
