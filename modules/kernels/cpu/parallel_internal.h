/* SPDX-License-Identifier: Apache-2.0
 *
 * How CPU kernels share work: a rows x columns problem is cut into blocks whose size depends on the
 * shape alone, and the stream's workers take blocks. Every block writes its own outputs, so results
 * are the same for any number of workers.
 *
 *     static void fill_block(const void *arg, const struct block *b) { ... }
 *     for_blocks(stream, &(struct grid){rows, columns, 16, columns}, fill_block, op);
 *
 * Ownership: none. Threads: as troupe_workers_run. Failure: none.
 */
#ifndef TROUPE_KERNELS_CPU_PARALLEL_INTERNAL_H
#define TROUPE_KERNELS_CPU_PARALLEL_INTERNAL_H

#include <stddef.h>

#include "modules/kernels/shape_internal.h"
#include "runtime/workers.h"

/* Elements of an elementwise block: 64 KB of one operand, some 10 us of memory traffic. */
enum { BLOCK_ELEMENTS = 16384 };

struct block {
    int64_t row;
    int64_t row_end;
    int64_t column;
    int64_t columns; /* how many, from `column` */
    int64_t index;   /* of this block, row-major in the grid */
};

struct grid {
    int64_t rows;
    int64_t columns;
    int64_t block_rows;
    int64_t block_columns;
};

static inline int64_t min_of(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline int64_t max_of(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

typedef void (*block_body)(const void *op, const struct block *block);

/* Calls body for every block of the grid; an empty grid has none. */
void troupe_cpu_for_blocks(troupe_stream *stream, const struct grid *grid, block_body body,
                           const void *op);
/* Number of blocks. */
int64_t troupe_cpu_block_count(const struct grid *grid);

/* Whole rows, about BLOCK_ELEMENTS per block: for operations on one row at a time. */
static inline struct grid row_grid(int64_t rows, int64_t columns) {
    int64_t block_rows = max_of(1, BLOCK_ELEMENTS / max_of(1, columns));
    return (struct grid){rows, max_of(1, columns), block_rows, max_of(1, columns)};
}

/* For elementwise operations, so that one long row is shared too. */
static inline struct grid element_grid(int64_t rows, int64_t columns) {
    int64_t block_columns = min_of(max_of(1, columns), BLOCK_ELEMENTS);
    return (struct grid){rows, columns, BLOCK_ELEMENTS / block_columns, block_columns};
}

/* Whole columns, a few cache lines wide: for sums over rows. */
static inline struct grid column_grid(int64_t columns) {
    return (struct grid){1, columns, 1, 64};
}

#endif
