/* SPDX-License-Identifier: Apache-2.0 */
/* What methods wait for, in words. */
#include <inttypes.h>
#include <stdio.h>

#include "scheduler/engine_internal.h"

struct troupe_engine_wait troupe_engine_wait_of(const troupe_engine *engine, int method) {
    int64_t firing = method_at(engine, method)->issued;
    struct troupe_engine_wait wait = troupe_engine_firing_wait(engine, method, firing);
    return wait.kind == TROUPE_WAIT_FOR_NOTHING ? troupe_engine_room_wait(engine, method) : wait;
}

uint64_t troupe_engine_missing_members(const troupe_engine *engine, int edge) {
    const struct edge_state *state = input_at(engine, edge);
    int64_t firing = method_at(engine, engine->graph->edges[edge].to)->issued;
    const struct message *message = troupe_engine_message(engine, edge, firing);
    uint64_t missing = receivers_of(engine, state, edge, firing);
    if (message != NULL && message->reported != 0 && message->firing == firing) {
        missing &= ~message->reported;
    }
    return missing;
}

/* The member that has done the least. */
static int late_member(const struct method_state *state, int members) {
    int late = 0;
    for (int k = 1; k < members; k++) {
        late = state->done[k] < state->done[late] ? k : late;
    }
    return late;
}

struct troupe_engine_standing troupe_engine_standing_of(const troupe_engine *engine, int method) {
    const struct troupe_gang *gang = gang_of(engine, method);
    const struct method_state *state = method_at(engine, method);
    struct troupe_engine_wait wait = troupe_engine_wait_of(engine, method);
    int late = late_member(state, gang->rank_count);
    struct troupe_engine_standing standing = {
        .wait = wait,
        .issued = state->issued,
        .done = state->done[late],
        .late_rank = gang->ranks[late],
        .missing_rank = TROUPE_NONE,
        .held = gang_at(engine, engine->graph->methods[method].gang)->held};
    if (wait.kind == TROUPE_WAIT_FOR_INPUT && counts_arrivals(input_at(engine, wait.index))) {
        standing.missing_rank =
            gang->ranks[__builtin_ctzll(troupe_engine_missing_members(engine, wait.index))];
    } else if (wait.kind == TROUPE_WAIT_FOR_CREDIT) {
        standing.in_flight = output_at(engine, wait.index)->in_flight;
    }
    return standing;
}

static void describe_input(const troupe_engine *engine, int edge, char *text, size_t bytes) {
    const struct troupe_edge *plan = &engine->graph->edges[edge];
    if (counts_arrivals(input_at(engine, edge))) {
        int member = __builtin_ctzll(troupe_engine_missing_members(engine, edge));
        snprintf(text, bytes, "waits for input %s: rank %d has not reported it", plan->name,
                 gang_of(engine, plan->to)->ranks[member]);
    } else {
        snprintf(text, bytes, "waits for input %s: %s %s has not been issued", plan->name,
                 gang_of(engine, plan->from)->name, engine->graph->methods[plan->from].name);
    }
}

/* Unfinished tickets of this kind on the rank. */
static int64_t unfinished_on(const troupe_engine *engine, int method, int rank) {
    if (!in_reduction_lane(engine, method)) {
        return rank_at(engine, rank)->outstanding;
    }
    int member = 0;
    while (gang_of(engine, method)->ranks[member] != rank) {
        member++;
    }
    return method_at(engine, method)->issued - method_at(engine, method)->done[member];
}

static void describe_wait(const troupe_engine *engine, int method, struct troupe_engine_wait wait,
                          char *text, size_t bytes) {
    const struct troupe_graph *graph = engine->graph;
    switch (wait.kind) {
    case TROUPE_WAIT_FOR_INPUT:
        describe_input(engine, wait.index, text, bytes);
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
    case TROUPE_WAIT_FOR_SLOT:
        snprintf(text, bytes, "waits for one of %d activation slots",
                 troupe_engine_pool(engine, wait.index)->limit);
        return;
    case TROUPE_WAIT_FOR_MEMORY:
        snprintf(text, bytes, "waits for activation memory of rank %d, which has %" PRId64 " bytes",
                 wait.index, graph->memory_bytes[wait.index]);
        return;
    case TROUPE_WAIT_FOR_LANE:
        snprintf(text, bytes, "waits for its turn in the reduction lane of rank %d", wait.index);
        return;
    case TROUPE_WAIT_FOR_LOOK_AHEAD:
        snprintf(text, bytes, "waits for rank %d, which has not finished %d tickets", wait.index,
                 (int)unfinished_on(engine, method, wait.index));
        return;
    case TROUPE_WAIT_FOR_NOTHING:
    case TROUPE_WAIT_FOR_STEP:
        break;
    }
    if (gang_at(engine, graph->methods[method].gang)->held) {
        snprintf(text, bytes, "can be issued, but order policy %s holds it back",
                 engine->options.order->name);
    } else {
        snprintf(text, bytes, "can be issued");
    }
}

static void explain_issue(const troupe_engine *engine, int method,
                          void (*line)(void *arg, const char *text), void *arg) {
    int64_t firing = method_at(engine, method)->issued;
    struct troupe_engine_wait wait = troupe_engine_wait_of(engine, method);
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

static void explain_done(const troupe_engine *engine, int method,
                         void (*line)(void *arg, const char *text), void *arg) {
    const struct method_state *state = method_at(engine, method);
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
    for (int i = 0; i < engine->method_count; i++) {
        explain_issue(engine, engine->here_methods[i], line, arg);
        explain_done(engine, engine->here_methods[i], line, arg);
    }
}
