/* SPDX-License-Identifier: Apache-2.0
 *
 * What fill and zero_bubble share: where costs are known, a plan of the step that each rank follows
 * (step_plan.h); what the plan leaves out (reductions, updates) runs as soon as it can. Where they
 * are not known, nothing is planned and the policy chooses on line.
 *
 *     .create: troupe_order_planned_create(setting, &planning, &state)
 *     .pick:   if (state->plan != NULL) { return troupe_order_planned_pick(...); }
 *
 * Ownership: create/destroy; the plan is shared by the states of one simulation (peers) and goes
 * with the last of them. Threads: one for all peers. Failure: create ERROR_MEMORY.
 */
#ifndef TROUPE_SCHEDULER_ORDER_PLANNED_H
#define TROUPE_SCHEDULER_ORDER_PLANNED_H

#include <stddef.h>

#include "scheduler/order_internal.h"
#include "scheduler/step_plan.h"

/* A rank's tasks in the order of the plan. */
struct troupe_planned_rank {
    int *tasks;
    int count;
    int next; /* the first that is not issued */
};

struct troupe_order_planned {
    struct troupe_order_info *info;
    const struct troupe_costs *costs;
    struct troupe_shared_plan *plan;         /* NULL: costs are not known */
    const struct troupe_order_planned *peer; /* a state of the same simulation, made before */
    int *limits;                             /* by place of the gang: microbatches in flight */
    int *place;                              /* by task: in the plan's sequence */
    struct troupe_planned_rank *ranks;       /* by place of the rank in its island */
    int *ranks_memory;
    int64_t step_followed; /* whose sequence is in ranks; -1: none */
};

/* How many slots the policy wants for a gang; `left` as in order_internal.h. */
typedef int (*troupe_wanted_slots)(const struct troupe_graph *graph, int gang, int left);

struct troupe_planning {
    troupe_wanted_slots wanted;
    int64_t search_once; /* tasks placed in the search where costs are steady */
    bool portfolio;      /* the search may begin from what other policies do, see portfolio.h */
};

troupe_status troupe_order_planned_create(const struct troupe_order_setting *setting,
                                          const struct troupe_planning *planning, void **state_out);
void troupe_order_planned_destroy(void *state);
void troupe_order_planned_begin_step(void *state, int64_t step);
int troupe_order_planned_in_flight(const void *state, const struct troupe_graph *graph, int gang);
/* As in order.h: the policy whose schedule the plan was begun from. */
const char *troupe_order_planned_choice(const void *state);
/* There is a plan. */
int troupe_order_planned_pick(void *state, const struct troupe_order_view *view,
                              const struct troupe_candidate *candidates, int count);

#endif
