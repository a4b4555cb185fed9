/* SPDX-License-Identifier: Apache-2.0 */
/* What a policy set says; nodeagent/verdict.py has the twin of it in Python. */
#ifndef DELTAPLANE_POLICY_H
#define DELTAPLANE_POLICY_H

#include "maps.h"
#include "packet.h"

static __always_inline __u32 action_of(__u32 decision)
{
	return decision & DP_DECISION_ACTION;
}

static __always_inline bool decides(__u32 decision)
{
	return decision && action_of(decision) != DP_ACTION_PASS;
}

/* Takes what the longest entry for a peer says, where that is higher. */
static __always_inline void consult(struct dp_policy_entry *highest, struct dp_policy_key *key,
				    __u32 peer)
{
	struct dp_policy_entry *found;

	key->peer = bpf_htonl(peer);
	found = bpf_map_lookup_elem(&policy_entries, key);
	if (!found)
		return;
	if (found->admin > highest->admin)
		highest->admin = found->admin;
	if (found->normal > highest->normal)
		highest->normal = found->normal;
	if (found->baseline > highest->baseline)
		highest->baseline = found->baseline;
}

/* Tier and decision of who decides; 0: nobody does. */
static __always_inline __u32 ruling_of(const struct dp_policy_entry *highest)
{
	if (decides(highest->admin))
		return (__u32)DP_TIER_ADMIN << DP_RULING_TIER | highest->admin;
	if (decides(highest->normal))
		return (__u32)DP_TIER_NORMAL << DP_RULING_TIER | highest->normal;
	if (decides(highest->baseline))
		return (__u32)DP_TIER_BASELINE << DP_RULING_TIER | highest->baseline;
	return 0;
}

/*
 * The ruling of a set. Precedence:
 * 1. no set: allowed
 * 2. a peer of which nobody knows yet who it is: denied
 * 3. in each tier the highest decision of: the longest entry for the peer's identity; for every pod, if the peer is
 *    one; for the class of the longest prefix that holds the remote address; for every peer
 * 4. the first tier, of admin, normal, baseline, whose decision is neither none nor pass
 * 5. nobody decided: denied
 *
 * Not static: the verifier looks at a global function once, and not on every way to it. Before Linux 5.13 such a
 * function takes numbers only, so those who ask do it by policy_ruling.
 *
 * who: set and identity; high, low: the remote address; what: protocol and port, as in the key.
 */
__noinline __u32 ruling_for(__u64 who, __u64 high, __u64 low, __u64 what)
{
	__u32 set_id = who >> 32, identity = who, class = 0;
	struct dp_policy_entry highest = {};
	struct dp_policy_key key = {
		.prefixlen = DP_POLICY_BITS,
		.set_id = bpf_htonl(set_id),
		.protocol = what >> 16,
		.port = what,
	};
	struct dp_prefix_key prefix = {
		.prefixlen = DP_PREFIX_SET_BITS + 128,
		.set_id = bpf_htonl(set_id),
		.address.word = {high >> 32, high, low >> 32, low},
	};
	struct dp_prefix_entry *found;

	if (!set_id)
		return DP_ACTION_ALLOW;
	if (identity == DP_IDENTITY_UNKNOWN)
		return 0;
	consult(&highest, &key, identity);
	if (identity >= DP_FIRST_IDENTITY)
		consult(&highest, &key, DP_IDENTITY_OTHER_POD);
	found = bpf_map_lookup_elem(&policy_prefixes, &prefix);
	if (found)
		class = identity == DP_IDENTITY_WORLD ? found->outside_class : found->peer_class;
	if (class)
		consult(&highest, &key, class);
	consult(&highest, &key, 0);
	return ruling_of(&highest);
}

static __always_inline __u64 joined(__u32 high, __u32 low)
{
	return (__u64)high << 32 | low;
}

static __always_inline __u32 policy_ruling(__u32 set_id, __u32 identity,
					   const struct dp_address *remote, __u32 protocol,
					   __be16 port)
{
	const __be32 *word = remote->word;

	return ruling_for(joined(set_id, identity), joined(word[0], word[1]),
			  joined(word[2], word[3]), protocol << 16 | port);
}

#endif
