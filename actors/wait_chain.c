/* SPDX-License-Identifier: Apache-2.0 */
/* From a rank to the cause of its wait, through the facts that all ranks have sent. A chain is
 * followed along the first thing that each waiter lacks; it ends at a cause, or is a cycle. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "actors/runtime_internal.h"

/* What the walk says of the waiter in hand. */
struct step {
    const troupe_runtime *runtime;
    struct troupe_wait_chain *chain;
    struct troupe_wait_link *link;
    struct troupe_waiter next;
};

static const struct troupe_wait_fact *fact_of_method(const troupe_runtime *runtime, int method) {
    const struct troupe_wait_fact *fact = &runtime->report.methods[method];
    return fact->kind == TROUPE_CONTROL_FACT ? fact : NULL;
}

static const struct troupe_wait_fact *fact_of_rank(const troupe_runtime *runtime, int rank) {
    return &runtime->report.ranks[rank];
}

static bool is_silent(const troupe_runtime *runtime, int rank) {
    return fact_of_rank(runtime, rank)->state == TROUPE_RANK_SILENT;
}

void troupe_waiter_name(const troupe_runtime *runtime, const struct troupe_waiter *who, char *text,
                        size_t bytes) {
    if (who->rank != TROUPE_NOBODY) {
        snprintf(text, bytes, "rank %d", who->rank);
        return;
    }
    int firings = runtime->graph_methods[who->method].firings;
    const char *gang = troupe_gang_of(runtime, who->method)->name;
    const char *method = troupe_method_of(runtime, who->method)->name;
    if (firings == 1) {
        snprintf(text, bytes, "%s %s", gang, method);
    } else {
        snprintf(text, bytes, "%s %s %" PRId64, gang, method,
                 firings > 0 ? who->firing % firings : who->firing);
    }
}

/* The name of a firing, for one sentence at a time. */
struct name {
    char text[TROUPE_REASON_BYTES / 2];
};

static struct name name_of(const struct step *step, int method, int64_t firing) {
    struct name name;
    troupe_waiter_name(
        step->runtime,
        &(struct troupe_waiter){.rank = TROUPE_NOBODY, .method = method, .firing = firing},
        name.text, sizeof name.text);
    return name;
}

static void say(char *text, const char *format, va_list args) {
    vsnprintf(text, TROUPE_REASON_BYTES, format, args);
}

/* The waiter lacks something that `who` will bring. */
static void waits_for(struct step *step, struct troupe_waiter who, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void waits_for(struct step *step, struct troupe_waiter who, const char *format, ...) {
    va_list args;
    va_start(args, format);
    say(step->link->reason, format, args);
    va_end(args);
    step->next = who;
}

/* Here the chain ends. The clause is what the waiter waits for, too, unless that is said. */
static void ends(struct step *step, enum troupe_cause cause, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void ends(struct step *step, enum troupe_cause cause, const char *format, ...) {
    va_list args;
    va_start(args, format);
    say(step->chain->text, format, args);
    va_end(args);
    step->chain->cause = cause;
}

static struct troupe_waiter rank_waiter(int rank) {
    return (struct troupe_waiter){.rank = rank, .method = TROUPE_NOBODY};
}

static struct troupe_waiter firing_waiter(int method, int64_t firing) {
    return (struct troupe_waiter){.rank = TROUPE_NOBODY, .method = method, .firing = firing};
}

/* ---- inputs ---- */

/* The producer has done it, so the message was sent. */
static bool is_done(const struct step *step, int method, int64_t firing) {
    const struct troupe_wait_fact *fact = fact_of_method(step->runtime, method);
    return fact != NULL && firing < fact->done;
}

/* "rank 2", "ranks 2, 3, 5", cut where there is no more room. */
static void list_ranks(const troupe_runtime *runtime, int gang, char *text, size_t bytes) {
    const struct troupe_actor_gang *sender = &runtime->gangs[gang];
    int count = sender->options.rank_count;
    size_t used =
        (size_t)snprintf(text, bytes, "rank%s %d", count > 1 ? "s" : "", sender->ranks[0]);
    for (int i = 1; i < count && used < bytes; i++) {
        used += (size_t)snprintf(text + used, bytes - used, ", %d", sender->ranks[i]);
    }
}

/* `rank` lacks message `message` of the channel. */
static void lacks_message(struct step *step, int channel, int64_t message, int rank) {
    const troupe_runtime *runtime = step->runtime;
    const struct troupe_edge *edge = &runtime->graph_edges[channel];
    int64_t firing = message - edge->initial;
    struct name producer = name_of(step, edge->from, firing);
    if (runtime->channels[channel].to_shard == TROUPE_NOBODY) { /* see plan.c */
        waits_for(step, rank_waiter(rank), "a buffer of %s on rank %d to be sent", edge->name,
                  rank);
    } else if (is_silent(runtime, rank)) {
        waits_for(step, rank_waiter(rank), "rank %d to have %s", rank, edge->name);
    } else if (is_done(step, edge->from, firing)) {
        waits_for(step, rank_waiter(rank), "%s at rank %d", edge->name, rank);
        char senders[32], when[32] = "";
        int firings = runtime->graph_methods[edge->from].firings;
        if (firings > 0) {
            snprintf(when, sizeof when, " of step %" PRId64, firing / firings);
        }
        list_ranks(runtime, runtime->graph_methods[edge->from].gang, senders, sizeof senders);
        ends(step, TROUPE_CAUSE_MESSAGE,
             "the message of %s (%s)%s has been sent by %s and has not arrived at rank %d",
             edge->name, producer.text, when, senders, rank);
    } else {
        waits_for(step, firing_waiter(edge->from, firing), "%s at rank %d", edge->name, rank);
    }
}

/* ---- methods ---- */

/* The first method of those that returns slots of the gang. */
static int slot_returner(const troupe_runtime *runtime, int gang) {
    for (int m = 0; m < runtime->graph.method_count; m++) {
        if (runtime->graph_methods[m].gang == gang && runtime->graph_methods[m].slot_return) {
            return m;
        }
    }
    return TROUPE_NOBODY;
}

static int64_t next_firing(const struct step *step, int method) {
    const struct troupe_wait_fact *fact = fact_of_method(step->runtime, method);
    return fact != NULL ? fact->firing : 0;
}

static void lacks_slot(struct step *step, int gang) {
    int method = slot_returner(step->runtime, gang);
    if (method == TROUPE_NOBODY) {
        ends(step, TROUPE_CAUSE_UNKNOWN, "%s has no free activation slot",
             step->runtime->gangs[gang].name);
        return;
    }
    waits_for(step, firing_waiter(method, next_firing(step, method)), "an activation slot, of %d",
              step->runtime->gangs[gang].options.slots);
}

static void lacks_credit(struct step *step, int method, const struct troupe_wait_fact *fact) {
    const struct troupe_edge *edge = &step->runtime->graph_edges[fact->index];
    bool known = fact_of_method(step->runtime, edge->to) != NULL;
    int64_t oldest = fact->firing + edge->initial - fact->in_flight; /* that holds a credit */
    int64_t taken = known ? next_firing(step, edge->to) : oldest;
    waits_for(step, firing_waiter(edge->to, taken), "a credit of %s, %d are out", edge->name,
              fact->in_flight);
    if (taken > oldest) {
        struct name producer = name_of(step, method, fact->firing);
        struct name consumer = name_of(step, edge->to, taken - 1);
        ends(step, TROUPE_CAUSE_CREDIT,
             "%d of %d credits of %s are lost: %s has taken its message and %s does not get the "
             "credit back",
             (int)(taken - oldest), edge->credits, edge->name, consumer.text, producer.text);
    }
}

static bool has_member(const troupe_runtime *runtime, int method, int rank) {
    const struct troupe_actor_gang *gang = troupe_gang_of(runtime, method);
    for (int k = 0; k < gang->options.rank_count; k++) {
        if (gang->ranks[k] == rank) {
            return true;
        }
    }
    return false;
}

/* The reduction that the rank posts next. */
static void lacks_lane(struct step *step, int method, int rank) {
    const troupe_runtime *runtime = step->runtime;
    int first = method;
    for (int m = 0; m < runtime->graph.method_count; m++) {
        const struct troupe_method *candidate = &runtime->graph_methods[m];
        bool waits = candidate->lane == TROUPE_LANE_REDUCTION && has_member(runtime, m, rank) &&
                     next_firing(step, m) <= next_firing(step, method) &&
                     candidate->lane_order < runtime->graph_methods[first].lane_order;
        first = waits ? m : first;
    }
    waits_for(step, firing_waiter(first, next_firing(step, first)),
              "its turn in the reduction lane of rank %d", rank);
}

/* What the next firing of the method waits for. */
static void follow_issue(struct step *step, int method, const struct troupe_wait_fact *fact) {
    const troupe_runtime *runtime = step->runtime;
    struct name name = name_of(step, method, fact->firing);
    switch ((enum troupe_engine_wait_kind)fact->state) {
    case TROUPE_WAIT_FOR_INPUT:
        if (fact->rank != TROUPE_NOBODY) {
            lacks_message(step, fact->index, fact->firing, fact->rank);
        } else {
            const struct troupe_edge *edge = &runtime->graph_edges[fact->index];
            waits_for(step, firing_waiter(edge->from, fact->firing - edge->initial), "%s",
                      edge->name);
        }
        return;
    case TROUPE_WAIT_FOR_AFTER:
        waits_for(step, firing_waiter(fact->index, next_firing(step, fact->index)),
                  "what goes before it");
        return;
    case TROUPE_WAIT_FOR_CREDIT:
        lacks_credit(step, method, fact);
        return;
    case TROUPE_WAIT_FOR_SLOT:
        lacks_slot(step, fact->index);
        return;
    case TROUPE_WAIT_FOR_MEMORY:
        waits_for(step, rank_waiter(fact->index), "activation memory of rank %d", fact->index);
        return;
    case TROUPE_WAIT_FOR_LANE:
        lacks_lane(step, method, fact->index);
        return;
    case TROUPE_WAIT_FOR_LOOK_AHEAD:
        waits_for(step, rank_waiter(fact->index), "rank %d to finish tickets", fact->index);
        return;
    case TROUPE_WAIT_FOR_STEP: {
        int conductor = troupe_conductor_of_gang(runtime, runtime->graph_methods[method].gang);
        waits_for(step, rank_waiter(conductor), "its conductor, rank %d, to begin the next step",
                  conductor);
        return;
    }
    case TROUPE_WAIT_FOR_NOTHING:
        break;
    }
    if (fact->held) {
        ends(step, TROUPE_CAUSE_POLICY, "order policy %s does not pick %s, which could run",
             runtime->order->name, name.text);
    } else {
        ends(step, TROUPE_CAUSE_RUNNING, "%s can be issued", name.text);
    }
}

static void follow_method(struct step *step, int method, int64_t firing) {
    const troupe_runtime *runtime = step->runtime;
    const struct troupe_wait_fact *fact = fact_of_method(runtime, method);
    int conductor = troupe_conductor_of_gang(runtime, runtime->graph_methods[method].gang);
    if (fact == NULL) {
        waits_for(step, rank_waiter(conductor), "a ticket from its conductor, rank %d", conductor);
    } else if (firing >= fact->firing) {
        step->link->since_ms = fact->since_ms;
        follow_issue(step, method, fact);
    } else if (firing >= fact->done) {
        waits_for(step, rank_waiter(fact->late_rank), "rank %d to run its ticket", fact->late_rank);
    } else {
        ends(step, TROUPE_CAUSE_RUNNING, "%s is done", name_of(step, method, firing).text);
    }
}

/* ---- ranks ---- */

/* Every member has to come to the collective. */
static void follow_collective(struct step *step, int rank, const struct troupe_wait_fact *fact) {
    const troupe_runtime *runtime = step->runtime;
    const struct troupe_actor_gang *gang = troupe_gang_of(runtime, fact->method);
    struct name name = name_of(step, fact->method, fact->firing);
    for (int k = 0; k < gang->options.rank_count; k++) {
        int other = gang->ranks[k];
        const struct troupe_wait_fact *theirs = fact_of_rank(runtime, other);
        bool is_in = theirs->state == fact->state && theirs->method == fact->method &&
                     theirs->firing == fact->firing;
        if (other != rank && !is_in) {
            waits_for(step, rank_waiter(other), "rank %d in a collective of %s", other, name.text);
            return;
        }
    }
    ends(step, TROUPE_CAUSE_COLLECTIVE, "%s is inside a collective on every rank of %s", name.text,
         gang->name);
}

/* Reductions with the same place in the lane are one collective. */
static void follow_reduction(struct step *step, const struct troupe_wait_fact *fact) {
    const troupe_runtime *runtime = step->runtime;
    struct name name = name_of(step, fact->method, fact->firing);
    for (int m = 0; m < runtime->graph.method_count; m++) {
        const struct troupe_method *method = &runtime->graph_methods[m];
        bool same = method->lane == TROUPE_LANE_REDUCTION &&
                    method->lane_order == runtime->graph_methods[fact->method].lane_order;
        if (same && (fact_of_method(runtime, m) == NULL || next_firing(step, m) <= fact->firing)) {
            waits_for(step, firing_waiter(m, fact->firing), "others to join %s", name.text);
            return;
        }
    }
    for (int r = 0; r < runtime->rank_count; r++) {
        const struct troupe_wait_fact *theirs = fact_of_rank(runtime, r);
        if (theirs->state != TROUPE_RANK_REDUCES && theirs->state != TROUPE_RANK_DONE) {
            waits_for(step, rank_waiter(r), "rank %d to join %s", r, name.text);
            return;
        }
    }
    ends(step, TROUPE_CAUSE_COLLECTIVE, "the collective of %s has all its members", name.text);
}

static void follow_send(struct step *step, const struct troupe_wait_fact *fact, const char *what) {
    const char *edge = step->runtime->edges[fact->index].name;
    if (fact->rank == TROUPE_NOBODY) {
        ends(step, TROUPE_CAUSE_UNKNOWN, "a buffer of %s is not released", edge);
    } else {
        waits_for(step, rank_waiter(fact->rank), "rank %d to take %s of %s", fact->rank, what,
                  edge);
    }
}

/* The method of this rank that is furthest behind. */
static void follow_unfinished(struct step *step, int rank) {
    const troupe_runtime *runtime = step->runtime;
    int conductor = runtime->conductor_of[rank];
    for (int m = 0; m < runtime->graph.method_count; m++) {
        const struct troupe_wait_fact *fact = fact_of_method(runtime, m);
        if (has_member(runtime, m, rank) && fact != NULL && fact->state != TROUPE_WAIT_FOR_STEP) {
            waits_for(step, firing_waiter(m, fact->firing), "a ticket");
            return;
        }
    }
    if (is_silent(runtime, conductor)) {
        waits_for(step, rank_waiter(conductor), "a ticket from its conductor, rank %d", conductor);
    } else {
        ends(step, TROUPE_CAUSE_RUNNING, "rank %d has nothing to do", rank);
    }
}

/* The program of the rank is beyond its tasks: it waits for one that is behind, or computes. */
static void follow_outside(struct step *step, int rank, const struct troupe_wait_fact *fact) {
    const troupe_runtime *runtime = step->runtime;
    for (int pass = 0; pass < 2; pass++) { /* those that are silent first */
        for (int r = 0; r < runtime->rank_count; r++) {
            const struct troupe_wait_fact *theirs = fact_of_rank(runtime, r);
            bool behind = theirs->step < fact->step ||
                          (theirs->step == fact->step && theirs->state != TROUPE_RANK_DONE);
            if (r != rank && (pass == 0 ? is_silent(runtime, r) : behind)) {
                waits_for(step, rank_waiter(r),
                          "rank %d; its own tasks of step %" PRId64 " are done", r, fact->step);
                return;
            }
        }
    }
    ends(step, TROUPE_CAUSE_OUTSIDE,
         "the tasks of step %" PRId64 " are done on all ranks; their programs wait outside of it",
         fact->step);
}

static void follow_rank(struct step *step, int rank) {
    const struct troupe_wait_fact *fact = fact_of_rank(step->runtime, rank);
    struct name name = {""};
    if (fact->method != TROUPE_NOBODY) {
        name = name_of(step, fact->method, fact->firing);
    }
    step->link->since_ms = fact->since_ms;
    switch ((enum troupe_rank_state)fact->state) {
    case TROUPE_RANK_SILENT:
        ends(step, TROUPE_CAUSE_SILENT,
             "rank %d does not answer: it computes, is stopped or is lost", rank);
        return;
    case TROUPE_RANK_OUTSIDE:
        ends(step, TROUPE_CAUSE_OUTSIDE, "the program of rank %d has not begun step %" PRId64, rank,
             fact->step + 1);
        return;
    case TROUPE_RANK_RUNS:
    case TROUPE_RANK_GATHERS:
        follow_collective(step, rank, fact);
        return;
    case TROUPE_RANK_INPUT:
        lacks_message(step, fact->index, fact->firing, rank);
        return;
    case TROUPE_RANK_BUFFER:
        follow_send(step, fact, "a message");
        return;
    case TROUPE_RANK_DEVICE:
        ends(step, TROUPE_CAUSE_DEVICE, "the device of rank %d has not finished what %s sends",
             rank, step->runtime->edges[fact->index].name);
        return;
    case TROUPE_RANK_READY:
        ends(step, TROUPE_CAUSE_RUNNING, "rank %d is about to run %s", rank, name.text);
        return;
    case TROUPE_RANK_REDUCES:
        follow_reduction(step, fact);
        return;
    case TROUPE_RANK_NO_TICKET:
        follow_unfinished(step, rank);
        return;
    case TROUPE_RANK_SENDS:
        follow_send(step, fact, "the last message");
        return;
    case TROUPE_RANK_DONE:
        follow_outside(step, rank, fact);
        return;
    }
}

/* ---- the walk ---- */

static bool is_same(const struct troupe_waiter *a, const struct troupe_waiter *b) {
    return a->rank == b->rank && a->method == b->method &&
           (a->rank != TROUPE_NOBODY || a->firing == b->firing);
}

/* A firing that comes later waits for those before it. */
static void name_next_firing(const troupe_runtime *runtime, struct troupe_waiter *who) {
    if (who->rank == TROUPE_NOBODY) {
        const struct troupe_wait_fact *fact = fact_of_method(runtime, who->method);
        who->firing = fact != NULL && who->firing > fact->firing ? fact->firing : who->firing;
    }
}

/* "a, b and c wait for each other" */
static void name_cycle(const troupe_runtime *runtime, struct troupe_wait_chain *chain) {
    size_t used = 0;
    for (int i = chain->cycle_begin; i < chain->count && used < sizeof chain->text; i++) {
        struct name name;
        troupe_waiter_name(runtime, &chain->links[i].who, name.text, sizeof name.text);
        bool first = i == chain->cycle_begin, last = i == chain->count - 1;
        int written = snprintf(chain->text + used, sizeof chain->text - used, "%s%s%s",
                               first  ? ""
                               : last ? " and "
                                      : ", ",
                               name.text, last ? " wait for each other" : "");
        used += written > 0 ? (size_t)written : 0;
    }
}

static bool closes_cycle(const troupe_runtime *runtime, struct troupe_wait_chain *chain,
                         const struct troupe_waiter *who) {
    for (int i = 0; i < chain->count; i++) {
        if (is_same(&chain->links[i].who, who)) {
            chain->cycle_begin = i;
            chain->cause = TROUPE_CAUSE_CYCLE;
            name_cycle(runtime, chain);
            return true;
        }
    }
    return false;
}

void troupe_wait_follow(const troupe_runtime *runtime, int rank, struct troupe_wait_chain *out) {
    *out = (struct troupe_wait_chain){.cycle_begin = TROUPE_NOBODY};
    struct step step = {.runtime = runtime, .chain = out, .next = rank_waiter(rank)};
    while (out->cause == TROUPE_CAUSE_NONE) {
        name_next_firing(runtime, &step.next);
        if (closes_cycle(runtime, out, &step.next)) {
            return;
        }
        if (out->count == TROUPE_CHAIN_MAX) {
            ends(&step, TROUPE_CAUSE_UNKNOWN, "the chain of waits is longer than %d",
                 TROUPE_CHAIN_MAX);
            return;
        }
        step.link = &out->links[out->count++];
        *step.link = (struct troupe_wait_link){.who = step.next, .since_ms = -1};
        if (step.next.rank != TROUPE_NOBODY) {
            follow_rank(&step, step.next.rank);
        } else {
            follow_method(&step, step.next.method, step.next.firing);
        }
    }
}
