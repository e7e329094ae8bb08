/* SPDX-License-Identifier: Apache-2.0 */
/* What this rank knows of who waits for what. */
#include "actors/runtime_internal.h"
#include "runtime/clock.h"

static int64_t ms_since(uint64_t since_ns) {
    return (int64_t)(troupe_clock_ns() - since_ns) / 1000000;
}

static struct troupe_wait_fact fact_of_rank(const troupe_runtime *runtime) {
    return (struct troupe_wait_fact){.kind = TROUPE_CONTROL_FACT,
                                     .method = TROUPE_NOBODY,
                                     .of_rank = true,
                                     .rank = TROUPE_NOBODY,
                                     .step = runtime->step,
                                     .done = runtime->firings_done,
                                     .target = runtime->firings_target,
                                     .since_ms = ms_since(runtime->progress_ns)};
}

static void name_ticket(struct troupe_wait_fact *fact, enum troupe_rank_state state,
                        const struct troupe_rank_ticket *ticket) {
    fact->state = state;
    fact->method = ticket->method;
    fact->firing = ticket->firing;
    fact->since_ms = ms_since(ticket->since_ns);
}

/* The channel that has not brought all of the message. */
static int missing_channel(const struct troupe_inlet *inlet, int64_t message) {
    const struct troupe_end *end = &inlet->end;
    const struct troupe_inlet_entry *entry = &inlet->entries[message % inlet->depth];
    bool is_its = entry->state == TROUPE_ENTRY_WAITING && entry->message == message;
    int source = 0;
    while (is_its && source < end->edge->options.from_count - 1 &&
           entry->pending_from[source] == 0) {
        source++;
    }
    return troupe_channel_of(end->edge, is_its ? source : end->shard, end->shard);
}

/* A send of the outlet that is not complete, and whether the device still holds it up. */
static const struct troupe_piece *pending_send(const struct troupe_outlet *outlet,
                                               bool *on_device_out) {
    for (int i = 0; i < outlet->buffer_count; i++) {
        const struct troupe_outlet_buffer *buffer = &outlet->buffers[i];
        for (int k = 0; buffer->busy && k < buffer->send_count; k++) {
            const struct troupe_piece *piece = &buffer->sends[k];
            if (piece->transfer.status == TROUPE_AGAIN) {
                *on_device_out =
                    outlet->end.stream != NULL && troupe_event_query(piece->copied) == TROUPE_AGAIN;
                return piece;
            }
        }
    }
    return NULL;
}

static void name_send(struct troupe_wait_fact *fact, enum troupe_rank_state state,
                      const struct troupe_outlet *outlet) {
    bool on_device = false;
    const struct troupe_piece *piece = pending_send(outlet, &on_device);
    fact->state = on_device ? TROUPE_RANK_DEVICE : state;
    fact->index = outlet->end.edge_index;
    fact->rank = piece != NULL ? piece->transfer.peer : TROUPE_NOBODY;
}

static void name_first_ticket(const troupe_runtime *runtime, struct troupe_wait_fact *fact) {
    const struct troupe_rank_ticket *ticket = &runtime->tickets[runtime->ticket_first];
    const struct troupe_actor_gang *gang = troupe_gang_of(runtime, ticket->method);
    int firings = runtime->graph_methods[ticket->method].firings;
    int port = 0;
    if (firings > 0 && ticket->firing / firings > runtime->step) {
        name_ticket(fact, TROUPE_RANK_OUTSIDE, ticket);
        return;
    }
    switch (troupe_ticket_wait(runtime, ticket, &port)) {
    case TROUPE_WAIT_NOTHING:
        name_ticket(fact, TROUPE_RANK_READY, ticket);
        return;
    case TROUPE_WAIT_INPUT:
        name_ticket(fact, TROUPE_RANK_INPUT, ticket);
        fact->index = missing_channel(gang->inlets[port], ticket->firing);
        return;
    case TROUPE_WAIT_OUTPUT:
        name_ticket(fact, TROUPE_RANK_BUFFER, ticket);
        name_send(fact, TROUPE_RANK_BUFFER, gang->outlets[port]);
        return;
    case TROUPE_WAIT_REDUCTION:
        name_ticket(fact, TROUPE_RANK_REDUCES, ticket);
        return;
    case TROUPE_WAIT_GANG:
        name_ticket(fact, TROUPE_RANK_GATHERS, ticket);
        return;
    }
}

/* The posted reduction that is the first of its lane, or NULL. */
static const struct troupe_posted_reduction *first_reduction(const troupe_runtime *runtime) {
    const struct troupe_posted_reduction *first = NULL;
    for (int m = 0; m < runtime->graph.method_count; m++) {
        const struct troupe_posted_reduction *reduction = &runtime->reductions[m];
        if (reduction->running && (first == NULL || reduction->since_ns < first->since_ns)) {
            first = reduction;
        }
    }
    return first;
}

static void name_unsent(const troupe_runtime *runtime, struct troupe_wait_fact *fact) {
    bool on_device = false;
    fact->state = TROUPE_RANK_DONE;
    for (int i = 0; i < runtime->outlet_count; i++) {
        if (pending_send(&runtime->outlets[i], &on_device) != NULL) {
            name_send(fact, TROUPE_RANK_SENDS, &runtime->outlets[i]);
            return;
        }
    }
    if (runtime->ungranted != NULL) { /* a copy into a tensor that is not free yet */
        fact->state = TROUPE_RANK_SENDS;
        fact->index = runtime->ungranted->flow->edge;
        fact->rank = runtime->ungranted->flow->peer;
    }
}

static struct troupe_wait_fact rank_fact(const troupe_runtime *runtime) {
    struct troupe_wait_fact fact = fact_of_rank(runtime);
    const struct troupe_posted_reduction *reduction = first_reduction(runtime);
    if (runtime->running.method != TROUPE_NOBODY) {
        name_ticket(&fact, TROUPE_RANK_RUNS, &runtime->running);
    } else if (runtime->ticket_count > 0) {
        name_first_ticket(runtime, &fact);
    } else if (reduction != NULL) {
        fact.state = TROUPE_RANK_REDUCES;
        fact.method = reduction->method;
        fact.firing = reduction->firing;
        fact.since_ms = ms_since(reduction->since_ns);
    } else if (runtime->options.microbatches > 0 && runtime->step < 0) {
        fact.state = TROUPE_RANK_OUTSIDE;
    } else if (runtime->options.microbatches > 0 &&
               runtime->firings_done == runtime->firings_target) {
        name_unsent(runtime, &fact);
    } else {
        fact.state = TROUPE_RANK_NO_TICKET;
    }
    return fact;
}

/* Of a method of this conductor's island; false where nothing is left of the steps begun. */
static bool method_fact(const troupe_runtime *runtime, int method, struct troupe_wait_fact *out) {
    if (troupe_conductor_of_gang(runtime, runtime->graph_methods[method].gang) != runtime->rank) {
        return false;
    }
    struct troupe_engine_standing standing = troupe_engine_standing_of(runtime->engine, method);
    *out = (struct troupe_wait_fact){.kind = TROUPE_CONTROL_FACT,
                                     .method = method,
                                     .state = (int32_t)standing.wait.kind,
                                     .index = standing.wait.index,
                                     .rank = standing.missing_rank,
                                     .late_rank = standing.late_rank,
                                     .in_flight = standing.in_flight,
                                     .held = standing.held,
                                     .firing = standing.issued,
                                     .done = standing.done,
                                     .since_ms = ms_since(runtime->issued_ns[method])};
    return true;
}

void troupe_send_facts(troupe_runtime *runtime, int to, int round) {
    struct troupe_wait_fact fact = rank_fact(runtime);
    fact.round = round;
    troupe_send_fact(runtime, to, &fact);
    for (int m = 0; runtime->engine != NULL && m < runtime->graph.method_count; m++) {
        int room = troupe_comm_control_room(runtime->comm);
        if (room > runtime->rank_count + 16 && method_fact(runtime, m, &fact)) {
            fact.round = round;
            troupe_send_fact(runtime, to, &fact);
        }
    }
}
