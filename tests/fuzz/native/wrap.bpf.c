// SPDX-License-Identifier: Apache-2.0
/*
 * In front of what unwraps: the packet gets what a VXLAN link would note of its outer header, and goes on to the program
 * that is meant. cb[0]: network identifier, and in its upper bits the program and whether the outer header is of IPv6;
 * cb[1..4]: the outer source.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define IDENTIFIER 0xffffff
#define OUTER_IPV6 (1u << 24)
#define PROGRAM	   25

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__uint(value_size, 4);
} inside SEC(".maps");

SEC("tc")
int wrap(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {};
	__u32 what = skb->cb[0];

	key.tunnel_id = what & IDENTIFIER;
	key.tunnel_ttl = 64;
	/* What is set is about a packet that goes out: there the source is the local address. */
	if (what & OUTER_IPV6) {
		key.local_ipv6[0] = skb->cb[1];
		key.local_ipv6[1] = skb->cb[2];
		key.local_ipv6[2] = skb->cb[3];
		key.local_ipv6[3] = skb->cb[4];
		bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6);
	} else {
		key.local_ipv4 = __builtin_bswap32(skb->cb[1]);
		bpf_skb_set_tunnel_key(skb, &key, sizeof(key), 0);
	}
	bpf_tail_call(skb, &inside, what >> PROGRAM & 1);
	return -1;
}

char LICENSE[] SEC("license") = "Apache-2.0";
