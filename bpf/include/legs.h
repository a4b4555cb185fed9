/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where translated packets go on. Two entries a flow, made together by its first packet:
 *
 *	forward	client → frontend	becomes	source → backend
 *	back	backend → source	becomes	frontend → client
 *
 * The source is the client; for a pod that is its own backend it is the frontend, and for what this node forwards in
 * its own name this node, with a port by which the flow is told from others. Entries live as long as connections;
 * traffic in one direction keeps both alive.
 */
#ifndef DELTAPLANE_LEGS_H
#define DELTAPLANE_LEGS_H

#include "connection.h"
#include "service.h"
#include "translate.h"

/* What is worked out about the packet in hand, by processor: the stack has no room for it. */
struct flow {
	struct dp_translation_key key;
	struct dp_translation_key other;
	struct dp_translation forward;
	struct dp_translation back;
	/* Where the packet, or what an ICMP error is about, turned round, goes on. */
	struct dp_connection_key to;
	/* enum dp_handed of the entry that says so. */
	__u32 handed;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow);
} flow_in_hand SEC(".maps");

static __always_inline struct flow *flow_of_packet(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&flow_in_hand, &zero);
}

/* Of a packet, or of what an ICMP error is about. */
static __always_inline const struct dp_connection_key *subject_of(const struct packet *p)
{
	return p->flags & PACKET_ICMP_ERROR ? &p->quoted : &p->tuple;
}

static __always_inline void set_key(struct dp_translation_key *key,
				    const struct dp_connection_key *tuple, enum dp_leg leg)
{
	key->saddr = tuple->saddr;
	key->daddr = tuple->daddr;
	key->sport = tuple->sport;
	key->dport = tuple->dport;
	key->protocol = tuple->protocol;
	key->leg = leg;
	key->reserved = 0;
}

/* The key of the other leg. */
static __always_inline void set_other(struct dp_translation_key *other,
				      const struct dp_translation *t,
				      const struct dp_translation_key *key)
{
	other->saddr = t->daddr;
	other->daddr = t->saddr;
	other->sport = t->dport;
	other->dport = t->sport;
	other->protocol = key->protocol;
	other->leg = !key->leg;
	other->reserved = 0;
}

static __always_inline void aim(struct dp_connection_key *to, const struct dp_translation *t)
{
	to->saddr = t->saddr;
	to->daddr = t->daddr;
	to->sport = t->sport;
	to->dport = t->dport;
}

/*
 * A SYN takes up a connection that has begun a short time ago; what has ended, or is older, it begins anew, so that
 * a client that uses its port again is not led to a backend that may be gone.
 */
static __always_inline bool is_alive(const struct dp_translation *t, __u8 protocol, bool syn,
				     __u64 now)
{
	__u64 longest = lifetime(t->shown, t->answered, protocol);
	bool ended = has_ended(t->shown, t->answered) ||
		     (t->handed == DP_HANDED_OVER && t->shown & DP_SHOWN_FIN);

	if (syn && ended)
		return false;
	if (syn && longest > LIFETIME_UNREPLIED)
		longest = LIFETIME_UNREPLIED;
	return (__s64)(now - t->last_seen) < (__s64)longest;
}

/* flow->key is that of t. Whose answers do not come by is answered if it goes on. */
static __noinline int touch_leg(struct flow *flow, struct dp_translation *t, __u32 tcp_flags)
{
	__u64 now = bpf_ktime_get_boot_ns();
	__u8 shown = t->shown | shown_by(tcp_flags), answered = t->answered;
	struct dp_translation *other;

	if (t->handed == DP_HANDED_OVER && !(tcp_flags & TCP_SYN))
		answered = DP_SHOWN_PACKET;
	if (shown == t->shown && answered == t->answered &&
	    (__s64)(now - t->last_seen) <= (__s64)LAST_SEEN_STEP)
		return 0;
	t->shown = shown;
	t->last_seen = now;
	if (t->handed == DP_HANDED_OVER) {
		t->answered = answered;
		return 0;
	}
	set_other(&flow->other, t, &flow->key);
	other = bpf_map_lookup_elem(&translations, &flow->other);
	if (!other)
		return 0;
	other->answered = shown;
	other->last_seen = now;
	return 0;
}

/* UDP and SCTP leave a backend that is none any more; a TCP connection stays, and what another node has chosen. */
static __always_inline bool may_stay(const struct dp_translation *t, __u8 protocol)
{
	struct dp_backend backend = {.address = t->daddr, .port = t->dport};

	return protocol == IPPROTO_TCP || !t->list || is_member(t->list, &backend);
}

/* Whether there is an entry; flow->to is what it says. */
static __noinline bool find_leg(struct flow *flow, const struct packet *p, __u32 leg)
{
	bool is_error = p->flags & PACKET_ICMP_ERROR;
	const struct dp_connection_key *tuple = subject_of(p);
	bool syn = tuple->protocol == IPPROTO_TCP && p->flags & PACKET_STARTS;
	struct dp_translation *t;

	if (!has_ports(tuple->protocol))
		return false;
	set_key(&flow->key, tuple, leg);
	t = bpf_map_lookup_elem(&translations, &flow->key);
	if (!t || !is_alive(t, tuple->protocol, syn, bpf_ktime_get_boot_ns()))
		return false;
	if (leg == DP_LEG_FORWARD && !is_error && !may_stay(t, tuple->protocol)) {
		set_other(&flow->other, t, &flow->key);
		bpf_map_delete_elem(&translations, &flow->other);
		bpf_map_delete_elem(&translations, &flow->key);
		return false;
	}
	aim(&flow->to, t);
	flow->handed = t->handed;
	if (!is_error)
		touch_leg(flow, t, p->tcp_flags);
	return true;
}

/* A reply on its last step to the client: from the frontend that was asked, if one was. Non-zero: not writable. */
static __noinline int restore_frontend(struct __sk_buff *skb, struct packet *p)
{
	struct flow *flow = flow_of_packet();

	if (!flow || p->flags & PACKET_TRANSLATED || !find_leg(flow, p, DP_LEG_BACK))
		return 0;
	return rewrite(skb, p, &flow->to, false);
}

static __always_inline bool is_own_address(const struct dp_address *address)
{
	return is_configured(address, &config.node_ipv4) ||
	       is_configured(address, &config.node_ipv6);
}

/* Whether a packet from outside is an answer to what this node has sent in its own name. */
static __always_inline bool find_return(struct flow *flow, const struct packet *p)
{
	const struct dp_connection_key *tuple = subject_of(p);

	return bpf_ntohs(tuple->dport) >= DP_FORWARD_PORT_FIRST && is_own_address(&tuple->daddr) &&
	       find_leg(flow, p, DP_LEG_BACK);
}

#endif
