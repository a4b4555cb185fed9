/* SPDX-License-Identifier: Apache-2.0 */
/* The one way out of every program. */
#ifndef DELTAPLANE_OUTCOME_H
#define DELTAPLANE_OUTCOME_H

#include <linux/pkt_cls.h>

#include "maps.h"

/* What a program decided: the outcome to count, and what tc is to do. */
struct decision {
	enum dp_outcome outcome;
	int action;
};

static __always_inline struct decision pass(enum dp_outcome outcome)
{
	return (struct decision){outcome, TC_ACT_OK};
}

static __always_inline struct decision drop(enum dp_outcome outcome)
{
	return (struct decision){outcome, TC_ACT_SHOT};
}

/* length: of the frame as it came in, bytes. */
static __always_inline int finish(__u32 length, struct decision decision)
{
	__u32 index = decision.outcome;
	struct dp_count *count = bpf_map_lookup_elem(&outcomes, &index);

	if (count) {
		count->packets++;
		count->octets += length;
	}
	return decision.action;
}

#endif
