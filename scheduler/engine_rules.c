/* SPDX-License-Identifier: Apache-2.0 */
/* The rules: what a firing still has to wait for. */
#include "scheduler/engine_internal.h"

struct message *troupe_engine_message(const troupe_engine *engine, int edge, int64_t firing) {
    struct message *messages = input_at(engine, edge)->messages, *unused = NULL;
    int credits = engine->graph->edges[edge].credits;
    int first = (int)(firing % credits); /* where it most likely is */
    for (int i = 0; i < credits; i++) {
        struct message *message = &messages[(first + i) % credits];
        if (message->reported != 0 && message->firing == firing) {
            return message;
        }
        if (message->reported == 0 && unused == NULL) {
            unused = message;
        }
    }
    return unused;
}

static bool input_is_ready(const troupe_engine *engine, int edge, int64_t firing) {
    const struct edge_state *state = input_at(engine, edge);
    uint64_t receivers = receivers_of(engine, state, edge, firing);
    if (receivers == 0 || firing < state->initial_end) {
        return true;
    }
    if (counts_arrivals(state)) {
        const struct message *message = troupe_engine_message(engine, edge, firing);
        return message != NULL && message->reported == receivers;
    }
    const struct troupe_edge *plan = &engine->graph->edges[edge];
    return method_at(engine, plan->from)->issued + plan->initial > firing;
}

static bool after_is_met(const troupe_engine *engine, int method, int before, int64_t firing) {
    int firings = engine->graph->methods[before].firings;
    bool equal = firings == engine->graph->methods[method].firings;
    int64_t need = equal ? firing + 1 : (step_of(engine, method, firing) + 1) * firings;
    const struct method_state *state = method_at(engine, before);
    return need <= (in_reduction_lane(engine, before) ? state->done_least : state->issued);
}

static bool has_credit(const troupe_engine *engine, int edge, int64_t firing) {
    const struct troupe_edge *plan = &engine->graph->edges[edge];
    const struct edge_state *state = output_at(engine, edge);
    return state->in_flight < plan->credits ||
           receivers_of(engine, state, edge, firing + plan->initial) == 0;
}

struct gang_state *troupe_engine_pool(const troupe_engine *engine, int gang) {
    return gang_at(engine, TROUPE_ENGINE_BROKEN == BROKEN_POOL ? engine->here_gangs[0] : gang);
}

bool troupe_engine_counts_memory(const troupe_engine *engine, int gang) {
    return engine->graph->memory_bytes != NULL && engine->graph->gangs[gang].slot_bytes > 0;
}

/* A rank without memory for one more slot of the gang, or NONE. */
static int rank_without_memory(const troupe_engine *engine, int gang) {
    const struct troupe_gang *plan = &engine->graph->gangs[gang];
    bool reserved = TROUPE_ENGINE_BROKEN != BROKEN_RESERVE && gang_at(engine, gang)->taken == 0;
    if (!troupe_engine_counts_memory(engine, gang) || reserved) {
        return TROUPE_NONE;
    }
    for (int k = 0; k < plan->rank_count; k++) {
        int rank = plan->ranks[k];
        if (rank_at(engine, rank)->memory_taken + plan->slot_bytes >
            engine->graph->memory_bytes[rank]) {
            return rank;
        }
    }
    return TROUPE_NONE;
}

static struct troupe_engine_wait slot_wait(const troupe_engine *engine, int gang) {
    const struct gang_state *pool = troupe_engine_pool(engine, gang);
    if (pool->taken >= pool->limit) {
        return (struct troupe_engine_wait){TROUPE_WAIT_FOR_SLOT, gang};
    }
    int rank = rank_without_memory(engine, gang);
    if (rank != TROUPE_NONE) {
        return (struct troupe_engine_wait){TROUPE_WAIT_FOR_MEMORY, rank};
    }
    return (struct troupe_engine_wait){TROUPE_WAIT_FOR_NOTHING, 0};
}

/* A rank posts its reductions in one order, and holds few of each unfinished. */
static struct troupe_engine_wait lane_wait(const troupe_engine *engine, int method) {
    const struct troupe_gang *gang = gang_of(engine, method);
    const struct method_state *state = method_at(engine, method);
    for (int k = 0; k < gang->rank_count; k++) {
        const struct rank_state *rank = rank_at(engine, gang->ranks[k]);
        if (rank->lane[rank->lane_next] != method) {
            return (struct troupe_engine_wait){TROUPE_WAIT_FOR_LANE, gang->ranks[k]};
        }
        if (state->issued - state->done[k] >= TROUPE_REDUCTIONS_AHEAD) {
            return (struct troupe_engine_wait){TROUPE_WAIT_FOR_LOOK_AHEAD, gang->ranks[k]};
        }
    }
    return (struct troupe_engine_wait){TROUPE_WAIT_FOR_NOTHING, 0};
}

struct troupe_engine_wait troupe_engine_firing_wait(const troupe_engine *engine, int method,
                                                    int64_t firing) {
    const struct troupe_method *plan = &engine->graph->methods[method];
    const struct troupe_graph_index *index = engine->index;
    if (firing >= method_at(engine, method)->limit) {
        return (struct troupe_engine_wait){TROUPE_WAIT_FOR_STEP, 0};
    }
    for (int i = 0; i < plan->after_count; i++) {
        if (!after_is_met(engine, method, plan->after[i], firing)) {
            return (struct troupe_engine_wait){TROUPE_WAIT_FOR_AFTER, plan->after[i]};
        }
    }
    for (int i = index->inputs.begin[method]; i < index->inputs.begin[method + 1]; i++) {
        if (!input_is_ready(engine, index->inputs.items[i], firing)) {
            return (struct troupe_engine_wait){TROUPE_WAIT_FOR_INPUT, index->inputs.items[i]};
        }
    }
    for (int i = index->outputs.begin[method]; i < index->outputs.begin[method + 1]; i++) {
        if (!has_credit(engine, index->outputs.items[i], firing)) {
            return (struct troupe_engine_wait){TROUPE_WAIT_FOR_CREDIT, index->outputs.items[i]};
        }
    }
    if (plan->slot_take) {
        struct troupe_engine_wait wait = slot_wait(engine, plan->gang);
        if (wait.kind != TROUPE_WAIT_FOR_NOTHING) {
            return wait;
        }
    }
    if (plan->lane == TROUPE_LANE_REDUCTION) {
        return lane_wait(engine, method);
    }
    return (struct troupe_engine_wait){TROUPE_WAIT_FOR_NOTHING, 0};
}

struct troupe_engine_wait troupe_engine_room_wait(const troupe_engine *engine, int method) {
    const struct troupe_gang *gang = gang_of(engine, method);
    const struct gang_state *state = gang_at(engine, engine->graph->methods[method].gang);
    int most = engine->options.look_ahead + (state->stuffed > 0 ? TROUPE_TICKETS_OVER : 0);
    if (in_reduction_lane(engine, method) ||
        (state->stuffed == 0 && state->no_room < gang->rank_count)) {
        return (struct troupe_engine_wait){TROUPE_WAIT_FOR_NOTHING, 0};
    }
    int k = 0;
    while (rank_at(engine, gang->ranks[k])->outstanding < most) {
        k++;
    }
    return (struct troupe_engine_wait){TROUPE_WAIT_FOR_LOOK_AHEAD, gang->ranks[k]};
}

int64_t troupe_engine_next_firing(const troupe_engine *engine, int method) {
    const struct method_state *state = method_at(engine, method);
    if (TROUPE_ENGINE_BROKEN == BROKEN_SEQUENCE && !state->skipped_one &&
        troupe_engine_firing_wait(engine, method, state->issued).kind == TROUPE_WAIT_FOR_INPUT &&
        troupe_engine_firing_wait(engine, method, state->issued + 1).kind ==
            TROUPE_WAIT_FOR_NOTHING) {
        return state->issued + 1;
    }
    return state->issued;
}
