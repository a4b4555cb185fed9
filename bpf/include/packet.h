/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a frame to a packet: addresses, ports, and what is special about it. Both families give the same struct.
 *
 * The IP header is read where it lies if that is the packet's linear part, as it nearly always is. All else goes
 * through bpf_skb_load_bytes: it also reaches what lies in pages, and the verifier needs no bounds.
 */
#ifndef DELTAPLANE_PACKET_H
#define DELTAPLANE_PACKET_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

#define PROTOCOL_SCTP 132
/* More headers than this in a row no honest sender makes. */
#define MAX_EXTENSIONS 6
/* RFC 4861 section 6.1: neighbour discovery that was routed does not count. */
#define ND_HOP_LIMIT 255
#define MAPPED_WORD  bpf_htonl(0xffff)

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV4_MORE_FRAGMENTS  0x2000

enum packet_flag {
	PACKET_IPV6 = 1,
	/* A fragment; PACKET_NOT_FIRST: one without ports. */
	PACKET_FRAGMENT = 2,
	PACKET_NOT_FIRST = 4,
	/* quoted holds the connection that an ICMP error is about. */
	PACKET_ICMP_ERROR = 8,
	/* May begin a connection: what else has no entry passes by policy alone and leaves none. */
	PACKET_STARTS = 16,
	/* Router advertisement or redirect. */
	PACKET_FROM_ROUTER = 32,
	/* ICMP that is neither asked nor answered: its ports, zeros, name no connection. */
	PACKET_STATELESS = 64,
	/* Asked for a frontend; tuple is that of the backend. */
	PACKET_TRANSLATED = 128,
};

/*
 * tuple.side is 0; quoted is turned round: the direction in which the ICMP error travels. policy_port: what a
 * policy takes for the port, the destination's or the type of an ICMP message. quoted_l4: offset of what is behind the
 * quoted IP header.
 */
struct packet {
	struct dp_connection_key tuple;
	struct dp_connection_key quoted;
	__u32 fragment_id;
	__u32 l4_offset;
	__u32 l4_length;
	__u32 quoted_l4;
	__u8 flags;
	__u8 tcp_flags;
	__u8 hop_limit;
	__u8 reserved;
	__be16 policy_port;
	/* Of the IPv4 header. */
	__sum16 checksum;
} __attribute__((aligned(8)));

enum parsed {
	PARSED = 0,
	PARSED_NEIGHBOUR,
	PARSED_MALFORMED,
	PARSED_UNSUPPORTED,
};

struct l4_place {
	__u32 offset;
	__u32 fragment_id;
	__u8 protocol;
	__u8 flags;
};

static __always_inline void map_ipv4(struct dp_address *to, __be32 address)
{
	to->word[0] = 0;
	to->word[1] = 0;
	to->word[2] = MAPPED_WORD;
	to->word[3] = address;
}

static __always_inline bool same_address(const struct dp_address *a, const struct dp_address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

static __always_inline bool is_unspecified(const struct dp_address *a)
{
	return !(a->word[0] | a->word[1] | a->word[2] | a->word[3]);
}

/* An IPv6 packet must not carry what stands for an IPv4 address in our maps. */
static __always_inline bool is_mapped(const struct dp_address *a)
{
	return !a->word[0] && !a->word[1] && a->word[2] == MAPPED_WORD;
}

/* ff00::/8 and fe80::/10; for IPv4 224.0.0.0/4 and above. 169.254.0.0/16 is routed: clouds answer there. */
static __always_inline bool is_link_scope(const struct dp_address *a)
{
	if (is_mapped(a))
		return bpf_ntohl(a->word[3]) >= 0xe0000000;
	return (a->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000) ||
	       (a->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* Walks the extension headers from place->offset on; place->protocol is what comes first. */
static __noinline enum parsed skip_extensions(struct __sk_buff *skb, struct l4_place *place)
{
	__u32 offset = place->offset;
	__u8 header[8], protocol = place->protocol;

#pragma unroll
	for (int i = 0; i <= MAX_EXTENSIONS; i++) {
		switch (protocol) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_FRAGMENT:
		case IPPROTO_AH:
			break;
		default:
			place->offset = offset;
			place->protocol = protocol;
			return PARSED;
		}
		if (i == MAX_EXTENSIONS || bpf_skb_load_bytes(skb, offset, header, sizeof(header)))
			break;
		if (protocol == IPPROTO_FRAGMENT) {
			__be16 position = *(__be16 *)&header[2];

			__builtin_memcpy(&place->fragment_id, &header[4], 4);
			/* All ones but the two reserved bits; zero is a whole packet (RFC 6946). */
			if (position & bpf_htons(0xfff9))
				place->flags |= PACKET_FRAGMENT;
			if (position & bpf_htons(0xfff8)) {
				place->flags |= PACKET_NOT_FIRST;
				place->offset = offset + 8;
				place->protocol = header[0];
				return PARSED;
			}
			offset += 8;
		} else if (protocol == IPPROTO_AH) {
			offset += (header[1] + 2) * 4;
		} else if (protocol == IPPROTO_ROUTING && header[3]) {
			/* Segments left: the destination is not who gets it in the end. */
			return PARSED_UNSUPPORTED;
		} else {
			offset += (header[1] + 1) * 8;
		}
		protocol = header[0];
	}
	return PARSED_MALFORMED;
}

/*
 * Echo: the identifier is the port of the one who asks, the type of the request that of the other, so that the
 * key of a connection holds what its first packet was judged by. Other ICMP has no ports.
 */
static __always_inline bool echo_ports(struct dp_connection_key *tuple, __u8 type, __be16 id)
{
	bool v4 = tuple->protocol == IPPROTO_ICMP;
	__u8 request = v4 ? ICMP_ECHO : ICMPV6_ECHO_REQUEST;

	if (type == request) {
		tuple->sport = id;
		tuple->dport = bpf_htons(request);
	} else if (type == (v4 ? ICMP_ECHOREPLY : ICMPV6_ECHO_REPLY)) {
		tuple->sport = bpf_htons(request);
		tuple->dport = id;
	} else {
		return false;
	}
	return true;
}

static __always_inline bool is_icmp(__u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

static __always_inline bool has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == PROTOCOL_SCTP;
}

/* The packet that an ICMP error quotes. Whatever cannot be read in it leaves an ICMP packet like any other. */
static __noinline int parse_quoted(struct __sk_buff *skb, struct packet *p)
{
	struct l4_place place = {};
	struct dp_connection_key *key = &p->quoted;
	__u32 offset = p->l4_offset + 8;
	__be16 l4[4];

	if (p->flags & PACKET_IPV6) {
		struct ipv6hdr ip6;

		if (bpf_skb_load_bytes(skb, offset, &ip6, sizeof(ip6)) || ip6.version != 6)
			return 0;
		__builtin_memcpy(&key->daddr, &ip6.saddr, 16);
		__builtin_memcpy(&key->saddr, &ip6.daddr, 16);
		place.offset = offset + sizeof(ip6);
		place.protocol = ip6.nexthdr;
		if (skip_extensions(skb, &place) != PARSED || place.flags & PACKET_NOT_FIRST)
			return 0;
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 4 ||
		    ip.ihl < 5)
			return 0;
		if (ip.frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
			return 0;
		map_ipv4(&key->daddr, ip.saddr);
		map_ipv4(&key->saddr, ip.daddr);
		place.offset = offset + ip.ihl * 4;
		place.protocol = ip.protocol;
	}
	/* It goes to who sent the quoted packet; nobody translates addresses here. */
	if (!same_address(&key->daddr, &p->tuple.daddr))
		return 0;
	if (bpf_skb_load_bytes(skb, place.offset, l4, sizeof(l4)))
		return 0;
	key->protocol = place.protocol;
	if (has_ports(place.protocol)) {
		key->dport = l4[0];
		key->sport = l4[1];
	} else if (is_icmp(place.protocol)) {
		struct dp_connection_key echo = {.protocol = place.protocol};

		if (!echo_ports(&echo, *(__u8 *)l4, l4[2]))
			return 0;
		key->dport = echo.sport;
		key->sport = echo.dport;
	}
	p->quoted_l4 = place.offset;
	p->flags |= PACKET_ICMP_ERROR;
	return 0;
}

static __always_inline enum parsed parse_icmp(struct __sk_buff *skb, struct packet *p)
{
	bool v4 = p->tuple.protocol == IPPROTO_ICMP;
	__u8 header[8], type;

	if (v4 == !!(p->flags & PACKET_IPV6))
		return PARSED_UNSUPPORTED;
	if (bpf_skb_load_bytes(skb, p->l4_offset, header, sizeof(header)))
		return PARSED_MALFORMED;
	type = header[0];
	p->policy_port = bpf_htons(type);
	p->l4_length = sizeof(header);
	if (!echo_ports(&p->tuple, type, *(__be16 *)&header[4]))
		p->flags |= PACKET_STATELESS;
	if (type == (v4 ? ICMP_ECHO : ICMPV6_ECHO_REQUEST))
		p->flags |= PACKET_STARTS;
	if (v4 ? type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED ||
			    type == ICMP_PARAMETERPROB
	       : type >= ICMPV6_DEST_UNREACH && type <= ICMPV6_PARAMPROB)
		parse_quoted(skb, p);
	/* 133..137: router solicitation and advertisement, neighbour solicitation and advertisement, redirect.
	 * Only on the link: sent further it would be a way round the policy. */
	if (!v4 && type >= 133 && type <= 137 && p->hop_limit == ND_HOP_LIMIT &&
	    is_link_scope(&p->tuple.daddr)) {
		if (type == 134 || type == 137)
			p->flags |= PACKET_FROM_ROUTER;
		return PARSED_NEIGHBOUR;
	}
	return PARSED;
}

static __noinline enum parsed parse_l4(struct __sk_buff *skb, struct packet *p)
{
	__u8 header[14];

	if (p->flags & PACKET_NOT_FIRST)
		return PARSED;
	if (is_icmp(p->tuple.protocol))
		return parse_icmp(skb, p);
	if (!has_ports(p->tuple.protocol)) {
		p->flags |= PACKET_STARTS;
		return PARSED;
	}
	if (bpf_skb_load_bytes(skb, p->l4_offset, header, 8))
		return PARSED_MALFORMED;
	p->tuple.sport = *(__be16 *)&header[0];
	p->tuple.dport = *(__be16 *)&header[2];
	p->policy_port = p->tuple.dport;
	p->l4_length = 8;
	if (p->tuple.protocol != IPPROTO_TCP) {
		p->flags |= PACKET_STARTS;
		return PARSED;
	}
	if (bpf_skb_load_bytes(skb, p->l4_offset, header, sizeof(header)))
		return PARSED_MALFORMED;
	p->l4_length = (header[12] >> 4) * 4;
	p->tcp_flags = header[13];
	if ((p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN)
		p->flags |= PACKET_STARTS;
	return PARSED;
}

static __always_inline enum parsed parse_ipv4(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr ip, *linear = (void *)(long)skb->data + ETH_HLEN;

	if ((void *)(linear + 1) <= (void *)(long)skb->data_end)
		ip = *linear;
	else if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return PARSED_MALFORMED;
	if (ip.version != 4 || ip.ihl < 5)
		return PARSED_MALFORMED;
	map_ipv4(&p->tuple.saddr, ip.saddr);
	map_ipv4(&p->tuple.daddr, ip.daddr);
	p->tuple.protocol = ip.protocol;
	p->hop_limit = ip.ttl;
	p->checksum = ip.check;
	p->l4_offset = ETH_HLEN + ip.ihl * 4;
	p->fragment_id = ip.id;
	if (ip.frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET | IPV4_MORE_FRAGMENTS))
		p->flags |= PACKET_FRAGMENT;
	if (ip.frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
		p->flags |= PACKET_NOT_FIRST;
	return PARSED;
}

static __always_inline enum parsed parse_ipv6(struct __sk_buff *skb, struct packet *p)
{
	struct ipv6hdr ip6, *linear = (void *)(long)skb->data + ETH_HLEN;
	struct l4_place place = {};
	enum parsed parsed;

	if ((void *)(linear + 1) <= (void *)(long)skb->data_end)
		ip6 = *linear;
	else if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip6, sizeof(ip6)))
		return PARSED_MALFORMED;
	if (ip6.version != 6)
		return PARSED_MALFORMED;
	__builtin_memcpy(&p->tuple.saddr, &ip6.saddr, 16);
	__builtin_memcpy(&p->tuple.daddr, &ip6.daddr, 16);
	if (is_mapped(&p->tuple.saddr) || is_mapped(&p->tuple.daddr))
		return PARSED_MALFORMED;
	place.offset = ETH_HLEN + sizeof(ip6);
	place.protocol = ip6.nexthdr;
	parsed = skip_extensions(skb, &place);
	p->tuple.protocol = place.protocol;
	p->hop_limit = ip6.hop_limit;
	p->l4_offset = place.offset;
	p->fragment_id = place.fragment_id;
	p->flags = PACKET_IPV6 | place.flags;
	return parsed;
}

/*
 * The verifier follows every way through the parser to the program's end, as long as what each leaves behind differs
 * for it. An OR with a zero that it takes for any number makes them all alike.
 */
static __always_inline void forget_way(struct __sk_buff *skb, struct packet *p)
{
	__u64 *words = (__u64 *)p, zero = skb->len, same = zero;

	asm volatile("" : "+r"(same));
	zero ^= same;
	zero |= zero << 32;
#pragma unroll
	for (unsigned int i = 0; i < sizeof(*p) / sizeof(*words); i++)
		words[i] |= zero;
}

/* *p must be zeros. */
static __always_inline enum parsed parse(struct __sk_buff *skb, struct packet *p)
{
	enum parsed parsed;

	switch (skb->protocol) {
	case bpf_htons(ETH_P_ARP):
		return PARSED_NEIGHBOUR;
	case bpf_htons(ETH_P_IP):
		parsed = parse_ipv4(skb, p);
		break;
	case bpf_htons(ETH_P_IPV6):
		parsed = parse_ipv6(skb, p);
		break;
	default:
		return PARSED_UNSUPPORTED;
	}
	if (parsed == PARSED)
		parsed = parse_l4(skb, p);
	forget_way(skb, p);
	return parsed;
}

#endif
