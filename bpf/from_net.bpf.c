// SPDX-License-Identifier: Apache-2.0
/* tc ingress of the uplink: what other nodes and the world send. */
#include "outside.h"

/* What comes as it is while pods' packets come through the tunnel: a pod's address there is forged. */
static __always_inline bool should_be_wrapped(const struct dp_mapping *source, bool for_pod)
{
	return config.tunnel_ifindex && source->node_index && (for_pod || !is_node(source));
}

/*
 * Precedence; what the operator sees is the name of the outcome:
 * 1. ARP and neighbour discovery that is for no pod: to the stack
 * 2. what cannot be parsed: for a pod dropped, else to the stack
 * 3. with a tunnel: the source is a pod, or it is a node and this is for a pod: dropped
 * 4. for no pod of this node: services first, else to the stack
 *    a. the answer to what this node has sent in its own name: to the client, out of the uplink
 *    b. for a frontend that is not for this client, or that nobody answers for: dropped; who asks what nobody answers
 *       for on any node is told
 *    c. for a frontend, and its backend is elsewhere: there, in this node's own name, or untouched if that node answers
 *    d. for a frontend, and its backend is a pod of this node: goes on as if it had asked for the pod
 * 5. the source is this node or a pod of it: dropped
 * 6. a fragment whose first one was not seen: dropped
 * 7. ingress policy of the pod, then delivered
 * A frame with a VLAN tag belongs to a link above this one.
 */
static __always_inline struct decision decide(struct __sk_buff *skb)
{
	struct packet p = {};
	struct dp_mapping source = {};
	struct flow *flow;
	struct dp_endpoint *local;
	int service;
	enum parsed parsed;

	if (skb->vlan_present)
		return pass(DP_PASS_NOT_FOR_POD);
	parsed = parse(skb, &p);
	local = bpf_map_lookup_elem(&addresses, &p.tuple.daddr);
	if (!local && parsed != PARSED)
		return pass(parsed == PARSED_NEIGHBOUR ? DP_PASS_NEIGHBOUR : DP_PASS_NOT_FOR_POD);
	if (parsed != PARSED)
		return drop(parsed == PARSED_MALFORMED ? DP_DROP_MALFORMED : DP_DROP_UNSUPPORTED);
	if (local || config.tunnel_ifindex)
		identify(&p.tuple.saddr, &source);
	if (should_be_wrapped(&source, local != NULL))
		return drop(DP_DROP_SPOOFED);
	if (!local) {
		flow = flow_of_packet();
		if (!flow)
			return drop(DP_DROP_REWRITE_FAILED);
		service = serve_outside(skb, &p, flow, &source);
		if (service < 0)
			return drop(-service);
		if (service == SERVICE_NONE)
			return pass(DP_PASS_NOT_FOR_POD);
		if (service == SERVICE_TO_CLIENT)
			return answer_client(skb, &p, flow);
		if (service == SERVICE_REFUSED)
			return complain_outside(skb, &p, DP_DROP_NO_BACKEND, 0);
		if (service == SERVICE_TO_NODE)
			return hand_to_node(skb, &p, flow);
		local = bpf_map_lookup_elem(&addresses, &p.tuple.daddr);
		if (!local)
			return forward_outside(skb, &p, flow);
		return deliver_local(skb, &p, local, source.identity);
	}
	if (is_here(&source))
		return drop(DP_DROP_SPOOFED);
	if (p.flags & PACKET_FRAGMENT && !complete_fragment(&p))
		return drop(DP_DROP_FRAGMENT);
	return deliver_local(skb, &p, local, source.identity);
}

SEC("tc")
int from_net(struct __sk_buff *skb)
{
	__u32 length = skb->len;

	return finish(length, decide(skb));
}

char LICENSE[] SEC("license") = "Apache-2.0";
