/* SPDX-License-Identifier: Apache-2.0
 *
 * float32 products on a matrix unit for bfloat16 (AMX). A float32 is the exact sum of three
 * bfloat16: its leading 8 bits, the next 8 and the last 8. Of the nine products of such sums six
 * are formed; what is left out is below 2^-25 of the product, less than rounding it to float32
 * (Henry, Tang and Heinecke, 2019). Sums are float32. So results are as exact as those of float32
 * multiply-adds: the unit does sixteen times as many as the vector units, of which six are spent.
 *
 * Measured on one core at some 352 x 192 x 192: 91 floating-point operations a clock of 2.6 GHz,
 * whatever is transposed. A square of 32 takes 335 clocks of products alone, nearly what the unit
 * can do; its packing takes 100, and storing a group stops the unit for 600, whatever is put behind
 * it.
 *
 * A tile is 16 rows of 16 pairs; a pair is steps p and p + 16 of k. In a tile of a the rows are
 * rows of a and the pairs go along k; in a tile of b the rows go along k and the pairs along the
 * columns. GROUP rows of a times GROUP columns of b are four tiles of c.
 */
#include "modules/kernels/cpu/product_internal.h"
#include "runtime/check.h"

#if defined(__AMX_BF16__) && defined(__AVX512F__)

#include <immintrin.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SIDE = 16,        /* rows, and pairs in a row, of a tile */
    GROUP = 2 * SIDE, /* rows of a, columns of b, and steps of k that are packed together */
    PARTS = 3,
    TILE = SIDE * SIDE,
    PACKED = 2 * PARTS * TILE, /* pairs of GROUP x GROUP numbers */
};

typedef uint32_t pairs __attribute__((vector_size(SIDE * sizeof(uint32_t))));

/* Writes (low, high) as PARTS rows of pairs, one in each of the tiles that follow each other in
 * steps of 2. Rounding to nearest leaves the smallest rest; the last part is exact and must keep a
 * NaN, which rounding could turn into a zero. */
INLINE void split(vector low, vector high, uint32_t *to) {
    UNROLL
    for (int part = 0; part < PARTS; part++, to += 2 * TILE) {
        uint32_t half = part < PARTS - 1 ? 0x8000 : 0;
        pairs a = ((pairs)low + half) & 0xffff0000, b = ((pairs)high + half) & 0xffff0000;
        *(pairs *)to = a >> 16 | b;
        low -= (vector)a;
        high -= (vector)b;
    }
}

/* An operand with its extents, seen as op(x): what lies outside is zero. */
struct view {
    struct operand x;
    int64_t rows;
    int64_t columns;
};

static vector load_some(const float *from, int64_t count) {
    vector some = {0};
    memcpy(&some, from, (size_t)count * sizeof(float));
    return some;
}

/* Four rows of four quarters, transposed in each quarter. */
INLINE void turn_quarters(__m512 *row) {
    __m512 low01 = _mm512_unpacklo_ps(row[0], row[1]), high01 = _mm512_unpackhi_ps(row[0], row[1]);
    __m512 low23 = _mm512_unpacklo_ps(row[2], row[3]), high23 = _mm512_unpackhi_ps(row[2], row[3]);
    row[0] = _mm512_shuffle_ps(low01, low23, 0x44);
    row[1] = _mm512_shuffle_ps(low01, low23, 0xee);
    row[2] = _mm512_shuffle_ps(high01, high23, 0x44);
    row[3] = _mm512_shuffle_ps(high01, high23, 0xee);
}

/* out[i] = column i of the square at `from`. The quarters of a vector come from four rows, so that
 * nothing has to move from one quarter to another. */
INLINE void load_turned(const float *from, int64_t stride, vector *out) {
    UNROLL
    for (int i = 0; i < SIDE; i += 4) {
        __m512 row[4];
        UNROLL
        for (int j = 0; j < 4; j++) {
            const float *at = from + j * stride + i;
            row[j] = _mm512_castps128_ps512(_mm_loadu_ps(at));
            row[j] = _mm512_insertf32x4(row[j], _mm_loadu_ps(at + 4 * stride), 1);
            row[j] = _mm512_insertf32x4(row[j], _mm_loadu_ps(at + 8 * stride), 2);
            row[j] = _mm512_insertf32x4(row[j], _mm_loadu_ps(at + 12 * stride), 3);
        }
        turn_quarters(row);
        UNROLL
        for (int j = 0; j < 4; j++) {
            out[i + j] = (vector)row[j];
        }
    }
}

/* out[i] = columns [column, column + SIDE) of row (row + i). */
INLINE void load_square(const struct view *view, int64_t row, int64_t column, vector *out) {
    bool turned = view->x.transposed;
    int64_t down = turned ? column : row, across = turned ? row : column;
    int64_t lines = (turned ? view->columns : view->rows) - down;
    int64_t width = (turned ? view->rows : view->columns) - across;
    const float *from = view->x.data + down * view->x.stride + across;
    if (lines >= SIDE && width >= SIDE && turned) {
        load_turned(from, view->x.stride, out);
        return;
    }
    if (lines >= SIDE && width >= SIDE) {
        UNROLL
        for (int i = 0; i < SIDE; i++) {
            out[i] = *(const unaligned *)(from + i * view->x.stride);
        }
        return;
    }
    for (int i = 0; i < SIDE; i++) {
        int64_t count = i >= lines || width <= 0 ? 0 : width < SIDE ? width : SIDE;
        out[i] = count > 0 ? load_some(from + i * view->x.stride, count) : (vector){0};
    }
    if (turned) {
        vector_turn(out);
    }
}

/* One tile of each part: pairs of the squares at (row, column) and `down`, `across` further on. */
INLINE void pack_tile(const struct view *view, int64_t row, int64_t column, int64_t down,
                      int64_t across, uint32_t *to) {
    vector low[SIDE], high[SIDE];
    load_square(view, row, column, low);
    load_square(view, row + down, column + across, high);
    for (int i = 0; i < SIDE; i++) {
        split(low[i], high[i], to + i * SIDE);
    }
}

/* Rows [row, row + GROUP) of a, all of k. */
static void pack_rows(const struct view *a, int64_t row, uint32_t *to) {
    for (int64_t p = 0; p < a->columns; p += GROUP, to += PACKED) {
        pack_tile(a, row, p, 0, SIDE, to);
        pack_tile(a, row + SIDE, p, 0, SIDE, to + TILE);
    }
}

/* Columns [column, column + GROUP) of b, all of k. */
static void pack_columns(const struct view *b, int64_t column, uint32_t *to) {
    for (int64_t p = 0; p < b->rows; p += GROUP, to += PACKED) {
        pack_tile(b, p, column, SIDE, 0, to);
        pack_tile(b, p, column + SIDE, SIDE, 0, to + TILE);
    }
}

/* Tiles 0 to 3 are c, 4 and 5 the rows, 6 and 7 the columns; of a part's two tiles the second
 * follows the first. */
#define LOAD(first, second, packed, part)                                                          \
    _tile_loadd(first, (packed) + 2 * (part)*TILE, SIDE * sizeof(uint32_t));                       \
    _tile_loadd(second, (packed) + (2 * (part) + 1) * TILE, SIDE * sizeof(uint32_t))
#define MULTIPLY()                                                                                 \
    _tile_dpbf16ps(0, 4, 6);                                                                       \
    _tile_dpbf16ps(1, 4, 7);                                                                       \
    _tile_dpbf16ps(2, 5, 6);                                                                       \
    _tile_dpbf16ps(3, 5, 7)

/* Tiles 0 to 3 as a square of GROUP x GROUP, whose rows are `stride` numbers apart. */
#define GROUP_TILES(operation, c, stride)                                                          \
    operation(0, (c), (stride) * (int64_t)sizeof(float));                                          \
    operation(1, (c) + SIDE, (stride) * (int64_t)sizeof(float));                                   \
    operation(2, (c) + SIDE * (stride), (stride) * (int64_t)sizeof(float));                        \
    operation(3, (c) + SIDE * (stride) + SIDE, (stride) * (int64_t)sizeof(float))

/* Tiles 0 to 3 += the packed rows times the packed columns. */
static void multiply_group(const uint32_t *a, const uint32_t *b, int64_t k) {
    for (int64_t p = 0; p < k; p += GROUP, a += PACKED, b += PACKED) {
        LOAD(4, 5, a, 0);
        LOAD(6, 7, b, 2);
        MULTIPLY();
        LOAD(6, 7, b, 1);
        MULTIPLY();
        LOAD(6, 7, b, 0);
        MULTIPLY();
        LOAD(4, 5, a, 1);
        MULTIPLY();
        LOAD(6, 7, b, 1);
        MULTIPLY();
        LOAD(4, 5, a, 2);
        LOAD(6, 7, b, 0);
        MULTIPLY();
    }
}

static const float zeros[GROUP];

/* Puts a group where it belongs. */
static void store_group(const struct product *product, int64_t row, int64_t column,
                        const float *group) {
    int64_t rows = product->m - row < GROUP ? product->m - row : GROUP;
    int64_t columns = product->n - column < GROUP ? product->n - column : GROUP;
    const float *bias = product->bias != NULL ? product->bias + column : zeros;
    for (int64_t i = 0; i < rows; i++) {
        float *c = product->c + (row + i) * product->c_stride + column;
        const float *from = group + i * GROUP;
#pragma omp simd
        for (int64_t j = 0; j < columns; j++) {
            float value = product->alpha * from[j] + bias[j];
            c[j] = product->accumulate ? c[j] + value : value;
        }
    }
}

/* A group that lies in c whole begins there, or with the bias in each row, and ends there: nothing
 * waits for its sums. Others go through memory. */
static void finish_group(const struct product *product, int64_t row, int64_t column,
                         const uint32_t *a, const uint32_t *b) {
    bool whole = product->m - row >= GROUP && product->n - column >= GROUP;
    bool biased = product->bias != NULL;
    if (whole && product->alpha == 1.0f && !(biased && product->accumulate)) {
        float *c = product->c + row * product->c_stride + column;
        const float *from = product->accumulate ? c : biased ? product->bias + column : zeros;
        int64_t stride = product->accumulate ? product->c_stride : 0;
        GROUP_TILES(_tile_loadd, from, stride);
        multiply_group(a, b, product->k);
        GROUP_TILES(_tile_stored, c, product->c_stride);
    } else {
        _Alignas(64) float group[GROUP * GROUP];
        GROUP_TILES(_tile_loadd, zeros, (int64_t)0);
        multiply_group(a, b, product->k);
        GROUP_TILES(_tile_stored, group, (int64_t)GROUP);
        store_group(product, row, column, group);
    }
}

/* Eight tiles of 16 rows of 64 bytes. */
static void configure_tiles(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } tiles = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        tiles.row_bytes[i] = SIDE * sizeof(uint32_t);
        tiles.rows[i] = SIDE;
    }
    _tile_loadconfig(&tiles);
}

void product_split_multiply(const struct product *product, void *scratch) {
    struct view left = {product->a, product->m, product->k};
    struct view right = {product->b.b, product->k, product->n};
    int64_t panel = (product->k + GROUP - 1) / GROUP * PACKED;
    uint32_t *packed = scratch;
    _Alignas(64) uint32_t rows[PRODUCT_SPLIT_DEPTH / GROUP * PACKED];
    for (int64_t column = 0; column < product->n; column += GROUP) {
        pack_columns(&right, column, packed + column / GROUP * panel);
    }
    configure_tiles();
    for (int64_t row = 0; row < product->m; row += GROUP) {
        pack_rows(&left, row, rows);
        for (int64_t column = 0; column < product->n; column += GROUP) {
            finish_group(product, row, column, rows, packed + column / GROUP * panel);
        }
    }
    _tile_release();
}

/* The operating system keeps the unit's large registers only for processes that ask for them.
 * Written once. */
static bool permitted;

static void ask(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    permitted = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

bool product_split_works(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, ask);
    return permitted;
}

#else

bool product_split_works(void) {
    return false;
}

void product_split_multiply(const struct product *product, void *scratch) {
    (void)product;
    (void)scratch;
    TROUPE_ASSERT(false, "no matrix unit");
}

#endif
