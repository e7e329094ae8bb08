/* SPDX-License-Identifier: Apache-2.0
 *
 * Cross entropy over a vocabulary shard. 4 bytes (forward, twice) and 8 bytes (backward) an
 * element; exp is computed again in backward rather than stored: 20 flops cost less than 8 more
 * bytes.
 */
#include <math.h>
#include <string.h>

#include "modules/kernels/cpu/cpu_internal.h"
#include "modules/kernels/cpu/math_internal.h"
#include "modules/kernels/cpu/parallel_internal.h"

enum { SUM_COLUMNS = 1024 }; /* summed in float32 before they go to float64 */

static void row_max_rows(const void *arg, const struct block *b) {
    const struct troupe_row_max *op = arg;
    for (int64_t r = b->row; r < b->row_end; r++) {
        const float *x = row_of(&op->logits, r);
        float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
        for (int64_t c = 0; c < op->logits.columns; c++) {
            largest = x[c] > largest ? x[c] : largest;
        }
        op->row_max[r] = largest;
    }
}

static double sum_exp(const float *x, float shift, int64_t columns) {
    double total = 0;
    for (int64_t begin = 0; begin < columns; begin += SUM_COLUMNS) {
        int64_t end = min_of(begin + SUM_COLUMNS, columns);
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = begin; c < end; c++) {
            sum += vector_exp(x[c] - shift);
        }
        total += sum;
    }
    return total;
}

/* Whether this shard holds the row's target. */
static bool holds(const struct troupe_tensor *logits, int32_t target, int32_t begin) {
    return target >= begin && target >= 0 && target - begin < logits->columns;
}

static void row_sum_exp_rows(const void *arg, const struct block *b) {
    const struct troupe_row_sum_exp *op = arg;
    for (int64_t r = b->row; r < b->row_end; r++) {
        const float *x = row_of(&op->logits, r);
        int32_t target = op->targets[r];
        op->row_sum[r] = (float)sum_exp(x, op->row_max[r], op->logits.columns);
        op->target_logit[r] =
            holds(&op->logits, target, op->begin) ? x[target - op->begin] - op->row_max[r] : 0.0f;
    }
}

static void backward_rows(const void *arg, const struct block *b) {
    const struct troupe_cross_entropy_backward *op = arg;
    for (int64_t r = b->row; r < b->row_end; r++) {
        float *x = row_of(&op->logits, r), shift = op->row_max[r];
        float factor = op->scale / op->row_sum[r];
        if (op->targets[r] < 0) {
            memset(x, 0, (size_t)op->logits.columns * sizeof(*x));
            continue;
        }
#pragma omp simd
        for (int64_t c = 0; c < op->logits.columns; c++) {
            x[c] = factor * vector_exp(x[c] - shift);
        }
        if (holds(&op->logits, op->targets[r], op->begin)) {
            x[op->targets[r] - op->begin] -= op->scale;
        }
    }
}

troupe_status troupe_cpu_row_max(troupe_stream *stream, const struct troupe_row_max *op) {
    TROUPE_TRY(troupe_shape_single(&op->logits));
    struct grid grid = row_grid(op->logits.rows, op->logits.columns);
    troupe_cpu_for_blocks(stream, &grid, row_max_rows, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_row_sum_exp(troupe_stream *stream, const struct troupe_row_sum_exp *op) {
    TROUPE_TRY(troupe_shape_single(&op->logits));
    struct grid grid = row_grid(op->logits.rows, op->logits.columns);
    troupe_cpu_for_blocks(stream, &grid, row_sum_exp_rows, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_cross_entropy_backward(troupe_stream *stream,
                                                const struct troupe_cross_entropy_backward *op) {
    TROUPE_TRY(troupe_shape_single(&op->logits));
    struct grid grid = row_grid(op->logits.rows, op->logits.columns);
    troupe_cpu_for_blocks(stream, &grid, backward_rows, op);
    return TROUPE_OK;
}
