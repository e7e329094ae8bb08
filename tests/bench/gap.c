/* SPDX-License-Identifier: Apache-2.0 */
/* How far `fill` is from the best schedule that an offline search finds, and from T*: pipelines
 * with an encoder spread over their ranks, split backward, F = B = W, encoder forward : backward =
 * 1 : 2.
 *
 *     bench.gap [SECONDS [STRIDE [OFFSET]]]    each STRIDE-th case of the grid, 60 s each
 *
 * One line a case; a policy that cannot run a case has no figure there. */
#include "runtime/check.h"
#include "runtime/memory.h"
#include "scheduler/bound.h"
#include "scheduler/sim.h"
#include "tests/schedule/annealer.h"
#include "tests/schedule/pipeline.h"
#include "tests/test.h"

enum { MICROBATCHES_MAX = 64, SEED = 20240521 };

static const int rank_counts[] = {2, 4, 8, 16};
static const int chunk_counts[] = {1, 2, 4};
static const int microbatch_counts[] = {8, 16, 32, 64};
static const double shares[] = {0.03, 0.10, 0.25};
static const double disparity = 4.15; /* largest over smallest microbatch */
static const char *const orders[] = {"three_phase", "1f1b", "interleaved", "zero_bubble", "fill"};

enum { FILL = TROUPE_COUNT_OF(orders) - 1 };

struct grid_case {
    int ranks, chunks, microbatches;
    double share;
    bool uneven;
};

/* Begins of all tasks of the best schedule so far. */
struct best {
    int64_t ns;
    int64_t *start_ns;
};

static int64_t simulate(const struct pipeline *pipeline, const struct problem *problem,
                        const char *order, struct best *best) {
    const struct troupe_order_policy *policy = NULL;
    troupe_sim *sim = NULL;
    struct troupe_sim_result result;
    EXPECT_OK(troupe_order_find(order, &policy));
    EXPECT_OK(troupe_sim_create(
        &pipeline->graph, &(struct troupe_sim_options){.order = policy, .costs = &pipeline->costs},
        &sim));
    EXPECT_OK(troupe_sim_run(sim, &result));
    if (result.makespan_ns < best->ns) {
        best->ns = result.makespan_ns;
        for (int i = 0; i < result.schedule.task_count; i++) {
            const struct troupe_task *task = &result.schedule.tasks[i];
            best->start_ns[problem->first[task->method] + task->microbatch] = task->begin_ns;
        }
    }
    troupe_sim_destroy(sim);
    return result.makespan_ns;
}

static int64_t bound_of(const struct pipeline *pipeline) {
    troupe_bound *bound = NULL;
    struct troupe_bound_result result;
    EXPECT_OK(troupe_bound_create(&pipeline->graph, &(struct troupe_bound_options){0}, &bound));
    troupe_bound_compute(bound, &pipeline->costs, 0, &result);
    troupe_bound_destroy(bound);
    return result.ns;
}

static double run_case(const struct grid_case *c, double seconds) {
    double llm_factor[MICROBATCHES_MAX], encoder_factor[MICROBATCHES_MAX];
    const int64_t stage = 120000 / c->chunks;
    int64_t encoder = (int64_t)((double)(3 * stage * c->chunks) * c->share / 3);
    struct pipeline pipeline;
    struct problem problem;
    pipeline_draw_factors(c->microbatches, disparity, SEED, 1, llm_factor);
    pipeline_draw_factors(c->microbatches, disparity, SEED, 2, encoder_factor);
    pipeline_make(&(struct pipeline_options){.ranks = c->ranks,
                                             .chunks = c->chunks,
                                             .microbatches = c->microbatches,
                                             .forward = stage,
                                             .backward = stage,
                                             .weight = stage,
                                             .split = true,
                                             .encoder = ENCODER_SPREAD,
                                             .encoder_forward = encoder,
                                             .encoder_backward = 2 * encoder,
                                             .llm_factor = c->uneven ? llm_factor : NULL,
                                             .encoder_factor = c->uneven ? encoder_factor : NULL},
                  &pipeline);
    problem_read(&pipeline.graph, &pipeline.costs, &problem);
    struct best best = {.ns = INT64_MAX};
    EXPECT_OK(TROUPE_NEW(&best.start_ns, problem.task_count));
    int64_t bound = bound_of(&pipeline), t[TROUPE_COUNT_OF(orders)];
    printf("| %d | %d | %d | %.0f %% | %s |", c->ranks, c->chunks, c->microbatches, 100 * c->share,
           c->uneven ? "log-normal" : "uniform");
    for (size_t i = 0; i < TROUPE_COUNT_OF(orders); i++) {
        t[i] = simulate(&pipeline, &problem, orders[i], &best);
        printf(" %.3f |", (double)t[i] / (double)bound);
    }
    int64_t found = annealer_run(&problem, best.start_ns, seconds, SEED, bound);
    double ratio = (double)t[FILL] / (double)found;
    printf(" %.3f | %.4f |\n", (double)found / (double)bound, ratio);
    fflush(stdout);
    troupe_free(best.start_ns);
    problem_free(&problem);
    pipeline_free(&pipeline);
    return ratio;
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 60, worst = 0;
    int stride = argc > 2 ? atoi(argv[2]) : 1, offset = argc > 3 ? atoi(argv[3]) : 0, index = 0;
    printf("T as a multiple of T*\n| p | v | m | encoder | microbatches |");
    for (size_t i = 0; i < TROUPE_COUNT_OF(orders); i++) {
        printf(" %s |", orders[i]);
    }
    printf(" best found | fill / best |\n");
    for (size_t p = 0; p < TROUPE_COUNT_OF(rank_counts); p++) {
        for (size_t v = 0; v < TROUPE_COUNT_OF(chunk_counts); v++) {
            for (size_t m = 0; m < TROUPE_COUNT_OF(microbatch_counts); m++) {
                for (size_t k = 0; k < 2 * TROUPE_COUNT_OF(shares); k++, index++) {
                    const struct grid_case c = {rank_counts[p], chunk_counts[v],
                                                microbatch_counts[m], shares[k / 2], k % 2 == 1};
                    double ratio = index % stride == offset ? run_case(&c, seconds) : 0;
                    worst = fmax(worst, ratio);
                }
            }
        }
    }
    printf("worst fill / best found: %.4f\n", worst);
    return 0;
}
