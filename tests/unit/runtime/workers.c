/* SPDX-License-Identifier: Apache-2.0 */
/* Teams of several sizes run every part exactly once, see each other's results after the run (the
 * thread sanitizer checks the ordering), park when idle and survive nesting and oversubscription.
 */
#include "runtime/workers.h"

#include <pthread.h>
#include <stdbool.h>

#include "runtime/clock.h"
#include "tests/test.h"

enum { PARTS_MAX = 1000 };

static troupe_workers *create(int count, int64_t spin_ns) {
    troupe_workers *workers = NULL;
    const struct troupe_workers_options options = {.count = count, .spin_ns = spin_ns};
    EXPECT_OK(troupe_workers_create(&options, &workers));
    EXPECT_EQ(troupe_workers_count(workers), count);
    return workers;
}

/* Plain ints: two threads on one part, or a result read too early, is a race that tsan reports. */
static void count_part(void *arg, int64_t part) {
    ((int *)arg)[part]++;
}

static void expect_every_part_once(troupe_workers *workers, int64_t parts) {
    static int hits[PARTS_MAX + 1];
    memset(hits, 0, sizeof hits);
    troupe_workers_run(workers, parts, count_part, hits);
    for (int64_t i = 0; i < parts; i++) {
        EXPECT_EQ(hits[i], 1);
    }
    EXPECT_EQ(hits[parts], 0);
}

static void every_part_runs_once_for_any_team(void) {
    static const int counts[] = {1, 2, 3, 8};
    static const int64_t parts[] = {0, 1, 2, 3, 7, PARTS_MAX};
    for (size_t c = 0; c < 4; c++) {
        for (int64_t spin_ns = -1; spin_ns <= 20000; spin_ns += 20001) {
            troupe_workers *workers = create(counts[c], spin_ns);
            for (size_t p = 0; p < 6; p++) {
                expect_every_part_once(workers, parts[p]);
            }
            troupe_workers_destroy(workers);
        }
    }
}

static void no_team_runs_in_the_caller(void) {
    expect_every_part_once(NULL, 5);
    EXPECT_EQ(troupe_workers_count(NULL), 1);
}

/* Each run reads what the run before wrote, across threads. */
static void shift(void *arg, int64_t part) {
    int64_t *values = arg;
    int64_t *from = values + (values[16] % 2 == 0 ? 0 : 8);
    int64_t *to = values + (values[16] % 2 == 0 ? 8 : 0);
    to[part] = from[(part + 1) % 8] + 1;
}

static void short_runs_in_a_row_are_ordered(void) {
    enum { RUNS = 2000 };
    troupe_workers *workers = create(4, 0);
    int64_t values[17] = {0, 1, 2, 3, 4, 5, 6, 7};
    for (int run = 0; run < RUNS; run++) {
        values[16] = run;
        troupe_workers_run(workers, 8, shift, values);
    }
    for (int i = 0; i < 8; i++) {
        EXPECT_EQ(values[i], (i + RUNS) % 8 + RUNS);
    }
    troupe_workers_destroy(workers);
}

struct nested {
    troupe_workers *workers;
    int hits[4][4];
};

static void inner(void *arg, int64_t part) {
    ((int *)arg)[part]++;
}

static void outer(void *arg, int64_t part) {
    struct nested *nested = arg;
    troupe_workers_run(nested->workers, 4, inner, nested->hits[part]);
}

static void nested_run_is_serial_and_complete(void) {
    struct nested nested = {.workers = create(3, 0)};
    troupe_workers_run(nested.workers, 4, outer, &nested);
    for (int i = 0; i < 16; i++) {
        EXPECT_EQ(nested.hits[i / 4][i % 4], 1);
    }
    troupe_workers_destroy(nested.workers);
}

static double process_cpu_seconds(void) {
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec * 1e-9;
}

static void quiet_team_uses_no_cpu(void) {
    troupe_workers *workers = create(4, 100000);
    expect_every_part_once(workers, 64);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); /* budgets run out */
    double before = process_cpu_seconds();
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    double used = process_cpu_seconds() - before;
    EXPECT(used < 0.02, "%.3f s of CPU in 0.2 s of quiet", used);
    expect_every_part_once(workers, 64);
    troupe_workers_destroy(workers);
}

static void *use_own_team(void *arg) {
    (void)arg;
    troupe_workers *workers = create(2, 0);
    int hits[50] = {0};
    for (int run = 0; run < 50; run++) {
        troupe_workers_run(workers, 50, count_part, hits);
    }
    for (int i = 0; i < 50; i++) {
        EXPECT_EQ(hits[i], 50);
    }
    troupe_workers_destroy(workers);
    return NULL;
}

static void teams_of_several_ranks_share_a_process(void) {
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        EXPECT_EQ(pthread_create(&threads[i], NULL, use_own_team, NULL), 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void impossible_teams_are_refused(void) {
    troupe_workers *workers = NULL;
    struct troupe_workers_options options = {.count = -1};
    EXPECT_ERROR(troupe_workers_create(&options, &workers), TROUPE_ERROR_INVALID, "-1 workers");
    static const int cores[2] = {0, 1023};
    options = (struct troupe_workers_options){.count = 2, .cores = cores};
    EXPECT_ERROR(troupe_workers_create(&options, &workers), TROUPE_ERROR_INVALID, "core 1023");
    EXPECT(workers == NULL);
}

int main(void) {
    TEST(every_part_runs_once_for_any_team);
    TEST(no_team_runs_in_the_caller);
    TEST(short_runs_in_a_row_are_ordered);
    TEST(nested_run_is_serial_and_complete);
    TEST(quiet_team_uses_no_cpu);
    TEST(teams_of_several_ranks_share_a_process);
    TEST(impossible_teams_are_refused);
    return TEST_END();
}
