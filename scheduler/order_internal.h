/* SPDX-License-Identifier: Apache-2.0
 *
 * The built-in order policies, one file each; order.c lists them.
 */
#ifndef TROUPE_SCHEDULER_ORDER_INTERNAL_H
#define TROUPE_SCHEDULER_ORDER_INTERNAL_H

#include <stdbool.h>

#include "scheduler/order.h"

extern const struct troupe_order_policy troupe_order_fifo; /* the reference */
extern const struct troupe_order_policy troupe_order_1f1b;

/* Whether a became a candidate before b; at the same moment the lower microbatch goes first, then
 * the lower method: so any policy that ends with this is deterministic. */
bool troupe_candidate_is_older(const struct troupe_candidate *a, const struct troupe_candidate *b);

#endif
