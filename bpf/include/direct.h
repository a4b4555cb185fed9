/* SPDX-License-Identifier: Apache-2.0 */
/* Direct return: what this node hands over. */
#ifndef DELTAPLANE_DIRECT_H
#define DELTAPLANE_DIRECT_H

#include "complain.h"
#include "named.h"

static __noinline long name_ipv4(struct __sk_buff *skb, const struct dp_connection_key *to)
{
	struct name_ipv4 name = {
		.to = {2},
		.address = to->daddr.word[3],
		.from = {2},
		.port = to->dport,
	};

	return bpf_skb_store_bytes(skb, 0, &name, sizeof(name), 0);
}

static __noinline long name_ipv6(struct __sk_buff *skb, const struct dp_connection_key *to)
{
	struct name_ipv6 name = {
		.length = sizeof(name) / 8 - 1,
		.option = NAME_OPTION,
		.option_length = sizeof(name) - offsetof(struct name_ipv6, reserved),
		.port = to->dport,
		.address = to->daddr,
	};
	struct behind_ipv6 behind = {};
	__u32 length;

	if (bpf_skb_load_bytes(skb, BEHIND_IPV6, &behind, BEHIND_IPV6_SIZE))
		return -1;
	length = bpf_ntohs(behind.length) + sizeof(name);
	/* 0: a jumbogram. */
	if (!behind.length || length > 0xffff)
		return -1;
	name.next_header = behind.next_header;
	behind.next_header = IPPROTO_DSTOPTS;
	behind.length = bpf_htons(length);
	if (bpf_skb_adjust_room(skb, sizeof(name), BPF_ADJ_ROOM_NET, KEEP_SUMS))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(struct ipv6hdr), &name, sizeof(name),
				   BPF_F_RECOMPUTE_CSUM)
		       ?: bpf_skb_store_bytes(skb, BEHIND_IPV6, &behind, BEHIND_IPV6_SIZE,
					      BPF_F_RECOMPUTE_CSUM);
}

/* Whether the node of a backend can answer the client itself: it is of this family, and it is a pod. */
static __always_inline bool may_hand_over(const struct packet *p, const struct dp_mapping *client,
					  const struct dp_address *backend)
{
	struct dp_mapping who = {};
	struct dp_node *node;
	__u32 node_index;

	/* Other nodes' own packets are told from forged ones by who wraps them. */
	if (!config.direct_ifindex || !config.hands_over || client->node_index)
		return false;
	identify(backend, &who);
	node_index = who.node_index;
	if (!is_elsewhere(&who) || is_node(&who))
		return false;
	node = bpf_map_lookup_elem(&nodes, &node_index);
	return node && (p->flags & PACKET_IPV6 ? node->has_ipv6 : node->has_ipv4);
}

/* The entry that keeps a client at its backend, of flow->forward; answers do not come by here. */
static __always_inline bool put_handed_over(struct flow *flow, const struct packet *p)
{
	set_key(&flow->key, &p->tuple, DP_LEG_FORWARD);
	flow->handed = flow->forward.handed = DP_HANDED_OVER;
	return !bpf_map_update_elem(&translations, &flow->key, &flow->forward, BPF_ANY);
}

/*
 * A packet of a client outside, to the node of its backend. Precedence:
 * 1. nobody knows that node any more, or there is no way: dropped
 * 2. it does not fit: dropped, and the client is told
 * 3. with the name of the backend, wrapped
 */
static __always_inline struct decision hand_to_node(struct __sk_buff *skb, struct packet *p,
						    const struct flow *flow)
{
	bool ipv6 = p->flags & PACKET_IPV6;
	struct dp_mapping who = {};
	struct wrapping w = {};
	struct dp_node *node;
	__u32 node_index, overhead;

	identify(&flow->to.daddr, &who);
	node_index = who.node_index;
	node = bpf_map_lookup_elem(&nodes, &node_index);
	if (!node || !is_elsewhere(&who))
		return drop(DP_DROP_NO_BACKEND);
	wrapping_to(&w, node, DP_DIRECT_VNI);
	if (!w.overhead)
		return drop(DP_DROP_NO_BACKEND);
	overhead = w.overhead + (ipv6 ? DP_DIRECT_NAME_IPV6 : 0);
	if (is_too_big(skb, p, overhead))
		return complain_outside(skb, p, DP_DROP_TOO_BIG, config.uplink_mtu - overhead);
	if (lower_hop_limit(skb, p) ||
	    (ipv6 ? name_ipv6(skb, &flow->to) : name_ipv4(skb, &flow->to)) || wrap(skb, &w))
		return drop(DP_DROP_REWRITE_FAILED);
	return (struct decision){DP_PASS_REMOTE, bpf_redirect(config.direct_ifindex, 0)};
}

#endif
