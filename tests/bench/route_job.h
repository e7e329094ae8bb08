/* SPDX-License-Identifier: Apache-2.0
 *
 * One edge with a route between two kinds of actors that do nothing, for measuring what the route
 * itself costs: through spawn, connect and step, as training runs it.
 *
 *     struct route_job job;
 *     EXPECT_OK(route_job_open(comm, &(struct route_case){.name = "1 -> tp4 sp", ...}, bytes,
 * &job)); EXPECT_OK(route_job_run(&job));              (one microbatch: all ranks have what they
 * need) route_job_close(&job);
 *
 * Element (row, column) is the number row * columns + column in 32 bits, which a checked run looks
 * at on every rank.
 *
 * Ownership: the case and the endpoint are borrowed until close. Threads: the endpoint's.
 * Failure: a status with a sentence; a wrong element is ERROR_DATA.
 */
#ifndef TROUPE_TESTS_BENCH_ROUTE_JOB_H
#define TROUPE_TESTS_BENCH_ROUTE_JOB_H

#include "actors/runtime.h"

enum { ROUTE_RANKS_MAX = 64, ROUTE_COLUMNS = 1024, ROUTE_BUFFERS_MAX = 4 };

/* Ranks [first, first + tp * cp * dp); sizes: 0 means 1. */
struct route_side {
    int first;
    int tp, cp, dp;
    bool sequence; /* rows split over tp, too; else copies */
    bool zigzag;
    int sequences; /* of a dp shard */
};

struct route_case {
    const char *name;
    int ranks;
    struct route_side source, destination;
};

struct route_end {
    struct troupe_mesh mesh;
    struct troupe_layout layout;
    int64_t *offsets;
    int64_t rows;     /* of this rank */
    int64_t rows_max; /* of any rank */
};

struct route_job {
    const struct route_case *what;
    troupe_comm *comm;
    int64_t rows;
    struct route_end source, destination;
    troupe_route *route;
    troupe_runtime *runtime;
    int64_t step;
    bool checks;
    void *filled[ROUTE_BUFFERS_MAX]; /* outputs that hold the elements already */
};

int route_side_ranks(const struct route_side *side);
/* `bytes`: of the tensor, all rows once. Collective. */
troupe_status route_job_open(troupe_comm *comm, const struct route_case *what, int64_t bytes,
                             int microbatches, struct route_job *out);
/* With `checks` set every element that arrives is looked at. Collective. */
troupe_status route_job_run(struct route_job *job);
void route_job_close(struct route_job *job);

/* The rows that this rank holds, one stretch after the other; returns how many stretches. */
int route_end_stretches(const struct route_end *end, int rank,
                        struct troupe_route_stretch *stretches_out);
/* Writes them, or looks whether they are there. */
void route_end_fill(const struct route_end *end, int rank, int32_t *data);
troupe_status route_end_check(const struct route_end *end, int rank, const int32_t *data);

#endif
