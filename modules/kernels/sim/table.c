/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of the simulated device: the CPU's kernels, run later in the stream's own thread on a
 * copy of the op and of its host arrays.
 */
#include "modules/kernels/shape_internal.h"
#include "runtime/check.h"
#include "runtime/device_sim.h"

/* A slot whose op has only tensors. */
#define SLOT(slot, op_type)                                                                        \
    static troupe_status run_##slot(const void *payload) {                                         \
        return troupe_kernels_cpu_table.slot(NULL, payload);                                       \
    }                                                                                              \
    static troupe_status slot(troupe_stream *stream, const struct op_type *op) {                   \
        return troupe_sim_enqueue(stream, run_##slot, op, sizeof *op);                             \
    }

/* A slot whose op has one host array of `count` elements, in the field `array`. */
#define ARRAY_SLOT(slot, op_type, array, elements)                                                 \
    static troupe_status run_##slot(const void *payload) {                                         \
        struct op_type op = *(const struct op_type *)payload;                                      \
        op.array = troupe_sim_next_part(payload, sizeof op);                                       \
        return troupe_kernels_cpu_table.slot(NULL, &op);                                           \
    }                                                                                              \
    static troupe_status slot(troupe_stream *stream, const struct op_type *op) {                   \
        const struct troupe_sim_part parts[] = {                                                   \
            {op, sizeof *op}, {op->array, (size_t)(elements) * sizeof *op->array}};                \
        return troupe_sim_enqueue_parts(stream, run_##slot, parts, TROUPE_COUNT_OF(parts));        \
    }

SLOT(matmul, troupe_matmul)
SLOT(bias_add, troupe_bias_add)
SLOT(column_sum, troupe_column_sum)
SLOT(layernorm, troupe_norm)
SLOT(layernorm_backward_input, troupe_norm_backward_input)
SLOT(layernorm_backward_weight, troupe_norm_backward_weight)
SLOT(rmsnorm, troupe_norm)
SLOT(rmsnorm_backward_input, troupe_norm_backward_input)
SLOT(rmsnorm_backward_weight, troupe_norm_backward_weight)
SLOT(gelu, troupe_gelu)
SLOT(gelu_backward, troupe_gelu_backward)
SLOT(swiglu, troupe_swiglu)
SLOT(swiglu_backward, troupe_swiglu_backward)
SLOT(rope_table, troupe_rope_table)
SLOT(add, troupe_add)
SLOT(axpy, troupe_axpy)
SLOT(scale, troupe_scale)
SLOT(fill, troupe_fill)
SLOT(row_max, troupe_row_max)
SLOT(adamw, troupe_adamw)
SLOT(square_sum, troupe_square_sum)
SLOT(first_nonfinite, troupe_first_nonfinite)

ARRAY_SLOT(rope, troupe_rope, positions, op->x.rows)
ARRAY_SLOT(attention, troupe_attention, cu_len, op->segments + 1)
ARRAY_SLOT(attention_backward, troupe_attention_backward, forward.cu_len, op->forward.segments + 1)
ARRAY_SLOT(embedding, troupe_embedding, tokens, op->y.rows)
ARRAY_SLOT(embedding_backward, troupe_embedding_backward, tokens, op->dy.rows)
ARRAY_SLOT(row_sum_exp, troupe_row_sum_exp, targets, op->logits.rows)
ARRAY_SLOT(cross_entropy, troupe_cross_entropy, targets, op->rows)
ARRAY_SLOT(cross_entropy_backward, troupe_cross_entropy_backward, targets, op->logits.rows)

static size_t attention_workspace(const struct troupe_attention_bound *bound) {
    return troupe_kernels_cpu_table.attention_workspace(bound);
}

/* Two arrays, either of which may be NULL. */
static struct troupe_rows rows_in(const void *payload) {
    struct troupe_rows op = *(const struct troupe_rows *)payload;
    const void *next = troupe_sim_next_part(payload, sizeof op);
    if (op.from_index != NULL) {
        op.from_index = next;
        next = troupe_sim_next_part(next, (size_t)op.count * sizeof *op.from_index);
    }
    op.to_index = op.to_index != NULL ? next : NULL;
    return op;
}

static troupe_status enqueue_rows(troupe_stream *stream, troupe_status (*run)(const void *),
                                  const struct troupe_rows *op) {
    size_t bytes = (size_t)op->count * sizeof(int32_t);
    const struct troupe_sim_part parts[] = {{op, sizeof *op},
                                            {op->from_index, op->from_index != NULL ? bytes : 0},
                                            {op->to_index, op->to_index != NULL ? bytes : 0}};
    return troupe_sim_enqueue_parts(stream, run, parts, TROUPE_COUNT_OF(parts));
}

static troupe_status run_rows_copy(const void *payload) {
    struct troupe_rows op = rows_in(payload);
    return troupe_kernels_cpu_table.rows_copy(NULL, &op);
}

static troupe_status rows_copy(troupe_stream *stream, const struct troupe_rows *op) {
    return enqueue_rows(stream, run_rows_copy, op);
}

static troupe_status run_rows_add(const void *payload) {
    struct troupe_rows op = rows_in(payload);
    return troupe_kernels_cpu_table.rows_add(NULL, &op);
}

static troupe_status rows_add(troupe_stream *stream, const struct troupe_rows *op) {
    return enqueue_rows(stream, run_rows_add, op);
}

static troupe_status run_patchify(const void *payload) {
    struct troupe_patchify op = *(const struct troupe_patchify *)payload;
    const void *image = troupe_sim_next_part(payload, sizeof op);
    struct troupe_pixels pixels = *(const struct troupe_pixels *)image;
    pixels.pixels = troupe_sim_next_part(image, sizeof pixels);
    op.images = &pixels;
    return troupe_kernels_cpu_table.patchify(NULL, &op);
}

/* Picture by picture. */
static troupe_status patchify(troupe_stream *stream, const struct troupe_patchify *op) {
    int64_t row = 0;
    TROUPE_TRY(troupe_shape_patchify(op));
    for (int64_t i = 0; i < op->image_count; i++) {
        const struct troupe_pixels *image = &op->images[i];
        struct troupe_patchify one = *op;
        one.image_count = 1;
        one.out.data = row_of(&op->out, row);
        one.out.rows = troupe_image_patches(image, op->patch);
        row += one.out.rows;
        const struct troupe_sim_part parts[] = {
            {&one, sizeof one},
            {image, sizeof *image},
            {image->pixels, (size_t)image->height * (size_t)image->stride_bytes}};
        TROUPE_TRY(troupe_sim_enqueue_parts(stream, run_patchify, parts, TROUPE_COUNT_OF(parts)));
    }
    return TROUPE_OK;
}

const struct troupe_kernels troupe_kernels_sim_table = {
    .name = "sim",
    .matmul = matmul,
    .bias_add = bias_add,
    .column_sum = column_sum,
    .layernorm = layernorm,
    .layernorm_backward_input = layernorm_backward_input,
    .layernorm_backward_weight = layernorm_backward_weight,
    .rmsnorm = rmsnorm,
    .rmsnorm_backward_input = rmsnorm_backward_input,
    .rmsnorm_backward_weight = rmsnorm_backward_weight,
    .gelu = gelu,
    .gelu_backward = gelu_backward,
    .swiglu = swiglu,
    .swiglu_backward = swiglu_backward,
    .rope_table = rope_table,
    .rope = rope,
    .attention_workspace = attention_workspace,
    .attention = attention,
    .attention_backward = attention_backward,
    .embedding = embedding,
    .embedding_backward = embedding_backward,
    .rows_copy = rows_copy,
    .rows_add = rows_add,
    .add = add,
    .axpy = axpy,
    .scale = scale,
    .fill = fill,
    .patchify = patchify,
    .row_max = row_max,
    .row_sum_exp = row_sum_exp,
    .cross_entropy = cross_entropy,
    .cross_entropy_backward = cross_entropy_backward,
    .adamw = adamw,
    .square_sum = square_sum,
    .first_nonfinite = first_nonfinite,
};
