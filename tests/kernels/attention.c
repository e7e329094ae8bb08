/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention over ragged segments against the reference (several tiles of rows and keys, grouped
 * heads, causal or not), and the reference against finite differences and by its definition.
 */
#include "tests/kernels/kernel_case.h"

static uint64_t seed;

enum { Q, K, V, O, LSE, D_O, DQ, DK, DV, COUNT };

struct shape {
    const int32_t *cu_len;
    int64_t segments;
    int heads;
    int kv_heads;
    int head_dim;
    bool causal;
    float scale;
};

static struct troupe_attention forward_op(const struct troupe_tensor *t, const struct shape *s) {
    return (struct troupe_attention){.q = t[Q],
                                     .k = t[K],
                                     .v = t[V],
                                     .o = t[O],
                                     .lse = t[LSE],
                                     .cu_len = s->cu_len,
                                     .segments = s->segments,
                                     .heads = s->heads,
                                     .kv_heads = s->kv_heads,
                                     .head_dim = s->head_dim,
                                     .scale = s->scale,
                                     .causal = s->causal};
}

static troupe_status call_forward(const struct troupe_kernels *k, troupe_stream *stream,
                                  const struct troupe_tensor *t, const void *arg) {
    struct troupe_attention op = forward_op(t, arg);
    return k->attention(stream, &op);
}

static troupe_status call_backward(const struct troupe_kernels *k, troupe_stream *stream,
                                   const struct troupe_tensor *t, const void *arg) {
    struct troupe_attention_backward op = {
        .forward = forward_op(t, arg), .d_o = t[D_O], .dq = t[DQ], .dk = t[DK], .dv = t[DV]};
    return k->attention_backward(stream, &op);
}

static troupe_status call_both(const struct troupe_kernels *k, troupe_stream *stream,
                               const struct troupe_tensor *t, const void *arg) {
    TROUPE_TRY(call_forward(k, stream, t, arg));
    return call_backward(k, stream, t, arg);
}

static void set_operands(const struct shape *s, struct operand *o) {
    int64_t rows = s->cu_len[s->segments], q = (int64_t)s->heads * s->head_dim;
    int64_t kv = (int64_t)s->kv_heads * s->head_dim;
    o[Q] = o[D_O] = (struct operand){INPUT, rows, q, GAP};
    o[K] = o[V] = (struct operand){INPUT, rows, kv, GAP};
    o[O] = o[DQ] = (struct operand){OUTPUT, rows, q, GAP};
    o[LSE] = (struct operand){OUTPUT, rows, s->heads, GAP};
    o[DK] = o[DV] = (struct operand){OUTPUT, rows, kv, GAP};
}

static void check_attention(const struct shape *s, int64_t longest) {
    struct kernel_case kc = {
        .name = "attention", .call = call_both, .arg = s, .count = COUNT, .terms = longest};
    set_operands(s, kc.operand);
    check_case(&kc, seed);
}

static void odd_segments_match_the_reference(void) {
    static const int32_t cu_len[] = {0, 1, 4, 21, 21, 86, 215};
    for (int causal = 0; causal < 2; causal++) {
        check_attention(&(struct shape){cu_len, 6, 4, 2, 17, causal, 0}, 129);
        check_attention(&(struct shape){cu_len, 6, 3, 3, 32, causal, 0}, 129);
        check_attention(&(struct shape){cu_len, 6, 3, 1, 8, causal, 0.5f}, 129);
    }
}

static void several_key_tiles_match_the_reference(void) {
    static const int32_t cu_len[] = {0, 30, 593};
    for (int causal = 0; causal < 2; causal++) {
        check_attention(&(struct shape){cu_len, 2, 2, 1, 16, causal, 0}, 563);
    }
}

static void the_widest_head_matches_the_reference(void) {
    static const int32_t cu_len[] = {0, 5, 70};
    check_attention(&(struct shape){cu_len, 2, 1, 1, TROUPE_HEAD_DIM_MAX, true, 0}, 256);
}

static void no_rows_are_no_work(void) {
    static const int32_t cu_len[] = {0, 0};
    check_attention(&(struct shape){cu_len, 1, 2, 1, 8, true, 0}, 1);
    check_attention(&(struct shape){cu_len, 0, 2, 1, 8, true, 0}, 1);
}

static void gradients_match_finite_differences(void) {
    static const int32_t cu_len[] = {0, 3, 4, 9};
    for (int causal = 0; causal < 2; causal++) {
        struct shape s = {cu_len, 3, 4, 2, 6, causal, 0};
        struct gradient_case gc = {.name = "attention",
                                   .forward = call_forward,
                                   .backward = call_backward,
                                   .arg = &s,
                                   .count = COUNT,
                                   .y = O,
                                   .dy = D_O,
                                   .inputs = {Q, K, V},
                                   .gradients = {DQ, DK, DV},
                                   .input_count = 3};
        set_operands(&s, gc.operand);
        check_gradient(&gc, seed);
    }
}

/* Every key alike: each row is the mean of the values that it sees. */
static void equal_keys_average_the_visible_values(void) {
    static const int32_t cu_len[] = {0, 2, 5};
    const struct shape s = {cu_len, 2, 1, 1, 1, true, 0};
    float q[5] = {1, 2, 3, 4, 5}, k[5] = {0}, v[5] = {1, 3, 10, 20, 60}, o[5], lse[5];
    const float expected[5] = {1, 2, 10, 15, 30};
    struct troupe_tensor t[COUNT];
    float *data[] = {q, k, v, o, lse};
    for (int i = 0; i <= LSE; i++) {
        t[i] = (struct troupe_tensor){data[i], 5, 1, 1, TROUPE_FLOAT32};
    }
    EXPECT_OK(call_forward(troupe_kernels_reference(), NULL, t, &s));
    for (int r = 0; r < 5; r++) {
        EXPECT_NEAR(o[r], expected[r], 1e-5);
    }
    EXPECT_NEAR(lse[4], log(3.0), 1e-6);
}

int main(int argc, char **argv) {
    seed = kernel_test_begin(argc, argv);
    TEST_ON_CPU(equal_keys_average_the_visible_values);
    TEST_ON_CPU(gradients_match_finite_differences);
    TEST(odd_segments_match_the_reference);
    TEST(several_key_tiles_match_the_reference);
    TEST(the_widest_head_matches_the_reference);
    TEST(no_rows_are_no_work);
    return kernel_test_end();
}
