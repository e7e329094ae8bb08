/* SPDX-License-Identifier: Apache-2.0
 *
 * Matrix products: the output is cut into tiles, each one call of a single-threaded BLAS, which
 * copies its operands into panels first. Few large tiles copy least: halves of a product reach
 * 95 % of the speed of the whole (140 GFLOP/s a core with AVX-512), quarters 90 %. An even number
 * of tiles keeps two workers equally busy. A single worker sees the same tiles.
 */
#include <cblas.h>
#include <string.h>

#include "modules/kernels/cpu/cpu_internal.h"
#include "modules/kernels/cpu/parallel_internal.h"

enum {
    TILE_ROWS = 384,
    TILE_COLUMNS = 1024,
    SPLIT = 96, /* a shorter side is not worth a second tile */
    LANE = 16,  /* float32 in a vector register: tiles are multiples of it */
};

struct product {
    const struct troupe_matmul *op;
    struct troupe_matmul_sizes size;
};

/* Length of near-equal pieces of `total`, rounded up to whole vectors. */
static int64_t piece(int64_t total, int64_t count) {
    return ceil_div(ceil_div(max_of(total, 1), count), LANE) * LANE;
}

/* One more cut across the longer side where the number of tiles would be odd. */
static struct grid tiles(const struct troupe_matmul_sizes *size) {
    int64_t down = ceil_div(max_of(size->m, 1), TILE_ROWS);
    int64_t across = ceil_div(max_of(size->n, 1), TILE_COLUMNS);
    if (down * across % 2 != 0 && max_of(size->m, size->n) >= SPLIT) {
        *(size->m >= size->n ? &down : &across) += 1;
    }
    return (struct grid){size->m, size->n, piece(size->m, down), piece(size->n, across)};
}

/* Leading dimension, as BLAS wants it even for a single row. */
static blasint leading(const struct troupe_tensor *t) {
    return (blasint)max_of(max_of(t->stride, t->columns), 1);
}

/* Puts into the tile what the product is added to; says whether that is not simply zero. */
static bool prepare(const struct troupe_matmul *op, const struct block *b, bool empty_product) {
    const float *bias = tensor_given(&op->bias) ? row_of(&op->bias, 0) + b->column : NULL;
    for (int64_t r = b->row; r < b->row_end; r++) {
        float *c = row_of(&op->c, r) + b->column;
        if (bias != NULL && op->accumulate) {
            for (int64_t i = 0; i < b->columns; i++) {
                c[i] += bias[i];
            }
        } else if (bias != NULL) {
            memcpy(c, bias, (size_t)b->columns * sizeof(*c));
        } else if (empty_product && !op->accumulate) {
            memset(c, 0, (size_t)b->columns * sizeof(*c));
        }
    }
    return bias != NULL || op->accumulate;
}

static void matmul_tile(const void *arg, const struct block *b) {
    const struct product *product = arg;
    const struct troupe_matmul *op = product->op;
    bool add = prepare(op, b, product->size.k == 0);
    if (product->size.k == 0) {
        return;
    }
    const float *x = (const float *)op->a.data + (op->transpose_a ? b->row : b->row * op->a.stride);
    const float *y =
        (const float *)op->b.data + (op->transpose_b ? b->column * op->b.stride : b->column);
    cblas_sgemm(CblasRowMajor, op->transpose_a ? CblasTrans : CblasNoTrans,
                op->transpose_b ? CblasTrans : CblasNoTrans, (blasint)(b->row_end - b->row),
                (blasint)b->columns, (blasint)product->size.k, op->alpha != 0.0f ? op->alpha : 1.0f,
                x, leading(&op->a), y, leading(&op->b), add ? 1.0f : 0.0f,
                row_of(&op->c, b->row) + b->column, leading(&op->c));
}

troupe_status troupe_cpu_matmul(troupe_stream *stream, const struct troupe_matmul *op) {
    struct product product = {.op = op};
    TROUPE_TRY(troupe_shape_matmul(op, &product.size));
    struct grid grid = tiles(&product.size);
    troupe_cpu_for_blocks(stream, &grid, matmul_tile, &product);
    return TROUPE_OK;
}
