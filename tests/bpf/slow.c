// SPDX-License-Identifier: Apache-2.0
/* A program that runs for a while and says when it has begun and when it has ended. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} progress SEC(".maps");

static long look_at_the_clock(__u32 index, void *context)
{
	bpf_ktime_get_boot_ns();
	return 0;
}

SEC("tc")
int slow(struct __sk_buff *skb)
{
	__u32 zero = 0;
	__u64 *step = bpf_map_lookup_elem(&progress, &zero);

	if (!step)
		return 0;
	*(volatile __u64 *)step = 1;
	bpf_loop(4 << 20, look_at_the_clock, 0, 0);
	*(volatile __u64 *)step = 2;
	return 0;
}

char LICENSE[] SEC("license") = "Apache-2.0";
