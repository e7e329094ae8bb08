/* SPDX-License-Identifier: Apache-2.0
 *
 * The launchers of the .cu files: each enqueues one op of kernels.h in a native stream
 * (cudaStream_t) and returns the cudaError_t of the launch. The op is as in kernels.h, checked by
 * the caller, with every array in memory that the device reads: int32 arrays and pixels staged,
 * results of one number pinned or in device memory. `scratch` holds SCRATCH_PARTS values of 8 bytes
 * for the op alone.
 *
 *     TROUPE_TRY_CUDA(troupe_cuda_launch_gelu(op, native.stream));
 *
 * Ownership: none. Threads: any. Failure: as said.
 */
#ifndef TROUPE_KERNELS_CUDA_LAUNCH_INTERNAL_H
#define TROUPE_KERNELS_CUDA_LAUNCH_INTERNAL_H

#include "modules/kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TROUPE_CUDA_SCRATCH_PARTS = 1024 };

int troupe_cuda_launch_bias_add(const struct troupe_bias_add *op, void *stream);
int troupe_cuda_launch_column_sum(const struct troupe_column_sum *op, void *stream);

/* centered: layernorm; otherwise rmsnorm. */
int troupe_cuda_launch_norm(const struct troupe_norm *op, bool centered, void *stream);
int troupe_cuda_launch_norm_backward_input(const struct troupe_norm_backward_input *op,
                                           bool centered, void *stream);
int troupe_cuda_launch_norm_backward_weight(const struct troupe_norm_backward_weight *op,
                                            bool centered, void *stream);

int troupe_cuda_launch_gelu(const struct troupe_gelu *op, void *stream);
int troupe_cuda_launch_gelu_backward(const struct troupe_gelu_backward *op, void *stream);
int troupe_cuda_launch_swiglu(const struct troupe_swiglu *op, void *stream);
int troupe_cuda_launch_swiglu_backward(const struct troupe_swiglu_backward *op, void *stream);

int troupe_cuda_launch_rope_table(const struct troupe_rope_table *op, void *stream);
int troupe_cuda_launch_rope(const struct troupe_rope *op, void *stream);
/* op->scale is given, not 0. */
int troupe_cuda_launch_attention(const struct troupe_attention *op, void *stream);
int troupe_cuda_launch_attention_backward(const struct troupe_attention_backward *op, void *stream);

int troupe_cuda_launch_embedding(const struct troupe_embedding *op, void *stream);
int troupe_cuda_launch_embedding_backward(const struct troupe_embedding_backward *op, void *stream);
int troupe_cuda_launch_rows_copy(const struct troupe_rows *op, void *stream);
int troupe_cuda_launch_rows_add(const struct troupe_rows *op, void *stream);
int troupe_cuda_launch_add(const struct troupe_add *op, void *stream);
int troupe_cuda_launch_axpy(const struct troupe_axpy *op, void *stream);
int troupe_cuda_launch_scale(const struct troupe_scale *op, void *stream);
int troupe_cuda_launch_fill(const struct troupe_fill *op, void *stream);
/* op->images is one picture: a host struct whose pixels are in device memory. */
int troupe_cuda_launch_patchify(const struct troupe_patchify *op, void *stream);

int troupe_cuda_launch_row_max(const struct troupe_row_max *op, void *stream);
int troupe_cuda_launch_row_sum_exp(const struct troupe_row_sum_exp *op, void *stream);
int troupe_cuda_launch_cross_entropy(const struct troupe_cross_entropy *op, void *stream);
int troupe_cuda_launch_cross_entropy_backward(const struct troupe_cross_entropy_backward *op,
                                              void *stream);

int troupe_cuda_launch_adamw(const struct troupe_adamw *op, void *stream);
int troupe_cuda_launch_square_sum(const struct troupe_square_sum *op, double *scratch,
                                  void *stream);
int troupe_cuda_launch_first_nonfinite(const struct troupe_first_nonfinite *op, int64_t *scratch,
                                       void *stream);

/* In matmul.c, by cuBLASLt: blas is a cublasLtHandle_t. */
struct troupe_cuda_native;
troupe_status troupe_cuda_matmul(const struct troupe_cuda_native *native,
                                 const struct troupe_matmul *op);

#ifdef __cplusplus
}
#endif
#endif
