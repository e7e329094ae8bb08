/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cpu/parallel_internal.h"

struct job {
    const struct grid *grid;
    block_body body;
    const void *op;
};

static void run_block(void *arg, int64_t part) {
    const struct job *job = arg;
    const struct grid *g = job->grid;
    int64_t across = ceil_div(g->columns, g->block_columns);
    struct block block = {
        .row = part / across * g->block_rows,
        .column = part % across * g->block_columns,
        .index = part,
    };
    block.row_end = min_of(block.row + g->block_rows, g->rows);
    block.columns = min_of(g->block_columns, g->columns - block.column);
    job->body(job->op, &block);
}

int64_t troupe_cpu_block_count(const struct grid *grid) {
    return ceil_div(grid->rows, grid->block_rows) * ceil_div(grid->columns, grid->block_columns);
}

void troupe_cpu_for_blocks(troupe_stream *stream, const struct grid *grid, block_body body,
                           const void *op) {
    struct job job = {grid, body, op};
    troupe_workers *workers = stream != NULL ? troupe_stream_workers(stream) : NULL;
    troupe_workers_run(workers, troupe_cpu_block_count(grid), run_block, &job);
}
