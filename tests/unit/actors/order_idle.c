/* SPDX-License-Identifier: Apache-2.0 */
/* An order policy in a shared object that stops picking the worker's tasks
 * (tests/unit/actors/stall.c).
 */
#include <string.h>

#include "scheduler/order.h"

static int pick(void *state, const struct troupe_order_view *view,
                const struct troupe_candidate *candidates, int count) {
    (void)state;
    (void)count;
    bool idles = strcmp(view->graph->methods[candidates[0].method].name, "work") == 0 &&
                 candidates[0].microbatch == 2;
    return idles ? TROUPE_ORDER_HOLD : 0;
}

const struct troupe_order_policy troupe_order_policy = {.name = "idle",
                                                        .summary = "stops at a task",
                                                        .create = troupe_order_no_state,
                                                        .destroy = troupe_order_keep_state,
                                                        .begin_step = troupe_order_no_plan,
                                                        .in_flight = troupe_order_unbounded,
                                                        .pick = pick};
