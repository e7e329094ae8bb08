/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/route_job.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/memory.h"

enum { PARTS_MAX = 256 };

int route_side_ranks(const struct route_side *side) {
    int tp = side->tp > 0 ? side->tp : 1, cp = side->cp > 0 ? side->cp : 1;
    return tp * cp * (side->dp > 0 ? side->dp : 1);
}

/* ---- elements ---- */

static int compare_stretches(const void *a, const void *b) {
    const struct troupe_route_stretch *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

int route_end_stretches(const struct route_end *end, int rank,
                        struct troupe_route_stretch *stretches_out) {
    int count = 0;
    for (int i = 0; i < end->layout.piece_count; i++) {
        const struct troupe_layout_piece *piece = &end->layout.pieces[i];
        struct troupe_route_stretch rows = {.begin = end->offsets[piece->part],
                                            .end = end->offsets[piece->part + 1]};
        if (piece->rank == rank && rows.end > rows.begin) {
            stretches_out[count++] = rows;
        }
    }
    qsort(stretches_out, (size_t)count, sizeof *stretches_out, compare_stretches);
    int kept = 0;
    for (int i = 0; i < count; i++) { /* those that touch are one */
        if (kept > 0 && stretches_out[kept - 1].end == stretches_out[i].begin) {
            stretches_out[kept - 1].end = stretches_out[i].end;
        } else {
            stretches_out[kept++] = stretches_out[i];
        }
    }
    for (int i = 1; i < kept; i++) {
        const struct troupe_route_stretch *before = &stretches_out[i - 1];
        stretches_out[i].at = before->at + before->end - before->begin;
    }
    return kept;
}

static int32_t value_of(int64_t element) {
    return (int32_t)(uint32_t)element;
}

void route_end_fill(const struct route_end *end, int rank, int32_t *data) {
    struct troupe_route_stretch stretches[PARTS_MAX];
    int count = route_end_stretches(end, rank, stretches);
    for (int i = 0; i < count; i++) {
        for (int64_t e = stretches[i].begin * ROUTE_COLUMNS; e < stretches[i].end * ROUTE_COLUMNS;
             e++) {
            *data++ = value_of(e);
        }
    }
}

troupe_status route_end_check(const struct route_end *end, int rank, const int32_t *data) {
    struct troupe_route_stretch stretches[PARTS_MAX];
    int count = route_end_stretches(end, rank, stretches);
    for (int i = 0; i < count; i++) {
        for (int64_t e = stretches[i].begin * ROUTE_COLUMNS; e < stretches[i].end * ROUTE_COLUMNS;
             e++, data++) {
            if (*data != value_of(e)) {
                return troupe_fail(TROUPE_ERROR_DATA,
                                   "rank %d: row %" PRId64 ", column %" PRId64 " is %" PRId32
                                   ", expected %" PRId32,
                                   rank, e / ROUTE_COLUMNS, e % ROUTE_COLUMNS, *data, value_of(e));
            }
        }
    }
    return TROUPE_OK;
}

/* ---- the actors ---- */

enum { PORT };

/* A buffer is filled once: later runs send what is there. */
static troupe_status produce(void *state, struct troupe_firing *firing) {
    struct route_job *job = state;
    void *data = firing->outputs[PORT].data;
    for (int i = 0; i < ROUTE_BUFFERS_MAX && firing->outputs[PORT].rows > 0; i++) {
        if (job->filled[i] == data) {
            break;
        }
        if (job->filled[i] == NULL) {
            job->filled[i] = data;
            route_end_fill(&job->source, troupe_comm_rank(job->comm), data);
            break;
        }
    }
    return TROUPE_OK;
}

static troupe_status consume(void *state, struct troupe_firing *firing) {
    struct route_job *job = state;
    return job->checks ? route_end_check(&job->destination, troupe_comm_rank(job->comm),
                                         firing->inputs[PORT].data)
                       : TROUPE_OK;
}

static const struct troupe_port out_port = {"out", TROUPE_OUT}, in_port = {"in", TROUPE_IN};
static const struct troupe_actor_method produce_method = {
    .name = "produce", .outputs = {PORT}, .output_count = 1, .run = produce};
static const struct troupe_actor_method consume_method = {
    .name = "consume", .inputs = {PORT}, .input_count = 1, .run = consume};
static const struct troupe_actor_class producer = {.name = "source",
                                                   .ports = &out_port,
                                                   .port_count = 1,
                                                   .methods = &produce_method,
                                                   .method_count = 1};
static const struct troupe_actor_class consumer = {.name = "destination",
                                                   .ports = &in_port,
                                                   .port_count = 1,
                                                   .methods = &consume_method,
                                                   .method_count = 1};

static void plan(void *arg, int64_t step, int microbatch, int shard,
                 struct troupe_message_plan *out) {
    const struct route_job *job = arg;
    (void)step, (void)microbatch, (void)shard;
    out->source_offsets = job->source.offsets;
    out->destination_offsets = job->destination.offsets;
}

/* ---- life ---- */

static troupe_status init_end(const struct route_side *side, int64_t rows, int rank,
                              struct route_end *end) {
    int ranks[ROUTE_RANKS_MAX], count = route_side_ranks(side);
    struct troupe_route_stretch stretches[PARTS_MAX];
    for (int i = 0; i < count; i++) {
        ranks[i] = side->first + i;
    }
    TROUPE_TRY(troupe_mesh_init(
        &(struct troupe_mesh_options){
            .ranks = ranks, .rank_count = count, .tp = side->tp, .cp = side->cp, .dp = side->dp},
        &end->mesh));
    struct troupe_layout_options options = {.mesh = &end->mesh,
                                            .shape = {0, ROUTE_COLUMNS},
                                            .split = {TROUPE_AXES(TROUPE_DP, TROUPE_CP, TROUPE_TP)},
                                            .sequences = side->sequences,
                                            .zigzag = side->zigzag,
                                            .ragged = true};
    options.split[0].count = side->sequence ? 3 : 2;
    TROUPE_TRY(troupe_layout_init(&options, &end->layout));
    int parts = end->layout.part_count, sequences = parts / end->layout.chunks;
    int64_t starts[PARTS_MAX + 1];
    if (parts > PARTS_MAX) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%d parts, at most %d", parts, PARTS_MAX);
    }
    for (int i = 0; i <= sequences; i++) {
        starts[i] = troupe_split_begin(rows, sequences, i);
    }
    TROUPE_TRY(TROUPE_NEW(&end->offsets, parts + 1));
    troupe_layout_row_offsets(&end->layout, starts, end->offsets);
    for (int i = 0; i < count; i++) {
        int stretch_count = route_end_stretches(end, ranks[i], stretches);
        const struct troupe_route_stretch *last = &stretches[stretch_count - 1];
        int64_t held = stretch_count > 0 ? last->at + last->end - last->begin : 0;
        end->rows = ranks[i] == rank ? held : end->rows;
        end->rows_max = held > end->rows_max ? held : end->rows_max;
    }
    return TROUPE_OK;
}

static troupe_status spawn_side(struct route_job *job, const struct route_side *side,
                                const struct troupe_actor_class *actor_class, int *gangs) {
    int ranks[ROUTE_RANKS_MAX], count = side->dp > 0 ? side->dp : 1;
    int size = route_side_ranks(side) / count;
    for (int d = 0; d < count; d++) {
        char name[32];
        snprintf(name, sizeof name, "%s dp %d", actor_class->name, d);
        for (int i = 0; i < size; i++) {
            ranks[i] = side->first + d * size + i;
        }
        TROUPE_TRY(troupe_spawn(job->runtime,
                                &(struct troupe_spawn_options){.actor_class = actor_class,
                                                               .name = name,
                                                               .ranks = ranks,
                                                               .rank_count = size,
                                                               .depth = actor_class == &producer,
                                                               .dp = d,
                                                               .argument = job},
                                &gangs[d]));
    }
    return TROUPE_OK;
}

static troupe_status build(struct route_job *job, int microbatches) {
    const struct route_case *what = job->what;
    int from[ROUTE_RANKS_MAX], to[ROUTE_RANKS_MAX], hosts[ROUTE_RANKS_MAX];
    for (int r = 0; r < troupe_comm_size(job->comm); r++) {
        hosts[r] = troupe_comm_host(job->comm, r);
    }
    TROUPE_TRY(
        troupe_route_compile(&(struct troupe_route_options){.source = &job->source.layout,
                                                            .destination = &job->destination.layout,
                                                            .host_of_rank = hosts,
                                                            .element_bytes = sizeof(int32_t)},
                             &job->route));
    TROUPE_TRY(troupe_runtime_create(
        job->comm, &(struct troupe_runtime_options){.microbatches = microbatches}, &job->runtime));
    TROUPE_TRY(spawn_side(job, &what->source, &producer, from));
    TROUPE_TRY(spawn_side(job, &what->destination, &consumer, to));
    struct troupe_connect_options edge = {.name = "rows",
                                          .from = from,
                                          .from_count = what->source.dp > 0 ? what->source.dp : 1,
                                          .from_port = "out",
                                          .to = to,
                                          .to_count =
                                              what->destination.dp > 0 ? what->destination.dp : 1,
                                          .to_port = "in",
                                          .columns = ROUTE_COLUMNS,
                                          .dtype = TROUPE_INT32,
                                          .from_rows_max = job->source.rows_max,
                                          .to_rows_max = job->destination.rows_max,
                                          .route = job->route,
                                          .plan = plan,
                                          .arg = job};
    TROUPE_TRY(troupe_connect(job->runtime, &edge, NULL));
    return troupe_runtime_start(job->runtime);
}

troupe_status route_job_open(troupe_comm *comm, const struct route_case *what, int64_t bytes,
                             int microbatches, struct route_job *out) {
    int rank = troupe_comm_rank(comm);
    *out = (struct route_job){
        .what = what, .comm = comm, .rows = bytes / (ROUTE_COLUMNS * (int64_t)sizeof(int32_t))};
    TROUPE_TRY(init_end(&what->source, out->rows, rank, &out->source));
    TROUPE_TRY(init_end(&what->destination, out->rows, rank, &out->destination));
    return build(out, microbatches);
}

troupe_status route_job_run(struct route_job *job) {
    return troupe_runtime_step(job->runtime, job->step++);
}

static void fini_end(struct route_end *end) {
    troupe_layout_fini(&end->layout);
    troupe_mesh_fini(&end->mesh);
    troupe_free(end->offsets);
}

void route_job_close(struct route_job *job) {
    troupe_runtime_destroy(job->runtime);
    troupe_route_destroy(job->route);
    fini_end(&job->source);
    fini_end(&job->destination);
}
