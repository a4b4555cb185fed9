/* SPDX-License-Identifier: Apache-2.0 */
/* What a policy set says; nodeagent/policy.py has the twin of it in Python. */
#ifndef DELTAPLANE_POLICY_H
#define DELTAPLANE_POLICY_H

#include "maps.h"
#include "packet.h"

/*
 * Precedence:
 * 1. no set: the subject is not isolated, allowed
 * 2. the longest entry for the peer's identity
 * 3. the longest entry for the class of the longest prefix that holds the remote address
 * 4. the longest entry for every peer
 * 5. denied
 */
static __noinline enum dp_verdict policy_verdict(__u32 set_id, __u32 identity,
						 const struct dp_address *remote, __u32 protocol,
						 __be16 port)
{
	struct dp_policy_key key = {
		.prefixlen = DP_POLICY_BITS,
		.set_id = bpf_htonl(set_id),
		.peer = bpf_htonl(identity),
		.protocol = protocol,
		.port = port,
	};
	struct dp_prefix_key prefix = {
		.prefixlen = DP_PREFIX_SET_BITS + 128,
		.set_id = bpf_htonl(set_id),
		.address = *remote,
	};
	struct dp_policy_entry *entry;
	struct dp_prefix_entry *class;

	if (!set_id)
		return DP_VERDICT_ALLOW;
	entry = bpf_map_lookup_elem(&policy_entries, &key);
	if (entry)
		return entry->verdict;
	class = bpf_map_lookup_elem(&policy_prefixes, &prefix);
	if (class && class->peer_class) {
		key.peer = bpf_htonl(class->peer_class);
		entry = bpf_map_lookup_elem(&policy_entries, &key);
		if (entry)
			return entry->verdict;
	}
	key.peer = 0;
	entry = bpf_map_lookup_elem(&policy_entries, &key);
	return entry ? entry->verdict : DP_VERDICT_DENY;
}

#endif
