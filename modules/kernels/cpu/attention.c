/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention by tiles: QUERY_TILE rows of one head against KEY_TILE keys, scores and probabilities
 * in a scratch on the stack of the worker, products of one thread (product_internal.h), softmax
 * online over key tiles (Milakov and Gimelshein, 2018; Dao et al., 2022). One part is one key/value
 * head of one segment with all query heads that share it, so gradients of keys and values have one
 * writer, and keys and values are packed once for all of them.
 */
#include <float.h>
#include <string.h>

#include "modules/kernels/cpu/cpu_internal.h"
#include "modules/kernels/cpu/math_internal.h"
#include "modules/kernels/cpu/parallel_internal.h"
#include "modules/kernels/cpu/product_internal.h"

enum {
    LANE = VECTOR_LANE,
    QUERY_TILE = 24, /* whole strips of a product */
    KEY_TILE = 240,  /* of which this is a multiple, as it is of whole vectors */
    TILE_STRIDE = KEY_TILE + LANE,
};

/* A matrix in memory: rows at data + r * stride. */
struct matrix {
    float *data;
    int64_t stride;
};

static struct operand plain(struct matrix x) {
    return (struct operand){x.data, x.stride, false};
}

static struct operand turned(struct matrix x) {
    return (struct operand){x.data, x.stride, true};
}

/* Tile of keys [key, key_end) against rows [row, row_end) of query head `head`. */
struct tile {
    const struct troupe_attention *op;
    int head;
    int64_t row;
    int64_t row_end;
    int64_t key;
    int64_t key_end;
    int64_t segment_end;
};

static int64_t tile_rows(const struct tile *t) {
    return t->row_end - t->row;
}

static int64_t tile_keys(const struct tile *t) {
    return t->key_end - t->key;
}

/* Keys of the tile that row `row` sees: [0, result). */
static int64_t visible_keys(const struct tile *t, int64_t row) {
    int64_t end = t->op->causal ? min_of(t->key_end, row + 1) : t->key_end;
    return max_of(0, end - t->key);
}

/* Rows from `row` on of one head of a (R, heads * D) tensor. */
static struct matrix head_rows(const struct troupe_tensor *t, int64_t row, int head, int head_dim) {
    return (struct matrix){row_of(t, row) + (int64_t)head * head_dim,
                           max_of(t->stride, t->columns)};
}

/* Keys or values of a tile as right factor of products, and which tile it is. */
struct packed {
    _Alignas(64) float data[TROUPE_HEAD_DIM_MAX * KEY_TILE];
    struct right right;
    int64_t key; /* first row; -1 holds nothing yet */
};

/* All keys of the tile, for later rows too. op(from): (k, n) of which one extent is the keys. */
static const struct right *pack(struct packed *to, const struct tile *t, struct operand from) {
    if (to->key != t->key) {
        int64_t keys = min_of(KEY_TILE, t->segment_end - t->key);
        int64_t dim = t->op->head_dim;
        to->right = product_right(from, from.transposed ? dim : keys, from.transposed ? keys : dim,
                                  to->data);
        to->key = t->key;
    }
    return &to->right;
}

/* scores = scale * q k^T. (rows, keys) */
static void tile_scores(const struct tile *t, int kv_head, struct packed *keys, float *scores) {
    int dim = t->op->head_dim;
    product_multiply(
        &(struct product){.m = tile_rows(t),
                          .n = tile_keys(t),
                          .k = dim,
                          .a = plain(head_rows(&t->op->q, t->row, t->head, dim)),
                          .b = *pack(keys, t, turned(head_rows(&t->op->k, t->key, kv_head, dim))),
                          .c = scores,
                          .c_stride = TILE_STRIDE,
                          .alpha = troupe_attention_scale(t->op)});
}

/* The segment and key/value head of a part. */
struct part {
    int64_t begin;
    int64_t end;
    int kv_head;
    int group; /* query heads that share it */
};

static struct part part_of(const struct troupe_attention *op, const struct block *b) {
    return (struct part){op->cu_len[b->row], op->cu_len[b->row + 1], (int)b->column,
                         op->heads / op->kv_heads};
}

static struct grid parts(const struct troupe_attention *op) {
    return (struct grid){op->segments, op->kv_heads, 1, 1};
}

/* Rows of a scratch are computed in whole vectors: `padded` counts reach into the tile's spare
 * columns, so a causal row of any length has no scalar remainder. */
static int64_t padded(int64_t count) {
    return (count + LANE - 1) / LANE * LANE;
}

/* Makes the columns [visible, padded(visible)) weigh nothing; returns the largest of the row. */
static float row_largest(float *x, int64_t visible) {
    float largest = -FLT_MAX;
    int64_t vectors = padded(visible) / LANE;
    for (int64_t i = visible; i < vectors * LANE; i++) {
        x[i] = -FLT_MAX;
    }
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < vectors * LANE; i++) {
        largest = x[i] > largest ? x[i] : largest;
    }
    return largest;
}

/* x = exp(x - shift) for the visible columns, 0 up to `total`; returns the sum. */
static float row_exp(float *x, float shift, int64_t visible, int64_t total) {
    float sum = 0;
    int64_t vectors = padded(visible) / LANE;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < vectors * LANE; i++) {
        x[i] = vector_exp(x[i] - shift); /* at most 1e-37 where the row ends */
        sum += x[i];
    }
    memset(x + visible, 0, (size_t)(total - visible) * sizeof(*x));
    return sum;
}

static void row_scale(float *x, float factor, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        x[i] *= factor;
    }
}

struct forward_scratch {
    float scores[QUERY_TILE * TILE_STRIDE];
    struct packed keys;
    struct packed values;
    float largest[QUERY_TILE]; /* per row, over the key tiles so far */
    float sum[QUERY_TILE];
};

/* Scores become exp(score - largest so far); what o and sum hold is scaled to the new largest. */
static void tile_softmax(const struct tile *t, struct forward_scratch *scratch, struct matrix o) {
    for (int64_t i = 0; i < tile_rows(t); i++) {
        float *scores = scratch->scores + i * TILE_STRIDE;
        int64_t visible = visible_keys(t, t->row + i);
        float before = scratch->largest[i], largest = row_largest(scores, visible);
        largest = largest > before ? largest : before;
        if (largest > before && before != -FLT_MAX) {
            float factor = vector_exp(before - largest);
            row_scale(o.data + i * o.stride, factor, t->op->head_dim);
            scratch->sum[i] *= factor;
        }
        scratch->largest[i] = largest;
        scratch->sum[i] += row_exp(scores, largest, visible, tile_keys(t));
    }
}

static void finish_rows(const struct tile *t, const struct forward_scratch *scratch,
                        struct matrix o) {
    for (int64_t i = 0; i < tile_rows(t); i++) {
        row_scale(o.data + i * o.stride, 1.0f / scratch->sum[i], t->op->head_dim);
        row_of(&t->op->lse, t->row + i)[t->head] = scratch->largest[i] + logf(scratch->sum[i]);
    }
}

/* All keys for one tile of rows of one head. */
static void forward_rows(const struct part *part, struct tile *t, struct forward_scratch *scratch) {
    int dim = t->op->head_dim;
    struct matrix o = head_rows(&t->op->o, t->row, t->head, dim);
    int64_t keys_end = t->op->causal ? t->row_end : part->end;
    for (int64_t i = 0; i < tile_rows(t); i++) {
        scratch->largest[i] = -FLT_MAX;
        scratch->sum[i] = 0.0f;
    }
    for (t->key = part->begin; t->key < keys_end; t->key += KEY_TILE) {
        t->key_end = min_of(t->key + KEY_TILE, keys_end);
        tile_scores(t, part->kv_head, &scratch->keys, scratch->scores);
        tile_softmax(t, scratch, o);
        struct matrix v = head_rows(&t->op->v, t->key, part->kv_head, dim);
        product_multiply(&(struct product){.m = tile_rows(t),
                                           .n = dim,
                                           .k = tile_keys(t),
                                           .a = {scratch->scores, TILE_STRIDE},
                                           .b = *pack(&scratch->values, t, plain(v)),
                                           .c = o.data,
                                           .c_stride = o.stride,
                                           .alpha = 1.0f,
                                           .accumulate = t->key > part->begin});
    }
    finish_rows(t, scratch, o);
}

static void attention_part(const void *arg, const struct block *b) {
    const struct troupe_attention *op = arg;
    struct part part = part_of(op, b);
    struct forward_scratch scratch;
    scratch.keys.key = scratch.values.key = -1;
    for (int64_t row = part.begin; row < part.end; row += QUERY_TILE) {
        for (int head = part.kv_head * part.group; head < (part.kv_head + 1) * part.group; head++) {
            struct tile t = {.op = op, .head = head, .row = row, .segment_end = part.end};
            t.row_end = min_of(row + QUERY_TILE, part.end);
            forward_rows(&part, &t, &scratch);
        }
    }
}

struct backward_scratch {
    float p[QUERY_TILE * TILE_STRIDE];
    float ds[QUERY_TILE * TILE_STRIDE];
    struct packed keys;
    struct packed keys_turned;
    struct packed values_turned;
    _Alignas(64) float rows[QUERY_TILE * PRODUCT_PANEL]; /* edges of a right factor */
};

/* p = exp(score - lse); ds = scale * p * (dp - d_o . o), in place of dp. */
static void tile_score_gradient(const struct tile *t, const struct troupe_attention_backward *op,
                                struct backward_scratch *scratch) {
    int dim = t->op->head_dim;
    float scale = troupe_attention_scale(t->op);
    struct matrix o = head_rows(&t->op->o, t->row, t->head, dim);
    struct matrix d_o = head_rows(&op->d_o, t->row, t->head, dim);
    for (int64_t i = 0; i < tile_rows(t); i++) {
        float *p = scratch->p + i * TILE_STRIDE, *ds = scratch->ds + i * TILE_STRIDE, inner = 0;
        const float *o_row = o.data + i * o.stride, *d_o_row = d_o.data + i * d_o.stride;
        float lse = row_of(&t->op->lse, t->row + i)[t->head];
        int64_t visible = visible_keys(t, t->row + i), hidden = tile_keys(t) - visible;
        int64_t vectors = padded(visible) / LANE;
#pragma omp simd reduction(+ : inner)
        for (int d = 0; d < dim; d++) {
            inner += o_row[d] * d_o_row[d];
        }
        for (int64_t j = visible; j < vectors * LANE; j++) {
            p[j] = ds[j] = 0.0f; /* the scratch may hold anything there */
        }
#pragma omp simd
        for (int64_t j = 0; j < vectors * LANE; j++) {
            p[j] = vector_exp(p[j] - lse);
            ds[j] = scale * p[j] * (ds[j] - inner);
        }
        memset(p + visible, 0, (size_t)hidden * sizeof(*p));
        memset(ds + visible, 0, (size_t)hidden * sizeof(*ds));
    }
}

/* gradient += scores^T x, where scores: (rows, keys), x: (rows, D), gradient: (keys, D). */
static void add_to_keys(const struct tile *t, struct matrix scores, struct matrix x, float *scratch,
                        struct matrix gradient) {
    int64_t rows = tile_rows(t), dim = t->op->head_dim;
    product_multiply(&(struct product){.m = tile_keys(t),
                                       .n = dim,
                                       .k = rows,
                                       .a = turned(scores),
                                       .b = product_right(plain(x), rows, dim, scratch),
                                       .c = gradient.data,
                                       .c_stride = gradient.stride,
                                       .alpha = 1.0f,
                                       .accumulate = true});
}

static void backward_tile(const struct part *part, const struct tile *t,
                          const struct troupe_attention_backward *op,
                          struct backward_scratch *scratch) {
    int dim = t->op->head_dim, kv = part->kv_head;
    struct matrix p = {scratch->p, TILE_STRIDE}, ds = {scratch->ds, TILE_STRIDE};
    struct matrix d_o = head_rows(&op->d_o, t->row, t->head, dim);
    struct matrix dq = head_rows(&op->dq, t->row, t->head, dim);
    struct matrix k = head_rows(&t->op->k, t->key, kv, dim);
    struct matrix v = head_rows(&t->op->v, t->key, kv, dim);

    tile_scores(t, kv, &scratch->keys_turned, p.data);
    product_multiply(&(struct product){.m = tile_rows(t),
                                       .n = tile_keys(t),
                                       .k = dim,
                                       .a = plain(d_o),
                                       .b = *pack(&scratch->values_turned, t, turned(v)),
                                       .c = ds.data,
                                       .c_stride = ds.stride,
                                       .alpha = 1.0f});
    tile_score_gradient(t, op, scratch);
    add_to_keys(t, p, d_o, scratch->rows, head_rows(&op->dv, t->key, kv, dim));
    add_to_keys(t, ds, head_rows(&t->op->q, t->row, t->head, dim), scratch->rows,
                head_rows(&op->dk, t->key, kv, dim));
    product_multiply(&(struct product){.m = tile_rows(t),
                                       .n = dim,
                                       .k = tile_keys(t),
                                       .a = plain(ds),
                                       .b = *pack(&scratch->keys, t, plain(k)),
                                       .c = dq.data,
                                       .c_stride = dq.stride,
                                       .alpha = 1.0f,
                                       .accumulate = t->key > part->begin});
}

static void clear_rows(const struct part *part, const struct troupe_tensor *t, int head_dim) {
    for (int64_t r = part->begin; r < part->end; r++) {
        memset(row_of(t, r) + (int64_t)part->kv_head * head_dim, 0,
               (size_t)head_dim * sizeof(float));
    }
}

static void attention_backward_part(const void *arg, const struct block *b) {
    const struct troupe_attention_backward *op = arg;
    const struct troupe_attention *forward = &op->forward;
    struct part part = part_of(forward, b);
    struct backward_scratch scratch;
    scratch.keys.key = scratch.keys_turned.key = scratch.values_turned.key = -1;
    clear_rows(&part, &op->dk, forward->head_dim);
    clear_rows(&part, &op->dv, forward->head_dim);
    int first = part.kv_head * part.group;
    for (int64_t key = part.begin; key < part.end; key += KEY_TILE) {
        /* KEY_TILE is a multiple of QUERY_TILE: rows before `key` see none of these keys */
        for (int64_t row = forward->causal ? key : part.begin; row < part.end; row += QUERY_TILE) {
            for (int head = first; head < first + part.group; head++) {
                struct tile t = {.op = forward, .head = head, .segment_end = part.end};
                t.row = row;
                t.row_end = min_of(row + QUERY_TILE, part.end);
                t.key = key;
                t.key_end = min_of(key + KEY_TILE, forward->causal ? t.row_end : part.end);
                backward_tile(&part, &t, op, &scratch);
            }
        }
    }
}

troupe_status troupe_cpu_attention(troupe_stream *stream, const struct troupe_attention *op) {
    TROUPE_TRY(troupe_shape_attention(op));
    struct grid grid = parts(op);
    troupe_cpu_for_blocks(stream, &grid, attention_part, op);
    return TROUPE_OK;
}

troupe_status troupe_cpu_attention_backward(troupe_stream *stream,
                                            const struct troupe_attention_backward *op) {
    TROUPE_TRY(troupe_shape_attention_backward(op));
    struct grid grid = parts(&op->forward);
    troupe_cpu_for_blocks(stream, &grid, attention_backward_part, op);
    return TROUPE_OK;
}
