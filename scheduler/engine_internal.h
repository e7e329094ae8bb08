/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the engine share: its state.
 *
 *     engine_make.c     creation: all state of one island
 *     engine_rules.c    what a firing still has to wait for; issuing and explaining rest on it
 *     engine_ready.c    which methods can be issued now, kept up to date event by event
 *     engine.c          events in, tickets out
 *     engine_explain.c  sentences for the diagnosis
 *
 * Indices in struct members and parameters are those of the graph; arrays hold the island only and
 * are reached through the functions below. Ownership, threads, failure: as in engine.h.
 */
#ifndef TROUPE_SCHEDULER_ENGINE_INTERNAL_H
#define TROUPE_SCHEDULER_ENGINE_INTERNAL_H

#include <stddef.h>

#include "scheduler/engine.h"
#include "scheduler/graph_index.h"

/* The fuzzer also compiles these files with one rule broken at a time, and must notice
 * (tests/fuzz/engine_fuzz.c). In the library none is. */
enum { BROKEN_NOTHING, BROKEN_CREDIT, BROKEN_SEQUENCE, BROKEN_POOL, BROKEN_RESERVE };
#ifndef TROUPE_ENGINE_BROKEN
#define TROUPE_ENGINE_BROKEN BROKEN_NOTHING
#endif

enum { TROUPE_NONE = -1 };

/* Where a method is between two calls. */
enum method_place {
    PLACE_CHANGED, /* something that it waited for has changed: to be looked at by `next` */
    PLACE_WAITING, /* for `wait`, which will move it when it changes */
    PLACE_READY,   /* may be issued as far as it depends on the method alone, see gang_state */
};

struct method_state {
    int64_t issued;     /* firings issued, counted over all steps: the next firing */
    int64_t limit;      /* firings allowed: those of the steps begun */
    int64_t *done;      /* by member: firings finished */
    int64_t done_least; /* of all members */
    int done_least_count;
    uint64_t ready;   /* moment it became ready; 0 while it is not */
    bool skipped_one; /* BROKEN_SEQUENCE: firing issued + 1 has gone ahead of firing issued */
    enum method_place place;
    struct troupe_engine_wait wait;
    int next; /* method in the same list: of changed ones, or of those that wait for the same */
};

/* A message that some members of the consuming gang have reported. */
struct message {
    int64_t firing;
    uint64_t reported; /* members; 0: the entry is free */
};

struct edge_state {
    bool has_consumer; /* which ends are in this island */
    bool has_producer;
    bool strict;
    int in_flight;            /* messages that hold a credit; known where the producer is */
    int64_t initial_end;      /* consuming firings below this find an initial message */
    uint64_t everyone;        /* all members of the consuming gang */
    uint64_t *receivers;      /* by microbatch of this step; NULL: everyone */
    struct message *messages; /* as many as credits: no more can be on their way */
};

/* A gang's methods in the ticket lane can be issued only while one member has fewer than
 * `look_ahead` unfinished tickets and no member has look_ahead + TROUPE_TICKETS_OVER. */
struct gang_state {
    int limit; /* of microbatches in the pool: slots or the policy's in_flight, the lesser */
    int taken;
    int taker;                           /* the method that takes slots, or NONE */
    int busy;                            /* members with at least one unfinished ticket */
    int no_room;                         /* members with look_ahead or more */
    int stuffed;                         /* members that can take no more */
    int ready_tickets, ready_reductions; /* methods that are ready, by lane */
    bool held;                           /* the policy wants none of its ready methods now */
    bool listed;                         /* in the list of gangs with something to issue */
    int before, behind;                  /* in that list */
};

struct rank_state {
    int outstanding; /* tickets issued and not done, reductions not counted */
    int *lane;       /* its reduction methods in lane order */
    int lane_count;
    int lane_next;        /* index in lane of the next to be posted */
    int64_t memory_taken; /* bytes of slots, of each gang at least one */
};

struct troupe_engine {
    const struct troupe_graph *graph;
    const struct troupe_graph_index *index;
    struct troupe_graph_index *own_index; /* NULL: the caller's */
    struct troupe_engine_options options;
    void *order_state;
    int island;
    uint64_t moment; /* counts calls of next; stamps candidates */
    uint64_t sequence;
    int64_t step;      /* the latest begun; -1 before the first */
    int64_t to_issue;  /* firings of the steps begun */
    int64_t to_finish; /* the same, by all members */
    struct method_state *methods;
    struct edge_state *edges;
    struct gang_state *gangs;
    struct rank_state *ranks;
    int method_count, edge_count, gang_count, rank_count; /* of the island */
    const int *here_methods, *here_edges, *here_gangs, *here_ranks;
    int changed;         /* first of the methods to be looked at */
    int *watchers;       /* first method that waits, by watch, see engine_ready.c */
    int first_gang;      /* of the list of gangs with something to issue */
    int last_gang;       /* of the same */
    int held_count;      /* gangs that are held */
    int *issued_in_step; /* by method of the graph */
    struct troupe_candidate *candidates;
    int64_t *done_memory; /* backs methods[].done */
    int *lane_memory;     /* backs ranks[].lane */
    uint64_t *receivers_memory;
    struct message *messages_memory;
};

static inline struct method_state *method_at(const troupe_engine *engine, int method) {
    return &engine->methods[engine->index->place_of_method[method]];
}

static inline struct gang_state *gang_at(const troupe_engine *engine, int gang) {
    return &engine->gangs[engine->index->place_of_gang[gang]];
}

static inline struct rank_state *rank_at(const troupe_engine *engine, int rank) {
    return &engine->ranks[engine->index->place_of_rank[rank]];
}

/* An edge that this island consumes, or produces. */
static inline struct edge_state *input_at(const troupe_engine *engine, int edge) {
    return &engine->edges[engine->index->place_at_consumer[edge]];
}

static inline struct edge_state *output_at(const troupe_engine *engine, int edge) {
    return &engine->edges[engine->index->place_at_producer[edge]];
}

static inline const struct troupe_gang *gang_of(const troupe_engine *engine, int method) {
    return &engine->graph->gangs[engine->graph->methods[method].gang];
}

static inline bool in_reduction_lane(const troupe_engine *engine, int method) {
    return engine->graph->methods[method].lane == TROUPE_LANE_REDUCTION;
}

/* Local edges are ordered by the tickets of this island. */
static inline bool is_local(const struct edge_state *edge) {
    return edge->has_consumer && edge->has_producer;
}

/* Its messages count by their arrival, not by the issue of their producer. */
static inline bool counts_arrivals(const struct edge_state *edge) {
    return edge->strict || !is_local(edge);
}

static inline int64_t step_of(const troupe_engine *engine, int method, int64_t firing) {
    int firings = engine->graph->methods[method].firings;
    return firings > 0 ? firing / firings : firing;
}

static inline int microbatch_of(const troupe_engine *engine, int method, int64_t firing) {
    int firings = engine->graph->methods[method].firings;
    return firings > 0 ? (int)(firing % firings) : 0;
}

/* Members that receive the message consumed by this firing, of the current step if it has one. */
static inline uint64_t receivers_of(const troupe_engine *engine, const struct edge_state *state,
                                    int edge, int64_t firing) {
    return state->receivers == NULL
               ? state->everyone
               : state->receivers[microbatch_of(engine, engine->graph->edges[edge].to, firing)];
}

/* ---- engine.c ---- */

/* How many microbatches the policy allows each gang. */
void troupe_engine_ask_in_flight(troupe_engine *engine);

/* ---- engine_rules.c ---- */

/* The entry of the message, or the first free one, or NULL. */
struct message *troupe_engine_message(const troupe_engine *engine, int edge, int64_t firing);
/* The first thing that the firing waits for. What it says of ranks (look-ahead) of the ticket lane
 * is kept up to date by gang and asked for separately. */
struct troupe_engine_wait troupe_engine_firing_wait(const troupe_engine *engine, int method,
                                                    int64_t firing);
struct troupe_engine_wait troupe_engine_room_wait(const troupe_engine *engine, int method);
/* The firing that comes next: always the lowest not yet issued. */
int64_t troupe_engine_next_firing(const troupe_engine *engine, int method);
/* The pool of a gang is its own. */
struct gang_state *troupe_engine_pool(const troupe_engine *engine, int gang);
/* Whether the gang's slots count against the memory of its ranks. */
bool troupe_engine_counts_memory(const troupe_engine *engine, int gang);

/* ---- engine_ready.c ---- */

/* The method has to be looked at again. */
void troupe_engine_change(troupe_engine *engine, int method);
/* What the method waits for, if it is this, has changed. */
void troupe_engine_wake(troupe_engine *engine, int method, enum troupe_engine_wait_kind kind,
                        int index);
/* Wakes all that wait for this: AFTER a method, MEMORY, LANE or LOOK_AHEAD of a rank. */
void troupe_engine_wake_all(troupe_engine *engine, enum troupe_engine_wait_kind kind, int index);
int troupe_engine_watch_count(const troupe_engine *engine);
/* The rank holds `by` more tickets. */
void troupe_engine_count_tickets(troupe_engine *engine, int rank, int by);
/* Looks at all that has changed. */
void troupe_engine_settle(troupe_engine *engine);
/* Fills engine->candidates with the ready methods of the gangs that compete with `gang`. */
int troupe_engine_offer(troupe_engine *engine, int gang);
/* None of the gangs that compete with it is offered again until something changes on its ranks. */
void troupe_engine_hold(troupe_engine *engine, int gang);
/* Something has changed there: what was held may be offered again. */
void troupe_engine_release(troupe_engine *engine, int gang);

#endif
