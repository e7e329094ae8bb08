/* SPDX-License-Identifier: Apache-2.0
 *
 * Cross entropy in pieces: against the reference, over one vocabulary and over shards that give the
 * same loss and gradient, and against finite differences.
 */
#include "tests/kernels/kernel_case.h"

static uint64_t seed;

enum { LOGITS, MAX, SUM, TARGET, LOSS, TOTAL, COUNT };
enum { ROWS_MAX = 130 };

struct setup {
    int32_t targets[ROWS_MAX];
    int32_t begin;
};

static void make_targets(struct setup *s, int64_t vocabulary) {
    for (uint64_t r = 0; r < ROWS_MAX; r++) {
        s->targets[r] = (int32_t)troupe_random_below(seed, 200, r, (uint64_t)vocabulary + 1) - 1;
    }
}

/* max and sum of exponentials of one shard */
static troupe_status call_pieces(const struct troupe_kernels *k, troupe_stream *stream,
                                 const struct troupe_tensor *t, const void *arg) {
    const struct setup *s = arg;
    TROUPE_TRY(k->row_max(stream, &(struct troupe_row_max){t[LOGITS], t[MAX].data}));
    struct troupe_row_sum_exp op = {.logits = t[LOGITS],
                                    .row_max = t[MAX].data,
                                    .targets = s->targets,
                                    .begin = s->begin,
                                    .row_sum = t[SUM].data,
                                    .target_logit = t[TARGET].data};
    return k->row_sum_exp(stream, &op);
}

static troupe_status call_loss(const struct troupe_kernels *k, troupe_stream *stream,
                               const struct troupe_tensor *t, const void *arg) {
    const struct setup *s = arg;
    double *total = result_cell(stream, 0);
    *total = -1;
    TROUPE_TRY(call_pieces(k, stream, t, arg));
    struct troupe_cross_entropy op = {.targets = s->targets,
                                      .row_sum = t[SUM].data,
                                      .target_logit = t[TARGET].data,
                                      .rows = t[LOGITS].rows,
                                      .row_loss = t[LOSS].data,
                                      .loss_sum = total};
    TROUPE_TRY(k->cross_entropy(stream, &op));
    await_results(stream);
    return k->fill(stream, &(struct troupe_fill){(float)*total, t[TOTAL]});
}

static troupe_status call_backward(const struct troupe_kernels *k, troupe_stream *stream,
                                   const struct troupe_tensor *t, const void *arg) {
    const struct setup *s = arg;
    struct troupe_cross_entropy_backward op = {.logits = t[LOGITS],
                                               .row_max = t[MAX].data,
                                               .row_sum = t[SUM].data,
                                               .targets = s->targets,
                                               .begin = s->begin,
                                               .scale = 0.25f};
    return k->cross_entropy_backward(stream, &op);
}

static troupe_status call_all(const struct troupe_kernels *k, troupe_stream *stream,
                              const struct troupe_tensor *t, const void *arg) {
    TROUPE_TRY(call_loss(k, stream, t, arg));
    return call_backward(k, stream, t, arg);
}

static void set_operands(int64_t rows, int64_t vocabulary, struct operand *o) {
    o[LOGITS] = (struct operand){ACCUMULATED, rows, vocabulary, GAP};
    for (int i = MAX; i < COUNT; i++) {
        o[i] = (struct operand){OUTPUT, 1, i == TOTAL ? 1 : rows, 0};
    }
}

static void odd_sizes_match_the_reference(void) {
    static const int64_t rows[] = {0, 1, 17, 130}, vocabulary[] = {1, 3, 65, 261, 3001};
    for (int r = 0; r < 4; r++) {
        for (int v = 0; v < 5; v++) {
            struct setup s = {.begin = 0};
            make_targets(&s, vocabulary[v]);
            struct kernel_case kc = {.name = "cross_entropy",
                                     .call = call_all,
                                     .arg = &s,
                                     .count = COUNT,
                                     .terms = vocabulary[v]};
            set_operands(rows[r], vocabulary[v], kc.operand);
            check_case(&kc, seed);
            s.begin = 2; /* a shard that holds only some of the targets */
            kc.call = call_pieces;
            kc.operand[LOSS].role = kc.operand[TOTAL].role = INPUT;
            check_case(&kc, seed);
        }
    }
}

/* The columns [begin, begin + columns) of a tensor. */
static struct troupe_tensor slice(const struct troupe_tensor *t, int64_t begin, int64_t columns) {
    return (struct troupe_tensor){at(t, 0) + begin, t->rows, columns, t->stride, TROUPE_FLOAT32};
}

/* Reductions over two shards, as ranks would do them between the pieces. */
static void two_shards_give_the_loss_and_gradient_of_one(void) {
    enum { ROWS = 9, VOCABULARY = 50, CUT = 17 };
    const struct troupe_kernels *k = troupe_kernels_for(TROUPE_DEVICE_CPU);
    struct setup s[2] = {{.begin = 0}, {.begin = CUT}};
    make_targets(&s[0], VOCABULARY);
    memcpy(s[1].targets, s[0].targets, sizeof(s[1].targets));
    struct kernel_case kc = {.name = "shards", .count = COUNT, .terms = VOCABULARY};
    set_operands(ROWS, VOCABULARY, kc.operand);
    struct troupe_tensor whole[OPERANDS_MAX], shard[2][OPERANDS_MAX];
    make_operands(&kc, seed, whole);
    for (int i = 0; i < 2; i++) {
        make_operands(&kc, seed, shard[i]);
    }
    EXPECT_OK(call_all(k, NULL, whole, &s[0]));
    struct troupe_tensor view[2][OPERANDS_MAX];
    float max[2][ROWS], *common = shard[0][MAX].data;
    for (int i = 0; i < 2; i++) {
        memcpy(view[i], shard[i], sizeof(view[i]));
        view[i][LOGITS] = slice(&shard[i][LOGITS], i * CUT, i == 0 ? CUT : VOCABULARY - CUT);
        view[i][MAX].data = common;
        struct troupe_row_max op = {view[i][LOGITS], max[i]};
        EXPECT_OK(k->row_max(NULL, &op));
    }
    for (int r = 0; r < ROWS; r++) {
        common[r] = fmaxf(max[0][r], max[1][r]);
    }
    for (int i = 0; i < 2; i++) {
        struct troupe_row_sum_exp op = {view[i][LOGITS],   common,
                                        s[i].targets,      s[i].begin,
                                        view[i][SUM].data, view[i][TARGET].data};
        EXPECT_OK(k->row_sum_exp(NULL, &op));
    }
    for (int r = 0; r < ROWS; r++) {
        float *sum[2] = {view[0][SUM].data, view[1][SUM].data};
        float *target[2] = {view[0][TARGET].data, view[1][TARGET].data};
        sum[0][r] = sum[1][r] = sum[0][r] + sum[1][r];
        target[0][r] = target[1][r] = target[0][r] + target[1][r];
    }
    expect_close(&kc, SUM, &view[0][SUM], &whole[SUM]);
    expect_close(&kc, TARGET, &view[0][TARGET], &whole[TARGET]);
    for (int i = 0; i < 2; i++) {
        EXPECT_OK(call_backward(k, NULL, view[i], &s[i]));
        struct troupe_tensor expected = slice(&whole[LOGITS], i * CUT, view[i][LOGITS].columns);
        expect_close(&kc, LOGITS, &view[i][LOGITS], &expected);
    }
    for (int i = 0; i < 2; i++) {
        free_operands(&kc, shard[i]);
    }
    free_operands(&kc, whole);
}

/* The gradient is in place, so differences are taken here, not by check_gradient. */
static void gradient_matches_finite_differences(void) {
    const struct troupe_kernels *k = troupe_kernels_reference();
    struct setup s = {.targets = {4, -1, 0}};
    float x[3][5], dx[3][5], max[3], sum[3], target[3], loss[3], all[3];
    for (uint64_t i = 0; i < 15; i++) {
        x[i / 5][i % 5] = dx[i / 5][i % 5] = (float)troupe_random_normal(seed, 201, i);
    }
    struct troupe_tensor t[COUNT] = {{dx, 3, 5, 5, TROUPE_FLOAT32}};
    float *stats[] = {max, sum, target, loss, all};
    for (int i = MAX; i < COUNT; i++) {
        t[i] = (struct troupe_tensor){stats[i - 1], 1, 3, 3, TROUPE_FLOAT32};
    }
    EXPECT_OK(call_all(k, NULL, t, &s));
    EXPECT_NEAR(all[0], (double)loss[0] + loss[1] + loss[2], 1e-6);
    t[LOGITS].data = x;
    for (int i = 0; i < 15; i++) {
        float *value = &x[i / 5][i % 5], middle = *value;
        const float step = 0x1p-6f;
        double total[2];
        for (int side = 0; side < 2; side++) {
            *value = side == 0 ? middle + step : middle - step;
            EXPECT_OK(call_loss(k, NULL, t, &s));
            total[side] = (double)loss[0] + loss[1] + loss[2];
        }
        *value = middle;
        EXPECT_NEAR(dx[i / 5][i % 5], 0.25 * (total[0] - total[1]) / (2 * (double)step), 1e-4);
    }
}

static void large_logits_stay_finite(void) {
    const struct troupe_kernels *k = troupe_kernels_for(TROUPE_DEVICE_CPU);
    float x[3] = {1e30f, -1e30f, 0}, max, sum, target, loss, all;
    const struct setup s = {.targets = {0}};
    struct troupe_tensor t[COUNT] = {
        {x, 1, 3, 3, TROUPE_FLOAT32},     {&max, 1, 1, 1, TROUPE_FLOAT32},
        {&sum, 1, 1, 1, TROUPE_FLOAT32},  {&target, 1, 1, 1, TROUPE_FLOAT32},
        {&loss, 1, 1, 1, TROUPE_FLOAT32}, {&all, 1, 1, 1, TROUPE_FLOAT32}};
    EXPECT_OK(call_all(k, NULL, t, &s));
    EXPECT_NEAR(loss, 0, 1e-6);
    EXPECT_NEAR(x[0], 0, 1e-6);
    EXPECT_NEAR(x[1], 0, 1e-6);
}

int main(int argc, char **argv) {
    seed = kernel_test_begin(argc, argv);
    TEST_ON_CPU(gradient_matches_finite_differences);
    TEST(odd_sizes_match_the_reference);
    TEST_ON_CPU(two_shards_give_the_loss_and_gradient_of_one);
    TEST_ON_CPU(large_logits_stay_finite);
    return kernel_test_end();
}
