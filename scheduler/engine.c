/* SPDX-License-Identifier: Apache-2.0 */
/* The engine: counters per method, edge, pool and rank, and one function, find_wait, that says
 * whether a firing may be issued and if not, why. Issuing and explaining both rest on it. */
#include "scheduler/engine.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/check.h"
#include "runtime/memory.h"
#include "scheduler/order_internal.h"

/* The fuzzer also compiles this file with one rule broken at a time, and must notice
 * (tests/fuzz/engine_fuzz.c). In the library none is. */
enum { BROKEN_NOTHING, BROKEN_CREDIT, BROKEN_SEQUENCE, BROKEN_POOL };
#ifndef TROUPE_ENGINE_BROKEN
#define TROUPE_ENGINE_BROKEN BROKEN_NOTHING
#endif

enum { LOOK_AHEAD_DEFAULT = 2 };

/* Indices edges[begin..end) of one direction of a method. */
struct range {
    int begin;
    int end;
};

struct method_state {
    int64_t issued;   /* firings issued, counted over all steps: the next firing */
    int64_t limit;    /* firings allowed: those of the steps begun */
    int64_t *done;    /* by member: firings finished */
    uint64_t ready;   /* moment it became a candidate; 0 while it is none */
    bool here;        /* its gang is in this island */
    bool skipped_one; /* BROKEN_SEQUENCE: firing issued + 1 has gone ahead of firing issued */
    struct range inputs;
    struct range outputs;
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

struct pool_state {
    int limit; /* of the gang's slots and the policy's in_flight, the lesser */
    int taken;
};

struct rank_state {
    int outstanding; /* tickets issued and not done, reductions not counted */
    int *lane;       /* its reduction methods in lane order */
    int lane_count;
    int lane_next; /* index in lane of the next to be posted */
};

struct troupe_engine {
    const struct troupe_graph *graph;
    struct troupe_engine_options options;
    uint64_t moment; /* counts calls of next; stamps candidates */
    uint64_t sequence;
    int64_t step; /* the latest begun; -1 before the first */
    struct method_state *methods;
    struct edge_state *edges;
    struct pool_state *pools; /* by gang */
    struct rank_state *ranks;
    void *order_state;
    int *inputs;  /* edge indices grouped by consuming method */
    int *outputs; /* edge indices grouped by producing method */
    int *issued_in_step;
    int *here; /* methods of the island, ascending */
    int here_count;
    struct troupe_candidate *candidates;
    int64_t *done_memory; /* backs methods[].done */
    int *lane_memory;     /* backs ranks[].lane */
    uint64_t *receivers_memory;
    struct message *messages_memory;
};

/* ---- creation ---- */

static const struct troupe_gang *gang_of(const struct troupe_engine *engine, int method) {
    return &engine->graph->gangs[engine->graph->methods[method].gang];
}

static int slots_limit(const struct troupe_engine *engine, int gang) {
    int slots = engine->graph->gangs[gang].slots;
    int wanted = engine->options.order->in_flight(engine->order_state, engine->graph, gang);
    TROUPE_ASSERT(wanted >= 1, "order policy %s allows gang %d %d microbatches in flight",
                  engine->options.order->name, gang, wanted);
    return wanted < slots ? wanted : slots;
}

static troupe_status make_islands(struct troupe_engine *engine) {
    const struct troupe_graph *graph = engine->graph;
    int *conductor_of = NULL;
    TROUPE_TRY(TROUPE_NEW(&conductor_of, graph->rank_count));
    troupe_graph_conductors(graph, conductor_of);
    int conductor = engine->options.conductor;
    bool is_conductor =
        conductor >= 0 && conductor < graph->rank_count && conductor_of[conductor] == conductor;
    for (int m = 0; is_conductor && m < graph->method_count; m++) {
        if (conductor_of[gang_of(engine, m)->ranks[0]] == conductor) {
            engine->methods[m].here = true;
            engine->here[engine->here_count++] = m;
        }
    }
    troupe_free(conductor_of);
    if (!is_conductor) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "rank %d conducts no island; an island's conductor is its lowest rank",
                           conductor);
    }
    return TROUPE_OK;
}

static troupe_status make_methods(struct troupe_engine *engine) {
    const struct troupe_graph *graph = engine->graph;
    int members = 0;
    for (int m = 0; m < graph->method_count; m++) {
        members += gang_of(engine, m)->rank_count;
    }
    TROUPE_TRY(TROUPE_NEW(&engine->done_memory, members));
    int64_t *done = engine->done_memory;
    for (int m = 0; m < graph->method_count; m++) {
        engine->methods[m].done = done;
        engine->methods[m].limit = graph->methods[m].firings == 0 ? INT64_MAX : 0;
        done += gang_of(engine, m)->rank_count;
    }
    for (int g = 0; g < graph->gang_count; g++) {
        engine->pools[g].limit = slots_limit(engine, g);
    }
    return TROUPE_OK;
}

/* Fills `sorted` with the edges grouped by the method at one end, and each method's range. */
static void group_edges(struct troupe_engine *engine, bool inputs) {
    const struct troupe_graph *graph = engine->graph;
    int *sorted = inputs ? engine->inputs : engine->outputs;
    int count = 0;
    for (int m = 0; m < graph->method_count; m++) {
        struct range *range = inputs ? &engine->methods[m].inputs : &engine->methods[m].outputs;
        range->begin = count;
        if (engine->methods[m].here) {
            for (int e = 0; e < graph->edge_count; e++) {
                if ((inputs ? graph->edges[e].to : graph->edges[e].from) == m) {
                    sorted[count++] = e;
                }
            }
        }
        range->end = count;
    }
}

/* Initial messages are never empty, so that a message of the next step is never asked about. */
static bool edge_may_be_empty(const struct troupe_engine *engine, const struct troupe_edge *edge) {
    return engine->options.receivers != NULL && edge->initial == 0 &&
           engine->graph->methods[edge->to].firings > 0;
}

static troupe_status make_edges(struct troupe_engine *engine) {
    const struct troupe_graph *graph = engine->graph;
    int messages = 0, receivers = 0;
    for (int e = 0; e < graph->edge_count; e++) {
        messages += graph->edges[e].credits;
        receivers += graph->methods[graph->edges[e].to].firings;
    }
    TROUPE_TRY(TROUPE_NEW(&engine->messages_memory, messages));
    TROUPE_TRY(TROUPE_NEW(&engine->receivers_memory, receivers));
    messages = receivers = 0;
    for (int e = 0; e < graph->edge_count; e++) {
        const struct troupe_edge *edge = &graph->edges[e];
        struct edge_state *state = &engine->edges[e];
        state->has_consumer = engine->methods[edge->to].here;
        state->has_producer = engine->methods[edge->from].here;
        state->strict = edge->strict || graph->methods[edge->from].lane == TROUPE_LANE_REDUCTION;
        state->in_flight = edge->initial;
        state->initial_end = edge->initial;
        state->everyone =
            UINT64_MAX >> (TROUPE_GANG_RANKS_MAX - gang_of(engine, edge->to)->rank_count);
        state->messages = engine->messages_memory + messages;
        messages += edge->credits;
        if (edge_may_be_empty(engine, edge)) {
            state->receivers = engine->receivers_memory + receivers;
            receivers += graph->methods[edge->to].firings;
        }
    }
    group_edges(engine, true);
    group_edges(engine, false);
    return TROUPE_OK;
}

/* Inserts the method into the rank's lane, which stays in ascending lane order. */
static void insert_in_lane(const struct troupe_engine *engine, struct rank_state *rank,
                           int method) {
    const struct troupe_method *methods = engine->graph->methods;
    int i = rank->lane_count++;
    for (; i > 0 && methods[rank->lane[i - 1]].lane_order > methods[method].lane_order; i--) {
        rank->lane[i] = rank->lane[i - 1];
    }
    rank->lane[i] = method;
}

static bool in_reduction_lane(const struct troupe_engine *engine, int method) {
    return engine->graph->methods[method].lane == TROUPE_LANE_REDUCTION;
}

static troupe_status make_lanes(struct troupe_engine *engine) {
    int total = 0;
    for (int pass = 0; pass < 2; pass++) { /* count, then fill */
        for (int i = 0; i < engine->here_count; i++) {
            int m = engine->here[i];
            for (int k = 0; in_reduction_lane(engine, m) && k < gang_of(engine, m)->rank_count;
                 k++) {
                struct rank_state *rank = &engine->ranks[gang_of(engine, m)->ranks[k]];
                if (pass == 0) {
                    rank->lane_count++;
                    total++;
                } else {
                    insert_in_lane(engine, rank, m);
                }
            }
        }
        if (pass == 0) {
            TROUPE_TRY(TROUPE_NEW(&engine->lane_memory, total));
            int *lane = engine->lane_memory;
            for (int r = 0; r < engine->graph->rank_count; r++) {
                engine->ranks[r].lane = lane;
                lane += engine->ranks[r].lane_count;
                engine->ranks[r].lane_count = 0;
            }
        }
    }
    return TROUPE_OK;
}

troupe_status troupe_engine_create(const struct troupe_graph *graph,
                                   const struct troupe_engine_options *options,
                                   troupe_engine **out) {
    troupe_status status = TROUPE_OK;
    troupe_engine *engine = NULL;
    TROUPE_TRY(TROUPE_NEW(&engine, 1));
    engine->graph = graph;
    engine->options = *options;
    engine->step = -1;
    if (engine->options.look_ahead < 1) {
        engine->options.look_ahead = LOOK_AHEAD_DEFAULT;
    }
    if (engine->options.order == NULL) {
        engine->options.order = &troupe_order_fifo;
    }
    TROUPE_TRY_FAIL(TROUPE_NEW(&engine->methods, graph->method_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&engine->edges, graph->edge_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&engine->pools, graph->gang_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&engine->ranks, graph->rank_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&engine->inputs, graph->edge_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&engine->outputs, graph->edge_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&engine->issued_in_step, graph->method_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&engine->here, graph->method_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&engine->candidates, graph->method_count));
    const struct troupe_order_setting setting = {
        .graph = graph, .conductor = options->conductor, .costs = options->costs};
    TROUPE_TRY_FAIL(engine->options.order->create(&setting, &engine->order_state));
    TROUPE_TRY_FAIL(make_islands(engine));
    TROUPE_TRY_FAIL(make_methods(engine));
    TROUPE_TRY_FAIL(make_edges(engine));
    TROUPE_TRY_FAIL(make_lanes(engine));
    *out = engine;
    return TROUPE_OK;
fail:
    troupe_engine_destroy(engine);
    return status;
}

void troupe_engine_destroy(troupe_engine *engine) {
    if (engine == NULL) {
        return;
    }
    engine->options.order->destroy(engine->order_state);
    troupe_free(engine->methods);
    troupe_free(engine->edges);
    troupe_free(engine->pools);
    troupe_free(engine->ranks);
    troupe_free(engine->inputs);
    troupe_free(engine->outputs);
    troupe_free(engine->issued_in_step);
    troupe_free(engine->here);
    troupe_free(engine->candidates);
    troupe_free(engine->done_memory);
    troupe_free(engine->lane_memory);
    troupe_free(engine->receivers_memory);
    troupe_free(engine->messages_memory);
    troupe_free(engine);
}

/* ---- state ---- */

static int64_t step_of(const struct troupe_engine *engine, int method, int64_t firing) {
    int firings = engine->graph->methods[method].firings;
    return firings > 0 ? firing / firings : firing;
}

static int microbatch_of(const struct troupe_engine *engine, int method, int64_t firing) {
    int firings = engine->graph->methods[method].firings;
    return firings > 0 ? (int)(firing % firings) : 0;
}

/* Firings that all members have finished. */
static int64_t done_by_all(const struct troupe_engine *engine, int method) {
    const struct method_state *state = &engine->methods[method];
    int64_t least = state->done[0];
    for (int k = 1; k < gang_of(engine, method)->rank_count; k++) {
        least = state->done[k] < least ? state->done[k] : least;
    }
    return least;
}

/* Members that receive the message consumed by this firing, of the current step if it has one. */
static uint64_t receivers_of(const struct troupe_engine *engine, int edge, int64_t firing) {
    const struct edge_state *state = &engine->edges[edge];
    if (state->receivers == NULL) {
        return state->everyone;
    }
    return state->receivers[microbatch_of(engine, engine->graph->edges[edge].to, firing)];
}

/* The entry of the message, or the first free one, or NULL. */
static struct message *find_message(const struct troupe_engine *engine, int edge, int64_t firing) {
    struct message *messages = engine->edges[edge].messages, *unused = NULL;
    for (int i = 0; i < engine->graph->edges[edge].credits; i++) {
        if (messages[i].reported != 0 && messages[i].firing == firing) {
            return &messages[i];
        }
        if (messages[i].reported == 0 && unused == NULL) {
            unused = &messages[i];
        }
    }
    return unused;
}

/* Local edges are ordered by the tickets of this island. */
static bool is_local(const struct edge_state *edge) {
    return edge->has_consumer && edge->has_producer;
}

/* Its messages count by their arrival, not by the issue of their producer. */
static bool counts_arrivals(const struct edge_state *edge) {
    return edge->strict || !is_local(edge);
}

static bool input_is_ready(const struct troupe_engine *engine, int edge, int64_t firing) {
    const struct edge_state *state = &engine->edges[edge];
    uint64_t receivers = receivers_of(engine, edge, firing);
    if (receivers == 0 || firing < state->initial_end) {
        return true;
    }
    if (counts_arrivals(state)) {
        const struct message *message = find_message(engine, edge, firing);
        return message != NULL && message->reported == receivers;
    }
    const struct troupe_edge *plan = &engine->graph->edges[edge];
    return engine->methods[plan->from].issued + plan->initial > firing;
}

static bool after_is_met(const struct troupe_engine *engine, int method, int before,
                         int64_t firing) {
    int firings = engine->graph->methods[before].firings;
    bool equal = firings == engine->graph->methods[method].firings;
    int64_t need = equal ? firing + 1 : (step_of(engine, method, firing) + 1) * firings;
    return need <= (in_reduction_lane(engine, before) ? done_by_all(engine, before)
                                                      : engine->methods[before].issued);
}

/* The pool of a gang is its own. */
static struct pool_state *pool_of(const struct troupe_engine *engine, int gang) {
    if (TROUPE_ENGINE_BROKEN == BROKEN_POOL) {
        gang = engine->graph->methods[engine->here[0]].gang;
    }
    return &engine->pools[gang];
}

/* Tickets that count against what a rank may hold of this method's lane. */
static int64_t unfinished_of(const struct troupe_engine *engine, int method, int member) {
    const struct method_state *state = &engine->methods[method];
    return in_reduction_lane(engine, method)
               ? state->issued - state->done[member]
               : engine->ranks[gang_of(engine, method)->ranks[member]].outstanding;
}

static struct troupe_engine_wait find_rank_wait(const struct troupe_engine *engine, int method) {
    const struct troupe_gang *gang = gang_of(engine, method);
    bool reduces = in_reduction_lane(engine, method);
    int most = reduces ? TROUPE_REDUCTIONS_AHEAD : engine->options.look_ahead;
    for (int k = 0; k < gang->rank_count; k++) {
        const struct rank_state *rank = &engine->ranks[gang->ranks[k]];
        if (reduces && rank->lane[rank->lane_next] != method) {
            return (struct troupe_engine_wait){TROUPE_WAIT_FOR_LANE, gang->ranks[k]};
        }
        if (unfinished_of(engine, method, k) >= most) {
            return (struct troupe_engine_wait){TROUPE_WAIT_FOR_LOOK_AHEAD, k};
        }
    }
    return (struct troupe_engine_wait){TROUPE_WAIT_FOR_NOTHING, 0};
}

/* The issue rule: the first thing that this firing still has to wait for. */
static struct troupe_engine_wait find_wait(const struct troupe_engine *engine, int method,
                                           int64_t firing) {
    const struct troupe_method *plan = &engine->graph->methods[method];
    const struct method_state *state = &engine->methods[method];
    if (firing >= state->limit) {
        return (struct troupe_engine_wait){TROUPE_WAIT_FOR_STEP, 0};
    }
    for (int i = 0; i < plan->after_count; i++) {
        if (!after_is_met(engine, method, plan->after[i], firing)) {
            return (struct troupe_engine_wait){TROUPE_WAIT_FOR_AFTER, plan->after[i]};
        }
    }
    for (int i = state->inputs.begin; i < state->inputs.end; i++) {
        if (!input_is_ready(engine, engine->inputs[i], firing)) {
            return (struct troupe_engine_wait){TROUPE_WAIT_FOR_INPUT, engine->inputs[i]};
        }
    }
    for (int i = state->outputs.begin; i < state->outputs.end; i++) {
        int e = engine->outputs[i];
        const struct troupe_edge *edge = &engine->graph->edges[e];
        if (engine->edges[e].in_flight >= edge->credits &&
            receivers_of(engine, e, firing + edge->initial) != 0) {
            return (struct troupe_engine_wait){TROUPE_WAIT_FOR_CREDIT, e};
        }
    }
    const struct pool_state *pool = pool_of(engine, plan->gang);
    if (plan->slot_take && pool->taken >= pool->limit) {
        return (struct troupe_engine_wait){TROUPE_WAIT_FOR_SLOT, 0};
    }
    return find_rank_wait(engine, method);
}

/* ---- events ---- */

bool troupe_engine_step_issued(const troupe_engine *engine) {
    for (int i = 0; i < engine->here_count; i++) {
        int m = engine->here[i];
        if (engine->graph->methods[m].firings > 0 &&
            engine->methods[m].issued < engine->methods[m].limit) {
            return false;
        }
    }
    return true;
}

bool troupe_engine_step_done(const troupe_engine *engine) {
    for (int i = 0; i < engine->here_count; i++) {
        int m = engine->here[i];
        if (engine->graph->methods[m].firings > 0 &&
            done_by_all(engine, m) < engine->methods[m].limit) {
            return false;
        }
    }
    return true;
}

/* A run that begins at a later step counts as if the ones before had been done. */
static void skip_to_step(struct troupe_engine *engine, int64_t step) {
    for (int i = 0; i < engine->here_count; i++) {
        int m = engine->here[i];
        int64_t firings = step * engine->graph->methods[m].firings;
        engine->methods[m].issued += firings;
        for (int k = 0; k < gang_of(engine, m)->rank_count; k++) {
            engine->methods[m].done[k] += firings;
        }
    }
    for (int e = 0; e < engine->graph->edge_count; e++) {
        int to = engine->graph->edges[e].to;
        engine->edges[e].initial_end += step * engine->graph->methods[to].firings;
    }
}

static void ask_receivers(struct troupe_engine *engine) {
    for (int e = 0; e < engine->graph->edge_count; e++) {
        struct edge_state *state = &engine->edges[e];
        int firings = engine->graph->methods[engine->graph->edges[e].to].firings;
        if (state->receivers == NULL || (!state->has_consumer && !state->has_producer)) {
            continue;
        }
        for (int k = 0; k < firings; k++) {
            uint64_t members = engine->options.receivers(engine->options.arg, e, engine->step, k);
            TROUPE_ASSERT((members & ~state->everyone) == 0,
                          "edge %s: receivers 0x%" PRIx64 " of a gang with members 0x%" PRIx64,
                          engine->graph->edges[e].name, members, state->everyone);
            state->receivers[k] = members;
        }
    }
}

void troupe_engine_begin_step(troupe_engine *engine, int64_t step) {
    TROUPE_ASSERT(step >= 0 && (engine->step < 0 || step == engine->step + 1),
                  "step %" PRId64 " after step %" PRId64, step, engine->step);
    TROUPE_ASSERT(troupe_engine_step_issued(engine),
                  "step %" PRId64 " begins before step %" PRId64 " is issued", step, engine->step);
    if (engine->step < 0) {
        skip_to_step(engine, step);
    }
    engine->step = step;
    for (int i = 0; i < engine->here_count; i++) {
        int m = engine->here[i];
        if (engine->graph->methods[m].firings > 0) {
            engine->methods[m].limit = (step + 1) * engine->graph->methods[m].firings;
            engine->issued_in_step[m] = 0;
        }
    }
    ask_receivers(engine);
    engine->options.order->begin_step(engine->order_state, step);
}

troupe_status troupe_engine_arrived(troupe_engine *engine, int edge, int64_t firing, int member) {
    struct edge_state *state = &engine->edges[edge];
    const struct troupe_edge *plan = &engine->graph->edges[edge];
    TROUPE_ASSERT(state->has_consumer, "edge %s is not consumed in this island", plan->name);
    if (!counts_arrivals(state)) {
        return TROUPE_OK;
    }
    const struct method_state *consumer = &engine->methods[plan->to];
    uint64_t bit = member >= 0 && member < TROUPE_GANG_RANKS_MAX ? UINT64_C(1) << member : 0;
    bool is_current = firing < consumer->limit; /* what this step's messages are is known */
    uint64_t expected = is_current ? receivers_of(engine, edge, firing) : state->everyone;
    struct message *message = find_message(engine, edge, firing);
    if ((bit & expected) == 0 || firing < consumer->issued || message == NULL ||
        (message->reported & bit) != 0) {
        return troupe_fail(TROUPE_ERROR_CONTRACT,
                           "edge %s: member %d reports message %" PRId64 " of step %" PRId64
                           ", which is empty, not its own, or more than the %d "
                           "credits allow; do both sides have the same plan?",
                           plan->name, member, firing, step_of(engine, plan->to, firing),
                           plan->credits);
    }
    message->firing = firing;
    message->reported |= bit;
    return TROUPE_OK;
}

static void change_credits(struct edge_state *edge, int by) {
    if (TROUPE_ENGINE_BROKEN != BROKEN_CREDIT) {
        edge->in_flight += by;
    }
}

troupe_status troupe_engine_credit_returned(troupe_engine *engine, int edge) {
    struct edge_state *state = &engine->edges[edge];
    TROUPE_ASSERT(state->has_producer && !state->has_consumer,
                  "edge %s returns its credits by itself, or to another island",
                  engine->graph->edges[edge].name);
    if (state->in_flight == 0 && TROUPE_ENGINE_BROKEN != BROKEN_CREDIT) {
        return troupe_fail(TROUPE_ERROR_CONTRACT,
                           "edge %s: a credit came back that was not taken; do both sides agree on "
                           "the empty messages?",
                           engine->graph->edges[edge].name);
    }
    change_credits(state, -1);
    return TROUPE_OK;
}

void troupe_engine_done(troupe_engine *engine, int method, int64_t firing, int member) {
    struct method_state *state = &engine->methods[method];
    const struct troupe_gang *gang = gang_of(engine, method);
    TROUPE_ASSERT(state->here && member >= 0 && member < gang->rank_count,
                  "%s %s has no member %d here", gang->name, engine->graph->methods[method].name,
                  member);
    TROUPE_ASSERT(firing == state->done[member],
                  "%s %s: member %d has done firing %" PRId64 ", but %" PRId64 " comes first",
                  gang->name, engine->graph->methods[method].name, member, firing,
                  state->done[member]);
    state->done[member]++;
    if (!in_reduction_lane(engine, method)) {
        engine->ranks[gang->ranks[member]].outstanding--;
    }
}

/* ---- decisions ---- */

/* Takes and returns what the firing needs and frees. */
static void issue(struct troupe_engine *engine, int method, int64_t firing) {
    const struct troupe_method *plan = &engine->graph->methods[method];
    struct method_state *state = &engine->methods[method];
    for (int i = state->inputs.begin; i < state->inputs.end; i++) {
        struct edge_state *edge = &engine->edges[engine->inputs[i]];
        if (receivers_of(engine, engine->inputs[i], firing) == 0) {
            continue;
        }
        if (is_local(edge)) {
            change_credits(edge, -1);
        }
        if (counts_arrivals(edge) && firing >= edge->initial_end) {
            find_message(engine, engine->inputs[i], firing)->reported = 0;
        }
    }
    for (int i = state->outputs.begin; i < state->outputs.end; i++) {
        int e = engine->outputs[i];
        if (receivers_of(engine, e, firing + engine->graph->edges[e].initial) != 0) {
            change_credits(&engine->edges[e], 1);
        }
    }
    pool_of(engine, plan->gang)->taken += plan->slot_take - plan->slot_return;
    const struct troupe_gang *gang = gang_of(engine, method);
    for (int k = 0; k < gang->rank_count; k++) {
        struct rank_state *rank = &engine->ranks[gang->ranks[k]];
        if (in_reduction_lane(engine, method)) {
            rank->lane_next = (rank->lane_next + 1) % rank->lane_count;
        } else {
            rank->outstanding++;
        }
    }
}

/* The firing that comes next: always the lowest not yet issued. */
static int64_t next_firing(const struct troupe_engine *engine, int method) {
    const struct method_state *state = &engine->methods[method];
    if (TROUPE_ENGINE_BROKEN == BROKEN_SEQUENCE && !state->skipped_one &&
        find_wait(engine, method, state->issued).kind == TROUPE_WAIT_FOR_INPUT &&
        find_wait(engine, method, state->issued + 1).kind == TROUPE_WAIT_FOR_NOTHING) {
        return state->issued + 1;
    }
    return state->issued;
}

static void count_issued(struct method_state *state, int64_t firing) {
    if (firing != state->issued) {
        state->skipped_one = true;
    } else {
        state->issued += 1 + state->skipped_one;
        state->skipped_one = false;
    }
}

/* Whether a rank that gets this ticket now may have to wait for one that is not done. */
static bool has_unfinished_input(const struct troupe_engine *engine, int method, int64_t firing) {
    const struct method_state *state = &engine->methods[method];
    for (int i = state->inputs.begin; i < state->inputs.end; i++) {
        int e = engine->inputs[i];
        const struct troupe_edge *edge = &engine->graph->edges[e];
        if (!counts_arrivals(&engine->edges[e]) && receivers_of(engine, e, firing) != 0 &&
            done_by_all(engine, edge->from) + edge->initial <= firing) {
            return true;
        }
    }
    return false;
}

static int collect_candidates(struct troupe_engine *engine) {
    int count = 0;
    engine->moment++;
    for (int i = 0; i < engine->here_count; i++) {
        int m = engine->here[i];
        struct method_state *state = &engine->methods[m];
        int64_t firing = next_firing(engine, m);
        if (find_wait(engine, m, firing).kind != TROUPE_WAIT_FOR_NOTHING) {
            state->ready = 0;
            continue;
        }
        state->ready = state->ready != 0 ? state->ready : engine->moment;
        engine->candidates[count++] =
            (struct troupe_candidate){.method = m,
                                      .microbatch = microbatch_of(engine, m, firing),
                                      .waits = has_unfinished_input(engine, m, firing),
                                      .ready = state->ready};
    }
    return count;
}

troupe_status troupe_engine_next(troupe_engine *engine, struct troupe_ticket *out) {
    int count = collect_candidates(engine);
    if (count == 0) {
        return TROUPE_AGAIN;
    }
    const struct troupe_order_view view = {.graph = engine->graph,
                                           .issued = engine->issued_in_step};
    int choice = engine->options.order->pick(engine->order_state, &view, engine->candidates, count);
    if (choice == TROUPE_ORDER_HOLD) {
        return TROUPE_AGAIN;
    }
    TROUPE_ASSERT(choice >= 0 && choice < count, "order policy %s picked %d of %d candidates",
                  engine->options.order->name, choice, count);
    int method = engine->candidates[choice].method;
    const struct troupe_method *plan = &engine->graph->methods[method];
    struct method_state *state = &engine->methods[method];
    int64_t firing = next_firing(engine, method);
    int slots = engine->graph->gangs[plan->gang].slots;
    *out = (struct troupe_ticket){
        .sequence = engine->sequence++,
        .method = method,
        .gang = plan->gang,
        .firing = firing,
        .step = step_of(engine, method, firing),
        .microbatch = microbatch_of(engine, method, firing),
        .slot = slots > 0 ? (int)(firing % slots) : 0,
    };
    issue(engine, method, firing);
    count_issued(state, firing);
    state->ready = 0;
    engine->issued_in_step[method] += plan->firings > 0;
    return TROUPE_OK;
}

bool troupe_engine_edge_is_local(const troupe_engine *engine, int edge) {
    return is_local(&engine->edges[edge]);
}

/* ---- diagnosis ---- */

struct troupe_engine_wait troupe_engine_wait_of(const troupe_engine *engine, int method) {
    return find_wait(engine, method, engine->methods[method].issued);
}

/* The first rank that has not reported the message. */
static int rank_not_reporting(const struct troupe_engine *engine, int edge, int64_t firing) {
    const struct message *message = find_message(engine, edge, firing);
    uint64_t missing = receivers_of(engine, edge, firing);
    if (message != NULL && message->firing == firing) {
        missing &= ~message->reported;
    }
    return gang_of(engine, engine->graph->edges[edge].to)->ranks[__builtin_ctzll(missing)];
}

static void describe_wait(const struct troupe_engine *engine, int method,
                          struct troupe_engine_wait wait, char *text, size_t bytes) {
    const struct troupe_graph *graph = engine->graph;
    int64_t firing = engine->methods[method].issued;
    switch (wait.kind) {
    case TROUPE_WAIT_FOR_INPUT:
        if (counts_arrivals(&engine->edges[wait.index])) {
            snprintf(text, bytes, "waits for input %s: rank %d has not reported it",
                     graph->edges[wait.index].name, rank_not_reporting(engine, wait.index, firing));
        } else {
            int from = graph->edges[wait.index].from;
            snprintf(text, bytes, "waits for input %s: %s %s has not been issued",
                     graph->edges[wait.index].name, gang_of(engine, from)->name,
                     graph->methods[from].name);
        }
        return;
    case TROUPE_WAIT_FOR_AFTER:
        snprintf(text, bytes, "waits until %s is %s", graph->methods[wait.index].name,
                 in_reduction_lane(engine, wait.index) ? "done" : "issued");
        return;
    case TROUPE_WAIT_FOR_CREDIT:
        snprintf(text, bytes, "waits for a credit on %s: %s %s has to take one of %d messages",
                 graph->edges[wait.index].name, gang_of(engine, graph->edges[wait.index].to)->name,
                 graph->methods[graph->edges[wait.index].to].name,
                 graph->edges[wait.index].credits);
        return;
    case TROUPE_WAIT_FOR_MEMORY:
        snprintf(text, bytes, "waits for activation memory of rank %d", wait.index);
        return;
    case TROUPE_WAIT_FOR_SLOT:
        snprintf(text, bytes, "waits for one of %d activation slots",
                 pool_of(engine, graph->methods[method].gang)->limit);
        return;
    case TROUPE_WAIT_FOR_LANE:
        snprintf(text, bytes, "waits for its turn in the reduction lane of rank %d", wait.index);
        return;
    case TROUPE_WAIT_FOR_LOOK_AHEAD:
        snprintf(text, bytes, "waits for rank %d, which has not finished %d tickets",
                 gang_of(engine, method)->ranks[wait.index],
                 (int)unfinished_of(engine, method, wait.index));
        return;
    case TROUPE_WAIT_FOR_NOTHING:
    case TROUPE_WAIT_FOR_STEP:
        break;
    }
    snprintf(text, bytes, "can be issued");
}

static void explain_issue(const struct troupe_engine *engine, int method,
                          void (*line)(void *arg, const char *text), void *arg) {
    int64_t firing = engine->methods[method].issued;
    struct troupe_engine_wait wait = find_wait(engine, method, firing);
    if (wait.kind == TROUPE_WAIT_FOR_STEP) {
        return;
    }
    char reason[256], text[512];
    describe_wait(engine, method, wait, reason, sizeof reason);
    snprintf(text, sizeof text, "%s %s %d of step %" PRId64 " %s", gang_of(engine, method)->name,
             engine->graph->methods[method].name, microbatch_of(engine, method, firing),
             step_of(engine, method, firing), reason);
    line(arg, text);
}

static void explain_done(const struct troupe_engine *engine, int method,
                         void (*line)(void *arg, const char *text), void *arg) {
    const struct method_state *state = &engine->methods[method];
    const struct troupe_gang *gang = gang_of(engine, method);
    for (int k = 0; k < gang->rank_count; k++) {
        if (state->done[k] < state->issued) {
            char text[512];
            snprintf(text, sizeof text,
                     "%s %s %d of step %" PRId64 " is issued but not done on rank %d", gang->name,
                     engine->graph->methods[method].name,
                     microbatch_of(engine, method, state->done[k]),
                     step_of(engine, method, state->done[k]), gang->ranks[k]);
            line(arg, text);
        }
    }
}

void troupe_engine_explain(const troupe_engine *engine, void (*line)(void *arg, const char *text),
                           void *arg) {
    for (int i = 0; i < engine->here_count; i++) {
        explain_issue(engine, engine->here[i], line, arg);
        explain_done(engine, engine->here[i], line, arg);
    }
}
