/* SPDX-License-Identifier: Apache-2.0
 *
 * Matrix products: the output is cut into blocks. For each a worker goes through k in pieces, packs
 * what of b does not lie in order, and multiplies (product_internal.h).
 */
#include <string.h>

#include "modules/kernels/cpu/cpu_internal.h"
#include "modules/kernels/cpu/parallel_internal.h"
#include "modules/kernels/cpu/product_internal.h"

/* Of a block, at most. The b of a block stays in the second cache. */
enum {
    COLUMNS = 8 * PRODUCT_PANEL,
    COLUMNS_TURNED = COLUMNS / 2, /* where b is transposed */
    ROWS = 2048,
    ROWS_TURNED = 16 * PRODUCT_ROWS, /* where a is transposed */
};
/* A packed b: the matrix unit's parts, 6 bytes a number, and so floats as well. */
enum { PACKED_BYTES = 6 * COLUMNS * PRODUCT_SPLIT_DEPTH };
_Static_assert(COLUMNS *PRODUCT_DEPTH * sizeof(float) <= PACKED_BYTES, "floats fit");

struct call {
    const struct troupe_matmul *op;
    struct troupe_matmul_sizes size;
    bool split;    /* done by the matrix unit */
    int64_t depth; /* steps of k in a piece */
};

/* Length of near-equal pieces of `total`, rounded up to whole units. */
static int64_t piece(int64_t total, int64_t count, int64_t unit) {
    return ceil_div(ceil_div(max_of(total, 1), count), unit) * unit;
}

/* Whether tiles of the matrix unit are full enough to be faster. */
static bool worth_splitting(const struct troupe_matmul_sizes *size) {
    enum { LEAST = 2 * PRODUCT_SPLIT_SIDE };
    return size->m >= LEAST && size->n >= LEAST && size->k >= LEAST && product_split_works();
}

/* What is transposed is packed: a transposed b once if blocks span all rows, a transposed a once if
 * they span all columns. The matrix unit has all packed. An even number of blocks keeps two workers
 * equally busy. */
static struct grid blocks(const struct call *call) {
    const struct troupe_matmul *op = call->op;
    const struct troupe_matmul_sizes *size = &call->size;
    bool tall = op->transpose_b && !op->transpose_a && !call->split && size->n > PRODUCT_PANEL;
    int64_t down =
        ceil_div(max_of(size->m, 1), op->transpose_a && !call->split ? ROWS_TURNED : ROWS);
    int64_t across = ceil_div(max_of(size->n, 1), tall ? COLUMNS_TURNED : COLUMNS);
    if (down * across % 2 != 0) {
        *(tall ? &across : &down) += 1;
    }
    return (struct grid){size->m, size->n,
                         piece(size->m, down, call->split ? PRODUCT_SPLIT_SIDE : PRODUCT_ROWS),
                         piece(size->n, across, PRODUCT_PANEL)};
}

/* An empty sum: what remains is c, the bias, or zero. */
static void block_without_product(const struct troupe_matmul *op, const struct block *b) {
    const float *bias = tensor_given(&op->bias) ? row_of(&op->bias, 0) + b->column : NULL;
    for (int64_t r = b->row; r < b->row_end; r++) {
        float *c = row_of(&op->c, r) + b->column;
        for (int64_t i = 0; i < b->columns; i++) {
            c[i] = (op->accumulate ? c[i] : 0.0f) + (bias != NULL ? bias[i] : 0.0f);
        }
    }
}

/* Where op(x) begins, from row `row` and column `column` on. */
static struct operand part_of(const struct troupe_tensor *x, bool transposed, int64_t row,
                              int64_t column) {
    const float *data = x->data;
    data += transposed ? column * x->stride + row : row * x->stride + column;
    return (struct operand){data, x->stride, transposed};
}

static void matmul_block(const void *arg, const struct block *b) {
    const struct call *call = arg;
    const struct troupe_matmul *op = call->op;
    if (call->size.k == 0) {
        block_without_product(op, b);
        return;
    }
    _Alignas(64) char packed[PACKED_BYTES];
    int64_t depth = call->depth;
    for (int64_t k = 0; k < call->size.k; k += depth) {
        struct product product = {.m = b->row_end - b->row,
                                  .n = b->columns,
                                  .k = min_of(depth, call->size.k - k),
                                  .a = part_of(&op->a, op->transpose_a, b->row, k),
                                  .c = row_of(&op->c, b->row) + b->column,
                                  .c_stride = op->c.stride,
                                  .alpha = op->alpha != 0.0f ? op->alpha : 1.0f,
                                  .accumulate = op->accumulate || k > 0};
        if (tensor_given(&op->bias) && k == 0) {
            product.bias = row_of(&op->bias, 0) + b->column;
        }
        struct operand right = part_of(&op->b, op->transpose_b, k, b->column);
        if (call->split) {
            product.b.b = right;
            product_split_multiply(&product, packed);
        } else {
            product.b = product_right(right, product.k, product.n, (float *)packed);
            product_multiply(&product);
        }
    }
}

troupe_status troupe_cpu_matmul(troupe_stream *stream, const struct troupe_matmul *op) {
    struct call call = {.op = op};
    TROUPE_TRY(troupe_shape_matmul(op, &call.size));
    call.split = worth_splitting(&call.size);
    int64_t pieces = ceil_div(call.size.k, call.split ? PRODUCT_SPLIT_DEPTH : PRODUCT_DEPTH);
    call.depth = piece(call.size.k, max_of(pieces, 1), call.split ? PRODUCT_SPLIT_SIDE : 1);
    struct grid grid = blocks(&call);
    troupe_cpu_for_blocks(stream, &grid, matmul_block, &call);
    return TROUPE_OK;
}
