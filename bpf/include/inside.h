/* SPDX-License-Identifier: Apache-2.0 */
/* Services asked for by a pod of this node, packet by packet. */
#ifndef DELTAPLANE_INSIDE_H
#define DELTAPLANE_INSIDE_H

#include "complain.h"
#include "balance.h"

/*
 * A pod's packet to a frontend that has no entry: begins one. Below 0: an outcome.
 * A pod that is its own backend must not see itself as the client: it sees the frontend.
 */
static __noinline int begin_inside(struct flow *flow, const struct packet *p,
				   const struct dp_mapping *asked)
{
	const struct dp_connection_key *tuple = &p->tuple;
	struct dp_affinity_key client = {.client = tuple->saddr};
	struct dp_backend backend = {};
	struct dp_frontend *frontend;

	frontend = exact_frontend(&tuple->daddr, tuple->dport, tuple->protocol);
	if (!frontend && is_node(asked))
		frontend = node_port(&tuple->daddr, tuple->dport, tuple->protocol);
	if (!frontend)
		return SERVICE_NONE;
	if (!is_source_allowed(frontend, &tuple->saddr))
		return -DP_DROP_SOURCE_RANGE;
	if (!choose_inside(frontend, &client, &backend))
		return SERVICE_REFUSED;
	begin(flow, p, frontend, &backend, client.list);
	if (same_address(&backend.address, &tuple->saddr)) {
		flow->to.saddr = flow->forward.saddr = tuple->daddr;
		mark_itself(backend.port);
	}
	return put_legs(flow, p, true) ? SERVICE_TO_BACKEND : -DP_DROP_NO_PORT;
}

/*
 * A packet that a pod sends to *asked, which is no pod. Precedence:
 * 1. its flow has an entry: to that backend
 * 2. it answers what the pod has sent to itself: back to itself
 * 3. a service has the address: to a backend of it
 * Afterwards *asked is who gets it.
 */
static __noinline int serve_pod(struct __sk_buff *skb, struct packet *p, struct flow *flow,
				struct dp_mapping *asked)
{
	const struct dp_connection_key *tuple = subject_of(p);
	bool may_ask = is_marked(&frontend_ports, tuple->dport);
	struct dp_address pod = p->tuple.saddr;
	int found = SERVICE_NONE;

	if (!asks(p))
		return SERVICE_NONE;
	if (may_ask && find_leg(flow, p, DP_LEG_FORWARD))
		found = SERVICE_TO_BACKEND;
	else if (is_marked(&itself_ports, tuple->sport) && find_leg(flow, p, DP_LEG_BACK) &&
		 same_address(&flow->to.daddr, &pod))
		found = SERVICE_TO_BACKEND;
	else if (may_ask && !(p->flags & PACKET_ICMP_ERROR))
		found = begin_inside(flow, p, asked);
	if (found <= 0 || found == SERVICE_REFUSED)
		return found;
	if (rewrite(skb, p, &flow->to, false))
		return -DP_DROP_REWRITE_FAILED;
	if (same_address(&p->tuple.daddr, &pod))
		return SERVICE_TO_ITSELF;
	p->flags |= PACKET_TRANSLATED;
	identify(&p->tuple.daddr, asked);
	return SERVICE_TO_BACKEND;
}

#endif
