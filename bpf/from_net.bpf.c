// SPDX-License-Identifier: Apache-2.0
/* tc ingress of the uplink: what other nodes and the world send. */
#include "deliver.h"

/* On this node, according to its mapping or its block: such a packet does not come from outside. */
static __always_inline bool is_from_here(const struct dp_mapping *source)
{
	return source->identity == DP_IDENTITY_HOST ||
	       (source->node_index && source->node_index == own_node_index());
}

/*
 * Precedence; what the operator sees is the name of the outcome:
 * 1. not for a pod of this node (ARP and neighbour discovery included): to the stack
 * 2. for a pod, but cannot be parsed: dropped
 * 3. the source is this node or a pod of it: dropped
 * 4. a fragment whose first one was not seen: dropped
 * 5. ingress policy of the pod, then delivered
 * A frame with a VLAN tag belongs to a link above this one.
 */
static __always_inline struct decision decide(struct __sk_buff *skb)
{
	struct packet p = {};
	struct dp_mapping source = {};
	struct dp_endpoint *local;
	enum parsed parsed;

	if (skb->vlan_present)
		return pass(DP_PASS_NOT_FOR_POD);
	parsed = parse(skb, &p);
	local = bpf_map_lookup_elem(&addresses, &p.tuple.daddr);
	if (!local)
		return pass(parsed == PARSED_NEIGHBOUR ? DP_PASS_NEIGHBOUR : DP_PASS_NOT_FOR_POD);
	if (parsed != PARSED)
		return drop(parsed == PARSED_MALFORMED ? DP_DROP_MALFORMED : DP_DROP_UNSUPPORTED);
	identify(&p.tuple.saddr, &source);
	if (is_from_here(&source))
		return drop(DP_DROP_SPOOFED);
	if (p.flags & PACKET_FRAGMENT && !complete_fragment(&p))
		return drop(DP_DROP_FRAGMENT);
	return deliver_local(skb, &p, local, source.identity);
}

SEC("tc")
int from_net(struct __sk_buff *skb)
{
	return finish(skb, decide(skb));
}

char LICENSE[] SEC("license") = "Apache-2.0";
