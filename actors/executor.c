/* SPDX-License-Identifier: Apache-2.0 */
/* Runs this rank's tickets in their order. Nothing here blocks: while the first ticket is not
 * ready, progress is made, and progress never runs a task. */
#include <inttypes.h>
#include <stdio.h>

#include "actors/runtime_internal.h"
#include "runtime/check.h"
#include "runtime/clock.h"

static const struct troupe_method_class *class_of(const troupe_runtime *runtime,
                                                  const struct troupe_ticket *ticket) {
    const struct actor *actor = &runtime->actors[ticket->gang];
    return &actor->options.actor->methods[ticket->method - actor->method_base];
}

static struct connection *input_of(const troupe_runtime *runtime, const struct actor *actor,
                                   int port) {
    return runtime->connections[actor->input_connection[port]];
}

static bool output_is_free(const troupe_runtime *runtime, const struct output_port *port,
                           int64_t firing) {
    for (int i = 0; i < port->connection_count; i++) {
        const struct connection *c = runtime->connections[port->connections[i]];
        if (c->outgoing[firing % port->buffer_count].in_flight > 0) {
            return false;
        }
    }
    return true;
}

static bool ticket_is_ready(const troupe_runtime *runtime, const struct troupe_ticket *ticket) {
    const struct actor *actor = &runtime->actors[ticket->gang];
    const struct troupe_method_class *method = class_of(runtime, ticket);
    for (int i = 0; i < method->input_count; i++) {
        if (!troupe_connection_input_ready(input_of(runtime, actor, method->inputs[i]),
                                           ticket->firing)) {
            return false;
        }
    }
    for (int i = 0; i < method->output_count; i++) {
        if (!output_is_free(runtime, &actor->output[method->outputs[i]], ticket->firing)) {
            return false;
        }
    }
    return true;
}

static troupe_status bind_ports(troupe_runtime *runtime, const struct troupe_ticket *ticket,
                                struct troupe_firing *firing) {
    struct actor *actor = &runtime->actors[ticket->gang];
    const struct troupe_method_class *method = class_of(runtime, ticket);
    for (int i = 0; i < method->input_count; i++) {
        const struct connection *c = input_of(runtime, actor, method->inputs[i]);
        firing->inputs[i] = c->incoming[ticket->firing % c->options.credits].view;
    }
    for (int i = 0; i < method->output_count; i++) {
        struct output_port *port = &actor->output[method->outputs[i]];
        int buffer = (int)(ticket->firing % port->buffer_count);
        for (int k = 0; k < port->connection_count; k++) {
            TROUPE_TRY(troupe_connection_bind_output(runtime->connections[port->connections[k]],
                                                     buffer, ticket->firing, port->buffers[buffer],
                                                     &firing->outputs[i]));
        }
    }
    return TROUPE_OK;
}

static troupe_status pass_on(troupe_runtime *runtime, const struct troupe_ticket *ticket,
                             const struct troupe_firing *firing) {
    struct actor *actor = &runtime->actors[ticket->gang];
    const struct troupe_method_class *method = class_of(runtime, ticket);
    for (int i = 0; i < method->output_count; i++) {
        struct output_port *port = &actor->output[method->outputs[i]];
        for (int k = 0; k < port->connection_count; k++) {
            TROUPE_TRY(troupe_connection_send(runtime->connections[port->connections[k]],
                                              (int)(ticket->firing % port->buffer_count),
                                              ticket->firing, &firing->outputs[i]));
        }
    }
    for (int i = 0; i < method->input_count; i++) {
        TROUPE_TRY(troupe_connection_consume(input_of(runtime, actor, method->inputs[i]),
                                             ticket->firing));
    }
    return TROUPE_OK;
}

static void finish_task(troupe_runtime *runtime, const struct troupe_ticket *ticket) {
    runtime->tasks_done++;
    troupe_report_done(runtime, ticket, runtime->actors[ticket->gang].member);
}

/* ---- reductions under way ---- */

static struct awaited *take_awaited(troupe_runtime *runtime, const struct troupe_ticket *ticket) {
    for (int i = 0; i < runtime->awaited_count; i++) {
        if (!runtime->awaited[i].used) {
            runtime->awaited[i] = (struct awaited){.ticket = *ticket, .used = true};
            return &runtime->awaited[i];
        }
    }
    TROUPE_ASSERT(false, "rank %d has %d reductions under way, more than the plan allows",
                  runtime->rank, runtime->awaited_count);
    return NULL;
}

void troupe_await(struct troupe_firing *firing, struct troupe_collective *operation) {
    struct awaited *awaited = firing->runtime->posting;
    TROUPE_ASSERT(awaited != NULL, "troupe_await outside a method of the reduction lane");
    TROUPE_ASSERT(awaited->count < AWAITED_MAX, "a firing awaits more than %d operations",
                  AWAITED_MAX);
    awaited->operations[awaited->count++] = operation;
}

/* OK when all operations are, AGAIN, or the failure of one. */
static troupe_status poll_awaited(const struct awaited *awaited) {
    for (int i = 0; i < awaited->count; i++) {
        if (awaited->operations[i]->status != TROUPE_OK) {
            return awaited->operations[i]->status;
        }
    }
    return TROUPE_OK;
}

static troupe_status finish_reductions(troupe_runtime *runtime) {
    for (int i = 0; i < runtime->awaited_count; i++) {
        struct awaited *awaited = &runtime->awaited[i];
        if (!awaited->used) {
            continue;
        }
        troupe_status status = poll_awaited(awaited);
        if (status == TROUPE_AGAIN) {
            continue;
        }
        TROUPE_TRY(status);
        awaited->used = false;
        finish_task(runtime, &awaited->ticket);
    }
    return TROUPE_OK;
}

/* ---- running ---- */

static troupe_status run_ticket(troupe_runtime *runtime, const struct troupe_ticket *ticket) {
    struct actor *actor = &runtime->actors[ticket->gang];
    const struct troupe_method_class *method = class_of(runtime, ticket);
    struct troupe_firing firing = {.step = ticket->step,
                                   .microbatch = ticket->microbatch,
                                   .slot = ticket->slot,
                                   .member = actor->member,
                                   .runtime = runtime};
    bool reduction = method->lane == TROUPE_LANE_REDUCTION;
    TROUPE_TRY(bind_ports(runtime, ticket, &firing));
    uint64_t begin_ns = troupe_clock_ns();
    if (runtime->waiting_since_ns != 0) {
        actor->times.wait_ns += begin_ns - runtime->waiting_since_ns;
        runtime->waiting_since_ns = 0;
    }
    runtime->posting = reduction ? take_awaited(runtime, ticket) : NULL;
    troupe_status status = method->run(actor->options.state, &firing);
    runtime->posting = NULL;
    runtime->last_progress_ns = troupe_clock_ns();
    actor->times.compute_ns += runtime->last_progress_ns - begin_ns;
    if (status != TROUPE_OK) {
        return troupe_fail_in(status, "rank %d, %s %s, step %" PRId64 ", microbatch %d",
                              runtime->rank, actor->name, method->name, ticket->step,
                              ticket->microbatch);
    }
    TROUPE_TRY(pass_on(runtime, ticket, &firing));
    if (!reduction) {
        finish_task(runtime, ticket);
    }
    return TROUPE_OK;
}

static void print_line(void *arg, const char *text) {
    fprintf(stderr, "troupe: rank %d: %s\n", *(const int *)arg, text);
}

static void print_report(troupe_runtime *runtime) {
    troupe_runtime_explain(runtime, print_line, &runtime->rank);
    fflush(stderr);
}

static troupe_status check_stall(troupe_runtime *runtime) {
    uint64_t now_ns = troupe_clock_ns();
    if (runtime->waiting_since_ns == 0) {
        runtime->waiting_since_ns = now_ns;
    }
    if (now_ns - runtime->last_progress_ns < (uint64_t)runtime->options.stall_ns) {
        return TROUPE_OK;
    }
    print_report(runtime);
    return troupe_fail(TROUPE_ERROR_STALL,
                       "rank %d: no progress for %.1f s; the lines above say what every actor of "
                       "this rank waits for",
                       runtime->rank, (double)runtime->options.stall_ns * 1e-9);
}

static troupe_status make_progress(troupe_runtime *runtime) {
    int completed = troupe_comm_progress(runtime->comm);
    if (atomic_exchange_explicit(&runtime->report_requested, false, memory_order_relaxed)) {
        print_report(runtime);
    }
    TROUPE_TRY(runtime->failure);
    TROUPE_TRY(troupe_comm_failure(runtime->comm));
    int64_t done = runtime->tasks_done;
    TROUPE_TRY(finish_reductions(runtime));
    if (completed > 0 || done != runtime->tasks_done) {
        runtime->last_progress_ns = troupe_clock_ns();
        return TROUPE_OK;
    }
    TROUPE_TRY(check_stall(runtime));
    troupe_comm_idle(runtime->comm);
    return TROUPE_OK;
}

/* Runs the first ticket if it is ready, else makes progress. */
static troupe_status turn(troupe_runtime *runtime) {
    TROUPE_TRY(runtime->failure);
    if (runtime->ticket_head != runtime->ticket_tail) {
        struct troupe_ticket ticket =
            runtime->tickets[runtime->ticket_head % (uint64_t)runtime->ticket_capacity];
        if (ticket_is_ready(runtime, &ticket)) {
            runtime->ticket_head++;
            TROUPE_TRY(run_ticket(runtime, &ticket));
            troupe_comm_progress(runtime->comm);
            return TROUPE_OK;
        }
    }
    return make_progress(runtime);
}

static troupe_status receive_all(troupe_runtime *runtime) {
    for (int i = 0; i < runtime->connection_count; i++) {
        if (runtime->connections[i]->to_index >= 0) {
            TROUPE_TRY(troupe_connection_receive(runtime->connections[i]));
        }
    }
    return TROUPE_OK;
}

/* A run that resumes begins at a later step: firings are absolute. */
static void skip_to(troupe_runtime *runtime, int64_t step) {
    int64_t firing = step * runtime->options.microbatches;
    for (int i = 0; i < runtime->connection_count; i++) {
        struct connection *c = runtime->connections[i];
        if (c->consumed < firing) {
            c->consumed = firing;
            c->next_receive = firing;
        }
    }
}

troupe_status troupe_runtime_step(troupe_runtime *runtime, int64_t step) {
    TROUPE_ASSERT(runtime->started && runtime->options.microbatches > 0,
                  "a step needs a started runtime with microbatches");
    runtime->step = step;
    runtime->tasks_done = 0;
    runtime->last_progress_ns = troupe_clock_ns();
    skip_to(runtime, step);
    TROUPE_TRY(receive_all(runtime));
    troupe_conductor_begin_step(runtime, step);
    while (runtime->tasks_done < runtime->tasks_in_step || runtime->in_flight > 0 ||
           !troupe_conductor_step_done(runtime)) {
        TROUPE_TRY(turn(runtime));
    }
    return runtime->failure;
}

void troupe_stop(struct troupe_firing *firing) {
    firing->runtime->stop_sent = true;
}

troupe_status troupe_runtime_run(troupe_runtime *runtime) {
    TROUPE_ASSERT(runtime->started && runtime->options.microbatches == 0,
                  "run needs a started runtime of free-running methods");
    runtime->last_progress_ns = troupe_clock_ns();
    TROUPE_TRY(receive_all(runtime));
    if (runtime->engine != NULL) {
        troupe_conductor_pump(runtime);
    }
    while (!runtime->stopped) {
        TROUPE_TRY(turn(runtime));
        if (runtime->stop_sent && !runtime->stopped) {
            troupe_report_stop(runtime);
        }
    }
    return TROUPE_OK;
}

/* ---- diagnosis ---- */

static void explain_input(const troupe_runtime *runtime, const struct connection *c,
                          int64_t firing, void (*line)(void *, const char *), void *arg) {
    char text[256];
    const struct incoming *in = &c->incoming[firing % c->options.credits];
    if (troupe_connection_input_ready(c, firing)) {
        return;
    }
    for (int i = 0; in->firing == firing && i < in->binding->receive_count; i++) {
        if (in->transfers[i].status == TROUPE_AGAIN) {
            snprintf(text, sizeof text, "  input %s %" PRId64 " has not come from rank %d", c->name,
                     firing, in->transfers[i].peer);
            line(arg, text);
        }
    }
    if (in->kept_missing) {
        snprintf(text, sizeof text, "  input %s %" PRId64 " has not been made on this rank",
                 c->name, firing);
        line(arg, text);
    }
    (void)runtime;
}

static void explain_ticket(const troupe_runtime *runtime, const struct troupe_ticket *ticket,
                           void (*line)(void *, const char *), void *arg) {
    const struct actor *actor = &runtime->actors[ticket->gang];
    const struct troupe_method_class *method = class_of(runtime, ticket);
    for (int i = 0; i < method->input_count; i++) {
        explain_input(runtime, input_of(runtime, actor, method->inputs[i]), ticket->firing, line,
                      arg);
    }
    for (int i = 0; i < method->output_count; i++) {
        if (!output_is_free(runtime, &actor->output[method->outputs[i]], ticket->firing)) {
            line(arg, "  its output buffer is still being sent");
        }
    }
}

void troupe_runtime_explain(const troupe_runtime *runtime,
                            void (*line)(void *arg, const char *text), void *arg) {
    char text[256];
    double idle = runtime->waiting_since_ns == 0
                      ? 0
                      : troupe_clock_seconds(runtime->waiting_since_ns, troupe_clock_ns());
    snprintf(text, sizeof text,
             "step %" PRId64 ": %" PRId64 " of %" PRId64
             " tasks done, waiting for %.3f s, %d sends and %d tickets under way",
             runtime->step, runtime->tasks_done, runtime->tasks_in_step, idle, runtime->in_flight,
             (int)(runtime->ticket_tail - runtime->ticket_head));
    line(arg, text);
    for (uint64_t i = runtime->ticket_head; i != runtime->ticket_tail; i++) {
        const struct troupe_ticket *ticket =
            &runtime->tickets[i % (uint64_t)runtime->ticket_capacity];
        snprintf(text, sizeof text, "%s %s of microbatch %d holds ticket %" PRIu64 "%s",
                 runtime->actors[ticket->gang].name, class_of(runtime, ticket)->name,
                 ticket->microbatch, ticket->sequence,
                 i == runtime->ticket_head ? " and is next" : "");
        line(arg, text);
        explain_ticket(runtime, ticket, line, arg);
    }
    for (int i = 0; i < runtime->awaited_count; i++) {
        if (runtime->awaited[i].used) {
            snprintf(text, sizeof text, "%s waits for its reduction",
                     runtime->actors[runtime->awaited[i].ticket.gang].name);
            line(arg, text);
        }
    }
    if (runtime->engine != NULL) {
        line(arg, "conducts its island, whose methods wait as follows:");
        troupe_engine_explain(runtime->engine, line, arg);
    } else if (runtime->ticket_head == runtime->ticket_tail) {
        snprintf(text, sizeof text, "waits for a ticket of its conductor, rank %d",
                 runtime->conductor_of[runtime->rank]);
        line(arg, text);
    }
}

void troupe_runtime_request_report(troupe_runtime *runtime) {
    atomic_store_explicit(&runtime->report_requested, true, memory_order_relaxed);
}
