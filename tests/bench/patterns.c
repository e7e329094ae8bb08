/* SPDX-License-Identifier: Apache-2.0 */
/* Every pattern of `troupe bench` at a small size, by workers and by tickets; every task checks the
 * stamps of its inputs. With one dependency left out they must tell. */
#include <string.h>

#include "actors/job.h"
#include "apps/troupe/bench.h"
#include "runtime/clock.h"
#include "tests/test.h"

static troupe_status run(void *arg, troupe_comm *comm) {
    double samples[BENCH_ROUNDS];
    return bench_pattern_run(comm, arg, samples);
}

static troupe_status run_pattern(enum pattern_kind kind, int workers, bool loops, bool plant) {
    struct bench_pattern pattern = {.pattern = {.kind = kind, .width = 8, .steps = 6},
                                    .workers = workers,
                                    .replays = 2,
                                    .loops = loops,
                                    .plant = plant};
    return troupe_job_run(&(struct troupe_job_options){.ranks = 1}, run, &pattern);
}

static void every_pattern_runs(void) {
    for (int kind = 0; kind < PATTERN_KINDS; kind++) {
        for (int workers = 0; workers <= 3; workers++) {
            EXPECT_OK(run_pattern((enum pattern_kind)kind, workers, false, false));
        }
    }
}

static void patterns_that_repeat_run_with_an_actor_for_each_point(void) {
    for (int kind = 0; kind < PATTERN_KINDS; kind++) {
        bool repeats = pattern_repeats(&(struct pattern){.kind = (enum pattern_kind)kind});
        for (int workers = 0; workers <= 3; workers++) {
            EXPECT_EQ(run_pattern((enum pattern_kind)kind, workers, true, false),
                      repeats ? TROUPE_OK : TROUPE_ERROR_INVALID);
        }
    }
}

static void stamps_tell_of_a_wrong_order(void) {
    for (int workers = 0; workers <= 2; workers++) {
        troupe_status status = run_pattern(PATTERN_STENCIL_1D, workers, false, true);
        EXPECT_EQ(status, TROUPE_ERROR_DATA);
        EXPECT(strstr(troupe_last_error(), "has read stamp") != NULL, "%s", troupe_last_error());
    }
}

/* The trace has room for exactly the tasks of a step, or for fewer. */
static void check_trace(int workers, int capacity) {
    enum { WIDTH = 8, STEPS = 6, TASKS = WIDTH * STEPS };
    struct troupe_trace trace;
    bool seen[TASKS] = {false};
    EXPECT_OK(troupe_trace_init(&trace, capacity));
    struct bench_pattern pattern = {
        .pattern = {.kind = PATTERN_STENCIL_1D, .width = WIDTH, .steps = STEPS},
        .workers = workers,
        .replays = 2,
        .trace = &trace};
    uint64_t begin_ns = troupe_clock_ns();
    EXPECT_OK(troupe_job_run(&(struct troupe_job_options){.ranks = 1}, run, &pattern));
    uint64_t end_ns = troupe_clock_ns(), slack_ns = 1000000;
    EXPECT_EQ(trace.count, capacity < TASKS ? capacity : TASKS);
    bool fits = capacity > 2 * TASKS; /* nothing is reset between the two steps that warm up */
    EXPECT(fits == (trace.dropped == 0), "%lld dropped", (long long)trace.dropped);
    for (int i = 0; i < trace.count; i++) {
        const struct troupe_trace_event *e = &trace.events[i];
        EXPECT(e->what >= 0 && e->what < TASKS && !seen[e->what], "event %d: task %d", i, e->what);
        seen[e->what] = true;
        EXPECT(begin_ns <= e->begin_ns + slack_ns && e->begin_ns <= e->end_ns &&
                   e->end_ns <= end_ns + slack_ns,
               "task %d: %llu to %llu ns, in %llu to %llu", e->what,
               (unsigned long long)e->begin_ns, (unsigned long long)e->end_ns,
               (unsigned long long)begin_ns, (unsigned long long)end_ns);
    }
    troupe_trace_fini(&trace);
}

static void each_task_leaves_one_event(void) {
    for (int workers = 0; workers <= 3; workers++) {
        check_trace(workers, 48);
        check_trace(workers, 1000);
        check_trace(workers, 5);
    }
}

int main(void) {
    every_pattern_runs();
    patterns_that_repeat_run_with_an_actor_for_each_point();
    stamps_tell_of_a_wrong_order();
    each_task_leaves_one_event();
    return 0;
}
