/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/cost.h"

#include <inttypes.h>
#include <stddef.h>

#include "runtime/check.h"

int64_t troupe_cost_of_task(const struct troupe_costs *costs, int method, int64_t step,
                            int microbatch) {
    int64_t ns = costs->task_ns(costs->arg, method, step, microbatch);
    TROUPE_ASSERT(ns >= 0, "method %d, microbatch %d costs %" PRId64 " ns", method, microbatch, ns);
    return ns;
}

int64_t troupe_cost_of_edge(const struct troupe_costs *costs, int edge, int64_t step,
                            int microbatch) {
    int64_t ns = costs->edge_ns == NULL ? 0 : costs->edge_ns(costs->arg, edge, step, microbatch);
    TROUPE_ASSERT(ns >= 0, "edge %d, microbatch %d costs %" PRId64 " ns", edge, microbatch, ns);
    return ns;
}
