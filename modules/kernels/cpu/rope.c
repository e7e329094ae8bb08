/* SPDX-License-Identifier: Apache-2.0
 *
 * Rotary position embedding from a table of cosines and sines. 8 bytes moved an element.
 */
#include "modules/kernels/cpu/cpu_internal.h"
#include "modules/kernels/cpu/parallel_internal.h"
#include "runtime/check.h"

static void rope_rows(const void *arg, const struct block *b) {
    const struct troupe_rope *op = arg;
    int64_t half = op->table.columns / 2;
    float sign = op->inverse ? -1.0f : 1.0f;
    for (int64_t r = b->row; r < b->row_end; r++) {
        int32_t position = op->positions[r];
        TROUPE_ASSERT(position >= 0 && position < op->table.rows, "position %d of %lld", position,
                      (long long)op->table.rows);
        const float *cosine = row_of(&op->table, position), *sine = cosine + half;
        for (int64_t head = 0; head < op->x.columns; head += 2 * half) {
            const float *x = row_of(&op->x, r) + head;
            float *y = row_of(&op->y, r) + head;
#pragma omp simd
            for (int64_t i = 0; i < half; i++) {
                float first = x[i], second = x[half + i], s = sign * sine[i];
                y[i] = first * cosine[i] - second * s;
                y[half + i] = second * cosine[i] + first * s;
            }
        }
    }
}

troupe_status troupe_cpu_rope(troupe_stream *stream, const struct troupe_rope *op) {
    TROUPE_TRY(troupe_shape_rope(op));
    struct grid grid = row_grid(op->x.rows, op->x.columns);
    troupe_cpu_for_blocks(stream, &grid, rope_rows, op);
    return TROUPE_OK;
}
