/* SPDX-License-Identifier: Apache-2.0
 *
 * GELU, SwiGLU and RoPE against the reference, the reference against finite differences, and the
 * vector exp and erf against the C library.
 */
#include "modules/kernels/cpu/math_internal.h"
#include "tests/kernels/kernel_case.h"

static uint64_t seed;

static const int64_t sizes[] = {0, 1, 3, 17, 65, 129, 500};

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static void vector_exp_and_erf_keep_their_error_bounds(void) {
    for (uint32_t bits = 0; bits < 0xff800000u; bits += 4099) {
        float x = float_of(bits);
        if (!isfinite(x)) {
            continue;
        }
        if (x >= -87.0f && x <= 88.0f) {
            EXPECT_NEAR(vector_exp(x) / exp(x), 1.0, 1.2e-7);
        }
        EXPECT_NEAR(vector_erf(x), erf(x), 1.2e-7);
    }
    EXPECT(isnan(vector_exp(NAN)) && isnan(vector_erf(NAN)), "NaN is lost");
    EXPECT_NEAR(vector_exp(-INFINITY), 0.0, 1e-37);
    EXPECT_NEAR(vector_erf(INFINITY), 1.0, 0.0);
}

enum { X, Y, DY, DX, GELU_COUNT };

static troupe_status call_gelu(const struct troupe_kernels *k, troupe_stream *stream,
                               const struct troupe_tensor *t, const void *arg) {
    (void)arg;
    return k->gelu(stream, &(struct troupe_gelu){.x = t[X], .y = t[Y]});
}

static troupe_status call_gelu_backward(const struct troupe_kernels *k, troupe_stream *stream,
                                        const struct troupe_tensor *t, const void *arg) {
    (void)arg;
    return k->gelu_backward(stream,
                            &(struct troupe_gelu_backward){.x = t[X], .dy = t[DY], .dx = t[DX]});
}

enum { GATE, UP, OUT, D_OUT, DGATE, DUP, SWIGLU_COUNT };

static troupe_status call_swiglu(const struct troupe_kernels *k, troupe_stream *stream,
                                 const struct troupe_tensor *t, const void *arg) {
    (void)arg;
    return k->swiglu(stream, &(struct troupe_swiglu){.gate = t[GATE], .up = t[UP], .y = t[OUT]});
}

static troupe_status call_swiglu_backward(const struct troupe_kernels *k, troupe_stream *stream,
                                          const struct troupe_tensor *t, const void *arg) {
    (void)arg;
    return k->swiglu_backward(
        stream,
        &(struct troupe_swiglu_backward){
            .gate = t[GATE], .up = t[UP], .dy = t[D_OUT], .dgate = t[DGATE], .dup = t[DUP]});
}

/* The rotation of rope needs its table: made by the call itself, as its own operand. */
enum { RX, TABLE, RY, RDY, RDX, ROPE_COUNT };

static troupe_status rotate(const struct troupe_kernels *k, troupe_stream *stream,
                            const struct troupe_tensor *t, const int32_t *positions, bool back) {
    struct troupe_rope_table table = {.table = t[TABLE]};
    TROUPE_TRY(k->rope_table(stream, &table));
    struct troupe_rope op = {.x = t[back ? RDY : RX],
                             .table = t[TABLE],
                             .positions = positions,
                             .y = t[back ? RDX : RY],
                             .inverse = back};
    return k->rope(stream, &op);
}

static troupe_status call_rope(const struct troupe_kernels *k, troupe_stream *stream,
                               const struct troupe_tensor *t, const void *arg) {
    return rotate(k, stream, t, arg, false);
}

static troupe_status call_rope_backward(const struct troupe_kernels *k, troupe_stream *stream,
                                        const struct troupe_tensor *t, const void *arg) {
    return rotate(k, stream, t, arg, true);
}

static troupe_status call_rope_both(const struct troupe_kernels *k, troupe_stream *stream,
                                    const struct troupe_tensor *t, const void *arg) {
    TROUPE_TRY(call_rope(k, stream, t, arg));
    return call_rope_backward(k, stream, t, arg);
}

static void set_all(struct operand *o, int count, int64_t rows, int64_t columns) {
    for (int i = 0; i < count; i++) {
        o[i] = (struct operand){INPUT, rows, columns, GAP};
    }
}

static void gelu_matches_the_reference(void) {
    for (int s = 0; s < 7; s++) {
        struct kernel_case kc = {.name = "gelu", .call = call_gelu, .count = GELU_COUNT};
        set_all(kc.operand, GELU_COUNT, sizes[s], sizes[6 - s]);
        kc.operand[Y].role = OUTPUT;
        check_case(&kc, seed);
        kc.name = "gelu_backward";
        kc.call = call_gelu_backward;
        kc.operand[Y].role = INPUT;
        kc.operand[DX].role = OUTPUT;
        check_case(&kc, seed);
    }
}

static void swiglu_matches_the_reference(void) {
    for (int s = 0; s < 7; s++) {
        struct kernel_case kc = {.name = "swiglu", .call = call_swiglu, .count = SWIGLU_COUNT};
        set_all(kc.operand, SWIGLU_COUNT, sizes[s], sizes[6 - s]);
        kc.operand[OUT].role = OUTPUT;
        check_case(&kc, seed);
        kc.name = "swiglu_backward";
        kc.call = call_swiglu_backward;
        kc.operand[OUT].role = INPUT;
        kc.operand[DGATE].role = kc.operand[DUP].role = OUTPUT;
        check_case(&kc, seed);
    }
}

static void rope_matches_the_reference(void) {
    int32_t positions[300];
    for (int i = 0; i < 300; i++) {
        positions[i] = i * 7 % 64;
    }
    for (int64_t half = 1; half <= 33; half += 16) {
        for (int s = 0; s < 6; s++) {
            int64_t rows = sizes[s], heads = 1 + s;
            struct kernel_case kc = {
                .name = "rope", .call = call_rope_both, .arg = positions, .count = ROPE_COUNT};
            set_all(kc.operand, ROPE_COUNT, rows, heads * 2 * half);
            kc.operand[RY].role = kc.operand[RDX].role = OUTPUT;
            kc.operand[TABLE] = (struct operand){OUTPUT, 64, 2 * half, GAP};
            check_case(&kc, seed);
        }
    }
}

static void gradients_match_finite_differences(void) {
    static const int32_t positions[] = {0, 3, 1, 6};
    struct gradient_case gelu = {.name = "gelu",
                                 .forward = call_gelu,
                                 .backward = call_gelu_backward,
                                 .count = GELU_COUNT,
                                 .y = Y,
                                 .dy = DY,
                                 .inputs = {X},
                                 .gradients = {DX},
                                 .input_count = 1};
    set_all(gelu.operand, GELU_COUNT, 4, 9);
    check_gradient(&gelu, seed);
    struct gradient_case swiglu = {.name = "swiglu",
                                   .forward = call_swiglu,
                                   .backward = call_swiglu_backward,
                                   .count = SWIGLU_COUNT,
                                   .y = OUT,
                                   .dy = D_OUT,
                                   .inputs = {GATE, UP},
                                   .gradients = {DGATE, DUP},
                                   .input_count = 2};
    set_all(swiglu.operand, SWIGLU_COUNT, 4, 9);
    check_gradient(&swiglu, seed);
    struct gradient_case rope = {.name = "rope",
                                 .forward = call_rope,
                                 .backward = call_rope_backward,
                                 .arg = positions,
                                 .count = ROPE_COUNT,
                                 .y = RY,
                                 .dy = RDY,
                                 .inputs = {RX},
                                 .gradients = {RDX},
                                 .input_count = 1};
    set_all(rope.operand, ROPE_COUNT, 4, 12);
    rope.operand[TABLE] = (struct operand){OUTPUT, 7, 6, GAP};
    check_gradient(&rope, seed);
}

/* Columns i and i + D/2 are a pair; position 1 turns the first pair by one radian. */
static void rope_pairs_halves(void) {
    float x[4] = {1, 2, 0, 0}, table[8], y[4];
    const int32_t positions[] = {1};
    struct troupe_rope_table make = {.table = {table, 2, 4, 4, TROUPE_FLOAT32}};
    EXPECT_OK(troupe_kernels_reference()->rope_table(NULL, &make));
    struct troupe_rope op = {.x = {x, 1, 4, 4, TROUPE_FLOAT32},
                             .table = make.table,
                             .positions = positions,
                             .y = {y, 1, 4, 4, TROUPE_FLOAT32}};
    EXPECT_OK(troupe_kernels_reference()->rope(NULL, &op));
    EXPECT_NEAR(y[0], cos(1), 1e-6);
    EXPECT_NEAR(y[2], sin(1), 1e-6);
    EXPECT_NEAR(y[1], 2 * cos(0.01), 1e-6);
    EXPECT_NEAR(y[3], 2 * sin(0.01), 1e-6);
}

/* Documented aliases: y may be x, dx may be dy, dgate and dup may replace gate and up. */
static void in_place_is_the_same_as_out_of_place(void) {
    const struct troupe_kernels *k = troupe_kernels_for(TROUPE_DEVICE_CPU);
    struct kernel_case kc = {.count = SWIGLU_COUNT};
    struct troupe_tensor t[OPERANDS_MAX], u[OPERANDS_MAX];
    set_all(kc.operand, SWIGLU_COUNT, 7, 37);
    make_operands(&kc, seed, t);
    make_operands(&kc, seed, u);
    EXPECT_OK(call_swiglu_backward(k, NULL, t, NULL));
    EXPECT_OK(k->swiglu_backward(
        NULL, &(struct troupe_swiglu_backward){
                  .gate = u[GATE], .up = u[UP], .dy = u[D_OUT], .dgate = u[GATE], .dup = u[UP]}));
    kc.name = "swiglu_backward in place";
    expect_same_bits(&kc, 0, &u[GATE], &t[DGATE]);
    expect_same_bits(&kc, 0, &u[UP], &t[DUP]);
    kc.name = "gelu_backward in place";
    EXPECT_OK(k->gelu_backward(
        NULL, &(struct troupe_gelu_backward){.x = t[X], .dy = t[D_OUT], .dx = t[DUP]}));
    EXPECT_OK(k->gelu_backward(
        NULL, &(struct troupe_gelu_backward){.x = t[X], .dy = u[D_OUT], .dx = u[D_OUT]}));
    expect_same_bits(&kc, 0, &u[D_OUT], &t[DUP]);
    free_operands(&kc, t);
    free_operands(&kc, u);
}

int main(int argc, char **argv) {
    seed = kernel_test_begin(argc, argv);
    TEST_ON_CPU(vector_exp_and_erf_keep_their_error_bounds);
    TEST_ON_CPU(rope_pairs_halves);
    TEST_ON_CPU(gradients_match_finite_differences);
    TEST(gelu_matches_the_reference);
    TEST(swiglu_matches_the_reference);
    TEST(rope_matches_the_reference);
    TEST_ON_CPU(in_place_is_the_same_as_out_of_place);
    return kernel_test_end();
}
