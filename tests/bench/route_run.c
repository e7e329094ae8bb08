/* SPDX-License-Identifier: Apache-2.0 */
/* Time of a route as training runs it, beside MPI_Alltoallv, which moves the same bytes between the
 * same pairs, and beside leader and broadcast, the reference's way: the first rank of each source
 * shard sends to the first rank of each destination shard, which broadcasts to its shard.
 *
 *     mpiexec -n 2|4|8 bench.route_run [shm|tcp [BYTES_MAX [ROUNDS [CASE]]]]
 *
 * The three take turns in each round; ratios are of one round. Each runs once before it counts,
 * then at least twice, small ones more often; the slowest rank counts. Printed are medians, and the
 * interval that holds the median with 95 % confidence. Every element is checked before. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"
#include "runtime/check.h"
#include "runtime/memory.h"
#include "tests/bench/route_job.h"
#include "tests/test.h"

enum {
    ROUNDS_MAX = 101,
    STEP_BYTES = 8 << 20,
    MICROBATCHES_MIN = 4,
    MICROBATCHES_MAX = 50,
    STRETCHES_MAX = 256
};
enum { ROUTE, ALLTOALLV, LEADER, METHODS };
enum { TURNS = 2 }; /* as many microbatches as the edge has in flight */

static const struct route_case cases[] = {
    {"equal", 2, {0, .dp = 1}, {1, .dp = 1}},
    {"zig-zag", 2, {0, .dp = 2}, {0, .cp = 2, .zigzag = true}},
    {"copies on tp2", 2, {0, .dp = 2}, {0, .tp = 2}},
    {"equal", 4, {0, .dp = 2}, {2, .dp = 2}},
    {"dp3 -> dp2, overlapping", 4, {0, .dp = 3}, {2, .dp = 2}},
    {"fan-out dp1 -> tp4 sp", 4, {0, .dp = 1}, {0, .tp = 4, .sequence = true}},
    {"fan-in dp4 -> dp1", 4, {0, .dp = 4}, {0, .dp = 1}},
    {"copies, dp2 -> tp2", 4, {0, .dp = 2}, {2, .tp = 2}},
    {"zig-zag, dp2 -> cp2", 4, {0, .dp = 2}, {2, .cp = 2, .zigzag = true}},
    {"zig-zag, 4 sequences", 4, {0, .dp = 2}, {2, .cp = 2, .zigzag = true, .sequences = 4}},
    {"equal", 8, {0, .dp = 4}, {4, .dp = 4}},
    {"dp3 -> dp2 tp2 sp", 8, {0, .dp = 3}, {4, .dp = 2, .tp = 2, .sequence = true}},
    {"fan-out dp1 -> tp4 sp", 8, {0, .dp = 1}, {4, .tp = 4, .sequence = true}},
    {"fan-out dp2 -> tp8 sp", 8, {0, .dp = 2}, {0, .tp = 8, .sequence = true}},
    {"fan-in dp4 -> tp4 sp", 8, {0, .dp = 4}, {4, .tp = 4, .sequence = true}},
    {"dp8 -> dp2 tp4 copies", 8, {0, .dp = 8}, {0, .dp = 2, .tp = 4}},
    {"dp8 -> dp2 cp2 tp2 zig-zag",
     8,
     {0, .dp = 8},
     {0, .dp = 2, .cp = 2, .tp = 2, .sequence = true, .zigzag = true}},
    {"copies, dp2 -> tp4", 8, {0, .dp = 2}, {4, .tp = 4}},
    {"zig-zag, dp4 -> cp4", 8, {0, .dp = 4}, {4, .cp = 4, .zigzag = true}},
    {"zig-zag, 8 sequences", 8, {0, .dp = 2}, {4, .cp = 4, .zigzag = true, .sequences = 8}},
};

/* What MPI moves: the same rows between tensors of its own. */
struct peer {
    struct route_job *job;
    struct troupe_route_binding *binding;
    struct troupe_route_view from, to; /* of the tensors whose turn it is */
    void *tensors[2][TURNS];
    int turn;
    struct troupe_route_stretch stretches[2][STRETCHES_MAX];
    char *packed_out, *packed_in; /* where a message is not one stretch of its tensor */
    int *counts[2], *places[2];
    bool relays; /* some rank hands rows on */
    char *whole; /* leader: all rows of the destination shard */
    MPI_Comm shard;
};

static size_t tensor_bytes(const struct route_end *end) {
    return (size_t)end->rows * ROUTE_COLUMNS * sizeof(int32_t);
}

static struct troupe_route_view view_of(const struct route_end *end, int rank,
                                        struct troupe_route_stretch *stretches) {
    struct troupe_route_view view = {.row_bytes = ROUTE_COLUMNS * sizeof(int32_t),
                                     .element_bytes = sizeof(int32_t),
                                     .stretches = stretches};
    view.stretch_count = route_end_stretches(end, rank, stretches);
    view.box = troupe_box_2d(0, 0, 0, ROUTE_COLUMNS);
    if (view.stretch_count > 0) {
        view.box.begin[0] = stretches[0].begin;
        view.box.end[0] = stretches[view.stretch_count - 1].end;
    }
    return view;
}

static void *new_tensor(const struct route_end *end) {
    void *data = calloc(1, tensor_bytes(end) + 1);
    EXPECT(data != NULL, "no memory for %zu bytes", tensor_bytes(end));
    return data;
}

static void take_turn(struct peer *p) {
    p->turn = (p->turn + 1) % TURNS;
    p->from.data = p->tensors[0][p->turn];
    p->to.data = p->tensors[1][p->turn];
}

/* ---- MPI_Alltoallv ---- */

static size_t bytes_of(const struct troupe_route_message *messages, int count) {
    size_t bytes = 0;
    for (int i = 0; i < count; i++) {
        bytes += messages[i].bytes;
    }
    return bytes;
}

static bool are_contiguous(const struct troupe_route_message *messages, int count,
                           const struct troupe_route_view *view) {
    bool all = true;
    for (int i = 0; i < count; i++) {
        all = all && troupe_route_message_is_contiguous(&messages[i], view);
    }
    return all;
}

/* Counts and places of the messages, in the tensor itself if all of them are stretches of it, else
 * back to back. Returns whether they are. */
static bool lay_out(const struct troupe_route_message *messages, int count,
                    const struct troupe_route_view *view, int ranks, int *counts, int *places) {
    bool direct = are_contiguous(messages, count, view);
    size_t place = 0;
    memset(counts, 0, (size_t)ranks * sizeof *counts);
    memset(places, 0, (size_t)ranks * sizeof *places);
    for (int i = 0; i < count; i++) {
        const struct troupe_route_message *m = &messages[i];
        if (direct) {
            place = (size_t)((char *)troupe_route_message_data(m, view) - (char *)view->data);
        }
        counts[m->peer] = (int)m->bytes;
        places[m->peer] = (int)place;
        place += m->bytes;
    }
    return direct;
}

static void exchange(struct peer *p, const struct troupe_route_message *out, int out_count,
                     const struct troupe_route_view *from, const struct troupe_route_message *in,
                     int in_count) {
    int ranks = troupe_comm_size(p->job->comm);
    bool out_direct = lay_out(out, out_count, from, ranks, p->counts[0], p->places[0]);
    bool in_direct = lay_out(in, in_count, &p->to, ranks, p->counts[1], p->places[1]);
    for (int i = 0; i < out_count && !out_direct; i++) {
        troupe_route_message_pack(&out[i], from, p->packed_out + p->places[0][out[i].peer]);
    }
    MPI_Alltoallv(out_direct ? from->data : p->packed_out, p->counts[0], p->places[0], MPI_BYTE,
                  in_direct ? p->to.data : p->packed_in, p->counts[1], p->places[1], MPI_BYTE,
                  MPI_COMM_WORLD);
    for (int i = 0; i < in_count && !in_direct; i++) {
        troupe_route_message_unpack(&in[i], p->packed_in + p->places[1][in[i].peer], &p->to);
    }
}

static void copy_box(const struct troupe_box *box, const struct troupe_route_view *from,
                     const struct troupe_route_view *to) {
    size_t bytes = (size_t)(box->end[0] - box->begin[0]) * from->row_bytes; /* whole rows */
    memcpy(troupe_route_view_at(to, box), troupe_route_view_at(from, box), bytes);
}

static void run_alltoallv(struct peer *p) {
    const struct troupe_route_binding *b = p->binding;
    int first = 0; /* receives from holders come before those from ranks that relay */
    while (first < b->receive_count && !b->receives[first].relayed) {
        first++;
    }
    exchange(p, b->sends, b->send_count, &p->from, b->receives, first);
    troupe_route_message_copy(&b->kept, &p->from, &p->to);
    if (p->relays) {
        exchange(p, b->relays, b->relay_count, &p->to, b->receives + first,
                 b->receive_count - first);
    }
}

/* ---- leader and broadcast ---- */

static int shard_size(const struct route_side *side) {
    return route_side_ranks(side) / (side->dp > 0 ? side->dp : 1);
}

static int shard_of(const struct route_side *side, int rank) {
    int at = rank - side->first;
    return at >= 0 && at < route_side_ranks(side) ? at / shard_size(side) : -1;
}

/* Rows of shard d. */
static struct troupe_box shard_rows(const struct route_end *end, const struct route_side *side,
                                    int d) {
    int dp = side->dp > 0 ? side->dp : 1, parts = end->layout.part_count / dp;
    return troupe_box_2d(end->offsets[d * parts], end->offsets[(d + 1) * parts], 0, ROUTE_COLUMNS);
}

static void slice(struct peer *p, const struct troupe_box *held) {
    struct troupe_route_view whole = p->to;
    whole.data = p->whole;
    whole.box = *held;
    whole.stretch_count = 0;
    for (int i = 0; i < p->to.stretch_count; i++) {
        struct troupe_box box =
            troupe_box_2d(p->to.stretches[i].begin, p->to.stretches[i].end, 0, ROUTE_COLUMNS);
        copy_box(&box, &whole, &p->to);
    }
}

static void run_leader(struct peer *p) {
    const struct route_side *from = &p->job->what->source, *to = &p->job->what->destination;
    MPI_Request requests[2 * ROUTE_RANKS_MAX];
    struct troupe_box common, held = {0};
    int rank = troupe_comm_rank(p->job->comm), count = 0;
    int mine = shard_of(from, rank), theirs = shard_of(to, rank);
    size_t row_bytes = p->from.row_bytes;
    char *whole = shard_size(to) > 1 ? p->whole : p->to.data; /* nothing to slice of one */
    bool leads_source = mine >= 0 && (rank - from->first) % shard_size(from) == 0;
    bool leads = theirs >= 0 && (rank - to->first) % shard_size(to) == 0;
    if (theirs >= 0) {
        held = shard_rows(&p->job->destination, to, theirs);
    }
    for (int d = 0; leads && d < (from->dp > 0 ? from->dp : 1); d++) {
        struct troupe_box rows = shard_rows(&p->job->source, from, d);
        int peer = from->first + d * shard_size(from);
        if (troupe_box_intersect(&rows, &held, &common)) {
            char *at = whole + (size_t)(common.begin[0] - held.begin[0]) * row_bytes;
            size_t bytes = (size_t)(common.end[0] - common.begin[0]) * row_bytes;
            if (peer == rank) {
                memcpy(at, troupe_route_view_at(&p->from, &common), bytes);
            } else {
                MPI_Irecv(at, (int)bytes, MPI_BYTE, peer, 0, MPI_COMM_WORLD, &requests[count++]);
            }
        }
    }
    for (int d = 0; leads_source && d < (to->dp > 0 ? to->dp : 1); d++) {
        struct troupe_box rows = shard_rows(&p->job->destination, to, d);
        int peer = to->first + d * shard_size(to);
        if (peer != rank && troupe_box_intersect(&rows, &p->from.box, &common)) {
            MPI_Isend(troupe_route_view_at(&p->from, &common),
                      (int)((size_t)(common.end[0] - common.begin[0]) * row_bytes), MPI_BYTE, peer,
                      0, MPI_COMM_WORLD, &requests[count++]);
        }
    }
    MPI_Waitall(count, requests, MPI_STATUSES_IGNORE);
    if (theirs >= 0 && shard_size(to) > 1) {
        MPI_Bcast(whole, (int)((size_t)(held.end[0] - held.begin[0]) * row_bytes), MPI_BYTE, 0,
                  p->shard);
        slice(p, &held);
    }
}

/* ---- making the peer ---- */

static void open_peer(struct route_job *job, struct peer *p) {
    int rank = troupe_comm_rank(job->comm), ranks = troupe_comm_size(job->comm);
    const struct route_side *to = &job->what->destination;
    *p = (struct peer){.job = job};
    p->from = view_of(&job->source, rank, p->stretches[0]);
    p->to = view_of(&job->destination, rank, p->stretches[1]);
    for (int i = 0; i < TURNS; i++) {
        p->tensors[0][i] = new_tensor(&job->source);
        p->tensors[1][i] = new_tensor(&job->destination);
        route_end_fill(&job->source, rank, p->tensors[0][i]);
    }
    for (int i = 0; i < 2; i++) {
        p->counts[i] = calloc((size_t)ranks, sizeof(int));
        p->places[i] = calloc((size_t)ranks, sizeof(int));
    }
    size_t out = 0, in = 0;
    int relays = 0;
    EXPECT_OK(troupe_route_binding_create(job->route, rank, &p->binding));
    EXPECT_OK(troupe_route_bind(p->binding, job->source.offsets, job->destination.offsets));
    relays = p->binding->relay_count;
    out = bytes_of(p->binding->sends, p->binding->send_count) +
          bytes_of(p->binding->relays, p->binding->relay_count);
    in = bytes_of(p->binding->receives, p->binding->receive_count);
    MPI_Allreduce(MPI_IN_PLACE, &relays, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    p->relays = relays > 0;
    p->packed_out = malloc(out + 1);
    p->packed_in = malloc(in + 1);
    int shard = shard_of(to, rank);
    if (shard >= 0) {
        struct troupe_box rows = shard_rows(&job->destination, to, shard);
        p->whole = malloc((size_t)(rows.end[0] - rows.begin[0]) * p->from.row_bytes + 1);
    }
    MPI_Comm_split(MPI_COMM_WORLD, shard >= 0 ? shard : MPI_UNDEFINED, rank, &p->shard);
}

static void close_peer(struct peer *p) {
    if (p->shard != MPI_COMM_NULL) {
        MPI_Comm_free(&p->shard);
    }
    for (int i = 0; i < 2; i++) {
        free(p->counts[i]);
        free(p->places[i]);
    }
    troupe_route_binding_destroy(p->binding);
    for (int i = 0; i < TURNS; i++) {
        free(p->tensors[0][i]);
        free(p->tensors[1][i]);
    }
    free(p->packed_out);
    free(p->packed_in);
    free(p->whole);
}

/* ---- measuring ---- */

/* What takes turns. Each has memory of its own, for two microbatches. */
struct contest {
    struct route_job job;
    struct peer alltoallv, leader;
    int microbatches;
};

static void run_method(struct contest *c, int method) {
    if (method == ROUTE) {
        EXPECT_OK(route_job_run(&c->job));
        return;
    }
    for (int i = 0; i < c->microbatches; i++) {
        take_turn(method == ALLTOALLV ? &c->alltoallv : &c->leader);
        if (method == ALLTOALLV) {
            run_alltoallv(&c->alltoallv);
        } else {
            run_leader(&c->leader);
        }
    }
}

static void check_all(struct contest *c) {
    int rank = troupe_comm_rank(c->job.comm);
    c->job.checks = true;
    for (int method = 0; method < METHODS; method++) {
        run_method(c, method);
    }
    c->job.checks = false;
    for (int i = 0; i < TURNS; i++) {
        EXPECT_OK(route_end_check(&c->job.destination, rank, c->alltoallv.tensors[1][i]));
        EXPECT_OK(route_end_check(&c->job.destination, rank, c->leader.tensors[1][i]));
    }
}

/* Seconds of a microbatch, of the slowest rank. */
static double time_method(struct contest *c, int method) {
    run_method(c, method);
    MPI_Barrier(MPI_COMM_WORLD);
    double begin = MPI_Wtime();
    run_method(c, method);
    double seconds = (MPI_Wtime() - begin) / c->microbatches;
    MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return seconds;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_of(const double *values, int count) {
    double sorted[ROUNDS_MAX];
    memcpy(sorted, values, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, compare_doubles);
    return sorted[count / 2];
}

/* Median and its interval: between the order statistics 0.98 sqrt(n) to either side. */
static void print_ratio(const double *ours, const double *theirs, int count) {
    double ratios[ROUNDS_MAX];
    for (int i = 0; i < count; i++) {
        ratios[i] = ours[i] / theirs[i];
    }
    qsort(ratios, (size_t)count, sizeof *ratios, compare_doubles);
    int reach = (int)ceil(0.98 * sqrt(count)), low = count / 2 - reach, high = count / 2 + reach;
    printf("  %5.2f (%.2f-%.2f)", ratios[count / 2], ratios[low > 0 ? low : 0],
           ratios[high < count ? high : count - 1]);
}

static int microbatches_of(int64_t bytes) {
    int64_t count = STEP_BYTES / bytes;
    count = count < MICROBATCHES_MIN ? MICROBATCHES_MIN : count;
    return (int)(count < MICROBATCHES_MAX ? count : MICROBATCHES_MAX);
}

static void measure(troupe_comm *comm, const struct route_case *what, int64_t bytes, int rounds) {
    struct contest c = {.microbatches = microbatches_of(bytes)};
    double seconds[METHODS][ROUNDS_MAX];
    EXPECT_OK(route_job_open(comm, what, bytes, c.microbatches, &c.job));
    open_peer(&c.job, &c.alltoallv);
    open_peer(&c.job, &c.leader);
    check_all(&c);
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < METHODS; i++) {
            int method = (i + round) % METHODS;
            seconds[method][round] = time_method(&c, method);
        }
    }
    if (troupe_comm_rank(comm) == 0) {
        printf("%-28s %8.3f  %10.0f %10.0f %10.0f", what->name, (double)bytes / (1 << 20),
               1e6 * median_of(seconds[ROUTE], rounds), 1e6 * median_of(seconds[ALLTOALLV], rounds),
               1e6 * median_of(seconds[LEADER], rounds));
        print_ratio(seconds[ROUTE], seconds[ALLTOALLV], rounds);
        print_ratio(seconds[ROUTE], seconds[LEADER], rounds);
        printf("\n");
        fflush(stdout);
    }
    close_peer(&c.alltoallv);
    close_peer(&c.leader);
    route_job_close(&c.job);
}

int main(int argc, char **argv) {
    const char *provider = argc > 1 ? argv[1] : "shm", *only = argc > 4 ? argv[4] : NULL;
    int64_t bytes_max = argc > 2 ? atoll(argv[2]) : 256 << 20;
    int rounds = argc > 3 ? atoi(argv[3]) : 15;
    troupe_comm *comm = NULL;
    EXPECT(rounds >= 1 && rounds <= ROUNDS_MAX, "%d rounds, at most %d", rounds, ROUNDS_MAX);
    EXPECT_OK(troupe_comm_open(&(struct troupe_comm_options){.provider = provider}, &comm));
    if (troupe_comm_rank(comm) == 0) {
        printf("%d ranks, %s, %d rounds\n%-28s %8s  %10s %10s %10s  %s\n", troupe_comm_size(comm),
               troupe_comm_name(comm), rounds, "", "MiB", "route us", "alltoallv", "leader",
               "/ alltoallv         / leader");
    }
    for (size_t c = 0; c < TROUPE_COUNT_OF(cases); c++) {
        if (cases[c].ranks != troupe_comm_size(comm) ||
            (only != NULL && strstr(cases[c].name, only) == NULL)) {
            continue;
        }
        for (int64_t bytes = 64 << 10; bytes <= bytes_max; bytes *= 8) {
            measure(comm, &cases[c], bytes, rounds);
        }
    }
    troupe_comm_close(comm);
    return 0;
}
