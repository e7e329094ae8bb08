/* SPDX-License-Identifier: Apache-2.0
 *
 * The simulator: the engines of all islands, driven by a virtual clock. Ranks run tickets in order,
 * tasks take what the cost table says, messages what the links say, control messages a fixed time;
 * buffers and credits are those of the real runtime (actors). So what is simulated is what runs.
 *
 *     troupe_sim_create(&graph, &(struct troupe_sim_options){.order = policy, .costs = &costs},
 *                       &sim);
 *     TROUPE_TRY(troupe_sim_run(sim, &result));    (any number of times; a step each)
 *     result.schedule.tasks[i].{method, microbatch, begin_ns, end_ns}
 *
 * Deterministic: events happen in the order of (time, rank, kind, sender, number at the sender);
 * the same input gives the same schedule. Each run begins with empty queues at time 0 and ends when
 * everything is done, so steps do not overlap.
 *
 * Ownership: create/destroy; graph, policy, costs and cluster are borrowed. A result is valid until
 * the next run or destroy. Threads: one at a time. run does not allocate.
 * Failure: create ERROR_MEMORY, ERROR_INVALID; run ERROR_STALL with what the engine of the first
 * island that cannot go on says.
 */
#ifndef TROUPE_SCHEDULER_SIM_H
#define TROUPE_SCHEDULER_SIM_H

#include "scheduler/cluster.h"
#include "scheduler/cost.h"
#include "scheduler/graph.h"
#include "scheduler/order.h"
#include "scheduler/schedule.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_sim troupe_sim;
struct troupe_ticket; /* engine.h */

struct troupe_sim_options {
    const struct troupe_order_policy *order; /* NULL: fifo */
    int look_ahead;                          /* 0: the engine's default */
    const struct troupe_costs *costs;
    /* Links with contention: cluster and edge_bytes, what member `member` of the consumer receives.
     * Without a cluster messages take costs->edge_ns, at most one on the way to a rank per edge
     * does not matter. Between different ranks a message takes at least 1 ns. */
    const struct troupe_cluster *cluster;
    int64_t (*edge_bytes)(void *arg, int edge, int64_t step, int microbatch, int member);
    int64_t control_ns; /* of control messages; with a cluster: its own if this is 0 */
    /* As in engine.h. */
    uint64_t (*receivers)(void *arg, int edge, int64_t step, int microbatch);
    /* Whether messages of the edge may be empty, in any step: an output then has a buffer more.
     * NULL: all may, where there are receivers. */
    bool (*may_be_empty)(void *arg, int edge);
    void *arg; /* of these three */
    /* Mode static: each rank gets its tickets of the step at its begin, in one message from its
     * conductor, and nobody reports anything (script.h). */
    bool fixed;
    /* Hears of each ticket, in the order of their issue; not in mode static. NULL: nobody. */
    void (*issued)(void *arg, const struct troupe_ticket *ticket);
    void *issued_arg;
};

struct troupe_sim_result {
    int64_t makespan_ns;
    int64_t events;
    struct troupe_schedule schedule;
    const char *choice; /* of the order policy on the lowest rank, see engine.h; NULL: none */
};

troupe_status troupe_sim_create(const struct troupe_graph *graph,
                                const struct troupe_sim_options *options, troupe_sim **out);
troupe_status troupe_sim_run(troupe_sim *sim, struct troupe_sim_result *out);
/* Accepts NULL. */
void troupe_sim_destroy(troupe_sim *sim);

#ifdef __cplusplus
}
#endif
#endif
