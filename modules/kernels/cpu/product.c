/* SPDX-License-Identifier: Apache-2.0
 *
 * The product of PRODUCT_ROWS rows of a and one panel of b stays in registers: at each of the k
 * steps two vectors of b are loaded, each number of a is spread over a vector, and all are
 * multiplied into the sums (Goto and van de Geijn, 2008). With AVX-512 that is 24 multiply-adds
 * beside 14 loads. The rows of a then are in the first cache for the next panel. Only what is not
 * in order in memory is copied: a transposed a or b, and edges.
 *
 * Measured on a core that multiplies and adds at 184 GFLOP/s: 174 to 183 in this loop.
 */
#include "modules/kernels/cpu/product_internal.h"

#include <string.h>

enum { LANE = VECTOR_LANE, ROWS = PRODUCT_ROWS, PANEL = PRODUCT_PANEL };
enum { AHEAD = 8 }; /* steps: rows of b may be far apart, too far for the hardware to foresee */

/* ROWS rows of a: element (i, p) at data[i * row + p * step]. */
struct strip {
    const float *data;
    int64_t row;
    int64_t step;
};

/* A panel of b, one or two vectors wide: row p at data + p * step. */
struct panel {
    const float *data;
    int64_t step;
};

/* A part of c and how it is written. */
struct target {
    float *c;
    int64_t stride;
    const float *bias;
    float alpha;
    bool accumulate;
};

INLINE void multiply_tile(const struct strip *a, const struct panel *b, int64_t k, int vectors,
                          const struct target *to) {
    vector sum[ROWS][2] = {0};
    const float *third[ROWS / 3]; /* of every third row: so few pointers stay in registers */
    UNROLL
    for (int i = 0; i < ROWS / 3; i++) {
        third[i] = a->data + 3 * i * a->row;
    }
    for (int64_t p = 0; p < k; p++) {
        vector right[2];
        __builtin_prefetch(b->data + (p + AHEAD) * b->step);
        __builtin_prefetch(b->data + (p + AHEAD) * b->step + PANEL - 1);
        UNROLL
        for (int j = 0; j < vectors; j++) {
            right[j] = *(const unaligned *)(b->data + p * b->step + j * LANE);
        }
        UNROLL
        for (int i = 0; i < ROWS; i++) {
            vector left = third[i / 3][i % 3 * a->row + p * a->step] - (vector){0};
            UNROLL
            for (int j = 0; j < vectors; j++) {
                sum[i][j] += left * right[j];
            }
        }
    }
    UNROLL
    for (int i = 0; i < ROWS; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++) {
            unaligned *c = (unaligned *)(to->c + i * to->stride + j * LANE);
            vector value = to->alpha * sum[i][j];
            if (to->bias != NULL) {
                value += *(const unaligned *)(to->bias + j * LANE);
            }
            if (to->accumulate) {
                value += *c;
            }
            *c = value;
        }
    }
}

/* A tile that lacks rows or columns of c goes through memory of a whole tile's size. */
static void multiply_edge(const struct strip *a, const struct panel *b, int64_t k, int64_t rows,
                          int64_t columns, const struct target *to) {
    float whole[ROWS * PANEL];
    struct target all = {.c = whole, .stride = PANEL, .alpha = to->alpha};
    if (columns > LANE) {
        multiply_tile(a, b, k, 2, &all);
    } else {
        multiply_tile(a, b, k, 1, &all);
    }
    for (int64_t i = 0; i < rows; i++) {
        float *c = to->c + i * to->stride;
        for (int64_t j = 0; j < columns; j++) {
            float value = whole[i * PANEL + j] + (to->bias != NULL ? to->bias[j] : 0.0f);
            c[j] = to->accumulate ? c[j] + value : value;
        }
    }
}

/* Columns [first, first + columns) of k rows, `width` numbers a row, zeros beyond the columns. */
static void pack_columns(const struct operand *from, int64_t k, int64_t first, int64_t columns,
                         int64_t width, float *to) {
    int64_t down = from->transposed ? 1 : from->stride;
    int64_t across = from->transposed ? from->stride : 1;
    const float *data = from->data + first * across;
    for (int64_t p = 0; p < k; p++) {
        for (int64_t j = 0; j < width; j++) {
            to[p * width + j] = j < columns ? data[p * down + j * across] : 0.0f;
        }
    }
}

/* LANE columns that lie as rows in memory. */
static void turn_square(const float *from, int64_t stride, float *to) {
    vector row[LANE];
    UNROLL
    for (int i = 0; i < LANE; i++) {
        row[i] = *(const unaligned *)(from + i * stride);
    }
    vector_turn(row);
    UNROLL
    for (int i = 0; i < LANE; i++) {
        *(unaligned *)(to + i * PANEL) = row[i];
    }
}

/* A whole panel of a transposed b. */
static void turn_panel(const struct operand *b, int64_t k, int64_t first, float *to) {
    const float *upper = b->data + first * b->stride, *lower = upper + LANE * b->stride;
    int64_t whole = k / LANE * LANE;
    for (int64_t p = 0; p < whole; p += LANE) {
        turn_square(upper + p, b->stride, to + p * PANEL);
        turn_square(lower + p, b->stride, to + p * PANEL + LANE);
    }
    struct operand rest = {b->data + whole, b->stride, true};
    pack_columns(&rest, k - whole, first, PANEL, PANEL, to + whole * PANEL);
}

struct right product_right(struct operand b, int64_t k, int64_t n, float *scratch) {
    int64_t first = n / PANEL * PANEL;
    struct right right = {b, k, n, b.transposed ? 0 : first, scratch};
    for (int64_t i = right.in_place; i < first; i += PANEL, scratch += PANEL * k) {
        turn_panel(&b, k, i, scratch);
    }
    if (first < n) {
        pack_columns(&b, k, first, n - first, n - first > LANE ? PANEL : LANE, scratch);
    }
    return right;
}

static struct panel panel_of(const struct right *right, int64_t column) {
    if (column < right->in_place) {
        return (struct panel){right->b.data + column, right->b.stride};
    }
    return (struct panel){right->packed + (column - right->in_place) * right->k,
                          right->n - column > LANE ? PANEL : LANE};
}

/* The strip from row `row` on: in place, or copied to `packed`. */
static struct strip strip_of(const struct operand *a, int64_t k, int64_t row, int64_t rows,
                             float *packed) {
    if (!a->transposed && rows == ROWS) {
        return (struct strip){a->data + row * a->stride, a->stride, 1};
    }
    struct operand turned = {a->data, a->stride, !a->transposed};
    if (rows < ROWS) {
        pack_columns(&turned, k, row, rows, ROWS, packed);
    } else {
        for (int64_t p = 0; p < k; p++) {
            memcpy(packed + p * ROWS, a->data + p * a->stride + row, ROWS * sizeof(*packed));
        }
    }
    return (struct strip){packed, 1, ROWS};
}

/* Rows [row, row + rows) of c. */
static void multiply_rows(const struct product *product, int64_t row, int64_t rows) {
    float packed[ROWS * PRODUCT_DEPTH];
    struct strip a = strip_of(&product->a, product->k, row, rows, packed);
    for (int64_t column = 0; column < product->n; column += PANEL) {
        int64_t columns = product->n - column < PANEL ? product->n - column : PANEL;
        struct panel b = panel_of(&product->b, column);
        struct target to = {.c = product->c + row * product->c_stride + column,
                            .stride = product->c_stride,
                            .bias = product->bias != NULL ? product->bias + column : NULL,
                            .alpha = product->alpha,
                            .accumulate = product->accumulate};
        if (rows < ROWS || columns < PANEL) {
            multiply_edge(&a, &b, product->k, rows, columns, &to);
        } else {
            multiply_tile(&a, &b, product->k, 2, &to);
        }
    }
}

void product_multiply(const struct product *product) {
    for (int64_t row = 0; row < product->m; row += ROWS) {
        multiply_rows(product, row, product->m - row < ROWS ? product->m - row : ROWS);
    }
}
