/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All maps. Every object declares all of them; the loader pins them by name, so that programs share them and
 * they outlive the agent. Capacities are set again by the loader.
 */
#ifndef DELTAPLANE_MAPS_H
#define DELTAPLANE_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

/* Constants for the verifier: branches on them are pruned when the program is loaded. Never pinned. */
const volatile struct dp_config config SEC(".rodata.config") = {};

/* Without preallocation a map costs what it holds. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DP_MAX_MAPPINGS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_address);
	__type(value, struct dp_mapping);
} mappings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DP_MAX_RANGES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_range_key);
	__type(value, struct dp_mapping);
} ranges SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DP_MAX_NODES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct dp_node);
} nodes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DP_MAX_ENTRIES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_policy_key);
	__type(value, struct dp_policy_entry);
} policy_entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DP_MAX_PREFIXES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_prefix_key);
	__type(value, struct dp_prefix_entry);
} policy_prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DP_MAX_SUBJECTS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct dp_subject);
} subjects SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DP_MAX_ENDPOINTS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct dp_endpoint);
} endpoints SEC(".maps");

/* Twice the endpoints: one entry per family. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * DP_MAX_ENDPOINTS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_address);
	__type(value, struct dp_endpoint);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DP_MAX_CONNECTIONS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_connection_key);
	__type(value, struct dp_connection);
} connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DP_MAX_FRAGMENTS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_fragment_key);
	__type(value, struct dp_fragment);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DP_MAX_DENIALS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_denial_key);
	__type(value, struct dp_denial);
} denials SEC(".maps");

/* Written once per connection: not worth a value per processor. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DP_MAX_RULES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_rule_key);
	__type(value, struct dp_rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DP_MAX_FRONTENDS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_frontend_key);
	__type(value, struct dp_frontend);
} frontends SEC(".maps");

/* Written once per connection, like `rules`. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DP_MAX_SERVICES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct dp_service_count);
} service_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DP_MAX_SLOTS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_slot_key);
	__type(value, struct dp_backend);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DP_MAX_MEMBERS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_member_key);
	__type(value, __u32);
} members SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DP_MAX_SOURCES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_source_key);
	__type(value, __u32);
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DP_MAX_AFFINITIES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_affinity_key);
	__type(value, struct dp_affinity);
} affinities SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DP_MAX_SOCKETS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_socket_key);
	__type(value, struct dp_socket);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DP_MAX_TRANSLATIONS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct dp_translation_key);
	__type(value, struct dp_translation);
} translations SEC(".maps");

/*
 * 1: a frontend has, or had, a port with this remainder. Marked before the frontend is written, never unmarked: what is
 * for another port pays for no look-up in tables that have nothing of it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DP_PORT_MARKS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u32);
} frontend_ports SEC(".maps");

/* The same of the ports of backends that have asked for themselves; the programs mark them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DP_PORT_MARKS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u32);
} itself_ports SEC(".maps");

/* Of one list, in parts; how many depends on its backends, which is what the flag is for. */
struct dp_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	/* A type of its own would be known by name only to the programs that use none of its fields. */
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct dp_table_part));
};

/* By list. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DP_MAX_TABLES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__array(values, struct dp_table);
} tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DP_OUTCOME_COUNT);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct dp_count);
} outcomes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct dp_settings);
} settings SEC(".maps");

/* Only the agent reads and writes it; it lies here to live and die with the state that it describes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct dp_applied);
} applied SEC(".maps");

#endif
