/* SPDX-License-Identifier: Apache-2.0
 *
 * The oracle: each op as its definition reads, plain loops, sums in float64, one rounding at the
 * end. Serial and slow; the fast tables are compared with it, it is compared with finite
 * differences.
 */
#include <math.h>
#include <string.h>

#include "modules/kernels/shape_internal.h"
#include "runtime/check.h"

static double element(const struct troupe_tensor *t, int64_t row, int64_t column) {
    return row_of(t, row)[column];
}

/* *out = value, or += value. */
static void store(float *out, double value, bool accumulate) {
    *out = (float)(accumulate ? *out + value : value);
}

static troupe_status matmul(troupe_stream *stream, const struct troupe_matmul *op) {
    (void)stream;
    struct troupe_matmul_sizes size;
    TROUPE_TRY(troupe_shape_matmul(op, &size));
    double alpha = op->alpha != 0.0f ? op->alpha : 1.0;
    for (int64_t i = 0; i < size.m; i++) {
        for (int64_t j = 0; j < size.n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < size.k; p++) {
                double a = op->transpose_a ? element(&op->a, p, i) : element(&op->a, i, p);
                double b = op->transpose_b ? element(&op->b, j, p) : element(&op->b, p, j);
                sum += a * b;
            }
            double bias = tensor_given(&op->bias) ? element(&op->bias, 0, j) : 0.0;
            store(&row_of(&op->c, i)[j], alpha * sum + bias, op->accumulate);
        }
    }
    return TROUPE_OK;
}

static troupe_status bias_add(troupe_stream *stream, const struct troupe_bias_add *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_bias_add(op));
    for (int64_t r = 0; r < op->x.rows; r++) {
        for (int64_t c = 0; c < op->x.columns; c++) {
            store(&row_of(&op->x, r)[c], element(&op->bias, 0, c), true);
        }
    }
    return TROUPE_OK;
}

static troupe_status column_sum(troupe_stream *stream, const struct troupe_column_sum *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_column_sum(op));
    for (int64_t c = 0; c < op->x.columns; c++) {
        double sum = 0;
        for (int64_t r = 0; r < op->x.rows; r++) {
            sum += element(&op->x, r, c);
        }
        store(&row_of(&op->out, 0)[c], sum, op->accumulate);
    }
    return TROUPE_OK;
}

/* Both norms: layernorm subtracts the mean and adds a bias, rmsnorm does neither. */
static void norm_rows(const struct troupe_norm *op, bool centered) {
    for (int64_t r = 0; r < op->x.rows; r++) {
        int64_t columns = op->x.columns;
        double mean = 0, square = 0;
        for (int64_t c = 0; centered && c < columns; c++) {
            mean += element(&op->x, r, c) / (double)columns;
        }
        for (int64_t c = 0; c < columns; c++) {
            double d = element(&op->x, r, c) - mean;
            square += d * d / (double)columns;
        }
        double rstd = 1 / sqrt(square + op->epsilon);
        for (int64_t c = 0; c < columns; c++) {
            double bias = centered ? element(&op->bias, 0, c) : 0.0;
            double hat = (element(&op->x, r, c) - mean) * rstd;
            row_of(&op->y, r)[c] = (float)(hat * element(&op->weight, 0, c) + bias);
        }
        if (centered) {
            op->mean[r] = (float)mean;
        }
        op->rstd[r] = (float)rstd;
    }
}

static troupe_status layernorm(troupe_stream *stream, const struct troupe_norm *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_layernorm(op));
    norm_rows(op, true);
    return TROUPE_OK;
}

static troupe_status rmsnorm(troupe_stream *stream, const struct troupe_norm *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_rmsnorm(op));
    norm_rows(op, false);
    return TROUPE_OK;
}

/* dx = rstd * (g - mean(g) - hat * mean(g * hat)) with g = dy * weight; rmsnorm has no mean(g). */
static void norm_backward_input_rows(const struct troupe_norm_backward_input *op, bool centered) {
    for (int64_t r = 0; r < op->x.rows; r++) {
        int64_t columns = op->x.columns;
        double mean = centered ? op->mean[r] : 0.0, rstd = op->rstd[r];
        double mean_g = 0, mean_g_hat = 0;
        for (int64_t c = 0; c < columns; c++) {
            double g = element(&op->dy, r, c) * element(&op->weight, 0, c) / (double)columns;
            mean_g += centered ? g : 0.0;
            mean_g_hat += g * (element(&op->x, r, c) - mean) * rstd;
        }
        for (int64_t c = 0; c < columns; c++) {
            double g = element(&op->dy, r, c) * element(&op->weight, 0, c);
            double hat = (element(&op->x, r, c) - mean) * rstd;
            store(&row_of(&op->dx, r)[c], rstd * (g - mean_g - hat * mean_g_hat), op->accumulate);
        }
    }
}

static troupe_status layernorm_backward_input(troupe_stream *stream,
                                              const struct troupe_norm_backward_input *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_norm_backward_input(op));
    norm_backward_input_rows(op, true);
    return TROUPE_OK;
}

static troupe_status rmsnorm_backward_input(troupe_stream *stream,
                                            const struct troupe_norm_backward_input *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_norm_backward_input(op));
    norm_backward_input_rows(op, false);
    return TROUPE_OK;
}

static void norm_backward_weight_columns(const struct troupe_norm_backward_weight *op,
                                         bool centered) {
    for (int64_t c = 0; c < op->x.columns; c++) {
        double dweight = 0, dbias = 0;
        for (int64_t r = 0; r < op->x.rows; r++) {
            double hat = (element(&op->x, r, c) - (centered ? op->mean[r] : 0.0)) * op->rstd[r];
            dweight += element(&op->dy, r, c) * hat;
            dbias += element(&op->dy, r, c);
        }
        store(&row_of(&op->dweight, 0)[c], dweight, op->accumulate);
        if (centered) {
            store(&row_of(&op->dbias, 0)[c], dbias, op->accumulate);
        }
    }
}

static troupe_status layernorm_backward_weight(troupe_stream *stream,
                                               const struct troupe_norm_backward_weight *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_layernorm_backward_weight(op));
    norm_backward_weight_columns(op, true);
    return TROUPE_OK;
}

static troupe_status rmsnorm_backward_weight(troupe_stream *stream,
                                             const struct troupe_norm_backward_weight *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_rmsnorm_backward_weight(op));
    norm_backward_weight_columns(op, false);
    return TROUPE_OK;
}

static troupe_status gelu(troupe_stream *stream, const struct troupe_gelu *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_gelu(op));
    for (int64_t r = 0; r < op->x.rows; r++) {
        for (int64_t c = 0; c < op->x.columns; c++) {
            double x = element(&op->x, r, c);
            row_of(&op->y, r)[c] = (float)(0.5 * x * erfc(-x * M_SQRT1_2));
        }
    }
    return TROUPE_OK;
}

static troupe_status gelu_backward(troupe_stream *stream, const struct troupe_gelu_backward *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_gelu_backward(op));
    for (int64_t r = 0; r < op->x.rows; r++) {
        for (int64_t c = 0; c < op->x.columns; c++) {
            double x = element(&op->x, r, c);
            double density = exp(-0.5 * x * x) * M_2_SQRTPI * M_SQRT1_2 * 0.5;
            double slope = 0.5 * erfc(-x * M_SQRT1_2) + x * density;
            row_of(&op->dx, r)[c] = (float)(element(&op->dy, r, c) * slope);
        }
    }
    return TROUPE_OK;
}

static double sigmoid(double z) {
    return 1 / (1 + exp(-z));
}

static troupe_status swiglu(troupe_stream *stream, const struct troupe_swiglu *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_swiglu(op));
    for (int64_t r = 0; r < op->gate.rows; r++) {
        for (int64_t c = 0; c < op->gate.columns; c++) {
            double gate = element(&op->gate, r, c);
            row_of(&op->y, r)[c] = (float)(gate * sigmoid(gate) * element(&op->up, r, c));
        }
    }
    return TROUPE_OK;
}

static troupe_status swiglu_backward(troupe_stream *stream,
                                     const struct troupe_swiglu_backward *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_swiglu_backward(op));
    for (int64_t r = 0; r < op->gate.rows; r++) {
        for (int64_t c = 0; c < op->gate.columns; c++) {
            double gate = element(&op->gate, r, c), up = element(&op->up, r, c);
            double dy = element(&op->dy, r, c), s = sigmoid(gate);
            row_of(&op->dgate, r)[c] = (float)(dy * up * s * (1 + gate * (1 - s)));
            row_of(&op->dup, r)[c] = (float)(dy * gate * s);
        }
    }
    return TROUPE_OK;
}

static troupe_status rope_table(troupe_stream *stream, const struct troupe_rope_table *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_rope_table(op));
    int64_t half = op->table.columns / 2;
    for (int64_t p = 0; p < op->table.rows; p++) {
        for (int64_t i = 0; i < half; i++) {
            double base = op->base != 0 ? op->base : 10000.0;
            double angle = (double)p * pow(base, -(double)i / (double)half);
            row_of(&op->table, p)[i] = (float)cos(angle);
            row_of(&op->table, p)[half + i] = (float)sin(angle);
        }
    }
    return TROUPE_OK;
}

static troupe_status rope(troupe_stream *stream, const struct troupe_rope *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_rope(op));
    int64_t half = op->table.columns / 2;
    for (int64_t r = 0; r < op->x.rows; r++) {
        int32_t p = op->positions[r];
        TROUPE_ASSERT(p >= 0 && p < op->table.rows, "position %d of %lld", p,
                      (long long)op->table.rows);
        for (int64_t c = 0; c < op->x.columns; c++) {
            int64_t i = c % (2 * half);
            if (i >= half) {
                continue; /* the other half of a pair that is done */
            }
            double cosine = element(&op->table, p, i), sine = element(&op->table, p, half + i);
            sine = op->inverse ? -sine : sine;
            double first = element(&op->x, r, c), second = element(&op->x, r, c + half);
            row_of(&op->y, r)[c] = (float)(first * cosine - second * sine);
            row_of(&op->y, r)[c + half] = (float)(second * cosine + first * sine);
        }
    }
    return TROUPE_OK;
}

static size_t attention_workspace(const struct troupe_attention_bound *bound) {
    (void)bound;
    return 0;
}

static double dot(const float *a, const float *b, int count) {
    double sum = 0;
    for (int i = 0; i < count; i++) {
        sum += (double)a[i] * b[i];
    }
    return sum;
}

/* One row of one head: its keys are rows [begin, end). */
struct attention_row {
    const struct troupe_attention *op;
    int head;
    int64_t row;
    int64_t begin;
    int64_t end;
};

static const float *head_of(const struct troupe_tensor *t, int64_t row, int head, int head_dim) {
    return row_of(t, row) + (int64_t)head * head_dim;
}

static int kv_head(const struct troupe_attention *op, int head) {
    return head / (op->heads / op->kv_heads);
}

static double score(const struct attention_row *at, int64_t key) {
    const struct troupe_attention *op = at->op;
    return (double)troupe_attention_scale(op) *
           dot(head_of(&op->q, at->row, at->head, op->head_dim),
               head_of(&op->k, key, kv_head(op, at->head), op->head_dim), op->head_dim);
}

/* log(sum(exp(score))) over the row's keys */
static double log_sum_exp(const struct attention_row *at) {
    double max = -INFINITY, sum = 0;
    for (int64_t key = at->begin; key < at->end; key++) {
        max = fmax(max, score(at, key));
    }
    for (int64_t key = at->begin; key < at->end; key++) {
        sum += exp(score(at, key) - max);
    }
    return max + log(sum);
}

/* Calls body for every (segment, row, head), heads outermost, rows ascending. */
static void for_attention_rows(const struct troupe_attention *op,
                               void (*body)(const struct attention_row *at, void *arg), void *arg) {
    for (int head = 0; head < op->heads; head++) {
        for (int64_t s = 0; s < op->segments; s++) {
            for (int64_t row = op->cu_len[s]; row < op->cu_len[s + 1]; row++) {
                int64_t end = op->causal ? row + 1 : op->cu_len[s + 1];
                body(&(struct attention_row){op, head, row, op->cu_len[s], end}, arg);
            }
        }
    }
}

static void attention_row(const struct attention_row *at, void *arg) {
    (void)arg;
    const struct troupe_attention *op = at->op;
    double sum[TROUPE_HEAD_DIM_MAX] = {0}, lse = log_sum_exp(at);
    for (int64_t key = at->begin; key < at->end; key++) {
        double p = exp(score(at, key) - lse);
        const float *v = head_of(&op->v, key, kv_head(op, at->head), op->head_dim);
        for (int d = 0; d < op->head_dim; d++) {
            sum[d] += p * v[d];
        }
    }
    for (int d = 0; d < op->head_dim; d++) {
        row_of(&op->o, at->row)[at->head * op->head_dim + d] = (float)sum[d];
    }
    row_of(&op->lse, at->row)[at->head] = (float)lse;
}

static troupe_status attention(troupe_stream *stream, const struct troupe_attention *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_attention(op));
    for_attention_rows(op, attention_row, NULL);
    return TROUPE_OK;
}

/* dscore = p * (d_o . v - d_o . o); the probabilities are computed afresh in float64. */
static double score_gradient(const struct attention_row *at,
                             const struct troupe_attention_backward *op, int64_t key, double *p) {
    int dim = op->forward.head_dim;
    const float *d_o = head_of(&op->d_o, at->row, at->head, dim);
    const float *v = head_of(&op->forward.v, key, kv_head(&op->forward, at->head), dim);
    *p = exp(score(at, key) - row_of(&op->forward.lse, at->row)[at->head]);
    return *p * (dot(d_o, v, dim) - dot(d_o, head_of(&op->forward.o, at->row, at->head, dim), dim));
}

static void attention_backward_query(const struct attention_row *at, void *arg) {
    const struct troupe_attention_backward *op = arg;
    int dim = op->forward.head_dim;
    double sum[TROUPE_HEAD_DIM_MAX] = {0}, p;
    for (int64_t key = at->begin; key < at->end; key++) {
        double ds = score_gradient(at, op, key, &p);
        const float *k = head_of(&op->forward.k, key, kv_head(&op->forward, at->head), dim);
        for (int d = 0; d < dim; d++) {
            sum[d] += ds * k[d];
        }
    }
    for (int d = 0; d < dim; d++) {
        row_of(&op->dq, at->row)[at->head * dim + d] =
            (float)(troupe_attention_scale(at->op) * sum[d]);
    }
}

/* Gradients of one key and value: over the rows that see it and the heads that share it. */
static void attention_backward_key(const struct troupe_attention_backward *op, int64_t segment,
                                   int64_t key, int shared) {
    const struct troupe_attention *forward = &op->forward;
    int dim = forward->head_dim, group = forward->heads / forward->kv_heads;
    int64_t begin = forward->cu_len[segment], end = forward->cu_len[segment + 1];
    double dk[TROUPE_HEAD_DIM_MAX] = {0}, dv[TROUPE_HEAD_DIM_MAX] = {0}, p;
    for (int head = shared * group; head < (shared + 1) * group; head++) {
        for (int64_t row = forward->causal ? key : begin; row < end; row++) {
            struct attention_row at = {forward, head, row, begin, end};
            double ds = score_gradient(&at, op, key, &p);
            for (int d = 0; d < dim; d++) {
                dk[d] += ds * head_of(&forward->q, row, head, dim)[d];
                dv[d] += p * head_of(&op->d_o, row, head, dim)[d];
            }
        }
    }
    for (int d = 0; d < dim; d++) {
        row_of(&op->dk, key)[shared * dim + d] = (float)(troupe_attention_scale(forward) * dk[d]);
        row_of(&op->dv, key)[shared * dim + d] = (float)dv[d];
    }
}

static troupe_status attention_backward(troupe_stream *stream,
                                        const struct troupe_attention_backward *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_attention_backward(op));
    for_attention_rows(&op->forward, attention_backward_query, (void *)op);
    for (int64_t s = 0; s < op->forward.segments; s++) {
        for (int64_t key = op->forward.cu_len[s]; key < op->forward.cu_len[s + 1]; key++) {
            for (int shared = 0; shared < op->forward.kv_heads; shared++) {
                attention_backward_key(op, s, key, shared);
            }
        }
    }
    return TROUPE_OK;
}

static troupe_status embedding(troupe_stream *stream, const struct troupe_embedding *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_embedding(op));
    for (int64_t r = 0; r < op->y.rows; r++) {
        int64_t row = (int64_t)op->tokens[r] - op->begin;
        for (int64_t c = 0; c < op->y.columns; c++) {
            bool held = row >= 0 && row < op->table.rows;
            row_of(&op->y, r)[c] = held ? row_of(&op->table, row)[c] : 0.0f;
        }
    }
    return TROUPE_OK;
}

static troupe_status embedding_backward(troupe_stream *stream,
                                        const struct troupe_embedding_backward *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_embedding_backward(op));
    for (int64_t r = 0; r < op->dy.rows; r++) {
        int64_t row = (int64_t)op->tokens[r] - op->begin;
        for (int64_t c = 0; row >= 0 && row < op->dtable.rows && c < op->dy.columns; c++) {
            row_of(&op->dtable, row)[c] += row_of(&op->dy, r)[c];
        }
    }
    return TROUPE_OK;
}

static troupe_status rows_move(const struct troupe_rows *op, bool accumulate) {
    TROUPE_TRY(troupe_shape_rows(op));
    for (int64_t i = 0; i < op->count; i++) {
        const float *from = row_of(&op->from, op->from_index != NULL ? op->from_index[i] : i);
        float *to = row_of(&op->to, op->to_index != NULL ? op->to_index[i] : i);
        for (int64_t c = 0; c < op->from.columns; c++) {
            store(&to[c], from[c], accumulate);
        }
    }
    return TROUPE_OK;
}

static troupe_status rows_copy(troupe_stream *stream, const struct troupe_rows *op) {
    (void)stream;
    return rows_move(op, false);
}

static troupe_status rows_add(troupe_stream *stream, const struct troupe_rows *op) {
    (void)stream;
    return rows_move(op, true);
}

static troupe_status add(troupe_stream *stream, const struct troupe_add *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_add(op));
    for (int64_t r = 0; r < op->out.rows; r++) {
        for (int64_t c = 0; c < op->out.columns; c++) {
            row_of(&op->out, r)[c] = (float)(element(&op->x, r, c) + element(&op->y, r, c));
        }
    }
    return TROUPE_OK;
}

static troupe_status axpy(troupe_stream *stream, const struct troupe_axpy *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_axpy(op));
    for (int64_t r = 0; r < op->y.rows; r++) {
        for (int64_t c = 0; c < op->y.columns; c++) {
            store(&row_of(&op->y, r)[c], (double)op->alpha * element(&op->x, r, c), true);
        }
    }
    return TROUPE_OK;
}

static troupe_status scale(troupe_stream *stream, const struct troupe_scale *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_single(&op->x));
    for (int64_t r = 0; r < op->x.rows; r++) {
        for (int64_t c = 0; c < op->x.columns; c++) {
            row_of(&op->x, r)[c] *= op->alpha;
        }
    }
    return TROUPE_OK;
}

static troupe_status fill(troupe_stream *stream, const struct troupe_fill *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_single(&op->x));
    for (int64_t r = 0; r < op->x.rows; r++) {
        for (int64_t c = 0; c < op->x.columns; c++) {
            row_of(&op->x, r)[c] = op->value;
        }
    }
    return TROUPE_OK;
}

/* One patch of one picture into one row. */
static void patchify_row(const struct troupe_patchify *op, const struct troupe_pixels *image,
                         int64_t index, float *out) {
    int64_t across = image->width / op->patch;
    int64_t top = index / across * op->patch, left = index % across * op->patch;
    for (int64_t y = 0; y < op->patch; y++) {
        const uint8_t *line = image->pixels + (top + y) * image->stride_bytes + left * 3;
        for (int64_t i = 0; i < (int64_t)op->patch * 3; i++) {
            int64_t channel = i % 3;
            double deviation = op->deviation[channel] != 0.0f ? op->deviation[channel] : 1.0;
            *out++ = (float)((line[i] / 255.0 - op->mean[channel]) / deviation);
        }
    }
}

static troupe_status patchify(troupe_stream *stream, const struct troupe_patchify *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_patchify(op));
    int64_t row = 0;
    for (int64_t i = 0; i < op->image_count; i++) {
        int64_t patches = troupe_image_patches(&op->images[i], op->patch);
        for (int64_t p = 0; p < patches; p++) {
            patchify_row(op, &op->images[i], p, row_of(&op->out, row++));
        }
    }
    return TROUPE_OK;
}

static troupe_status row_max(troupe_stream *stream, const struct troupe_row_max *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_single(&op->logits));
    for (int64_t r = 0; r < op->logits.rows; r++) {
        double max = -INFINITY;
        for (int64_t c = 0; c < op->logits.columns; c++) {
            max = fmax(max, element(&op->logits, r, c));
        }
        op->row_max[r] = (float)max;
    }
    return TROUPE_OK;
}

/* Column of the row's target in this shard, or -1. */
static int64_t target_column(int32_t target, int32_t begin, int64_t columns) {
    int64_t column = (int64_t)target - begin;
    return target >= 0 && column >= 0 && column < columns ? column : -1;
}

static troupe_status row_sum_exp(troupe_stream *stream, const struct troupe_row_sum_exp *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_single(&op->logits));
    for (int64_t r = 0; r < op->logits.rows; r++) {
        int64_t column = target_column(op->targets[r], op->begin, op->logits.columns);
        double sum = 0, max = op->row_max[r];
        for (int64_t c = 0; c < op->logits.columns; c++) {
            sum += exp(element(&op->logits, r, c) - max);
        }
        op->row_sum[r] = (float)sum;
        op->target_logit[r] = column >= 0 ? (float)(element(&op->logits, r, column) - max) : 0.0f;
    }
    return TROUPE_OK;
}

static troupe_status cross_entropy(troupe_stream *stream, const struct troupe_cross_entropy *op) {
    (void)stream;
    double sum = 0;
    for (int64_t r = 0; r < op->rows; r++) {
        bool counted = op->targets[r] >= 0;
        double loss = counted ? log(op->row_sum[r]) - op->target_logit[r] : 0.0;
        op->row_loss[r] = (float)loss;
        sum += loss;
    }
    *op->loss_sum = sum;
    return TROUPE_OK;
}

static troupe_status cross_entropy_backward(troupe_stream *stream,
                                            const struct troupe_cross_entropy_backward *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_single(&op->logits));
    for (int64_t r = 0; r < op->logits.rows; r++) {
        int64_t column = target_column(op->targets[r], op->begin, op->logits.columns);
        float *logits = row_of(&op->logits, r);
        for (int64_t c = 0; c < op->logits.columns; c++) {
            double p = exp((double)logits[c] - op->row_max[r]) / op->row_sum[r];
            double gradient = op->scale * (p - (c == column ? 1.0 : 0.0));
            logits[c] = op->targets[r] >= 0 ? (float)gradient : 0.0f;
        }
    }
    return TROUPE_OK;
}

static troupe_status adamw(troupe_stream *stream, const struct troupe_adamw *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_adamw(op));
    double correct_m = 1 - pow(op->beta1, (double)op->step);
    double correct_v = 1 - pow(op->beta2, (double)op->step);
    for (int64_t r = 0; r < op->param.rows; r++) {
        float *param = row_of(&op->param, r), *m = row_of(&op->m, r), *v = row_of(&op->v, r);
        for (int64_t c = 0; c < op->param.columns; c++) {
            double g = op->grad_scale * element(&op->grad, r, c);
            double next_m = op->beta1 * m[c] + (1 - op->beta1) * g;
            double next_v = op->beta2 * v[c] + (1 - op->beta2) * g * g;
            double step = next_m / correct_m / (sqrt(next_v / correct_v) + op->epsilon);
            param[c] = (float)(param[c] - op->lr * (step + op->decay * param[c]));
            m[c] = (float)next_m;
            v[c] = (float)next_v;
        }
    }
    return TROUPE_OK;
}

static troupe_status square_sum(troupe_stream *stream, const struct troupe_square_sum *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_single(&op->x));
    double sum = 0;
    for (int64_t r = 0; r < op->x.rows; r++) {
        for (int64_t c = 0; c < op->x.columns; c++) {
            sum += element(&op->x, r, c) * element(&op->x, r, c);
        }
    }
    *op->out = sum;
    return TROUPE_OK;
}

static troupe_status first_nonfinite(troupe_stream *stream,
                                     const struct troupe_first_nonfinite *op) {
    (void)stream;
    TROUPE_TRY(troupe_shape_single(&op->x));
    *op->row_out = -1;
    for (int64_t r = 0; r < op->x.rows; r++) {
        for (int64_t c = 0; c < op->x.columns; c++) {
            if (!isfinite(element(&op->x, r, c))) {
                *op->row_out = r;
                return TROUPE_OK;
            }
        }
    }
    return TROUPE_OK;
}

const struct troupe_kernels troupe_kernels_reference_table = {
    .name = "reference",
    .matmul = matmul,
    .bias_add = bias_add,
    .column_sum = column_sum,
    .layernorm = layernorm,
    .layernorm_backward_input = layernorm_backward_input,
    .layernorm_backward_weight = layernorm_backward_weight,
    .rmsnorm = rmsnorm,
    .rmsnorm_backward_input = rmsnorm_backward_input,
    .rmsnorm_backward_weight = rmsnorm_backward_weight,
    .gelu = gelu,
    .gelu_backward = gelu_backward,
    .swiglu = swiglu,
    .swiglu_backward = swiglu_backward,
    .rope_table = rope_table,
    .rope = rope,
    .attention_workspace = attention_workspace,
    .attention = attention,
    .attention_backward = attention_backward,
    .embedding = embedding,
    .embedding_backward = embedding_backward,
    .rows_copy = rows_copy,
    .rows_add = rows_add,
    .add = add,
    .axpy = axpy,
    .scale = scale,
    .fill = fill,
    .patchify = patchify,
    .row_max = row_max,
    .row_sum_exp = row_sum_exp,
    .cross_entropy = cross_entropy,
    .cross_entropy_backward = cross_entropy_backward,
    .adamw = adamw,
    .square_sum = square_sum,
    .first_nonfinite = first_nonfinite,
};
