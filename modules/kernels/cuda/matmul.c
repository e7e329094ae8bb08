/* SPDX-License-Identifier: Apache-2.0
 *
 * Matrix products by cuBLASLt in float32 (no TF32), the same algorithm for the same shape. cuBLASLt
 * counts columns first: what we call row-major c = a b is its column-major c' = b' a'.
 */
#include <cublasLt.h>

#include "modules/kernels/cuda/launch_internal.h"
#include "modules/kernels/shape_internal.h"
#include "runtime/device_cuda.h"

#define TRY_BLAS(call) TROUPE_TRY(blas_status((call), #call))

static troupe_status blas_status(cublasStatus_t status, const char *call) {
    return status == CUBLAS_STATUS_SUCCESS
               ? TROUPE_OK
               : troupe_fail(TROUPE_ERROR_DEVICE, "%s: %s", call, cublasLtGetStatusString(status));
}

/* A product as cuBLASLt describes it; all on the stack. */
struct product {
    cublasLtMatmulDescOpaque_t desc;
    cublasLtMatrixLayoutOpaque_t a; /* our b */
    cublasLtMatrixLayoutOpaque_t b; /* our a */
    cublasLtMatrixLayoutOpaque_t c;
    cublasLtMatmulHeuristicResult_t best;
};

/* The rows of a tensor are the columns of its layout. */
static troupe_status describe_layout(cublasLtMatrixLayoutOpaque_t *out,
                                     const struct troupe_tensor *t) {
    int64_t leading = t->stride > t->columns ? t->stride : t->columns; /* one row: any stride */
    TRY_BLAS(cublasLtMatrixLayoutInit(out, CUDA_R_32F, (uint64_t)t->columns, (uint64_t)t->rows,
                                      leading));
    return TROUPE_OK;
}

static troupe_status describe_product(struct product *out, const struct troupe_matmul *op) {
    cublasOperation_t a = op->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t b = op->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    TRY_BLAS(cublasLtMatmulDescInit(&out->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    TRY_BLAS(cublasLtMatmulDescSetAttribute(&out->desc, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a));
    TRY_BLAS(cublasLtMatmulDescSetAttribute(&out->desc, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b));
    TROUPE_TRY(describe_layout(&out->a, &op->b));
    TROUPE_TRY(describe_layout(&out->b, &op->a));
    return describe_layout(&out->c, &op->c);
}

/* The algorithm for this shape; slices of fused buffers are aligned to a float only. */
static troupe_status choose_algorithm(struct product *product,
                                      const struct troupe_cuda_native *native) {
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        [0] = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        [1] = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        [2] = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        [3] = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
    };
    const uint32_t alignment = sizeof(float);
    cublasLtMatmulPreferenceOpaque_t preference;
    TRY_BLAS(cublasLtMatmulPreferenceInit(&preference));
    TRY_BLAS(
        cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &native->scratch_bytes, sizeof native->scratch_bytes));
    for (int i = 0; i < 4; i++) {
        TRY_BLAS(cublasLtMatmulPreferenceSetAttribute(&preference, alignments[i], &alignment,
                                                      sizeof alignment));
    }
    int found = 0;
    TRY_BLAS(cublasLtMatmulAlgoGetHeuristic(native->blas, &product->desc, &product->a, &product->b,
                                            &product->c, &product->c, &preference, 1,
                                            &product->best, &found));
    return found > 0 ? TROUPE_OK
                     : troupe_fail(TROUPE_ERROR_UNSUPPORTED,
                                   "cuBLASLt has no float32 algorithm for this product");
}

static troupe_status multiply(const struct troupe_cuda_native *native,
                              const struct troupe_matmul *op) {
    struct product product;
    float alpha = op->alpha != 0.0f ? op->alpha : 1.0f, beta = op->accumulate ? 1.0f : 0.0f;
    TROUPE_TRY(describe_product(&product, op));
    TROUPE_TRY(choose_algorithm(&product, native));
    TRY_BLAS(cublasLtMatmul(native->blas, &product.desc, &alpha, op->b.data, &product.a, op->a.data,
                            &product.b, &beta, op->c.data, &product.c, op->c.data, &product.c,
                            &product.best.algo, native->scratch, native->scratch_bytes,
                            native->stream));
    return TROUPE_OK;
}

troupe_status troupe_cuda_matmul(const struct troupe_cuda_native *native,
                                 const struct troupe_matmul *op) {
    struct troupe_matmul_sizes size;
    TROUPE_TRY(troupe_shape_matmul(op, &size));
    if (size.m == 0 || size.n == 0) {
        return TROUPE_OK;
    }
    if (size.k > 0) {
        TROUPE_TRY(multiply(native, op));
    } else if (!op->accumulate) {
        struct troupe_fill zero = {.x = op->c};
        TROUPE_TRY_CUDA(troupe_cuda_launch_fill(&zero, native->stream));
    }
    if (tensor_given(&op->bias)) {
        struct troupe_bias_add bias = {.x = op->c, .bias = op->bias};
        TROUPE_TRY_CUDA(troupe_cuda_launch_bias_add(&bias, native->stream));
    }
    return TROUPE_OK;
}
