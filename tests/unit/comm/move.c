/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors moved between random layouts over loopback with delays: every element that a rank shall
 * hold has its value, nothing else is touched, and the bytes are those of the bound. */
#include "comm/move.h"

#include <pthread.h>

#include "runtime/device.h"
#include "runtime/random.h"
#include "tests/test.h"

enum { RANKS = 5, TENSORS = 12, CASES = 12 };

/* A matrix of rows x columns on both sides: split over `parts` ranks from `first` on, along rows or
 * columns, `copies` times. Uneven and empty parts are among them. */
struct placing {
    int first, parts, copies, dimension;
};

struct tensor {
    int64_t rows, columns;
    struct placing source, destination;
    struct troupe_layout layouts[2];
    troupe_route *route;
};

struct job {
    struct tensor tensors[TENSORS];
    troupe_loopback *world;
    int64_t received[RANKS];
};

struct rank {
    struct job *job;
    int rank;
    pthread_t thread;
};

static float value_of(int tensor, int64_t row, int64_t column) {
    return (float)(tensor * 1000003 + row * 1009 + column);
}

static void make_layout(const struct tensor *t, const struct placing *p,
                        struct troupe_layout *out) {
    EXPECT_OK(
        troupe_layout_init(&(struct troupe_layout_options){.shape = {t->rows, t->columns}}, out));
    for (int i = 0; i < p->parts * p->copies; i++) {
        int64_t extent = p->dimension == 0 ? t->rows : t->columns;
        int64_t begin = troupe_split_begin(extent, p->parts, i % p->parts);
        int64_t end = troupe_split_begin(extent, p->parts, i % p->parts + 1);
        struct troupe_box box = p->dimension == 0 ? troupe_box_2d(begin, end, 0, t->columns)
                                                  : troupe_box_2d(0, t->rows, begin, end);
        EXPECT_OK(troupe_layout_add(out, (p->first + i) % RANKS, -1, &box));
    }
}

static struct placing random_placing(uint64_t seed, uint64_t stream) {
    int parts = 1 + (int)troupe_random_below(seed, stream, 1, RANKS);
    return (struct placing){.first = (int)troupe_random_below(seed, stream, 0, RANKS),
                            .parts = parts,
                            .copies = 1 + (int)troupe_random_below(seed, stream, 2, RANKS / parts),
                            .dimension = (int)troupe_random_below(seed, stream, 3, 2)};
}

static void make_tensors(struct job *job, uint64_t seed) {
    for (int i = 0; i < TENSORS; i++) {
        struct tensor *t = &job->tensors[i];
        uint64_t stream = (uint64_t)i * 16;
        t->rows = 1 + (int64_t)troupe_random_below(seed, stream, 9, i % 3 == 0 ? 900 : 4);
        t->columns = 1 + (int64_t)troupe_random_below(seed, stream, 8, i % 4 == 1 ? 30000 : 90);
        t->source = random_placing(seed, stream + 1);
        t->destination = random_placing(seed, stream + 2);
        make_layout(t, &t->source, &t->layouts[0]);
        make_layout(t, &t->destination, &t->layouts[1]);
        EXPECT_OK(
            troupe_route_compile(&(struct troupe_route_options){.source = &t->layouts[0],
                                                                .destination = &t->layouts[1],
                                                                .element_bytes = sizeof(float)},
                                 &t->route));
    }
}

static const struct troupe_layout_piece *piece_of(const struct troupe_layout *layout, int rank) {
    for (int i = 0; i < layout->piece_count; i++) {
        if (layout->pieces[i].rank == rank) {
            return &layout->pieces[i];
        }
    }
    return NULL;
}

/* Memory of its own stride: two columns more than the box, which nothing may write. */
enum { MARGIN = 2 };
static const float untouched = -7;

static struct troupe_route_view make_view(const struct troupe_layout *layout, int rank) {
    const struct troupe_layout_piece *piece = piece_of(layout, rank);
    if (piece == NULL) {
        return (struct troupe_route_view){.data = NULL};
    }
    int64_t rows = piece->box.end[0] - piece->box.begin[0];
    int64_t stride = piece->box.end[1] - piece->box.begin[1] + MARGIN;
    float *data = malloc((size_t)(rows * stride + 1) * sizeof *data);
    for (int64_t i = 0; i < rows * stride; i++) {
        data[i] = untouched;
    }
    return (struct troupe_route_view){.data = data,
                                      .row_bytes = (size_t)stride * sizeof(float),
                                      .element_bytes = sizeof(float),
                                      .box = piece->box};
}

/* Writes the values of the box, or expects them. */
static void walk(const struct troupe_route_view *view, int tensor, bool write) {
    int64_t stride = (int64_t)(view->row_bytes / sizeof(float));
    for (int64_t r = view->box.begin[0]; view->data != NULL && r < view->box.end[0]; r++) {
        float *row = (float *)view->data + (r - view->box.begin[0]) * stride;
        for (int64_t c = view->box.begin[1]; c < view->box.end[1] + MARGIN; c++, row++) {
            float value = c < view->box.end[1] ? value_of(tensor, r, c) : untouched;
            if (write) {
                *row = value;
            } else {
                EXPECT(*row == value, "tensor %d row %" PRId64 " column %" PRId64 ": %g, not %g",
                       tensor, r, c, (double)*row, (double)value);
            }
        }
    }
}

static void *move_rank(void *arg) {
    struct rank *me = arg;
    struct job *job = me->job;
    struct troupe_moved_tensor tensors[TENSORS];
    struct troupe_route_binding *bindings[TENSORS];
    troupe_comm *comm = NULL;
    troupe_device *device = NULL;
    troupe_stream *stream = NULL;
    troupe_move *move = NULL;
    EXPECT_OK(troupe_comm_open_loopback(job->world, me->rank, &comm));
    EXPECT_OK(troupe_device_open(TROUPE_DEVICE_CPU, &(struct troupe_device_options){0}, &device));
    EXPECT_OK(troupe_stream_create(device, &stream));
    for (int i = 0; i < TENSORS; i++) {
        struct tensor *t = &job->tensors[i];
        EXPECT_OK(troupe_route_binding_create(t->route, me->rank, &bindings[i]));
        EXPECT_OK(troupe_route_bind(bindings[i], NULL, NULL));
        tensors[i] = (struct troupe_moved_tensor){.binding = bindings[i],
                                                  .from = make_view(&t->layouts[0], me->rank),
                                                  .to = make_view(&t->layouts[1], me->rank)};
        walk(&tensors[i].from, i, true);
    }
    EXPECT_OK(troupe_move_create(&(struct troupe_move_options){.comm = comm,
                                                               .stream = stream,
                                                               .tensors = tensors,
                                                               .count = TENSORS,
                                                               .staging_bytes = 1},
                                 &move));
    EXPECT_OK(troupe_move_run(move));
    job->received[me->rank] = (int64_t)troupe_move_bytes(move).received;
    troupe_move_destroy(move);
    for (int i = 0; i < TENSORS; i++) {
        walk(&tensors[i].from, i, false);
        walk(&tensors[i].to, i, false);
        free(tensors[i].from.data);
        free(tensors[i].to.data);
        troupe_route_binding_destroy(bindings[i]);
    }
    troupe_stream_destroy(stream);
    troupe_device_close(device);
    troupe_comm_close(comm);
    return NULL;
}

static void run_case(uint64_t seed) {
    static struct job job;
    struct rank ranks[RANKS];
    memset(&job, 0, sizeof job);
    make_tensors(&job, seed);
    EXPECT_OK(troupe_loopback_create(
        &(struct troupe_loopback_options){.ranks = RANKS, .seed = seed, .delay_ns_max = 50000},
        &job.world));
    for (int r = 0; r < RANKS; r++) {
        ranks[r] = (struct rank){.job = &job, .rank = r};
        EXPECT_EQ(pthread_create(&ranks[r].thread, NULL, move_rank, &ranks[r]), 0);
    }
    for (int r = 0; r < RANKS; r++) {
        pthread_join(ranks[r].thread, NULL);
    }
    troupe_loopback_destroy(job.world);
    for (int r = 0; r < RANKS; r++) {
        int64_t bound = 0;
        for (int i = 0; i < TENSORS; i++) {
            const struct troupe_layout *layouts = job.tensors[i].layouts;
            bound += troupe_layout_lacking(&layouts[0], &layouts[1], r) * (int64_t)sizeof(float);
        }
        EXPECT_EQ(job.received[r], bound);
    }
    for (int i = 0; i < TENSORS; i++) {
        troupe_route_destroy(job.tensors[i].route);
        troupe_layout_fini(&job.tensors[i].layouts[0]);
        troupe_layout_fini(&job.tensors[i].layouts[1]);
    }
}

static void every_element_arrives_and_no_byte_too_many(void) {
    uint64_t seed = test_seed();
    for (uint64_t k = 0; k < CASES; k++) {
        run_case(seed + k);
    }
}

int main(void) {
    TEST(every_element_arrives_and_no_byte_too_many);
    return TEST_END();
}
