/* SPDX-License-Identifier: Apache-2.0 */
/* An order policy in a shared object: always the last candidate. */
#include "scheduler/order.h"

static int pick(void *state, const struct troupe_order_view *view,
                const struct troupe_candidate *candidates, int count) {
    (void)state;
    (void)view;
    (void)candidates;
    return count - 1;
}

const struct troupe_order_policy troupe_order_policy = {.name = "last",
                                                        .summary = "the last candidate",
                                                        .create = troupe_order_no_state,
                                                        .destroy = troupe_order_keep_state,
                                                        .begin_step = troupe_order_no_plan,
                                                        .in_flight = troupe_order_unbounded,
                                                        .pick = pick};
