/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tables share: one check per op that its operands are float32 (ERROR_UNSUPPORTED
 * otherwise) and fit each other (aborts otherwise), and access to rows.
 *
 *     TROUPE_TRY(troupe_shape_add(op));
 *     const float *x = row_of(&op->x, r);
 *
 * Ownership: none. Threads: any. Failure: as said above.
 */
#ifndef TROUPE_KERNELS_SHAPE_INTERNAL_H
#define TROUPE_KERNELS_SHAPE_INTERNAL_H

#include "modules/kernels/kernels.h"

static inline float *row_of(const struct troupe_tensor *t, int64_t row) {
    return (float *)t->data + row * t->stride;
}

static inline bool tensor_given(const struct troupe_tensor *t) {
    return t->data != NULL;
}

struct troupe_matmul_sizes {
    int64_t m;
    int64_t n;
    int64_t k;
};

troupe_status troupe_shape_matmul(const struct troupe_matmul *op, struct troupe_matmul_sizes *out);
troupe_status troupe_shape_bias_add(const struct troupe_bias_add *op);
troupe_status troupe_shape_column_sum(const struct troupe_column_sum *op);
troupe_status troupe_shape_layernorm(const struct troupe_norm *op);
troupe_status troupe_shape_rmsnorm(const struct troupe_norm *op);
troupe_status troupe_shape_norm_backward_input(const struct troupe_norm_backward_input *op);
troupe_status troupe_shape_layernorm_backward_weight(const struct troupe_norm_backward_weight *op);
troupe_status troupe_shape_rmsnorm_backward_weight(const struct troupe_norm_backward_weight *op);
troupe_status troupe_shape_gelu(const struct troupe_gelu *op);
troupe_status troupe_shape_gelu_backward(const struct troupe_gelu_backward *op);
troupe_status troupe_shape_swiglu(const struct troupe_swiglu *op);
troupe_status troupe_shape_swiglu_backward(const struct troupe_swiglu_backward *op);
troupe_status troupe_shape_rope_table(const struct troupe_rope_table *op);
troupe_status troupe_shape_rope(const struct troupe_rope *op);
troupe_status troupe_shape_attention(const struct troupe_attention *op);
troupe_status troupe_shape_attention_backward(const struct troupe_attention_backward *op);
troupe_status troupe_shape_embedding(const struct troupe_embedding *op);
troupe_status troupe_shape_embedding_backward(const struct troupe_embedding_backward *op);
troupe_status troupe_shape_rows(const struct troupe_rows *op);
troupe_status troupe_shape_add(const struct troupe_add *op);
troupe_status troupe_shape_axpy(const struct troupe_axpy *op);
troupe_status troupe_shape_patchify(const struct troupe_patchify *op);
troupe_status troupe_shape_adamw(const struct troupe_adamw *op);
/* A single operand of any shape. */
troupe_status troupe_shape_single(const struct troupe_tensor *x);

/* The op's scale, with its default. */
float troupe_attention_scale(const struct troupe_attention *op);
/* How many patches the picture has; aborts if they are not whole. */
int64_t troupe_image_patches(const struct troupe_pixels *image, int patch);

/* The tables that exist. */
extern const struct troupe_kernels troupe_kernels_cpu_table;
extern const struct troupe_kernels troupe_kernels_reference_table;
extern const struct troupe_kernels troupe_kernels_cuda_table;
extern const struct troupe_kernels troupe_kernels_sim_table;

#endif
