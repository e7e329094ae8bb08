/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/shape_internal.h"

#include <math.h>

#include "runtime/check.h"

static troupe_status expect(const char *check, const char *operand, const struct troupe_tensor *t,
                            int64_t rows, int64_t columns) {
    TROUPE_ASSERT(t->rows == rows && t->columns == columns,
                  "%s: %s is %lld x %lld, expected %lld x %lld", check, operand, (long long)t->rows,
                  (long long)t->columns, (long long)rows, (long long)columns);
    TROUPE_ASSERT(t->stride >= columns || rows <= 1, "%s: %s has stride %lld for %lld columns",
                  check, operand, (long long)t->stride, (long long)columns);
    if (t->dtype != TROUPE_FLOAT32) {
        return troupe_fail(TROUPE_ERROR_UNSUPPORTED,
                           "%s: %s is %s; kernels compute in float32 only", check, operand,
                           troupe_dtype_name(t->dtype));
    }
    return TROUPE_OK;
}

#define EXPECT_SHAPE(operand, rows, columns)                                                       \
    TROUPE_TRY(expect(__func__, #operand, &op->operand, rows, columns))

troupe_status troupe_shape_matmul(const struct troupe_matmul *op, struct troupe_matmul_sizes *out) {
    int64_t m = op->c.rows, n = op->c.columns;
    int64_t k = op->transpose_a ? op->a.rows : op->a.columns;
    EXPECT_SHAPE(c, m, n);
    EXPECT_SHAPE(a, op->transpose_a ? k : m, op->transpose_a ? m : k);
    EXPECT_SHAPE(b, op->transpose_b ? n : k, op->transpose_b ? k : n);
    if (tensor_given(&op->bias)) {
        EXPECT_SHAPE(bias, 1, n);
    }
    *out = (struct troupe_matmul_sizes){.m = m, .n = n, .k = k};
    return TROUPE_OK;
}

troupe_status troupe_shape_bias_add(const struct troupe_bias_add *op) {
    EXPECT_SHAPE(x, op->x.rows, op->x.columns);
    EXPECT_SHAPE(bias, 1, op->x.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_column_sum(const struct troupe_column_sum *op) {
    EXPECT_SHAPE(x, op->x.rows, op->x.columns);
    EXPECT_SHAPE(out, 1, op->x.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_rmsnorm(const struct troupe_norm *op) {
    EXPECT_SHAPE(x, op->x.rows, op->x.columns);
    EXPECT_SHAPE(y, op->x.rows, op->x.columns);
    EXPECT_SHAPE(weight, 1, op->x.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_layernorm(const struct troupe_norm *op) {
    TROUPE_TRY(troupe_shape_rmsnorm(op));
    EXPECT_SHAPE(bias, 1, op->x.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_norm_backward_input(const struct troupe_norm_backward_input *op) {
    EXPECT_SHAPE(x, op->x.rows, op->x.columns);
    EXPECT_SHAPE(dy, op->x.rows, op->x.columns);
    EXPECT_SHAPE(dx, op->x.rows, op->x.columns);
    EXPECT_SHAPE(weight, 1, op->x.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_rmsnorm_backward_weight(const struct troupe_norm_backward_weight *op) {
    EXPECT_SHAPE(x, op->x.rows, op->x.columns);
    EXPECT_SHAPE(dy, op->x.rows, op->x.columns);
    EXPECT_SHAPE(dweight, 1, op->x.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_layernorm_backward_weight(const struct troupe_norm_backward_weight *op) {
    TROUPE_TRY(troupe_shape_rmsnorm_backward_weight(op));
    EXPECT_SHAPE(dbias, 1, op->x.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_gelu(const struct troupe_gelu *op) {
    EXPECT_SHAPE(x, op->x.rows, op->x.columns);
    EXPECT_SHAPE(y, op->x.rows, op->x.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_gelu_backward(const struct troupe_gelu_backward *op) {
    EXPECT_SHAPE(x, op->x.rows, op->x.columns);
    EXPECT_SHAPE(dy, op->x.rows, op->x.columns);
    EXPECT_SHAPE(dx, op->x.rows, op->x.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_swiglu(const struct troupe_swiglu *op) {
    EXPECT_SHAPE(gate, op->gate.rows, op->gate.columns);
    EXPECT_SHAPE(up, op->gate.rows, op->gate.columns);
    EXPECT_SHAPE(y, op->gate.rows, op->gate.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_swiglu_backward(const struct troupe_swiglu_backward *op) {
    EXPECT_SHAPE(gate, op->gate.rows, op->gate.columns);
    EXPECT_SHAPE(up, op->gate.rows, op->gate.columns);
    EXPECT_SHAPE(dy, op->gate.rows, op->gate.columns);
    EXPECT_SHAPE(dgate, op->gate.rows, op->gate.columns);
    EXPECT_SHAPE(dup, op->gate.rows, op->gate.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_rope_table(const struct troupe_rope_table *op) {
    EXPECT_SHAPE(table, op->table.rows, op->table.columns);
    TROUPE_ASSERT(op->table.columns % 2 == 0, "a head of %lld columns has no pairs",
                  (long long)op->table.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_rope(const struct troupe_rope *op) {
    int64_t dim = op->table.columns;
    EXPECT_SHAPE(table, op->table.rows, dim);
    EXPECT_SHAPE(x, op->x.rows, op->x.columns);
    EXPECT_SHAPE(y, op->x.rows, op->x.columns);
    TROUPE_ASSERT(dim > 0 && dim % 2 == 0 && op->x.columns % dim == 0,
                  "%lld columns are not whole heads of %lld", (long long)op->x.columns,
                  (long long)dim);
    return TROUPE_OK;
}

troupe_status troupe_shape_attention(const struct troupe_attention *op) {
    TROUPE_ASSERT(op->head_dim > 0 && op->head_dim <= TROUPE_HEAD_DIM_MAX,
                  "head_dim %d of at most %d", op->head_dim, TROUPE_HEAD_DIM_MAX);
    TROUPE_ASSERT(op->kv_heads > 0 && op->heads % op->kv_heads == 0, "%d heads share %d kv heads",
                  op->heads, op->kv_heads);
    int64_t rows = op->q.rows, q_columns = (int64_t)op->heads * op->head_dim;
    int64_t kv_columns = (int64_t)op->kv_heads * op->head_dim;
    TROUPE_ASSERT(op->cu_len[0] == 0 && op->cu_len[op->segments] == rows,
                  "segments cover rows [%d, %d) of %lld", op->cu_len[0], op->cu_len[op->segments],
                  (long long)rows);
    EXPECT_SHAPE(q, rows, q_columns);
    EXPECT_SHAPE(k, rows, kv_columns);
    EXPECT_SHAPE(v, rows, kv_columns);
    EXPECT_SHAPE(o, rows, q_columns);
    EXPECT_SHAPE(lse, rows, op->heads);
    return TROUPE_OK;
}

troupe_status troupe_shape_attention_backward(const struct troupe_attention_backward *op) {
    TROUPE_TRY(troupe_shape_attention(&op->forward));
    EXPECT_SHAPE(d_o, op->forward.o.rows, op->forward.o.columns);
    EXPECT_SHAPE(dq, op->forward.q.rows, op->forward.q.columns);
    EXPECT_SHAPE(dk, op->forward.k.rows, op->forward.k.columns);
    EXPECT_SHAPE(dv, op->forward.v.rows, op->forward.v.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_embedding(const struct troupe_embedding *op) {
    EXPECT_SHAPE(table, op->table.rows, op->table.columns);
    EXPECT_SHAPE(y, op->y.rows, op->table.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_embedding_backward(const struct troupe_embedding_backward *op) {
    EXPECT_SHAPE(dtable, op->dtable.rows, op->dtable.columns);
    EXPECT_SHAPE(dy, op->dy.rows, op->dtable.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_rows(const struct troupe_rows *op) {
    EXPECT_SHAPE(from, op->from.rows, op->from.columns);
    EXPECT_SHAPE(to, op->to.rows, op->from.columns);
    for (int64_t i = 0; i < op->count; i++) {
        int64_t from = op->from_index != NULL ? op->from_index[i] : i;
        int64_t to = op->to_index != NULL ? op->to_index[i] : i;
        TROUPE_ASSERT(from >= 0 && from < op->from.rows && to >= 0 && to < op->to.rows,
                      "row %lld: from %lld of %lld to %lld of %lld", (long long)i, (long long)from,
                      (long long)op->from.rows, (long long)to, (long long)op->to.rows);
    }
    return TROUPE_OK;
}

troupe_status troupe_shape_add(const struct troupe_add *op) {
    EXPECT_SHAPE(out, op->out.rows, op->out.columns);
    EXPECT_SHAPE(x, op->out.rows, op->out.columns);
    EXPECT_SHAPE(y, op->out.rows, op->out.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_axpy(const struct troupe_axpy *op) {
    EXPECT_SHAPE(y, op->y.rows, op->y.columns);
    EXPECT_SHAPE(x, op->y.rows, op->y.columns);
    return TROUPE_OK;
}

troupe_status troupe_shape_patchify(const struct troupe_patchify *op) {
    int64_t rows = 0;
    for (int64_t i = 0; i < op->image_count; i++) {
        rows += troupe_image_patches(&op->images[i], op->patch);
    }
    EXPECT_SHAPE(out, rows, (int64_t)op->patch * op->patch * 3);
    return TROUPE_OK;
}

troupe_status troupe_shape_adamw(const struct troupe_adamw *op) {
    int64_t rows = op->param.rows, columns = op->param.columns;
    EXPECT_SHAPE(param, rows, columns);
    EXPECT_SHAPE(grad, rows, columns);
    EXPECT_SHAPE(m, rows, columns);
    EXPECT_SHAPE(v, rows, columns);
    TROUPE_ASSERT(op->step >= 1, "steps count from 1, not %lld", (long long)op->step);
    return TROUPE_OK;
}

troupe_status troupe_shape_single(const struct troupe_tensor *x) {
    return expect("troupe_shape_single", "operand", x, x->rows, x->columns);
}

float troupe_attention_scale(const struct troupe_attention *op) {
    return op->scale != 0.0f ? op->scale : (float)(1.0 / sqrt(op->head_dim));
}

int64_t troupe_image_patches(const struct troupe_pixels *image, int patch) {
    TROUPE_ASSERT(patch > 0 && image->height % patch == 0 && image->width % patch == 0,
                  "an image of %d x %d is not whole patches of %d", image->height, image->width,
                  patch);
    return (int64_t)(image->height / patch) * (image->width / patch);
}
