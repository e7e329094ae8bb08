/* SPDX-License-Identifier: Apache-2.0
 *
 * Elementwise operations, each as fast as memory: 4 to 12 bytes an element.
 */
#include "modules/kernels/cpu/cpu_internal.h"
#include "modules/kernels/cpu/parallel_internal.h"

static void bias_add_block(const void *arg, const struct block *b) {
    const struct troupe_bias_add *op = arg;
    const float *bias = row_of(&op->bias, 0) + b->column;
    for (int64_t r = b->row; r < b->row_end; r++) {
        float *x = row_of(&op->x, r) + b->column;
#pragma omp simd
        for (int64_t c = 0; c < b->columns; c++) {
            x[c] += bias[c];
        }
    }
}

static void add_block(const void *arg, const struct block *b) {
    const struct troupe_add *op = arg;
    for (int64_t r = b->row; r < b->row_end; r++) {
        const float *x = row_of(&op->x, r) + b->column, *y = row_of(&op->y, r) + b->column;
        float *out = row_of(&op->out, r) + b->column;
#pragma omp simd
        for (int64_t c = 0; c < b->columns; c++) {
            out[c] = x[c] + y[c];
        }
    }
}

static void axpy_block(const void *arg, const struct block *b) {
    const struct troupe_axpy *op = arg;
    for (int64_t r = b->row; r < b->row_end; r++) {
        const float *x = row_of(&op->x, r) + b->column;
        float *y = row_of(&op->y, r) + b->column;
#pragma omp simd
        for (int64_t c = 0; c < b->columns; c++) {
            y[c] += op->alpha * x[c];
        }
    }
}

static void scale_block(const void *arg, const struct block *b) {
    const struct troupe_scale *op = arg;
    for (int64_t r = b->row; r < b->row_end; r++) {
        float *x = row_of(&op->x, r) + b->column;
#pragma omp simd
        for (int64_t c = 0; c < b->columns; c++) {
            x[c] *= op->alpha;
        }
    }
}

static void fill_block(const void *arg, const struct block *b) {
    const struct troupe_fill *op = arg;
    for (int64_t r = b->row; r < b->row_end; r++) {
        float *x = row_of(&op->x, r) + b->column;
#pragma omp simd
        for (int64_t c = 0; c < b->columns; c++) {
            x[c] = op->value;
        }
    }
}

troupe_status troupe_cpu_bias_add(troupe_stream *stream, const struct troupe_bias_add *op) {
    TROUPE_TRY(troupe_shape_bias_add(op));
    struct grid grid = element_grid(op->x.rows, op->x.columns);
    troupe_cpu_for_blocks(stream, &grid, bias_add_block, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_add(troupe_stream *stream, const struct troupe_add *op) {
    TROUPE_TRY(troupe_shape_add(op));
    struct grid grid = element_grid(op->out.rows, op->out.columns);
    troupe_cpu_for_blocks(stream, &grid, add_block, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_axpy(troupe_stream *stream, const struct troupe_axpy *op) {
    TROUPE_TRY(troupe_shape_axpy(op));
    struct grid grid = element_grid(op->y.rows, op->y.columns);
    troupe_cpu_for_blocks(stream, &grid, axpy_block, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_scale(troupe_stream *stream, const struct troupe_scale *op) {
    TROUPE_TRY(troupe_shape_single(&op->x));
    struct grid grid = element_grid(op->x.rows, op->x.columns);
    troupe_cpu_for_blocks(stream, &grid, scale_block, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_fill(troupe_stream *stream, const struct troupe_fill *op) {
    TROUPE_TRY(troupe_shape_single(&op->x));
    struct grid grid = element_grid(op->x.rows, op->x.columns);
    troupe_cpu_for_blocks(stream, &grid, fill_block, op);
    return TROUPE_OK;
}
