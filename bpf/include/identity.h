/* SPDX-License-Identifier: Apache-2.0 */
/* Who has an address. */
#ifndef DELTAPLANE_IDENTITY_H
#define DELTAPLANE_IDENTITY_H

#include "maps.h"
#include "packet.h"

/* Volatile up to here: the compiler must not take the zeros for the value that the loader will put in. */
static __always_inline struct dp_address read_constant(const volatile struct dp_address *constant)
{
	return (struct dp_address){
		{constant->word[0], constant->word[1], constant->word[2], constant->word[3]}};
}

static __always_inline bool is_set(const volatile struct dp_address *constant)
{
	struct dp_address own = read_constant(constant);

	return !is_unspecified(&own);
}

static __always_inline bool is_configured(const struct dp_address *address,
					  const volatile struct dp_address *constant)
{
	struct dp_address own = read_constant(constant);

	return !is_unspecified(&own) && same_address(address, &own);
}

/*
 * Precedence:
 * 1. the address has a mapping
 * 2. it is this node's own (before the node is registered it has no mapping)
 * 3. it lies in a range: a block of addresses that some node owns
 * 4. it is somewhere in the world
 */
static __noinline int identify(const struct dp_address *address, struct dp_mapping *who)
{
	struct dp_range_key key = {.prefixlen = 128};
	struct dp_mapping *found;

	found = bpf_map_lookup_elem(&mappings, address);
	if (found) {
		*who = *found;
		return 0;
	}
	who->node_index = 0;
	if (is_configured(address, &config.node_ipv4) ||
	    is_configured(address, &config.node_ipv6)) {
		who->identity = DP_IDENTITY_HOST;
		return 0;
	}
	key.address = *address;
	found = bpf_map_lookup_elem(&ranges, &key);
	if (found) {
		*who = *found;
		return 0;
	}
	who->identity = DP_IDENTITY_WORLD;
	return 0;
}

/* A node, not one of its pods; an address of a node that no mapping names is the world's. */
static __always_inline bool is_node(const struct dp_mapping *who)
{
	return who->identity == DP_IDENTITY_REMOTE_NODE || who->identity == DP_IDENTITY_HOST;
}

static __always_inline __u32 own_node_index(void)
{
	__u32 zero = 0;
	struct dp_settings *s = bpf_map_lookup_elem(&settings, &zero);

	return s ? s->node_index : 0;
}

/* On this node, according to its mapping or its block. */
static __always_inline bool is_here(const struct dp_mapping *who)
{
	return who->identity == DP_IDENTITY_HOST ||
	       (who->node_index && who->node_index == own_node_index());
}

/* On another node, according to its mapping or its block. */
static __always_inline bool is_elsewhere(const struct dp_mapping *who)
{
	return who->node_index && who->node_index != own_node_index();
}

#endif
