/* SPDX-License-Identifier: Apache-2.0
 *
 * Matrix products by one thread: c = alpha * op(a) op(b). A b that lies row after row is read in
 * place; one that is transposed is first copied into panels, a few columns wide, which serve any
 * number of products.
 *
 *     float scratch[...];                                       // k * product_width(n)
 *     struct right w = product_right((struct operand){weight, stride, true}, k, n, scratch);
 *     product_multiply(&(struct product){.m = m, .n = n, .k = k, .a = {x, x_stride}, .b = w,
 *                                        .c = y, .c_stride = y_stride, .alpha = 1.0f});
 *
 * Ownership: the caller owns all memory. Threads: any. Failure: none. Sums run over k in ascending
 * order, whatever m and n.
 */
#ifndef TROUPE_KERNELS_CPU_PRODUCT_INTERNAL_H
#define TROUPE_KERNELS_CPU_PRODUCT_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "modules/kernels/cpu/vector_internal.h"

/* Rows of c of which two vectors each stay in registers. */
#if defined(__AVX512F__)
enum { PRODUCT_ROWS = 12 };
#else
enum { PRODUCT_ROWS = 6 };
#endif

enum {
    PRODUCT_PANEL = 2 * VECTOR_LANE, /* columns of a panel of b */
    PRODUCT_DEPTH = 512,             /* largest k: PRODUCT_ROWS rows of a stay in the first cache */
};

/* A matrix in memory: element (i, j) at data[i * stride + j], of its transpose where so marked. */
struct operand {
    const float *data;
    int64_t stride;
    bool transposed;
};

/* The right factor. Columns [0, in_place) are read where they lie, the others from `packed`, which
 * holds one panel after the other; the last one may be a single vector wide. */
struct right {
    struct operand b;
    int64_t k;
    int64_t n;
    int64_t in_place;
    const float *packed;
};

/* c = alpha * a b + bias, or c += ...; a: (m, k), b: (k, n) or its first columns, c: (m, n). */
struct product {
    int64_t m;
    int64_t n;
    int64_t k; /* 1 to PRODUCT_DEPTH */
    struct operand a;
    struct right b;
    float *c;
    int64_t c_stride;
    const float *bias; /* (n), or NULL */
    float alpha;
    bool accumulate;
};

/* Columns that n columns of b take in panels. */
static inline int64_t product_width(int64_t n) {
    return (n + VECTOR_LANE - 1) / VECTOR_LANE * VECTOR_LANE;
}

/* b: (k, n). scratch: k * product_width(n) floats, aligned to a vector. */
struct right product_right(struct operand b, int64_t k, int64_t n, float *scratch);
void product_multiply(const struct product *product);

/* The same on a matrix unit, where there is one. The unit takes k up to PRODUCT_SPLIT_DEPTH; its
 * tiles are 32 rows and columns, so less than that is a waste. b is read in place or transposed
 * (b.b; the rest of struct right is unused).
 * scratch: 6 bytes for each number of b, extents rounded up to the side, aligned to cache lines. */
enum { PRODUCT_SPLIT_SIDE = 32, PRODUCT_SPLIT_DEPTH = 512 };
bool product_split_works(void);
void product_split_multiply(const struct product *product, void *scratch);

#endif
