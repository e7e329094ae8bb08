/* SPDX-License-Identifier: Apache-2.0 */
/* What the order policies make of a case: the step's time T and T / T*.
 *
 *     bench.orders P V M [forward backward weight encoder_forward encoder_backward [slots [link]]]
 *
 * Costs are of one stage (of P * V) and microbatch; the encoder's of one of its P replicas, one on
 * each rank. V < 0: |V| chunks in the shape of a V. Fused backwards where a policy has no use for
 * split ones are a case of their own: weight 0 with backward the sum. */
#include "runtime/clock.h"
#include "scheduler/bound.h"
#include "scheduler/sim.h"
#include "tests/schedule/pipeline.h"
#include "tests/test.h"

static int64_t argument(int argc, char **argv, int index, int64_t otherwise) {
    return argc > index ? atoll(argv[index]) : otherwise;
}

int main(int argc, char **argv) {
    int v = (int)argument(argc, argv, 2, 1);
    struct pipeline_options options = {.ranks = (int)argument(argc, argv, 1, 4),
                                       .chunks = v < 0 ? -v : v,
                                       .v_shape = v < 0,
                                       .microbatches = (int)argument(argc, argv, 3, 8),
                                       .forward = argument(argc, argv, 4, 1000),
                                       .backward = argument(argc, argv, 5, 1000),
                                       .weight = argument(argc, argv, 6, 1000),
                                       .encoder_forward = argument(argc, argv, 7, 0),
                                       .encoder_backward = argument(argc, argv, 8, 0),
                                       .slots = (int)argument(argc, argv, 9, 0),
                                       .link_ns = argument(argc, argv, 10, 0)};
    options.split = options.weight > 0;
    options.encoder = options.encoder_forward > 0 ? ENCODER_SPREAD : ENCODER_NONE;
    struct pipeline pipeline;
    troupe_bound *bound = NULL;
    struct troupe_bound_result least;
    pipeline_make(&options, &pipeline);
    EXPECT_OK(troupe_bound_create(&pipeline.graph, &(struct troupe_bound_options){0}, &bound));
    troupe_bound_compute(bound, &pipeline.costs, 0, &least);
    printf("%-14s %12" PRId64 "\n", "T*", least.ns);
    for (int i = 0; troupe_order_builtin(i) != NULL; i++) {
        for (int look_ahead = 1; look_ahead <= 2; look_ahead++) {
            troupe_sim *sim = NULL;
            struct troupe_sim_result result;
            uint64_t begin_ns = troupe_clock_ns();
            EXPECT_OK(
                troupe_sim_create(&pipeline.graph,
                                  &(struct troupe_sim_options){.order = troupe_order_builtin(i),
                                                               .look_ahead = look_ahead,
                                                               .costs = &pipeline.costs},
                                  &sim));
            EXPECT_OK(troupe_sim_run(sim, &result));
            printf("%-14s look-ahead %d %12" PRId64 "  T/T* %.4f   (%.1f ms)\n",
                   troupe_order_builtin(i)->name, look_ahead, result.makespan_ns,
                   (double)result.makespan_ns / (double)least.ns,
                   troupe_clock_seconds(begin_ns, troupe_clock_ns()) * 1e3);
            troupe_sim_destroy(sim);
        }
    }
    troupe_bound_destroy(bound);
    pipeline_free(&pipeline);
    return 0;
}
