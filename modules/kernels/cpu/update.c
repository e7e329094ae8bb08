/* SPDX-License-Identifier: Apache-2.0
 *
 * The optimizer step and scans over gradients: 28 bytes an element for AdamW, 4 for the scans.
 */
#include <math.h>

#include "modules/kernels/cpu/cpu_internal.h"
#include "modules/kernels/cpu/parallel_internal.h"

/* AdamW with its scalars folded, in float32:
 * param = keep * param - rate * m / (sqrt(v) * root + epsilon). */
struct adamw_job {
    const struct troupe_adamw *op;
    float grad_scale, beta1, beta2, rest1, rest2;
    float keep, rate, root, epsilon;
};

static void adamw_block(const void *arg, const struct block *b) {
    const struct adamw_job job = *(const struct adamw_job *)arg;
    for (int64_t r = b->row; r < b->row_end; r++) {
        float *param = row_of(&job.op->param, r) + b->column;
        const float *grad = row_of(&job.op->grad, r) + b->column;
        float *m = row_of(&job.op->m, r) + b->column, *v = row_of(&job.op->v, r) + b->column;
#pragma omp simd
        for (int64_t c = 0; c < b->columns; c++) {
            float g = job.grad_scale * grad[c];
            m[c] = job.beta1 * m[c] + job.rest1 * g;
            v[c] = job.beta2 * v[c] + job.rest2 * (g * g);
            param[c] = job.keep * param[c] -
                       job.rate * m[c] / (__builtin_sqrtf(v[c]) * job.root + job.epsilon);
        }
    }
}

/* Scans split into at most SCAN_PARTS blocks, whose results are combined in order. */
enum { SCAN_PARTS = 64 };

static struct grid scan_grid(const struct troupe_tensor *x) {
    struct grid grid = element_grid(x->rows, x->columns);
    if (x->rows > 1) {
        grid.block_columns = max_of(1, x->columns);
        grid.block_rows =
            max_of(ceil_div(BLOCK_ELEMENTS, grid.block_columns), ceil_div(x->rows, SCAN_PARTS));
    } else {
        grid.block_columns = max_of(BLOCK_ELEMENTS, ceil_div(x->columns, SCAN_PARTS));
    }
    return grid;
}

struct square_job {
    const struct troupe_tensor *x;
    double *part; /* one per block */
};

static double row_square_sum(const float *x, int64_t columns) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < columns; c++) {
        sum += (double)x[c] * x[c];
    }
    return sum;
}

static void square_block(const void *arg, const struct block *b) {
    const struct square_job *job = arg;
    double sum = 0;
    for (int64_t r = b->row; r < b->row_end; r++) {
        sum += row_square_sum(row_of(job->x, r) + b->column, b->columns);
    }
    job->part[b->index] = sum;
}

struct nonfinite_job {
    const struct troupe_tensor *x;
    int64_t *first; /* one per block: a row, or -1 */
};

static bool row_finite(const float *x, int64_t columns) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < columns; c++) {
        sum += x[c] * 0.0f; /* 0 for every finite value, NaN for the others */
    }
    return sum == 0.0f;
}

static void nonfinite_block(const void *arg, const struct block *b) {
    const struct nonfinite_job *job = arg;
    job->first[b->index] = -1;
    for (int64_t r = b->row; r < b->row_end; r++) {
        if (!row_finite(row_of(job->x, r) + b->column, b->columns)) {
            job->first[b->index] = r;
            return;
        }
    }
}

troupe_status troupe_cpu_adamw(troupe_stream *stream, const struct troupe_adamw *op) {
    TROUPE_TRY(troupe_shape_adamw(op));
    double correct1 = 1 - pow(op->beta1, (double)op->step);
    double correct2 = 1 - pow(op->beta2, (double)op->step);
    struct adamw_job job = {
        .op = op,
        .grad_scale = (float)op->grad_scale,
        .beta1 = (float)op->beta1,
        .beta2 = (float)op->beta2,
        .rest1 = (float)(1 - op->beta1),
        .rest2 = (float)(1 - op->beta2),
        .keep = (float)(1 - op->lr * op->decay),
        .rate = (float)(op->lr / correct1),
        .root = (float)(1 / sqrt(correct2)),
        .epsilon = (float)op->epsilon,
    };
    struct grid grid = element_grid(op->param.rows, op->param.columns);
    troupe_cpu_for_blocks(stream, &grid, adamw_block, &job);
    return TROUPE_OK;
}

troupe_status troupe_cpu_square_sum(troupe_stream *stream, const struct troupe_square_sum *op) {
    TROUPE_TRY(troupe_shape_single(&op->x));
    double part[SCAN_PARTS], sum = 0;
    struct square_job job = {&op->x, part};
    struct grid grid = scan_grid(&op->x);
    troupe_cpu_for_blocks(stream, &grid, square_block, &job);
    for (int64_t i = 0; i < troupe_cpu_block_count(&grid); i++) {
        sum += part[i];
    }
    *op->out = sum;
    return TROUPE_OK;
}

troupe_status troupe_cpu_first_nonfinite(troupe_stream *stream,
                                         const struct troupe_first_nonfinite *op) {
    TROUPE_TRY(troupe_shape_single(&op->x));
    int64_t first[SCAN_PARTS], found = -1;
    struct nonfinite_job job = {&op->x, first};
    struct grid grid = scan_grid(&op->x);
    troupe_cpu_for_blocks(stream, &grid, nonfinite_block, &job);
    for (int64_t i = 0; i < troupe_cpu_block_count(&grid) && found < 0; i++) {
        found = first[i];
    }
    *op->row_out = found;
    return TROUPE_OK;
}
