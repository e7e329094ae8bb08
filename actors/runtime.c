/* SPDX-License-Identifier: Apache-2.0 */
/* The executor of one rank: runs its tickets in order, and keeps time, failure and the end. */
#include "actors/runtime.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "actors/crew_internal.h"
#include "actors/runtime_internal.h"
#include "runtime/check.h"
#include "runtime/clock.h"
#include "runtime/memory.h"

static const int64_t stall_ns_default = 60000000000;

/* ---- failure ---- */

void troupe_runtime_fail(troupe_runtime *runtime, troupe_status status) {
    if (runtime->failure != TROUPE_OK) {
        return;
    }
    if (troupe_comm_failure(runtime->comm) != TROUPE_OK) {
        status = troupe_comm_failure(runtime->comm); /* the cause; what we saw is its echo */
    }
    runtime->failure = status;
    snprintf(runtime->failure_text, sizeof runtime->failure_text, "%s", troupe_last_error());
    troupe_comm_abort(runtime->comm, runtime->failure_text);
}

static troupe_status report_failure(const troupe_runtime *runtime) {
    return troupe_fail(runtime->failure, "%s", runtime->failure_text);
}

static bool is_failed(troupe_runtime *runtime) {
    troupe_status status = troupe_comm_failure(runtime->comm);
    if (status != TROUPE_OK) {
        troupe_runtime_fail(runtime, status);
    }
    return runtime->failure != TROUPE_OK;
}

/* ---- control messages ---- */

void troupe_send_control_bytes(troupe_runtime *runtime, int to, const void *message, size_t bytes) {
    if (runtime->failure != TROUPE_OK) {
        return;
    }
    troupe_status status = troupe_comm_send_control(runtime->comm, to, message, bytes);
    if (status != TROUPE_OK) {
        troupe_runtime_fail(runtime, status);
    }
}

void troupe_send_control(troupe_runtime *runtime, int to, const struct troupe_control *control) {
    troupe_send_control_bytes(runtime, to, control, sizeof *control);
}

void troupe_send_fact(troupe_runtime *runtime, int to, const struct troupe_wait_fact *fact) {
    troupe_send_control_bytes(runtime, to, fact, sizeof *fact);
}

static void send_to_all(troupe_runtime *runtime, enum troupe_control_kind kind) {
    for (int r = 0; r < runtime->rank_count; r++) {
        troupe_send_control(runtime, r, &(struct troupe_control){.kind = (int32_t)kind});
    }
}

void troupe_push_ticket(troupe_runtime *runtime, const struct troupe_control *control) {
    TROUPE_ASSERT(runtime->ticket_count < runtime->ticket_capacity,
                  "rank %d holds %d tickets already", runtime->rank, runtime->ticket_count);
    int last = (runtime->ticket_first + runtime->ticket_count++) % runtime->ticket_capacity;
    runtime->tickets[last] = (struct troupe_rank_ticket){.method = control->index,
                                                         .slot = control->slot,
                                                         .firing = control->firing,
                                                         .since_ns = troupe_clock_ns()};
}

/* The inlet of this rank that a channel without steps leads to. */
static struct troupe_inlet *inlet_of_channel(troupe_runtime *runtime, int channel) {
    const struct troupe_channel *c = &runtime->channels[channel];
    const struct troupe_actor_edge *edge = &runtime->edges[c->edge];
    return runtime->gangs[edge->to[c->to_shard]].inlets[edge->to_port];
}

static void handle_control(void *arg, int from, const void *message, size_t bytes) {
    troupe_runtime *runtime = arg;
    struct troupe_control control;
    int32_t kind = 0;
    memcpy(&kind, message, sizeof kind);
    if (kind == TROUPE_CONTROL_BATCH) {
        troupe_tree_heed(runtime, message, bytes);
        return;
    }
    if (bytes == sizeof(struct troupe_wait_fact)) {
        troupe_report_hear(runtime, from, message);
        return;
    }
    TROUPE_ASSERT(bytes == sizeof control, "control message of %zu bytes from rank %d", bytes,
                  from);
    memcpy(&control, message, sizeof control);
    switch ((enum troupe_control_kind)control.kind) {
    case TROUPE_CONTROL_TICKET:
        troupe_push_ticket(runtime, &control);
        break;
    case TROUPE_CONTROL_ARRIVED:
    case TROUPE_CONTROL_DONE:
    case TROUPE_CONTROL_CREDIT:
        troupe_conductor_event(runtime, &control);
        break;
    case TROUPE_CONTROL_GRANT:
        troupe_heed_grant(runtime, from, &control);
        break;
    case TROUPE_CONTROL_SENT:
        troupe_inlet_announce(inlet_of_channel(runtime, control.index), control.firing + 1);
        break;
    case TROUPE_CONTROL_STOP:
        runtime->stopping = true;
        troupe_conductor_pump(runtime);
        break;
    case TROUPE_CONTROL_LAST:
        runtime->last_seen = true;
        break;
    case TROUPE_CONTROL_QUIET:
        if (++runtime->quiet_count == runtime->rank_count) {
            send_to_all(runtime, TROUPE_CONTROL_EXIT);
        }
        break;
    case TROUPE_CONTROL_EXIT:
        runtime->exiting = true;
        break;
    case TROUPE_CONTROL_REPORT:
        troupe_report_asked(runtime, from, control.index, control.slot != 0);
        break;
    case TROUPE_CONTROL_REPORTED:
        troupe_report_answered(runtime, from, control.index);
        break;
    case TROUPE_CONTROL_FACT: /* are longer, see above */
    case TROUPE_CONTROL_BATCH:
        break;
    case TROUPE_CONTROL_COME:
    case TROUPE_CONTROL_GO:
        troupe_static_heed(runtime, &control);
        break;
    case TROUPE_CONTROL_BYE:
        runtime->byes_received++;
        break;
    }
}

/* ---- timers ---- */

void troupe_timer_start(troupe_runtime *runtime, struct troupe_timer *timer, int64_t after_ns) {
    timer->due_ns = troupe_clock_ns() + (uint64_t)(after_ns > 0 ? after_ns : 0);
    struct troupe_timer **place = &runtime->timers;
    while (*place != NULL && (*place)->due_ns <= timer->due_ns) {
        TROUPE_ASSERT(*place != timer, "a timer is started twice");
        place = &(*place)->link;
    }
    timer->link = *place;
    *place = timer;
}

void troupe_timer_cancel(troupe_runtime *runtime, struct troupe_timer *timer) {
    for (struct troupe_timer **place = &runtime->timers; *place != NULL; place = &(*place)->link) {
        if (*place == timer) {
            *place = timer->link;
            return;
        }
    }
}

/* Each timer due now fires once, also if it starts itself again without delay. */
static void fire_timers(troupe_runtime *runtime) {
    uint64_t now = runtime->timers != NULL ? troupe_clock_ns() : 0;
    struct troupe_timer *due = NULL, **last = &due;
    while (runtime->timers != NULL && runtime->timers->due_ns <= now) {
        *last = runtime->timers;
        runtime->timers = runtime->timers->link;
        last = &(*last)->link;
    }
    *last = NULL;
    while (due != NULL) {
        struct troupe_timer *timer = due;
        due = due->link;
        timer->fire(timer, runtime);
        runtime->progress_ns = troupe_clock_ns();
    }
}

/* ---- tickets ---- */

enum troupe_wait_cause troupe_ticket_wait(const troupe_runtime *runtime,
                                          const struct troupe_rank_ticket *ticket, int *port_out) {
    const struct troupe_actor_gang *gang = troupe_gang_of(runtime, ticket->method);
    const struct troupe_actor_method *method = troupe_method_of(runtime, ticket->method);
    for (int i = 0; i < method->input_count; i++) {
        *port_out = method->inputs[i];
        struct troupe_inlet *inlet = gang->inlets[*port_out];
        if (inlet != NULL && troupe_inlet_ready(inlet, ticket->firing) == NULL) {
            return TROUPE_WAIT_INPUT;
        }
    }
    if (troupe_static_awaits_reduction(runtime, ticket->method)) {
        return TROUPE_WAIT_REDUCTION;
    }
    for (int i = 0; i < method->output_count; i++) {
        *port_out = method->outputs[i];
        struct troupe_outlet *outlet = gang->outlets[*port_out];
        if (outlet != NULL && troupe_outlet_free(outlet) == NULL) {
            return TROUPE_WAIT_OUTPUT;
        }
    }
    return troupe_static_awaits_gang(runtime, ticket->method) ? TROUPE_WAIT_GANG
                                                              : TROUPE_WAIT_NOTHING;
}

/* Whether the method fires once a microbatch. */
static bool is_task(const troupe_runtime *runtime, int method) {
    return runtime->graph_methods[method].lane != TROUPE_LANE_REDUCTION &&
           !troupe_method_of(runtime, method)->once;
}

static void report_done(troupe_runtime *runtime, int method, int64_t firing) {
    runtime->firings_done++;
    runtime->tasks_done += is_task(runtime, method);
    troupe_tell_conductor(
        runtime, &(struct troupe_control){.kind = TROUPE_CONTROL_DONE,
                                          .index = method,
                                          .firing = firing,
                                          .member = troupe_gang_of(runtime, method)->member});
}

static void trace_done(troupe_runtime *runtime, int method, int64_t firing, uint64_t begin_ns,
                       uint64_t end_ns) {
    int firings = runtime->graph_methods[method].firings;
    if (runtime->options.trace != NULL) {
        troupe_trace_add(
            runtime->options.trace,
            &(struct troupe_trace_event){.what = method,
                                         .index = firings > 0 ? (int)(firing % firings) : 0,
                                         .begin_ns = begin_ns,
                                         .end_ns = end_ns});
    }
}

static void finish_reduction(struct troupe_posted_reduction *reduction) {
    if (--reduction->outstanding == 0) {
        reduction->running = false;
        trace_done(reduction->runtime, reduction->method, reduction->firing, reduction->since_ns,
                   troupe_clock_ns());
        report_done(reduction->runtime, reduction->method, reduction->firing);
    }
}

static void reduced(struct troupe_collective *operation) {
    struct troupe_posted_reduction *reduction = operation->arg;
    if (operation->status != TROUPE_OK) {
        troupe_runtime_fail(reduction->runtime, operation->status);
        return;
    }
    finish_reduction(reduction);
}

troupe_status troupe_firing_all_reduce(struct troupe_firing *firing, troupe_group *group,
                                       enum troupe_reduction reduction, enum troupe_element element,
                                       void *data, int64_t count,
                                       struct troupe_collective *operation) {
    struct troupe_posted_reduction *pending = firing->internal;
    TROUPE_ASSERT(pending != NULL, "all_reduce from a method outside the reduction lane, gang %d",
                  firing->gang);
    operation->done = reduced;
    operation->arg = pending;
    pending->outstanding++;
    troupe_status status =
        troupe_group_post_all_reduce(group, reduction, element, data, count, operation);
    if (status != TROUPE_OK) {
        pending->outstanding--;
    }
    return status;
}

static struct troupe_tensor no_tensor(void) {
    return (struct troupe_tensor){0};
}

/* Everything the firing needs is there: binds it. */
static troupe_status open_firing(troupe_runtime *runtime, const struct troupe_rank_ticket *ticket,
                                 struct troupe_firing *firing,
                                 struct troupe_outlet_buffer **buffers) {
    const struct troupe_actor_gang *gang = troupe_gang_of(runtime, ticket->method);
    const struct troupe_actor_method *method = troupe_method_of(runtime, ticket->method);
    const struct troupe_method *plan = &runtime->graph_methods[ticket->method];
    *firing = (struct troupe_firing){
        .runtime = runtime,
        .argument = gang->options.argument,
        .gang = plan->gang,
        .member = gang->member,
        .step = plan->firings > 0 ? ticket->firing / plan->firings : ticket->firing,
        .microbatch = plan->firings > 0 ? (int)(ticket->firing % plan->firings) : 0,
        .slot = ticket->slot,
        .stream = gang->stream};
    for (int i = 0; i < method->input_count; i++) {
        struct troupe_inlet *inlet = gang->inlets[method->inputs[i]];
        firing->inputs[i] = no_tensor();
        if (inlet != NULL) {
            const struct troupe_inlet_entry *entry = troupe_inlet_ready(inlet, ticket->firing);
            firing->inputs[i] = entry->tensor;
            TROUPE_TRY(troupe_entry_await(entry));
        }
    }
    for (int i = 0; i < method->output_count; i++) {
        struct troupe_outlet *outlet = gang->outlets[method->outputs[i]];
        buffers[i] = outlet != NULL ? troupe_outlet_free(outlet) : NULL;
        if (buffers[i] != NULL) {
            TROUPE_TRY(troupe_outlet_begin(buffers[i], ticket->firing, &firing->outputs[i]));
        }
    }
    return TROUPE_OK;
}

/* Outputs go on their way before inputs are given back: both may feed the same rank. */
static void close_firing(troupe_runtime *runtime, const struct troupe_rank_ticket *ticket,
                         struct troupe_outlet_buffer **buffers) {
    const struct troupe_actor_gang *gang = troupe_gang_of(runtime, ticket->method);
    const struct troupe_actor_method *method = troupe_method_of(runtime, ticket->method);
    for (int i = 0; i < method->output_count; i++) {
        if (buffers[i] != NULL) {
            troupe_outlet_finish(buffers[i]);
        }
    }
    for (int i = 0; i < method->input_count; i++) {
        struct troupe_inlet *inlet = gang->inlets[method->inputs[i]];
        if (inlet != NULL) {
            troupe_inlet_consume(inlet, troupe_inlet_ready(inlet, ticket->firing));
        }
    }
}

/* Tasks of several ranks hold collectives: on a device they take the lane one after the other, in
 * the order of the tickets, whatever streams they are in. */
static bool takes_lane(const struct troupe_actor_gang *gang) {
    return gang->stream != NULL && gang->options.rank_count > 1;
}

/* On the host the work is done when `run` returns; on a device it is enqueued then. */
static troupe_status run_method(troupe_runtime *runtime, struct troupe_actor_gang *gang,
                                const struct troupe_actor_method *method,
                                struct troupe_firing *firing) {
    bool clocked = gang->stream != NULL && method->lane != TROUPE_LANE_REDUCTION;
    if (clocked && takes_lane(gang)) {
        TROUPE_TRY(troupe_stream_wait(gang->stream, runtime->lane));
    }
    if (clocked) {
        TROUPE_TRY(troupe_task_clock_begin(&gang->clock));
    }
    TROUPE_TRY(method->run(gang->state, firing));
    if (clocked) {
        TROUPE_TRY(troupe_task_clock_end(&gang->clock));
    }
    return clocked && takes_lane(gang) ? troupe_event_record(runtime->lane, gang->stream)
                                       : TROUPE_OK;
}

static troupe_status call_method(troupe_runtime *runtime, const struct troupe_rank_ticket *ticket,
                                 struct troupe_firing *firing) {
    struct troupe_actor_gang *gang = troupe_gang_of(runtime, ticket->method);
    const struct troupe_actor_method *method = troupe_method_of(runtime, ticket->method);
    uint64_t begin_ns = troupe_clock_ns();
    troupe_status status = run_method(runtime, gang, method, firing);
    uint64_t end_ns = troupe_clock_ns();
    gang->times.launch_ns += end_ns - begin_ns;
    gang->times.firings++;
    if (firing->internal == NULL) { /* a reduction is done when its collectives are */
        trace_done(runtime, ticket->method, ticket->firing, begin_ns, end_ns);
    }
    if (status != TROUPE_OK && troupe_comm_failure(runtime->comm) == TROUPE_OK) {
        troupe_fail_in(status, "%s %s, microbatch %d of step %" PRId64 ", rank %d", gang->name,
                       method->name, firing->microbatch, firing->step, runtime->rank);
    }
    return status;
}

static troupe_status run_task(troupe_runtime *runtime, const struct troupe_rank_ticket *ticket) {
    struct troupe_firing firing;
    struct troupe_outlet_buffer *buffers[TROUPE_PORTS_MAX];
    TROUPE_TRY(open_firing(runtime, ticket, &firing, buffers));
    TROUPE_TRY(call_method(runtime, ticket, &firing));
    close_firing(runtime, ticket, buffers);
    report_done(runtime, ticket->method, ticket->firing);
    return TROUPE_OK;
}

/* Posts the reduction; it is done when its collectives are, maybe at once. */
static troupe_status run_reduction(troupe_runtime *runtime,
                                   const struct troupe_rank_ticket *ticket) {
    struct troupe_firing firing;
    struct troupe_posted_reduction *reduction = &runtime->reductions[ticket->method];
    TROUPE_ASSERT(!reduction->running, "%s %s runs twice",
                  troupe_gang_of(runtime, ticket->method)->name,
                  troupe_method_of(runtime, ticket->method)->name);
    *reduction = (struct troupe_posted_reduction){.runtime = runtime,
                                                  .method = ticket->method,
                                                  .outstanding = 1, /* the call itself */
                                                  .running = true,
                                                  .firing = ticket->firing,
                                                  .since_ns = troupe_clock_ns()};
    TROUPE_TRY(open_firing(runtime, ticket, &firing, NULL));
    firing.internal = reduction;
    TROUPE_TRY(call_method(runtime, ticket, &firing));
    finish_reduction(reduction);
    return TROUPE_OK;
}

static void run_first_ticket(troupe_runtime *runtime) {
    struct troupe_rank_ticket ticket = runtime->tickets[runtime->ticket_first];
    runtime->ticket_first = (runtime->ticket_first + 1) % runtime->ticket_capacity;
    runtime->ticket_count--;
    runtime->running = ticket;
    runtime->running.since_ns = troupe_clock_ns();
    troupe_static_begin_task(runtime, ticket.method);
    bool reduces = runtime->graph_methods[ticket.method].lane == TROUPE_LANE_REDUCTION;
    troupe_status status = reduces ? run_reduction(runtime, &ticket) : run_task(runtime, &ticket);
    runtime->running.method = TROUPE_NOBODY;
    if (status != TROUPE_OK) {
        troupe_runtime_fail(runtime, status);
    }
}

/* ---- waiting ---- */

static void call_progress(troupe_runtime *runtime, bool idle) {
    uint64_t heard_ns = runtime->report.heard_ns;
    bool moved = troupe_comm_progress(runtime->comm) > 0;
    troupe_tree_flush(runtime);
    if (moved && heard_ns == runtime->report.heard_ns) {
        runtime->progress_ns = troupe_clock_ns();
    } else if (idle && !moved && runtime->timers == NULL && runtime->outgoing == NULL) {
        troupe_comm_wait(runtime->comm);
    } else if (idle && !moved) { /* for timers or a device, too */
        troupe_comm_idle(runtime->comm);
    }
}

static void answer_request(troupe_runtime *runtime) {
    /* relaxed: the flag alone matters; read first, because that costs nothing */
    if (atomic_load_explicit(&runtime->report_requested, memory_order_relaxed)) {
        atomic_store_explicit(&runtime->report_requested, false, memory_order_relaxed);
        troupe_report_ask(runtime, false, 0);
    }
    troupe_report_poll(runtime);
}

/* Wherever this rank waits: for a ticket, inside a method's collective, or between steps. Talk
 * about waiting is no progress. */
static void watch_wait(void *arg, uint64_t quiet_ns) {
    troupe_runtime *runtime = arg;
    uint64_t now = troupe_clock_ns();
    troupe_tree_flush(runtime); /* others may need it to end this rank's wait */
    if (now - quiet_ns > runtime->report.heard_ns + TROUPE_REPORT_TALK_NS &&
        now - quiet_ns > runtime->progress_ns) {
        runtime->progress_ns = now - quiet_ns;
    }
    answer_request(runtime);
    uint64_t begin_ns = runtime->progress_ns > runtime->report.deferred_ns
                            ? runtime->progress_ns
                            : runtime->report.deferred_ns;
    int64_t quiet = (int64_t)(now - begin_ns); /* a signal or message may come after `now` */
    if (runtime->options.stall_ns > 0 && quiet > runtime->options.stall_ns) {
        troupe_report_ask(runtime, true, now - runtime->progress_ns);
    }
}

/* Charges the rank's wait since `begin_ns` to the gang whose ticket ended it. */
static void charge_wait(troupe_runtime *runtime, uint64_t begin_ns, uint64_t ticket_ns,
                        enum troupe_wait_cause cause) {
    const struct troupe_rank_ticket *ticket = &runtime->tickets[runtime->ticket_first];
    struct troupe_gang_times *times = &troupe_gang_of(runtime, ticket->method)->times;
    uint64_t now = troupe_clock_ns();
    times->wait_ticket_ns += ticket_ns - begin_ns;
    *(cause == TROUPE_WAIT_OUTPUT ? &times->wait_output_ns : &times->wait_input_ns) +=
        now - ticket_ns;
}

/* Whether there is a ticket to run. The conductor may be a step ahead of this rank, whose app has
 * not begun that step yet: then its tickets wait. */
static bool has_ticket(troupe_runtime *runtime) {
    troupe_static_feed(runtime);
    if (runtime->ticket_count == 0) {
        return false;
    }
    const struct troupe_rank_ticket *ticket = &runtime->tickets[runtime->ticket_first];
    int firings = runtime->graph_methods[ticket->method].firings;
    return firings == 0 || ticket->firing / firings <= runtime->step;
}

/* One lane at a time: reductions at the head step aside, and come back, in their order, when the
 * step's tasks have run. Nothing but methods once a step waits for them, so tasks always end. */
static void keep_lanes_apart(troupe_runtime *runtime) {
    if (!runtime->options.serialize) {
        return;
    }
    bool tasks_ran = runtime->tasks_done == runtime->tasks_target;
    while (!tasks_ran && has_ticket(runtime)) {
        const struct troupe_rank_ticket *ticket = &runtime->tickets[runtime->ticket_first];
        if (runtime->graph_methods[ticket->method].lane != TROUPE_LANE_REDUCTION) {
            return;
        }
        runtime->late[runtime->late_count++] = *ticket;
        runtime->ticket_first = (runtime->ticket_first + 1) % runtime->ticket_capacity;
        runtime->ticket_count--;
    }
    while (tasks_ran && runtime->late_count > 0) { /* before those that came since */
        runtime->ticket_first =
            (runtime->ticket_first + runtime->ticket_capacity - 1) % runtime->ticket_capacity;
        runtime->tickets[runtime->ticket_first] = runtime->late[--runtime->late_count];
        runtime->ticket_count++;
    }
}

/* What the first ticket waits for. It comes to its gang when it lacks nothing else. */
static enum troupe_wait_cause await_first_ticket(troupe_runtime *runtime) {
    const struct troupe_rank_ticket *ticket = &runtime->tickets[runtime->ticket_first];
    int port = 0;
    enum troupe_wait_cause cause = troupe_ticket_wait(runtime, ticket, &port);
    if (cause == TROUPE_WAIT_GANG) {
        troupe_static_come(runtime, ticket->method);
        cause = troupe_ticket_wait(runtime, ticket, &port); /* it may have been the last */
    }
    return cause;
}

/* Runs the next ticket, or waits until there is one or `finished` says so. */
static bool advance(troupe_runtime *runtime, bool (*finished)(troupe_runtime *runtime)) {
    uint64_t begin_ns = troupe_clock_ns(), ticket_ns = 0;
    enum troupe_wait_cause cause = TROUPE_WAIT_NOTHING, last_cause = TROUPE_WAIT_INPUT;
    call_progress(runtime, false);
    for (;;) {
        fire_timers(runtime);
        answer_request(runtime); /* a rank that never waits answers, too */
        if (is_failed(runtime) || finished(runtime)) {
            return false;
        }
        keep_lanes_apart(runtime);
        if (has_ticket(runtime)) {
            cause = await_first_ticket(runtime);
            ticket_ns = ticket_ns != 0 ? ticket_ns : troupe_clock_ns();
            if (cause == TROUPE_WAIT_NOTHING) {
                break;
            }
            last_cause = cause;
        }
        call_progress(runtime, true);
    }
    charge_wait(runtime, begin_ns, ticket_ns, last_cause);
    run_first_ticket(runtime);
    runtime->progress_ns = troupe_clock_ns();
    return true;
}

static bool inlets_wait(const troupe_runtime *runtime) {
    for (int i = 0; i < runtime->inlet_count; i++) {
        if (troupe_inlet_is_waiting(&runtime->inlets[i])) {
            return true;
        }
    }
    return false;
}

static bool step_is_finished(troupe_runtime *runtime) {
    return runtime->firings_done == runtime->firings_target && runtime->sends_in_flight == 0 &&
           (runtime->engine == NULL || troupe_engine_step_issued(runtime->engine)) &&
           !inlets_wait(runtime);
}

static void reset_accounts(troupe_runtime *runtime) {
    for (int g = 0; g < runtime->gang_count; g++) {
        runtime->gangs[g].times = (struct troupe_gang_times){0};
        runtime->gangs[g].clock.count = 0;
    }
    runtime->outgoing_clock.count = runtime->incoming_clock.count = 0;
    for (int e = 0; e < runtime->edge_count; e++) {
        runtime->edges[e].bytes_sent = 0;
    }
}

/* Firings of a step on this rank: all, or those once a microbatch. */
static int64_t firings_here(const troupe_runtime *runtime, bool tasks_only) {
    int64_t count = 0;
    for (int m = 0; m < runtime->graph.method_count; m++) {
        bool counts = troupe_gang_of(runtime, m)->member != TROUPE_NOBODY &&
                      (!tasks_only || is_task(runtime, m));
        count += counts ? runtime->graph_methods[m].firings : 0;
    }
    return count;
}

static troupe_status begin_step(troupe_runtime *runtime, int64_t step) {
    bool first = runtime->step < 0;
    TROUPE_ASSERT(step >= 0 && (first || step == runtime->step + 1),
                  "step %" PRId64 " after step %" PRId64, step, runtime->step);
    runtime->step = step;
    runtime->firings_target += firings_here(runtime, false);
    runtime->tasks_target += firings_here(runtime, true);
    runtime->progress_ns = troupe_clock_ns();
    reset_accounts(runtime);
    TROUPE_TRY(troupe_mark_origin(runtime));
    for (int i = 0; i < runtime->inlet_count; i++) {
        troupe_inlet_begin_step(&runtime->inlets[i], step, first);
    }
    troupe_conductor_begin_step(runtime, step);
    return TROUPE_OK;
}

static troupe_status step_of_crew(troupe_runtime *runtime, int64_t step) {
    TROUPE_ASSERT(step >= 0 && (runtime->step < 0 || step == runtime->step + 1),
                  "step %" PRId64 " after step %" PRId64, step, runtime->step);
    runtime->step = step;
    troupe_status status = troupe_crew_step(runtime->crew, step);
    if (status != TROUPE_OK) {
        troupe_runtime_fail(runtime, status);
    }
    return status;
}

troupe_status troupe_runtime_step(troupe_runtime *runtime, int64_t step) {
    TROUPE_ASSERT(runtime->started && runtime->options.microbatches > 0,
                  "step %" PRId64 " of a runtime that has %s", step,
                  runtime->started ? "no steps" : "not started");
    if (runtime->crew != NULL && !is_failed(runtime)) {
        return step_of_crew(runtime, step);
    }
    troupe_status status = is_failed(runtime) ? TROUPE_OK : begin_step(runtime, step);
    if (status != TROUPE_OK) {
        troupe_runtime_fail(runtime, status);
    }
    while (advance(runtime, step_is_finished)) {
    }
    return runtime->failure == TROUPE_OK ? TROUPE_OK : report_failure(runtime);
}

/* ---- without steps ---- */

/* Quiet: behind the last ticket, and nothing of ours is on its way. Everyone stays until all are:
 * a quiet rank may still have to receive. */
static bool run_is_finished(troupe_runtime *runtime) {
    if (runtime->last_seen && !runtime->quiet_said && runtime->ticket_count == 0 &&
        runtime->sends_in_flight == 0) {
        runtime->quiet_said = true;
        troupe_send_control(runtime, 0, &(struct troupe_control){.kind = TROUPE_CONTROL_QUIET});
    }
    return runtime->exiting;
}

troupe_status troupe_runtime_run(troupe_runtime *runtime) {
    TROUPE_ASSERT(runtime->started && runtime->options.microbatches == 0,
                  "run of a runtime that has %s", runtime->started ? "steps" : "not started");
    runtime->progress_ns = troupe_clock_ns();
    for (int i = 0; i < runtime->inlet_count; i++) {
        troupe_inlet_announce(&runtime->inlets[i], runtime->inlets[i].limit);
    }
    troupe_conductor_pump(runtime);
    while (advance(runtime, run_is_finished)) {
    }
    return runtime->failure == TROUPE_OK ? TROUPE_OK : report_failure(runtime);
}

void troupe_runtime_stop(troupe_runtime *runtime) {
    if (!runtime->stopping) {
        send_to_all(runtime, TROUPE_CONTROL_STOP);
    }
}

/* ---- life ---- */

troupe_status troupe_runtime_create(troupe_comm *comm, const struct troupe_runtime_options *options,
                                    troupe_runtime **out) {
    troupe_status status = TROUPE_OK;
    troupe_runtime *runtime = NULL;
    TROUPE_TRY(TROUPE_NEW(&runtime, 1));
    runtime->progress_ns = troupe_clock_ns();
    runtime->comm = comm;
    runtime->options = *options;
    runtime->rank = troupe_comm_rank(comm);
    runtime->rank_count = troupe_comm_size(comm);
    runtime->step = -1;
    runtime->running.method = TROUPE_NOBODY;
    if (runtime->options.look_ahead < 1) {
        runtime->options.look_ahead = TROUPE_LOOK_AHEAD_DEFAULT;
    }
    if (runtime->options.tree_ranks < 1) {
        runtime->options.tree_ranks = TROUPE_TREE_RANKS_DEFAULT;
    }
    if (runtime->options.stall_ns == 0) {
        runtime->options.stall_ns = stall_ns_default;
    }
    TROUPE_TRY_FAIL(
        troupe_string_copy(options->order != NULL ? options->order : "fifo", &runtime->order_name));
    TROUPE_TRY_FAIL(troupe_order_find(runtime->order_name, &runtime->order));
    uint64_t hash = troupe_hash_text(TROUPE_SAMPLE_SET_EMPTY, runtime->order_name);
    hash = troupe_hash_int(hash, runtime->options.microbatches);
    hash = troupe_hash_int(hash, runtime->options.look_ahead);
    hash = troupe_hash_int(hash, runtime->options.costs != NULL);
    hash = troupe_hash_int(hash, runtime->options.checksum);
    hash = troupe_hash_int(hash, runtime->options.serialize);
    hash = troupe_hash_int(hash, runtime->options.through_host);
    hash = troupe_hash_int(hash, runtime->options.workers);
    hash = troupe_hash_int(hash, runtime->options.static_order);
    hash = troupe_hash_int(hash, runtime->options.tree_ranks);
    hash = troupe_hash_int(hash, runtime->options.host_may_wait);
    TROUPE_TRY_FAIL(troupe_record_call(runtime, "create with order ", runtime->order_name, hash));
    *out = runtime;
    return TROUPE_OK;
fail:
    troupe_runtime_destroy(runtime);
    return status;
}

/* Alone: a rank whose preparation fails must not keep the others waiting. */
static troupe_status make_world(troupe_runtime *runtime) {
    struct troupe_group_options options = {.id = TROUPE_GROUP_ID_RUNTIME +
                                                 (uint32_t)runtime->options.generation,
                                           .bytes_max = sizeof(uint64_t),
                                           .alone = true};
    TROUPE_TRY(TROUPE_NEW(&runtime->hashes, runtime->rank_count));
    return troupe_group_create(runtime->comm, &options, &runtime->world);
}

/* Reductions do not count against look-ahead. */
static troupe_status make_tickets(troupe_runtime *runtime) {
    int reductions = 0;
    for (int m = 0; m < runtime->graph.method_count; m++) {
        reductions += runtime->graph_methods[m].lane == TROUPE_LANE_REDUCTION &&
                      troupe_gang_of(runtime, m)->member != TROUPE_NOBODY;
    }
    runtime->ticket_capacity =
        runtime->options.look_ahead + TROUPE_TICKETS_OVER + TROUPE_REDUCTIONS_AHEAD * reductions;
    TROUPE_TRY(TROUPE_NEW(&runtime->tickets, runtime->ticket_capacity));
    TROUPE_TRY(TROUPE_NEW(&runtime->late, runtime->ticket_capacity));
    return TROUPE_NEW(&runtime->reductions, runtime->graph.method_count);
}

static troupe_status make_task_clocks(troupe_runtime *runtime) {
    for (int g = 0; g < runtime->gang_count; g++) {
        struct troupe_actor_gang *gang = &runtime->gangs[g];
        const struct troupe_actor_class *class = gang->options.actor_class;
        int firings = 0;
        for (int m = 0; m < class->method_count; m++) {
            const struct troupe_method *method = &runtime->graph_methods[gang->first_method + m];
            firings += method->lane == TROUPE_LANE_REDUCTION ? 0 : method->firings;
        }
        if (gang->stream != NULL) {
            TROUPE_TRY(troupe_task_clock_make(&gang->clock, gang->stream, firings));
        }
    }
    return TROUPE_OK;
}

troupe_status troupe_runtime_graph(troupe_runtime *runtime, const struct troupe_graph **out) {
    if (runtime->graph.rank_count == 0) {
        TROUPE_TRY(troupe_make_graph(runtime));
    }
    *out = &runtime->graph;
    return TROUPE_OK;
}

static troupe_status check_mode(const troupe_runtime *runtime) {
    const struct troupe_runtime_options *o = &runtime->options;
    if (o->static_order && o->microbatches == 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "mode static is for jobs with steps, and this one has none: use mode "
                           "dynamic");
    }
    return TROUPE_OK;
}

static troupe_status make_machinery(troupe_runtime *runtime) {
    const struct troupe_graph *graph = NULL;
    TROUPE_TRY(check_mode(runtime));
    TROUPE_TRY(troupe_runtime_graph(runtime, &graph));
    if (runtime->options.workers > 0) {
        TROUPE_TRY(troupe_create_actors(runtime));
        TROUPE_TRY(troupe_crew_create(runtime, &runtime->crew));
        runtime->prepared = true;
        return TROUPE_OK;
    }
    TROUPE_TRY(make_tickets(runtime));
    TROUPE_TRY(troupe_report_make(runtime));
    TROUPE_TRY(troupe_make_streams(runtime));
    TROUPE_TRY(make_task_clocks(runtime));
    TROUPE_TRY(troupe_make_mailboxes(runtime));
    TROUPE_TRY(troupe_make_flows(runtime));
    TROUPE_TRY(troupe_make_tree(runtime));
    TROUPE_TRY(troupe_make_conductor(runtime));
    TROUPE_TRY(troupe_create_actors(runtime));
    runtime->prepared = true;
    return TROUPE_OK;
}

troupe_status troupe_runtime_prepare(troupe_runtime *runtime) {
    TROUPE_ASSERT(runtime->world == NULL, "rank %d prepares twice", runtime->rank);
    TROUPE_TRY(make_world(runtime));
    return make_machinery(runtime);
}

/* Calls that differ explain why their graph is wrong, so they are compared first where possible. */
static troupe_status start(troupe_runtime *runtime) {
    if (runtime->world == NULL) {
        TROUPE_TRY(make_world(runtime));
    }
    TROUPE_TRY(troupe_compare_calls(runtime));
    if (!runtime->prepared) {
        TROUPE_TRY(make_machinery(runtime));
    }
    TROUPE_TRY(troupe_agree_on_flows(runtime));
    runtime->listening = true;
    troupe_comm_set_control_handler(runtime->comm, handle_control, runtime);
    troupe_comm_set_watch(runtime->comm, watch_wait, runtime);
    troupe_comm_set_patience(runtime->comm, runtime->options.stall_ns);
    return troupe_group_barrier(runtime->world); /* all can take messages from here on */
}

troupe_status troupe_runtime_start(troupe_runtime *runtime) {
    TROUPE_ASSERT(!runtime->started, "rank %d starts twice", runtime->rank);
    troupe_status status = start(runtime);
    if (status != TROUPE_OK) {
        troupe_runtime_fail(runtime, status);
        return report_failure(runtime);
    }
    runtime->started = true;
    return TROUPE_OK;
}

static void ignore_control(void *arg, int from, const void *message, size_t bytes) {
    (void)arg, (void)from, (void)message, (void)bytes;
}

/* Waits until every rank has said so many byes. */
static void say_bye(troupe_runtime *runtime, int times) {
    runtime->progress_ns = troupe_clock_ns();
    send_to_all(runtime, TROUPE_CONTROL_BYE);
    while (runtime->byes_received < times * runtime->rank_count && !is_failed(runtime)) {
        call_progress(runtime, true);
    }
}

/* The first bye: nothing more is enqueued. The second, the last control message, so that none
 * meets the next runtime: nothing here touches the memory of others any more. */
static void take_leave(troupe_runtime *runtime) {
    bool alive = runtime->started && !is_failed(runtime);
    if (alive) {
        say_bye(runtime, 1);
    }
    troupe_drain_streams(runtime);
    troupe_let_go_of_flows(runtime);
    if (alive) {
        say_bye(runtime, 2);
    }
}

void troupe_runtime_destroy(troupe_runtime *runtime) {
    if (runtime == NULL) {
        return;
    }
    take_leave(runtime);
    if (runtime->listening) {
        troupe_comm_set_control_handler(runtime->comm, ignore_control, NULL);
        troupe_comm_set_watch(runtime->comm, NULL, NULL);
        troupe_comm_set_patience(runtime->comm, 0);
    }
    if (troupe_comm_failure(runtime->comm) != TROUPE_OK) {
        troupe_comm_progress(runtime->comm); /* ends what is in flight in our buffers */
    }
    troupe_destroy_flows(runtime);
    troupe_crew_destroy(runtime->crew);
    troupe_destroy_mailboxes(runtime);
    troupe_destroy_conductor(runtime);
    troupe_destroy_tree(runtime);
    troupe_destroy_graph(runtime);
    troupe_destroy_edges(runtime);
    troupe_destroy_gangs(runtime);
    if (runtime->world != NULL) {
        troupe_group_destroy(runtime->world);
    }
    troupe_destroy_streams(runtime);
    troupe_free(runtime->tickets);
    troupe_free(runtime->late);
    troupe_free(runtime->reductions);
    troupe_free(runtime->hashes);
    troupe_report_destroy(runtime);
    troupe_free(runtime->order_name);
    if (runtime->failure != TROUPE_OK) {
        report_failure(runtime); /* what ended meanwhile has said its echo of it */
    }
    troupe_free(runtime);
}

/* ---- queries ---- */

troupe_comm *troupe_runtime_comm(const troupe_runtime *runtime) {
    return runtime->comm;
}

static const struct troupe_actor_gang *gang_at(const troupe_runtime *runtime, int gang) {
    TROUPE_ASSERT(gang >= 0 && gang < runtime->gang_count, "gang %d of %d", gang,
                  runtime->gang_count);
    return &runtime->gangs[gang];
}

uint64_t troupe_runtime_copy_ns(const troupe_runtime *runtime) {
    return troupe_task_clock_total_ns(&runtime->outgoing_clock) +
           troupe_task_clock_total_ns(&runtime->incoming_clock);
}

static const struct troupe_actor_edge *edge_at(const troupe_runtime *runtime, int edge) {
    TROUPE_ASSERT(edge >= 0 && edge < runtime->edge_count, "edge %d of %d", edge,
                  runtime->edge_count);
    return &runtime->edges[edge];
}

struct troupe_gang_times troupe_runtime_gang_times(const troupe_runtime *runtime, int gang) {
    const struct troupe_actor_gang *g = gang_at(runtime, gang);
    struct troupe_gang_times times = g->times;
    times.compute_ns = g->stream != NULL ? troupe_task_clock_total_ns(&g->clock) : times.launch_ns;
    return times;
}

uint64_t troupe_runtime_edge_bytes(const troupe_runtime *runtime, int edge) {
    return edge_at(runtime, edge)->bytes_sent;
}

int troupe_runtime_edge_count(const troupe_runtime *runtime) {
    return runtime->edge_count;
}

int troupe_runtime_gang_count(const troupe_runtime *runtime) {
    return runtime->gang_count;
}

const char *troupe_runtime_edge_name(const troupe_runtime *runtime, int edge) {
    return edge_at(runtime, edge)->name;
}

const char *troupe_runtime_gang_name(const troupe_runtime *runtime, int gang) {
    return gang_at(runtime, gang)->name;
}

void troupe_runtime_request_report(troupe_runtime *runtime) {
    atomic_store_explicit(&runtime->report_requested, true, memory_order_relaxed);
}
