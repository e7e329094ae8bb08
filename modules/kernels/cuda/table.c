/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of the CUDA kernels: checks an op, brings its host arrays to the device in stream
 * order, launches it. The launchers are in the .cu files.
 */
#include "modules/kernels/cuda/launch_internal.h"
#include "modules/kernels/shape_internal.h"
#include "runtime/check.h"
#include "runtime/device_cuda.h"

/* A slot whose op has only tensors: check, launch. */
#define SLOT(slot, op_type, check)                                                                 \
    static troupe_status slot(troupe_stream *stream, const struct op_type *op) {                   \
        struct troupe_cuda_native native = troupe_cuda_native(stream);                             \
        TROUPE_TRY(check);                                                                         \
        TROUPE_TRY_CUDA(troupe_cuda_launch_##slot(op, native.stream));                             \
        return TROUPE_OK;                                                                          \
    }

/* The same for a norm, which is one launcher for both kinds. */
#define NORM_SLOT(slot, launcher, op_type, check, centered)                                        \
    static troupe_status slot(troupe_stream *stream, const struct op_type *op) {                   \
        struct troupe_cuda_native native = troupe_cuda_native(stream);                             \
        TROUPE_TRY(check(op));                                                                     \
        TROUPE_TRY_CUDA(troupe_cuda_launch_##launcher(op, centered, native.stream));               \
        return TROUPE_OK;                                                                          \
    }

SLOT(bias_add, troupe_bias_add, troupe_shape_bias_add(op))
SLOT(column_sum, troupe_column_sum, troupe_shape_column_sum(op))
SLOT(gelu, troupe_gelu, troupe_shape_gelu(op))
SLOT(gelu_backward, troupe_gelu_backward, troupe_shape_gelu_backward(op))
SLOT(swiglu, troupe_swiglu, troupe_shape_swiglu(op))
SLOT(swiglu_backward, troupe_swiglu_backward, troupe_shape_swiglu_backward(op))
SLOT(rope_table, troupe_rope_table, troupe_shape_rope_table(op))
SLOT(add, troupe_add, troupe_shape_add(op))
SLOT(axpy, troupe_axpy, troupe_shape_axpy(op))
SLOT(scale, troupe_scale, troupe_shape_single(&op->x))
SLOT(fill, troupe_fill, troupe_shape_single(&op->x))
SLOT(row_max, troupe_row_max, troupe_shape_single(&op->logits))
SLOT(adamw, troupe_adamw, troupe_shape_adamw(op))

NORM_SLOT(layernorm, norm, troupe_norm, troupe_shape_layernorm, true)
NORM_SLOT(layernorm_backward_input, norm_backward_input, troupe_norm_backward_input,
          troupe_shape_norm_backward_input, true)
NORM_SLOT(layernorm_backward_weight, norm_backward_weight, troupe_norm_backward_weight,
          troupe_shape_layernorm_backward_weight, true)
NORM_SLOT(rmsnorm, norm, troupe_norm, troupe_shape_rmsnorm, false)
NORM_SLOT(rmsnorm_backward_input, norm_backward_input, troupe_norm_backward_input,
          troupe_shape_norm_backward_input, false)
NORM_SLOT(rmsnorm_backward_weight, norm_backward_weight, troupe_norm_backward_weight,
          troupe_shape_rmsnorm_backward_weight, false)

static troupe_status matmul(troupe_stream *stream, const struct troupe_matmul *op) {
    struct troupe_cuda_native native = troupe_cuda_native(stream);
    return troupe_cuda_matmul(&native, op);
}

static troupe_status square_sum(troupe_stream *stream, const struct troupe_square_sum *op) {
    struct troupe_cuda_native native = troupe_cuda_native(stream);
    TROUPE_TRY(troupe_shape_single(&op->x));
    TROUPE_TRY_CUDA(troupe_cuda_launch_square_sum(op, native.scratch, native.stream));
    return TROUPE_OK;
}

static troupe_status first_nonfinite(troupe_stream *stream,
                                     const struct troupe_first_nonfinite *op) {
    struct troupe_cuda_native native = troupe_cuda_native(stream);
    TROUPE_TRY(troupe_shape_single(&op->x));
    TROUPE_TRY_CUDA(troupe_cuda_launch_first_nonfinite(op, native.scratch, native.stream));
    return TROUPE_OK;
}

/* Replaces a host array by its copy on the device; NULL stays. */
static troupe_status stage(troupe_stream *stream, const int32_t **array, int64_t count) {
    if (*array == NULL) {
        return TROUPE_OK;
    }
    const void *device = NULL;
    size_t bytes = (size_t)count * sizeof(**array);
    struct troupe_copy copy = {.from = *array, .rows = count > 0, .row_bytes = bytes};
    TROUPE_TRY(troupe_cuda_stage(stream, &copy, &device));
    *array = device;
    return TROUPE_OK;
}

static troupe_status rope(troupe_stream *stream, const struct troupe_rope *op) {
    struct troupe_cuda_native native = troupe_cuda_native(stream);
    struct troupe_rope staged = *op;
    TROUPE_TRY(troupe_shape_rope(op));
    for (int64_t r = 0; r < op->x.rows; r++) {
        TROUPE_ASSERT(op->positions[r] >= 0 && op->positions[r] < op->table.rows,
                      "position %d of %lld", op->positions[r], (long long)op->table.rows);
    }
    TROUPE_TRY(stage(stream, &staged.positions, op->x.rows));
    TROUPE_TRY_CUDA(troupe_cuda_launch_rope(&staged, native.stream));
    return TROUPE_OK;
}

static size_t attention_workspace(const struct troupe_attention_bound *bound) {
    (void)bound; /* a warp holds a row of a head in registers */
    return 0;
}

static troupe_status stage_attention(troupe_stream *stream, struct troupe_attention *op) {
    op->scale = troupe_attention_scale(op);
    return stage(stream, &op->cu_len, op->segments + 1);
}

static troupe_status attention(troupe_stream *stream, const struct troupe_attention *op) {
    struct troupe_cuda_native native = troupe_cuda_native(stream);
    struct troupe_attention staged = *op;
    TROUPE_TRY(troupe_shape_attention(op));
    TROUPE_TRY(stage_attention(stream, &staged));
    TROUPE_TRY_CUDA(troupe_cuda_launch_attention(&staged, native.stream));
    return TROUPE_OK;
}

static troupe_status attention_backward(troupe_stream *stream,
                                        const struct troupe_attention_backward *op) {
    struct troupe_cuda_native native = troupe_cuda_native(stream);
    struct troupe_attention_backward staged = *op;
    TROUPE_TRY(troupe_shape_attention_backward(op));
    TROUPE_TRY(stage_attention(stream, &staged.forward));
    TROUPE_TRY_CUDA(troupe_cuda_launch_attention_backward(&staged, native.stream));
    return TROUPE_OK;
}

static troupe_status embedding(troupe_stream *stream, const struct troupe_embedding *op) {
    struct troupe_cuda_native native = troupe_cuda_native(stream);
    struct troupe_embedding staged = *op;
    TROUPE_TRY(troupe_shape_embedding(op));
    TROUPE_TRY(stage(stream, &staged.tokens, op->y.rows));
    TROUPE_TRY_CUDA(troupe_cuda_launch_embedding(&staged, native.stream));
    return TROUPE_OK;
}

static troupe_status embedding_backward(troupe_stream *stream,
                                        const struct troupe_embedding_backward *op) {
    struct troupe_cuda_native native = troupe_cuda_native(stream);
    struct troupe_embedding_backward staged = *op;
    TROUPE_TRY(troupe_shape_embedding_backward(op));
    TROUPE_TRY(stage(stream, &staged.tokens, op->dy.rows));
    TROUPE_TRY_CUDA(troupe_cuda_launch_embedding_backward(&staged, native.stream));
    return TROUPE_OK;
}

static troupe_status stage_rows(troupe_stream *stream, struct troupe_rows *op) {
    TROUPE_TRY(troupe_shape_rows(op));
    TROUPE_TRY(stage(stream, &op->from_index, op->count));
    return stage(stream, &op->to_index, op->count);
}

static troupe_status rows_copy(troupe_stream *stream, const struct troupe_rows *op) {
    struct troupe_cuda_native native = troupe_cuda_native(stream);
    struct troupe_rows staged = *op;
    TROUPE_TRY(stage_rows(stream, &staged));
    TROUPE_TRY_CUDA(troupe_cuda_launch_rows_copy(&staged, native.stream));
    return TROUPE_OK;
}

static troupe_status rows_add(troupe_stream *stream, const struct troupe_rows *op) {
    struct troupe_cuda_native native = troupe_cuda_native(stream);
    struct troupe_rows staged = *op;
    TROUPE_TRY(stage_rows(stream, &staged));
    TROUPE_TRY_CUDA(troupe_cuda_launch_rows_add(&staged, native.stream));
    return TROUPE_OK;
}

/* Lines [top, top + height) of a picture, into rows of out that begin at *row. */
static troupe_status patchify_lines(troupe_stream *stream, const struct troupe_patchify *op,
                                    const struct troupe_pixels *image, int32_t top, int32_t height,
                                    int64_t *row) {
    struct troupe_cuda_native native = troupe_cuda_native(stream);
    size_t line_bytes = (size_t)image->width * 3;
    struct troupe_copy copy = {.from = image->pixels + top * image->stride_bytes,
                               .rows = (size_t)height,
                               .row_bytes = line_bytes,
                               .from_stride_bytes = (size_t)image->stride_bytes};
    struct troupe_pixels lines = {
        .stride_bytes = (int64_t)line_bytes, .height = height, .width = image->width};
    struct troupe_patchify part = *op;
    TROUPE_TRY(troupe_cuda_stage(stream, &copy, (const void **)&lines.pixels));
    part.images = &lines;
    part.out.data = row_of(&op->out, *row);
    part.out.rows = troupe_image_patches(&lines, op->patch);
    *row += part.out.rows;
    TROUPE_TRY_CUDA(troupe_cuda_launch_patchify(&part, native.stream));
    return TROUPE_OK;
}

/* Pictures go over in pieces of whole patches that fit the staging block. */
static troupe_status patchify(troupe_stream *stream, const struct troupe_patchify *op) {
    TROUPE_TRY(troupe_shape_patchify(op));
    int64_t row = 0;
    for (int64_t i = 0; i < op->image_count; i++) {
        const struct troupe_pixels *image = &op->images[i];
        if (image->width == 0) {
            continue;
        }
        int64_t fit = TROUPE_CUDA_STAGE_BYTES / ((int64_t)image->width * 3 * op->patch);
        int64_t lines = (fit > 0 ? fit : 1) * op->patch;
        for (int64_t top = 0; top < image->height; top += lines) {
            int64_t left = image->height - top;
            TROUPE_TRY(patchify_lines(stream, op, image, (int32_t)top,
                                      (int32_t)(left < lines ? left : lines), &row));
        }
    }
    return TROUPE_OK;
}

static troupe_status row_sum_exp(troupe_stream *stream, const struct troupe_row_sum_exp *op) {
    struct troupe_cuda_native native = troupe_cuda_native(stream);
    struct troupe_row_sum_exp staged = *op;
    TROUPE_TRY(troupe_shape_single(&op->logits));
    TROUPE_TRY(stage(stream, &staged.targets, op->logits.rows));
    TROUPE_TRY_CUDA(troupe_cuda_launch_row_sum_exp(&staged, native.stream));
    return TROUPE_OK;
}

static troupe_status cross_entropy(troupe_stream *stream, const struct troupe_cross_entropy *op) {
    struct troupe_cuda_native native = troupe_cuda_native(stream);
    struct troupe_cross_entropy staged = *op;
    TROUPE_TRY(stage(stream, &staged.targets, op->rows));
    TROUPE_TRY_CUDA(troupe_cuda_launch_cross_entropy(&staged, native.stream));
    return TROUPE_OK;
}

static troupe_status cross_entropy_backward(troupe_stream *stream,
                                            const struct troupe_cross_entropy_backward *op) {
    struct troupe_cuda_native native = troupe_cuda_native(stream);
    struct troupe_cross_entropy_backward staged = *op;
    TROUPE_TRY(troupe_shape_single(&op->logits));
    TROUPE_TRY(stage(stream, &staged.targets, op->logits.rows));
    TROUPE_TRY_CUDA(troupe_cuda_launch_cross_entropy_backward(&staged, native.stream));
    return TROUPE_OK;
}

const struct troupe_kernels troupe_kernels_cuda_table = {
    .name = "cuda",
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
