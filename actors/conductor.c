/* SPDX-License-Identifier: Apache-2.0 */
/* The conductor of an island: its engine, fed by reports of the members and by credits of other
 * conductors, which turns them into tickets for the members. It runs inside progress and never runs
 * a task. */
#include "actors/runtime_internal.h"
#include "runtime/check.h"
#include "runtime/clock.h"
#include "runtime/memory.h"

static bool is_conductor(const troupe_runtime *runtime) {
    return runtime->engine != NULL;
}

/* ---- who receives something, known before the step ---- */

/* In mode static conductors look at the whole job. */
static bool touches_island(const troupe_runtime *runtime, const int *gangs, int count) {
    if (runtime->options.static_order) {
        return true;
    }
    for (int i = 0; i < count; i++) {
        if (troupe_conductor_of_gang(runtime, gangs[i]) == runtime->rank) {
            return true;
        }
    }
    return false;
}

static bool may_be_empty(const troupe_runtime *runtime, const struct troupe_actor_edge *edge) {
    return edge->options.plan != NULL &&
           (touches_island(runtime, edge->from, edge->options.from_count) ||
            touches_island(runtime, edge->to, edge->options.to_count));
}

static uint64_t everyone(const troupe_runtime *runtime, int gang) {
    return UINT64_MAX >> (TROUPE_GANG_RANKS_MAX - runtime->gangs[gang].options.rank_count);
}

/* Marks the member of the gang `to_shard` for each channel that brings it something. */
static troupe_status mark_receiver(troupe_runtime *runtime, const struct troupe_actor_edge *edge,
                                   int to_shard, int member, int microbatch,
                                   const struct troupe_message_plan *plan) {
    int rank = runtime->gangs[edge->to[to_shard]].ranks[member];
    int e = (int)(edge - runtime->edges);
    struct troupe_route_binding *binding = runtime->bindings[e * runtime->rank_count + rank];
    TROUPE_TRY(troupe_route_bind(binding, plan->source_offsets, plan->destination_offsets));
    for (int i = -1; i < binding->receive_count; i++) { /* -1: what stays */
        if (i < 0 && binding->kept.box_count == 0) {
            continue;
        }
        int from_shard = edge->shard_of_source[i < 0 ? rank : binding->receives[i].origin];
        int channel = troupe_channel_of(edge, from_shard, to_shard);
        runtime->channels[channel].receivers[microbatch] |= UINT64_C(1) << member;
    }
    return TROUPE_OK;
}

static troupe_status mark_receivers(troupe_runtime *runtime, const struct troupe_actor_edge *edge,
                                    int64_t step, int microbatch) {
    struct troupe_message_plan plan;
    if (edge->options.route == NULL) {
        for (int i = 0; i < edge->options.from_count; i++) {
            troupe_edge_plan(edge, step, microbatch, i, &plan);
            runtime->channels[edge->first_channel + i].receivers[microbatch] =
                plan.rows > 0 ? everyone(runtime, edge->to[i]) : 0;
        }
        return TROUPE_OK;
    }
    troupe_edge_plan(edge, step, microbatch, 0, &plan);
    for (int i = 0; i < edge->options.from_count * edge->options.to_count; i++) {
        runtime->channels[edge->first_channel + i].receivers[microbatch] = 0;
    }
    for (int i = 0; i < edge->options.to_count; i++) {
        for (int k = 0; k < runtime->gangs[edge->to[i]].options.rank_count; k++) {
            TROUPE_TRY(mark_receiver(runtime, edge, i, k, microbatch, &plan));
        }
    }
    return TROUPE_OK;
}

static uint64_t receivers_of(const troupe_runtime *runtime, int channel, int microbatch) {
    const struct troupe_channel *c = &runtime->channels[channel];
    int gang = runtime->graph_methods[runtime->graph_edges[channel].to].gang;
    return c->receivers != NULL ? c->receivers[microbatch] : everyone(runtime, gang);
}

uint64_t troupe_ask_receivers(void *arg, int edge, int64_t step, int microbatch) {
    (void)step; /* marked for this one in begin_step */
    return receivers_of(arg, edge, microbatch);
}

/* ---- tickets ---- */

static void send_ticket(troupe_runtime *runtime, const struct troupe_ticket *ticket) {
    const struct troupe_actor_gang *gang = &runtime->gangs[ticket->gang];
    struct troupe_control control = {.kind = TROUPE_CONTROL_TICKET,
                                     .index = ticket->method,
                                     .slot = ticket->slot,
                                     .firing = ticket->firing};
    runtime->issued_ns[ticket->method] = troupe_clock_ns();
    if (runtime->tree != NULL) {
        troupe_tree_send_ticket(runtime, &control);
        return;
    }
    for (int k = 0; k < gang->options.rank_count; k++) {
        if (gang->ranks[k] == runtime->rank) {
            troupe_push_ticket(runtime, &control);
        } else {
            troupe_send_control(runtime, gang->ranks[k], &control);
        }
    }
}

/* The consumer's ticket is issued: producers in other islands get their credits back. */
static void return_credits(troupe_runtime *runtime, const struct troupe_ticket *ticket) {
    const struct troupe_lists *inputs = &runtime->graph_index->inputs;
    for (int i = inputs->begin[ticket->method]; i < inputs->begin[ticket->method + 1]; i++) {
        int c = inputs->items[i];
        const struct troupe_edge *edge = &runtime->graph_edges[c];
        if (troupe_engine_edge_is_local(runtime->engine, c) ||
            receivers_of(runtime, c, ticket->microbatch) == 0) {
            continue;
        }
        int producer = runtime->graph_methods[edge->from].gang;
        troupe_send_control(runtime, troupe_conductor_of_gang(runtime, producer),
                            &(struct troupe_control){.kind = TROUPE_CONTROL_CREDIT, .index = c});
    }
}

/* Members learn that no ticket follows, behind their last one. */
static void say_last(troupe_runtime *runtime) {
    runtime->last_said = true;
    for (int r = 0; r < runtime->rank_count; r++) {
        if (runtime->conductor_of[r] == runtime->rank) {
            troupe_send_control(runtime, r, &(struct troupe_control){.kind = TROUPE_CONTROL_LAST});
        }
    }
}

void troupe_conductor_pump(troupe_runtime *runtime) {
    struct troupe_ticket ticket;
    while (is_conductor(runtime) && !runtime->stopping && runtime->failure == TROUPE_OK &&
           troupe_engine_next(runtime->engine, &ticket) == TROUPE_OK) {
        return_credits(runtime, &ticket);
        send_ticket(runtime, &ticket);
    }
    if (is_conductor(runtime) && runtime->stopping && !runtime->last_said) {
        say_last(runtime);
    }
}

void troupe_conductor_event(troupe_runtime *runtime, const struct troupe_control *control) {
    troupe_status status = TROUPE_OK;
    TROUPE_ASSERT(is_conductor(runtime), "rank %d conducts nothing but got control %d",
                  runtime->rank, control->kind);
    switch (control->kind) {
    case TROUPE_CONTROL_ARRIVED:
        status = troupe_engine_arrived(runtime->engine, control->index, control->firing,
                                       control->member);
        break;
    case TROUPE_CONTROL_CREDIT:
        status = troupe_engine_credit_returned(runtime->engine, control->index);
        break;
    default:
        troupe_engine_done(runtime->engine, control->index, control->firing, control->member);
        break;
    }
    if (status != TROUPE_OK) {
        troupe_runtime_fail(runtime, status);
        return;
    }
    troupe_conductor_pump(runtime);
}

void troupe_tell_conductor(troupe_runtime *runtime, const struct troupe_control *control) {
    if (runtime->static_step != NULL) {
        return; /* nobody wants to know */
    }
    int conductor = runtime->conductor_of[runtime->rank];
    if (conductor == runtime->rank) {
        troupe_conductor_event(runtime, control);
    } else if (runtime->tree != NULL) {
        troupe_tree_tell_conductor(runtime, control);
    } else {
        troupe_send_control(runtime, conductor, control);
    }
}

troupe_status troupe_mark_step_receivers(troupe_runtime *runtime, int64_t step) {
    for (int e = 0; e < runtime->edge_count; e++) {
        const struct troupe_actor_edge *edge = &runtime->edges[e];
        for (int k = 0; k < edge->firings && may_be_empty(runtime, edge); k++) {
            troupe_status status = mark_receivers(runtime, edge, step, k);
            if (status != TROUPE_OK) {
                return troupe_fail_in(status, "edge %s, microbatch %d of step %lld", edge->name, k,
                                      (long long)step);
            }
        }
    }
    return TROUPE_OK;
}

static void begin_step(troupe_runtime *runtime, int64_t step) {
    troupe_status status = troupe_mark_step_receivers(runtime, step);
    if (status == TROUPE_OK) {
        status = troupe_engine_begin_step(runtime->engine, step);
    }
    if (status != TROUPE_OK) {
        troupe_runtime_fail(runtime, status);
    }
}

void troupe_conductor_begin_step(troupe_runtime *runtime, int64_t step) {
    uint64_t begin_ns = troupe_clock_ns();
    if (runtime->static_step != NULL) {
        troupe_static_begin_step(runtime, step);
    } else if (is_conductor(runtime)) {
        begin_step(runtime, step);
    }
    bool plans = runtime->conductor_of[runtime->rank] == runtime->rank;
    runtime->plan_ns = plans ? troupe_clock_ns() - begin_ns : 0;
    if (is_conductor(runtime) && runtime->failure == TROUPE_OK) {
        troupe_conductor_pump(runtime);
    }
}

uint64_t troupe_runtime_plan_ns(const troupe_runtime *runtime) {
    return runtime->plan_ns;
}

bool troupe_runtime_asks_costs(const troupe_runtime *runtime) {
    return runtime->conductor_of[runtime->rank] == runtime->rank &&
           (runtime->options.static_order || runtime->order->begin_step != troupe_order_no_plan);
}

/* ---- making ---- */

static troupe_status make_receivers(troupe_runtime *runtime) {
    int count = 0;
    for (int c = 0; c < runtime->graph.edge_count; c++) {
        count += runtime->edges[runtime->channels[c].edge].firings;
    }
    TROUPE_TRY(TROUPE_NEW(&runtime->receivers_memory, count));
    uint64_t *memory = runtime->receivers_memory;
    for (int c = 0; c < runtime->graph.edge_count; c++) {
        struct troupe_channel *channel = &runtime->channels[c];
        const struct troupe_actor_edge *edge = &runtime->edges[channel->edge];
        if (channel->to_shard != TROUPE_NOBODY && may_be_empty(runtime, edge)) {
            channel->receivers = memory;
        }
        memory += edge->firings;
    }
    return TROUPE_OK;
}

static troupe_status make_bindings(troupe_runtime *runtime) {
    TROUPE_TRY(TROUPE_NEW(&runtime->bindings, runtime->edge_count * runtime->rank_count));
    for (int e = 0; e < runtime->edge_count; e++) {
        const struct troupe_actor_edge *edge = &runtime->edges[e];
        for (int r = 0; r < runtime->rank_count; r++) {
            if (edge->options.route != NULL && may_be_empty(runtime, edge) &&
                edge->shard_of_destination[r] != TROUPE_NOBODY) {
                TROUPE_TRY(troupe_route_binding_create(
                    edge->options.route, r, &runtime->bindings[e * runtime->rank_count + r]));
            }
        }
    }
    return TROUPE_OK;
}

static troupe_status make_issue_times(troupe_runtime *runtime) {
    TROUPE_TRY(TROUPE_NEW(&runtime->issued_ns, runtime->graph.method_count));
    for (int m = 0; m < runtime->graph.method_count; m++) {
        runtime->issued_ns[m] = troupe_clock_ns();
    }
    return TROUPE_OK;
}

static troupe_status make_engine(troupe_runtime *runtime) {
    struct troupe_engine_options options = {
        .conductor = runtime->rank,
        .index = runtime->graph_index,
        .look_ahead = runtime->options.look_ahead,
        .order = runtime->order,
        .costs = troupe_runtime_asks_costs(runtime) ? runtime->options.costs : NULL,
        .receivers = troupe_ask_receivers,
        .arg = runtime};
    return troupe_engine_create(&runtime->graph, &options, &runtime->engine);
}

troupe_status troupe_make_conductor(troupe_runtime *runtime) {
    bool conducts = runtime->conductor_of[runtime->rank] == runtime->rank;
    if (conducts) {
        TROUPE_TRY(make_receivers(runtime));
        TROUPE_TRY(make_issue_times(runtime));
        TROUPE_TRY(make_bindings(runtime));
    }
    if (runtime->options.static_order) {
        return troupe_make_static_step(runtime);
    }
    return conducts ? make_engine(runtime) : TROUPE_OK;
}

void troupe_destroy_conductor(troupe_runtime *runtime) {
    for (int i = 0; runtime->bindings != NULL && i < runtime->edge_count * runtime->rank_count;
         i++) {
        troupe_route_binding_destroy(runtime->bindings[i]);
    }
    troupe_free(runtime->bindings);
    troupe_free(runtime->receivers_memory);
    troupe_free(runtime->issued_ns);
    troupe_engine_destroy(runtime->engine);
    troupe_destroy_static_step(runtime);
}
