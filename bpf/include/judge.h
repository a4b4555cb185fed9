/* SPDX-License-Identifier: Apache-2.0 */
/* May this packet leave its source, may it enter its destination. */
#ifndef DELTAPLANE_JUDGE_H
#define DELTAPLANE_JUDGE_H

#include "connection.h"
#include "identity.h"
#include "policy.h"

/* One end of a packet at which it is judged. */
struct judge {
	/* Whose policy: the pod at this end; 0: closed. */
	__u32 identity;
	/* Who is at the other end. */
	__u32 peer;
	/* What the policy has said, if it was asked. */
	__u32 ruling;
	/* enum dp_side */
	__u8 side;
	/* Sent by this node's own stack. */
	__u8 from_host;
	/* After: may be the reply to what asked for a frontend. */
	__u8 may_return;
	__u8 reserved;
};

static __always_inline bool allows(__u32 ruling)
{
	return action_of(ruling) == DP_ACTION_ALLOW;
}

/* flags: enum dp_denial_flag, without the side. */
static __noinline int count_denial(const struct judge *j, const struct packet *p, __u32 flags)
{
	struct dp_denial_key key = {
		.subject = j->identity,
		.peer = j->peer,
		.port = p->policy_port,
		.protocol = p->tuple.protocol,
		.flags = flags | (j->side == DP_SIDE_INGRESS ? DP_DENIAL_INGRESS : 0),
	};
	struct dp_denial first = {.packets = 1, .last_seen = bpf_ktime_get_boot_ns()};
	struct dp_denial *denial;

	denial = bpf_map_lookup_elem(&denials, &key);
	if (denial) {
		__sync_fetch_and_add(&denial->packets, 1);
		denial->last_seen = first.last_seen;
	} else {
		bpf_map_update_elem(&denials, &key, &first, BPF_ANY);
	}
	return 0;
}

/* A full map counts nothing new: what is counted stays right. */
static __noinline int count_rule(__u32 set_id, __u32 ruling)
{
	struct dp_rule_key key = {.set_id = set_id, .ruling = ruling};
	struct dp_rule none = {}, *rule;

	if (!set_id)
		return 0;
	rule = bpf_map_lookup_elem(&rules, &key);
	if (!rule) {
		/* Another processor may be first: then its entry is the one to count in. */
		bpf_map_update_elem(&rules, &key, &none, BPF_NOEXIST);
		rule = bpf_map_lookup_elem(&rules, &key);
	}
	if (rule)
		__sync_fetch_and_add(&rule->hits, 1);
	return 0;
}

static __always_inline __u32 set_in_force(const struct dp_subject *subject, __u8 side)
{
	return side == DP_SIDE_EGRESS ? subject->egress_set : subject->ingress_set;
}

static __always_inline __u32 audit_set(const struct dp_subject *subject, __u8 side)
{
	return side == DP_SIDE_EGRESS ? subject->audit_egress_set : subject->audit_ingress_set;
}

static __always_inline const struct dp_address *remote_of(const struct dp_connection_key *key)
{
	return key->side == DP_SIDE_EGRESS ? &key->daddr : &key->saddr;
}

/*
 * Whether a connection that was let begin may go on. Precedence:
 * 1. begun by this node's own stack, and nobody else uses its tuple: yes
 * 2. the subject is closed: no
 * 3. same subject, same peer, same epoch as when it was judged: yes
 * 4. what the policy says now about its first packet; key is of that direction, also when this is a reply
 */
static __always_inline bool may_go_on(struct dp_connection *c, const struct dp_connection_key *key,
				      struct judge *j, const struct dp_subject *subject,
				      bool is_reply)
{
	if (c->from_host) {
		if (is_reply && j->peer < DP_FIRST_IDENTITY)
			return true;
	} else if (subject && c->subject == j->identity && c->peer == j->peer &&
		   c->epoch == subject->epoch) {
		return true;
	}
	if (!subject)
		return false;
	/* The destination's port is what its first packet was judged by, also for ICMP. */
	j->ruling = policy_ruling(set_in_force(subject, key->side), j->peer, remote_of(key),
				  key->protocol, key->dport);
	if (!allows(j->ruling))
		return false;
	c->subject = j->identity;
	c->peer = j->peer;
	c->epoch = subject->epoch;
	c->from_host = false;
	return true;
}

static __always_inline void remember(const struct dp_connection_key *key, const struct judge *j,
				     const struct dp_subject *subject, bool translated)
{
	__u64 now = ticks_now();
	struct dp_connection fresh = {
		.last_seen = now,
		.packets = 1,
		.subject = j->identity,
		.peer = j->from_host ? DP_IDENTITY_HOST : j->peer,
		.epoch = subject ? subject->epoch : 0,
		.original = DP_SHOWN_PACKET,
		.from_host = j->from_host,
		.translated = translated,
	};

	bpf_map_update_elem(&connections, key, &fresh, BPF_ANY);
}

enum standing {
	STANDING_NONE,
	STANDING_ALLOWED,
	STANDING_ENDED,
};

/* Whether the packet belongs to a connection, and whether that may go on; if not, its entry is gone. */
static __always_inline enum standing standing_of(struct dp_connection_key *key, struct judge *j,
						 const struct dp_subject *subject,
						 const struct packet *p)
{
	__u64 now = ticks_now();
	struct dp_connection *c;
	bool is_reply;

	c = find_connection(key, now, &is_reply);
	if (!c)
		return STANDING_NONE;
	if (j->from_host) {
		/* An answer to the pod, or a probe that goes on; else the probe makes its own entry. */
		if (!is_reply && !c->from_host)
			return STANDING_NONE;
	} else if (!may_go_on(c, key, j, subject, is_reply)) {
		bpf_map_delete_elem(&connections, key);
		return STANDING_ENDED;
	}
	touch_connection(c, now, is_reply, p->tcp_flags);
	if (p->flags & PACKET_TRANSLATED && !c->translated)
		c->translated = true;
	j->may_return = is_reply && c->translated;
	return STANDING_ALLOWED;
}

/* Counts the ruling, and what a policy under audit would have said of what passes. */
static __always_inline void count(const struct packet *p, const struct judge *j,
				  const struct dp_subject *subject)
{
	const struct dp_address *remote =
		j->side == DP_SIDE_EGRESS ? &p->tuple.daddr : &p->tuple.saddr;
	__u32 set_id = audit_set(subject, j->side), ruling;

	count_rule(set_in_force(subject, j->side), j->ruling);
	if (!set_id || !allows(j->ruling))
		return;
	ruling = policy_ruling(set_id, j->peer, remote, p->tuple.protocol, p->policy_port);
	if (allows(ruling))
		return;
	count_rule(set_id, ruling);
	count_denial(j, p, DP_DENIAL_AUDIT);
}

/*
 * Precedence:
 * 1. an ICMP error about a connection shares its fate
 * 2. so does a packet of a connection; a TCP SYN begins one and is judged anew
 * 3. this node's own stack reaches its pods, whatever the policy: kubelet's probes
 * 4. a closed subject: nothing else
 * 5. policy; if it allows, what may begin a connection leaves an entry
 * A TCP segment without an entry that is no SYN passes by policy alone: nobody knows who began, and an entry
 * for the wrong direction would keep alive what a policy has just ended.
 */
static __noinline enum dp_verdict judge(const struct packet *p, struct judge *j)
{
	struct dp_subject *subject = NULL;
	bool is_error = p->flags & PACKET_ICMP_ERROR, starts = p->flags & PACKET_STARTS;
	bool is_stateless = p->flags & PACKET_STATELESS, translated = p->flags & PACKET_TRANSLATED;
	struct dp_connection_key key = is_error ? p->quoted : p->tuple;
	enum standing standing = STANDING_NONE;
	struct judge about = *j;

	if (j->identity)
		subject = bpf_map_lookup_elem(&subjects, &j->identity);
	key.side = j->side;
	if (is_error) {
		/* The other end of what is quoted is not who sends the error: any router between may. */
		struct dp_mapping who = {};

		identify(remote_of(&key), &who);
		about.peer = who.identity;
	}
	if (is_error || (!is_stateless && !(starts && key.protocol == IPPROTO_TCP)))
		standing = standing_of(&key, &about, subject, p);
	j->may_return = about.may_return;
	if (standing == STANDING_ALLOWED)
		return DP_VERDICT_ALLOW;
	/* Its entry may have been evicted while the translation is still there. */
	j->may_return = !(starts && key.protocol == IPPROTO_TCP);

	key = p->tuple;
	key.side = j->side;
	about.peer = j->peer;
	if (j->from_host) {
		if (starts)
			remember(&key, j, subject, translated);
		return DP_VERDICT_ALLOW;
	}
	if (!subject) {
		count_denial(j, p, 0);
		return DP_VERDICT_DENY;
	}
	if (standing == STANDING_NONE)
		about.ruling = policy_ruling(set_in_force(subject, j->side), j->peer,
					     remote_of(&key), key.protocol, p->policy_port);
	if (!allows(about.ruling)) {
		count_denial(j, p, 0);
		count(p, &about, subject);
		return DP_VERDICT_DENY;
	}
	if (starts || is_stateless)
		count(p, &about, subject);
	if (starts)
		remember(&key, j, subject, translated);
	return DP_VERDICT_ALLOW;
}

/* Closed: no identity yet, or none that policy has been computed for. */
static __always_inline bool is_closed(__u32 identity)
{
	return !identity || !bpf_map_lookup_elem(&subjects, &identity);
}

#endif
