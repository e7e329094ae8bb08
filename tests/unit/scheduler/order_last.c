/* SPDX-License-Identifier: Apache-2.0 */
/* An order policy in a shared object: always the last candidate. */
#include "scheduler/order.h"

static int pick(const struct troupe_order_view *view, const struct troupe_candidate *candidates,
                int count) {
    (void)view;
    (void)candidates;
    return count - 1;
}

static int in_flight(const struct troupe_graph *graph, int gang) {
    return troupe_order_unbounded(graph, gang);
}

const struct troupe_order_policy troupe_order_policy = {
    .name = "last", .summary = "the last candidate", .in_flight = in_flight, .pick = pick};
