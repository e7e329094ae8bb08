/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

/* A warp computes one row of one head (or, in the backward of keys, one key of one shared head).
 * Its lanes hold the columns of the head; it walks over the other side one row at a time. */
enum { LANE_COLUMNS = TROUPE_HEAD_DIM_MAX / WARP };

struct head_row {
    float value[LANE_COLUMNS]; /* columns lane, lane + WARP, ...; zeros behind head_dim */
};

static __device__ int lane() {
    return threadIdx.x % WARP;
}

static __device__ head_row load(const troupe_tensor &t, int64_t row, int head, int head_dim) {
    head_row out;
    const float *from = at(t, row) + (int64_t)head * head_dim;
#pragma unroll
    for (int i = 0; i < LANE_COLUMNS; i++) {
        int column = lane() + i * WARP;
        out.value[i] = column < head_dim ? from[column] : 0.0f;
    }
    return out;
}

static __device__ void save(const troupe_tensor &t, int64_t row, int head, int head_dim,
                            const head_row &x, float factor) {
    float *to = at(t, row) + (int64_t)head * head_dim;
#pragma unroll
    for (int i = 0; i < LANE_COLUMNS; i++) {
        int column = lane() + i * WARP;
        if (column < head_dim) {
            to[column] = factor * x.value[i];
        }
    }
}

static __device__ float dot(const head_row &a, const head_row &b) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < LANE_COLUMNS; i++) {
        sum += a.value[i] * b.value[i];
    }
    return sum_warp(sum);
}

/* to = keep * to + factor * x */
static __device__ void add_scaled(head_row &to, float keep, float factor, const head_row &x) {
#pragma unroll
    for (int i = 0; i < LANE_COLUMNS; i++) {
        to.value[i] = keep * to.value[i] + factor * x.value[i];
    }
}

/* The segment of a row: the last that begins at or before it. */
static __device__ int64_t segment_of(const troupe_attention &op, int64_t row) {
    int64_t low = 0, high = op.segments;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (op.cu_len[middle] <= row) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

static __device__ int64_t keys_end(const troupe_attention &op, int64_t row, int64_t segment) {
    return op.causal ? row + 1 : op.cu_len[segment + 1];
}

template <class Body> static __global__ void warps_kernel(int64_t rows, int heads, Body body) {
    int64_t warps = (int64_t)gridDim.x * (BLOCK / WARP);
    int64_t first = (int64_t)blockIdx.x * (BLOCK / WARP) + threadIdx.x / WARP;
    for (int64_t i = first; i < rows * heads; i += warps) {
        body(i / heads, (int)(i % heads));
    }
}

/* body(row, head), by a warp */
template <class Body> static int for_heads(int64_t rows, int heads, void *stream, Body body) {
    int64_t blocks = (rows * heads + BLOCK / WARP - 1) / (BLOCK / WARP);
    if (blocks > 0) {
        warps_kernel<<<(unsigned)smaller(blocks, GRID_MAX), BLOCK, 0, (cudaStream_t)stream>>>(
            rows, heads, body);
    }
    return (int)cudaGetLastError();
}

/* Softmax and its product with the values in one pass, rescaled when the largest score grows. */
extern "C" int troupe_cuda_launch_attention(const troupe_attention *given, void *stream) {
    const troupe_attention op = *given;
    return for_heads(op.q.rows, op.heads, stream, [=] __device__(int64_t row, int head) {
        int shared = head / (op.heads / op.kv_heads), dim = op.head_dim;
        int64_t segment = segment_of(op, row), end = keys_end(op, row, segment);
        head_row q = load(op.q, row, head, dim), o = {};
        float max = -CUDART_INF_F, sum = 0;
        for (int64_t key = op.cu_len[segment]; key < end; key++) {
            float score = op.scale * dot(q, load(op.k, key, shared, dim));
            float next = fmaxf(max, score), keep = expf(max - next), p = expf(score - next);
            add_scaled(o, keep, p, load(op.v, key, shared, dim));
            sum = keep * sum + p;
            max = next;
        }
        save(op.o, row, head, dim, o, 1.0f / sum);
        if (lane() == 0) {
            at(op.lse, row)[head] = max + logf(sum);
        }
    });
}

/* The gradient of one score: p * (d_o . v - d_o . o), and p. */
struct score_gradient {
    float p;
    float ds;
};

static __device__ score_gradient gradient_of(const troupe_attention &op, const head_row &q,
                                             const head_row &k, const head_row &v,
                                             const head_row &d_o, float delta, float lse) {
    float p = expf(op.scale * dot(q, k) - lse);
    return {p, p * (dot(d_o, v) - delta)};
}

static int launch_backward_queries(const troupe_attention_backward &op, void *stream) {
    return for_heads(
        op.forward.q.rows, op.forward.heads, stream, [=] __device__(int64_t row, int head) {
            const troupe_attention &forward = op.forward;
            int shared = head / (forward.heads / forward.kv_heads), dim = forward.head_dim;
            int64_t segment = segment_of(forward, row), end = keys_end(forward, row, segment);
            head_row q = load(forward.q, row, head, dim), d_o = load(op.d_o, row, head, dim),
                     dq = {};
            float delta = dot(d_o, load(forward.o, row, head, dim));
            float lse = at(forward.lse, row)[head];
            for (int64_t key = forward.cu_len[segment]; key < end; key++) {
                head_row k = load(forward.k, key, shared, dim),
                         v = load(forward.v, key, shared, dim);
                add_scaled(dq, 1, gradient_of(forward, q, k, v, d_o, delta, lse).ds, k);
            }
            save(op.dq, row, head, dim, dq, forward.scale);
        });
}

/* Over the heads that share the key and the rows that see it, both ascending. */
static int launch_backward_keys(const troupe_attention_backward &op, void *stream) {
    return for_heads(
        op.forward.k.rows, op.forward.kv_heads, stream, [=] __device__(int64_t key, int shared) {
            const troupe_attention &forward = op.forward;
            int group = forward.heads / forward.kv_heads, dim = forward.head_dim;
            int64_t segment = segment_of(forward, key), end = forward.cu_len[segment + 1];
            int64_t begin = forward.causal ? key : forward.cu_len[segment];
            head_row k = load(forward.k, key, shared, dim), v = load(forward.v, key, shared, dim);
            head_row dk = {}, dv = {};
            for (int head = shared * group; head < (shared + 1) * group; head++) {
                for (int64_t row = begin; row < end; row++) {
                    head_row q = load(forward.q, row, head, dim),
                             d_o = load(op.d_o, row, head, dim);
                    float delta = dot(d_o, load(forward.o, row, head, dim));
                    float lse = at(forward.lse, row)[head];
                    score_gradient gradient = gradient_of(forward, q, k, v, d_o, delta, lse);
                    add_scaled(dk, 1, gradient.ds, q);
                    add_scaled(dv, 1, gradient.p, d_o);
                }
            }
            save(op.dk, key, shared, dim, dk, forward.scale);
            save(op.dv, key, shared, dim, dv, 1);
        });
}

extern "C" int troupe_cuda_launch_attention_backward(const troupe_attention_backward *given,
                                                     void *stream) {
    int error = launch_backward_queries(*given, stream);
    return error != 0 ? error : launch_backward_keys(*given, stream);
}
