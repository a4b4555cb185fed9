/* SPDX-License-Identifier: Apache-2.0 */
/* Direct return: what another node has handed over. */
#ifndef DELTAPLANE_TAKEN_H
#define DELTAPLANE_TAKEN_H

#include "named.h"

/* The backend that a packet is for, whose name is taken off. Non-zero: it has none. */
static __noinline long take_name_ipv4(struct __sk_buff *skb, struct dp_backend *backend)
{
	struct name_ipv4 name;

	if (bpf_skb_load_bytes(skb, 0, &name, sizeof(name)))
		return -1;
	map_ipv4(&backend->address, name.address);
	backend->port = name.port;
	backend->reserved = 0;
	return 0;
}

static __noinline long take_name_ipv6(struct __sk_buff *skb, struct dp_backend *backend)
{
	struct behind_ipv6 behind = {};
	struct name_ipv6 name;
	__u32 length;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct ipv6hdr), &name, sizeof(name)) ||
	    bpf_skb_load_bytes(skb, BEHIND_IPV6, &behind, BEHIND_IPV6_SIZE))
		return -1;
	length = bpf_ntohs(behind.length);
	if (behind.next_header != IPPROTO_DSTOPTS || name.length != sizeof(name) / 8 - 1 ||
	    name.option != NAME_OPTION || length < sizeof(name))
		return -1;
	backend->address = name.address;
	backend->port = name.port;
	backend->reserved = 0;
	behind.next_header = name.next_header;
	behind.length = bpf_htons(length - sizeof(name));
	if (bpf_skb_adjust_room(skb, -(int)sizeof(name), BPF_ADJ_ROOM_NET, KEEP_SUMS))
		return -1;
	return bpf_skb_store_bytes(skb, BEHIND_IPV6, &behind, BEHIND_IPV6_SIZE,
				   BPF_F_RECOMPUTE_CSUM);
}

static __always_inline bool is_to(const struct dp_connection_key *to,
				  const struct dp_backend *backend)
{
	return to->dport == backend->port && same_address(&to->daddr, &backend->address);
}

/*
 * What another node has handed over for a backend, a pod of this node: from here on it asks for the backend. A TCP
 * connection stays where it is; else the other node has the last word. Non-zero: an outcome.
 */
static __noinline int take_over(struct __sk_buff *skb, struct packet *p, struct flow *flow,
				const struct dp_backend *backend)
{
	bool is_error = p->flags & PACKET_ICMP_ERROR, found;
	bool stays = is_error || (p->tuple.protocol == IPPROTO_TCP && !(p->flags & PACKET_STARTS));
	struct dp_translation *forward = &flow->forward;

	if (!asks(p))
		return DP_DROP_UNSUPPORTED;
	found = find_leg(flow, p, DP_LEG_FORWARD);
	if (!found && is_error)
		return DP_DROP_NOT_HERE;
	if (!found || (!stays && !is_to(&flow->to, backend))) {
		__builtin_memset(forward, 0, sizeof(*forward));
		forward->last_seen = bpf_ktime_get_boot_ns();
		forward->saddr = p->tuple.saddr;
		forward->sport = p->tuple.sport;
		forward->daddr = backend->address;
		forward->dport = backend->port;
		forward->shown = shown_by(p->tcp_flags);
		forward->outside = true;
		forward->handed = DP_HANDED_TAKEN;
		aim(&flow->to, forward);
		if (!put_legs(flow, p, true))
			return DP_DROP_NO_PORT;
	}
	if (rewrite(skb, p, &flow->to, false))
		return DP_DROP_REWRITE_FAILED;
	p->flags |= PACKET_TRANSLATED;
	return 0;
}

#endif
