/* SPDX-License-Identifier: Apache-2.0
 *
 * LayerNorm, RMSNorm and sums over rows. Rows are independent; a row of some KB stays in the first
 * cache between its passes, so forward moves 8 bytes and backward_input 12 to 16 bytes an element.
 * Sums over rows go down the columns of one cache-line-wide block.
 */
#include <math.h>

#include "modules/kernels/cpu/cpu_internal.h"
#include "modules/kernels/cpu/parallel_internal.h"

enum {
    SUM_COLUMNS = 64, /* of a block of a column grid */
    SUM_ROWS = 64,    /* summed in float32 before they go to float64 */
};

static float row_mean(const float *x, int64_t columns) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < columns; c++) {
        sum += x[c];
    }
    return sum / (float)columns;
}

static float mean_square(const float *x, int64_t columns, float mean) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < columns; c++) {
        sum += (x[c] - mean) * (x[c] - mean);
    }
    return sum / (float)columns;
}

static void layernorm_rows(const void *arg, const struct block *b) {
    const struct troupe_norm *op = arg;
    const float *weight = row_of(&op->weight, 0), *bias = row_of(&op->bias, 0);
    for (int64_t r = b->row; r < b->row_end; r++) {
        const float *x = row_of(&op->x, r);
        float *y = row_of(&op->y, r);
        float mean = row_mean(x, op->x.columns);
        float rstd = 1.0f / sqrtf(mean_square(x, op->x.columns, mean) + op->epsilon);
#pragma omp simd
        for (int64_t c = 0; c < op->x.columns; c++) {
            y[c] = (x[c] - mean) * rstd * weight[c] + bias[c];
        }
        op->mean[r] = mean;
        op->rstd[r] = rstd;
    }
}

static void rmsnorm_rows(const void *arg, const struct block *b) {
    const struct troupe_norm *op = arg;
    const float *weight = row_of(&op->weight, 0);
    for (int64_t r = b->row; r < b->row_end; r++) {
        const float *x = row_of(&op->x, r);
        float *y = row_of(&op->y, r);
        float rstd = 1.0f / sqrtf(mean_square(x, op->x.columns, 0.0f) + op->epsilon);
#pragma omp simd
        for (int64_t c = 0; c < op->x.columns; c++) {
            y[c] = x[c] * rstd * weight[c];
        }
        op->rstd[r] = rstd;
    }
}

/* One row: dx = (add ? dx : 0) + rstd * (g - mean_g - hat * mean(g * hat)), where g = dy * weight,
 * hat = (x - mean) * rstd, and mean_g is the mean of g (layernorm) or 0 (rmsnorm). */
struct norm_row {
    const float *x;
    const float *dy;
    const float *weight;
    float *dx;
    int64_t columns;
    float mean;
    float rstd;
};

static void norm_row_backward(const struct norm_row *row, bool centered, bool accumulate) {
    const float *x = row->x, *dy = row->dy, *weight = row->weight;
    float *dx = row->dx, mean = row->mean, rstd = row->rstd, sum_g = 0, sum_g_hat = 0;
#pragma omp simd reduction(+ : sum_g, sum_g_hat)
    for (int64_t c = 0; c < row->columns; c++) {
        float g = dy[c] * weight[c];
        sum_g += g;
        sum_g_hat += g * (x[c] - mean);
    }
    float mean_g = centered ? sum_g / (float)row->columns : 0.0f;
    float slope = sum_g_hat * rstd * rstd / (float)row->columns;
    if (!accumulate) {
#pragma omp simd
        for (int64_t c = 0; c < row->columns; c++) {
            dx[c] = rstd * (dy[c] * weight[c] - mean_g - (x[c] - mean) * slope);
        }
        return;
    }
#pragma omp simd
    for (int64_t c = 0; c < row->columns; c++) {
        dx[c] = dx[c] + rstd * (dy[c] * weight[c] - mean_g - (x[c] - mean) * slope);
    }
}

static void norm_backward_rows(const struct troupe_norm_backward_input *op, const struct block *b,
                               bool centered) {
    for (int64_t r = b->row; r < b->row_end; r++) {
        norm_row_backward(&(struct norm_row){.x = row_of(&op->x, r),
                                             .dy = row_of(&op->dy, r),
                                             .weight = row_of(&op->weight, 0),
                                             .dx = row_of(&op->dx, r),
                                             .columns = op->x.columns,
                                             .mean = centered ? op->mean[r] : 0.0f,
                                             .rstd = op->rstd[r]},
                          centered, op->accumulate);
    }
}

static void layernorm_backward_rows(const void *op, const struct block *b) {
    norm_backward_rows(op, b, true);
}

static void rmsnorm_backward_rows(const void *op, const struct block *b) {
    norm_backward_rows(op, b, false);
}

static void store_sums(const struct troupe_tensor *out, const struct block *b, const double *sum,
                       bool accumulate) {
    float *to = row_of(out, 0) + b->column;
    for (int64_t c = 0; c < b->columns; c++) {
        to[c] = (float)(accumulate ? to[c] + sum[c] : sum[c]);
    }
}

static void drain(double *sum, float *part) {
    for (int64_t c = 0; c < SUM_COLUMNS; c++) {
        sum[c] += part[c];
        part[c] = 0.0f;
    }
}

static void column_sum_block(const void *arg, const struct block *b) {
    const struct troupe_column_sum *op = arg;
    double sum[SUM_COLUMNS] = {0};
    float part[SUM_COLUMNS] = {0};
    for (int64_t r = 0; r < op->x.rows; r++) {
        const float *x = row_of(&op->x, r) + b->column;
        for (int64_t c = 0; c < b->columns; c++) {
            part[c] += x[c];
        }
        if ((r + 1) % SUM_ROWS == 0 || r + 1 == op->x.rows) {
            drain(sum, part);
        }
    }
    store_sums(&op->out, b, sum, op->accumulate);
}

static void norm_backward_weight_block(const struct troupe_norm_backward_weight *op,
                                       const struct block *b, bool centered) {
    double weight_sum[SUM_COLUMNS] = {0}, bias_sum[SUM_COLUMNS] = {0};
    float weight_part[SUM_COLUMNS] = {0}, bias_part[SUM_COLUMNS] = {0};
    for (int64_t r = 0; r < op->x.rows; r++) {
        const float *x = row_of(&op->x, r) + b->column, *dy = row_of(&op->dy, r) + b->column;
        float mean = centered ? op->mean[r] : 0.0f, rstd = op->rstd[r];
        for (int64_t c = 0; c < b->columns; c++) {
            weight_part[c] += dy[c] * ((x[c] - mean) * rstd);
            bias_part[c] += dy[c];
        }
        if ((r + 1) % SUM_ROWS == 0 || r + 1 == op->x.rows) {
            drain(weight_sum, weight_part);
            drain(bias_sum, bias_part);
        }
    }
    store_sums(&op->dweight, b, weight_sum, op->accumulate);
    if (centered) {
        store_sums(&op->dbias, b, bias_sum, op->accumulate);
    }
}

static void layernorm_backward_weight_block(const void *op, const struct block *b) {
    norm_backward_weight_block(op, b, true);
}

static void rmsnorm_backward_weight_block(const void *op, const struct block *b) {
    norm_backward_weight_block(op, b, false);
}

troupe_status troupe_cpu_column_sum(troupe_stream *stream, const struct troupe_column_sum *op) {
    TROUPE_TRY(troupe_shape_column_sum(op));
    struct grid grid = column_grid(op->x.columns);
    troupe_cpu_for_blocks(stream, &grid, column_sum_block, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_layernorm(troupe_stream *stream, const struct troupe_norm *op) {
    TROUPE_TRY(troupe_shape_layernorm(op));
    struct grid grid = row_grid(op->x.rows, op->x.columns);
    troupe_cpu_for_blocks(stream, &grid, layernorm_rows, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_layernorm_backward_input(troupe_stream *stream,
                                                  const struct troupe_norm_backward_input *op) {
    TROUPE_TRY(troupe_shape_norm_backward_input(op));
    struct grid grid = row_grid(op->x.rows, op->x.columns);
    troupe_cpu_for_blocks(stream, &grid, layernorm_backward_rows, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_layernorm_backward_weight(troupe_stream *stream,
                                                   const struct troupe_norm_backward_weight *op) {
    TROUPE_TRY(troupe_shape_layernorm_backward_weight(op));
    struct grid grid = column_grid(op->x.columns);
    troupe_cpu_for_blocks(stream, &grid, layernorm_backward_weight_block, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_rmsnorm(troupe_stream *stream, const struct troupe_norm *op) {
    TROUPE_TRY(troupe_shape_rmsnorm(op));
    struct grid grid = row_grid(op->x.rows, op->x.columns);
    troupe_cpu_for_blocks(stream, &grid, rmsnorm_rows, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_rmsnorm_backward_input(troupe_stream *stream,
                                                const struct troupe_norm_backward_input *op) {
    TROUPE_TRY(troupe_shape_norm_backward_input(op));
    struct grid grid = row_grid(op->x.rows, op->x.columns);
    troupe_cpu_for_blocks(stream, &grid, rmsnorm_backward_rows, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_rmsnorm_backward_weight(troupe_stream *stream,
                                                 const struct troupe_norm_backward_weight *op) {
    TROUPE_TRY(troupe_shape_rmsnorm_backward_weight(op));
    struct grid grid = column_grid(op->x.columns);
    troupe_cpu_for_blocks(stream, &grid, rmsnorm_backward_weight_block, op);
    return TROUPE_OK;
}
