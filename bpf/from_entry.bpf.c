// SPDX-License-Identifier: Apache-2.0
/* tc ingress of the link of direct return: packets of clients outside that other nodes hand over. */
#include <linux/if_packet.h>

#include "taken.h"
#include "wrapped.h"

static __always_inline long take_name(struct __sk_buff *skb, struct dp_backend *backend)
{
	return skb->protocol == bpf_htons(ETH_P_IPV6) ? take_name_ipv6(skb, backend)
						      : take_name_ipv4(skb, backend);
}

/*
 * Precedence; what the operator sees is the name of the outcome:
 * 1. whoever wrapped it is no registered other node, or the network identifier is not ours: dropped
 * 2. it names no backend, or cannot be parsed, or is no IP, or belongs to a link only: dropped
 * 3. the source is a pod or a node: dropped, for those do not come this way
 * 4. a fragment whose first one was not seen: dropped
 * 5. the backend is no pod of this node: dropped
 * 6. from here on its destination is the backend; it cannot be rewritten: dropped
 * 7. ingress policy of the pod, which sees the client, then delivered
 */
static __always_inline struct decision decide(struct __sk_buff *skb)
{
	struct packet p = {};
	struct dp_mapping source = {};
	struct dp_backend backend = {};
	struct dp_endpoint *local;
	struct flow *flow = flow_of_packet();
	enum parsed parsed;
	int failed;

	if (!flow || !sender(skb, DP_DIRECT_VNI))
		return drop(DP_DROP_TUNNEL_SENDER);
	if (skb->vlan_present || take_name(skb, &backend))
		return drop(DP_DROP_UNSUPPORTED);
	parsed = parse(skb, &p);
	if (parsed == PARSED_NEIGHBOUR)
		return drop(DP_DROP_LINK_SCOPE);
	if (parsed != PARSED)
		return drop(parsed == PARSED_MALFORMED ? DP_DROP_MALFORMED : DP_DROP_UNSUPPORTED);
	identify(&p.tuple.saddr, &source);
	if (source.node_index || !is_no_pod(&source) || is_here(&source))
		return drop(DP_DROP_SPOOFED);
	/* The inner frame's destination is a name; the stack, and a pod's, drop what is for another host. */
	bpf_skb_change_type(skb, PACKET_HOST);
	if (p.flags & PACKET_FRAGMENT && !complete_fragment(&p))
		return drop(DP_DROP_FRAGMENT);
	if (!bpf_map_lookup_elem(&addresses, &backend.address))
		return drop(DP_DROP_NOT_HERE);
	failed = take_over(skb, &p, flow, &backend);
	if (failed)
		return drop(failed);
	local = bpf_map_lookup_elem(&addresses, &p.tuple.daddr);
	return local ? deliver_local(skb, &p, local, source.identity) : drop(DP_DROP_NOT_HERE);
}

SEC("tc")
int from_entry(struct __sk_buff *skb)
{
	__u32 length = skb->len;

	return finish(length, decide(skb));
}

char LICENSE[] SEC("license") = "Apache-2.0";
