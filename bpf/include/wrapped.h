/* SPDX-License-Identifier: Apache-2.0 */
/* What has come wrapped: who wrapped it. */
#ifndef DELTAPLANE_WRAPPED_H
#define DELTAPLANE_WRAPPED_H

#include "deliver.h"

/* The node that wrapped the packet, by its outer source; 0: no other node, or not with this network identifier. */
static __always_inline __u32 sender(struct __sk_buff *skb, __u32 vni)
{
	struct bpf_tunnel_key key = {};
	struct dp_mapping who = {};
	struct dp_address outer;

	if (!bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_SIZE, 0))
		map_ipv4(&outer, bpf_htonl(key.remote_ipv4));
	else if (!bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_SIZE, BPF_F_TUNINFO_IPV6))
		__builtin_memcpy(&outer, key.remote_ipv6, 16);
	else
		return 0;
	if (key.tunnel_id != vni)
		return 0;
	identify(&outer, &who);
	return who.identity == DP_IDENTITY_REMOTE_NODE && is_elsewhere(&who) ? who.node_index : 0;
}

#endif
