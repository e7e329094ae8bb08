/* SPDX-License-Identifier: Apache-2.0
 *
 * The fast CPU kernels, one file per family, gathered by table.c. Contracts as in kernels.h.
 *
 * Ownership, Threads, Failure: as in kernels.h.
 */
#ifndef TROUPE_KERNELS_CPU_CPU_INTERNAL_H
#define TROUPE_KERNELS_CPU_CPU_INTERNAL_H

#include "modules/kernels/kernels.h"

/* matmul.c */
troupe_status troupe_cpu_matmul(troupe_stream *stream, const struct troupe_matmul *op);

/* norm.c */
troupe_status troupe_cpu_column_sum(troupe_stream *stream, const struct troupe_column_sum *op);
troupe_status troupe_cpu_layernorm(troupe_stream *stream, const struct troupe_norm *op);
troupe_status troupe_cpu_layernorm_backward_input(troupe_stream *stream,
                                                  const struct troupe_norm_backward_input *op);
troupe_status troupe_cpu_layernorm_backward_weight(troupe_stream *stream,
                                                   const struct troupe_norm_backward_weight *op);
troupe_status troupe_cpu_rmsnorm(troupe_stream *stream, const struct troupe_norm *op);
troupe_status troupe_cpu_rmsnorm_backward_input(troupe_stream *stream,
                                                const struct troupe_norm_backward_input *op);
troupe_status troupe_cpu_rmsnorm_backward_weight(troupe_stream *stream,
                                                 const struct troupe_norm_backward_weight *op);

/* activation.c */
troupe_status troupe_cpu_gelu(troupe_stream *stream, const struct troupe_gelu *op);
troupe_status troupe_cpu_gelu_backward(troupe_stream *stream,
                                       const struct troupe_gelu_backward *op);
troupe_status troupe_cpu_swiglu(troupe_stream *stream, const struct troupe_swiglu *op);
troupe_status troupe_cpu_swiglu_backward(troupe_stream *stream,
                                         const struct troupe_swiglu_backward *op);

/* rope.c */
troupe_status troupe_cpu_rope(troupe_stream *stream, const struct troupe_rope *op);

/* attention.c */
troupe_status troupe_cpu_attention(troupe_stream *stream, const struct troupe_attention *op);
troupe_status troupe_cpu_attention_backward(troupe_stream *stream,
                                            const struct troupe_attention_backward *op);

/* rows.c */
troupe_status troupe_cpu_embedding(troupe_stream *stream, const struct troupe_embedding *op);
troupe_status troupe_cpu_embedding_backward(troupe_stream *stream,
                                            const struct troupe_embedding_backward *op);
troupe_status troupe_cpu_rows_copy(troupe_stream *stream, const struct troupe_rows *op);
troupe_status troupe_cpu_rows_add(troupe_stream *stream, const struct troupe_rows *op);
troupe_status troupe_cpu_patchify(troupe_stream *stream, const struct troupe_patchify *op);

/* elementwise.c */
troupe_status troupe_cpu_bias_add(troupe_stream *stream, const struct troupe_bias_add *op);
troupe_status troupe_cpu_add(troupe_stream *stream, const struct troupe_add *op);
troupe_status troupe_cpu_axpy(troupe_stream *stream, const struct troupe_axpy *op);
troupe_status troupe_cpu_scale(troupe_stream *stream, const struct troupe_scale *op);
troupe_status troupe_cpu_fill(troupe_stream *stream, const struct troupe_fill *op);

/* loss.c */
troupe_status troupe_cpu_row_max(troupe_stream *stream, const struct troupe_row_max *op);
troupe_status troupe_cpu_row_sum_exp(troupe_stream *stream, const struct troupe_row_sum_exp *op);
troupe_status troupe_cpu_cross_entropy_backward(troupe_stream *stream,
                                                const struct troupe_cross_entropy_backward *op);

/* update.c */
troupe_status troupe_cpu_adamw(troupe_stream *stream, const struct troupe_adamw *op);
troupe_status troupe_cpu_square_sum(troupe_stream *stream, const struct troupe_square_sum *op);
troupe_status troupe_cpu_first_nonfinite(troupe_stream *stream,
                                         const struct troupe_first_nonfinite *op);

#endif
