/* SPDX-License-Identifier: Apache-2.0 */
/* The task graph made of gangs and edges. One edge of the app becomes one channel (an edge of the
 * graph) per pair of gangs.
 *
 * Buffer returns. The engine counts credits per channel and lets empty messages pass without one,
 * so an output port that feeds several gangs could be fired again while the buffer of a message to
 * one of them is still in use, and the rank would wait for something issued later. Such a port gets
 * one more edge, strict and from its method to itself: a message on it is an output buffer that
 * has become free. Its tickets then never wait for a buffer. */
#include <inttypes.h>

#include "actors/runtime_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

const struct troupe_actor_method *troupe_method_of(const troupe_runtime *runtime, int method) {
    const struct troupe_actor_gang *gang = troupe_gang_of(runtime, method);
    return &gang->options.actor_class->methods[method - gang->first_method];
}

struct troupe_actor_gang *troupe_gang_of(const troupe_runtime *runtime, int method) {
    return &runtime->gangs[runtime->graph_methods[method].gang];
}

int troupe_conductor_of_gang(const troupe_runtime *runtime, int gang) {
    return runtime->conductor_of[runtime->gangs[gang].ranks[0]];
}

int troupe_channel_of(const struct troupe_actor_edge *edge, int from_shard, int to_shard) {
    return edge->first_channel + (edge->options.route == NULL
                                      ? from_shard
                                      : from_shard * edge->options.to_count + to_shard);
}

int64_t troupe_edge_step(const struct troupe_actor_edge *edge, int64_t message) {
    return edge->firings > 0 ? message / edge->firings : message;
}

int troupe_edge_microbatch(const struct troupe_actor_edge *edge, int64_t message) {
    return edge->firings > 0 ? (int)(message % edge->firings) : 0;
}

void troupe_edge_plan(const struct troupe_actor_edge *edge, int64_t step, int microbatch, int shard,
                      struct troupe_message_plan *out) {
    *out = (struct troupe_message_plan){0};
    if (edge->options.plan != NULL) {
        edge->options.plan(edge->options.arg, step, microbatch, shard, out);
    } else {
        out->rows = edge->options.from_rows_max;
    }
}

static int count_methods(const troupe_runtime *runtime) {
    int count = 0;
    for (int g = 0; g < runtime->gang_count; g++) {
        count += runtime->gangs[g].options.actor_class->method_count;
    }
    return count;
}

static void fill_methods(troupe_runtime *runtime) {
    int m = 0;
    int *after = runtime->graph_after;
    for (int g = 0; g < runtime->gang_count; g++) {
        struct troupe_actor_gang *gang = &runtime->gangs[g];
        const struct troupe_spawn_options *options = &gang->options;
        int lane_order = options->lane_order;
        runtime->graph_gangs[g] = (struct troupe_gang){.name = gang->name,
                                                       .ranks = gang->ranks,
                                                       .rank_count = options->rank_count,
                                                       .slots = options->slots,
                                                       .module = options->module,
                                                       .depth = options->depth,
                                                       .stage = options->stage,
                                                       .stage_count = options->stage_count,
                                                       .dp = options->dp};
        gang->first_method = m;
        for (int i = 0; i < options->actor_class->method_count; i++, m++) {
            const struct troupe_actor_method *method = &options->actor_class->methods[i];
            bool reduces = method->lane == TROUPE_LANE_REDUCTION;
            runtime->graph_methods[m] = (struct troupe_method){
                .name = method->name,
                .gang = g,
                .kind = method->kind,
                .lane = method->lane,
                .lane_order = reduces ? lane_order++ : 0,
                .firings = method->once || reduces ? 1 : runtime->options.microbatches,
                .after = after,
                .after_count = method->after_count,
                .slot_take = method->slot_take,
                .slot_return = method->slot_return};
            for (int k = 0; k < method->after_count; k++) {
                *after++ = gang->first_method + method->after[k];
            }
        }
    }
}

static bool needs_returns(const struct troupe_actor_edge *edge) {
    return edge->options.route != NULL && edge->options.to_count > 1;
}

static int channel_count(const struct troupe_actor_edge *edge) {
    const struct troupe_connect_options *options = &edge->options;
    return options->route != NULL ? options->from_count * options->to_count : options->from_count;
}

/* Whether its messages pass between ranks, as far as the gangs tell. */
static bool crosses_ranks(const struct troupe_actor_gang *from,
                          const struct troupe_actor_gang *to) {
    return from->options.rank_count > 1 || to->options.rank_count > 1 ||
           from->ranks[0] != to->ranks[0];
}

static void fill_channel(troupe_runtime *runtime, int c, int edge_index, int from_shard,
                         int to_shard) {
    const struct troupe_actor_edge *edge = &runtime->edges[edge_index];
    bool returns = to_shard == TROUPE_NOBODY;
    int from = runtime->gangs[edge->from[from_shard]].first_method + edge->from_method;
    int to = returns ? from : runtime->gangs[edge->to[to_shard]].first_method + edge->to_method;
    bool strict = returns || (runtime->options.host_may_wait &&
                              crosses_ranks(&runtime->gangs[edge->from[from_shard]],
                                            &runtime->gangs[edge->to[to_shard]]));
    runtime->channels[c] =
        (struct troupe_channel){.edge = edge_index, .from_shard = from_shard, .to_shard = to_shard};
    runtime->graph_edges[c] =
        (struct troupe_edge){.name = edge->name,
                             .from = from,
                             .to = to,
                             .credits = edge->options.credits + returns,
                             .initial = returns ? edge->options.credits : edge->options.initial,
                             .strict = strict};
}

static void fill_channels(troupe_runtime *runtime) {
    int c = 0;
    for (int e = 0; e < runtime->edge_count; e++) {
        struct troupe_actor_edge *edge = &runtime->edges[e];
        edge->first_channel = c;
        for (int i = 0, count = channel_count(edge); i < count; i++, c++) {
            bool routed = edge->options.route != NULL;
            fill_channel(runtime, c, e, routed ? i / edge->options.to_count : i,
                         routed ? i % edge->options.to_count : i);
        }
        if (needs_returns(edge)) {
            edge->first_return = c;
            for (int i = 0; i < edge->options.from_count; i++, c++) {
                fill_channel(runtime, c, e, i, TROUPE_NOBODY);
            }
        }
    }
}

troupe_status troupe_make_graph(troupe_runtime *runtime) {
    int methods = count_methods(runtime), channels = 0;
    for (int e = 0; e < runtime->edge_count; e++) {
        const struct troupe_actor_edge *edge = &runtime->edges[e];
        channels += channel_count(edge) + (needs_returns(edge) ? edge->options.from_count : 0);
    }
    TROUPE_TRY(TROUPE_NEW(&runtime->graph_gangs, runtime->gang_count));
    TROUPE_TRY(TROUPE_NEW(&runtime->graph_methods, methods));
    TROUPE_TRY(TROUPE_NEW(&runtime->graph_after, methods * TROUPE_AFTER_MAX));
    TROUPE_TRY(TROUPE_NEW(&runtime->graph_edges, channels));
    TROUPE_TRY(TROUPE_NEW(&runtime->channels, channels));
    TROUPE_TRY(TROUPE_NEW(&runtime->conductor_of, runtime->rank_count));
    fill_methods(runtime);
    fill_channels(runtime);
    runtime->graph = (struct troupe_graph){.rank_count = runtime->rank_count,
                                           .gangs = runtime->graph_gangs,
                                           .gang_count = runtime->gang_count,
                                           .methods = runtime->graph_methods,
                                           .method_count = methods,
                                           .edges = runtime->graph_edges,
                                           .edge_count = channels};
    TROUPE_TRY(troupe_graph_check(&runtime->graph));
    troupe_graph_conductors(&runtime->graph, runtime->conductor_of);
    return troupe_graph_index_create(&runtime->graph, &runtime->graph_index);
}

void troupe_destroy_graph(troupe_runtime *runtime) {
    troupe_graph_index_destroy(runtime->graph_index);
    troupe_free(runtime->graph_gangs);
    troupe_free(runtime->graph_methods);
    troupe_free(runtime->graph_after);
    troupe_free(runtime->graph_edges);
    troupe_free(runtime->channels);
    troupe_free(runtime->conductor_of);
}
