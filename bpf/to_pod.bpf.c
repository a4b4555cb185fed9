// SPDX-License-Identifier: Apache-2.0
/* tc egress of a pod's host-side link: what the node's stack sends to the pod. */
#include "deliver.h"

/*
 * Precedence; what the operator sees is the name of the outcome:
 * 1. ARP and neighbour discovery on the link: passed
 * 2. what cannot be parsed, or is no IP: dropped
 * 3. the link belongs to no endpoint: dropped
 * 4. a fragment whose first one was not seen: dropped, but not the host's own
 * 5. sent by this node itself (it came in by no link): passed, and so will be the answer
 * 6. ingress policy, connections first
 * A reply to what asked for a frontend comes from the frontend.
 */
static __always_inline struct decision decide(struct __sk_buff *skb)
{
	struct packet p = {};
	struct judge ingress = {.side = DP_SIDE_INGRESS, .from_host = skb->ingress_ifindex == 0};
	struct dp_mapping source = {};
	struct dp_endpoint *pod;
	__u32 ifindex = skb->ifindex;
	enum parsed parsed = parse(skb, &p);

	if (parsed == PARSED_NEIGHBOUR)
		return pass(DP_PASS_NEIGHBOUR);
	if (parsed != PARSED)
		return drop(parsed == PARSED_MALFORMED ? DP_DROP_MALFORMED : DP_DROP_UNSUPPORTED);
	pod = bpf_map_lookup_elem(&endpoints, &ifindex);
	if (!pod)
		return drop(DP_DROP_NO_ENDPOINT);
	if (p.flags & PACKET_FRAGMENT && !complete_fragment(&p) && !ingress.from_host)
		return drop(DP_DROP_FRAGMENT);
	identify(&p.tuple.saddr, &source);
	ingress.identity = pod->identity;
	ingress.peer = source.identity;
	if (judge(&p, &ingress) != DP_VERDICT_ALLOW)
		return drop(is_closed(ingress.identity) ? DP_DROP_CLOSED : DP_DROP_INGRESS_POLICY);
	if (ingress.may_return && restore_frontend(skb, &p))
		return drop(DP_DROP_REWRITE_FAILED);
	return pass(ingress.from_host ? DP_PASS_FROM_HOST : DP_PASS_TO_POD);
}

SEC("tc")
int to_pod(struct __sk_buff *skb)
{
	__u32 length = skb->len;

	return finish(length, decide(skb));
}

char LICENSE[] SEC("license") = "Apache-2.0";
