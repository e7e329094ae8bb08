/* SPDX-License-Identifier: Apache-2.0
 *
 * Times every kernel at the sizes of a small image-to-text model: best of several runs, as GFLOP/s
 * and GB/s (operands counted once, twice where they are read and written), to be held against the
 * machine's peak and memory speed.
 *
 *     bench.kernels [threads] [reference]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "modules/kernels/kernels.h"
#include "runtime/clock.h"
#include "runtime/device.h"
#include "runtime/memory.h"
#include "runtime/random.h"
#include "runtime/workers.h"

enum {
    OPERANDS_MAX = 9,
    REPEATS = 25,
    SEGMENTS = 12,
    ROWS = 1200, /* tokens of one microbatch: SEGMENTS samples of 100 */
    HIDDEN = 256,
    FFN = 688,
    HEADS = 8,
    KV_HEADS = 4,
    HEAD_DIM = 32,
    VISION = 192,
    VISION_FFN = 768,
    VISION_HEADS = 3,
    PARAMETERS = 1000000,
};

struct entry {
    const char *name;
    troupe_status (*run)(const struct troupe_kernels *k, troupe_stream *stream,
                         const struct troupe_tensor *t);
    double flops;
    int64_t shape[OPERANDS_MAX][2]; /* rows, columns of each operand; ends with 0 rows */
    unsigned updated;               /* bit i: operand i is read and written */
};

static int32_t cu_len[SEGMENTS + 1];
static int32_t index_of_row[ROWS]; /* a permutation of the rows */
static int32_t token[ROWS];        /* below 256 */

#define RUN(name)                                                                                  \
    static troupe_status run_##name(const struct troupe_kernels *k, troupe_stream *stream,         \
                                    const struct troupe_tensor *t)

RUN(linear) {
    return k->matmul(stream,
                     &(struct troupe_matmul){
                         .a = t[0], .b = t[1], .c = t[2], .bias = t[3], .transpose_b = true});
}
RUN(linear_input) {
    return k->matmul(stream, &(struct troupe_matmul){.a = t[0], .b = t[1], .c = t[2]});
}
RUN(linear_weight) {
    return k->matmul(stream,
                     &(struct troupe_matmul){
                         .a = t[0], .b = t[1], .c = t[2], .transpose_a = true, .accumulate = true});
}
RUN(bias_add) {
    return k->bias_add(stream, &(struct troupe_bias_add){t[0], t[1]});
}
RUN(column_sum) {
    return k->column_sum(stream, &(struct troupe_column_sum){t[0], t[1], true});
}

static struct troupe_norm norm_op(const struct troupe_tensor *t) {
    return (struct troupe_norm){.x = t[0],
                                .y = t[1],
                                .weight = t[2],
                                .bias = t[3],
                                .mean = t[4].data,
                                .rstd = t[5].data,
                                .epsilon = 1e-5f};
}
RUN(layernorm) {
    struct troupe_norm op = norm_op(t);
    return k->layernorm(stream, &op);
}
RUN(rmsnorm) {
    struct troupe_norm op = norm_op(t);
    return k->rmsnorm(stream, &op);
}

static struct troupe_norm_backward_input norm_input_op(const struct troupe_tensor *t) {
    return (struct troupe_norm_backward_input){.x = t[0],
                                               .dy = t[1],
                                               .dx = t[2],
                                               .weight = t[3],
                                               .mean = t[4].data,
                                               .rstd = t[5].data,
                                               .accumulate = true};
}
RUN(layernorm_backward_input) {
    struct troupe_norm_backward_input op = norm_input_op(t);
    return k->layernorm_backward_input(stream, &op);
}
RUN(rmsnorm_backward_input) {
    struct troupe_norm_backward_input op = norm_input_op(t);
    return k->rmsnorm_backward_input(stream, &op);
}

static struct troupe_norm_backward_weight norm_weight_op(const struct troupe_tensor *t) {
    return (struct troupe_norm_backward_weight){.x = t[0],
                                                .dy = t[1],
                                                .dweight = t[2],
                                                .dbias = t[3],
                                                .mean = t[4].data,
                                                .rstd = t[5].data,
                                                .accumulate = true};
}
RUN(layernorm_backward_weight) {
    struct troupe_norm_backward_weight op = norm_weight_op(t);
    return k->layernorm_backward_weight(stream, &op);
}
RUN(rmsnorm_backward_weight) {
    struct troupe_norm_backward_weight op = norm_weight_op(t);
    return k->rmsnorm_backward_weight(stream, &op);
}
RUN(gelu) {
    return k->gelu(stream, &(struct troupe_gelu){t[0], t[1]});
}
RUN(gelu_backward) {
    return k->gelu_backward(stream, &(struct troupe_gelu_backward){t[0], t[1], t[2]});
}
RUN(swiglu) {
    return k->swiglu(stream, &(struct troupe_swiglu){t[0], t[1], t[2]});
}
RUN(swiglu_backward) {
    return k->swiglu_backward(stream,
                              &(struct troupe_swiglu_backward){t[0], t[1], t[2], t[3], t[4]});
}
RUN(rope) {
    return k->rope(stream,
                   &(struct troupe_rope){.x = t[0], .y = t[0], .table = t[1], .positions = token});
}

static struct troupe_attention attention_op(const struct troupe_tensor *t, bool causal) {
    return (struct troupe_attention){.q = t[0],
                                     .k = t[1],
                                     .v = t[2],
                                     .o = t[3],
                                     .lse = t[4],
                                     .cu_len = cu_len,
                                     .segments = SEGMENTS,
                                     .heads = causal ? HEADS : VISION_HEADS,
                                     .kv_heads = causal ? KV_HEADS : VISION_HEADS,
                                     .head_dim = causal ? HEAD_DIM : VISION / VISION_HEADS,
                                     .causal = causal};
}
RUN(attention_causal) {
    struct troupe_attention op = attention_op(t, true);
    return k->attention(stream, &op);
}
RUN(attention_full) {
    struct troupe_attention op = attention_op(t, false);
    return k->attention(stream, &op);
}
RUN(attention_causal_backward) {
    return k->attention_backward(
        stream, &(struct troupe_attention_backward){attention_op(t, true), t[5], t[6], t[7], t[8]});
}
RUN(attention_full_backward) {
    return k->attention_backward(stream, &(struct troupe_attention_backward){
                                             attention_op(t, false), t[5], t[6], t[7], t[8]});
}
RUN(embedding) {
    return k->embedding(stream, &(struct troupe_embedding){t[0], token, 0, t[1]});
}
RUN(embedding_backward) {
    return k->embedding_backward(stream, &(struct troupe_embedding_backward){t[0], token, 0, t[1]});
}
RUN(rows_copy) {
    return k->rows_copy(stream, &(struct troupe_rows){t[0], t[1], NULL, index_of_row, ROWS});
}
RUN(rows_add) {
    return k->rows_add(stream, &(struct troupe_rows){t[0], t[1], NULL, token, ROWS});
}
RUN(add) {
    return k->add(stream, &(struct troupe_add){t[0], t[1], t[2]});
}
RUN(row_max) {
    return k->row_max(stream, &(struct troupe_row_max){t[0], t[1].data});
}
RUN(row_sum_exp) {
    return k->row_sum_exp(
        stream, &(struct troupe_row_sum_exp){t[0], t[1].data, token, 0, t[2].data, t[3].data});
}
RUN(cross_entropy_backward) {
    return k->cross_entropy_backward(stream, &(struct troupe_cross_entropy_backward){
                                                 t[0], t[1].data, t[2].data, token, 0, 1e-3f});
}
RUN(adamw) {
    struct troupe_adamw op = {t[0], t[1], t[2], t[3], 1e-3, 0.9, 0.95, 1e-8, 0.1, 1.0, 10};
    return k->adamw(stream, &op);
}
RUN(square_sum) {
    double sum;
    return k->square_sum(stream, &(struct troupe_square_sum){t[0], &sum});
}
RUN(first_nonfinite) {
    int64_t row;
    return k->first_nonfinite(stream, &(struct troupe_first_nonfinite){t[0], &row});
}

#define LINEAR(m, n, k)                                                                            \
    {"matmul forward", run_linear, 2.0 * (m) * (n) * (k), {{m, k}, {n, k}, {m, n}, {1, n}}, 0},    \
        {"matmul backward_input",                                                                  \
         run_linear_input,                                                                         \
         2.0 * (m) * (n) * (k),                                                                    \
         {{m, n}, {n, k}, {m, k}},                                                                 \
         0},                                                                                       \
    {                                                                                              \
        "matmul backward_weight", run_linear_weight, 2.0 * (m) * (n) * (k),                        \
            {{m, n}, {m, k}, {n, k}}, 4                                                            \
    }
#define R_C                                                                                        \
    { ROWS, HIDDEN }
#define R_F                                                                                        \
    { ROWS, FFN }
#define R_V                                                                                        \
    { ROWS, VISION }
#define R_G                                                                                        \
    { ROWS, KV_HEADS *HEAD_DIM }
#define STATISTICS                                                                                 \
    { 1, ROWS }
#define WEIGHT                                                                                     \
    { 1, HIDDEN }
/* products of a row with the rows of its segment, forward and backward */
#define PAIRS (2.0 * ROWS * ROWS / SEGMENTS)

static const struct entry entries[] = {
    LINEAR(ROWS, HIDDEN, HIDDEN),
    LINEAR(ROWS, FFN, HIDDEN),
    LINEAR(ROWS, VISION, VISION),
    LINEAR(ROWS, VISION_FFN, VISION),
    LINEAR(ROWS, 261, HIDDEN),
    LINEAR(ROWS, 8000, HIDDEN),
    {"bias_add", run_bias_add, 1.0 * ROWS *HIDDEN, {R_C, WEIGHT}, 1},
    {"column_sum", run_column_sum, 1.0 * ROWS *HIDDEN, {R_C, WEIGHT}, 0},
    {"layernorm",
     run_layernorm,
     8.0 * ROWS *HIDDEN,
     {R_C, R_C, WEIGHT, WEIGHT, STATISTICS, STATISTICS},
     0},
    {"layernorm_backward_input",
     run_layernorm_backward_input,
     11.0 * ROWS *HIDDEN,
     {R_C, R_C, R_C, WEIGHT, STATISTICS, STATISTICS},
     4},
    {"layernorm_backward_weight",
     run_layernorm_backward_weight,
     5.0 * ROWS *HIDDEN,
     {R_C, R_C, WEIGHT, WEIGHT, STATISTICS, STATISTICS},
     0},
    {"rmsnorm",
     run_rmsnorm,
     5.0 * ROWS *HIDDEN,
     {R_C, R_C, WEIGHT, WEIGHT, STATISTICS, STATISTICS},
     0},
    {"rmsnorm_backward_input",
     run_rmsnorm_backward_input,
     9.0 * ROWS *HIDDEN,
     {R_C, R_C, R_C, WEIGHT, STATISTICS, STATISTICS},
     4},
    {"rmsnorm_backward_weight",
     run_rmsnorm_backward_weight,
     3.0 * ROWS *HIDDEN,
     {R_C, R_C, WEIGHT, WEIGHT, STATISTICS, STATISTICS},
     0},
    {"gelu", run_gelu, 60.0 * ROWS *VISION_FFN, {{ROWS, VISION_FFN}, {ROWS, VISION_FFN}}, 0},
    {"gelu_backward",
     run_gelu_backward,
     90.0 * ROWS *VISION_FFN,
     {{ROWS, VISION_FFN}, {ROWS, VISION_FFN}, {ROWS, VISION_FFN}},
     0},
    {"swiglu", run_swiglu, 30.0 * ROWS *FFN, {R_F, R_F, R_F}, 0},
    {"swiglu_backward", run_swiglu_backward, 35.0 * ROWS *FFN, {R_F, R_F, R_F, R_F, R_F}, 0},
    {"rope", run_rope, 3.0 * ROWS *HIDDEN, {R_C, {256, HEAD_DIM}}, 1},
    {"attention causal",
     run_attention_causal,
     PAIRS *HEADS *HEAD_DIM,
     {R_C, R_G, R_G, R_C, {ROWS, HEADS}},
     0},
    {"attention causal backward",
     run_attention_causal_backward,
     2.5 * PAIRS *HEADS *HEAD_DIM,
     {R_C, R_G, R_G, R_C, {ROWS, HEADS}, R_C, R_C, R_G, R_G},
     0},
    {"attention full",
     run_attention_full,
     2 * PAIRS *VISION,
     {R_V, R_V, R_V, R_V, {ROWS, VISION_HEADS}},
     0},
    {"attention full backward",
     run_attention_full_backward,
     5 * PAIRS *VISION,
     {R_V, R_V, R_V, R_V, {ROWS, VISION_HEADS}, R_V, R_V, R_V, R_V},
     0},
    {"embedding", run_embedding, 0, {{261, HIDDEN}, R_C}, 0},
    {"embedding_backward", run_embedding_backward, 1.0 * ROWS *HIDDEN, {R_C, {261, HIDDEN}}, 0},
    {"rows_copy", run_rows_copy, 0, {R_C, R_C}, 0},
    {"rows_add", run_rows_add, 1.0 * ROWS *HIDDEN, {R_C, R_C}, 2},
    {"add", run_add, 1.0 * ROWS *HIDDEN, {R_C, R_C, R_C}, 0},
    {"row_max", run_row_max, 1.0 * ROWS * 8000, {{ROWS, 8000}, STATISTICS}, 0},
    {"row_sum_exp",
     run_row_sum_exp,
     20.0 * ROWS * 8000,
     {{ROWS, 8000}, STATISTICS, STATISTICS, STATISTICS},
     0},
    {"cross_entropy_backward",
     run_cross_entropy_backward,
     20.0 * ROWS * 8000,
     {{ROWS, 8000}, STATISTICS, STATISTICS},
     1},
    {"adamw",
     run_adamw,
     14.0 * PARAMETERS,
     {{1, PARAMETERS}, {1, PARAMETERS}, {1, PARAMETERS}, {1, PARAMETERS}},
     13},
    {"square_sum", run_square_sum, 2.0 * PARAMETERS, {{1, PARAMETERS}}, 0},
    {"first_nonfinite", run_first_nonfinite, 1.0 * PARAMETERS, {{1, PARAMETERS}}, 0},
};

static void make_indices(void) {
    for (int32_t i = 0; i <= SEGMENTS; i++) {
        cu_len[i] = i * (ROWS / SEGMENTS);
    }
    for (int32_t i = 0; i < ROWS; i++) {
        index_of_row[i] = i * 7 % ROWS;
        token[i] = i * 31 % 256;
    }
}

static troupe_status make_operands(const struct entry *entry, struct troupe_tensor *t,
                                   double *bytes) {
    for (int i = 0; i < OPERANDS_MAX && entry->shape[i][0] > 0; i++) {
        int64_t rows = entry->shape[i][0], columns = entry->shape[i][1];
        float *data = NULL;
        TROUPE_TRY(TROUPE_NEW(&data, rows * columns));
        for (int64_t e = 0; e < rows * columns; e++) {
            data[e] = (float)troupe_random_uniform(1, (uint64_t)i, (uint64_t)e) + 0.1f;
        }
        t[i] = (struct troupe_tensor){data, rows, columns, columns, TROUPE_FLOAT32};
        *bytes += 4.0 * (double)(rows * columns) * ((entry->updated >> i & 1) + 1);
    }
    return TROUPE_OK;
}

static troupe_status measure(const struct entry *entry, const struct troupe_kernels *k,
                             troupe_stream *stream) {
    struct troupe_tensor t[OPERANDS_MAX] = {0};
    double bytes = 0, best = 1e9;
    TROUPE_TRY(make_operands(entry, t, &bytes));
    for (int i = 0; i < REPEATS; i++) {
        uint64_t begin = troupe_clock_ns();
        TROUPE_TRY(entry->run(k, stream, t));
        double seconds = troupe_clock_seconds(begin, troupe_clock_ns());
        best = seconds < best ? seconds : best;
    }
    printf("%-27s", entry->name);
    char shapes[64] = "";
    for (int i = 0; i < 2 && t[i].data != NULL; i++) {
        size_t used = strlen(shapes);
        snprintf(shapes + used, sizeof(shapes) - used, "%s%lld x %lld", i > 0 ? ", " : "",
                 (long long)t[i].rows, (long long)t[i].columns);
    }
    printf(" %-26s %9.1f us %8.1f GFLOP/s %8.1f GB/s\n", shapes, best * 1e6,
           entry->flops / best * 1e-9, bytes / best * 1e-9);
    for (int i = 0; i < OPERANDS_MAX; i++) {
        troupe_free(t[i].data);
    }
    return TROUPE_OK;
}

static troupe_status bench(int threads, const struct troupe_kernels *k) {
    troupe_workers *workers = NULL;
    troupe_device *device = NULL;
    troupe_stream *stream = NULL;
    TROUPE_TRY(troupe_workers_create(&(struct troupe_workers_options){.count = threads}, &workers));
    TROUPE_TRY(troupe_device_open(TROUPE_DEVICE_CPU,
                                  &(struct troupe_device_options){.workers = workers}, &device));
    TROUPE_TRY(troupe_stream_create(device, &stream));
    printf("table %s, %d threads, best of %d\n", k->name, threads, REPEATS);
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        TROUPE_TRY(measure(&entries[i], k, stream));
    }
    troupe_stream_destroy(stream);
    troupe_device_close(device);
    troupe_workers_destroy(workers);
    return TROUPE_OK;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    bool reference = argc > 2 && strcmp(argv[2], "reference") == 0;
    make_indices();
    troupe_status status = bench(threads, reference ? troupe_kernels_reference()
                                                    : troupe_kernels_for(TROUPE_DEVICE_CPU));
    if (status != TROUPE_OK) {
        fprintf(stderr, "%s\n", troupe_last_error());
    }
    return status == TROUPE_OK ? 0 : 1;
}
