/* SPDX-License-Identifier: Apache-2.0 */
#include "actors/forecast.h"

#include <string.h>

#include "actors/runtime_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

/* One message of one channel at one member. */
struct delivery {
    int64_t bytes;
    bool receives;
};

struct troupe_forecast {
    troupe_runtime *runtime;
    const struct troupe_graph *graph;
    int *first; /* by channel: (microbatches, members) deliveries */
    struct delivery *deliveries;
    struct troupe_route_binding **bindings; /* by edge and rank of a consumer */
};

static int member_count(const troupe_forecast *forecast, int channel) {
    const struct troupe_graph *graph = forecast->graph;
    return graph->gangs[graph->methods[graph->edges[channel].to].gang].rank_count;
}

static struct delivery *delivery_of(const troupe_forecast *forecast, int channel, int microbatch,
                                    int member) {
    return &forecast->deliveries[forecast->first[channel] +
                                 microbatch * member_count(forecast, channel) + member];
}

static troupe_status make_bindings(troupe_forecast *forecast) {
    const troupe_runtime *runtime = forecast->runtime;
    TROUPE_TRY(TROUPE_NEW(&forecast->bindings, runtime->edge_count * runtime->rank_count));
    for (int e = 0; e < runtime->edge_count; e++) {
        const struct troupe_actor_edge *edge = &runtime->edges[e];
        for (int r = 0; edge->options.route != NULL && r < runtime->rank_count; r++) {
            if (edge->shard_of_destination[r] != TROUPE_NOBODY) {
                TROUPE_TRY(troupe_route_binding_create(
                    edge->options.route, r, &forecast->bindings[e * runtime->rank_count + r]));
            }
        }
    }
    return TROUPE_OK;
}

static troupe_status make(troupe_forecast *forecast) {
    const troupe_runtime *runtime = forecast->runtime;
    int count = 0;
    TROUPE_TRY(troupe_runtime_graph(forecast->runtime, &forecast->graph));
    TROUPE_TRY(TROUPE_NEW(&forecast->first, forecast->graph->edge_count));
    for (int c = 0; c < forecast->graph->edge_count; c++) {
        forecast->first[c] = count;
        count += runtime->edges[runtime->channels[c].edge].firings * member_count(forecast, c);
    }
    TROUPE_TRY(TROUPE_NEW(&forecast->deliveries, count));
    return make_bindings(forecast);
}

troupe_status troupe_forecast_create(troupe_runtime *runtime, troupe_forecast **out) {
    troupe_forecast *forecast = NULL;
    TROUPE_TRY(TROUPE_NEW(&forecast, 1));
    forecast->runtime = runtime;
    troupe_status status = make(forecast);
    if (status != TROUPE_OK) {
        troupe_forecast_destroy(forecast);
        return status;
    }
    *out = forecast;
    return TROUPE_OK;
}

void troupe_forecast_destroy(troupe_forecast *forecast) {
    if (forecast == NULL) {
        return;
    }
    const troupe_runtime *runtime = forecast->runtime;
    for (int i = 0; forecast->bindings != NULL && i < runtime->edge_count * runtime->rank_count;
         i++) {
        troupe_route_binding_destroy(forecast->bindings[i]);
    }
    troupe_free(forecast->bindings);
    troupe_free(forecast->first);
    troupe_free(forecast->deliveries);
    troupe_free(forecast);
}

/* ---- a step ---- */

/* What the rank receives of the message, by the shard that it comes from. */
static troupe_status fill_routed(troupe_forecast *forecast, int e, int rank, int microbatch,
                                 const struct troupe_message_plan *plan) {
    const troupe_runtime *runtime = forecast->runtime;
    const struct troupe_actor_edge *edge = &runtime->edges[e];
    struct troupe_route_binding *binding = forecast->bindings[e * runtime->rank_count + rank];
    int to_shard = edge->shard_of_destination[rank];
    const struct troupe_actor_gang *gang = &runtime->gangs[edge->to[to_shard]];
    int member = 0;
    while (gang->ranks[member] != rank) {
        member++;
    }
    TROUPE_TRY(troupe_route_bind(binding, plan->source_offsets, plan->destination_offsets));
    for (int i = -1; i < binding->receive_count; i++) { /* -1: what stays */
        if (i < 0 && binding->kept.box_count == 0) {
            continue;
        }
        int from_shard = edge->shard_of_source[i < 0 ? rank : binding->receives[i].origin];
        struct delivery *delivery = delivery_of(
            forecast, troupe_channel_of(edge, from_shard, to_shard), microbatch, member);
        delivery->receives = true;
        delivery->bytes += i < 0 ? 0 : (int64_t)binding->receives[i].bytes;
    }
    return TROUPE_OK;
}

static troupe_status fill_edge(troupe_forecast *forecast, int e, int64_t step, int microbatch) {
    const troupe_runtime *runtime = forecast->runtime;
    const struct troupe_actor_edge *edge = &runtime->edges[e];
    struct troupe_message_plan plan;
    if (edge->options.route != NULL) {
        troupe_edge_plan(edge, step, microbatch, 0, &plan);
        for (int r = 0; r < runtime->rank_count; r++) {
            if (edge->shard_of_destination[r] != TROUPE_NOBODY) {
                TROUPE_TRY(fill_routed(forecast, e, r, microbatch, &plan));
            }
        }
        return TROUPE_OK;
    }
    for (int shard = 0; shard < edge->options.from_count; shard++) {
        int channel = edge->first_channel + shard;
        troupe_edge_plan(edge, step, microbatch, shard, &plan);
        for (int k = 0; k < member_count(forecast, channel); k++) {
            *delivery_of(forecast, channel, microbatch, k) = (struct delivery){
                .bytes = plan.rows * edge->options.columns * (int64_t)edge->element_bytes,
                .receives = edge->options.plan == NULL || plan.rows > 0};
        }
    }
    return TROUPE_OK;
}

static void clear(troupe_forecast *forecast) {
    const troupe_runtime *runtime = forecast->runtime;
    for (int c = 0; c < forecast->graph->edge_count; c++) {
        const struct troupe_channel *channel = &runtime->channels[c];
        bool always = channel->to_shard == TROUPE_NOBODY; /* buffer returns */
        int count = runtime->edges[channel->edge].firings * member_count(forecast, c);
        for (int i = 0; i < count; i++) {
            forecast->deliveries[forecast->first[c] + i] = (struct delivery){.receives = always};
        }
    }
}

troupe_status troupe_forecast_step(troupe_forecast *forecast, int64_t step) {
    const troupe_runtime *runtime = forecast->runtime;
    clear(forecast);
    for (int e = 0; e < runtime->edge_count; e++) {
        for (int k = 0; k < runtime->edges[e].firings; k++) {
            troupe_status status = fill_edge(forecast, e, step, k);
            if (status != TROUPE_OK) {
                return troupe_fail_in(status, "edge %s, microbatch %d of step %lld",
                                      runtime->edges[e].name, k, (long long)step);
            }
        }
    }
    return TROUPE_OK;
}

int64_t troupe_forecast_bytes(void *arg, int edge, int64_t step, int microbatch, int member) {
    (void)step;
    return delivery_of(arg, edge, microbatch, member)->bytes;
}

uint64_t troupe_forecast_receivers(void *arg, int edge, int64_t step, int microbatch) {
    uint64_t members = 0;
    (void)step;
    for (int k = 0; k < member_count(arg, edge); k++) {
        members |= (uint64_t)delivery_of(arg, edge, microbatch, k)->receives << k;
    }
    return members;
}

bool troupe_forecast_may_be_empty(void *arg, int edge) {
    const troupe_forecast *forecast = arg;
    const troupe_runtime *runtime = forecast->runtime;
    return runtime->edges[runtime->channels[edge].edge].options.plan != NULL;
}
