/* SPDX-License-Identifier: Apache-2.0 */
/* fill is never slower than a fixed policy on the same case, that is with the same memory for the
 * encoders (two and a half times the pipeline's depth; three_phase has that of a whole step). Some
 * cases of the grid, or all with the argument "slow". */
#include "runtime/check.h"
#include "scheduler/sim.h"
#include "tests/schedule/pipeline.h"
#include "tests/test.h"

enum { STAGE_NS = 120000, MICROBATCHES_MAX = 64, SEED = 20240521, QUICK_STRIDE = 41 };

static const int rank_counts[] = {2, 4, 8, 16};
static const int chunk_counts[] = {1, 2, 4};
static const int microbatch_counts[] = {8, 16, 32, 64};
static const double shares[] = {0.03, 0.10, 0.25};
static const char *const others[] = {"three_phase", "1f1b", "interleaved", "zero_bubble"};

static bool all_cases;

static int64_t simulate(const struct pipeline_options *options, const char *order) {
    struct pipeline pipeline;
    const struct troupe_order_policy *policy = NULL;
    struct troupe_sim_result result;
    troupe_sim *sim = NULL;
    pipeline_make(options, &pipeline);
    EXPECT_OK(troupe_order_find(order, &policy));
    EXPECT_OK(troupe_sim_create(
        &pipeline.graph, &(struct troupe_sim_options){.order = policy, .costs = &pipeline.costs},
        &sim));
    EXPECT_OK(troupe_sim_run(sim, &result));
    troupe_sim_destroy(sim);
    pipeline_free(&pipeline);
    return result.makespan_ns;
}

/* A message between ranks takes at least 1 ns in the simulator, none in a plan. */
static int64_t slack(const struct pipeline_options *o) {
    return 8 * (o->ranks * o->chunks + o->microbatches);
}

static void expect_not_slower(struct pipeline_options options) {
    int64_t fill = simulate(&options, "fill");
    int bound = 5 * options.ranks * options.chunks / 2; /* see order_fill.c */
    for (size_t i = 0; i < TROUPE_COUNT_OF(others); i++) {
        options.encoder_slots = i > 0 && bound < options.microbatches ? bound : 0;
        int64_t other = simulate(&options, others[i]);
        EXPECT(fill <= other + slack(&options),
               "p %d v %d m %d encoder %d ns, %s, %s: fill takes %d ns, %s %d ns", options.ranks,
               options.chunks, options.microbatches, (int)options.encoder_forward,
               options.split ? "split" : "fused", options.llm_factor ? "log-normal" : "uniform",
               (int)fill, others[i], (int)other);
    }
}

/* Case `index` of the grid: F = B = W, encoder forward : backward = 1 : 2. */
static void run_case(int index) {
    double llm_factor[MICROBATCHES_MAX], encoder_factor[MICROBATCHES_MAX];
    int p = rank_counts[index % 4], v = chunk_counts[index / 4 % 3];
    int m = microbatch_counts[index / 12 % 4];
    bool split = index / 144 % 2 == 0, uneven = index / 288 == 1;
    int64_t stage = STAGE_NS / v, encoder = (int64_t)(STAGE_NS * shares[index / 48 % 3]);
    pipeline_draw_factors(m, 4.15, SEED, 1, llm_factor);
    pipeline_draw_factors(m, 4.15, SEED, 2, encoder_factor);
    expect_not_slower((struct pipeline_options){.ranks = p,
                                                .chunks = v,
                                                .microbatches = m,
                                                .forward = stage,
                                                .backward = split ? stage : 2 * stage,
                                                .weight = split ? stage : 0,
                                                .split = split,
                                                .encoder = ENCODER_SPREAD,
                                                .encoder_forward = encoder,
                                                .encoder_backward = 2 * encoder,
                                                .llm_factor = uneven ? llm_factor : NULL,
                                                .encoder_factor = uneven ? encoder_factor : NULL});
}

static void fill_is_never_slower_than_a_fixed_policy(void) {
    int cases = 0;
    for (int i = 0; i < 4 * 3 * 4 * 3 * 2 * 2; i += all_cases ? 1 : QUICK_STRIDE) {
        run_case(i);
        cases++;
    }
    printf("    %d cases\n", cases);
}

int main(int argc, char **argv) {
    all_cases = argc > 1 && strcmp(argv[1], "slow") == 0;
    TEST(fill_is_never_slower_than_a_fixed_policy);
    return TEST_END();
}
