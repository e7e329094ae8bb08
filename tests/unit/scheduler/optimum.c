/* SPDX-License-Identifier: Apache-2.0 */
/* Order policies against the optimum of their class, which exhaustive search finds on small cases;
 * and on larger ones the gains that theory allows, and the memory of encoders.
 * The argument "slow" tries all cases, else some of them. */
#include <math.h>

#include "runtime/check.h"
#include "scheduler/bound.h"
#include "scheduler/sim.h"
#include "tests/schedule/pipeline.h"
#include "tests/schedule/solver.h"
#include "tests/test.h"

enum { UNIT = 1000, RANKS_MAX = 16, NODES_MAX = 300000, NODES_MAX_QUICK = 20000 };

static bool all_cases;

static int64_t simulate(const struct pipeline *p, const char *order,
                        struct troupe_sim_result *result_out, troupe_sim **sim_out) {
    const struct troupe_order_policy *policy = NULL;
    struct troupe_sim_result result;
    troupe_sim *sim = NULL;
    EXPECT_OK(troupe_order_find(order, &policy));
    EXPECT_OK(troupe_sim_create(
        &p->graph, &(struct troupe_sim_options){.order = policy, .costs = &p->costs}, &sim));
    EXPECT_OK(troupe_sim_run(sim, &result));
    if (sim_out != NULL) {
        *sim_out = sim;
        *result_out = result;
    } else {
        troupe_sim_destroy(sim);
    }
    return result.makespan_ns;
}

static int64_t makespan(const struct pipeline_options *options, const char *order) {
    struct pipeline p;
    pipeline_make(options, &p);
    int64_t ns = simulate(&p, order, NULL, NULL);
    pipeline_free(&p);
    return ns;
}

/* A message between ranks takes at least 1 ns in the simulator, none in the solver. */
static int64_t slack(const struct pipeline_options *o) {
    return 8 * (o->ranks + o->microbatches);
}

struct tally {
    int cases, proved, equal;
    double worst;
};

static void compare(const struct pipeline_options *options, const char *order,
                    struct tally *tally) {
    struct pipeline p;
    struct solution best;
    pipeline_make(options, &p);
    solver_solve(&p.graph, &p.costs, all_cases ? NODES_MAX : NODES_MAX_QUICK, &best);
    tally->cases++;
    if (best.proved) {
        int64_t ns = simulate(&p, order, NULL, NULL);
        double ratio = (double)ns / (double)best.optimum_ns;
        tally->proved++;
        tally->equal += ns <= best.optimum_ns + slack(options);
        tally->worst = ratio > tally->worst ? ratio : tally->worst;
        if (ns > best.optimum_ns + slack(options)) {
            printf("    %s: p %d m %d F %d B %d W %d encoder %d %d slots %d: %d, optimum %d\n",
                   order, options->ranks, options->microbatches, (int)options->forward,
                   (int)options->backward, (int)options->weight, (int)options->encoder_forward,
                   (int)options->encoder_backward, options->slots, (int)ns, (int)best.optimum_ns);
        }
    }
    pipeline_free(&p);
}

static void expect_optimum(const struct tally *tally, const char *order) {
    printf("    %s: %d cases, optimum proved for %d, reached in %d, worst T / optimum %.4f\n",
           order, tally->cases, tally->proved, tally->equal, tally->worst);
    EXPECT(tally->proved > 0 && tally->equal == tally->proved, "%s: %d of %d", order, tally->equal,
           tally->proved);
}

/* Every p <= 4, m <= 6 with these costs. */
static void compare_sizes(struct pipeline_options options, const char *order, struct tally *tally) {
    for (int p = 2; p <= 4; p++) {
        for (int m = 1; m <= 6; m++) {
            options.ranks = p;
            options.microbatches = m;
            compare(&options, order, tally);
        }
    }
}

static void one_f_one_b_is_optimal_for_fused_backwards(void) {
    struct tally tally = {0};
    for (int backward = 1; backward <= 3; backward++) {
        compare_sizes((struct pipeline_options){.forward = UNIT, .backward = backward * UNIT},
                      "1f1b", &tally);
    }
    expect_optimum(&tally, "1f1b");
}

/* ZB-H1: no more microbatches in flight than stages. */
static void zero_bubble_is_optimal_in_its_class(void) {
    struct tally tally = {0};
    const int costs[][3] = {{1, 1, 1}, {1, 1, 2}, {2, 2, 1}, {2, 3, 2}};
    for (size_t i = 0; i < TROUPE_COUNT_OF(costs); i++) {
        for (int p = 2; p <= 4; p++) {
            for (int m = 1; m <= 6; m++) {
                struct pipeline_options options = {.ranks = p,
                                                   .microbatches = m,
                                                   .slots = p,
                                                   .split = true,
                                                   .forward = costs[i][0] * UNIT,
                                                   .backward = costs[i][1] * UNIT,
                                                   .weight = costs[i][2] * UNIT};
                compare(&options, "zero_bubble", &tally);
            }
        }
    }
    expect_optimum(&tally, "zero_bubble");
}

static void fill_is_optimal(void) {
    struct tally tally = {0};
    const int costs[][5] = {{1, 2, 0, 0, 0}, {1, 1, 1, 0, 0}, {1, 1, 2, 0, 0},
                            {2, 4, 0, 1, 2}, {2, 2, 2, 1, 2}, {3, 3, 3, 1, 2}};
    for (size_t i = 0; i < TROUPE_COUNT_OF(costs); i++) {
        compare_sizes(
            (struct pipeline_options){.split = costs[i][2] > 0,
                                      .forward = costs[i][0] * UNIT,
                                      .backward = costs[i][1] * UNIT,
                                      .weight = costs[i][2] * UNIT,
                                      .encoder_forward = costs[i][3] * UNIT,
                                      .encoder_backward = costs[i][4] * UNIT,
                                      .encoder = costs[i][3] > 0 ? ENCODER_SPREAD : ENCODER_NONE},
            "fill", &tally);
    }
    expect_optimum(&tally, "fill");
}

/* Encoder share of the LLM's work per rank, in percent; costs of a stage F = B = W. */
static struct pipeline_options larger_case(int p, int v, int m, int percent, bool split) {
    int64_t llm = 3 * UNIT * v; /* of a rank and microbatch */
    int64_t encoder_forward = llm * percent / 300;
    return (struct pipeline_options){.ranks = p,
                                     .chunks = v,
                                     .microbatches = m,
                                     .forward = UNIT,
                                     .backward = split ? UNIT : 2 * UNIT,
                                     .weight = split ? UNIT : 0,
                                     .split = split,
                                     .encoder = percent > 0 ? ENCODER_SPREAD : ENCODER_NONE,
                                     .encoder_forward = encoder_forward,
                                     .encoder_backward = 2 * encoder_forward};
}

/* Encoder work dealt unevenly: the last rank has `tilt` more than an even share, the first one as
 * much less. The bound of that case goes to bound_out. */
static int64_t fill_tilted(struct pipeline_options options, double tilt, int64_t *bound_out) {
    double share[RANKS_MAX];
    struct pipeline p;
    troupe_bound *bound = NULL;
    struct troupe_bound_result least;
    for (int r = 0; r < options.ranks; r++) {
        share[r] = 1 + tilt * (2.0 * r / (options.ranks - 1) - 1);
    }
    options.encoder_share = share;
    pipeline_make(&options, &p);
    EXPECT_OK(troupe_bound_create(&p.graph, &(struct troupe_bound_options){0}, &bound));
    troupe_bound_compute(bound, &p.costs, 0, &least);
    *bound_out = least.ns;
    int64_t ns = simulate(&p, "fill", NULL, NULL);
    troupe_bound_destroy(bound);
    pipeline_free(&p);
    return ns;
}

struct gain {
    double reached; /* percent */
    double bound;   /* what T* allows for the same assignment */
    double tilt;
};

/* Over three phases, of the better of an even assignment and two uneven ones. */
static struct gain best_gain(const struct pipeline_options *options, int64_t three_phases) {
    static const double tilts[] = {0, -0.52, 1};
    struct gain best = {.reached = -INFINITY};
    for (size_t i = 0; i < TROUPE_COUNT_OF(tilts); i++) {
        int64_t bound_ns = 0, ns = fill_tilted(*options, tilts[i], &bound_ns);
        double reached = 100 * ((double)three_phases / (double)ns - 1);
        if (reached > best.reached) {
            best = (struct gain){.reached = reached,
                                 .bound = 100 * ((double)three_phases / (double)bound_ns - 1),
                                 .tilt = tilts[i]};
        }
    }
    return best;
}

/* The table of theory 2.4: upper figures of the gain over three phases with a fused backward and an
 * even assignment, of fill with a fused and with a split one. */
static void gains_over_three_phases(void) {
    const struct {
        int p, v, m, percent;
        double fused, split;
    } rows[] = {{4, 1, 8, 10, 6.3, 23},   {4, 1, 32, 3, 2.7, 9},    {4, 1, 32, 25, 7.5, 7.5},
                {8, 1, 16, 25, 16.1, 28}, {16, 2, 32, 10, 7.8, 16}, {16, 1, 16, 25, 12.0, 47}};
    for (size_t i = 0; i < TROUPE_COUNT_OF(rows); i++) {
        if (!all_cases && rows[i].p * rows[i].m >= 128) {
            continue;
        }
        struct pipeline_options fused =
            larger_case(rows[i].p, rows[i].v, rows[i].m, rows[i].percent, false);
        struct pipeline_options split =
            larger_case(rows[i].p, rows[i].v, rows[i].m, rows[i].percent, true);
        int64_t base = makespan(&fused, "three_phase");
        struct gain f = best_gain(&fused, base), s = best_gain(&split, base);
        printf(
            "    p %d v %d m %d encoder %d %%: fused %+.1f %% (tilt %+.2f, T* %+.1f, upper figure "
            "%+.1f), split %+.1f (tilt %+.2f, T* %+.1f, %+.1f)\n",
            rows[i].p, rows[i].v, rows[i].m, rows[i].percent, f.reached, f.tilt, f.bound,
            rows[i].fused, s.reached, s.tilt, s.bound, rows[i].split);
        EXPECT(f.reached >= rows[i].fused - 2, "p %d m %d: fused %f", rows[i].p, rows[i].m,
               f.reached);
        EXPECT(s.reached >= fmin(rows[i].split, s.bound) - 2, "p %d m %d: split %f", rows[i].p,
               rows[i].m, s.reached);
    }
}

/* The most microbatches that an encoder holds between its forward and its backward. */
static int encoder_peak(const struct pipeline_options *options) {
    struct pipeline p;
    struct troupe_sim_result result;
    troupe_sim *sim = NULL;
    int most = 0;
    pipeline_make(options, &p);
    simulate(&p, "fill", &result, &sim);
    for (int g = 0; g < p.graph.gang_count; g++) {
        for (int i = 0; p.gangs[g].depth > 0 && i < result.schedule.task_count; i++) {
            const struct troupe_task *at = &result.schedule.tasks[i];
            int held = 0;
            for (int k = 0; k < result.schedule.task_count; k++) {
                const struct troupe_task *task = &result.schedule.tasks[k];
                const struct troupe_method *method = &p.methods[task->method];
                if (method->gang == g && task->begin_ns <= at->begin_ns) {
                    held += method->kind == TROUPE_METHOD_FORWARD;
                    held -= method->kind != TROUPE_METHOD_FORWARD && task->end_ns <= at->begin_ns;
                }
            }
            most = held > most ? held : most;
        }
    }
    troupe_sim_destroy(sim);
    pipeline_free(&p);
    return most;
}

static void encoder_memory_does_not_grow_with_the_step(void) {
    for (int p = 2; p <= 8; p *= 2) {
        struct pipeline_options few = larger_case(p, 1, 2 * p, 10, true), many = few;
        many.microbatches = 8 * p;
        int least = encoder_peak(&few), most = encoder_peak(&many);
        printf("    p %d: %d microbatches at m %d, %d at m %d\n", p, least, 2 * p, most, 8 * p);
        EXPECT(4 * most <= 5 * least, "p %d: %d and %d", p, least, most);
    }
}

int main(int argc, char **argv) {
    all_cases = argc > 1 && strcmp(argv[1], "slow") == 0;
    TEST(one_f_one_b_is_optimal_for_fused_backwards);
    TEST(zero_bubble_is_optimal_in_its_class);
    TEST(fill_is_optimal);
    TEST(gains_over_three_phases);
    TEST(encoder_memory_does_not_grow_with_the_step);
    return TEST_END();
}
