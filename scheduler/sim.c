/* SPDX-License-Identifier: Apache-2.0 */
/* A discrete-event simulation of the real runtime. What a rank does when (actors/runtime.c), when a
 * message may travel (actors/mailbox.c: an outlet has a buffer for each credit, an inlet too) and
 * who tells whom (actors/conductor.c) is modelled event by event; decisions are the engines'. */
#include "scheduler/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/memory.h"
#include "scheduler/engine.h"
#include "scheduler/script.h"

enum { LOOK_AHEAD_DEFAULT = 2, EVENTS_MIN = 256 };

/* At the same time and rank, in this order. */
enum event_kind {
    EVENT_ARRIVED, /* a message is at a member of its consumer */
    EVENT_SENT,    /* and its sender knows that */
    EVENT_SCRIPT,  /* mode static: the tickets of the step */
    EVENT_TICKET,  /* control messages: these four keep the order of their sender */
    EVENT_TELL_ARRIVED,
    EVENT_TELL_DONE,
    EVENT_TELL_CREDIT,
    EVENT_TASK_END,
    EVENT_REDUCED,
};

struct event {
    int64_t time_ns;
    int rank;
    int from;        /* rank that sent it */
    uint64_t number; /* of the events that `from` has sent */
    enum event_kind kind;
    int index; /* method or edge */
    int member;
    int64_t firing; /* counted over all runs, as the engine does */
};

struct queued {
    int method;
    int64_t firing;
};

struct rank_state {
    struct queued *queue; /* tickets, a ring */
    int head, count;
    bool busy; /* runs the task of its last ticket, or waits in it for the gang */
    uint64_t sent;
};

/* Of one edge, at one member of its consumer: firings (of the consumer, in this run) below. */
struct lane_state {
    int next;        /* whose message has begun to travel, or was empty */
    int arrived;     /* that are there */
    int completed;   /* whose sender has its buffer back */
    int64_t last_ns; /* arrival of the latest that has left: messages keep their order */
};

struct method_state {
    int first_task; /* of its tasks in `tasks`: by microbatch */
    int entered;    /* members that are in the task that comes next */
    int *begun;     /* by member: firings in this run */
    int *ended;
    int returned; /* firings whose output buffers have been reported free, by the first member */
    int returns_edge; /* strict edge to itself: returns its output buffers; -1: none */
    int collective;   /* reduction lane: index; -1 */
};

/* The reductions of one lane order, over all its gangs. */
struct collective {
    int members;
    int posted;
    int64_t duration_ns;
};

struct range {
    int begin, end;
};

struct troupe_sim {
    const struct troupe_graph *graph;
    struct troupe_sim_options options;
    int64_t step;
    int64_t now_ns;
    struct troupe_graph_index *index;
    int *conductor_of;
    troupe_engine **engines; /* by conductor; NULL: the rank conducts nothing */
    troupe_script *script;   /* mode static, without engines; else NULL */
    troupe_traffic *traffic; /* NULL: edge_ns */
    struct rank_state *ranks;
    struct queued *queue_memory;
    int queue_capacity;
    struct method_state *methods;
    int *member_memory;
    struct collective *collectives;
    int collective_count;
    int64_t *lane_free_ns; /* by rank */
    struct lane_state *lanes;
    int *first_lane; /* by edge: of its consumer's members */
    int *inputs;     /* edges by consumer */
    int *outputs;    /* edges by producer */
    struct range *input_range;
    struct range *output_range;
    struct event *heap;
    int heap_count, heap_capacity;
    int64_t event_count;
    struct troupe_task *tasks;
    int task_count;
    troupe_status failure;
};

/* ---- small things ---- */

static const struct troupe_gang *gang_of(const troupe_sim *sim, int method) {
    return &sim->graph->gangs[sim->graph->methods[method].gang];
}

static int conductor_of(const troupe_sim *sim, int method) {
    return sim->conductor_of[gang_of(sim, method)->ranks[0]];
}

static int firings_of(const troupe_sim *sim, int method) {
    return sim->graph->methods[method].firings;
}

static bool in_reduction_lane(const troupe_sim *sim, int method) {
    return sim->graph->methods[method].lane == TROUPE_LANE_REDUCTION;
}

static int member_of(const troupe_sim *sim, int method, int rank) {
    const struct troupe_gang *gang = gang_of(sim, method);
    int k = 0;
    while (gang->ranks[k] != rank) {
        k++;
    }
    return k;
}

/* Member of the producer that sends to this member of the consumer. */
static int sender_of(const troupe_sim *sim, int edge, int receiver) {
    return receiver % gang_of(sim, sim->graph->edges[edge].from)->rank_count;
}

static int receiver_count(const troupe_sim *sim, int edge) {
    return gang_of(sim, sim->graph->edges[edge].to)->rank_count;
}

static bool receives(const troupe_sim *sim, int edge, int firing, int member) {
    const struct troupe_sim_options *o = &sim->options;
    const struct troupe_edge *plan = &sim->graph->edges[edge];
    if (o->receivers == NULL || plan->initial > 0) {
        return true;
    }
    return (o->receivers(o->arg, edge, sim->step, firing) >> member) & 1;
}

static bool anyone_receives(const troupe_sim *sim, int edge, int firing) {
    const struct troupe_sim_options *o = &sim->options;
    if (o->receivers == NULL || sim->graph->edges[edge].initial > 0) {
        return true;
    }
    return o->receivers(o->arg, edge, sim->step, firing) != 0;
}

/* Firing in this run of a firing counted over all. */
static int in_run(const troupe_sim *sim, int method, int64_t firing) {
    return (int)(firing - sim->step * firings_of(sim, method));
}

/* ---- the heap ---- */

static bool is_earlier(const struct event *a, const struct event *b) {
    if (a->time_ns != b->time_ns) {
        return a->time_ns < b->time_ns;
    }
    if (a->rank != b->rank) {
        return a->rank < b->rank;
    }
    /* Control messages share a place, so that those of one sender keep their order. */
    int kind_a = a->kind >= EVENT_TICKET && a->kind <= EVENT_TELL_CREDIT ? EVENT_TICKET : a->kind;
    int kind_b = b->kind >= EVENT_TICKET && b->kind <= EVENT_TELL_CREDIT ? EVENT_TICKET : b->kind;
    if (kind_a != kind_b) {
        return kind_a < kind_b;
    }
    return a->from != b->from ? a->from < b->from : a->number < b->number;
}

static void push_event(troupe_sim *sim, struct event event) {
    TROUPE_ASSERT(sim->heap_count < sim->heap_capacity, "%d events at once", sim->heap_count);
    event.number = sim->ranks[event.from].sent++;
    int i = sim->heap_count++;
    for (; i > 0 && is_earlier(&event, &sim->heap[(i - 1) / 2]); i = (i - 1) / 2) {
        sim->heap[i] = sim->heap[(i - 1) / 2];
    }
    sim->heap[i] = event;
}

static struct event pop_event(troupe_sim *sim) {
    struct event top = sim->heap[0], last = sim->heap[--sim->heap_count];
    int i = 0;
    for (int child = 1; child < sim->heap_count; child = 2 * i + 1) {
        child +=
            child + 1 < sim->heap_count && is_earlier(&sim->heap[child + 1], &sim->heap[child]);
        if (!is_earlier(&sim->heap[child], &last)) {
            break;
        }
        sim->heap[i] = sim->heap[child];
        i = child;
    }
    sim->heap[i] = last;
    sim->event_count++;
    return top;
}

/* ---- conductors ---- */

static void tell(troupe_sim *sim, int from, struct event event);

static void push_ticket(troupe_sim *sim, int rank, int method, int64_t firing) {
    struct rank_state *state = &sim->ranks[rank];
    TROUPE_ASSERT(state->count < sim->queue_capacity, "rank %d holds %d tickets", rank,
                  state->count);
    int at = (state->head + state->count++) % sim->queue_capacity;
    state->queue[at] = (struct queued){method, firing};
}

static void return_credits(troupe_sim *sim, int conductor, int method, int64_t firing) {
    troupe_engine *engine = sim->engines[conductor];
    for (int i = sim->input_range[method].begin; i < sim->input_range[method].end; i++) {
        int e = sim->inputs[i];
        if (!troupe_engine_edge_is_local(engine, e) &&
            anyone_receives(sim, e, in_run(sim, method, firing))) {
            tell(sim, conductor,
                 (struct event){.kind = EVENT_TELL_CREDIT,
                                .rank = conductor_of(sim, sim->graph->edges[e].from),
                                .index = e});
        }
    }
}

/* Issues what may be issued. */
static void pump(troupe_sim *sim, int conductor) {
    struct troupe_ticket ticket;
    while (troupe_engine_next(sim->engines[conductor], &ticket) == TROUPE_OK) {
        const struct troupe_gang *gang = &sim->graph->gangs[ticket.gang];
        if (sim->options.issued != NULL) {
            sim->options.issued(sim->options.issued_arg, &ticket);
        }
        return_credits(sim, conductor, ticket.method, ticket.firing);
        for (int k = 0; k < gang->rank_count; k++) {
            tell(sim, conductor,
                 (struct event){.kind = EVENT_TICKET,
                                .rank = gang->ranks[k],
                                .index = ticket.method,
                                .firing = ticket.firing});
        }
    }
}

static void control(troupe_sim *sim, const struct event *event) {
    troupe_status status = TROUPE_OK;
    troupe_engine *engine = sim->engines[event->rank];
    switch (event->kind) {
    case EVENT_TICKET:
        push_ticket(sim, event->rank, event->index, event->firing);
        return;
    case EVENT_TELL_ARRIVED:
        status = troupe_engine_arrived(engine, event->index, event->firing, event->member);
        break;
    case EVENT_TELL_CREDIT:
        status = troupe_engine_credit_returned(engine, event->index);
        break;
    default:
        troupe_engine_done(engine, event->index, event->firing, event->member);
        break;
    }
    if (status != TROUPE_OK) {
        sim->failure = status;
        return;
    }
    pump(sim, event->rank);
}

/* A control message: to the own rank it is a call. */
static void tell(troupe_sim *sim, int from, struct event event) {
    event.from = from;
    if (sim->script != NULL) {
        return; /* nobody wants to know */
    }
    if (from == event.rank) {
        control(sim, &event);
        return;
    }
    event.time_ns = sim->now_ns + sim->options.control_ns;
    push_event(sim, event);
}

/* ---- messages ---- */

/* The sender's buffers that have become free go back to the engine, see plan.c of the actors. */
static void report_returns(troupe_sim *sim, int method, int member) {
    struct method_state *state = &sim->methods[method];
    if (state->returns_edge < 0 || member != 0) {
        return;
    }
    int freed = state->ended[0];
    for (int i = sim->output_range[method].begin; i < sim->output_range[method].end; i++) {
        int e = sim->outputs[i];
        for (int k = 0; e != state->returns_edge && k < receiver_count(sim, e); k++) {
            int done = sim->lanes[sim->first_lane[e] + k].completed - sim->graph->edges[e].initial;
            freed = sender_of(sim, e, k) == 0 && done < freed ? done : freed;
        }
    }
    const struct troupe_edge *returns = &sim->graph->edges[state->returns_edge];
    int64_t first = sim->step * firings_of(sim, method) + returns->initial;
    for (; state->returned < freed; state->returned++) {
        for (int k = 0; k < gang_of(sim, method)->rank_count; k++) {
            tell(sim, gang_of(sim, method)->ranks[k],
                 (struct event){.kind = EVENT_TELL_ARRIVED,
                                .rank = conductor_of(sim, method),
                                .index = state->returns_edge,
                                .member = k,
                                .firing = first + state->returned});
        }
    }
}

/* Empty messages never fill a buffer: those behind the completed ones are completed, too. */
static void pass_empty(troupe_sim *sim, int edge, int member) {
    const struct troupe_edge *plan = &sim->graph->edges[edge];
    struct lane_state *lane = &sim->lanes[sim->first_lane[edge] + member];
    int written = sim->methods[plan->from].ended[sender_of(sim, edge, member)] + plan->initial;
    written = written < firings_of(sim, plan->to) ? written : firings_of(sim, plan->to);
    while (lane->completed < written && !receives(sim, edge, lane->completed, member)) {
        lane->completed++;
    }
}

/* Messages up to the one of `firing` are no longer in the sender's buffers. */
static void complete(troupe_sim *sim, int edge, int member, int firing) {
    sim->lanes[sim->first_lane[edge] + member].completed = firing + 1;
    pass_empty(sim, edge, member);
    report_returns(sim, sim->graph->edges[edge].from, sender_of(sim, edge, member));
}

/* The message is at the member: its conductor hears of it where it counts arrivals. */
static void arrive(troupe_sim *sim, int edge, int member, int firing) {
    const struct troupe_edge *plan = &sim->graph->edges[edge];
    int rank = gang_of(sim, plan->to)->ranks[member];
    int conductor = sim->conductor_of[rank];
    sim->lanes[sim->first_lane[edge] + member].arrived = firing + 1;
    if (sim->script == NULL && (plan->strict || in_reduction_lane(sim, plan->from) ||
                                !troupe_engine_edge_is_local(sim->engines[conductor], edge))) {
        tell(sim, rank,
             (struct event){.kind = EVENT_TELL_ARRIVED,
                            .rank = conductor,
                            .index = edge,
                            .member = member,
                            .firing = sim->step * firings_of(sim, plan->to) + firing});
    }
}

static int64_t arrival_of(troupe_sim *sim, int edge, int member, int firing, int from, int to) {
    const struct troupe_sim_options *o = &sim->options;
    int producing = firing - sim->graph->edges[edge].initial;
    if (sim->traffic == NULL) {
        int64_t ns = troupe_cost_of_edge(o->costs, edge, sim->step, producing);
        return sim->now_ns + (from == to ? 0 : ns);
    }
    int64_t bytes =
        o->edge_bytes == NULL ? 0 : o->edge_bytes(o->arg, edge, sim->step, producing, member);
    return troupe_traffic_send(sim->traffic, sim->now_ns, from, to, bytes);
}

static void travel(troupe_sim *sim, int edge, int member, int firing) {
    const struct troupe_edge *plan = &sim->graph->edges[edge];
    int from = gang_of(sim, plan->from)->ranks[sender_of(sim, edge, member)];
    int to = gang_of(sim, plan->to)->ranks[member];
    if (from == to) {
        arrive(sim, edge, member, firing); /* and complete when consumed: it is handed over */
        return;
    }
    int64_t *last_ns = &sim->lanes[sim->first_lane[edge] + member].last_ns;
    int64_t arrival = arrival_of(sim, edge, member, firing, from, to);
    *last_ns = arrival > *last_ns ? arrival : *last_ns;
    struct event event = {.kind = EVENT_ARRIVED,
                          .time_ns = *last_ns,
                          .rank = to,
                          .from = from,
                          .index = edge,
                          .member = member,
                          .firing = firing};
    push_event(sim, event);
    event.kind = EVENT_SENT;
    event.rank = from;
    push_event(sim, event);
}

/* Lets messages travel that are written and for which the receiver has room. */
static void pump_lane(troupe_sim *sim, int edge, int member) {
    const struct troupe_edge *plan = &sim->graph->edges[edge];
    struct lane_state *lane = &sim->lanes[sim->first_lane[edge] + member];
    int written = sim->methods[plan->from].ended[sender_of(sim, edge, member)] + plan->initial;
    int room = sim->methods[plan->to].ended[member] + plan->credits;
    while (lane->next < written && lane->next < room && lane->next < firings_of(sim, plan->to)) {
        int firing = lane->next++;
        if (receives(sim, edge, firing, member)) {
            travel(sim, edge, member, firing);
        }
    }
}

/* ---- ranks ---- */

static bool inputs_are_here(const troupe_sim *sim, int method, int firing, int member) {
    for (int i = sim->input_range[method].begin; i < sim->input_range[method].end; i++) {
        int e = sim->inputs[i];
        if (e != sim->methods[method].returns_edge && receives(sim, e, firing, member) &&
            sim->lanes[sim->first_lane[e] + member].arrived <= firing) {
            return false;
        }
    }
    return true;
}

/* Reductions that come before the method have completed here; with engines it has no ticket till
 * then. */
static bool reductions_are_done(const troupe_sim *sim, int method, int member) {
    const struct troupe_method *plan = &sim->graph->methods[method];
    for (int i = 0; i < plan->after_count; i++) {
        if (in_reduction_lane(sim, plan->after[i]) &&
            sim->methods[plan->after[i]].ended[member] == 0) {
            return false;
        }
    }
    return true;
}

/* The first message of the edge that is still in this member's buffers, or later. */
static int first_held(const troupe_sim *sim, int edge, int firing, int member) {
    int first = firing;
    for (int k = member; k < receiver_count(sim, edge);
         k += gang_of(sim, sim->graph->edges[edge].from)->rank_count) {
        int completed = sim->lanes[sim->first_lane[edge] + k].completed;
        first = completed < first ? completed : first;
    }
    return first;
}

static bool holds_buffer(const troupe_sim *sim, int edge, int firing, int member) {
    for (int k = member; k < receiver_count(sim, edge);
         k += gang_of(sim, sim->graph->edges[edge].from)->rank_count) {
        if (sim->lanes[sim->first_lane[edge] + k].completed <= firing &&
            receives(sim, edge, firing, k)) {
            return true;
        }
    }
    return false;
}

/* Firings below `firing` whose buffer this member still holds for some receiver. */
static int held_buffers(const troupe_sim *sim, int edge, int firing, int member) {
    int held = 0;
    for (int f = first_held(sim, edge, firing, member); f < firing; f++) {
        held += holds_buffer(sim, edge, f, member);
    }
    return held;
}

/* The edges of an output that feeds several gangs share its buffers. With engines these are counted
 * there: the method has no ticket before one has been returned. */
static bool shared_buffer_is_free(const troupe_sim *sim, int method, int firing, int member) {
    int returns = sim->methods[method].returns_edge, first = firing, held = 0;
    const struct range *outputs = &sim->output_range[method];
    if (sim->script == NULL || returns < 0) {
        return true;
    }
    for (int i = outputs->begin; i < outputs->end; i++) {
        if (sim->outputs[i] != returns) {
            first = first_held(sim, sim->outputs[i], first, member);
        }
    }
    for (int f = first; f < firing; f++) {
        bool holds = false;
        for (int i = outputs->begin; i < outputs->end; i++) {
            holds = holds ||
                    (sim->outputs[i] != returns && holds_buffer(sim, sim->outputs[i], f, member));
        }
        held += holds;
    }
    return held < sim->graph->edges[returns].initial + (sim->options.receivers != NULL);
}

/* Buffers of an output beyond its credits. */
static int spare_buffers(const troupe_sim *sim, int edge) {
    const struct troupe_sim_options *o = &sim->options;
    if (o->receivers == NULL || sim->graph->edges[edge].initial > 0) {
        return 0;
    }
    return o->may_be_empty == NULL || o->may_be_empty(o->arg, edge);
}

static bool outputs_are_free(const troupe_sim *sim, int method, int firing, int member) {
    for (int i = sim->output_range[method].begin; i < sim->output_range[method].end; i++) {
        int e = sim->outputs[i];
        const struct troupe_edge *plan = &sim->graph->edges[e];
        int buffers = plan->credits + spare_buffers(sim, e);
        if (e != sim->methods[method].returns_edge &&
            held_buffers(sim, e, firing + plan->initial, member) >= buffers) {
            return false;
        }
    }
    return true;
}

static struct troupe_task *task_of(troupe_sim *sim, int method, int firing) {
    return &sim->tasks[sim->methods[method].first_task + firing];
}

static int64_t duration_of(const troupe_sim *sim, int method, int firing) {
    return troupe_cost_of_task(sim->options.costs, method, sim->step, firing);
}

static void tell_done(troupe_sim *sim, int method, int firing, int member) {
    tell(sim, gang_of(sim, method)->ranks[member],
         (struct event){.kind = EVENT_TELL_DONE,
                        .rank = conductor_of(sim, method),
                        .index = method,
                        .member = member,
                        .firing = sim->step * firings_of(sim, method) + firing});
}

/* All members of the gang are there: it runs. */
static void begin_task(troupe_sim *sim, int method, int firing) {
    const struct troupe_gang *gang = gang_of(sim, method);
    struct troupe_task *task = task_of(sim, method, firing);
    sim->methods[method].entered = 0;
    *task = (struct troupe_task){.method = method,
                                 .microbatch = firing,
                                 .begin_ns = sim->now_ns,
                                 .end_ns = sim->now_ns + duration_of(sim, method, firing)};
    for (int k = 0; k < gang->rank_count; k++) {
        push_event(sim, (struct event){.kind = EVENT_TASK_END,
                                       .time_ns = task->end_ns,
                                       .rank = gang->ranks[k],
                                       .from = gang->ranks[k],
                                       .index = method,
                                       .member = k,
                                       .firing = firing});
    }
}

/* All members of all gangs have posted: it begins when the lanes of all are free. */
static void begin_collective(troupe_sim *sim, int index) {
    struct collective *collective = &sim->collectives[index];
    int64_t begin = sim->now_ns;
    for (int pass = 0; pass < 2; pass++) { /* when, then who */
        for (int m = 0; m < sim->graph->method_count; m++) {
            const struct troupe_gang *gang = gang_of(sim, m);
            for (int k = 0; sim->methods[m].collective == index && k < gang->rank_count; k++) {
                int64_t *lane_free = &sim->lane_free_ns[gang->ranks[k]];
                if (pass == 0) {
                    begin = *lane_free > begin ? *lane_free : begin;
                    continue;
                }
                *lane_free = begin + collective->duration_ns;
                *task_of(sim, m, 0) =
                    (struct troupe_task){.method = m, .begin_ns = begin, .end_ns = *lane_free};
                push_event(sim, (struct event){.kind = EVENT_REDUCED,
                                               .time_ns = *lane_free,
                                               .rank = gang->ranks[k],
                                               .from = gang->ranks[k],
                                               .index = m,
                                               .member = k});
            }
        }
    }
}

static void post_reduction(troupe_sim *sim, int method, int firing) {
    struct collective *collective = &sim->collectives[sim->methods[method].collective];
    int64_t ns = duration_of(sim, method, firing);
    collective->duration_ns = ns > collective->duration_ns ? ns : collective->duration_ns;
    if (++collective->posted == collective->members) {
        begin_collective(sim, sim->methods[method].collective);
    }
}

/* The rank goes on with its tickets as far as it can. */
static void advance(troupe_sim *sim, int rank) {
    struct rank_state *state = &sim->ranks[rank];
    while (!state->busy && state->count > 0) {
        struct queued ticket = state->queue[state->head];
        int member = member_of(sim, ticket.method, rank);
        int firing = in_run(sim, ticket.method, ticket.firing);
        bool reduces = in_reduction_lane(sim, ticket.method);
        if (!reductions_are_done(sim, ticket.method, member) ||
            !inputs_are_here(sim, ticket.method, firing, member) ||
            (!reduces && (!outputs_are_free(sim, ticket.method, firing, member) ||
                          !shared_buffer_is_free(sim, ticket.method, firing, member)))) {
            return;
        }
        state->head = (state->head + 1) % sim->queue_capacity;
        state->count--;
        sim->methods[ticket.method].begun[member]++;
        if (reduces) {
            post_reduction(sim, ticket.method, firing);
            continue;
        }
        state->busy = true;
        if (++sim->methods[ticket.method].entered == gang_of(sim, ticket.method)->rank_count) {
            begin_task(sim, ticket.method, firing);
        }
    }
}

/* Outputs go before inputs are given back, then the conductor hears of it; as in run_task. */
static void end_task(troupe_sim *sim, int method, int firing, int member) {
    struct method_state *state = &sim->methods[method];
    state->ended[member] = firing + 1;
    for (int i = sim->output_range[method].begin; i < sim->output_range[method].end; i++) {
        int e = sim->outputs[i];
        for (int k = 0; e != state->returns_edge && k < receiver_count(sim, e); k++) {
            if (sender_of(sim, e, k) == member) {
                pass_empty(sim, e, k);
                pump_lane(sim, e, k);
            }
        }
    }
    report_returns(sim, method, member);
    for (int i = sim->input_range[method].begin; i < sim->input_range[method].end; i++) {
        int e = sim->inputs[i];
        const struct troupe_edge *plan = &sim->graph->edges[e];
        if (e == state->returns_edge) {
            continue;
        }
        int from = gang_of(sim, plan->from)->ranks[sender_of(sim, e, member)];
        if (from == gang_of(sim, method)->ranks[member] && firing >= plan->initial &&
            receives(sim, e, firing, member)) {
            complete(sim, e, member, firing);
        }
        pump_lane(sim, e, member);
    }
    tell_done(sim, method, firing, member);
}

static void push_script(troupe_sim *sim, int rank) {
    int count = 0;
    const struct troupe_script_line *lines = troupe_script_lines(sim->script, rank, &count);
    for (int i = 0; i < count; i++) {
        push_ticket(sim, rank, lines[i].method,
                    sim->step * firings_of(sim, lines[i].method) + lines[i].microbatch);
    }
}

/* The conductor has its tickets at once, the others in a message. */
static void send_script(troupe_sim *sim, int rank) {
    int count = 0, conductor = sim->conductor_of[rank];
    troupe_script_lines(sim->script, rank, &count);
    if (conductor == rank) {
        push_script(sim, rank);
        return;
    }
    int64_t bytes = count * (int64_t)sizeof(struct troupe_script_line);
    int64_t time_ns = sim->traffic == NULL
                          ? sim->options.control_ns
                          : troupe_traffic_send(sim->traffic, 0, conductor, rank, bytes);
    push_event(sim, (struct event){
                        .kind = EVENT_SCRIPT, .time_ns = time_ns, .rank = rank, .from = conductor});
}

static void handle(troupe_sim *sim, const struct event *event) {
    switch (event->kind) {
    case EVENT_SCRIPT:
        push_script(sim, event->rank);
        break;
    case EVENT_ARRIVED:
        arrive(sim, event->index, event->member, (int)event->firing);
        break;
    case EVENT_SENT:
        complete(sim, event->index, event->member, (int)event->firing);
        break;
    case EVENT_TASK_END:
        sim->ranks[event->rank].busy = false;
        end_task(sim, event->index, (int)event->firing, event->member);
        break;
    case EVENT_REDUCED:
        end_task(sim, event->index, 0, event->member);
        break;
    default:
        control(sim, event);
        break;
    }
    advance(sim, event->rank);
}

/* ---- a run ---- */

static void reset(troupe_sim *sim) {
    const struct troupe_graph *graph = sim->graph;
    sim->now_ns = 0;
    sim->event_count = 0;
    sim->heap_count = 0;
    sim->failure = TROUPE_OK;
    for (int r = 0; r < graph->rank_count; r++) {
        struct rank_state *rank = &sim->ranks[r];
        rank->head = rank->count = 0;
        rank->busy = false;
        rank->sent = 0;
        sim->lane_free_ns[r] = 0;
    }
    for (int m = 0; m < graph->method_count; m++) {
        struct method_state *state = &sim->methods[m];
        size_t bytes = (size_t)gang_of(sim, m)->rank_count * sizeof *state->begun;
        memset(state->begun, 0, bytes);
        memset(state->ended, 0, bytes);
        state->entered = state->returned = 0;
    }
    for (int c = 0; c < sim->collective_count; c++) {
        sim->collectives[c].posted = 0;
        sim->collectives[c].duration_ns = 0;
    }
    for (int e = 0; e < graph->edge_count; e++) {
        int initial = graph->edges[e].initial;
        for (int k = 0; k < receiver_count(sim, e); k++) {
            sim->lanes[sim->first_lane[e] + k] = (struct lane_state){initial, initial, initial, 0};
        }
    }
    if (sim->traffic != NULL) {
        troupe_traffic_reset(sim->traffic);
    }
}

struct sentence {
    char text[512];
    size_t used;
};

static void append_line(void *arg, const char *text) {
    struct sentence *sentence = arg;
    if (sentence->used + 3 < sizeof sentence->text) {
        int wrote =
            snprintf(sentence->text + sentence->used, sizeof sentence->text - sentence->used,
                     "%s%s", sentence->used > 0 ? "; " : "", text);
        sentence->used += wrote > 0 ? (size_t)wrote : 0;
    }
}

static troupe_status check_done(troupe_sim *sim) {
    for (int m = 0; sim->script != NULL && m < sim->graph->method_count; m++) {
        for (int k = 0; k < gang_of(sim, m)->rank_count; k++) {
            TROUPE_ASSERT(sim->methods[m].ended[k] == firings_of(sim, m),
                          "%s %s: %d of %d firings of the script have run", gang_of(sim, m)->name,
                          sim->graph->methods[m].name, sim->methods[m].ended[k],
                          firings_of(sim, m));
        }
    }
    for (int r = 0; r < sim->graph->rank_count; r++) {
        if (sim->engines[r] != NULL && !troupe_engine_step_done(sim->engines[r])) {
            struct sentence sentence = {{0}, 0};
            troupe_engine_explain(sim->engines[r], append_line, &sentence);
            return troupe_fail(TROUPE_ERROR_STALL, "the simulated step stops at %" PRId64 " ns: %s",
                               sim->now_ns, sentence.text);
        }
    }
    return TROUPE_OK;
}

/* Messages of the run before that this one consumes are there when it begins. */
static void carry_over(troupe_sim *sim, int conductor) {
    for (int e = 0; sim->step > 0 && e < sim->graph->edge_count; e++) {
        const struct troupe_edge *edge = &sim->graph->edges[e];
        bool carries = edge->initial > 0 && conductor_of(sim, edge->to) == conductor &&
                       e != sim->methods[edge->to].returns_edge;
        for (int k = 0; carries && k < receiver_count(sim, e); k++) {
            for (int i = 0; i < edge->initial; i++) {
                arrive(sim, e, k, i);
            }
        }
    }
}

static const char *choice_of(const troupe_sim *sim) {
    int r = 0;
    while (r < sim->graph->rank_count - 1 && sim->engines[r] == NULL) {
        r++;
    }
    return sim->engines[r] != NULL ? troupe_engine_choice(sim->engines[r]) : NULL;
}

troupe_status troupe_sim_run(troupe_sim *sim, struct troupe_sim_result *out) {
    reset(sim);
    sim->step++;
    if (sim->script != NULL) {
        TROUPE_TRY(troupe_script_plan(sim->script, sim->step));
    }
    for (int r = 0; sim->script != NULL && r < sim->graph->rank_count; r++) {
        send_script(sim, r);
    }
    for (int r = 0; r < sim->graph->rank_count; r++) {
        if (sim->engines[r] != NULL) {
            TROUPE_TRY(troupe_engine_begin_step(sim->engines[r], sim->step));
            carry_over(sim, r);
            pump(sim, r);
        }
        advance(sim, r);
    }
    while (sim->heap_count > 0 && sim->failure == TROUPE_OK) {
        struct event event = pop_event(sim);
        sim->now_ns = event.time_ns;
        handle(sim, &event);
    }
    TROUPE_TRY(sim->failure);
    TROUPE_TRY(check_done(sim));
    int64_t makespan = 0;
    for (int i = 0; i < sim->task_count; i++) {
        makespan = sim->tasks[i].end_ns > makespan ? sim->tasks[i].end_ns : makespan;
    }
    *out = (struct troupe_sim_result){
        .makespan_ns = makespan,
        .choice = choice_of(sim),
        .events = sim->event_count,
        .schedule = {.graph = sim->graph, .tasks = sim->tasks, .task_count = sim->task_count}};
    return TROUPE_OK;
}

/* ---- creation ---- */

static troupe_status make_methods(troupe_sim *sim) {
    const struct troupe_graph *graph = sim->graph;
    int members = 0;
    TROUPE_TRY(TROUPE_NEW(&sim->methods, graph->method_count));
    for (int m = 0; m < graph->method_count; m++) {
        members += gang_of(sim, m)->rank_count;
        if (firings_of(sim, m) == 0) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "%s %s has no steps; only methods with steps can be simulated",
                               gang_of(sim, m)->name, graph->methods[m].name);
        }
        sim->methods[m].first_task = sim->task_count;
        sim->methods[m].returns_edge = -1;
        sim->task_count += firings_of(sim, m);
    }
    TROUPE_TRY(TROUPE_NEW(&sim->tasks, sim->task_count));
    TROUPE_TRY(TROUPE_NEW(&sim->member_memory, 2 * members));
    int *memory = sim->member_memory;
    for (int m = 0; m < graph->method_count; m++) {
        int count = gang_of(sim, m)->rank_count;
        sim->methods[m].begun = memory;
        sim->methods[m].ended = memory + count;
        memory += 2 * count;
    }
    return TROUPE_OK;
}

static troupe_status make_collectives(troupe_sim *sim) {
    const struct troupe_graph *graph = sim->graph;
    int orders = 0;
    int *index_of = NULL;
    for (int m = 0; m < graph->method_count; m++) {
        bool higher = in_reduction_lane(sim, m) && graph->methods[m].lane_order >= orders;
        orders = higher ? graph->methods[m].lane_order + 1 : orders;
    }
    TROUPE_TRY(TROUPE_NEW(&index_of, orders));
    for (int m = 0; m < graph->method_count; m++) {
        sim->methods[m].collective = -1;
        if (in_reduction_lane(sim, m)) {
            int *index = &index_of[graph->methods[m].lane_order];
            *index = *index == 0 ? ++sim->collective_count : *index;
            sim->methods[m].collective = *index - 1;
        }
    }
    troupe_free(index_of);
    TROUPE_TRY(TROUPE_NEW(&sim->collectives, sim->collective_count));
    for (int m = 0; m < graph->method_count; m++) {
        if (sim->methods[m].collective >= 0) {
            sim->collectives[sim->methods[m].collective].members += gang_of(sim, m)->rank_count;
        }
    }
    return TROUPE_OK;
}

/* Fills `sorted` with the edges grouped by the method at one end. */
static void group_edges(const struct troupe_graph *graph, bool inputs, int *sorted,
                        struct range *ranges) {
    for (int e = 0; e < graph->edge_count; e++) {
        ranges[inputs ? graph->edges[e].to : graph->edges[e].from].end++;
    }
    int begin = 0;
    for (int m = 0; m < graph->method_count; m++) {
        int count = ranges[m].end;
        ranges[m] = (struct range){begin, begin};
        begin += count;
    }
    for (int e = 0; e < graph->edge_count; e++) {
        sorted[ranges[inputs ? graph->edges[e].to : graph->edges[e].from].end++] = e;
    }
}

static troupe_status make_edges(troupe_sim *sim) {
    const struct troupe_graph *graph = sim->graph;
    int lanes = 0;
    TROUPE_TRY(TROUPE_NEW(&sim->first_lane, graph->edge_count));
    TROUPE_TRY(TROUPE_NEW(&sim->inputs, graph->edge_count));
    TROUPE_TRY(TROUPE_NEW(&sim->outputs, graph->edge_count));
    TROUPE_TRY(TROUPE_NEW(&sim->input_range, graph->method_count));
    TROUPE_TRY(TROUPE_NEW(&sim->output_range, graph->method_count));
    for (int e = 0; e < graph->edge_count; e++) {
        const struct troupe_edge *edge = &graph->edges[e];
        sim->first_lane[e] = lanes;
        lanes += receiver_count(sim, e);
        if (edge->from == edge->to && edge->strict) {
            sim->methods[edge->from].returns_edge = e;
        }
    }
    group_edges(graph, true, sim->inputs, sim->input_range);
    group_edges(graph, false, sim->outputs, sim->output_range);
    return TROUPE_NEW(&sim->lanes, lanes);
}

static troupe_status make_ranks(troupe_sim *sim) {
    const struct troupe_graph *graph = sim->graph;
    int reductions = 0, *reductions_of = NULL;
    TROUPE_TRY(TROUPE_NEW(&reductions_of, graph->rank_count));
    for (int m = 0; m < graph->method_count; m++) {
        for (int k = 0; in_reduction_lane(sim, m) && k < gang_of(sim, m)->rank_count; k++) {
            int count = ++reductions_of[gang_of(sim, m)->ranks[k]];
            reductions = count > reductions ? count : reductions;
        }
    }
    troupe_free(reductions_of);
    int look_ahead = sim->options.look_ahead > 0 ? sim->options.look_ahead : LOOK_AHEAD_DEFAULT;
    sim->queue_capacity = look_ahead + TROUPE_TICKETS_OVER + TROUPE_REDUCTIONS_AHEAD * reductions;
    for (int r = 0; sim->options.fixed && r < graph->rank_count; r++) {
        int count = troupe_script_count(graph, r);
        sim->queue_capacity = count > sim->queue_capacity ? count : sim->queue_capacity;
    }
    TROUPE_TRY(TROUPE_NEW(&sim->ranks, graph->rank_count));
    TROUPE_TRY(TROUPE_NEW(&sim->lane_free_ns, graph->rank_count));
    TROUPE_TRY(TROUPE_NEW(&sim->queue_memory, graph->rank_count * sim->queue_capacity));
    for (int r = 0; r < graph->rank_count; r++) {
        sim->ranks[r].queue = sim->queue_memory + (size_t)r * (size_t)sim->queue_capacity;
    }
    return TROUPE_OK;
}

/* On the way at once: to each member a bounded number of tickets and their answers, to each lane
 * and back its credits' messages, and the reports and credits of those. */
static troupe_status make_heap(troupe_sim *sim) {
    const struct troupe_graph *graph = sim->graph;
    int64_t most = EVENTS_MIN;
    for (int m = 0; m < graph->method_count; m++) {
        most += 2 * gang_of(sim, m)->rank_count;
    }
    for (int e = 0; e < graph->edge_count; e++) {
        most += 4 * (int64_t)graph->edges[e].credits * receiver_count(sim, e);
    }
    most += 4 * (int64_t)graph->rank_count * sim->queue_capacity;
    sim->heap_capacity = (int)most;
    return TROUPE_NEW(&sim->heap, most);
}

static troupe_status make_script(troupe_sim *sim) {
    const struct troupe_sim_options *o = &sim->options;
    return troupe_script_create(sim->graph,
                                &(struct troupe_script_options){.order = o->order,
                                                                .look_ahead = o->look_ahead,
                                                                .costs = o->costs,
                                                                .receivers = o->receivers,
                                                                .arg = o->arg},
                                &sim->script);
}

static troupe_status make_engines(troupe_sim *sim) {
    const struct troupe_graph *graph = sim->graph;
    const struct troupe_sim_options *o = &sim->options;
    const troupe_engine *peer = NULL;
    TROUPE_TRY(TROUPE_NEW(&sim->conductor_of, graph->rank_count));
    TROUPE_TRY(TROUPE_NEW(&sim->engines, graph->rank_count));
    TROUPE_TRY(troupe_graph_index_create(graph, &sim->index));
    troupe_graph_conductors(graph, sim->conductor_of);
    for (int g = 0; !o->fixed && g < graph->gang_count; g++) {
        int r = sim->conductor_of[graph->gangs[g].ranks[0]];
        if (sim->engines[r] == NULL) {
            const struct troupe_engine_options options = {.conductor = r,
                                                          .index = sim->index,
                                                          .look_ahead = o->look_ahead,
                                                          .order = o->order,
                                                          .costs = o->costs,
                                                          .peer = peer,
                                                          .receivers = o->receivers,
                                                          .arg = o->arg};
            TROUPE_TRY(troupe_engine_create(graph, &options, &sim->engines[r]));
            peer = sim->engines[r];
        }
    }
    return TROUPE_OK;
}

troupe_status troupe_sim_create(const struct troupe_graph *graph,
                                const struct troupe_sim_options *options, troupe_sim **out) {
    troupe_sim *sim = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY(TROUPE_NEW(&sim, 1));
    sim->graph = graph;
    sim->options = *options;
    sim->step = -1;
    if (options->cluster != NULL && options->control_ns == 0) {
        sim->options.control_ns = options->cluster->control_ns;
    }
    TROUPE_TRY_FAIL(make_methods(sim));
    TROUPE_TRY_FAIL(make_collectives(sim));
    TROUPE_TRY_FAIL(make_edges(sim));
    TROUPE_TRY_FAIL(make_ranks(sim));
    TROUPE_TRY_FAIL(make_heap(sim));
    TROUPE_TRY_FAIL(make_engines(sim));
    if (options->fixed) {
        TROUPE_TRY_FAIL(make_script(sim));
    }
    if (options->cluster != NULL) {
        TROUPE_TRY_FAIL(troupe_traffic_create(options->cluster, graph->rank_count, &sim->traffic));
    }
    *out = sim;
    return TROUPE_OK;
fail:
    troupe_sim_destroy(sim);
    return status;
}

void troupe_sim_destroy(troupe_sim *sim) {
    if (sim == NULL) {
        return;
    }
    for (int r = 0; sim->engines != NULL && r < sim->graph->rank_count; r++) {
        troupe_engine_destroy(sim->engines[r]);
    }
    troupe_script_destroy(sim->script);
    troupe_traffic_destroy(sim->traffic);
    troupe_graph_index_destroy(sim->index);
    troupe_free(sim->conductor_of);
    troupe_free(sim->engines);
    troupe_free(sim->ranks);
    troupe_free(sim->queue_memory);
    troupe_free(sim->methods);
    troupe_free(sim->member_memory);
    troupe_free(sim->collectives);
    troupe_free(sim->lane_free_ns);
    troupe_free(sim->lanes);
    troupe_free(sim->first_lane);
    troupe_free(sim->inputs);
    troupe_free(sim->outputs);
    troupe_free(sim->input_range);
    troupe_free(sim->output_range);
    troupe_free(sim->heap);
    troupe_free(sim->tasks);
    troupe_free(sim);
}
