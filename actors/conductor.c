/* SPDX-License-Identifier: Apache-2.0 */
/* Members report to the conductor of their island what has arrived and what is done; the conductor
 * asks the engine and sends tickets. An island of one rank does the same by plain calls. */
#include <assert.h>
#include <string.h>

#include "actors/runtime_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

enum control_kind { CONTROL_ARRIVED, CONTROL_DONE, CONTROL_CREDIT, CONTROL_TICKET, CONTROL_STOP };

struct control {
    uint32_t kind;
    int32_t index; /* engine edge (ARRIVED, CREDIT) or method (DONE) */
    int32_t member;
    int64_t firing;
    struct troupe_ticket ticket; /* TICKET */
};

static_assert(sizeof(struct control) <= TROUPE_CONTROL_BYTES_MAX, "a control message fits");

static void fail(troupe_runtime *runtime, troupe_status status) {
    if (status != TROUPE_OK && runtime->failure == TROUPE_OK) {
        runtime->failure = status;
    }
}

static void send(troupe_runtime *runtime, int to, const struct control *message) {
    fail(runtime, troupe_comm_send_control(runtime->comm, to, message, sizeof *message));
}

static void push_ticket(troupe_runtime *runtime, const struct troupe_ticket *ticket) {
    TROUPE_ASSERT(runtime->ticket_tail - runtime->ticket_head < (uint64_t)runtime->ticket_capacity,
                  "rank %d holds %d tickets, more than the plan allows", runtime->rank,
                  runtime->ticket_capacity);
    runtime->tickets[runtime->ticket_tail++ % (uint64_t)runtime->ticket_capacity] = *ticket;
}

static void apply(troupe_runtime *runtime, const struct control *message) {
    switch (message->kind) {
    case CONTROL_ARRIVED:
        fail(runtime, troupe_engine_arrived(runtime->engine, message->index, message->firing,
                                            message->member));
        troupe_conductor_pump(runtime);
        break;
    case CONTROL_DONE:
        troupe_engine_done(runtime->engine, message->index, message->firing, message->member);
        troupe_conductor_pump(runtime);
        break;
    case CONTROL_CREDIT:
        fail(runtime, troupe_engine_credit_returned(runtime->engine, message->index));
        troupe_conductor_pump(runtime);
        break;
    case CONTROL_TICKET:
        push_ticket(runtime, &message->ticket);
        break;
    case CONTROL_STOP:
        runtime->stopped = true;
        break;
    default:
        fail(runtime, troupe_fail(TROUPE_ERROR_CONTRACT, "rank %d: control message of kind %u",
                                  runtime->rank, message->kind));
    }
}

void troupe_conductor_handle(void *arg, int from, const void *message, size_t bytes) {
    troupe_runtime *runtime = arg;
    struct control control;
    if (bytes != sizeof control) {
        fail(runtime, troupe_fail(TROUPE_ERROR_CONTRACT,
                                  "rank %d sent rank %d a control message of %zu bytes, not %zu",
                                  from, runtime->rank, bytes, sizeof control));
        return;
    }
    memcpy(&control, message, sizeof control);
    apply(runtime, &control);
}

static void tell_conductor(troupe_runtime *runtime, const struct control *message) {
    int conductor = runtime->conductor_of[runtime->rank];
    if (conductor == runtime->rank) {
        apply(runtime, message);
    } else {
        send(runtime, conductor, message);
    }
}

static int conductor_of_method(const troupe_runtime *runtime, int method) {
    return runtime->conductor_of[runtime->gangs[runtime->methods[method].gang].ranks[0]];
}

void troupe_report_arrived(troupe_runtime *runtime, int edge, int64_t firing, int member) {
    const struct troupe_edge *plan = &runtime->edges[edge];
    bool local = conductor_of_method(runtime, plan->from) == conductor_of_method(runtime, plan->to);
    if (!local || plan->strict) {
        tell_conductor(runtime, &(struct control){.kind = CONTROL_ARRIVED,
                                                  .index = edge,
                                                  .member = member,
                                                  .firing = firing});
    }
}

void troupe_report_done(troupe_runtime *runtime, const struct troupe_ticket *ticket, int member) {
    tell_conductor(runtime, &(struct control){.kind = CONTROL_DONE,
                                              .index = ticket->method,
                                              .member = member,
                                              .firing = ticket->firing});
}

void troupe_report_stop(troupe_runtime *runtime) {
    runtime->stopped = true;
    for (int r = 0; r < runtime->rank_count; r++) {
        if (r != runtime->rank) {
            send(runtime, r, &(struct control){.kind = CONTROL_STOP});
        }
    }
}

/* ---- conducting ---- */

/* Which connection an engine edge belongs to, and its two gangs. */
static struct connection *connection_of(const troupe_runtime *runtime, int edge, int *from,
                                        int *to) {
    int low = 0, high = runtime->connection_count - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (runtime->connections[middle]->edge_base <= edge) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    struct connection *c = runtime->connections[low];
    *from = (edge - c->edge_base) / c->options.to_count;
    *to = (edge - c->edge_base) % c->options.to_count;
    return c;
}

/* Inside an island a message always counts, empty or not: so the distance between producer and
 * consumer stays within the credits, which is what makes a buffer free when its turn comes. */
static uint64_t receivers(void *arg, int edge, int64_t step, int microbatch) {
    troupe_runtime *runtime = arg;
    int from = 0, to = 0;
    struct connection *c = connection_of(runtime, edge, &from, &to);
    const struct troupe_spawn_options *gang = &runtime->actors[c->options.to[to]].options;
    const struct troupe_edge *plan = &runtime->edges[edge];
    if (c->options.plan == NULL ||
        conductor_of_method(runtime, plan->from) == conductor_of_method(runtime, plan->to)) {
        return UINT64_MAX >> (TROUPE_GANG_RANKS_MAX - gang->rank_count);
    }
    return troupe_connection_receivers(c, from, to, step, microbatch);
}

/* The consumer of edges from other islands has its ticket: their producers may send once more. */
static void return_credits(troupe_runtime *runtime, const struct troupe_ticket *ticket) {
    for (int e = 0; e < runtime->graph.edge_count; e++) {
        const struct troupe_edge *edge = &runtime->edges[e];
        if (edge->to != ticket->method || troupe_engine_edge_is_local(runtime->engine, e) ||
            receivers(runtime, e, ticket->step, ticket->microbatch) == 0) {
            continue;
        }
        send(runtime, conductor_of_method(runtime, edge->from),
             &(struct control){.kind = CONTROL_CREDIT, .index = e, .firing = ticket->firing});
    }
}

void troupe_conductor_pump(troupe_runtime *runtime) {
    struct control message = {.kind = CONTROL_TICKET};
    while (troupe_engine_next(runtime->engine, &message.ticket) == TROUPE_OK) {
        const struct troupe_gang *gang = &runtime->gangs[message.ticket.gang];
        for (int k = 0; k < gang->rank_count; k++) {
            if (gang->ranks[k] == runtime->rank) {
                push_ticket(runtime, &message.ticket);
            } else {
                send(runtime, gang->ranks[k], &message);
            }
        }
        return_credits(runtime, &message.ticket);
    }
}

troupe_status troupe_conductor_create(troupe_runtime *runtime) {
    if (runtime->conductor_of[runtime->rank] != runtime->rank) {
        return TROUPE_OK;
    }
    return troupe_engine_create(&runtime->graph,
                                &(struct troupe_engine_options){
                                    .conductor = runtime->rank,
                                    .look_ahead = runtime->options.look_ahead,
                                    .order = runtime->options.order,
                                    .receivers = receivers,
                                    .arg = runtime},
                                &runtime->engine);
}

void troupe_conductor_begin_step(troupe_runtime *runtime, int64_t step) {
    if (runtime->engine != NULL) {
        troupe_engine_begin_step(runtime->engine, step);
        troupe_conductor_pump(runtime);
    }
}

bool troupe_conductor_step_done(const troupe_runtime *runtime) {
    return runtime->engine == NULL || troupe_engine_step_done(runtime->engine);
}
