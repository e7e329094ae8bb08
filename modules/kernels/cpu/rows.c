/* SPDX-License-Identifier: Apache-2.0
 *
 * Moving rows by index: embedding, scatter and gather, patches of pictures. Rows that land on
 * distinct rows are shared by rows; where several may land on one (a gradient), by columns, each
 * block adding rows in ascending order.
 */
#include <string.h>

#include "modules/kernels/cpu/cpu_internal.h"
#include "modules/kernels/cpu/parallel_internal.h"

enum { BYTE_VALUES = 256, CHANNELS = 3 };

static void add_row(float *to, const float *from, int64_t columns) {
#pragma omp simd
    for (int64_t c = 0; c < columns; c++) {
        to[c] += from[c];
    }
}

static void embedding_rows(const void *arg, const struct block *b) {
    const struct troupe_embedding *op = arg;
    size_t bytes = (size_t)op->table.columns * sizeof(float);
    for (int64_t r = b->row; r < b->row_end; r++) {
        int64_t row = (int64_t)op->tokens[r] - op->begin;
        if (row >= 0 && row < op->table.rows) {
            memcpy(row_of(&op->y, r), row_of(&op->table, row), bytes);
        } else {
            memset(row_of(&op->y, r), 0, bytes);
        }
    }
}

static void embedding_backward_columns(const void *arg, const struct block *b) {
    const struct troupe_embedding_backward *op = arg;
    for (int64_t r = 0; r < op->dy.rows; r++) {
        int64_t row = (int64_t)op->tokens[r] - op->begin;
        if (row >= 0 && row < op->dtable.rows) {
            add_row(row_of(&op->dtable, row) + b->column, row_of(&op->dy, r) + b->column,
                    b->columns);
        }
    }
}

static const float *row_from(const struct troupe_rows *op, int64_t i) {
    return row_of(&op->from, op->from_index != NULL ? op->from_index[i] : i);
}

static float *row_to(const struct troupe_rows *op, int64_t i) {
    return row_of(&op->to, op->to_index != NULL ? op->to_index[i] : i);
}

static void rows_copy_block(const void *arg, const struct block *b) {
    const struct troupe_rows *op = arg;
    for (int64_t i = b->row; i < b->row_end; i++) {
        memcpy(row_to(op, i), row_from(op, i), (size_t)op->from.columns * sizeof(float));
    }
}

static void rows_add_rows(const void *arg, const struct block *b) {
    const struct troupe_rows *op = arg;
    for (int64_t i = b->row; i < b->row_end; i++) {
        add_row(row_to(op, i), row_from(op, i), op->from.columns);
    }
}

static void rows_add_columns(const void *arg, const struct block *b) {
    const struct troupe_rows *op = arg;
    for (int64_t i = 0; i < op->count; i++) {
        add_row(row_to(op, i) + b->column, row_from(op, i) + b->column, b->columns);
    }
}

struct patch_job {
    const struct troupe_patchify *op;
    float value[CHANNELS][BYTE_VALUES]; /* a byte, normalised */
};

static void prepare_values(struct patch_job *job) {
    for (int channel = 0; channel < CHANNELS; channel++) {
        float given = job->op->deviation[channel];
        double deviation = given != 0.0f ? given : 1.0, mean = job->op->mean[channel];
        for (int byte = 0; byte < BYTE_VALUES; byte++) {
            job->value[channel][byte] = (float)((byte / 255.0 - mean) / deviation);
        }
    }
}

/* One line of one patch: 3 * patch bytes. */
static void patch_line(const struct patch_job *job, const uint8_t *bytes, float *out) {
    for (int64_t i = 0; i < (int64_t)job->op->patch * CHANNELS; i += CHANNELS) {
        out[i] = job->value[0][bytes[i]];
        out[i + 1] = job->value[1][bytes[i + 1]];
        out[i + 2] = job->value[2][bytes[i + 2]];
    }
}

static void patchify_image(const struct patch_job *job, const struct troupe_pixels *image,
                           int64_t first_row) {
    int64_t patch = job->op->patch, across = image->width / patch;
    for (int64_t y = 0; y < image->height; y++) {
        const uint8_t *line = image->pixels + y * image->stride_bytes;
        for (int64_t i = 0; i < across; i++) {
            float *out = row_of(&job->op->out, first_row + y / patch * across + i);
            patch_line(job, line + i * patch * CHANNELS, out + y % patch * patch * CHANNELS);
        }
    }
}

static void patchify_block(const void *arg, const struct block *b) {
    const struct patch_job *job = arg;
    int64_t row = 0;
    for (int64_t i = 0; i < b->row_end; i++) {
        if (i >= b->row) {
            patchify_image(job, &job->op->images[i], row);
        }
        row += troupe_image_patches(&job->op->images[i], job->op->patch);
    }
}

troupe_status troupe_cpu_embedding(troupe_stream *stream, const struct troupe_embedding *op) {
    TROUPE_TRY(troupe_shape_embedding(op));
    struct grid grid = row_grid(op->y.rows, op->y.columns);
    troupe_cpu_for_blocks(stream, &grid, embedding_rows, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_embedding_backward(troupe_stream *stream,
                                            const struct troupe_embedding_backward *op) {
    TROUPE_TRY(troupe_shape_embedding_backward(op));
    struct grid grid = column_grid(op->dy.columns);
    troupe_cpu_for_blocks(stream, &grid, embedding_backward_columns, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_rows_copy(troupe_stream *stream, const struct troupe_rows *op) {
    TROUPE_TRY(troupe_shape_rows(op));
    struct grid grid = row_grid(op->count, op->from.columns);
    troupe_cpu_for_blocks(stream, &grid, rows_copy_block, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_rows_add(troupe_stream *stream, const struct troupe_rows *op) {
    TROUPE_TRY(troupe_shape_rows(op));
    bool distinct = op->to_index == NULL;
    struct grid grid =
        distinct ? row_grid(op->count, op->from.columns) : column_grid(op->from.columns);
    troupe_cpu_for_blocks(stream, &grid, distinct ? rows_add_rows : rows_add_columns, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_patchify(troupe_stream *stream, const struct troupe_patchify *op) {
    TROUPE_TRY(troupe_shape_patchify(op));
    struct patch_job job = {.op = op};
    prepare_values(&job);
    struct grid grid = {op->image_count, 1, 1, 1};
    troupe_cpu_for_blocks(stream, &grid, patchify_block, &job);
    return TROUPE_OK;
}
