/* SPDX-License-Identifier: Apache-2.0
 *
 * A layout says which rank holds which boxes of a logical tensor of up to four dimensions
 * (dimension 0: rows, 1: columns; unused ones have extent 1). The boxes of one rank are disjoint;
 * the same elements on several ranks are replicas: identical copies.
 *
 * A *ragged* layout leaves the rows open: each piece names a part of a row split whose offsets are
 * given per microbatch. That is the form of a boundary tensor, rows x hidden:
 *
 *     troupe_layout_init(&(struct troupe_layout_options){            (rows over dp, copies on tp)
 *         .mesh = &mesh, .stage = 0, .shape = {0, hidden}, .ragged = true,
 *         .split = {TROUPE_AXES(TROUPE_DP)}}, &layout);
 *
 * and of a parameter of 4 x 6 whose columns are split over tp:
 *
 *         .mesh = &mesh, .shape = {4, 6}, .split = {[1] = TROUPE_AXES(TROUPE_TP)}
 *
 * Rows may consist of *sequences*: the axes up to dp then share out whole sequences, and those
 * after it cut each one. That is context parallelism over cp and, below it, sequence parallelism
 * over tp:
 *
 *         .split = {TROUPE_AXES(TROUPE_DP, TROUPE_CP, TROUPE_TP)}, .sequences = 4, .zigzag = true
 *
 * Where the rows are *dealt* to dp, which rank has which is not known before the microbatch: dp
 * takes turns, so that rank d has parts d, DP + d, ..., and the offsets leave those empty that are
 * not wanted: at most as many parts as there are rounds have rows.
 *
 *         .split = {TROUPE_AXES(TROUPE_DP)}, .rounds = 8
 *
 * Where each rank of some axes holds a *summand*, the layout is partial: its elements are the sums
 * over these ranks (comm/route_sum.h). So are gradients of what had copies there:
 *
 *         .split = {TROUPE_AXES(TROUPE_DP)}, .partial = TROUPE_AXES(TROUPE_TP)
 *
 * Ownership: init/fini on the caller's storage; nothing passed in is kept.
 * Threads: constant after init and the last add.
 * Failure: TROUPE_ERROR_INVALID for boxes outside the shape, overlapping boxes of a rank or offsets
 * that do not cover the extent; the sentence names the rank or dimension.
 */
#ifndef TROUPE_COMM_LAYOUT_H
#define TROUPE_COMM_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "comm/mesh.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TROUPE_BOX_DIMENSIONS = 4 };

/* Elements with begin[i] <= index[i] < end[i]. */
struct troupe_box {
    int64_t begin[TROUPE_BOX_DIMENSIONS];
    int64_t end[TROUPE_BOX_DIMENSIONS];
};

/* Rows [row_begin, row_end) x columns [column_begin, column_end). */
struct troupe_box troupe_box_2d(int64_t row_begin, int64_t row_end, int64_t column_begin,
                                int64_t column_end);
/* Number of elements; 0 for an empty box. */
int64_t troupe_box_elements(const struct troupe_box *box);
/* The common part; returns whether it holds an element. */
bool troupe_box_intersect(const struct troupe_box *a, const struct troupe_box *b,
                          struct troupe_box *out);
bool troupe_box_equal(const struct troupe_box *a, const struct troupe_box *b);

/* Where part i of a near-even split of `extent` into `parts` begins. */
int64_t troupe_split_begin(int64_t extent, int parts, int i);

/* What one rank holds: a box, whose rows in a ragged layout are those of `part`. */
struct troupe_layout_piece {
    int rank;
    int part;    /* ragged: index into the row split; else -1 */
    int summand; /* 0 .. summands - 1 */
    struct troupe_box box;
};

struct troupe_layout {
    int64_t shape[TROUPE_BOX_DIMENSIONS]; /* shape[0] is 0 while ragged */
    bool ragged;
    int part_count; /* parts of the row split; 0 if not ragged */
    int filled_max; /* how many of them may have rows at a time */
    int chunks;     /* of them, parts of one sequence; 0 without a mesh */
    int summands;   /* an element is the sum of so many; 1: it is what its ranks hold */
    int piece_count;
    int piece_capacity;
    struct troupe_layout_piece *pieces; /* the ranks in mesh order, or in the order of add */
};

struct troupe_layout_options {
    const struct troupe_mesh *mesh;       /* NULL: no pieces yet, see troupe_layout_add */
    int stage;                            /* the pp coordinate that holds the tensor */
    int64_t shape[TROUPE_BOX_DIMENSIONS]; /* trailing zeros mean 1 */
    /* Axes that split a dimension; a tensor is replicated over the axes of no split. */
    struct troupe_axes split[TROUPE_BOX_DIMENSIONS];
    /* Axes whose ranks hold partial sums: an element is the sum of what they have. */
    struct troupe_axes partial;
    /* Where each part begins, and the extent (parts + 1 numbers); NULL: near-even. */
    const int64_t *offsets[TROUPE_BOX_DIMENSIONS];
    int sequences; /* in each part of the axes up to dp (edp) in split[0]; 0: 1 */
    int rounds;    /* turns of those axes, one after the other in the rows; 0: 1 */
    /* cp, the first axis after them, deals each sequence's 2 * CP chunks: rank c has chunks c and
     * 2 * CP - 1 - c, one after the other. Axes after cp split these two together; parts are then
     * halves of a rank's share. */
    bool zigzag;
    bool ragged;    /* rows are given at bind: shape[0] and offsets[0] are not used */
    int part_count; /* of the rows of a ragged layout without a mesh */
};

troupe_status troupe_layout_init(const struct troupe_layout_options *options,
                                 struct troupe_layout *out);
void troupe_layout_fini(struct troupe_layout *layout);
/* Adds a box (or, ragged, the rows of `part` by the box's other dimensions). It may be empty: the
 * rank then holds nothing, but keeps its place in the order of ranks. */
troupe_status troupe_layout_add(struct troupe_layout *layout, int rank, int part,
                                const struct troupe_box *box);
/* The layout of one microbatch: offsets holds part_count + 1 ascending row numbers, from 0.
 * Allocates; for tests and tools, the data path uses troupe_route_bind. */
troupe_status troupe_layout_bind(const struct troupe_layout *ragged, const int64_t *offsets,
                                 struct troupe_layout *out);

/* The row offsets (part_count + 1) of a ragged layout with a mesh, whose sequences begin at the
 * given rows (one more than sequences in all): each is cut near-evenly. */
void troupe_layout_row_offsets(const struct troupe_layout *ragged, const int64_t *sequences,
                               int64_t *offsets_out);

/* Elements that the rank holds. */
int64_t troupe_layout_held(const struct troupe_layout *layout, int rank);
/* Elements that the rank needs and lacks: no transform can give it fewer (LB1). */
int64_t troupe_layout_lacking(const struct troupe_layout *source,
                              const struct troupe_layout *destination, int rank);

#ifdef __cplusplus
}
#endif
#endif
