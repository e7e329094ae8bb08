/* SPDX-License-Identifier: Apache-2.0
 *
 * How a kernel is tested. A case lists the operands of one call. check_case runs it with the
 * reference and with the fast table of a device: every result is within the tolerance of the
 * reference, fully written (outputs start as NaN), and nothing beside the operands changes (rows
 * have a poisoned gap). The device is the CPU, where teams of 1, 2 and 3 give the bits of the
 * serial run, or a GPU (argument `cuda`; `sim`: the simulated device), where a second run gives the
 * bits of the first.
 * check_gradient compares a backward with finite differences of a forward, both of the reference.
 *
 *     int main(int argc, char **argv) {
 *         seed = kernel_test_begin(argc, argv);
 *         TEST(claim_with_check_case);
 *         TEST_ON_CPU(claim_about_the_reference_or_the_cpu_table);
 *         return kernel_test_end();
 *     }
 */
#ifndef TROUPE_TESTS_KERNELS_KERNEL_CASE_H
#define TROUPE_TESTS_KERNELS_KERNEL_CASE_H

#include "modules/kernels/kernels.h"
#include "runtime/device.h"
#include "runtime/memory.h"
#include "runtime/random.h"
#include "runtime/workers.h"
#include "tests/test.h"

enum { OPERANDS_MAX = 12, TEAMS = 4, GAP = 3 };

/* INPUT and ACCUMULATED start random, SQUARED as squares of that, OUTPUT as NaN. */
enum role { INPUT, ACCUMULATED, SQUARED, OUTPUT };

struct operand {
    enum role role;
    int64_t rows;
    int64_t columns;
    int64_t gap;
};

typedef troupe_status (*kernel_call)(const struct troupe_kernels *kernels, troupe_stream *stream,
                                     const struct troupe_tensor *t, const void *arg);

struct kernel_case {
    const char *name;
    kernel_call call;
    const void *arg;
    struct operand operand[OPERANDS_MAX];
    int count;
    int64_t terms; /* longest sum; sets the tolerance */
};

static const float poison = 12345.0f;

/* float32 rounding of a sum of n terms, relative to the largest result of the tensor: 2^-23 times
 * a constant for the function itself and a random walk for the sum. */
static inline double tolerance_of(int64_t terms) {
    return 0x1p-23 * (16 + 4 * sqrt((double)terms));
}

static inline float *at(const struct troupe_tensor *t, int64_t row) {
    return (float *)t->data + row * t->stride;
}

static inline struct troupe_tensor make_tensor(const struct operand *o, uint64_t seed,
                                               uint64_t stream) {
    struct troupe_tensor t = {NULL, o->rows, o->columns, o->columns + o->gap, TROUPE_FLOAT32};
    float *data = NULL;
    EXPECT_OK(TROUPE_NEW(&data, t.rows * t.stride + 1));
    t.data = data;
    for (int64_t i = 0; i < t.rows * t.stride + 1; i++) {
        bool gap = i == t.rows * t.stride || i % t.stride >= t.columns;
        float value = (float)troupe_random_normal(seed, stream, (uint64_t)i);
        value *= o->role == SQUARED ? value : 1.0f;
        data[i] = gap ? poison : o->role == OUTPUT ? NAN : value;
    }
    return t;
}

static inline void expect_gap_untouched(const char *name, const struct troupe_tensor *t) {
    for (int64_t r = 0; r < t->rows; r++) {
        for (int64_t c = t->columns; c < t->stride; c++) {
            EXPECT(at(t, r)[c] == poison, "%s wrote beside row %lld", name, (long long)r);
        }
    }
    EXPECT(((float *)t->data)[t->rows * t->stride] == poison, "%s wrote behind the end", name);
}

static inline double largest_of(const struct troupe_tensor *t) {
    double largest = 0;
    for (int64_t r = 0; r < t->rows; r++) {
        for (int64_t c = 0; c < t->columns; c++) {
            largest = fmax(largest, fabs(at(t, r)[c]));
        }
    }
    return largest;
}

static inline void expect_close(const struct kernel_case *kc, int operand,
                                const struct troupe_tensor *actual,
                                const struct troupe_tensor *expected) {
    double tolerance = tolerance_of(kc->terms) * fmax(largest_of(expected), 1e-30);
    for (int64_t r = 0; r < actual->rows; r++) {
        for (int64_t c = 0; c < actual->columns; c++) {
            double a = at(actual, r)[c], e = at(expected, r)[c];
            EXPECT(fabs(a - e) <= tolerance,
                   "%s: operand %d [%lld, %lld] is %.9g, reference %.9g, tolerance %.3g", kc->name,
                   operand, (long long)r, (long long)c, a, e, tolerance);
        }
    }
}

static inline void expect_same_bits(const struct kernel_case *kc, int team,
                                    const struct troupe_tensor *actual,
                                    const struct troupe_tensor *expected) {
    for (int64_t r = 0; r < actual->rows; r++) {
        EXPECT(memcmp(at(actual, r), at(expected, r), (size_t)actual->columns * 4) == 0,
               "%s: row %lld differs between two runs (a team of %d)", kc->name, (long long)r,
               team);
    }
}

static inline void make_operands(const struct kernel_case *kc, uint64_t seed,
                                 struct troupe_tensor *out) {
    for (int i = 0; i < kc->count; i++) {
        out[i] = make_tensor(&kc->operand[i], seed, (uint64_t)i);
    }
}

static inline void free_operands(const struct kernel_case *kc, struct troupe_tensor *t) {
    for (int i = 0; i < kc->count; i++) {
        troupe_free(t[i].data);
    }
}

/* The GPU under test; its device is NULL when the CPU is. */
static struct {
    troupe_device *device;
    troupe_stream *stream;
    void *cell; /* CELLS results of one number */
} gpu;

enum { CELLS = 2, CELL_BYTES = 8 };

static inline uint64_t kernel_test_begin(int argc, char **argv) {
    bool simulated = argc > 1 && strcmp(argv[1], "sim") == 0;
    enum troupe_device_kind kind = simulated ? TROUPE_DEVICE_SIM : TROUPE_DEVICE_CUDA;
    if (simulated || (argc > 1 && strcmp(argv[1], "cuda") == 0)) {
        if (troupe_device_count(kind) == 0) {
            char why[128];
            troupe_device_summary(kind, why, sizeof(why));
            printf("skipped: %s\n", why);
            exit(TEST_SKIPPED);
        }
        struct troupe_device_options options = {.index = 0};
        EXPECT_OK(troupe_device_open(kind, &options, &gpu.device));
        EXPECT_OK(troupe_stream_create(gpu.device, &gpu.stream));
        EXPECT_OK(troupe_device_alloc_host(gpu.device, CELLS * CELL_BYTES, &gpu.cell));
        printf("  %s\n", troupe_device_name(gpu.device));
    }
    return test_seed();
}

static inline int kernel_test_end(void) {
    if (gpu.device != NULL) {
        troupe_device_free_host(gpu.device, gpu.cell);
        troupe_stream_destroy(gpu.stream);
        troupe_device_close(gpu.device);
    }
    return TEST_END();
}

#define TEST_ON_CPU(claim)                                                                         \
    do {                                                                                           \
        if (gpu.device == NULL) {                                                                  \
            TEST(claim);                                                                           \
        }                                                                                          \
    } while (0)

/* Memory for a result of one number that the stream's device writes. */
static inline void *result_cell(troupe_stream *stream, int index) {
    static uint64_t on_host[CELLS];
    bool on_gpu = stream != NULL && stream == gpu.stream;
    return on_gpu ? (char *)gpu.cell + index * CELL_BYTES : (void *)&on_host[index];
}

/* Host code looks at results next. */
static inline void await_results(troupe_stream *stream) {
    if (stream != NULL) {
        EXPECT_OK(troupe_stream_synchronize(stream));
    }
}

/* A CPU stream with a team of `count`, or none for 0. */
struct team {
    troupe_workers *workers;
    troupe_device *device;
    troupe_stream *stream;
};

static inline struct team team_open(int count) {
    struct team team = {0};
    if (count > 0) {
        struct troupe_workers_options options = {.count = count};
        EXPECT_OK(troupe_workers_create(&options, &team.workers));
        struct troupe_device_options device = {.workers = team.workers};
        EXPECT_OK(troupe_device_open(TROUPE_DEVICE_CPU, &device, &team.device));
        EXPECT_OK(troupe_stream_create(team.device, &team.stream));
    }
    return team;
}

static inline void team_close(struct team *team) {
    if (team->stream != NULL) {
        troupe_stream_destroy(team->stream);
        troupe_device_close(team->device);
        troupe_workers_destroy(team->workers);
    }
}

/* A whole buffer, the gaps and what lies behind the end included. */
static inline void copy_tensor(const struct troupe_tensor *to, const struct troupe_tensor *from) {
    size_t bytes = (size_t)(to->rows * to->stride + 1) * sizeof(float);
    struct troupe_copy copy = {.to = to->data, .from = from->data, .rows = 1, .row_bytes = bytes};
    EXPECT_OK(troupe_stream_copy(gpu.stream, &copy));
}

/* One call on the GPU with fresh operands; the results land in `out`, made by make_operands. */
static inline void run_on_gpu(const struct kernel_case *kc, struct troupe_tensor *out) {
    struct troupe_tensor there[OPERANDS_MAX];
    for (int i = 0; i < kc->count; i++) {
        there[i] = out[i];
        size_t bytes = (size_t)(out[i].rows * out[i].stride + 1) * sizeof(float);
        EXPECT_OK(troupe_device_alloc(gpu.device, bytes, &there[i].data));
        copy_tensor(&there[i], &out[i]);
    }
    EXPECT_OK(
        kc->call(troupe_kernels_for(troupe_device_kind(gpu.device)), gpu.stream, there, kc->arg));
    for (int i = 0; i < kc->count; i++) {
        copy_tensor(&out[i], &there[i]);
    }
    EXPECT_OK(troupe_stream_synchronize(gpu.stream));
    for (int i = 0; i < kc->count; i++) {
        troupe_device_free(gpu.device, there[i].data);
    }
}

static inline void expect_case(const struct kernel_case *kc, const struct troupe_tensor *actual,
                               const struct troupe_tensor *expected) {
    for (int i = 0; i < kc->count; i++) {
        expect_gap_untouched(kc->name, &expected[i]);
        expect_gap_untouched(kc->name, &actual[i]);
        expect_close(kc, i, &actual[i], &expected[i]);
    }
}

static inline void check_case_on_gpu(const struct kernel_case *kc, uint64_t seed,
                                     const struct troupe_tensor *expected) {
    struct troupe_tensor first[OPERANDS_MAX], second[OPERANDS_MAX];
    make_operands(kc, seed, first);
    make_operands(kc, seed, second);
    run_on_gpu(kc, first);
    expect_case(kc, first, expected);
    run_on_gpu(kc, second);
    for (int i = 0; i < kc->count; i++) {
        expect_same_bits(kc, 0, &second[i], &first[i]);
    }
    free_operands(kc, first);
    free_operands(kc, second);
}

static inline void check_case_on_cpu(const struct kernel_case *kc, uint64_t seed,
                                     const struct troupe_tensor *expected) {
    const struct troupe_kernels *fast = troupe_kernels_for(TROUPE_DEVICE_CPU);
    struct troupe_tensor serial[OPERANDS_MAX], actual[OPERANDS_MAX];
    make_operands(kc, seed, serial);
    EXPECT_OK(kc->call(fast, NULL, serial, kc->arg));
    expect_case(kc, serial, expected);
    for (int count = 1; count < TEAMS; count++) {
        struct team team = team_open(count);
        make_operands(kc, seed, actual);
        EXPECT_OK(kc->call(fast, team.stream, actual, kc->arg));
        for (int i = 0; i < kc->count; i++) {
            expect_same_bits(kc, count, &actual[i], &serial[i]);
        }
        free_operands(kc, actual);
        team_close(&team);
    }
    free_operands(kc, serial);
}

static inline void check_case(const struct kernel_case *kc, uint64_t seed) {
    struct troupe_tensor expected[OPERANDS_MAX];
    make_operands(kc, seed, expected);
    EXPECT_OK(kc->call(troupe_kernels_reference(), NULL, expected, kc->arg));
    if (gpu.device != NULL) {
        check_case_on_gpu(kc, seed, expected);
    } else {
        check_case_on_cpu(kc, seed, expected);
    }
    free_operands(kc, expected);
}

/* The operands of a pair of calls over one set of tensors. */
struct gradient_case {
    const char *name;
    kernel_call forward;
    kernel_call backward;
    const void *arg;
    struct operand operand[OPERANDS_MAX];
    int count;
    int y;            /* output of forward */
    int dy;           /* its gradient, an input of backward */
    int inputs[4];    /* operands to differentiate by ... */
    int gradients[4]; /* ... and where backward puts the gradients */
    int input_count;
};

/* sum(y * dy) in float64 after a forward. */
static inline double objective(const struct gradient_case *gc, struct troupe_tensor *t) {
    EXPECT_OK(gc->forward(troupe_kernels_reference(), NULL, t, gc->arg));
    double sum = 0;
    for (int64_t r = 0; r < t[gc->y].rows; r++) {
        for (int64_t c = 0; c < t[gc->y].columns; c++) {
            sum += (double)at(&t[gc->y], r)[c] * at(&t[gc->dy], r)[c];
        }
    }
    return sum;
}

/* Fourth-order central difference; a step of 1/32 balances its error with float32 rounding. */
static inline double difference(const struct gradient_case *gc, struct troupe_tensor *t, float *x) {
    const float step = 0x1p-5f, middle = *x;
    const double weight[4] = {1, -8, 8, -1};
    const float offset[4] = {-2, -1, 1, 2};
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        *x = middle + offset[i] * step;
        sum += weight[i] * objective(gc, t);
    }
    *x = middle;
    return sum / (12 * (double)step);
}

static inline void check_gradient(const struct gradient_case *gc, uint64_t seed) {
    struct kernel_case kc = {.name = gc->name, .count = gc->count};
    memcpy(kc.operand, gc->operand, sizeof(kc.operand));
    struct troupe_tensor t[OPERANDS_MAX];
    make_operands(&kc, seed, t);
    objective(gc, t);
    EXPECT_OK(gc->backward(troupe_kernels_reference(), NULL, t, gc->arg));
    for (int i = 0; i < gc->input_count; i++) {
        struct troupe_tensor *x = &t[gc->inputs[i]], *dx = &t[gc->gradients[i]];
        double tolerance = 1e-3 * fmax(largest_of(dx), 0.1);
        for (int64_t e = 0; e < x->rows * x->columns; e++) {
            int64_t r = e / x->columns, c = e % x->columns;
            double expected = difference(gc, t, &at(x, r)[c]), actual = at(dx, r)[c];
            EXPECT(fabs(actual - expected) <= tolerance,
                   "%s: gradient of operand %d at [%lld, %lld] is %.9g, differences give %.9g "
                   "(tolerance %.3g)",
                   gc->name, gc->inputs[i], (long long)r, (long long)c, actual, expected,
                   tolerance);
        }
    }
    free_operands(&kc, t);
}

#endif
