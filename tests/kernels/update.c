/* SPDX-License-Identifier: Apache-2.0
 *
 * Elementwise operations, AdamW and scans against the reference; AdamW's first step by hand.
 */
#include "tests/kernels/kernel_case.h"

static uint64_t seed;

static const int64_t sizes[] = {0, 1, 3, 17, 65, 129, 700};

static troupe_status call_add(const struct troupe_kernels *k, troupe_stream *stream,
                              const struct troupe_tensor *t, const void *arg) {
    (void)arg;
    TROUPE_TRY(k->add(stream, &(struct troupe_add){.x = t[0], .y = t[1], .out = t[2]}));
    TROUPE_TRY(k->axpy(stream, &(struct troupe_axpy){.alpha = 0.3f, .x = t[0], .y = t[3]}));
    TROUPE_TRY(k->scale(stream, &(struct troupe_scale){.alpha = -1.5f, .x = t[4]}));
    return k->fill(stream, &(struct troupe_fill){.value = 2.5f, .x = t[5]});
}

static void elementwise_operations_match_the_reference(void) {
    for (int s = 0; s < 7; s++) {
        int64_t rows = sizes[s], columns = sizes[6 - s];
        struct kernel_case kc = {.name = "add, axpy, scale, fill",
                                 .call = call_add,
                                 .operand = {{INPUT, rows, columns, GAP},
                                             {INPUT, rows, columns, GAP},
                                             {OUTPUT, rows, columns, GAP},
                                             {ACCUMULATED, rows, columns, GAP},
                                             {ACCUMULATED, rows, columns, GAP},
                                             {OUTPUT, rows, columns, GAP}},
                                 .count = 6};
        check_case(&kc, seed);
    }
}

static void add_may_write_over_an_input(void) {
    float x[3] = {1, 2, 3}, y[3] = {10, 20, 30};
    struct troupe_tensor tx = {x, 1, 3, 3, TROUPE_FLOAT32}, ty = {y, 1, 3, 3, TROUPE_FLOAT32};
    EXPECT_OK(troupe_kernels_for(TROUPE_DEVICE_CPU)
                  ->add(NULL, &(struct troupe_add){.x = tx, .y = ty, .out = ty}));
    EXPECT(y[0] == 11 && y[1] == 22 && y[2] == 33, "%g %g %g", y[0], y[1], y[2]);
}

enum { PARAM, GRAD, M, V, ADAMW_COUNT };

static troupe_status call_adamw(const struct troupe_kernels *k, troupe_stream *stream,
                                const struct troupe_tensor *t, const void *arg) {
    struct troupe_adamw op = *(const struct troupe_adamw *)arg;
    op.param = t[PARAM];
    op.grad = t[GRAD];
    op.m = t[M];
    op.v = t[V];
    return k->adamw(stream, &op);
}

static void adamw_matches_the_reference(void) {
    for (int64_t step = 1; step < 1000; step *= 9) {
        for (int s = 0; s < 7; s++) {
            struct troupe_adamw op = {.lr = 1e-2,
                                      .beta1 = 0.9,
                                      .beta2 = 0.95,
                                      .epsilon = 1e-8,
                                      .decay = 0.1,
                                      .grad_scale = 0.7,
                                      .step = step};
            struct kernel_case kc = {
                .name = "adamw", .call = call_adamw, .arg = &op, .count = ADAMW_COUNT};
            for (int i = 0; i < ADAMW_COUNT; i++) {
                kc.operand[i] = (struct operand){ACCUMULATED, sizes[s], sizes[6 - s], GAP};
            }
            kc.operand[V].role = SQUARED; /* a mean of squares */
            check_case(&kc, seed);
        }
    }
}

/* From zero moments the first step moves by lr against the sign of the gradient, after decay. */
static void first_adamw_step_is_the_sign_of_the_gradient(void) {
    float param[3] = {1, 1, 1}, grad[3] = {5, -0.01f, 0}, m[3] = {0}, v[3] = {0};
    struct troupe_tensor t[] = {{param, 1, 3, 3, TROUPE_FLOAT32},
                                {grad, 1, 3, 3, TROUPE_FLOAT32},
                                {m, 1, 3, 3, TROUPE_FLOAT32},
                                {v, 1, 3, 3, TROUPE_FLOAT32}};
    struct troupe_adamw op = {.lr = 0.1,
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .epsilon = 1e-12,
                              .decay = 0.5,
                              .grad_scale = 1,
                              .step = 1};
    EXPECT_OK(call_adamw(troupe_kernels_for(TROUPE_DEVICE_CPU), NULL, t, &op));
    EXPECT_NEAR(param[0], 0.95 - 0.1, 1e-6);
    EXPECT_NEAR(param[1], 0.95 + 0.1, 1e-6);
    EXPECT_NEAR(param[2], 0.95, 1e-6);
    EXPECT_NEAR(m[0], 0.5, 1e-6);
    EXPECT_NEAR(v[0], 0.025, 1e-7);
}

/* The sum lands in two floats: its value relative to the reference, and the exact bits. */
static troupe_status call_scans(const struct troupe_kernels *k, troupe_stream *stream,
                                const struct troupe_tensor *t, const void *arg) {
    (void)arg;
    double *sum = result_cell(stream, 0);
    int64_t *row = result_cell(stream, 1);
    *sum = NAN;
    *row = -7;
    TROUPE_TRY(k->square_sum(stream, &(struct troupe_square_sum){.x = t[0], .out = sum}));
    TROUPE_TRY(
        k->first_nonfinite(stream, &(struct troupe_first_nonfinite){.x = t[0], .row_out = row}));
    await_results(stream);
    EXPECT_EQ(*row, -1);
    struct troupe_tensor high = {t[1].data, 1, 1, 1, TROUPE_FLOAT32}, low = high;
    low.data = (float *)t[1].data + 1; /* runs must agree in all bits */
    TROUPE_TRY(k->fill(stream, &(struct troupe_fill){(float)*sum, high}));
    return k->fill(stream, &(struct troupe_fill){(float)(*sum - (float)*sum), low});
}

static void scans_match_the_reference(void) {
    static const int64_t rows[] = {0, 1, 3, 17, 2000, 1, 70000},
                         columns[] = {3, 0, 17, 129, 65, 900001, 2};
    for (int s = 0; s < 7; s++) {
        struct kernel_case kc = {.name = "square_sum, first_nonfinite",
                                 .call = call_scans,
                                 .operand = {{INPUT, rows[s], columns[s], GAP}, {OUTPUT, 1, 2, 0}},
                                 .count = 2};
        check_case(&kc, seed);
    }
}

static void the_first_bad_row_is_named(void) {
    enum { ROWS = 700, COLUMNS = 130 };
    struct operand o = {INPUT, ROWS, COLUMNS, GAP};
    struct team team = team_open(2);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        struct troupe_tensor x = make_tensor(&o, seed, 0);
        int64_t row = -7;
        at(&x, 611)[COLUMNS - 1] = NAN;
        at(&x, 300 + i)[i] = bad[i];
        struct troupe_first_nonfinite op = {.x = x, .row_out = &row};
        EXPECT_OK(troupe_kernels_for(TROUPE_DEVICE_CPU)->first_nonfinite(team.stream, &op));
        EXPECT_EQ(row, 300 + i);
        EXPECT_OK(troupe_kernels_reference()->first_nonfinite(team.stream, &op));
        EXPECT_EQ(row, 300 + i);
        troupe_free(x.data);
    }
    team_close(&team);
}

static troupe_status call_first_nonfinite(const struct troupe_kernels *k, troupe_stream *stream,
                                          const struct troupe_tensor *t, const void *arg) {
    const int64_t *bad = arg;
    int64_t *row = result_cell(stream, 0);
    struct troupe_tensor cell = {at(&t[0], *bad) + 1, 1, 1, 1, TROUPE_FLOAT32};
    TROUPE_TRY(k->fill(stream, &(struct troupe_fill){INFINITY, cell}));
    TROUPE_TRY(
        k->first_nonfinite(stream, &(struct troupe_first_nonfinite){.x = t[0], .row_out = row}));
    await_results(stream);
    EXPECT_EQ(*row, *bad);
    return k->fill(stream, &(struct troupe_fill){0, cell});
}

static void any_table_names_the_first_bad_row(void) {
    for (int64_t bad = 0; bad < 6000; bad = bad * 3 + 1) {
        struct kernel_case kc = {.name = "first_nonfinite",
                                 .call = call_first_nonfinite,
                                 .arg = &bad,
                                 .operand = {{ACCUMULATED, 6000, 67, GAP}},
                                 .count = 1};
        check_case(&kc, seed);
    }
}

int main(int argc, char **argv) {
    seed = kernel_test_begin(argc, argv);
    TEST(elementwise_operations_match_the_reference);
    TEST_ON_CPU(add_may_write_over_an_input);
    TEST_ON_CPU(first_adamw_step_is_the_sign_of_the_gradient);
    TEST(adamw_matches_the_reference);
    TEST(scans_match_the_reference);
    TEST(any_table_names_the_first_bad_row);
    TEST_ON_CPU(the_first_bad_row_is_named);
    return kernel_test_end();
}
