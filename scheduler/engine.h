/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine decides, for one island, which task runs next: events in, tickets out. It is a pure
 * state machine; it does no I/O, takes no lock, reads no clock and allocates nothing after create.
 * Real messages through the conductor make it run training, a virtual clock makes it a simulator.
 *
 *     troupe_engine_create(&graph, &(struct troupe_engine_options){.conductor = rank}, &engine);
 *     troupe_engine_begin_step(engine, step);
 *     while (troupe_engine_next(engine, &ticket) == TROUPE_OK) { send it to the gang's members }
 *     troupe_engine_arrived(engine, edge, firing, member);  and the other events; then next again
 *
 * Tickets go out in one total order; each rank runs its tickets in that order. The rules that make
 * waiting free of cycles, and results repeatable:
 *   sequence  a method fires 0, 1, 2, ...; a policy chooses only among methods;
 *   memory    forward takes a slot of its own gang's pool, the last backward returns it; where the
 *             graph bounds a rank's memory, a gang's first slot is always granted, a further one
 *             only above the reserve of one slot of each gang on the rank;
 *   issue     a ticket is issued when each input has arrived or its producer has been issued in
 *             this island, and each credit and slot it needs is free or returned by a ticket issued
 *             before; both are reserved at issue. An input of a strict edge must have arrived.
 *   progress  a reduction ticket is posted and never holds its rank up, so it does not count as
 *             one of the tickets that a rank may hold unfinished; of one reduction it
 *             holds at most TROUPE_REDUCTIONS_AHEAD, this step's and the next one's.
 *
 * Events of one rank must come in the order in which they happened; those of different ranks may
 * come in any order and ahead of this island's begin_step.
 *
 * Ownership: the graph (checked by the caller, see troupe_graph_check) and the policy are borrowed.
 * Threads: one at a time. Failure: create ERROR_MEMORY, ERROR_INVALID; arrived and credit_returned
 * ERROR_CONTRACT for messages that cannot be; wrong calls by the own program assert.
 */
#ifndef TROUPE_SCHEDULER_ENGINE_H
#define TROUPE_SCHEDULER_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/status.h"
#include "scheduler/graph.h"
#include "scheduler/graph_index.h"
#include "scheduler/order.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_engine troupe_engine;

enum {
    TROUPE_REDUCTIONS_AHEAD = 2, /* firings of one reduction unfinished on a rank */
    TROUPE_TICKETS_OVER = 4,     /* tickets beyond look_ahead, see below */
};

struct troupe_engine_options {
    int conductor;                          /* names the island, see troupe_graph_conductors */
    const struct troupe_graph_index *index; /* of the graph, to share; NULL: makes its own */
    /* A gang gets tickets while one of its members has fewer than so many unfinished; the others
     * may then hold up to TROUPE_TICKETS_OVER more: so a large gang has its place in their queues
     * before they take up other work. 0: 2. */
    int look_ahead;
    const struct troupe_order_policy *order; /* NULL: fifo */
    const troupe_engine *peer; /* an engine of the same simulation (graph, order, costs, thread), so
                                  that policies plan once for all; NULL: none */
    const struct troupe_costs *costs; /* for policies that plan ahead; NULL: not known */
    /* Members (bit i: member i) of the consuming gang that receive something of this message and
     * will report it; 0: zero rows, the message counts as arrived, takes no credit and is never
     * reported. Must say the same on every rank. Called by begin_step only, for each edge of the
     * island and microbatch. NULL: all members, always; so it is for methods without steps. */
    uint64_t (*receivers)(void *arg, int edge, int64_t step, int microbatch);
    void *arg;
};

struct troupe_ticket {
    uint64_t sequence; /* 0, 1, 2, ... in this island */
    int method;
    int gang;
    int64_t firing; /* step * firings + microbatch */
    int64_t step;   /* of a method without steps: the firing */
    int microbatch; /* of a method without steps: 0 */
    int slot;       /* the activation slot of this microbatch, < slots; 0 where there is no pool */
};

troupe_status troupe_engine_create(const struct troupe_graph *graph,
                                   const struct troupe_engine_options *options,
                                   troupe_engine **out);
/* Accepts NULL. */
void troupe_engine_destroy(troupe_engine *engine);

/* Lets the methods with steps fire once more through a step. The first step may be any (a resumed
 * run); then one after the other, each when the one before is all issued. ERROR_CONTRACT for
 * messages that came ahead of the step to members that do not receive them. */
troupe_status troupe_engine_begin_step(troupe_engine *engine, int64_t step);

/* Member `member` of the consuming gang holds all it receives of the message. Only needed for edges
 * that are strict or come from outside the island; others are ignored. */
troupe_status troupe_engine_arrived(troupe_engine *engine, int edge, int64_t firing, int member);
/* The consumer, outside the island, has taken one message of the edge (its ticket is issued). */
troupe_status troupe_engine_credit_returned(troupe_engine *engine, int edge);
/* Member `member` has finished the task; in the reduction lane: the collective has completed. */
void troupe_engine_done(troupe_engine *engine, int method, int64_t firing, int member);

/* The next ticket, or TROUPE_AGAIN when nothing may be issued before the next event. */
troupe_status troupe_engine_next(troupe_engine *engine, struct troupe_ticket *out);

/* Whether all methods with steps have been issued, or also done by all members, as often as the
 * steps begun so far ask for. */
bool troupe_engine_step_issued(const troupe_engine *engine);
bool troupe_engine_step_done(const troupe_engine *engine);

/* What the order policy has chosen to follow in this step (order.h), NULL: nothing but itself. */
const char *troupe_engine_choice(const troupe_engine *engine);

/* Both ends are in this island: its credits return by themselves, and unless it is strict its
 * arrivals need no report. */
bool troupe_engine_edge_is_local(const troupe_engine *engine, int edge);

/* What the next firing of a method waits for: the first thing that is missing. */
enum troupe_engine_wait_kind {
    TROUPE_WAIT_FOR_NOTHING,    /* it can be issued: the order policy holds it back */
    TROUPE_WAIT_FOR_STEP,       /* all firings of the steps begun are issued */
    TROUPE_WAIT_FOR_AFTER,      /* index: a method of the same gang */
    TROUPE_WAIT_FOR_INPUT,      /* index: an edge */
    TROUPE_WAIT_FOR_CREDIT,     /* index: an edge */
    TROUPE_WAIT_FOR_SLOT,       /* index: the gang, whose pool is empty */
    TROUPE_WAIT_FOR_MEMORY,     /* index: a rank whose budget is used up */
    TROUPE_WAIT_FOR_LANE,       /* index: a rank whose next reduction is another */
    TROUPE_WAIT_FOR_LOOK_AHEAD, /* index: a rank that has enough unfinished tickets */
};
struct troupe_engine_wait {
    enum troupe_engine_wait_kind kind;
    int index;
};
struct troupe_engine_wait troupe_engine_wait_of(const troupe_engine *engine, int method);
/* For an input that counts by its arrival: members of the consuming gang that have not reported the
 * message that the consumer's next firing needs. */
uint64_t troupe_engine_missing_members(const troupe_engine *engine, int edge);

/* How far a method of the island is, and what holds it up. */
struct troupe_engine_standing {
    struct troupe_engine_wait wait; /* of its next firing */
    int64_t issued;                 /* its next firing */
    int64_t done;                   /* firings done by the member that has done the least */
    int late_rank;                  /* of that member */
    int missing_rank; /* an input that counts by its arrival: a rank without it; else -1 */
    int in_flight;    /* a credit: messages that hold one */
    bool held;        /* the order policy wants none of its gang's methods now */
};
struct troupe_engine_standing troupe_engine_standing_of(const troupe_engine *engine, int method);

/* For the diagnosis of a stall: says, one line a method with something left to fire, the first
 * thing it waits for ("llm stage 0 dp 1 forward 3 waits for vision -> llm: rank 2 has not reported
 * it"), and which tickets are not done. */
void troupe_engine_explain(const troupe_engine *engine, void (*line)(void *arg, const char *text),
                           void *arg);

#ifdef __cplusplus
}
#endif
#endif
