/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How SCTP's checksum (CRC32c, RFC 9260 appendix A) changes when its ports do.
 *
 * A CRC is linear: that of a packet and that of the changed one differ by the CRC, begun with zeros, of their
 * difference, which is four bytes and then zeros only. Those are a power of x, and that takes as many squares as a
 * length has bits. Nothing branches: the verifier would follow every way through the bits. Functions are not static:
 * it looks at a global one once, and not on every way to it.
 */
#ifndef DELTAPLANE_CRC_H
#define DELTAPLANE_CRC_H

#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define CRC32C_POLYNOMIAL 0x82f63b78
/* Polynomials have the coefficient of x^0 in the highest bit. */
#define CRC32C_ONE    0x80000000
#define SCTP_CHECKSUM 8
#define LENGTH_BITS   16

static __always_inline __u32 times_x(__u32 a)
{
	__u32 odd = a & 1;

	/* Of a mask that clang would make of it, newer verifiers follow both values. */
	barrier_var(odd);
	return a >> 1 ^ odd * CRC32C_POLYNOMIAL;
}

__noinline __u32 times(__u32 a, __u32 b)
{
	__u32 product = 0;

	for (int i = 31; i >= 0; i--) {
		product ^= b & -(a >> i & 1);
		b = times_x(b);
	}
	return product;
}

/* x to the power of eight times `bytes`. */
__noinline __u32 zeros(__u32 bytes)
{
	__u32 power = CRC32C_ONE, more, is_odd;

	for (int i = LENGTH_BITS - 1; i >= 0; i--) {
		power = more = times(power, power);
		for (int bit = 0; bit < 8; bit++)
			more = times_x(more);
		is_odd = -(bytes >> i & 1);
		power = (more & is_odd) | (power & ~is_odd);
	}
	return power;
}

/* A CRC is written with its lowest byte first. */
static __always_inline __u32 little_endian(__u32 word)
{
	return __builtin_bswap32(bpf_htonl(word));
}

/* What to add to the CRC, as it stands in a packet of so many bytes (0..65535) whose first four change by `changed`. */
__noinline __u32 crc_change(__u32 changed, __u32 bytes)
{
	return little_endian(times(zeros(bytes), little_endian(changed)));
}

#endif
