/* SPDX-License-Identifier: Apache-2.0 */
/* Asks all ranks who waits for what, collects their facts and prints them in one screen. */
#include "actors/report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "actors/runtime_internal.h"
#include "runtime/clock.h"
#include "runtime/memory.h"

enum {
    LINE_BYTES = 512,
    PAGE_BYTES = 8192,
    LINKS_SHOWN = 12, /* of a chain */
    RANKS_SHOWN = 12, /* of the job */
    STARTS_MAX = 256, /* chains followed */
};
static const uint64_t grace_ns = 2000000000;    /* for the others to answer */
static const uint64_t same_ask_ns = 1000000000; /* all ranks are asked by one signal */

/* ---- the screen ---- */

struct page {
    const troupe_runtime *runtime;
    char text[PAGE_BYTES];
    size_t used;
};

static void put(struct page *page, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct page *page, const char *format, ...) {
    va_list args;
    va_start(args, format);
    size_t room = sizeof page->text - page->used;
    int written = vsnprintf(page->text + page->used, room, format, args);
    va_end(args);
    page->used += written < 0 ? 0 : (size_t)written < room ? (size_t)written : room - 1;
}

/* The chain with the gravest cause; of those the longest, which tells most. */
static void choose_chain(const troupe_runtime *runtime, struct troupe_wait_chain *best) {
    struct troupe_wait_chain chain;
    troupe_wait_follow(runtime, 0, best);
    for (int r = 1; r < runtime->rank_count && r < STARTS_MAX; r++) {
        troupe_wait_follow(runtime, r, &chain);
        if (chain.cause > best->cause ||
            (chain.cause == best->cause && chain.count > best->count)) {
            *best = chain;
        }
    }
}

static void put_link(struct page *page, const struct troupe_wait_link *link, int who_width) {
    char who[TROUPE_REASON_BYTES];
    troupe_waiter_name(page->runtime, &link->who, who, sizeof who);
    put(page, "  %-*s  ", who_width, who);
    if (link->since_ms < 0) {
        put(page, "%9s", "-");
    } else {
        put(page, "%7.1f s", (double)link->since_ms * 1e-3);
    }
    put(page, "  %s\n", link->reason);
}

static int who_width(const troupe_runtime *runtime, const struct troupe_wait_chain *chain) {
    size_t width = sizeof "waiter";
    for (int i = 0; i < chain->count; i++) {
        char who[TROUPE_REASON_BYTES];
        troupe_waiter_name(runtime, &chain->links[i].who, who, sizeof who);
        width = strlen(who) > width ? strlen(who) : width;
    }
    return (int)width;
}

static void put_chain(struct page *page, const struct troupe_wait_chain *chain) {
    int width = who_width(page->runtime, chain);
    /* the last one is the cause, where it waits for nothing */
    int count = chain->count - (chain->links[chain->count - 1].reason[0] == '\0');
    if (count > 0) {
        put(page, "  %-*s  %9s  waits for (the next line brings it)\n", width, "waiter", "since");
    }
    for (int i = 0; i < count; i++) {
        if (count > LINKS_SHOWN && i == LINKS_SHOWN / 2) {
            put(page, "  ... %d more\n", count - LINKS_SHOWN);
            i += count - LINKS_SHOWN;
        }
        put_link(page, &chain->links[i], width);
    }
    if (chain->cycle_begin != TROUPE_NOBODY) {
        char who[TROUPE_REASON_BYTES];
        troupe_waiter_name(page->runtime, &chain->links[chain->cycle_begin].who, who, sizeof who);
        put(page, "  %-*s  %9s  which closes the cycle\n", width, who, "");
    }
}

/* ---- the ranks ---- */

static const char *state_name(enum troupe_rank_state state) {
    switch (state) {
    case TROUPE_RANK_SILENT:
        return "does not answer";
    case TROUPE_RANK_OUTSIDE:
        return "outside of the step";
    case TROUPE_RANK_RUNS:
        return "in a collective of";
    case TROUPE_RANK_INPUT:
        return "waits for input to";
    case TROUPE_RANK_BUFFER:
        return "waits for a buffer to";
    case TROUPE_RANK_DEVICE:
        return "waits for its device";
    case TROUPE_RANK_READY:
        return "is about to run";
    case TROUPE_RANK_GATHERS:
        return "waits for others to run";
    case TROUPE_RANK_REDUCES:
        return "in the collective of";
    case TROUPE_RANK_NO_TICKET:
        return "has no ticket";
    case TROUPE_RANK_SENDS:
        return "has sends to complete";
    case TROUPE_RANK_DONE:
        return "is done with the step";
    }
    return "";
}

static bool is_in_chain(const struct troupe_wait_chain *chain, int rank) {
    for (int i = 0; i < chain->count; i++) {
        if (chain->links[i].who.rank == rank) {
            return true;
        }
    }
    return false;
}

static void put_rank(struct page *page, int rank) {
    const struct troupe_wait_fact *fact = &page->runtime->report.ranks[rank];
    char who[TROUPE_REASON_BYTES] = "";
    if (fact->state == TROUPE_RANK_SILENT) {
        put(page, "  %4d  %6s  %5s  %9s  %s\n", rank, "-", "-", "-", state_name(fact->state));
        return;
    }
    if (fact->method != TROUPE_NOBODY) {
        troupe_waiter_name(page->runtime,
                           &(struct troupe_waiter){.rank = TROUPE_NOBODY,
                                                   .method = fact->method,
                                                   .firing = fact->firing},
                           who, sizeof who);
    }
    put(page, "  %4d  %6" PRId64 "  %5" PRId64 "  %7.1f s  %s%s%s\n", rank, fact->step,
        fact->target - fact->done, (double)fact->since_ms * 1e-3, state_name(fact->state),
        who[0] != '\0' ? " " : "", who);
}

/* Small jobs whole; of others those that matter, and how the rest is. */
static void put_ranks(struct page *page, const struct troupe_wait_chain *chain) {
    const troupe_runtime *runtime = page->runtime;
    int rest[TROUPE_RANK_DONE + 1] = {0}, shown = 0;
    put(page, "  %4s  %6s  %5s  %9s  %s\n", "rank", "step", "left", "since", "state");
    for (int r = 0; r < runtime->rank_count; r++) {
        enum troupe_rank_state state = (enum troupe_rank_state)runtime->report.ranks[r].state;
        bool matters = runtime->rank_count <= RANKS_SHOWN || state == TROUPE_RANK_SILENT ||
                       is_in_chain(chain, r);
        if (matters && shown < RANKS_SHOWN) {
            put_rank(page, r);
            shown++;
        } else {
            rest[state]++;
        }
    }
    for (int state = 0; state <= TROUPE_RANK_DONE; state++) {
        if (rest[state] > 0) {
            put(page, "  %4s  %6s  %5s  %9s  %d more: %s\n", "...", "", "", "", rest[state],
                state_name((enum troupe_rank_state)state));
        }
    }
}

static void put_headline(struct page *page, const struct troupe_wait_chain *chain) {
    const struct troupe_report *report = &page->runtime->report;
    if (report->ends) {
        put(page, "no progress for %.1f s", (double)report->quiet_ns * 1e-9);
    } else {
        put(page, "who waits for what");
    }
    if (page->runtime->options.microbatches > 0) {
        put(page, " in step %" PRId64, page->runtime->step);
    }
    bool runs = chain->cause == TROUPE_CAUSE_RUNNING && !report->ends;
    put(page, ": %s%s", runs ? "nothing is stuck, " : "", chain->text);
}

/* One write, so that nothing comes between. */
static void print_page(troupe_runtime *runtime) {
    struct page page = {.runtime = runtime};
    struct troupe_wait_chain chain;
    choose_chain(runtime, &chain);
    put(&page, "troupe: ");
    size_t begin = page.used;
    put_headline(&page, &chain);
    if (runtime->report.ends) {
        snprintf(runtime->report.sentence, sizeof runtime->report.sentence, "%s",
                 page.text + begin);
    }
    put(&page, "\n");
    put_chain(&page, &chain);
    put_ranks(&page, &chain);
    fputs(page.text, stderr);
}

/* ---- asking ---- */

troupe_status troupe_report_make(troupe_runtime *runtime) {
    TROUPE_TRY(TROUPE_NEW(&runtime->report.methods, runtime->graph.method_count));
    return TROUPE_NEW(&runtime->report.ranks, runtime->rank_count);
}

void troupe_report_destroy(troupe_runtime *runtime) {
    troupe_free(runtime->report.methods);
    troupe_free(runtime->report.ranks);
}

static void forget(troupe_runtime *runtime) {
    struct troupe_report *report = &runtime->report;
    for (int m = 0; m < runtime->graph.method_count; m++) {
        report->methods[m].kind = 0;
    }
    for (int r = 0; r < runtime->rank_count; r++) {
        report->ranks[r] =
            (struct troupe_wait_fact){.state = TROUPE_RANK_SILENT, .method = TROUPE_NOBODY};
    }
}

void troupe_report_ask(troupe_runtime *runtime, bool ends, uint64_t quiet_ns) {
    struct troupe_report *report = &runtime->report;
    uint64_t now = troupe_clock_ns();
    bool just_answered = !ends && report->asked_ns != 0 && now - report->asked_ns < same_ask_ns;
    if (just_answered || (report->asking && report->ends >= ends) ||
        runtime->failure != TROUPE_OK ||
        troupe_comm_control_room(runtime->comm) <= runtime->rank_count) {
        return;
    }
    report->asking = true;
    report->ends = ends;
    report->round++;
    report->answered = 0;
    report->quiet_ns = quiet_ns;
    report->begin_ns = report->heard_ns = now;
    forget(runtime);
    for (int r = 0; r < runtime->rank_count; r++) {
        troupe_send_control(runtime, r,
                            &(struct troupe_control){.kind = TROUPE_CONTROL_REPORT,
                                                     .index = report->round,
                                                     .slot = ends});
    }
}

void troupe_report_asked(troupe_runtime *runtime, int from, int round, bool ends) {
    struct troupe_report *report = &runtime->report;
    report->heard_ns = troupe_clock_ns();
    if (report->asking && from < runtime->rank && ends >= report->ends) {
        report->asking = false; /* of several the lowest goes on */
    }
    troupe_send_facts(runtime, from, round);
    troupe_send_control(runtime, from,
                        &(struct troupe_control){.kind = TROUPE_CONTROL_REPORTED, .index = round});
    if (from != runtime->rank) {
        report->asked_ns = report->heard_ns;
        report->deferred_ns = ends ? report->heard_ns + grace_ns : report->deferred_ns;
    }
}

void troupe_report_hear(troupe_runtime *runtime, int from, const struct troupe_wait_fact *fact) {
    struct troupe_report *report = &runtime->report;
    report->heard_ns = troupe_clock_ns();
    if (report->asking && fact->round == report->round) {
        *(fact->of_rank ? &report->ranks[from] : &report->methods[fact->method]) = *fact;
    }
}

void troupe_report_answered(troupe_runtime *runtime, int from, int round) {
    (void)from;
    struct troupe_report *report = &runtime->report;
    report->heard_ns = troupe_clock_ns();
    report->answered += report->asking && round == report->round;
}

void troupe_report_poll(troupe_runtime *runtime) {
    struct troupe_report *report = &runtime->report;
    if (!report->asking || (report->answered < runtime->rank_count &&
                            troupe_clock_ns() - report->begin_ns < grace_ns)) {
        return;
    }
    report->asking = false;
    print_page(runtime);
    if (report->ends && runtime->failure == TROUPE_OK) {
        troupe_runtime_fail(runtime, troupe_fail(TROUPE_ERROR_STALL, "%s", report->sentence));
    }
}

/* ---- islands ---- */

/* "island of 2 ranks, conductor 0: a, b" */
static void describe_island(const troupe_runtime *runtime, int conductor,
                            void (*line)(void *arg, const char *text), void *arg) {
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
    line(arg, text);
}

static void describe_flows(const troupe_runtime *runtime, void (*line)(void *arg, const char *text),
                           void *arg) {
    int64_t agreed = runtime->flows_agreed, refused = runtime->flows_refused;
    char text[160];
    if (agreed + refused > 0) {
        snprintf(text, sizeof text,
                 "messages between devices of one machine: %" PRId64 " flows by copies from device "
                 "to device, %" PRId64 " through host memory",
                 agreed, refused);
        line(arg, text);
    }
}

void troupe_runtime_describe(const troupe_runtime *runtime,
                             void (*line)(void *arg, const char *text), void *arg) {
    for (int r = 0; r < runtime->rank_count; r++) {
        if (runtime->conductor_of[r] == r) {
            describe_island(runtime, r, line, arg);
        }
    }
    describe_flows(runtime, line, arg);
}
