/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/nn/attention_internal.h"

void attention_declare(struct attention *attention, struct context *context,
                       const struct attention_shape *shape) {
    attention->head_dim = (int)(shape->hidden / shape->heads);
    attention->heads = shape->heads / context->tp_count;
    attention->kv_heads = shape->kv_heads / context->tp_count;
    int64_t kv_columns = (int64_t)shape->kv_heads * attention->head_dim;
    struct linear_shape qkv = {.prefix = shape->prefix,
                               .parts = {"q", "k", "v"},
                               .out = {shape->hidden, kv_columns, kv_columns},
                               .in = shape->hidden,
                               .split = LINEAR_COLUMN,
                               .bias = shape->bias,
                               .gain = LINEAR_GAIN};
    struct linear_shape o = {.prefix = shape->prefix,
                             .parts = {"o"},
                             .out = {shape->hidden},
                             .in = shape->hidden,
                             .split = LINEAR_ROW,
                             .bias = shape->bias,
                             .gain = shape->o_gain};
    linear_declare(&attention->qkv, context, &qkv);
    linear_declare(&attention->o, context, &o);
}

static int64_t q_columns(const struct attention *attention) {
    return (int64_t)attention->heads * attention->head_dim;
}

static int64_t kv_columns(const struct attention *attention) {
    return (int64_t)attention->kv_heads * attention->head_dim;
}

static int64_t qkv_columns(const struct attention *attention) {
    return q_columns(attention) + 2 * kv_columns(attention);
}

void attention_carve(const struct attention *attention, struct slab *slab, int64_t rows_max,
                     struct attention_slot *slot) {
    slot->qkv = slab_take(slab, rows_max * qkv_columns(attention));
    slot->lse = slab_take(slab, rows_max * attention->heads);
    slot->o = slab_take(slab, rows_max * q_columns(attention));
}

void attention_carve_scratch(const struct attention *attention, const struct context *context,
                             struct slab *slab, int64_t rows_max, int64_t segment_rows_max,
                             struct attention_scratch *scratch) {
    struct troupe_attention_bound bound = {.rows = rows_max,
                                           .segment_rows = segment_rows_max,
                                           .heads = attention->heads,
                                           .kv_heads = attention->kv_heads,
                                           .head_dim = attention->head_dim};
    size_t bytes = context->kernels->attention_workspace(&bound);
    scratch->d_o = slab_take(slab, rows_max * q_columns(attention));
    scratch->dqkv = slab_take(slab, rows_max * qkv_columns(attention));
    scratch->workspace = slab_take(slab, (int64_t)(bytes + sizeof(float) - 1) / sizeof(float));
}

/* q, k and v side by side in one buffer. */
struct qkv_view {
    struct troupe_tensor all, q, k, v, qk;
};

static struct qkv_view qkv_view(const struct attention *attention, float *data, int64_t rows) {
    int64_t q = q_columns(attention), kv = kv_columns(attention);
    struct troupe_tensor all = matrix(data, rows, qkv_columns(attention));
    return (struct qkv_view){.all = all,
                             .q = columns_of(all, 0, q),
                             .k = columns_of(all, q, kv),
                             .v = columns_of(all, q + kv, kv),
                             .qk = columns_of(all, 0, q + kv)};
}

static struct troupe_attention operation(const struct attention *attention,
                                         const struct attention_slot *slot,
                                         const struct attention_scratch *scratch,
                                         const struct segments *segments, int64_t rows) {
    struct qkv_view view = qkv_view(attention, slot->qkv, rows);
    return (struct troupe_attention){.q = view.q,
                                     .k = view.k,
                                     .v = view.v,
                                     .o = matrix(slot->o, rows, q_columns(attention)),
                                     .lse = matrix(slot->lse, rows, attention->heads),
                                     .cu_len = segments->cu_len,
                                     .segments = segments->count,
                                     .heads = attention->heads,
                                     .kv_heads = attention->kv_heads,
                                     .head_dim = attention->head_dim,
                                     .causal = attention->causal,
                                     .workspace = scratch->workspace};
}

troupe_status attention_forward(const struct attention *attention, const struct context *context,
                                const struct attention_slot *slot,
                                const struct attention_scratch *scratch,
                                const struct segments *segments, struct troupe_tensor x,
                                struct troupe_tensor y) {
    struct qkv_view view = qkv_view(attention, slot->qkv, x.rows);
    TROUPE_TRY(linear_forward(&attention->qkv, context, x, view.all));
    if (segments->rope.data != NULL) {
        struct troupe_rope rope = {
            .x = view.qk, .table = segments->rope, .positions = segments->positions, .y = view.qk};
        TROUPE_TRY(context->kernels->rope(context->stream, &rope));
    }
    struct troupe_attention op = operation(attention, slot, scratch, segments, x.rows);
    TROUPE_TRY(context->kernels->attention(context->stream, &op));
    return linear_forward(&attention->o, context, op.o, y);
}

/* The slot's q, k, v give way to their gradients, which backward_weight reads. */
static troupe_status keep_gradient(const struct context *context, const struct segments *segments,
                                   const struct qkv_view *gradient, const struct qkv_view *kept) {
    if (segments->rope.data == NULL) {
        return tensor_copy(context, gradient->all, kept->all);
    }
    struct troupe_rope rope = {.x = gradient->qk,
                               .table = segments->rope,
                               .positions = segments->positions,
                               .y = kept->qk,
                               .inverse = true};
    TROUPE_TRY(context->kernels->rope(context->stream, &rope));
    return tensor_copy(context, gradient->v, kept->v);
}

troupe_status attention_backward_input(const struct attention *attention,
                                       const struct context *context,
                                       const struct attention_slot *slot,
                                       const struct attention_scratch *scratch,
                                       const struct segments *segments, struct troupe_tensor dy,
                                       struct troupe_tensor dx) {
    struct qkv_view kept = qkv_view(attention, slot->qkv, dy.rows);
    struct qkv_view gradient = qkv_view(attention, scratch->dqkv, dy.rows);
    struct troupe_tensor d_o = matrix(scratch->d_o, dy.rows, q_columns(attention));
    TROUPE_TRY(linear_backward_input(&attention->o, context, dy, d_o));
    struct troupe_attention_backward op = {
        .forward = operation(attention, slot, scratch, segments, dy.rows),
        .d_o = d_o,
        .dq = gradient.q,
        .dk = gradient.k,
        .dv = gradient.v};
    TROUPE_TRY(context->kernels->attention_backward(context->stream, &op));
    TROUPE_TRY(keep_gradient(context, segments, &gradient, &kept));
    return linear_backward_input(&attention->qkv, context, kept.all, dx);
}

troupe_status attention_backward_weight(const struct attention *attention,
                                        const struct context *context,
                                        const struct attention_slot *slot, struct troupe_tensor x,
                                        struct troupe_tensor dy) {
    struct troupe_tensor o = matrix(slot->o, x.rows, q_columns(attention));
    TROUPE_TRY(linear_backward_weight(&attention->o, context, o, dy));
    return linear_backward_weight(&attention->qkv, context, x,
                                  matrix(slot->qkv, x.rows, qkv_columns(attention)));
}
