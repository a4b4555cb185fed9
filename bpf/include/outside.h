/* SPDX-License-Identifier: Apache-2.0 */
/* Services asked for by clients outside the cluster. */
#ifndef DELTAPLANE_OUTSIDE_H
#define DELTAPLANE_OUTSIDE_H

#include "direct.h"

/* How many ports are tried for a flow. With half of them in use, one flow in 2^32 finds none. */
#define PORT_TRIES 32

static __always_inline __u32 mixed(__u32 hash, __u32 word)
{
	word *= 0xcc9e2d51;
	word = word << 15 | word >> 17;
	hash ^= word * 0x1b873593;
	hash = hash << 13 | hash >> 19;
	return hash * 5 + 0xe6546b64;
}

static __always_inline __u32 mixed_address(__u32 hash, const struct dp_address *address)
{
	hash = mixed(hash, address->word[0]);
	hash = mixed(hash, address->word[1]);
	hash = mixed(hash, address->word[2]);
	return mixed(hash, address->word[3]);
}

/* Of a flow, the same on every node (MurmurHash3). With affinity flows of one client are alike. */
static __noinline __u32 flow_hash(const struct dp_connection_key *tuple, bool by_client)
{
	__u32 hash = mixed_address(0, &tuple->saddr);

	if (!by_client) {
		hash = mixed_address(hash, &tuple->daddr);
		hash = mixed(hash, ports_of(tuple));
		hash = mixed(hash, tuple->protocol);
	}
	hash ^= hash >> 16;
	hash *= 0x85ebca6b;
	hash ^= hash >> 13;
	hash *= 0xc2b2ae35;
	return hash ^ hash >> 16;
}

static __always_inline struct dp_address own_address(bool ipv6)
{
	return ipv6 ? read_constant(&config.node_ipv6) : read_constant(&config.node_ipv4);
}

/* The same with a free port of this node as source port. False: none was found. */
static __noinline bool put_legs_with_port(struct flow *flow, const struct packet *p)
{
	const __u32 ports = DP_FORWARD_PORT_LAST - DP_FORWARD_PORT_FIRST + 1;
	__u32 first = bpf_get_prandom_u32() % ports;

	for (__u32 i = 0; i < PORT_TRIES; i++) {
		flow->forward.sport = bpf_htons(DP_FORWARD_PORT_FIRST + (first + i * 139) % ports);
		/* Late packets of what has ended are better not mixed with what begins, as long as ports last. */
		if (put_legs(flow, p, i >= PORT_TRIES / 2)) {
			aim(&flow->to, &flow->forward);
			return true;
		}
	}
	return false;
}

static __always_inline struct dp_frontend *outside_frontend(const struct dp_connection_key *tuple)
{
	struct dp_frontend *found = exact_frontend(&tuple->daddr, tuple->dport, tuple->protocol);
	struct dp_mapping who = {};

	if (found)
		return found;
	found = node_port(&tuple->daddr, tuple->dport, tuple->protocol);
	if (!found || is_own_address(&tuple->daddr))
		return found;
	identify(&tuple->daddr, &who);
	return who.identity == DP_IDENTITY_HOST ? found : NULL;
}

/* Whoever leads clients to nodes is to find out by itself that this one has none of a service's backends. */
static __always_inline bool is_served_elsewhere(const struct dp_frontend *frontend)
{
	return frontend->flags & DP_FRONTEND_LOCAL && frontend->inside_count;
}

/* A packet from outside to a frontend that has no entry: begins one. Below 0: an outcome. */
static __noinline int begin_outside(struct flow *flow, const struct packet *p,
				    struct dp_frontend *frontend, const struct dp_mapping *source)
{
	struct dp_affinity_key client = {.client = p->tuple.saddr};
	struct dp_backend backend = {};
	bool put;

	if (!is_source_allowed(frontend, &p->tuple.saddr))
		return -DP_DROP_SOURCE_RANGE;
	if (!choose_outside(frontend, &client, flow_hash(&p->tuple, frontend->affinity), &backend))
		return is_served_elsewhere(frontend) ? -DP_DROP_NO_BACKEND : SERVICE_REFUSED;
	begin(flow, p, frontend, &backend, client.list);
	flow->forward.outside = true;
	if (bpf_map_lookup_elem(&addresses, &backend.address)) {
		put = put_legs(flow, p, true);
	} else {
		if (frontend->flags & DP_FRONTEND_LOCAL)
			return -DP_DROP_NO_BACKEND;
		if (may_hand_over(p, source, &backend.address))
			return put_handed_over(flow, p) ? SERVICE_TO_NODE : -DP_DROP_NO_PORT;
		flow->forward.saddr = own_address(p->flags & PACKET_IPV6);
		if (is_unspecified(&flow->forward.saddr))
			return -DP_DROP_NO_BACKEND;
		put = put_legs_with_port(flow, p);
	}
	return put ? SERVICE_TO_BACKEND : -DP_DROP_NO_PORT;
}

/*
 * A packet that came in by the uplink and is for no pod. Precedence:
 * 1. the hop limit is used up, or a fragment came before its first one: the stack answers
 * 2. the answer to what this node has sent in its own name: flow->to says what the client gets
 * 3. from this node or a pod: no client outside. *source is who it is from
 * 4. its flow has an entry: to that backend; UDP and SCTP only while there is the frontend
 * 5. no frontend for clients outside: the stack
 * 6. not in a source range, or nobody answers: dropped; told if nobody answers on any node
 * 7. to a backend: a pod of this node sees the client, and others do so if their node answers; else they see this node
 */
static __noinline int serve_outside(struct __sk_buff *skb, struct packet *p, struct flow *flow,
				    struct dp_mapping *source)
{
	bool is_error = p->flags & PACKET_ICMP_ERROR, found = false;
	struct dp_frontend *frontend = NULL;
	int begun;

	if (p->hop_limit <= 1)
		return SERVICE_NONE;
	if (p->flags & PACKET_FRAGMENT && has_ports(p->tuple.protocol) && !complete_fragment(p))
		return SERVICE_NONE;
	if (!asks(p))
		return SERVICE_NONE;
	if (find_return(flow, p))
		return SERVICE_TO_CLIENT;
	if (!is_marked(&frontend_ports, subject_of(p)->dport))
		return SERVICE_NONE;
	identify(&p->tuple.saddr, source);
	if (!is_no_pod(source) || is_here(source))
		return SERVICE_NONE;
	if (is_error || p->tuple.protocol == IPPROTO_TCP)
		found = find_leg(flow, p, DP_LEG_FORWARD);
	if (!found && is_error)
		return SERVICE_NONE;
	if (!found) {
		frontend = outside_frontend(&p->tuple);
		if (!frontend || !frontend->outside_list)
			return SERVICE_NONE;
		if (p->tuple.protocol != IPPROTO_TCP)
			found = find_leg(flow, p, DP_LEG_FORWARD);
	}
	if (!found) {
		begun = begin_outside(flow, p, frontend, source);
		if (begun < 0 || begun == SERVICE_REFUSED)
			return begun;
	}
	if (config.hands_over && flow->handed == DP_HANDED_OVER)
		return SERVICE_TO_NODE;
	if (rewrite(skb, p, &flow->to, !same_address(&flow->to.saddr, &subject_of(p)->saddr)))
		return -DP_DROP_REWRITE_FAILED;
	p->flags |= PACKET_TRANSLATED;
	return SERVICE_TO_BACKEND;
}

/* As it came, which flow->key still says, it is too large for the way on. */
static __always_inline struct decision refuse_size(struct __sk_buff *skb, struct packet *p,
						   struct flow *flow, __u32 mtu)
{
	flow->to.saddr = flow->key.saddr;
	flow->to.daddr = flow->key.daddr;
	flow->to.sport = flow->key.sport;
	flow->to.dport = flow->key.dport;
	if (p->flags & PACKET_ICMP_ERROR || rewrite_packet(skb, p, &flow->to))
		return drop(DP_DROP_TOO_BIG);
	return complain_outside(skb, p, DP_DROP_TOO_BIG, mtu);
}

/*
 * To a backend elsewhere, in this node's own name: the stack would take that for forged, so what would else be its
 * business is dropped; a client whose packets do not fit is told. Nodes themselves are reached as they are, also where
 * pods' packets are wrapped.
 */
static __always_inline struct decision forward_outside(struct __sk_buff *skb, struct packet *p,
						       struct flow *flow)
{
	struct wrapping w = {};
	struct dp_mapping to = {};
	struct dp_node *node = NULL;
	struct decision decision;
	__u32 node_index;

	identify(&p->tuple.daddr, &to);
	node_index = to.node_index;
	if (node_index) {
		node = bpf_map_lookup_elem(&nodes, &node_index);
		if (!node)
			return drop(DP_DROP_NO_BACKEND);
		if (config.tunnel_ifindex && !is_node(&to))
			wrapping_to(&w, node, DP_TUNNEL_VNI);
	}
	if (is_too_big(skb, p, w.overhead))
		return refuse_size(skb, p, flow, config.uplink_mtu - w.overhead);
	if (!node) {
		if (lower_hop_limit(skb, p))
			return drop(DP_DROP_REWRITE_FAILED);
		return (struct decision){DP_PASS_REMOTE,
					 bpf_redirect_neigh(config.uplink_ifindex, NULL, 0, 0)};
	}
	decision = config.tunnel_ifindex && !is_node(&to) ? deliver_wrapped(skb, p, node, false)
							  : deliver_native(skb, p, node);
	return decision.action == TC_ACT_OK ? drop(DP_DROP_NO_BACKEND) : decision;
}

#endif
