/* SPDX-License-Identifier: Apache-2.0
 *
 * Collectives in stream order, on every engine alike: against exact integers in float at odd and
 * empty sizes, and bit by bit against the host groups where the order of a sum is promised
 * (MODE any leaves it to NCCL). device_job.h says how it is started.
 */
#include "comm/group_stream.h"

#include "tests/dist/device_job.h"

enum { GROUPS = 4, COUNT_MAX = (1 << 20) + 3, MOVE_MAX = 3 << 20 };

/* What a test needs of the groups of its rank. */
struct groups {
    troupe_group *all;   /* every rank, in descending order */
    troupe_group *half;  /* the even or the odd ranks */
    troupe_group *alone; /* this rank */
    bool any_order;
    float *device, *more;   /* COUNT_MAX values */
    float *host, *expected; /* the same */
};

static struct groups *groups_of(struct device_job *job) {
    return job->arg;
}

static const int64_t counts[] = {0, 1, 2, 3, 5, 31, 1000, 4099, 65537, COUNT_MAX};
enum { COUNTS = sizeof counts / sizeof counts[0] };

/* Small integers: their sums are exact in any order. */
static float whole(int rank, int64_t element) {
    return (float)((element * 7 + rank * 13) % 101 - 50);
}

static float fraction(const struct device_job *job, int rank, int64_t element) {
    return (float)troupe_random_normal(job->seed, (uint64_t)rank, (uint64_t)element);
}

static void expect_floats(const float *actual, const float *expected, int64_t count,
                          const char *what) {
    for (int64_t i = 0; i < count; i++) {
        EXPECT(memcmp(&actual[i], &expected[i], sizeof *actual) == 0,
               "%s: element %" PRId64 " of %" PRId64 " is %.9g, expected %.9g", what, i, count,
               (double)actual[i], (double)expected[i]);
    }
}

static void check_all_reduce(struct device_job *job, troupe_group *group, int64_t count,
                             bool exact) {
    struct groups *g = groups_of(job);
    size_t bytes = (size_t)count * sizeof(float);
    for (int64_t i = 0; i < count; i++) {
        g->host[i] = exact ? whole(job->rank, i) : fraction(job, job->rank, i);
        g->expected[i] = g->host[i];
    }
    EXPECT_OK(
        troupe_group_all_reduce(group, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32, g->expected, count));
    job_copy(job, g->device, g->host, bytes);
    EXPECT_OK(troupe_group_enqueue_all_reduce(group, job->stream, TROUPE_SUM,
                                              TROUPE_ELEMENT_FLOAT32, g->device, count));
    job_finish(job, job->stream);
    job_copy(job, g->host, g->device, bytes);
    expect_floats(g->host, g->expected, count, exact ? "sum of integers" : "sum in group order");
}

static void sums_are_the_sums_of_the_host(struct device_job *job) {
    struct groups *g = groups_of(job);
    troupe_group *const groups[] = {g->all, g->half, g->alone};
    for (int k = 0; k < 3; k++) {
        for (int c = 0; c < COUNTS; c++) {
            check_all_reduce(job, groups[k], counts[c], true);
            if (!g->any_order) {
                check_all_reduce(job, groups[k], counts[c], false);
            }
        }
    }
}

static void other_elements_and_the_maximum_work(struct device_job *job) {
    enum { COUNT = 1003 };
    struct groups *g = groups_of(job);
    int64_t *host = (int64_t *)g->host;
    double *doubles = (double *)g->host;
    int n = job->size;
    for (int i = 0; i < COUNT; i++) {
        host[i] = (INT64_C(1) << 40) * (job->rank + 1) - i;
    }
    job_copy(job, g->device, host, COUNT * sizeof *host);
    EXPECT_OK(troupe_group_enqueue_all_reduce(g->all, job->stream, TROUPE_SUM, TROUPE_ELEMENT_INT64,
                                              g->device, COUNT));
    EXPECT_OK(troupe_group_enqueue_all_reduce(g->all, job->stream, TROUPE_MAX,
                                              TROUPE_ELEMENT_UINT64, g->device, COUNT));
    job_finish(job, job->stream);
    job_copy(job, host, g->device, COUNT * sizeof *host);
    for (int i = 0; i < COUNT; i++) {
        EXPECT_EQ(host[i], (INT64_C(1) << 40) * n * (n + 1) / 2 - (int64_t)n * i);
        doubles[i] = -0.5 * (job->rank + i);
    }
    job_copy(job, g->device, doubles, COUNT * sizeof *doubles);
    EXPECT_OK(troupe_group_enqueue_all_reduce(g->all, job->stream, TROUPE_MAX,
                                              TROUPE_ELEMENT_FLOAT64, g->device, COUNT));
    job_finish(job, job->stream);
    job_copy(job, doubles, g->device, COUNT * sizeof *doubles);
    for (int i = 0; i < COUNT; i++) {
        EXPECT(doubles[i] == -0.5 * i, "element %d is %g", i, doubles[i]);
    }
}

static void nan_survives_a_maximum(struct device_job *job) {
    struct groups *g = groups_of(job);
    float values[3] = {job->rank == 0 ? NAN : 1.0f, 2.0f, job->rank == job->size - 1 ? NAN : 0.0f};
    if (g->any_order) {
        return; /* NCCL's own maximum promises nothing about it */
    }
    job_copy(job, g->device, values, sizeof values);
    EXPECT_OK(troupe_group_enqueue_all_reduce(g->all, job->stream, TROUPE_MAX,
                                              TROUPE_ELEMENT_FLOAT32, g->device, 3));
    job_finish(job, job->stream);
    job_copy(job, values, g->device, sizeof values);
    EXPECT(isnan(values[0]) && values[1] == 2.0f && isnan(values[2]), "%g %g %g", (double)values[0],
           (double)values[1], (double)values[2]);
}

/* Into another buffer, and in place. */
static void reduce_scatter_leaves_each_its_block(struct device_job *job) {
    struct groups *g = groups_of(job);
    for (int c = 0; c < COUNTS; c++) {
        int64_t count = counts[c] / job->size;
        int index = troupe_group_index(g->all);
        size_t bytes = (size_t)(count * job->size) * sizeof(float);
        size_t block = (size_t)count * sizeof(float);
        for (int64_t i = 0; i < count * job->size; i++) {
            g->host[i] = g->any_order ? whole(job->rank, i) : fraction(job, job->rank, i);
        }
        EXPECT_OK(troupe_group_reduce_scatter(g->all, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32, g->host,
                                              count, g->expected));
        for (int in_place = 0; in_place < 2; in_place++) {
            float *out = in_place ? g->device + index * count : g->more;
            job_copy(job, g->device, g->host, bytes);
            EXPECT_OK(troupe_group_enqueue_reduce_scatter(
                g->all, job->stream, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32, g->device, count, out));
            job_finish(job, job->stream);
            job_copy(job, g->expected + count, out, block);
            expect_floats(g->expected + count, g->expected, count, "block of a sum");
        }
    }
}

static void gather_puts_blocks_in_group_order(struct device_job *job) {
    struct groups *g = groups_of(job);
    for (int c = 0; c < COUNTS; c++) {
        size_t bytes = (size_t)(counts[c] / job->size) * 4 + (c % 2 == 1 ? 1 : 0); /* odd, too */
        unsigned char *host = (unsigned char *)g->host;
        for (size_t i = 0; i < bytes; i++) {
            host[i] = (unsigned char)((size_t)job->rank * 31 + i * 7);
        }
        job_copy(job, g->device, host, bytes);
        EXPECT_OK(troupe_group_enqueue_all_gather(g->all, job->stream, g->device, bytes, g->more));
        job_finish(job, job->stream);
        job_copy(job, host, g->more, bytes * (size_t)job->size);
        for (int m = 0; m < job->size; m++) {
            size_t rank = (size_t)troupe_group_rank(g->all, m);
            for (size_t i = 0; i < bytes; i++) {
                EXPECT(host[(size_t)m * bytes + i] == (unsigned char)(rank * 31 + i * 7),
                       "byte %zu of member %d", i, m);
            }
        }
    }
}

static void broadcast_reaches_all_from_every_root(struct device_job *job) {
    struct groups *g = groups_of(job);
    for (int c = 0; c < COUNTS; c++) {
        int root = c % job->size;
        size_t bytes = (size_t)counts[c] * sizeof(float);
        for (int64_t i = 0; i < counts[c]; i++) {
            g->host[i] = whole(troupe_group_index(g->all) == root ? 77 : job->rank, i);
            g->expected[i] = whole(77, i);
        }
        job_copy(job, g->device, g->host, bytes);
        EXPECT_OK(troupe_group_enqueue_broadcast(g->all, job->stream, root, g->device, bytes));
        job_finish(job, job->stream);
        job_copy(job, g->host, g->device, bytes);
        expect_floats(g->host, g->expected, counts[c], "broadcast");
    }
}

static size_t move_bytes(const struct device_job *job, int from, int to, int round) {
    uint64_t stream = (uint64_t)(from * 64 + to);
    return round == 0 && (from + to) % 3 == 0
               ? 0
               : (size_t)troupe_random_below(job->seed, stream, (uint64_t)round,
                                             round == 1 ? MOVE_MAX / 8 : 3000);
}

/* All to all, sizes drawn from 0 up; twice in a row on one stream, without the host waiting. */
static void exchange_moves_every_pair(struct device_job *job) {
    struct groups *g = groups_of(job);
    for (int round = 0; round < 3; round++) {
        struct troupe_move moves[2 * 64];
        unsigned char *host = (unsigned char *)g->host;
        char *out = (char *)g->device, *in = (char *)g->more;
        int count = 0;
        size_t at = 0;
        for (int m = 0; m < job->size; m++) {
            int peer = troupe_group_rank(g->all, m);
            size_t bytes = move_bytes(job, job->rank, peer, round);
            if (peer == job->rank) {
                continue;
            }
            for (size_t i = 0; i < bytes; i++) {
                host[at + i] = (unsigned char)((size_t)(job->rank * 5 + peer) + i * 3);
            }
            moves[count++] = (struct troupe_move){m, true, out + at, bytes};
            at += bytes;
        }
        job_copy(job, out, host, at);
        at = 0;
        for (int m = 0; m < job->size; m++) {
            int peer = troupe_group_rank(g->all, m);
            if (peer != job->rank) {
                size_t bytes = move_bytes(job, peer, job->rank, round);
                moves[count++] = (struct troupe_move){m, false, in + at, bytes};
                at += bytes;
            }
        }
        EXPECT_OK(troupe_group_enqueue_exchange(g->all, job->stream, moves, count));
        EXPECT_OK(troupe_group_enqueue_exchange(g->all, job->stream, moves, count));
        job_finish(job, job->stream);
        job_copy(job, host, in, at);
        at = 0;
        for (int k = count / 2; k < count; k++) {
            int peer = troupe_group_rank(g->all, moves[k].member);
            for (size_t i = 0; i < moves[k].bytes; i++) {
                EXPECT(host[at + i] == (unsigned char)((size_t)(peer * 5 + job->rank) + i * 3),
                       "round %d: byte %zu of %zu from rank %d", round, i, moves[k].bytes, peer);
            }
            at += moves[k].bytes;
        }
    }
}

/* Twenty-one operations, each on the result of the one before; the host waits once. */
static void operations_keep_their_place_in_the_stream(struct device_job *job) {
    enum { COUNT = 5000, TIMES = 7 };
    struct groups *g = groups_of(job);
    const size_t bytes = COUNT * sizeof(float);
    size_t last = (size_t)(troupe_group_size(g->half) - 1) * COUNT;
    struct troupe_copy back = {
        .to = g->device, .from = g->more + last, .rows = 1, .row_bytes = bytes};
    float expected = 1.0f;
    for (int i = 0; i < COUNT; i++) {
        g->host[i] = 1.0f;
    }
    job_copy(job, g->device, g->host, bytes);
    troupe_memory_set_steady(true); /* nor does it allocate */
    for (int t = 0; t < TIMES; t++) {
        EXPECT_OK(troupe_group_enqueue_all_reduce(g->all, job->stream, TROUPE_SUM,
                                                  TROUPE_ELEMENT_FLOAT32, g->device, COUNT));
        EXPECT_OK(troupe_group_enqueue_all_gather(g->half, job->stream, g->device, bytes, g->more));
        EXPECT_OK(troupe_stream_copy(job->stream, &back));
        expected *= (float)job->size;
    }
    troupe_memory_set_steady(false);
    job_finish(job, job->stream);
    job_copy(job, g->host, g->device, bytes);
    for (int i = 0; i < COUNT; i++) {
        EXPECT(g->host[i] == expected, "element %d is %g, expected %g", i, (double)g->host[i],
               (double)expected);
    }
}

static void what_cannot_serve_says_why(struct device_job *job) {
    struct troupe_group_device_options options = {.engine = "pigeons"};
    EXPECT_ERROR(troupe_groups_open_device(job->comm, job->device, NULL, 0, &options),
                 TROUPE_ERROR_UNSUPPORTED, "no collectives by pigeons on ");
    EXPECT_ERROR(troupe_groups_open_device(job->comm, job->device, NULL, 0, &options),
                 TROUPE_ERROR_UNSUPPORTED, "staged");
    options.engine = "nccl";
    if (job->kind != TROUPE_DEVICE_CUDA) {
        EXPECT_ERROR(troupe_groups_open_device(job->comm, job->device, NULL, 0, &options),
                     TROUPE_ERROR_UNSUPPORTED, "nccl");
    }
    if (job->size > 1) {
        options.engine = job->rank == job->size - 1 ? "staged" : "auto";
        EXPECT_ERROR(troupe_groups_open_device(job->comm, job->device, NULL, 0, &options),
                     TROUPE_ERROR_INVALID, "start one program with one setting on all ranks");
    }
}

/* Each rank gives its groups in an order of its own. */
static void open_groups(struct device_job *job) {
    struct groups *g = groups_of(job);
    int all[64], half[64], half_count = 0;
    g->any_order = strcmp(job->mode, "any") == 0;
    for (int r = 0; r < job->size; r++) {
        all[r] = job->size - 1 - r;
        if (r % 2 == job->rank % 2) {
            half[half_count++] = r;
        }
    }
    g->all = job_group(job, all, job->size, 9, COUNT_MAX * sizeof(float));
    g->half =
        job_group(job, half, half_count, 5 + (uint32_t)(job->rank % 2), COUNT_MAX * sizeof(float));
    g->alone = job_group(job, &job->rank, 1, 7, COUNT_MAX * sizeof(float));
    troupe_group *list[GROUPS] = {g->all, NULL, g->half, g->alone};
    if (job->rank % 2 == 1) {
        list[0] = g->half;
        list[2] = g->all;
    }
    struct troupe_group_device_options options = {.engine = job->engine, .any_order = g->any_order};
    EXPECT_OK(troupe_groups_open_device(job->comm, job->device, list, GROUPS, &options));
    EXPECT_STRING(troupe_group_engine_name(g->all), job->size > 1 ? job->engine : "host");
}

static void body(struct device_job *job) {
    struct groups groups = {0};
    job->arg = &groups;
    groups.host = job_alloc_host(COUNT_MAX * sizeof(double));
    groups.expected = job_alloc_host(COUNT_MAX * 2 * sizeof(float));
    groups.device = job_alloc(job, COUNT_MAX * sizeof(double));
    groups.more = job_alloc(job, COUNT_MAX * sizeof(double));
    JOB_TEST(job, what_cannot_serve_says_why);
    JOB_TEST(job, open_groups);
    JOB_TEST(job, sums_are_the_sums_of_the_host);
    JOB_TEST(job, other_elements_and_the_maximum_work);
    JOB_TEST(job, nan_survives_a_maximum);
    JOB_TEST(job, reduce_scatter_leaves_each_its_block);
    JOB_TEST(job, gather_puts_blocks_in_group_order);
    JOB_TEST(job, broadcast_reaches_all_from_every_root);
    JOB_TEST(job, exchange_moves_every_pair);
    JOB_TEST(job, operations_keep_their_place_in_the_stream);
    troupe_group_destroy(groups.all);
    troupe_group_destroy(groups.half);
    troupe_group_destroy(groups.alone);
    troupe_free(groups.host);
    troupe_free(groups.expected);
    troupe_device_free(job->device, groups.device);
    troupe_device_free(job->device, groups.more);
}

int main(int argc, char **argv) {
    return device_job_main(argc, argv, body);
}
