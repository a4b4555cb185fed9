// SPDX-License-Identifier: Apache-2.0
/* tc ingress of the tunnel: what other nodes have wrapped. */
#include <linux/if_packet.h>

#include "wrapped.h"

/*
 * Precedence; what the operator sees is the name of the outcome:
 * 1. whoever wrapped it is no registered other node, or the network identifier is not ours: dropped
 * 2. what cannot be parsed, or is no IP, or belongs to a link only: dropped
 * 3. the source is neither that node nor a pod of it: dropped
 * 4. the destination is not on this node: dropped; a tunnel leads to its end and no further
 * 5. this node, or an address that no pod has: the answer to what this node has sent for a client outside goes to that
 *    client, else to the stack
 * 6. a fragment whose first one was not seen: dropped
 * 7. ingress policy of the pod, then delivered
 */
static __always_inline struct decision decide(struct __sk_buff *skb)
{
	struct packet p = {};
	struct dp_mapping source = {}, to = {};
	struct flow *flow;
	struct dp_endpoint *local;
	__u32 node_index = sender(skb, DP_TUNNEL_VNI);
	enum parsed parsed;

	if (!node_index)
		return drop(DP_DROP_TUNNEL_SENDER);
	parsed = skb->vlan_present ? PARSED_UNSUPPORTED : parse(skb, &p);
	if (parsed == PARSED_NEIGHBOUR)
		return drop(DP_DROP_LINK_SCOPE);
	if (parsed != PARSED)
		return drop(parsed == PARSED_MALFORMED ? DP_DROP_MALFORMED : DP_DROP_UNSUPPORTED);
	identify(&p.tuple.saddr, &source);
	if (source.node_index != node_index)
		return drop(DP_DROP_SPOOFED);
	/* The inner frame's destination is nobody's; the stack, and a pod's, drop what is for another host. */
	bpf_skb_change_type(skb, PACKET_HOST);
	local = bpf_map_lookup_elem(&addresses, &p.tuple.daddr);
	if (!local) {
		identify(&p.tuple.daddr, &to);
		if (!is_here(&to))
			return drop(DP_DROP_NOT_HERE);
		if (p.flags & PACKET_FRAGMENT && !complete_fragment(&p))
			return pass(DP_PASS_NOT_FOR_POD);
		flow = flow_of_packet();
		return flow && find_return(flow, &p) ? answer_client(skb, &p, flow)
						     : pass(DP_PASS_NOT_FOR_POD);
	}
	if (p.flags & PACKET_FRAGMENT && !complete_fragment(&p))
		return drop(DP_DROP_FRAGMENT);
	return deliver_local(skb, &p, local, source.identity);
}

SEC("tc")
int from_tunnel(struct __sk_buff *skb)
{
	__u32 length = skb->len;

	return finish(length, decide(skb));
}

char LICENSE[] SEC("license") = "Apache-2.0";
