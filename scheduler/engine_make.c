/* SPDX-License-Identifier: Apache-2.0 */
/* Creation: the state of one island. */
#include "runtime/check.h"
#include "runtime/memory.h"
#include "scheduler/engine_internal.h"
#include "scheduler/order_internal.h"

enum { LOOK_AHEAD_DEFAULT = 2 };

static troupe_status find_island(troupe_engine *engine) {
    const struct troupe_graph *graph = engine->graph;
    const struct troupe_graph_index *index = engine->index;
    int conductor = engine->options.conductor;
    if (conductor < 0 || conductor >= graph->rank_count ||
        index->conductor_of[conductor] != conductor) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "rank %d conducts no island; an island's conductor is its lowest rank",
                           conductor);
    }
    int island = engine->island = index->island_of_rank[conductor];
    engine->here_methods = index->island_methods.items + index->island_methods.begin[island];
    engine->method_count =
        index->island_methods.begin[island + 1] - index->island_methods.begin[island];
    engine->here_edges = index->island_edges.items + index->island_edges.begin[island];
    engine->edge_count = index->island_edges.begin[island + 1] - index->island_edges.begin[island];
    engine->here_gangs = index->island_gangs.items + index->island_gangs.begin[island];
    engine->gang_count = index->island_gangs.begin[island + 1] - index->island_gangs.begin[island];
    engine->here_ranks = index->island_ranks.items + index->island_ranks.begin[island];
    engine->rank_count = index->island_ranks.begin[island + 1] - index->island_ranks.begin[island];
    return TROUPE_OK;
}

static troupe_status make_methods(troupe_engine *engine) {
    int members = 0;
    for (int i = 0; i < engine->method_count; i++) {
        members += gang_of(engine, engine->here_methods[i])->rank_count;
    }
    TROUPE_TRY(TROUPE_NEW(&engine->methods, engine->method_count));
    TROUPE_TRY(TROUPE_NEW(&engine->done_memory, members));
    int64_t *done = engine->done_memory;
    for (int i = 0; i < engine->method_count; i++) {
        struct method_state *state = &engine->methods[i];
        int m = engine->here_methods[i];
        state->done = done;
        state->done_least_count = gang_of(engine, m)->rank_count;
        state->limit = engine->graph->methods[m].firings == 0 ? INT64_MAX : 0;
        state->place = PLACE_CHANGED;
        state->next = i + 1 < engine->method_count ? engine->here_methods[i + 1] : TROUPE_NONE;
        done += state->done_least_count;
    }
    engine->changed = engine->method_count > 0 ? engine->here_methods[0] : TROUPE_NONE;
    int watches = troupe_engine_watch_count(engine);
    TROUPE_TRY(TROUPE_NEW(&engine->watchers, watches));
    for (int i = 0; i < watches; i++) {
        engine->watchers[i] = TROUPE_NONE;
    }
    TROUPE_TRY(TROUPE_NEW(&engine->candidates, engine->method_count));
    return TROUPE_NEW(&engine->issued_in_step, engine->graph->method_count);
}

static troupe_status make_gangs(troupe_engine *engine) {
    const struct troupe_lists *methods = &engine->index->methods;
    TROUPE_TRY(TROUPE_NEW(&engine->gangs, engine->gang_count));
    engine->first_gang = engine->last_gang = TROUPE_NONE;
    for (int i = 0; i < engine->gang_count; i++) {
        int g = engine->here_gangs[i];
        engine->gangs[i].taker = TROUPE_NONE;
        for (int j = methods->begin[g]; j < methods->begin[g + 1]; j++) {
            if (engine->graph->methods[methods->items[j]].slot_take) {
                engine->gangs[i].taker = methods->items[j];
            }
        }
    }
    return TROUPE_OK;
}

/* Initial messages are never empty, so that a message of the next step is never asked about. */
static bool may_be_empty(const troupe_engine *engine, const struct troupe_edge *edge) {
    return engine->options.receivers != NULL && edge->initial == 0 &&
           engine->graph->methods[edge->to].firings > 0;
}

static bool is_here(const troupe_engine *engine, int method) {
    return troupe_graph_index_island_of_method(engine->index, method) == engine->island;
}

static troupe_status make_edges(troupe_engine *engine) {
    const struct troupe_graph *graph = engine->graph;
    int messages = 0, receivers = 0;
    for (int i = 0; i < engine->edge_count; i++) {
        const struct troupe_edge *edge = &graph->edges[engine->here_edges[i]];
        messages += is_here(engine, edge->to) ? edge->credits : 0;
        receivers += may_be_empty(engine, edge) ? graph->methods[edge->to].firings : 0;
    }
    TROUPE_TRY(TROUPE_NEW(&engine->edges, engine->edge_count));
    TROUPE_TRY(TROUPE_NEW(&engine->messages_memory, messages));
    TROUPE_TRY(TROUPE_NEW(&engine->receivers_memory, receivers));
    messages = receivers = 0;
    for (int i = 0; i < engine->edge_count; i++) {
        const struct troupe_edge *edge = &graph->edges[engine->here_edges[i]];
        struct edge_state *state = &engine->edges[i];
        state->has_consumer = is_here(engine, edge->to);
        state->has_producer = is_here(engine, edge->from);
        state->strict = edge->strict || graph->methods[edge->from].lane == TROUPE_LANE_REDUCTION;
        state->in_flight = edge->initial;
        state->initial_end = edge->initial;
        state->everyone =
            UINT64_MAX >> (TROUPE_GANG_RANKS_MAX - gang_of(engine, edge->to)->rank_count);
        if (state->has_consumer) {
            state->messages = engine->messages_memory + messages;
            messages += edge->credits;
        }
        if (may_be_empty(engine, edge)) {
            state->receivers = engine->receivers_memory + receivers;
            receivers += graph->methods[edge->to].firings;
        }
    }
    return TROUPE_OK;
}

/* Inserts the method into the rank's lane, which stays in ascending lane order. */
static void insert_in_lane(const troupe_engine *engine, struct rank_state *rank, int method) {
    const struct troupe_method *methods = engine->graph->methods;
    int i = rank->lane_count++;
    for (; i > 0 && methods[rank->lane[i - 1]].lane_order > methods[method].lane_order; i--) {
        rank->lane[i] = rank->lane[i - 1];
    }
    rank->lane[i] = method;
}

static troupe_status make_lanes(troupe_engine *engine) {
    int total = 0;
    for (int pass = 0; pass < 2; pass++) { /* count, then fill */
        for (int i = 0; i < engine->method_count; i++) {
            int m = engine->here_methods[i];
            const struct troupe_gang *gang = gang_of(engine, m);
            for (int k = 0; in_reduction_lane(engine, m) && k < gang->rank_count; k++) {
                struct rank_state *rank = rank_at(engine, gang->ranks[k]);
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
            for (int i = 0; i < engine->rank_count; i++) {
                engine->ranks[i].lane = lane;
                lane += engine->ranks[i].lane_count;
                engine->ranks[i].lane_count = 0;
            }
        }
    }
    return TROUPE_OK;
}

/* The reserve: one slot of each gang that takes slots. */
static void make_memory(troupe_engine *engine) {
    for (int i = 0; i < engine->gang_count; i++) {
        const struct troupe_gang *gang = &engine->graph->gangs[engine->here_gangs[i]];
        for (int k = 0; engine->gangs[i].taker != TROUPE_NONE && k < gang->rank_count; k++) {
            rank_at(engine, gang->ranks[k])->memory_taken += gang->slot_bytes;
        }
    }
}

static troupe_status make_index(troupe_engine *engine) {
    engine->index = engine->options.index;
    if (engine->index == NULL) {
        TROUPE_TRY(troupe_graph_index_create(engine->graph, &engine->own_index));
        engine->index = engine->own_index;
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
    TROUPE_TRY_FAIL(make_index(engine));
    TROUPE_TRY_FAIL(find_island(engine));
    const struct troupe_order_setting setting = {
        .index = engine->index,
        .conductor = options->conductor,
        .costs = options->costs,
        .peer = options->peer != NULL ? options->peer->order_state : NULL};
    TROUPE_TRY_FAIL(engine->options.order->create(&setting, &engine->order_state));
    TROUPE_TRY_FAIL(TROUPE_NEW(&engine->ranks, engine->rank_count));
    TROUPE_TRY_FAIL(make_methods(engine));
    TROUPE_TRY_FAIL(make_gangs(engine));
    TROUPE_TRY_FAIL(make_edges(engine));
    TROUPE_TRY_FAIL(make_lanes(engine));
    make_memory(engine);
    troupe_engine_ask_in_flight(engine);
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
    troupe_graph_index_destroy(engine->own_index);
    troupe_free(engine->methods);
    troupe_free(engine->edges);
    troupe_free(engine->gangs);
    troupe_free(engine->ranks);
    troupe_free(engine->watchers);
    troupe_free(engine->issued_in_step);
    troupe_free(engine->candidates);
    troupe_free(engine->done_memory);
    troupe_free(engine->lane_memory);
    troupe_free(engine->receivers_memory);
    troupe_free(engine->messages_memory);
    troupe_free(engine);
}
