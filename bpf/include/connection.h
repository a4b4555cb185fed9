/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that a policy has let begin. A packet belongs to its own entry or to the one that it answers:
 *
 *	A's egress	  B's ingress
 *	key A→B EGRESS	  key A→B INGRESS	made by the first packet A→B
 *	reply found as	  reply found as
 *	key A→B EGRESS	  key A→B INGRESS	when B→A comes in at A, or leaves B
 *
 * An LRU map forgets by itself; what is older than its lifetime counts as forgotten.
 */
#ifndef DELTAPLANE_CONNECTION_H
#define DELTAPLANE_CONNECTION_H

#include "maps.h"
#include "packet.h"

#define SECOND 1000000000ULL
/* Above the two hours after which Linux sends its first keep-alive (tcp_keepalive_time). */
#define LIFETIME_TCP	   (8000 * SECOND)
#define LIFETIME_REPLIED   (180 * SECOND)
#define LIFETIME_UNREPLIED (60 * SECOND)
/* Long enough for what is still on its way after the last FIN. */
#define LIFETIME_CLOSED (10 * SECOND)
/* Writing it with every packet would bounce the line between processors. */
#define LAST_SEEN_STEP (SECOND / 10)

/*
 * Boot time, ns, a tick late at most, without suspension. Counted in ticks, which are a variable to read: a clock
 * that is exact costs as much as a tenth of a program.
 */
static __always_inline __u64 ticks_now(void)
{
	return (bpf_jiffies64() - config.first_tick) * config.tick_ns;
}

/* original, reply: enum dp_shown of the two directions. */
static __always_inline bool has_ended(__u8 original, __u8 reply)
{
	return (original | reply) & DP_SHOWN_RESET || original & reply & DP_SHOWN_FIN;
}

static __always_inline __u64 lifetime(__u8 original, __u8 reply, __u8 protocol)
{
	if (has_ended(original, reply))
		return LIFETIME_CLOSED;
	if (!reply)
		return LIFETIME_UNREPLIED;
	return protocol == IPPROTO_TCP ? LIFETIME_TCP : LIFETIME_REPLIED;
}

static __always_inline void turn_round(struct dp_connection_key *key)
{
	struct dp_address address = key->saddr;
	__be16 port = key->sport;

	key->saddr = key->daddr;
	key->daddr = address;
	key->sport = key->dport;
	key->dport = port;
	key->side = !key->side;
}

static __always_inline struct dp_connection *living(struct dp_connection_key *key, __u64 now)
{
	struct dp_connection *c = bpf_map_lookup_elem(&connections, key);

	if (!c)
		return NULL;
	/* Signed: another processor may have seen it after our clock was read. */
	return (__s64)(now - c->last_seen) < (__s64)lifetime(c->original, c->reply, key->protocol)
		       ? c
		       : NULL;
}

/* Before: the packet's tuple and the side that judges it. After: the key of the entry, if there is one. */
static __always_inline struct dp_connection *find_connection(struct dp_connection_key *key,
							     __u64 now, bool *is_reply)
{
	struct dp_connection *c = living(key, now);

	*is_reply = false;
	if (c)
		return c;
	turn_round(key);
	*is_reply = true;
	return living(key, now);
}

static __always_inline __u8 shown_by(__u8 tcp_flags)
{
	__u8 shown = DP_SHOWN_PACKET;

	if (tcp_flags & TCP_FIN)
		shown |= DP_SHOWN_FIN;
	if (tcp_flags & TCP_RST)
		shown |= DP_SHOWN_RESET;
	return shown;
}

static __always_inline void touch_connection(struct dp_connection *c, __u64 now, bool is_reply,
					     __u8 tcp_flags)
{
	__u8 *direction = is_reply ? &c->reply : &c->original;
	__u8 shown = *direction | shown_by(tcp_flags);

	if (shown != *direction)
		*direction = shown;
	if ((__s64)(now - c->last_seen) > (__s64)LAST_SEEN_STEP)
		c->last_seen = now;
	__sync_fetch_and_add(&c->packets, 1);
}

#endif
