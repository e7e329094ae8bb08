/* SPDX-License-Identifier: Apache-2.0
 *
 * LayerNorm and RMSNorm, forward and both backwards, against the reference and the reference
 * against finite differences.
 */
#include "tests/kernels/kernel_case.h"

static uint64_t seed;

enum { X, WEIGHT, BIAS, Y, MEAN, RSTD, DY, DX, DWEIGHT, DBIAS, COUNT };

struct variant {
    bool centered; /* layernorm, not rmsnorm */
    bool accumulate;
};

static troupe_status call_forward(const struct troupe_kernels *k, troupe_stream *stream,
                                  const struct troupe_tensor *t, const void *arg) {
    const struct variant *v = arg;
    struct troupe_norm op = {.x = t[X],
                             .weight = t[WEIGHT],
                             .bias = t[BIAS],
                             .y = t[Y],
                             .mean = t[MEAN].data,
                             .rstd = t[RSTD].data,
                             .epsilon = 1e-5f};
    return v->centered ? k->layernorm(stream, &op) : k->rmsnorm(stream, &op);
}

static troupe_status call_backward(const struct troupe_kernels *k, troupe_stream *stream,
                                   const struct troupe_tensor *t, const void *arg) {
    const struct variant *v = arg;
    struct troupe_norm_backward_input input = {.x = t[X],
                                               .dy = t[DY],
                                               .weight = t[WEIGHT],
                                               .mean = t[MEAN].data,
                                               .rstd = t[RSTD].data,
                                               .dx = t[DX],
                                               .accumulate = v->accumulate};
    struct troupe_norm_backward_weight weight = {.x = t[X],
                                                 .dy = t[DY],
                                                 .mean = t[MEAN].data,
                                                 .rstd = t[RSTD].data,
                                                 .dweight = t[DWEIGHT],
                                                 .dbias = t[DBIAS],
                                                 .accumulate = v->accumulate};
    if (v->centered) {
        TROUPE_TRY(k->layernorm_backward_input(stream, &input));
        return k->layernorm_backward_weight(stream, &weight);
    }
    TROUPE_TRY(k->rmsnorm_backward_input(stream, &input));
    return k->rmsnorm_backward_weight(stream, &weight);
}

static troupe_status call_both(const struct troupe_kernels *k, troupe_stream *stream,
                               const struct troupe_tensor *t, const void *arg) {
    TROUPE_TRY(call_forward(k, stream, t, arg));
    return call_backward(k, stream, t, arg);
}

static void set_operands(const struct variant *v, int64_t rows, int64_t columns,
                         struct operand *o) {
    enum role gradient = v->accumulate ? ACCUMULATED : OUTPUT;
    enum role centered = v->centered ? OUTPUT : INPUT; /* rmsnorm leaves these alone */
    o[X] = o[DY] = (struct operand){INPUT, rows, columns, GAP};
    o[WEIGHT] = o[BIAS] = (struct operand){INPUT, 1, columns, 0};
    o[Y] = (struct operand){OUTPUT, rows, columns, GAP};
    o[MEAN] = (struct operand){centered, 1, rows, 0};
    o[RSTD] = (struct operand){OUTPUT, 1, rows, 0};
    o[DX] = (struct operand){gradient, rows, columns, GAP};
    o[DWEIGHT] = (struct operand){gradient, 1, columns, 0};
    o[DBIAS] = (struct operand){v->centered ? gradient : INPUT, 1, columns, 0};
}

static void odd_sizes_match_the_reference(void) {
    static const int64_t sizes[] = {0, 1, 3, 17, 65, 129, 384};
    for (int i = 0; i < 4; i++) {
        struct variant v = {i & 1, i & 2};
        for (int s = 0; s < 7; s++) {
            /* a single column has no variance: its float32 mean is exact, its rstd is not small */
            int64_t rows = sizes[s], columns = sizes[6 - s] + 2;
            struct kernel_case kc = {.name = v.centered ? "layernorm" : "rmsnorm",
                                     .call = call_both,
                                     .arg = &v,
                                     .count = COUNT,
                                     .terms = 16 * (rows + columns)};
            set_operands(&v, rows, columns, kc.operand);
            check_case(&kc, seed);
        }
    }
}

static void gradients_match_finite_differences(void) {
    for (int centered = 0; centered < 2; centered++) {
        struct variant v = {centered, false};
        struct gradient_case gc = {.name = centered ? "layernorm" : "rmsnorm",
                                   .forward = call_forward,
                                   .backward = call_backward,
                                   .arg = &v,
                                   .count = COUNT,
                                   .y = Y,
                                   .dy = DY,
                                   .inputs = {X, WEIGHT, BIAS},
                                   .gradients = {DX, DWEIGHT, DBIAS},
                                   .input_count = centered ? 3 : 2};
        set_operands(&v, 5, 24, gc.operand);
        check_gradient(&gc, seed);
    }
}

/* Rows of (1, -1, 1, -1, ...) have mean 0 and deviation 1. */
static void a_normal_row_stays_as_it_is(void) {
    float x[8] = {1, -1, 1, -1, 1, -1, 1, -1}, weight[8], bias[8] = {0}, y[8], mean, rstd;
    for (int i = 0; i < 8; i++) {
        weight[i] = 1;
    }
    struct troupe_tensor row = {x, 1, 8, 8, TROUPE_FLOAT32};
    struct troupe_norm op = {.x = row, .weight = row, .bias = row, .y = row, .mean = &mean};
    op.rstd = &rstd;
    op.weight.data = weight;
    op.bias.data = bias;
    op.y.data = y;
    EXPECT_OK(troupe_kernels_reference()->layernorm(NULL, &op));
    for (int i = 0; i < 8; i++) {
        EXPECT_NEAR(y[i], x[i], 1e-6);
    }
    EXPECT_NEAR(mean, 0, 1e-7);
    EXPECT_NEAR(rstd, 1, 1e-6);
}

int main(int argc, char **argv) {
    seed = kernel_test_begin(argc, argv);
    TEST_ON_CPU(a_normal_row_stays_as_it_is);
    TEST_ON_CPU(gradients_match_finite_differences);
    TEST(odd_sizes_match_the_reference);
    return kernel_test_end();
}
