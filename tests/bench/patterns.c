/* SPDX-License-Identifier: Apache-2.0 */
/* Every pattern of `troupe bench` at a small size, by workers and by tickets; every task checks the
 * stamps of its inputs. With one dependency left out they must tell. */
#include <string.h>

#include "actors/job.h"
#include "apps/troupe/bench.h"
#include "tests/test.h"

static troupe_status run(void *arg, troupe_comm *comm) {
    double samples[BENCH_ROUNDS];
    return bench_pattern_run(comm, arg, samples);
}

static troupe_status run_pattern(enum pattern_kind kind, int workers, bool plant) {
    struct bench_pattern pattern = {.pattern = {.kind = kind, .width = 8, .steps = 6},
                                    .workers = workers,
                                    .replays = 2,
                                    .plant = plant};
    return troupe_job_run(&(struct troupe_job_options){.ranks = 1}, run, &pattern);
}

static void every_pattern_runs(void) {
    for (int kind = 0; kind < PATTERN_KINDS; kind++) {
        for (int workers = 0; workers <= 3; workers++) {
            EXPECT_OK(run_pattern((enum pattern_kind)kind, workers, false));
        }
    }
}

static void stamps_tell_of_a_wrong_order(void) {
    for (int workers = 0; workers <= 2; workers++) {
        troupe_status status = run_pattern(PATTERN_STENCIL_1D, workers, true);
        EXPECT_EQ(status, TROUPE_ERROR_DATA);
        EXPECT(strstr(troupe_last_error(), "has read stamp") != NULL, "%s", troupe_last_error());
    }
}

int main(void) {
    every_pattern_runs();
    stamps_tell_of_a_wrong_order();
    return 0;
}
