// SPDX-License-Identifier: Apache-2.0
/* tc ingress of a pod's host-side link: everything that a pod sends. */
#include "inside.h"

static __always_inline bool is_own_source(const struct dp_endpoint *pod, const struct packet *p)
{
	const struct dp_address *own = p->flags & PACKET_IPV6 ? &pod->ipv6 : &pod->ipv4;

	return !is_unspecified(own) && same_address(&p->tuple.saddr, own);
}

/*
 * With native routing nodes themselves are the routing table's business; with a tunnel the network between the
 * nodes never sees a pod's address.
 */
static __always_inline bool is_behind_other_node(const struct dp_mapping *to)
{
	return is_elsewhere(to) && (config.tunnel_ifindex || !is_node(to));
}

/*
 * Precedence; what the operator sees is the name of the outcome:
 *  1. ARP and neighbour discovery on the link: to the stack; a pod is no router
 *  2. what cannot be parsed, or is no IP: dropped
 *  3. the link belongs to no endpoint (not yet, or no more): dropped
 *  4. multicast, broadcast and link-local destinations: nobody listens there, dropped
 *  5. the source is not the pod's address: dropped
 *  6. a fragment whose first one was not seen: dropped
 *  7. it asks for a service: from here on its destination is a backend; none: dropped, and the pod is told; it cannot be
 *     rewritten: dropped
 *  8. the backend is the pod itself: handed back, whatever the policy
 *  9. egress policy, connections first
 * 10. the answer to a client outside that asked for a service: from the frontend, out of the uplink
 * 11. a pod of this node: its ingress policy, then delivered
 * 12. an address behind another node: delivered through the uplink or the tunnel
 * 13. this node, other nodes (unless there is a tunnel), the world: to the stack
 */
static __always_inline struct decision decide(struct __sk_buff *skb)
{
	struct packet p = {};
	struct judge egress = {.side = DP_SIDE_EGRESS};
	struct dp_mapping to = {}, source = {};
	struct dp_endpoint *pod, *local;
	struct flow *flow = NULL;
	__u32 ifindex = skb->ifindex;
	int service = SERVICE_NONE;
	enum parsed parsed = skb->vlan_present ? PARSED_UNSUPPORTED : parse(skb, &p);

	if (parsed == PARSED_NEIGHBOUR)
		return p.flags & PACKET_FROM_ROUTER ? drop(DP_DROP_SPOOFED)
						    : pass(DP_PASS_NEIGHBOUR);
	if (parsed != PARSED)
		return drop(parsed == PARSED_MALFORMED ? DP_DROP_MALFORMED : DP_DROP_UNSUPPORTED);
	pod = bpf_map_lookup_elem(&endpoints, &ifindex);
	if (!pod)
		return drop(DP_DROP_NO_ENDPOINT);
	if (is_link_scope(&p.tuple.daddr))
		return drop(DP_DROP_LINK_SCOPE);
	if (!is_own_source(pod, &p))
		return drop(DP_DROP_SPOOFED);
	if (p.flags & PACKET_FRAGMENT && !complete_fragment(&p))
		return drop(DP_DROP_FRAGMENT);
	identify(&p.tuple.daddr, &to);
	if (is_no_pod(&to))
		flow = flow_of_packet();
	if (flow) {
		service = serve_pod(skb, &p, flow, &to);
		forget_way(skb, &p);
	}
	if (service < 0)
		return drop(-service);
	if (service == SERVICE_REFUSED)
		return complain_to_pod(skb, &p, pod);
	if (service == SERVICE_TO_ITSELF)
		return p.hop_limit <= 1 ? pass(DP_PASS_TTL_EXPIRED) : hand_over(skb, &p, pod);
	egress.identity = pod->identity;
	egress.peer = to.identity;
	if (judge(&p, &egress) != DP_VERDICT_ALLOW)
		return drop(is_closed(egress.identity) ? DP_DROP_CLOSED : DP_DROP_EGRESS_POLICY);
	if (flow && service == SERVICE_NONE && egress.may_return && find_leg(flow, &p, DP_LEG_BACK))
		return answer_client(skb, &p, flow);
	local = bpf_map_lookup_elem(&addresses, &p.tuple.daddr);
	if (local) {
		identify(&p.tuple.saddr, &source);
		return deliver_local(skb, &p, local, source.identity);
	}
	if (is_behind_other_node(&to))
		return deliver_remote(skb, &p, &to);
	return pass(DP_PASS_STACK);
}

SEC("tc")
int from_pod(struct __sk_buff *skb)
{
	__u32 length = skb->len;

	return finish(length, decide(skb));
}

char LICENSE[] SEC("license") = "Apache-2.0";
