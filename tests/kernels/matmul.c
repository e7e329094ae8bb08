/* SPDX-License-Identifier: Apache-2.0
 *
 * Matrix products, bias_add and column_sum against the reference, at odd and at empty sizes.
 */
#include "tests/kernels/kernel_case.h"

static uint64_t seed;

struct variant {
    bool transpose_a;
    bool transpose_b;
    bool bias;
    bool accumulate;
    float alpha;
};

static troupe_status call_matmul(const struct troupe_kernels *k, troupe_stream *stream,
                                 const struct troupe_tensor *t, const void *arg) {
    const struct variant *v = arg;
    struct troupe_matmul op = {.a = t[0],
                               .b = t[1],
                               .c = t[2],
                               .transpose_a = v->transpose_a,
                               .transpose_b = v->transpose_b,
                               .accumulate = v->accumulate,
                               .alpha = v->alpha};
    if (v->bias) {
        op.bias = t[3];
    }
    return k->matmul(stream, &op);
}

static void check_matmul(int64_t m, int64_t n, int64_t k, const struct variant *v) {
    struct kernel_case kc = {
        .name = "matmul",
        .call = call_matmul,
        .arg = v,
        .operand = {{INPUT, v->transpose_a ? k : m, v->transpose_a ? m : k, GAP},
                    {INPUT, v->transpose_b ? n : k, v->transpose_b ? k : n, GAP},
                    {v->accumulate ? ACCUMULATED : OUTPUT, m, n, GAP},
                    {INPUT, 1, n, 0}},
        .count = 4,
        .terms = k + 1,
    };
    check_case(&kc, seed);
}

static void all_variants_match_the_reference(void) {
    static const int64_t sizes[] = {1, 3, 17, 65, 129};
    for (int i = 0; i < 16; i++) {
        struct variant v = {i & 1, i & 2, i & 4, i & 8, i & 4 ? 0.5f : 0.0f};
        for (int s = 0; s < 10; s++) {
            check_matmul(sizes[s % 5], sizes[(s * 2 + 1) % 5], sizes[(s * 3 + 2) % 5], &v);
        }
    }
}

static void many_tiles_match_the_reference(void) {
    check_matmul(601, 70, 33, &(struct variant){.transpose_b = true, .bias = true});
    check_matmul(5, 2049, 19, &(struct variant){.transpose_b = true});
    check_matmul(257, 130, 300, &(struct variant){.transpose_a = true, .accumulate = true});
}

/* Large enough for the matrix unit where there is one, deep enough for several pieces of k. */
static void large_products_match_the_reference(void) {
    for (int i = 0; i < 16; i++) {
        struct variant v = {i & 1, i & 2, i & 4, i & 8, i & 4 ? 0.5f : 0.0f};
        check_matmul(64 + 13 * i, 197 - 7 * i, 65 + 41 * i, &v);
        check_matmul(31, 197, 1100, &v); /* too few rows for the unit */
    }
}

/* Each of them alone, with the payload that rounding could carry into a zero. */
static void what_is_not_finite_stays_so(void) {
    enum { SIZE = 70 };
    static float x[SIZE * SIZE], y[SIZE * SIZE], z[SIZE * SIZE];
    const uint32_t payload = 0x7fffffff;
    const float bad[] = {INFINITY, -INFINITY, NAN, 0};
    for (int i = 0; i < 4; i++) {
        for (int e = 0; e < SIZE * SIZE; e++) {
            x[e] = y[e] = 1.0f;
        }
        x[3 * SIZE + 5] = bad[i];
        if (i == 3) {
            memcpy(&x[3 * SIZE + 5], &payload, sizeof(payload));
        }
        struct troupe_matmul op = {.a = {x, SIZE, SIZE, SIZE, TROUPE_FLOAT32},
                                   .b = {y, SIZE, SIZE, SIZE, TROUPE_FLOAT32},
                                   .c = {z, SIZE, SIZE, SIZE, TROUPE_FLOAT32}};
        EXPECT_OK(troupe_kernels_for(TROUPE_DEVICE_CPU)->matmul(NULL, &op));
        for (int e = 0; e < SIZE * SIZE; e++) {
            EXPECT(!isfinite(z[e]) == (e / SIZE == 3), "case %d: element %d is %g", i, e, z[e]);
        }
    }
}

static void empty_products_are_zero_or_bias(void) {
    for (int i = 0; i < 4; i++) {
        struct variant v = {.transpose_a = true, .bias = i & 1, .accumulate = i & 2};
        check_matmul(5, 7, 0, &v);
        check_matmul(0, 7, 5, &v);
        check_matmul(5, 0, 7, &v);
    }
}

static troupe_status call_bias_add(const struct troupe_kernels *k, troupe_stream *stream,
                                   const struct troupe_tensor *t, const void *arg) {
    (void)arg;
    return k->bias_add(stream, &(struct troupe_bias_add){.x = t[0], .bias = t[1]});
}

static troupe_status call_column_sum(const struct troupe_kernels *k, troupe_stream *stream,
                                     const struct troupe_tensor *t, const void *arg) {
    const bool *accumulate = arg;
    return k->column_sum(
        stream, &(struct troupe_column_sum){.x = t[0], .out = t[1], .accumulate = *accumulate});
}

static void bias_and_column_sum_match_the_reference(void) {
    static const int64_t sizes[] = {0, 1, 3, 17, 65, 129, 300};
    for (int s = 0; s < 7; s++) {
        int64_t rows = sizes[s], columns = sizes[6 - s] + 1;
        struct kernel_case add = {
            .name = "bias_add",
            .call = call_bias_add,
            .operand = {{ACCUMULATED, rows, columns, GAP}, {INPUT, 1, columns, 0}},
            .count = 2};
        check_case(&add, seed);
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            bool flag = accumulate != 0;
            struct kernel_case sum = {.name = "column_sum",
                                      .call = call_column_sum,
                                      .arg = &flag,
                                      .operand = {{INPUT, rows, columns, GAP},
                                                  {flag ? ACCUMULATED : OUTPUT, 1, columns, 0}},
                                      .count = 2,
                                      .terms = rows};
            check_case(&sum, seed);
        }
    }
}

static void other_dtypes_are_refused(void) {
    uint16_t data[4] = {0};
    struct troupe_tensor t = {data, 2, 2, 2, TROUPE_BFLOAT16};
    struct troupe_matmul op = {.a = t, .b = t, .c = t};
    EXPECT_ERROR(troupe_kernels_for(TROUPE_DEVICE_CPU)->matmul(NULL, &op), TROUPE_ERROR_UNSUPPORTED,
                 "bfloat16");
    EXPECT_ERROR(troupe_kernels_reference()->matmul(NULL, &op), TROUPE_ERROR_UNSUPPORTED,
                 "bfloat16");
}

static void every_kind_of_device_that_is_there_has_a_table(void) {
    EXPECT(troupe_kernels_for(TROUPE_DEVICE_CPU) != NULL, "no table for the CPU");
    EXPECT(troupe_device_count(TROUPE_DEVICE_CUDA) == 0 ||
               troupe_kernels_for(TROUPE_DEVICE_CUDA) != NULL,
           "GPUs without a table");
}

int main(int argc, char **argv) {
    seed = kernel_test_begin(argc, argv);
    TEST(all_variants_match_the_reference);
    TEST(many_tiles_match_the_reference);
    TEST(large_products_match_the_reference);
    TEST_ON_CPU(what_is_not_finite_stays_so);
    TEST(empty_products_are_zero_or_bias);
    TEST(bias_and_column_sum_match_the_reference);
    TEST_ON_CPU(other_dtypes_are_refused);
    TEST(every_kind_of_device_that_is_there_has_a_table);
    return kernel_test_end();
}
