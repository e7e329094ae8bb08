/* SPDX-License-Identifier: Apache-2.0
 *
 * The tickets of one step for every rank, in order, known before the step: mode `static`. They are
 * those that the engines of all islands issue in a simulated step, for the expected costs.
 *
 *     TROUPE_TRY(troupe_script_create(&graph, &options, &script));
 *     TROUPE_TRY(troupe_script_plan(script, step));
 *     const struct troupe_script_line *lines = troupe_script_lines(script, rank, &count);
 *
 * Ranks that each run their lines in order, and wait for data and buffers alone, never hang: in the
 * order in which the simulated tickets were issued, all that a ticket needs comes from earlier ones
 * (the issue rule of engine.h), which come earlier on their ranks, too. A method that comes `after`
 * a reduction waits for it on each rank by itself. Whatever tasks really take, the order stays; so
 * it serves where they take what is expected.
 *
 * The same input gives the same script on every rank. Ownership: create/destroy; graph, policy and
 * costs are borrowed. plan does not allocate. Threads: one at a time.
 * Failure: create ERROR_MEMORY, ERROR_INVALID for methods without steps; plan ERROR_STALL.
 */
#ifndef TROUPE_SCHEDULER_SCRIPT_H
#define TROUPE_SCHEDULER_SCRIPT_H

#include <stdint.h>

#include "runtime/status.h"
#include "scheduler/cost.h"
#include "scheduler/graph.h"
#include "scheduler/order.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_script troupe_script;

struct troupe_script_options {
    const struct troupe_order_policy *order; /* NULL: fifo */
    int look_ahead;                          /* 0: the engine's default */
    const struct troupe_costs *costs;        /* NULL: all tasks take as long */
    /* As in engine.h, of all edges. */
    uint64_t (*receivers)(void *arg, int edge, int64_t step, int microbatch);
    void *arg;
    /* On each rank reductions, and what comes once a step, go behind the other tasks; for ranks
     * with one lane at a time. */
    bool lanes_apart;
};

struct troupe_script_line {
    int32_t method;
    uint16_t microbatch;
    uint16_t slot;
};

troupe_status troupe_script_create(const struct troupe_graph *graph,
                                   const struct troupe_script_options *options,
                                   troupe_script **out);
/* Does nothing where the script of the step before serves this one, too. */
troupe_status troupe_script_plan(troupe_script *script, int64_t step);
/* The lines of a rank; as many for every step. */
const struct troupe_script_line *troupe_script_lines(const troupe_script *script, int rank,
                                                     int *count_out);
/* Accepts NULL. */
void troupe_script_destroy(troupe_script *script);

/* How many lines a rank has. */
int troupe_script_count(const struct troupe_graph *graph, int rank);

#ifdef __cplusplus
}
#endif
#endif
