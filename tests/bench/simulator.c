/* SPDX-License-Identifier: Apache-2.0 */
/* How fast the simulator is, and how much memory it takes: replicas of a pipeline of 8 ranks with a
 * split backward and an encoder on every rank.
 *
 *     bench.simulator [RANKS [MICROBATCHES [ORDER]]]     512 24 1f1b */
#include <sys/resource.h>

#include "runtime/clock.h"
#include "scheduler/bound.h"
#include "scheduler/sim.h"
#include "tests/schedule/pipeline.h"
#include "tests/test.h"

enum { STAGES = 8 };

static double peak_mb(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

static void say(const char *what, uint64_t *since_ns) {
    uint64_t now = troupe_clock_ns();
    printf("%-24s %8.1f ms, peak memory %7.1f MB\n", what,
           troupe_clock_seconds(*since_ns, now) * 1e3, peak_mb());
    *since_ns = troupe_clock_ns();
}

int main(int argc, char **argv) {
    int ranks = argc > 1 ? atoi(argv[1]) : 512, microbatches = argc > 2 ? atoi(argv[2]) : 40;
    const struct troupe_order_policy *order = NULL;
    struct pipeline pipeline;
    troupe_sim *sim = NULL;
    troupe_bound *bound = NULL;
    struct troupe_sim_result result;
    struct troupe_bound_result least;
    EXPECT_OK(troupe_order_find(argc > 3 ? argv[3] : "1f1b", &order));
    uint64_t since = troupe_clock_ns();
    pipeline_make(&(struct pipeline_options){.ranks = STAGES,
                                             .replicas = ranks / STAGES,
                                             .microbatches = microbatches,
                                             .forward = 10000,
                                             .backward = 11000,
                                             .weight = 9000,
                                             .split = true,
                                             .credits = 2,
                                             .slots = STAGES,
                                             .encoder_slots = STAGES,
                                             .reduce = 50000,
                                             .link_ns = 100,
                                             .encoder = ENCODER_SPREAD,
                                             .encoder_forward = 1000,
                                             .encoder_backward = 2000},
                  &pipeline);
    say("graph and its check", &since);
    EXPECT_OK(troupe_sim_create(
        &pipeline.graph,
        &(struct troupe_sim_options){.order = order, .costs = &pipeline.costs, .control_ns = 10},
        &sim));
    say("creation", &since);
    for (int run = 0; run < 3; run++) {
        EXPECT_OK(troupe_sim_run(sim, &result));
        say("step", &since);
    }
    EXPECT_OK(troupe_bound_create(&pipeline.graph, &(struct troupe_bound_options){0}, &bound));
    troupe_bound_compute(bound, &pipeline.costs, 0, &least);
    say("bound", &since);
    printf("%d ranks, %d tasks, %" PRId64 " events: T %.3f ms, T* %.3f ms, T/T* %.4f\n",
           pipeline.graph.rank_count, result.schedule.task_count, result.events,
           (double)result.makespan_ns * 1e-6, (double)least.ns * 1e-6,
           (double)result.makespan_ns / (double)least.ns);
    troupe_bound_destroy(bound);
    troupe_sim_destroy(sim);
    pipeline_free(&pipeline);
    return 0;
}
