/* SPDX-License-Identifier: Apache-2.0
 *
 * Every numerical operation of the models, once, with its shapes; one table of functions per kind
 * of device. Work goes to a stream and is done in stream order. All operands are tensors (rows x
 * columns with a row stride, so slices of fused buffers work); rows are ragged tokens, nothing is
 * padded. Each op takes one open struct, so that a call reads as a sentence:
 *
 *     const struct troupe_kernels *k = troupe_kernels_for(TROUPE_DEVICE_CPU);
 *     TROUPE_TRY(k->matmul(stream, &(struct troupe_matmul){
 *                                      .a = x, .b = w, .transpose_b = true, .bias = b, .c = y}));
 *
 * Legend: R rows, C columns, H heads, G key/value heads, D columns of a head, V vocabulary rows or
 * columns of this shard. A vector is a tensor of one row. An operand named as optional is absent
 * when its data is NULL. `accumulate` adds to the output (out += ...) where the default overwrites
 * it; gradients of parameters accumulate over microbatches. Outputs may not overlap inputs unless
 * the op says so.
 *
 * Results do not depend on the number of workers. Sums run in one fixed order; there are no
 * atomics.
 *
 * Tensors and float arrays are in the memory of the stream's device. Arrays of integers (tokens,
 * positions, indices, cu_len, targets) and pictures are in host memory: the op takes a copy, so
 * they may change when it returns. Results of one number (loss_sum, out, row_out) go, in stream
 * order, to memory that host and device reach (troupe_device_alloc_host) or to device memory.
 *
 * Ownership: the caller owns every operand; tables are constant. Nothing is allocated.
 * Threads: any, one per stream; the stream's workers help. A NULL stream is a serial CPU stream.
 * Failure: ERROR_UNSUPPORTED for a dtype that a device does not implement (only float32 today);
 * a device's own failure. Shapes that do not fit each other are the programmer's error and abort.
 */
#ifndef TROUPE_KERNELS_KERNELS_H
#define TROUPE_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/device.h"
#include "runtime/status.h"
#include "runtime/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TROUPE_HEAD_DIM_MAX = 256 }; /* columns of one attention head */

/* c = alpha * op(a) op(b) + bias, or c += ... ; op transposes where the flag is set.
 * op(a): (M, K), op(b): (K, N), c: (M, N), bias: (1, N) optional, added to every row.
 * A linear layer with weight (out, in): forward a = x, b = w, transpose_b;
 * backward_input a = dy, b = w; backward_weight a = dy, transpose_a, b = x, accumulate. */
struct troupe_matmul {
    struct troupe_tensor a;
    struct troupe_tensor b;
    struct troupe_tensor c;
    struct troupe_tensor bias;
    bool transpose_a;
    bool transpose_b;
    bool accumulate;
    float alpha; /* 0 means 1 */
};

/* x += bias on every row. x: (R, C), bias: (1, C). */
struct troupe_bias_add {
    struct troupe_tensor x;
    struct troupe_tensor bias;
};

/* out = sum over the rows of x: the gradient of a bias. x: (R, C), out: (1, C). */
struct troupe_column_sum {
    struct troupe_tensor x;
    struct troupe_tensor out;
    bool accumulate;
};

/* y = (x - mean) * rstd * weight + bias, statistics over the columns of each row.
 * x, y: (R, C), y may be x. weight, bias: (1, C). mean, rstd: (R) float32, written.
 * rmsnorm: y = x * rstd * weight with rstd = 1 / sqrt(mean(x^2) + epsilon); bias and mean unused.
 */
struct troupe_norm {
    struct troupe_tensor x;
    struct troupe_tensor weight;
    struct troupe_tensor bias;
    struct troupe_tensor y;
    float *mean;
    float *rstd;
    float epsilon;
};

/* Gradient with respect to x. x, dy, dx: (R, C); dx may be dy. mean, rstd as saved by forward. */
struct troupe_norm_backward_input {
    struct troupe_tensor x;
    struct troupe_tensor dy;
    struct troupe_tensor weight;
    const float *mean; /* unused by rmsnorm */
    const float *rstd;
    struct troupe_tensor dx;
    bool accumulate; /* dx += ...: the residual branch */
};

/* Gradient with respect to weight and bias. x, dy: (R, C); dweight, dbias: (1, C). */
struct troupe_norm_backward_weight {
    struct troupe_tensor x;
    struct troupe_tensor dy;
    const float *mean; /* unused by rmsnorm, as is dbias */
    const float *rstd;
    struct troupe_tensor dweight;
    struct troupe_tensor dbias;
    bool accumulate;
};

/* y = x * (1 + erf(x / sqrt(2))) / 2: the exact GELU. x, y: (R, C); y may be x. */
struct troupe_gelu {
    struct troupe_tensor x;
    struct troupe_tensor y;
};
/* dx = dy * gelu'(x). dx may be dy or x. */
struct troupe_gelu_backward {
    struct troupe_tensor x;
    struct troupe_tensor dy;
    struct troupe_tensor dx;
};

/* y = silu(gate) * up with silu(z) = z / (1 + exp(-z)). All (R, C); y may be gate or up. */
struct troupe_swiglu {
    struct troupe_tensor gate;
    struct troupe_tensor up;
    struct troupe_tensor y;
};
/* dgate may be gate, dup may be up; neither may be the other's input. */
struct troupe_swiglu_backward {
    struct troupe_tensor gate;
    struct troupe_tensor up;
    struct troupe_tensor dy;
    struct troupe_tensor dgate;
    struct troupe_tensor dup;
};

/* Rotation angles, once at start-up: table: (positions, D); row p holds cos(p * f_i) in columns
 * [0, D/2) and sin(p * f_i) in [D/2, D), f_i = base^(-2i/D). Computed in float64, rounded. */
struct troupe_rope_table {
    struct troupe_tensor table;
    double base; /* 0 means 10000 */
};
/* Rotates every head of every row by the row's position. Pairing is half-split, as in LLaMA's
 * Hugging Face form: columns i and i + D/2 of a head are one pair. x, y: (R, heads * D); y may be
 * x; queries and keys that lie side by side rotate in one call. positions: (R) int32 rows of the
 * table. D is table.columns, even. The gradient is the inverse rotation. */
struct troupe_rope {
    struct troupe_tensor x;
    struct troupe_tensor table;
    const int32_t *positions;
    struct troupe_tensor y;
    bool inverse;
};

/* o = softmax(scale * q k^T) v inside each segment, grouped-query: head h reads key/value head
 * h / (H / G). Segment s is rows [cu_len[s], cu_len[s + 1]); with `causal` a row sees itself and
 * the rows before it in its segment, without it the whole segment. Rows outside every segment do
 * not exist: cu_len[0] = 0, cu_len[segments] = R. Empty segments are legal.
 * q, o: (R, H * D); k, v: (R, G * D). lse: (R, H) log of the sum of exp(scale * q k^T), written.
 * A sample's result does not depend on the other samples. */
struct troupe_attention {
    struct troupe_tensor q;
    struct troupe_tensor k;
    struct troupe_tensor v;
    struct troupe_tensor o;
    struct troupe_tensor lse;
    const int32_t *cu_len; /* (segments + 1) */
    int64_t segments;
    int heads;
    int kv_heads; /* divides heads */
    int head_dim; /* D <= TROUPE_HEAD_DIM_MAX */
    float scale;  /* 0 means 1 / sqrt(D) */
    bool causal;
    void *workspace; /* attention_workspace() bytes, or NULL where that is 0 */
};
/* The forward operands again (o and lse as saved, now read), and the gradients: d_o: (R, H * D),
 * dq: (R, H * D), dk, dv: (R, G * D), overwritten. */
struct troupe_attention_backward {
    struct troupe_attention forward;
    struct troupe_tensor d_o;
    struct troupe_tensor dq;
    struct troupe_tensor dk;
    struct troupe_tensor dv;
};
/* Largest sizes the workspace has to serve. */
struct troupe_attention_bound {
    int64_t rows;
    int64_t segment_rows; /* of the longest segment */
    int heads;
    int kv_heads;
    int head_dim;
};

/* y[r] = table[tokens[r] - begin], or a row of zeros where the token is outside
 * [begin, begin + V). table: (V, C), tokens: (R) int32, y: (R, C). */
struct troupe_embedding {
    struct troupe_tensor table;
    const int32_t *tokens;
    int32_t begin;
    struct troupe_tensor y;
};
/* dtable[tokens[r] - begin] += dy[r], rows in ascending order; tokens outside are skipped. */
struct troupe_embedding_backward {
    struct troupe_tensor dy;
    const int32_t *tokens;
    int32_t begin;
    struct troupe_tensor dtable;
};

/* For i in [0, count), ascending: to[to_index[i]] = from[from_index[i]] (rows_copy) or +=
 * (rows_add). A NULL index is the identity. rows_copy: to_index has no row twice. Both: C columns.
 * Image rows into the fused sequence: rows_copy with to_index; their gradients back: rows_copy with
 * from_index. Position embedding: rows_add with from = table, from_index = position of each row;
 * its weight gradient: rows_add with to = dtable, to_index = the same. */
struct troupe_rows {
    struct troupe_tensor from;
    struct troupe_tensor to;
    const int32_t *from_index;
    const int32_t *to_index;
    int64_t count;
};

/* out = x + y. All (R, C); out may be x or y. */
struct troupe_add {
    struct troupe_tensor x;
    struct troupe_tensor y;
    struct troupe_tensor out;
};
/* y += alpha * x. */
struct troupe_axpy {
    float alpha;
    struct troupe_tensor x;
    struct troupe_tensor y;
};
/* x *= alpha. */
struct troupe_scale {
    float alpha;
    struct troupe_tensor x;
};
/* x = value. */
struct troupe_fill {
    float value;
    struct troupe_tensor x;
};

/* One decoded picture: height x width x 3 bytes, RGB. */
struct troupe_pixels {
    const uint8_t *pixels;
    int64_t stride_bytes; /* from one line to the next, >= 3 * width */
    int32_t height;
    int32_t width;
};
/* Cuts images into patch x patch squares, one row each: images in order, patches line by line.
 * Column (y * patch + x) * 3 + channel holds (value / 255 - mean[channel]) / deviation[channel].
 * Height and width are multiples of patch; out: (sum of patches, patch * patch * 3). */
struct troupe_patchify {
    const struct troupe_pixels *images;
    int64_t image_count;
    int patch;
    float mean[3];
    float deviation[3]; /* 0 means 1 */
    struct troupe_tensor out;
};

/* Cross entropy over a vocabulary that may be split over ranks by columns, in pieces so that the
 * caller all-reduces in between (max, then sum, sum); with one shard nothing is reduced.
 * logits: (R, V), columns [begin, begin + V) of the vocabulary. targets: (R) int32, -1 for a row
 * without a loss. All (R) arrays are float32, contiguous. */

/* row_max[r] = max of logits[r]; -infinity where V is 0. */
struct troupe_row_max {
    struct troupe_tensor logits;
    float *row_max;
};
/* row_sum[r] = sum of exp(logits[r] - row_max[r]); target_logit[r] = logits[r][target] - row_max[r]
 * if this shard holds the target, else 0. */
struct troupe_row_sum_exp {
    struct troupe_tensor logits;
    const float *row_max;
    const int32_t *targets;
    int32_t begin;
    float *row_sum;
    float *target_logit;
};
/* row_loss[r] = log(row_sum[r]) - target_logit[r], 0 without a target; *loss_sum = their sum in
 * float64, rows in a fixed order (overwritten, not added to). */
struct troupe_cross_entropy {
    const int32_t *targets;
    const float *row_sum;
    const float *target_logit;
    int64_t rows;
    float *row_loss;
    double *loss_sum;
};
/* In place: logits become scale * (softmax - onehot(target)), zeros without a target. */
struct troupe_cross_entropy_backward {
    struct troupe_tensor logits;
    const float *row_max;
    const float *row_sum;
    const int32_t *targets;
    int32_t begin;
    float scale; /* 1 / global target tokens */
};

/* AdamW (Loshchilov and Hutter, 2019), decoupled decay, with bias correction, g = grad_scale *
 * grad: m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, param -= lr * (m / (1 -
 * beta1^step) / (sqrt(v / (1 - beta2^step)) + epsilon) + decay * param). All (R, C); the moments
 * are float32. */
struct troupe_adamw {
    struct troupe_tensor param;
    struct troupe_tensor grad;
    struct troupe_tensor m;
    struct troupe_tensor v;
    double lr;
    double beta1;
    double beta2;
    double epsilon;
    double decay;
    double grad_scale; /* from clipping; 0 would erase the gradient, so 1 is spelled out */
    int64_t step;      /* from 1 */
};

/* *out = sum of x^2 in float64, in a fixed order. */
struct troupe_square_sum {
    struct troupe_tensor x;
    double *out;
};

/* *row_out = the first row of x that holds a NaN or an infinity, -1 if there is none. */
struct troupe_first_nonfinite {
    struct troupe_tensor x;
    int64_t *row_out;
};

/* Every slot is filled. All return when the work is in the stream; on the CPU that is when it is
 * done. Nothing is AGAIN. */
struct troupe_kernels {
    const char *name; /* "cpu", "cuda", "reference" */

    troupe_status (*matmul)(troupe_stream *stream, const struct troupe_matmul *op);
    troupe_status (*bias_add)(troupe_stream *stream, const struct troupe_bias_add *op);
    troupe_status (*column_sum)(troupe_stream *stream, const struct troupe_column_sum *op);

    troupe_status (*layernorm)(troupe_stream *stream, const struct troupe_norm *op);
    troupe_status (*layernorm_backward_input)(troupe_stream *stream,
                                              const struct troupe_norm_backward_input *op);
    troupe_status (*layernorm_backward_weight)(troupe_stream *stream,
                                               const struct troupe_norm_backward_weight *op);
    troupe_status (*rmsnorm)(troupe_stream *stream, const struct troupe_norm *op);
    troupe_status (*rmsnorm_backward_input)(troupe_stream *stream,
                                            const struct troupe_norm_backward_input *op);
    troupe_status (*rmsnorm_backward_weight)(troupe_stream *stream,
                                             const struct troupe_norm_backward_weight *op);

    troupe_status (*gelu)(troupe_stream *stream, const struct troupe_gelu *op);
    troupe_status (*gelu_backward)(troupe_stream *stream, const struct troupe_gelu_backward *op);
    troupe_status (*swiglu)(troupe_stream *stream, const struct troupe_swiglu *op);
    troupe_status (*swiglu_backward)(troupe_stream *stream,
                                     const struct troupe_swiglu_backward *op);

    troupe_status (*rope_table)(troupe_stream *stream, const struct troupe_rope_table *op);
    troupe_status (*rope)(troupe_stream *stream, const struct troupe_rope *op);
    /* Bytes that both directions need; known at start-up, may be 0. */
    size_t (*attention_workspace)(const struct troupe_attention_bound *bound);
    troupe_status (*attention)(troupe_stream *stream, const struct troupe_attention *op);
    troupe_status (*attention_backward)(troupe_stream *stream,
                                        const struct troupe_attention_backward *op);

    troupe_status (*embedding)(troupe_stream *stream, const struct troupe_embedding *op);
    troupe_status (*embedding_backward)(troupe_stream *stream,
                                        const struct troupe_embedding_backward *op);
    troupe_status (*rows_copy)(troupe_stream *stream, const struct troupe_rows *op);
    troupe_status (*rows_add)(troupe_stream *stream, const struct troupe_rows *op);
    troupe_status (*add)(troupe_stream *stream, const struct troupe_add *op);
    troupe_status (*axpy)(troupe_stream *stream, const struct troupe_axpy *op);
    troupe_status (*scale)(troupe_stream *stream, const struct troupe_scale *op);
    troupe_status (*fill)(troupe_stream *stream, const struct troupe_fill *op);
    troupe_status (*patchify)(troupe_stream *stream, const struct troupe_patchify *op);

    troupe_status (*row_max)(troupe_stream *stream, const struct troupe_row_max *op);
    troupe_status (*row_sum_exp)(troupe_stream *stream, const struct troupe_row_sum_exp *op);
    troupe_status (*cross_entropy)(troupe_stream *stream, const struct troupe_cross_entropy *op);
    troupe_status (*cross_entropy_backward)(troupe_stream *stream,
                                            const struct troupe_cross_entropy_backward *op);

    troupe_status (*adamw)(troupe_stream *stream, const struct troupe_adamw *op);
    troupe_status (*square_sum)(troupe_stream *stream, const struct troupe_square_sum *op);
    troupe_status (*first_nonfinite)(troupe_stream *stream,
                                     const struct troupe_first_nonfinite *op);
};

/* The fast table of a kind of device; NULL where the kind is not built in. */
const struct troupe_kernels *troupe_kernels_for(enum troupe_device_kind kind);
/* Plain loops on the CPU that sum in float64: what is correct. For tests and for debugging. */
const struct troupe_kernels *troupe_kernels_reference(void);

#ifdef __cplusplus
}
#endif
#endif
