/* SPDX-License-Identifier: Apache-2.0 */
/* First in, first out: the task that has been able to run for longest. The reference. */
#include "scheduler/order_internal.h"

static int pick(const struct troupe_order_view *view, const struct troupe_candidate *candidates,
                int count) {
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
    .in_flight = troupe_order_unbounded,
    .pick = pick,
};
