/* SPDX-License-Identifier: Apache-2.0 */
/* What answers on an address and port, and which backend a client is given. */
#ifndef DELTAPLANE_SERVICE_H
#define DELTAPLANE_SERVICE_H

#include "identity.h"

#define NANOSECONDS 1000000000ULL

static __always_inline struct dp_frontend *frontend_at(const struct dp_address *address,
						       __be16 port, __u8 protocol)
{
	struct dp_frontend_key key = {.address = *address, .port = port, .protocol = protocol};

	return bpf_map_lookup_elem(&frontends, &key);
}

/* 0.0.0.0 and ::, which stand for every node in `frontends`; who connects to them means itself. */
static __always_inline bool is_any(const struct dp_address *address)
{
	return !address->word[3] && (is_mapped(address) || is_unspecified(address));
}

/* Of an address and port itself; NULL: none. */
static __always_inline struct dp_frontend *exact_frontend(const struct dp_address *address,
							  __be16 port, __u8 protocol)
{
	return is_any(address) ? NULL : frontend_at(address, port, protocol);
}

/* The port of every node, in the family of an address that the caller knows to be a node's; NULL: none. */
static __always_inline struct dp_frontend *node_port(const struct dp_address *address, __be16 port,
						     __u8 protocol)
{
	struct dp_address any = {};

	if (is_mapped(address))
		map_ipv4(&any, 0);
	return frontend_at(&any, port, protocol);
}

/*
 * For clients inside the cluster: an own frontend of the address, or a port of every node if it is a node's. The
 * question that is rarely answered with yes and costs least comes first: who has the address costs two look-ups.
 */
static __always_inline struct dp_frontend *inside_frontend(const struct dp_address *address,
							   __be16 port, __u8 protocol)
{
	struct dp_frontend *found;
	struct dp_mapping who = {};

	if (is_any(address))
		return NULL;
	found = frontend_at(address, port, protocol);
	if (found)
		return found;
	found = node_port(address, port, protocol);
	if (!found)
		return NULL;
	identify(address, &who);
	return is_node(&who) ? found : NULL;
}

/* Whether a client of this address may use a frontend. */
static __always_inline bool is_source_allowed(const struct dp_frontend *frontend,
					      const struct dp_address *client)
{
	struct dp_source_key key = {
		.prefixlen = 32 + 128,
		.service = bpf_htonl(frontend->service),
		.address = *client,
	};

	return !(frontend->flags & DP_FRONTEND_CHECK_SOURCE) || bpf_map_lookup_elem(&sources, &key);
}

/* False: the place is empty. */
static __always_inline bool backend_in(__u32 list, __u32 slot, struct dp_backend *backend)
{
	struct dp_slot_key key = {.list = list, .slot = slot};
	struct dp_backend *found = bpf_map_lookup_elem(&slots, &key);

	if (!found)
		return false;
	*backend = *found;
	return true;
}

/* Any backend of a list without holes, all alike; count is not 0. */
static __always_inline bool pick_any(__u32 list, __u32 count, struct dp_backend *backend)
{
	return backend_in(list, ((__u64)bpf_get_prandom_u32() * count) >> 32, backend);
}

/* The backend that every node gives to this hash. False: the list has no table, or a hole there. */
static __always_inline bool pick_by_table(__u32 list, __u32 hash, struct dp_backend *backend)
{
	void *table = bpf_map_lookup_elem(&tables, &list);
	struct dp_table_part *part;
	__u32 number = 0;
	__u64 place;

	part = table ? bpf_map_lookup_elem(table, &number) : NULL;
	if (!part)
		return false;
	place = (__u64)hash * part->parts;
	number = place >> 32;
	if (number)
		part = bpf_map_lookup_elem(table, &number);
	if (!part)
		return false;
	place = ((place & 0xffffffff) * DP_TABLE_PART_SLOTS) >> 32;
	/* Else the compiler shifts by 31 and masks, and the verifier sees one byte too many. */
	asm volatile("" : "+r"(place));
	return backend_in(list, part->slots[place], backend);
}

/* Whether a client that has this backend may keep it. */
static __always_inline bool is_member(__u32 list, const struct dp_backend *backend)
{
	struct dp_member_key key = {.list = list, .backend = *backend};

	return bpf_map_lookup_elem(&members, &key);
}

/* The backend that a client was given less than `seconds` ago, if it is still a member; counts as use. */
static __always_inline bool recall(const struct dp_affinity_key *client, __u32 seconds,
				   struct dp_backend *backend)
{
	struct dp_affinity *found = bpf_map_lookup_elem(&affinities, client);
	__u64 now = bpf_ktime_get_boot_ns();

	/* Signed: another processor may have used it after our clock was read. */
	if (!found || (__s64)(now - found->last_used) >= (__s64)(seconds * NANOSECONDS) ||
	    !is_member(client->list, &found->backend))
		return false;
	*backend = found->backend;
	found->last_used = now;
	return true;
}

static __always_inline void remember_choice(const struct dp_affinity_key *client,
					    const struct dp_backend *backend)
{
	struct dp_affinity value = {.last_used = bpf_ktime_get_boot_ns(), .backend = *backend};

	bpf_map_update_elem(&affinities, client, &value, BPF_ANY);
}

static __always_inline void count_choice(const struct dp_frontend *frontend, bool given)
{
	struct dp_service_count first = {.given = given, .refused = !given};
	__u32 service = frontend->service;
	struct dp_service_count *found = bpf_map_lookup_elem(&service_counts, &service);

	if (!found)
		bpf_map_update_elem(&service_counts, &service, &first, BPF_NOEXIST);
	else
		__sync_fetch_and_add(given ? &found->given : &found->refused, 1);
}

/* The affinity of a client inside the cluster, else any. */
static __always_inline bool pick_inside(const struct dp_frontend *frontend,
					struct dp_affinity_key *client, struct dp_backend *backend)
{
	client->list = frontend->list;
	if (!frontend->inside_count)
		return false;
	if (frontend->affinity && recall(client, frontend->affinity, backend))
		return true;
	if (!pick_any(frontend->list, frontend->inside_count, backend))
		return false;
	if (frontend->affinity)
		remember_choice(client, backend);
	return true;
}

/* The affinity of a client outside, else what the table says of the hash. */
static __always_inline bool pick_outside(const struct dp_frontend *frontend,
					 struct dp_affinity_key *client, __u32 hash,
					 struct dp_backend *backend)
{
	client->list = frontend->outside_list;
	if (!frontend->outside_count)
		return false;
	if (frontend->affinity && recall(client, frontend->affinity, backend))
		return true;
	if (!pick_by_table(frontend->outside_list, hash, backend))
		return false;
	if (frontend->affinity)
		remember_choice(client, backend);
	return true;
}

/* For a client inside the cluster. Sets client.list. False: nobody answers. */
static __always_inline bool choose_inside(const struct dp_frontend *frontend,
					  struct dp_affinity_key *client,
					  struct dp_backend *backend)
{
	bool given = pick_inside(frontend, client, backend);

	count_choice(frontend, given);
	return given;
}

/* For a client outside, of whom the hash is everything that should lead to the same backend. The same otherwise. */
static __always_inline bool choose_outside(const struct dp_frontend *frontend,
					   struct dp_affinity_key *client, __u32 hash,
					   struct dp_backend *backend)
{
	bool given = pick_outside(frontend, client, hash, backend);

	count_choice(frontend, given);
	return given;
}

#endif
