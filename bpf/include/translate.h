/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other addresses and ports in a packet, or in one that an ICMP error quotes. Both families.
 *
 * Checksums get the difference, whoever completes them: what the network card or the receiver still has to sum
 * (CHECKSUM_PARTIAL) holds the addresses only; what the card has summed (CHECKSUM_COMPLETE) is told of the addresses
 * of IPv6, which no checksum of the header balances. A UDP checksum of zero stays. SCTP's is a CRC of everything but
 * the addresses: other ports change it by what depends on them and on the length alone, see crc.h.
 */
#ifndef DELTAPLANE_TRANSLATE_H
#define DELTAPLANE_TRANSLATE_H

#include "crc.h"
#include "packet.h"

/* Of IPv4-mapped addresses the common prefix cancels out. */
static __always_inline __u32 difference(const struct dp_connection_key *from,
					const struct dp_connection_key *to)
{
	return bpf_csum_diff((__be32 *)from, 2 * sizeof(struct dp_address), (__be32 *)to,
			     2 * sizeof(struct dp_address), 0);
}

static __always_inline __u32 ports_of(const struct dp_connection_key *tuple)
{
	__be16 ports[2] = {tuple->sport, tuple->dport};
	__u32 word;

	__builtin_memcpy(&word, ports, sizeof(word));
	return word;
}

/* flags: BPF_F_RECOMPUTE_CSUM or 0; l3: where the IP header begins. */
static __always_inline long write_addresses(struct __sk_buff *skb, __u32 l3, bool ipv6,
					    const struct dp_address *source,
					    const struct dp_address *destination, __u64 flags)
{
	struct dp_address both[2] = {*source, *destination};
	__be32 ipv4[2] = {source->word[3], destination->word[3]};

	if (ipv6)
		return bpf_skb_store_bytes(skb, l3 + offsetof(struct ipv6hdr, saddr), both,
					   sizeof(both), flags);
	return bpf_skb_store_bytes(skb, l3 + offsetof(struct iphdr, saddr), ipv4, sizeof(ipv4), 0);
}

/* The addresses of a packet's IP header, and for IPv4 the checksum of that header. */
static __always_inline long write_header(struct __sk_buff *skb, __u32 l3, bool ipv6, __u32 diff,
					 const struct dp_address *source,
					 const struct dp_address *destination, __u64 flags)
{
	long failed = 0;

	if (!ipv6)
		failed = bpf_l3_csum_replace(skb, l3 + offsetof(struct iphdr, check), 0, diff, 0);
	return failed ?: write_addresses(skb, l3, ipv6, source, destination, flags);
}

/* What lowers the TTL goes on from the checksum that was parsed. */
static __always_inline long reread_checksum(struct __sk_buff *skb, struct packet *p, bool ipv6)
{
	if (ipv6)
		return 0;
	return bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, check), &p->checksum,
				  sizeof(p->checksum));
}

/* 0: the protocol's checksum is no sum, or it has none. */
static __always_inline __u32 checksum_offset(__u8 protocol)
{
	if (protocol == IPPROTO_TCP)
		return offsetof(struct tcphdr, check);
	return protocol == IPPROTO_UDP ? offsetof(struct udphdr, check) : 0;
}

/* Of the protocol's header and all behind it, as the IP header has it; 0: it cannot be read. */
static __always_inline __u32 l4_size(struct __sk_buff *skb, const struct packet *p)
{
	bool ipv6 = p->flags & PACKET_IPV6;
	__u32 at = ipv6 ? offsetof(struct ipv6hdr, payload_len) : offsetof(struct iphdr, tot_len);
	__u32 before = p->l4_offset - ETH_HLEN - (ipv6 ? sizeof(struct ipv6hdr) : 0);
	__be16 length;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + at, &length, sizeof(length)))
		return 0;
	return bpf_ntohs(length) - before;
}

/* Of a fragment the rest is not there. A CRC that is still to be made (CHECKSUM_PARTIAL) does not look at this one. */
static __always_inline long write_crc(struct __sk_buff *skb, const struct packet *p, __u32 changed)
{
	__u32 place = p->l4_offset + SCTP_CHECKSUM, crc, size = l4_size(skb, p);

	if (!size || p->flags & PACKET_FRAGMENT ||
	    bpf_skb_load_bytes(skb, place, &crc, sizeof(crc)))
		return -1;
	crc ^= crc_change(changed, size);
	return bpf_skb_store_bytes(skb, place, &crc, sizeof(crc), 0);
}

/* What only the first fragment has. */
static __always_inline long write_l4(struct __sk_buff *skb, const struct packet *p,
				     const struct dp_connection_key *to, __u32 diff)
{
	__u32 offset = checksum_offset(p->tuple.protocol), place = p->l4_offset + offset;
	__u64 flags = p->tuple.protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__u32 old = ports_of(&p->tuple), ports = ports_of(to);

	if (offset && bpf_l4_csum_replace(skb, place, 0, diff, flags | BPF_F_PSEUDO_HDR))
		return -1;
	if (old == ports)
		return 0;
	if (offset && bpf_l4_csum_replace(skb, place, old, ports, flags | sizeof(ports)))
		return -1;
	if (p->tuple.protocol == PROTOCOL_SCTP && write_crc(skb, p, old ^ ports))
		return -1;
	return bpf_skb_store_bytes(skb, p->l4_offset, &ports, sizeof(ports), 0);
}

/* *to: addresses and ports from now on. Non-zero: the packet could not be written to, and may be half written. */
static __noinline int rewrite_packet(struct __sk_buff *skb, struct packet *p,
				     const struct dp_connection_key *to)
{
	bool ipv6 = p->flags & PACKET_IPV6;
	__u32 diff = difference(&p->tuple, to);

	if (write_header(skb, ETH_HLEN, ipv6, diff, &to->saddr, &to->daddr, BPF_F_RECOMPUTE_CSUM) ||
	    reread_checksum(skb, p, ipv6))
		return -1;
	if (!(p->flags & PACKET_NOT_FIRST) && write_l4(skb, p, to, diff))
		return -1;
	if (has_ports(p->tuple.protocol))
		p->policy_port = to->dport;
	p->tuple.saddr = to->saddr;
	p->tuple.daddr = to->daddr;
	p->tuple.sport = to->sport;
	p->tuple.dport = to->dport;
	return 0;
}

/*
 * An ICMP error goes to who sent what it quotes, and quotes what that one has sent. *to: what is quoted, turned round.
 * A router that sends the error keeps its address, unless `hide`. What of the quoted checksums lies beyond the IP
 * header is not touched: nobody can verify it, for the quoted packet is cut off.
 */
static __noinline int rewrite_error(struct __sk_buff *skb, struct packet *p,
				    const struct dp_connection_key *to, bool hide)
{
	bool ipv6 = p->flags & PACKET_IPV6;
	struct dp_connection_key outer = p->tuple;
	__u32 checksum = p->l4_offset + offsetof(struct icmphdr, checksum);
	__u32 quoted = difference(&p->quoted, to), diff;
	__u32 old = ports_of(&p->quoted), ports = ports_of(to), shown;

	outer.daddr = to->daddr;
	if (hide || same_address(&outer.saddr, &p->quoted.saddr))
		outer.saddr = to->saddr;
	diff = difference(&p->tuple, &outer);
	if (write_header(skb, ETH_HLEN, ipv6, diff, &outer.saddr, &outer.daddr,
			 BPF_F_RECOMPUTE_CSUM) ||
	    reread_checksum(skb, p, ipv6))
		return -1;
	if (write_header(skb, p->l4_offset + sizeof(struct icmphdr), ipv6, quoted, &to->daddr,
			 &to->saddr, 0))
		return -1;
	/* ICMPv6 also sums the addresses in front; the quoted ones have no header checksum to balance them. */
	if (ipv6 && (bpf_l4_csum_replace(skb, checksum, 0, diff, BPF_F_PSEUDO_HDR) ||
		     bpf_l4_csum_replace(skb, checksum, 0, quoted, 0)))
		return -1;
	if (old != ports) {
		/* The quoted packet goes the other way. */
		shown = ports << 16 | ports >> 16;
		if (bpf_l4_csum_replace(skb, checksum, old, ports, sizeof(ports)) ||
		    bpf_skb_store_bytes(skb, p->quoted_l4, &shown, sizeof(shown), 0))
			return -1;
	}
	p->tuple.saddr = outer.saddr;
	p->tuple.daddr = outer.daddr;
	p->quoted.saddr = to->saddr;
	p->quoted.daddr = to->daddr;
	p->quoted.sport = to->sport;
	p->quoted.dport = to->dport;
	return 0;
}

/* hide: an ICMP error comes from the source of *to, whichever router sends it. */
static __always_inline int rewrite(struct __sk_buff *skb, struct packet *p,
				   const struct dp_connection_key *to, bool hide)
{
	return p->flags & PACKET_ICMP_ERROR ? rewrite_error(skb, p, to, hide)
					    : rewrite_packet(skb, p, to);
}

#endif
