/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct return: the node that a client outside has asked hands its packets over, untouched, to the node of the backend,
 * which goes on as if it had been asked itself, and answers. Each packet names the backend: that node neither has to
 * agree about the choice nor to remember it.
 *
 * The name of an IPv4 backend takes the place of the inner frame's addresses, which are nobody's. That of an IPv6
 * backend is too long for them: it lies in a destination options header in front of all others. No router sees it.
 */
#ifndef DELTAPLANE_NAMED_H
#define DELTAPLANE_NAMED_H

#include "balance.h"

/* RFC 4727: for experiments; who does not know it skips it. */
#define NAME_OPTION 0x1e

/* Locally administered addresses of one host each. */
struct name_ipv4 {
	__u8 to[2];
	__be32 address;
	__u8 from[4];
	__be16 port;
} __attribute__((packed));
_Static_assert(sizeof(struct name_ipv4) == 2 * ETH_ALEN, "name_ipv4");

struct name_ipv6 {
	__u8 next_header;
	__u8 length;
	__u8 option;
	__u8 option_length;
	__be16 reserved;
	__be16 port;
	struct dp_address address;
};
_Static_assert(sizeof(struct name_ipv6) == DP_DIRECT_NAME_IPV6, "name_ipv6");

/* What of an IPv6 header depends on what is behind it. */
struct behind_ipv6 {
	__be16 length;
	__u8 next_header;
	__u8 reserved;
};

#define BEHIND_IPV6	 (ETH_HLEN + offsetof(struct ipv6hdr, payload_len))
#define BEHIND_IPV6_SIZE 3

/* What the card has summed is told of the difference; segments keep their size. */
#define KEEP_SUMS (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET)

#endif
