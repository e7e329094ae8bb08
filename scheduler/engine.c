/* SPDX-License-Identifier: Apache-2.0 */
/* Events in, tickets out. */
#include "scheduler/engine_internal.h"

#include <inttypes.h>

#include "runtime/check.h"

/* ---- steps ---- */

bool troupe_engine_step_issued(const troupe_engine *engine) {
    return engine->to_issue == 0;
}

bool troupe_engine_step_done(const troupe_engine *engine) {
    return engine->to_finish == 0;
}

void troupe_engine_ask_in_flight(troupe_engine *engine) {
    const struct troupe_order_policy *order = engine->options.order;
    for (int i = 0; i < engine->gang_count; i++) {
        int g = engine->here_gangs[i], slots = engine->graph->gangs[g].slots;
        int wanted = order->in_flight(engine->order_state, engine->graph, g);
        TROUPE_ASSERT(wanted >= 1, "order policy %s allows gang %d %d microbatches in flight",
                      order->name, g, wanted);
        engine->gangs[i].limit = wanted < slots ? wanted : slots;
        if (engine->gangs[i].taker != TROUPE_NONE) {
            troupe_engine_wake(engine, engine->gangs[i].taker, TROUPE_WAIT_FOR_SLOT, g);
        }
    }
}

/* A run that begins at a later step counts as if the ones before had been done. */
static void skip_to_step(troupe_engine *engine, int64_t step) {
    for (int i = 0; i < engine->method_count; i++) {
        int m = engine->here_methods[i];
        int64_t firings = step * engine->graph->methods[m].firings;
        engine->methods[i].issued += firings;
        engine->methods[i].done_least += firings;
        for (int k = 0; k < gang_of(engine, m)->rank_count; k++) {
            engine->methods[i].done[k] += firings;
        }
    }
    for (int i = 0; i < engine->edge_count; i++) {
        int to = engine->graph->edges[engine->here_edges[i]].to;
        engine->edges[i].initial_end += step * engine->graph->methods[to].firings;
    }
}

static void ask_receivers(troupe_engine *engine) {
    for (int i = 0; i < engine->edge_count; i++) {
        struct edge_state *state = &engine->edges[i];
        int e = engine->here_edges[i];
        int firings = engine->graph->methods[engine->graph->edges[e].to].firings;
        for (int k = 0; state->receivers != NULL && k < firings; k++) {
            uint64_t members = engine->options.receivers(engine->options.arg, e, engine->step, k);
            TROUPE_ASSERT((members & ~state->everyone) == 0,
                          "edge %s: receivers 0x%" PRIx64 " of a gang with members 0x%" PRIx64,
                          engine->graph->edges[e].name, members, state->everyone);
            state->receivers[k] = members;
        }
    }
}

static troupe_status refuse_message(const troupe_engine *engine, int edge, int64_t firing,
                                    int member) {
    const struct troupe_edge *plan = &engine->graph->edges[edge];
    return troupe_fail(TROUPE_ERROR_CONTRACT,
                       "edge %s: member %d reports message %" PRId64 " of step %" PRId64
                       ", which is empty, not its own, or more than the %d credits allow; do both "
                       "sides have the same plan?",
                       plan->name, member, firing, step_of(engine, plan->to, firing),
                       plan->credits);
}

/* Messages that came ahead of their step are of members that receive them. */
static troupe_status check_early_messages(const troupe_engine *engine) {
    for (int i = 0; i < engine->edge_count; i++) {
        const struct edge_state *state = &engine->edges[i];
        int e = engine->here_edges[i];
        if (!state->has_consumer || state->receivers == NULL) {
            continue;
        }
        int64_t limit = method_at(engine, engine->graph->edges[e].to)->limit;
        for (int k = 0; k < engine->graph->edges[e].credits; k++) {
            const struct message *message = &state->messages[k];
            uint64_t others = message->reported;
            others &=
                message->firing < limit ? ~receivers_of(engine, state, e, message->firing) : 0;
            if (others != 0) {
                return refuse_message(engine, e, message->firing, __builtin_ctzll(others));
            }
        }
    }
    return TROUPE_OK;
}

troupe_status troupe_engine_begin_step(troupe_engine *engine, int64_t step) {
    TROUPE_ASSERT(step >= 0 && (engine->step < 0 || step == engine->step + 1),
                  "step %" PRId64 " after step %" PRId64, step, engine->step);
    TROUPE_ASSERT(troupe_engine_step_issued(engine),
                  "step %" PRId64 " begins before step %" PRId64 " is issued", step, engine->step);
    if (engine->step < 0) {
        skip_to_step(engine, step);
    }
    engine->step = step;
    for (int i = 0; i < engine->method_count; i++) {
        int m = engine->here_methods[i], firings = engine->graph->methods[m].firings;
        if (firings > 0) {
            engine->methods[i].limit = (step + 1) * firings;
            engine->issued_in_step[m] = 0;
            engine->to_issue += firings;
            engine->to_finish += firings;
            troupe_engine_wake(engine, m, TROUPE_WAIT_FOR_STEP, 0);
        }
    }
    ask_receivers(engine);
    engine->options.order->begin_step(engine->order_state, step);
    troupe_engine_ask_in_flight(engine);
    return check_early_messages(engine);
}

/* ---- events ---- */

troupe_status troupe_engine_arrived(troupe_engine *engine, int edge, int64_t firing, int member) {
    const struct troupe_edge *plan = &engine->graph->edges[edge];
    TROUPE_ASSERT(troupe_graph_index_island_of_method(engine->index, plan->to) == engine->island,
                  "edge %s is not consumed in this island", plan->name);
    const struct edge_state *state = input_at(engine, edge);
    if (!counts_arrivals(state)) {
        return TROUPE_OK;
    }
    const struct method_state *consumer = method_at(engine, plan->to);
    uint64_t bit = member >= 0 && member < TROUPE_GANG_RANKS_MAX ? UINT64_C(1) << member : 0;
    bool is_current = firing < consumer->limit; /* what this step's messages are is known */
    uint64_t expected = is_current ? receivers_of(engine, state, edge, firing) : state->everyone;
    struct message *message = troupe_engine_message(engine, edge, firing);
    if ((bit & expected) == 0 || firing < consumer->issued || message == NULL ||
        (message->reported & bit) != 0) {
        return refuse_message(engine, edge, firing, member);
    }
    message->firing = firing;
    message->reported |= bit;
    if (message->reported == expected) {
        troupe_engine_wake(engine, plan->to, TROUPE_WAIT_FOR_INPUT, edge);
    }
    return TROUPE_OK;
}

static void change_credits(struct edge_state *edge, int by) {
    if (TROUPE_ENGINE_BROKEN != BROKEN_CREDIT) {
        edge->in_flight += by;
    }
}

troupe_status troupe_engine_credit_returned(troupe_engine *engine, int edge) {
    const struct troupe_edge *plan = &engine->graph->edges[edge];
    TROUPE_ASSERT(troupe_graph_index_island_of_method(engine->index, plan->from) ==
                          engine->island &&
                      !is_local(output_at(engine, edge)),
                  "edge %s returns its credits by itself, or to another island", plan->name);
    struct edge_state *state = output_at(engine, edge);
    if (state->in_flight == 0 && TROUPE_ENGINE_BROKEN != BROKEN_CREDIT) {
        return troupe_fail(TROUPE_ERROR_CONTRACT,
                           "edge %s: a credit came back that was not taken; do both sides agree on "
                           "the empty messages?",
                           plan->name);
    }
    change_credits(state, -1);
    troupe_engine_wake(engine, plan->from, TROUPE_WAIT_FOR_CREDIT, edge);
    return TROUPE_OK;
}

/* One member more has finished the firing; returns whether it was the last of them. */
static bool count_done(const troupe_engine *engine, int method, int member) {
    struct method_state *state = method_at(engine, method);
    if (state->done[member]++ > state->done_least || --state->done_least_count > 0) {
        return false;
    }
    state->done_least++;
    for (int k = 0; k < gang_of(engine, method)->rank_count; k++) {
        state->done_least_count += state->done[k] == state->done_least;
    }
    return true;
}

void troupe_engine_done(troupe_engine *engine, int method, int64_t firing, int member) {
    const struct troupe_gang *gang = gang_of(engine, method);
    const struct troupe_method *plan = &engine->graph->methods[method];
    TROUPE_ASSERT(troupe_graph_index_island_of_method(engine->index, method) == engine->island &&
                      member >= 0 && member < gang->rank_count,
                  "%s %s has no member %d here", gang->name, plan->name, member);
    struct method_state *state = method_at(engine, method);
    TROUPE_ASSERT(firing == state->done[member],
                  "%s %s: member %d has done firing %" PRId64 ", but %" PRId64 " comes first",
                  gang->name, plan->name, member, firing, state->done[member]);
    if (count_done(engine, method, member)) {
        engine->to_finish -= plan->firings > 0;
        if (in_reduction_lane(engine, method)) {
            troupe_engine_wake_all(engine, TROUPE_WAIT_FOR_AFTER, method);
        }
    }
    if (in_reduction_lane(engine, method)) {
        troupe_engine_wake_all(engine, TROUPE_WAIT_FOR_LOOK_AHEAD, gang->ranks[member]);
    } else {
        troupe_engine_count_tickets(engine, gang->ranks[member], -1);
    }
    troupe_engine_release(engine, plan->gang);
}

/* ---- decisions ---- */

/* Inputs are taken: credits of local ones return, reports are forgotten. */
static void take_inputs(troupe_engine *engine, int method, int64_t firing) {
    const struct troupe_lists *inputs = &engine->index->inputs;
    for (int i = inputs->begin[method]; i < inputs->begin[method + 1]; i++) {
        int e = inputs->items[i];
        struct edge_state *edge = input_at(engine, e);
        if (receivers_of(engine, edge, e, firing) == 0) {
            continue;
        }
        if (is_local(edge)) {
            change_credits(edge, -1);
            troupe_engine_wake(engine, engine->graph->edges[e].from, TROUPE_WAIT_FOR_CREDIT, e);
        }
        if (counts_arrivals(edge) && firing >= edge->initial_end) {
            troupe_engine_message(engine, e, firing)->reported = 0;
        }
    }
}

/* Credits are taken; consumers here see the message as if it were there. */
static void give_outputs(troupe_engine *engine, int method, int64_t firing) {
    const struct troupe_lists *outputs = &engine->index->outputs;
    for (int i = outputs->begin[method]; i < outputs->begin[method + 1]; i++) {
        int e = outputs->items[i];
        struct edge_state *edge = output_at(engine, e);
        if (receivers_of(engine, edge, e, firing + engine->graph->edges[e].initial) != 0) {
            change_credits(edge, 1);
        }
        if (edge->has_consumer) {
            troupe_engine_wake(engine, engine->graph->edges[e].to, TROUPE_WAIT_FOR_INPUT, e);
        }
    }
}

/* The gang takes or gives bytes beyond its first slot. */
static void change_memory(troupe_engine *engine, int gang, int slots) {
    const struct troupe_gang *plan = &engine->graph->gangs[gang];
    const struct troupe_lists *gangs = &engine->index->gangs;
    for (int k = 0; k < plan->rank_count; k++) {
        int rank = plan->ranks[k];
        rank_at(engine, rank)->memory_taken += slots * plan->slot_bytes;
        if (slots < 0) {
            troupe_engine_wake_all(engine, TROUPE_WAIT_FOR_MEMORY, rank);
        }
        for (int i = gangs->begin[rank]; slots > 0 && i < gangs->begin[rank + 1]; i++) {
            int taker = gang_at(engine, gangs->items[i])->taker;
            if (taker != TROUPE_NONE && method_at(engine, taker)->place == PLACE_READY) {
                troupe_engine_change(engine, taker);
            }
        }
    }
}

static void take_slots(troupe_engine *engine, int method) {
    const struct troupe_method *plan = &engine->graph->methods[method];
    int by = plan->slot_take - plan->slot_return;
    struct gang_state *pool = troupe_engine_pool(engine, plan->gang);
    bool counts = troupe_engine_counts_memory(engine, plan->gang);
    int beyond_first = by > 0 ? pool->taken > 0 : pool->taken > 1;
    pool->taken += by;
    if (by != 0 && counts && beyond_first) {
        change_memory(engine, plan->gang, by);
    }
    if (by < 0) {
        troupe_engine_wake(engine, gang_at(engine, plan->gang)->taker, TROUPE_WAIT_FOR_SLOT,
                           plan->gang);
        if (counts) { /* its first slot is free again */
            const struct troupe_gang *gang = &engine->graph->gangs[plan->gang];
            for (int k = 0; k < gang->rank_count; k++) {
                troupe_engine_wake_all(engine, TROUPE_WAIT_FOR_MEMORY, gang->ranks[k]);
            }
        }
    }
}

static void queue_ticket(troupe_engine *engine, int method) {
    const struct troupe_gang *gang = gang_of(engine, method);
    for (int k = 0; k < gang->rank_count; k++) {
        struct rank_state *rank = rank_at(engine, gang->ranks[k]);
        if (in_reduction_lane(engine, method)) {
            rank->lane_next = (rank->lane_next + 1) % rank->lane_count;
            troupe_engine_wake_all(engine, TROUPE_WAIT_FOR_LANE, gang->ranks[k]);
        } else {
            troupe_engine_count_tickets(engine, gang->ranks[k], 1);
        }
    }
}

static void count_issued(troupe_engine *engine, int method, int64_t firing) {
    struct method_state *state = method_at(engine, method);
    if (firing != state->issued) {
        state->skipped_one = true;
    } else {
        state->issued += 1 + state->skipped_one;
        state->skipped_one = false;
    }
    int firings = engine->graph->methods[method].firings;
    engine->issued_in_step[method] += firings > 0;
    engine->to_issue -= firings > 0;
}

/* Takes and returns what the firing needs and frees, and wakes who waits for that. */
static void issue(troupe_engine *engine, int method, int64_t firing) {
    troupe_engine_change(engine, method);
    method_at(engine, method)->ready = 0;
    take_inputs(engine, method, firing);
    take_slots(engine, method);
    queue_ticket(engine, method);
    count_issued(engine, method, firing);
    give_outputs(engine, method, firing);
    if (!in_reduction_lane(engine, method)) {
        troupe_engine_wake_all(engine, TROUPE_WAIT_FOR_AFTER, method);
    }
    troupe_engine_release(engine, engine->graph->methods[method].gang);
}

/* The method that the policy wants, or NONE. */
static int choose(troupe_engine *engine) {
    const struct troupe_order_policy *order = engine->options.order;
    const struct troupe_order_view view = {.graph = engine->graph,
                                           .issued = engine->issued_in_step};
    while (engine->first_gang != TROUPE_NONE) {
        int count = troupe_engine_offer(engine, engine->first_gang);
        int choice = order->pick(engine->order_state, &view, engine->candidates, count);
        TROUPE_ASSERT(choice >= TROUPE_ORDER_HOLD && choice < count,
                      "order policy %s picked %d of %d candidates", order->name, choice, count);
        if (choice != TROUPE_ORDER_HOLD) {
            return engine->candidates[choice].method;
        }
        troupe_engine_hold(engine, engine->first_gang);
    }
    return TROUPE_NONE;
}

troupe_status troupe_engine_next(troupe_engine *engine, struct troupe_ticket *out) {
    troupe_engine_settle(engine);
    int method = choose(engine);
    if (method == TROUPE_NONE) {
        return TROUPE_AGAIN;
    }
    int gang = engine->graph->methods[method].gang, slots = engine->graph->gangs[gang].slots;
    int64_t firing = troupe_engine_next_firing(engine, method);
    *out = (struct troupe_ticket){
        .sequence = engine->sequence++,
        .method = method,
        .gang = gang,
        .firing = firing,
        .step = step_of(engine, method, firing),
        .microbatch = microbatch_of(engine, method, firing),
        .slot = slots > 0 ? (int)(firing % slots) : 0,
    };
    issue(engine, method, firing);
    return TROUPE_OK;
}

const char *troupe_engine_choice(const troupe_engine *engine) {
    const struct troupe_order_policy *order = engine->options.order;
    return order->choice != NULL ? order->choice(engine->order_state) : NULL;
}

bool troupe_engine_edge_is_local(const troupe_engine *engine, int edge) {
    return troupe_graph_index_island_of_method(engine->index, engine->graph->edges[edge].from) ==
           troupe_graph_index_island_of_method(engine->index, engine->graph->edges[edge].to);
}
