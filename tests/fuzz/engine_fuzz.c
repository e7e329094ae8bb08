/* SPDX-License-Identifier: Apache-2.0 */
/* The real engine and order policies in a simulated world: ranks with queues of tickets, tasks that
 * hold a collective, a reduction lane whose collectives cross islands, messages that are delayed
 * and overtake each other (control messages keep their order per pair of ranks), buffers and slots
 * that can be overwritten. Nothing in the world resolves a conflict: if the engine's order is wrong
 * somewhere, ranks wait for each other for ever, or a task finds the wrong thing in a buffer.
 *
 *     engine_fuzz SEEDS                    all must pass; TEST_SEED repeats from a seed
 *     engine_fuzz SEEDS --expect-caught    one must fail: the engine is built with a rule broken
 *     engine_fuzz SEEDS --expect-caught --blocking-reduce    the world breaks the progress rule */
#include <stdarg.h>

#include "scheduler/engine.h"
#include "scheduler/order.h"
#include "tests/fuzz/scenario.h"
#include "tests/test.h"

enum {
    EVENTS_MAX = 1 << 14,
    QUEUE_MAX = 128, /* tickets that wait on a rank: look-ahead and the reductions */
    LANE_MAX = 64,
    DELAY_NONE = 0,
};

enum event_kind {
    EVENT_TICKET,        /* rank: gets a ticket */
    EVENT_TASK_END,      /* gang: the task at the head of its members' queues ends */
    EVENT_REDUCTION_END, /* the collective of a lane order ends */
    EVENT_PIECE,         /* rank: a piece of a message is there */
    EVENT_BUFFER_FREE,   /* rank: a receive buffer of a consumer is free again */
    EVENT_ARRIVED,       /* conductor: a member holds a message */
    EVENT_DONE,          /* conductor: a member has done a task */
    EVENT_CREDIT,        /* conductor: a message has been taken */
};

struct event {
    int64_t time;
    uint64_t number; /* of equal times the first sent comes first */
    enum event_kind kind;
    int rank;
    int index; /* method or edge */
    int member;
    int64_t firing;
    struct troupe_ticket ticket;
};

struct rank {
    struct troupe_ticket queue[QUEUE_MAX];
    int begin, end; /* of the queue, counted through */
    bool running;
    bool posted;        /* BLOCKING: the reduction at the head of the queue is posted */
    int lane[LANE_MAX]; /* lane orders posted and not completed */
    int lane_begin, lane_end;
    int64_t last_step_posted;
    int last_order_posted;
    int64_t memory_taken; /* by activations */
};

/* What a consuming member holds of an edge, and how many of its buffers the producer has filled. */
struct inbox {
    int64_t held[CREDITS_MAX]; /* firing, -1 free */
    int filled;
};

struct member {
    int64_t slots[SLOTS_MAX]; /* firing whose activations are there, -1 free */
    int64_t updates;
    uint64_t gradient; /* stands for a sum in floating point: depends on the order */
};

struct world {
    struct scenario scenario;
    uint64_t chance;
    int64_t now;
    int delay_max;
    bool blocking_reduce;
    bool credits_at_issue;   /* when the consumer's conductor announces credits, or at its end */
    bool next_step_at_issue; /* when a conductor begins the next step, or when all is done */
    bool failed;
    char failure[512];
    struct troupe_costs costs;
    struct event events[EVENTS_MAX]; /* a heap, earliest on top */
    int event_count;
    uint64_t event_number;
    int64_t last_control[RANKS_MAX][RANKS_MAX];
    int conductor_of[RANKS_MAX];
    troupe_engine *engines[RANKS_MAX]; /* by conductor */
    int64_t steps_begun[RANKS_MAX];
    struct rank ranks[RANKS_MAX];
    struct inbox inboxes[EDGES_MAX][RANKS_MAX];
    struct member members[GANGS_MAX][RANKS_MAX];
    int64_t next_firing[METHODS_MAX][RANKS_MAX];
    int64_t reported_done[METHODS_MAX][RANKS_MAX];
    bool reducing[MODULES_MAX * RANKS_MAX]; /* by lane order: the collective runs */
    int64_t tasks_done;
};

/* ---- small things ---- */

static void fail(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct world *w, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    if (!w->failed) {
        vsnprintf(w->failure, sizeof w->failure, format, arguments);
    }
    va_end(arguments);
    w->failed = true;
}

static bool is_later(const struct event *a, const struct event *b) {
    return a->time != b->time ? a->time > b->time : a->number > b->number;
}

static void push_event(struct world *w, struct event event) {
    EXPECT(w->event_count < EVENTS_MAX, "%d events", w->event_count);
    event.number = w->event_number++;
    int i = w->event_count++;
    for (; i > 0 && is_later(&w->events[(i - 1) / 2], &event); i = (i - 1) / 2) {
        w->events[i] = w->events[(i - 1) / 2];
    }
    w->events[i] = event;
}

static struct event pop_event(struct world *w) {
    struct event top = w->events[0], last = w->events[--w->event_count];
    int i = 0;
    for (int child = 1; child < w->event_count; child = 2 * i + 1) {
        child += child + 1 < w->event_count && is_later(&w->events[child], &w->events[child + 1]);
        if (!is_later(&last, &w->events[child])) {
            break;
        }
        w->events[i] = w->events[child];
        i = child;
    }
    w->events[i] = last;
    return top;
}

static int64_t some_time(struct world *w) {
    return 1 + chance_below(&w->chance, w->delay_max);
}

/* Data may overtake data. */
static void send(struct world *w, struct event event) {
    event.time = w->now + some_time(w);
    push_event(w, event);
}

/* Control messages of one rank to another keep their order; to itself too, but at once. */
static void send_control(struct world *w, int from, struct event event) {
    int64_t time = w->now + (from == event.rank ? DELAY_NONE : some_time(w));
    int64_t *last = &w->last_control[from][event.rank];
    *last = event.time = time > *last ? time : *last;
    push_event(w, event);
}

static const struct troupe_gang *gang_of(const struct world *w, int method) {
    return &w->scenario.gangs[w->scenario.methods[method].gang];
}

static int conductor_of(const struct world *w, int method) {
    return w->conductor_of[gang_of(w, method)->ranks[0]];
}

static uint64_t receivers_of(struct world *w, int edge, int64_t firing) {
    int to = w->scenario.edges[edge].to, firings = w->scenario.methods[to].firings;
    return scenario_receivers(&w->scenario, edge, firing / firings, (int)(firing % firings));
}

static bool receives(struct world *w, int edge, int64_t firing, int member) {
    return (receivers_of(w, edge, firing) >> member) & 1;
}

static int64_t *find_held(struct inbox *inbox, int64_t firing) {
    for (int i = 0; i < CREDITS_MAX; i++) {
        if (inbox->held[i] == firing) {
            return &inbox->held[i];
        }
    }
    return NULL;
}

/* The member of the producing gang that sends to a member of the consuming one. */
static int sender_of(const struct world *w, int edge, int receiver) {
    return receiver % gang_of(w, w->scenario.edges[edge].from)->rank_count;
}

static int member_of(const struct world *w, int method, int rank) {
    const struct troupe_gang *gang = gang_of(w, method);
    for (int k = 0; k < gang->rank_count; k++) {
        if (gang->ranks[k] == rank) {
            return k;
        }
    }
    return -1;
}

/* ---- conductors ---- */

/* Tells the producers outside that their messages are taken. */
static void announce_credits(struct world *w, int method, int64_t firing) {
    for (int e = 0; e < w->scenario.graph.edge_count; e++) {
        const struct troupe_edge *edge = &w->scenario.edges[e];
        int from = conductor_of(w, edge->from), to = conductor_of(w, method);
        if (edge->to == method && from != to && receivers_of(w, e, firing) != 0) {
            send_control(w, to, (struct event){.kind = EVENT_CREDIT, .rank = from, .index = e});
        }
    }
}

static void conduct(struct world *w, int conductor) {
    troupe_engine *engine = w->engines[conductor];
    struct troupe_ticket ticket;
    do {
        while (troupe_engine_next(engine, &ticket) == TROUPE_OK) {
            const struct troupe_gang *gang = &w->scenario.gangs[ticket.gang];
            for (int k = 0; k < gang->rank_count; k++) {
                send_control(
                    w, conductor,
                    (struct event){.kind = EVENT_TICKET, .rank = gang->ranks[k], .ticket = ticket});
            }
            if (w->credits_at_issue) {
                announce_credits(w, ticket.method, ticket.firing);
            }
        }
        bool next = w->next_step_at_issue ? troupe_engine_step_issued(engine)
                                          : troupe_engine_step_done(engine);
        if (!next || w->steps_begun[conductor] == w->scenario.steps) {
            return;
        }
        if (troupe_engine_begin_step(engine, w->scenario.first_step +
                                                 w->steps_begun[conductor]++) != TROUPE_OK) {
            fail(w, "%s", troupe_last_error());
        }
    } while (true);
}

static int64_t done_by_all(const struct world *w, int method) {
    int64_t least = w->reported_done[method][0];
    for (int k = 1; k < gang_of(w, method)->rank_count; k++) {
        int64_t done = w->reported_done[method][k];
        least = done < least ? done : least;
    }
    return least;
}

static void handle_done(struct world *w, const struct event *event) {
    int64_t before = done_by_all(w, event->index);
    troupe_engine_done(w->engines[event->rank], event->index, event->firing, event->member);
    w->reported_done[event->index][event->member] = event->firing + 1;
    if (!w->credits_at_issue && done_by_all(w, event->index) > before) {
        announce_credits(w, event->index, done_by_all(w, event->index) - 1);
    }
}

/* ---- ranks ---- */

static const struct troupe_ticket *head_of(const struct rank *rank) {
    return rank->begin < rank->end ? &rank->queue[rank->begin % QUEUE_MAX] : NULL;
}

static void report_done(struct world *w, int method, int64_t firing, int member) {
    int rank = gang_of(w, method)->ranks[member];
    send_control(w, rank,
                 (struct event){.kind = EVENT_DONE,
                                .rank = conductor_of(w, method),
                                .index = method,
                                .member = member,
                                .firing = firing});
}

/* Sends what the member sends of the task's outputs. */
static void send_outputs(struct world *w, int method, int64_t firing, int member) {
    for (int e = 0; e < w->scenario.graph.edge_count; e++) {
        const struct troupe_edge *edge = &w->scenario.edges[e];
        const struct troupe_gang *to = gang_of(w, edge->to);
        for (int k = 0; edge->from == method && k < to->rank_count; k++) {
            if (sender_of(w, e, k) == member && receives(w, e, firing + edge->initial, k)) {
                w->inboxes[e][k].filled++;
                send(w, (struct event){.kind = EVENT_PIECE,
                                       .rank = to->ranks[k],
                                       .index = e,
                                       .member = k,
                                       .firing = firing + edge->initial});
            }
        }
    }
}

static void take_inputs(struct world *w, int method, int64_t firing, int member) {
    for (int e = 0; e < w->scenario.graph.edge_count; e++) {
        const struct troupe_edge *edge = &w->scenario.edges[e];
        if (edge->to == method && receives(w, e, firing, member)) {
            int64_t *held = find_held(&w->inboxes[e][member], firing);
            if (held == NULL) {
                fail(w, "%s: message %" PRId64 " is gone before its task ended", edge->name,
                     firing);
                return;
            }
            *held = -1;
            int sender = gang_of(w, edge->from)->ranks[sender_of(w, e, member)];
            send(w, (struct event){
                        .kind = EVENT_BUFFER_FREE, .rank = sender, .index = e, .member = member});
        }
    }
}

/* Inputs are there, and the buffers that the member writes to are free. */
static bool member_is_ready(struct world *w, int method, int64_t firing, int member) {
    for (int e = 0; e < w->scenario.graph.edge_count; e++) {
        const struct troupe_edge *edge = &w->scenario.edges[e];
        if (edge->to == method && receives(w, e, firing, member) &&
            find_held(&w->inboxes[e][member], firing) == NULL) {
            return false;
        }
        int receivers = edge->from == method ? gang_of(w, edge->to)->rank_count : 0;
        for (int k = 0; k < receivers; k++) {
            if (sender_of(w, e, k) == member && receives(w, e, firing + edge->initial, k) &&
                w->inboxes[e][k].filled >= edge->credits) {
                return false;
            }
        }
    }
    return true;
}

static const char *name_of(const struct world *w, int method) {
    static char text[80];
    snprintf(text, sizeof text, "%s %s", gang_of(w, method)->name,
             w->scenario.methods[method].name);
    return text;
}

/* What the slots of all gangs on a rank take together. */
static void take_memory(struct world *w, const struct troupe_gang *gang, int member) {
    struct rank *rank = &w->ranks[gang->ranks[member]];
    const int64_t *most = w->scenario.graph.memory_bytes;
    rank->memory_taken += gang->slot_bytes;
    if (most != NULL && rank->memory_taken > most[gang->ranks[member]]) {
        fail(w, "%s: rank %d holds %" PRId64 " bytes of activations", gang->name,
             gang->ranks[member], rank->memory_taken);
    }
}

/* The rules a task can see for itself when it begins. */
static void check_task(struct world *w, const struct troupe_ticket *ticket, int member) {
    const struct troupe_method *method = &w->scenario.methods[ticket->method];
    const struct gang_methods *gang = &w->scenario.gang_methods[ticket->gang];
    struct member *state = &w->members[ticket->gang][member];
    int64_t *slot = &state->slots[ticket->slot];
    if (ticket->firing != w->next_firing[ticket->method][member]++) {
        fail(w, "%s: firing %" PRId64 " comes out of order", name_of(w, ticket->method),
             ticket->firing);
    }
    if (gang->update >= 0 && method->kind != TROUPE_METHOD_USER &&
        state->updates != ticket->step - w->scenario.first_step) {
        fail(w, "%s: step %" PRId64 " sees %" PRId64 " updates", name_of(w, ticket->method),
             ticket->step, state->updates);
    }
    if (method->slot_take && *slot != -1) {
        fail(w, "%s: slot %d still holds firing %" PRId64, name_of(w, ticket->method), ticket->slot,
             *slot);
    }
    if (method->slot_take) {
        *slot = ticket->firing;
        take_memory(w, gang_of(w, ticket->method), member);
    }
    bool reads = method->kind == TROUPE_METHOD_BACKWARD_INPUT ||
                 method->kind == TROUPE_METHOD_BACKWARD_WEIGHT || method->slot_return;
    if (reads && *slot != ticket->firing) {
        fail(w, "%s: slot %d holds firing %" PRId64 ", not %" PRId64, name_of(w, ticket->method),
             ticket->slot, *slot, ticket->firing);
    }
}

/* What the gradient of a step is when it is summed in order. */
static uint64_t gradient_in_order(const struct world *w, int64_t step) {
    uint64_t gradient = 0;
    for (int k = 0; k < w->scenario.microbatches; k++) {
        gradient = chance_hash(gradient, (uint64_t)(step * w->scenario.microbatches + k));
    }
    return gradient;
}

static void finish_task(struct world *w, const struct troupe_ticket *ticket, int member) {
    const struct troupe_method *method = &w->scenario.methods[ticket->method];
    const struct gang_methods *gang = &w->scenario.gang_methods[ticket->gang];
    struct member *state = &w->members[ticket->gang][member];
    if (method->slot_return) {
        state->slots[ticket->slot] = -1;
        const struct troupe_gang *plan = gang_of(w, ticket->method);
        w->ranks[plan->ranks[member]].memory_taken -= plan->slot_bytes;
    }
    if (ticket->method == (gang->weight >= 0 ? gang->weight : gang->backward)) {
        state->gradient = chance_hash(state->gradient, (uint64_t)ticket->firing);
    }
    if (method->kind == TROUPE_METHOD_UPDATE) {
        if (state->gradient != gradient_in_order(w, ticket->step)) {
            fail(w, "%s: the gradient was not summed in order", name_of(w, ticket->method));
        }
        state->gradient = 0;
        state->updates++;
    }
}

static void advance(struct world *w, int rank);

/* Begins the task if it is at the head of all members' queues and each of them is ready: each
 * member waits for its own inputs, and in the collective for the others. */
static void try_begin(struct world *w, const struct troupe_ticket *ticket) {
    const struct troupe_gang *gang = &w->scenario.gangs[ticket->gang];
    for (int k = 0; k < gang->rank_count; k++) {
        const struct rank *rank = &w->ranks[gang->ranks[k]];
        const struct troupe_ticket *head = head_of(rank);
        if (rank->running || head == NULL || head->method != ticket->method ||
            head->firing != ticket->firing ||
            !member_is_ready(w, ticket->method, ticket->firing, k)) {
            return;
        }
    }
    for (int k = 0; k < gang->rank_count; k++) {
        w->ranks[gang->ranks[k]].running = true;
        check_task(w, ticket, k);
    }
    send(w, (struct event){.kind = EVENT_TASK_END, .ticket = *ticket});
}

static void handle_task_end(struct world *w, const struct troupe_ticket *ticket) {
    const struct troupe_gang *gang = &w->scenario.gangs[ticket->gang];
    for (int k = 0; k < gang->rank_count; k++) {
        w->ranks[gang->ranks[k]].running = false;
        w->ranks[gang->ranks[k]].begin++;
        finish_task(w, ticket, k);
        take_inputs(w, ticket->method, ticket->firing, k);
        send_outputs(w, ticket->method, ticket->firing, k);
        report_done(w, ticket->method, ticket->firing, k);
        w->tasks_done++;
    }
    for (int k = 0; k < gang->rank_count; k++) {
        advance(w, gang->ranks[k]);
    }
}

/* A collective of the reduction lane runs when it is the first of the lane on all its ranks. */
static void try_reduce(struct world *w, int lane_order) {
    int64_t firing = -1;
    if (w->reducing[lane_order]) {
        return;
    }
    for (int m = 0; m < w->scenario.graph.method_count; m++) {
        const struct troupe_method *method = &w->scenario.methods[m];
        const struct troupe_gang *gang = gang_of(w, m);
        bool member = method->lane == TROUPE_LANE_REDUCTION && method->lane_order == lane_order;
        for (int k = 0; member && k < gang->rank_count; k++) {
            const struct rank *rank = &w->ranks[gang->ranks[k]];
            if (rank->lane_begin == rank->lane_end ||
                rank->lane[rank->lane_begin % LANE_MAX] != lane_order) {
                return;
            }
            firing = w->next_firing[m][k] - 1;
        }
    }
    w->reducing[lane_order] = true;
    send(w, (struct event){.kind = EVENT_REDUCTION_END, .index = lane_order, .firing = firing});
}

static void post_reduction(struct world *w, int r, const struct troupe_ticket *ticket) {
    struct rank *rank = &w->ranks[r];
    int order = w->scenario.methods[ticket->method].lane_order;
    check_task(w, ticket, member_of(w, ticket->method, r));
    if (ticket->step < rank->last_step_posted ||
        (ticket->step == rank->last_step_posted && order <= rank->last_order_posted)) {
        fail(w, "rank %d posts reduction %d after %d", r, order, rank->last_order_posted);
    }
    rank->last_step_posted = ticket->step;
    rank->last_order_posted = order;
    rank->lane[rank->lane_end++ % LANE_MAX] = order;
    if (rank->lane_end - rank->lane_begin == 1) {
        try_reduce(w, order);
    }
}

static void handle_reduction_end(struct world *w, int lane_order, int64_t firing) {
    w->reducing[lane_order] = false;
    for (int m = 0; m < w->scenario.graph.method_count; m++) {
        const struct troupe_method *method = &w->scenario.methods[m];
        const struct troupe_gang *gang = gang_of(w, m);
        bool member = method->lane == TROUPE_LANE_REDUCTION && method->lane_order == lane_order;
        for (int k = 0; member && k < gang->rank_count; k++) {
            struct rank *rank = &w->ranks[gang->ranks[k]];
            rank->lane_begin++;
            send_outputs(w, m, firing, k);
            report_done(w, m, firing, k);
            w->tasks_done++;
            if (w->blocking_reduce) {
                rank->posted = false;
                rank->begin++;
            }
        }
    }
    for (int r = 0; r < w->scenario.graph.rank_count; r++) {
        const struct rank *rank = &w->ranks[r];
        if (rank->lane_begin < rank->lane_end) {
            try_reduce(w, rank->lane[rank->lane_begin % LANE_MAX]);
        }
        advance(w, r);
    }
}

/* Does what the rank can do now: posts reductions, begins the next task. */
static void advance(struct world *w, int r) {
    struct rank *rank = &w->ranks[r];
    const struct troupe_ticket *head;
    while (!rank->running && !rank->posted && (head = head_of(rank)) != NULL) {
        if (w->scenario.methods[head->method].lane == TROUPE_LANE_TICKET) {
            try_begin(w, head);
            return;
        }
        post_reduction(w, r, head);
        if (w->blocking_reduce) {
            rank->posted = true;
            return;
        }
        rank->begin++;
    }
}

static void handle_piece(struct world *w, const struct event *event) {
    int64_t *unused = find_held(&w->inboxes[event->index][event->member], -1);
    int used = w->scenario.edges[event->index].credits;
    if (unused == NULL || unused - w->inboxes[event->index][event->member].held >= used) {
        fail(w, "%s: message %" PRId64 " overwrites one that is not read",
             w->scenario.edges[event->index].name, event->firing);
        return;
    }
    *unused = event->firing;
    int to = w->scenario.edges[event->index].to;
    send_control(w, event->rank,
                 (struct event){.kind = EVENT_ARRIVED,
                                .rank = conductor_of(w, to),
                                .index = event->index,
                                .member = event->member,
                                .firing = event->firing});
    advance(w, event->rank);
}

/* ---- the run ---- */

static void handle(struct world *w, const struct event *event) {
    switch (event->kind) {
    case EVENT_TICKET: {
        struct rank *rank = &w->ranks[event->rank];
        EXPECT(rank->end - rank->begin < QUEUE_MAX, "rank %d", event->rank);
        rank->queue[rank->end++ % QUEUE_MAX] = event->ticket;
        advance(w, event->rank);
        return;
    }
    case EVENT_TASK_END:
        handle_task_end(w, &event->ticket);
        return;
    case EVENT_REDUCTION_END:
        handle_reduction_end(w, event->index, event->firing);
        return;
    case EVENT_PIECE:
        handle_piece(w, event);
        return;
    case EVENT_BUFFER_FREE:
        w->inboxes[event->index][event->member].filled--;
        advance(w, event->rank);
        return;
    case EVENT_ARRIVED:
        if (troupe_engine_arrived(w->engines[event->rank], event->index, event->firing,
                                  event->member) != TROUPE_OK) {
            fail(w, "%s", troupe_last_error());
        }
        break;
    case EVENT_DONE:
        handle_done(w, event);
        break;
    case EVENT_CREDIT:
        if (troupe_engine_credit_returned(w->engines[event->rank], event->index) != TROUPE_OK) {
            fail(w, "%s", troupe_last_error());
        }
        break;
    }
    conduct(w, event->rank);
}

/* Nothing is chosen by it but by chance; the same question gets the same answer. */
static int pick_any(void *state, const struct troupe_order_view *view,
                    const struct troupe_candidate *candidates, int count) {
    (void)state;
    (void)view;
    uint64_t hash = 0;
    for (int i = 0; i < count; i++) {
        hash = chance_hash(hash, candidates[i].ready * 131 + (uint64_t)candidates[i].method);
    }
    return (int)(hash % (uint64_t)count);
}

static const struct troupe_order_policy any_order = {.name = "any",
                                                     .summary = "chance",
                                                     .create = troupe_order_no_state,
                                                     .destroy = troupe_order_keep_state,
                                                     .begin_step = troupe_order_no_plan,
                                                     .in_flight = troupe_order_unbounded,
                                                     .pick = pick_any};

/* What policies are told: some of it is far from what the world does. */
static int64_t any_task_ns(void *arg, int method, int64_t step, int microbatch) {
    const struct world *w = arg;
    uint64_t hash = chance_hash(w->scenario.seed + (uint64_t)step,
                                (uint64_t)method * 64 + (uint64_t)microbatch);
    return (int64_t)(hash % 9);
}

static void start_engines(struct world *w) {
    int policies = 0;
    while (troupe_order_builtin(policies) != NULL) {
        policies++;
    }
    int chosen = chance_below(&w->chance, policies + 1);
    const struct troupe_order_policy *order =
        chosen == policies ? &any_order : troupe_order_builtin(chosen);
    w->costs = (struct troupe_costs){.task_ns = any_task_ns, .arg = w};
    bool costs_known = chance_below(&w->chance, 4) > 0;
    troupe_graph_conductors(&w->scenario.graph, w->conductor_of);
    for (int r = 0; r < w->scenario.graph.rank_count; r++) {
        if (w->conductor_of[r] == r) {
            EXPECT_OK(troupe_engine_create(
                &w->scenario.graph,
                &(struct troupe_engine_options){.conductor = r,
                                                .look_ahead = 1 + chance_below(&w->chance, 8),
                                                .order = order,
                                                .costs = costs_known ? &w->costs : NULL,
                                                .receivers = scenario_receivers,
                                                .arg = &w->scenario},
                &w->engines[r]));
        }
    }
}

static void start_state(struct world *w) {
    const struct scenario *s = &w->scenario;
    for (int m = 0; m < s->graph.method_count; m++) {
        for (int k = 0; k < RANKS_MAX; k++) {
            w->reported_done[m][k] = w->next_firing[m][k] = s->first_step * s->methods[m].firings;
        }
    }
    for (int e = 0; e < s->graph.edge_count; e++) {
        for (int k = 0; k < gang_of(w, s->edges[e].to)->rank_count; k++) {
            struct inbox *inbox = &w->inboxes[e][k];
            inbox->filled = s->edges[e].initial;
            for (int i = 0; i < CREDITS_MAX; i++) {
                int64_t first = s->first_step * s->methods[s->edges[e].to].firings;
                inbox->held[i] = i < inbox->filled ? first + i : -1;
            }
        }
    }
    for (int g = 0; g < s->graph.gang_count; g++) {
        for (int k = 0; k < RANKS_MAX; k++) {
            for (int i = 0; i < SLOTS_MAX; i++) {
                w->members[g][k].slots[i] = -1;
            }
        }
    }
    for (int r = 0; r < s->graph.rank_count; r++) {
        w->ranks[r].last_step_posted = -1;
    }
}

static int64_t tasks_expected(const struct world *w) {
    int64_t tasks = 0;
    for (int m = 0; m < w->scenario.graph.method_count; m++) {
        tasks += w->scenario.methods[m].firings * gang_of(w, m)->rank_count;
    }
    return tasks * w->scenario.steps;
}

static void print_line(void *arg, const char *text) {
    (void)arg;
    fprintf(stderr, "    %s\n", text);
}

/* One seed. Returns false, with w->failure, if a rule was seen broken. */
static bool run_seed(struct world *w, uint64_t seed, bool blocking_reduce, bool explain) {
    memset(w, 0, sizeof *w);
    scenario_make(&w->scenario, seed);
    EXPECT(troupe_graph_check(&w->scenario.graph) == TROUPE_OK, "seed %" PRIu64 ": %s", seed,
           troupe_last_error());
    w->chance = chance_hash(seed, 1);
    w->delay_max = 1 + chance_below(&w->chance, 20);
    w->blocking_reduce = blocking_reduce;
    w->credits_at_issue = chance_below(&w->chance, 2);
    w->next_step_at_issue = chance_below(&w->chance, 2);
    start_state(w);
    start_engines(w);
    for (int r = 0; r < w->scenario.graph.rank_count; r++) {
        if (w->engines[r] != NULL) {
            conduct(w, r);
        }
    }
    while (w->event_count > 0 && !w->failed) {
        struct event event = pop_event(w);
        w->now = event.time;
        handle(w, &event);
    }
    if (!w->failed && w->tasks_done != tasks_expected(w)) {
        fail(w, "it hangs after %" PRId64 " of %" PRId64 " tasks", w->tasks_done,
             tasks_expected(w));
    }
    for (int r = 0; r < w->scenario.graph.rank_count; r++) {
        if (w->failed && explain && w->engines[r] != NULL) {
            troupe_engine_explain(w->engines[r], print_line, NULL);
        }
        troupe_engine_destroy(w->engines[r]);
    }
    return !w->failed;
}

static struct {
    int seeds;
    bool blocking_reduce;
} options;
static struct world world;

static void every_seed_ends_right(void) {
    uint64_t first = test_seed();
    int64_t tasks = 0;
    for (int i = 0; i < options.seeds; i++) {
        if (!run_seed(&world, first + (uint64_t)i, options.blocking_reduce, true)) {
            TEST_FAIL("TEST_SEED=%" PRIu64 ": %s", first + (uint64_t)i, world.failure);
        }
        tasks += world.tasks_done;
    }
    printf("  %d seeds, %" PRId64 " tasks\n", options.seeds, tasks);
}

static void broken_rule_is_caught(void) {
    uint64_t first = test_seed();
    for (int i = 0; i < options.seeds; i++) {
        if (!run_seed(&world, first + (uint64_t)i, options.blocking_reduce, false)) {
            printf("  by seed %d of %d: %s\n", i + 1, options.seeds, world.failure);
            return;
        }
    }
    TEST_FAIL("%d seeds and nothing noticed", options.seeds);
}

int main(int argc, char **argv) {
    bool expect_caught = argc > 2 && strcmp(argv[2], "--expect-caught") == 0;
    options.seeds = argc > 1 ? atoi(argv[1]) : 1000;
    options.blocking_reduce = argc > 3 && strcmp(argv[3], "--blocking-reduce") == 0;
    if (expect_caught) {
        TEST(broken_rule_is_caught);
    } else {
        TEST(every_seed_ends_right);
    }
    return TEST_END();
}
