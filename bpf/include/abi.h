/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that the kernel and the agent share: map keys and values, numbers, capacities.
 *
 * tools/generate_abi.py turns this file into nodeagent/dataplane/abi.py and understands only what is used
 * here: one declaration a line, no implicit padding, a size assertion after every struct, a comment before it.
 * Any change of a layout or of the meaning of a field raises DP_SCHEMA_VERSION: pinned maps of another version
 * are never adopted.
 */
#ifndef DELTAPLANE_ABI_H
#define DELTAPLANE_ABI_H

#include <linux/types.h>

/* Pins lie in <pin directory>/v<version>. */
#define DP_SCHEMA_VERSION 6
/* Longest entry key in bits: set, peer, protocol, port; and the part that names set and peer only. */
#define DP_POLICY_BITS	     88
#define DP_POLICY_PEER_BITS  64
#define DP_POLICY_PROTO_BITS 72
/* Bits of a prefix key in front of the address. */
#define DP_PREFIX_SET_BITS 32
/* Numbers from here on stand for labels; smaller ones are enum dp_identity. */
#define DP_FIRST_IDENTITY 256
/* Peers with this bit are classes of prefixes, local to one policy set. */
#define DP_PEER_CLASS 0x80000000
/* A decision is order << 2 | enum dp_action, 0: none; a ruling is enum dp_tier << 30 | decision, 0: nobody decided. */
#define DP_DECISION_ACTION 3
#define DP_DECISION_ORDER  2
#define DP_RULING_TIER	   30

/* Of every packet in the tunnel. One number: who is who stands in the map, not in the packet. */
#define DP_TUNNEL_VNI 1
/* What VXLAN adds to an IP packet, bytes: inner Ethernet, VXLAN and UDP (30), and the outer header. */
#define DP_TUNNEL_OVERHEAD_IPV4 50
#define DP_TUNNEL_OVERHEAD_IPV6 70
/* Of what is handed over to the node of a backend, and what names an IPv6 backend in it, bytes: a header of its own. */
#define DP_DIRECT_VNI	    2
#define DP_DIRECT_NAME_IPV6 24

/* Default capacities of the maps, entries; the agent may ask for others. */
#define DP_MAX_MAPPINGS	    262144
#define DP_MAX_RANGES	    65536
#define DP_MAX_NODES	    16384
#define DP_MAX_ENTRIES	    262144
#define DP_MAX_PREFIXES	    65536
#define DP_MAX_SUBJECTS	    65536
#define DP_MAX_ENDPOINTS    4096
#define DP_MAX_CONNECTIONS  131072
#define DP_MAX_FRAGMENTS    8192
#define DP_MAX_DENIALS	    8192
#define DP_MAX_RULES	    65536
#define DP_MAX_SERVICES	    16384
#define DP_MAX_FRONTENDS    65536
#define DP_MAX_SLOTS	    262144
#define DP_MAX_MEMBERS	    262144
#define DP_MAX_TABLES	    4096
#define DP_MAX_SOURCES	    16384
#define DP_MAX_AFFINITIES   65536
#define DP_MAX_SOCKETS	    65536
#define DP_MAX_TRANSLATIONS 131072

/* Entries of `frontend_ports` and `itself_ports`: a port stands for all that leave the same remainder. */
#define DP_PORT_MARKS 8192
/* Entries of a part of a consistent-hash table: with their head they fill 48 KiB. */
#define DP_TABLE_PART_SLOTS 24574
/* Ports that a node takes in its own name for what it forwards from outside, first and last; no socket gets them unasked. */
#define DP_FORWARD_PORT_FIRST 61000
#define DP_FORWARD_PORT_LAST  65535

/* Identities that are not made of labels. */
enum dp_identity {
	DP_IDENTITY_NONE = 0,
	DP_IDENTITY_HOST = 1,
	DP_IDENTITY_WORLD = 2,
	DP_IDENTITY_OTHER_POD = 3,
	DP_IDENTITY_UNKNOWN = 4,
	DP_IDENTITY_INIT = 5,
	DP_IDENTITY_HEALTH = 6,
	DP_IDENTITY_REMOTE_NODE = 7,
	DP_IDENTITY_KUBE_APISERVER = 8,
};

/* What becomes of a packet. */
enum dp_verdict {
	DP_VERDICT_DENY = 0,
	DP_VERDICT_ALLOW = 1,
};

/* What a rule says. */
enum dp_action {
	DP_ACTION_ALLOW = 1,
	DP_ACTION_DENY = 2,
	DP_ACTION_PASS = 3,
};

/* Tiers in the order in which they are asked. */
enum dp_tier {
	DP_TIER_ADMIN = 1,
	DP_TIER_NORMAL = 2,
	DP_TIER_BASELINE = 3,
};

/* Whose policy judged a connection: the source's egress or the destination's ingress. */
enum dp_side {
	DP_SIDE_EGRESS = 0,
	DP_SIDE_INGRESS = 1,
};

/* What one direction of a connection has shown: bits of dp_connection.original and .reply. */
enum dp_shown {
	DP_SHOWN_PACKET = 1,
	DP_SHOWN_FIN = 2,
	DP_SHOWN_RESET = 4,
};

/*
 * How a packet left a program. Each has one counter; DP_DROP_*: it did not go on. *_SOCKET_*: no packet but a
 * connection or a datagram of a socket that asked for a service; their bytes are not counted.
 */
enum dp_outcome {
	DP_PASS_LOCAL = 0,
	DP_PASS_REMOTE = 1,
	DP_PASS_STACK = 2,
	DP_PASS_TO_POD = 3,
	DP_PASS_FROM_HOST = 4,
	DP_PASS_NEIGHBOUR = 5,
	DP_PASS_NOT_FOR_POD = 6,
	DP_PASS_TTL_EXPIRED = 7,
	DP_PASS_TOO_BIG = 8,
	DP_PASS_NO_NEXT_HOP = 9,
	DP_DROP_MALFORMED = 10,
	DP_DROP_UNSUPPORTED = 11,
	DP_DROP_SPOOFED = 12,
	DP_DROP_LINK_SCOPE = 13,
	DP_DROP_FRAGMENT = 14,
	DP_DROP_NO_ENDPOINT = 15,
	DP_DROP_CLOSED = 16,
	DP_DROP_EGRESS_POLICY = 17,
	DP_DROP_INGRESS_POLICY = 18,
	DP_DROP_REWRITE_FAILED = 19,
	DP_DROP_TUNNEL_SENDER = 20,
	DP_DROP_NOT_HERE = 21,
	DP_DROP_TOO_BIG = 22,
	DP_PASS_SOCKET_SERVICE = 23,
	DP_PASS_SOCKET_REPLY = 24,
	DP_DROP_SOCKET_NO_BACKEND = 25,
	DP_PASS_OUTSIDE = 26,
	DP_DROP_NO_BACKEND = 27,
	DP_DROP_SOURCE_RANGE = 28,
	DP_DROP_NO_PORT = 29,
	DP_OUTCOME_COUNT = 30,
};

/* An address, network byte order; IPv4 as ::ffff:a.b.c.d. */
struct dp_address {
	__be32 word[4];
};
_Static_assert(sizeof(struct dp_address) == 16, "dp_address");

/*
 * Constants of a loaded program, in .rodata.config. uplink_mtu: bytes, 0: not checked; tunnel_ifindex: 0: native
 * routing; tick_ns: length of a tick (jiffy); first_tick: their number at boot; addresses: zeros: none. refusal: errno
 * of a socket whose service nobody answers for, 0: the kernel's own, EPERM. netns_cookie: of the node's own network
 * namespace, 0: it is the first one of the machine. direct_ifindex: link by which nodes hand over packets of clients
 * outside, 0: none; hands_over: this node does so, else it only takes them.
 */
struct dp_config {
	__u32 uplink_ifindex;
	__u32 uplink_mtu;
	__u32 tunnel_ifindex;
	__u32 tick_ns;
	__u32 first_tick;
	struct dp_address node_ipv4;
	struct dp_address node_ipv6;
	__u32 refusal;
	__u64 netns_cookie;
	__u32 direct_ifindex;
	__u32 hands_over;
};
_Static_assert(sizeof(struct dp_config) == 72, "dp_config");

/* What changes while programs run: map `settings`, key 0. node_index: 0: not registered yet. */
struct dp_settings {
	__u32 node_index;
};
_Static_assert(sizeof(struct dp_settings) == 4, "dp_settings");

/* Who has an address: value of `mappings` (by dp_address) and of `ranges`. node_index: 0: no node. */
struct dp_mapping {
	__u32 identity;
	__u32 node_index;
};
_Static_assert(sizeof(struct dp_mapping) == 8, "dp_mapping");

/* Key of `ranges`, longest match. prefixlen: bits of address. */
struct dp_range_key {
	__u32 prefixlen;
	struct dp_address address;
};
_Static_assert(sizeof(struct dp_range_key) == 20, "dp_range_key");

/* Uplink addresses of a node: value of `nodes` (by node index). */
struct dp_node {
	struct dp_address ipv6;
	__be32 ipv4;
	__u8 has_ipv4;
	__u8 has_ipv6;
	__u16 reserved;
};
_Static_assert(sizeof(struct dp_node) == 24, "dp_node");

/* Key of `policy_entries`, longest match: what of protocol and port counts is in prefixlen. */
struct dp_policy_key {
	__u32 prefixlen;
	__be32 set_id;
	__be32 peer;
	__u8 protocol;
	__be16 port;
} __attribute__((packed));
_Static_assert(sizeof(struct dp_policy_key) == 15, "dp_policy_key");

/* Value of `policy_entries`: a decision per tier. Of all entries that match, the highest of its tier counts. */
struct dp_policy_entry {
	__u32 admin;
	__u32 normal;
	__u32 baseline;
};
_Static_assert(sizeof(struct dp_policy_entry) == 12, "dp_policy_entry");

/* Key of `policy_prefixes`, longest match. prefixlen: 32 + bits of address. */
struct dp_prefix_key {
	__u32 prefixlen;
	__be32 set_id;
	struct dp_address address;
};
_Static_assert(sizeof(struct dp_prefix_key) == 24, "dp_prefix_key");

/*
 * Value of `policy_prefixes`. outside_class: of an address of the world, peer_class: of any other. 0: none, a hole
 * in a wider prefix.
 */
struct dp_prefix_entry {
	__u32 peer_class;
	__u32 outside_class;
};
_Static_assert(sizeof(struct dp_prefix_entry) == 8, "dp_prefix_entry");

/*
 * Policy sets in force: value of `subjects` (by identity). Set 0: everything is allowed in that direction. What
 * passes is put to the audit set, too, if there is one, and counted if that denies it.
 */
struct dp_subject {
	__u32 ingress_set;
	__u32 egress_set;
	__u32 audit_ingress_set;
	__u32 audit_egress_set;
	__u32 epoch;
};
_Static_assert(sizeof(struct dp_subject) == 20, "dp_subject");

/* A pod interface: value of `endpoints` (by ifindex) and of `addresses` (by dp_address). Zeros: no address. */
struct dp_endpoint {
	__u32 ifindex;
	__u32 endpoint_id;
	__u32 identity;
	struct dp_address ipv4;
	struct dp_address ipv6;
	__u8 pod_mac[6];
	__u8 host_mac[6];
};
_Static_assert(sizeof(struct dp_endpoint) == 56, "dp_endpoint");

/*
 * Key of `connections`: the original direction. ICMP echo: the port of the asking side is the identifier, that of
 * the other the type of the request.
 */
struct dp_connection_key {
	struct dp_address saddr;
	struct dp_address daddr;
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 side;
	__u16 reserved;
};
_Static_assert(sizeof(struct dp_connection_key) == 40, "dp_connection_key");

/*
 * Value of `connections`: who was judged, by which epoch. last_seen: boot time, ns, 100 ms late at most,
 * without suspension. original, reply: enum dp_shown, a byte per direction, so that two processors do not undo
 * each other's write. from_host: begun by this node's own stack, whatever the policy said. translated: its packets,
 * or some of them, asked for a frontend: replies are looked for in `translations`.
 */
struct dp_connection {
	__u64 last_seen;
	__u64 packets;
	__u32 subject;
	__u32 peer;
	__u32 epoch;
	__u8 original;
	__u8 reply;
	__u8 from_host;
	__u8 translated;
};
_Static_assert(sizeof(struct dp_connection) == 32, "dp_connection");

/* Key of `fragments`: packets of one datagram. */
struct dp_fragment_key {
	struct dp_address saddr;
	struct dp_address daddr;
	__u32 id;
	__u32 protocol;
};
_Static_assert(sizeof(struct dp_fragment_key) == 40, "dp_fragment_key");

/* Value of `fragments`: ports of the first one. policy_port: what a policy takes for one. */
struct dp_fragment {
	__be16 sport;
	__be16 dport;
	__be16 policy_port;
	__u16 reserved;
};
_Static_assert(sizeof(struct dp_fragment) == 8, "dp_fragment");

/* Bits of dp_denial_key.flags. Audit: it passed, but a policy under audit denies it. */
enum dp_denial_flag {
	DP_DENIAL_INGRESS = 1,
	DP_DENIAL_AUDIT = 2,
};

/*
 * Key of `denials`. subject: 0: closed endpoint without identity; port: of the destination or type of an ICMP
 * message, 0: none.
 */
struct dp_denial_key {
	__u32 subject;
	__u32 peer;
	__be16 port;
	__u8 protocol;
	__u8 flags;
};
_Static_assert(sizeof(struct dp_denial_key) == 12, "dp_denial_key");

/* Value of `denials`. last_seen: boot time, ns. */
struct dp_denial {
	__u64 packets;
	__u64 last_seen;
};
_Static_assert(sizeof(struct dp_denial) == 16, "dp_denial");

/* Key of `rules`: what a set said. */
struct dp_rule_key {
	__u32 set_id;
	__u32 ruling;
};
_Static_assert(sizeof(struct dp_rule_key) == 8, "dp_rule_key");

/* Value of `rules`. hits: first packets of connections, and denied packets; of an audit set only what it denies. */
struct dp_rule {
	__u64 hits;
};
_Static_assert(sizeof(struct dp_rule) == 8, "dp_rule");

/* Value of `outcomes` (by enum dp_outcome), one per CPU. */
struct dp_count {
	__u64 packets;
	__u64 octets;
};
_Static_assert(sizeof(struct dp_count) == 16, "dp_count");

/*
 * Bits of dp_frontend.flags. CHECK_SOURCE: clients, pods included, must lie in a range of `sources`. LOCAL: what
 * comes from outside stays on this node and keeps its source.
 */
enum dp_frontend_flag {
	DP_FRONTEND_CHECK_SOURCE = 1,
	DP_FRONTEND_LOCAL = 2,
};

/*
 * Key of `frontends`. address: the unspecified one of its family (::ffff:0.0.0.0 or ::): a port of every node:
 * matches when the destination is a node's own address of that family.
 */
struct dp_frontend_key {
	struct dp_address address;
	__be16 port;
	__u8 protocol;
	__u8 reserved;
};
_Static_assert(sizeof(struct dp_frontend_key) == 20, "dp_frontend_key");

/*
 * Value of `frontends`. list, inside_count: the first slots of that list are for clients inside the cluster; 0: nobody
 * answers, the connection is refused. outside_list, outside_count: the same for clients outside, whose slots are
 * chosen by the table of that list and may have holes; outside_list 0: no frontend for them; outside_count 0: nobody
 * answers. affinity: seconds for which a client keeps its backend, 0: none. service: its number.
 */
struct dp_frontend {
	__u32 service;
	__u32 list;
	__u32 inside_count;
	__u32 outside_list;
	__u32 outside_count;
	__u32 affinity;
	__u32 flags;
};
_Static_assert(sizeof(struct dp_frontend) == 28, "dp_frontend");

/*
 * Of the tables in `tables`, which have as many as each of them says. A hash leads to part (hash * parts) >> 32, and
 * the rest of that product, likewise, to one of its slots.
 */
struct dp_table_part {
	__u32 parts;
	__u16 slots[24574];
};
_Static_assert(sizeof(struct dp_table_part) == 49152, "dp_table_part");

/*
 * Value of `service_counts` (by number of the service). given: how often a client was given a backend: connections, and
 * the first of datagrams that belong together. refused: how often there was none.
 */
struct dp_service_count {
	__u64 given;
	__u64 refused;
};
_Static_assert(sizeof(struct dp_service_count) == 16, "dp_service_count");

/* Key of `slots`: a place in a list. Lists are numbered by the agent, one per service port, family and scope. */
struct dp_slot_key {
	__u32 list;
	__u32 slot;
};
_Static_assert(sizeof(struct dp_slot_key) == 8, "dp_slot_key");

/* Value of `slots`: a backend. */
struct dp_backend {
	struct dp_address address;
	__be16 port;
	__u16 reserved;
};
_Static_assert(sizeof(struct dp_backend) == 20, "dp_backend");

/*
 * Key of `members`, value 1: this backend may still be given to a client that had it: of lists with affinity, and of
 * those of UDP and SCTP.
 */
struct dp_member_key {
	__u32 list;
	struct dp_backend backend;
};
_Static_assert(sizeof(struct dp_member_key) == 24, "dp_member_key");

/* Key of `sources`, longest match: who may use a frontend with DP_FRONTEND_CHECK_SOURCE. prefixlen: 32 + bits. */
struct dp_source_key {
	__u32 prefixlen;
	__be32 service;
	struct dp_address address;
};
_Static_assert(sizeof(struct dp_source_key) == 24, "dp_source_key");

/*
 * Key of `affinities`. client: address of a client outside or of a pod seen packet by packet; for sockets zeros, and
 * netns: the cookie of the namespace.
 */
struct dp_affinity_key {
	__u64 netns;
	struct dp_address client;
	__u32 list;
	__u32 reserved;
};
_Static_assert(sizeof(struct dp_affinity_key) == 32, "dp_affinity_key");

/* Value of `affinities`. last_used: boot time, ns. */
struct dp_affinity {
	__u64 last_used;
	struct dp_backend backend;
	__u32 reserved;
};
_Static_assert(sizeof(struct dp_affinity) == 32, "dp_affinity");

/* Which way what was translated goes: from the client to the frontend, or from the backend back. */
enum dp_leg {
	DP_LEG_FORWARD = 0,
	DP_LEG_BACK = 1,
};

/*
 * Key of `sockets`. place: leg forward: the frontend that the program asked for; leg back: the backend that the socket
 * really talks to.
 */
struct dp_socket_key {
	__u64 cookie;
	struct dp_backend place;
	__u8 protocol;
	__u8 leg;
	__u16 reserved;
};
_Static_assert(sizeof(struct dp_socket_key) == 32, "dp_socket_key");

/* Value of `sockets`. place: the other one. list: where the backend was taken from. */
struct dp_socket {
	struct dp_backend place;
	__u32 list;
};
_Static_assert(sizeof(struct dp_socket) == 24, "dp_socket");

/*
 * How an entry of `translations` takes part in direct return. OVER: packets go on to the node of the backend, and
 * answers do not come by here. TAKEN: another node has chosen the backend.
 */
enum dp_handed {
	DP_HANDED_OVER = 1,
	DP_HANDED_TAKEN = 2,
};

/* Key of `translations`: a packet as it comes in. */
struct dp_translation_key {
	struct dp_address saddr;
	struct dp_address daddr;
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 leg;
	__u16 reserved;
};
_Static_assert(sizeof(struct dp_translation_key) == 40, "dp_translation_key");

/*
 * Value of `translations`: the packet as it goes on. last_seen: boot time, ns. list: where the backend was taken from;
 * forward leg only, 0: another node's. shown, answered: enum dp_shown of this leg and of the other. outside: the client is
 * outside the cluster. handed: enum dp_handed, 0: in neither way. service: its number.
 */
struct dp_translation {
	__u64 last_seen;
	struct dp_address saddr;
	struct dp_address daddr;
	__be16 sport;
	__be16 dport;
	__u32 list;
	__u8 shown;
	__u8 outside;
	__u8 answered;
	__u8 handed;
	__u32 service;
};
_Static_assert(sizeof(struct dp_translation) == 56, "dp_translation");

/* What the state in the maps stems from: map `applied`, key 0. */
struct dp_applied {
	__u8 lineage[16];
	__u64 revision;
};
_Static_assert(sizeof(struct dp_applied) == 24, "dp_applied");

#endif
