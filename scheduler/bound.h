/* SPDX-License-Identifier: Apache-2.0
 *
 * The lower bound T* on a step's time for given costs, placement, links and slots: no schedule that
 * the engine's rules allow is shorter, whatever the order policy.
 *
 *     troupe_bound_create(&graph, &(struct troupe_bound_options){0}, &bound);
 *     troupe_bound_compute(bound, &costs, step, &result);     result.ns = T*
 *
 * T* is the maximum of these, all proved for exactly this graph:
 *   path     the longest chain of tasks that wait for each other: data, `after`, the sequence rule,
 *            and slots (the forward of microbatch k + slots begins after the last backward of k);
 *   machine  for each rank the best preemptive schedule of its own tasks (reductions not counted),
 *            each with the longest path before it as head and the longest behind it as tail
 * (Jackson's schedule; Carlier and Pinson 1989). For every subset S of the tasks it is at least min
 * head + sum + min tail, so it covers the closed forms: with equal stages (m + p - 1)(F + B') for a
 * fused backward; for a split one the last-stage, chain and first-stage bounds; the encoder bounds.
 *
 * Ownership: create/destroy; the graph is borrowed. compute does not allocate.
 * Threads: one at a time. Failure: create ERROR_MEMORY; the graph must have passed
 * troupe_graph_check.
 */
#ifndef TROUPE_SCHEDULER_BOUND_H
#define TROUPE_SCHEDULER_BOUND_H

#include <stdint.h>

#include "runtime/status.h"
#include "scheduler/cost.h"
#include "scheduler/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_bound troupe_bound;

enum troupe_bound_kind {
    TROUPE_BOUND_PATH,
    TROUPE_BOUND_MACHINE,
};

struct troupe_bound_result {
    int64_t ns;                  /* T* */
    enum troupe_bound_kind kind; /* which of them it is */
    int rank;                    /* of a machine; -1 for a path */
    int64_t path_ns;             /* the longest path alone */
    int64_t work_ns;             /* the most that a rank has to do */
};

struct troupe_bound_options {
    /* As in engine.h: nothing waits for a message without receivers. NULL: there are none. */
    uint64_t (*receivers)(void *arg, int edge, int64_t step, int microbatch);
    void *arg;
};

troupe_status troupe_bound_create(const struct troupe_graph *graph,
                                  const struct troupe_bound_options *options, troupe_bound **out);
/* edge_ns of the costs must not be more than a message takes with all links to itself. */
void troupe_bound_compute(troupe_bound *bound, const struct troupe_costs *costs, int64_t step,
                          struct troupe_bound_result *out);
/* Accepts NULL. */
void troupe_bound_destroy(troupe_bound *bound);

#ifdef __cplusplus
}
#endif
#endif
