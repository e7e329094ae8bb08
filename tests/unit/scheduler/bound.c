/* SPDX-License-Identifier: Apache-2.0 */
/* T* against theory's closed forms and against the optimum of exhaustive search: never above it,
 * and equal to it where theory claims so. */
#include "scheduler/bound.h"

#include "tests/schedule/pipeline.h"
#include "tests/schedule/solver.h"
#include "tests/test.h"

enum { NODES_MAX = 200000 };

static int64_t max3(int64_t a, int64_t b, int64_t c) {
    int64_t most = a > b ? a : b;
    return most > c ? most : c;
}

static int64_t bound_of(const struct pipeline *p) {
    troupe_bound *bound = NULL;
    struct troupe_bound_result result;
    EXPECT_OK(troupe_bound_create(&p->graph, &(struct troupe_bound_options){0}, &bound));
    troupe_bound_compute(bound, &p->costs, 0, &result);
    EXPECT(result.path_ns <= result.ns && result.work_ns <= result.ns, "%" PRId64, result.ns);
    troupe_bound_destroy(bound);
    return result.ns;
}

static int64_t bound_for(const struct pipeline_options *options) {
    struct pipeline pipeline;
    pipeline_make(options, &pipeline);
    int64_t ns = bound_of(&pipeline);
    pipeline_free(&pipeline);
    return ns;
}

static void fused_backward_is_m_plus_p_minus_1(void) {
    for (int p = 1; p <= 6; p++) {
        for (int m = 1; m <= 12; m++) {
            int64_t ns = bound_for(&(struct pipeline_options){
                .ranks = p, .microbatches = m, .forward = 3, .backward = 4, .weight = 1});
            EXPECT_EQ(ns, (m + p - 1) * (3 + 5));
        }
    }
}

/* theory.md 2.2: the last-stage, chain and first-stage bounds. */
static void split_backward_is_the_three_bounds(void) {
    static const int64_t times[][3] = {{1, 1, 1}, {1, 1, 2}, {1, 2, 1}, {2, 1, 1},
                                       {2, 3, 1}, {1, 2, 3}, {3, 1, 1}, {1, 3, 2}};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        int64_t f = times[i][0], b = times[i][1], w = times[i][2];
        for (int p = 1; p <= 6; p++) {
            for (int m = 1; m <= 12; m++) {
                int64_t ns = bound_for(&(struct pipeline_options){.ranks = p,
                                                                  .microbatches = m,
                                                                  .forward = f,
                                                                  .backward = b,
                                                                  .weight = w,
                                                                  .split = true});
                int64_t closed = max3((p - 1) * f + m * (f + b + w), (m + p - 1) * (f + b) + w,
                                      p * f + (p - 1) * b + m * (b + w));
                EXPECT(ns == closed, "%d stages, %d microbatches, F %d B %d W %d: %d, not %d", p, m,
                       (int)f, (int)b, (int)w, (int)ns, (int)closed);
            }
        }
    }
}

/* theory.md 2.4, p 2, m 4, e_f 1, e_b 2 with F = B' = 1 each way: 18 with, 15 without an encoder.
 */
static void encoder_bounds_hold(void) {
    struct pipeline_options o = {
        .ranks = 2, .microbatches = 4, .forward = 1, .backward = 1, .weight = 1};
    EXPECT_EQ(bound_for(&o), 15);
    o.encoder = ENCODER_SPREAD;
    o.encoder_forward = 1;
    o.encoder_backward = 2;
    /* all work on a rank: 4 * (1 + 2) + 4 * (1 + 2) = 24; the chain: 1 + 15 + 2 = 18 */
    EXPECT(bound_for(&o) >= 24, "%d", (int)bound_for(&o));
}

/* Little's law: with k in flight, (m / k) round trips. */
static void slots_lengthen_the_bound(void) {
    struct pipeline_options o = {
        .ranks = 4, .microbatches = 8, .forward = 1, .backward = 2, .slots = 1, .link_ns = 5};
    EXPECT(bound_for(&o) >= 8 * (4 * 3 + 2 * 3 * 5), "%d", (int)bound_for(&o));
}

static void links_lengthen_the_bound(void) {
    struct pipeline_options o = {
        .ranks = 3, .microbatches = 1, .forward = 2, .backward = 3, .link_ns = 7};
    EXPECT_EQ(bound_for(&o), 3 * (2 + 3) + 2 * 2 * 7);
}

struct tally {
    int cases, proved, equal;
    double worst;
};

static void compare(const struct pipeline_options *options, struct tally *tally) {
    struct pipeline pipeline;
    struct solution solution;
    pipeline_make(options, &pipeline);
    int64_t bound = bound_of(&pipeline);
    solver_solve(&pipeline.graph, &pipeline.costs, NODES_MAX, &solution);
    EXPECT(bound <= solution.optimum_ns,
           "ranks %d chunks %d microbatches %d F %d B %d W %d link %d encoder %d: T* %d is above "
           "the schedule of %d",
           options->ranks, pipeline.options.chunks, options->microbatches, (int)options->forward,
           (int)options->backward, (int)options->weight, (int)options->link_ns,
           (int)options->encoder, (int)bound, (int)solution.optimum_ns);
    bool proved = solution.proved || solution.optimum_ns == bound;
    tally->cases++;
    tally->proved += proved;
    tally->equal += solution.optimum_ns == bound;
    double ratio = (double)solution.optimum_ns / (double)bound;
    tally->worst = proved && ratio > tally->worst ? ratio : tally->worst;
    pipeline_free(&pipeline);
}

static void say(const char *what, const struct tally *tally) {
    printf("    %s: %d cases, optimum known in %d, equal to T* in %d, at most %.3f of it\n", what,
           tally->cases, tally->proved, tally->equal, tally->worst);
}

/* theory.md 2.2 claims equality. */
static void split_bound_is_the_optimum(void) {
    static const int64_t times[][3] = {{1, 1, 1}, {1, 1, 2}, {1, 2, 1}, {2, 1, 1}, {1, 2, 3}};
    struct tally tally = {0};
    for (int p = 1; p <= 4; p++) {
        for (int m = 1; m <= 6; m++) {
            for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
                compare(&(struct pipeline_options){.ranks = p,
                                                   .microbatches = m,
                                                   .forward = times[i][0],
                                                   .backward = times[i][1],
                                                   .weight = times[i][2],
                                                   .split = true},
                        &tally);
            }
        }
    }
    say("split backward", &tally);
    EXPECT_EQ(tally.equal, tally.cases);
}

static void fused_bound_is_the_optimum(void) {
    struct tally tally = {0};
    for (int p = 1; p <= 4; p++) {
        for (int m = 1; m <= 6; m++) {
            for (int64_t b = 1; b <= 3; b++) {
                compare(
                    &(struct pipeline_options){
                        .ranks = p, .microbatches = m, .forward = 2, .backward = b},
                    &tally);
            }
        }
    }
    say("fused backward", &tally);
    EXPECT_EQ(tally.equal, tally.cases);
}

static void no_optimum_is_below_the_bound(void) {
    static const double uneven[] = {1.7, 0.6, 1.0, 2.1, 0.5, 1.3};
    static const double reverse[] = {0.5, 1.9, 1.0, 0.6, 2.2, 1.1};
    struct tally encoders = {0}, links = {0}, chunks = {0}, slots = {0}, ragged = {0};
    for (int p = 2; p <= 3; p++) {
        for (int m = 2; m <= 4; m++) {
            struct pipeline_options o = {.ranks = p,
                                         .microbatches = m,
                                         .forward = 10,
                                         .backward = 12,
                                         .weight = 8,
                                         .split = m % 2 == 0};
            for (int kind = ENCODER_SPREAD; kind <= ENCODER_APART; kind++) {
                struct pipeline_options with = o;
                with.encoder = (enum pipeline_encoder)kind;
                with.encoder_ranks = 2;
                with.encoder_forward = 4;
                with.encoder_backward = 7;
                compare(&with, &encoders);
                with.llm_factor = uneven;
                with.encoder_factor = reverse;
                compare(&with, &ragged);
            }
            struct pipeline_options linked = o, limited = o, chunked = o;
            linked.link_ns = 5;
            compare(&linked, &links);
            limited.slots = 1 + m % 2;
            compare(&limited, &slots);
            chunked.chunks = 2;
            chunked.split = false;
            compare(&chunked, &chunks);
            chunked.v_shape = true;
            compare(&chunked, &chunks);
        }
    }
    say("encoders", &encoders);
    say("uneven microbatches", &ragged);
    say("links", &links);
    say("slots", &slots);
    say("virtual stages", &chunks);
}

int main(void) {
    TEST(fused_backward_is_m_plus_p_minus_1);
    TEST(split_backward_is_the_three_bounds);
    TEST(encoder_bounds_hold);
    TEST(slots_lengthen_the_bound);
    TEST(links_lengthen_the_bound);
    TEST(split_bound_is_the_optimum);
    TEST(fused_bound_is_the_optimum);
    TEST(no_optimum_is_below_the_bound);
    return TEST_END();
}
