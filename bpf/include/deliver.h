/* SPDX-License-Identifier: Apache-2.0 */
/* Towards the destination: a pod of this node, or another node. */
#ifndef DELTAPLANE_DELIVER_H
#define DELTAPLANE_DELIVER_H

#include "judge.h"
#include "legs.h"
#include "outcome.h"

/*
 * Ports of a fragment are those of the first one. False: it came too early or too late.
 * To be called when the source is known not to be forged: it writes.
 */
static __noinline bool complete_fragment(struct packet *p)
{
	struct dp_fragment_key key = {
		.saddr = p->tuple.saddr,
		.daddr = p->tuple.daddr,
		.id = p->fragment_id,
		.protocol = p->tuple.protocol,
	};
	struct dp_fragment ports = {
		.sport = p->tuple.sport,
		.dport = p->tuple.dport,
		.policy_port = p->policy_port,
	};
	struct dp_fragment *first;

	if (!(p->flags & PACKET_NOT_FIRST)) {
		bpf_map_update_elem(&fragments, &key, &ports, BPF_ANY);
		return true;
	}
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first)
		return false;
	p->tuple.sport = first->sport;
	p->tuple.dport = first->dport;
	p->policy_port = first->policy_port;
	return true;
}

/* The IPv4 header from its TTL on, up to and with its checksum. */
struct ttl_to_checksum {
	__u8 ttl;
	__u8 protocol;
	__sum16 checksum;
};

/* A router's duty. Returns non-zero if the packet could not be written to. */
static __always_inline long lower_hop_limit(struct __sk_buff *skb, const struct packet *p)
{
	__u8 ttl = p->hop_limit - 1;
	struct ttl_to_checksum lower = {.ttl = ttl, .protocol = p->tuple.protocol};
	/* RFC 1624: what the sum of words loses, its complement gains; the TTL is the upper half of one. */
	__u32 checksum = p->checksum + bpf_htons(0x100);

	if (p->flags & PACKET_IPV6)
		return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, hop_limit),
					   &ttl, sizeof(ttl), BPF_F_RECOMPUTE_CSUM);
	lower.checksum = checksum + (checksum >= 0xffff);
	/* One call for both. The header's sum stays what it was, and so does that of the frame: CHECKSUM_COMPLETE. */
	return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, ttl), &lower,
				   sizeof(lower), 0);
}

/* Bytes from the network header on of the packet, or of each segment that will be cut from it. */
static __always_inline __u32 wire_length(struct __sk_buff *skb, const struct packet *p)
{
	if (!skb->gso_size)
		return skb->len - ETH_HLEN;
	return p->l4_offset - ETH_HLEN + p->l4_length + skb->gso_size;
}

/* Into a pod's namespace, past the stack. */
static __always_inline struct decision hand_over(struct __sk_buff *skb, const struct packet *p,
						 const struct dp_endpoint *to)
{
	__u8 macs[12];

	__builtin_memcpy(macs, to->pod_mac, 6);
	__builtin_memcpy(macs + 6, to->host_mac, 6);
	if (lower_hop_limit(skb, p) || bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return drop(DP_DROP_REWRITE_FAILED);
	return (struct decision){DP_PASS_LOCAL, bpf_redirect_peer(to->ifindex, 0)};
}

/*
 * To a pod of this node. Precedence:
 * 1. the pod is closed, or its ingress policy denies: dropped
 * 2. the hop limit is used up: the stack tells the sender
 * 3. from the frontend, if it asked for one; into the pod's namespace
 */
static __always_inline struct decision deliver_local(struct __sk_buff *skb, struct packet *p,
						     const struct dp_endpoint *to, __u32 source)
{
	struct judge ingress = {
		.identity = to->identity,
		.peer = source,
		.side = DP_SIDE_INGRESS,
	};

	if (judge(p, &ingress) != DP_VERDICT_ALLOW)
		return drop(is_closed(to->identity) ? DP_DROP_CLOSED : DP_DROP_INGRESS_POLICY);
	if (p->hop_limit <= 1)
		return pass(DP_PASS_TTL_EXPIRED);
	if (ingress.may_return && restore_frontend(skb, p))
		return drop(DP_DROP_REWRITE_FAILED);
	return hand_over(skb, p, to);
}

/* Whether what is behind the packet's headers fits in an IP packet of the uplink, `overhead` taken off. */
static __always_inline bool is_too_big(struct __sk_buff *skb, const struct packet *p,
				       __u32 overhead)
{
	return config.uplink_mtu && wire_length(skb, p) + overhead > config.uplink_mtu;
}

/* To a node, as it is, out of the uplink. */
static __always_inline struct decision deliver_native(struct __sk_buff *skb, struct packet *p,
						      const struct dp_node *node)
{
	struct bpf_redir_neigh hop = {};
	bool ipv6 = p->flags & PACKET_IPV6;

	if (!ipv6 && node->has_ipv4) {
		hop.nh_family = 2; /* AF_INET */
		hop.ipv4_nh = node->ipv4;
	} else if (node->has_ipv6) {
		hop.nh_family = 10; /* AF_INET6; Linux takes it for IPv4 packets, too */
		__builtin_memcpy(hop.ipv6_nh, &node->ipv6, 16);
	} else {
		return pass(DP_PASS_NO_NEXT_HOP);
	}
	if (p->hop_limit <= 1)
		return pass(DP_PASS_TTL_EXPIRED);
	if (is_too_big(skb, p, 0))
		return pass(DP_PASS_TOO_BIG);
	if (lower_hop_limit(skb, p))
		return drop(DP_DROP_REWRITE_FAILED);
	return (struct decision){DP_PASS_REMOTE,
				 bpf_redirect_neigh(config.uplink_ifindex, &hop, sizeof(hop), 0)};
}

/* The struct of Linux 5.10; later ones have more behind it, which older kernels refuse. */
#define TUNNEL_KEY_SIZE offsetof(struct bpf_tunnel_key, local_ipv4)

/* Where a wrapped packet goes: over IPv4 if both nodes have it, whatever is inside. overhead: bytes, 0: there is no way. */
struct wrapping {
	struct bpf_tunnel_key key;
	__u32 overhead;
};

/* vni: network identifier. */
static __always_inline void wrapping_to(struct wrapping *w, const struct dp_node *node, __u32 vni)
{
	w->key.tunnel_id = vni;
	/* It has nothing to do with the inner one. */
	w->key.tunnel_ttl = 64;
	if (node->has_ipv4 && is_set(&config.node_ipv4)) {
		w->key.remote_ipv4 = bpf_ntohl(node->ipv4);
		w->overhead = DP_TUNNEL_OVERHEAD_IPV4;
	} else if (node->has_ipv6 && is_set(&config.node_ipv6)) {
		__builtin_memcpy(w->key.remote_ipv6, &node->ipv6, 16);
		w->overhead = DP_TUNNEL_OVERHEAD_IPV6;
	}
}

/* Non-zero: there is no memory. The outer packet is not to be cut into fragments. */
static __always_inline long wrap(struct __sk_buff *skb, struct wrapping *w)
{
	bool over_ipv4 = w->overhead == DP_TUNNEL_OVERHEAD_IPV4;
	__u64 flags = over_ipv4 ? BPF_F_ZERO_CSUM_TX | BPF_F_DONT_FRAGMENT : BPF_F_TUNINFO_IPV6;

	return bpf_skb_set_tunnel_key(skb, &w->key, TUNNEL_KEY_SIZE, flags);
}

/* To a node, wrapped. */
static __always_inline struct decision deliver_wrapped(struct __sk_buff *skb, struct packet *p,
						       const struct dp_node *node, bool to_node)
{
	struct wrapping w = {};

	wrapping_to(&w, node, DP_TUNNEL_VNI);
	if (!w.overhead)
		return pass(DP_PASS_NO_NEXT_HOP);
	if (p->hop_limit <= 1)
		return pass(DP_PASS_TTL_EXPIRED);
	/* The stack knows no wrapped way to a node itself: it would send the packet as it is. */
	if (is_too_big(skb, p, w.overhead))
		return to_node ? drop(DP_DROP_TOO_BIG) : pass(DP_PASS_TOO_BIG);
	if (lower_hop_limit(skb, p) || wrap(skb, &w))
		return drop(DP_DROP_REWRITE_FAILED);
	return (struct decision){DP_PASS_REMOTE, bpf_redirect(config.tunnel_ifindex, 0)};
}

/*
 * To another node. Precedence:
 * 1. no next hop is known: the stack decides
 * 2. the hop limit is used up, or it is larger than the way there takes: the stack tells the sender; but what
 *    is too large for the tunnel to a node's own address is dropped
 * 3. through the tunnel or out of the uplink, past the stack
 */
static __always_inline struct decision deliver_remote(struct __sk_buff *skb, struct packet *p,
						      const struct dp_mapping *to)
{
	__u32 node_index = to->node_index;
	struct dp_node *node = bpf_map_lookup_elem(&nodes, &node_index);

	if (!config.uplink_ifindex || !node)
		return pass(DP_PASS_NO_NEXT_HOP);
	return config.tunnel_ifindex ? deliver_wrapped(skb, p, node, is_node(to))
				     : deliver_native(skb, p, node);
}

/* The largest segment that a TCP option names, where Linux and most others put it: first. */
struct segment_option {
	__u8 kind;
	__u8 length;
	__be16 size;
};

/*
 * To a client whose packets come here wrapped: it is not to send segments that do not fit then. Non-zero: not writable.
 * What else does not fit the node that wraps tells the client of.
 */
static __noinline long limit_segments(struct __sk_buff *skb, const struct packet *p)
{
	bool ipv6 = p->flags & PACKET_IPV6;
	__u32 place = p->l4_offset + sizeof(struct tcphdr);
	__u32 headers = sizeof(struct tcphdr) + (ipv6 ? sizeof(struct ipv6hdr) + DP_DIRECT_NAME_IPV6
						      : sizeof(struct iphdr));
	struct segment_option option;
	__be16 size;

	headers += is_set(&config.node_ipv4) ? DP_TUNNEL_OVERHEAD_IPV4 : DP_TUNNEL_OVERHEAD_IPV6;
	size = bpf_htons(config.uplink_mtu - headers);
	if (!config.uplink_mtu || p->l4_length < sizeof(struct tcphdr) + sizeof(option) ||
	    bpf_skb_load_bytes(skb, place, &option, sizeof(option)))
		return 0;
	if (option.kind != 2 || bpf_ntohs(option.size) <= bpf_ntohs(size))
		return 0;
	if (bpf_l4_csum_replace(skb, p->l4_offset + offsetof(struct tcphdr, check), option.size,
				size, sizeof(size)))
		return -1;
	return bpf_skb_store_bytes(skb, place + offsetof(struct segment_option, size), &size,
				   sizeof(size), 0);
}

/*
 * To a client outside, by the route that the stack would take, past the stack. Precedence:
 * 1. the hop limit is used up, or it is larger than the uplink takes: the stack tells who sent it
 * 2. out of the uplink, in the name of the frontend: as flow->to says
 */
static __always_inline struct decision answer_client(struct __sk_buff *skb, struct packet *p,
						     const struct flow *flow)
{
	if (!config.uplink_ifindex)
		return pass(DP_PASS_NO_NEXT_HOP);
	if (p->hop_limit <= 1)
		return pass(DP_PASS_TTL_EXPIRED);
	if (is_too_big(skb, p, 0))
		return pass(DP_PASS_TOO_BIG);
	if (rewrite(skb, p, &flow->to, true) || lower_hop_limit(skb, p))
		return drop(DP_DROP_REWRITE_FAILED);
	if (config.direct_ifindex && p->tcp_flags & TCP_SYN && flow->handed &&
	    limit_segments(skb, p))
		return drop(DP_DROP_REWRITE_FAILED);
	return (struct decision){DP_PASS_OUTSIDE,
				 bpf_redirect_neigh(config.uplink_ifindex, NULL, 0, 0)};
}

#endif
