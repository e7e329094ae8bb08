/* SPDX-License-Identifier: Apache-2.0
 *
 * What tasks and messages are expected to cost, filled from above: by a profile, a roofline, or a
 * table in a test. Policies that plan ahead read it, the simulator and the bounds live from it.
 *
 *     const struct troupe_costs costs = {.task_ns = task, .edge_ns = edge, .steady = true};
 *     int64_t ns = troupe_cost_of_task(&costs, method, step, microbatch);
 *
 * Ownership: `arg` is the caller's. Threads: the callbacks are pure. Failure: none; negative costs
 * assert.
 */
#ifndef TROUPE_SCHEDULER_COST_H
#define TROUPE_SCHEDULER_COST_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_costs {
    /* Nanoseconds that the method keeps its ranks busy for one microbatch (in the reduction lane:
     * that the collective takes); of the slowest member. 0 for an empty one. */
    int64_t (*task_ns)(void *arg, int method, int64_t step, int microbatch);
    /* From the end of the producer until the last receiver holds the message, the link to itself.
     * NULL: messages are there at once. */
    int64_t (*edge_ns)(void *arg, int edge, int64_t step, int microbatch);
    void *arg;
    bool steady; /* the same in every step: what was planned for one serves all */
    /* What was planned serves all steps of one epoch; the owner counts it up, between steps, when
     * costs have become others. 0: see steady. */
    int64_t epoch;
    int64_t search_ns; /* that a policy may plan for before a step; 0: as it sees fit */
    /* By which steps must differ in length for the costs to tell which is shorter: nobody need plan
     * better than to so much of a bound. */
    int64_t tolerance_ns;
};

int64_t troupe_cost_of_task(const struct troupe_costs *costs, int method, int64_t step,
                            int microbatch);
int64_t troupe_cost_of_edge(const struct troupe_costs *costs, int edge, int64_t step,
                            int microbatch);

#ifdef __cplusplus
}
#endif
#endif
