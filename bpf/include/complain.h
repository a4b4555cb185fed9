/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP errors that programs write themselves: to who has asked a service, in the name of whom it has asked. */
#ifndef DELTAPLANE_COMPLAIN_H
#define DELTAPLANE_COMPLAIN_H

#include "deliver.h"

/* What is quoted, bytes at most: a header of IP and what applications are found by. */
#define QUOTED 128
/* Errors a second and processor; Linux's own limit is of this order (icmp_msgs_per_sec). */
#define ERRORS_A_SECOND 1000

struct complaints {
	__u64 since;
	__u32 sent;
	__u32 reserved;
	__u8 quoted[QUOTED];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct complaints);
} complaints_made SEC(".maps");

struct error_ipv4 {
	struct iphdr ip;
	struct icmphdr icmp;
};
_Static_assert(sizeof(struct error_ipv4) == 28, "error_ipv4");

struct error_ipv6 {
	struct ipv6hdr ip;
	struct icmp6hdr icmp;
};
_Static_assert(sizeof(struct error_ipv6) == 48, "error_ipv6");

/* For the verifier, to whom a comparison that the compiler has moved to another register says nothing. */
static __always_inline __u32 within_quoted(__u32 length)
{
	asm volatile("" : "+r"(length));
	return length & (QUOTED - 1);
}

static __always_inline bool may_complain(struct complaints *c)
{
	__u64 now = bpf_ktime_get_boot_ns();

	if (now - c->since >= SECOND) {
		c->since = now;
		c->sent = 0;
	}
	return c->sent < ERRORS_A_SECOND && c->sent++ < ERRORS_A_SECOND;
}

static __always_inline __sum16 folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

/* What of the transport header an error quotes: what the kernel needs to leave its checksum where it is. */
static __always_inline __u32 quoted_header(__u8 protocol)
{
	if (protocol == IPPROTO_TCP)
		return sizeof(struct tcphdr);
	return protocol == IPPROTO_UDP ? sizeof(struct udphdr) : 12;
}

/* length: of what is quoted; sum: over that. mtu: 0: nobody listens. */
static __noinline long write_error_ipv4(struct __sk_buff *skb, const struct packet *p, __u32 length,
					__u32 sum, __u32 mtu)
{
	struct error_ipv4 error = {
		.ip.version = 4,
		.ip.ihl = 5,
		.ip.tot_len = bpf_htons(sizeof(error) + length),
		.ip.ttl = 64,
		.ip.protocol = IPPROTO_ICMP,
		.ip.saddr = p->tuple.daddr.word[3],
		.ip.daddr = p->tuple.saddr.word[3],
		.icmp.type = ICMP_DEST_UNREACH,
		.icmp.code = mtu ? ICMP_FRAG_NEEDED : ICMP_PORT_UNREACH,
		.icmp.un.frag.mtu = bpf_htons(mtu),
	};

	error.ip.check = folded(bpf_csum_diff(NULL, 0, (__be32 *)&error.ip, sizeof(error.ip), 0));
	error.icmp.checksum =
		folded(bpf_csum_diff(NULL, 0, (__be32 *)&error.icmp, sizeof(error.icmp), sum));
	return bpf_skb_store_bytes(skb, ETH_HLEN, &error, sizeof(error), BPF_F_RECOMPUTE_CSUM);
}

static __noinline long write_error_ipv6(struct __sk_buff *skb, const struct packet *p, __u32 length,
					__u32 sum, __u32 mtu)
{
	__be32 behind = bpf_htonl(sizeof(struct icmp6hdr) + length);
	__be32 next = bpf_htonl(IPPROTO_ICMPV6);
	struct error_ipv6 error = {
		.ip.version = 6,
		.ip.payload_len = bpf_htons(sizeof(struct icmp6hdr) + length),
		.ip.nexthdr = IPPROTO_ICMPV6,
		.ip.hop_limit = 64,
		.icmp.icmp6_type = mtu ? ICMPV6_PKT_TOOBIG : ICMPV6_DEST_UNREACH,
		.icmp.icmp6_code = mtu ? 0 : ICMPV6_PORT_UNREACH,
		.icmp.icmp6_mtu = bpf_htonl(mtu),
	};

	__builtin_memcpy(&error.ip.saddr, &p->tuple.daddr, sizeof(error.ip.saddr));
	__builtin_memcpy(&error.ip.daddr, &p->tuple.saddr, sizeof(error.ip.daddr));
	sum = bpf_csum_diff(NULL, 0, &behind, sizeof(behind), sum);
	sum = bpf_csum_diff(NULL, 0, &next, sizeof(next), sum);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&error.ip.saddr, 2 * sizeof(error.ip.saddr), sum);
	error.icmp.icmp6_cksum =
		folded(bpf_csum_diff(NULL, 0, (__be32 *)&error.icmp, sizeof(error.icmp), sum));
	return bpf_skb_store_bytes(skb, ETH_HLEN, &error, sizeof(error), BPF_F_RECOMPUTE_CSUM);
}

/*
 * Sum of what is quoted. A packet that is still to be cut into segments has an unfinished checksum, which the way out
 * will finish in the quoted header, wherever that is: over the end of the packet, so that both together come to what the
 * checksum does not hold yet.
 */
static __always_inline __u32 sum_of_quoted(struct complaints *c, const struct packet *p,
					   __u32 length, bool unfinished)
{
	__u32 ahead = within_quoted(p->l4_offset - ETH_HLEN);
	__u32 place = within_quoted(ahead + offsetof(struct tcphdr, check));
	__sum16 checksum;

	if (!unfinished)
		return bpf_csum_diff(NULL, 0, (__be32 *)c->quoted, length, 0);
	if (place > QUOTED - sizeof(checksum))
		return 0;
	__builtin_memcpy(&checksum, &c->quoted[place], sizeof(checksum));
	return bpf_csum_diff(NULL, 0, (__be32 *)c->quoted, ahead, (__u16)~checksum);
}

/*
 * A packet becomes the error that its sender is to get: larger than mtu, or if that is 0 nobody listens. Non-zero: there
 * is none, for it is an error itself, no beginning of a packet, or there have been many.
 */
static __noinline long become_error(struct __sk_buff *skb, struct packet *p, __u32 mtu)
{
	bool ipv6 = p->flags & PACKET_IPV6, unfinished = skb->gso_size;
	__u32 length = p->l4_offset - ETH_HLEN + quoted_header(p->tuple.protocol), zero = 0, sum;
	struct complaints *c = bpf_map_lookup_elem(&complaints_made, &zero);

	if (!c || p->flags & (PACKET_ICMP_ERROR | PACKET_NOT_FIRST) ||
	    !has_ports(p->tuple.protocol) || !may_complain(c))
		return -1;
	if (length >= QUOTED)
		return -1;
	length = within_quoted(length);
	if (!length || bpf_skb_load_bytes(skb, ETH_HLEN, c->quoted, length))
		return -1;
	sum = sum_of_quoted(c, p, length, unfinished);
	if (bpf_skb_change_tail(skb, ETH_HLEN + length, 0) ||
	    bpf_skb_adjust_room(skb, ipv6 ? sizeof(struct error_ipv6) : sizeof(struct error_ipv4),
				BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return -1;
	return ipv6 ? write_error_ipv6(skb, p, length, sum, mtu)
		    : write_error_ipv4(skb, p, length, sum, mtu);
}

/* To a client outside: the packet is dropped, and its sender hears of it. mtu: 0: nobody listens. */
static __always_inline struct decision complain_outside(struct __sk_buff *skb, struct packet *p,
							enum dp_outcome outcome, __u32 mtu)
{
	if (!config.uplink_ifindex || become_error(skb, p, mtu))
		return drop(outcome);
	return (struct decision){outcome, bpf_redirect_neigh(config.uplink_ifindex, NULL, 0, 0)};
}

/* The same to a pod of this node: nobody listens. */
static __always_inline struct decision complain_to_pod(struct __sk_buff *skb, struct packet *p,
						       const struct dp_endpoint *pod)
{
	__u8 macs[12];

	__builtin_memcpy(macs, pod->pod_mac, 6);
	__builtin_memcpy(macs + 6, pod->host_mac, 6);
	if (become_error(skb, p, 0) || bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return drop(DP_DROP_NO_BACKEND);
	return (struct decision){DP_DROP_NO_BACKEND, bpf_redirect_peer(pod->ifindex, 0)};
}

#endif
