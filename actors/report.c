/* SPDX-License-Identifier: Apache-2.0 */
/* Who waits for what: the sentences of a stall. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "actors/runtime_internal.h"
#include "runtime/clock.h"

enum { LINE_BYTES = 512 };

struct printer {
    void (*line)(void *arg, const char *text);
    void *arg;
};

static void say(const struct printer *printer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void say(const struct printer *printer, const char *format, ...) {
    char text[LINE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    printer->line(printer->arg, text);
}

static uint64_t ms_since(uint64_t since_ns) {
    return (troupe_clock_ns() - since_ns) / 1000000;
}

static const char *port_name(const struct troupe_actor_gang *gang, int port) {
    return gang->options.actor_class->ports[port].name;
}

/* "vision dp 1 (rank 3)" for each source that has not sent all of the message. */
static void list_missing(const struct troupe_inlet_entry *entry, char *text, size_t bytes) {
    const struct troupe_end *end = &entry->inlet->end;
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < end->edge->options.from_count && used < bytes; i++) {
        if (entry->pending_from[i] > 0) {
            const struct troupe_actor_gang *gang = &end->runtime->gangs[end->edge->from[i]];
            int written =
                snprintf(text + used, bytes - used, "%s%s", used > 0 ? ", " : "", gang->name);
            used += written > 0 ? (size_t)written : 0;
        }
    }
}

static void say_input(const struct printer *printer, const struct troupe_inlet *inlet,
                      int64_t message) {
    const struct troupe_end *end = &inlet->end;
    const struct troupe_inlet_entry *entry = &inlet->entries[message % inlet->depth];
    const struct troupe_actor_gang *gang = &end->runtime->gangs[end->edge->to[end->shard]];
    char missing[LINE_BYTES / 2];
    if (entry->state == TROUPE_ENTRY_WAITING && entry->message == message) {
        list_missing(entry, missing, sizeof missing);
        say(printer,
            "  input %s of %s: microbatch %d of step %" PRId64 " of %s is missing from %s, for "
            "%" PRIu64 " ms",
            port_name(gang, end->edge->to_port), gang->name,
            troupe_edge_microbatch(end->edge, message), troupe_edge_step(end->edge, message),
            end->edge->name, missing, ms_since(entry->since_ns));
    } else if (entry->state == TROUPE_ENTRY_FREE) {
        say(printer, "  input %s of %s: no message of %s has been announced",
            port_name(gang, end->edge->to_port), gang->name, end->edge->name);
    }
}

static void say_output(const struct printer *printer, const struct troupe_outlet *outlet) {
    const struct troupe_end *end = &outlet->end;
    const struct troupe_actor_gang *gang = &end->runtime->gangs[end->edge->from[end->shard]];
    for (int i = 0; i < outlet->buffer_count; i++) {
        const struct troupe_outlet_buffer *buffer = &outlet->buffers[i];
        if (buffer->busy) {
            say(printer,
                "  output %s of %s: the buffer of firing %" PRId64
                " has %d sends to complete or local readers",
                port_name(gang, end->edge->from_port), gang->name, buffer->firing, buffer->holds);
        }
    }
}

static void say_tickets(const struct printer *printer, const troupe_runtime *runtime) {
    for (int i = 0; i < runtime->ticket_count; i++) {
        const struct troupe_rank_ticket *ticket =
            &runtime->tickets[(runtime->ticket_first + i) % runtime->ticket_capacity];
        const struct troupe_actor_gang *gang = troupe_gang_of(runtime, ticket->method);
        const char *method = troupe_method_of(runtime, ticket->method)->name;
        int port = 0;
        enum troupe_wait_cause cause = troupe_ticket_wait(runtime, ticket, &port);
        say(printer, "  ticket %s %s, firing %" PRId64 ", for %" PRIu64 " ms, waits for %s%s",
            gang->name, method, ticket->firing, ms_since(ticket->since_ns),
            cause == TROUPE_WAIT_NOTHING ? "its turn"
            : cause == TROUPE_WAIT_INPUT ? "input "
                                         : "a free buffer of output ",
            cause == TROUPE_WAIT_NOTHING ? "" : port_name(gang, port));
    }
    if (runtime->ticket_count == 0) {
        say(printer, "  no ticket; its conductor is rank %d", runtime->conductor_of[runtime->rank]);
    }
}

/* A method that runs answers only from inside a collective. */
static void say_running(const struct printer *printer, const troupe_runtime *runtime) {
    if (runtime->running.method == TROUPE_NOBODY) {
        return;
    }
    const struct troupe_actor_gang *gang = troupe_gang_of(runtime, runtime->running.method);
    char ranks[LINE_BYTES / 4];
    size_t used = 0;
    ranks[0] = '\0';
    for (int i = 0; i < gang->options.rank_count && used < sizeof ranks; i++) {
        int written =
            snprintf(ranks + used, sizeof ranks - used, "%s%d", i > 0 ? ", " : "", gang->ranks[i]);
        used += written > 0 ? (size_t)written : 0;
    }
    say(printer,
        "  %s %s, firing %" PRId64 ", has run for %" PRIu64
        " ms and waits in a collective of its gang, ranks %s",
        gang->name, troupe_method_of(runtime, runtime->running.method)->name,
        runtime->running.firing, ms_since(runtime->running.since_ns), ranks);
}

/* A step is done here when its firings are; what the rank waits for then is the app's. */
static void say_outside(const struct printer *printer, const troupe_runtime *runtime) {
    if (runtime->step >= 0 && runtime->firings_done == runtime->firings_target) {
        say(printer, "  all tasks of step %" PRId64 " are done here", runtime->step);
    }
}

static void say_reductions(const struct printer *printer, const troupe_runtime *runtime) {
    for (int m = 0; m < runtime->graph.method_count; m++) {
        const struct troupe_posted_reduction *reduction = &runtime->reductions[m];
        if (reduction->running) {
            say(printer, "  %s %s waits for %d collectives, for %" PRIu64 " ms",
                troupe_gang_of(runtime, m)->name, troupe_method_of(runtime, m)->name,
                reduction->outstanding, ms_since(reduction->since_ns));
        }
    }
}

void troupe_runtime_explain(const troupe_runtime *runtime,
                            void (*line)(void *arg, const char *text), void *arg) {
    const struct printer printer = {line, arg};
    say(&printer,
        "rank %d, step %" PRId64 ": %" PRId64 " of %" PRId64
        " firings done, %d sends in flight, last progress %" PRIu64 " ms ago",
        runtime->rank, runtime->step, runtime->firings_done, runtime->firings_target,
        runtime->sends_in_flight, ms_since(runtime->progress_ns));
    say_outside(&printer, runtime);
    say_running(&printer, runtime);
    say_tickets(&printer, runtime);
    say_reductions(&printer, runtime);
    for (int i = 0; i < runtime->inlet_count; i++) {
        const struct troupe_inlet *inlet = &runtime->inlets[i];
        int64_t oldest = inlet->next > inlet->depth ? inlet->next - inlet->depth : 0;
        for (int64_t m = oldest; m < inlet->next; m++) {
            say_input(&printer, inlet, m);
        }
    }
    for (int i = 0; i < runtime->outlet_count; i++) {
        say_output(&printer, &runtime->outlets[i]);
    }
    for (const struct troupe_piece *p = runtime->ungranted; p != NULL; p = p->next) {
        say(&printer, "  message %" PRId64 " of %s waits until rank %d has room for it",
            p->sequence, runtime->edges[p->flow->edge].name, p->flow->peer);
    }
    if (runtime->engine != NULL) {
        say(&printer, "rank %d conducts; its engine says:", runtime->rank);
        troupe_engine_explain(runtime->engine, line, arg);
    }
}

static void print_line(void *arg, const char *text) {
    fprintf(arg, "troupe: %s\n", text);
}

/* Once a step, unless someone asks again. */
void troupe_print_report(troupe_runtime *runtime) {
    if (!runtime->reported) {
        runtime->reported = true;
        troupe_runtime_explain(runtime, print_line, stderr);
    }
}

void troupe_list_silent(const troupe_runtime *runtime, char *text, size_t bytes) {
    int count = runtime->rank_count - runtime->reports_received;
    const char *separator = count == 1 ? "; rank " : "; ranks ";
    size_t used = 0;
    text[0] = '\0';
    for (int r = 0; r < runtime->rank_count && used < bytes; r++) {
        if (!runtime->has_reported[r]) {
            int written = snprintf(text + used, bytes - used, "%s%d", separator, r);
            used += written > 0 ? (size_t)written : 0;
            separator = ", ";
        }
    }
    if (count > 0 && used < bytes) {
        snprintf(text + used, bytes - used, "%s",
                 count == 1 ? " does not answer" : " do not answer");
    }
}

/* "island of 2 ranks, conductor 0: a, b" */
static void describe_island(const struct printer *printer, const troupe_runtime *runtime,
                            int conductor) {
    char text[LINE_BYTES];
    int ranks = 0;
    for (int r = 0; r < runtime->rank_count; r++) {
        ranks += runtime->conductor_of[r] == conductor;
    }
    size_t used = (size_t)snprintf(text, sizeof text, "island of %d rank%s, conductor %d:", ranks,
                                   ranks == 1 ? "" : "s", conductor);
    bool first = true;
    for (int g = 0; g < runtime->gang_count && used < sizeof text; g++) {
        if (troupe_conductor_of_gang(runtime, g) == conductor) {
            int written = snprintf(text + used, sizeof text - used, "%s %s", first ? "" : ",",
                                   runtime->gangs[g].name);
            used += written > 0 ? (size_t)written : 0;
            first = false;
        }
    }
    printer->line(printer->arg, text);
}

static void describe_flows(const struct printer *printer, const troupe_runtime *runtime) {
    int64_t agreed = runtime->flows_agreed, refused = runtime->flows_refused;
    if (agreed + refused > 0) {
        say(printer,
            "messages between devices of one machine: %" PRId64 " flows by copies from device to "
            "device, %" PRId64 " through host memory",
            agreed, refused);
    }
}

void troupe_runtime_describe(const troupe_runtime *runtime,
                             void (*line)(void *arg, const char *text), void *arg) {
    const struct printer printer = {line, arg};
    for (int r = 0; r < runtime->rank_count; r++) {
        if (runtime->conductor_of[r] == r) {
            describe_island(&printer, runtime, r);
        }
    }
    describe_flows(&printer, runtime);
}
