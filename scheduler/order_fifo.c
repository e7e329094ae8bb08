/* SPDX-License-Identifier: Apache-2.0 */
/* First in, first out: the task that has been able to run for longest. The reference. */
#include "scheduler/order_internal.h"

static int pick(void *state, const struct troupe_order_view *view,
                const struct troupe_candidate *candidates, int count) {
    (void)state;
    (void)view;
    int best = 0;
    for (int i = 1; i < count; i++) {
        if (troupe_candidate_is_older(&candidates[i], &candidates[best])) {
            best = i;
        }
    }
    return best;
}

const struct troupe_order_policy troupe_order_fifo = {
    .name = "fifo",
    .summary = "the task that has been ready for longest",
    .create = troupe_order_no_state,
    .destroy = troupe_order_keep_state,
    .begin_step = troupe_order_no_plan,
    .in_flight = troupe_order_unbounded,
    .pick = pick,
};
