/* SPDX-License-Identifier: Apache-2.0
 *
 * Order policies decide *when*: which of the tasks that could be issued now gets the next ticket.
 * The rules that keep the schedule free of deadlock (engine.h) are not theirs to break: a policy
 * only ever sees candidates that obey them, and it must take one of them (work-conserving).
 *
 *     static int pick(void *state, const struct troupe_order_view *view,
 *                     const struct troupe_candidate *c, int count) { return 0; }
 *     const struct troupe_order_policy troupe_order_policy = {
 *         .name = "first", .summary = "takes what comes", .create = troupe_order_no_state,
 *         .destroy = troupe_order_keep_state, .begin_step = troupe_order_no_plan,
 *         .in_flight = troupe_order_unbounded, .pick = pick};
 *
 * Compiled into a shared object, that is a policy to load: troupe_order_find("./first.so",
 * &policy). order_fifo.c is the reference, order_1f1b.c the example with a plan.
 *
 * Ownership: policies are constant tables; a loaded one stays loaded until the process ends. State
 * is made by `create`, one for each engine, and freed by `destroy`.
 * Threads: tables serve any number of engines; a state serves its engine alone.
 * Failure: ERROR_INVALID names the known policies, or says why a file cannot be loaded.
 */
#ifndef TROUPE_SCHEDULER_ORDER_H
#define TROUPE_SCHEDULER_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/status.h"
#include "scheduler/cost.h"
#include "scheduler/graph.h"
#include "scheduler/graph_index.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_candidate {
    int method;
    int microbatch; /* the method's next; 0 where there are no steps */
    bool waits;     /* an input is issued in this island but not done: its ranks may have to wait */
    bool queues;    /* every member has an unfinished ticket: nobody idles if it is held back */
    uint64_t ready; /* when it became a candidate: smaller is older, equal is the same moment */
};

struct troupe_order_view {
    const struct troupe_graph *graph;
    const int *issued; /* by method of the graph: firings of this step issued so far; 0 for methods
                          of other islands */
};

/* What a policy may know when its state is made. */
struct troupe_order_setting {
    const struct troupe_graph_index *index; /* and the graph */
    int conductor;                          /* of the island */
    const struct troupe_costs *costs;       /* NULL: not known, or begin_step plans nothing */
    const void *peer; /* the policy's state in an engine made before for the same simulation, whose
                         plans it may share; NULL: none */
};

/* Answer of pick: nothing now; it is asked again after the next event. */
enum { TROUPE_ORDER_HOLD = -1 };

struct troupe_order_policy {
    const char *name;
    const char *summary; /* one line for `troupe info` */
    /* The state for one engine; allocates all that the policy needs. */
    troupe_status (*create)(const struct troupe_order_setting *setting, void **state_out);
    void (*destroy)(void *state); /* accepts NULL */
    /* A step begins; all of the step before is issued. May plan ahead; allocates nothing. */
    void (*begin_step)(void *state, int64_t step);
    /* The most microbatches that a gang may hold between slot_take and slot_return, >= 1; the
     * gang's slots bound it anyway. Asked at creation and after each begin_step. */
    int (*in_flight)(const void *state, const struct troupe_graph *graph, int gang);
    /* Index of the chosen candidate; count >= 1. Candidates are those that compete for ranks with
     * the gang that has had something to issue for longest. May be TROUPE_ORDER_HOLD while all
     * candidates queue, or where a plan for the whole job says that the rank's next task is another
     * one: what holds back for ever makes the job stall, and the report says so. Same question,
     * same answer.
     */
    int (*pick)(void *state, const struct troupe_order_view *view,
                const struct troupe_candidate *candidates, int count);
    /* Name of what the policy has chosen to follow in the step begun last, for reports; NULL:
     * nothing but itself. The slot may be NULL. */
    const char *(*choice)(const void *state);
};

/* Slots of policies without state, plan, or bound. */
troupe_status troupe_order_no_state(const struct troupe_order_setting *setting, void **state_out);
void troupe_order_keep_state(void *state);
void troupe_order_no_plan(void *state, int64_t step);
int troupe_order_unbounded(const void *state, const struct troupe_graph *graph, int gang);

/* A built-in policy by its name, or (where the name contains a '/') the symbol
 * `troupe_order_policy` of a shared object. */
troupe_status troupe_order_find(const char *name, const struct troupe_order_policy **out);
/* The built-in policies in order of their index; NULL after the last. */
const struct troupe_order_policy *troupe_order_builtin(int index);

#ifdef __cplusplus
}
#endif
#endif
