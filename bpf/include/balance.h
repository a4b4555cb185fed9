/* SPDX-License-Identifier: Apache-2.0 */
/* Packets that ask for a service, and the way back out of the node. */
#ifndef DELTAPLANE_BALANCE_H
#define DELTAPLANE_BALANCE_H

#include "deliver.h"

/* What services have to do with a packet; below 0: dropped, with that outcome. */
enum service {
	SERVICE_NONE = 0,
	/* Rewritten: the destination is a backend. */
	SERVICE_TO_BACKEND,
	/* Rewritten: the backend is the pod that has sent it. */
	SERVICE_TO_ITSELF,
	/* Not yet rewritten: the answer to a client outside; flow->to is what it gets. */
	SERVICE_TO_CLIENT,
	/* Not rewritten: the node of the backend is to answer; flow->to is what the backend gets. */
	SERVICE_TO_NODE,
	/* Not rewritten: nobody answers anywhere, and the client is told. */
	SERVICE_REFUSED,
};

/* No pod has it, so a service may. */
static __always_inline bool is_no_pod(const struct dp_mapping *who)
{
	return who->identity < DP_FIRST_IDENTITY && (!who->node_index || is_node(who));
}

static __always_inline bool is_marked(void *marks, __be16 port)
{
	__u32 index = bpf_ntohs(port) % DP_PORT_MARKS, *mark = bpf_map_lookup_elem(marks, &index);

	return mark && *mark;
}

static __always_inline void mark_itself(__be16 port)
{
	__u32 index = bpf_ntohs(port) % DP_PORT_MARKS;
	__u32 *mark = bpf_map_lookup_elem(&itself_ports, &index);

	if (mark && !*mark)
		*mark = 1;
}

static __always_inline bool asks(const struct packet *p)
{
	return has_ports(subject_of(p)->protocol);
}

/* flow->forward and flow->to: to a backend, with the client as source. */
static __always_inline void begin(struct flow *flow, const struct packet *p,
				  const struct dp_frontend *frontend,
				  const struct dp_backend *backend, __u32 list)
{
	struct dp_translation *forward = &flow->forward;

	__builtin_memset(forward, 0, sizeof(*forward));
	forward->last_seen = bpf_ktime_get_boot_ns();
	forward->saddr = p->tuple.saddr;
	forward->sport = p->tuple.sport;
	forward->daddr = backend->address;
	forward->dport = backend->port;
	forward->list = list;
	forward->service = frontend->service;
	forward->shown = shown_by(p->tcp_flags);
	flow->handed = 0;
	aim(&flow->to, forward);
}

static __always_inline bool goes_the_same_way(const struct dp_translation *a,
					      const struct dp_translation *b)
{
	return a->sport == b->sport && a->dport == b->dport && same_address(&a->saddr, &b->saddr) &&
	       same_address(&a->daddr, &b->daddr);
}

/*
 * Makes both entries of flow->forward. False: another flow has this source and backend. What is dead, or if `ended`
 * counts as dead has just ended, makes room for one of those that want it: who deletes it.
 */
static __noinline bool put_legs(struct flow *flow, const struct packet *p, bool ended)
{
	struct dp_translation *back = &flow->back, *old;

	set_key(&flow->key, &p->tuple, DP_LEG_FORWARD);
	set_other(&flow->other, &flow->forward, &flow->key);
	__builtin_memset(back, 0, sizeof(*back));
	back->last_seen = flow->forward.last_seen;
	back->saddr = p->tuple.daddr;
	back->daddr = p->tuple.saddr;
	back->sport = p->tuple.dport;
	back->dport = p->tuple.sport;
	back->outside = flow->forward.outside;
	back->answered = flow->forward.shown;
	back->handed = flow->forward.handed;
	back->service = flow->forward.service;
	if (bpf_map_update_elem(&translations, &flow->other, back, BPF_NOEXIST)) {
		old = bpf_map_lookup_elem(&translations, &flow->other);
		if (old && !goes_the_same_way(old, back) &&
		    is_alive(old, p->tuple.protocol, ended, back->last_seen))
			return false;
		if (old && bpf_map_delete_elem(&translations, &flow->other))
			return false;
		if (bpf_map_update_elem(&translations, &flow->other, back, BPF_NOEXIST))
			return false;
	}
	return !bpf_map_update_elem(&translations, &flow->key, &flow->forward, BPF_ANY);
}

#endif
