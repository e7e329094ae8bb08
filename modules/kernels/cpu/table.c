/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of the fast CPU kernels. What runs once (rope_table) or per row on one number
 * (cross_entropy) is the reference's.
 */
#include "modules/kernels/cpu/cpu_internal.h"
#include "modules/kernels/shape_internal.h"

static size_t attention_workspace(const struct troupe_attention_bound *bound) {
    (void)bound; /* tiles live on the worker's stack */
    return 0;
}

static troupe_status rope_table(troupe_stream *stream, const struct troupe_rope_table *op) {
    return troupe_kernels_reference_table.rope_table(stream, op);
}

static troupe_status cross_entropy(troupe_stream *stream, const struct troupe_cross_entropy *op) {
    return troupe_kernels_reference_table.cross_entropy(stream, op);
}

const struct troupe_kernels troupe_kernels_cpu_table = {
    .name = "cpu",
    .matmul = troupe_cpu_matmul,
    .bias_add = troupe_cpu_bias_add,
    .column_sum = troupe_cpu_column_sum,
    .layernorm = troupe_cpu_layernorm,
    .layernorm_backward_input = troupe_cpu_layernorm_backward_input,
    .layernorm_backward_weight = troupe_cpu_layernorm_backward_weight,
    .rmsnorm = troupe_cpu_rmsnorm,
    .rmsnorm_backward_input = troupe_cpu_rmsnorm_backward_input,
    .rmsnorm_backward_weight = troupe_cpu_rmsnorm_backward_weight,
    .gelu = troupe_cpu_gelu,
    .gelu_backward = troupe_cpu_gelu_backward,
    .swiglu = troupe_cpu_swiglu,
    .swiglu_backward = troupe_cpu_swiglu_backward,
    .rope_table = rope_table,
    .rope = troupe_cpu_rope,
    .attention_workspace = attention_workspace,
    .attention = troupe_cpu_attention,
    .attention_backward = troupe_cpu_attention_backward,
    .embedding = troupe_cpu_embedding,
    .embedding_backward = troupe_cpu_embedding_backward,
    .rows_copy = troupe_cpu_rows_copy,
    .rows_add = troupe_cpu_rows_add,
    .add = troupe_cpu_add,
    .axpy = troupe_cpu_axpy,
    .scale = troupe_cpu_scale,
    .fill = troupe_cpu_fill,
    .patchify = troupe_cpu_patchify,
    .row_max = troupe_cpu_row_max,
    .row_sum_exp = troupe_cpu_row_sum_exp,
    .cross_entropy = cross_entropy,
    .cross_entropy_backward = troupe_cpu_cross_entropy_backward,
    .adamw = troupe_cpu_adamw,
    .square_sum = troupe_cpu_square_sum,
    .first_nonfinite = troupe_cpu_first_nonfinite,
};
