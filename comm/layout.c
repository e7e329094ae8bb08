/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/layout.h"

#include <string.h>

#include "runtime/check.h"
#include "runtime/memory.h"

/* ---- boxes ---- */

struct troupe_box troupe_box_2d(int64_t row_begin, int64_t row_end, int64_t column_begin,
                                int64_t column_end) {
    return (struct troupe_box){.begin = {row_begin, column_begin},
                               .end = {row_end, column_end, 1, 1}};
}

int64_t troupe_box_elements(const struct troupe_box *box) {
    int64_t elements = 1;
    for (int d = 0; d < TROUPE_BOX_DIMENSIONS; d++) {
        int64_t extent = box->end[d] - box->begin[d];
        elements *= extent > 0 ? extent : 0;
    }
    return elements;
}

bool troupe_box_intersect(const struct troupe_box *a, const struct troupe_box *b,
                          struct troupe_box *out) {
    bool any = true;
    for (int d = 0; d < TROUPE_BOX_DIMENSIONS; d++) {
        out->begin[d] = a->begin[d] > b->begin[d] ? a->begin[d] : b->begin[d];
        out->end[d] = a->end[d] < b->end[d] ? a->end[d] : b->end[d];
        any = any && out->begin[d] < out->end[d];
    }
    return any;
}

bool troupe_box_equal(const struct troupe_box *a, const struct troupe_box *b) {
    return memcmp(a, b, sizeof *a) == 0; /* int64_t only: no padding */
}

int64_t troupe_split_begin(int64_t extent, int parts, int i) {
    return extent / parts * i + extent % parts * i / parts;
}

/* ---- building ---- */

static troupe_status check_piece(const struct troupe_layout *layout,
                                 const struct troupe_layout_piece *piece) {
    if (layout->ragged && (piece->part < 0 || piece->part >= layout->part_count)) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "rank %d is to hold part %d of the rows, but they have parts 0..%d",
                           piece->rank, piece->part, layout->part_count - 1);
    }
    for (int d = layout->ragged ? 1 : 0; d < TROUPE_BOX_DIMENSIONS; d++) {
        const struct troupe_box *box = &piece->box;
        if (box->begin[d] < 0 || box->begin[d] > box->end[d] || box->end[d] > layout->shape[d]) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "rank %d is to hold %lld..%lld of dimension %d, which has extent "
                               "%lld",
                               piece->rank, (long long)box->begin[d], (long long)box->end[d], d,
                               (long long)layout->shape[d]);
        }
    }
    for (int i = 0; i < layout->piece_count; i++) {
        const struct troupe_layout_piece *other = &layout->pieces[i];
        struct troupe_box common;
        if (other->rank == piece->rank && other->part == piece->part &&
            troupe_box_intersect(&other->box, &piece->box, &common)) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "two boxes of rank %d overlap; the boxes of a rank are disjoint",
                               piece->rank);
        }
    }
    return TROUPE_OK;
}

static troupe_status reserve_one(struct troupe_layout *layout) {
    if (layout->piece_count < layout->piece_capacity) {
        return TROUPE_OK;
    }
    int capacity = layout->piece_capacity == 0 ? 8 : 2 * layout->piece_capacity;
    struct troupe_layout_piece *pieces = NULL;
    TROUPE_TRY(TROUPE_NEW(&pieces, capacity));
    if (layout->piece_count > 0) {
        memcpy(pieces, layout->pieces, (size_t)layout->piece_count * sizeof *pieces);
    }
    troupe_free(layout->pieces);
    layout->pieces = pieces;
    layout->piece_capacity = capacity;
    return TROUPE_OK;
}

static troupe_status append_piece(struct troupe_layout *layout, int rank, int part,
                                  const struct troupe_box *box, bool check) {
    struct troupe_layout_piece piece = {
        .rank = rank, .part = layout->ragged ? part : -1, .box = *box};
    if (layout->ragged) { /* the unit interval stands for the rows of a part until they are known */
        piece.box.begin[0] = 0;
        piece.box.end[0] = 1;
    }
    if (check) {
        TROUPE_TRY(check_piece(layout, &piece));
    }
    TROUPE_TRY(reserve_one(layout));
    layout->pieces[layout->piece_count++] = piece;
    return TROUPE_OK;
}

troupe_status troupe_layout_add(struct troupe_layout *layout, int rank, int part,
                                const struct troupe_box *box) {
    return append_piece(layout, rank, part, box, true);
}

static troupe_status check_offsets(const int64_t *offsets, int parts, int64_t extent,
                                   int dimension) {
    if (offsets[0] != 0 || offsets[parts] != extent) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "offsets of dimension %d run from %lld to %lld; its extent is %lld",
                           dimension, (long long)offsets[0], (long long)offsets[parts],
                           (long long)extent);
    }
    for (int i = 0; i < parts; i++) {
        if (offsets[i] > offsets[i + 1]) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "offsets of dimension %d fall from %lld to %lld at part %d",
                               dimension, (long long)offsets[i], (long long)offsets[i + 1], i);
        }
    }
    return TROUPE_OK;
}

/* How the axes of split[0] cut the rows: parts are counted as they lie in the tensor, round, outer
 * part, sequence, chunk. */
struct row_split {
    struct troupe_axes outer; /* share out sequences */
    struct troupe_axes inner; /* cut each sequence */
    int rounds;
    int outer_parts; /* of a round */
    int sequences;   /* in each outer part */
    int chunks;      /* of a sequence */
    int parts;
};

static struct row_split split_rows(const struct troupe_layout_options *o) {
    const struct troupe_axes *axes = &o->split[0];
    struct row_split rows = {.rounds = o->rounds == 0 ? 1 : o->rounds,
                             .sequences = o->sequences == 0 ? 1 : o->sequences};
    int outer = 0;
    for (int i = 0; i < axes->count; i++) {
        outer = axes->axis[i] == TROUPE_DP || axes->axis[i] == TROUPE_EDP ? i + 1 : outer;
    }
    for (int i = 0; i < axes->count; i++) {
        struct troupe_axes *to = i < outer ? &rows.outer : &rows.inner;
        to->axis[to->count++] = axes->axis[i];
    }
    rows.chunks = troupe_mesh_group_size(o->mesh, rows.inner) * (o->zigzag ? 2 : 1);
    rows.outer_parts = troupe_mesh_group_size(o->mesh, rows.outer);
    rows.parts = rows.rounds * rows.outer_parts * rows.sequences * rows.chunks;
    return rows;
}

static troupe_status check_rows(const struct troupe_layout_options *o) {
    struct row_split rows = split_rows(o);
    if (o->sequences < 0 || o->rounds < 0 ||
        (o->zigzag && (rows.inner.count == 0 || rows.inner.axis[0] != TROUPE_CP))) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "%d sequences in %d rounds%s: the rows need at least one of each, and "
                           "for a zig-zag cp as the first axis after dp",
                           o->sequences, o->rounds, o->zigzag ? ", in a zig-zag" : "");
    }
    return o->ragged || o->offsets[0] == NULL
               ? TROUPE_OK
               : check_offsets(o->offsets[0], rows.parts, o->shape[0], 0);
}

/* Extents, and that no axis splits two dimensions (its ranks would hold a diagonal only). */
static troupe_status check_options(const struct troupe_layout_options *o,
                                   const int64_t shape[TROUPE_BOX_DIMENSIONS]) {
    bool used[TROUPE_AXIS_COUNT] = {false};
    for (int d = 0; d < TROUPE_BOX_DIMENSIONS; d++) {
        if (shape[d] < 0) {
            return troupe_fail(TROUPE_ERROR_INVALID, "dimension %d has extent %lld", d,
                               (long long)shape[d]);
        }
        for (int i = 0; i < o->split[d].count; i++) {
            enum troupe_axis axis = o->split[d].axis[i];
            if (used[axis] || axis == TROUPE_PP) {
                return troupe_fail(TROUPE_ERROR_INVALID, "axis %s cannot split dimension %d: %s",
                                   troupe_axis_name(axis), d,
                                   axis == TROUPE_PP ? "stages hold different tensors"
                                                     : "it splits another one");
            }
            used[axis] = true;
        }
        if (o->mesh != NULL && o->offsets[d] != NULL && d > 0) {
            TROUPE_TRY(check_offsets(o->offsets[d], troupe_mesh_group_size(o->mesh, o->split[d]),
                                     shape[d], d));
        }
    }
    for (int i = 0; i < o->partial.count; i++) {
        if (o->mesh == NULL || used[o->partial.axis[i]] || o->partial.axis[i] == TROUPE_PP) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "axis %s cannot have partial sums: it is none of a mesh, a split or "
                               "the stages",
                               troupe_axis_name(o->partial.axis[i]));
        }
    }
    return o->mesh == NULL ? TROUPE_OK : check_rows(o);
}

/* The chunk of each sequence that is number k of those that the rank holds: 0 or, in a zig-zag, 0
 * and 1. There, with T ranks below cp, a chunk has T parts, and a rank takes two of its 2 * T. */
static int chunk_of(const struct troupe_layout_options *o, const struct row_split *rows, int rank,
                    int k) {
    int inner = troupe_mesh_group_index(o->mesh, rank, rows->inner);
    if (!o->zigzag) {
        return inner;
    }
    int cp = o->mesh->size[TROUPE_CP], below = rows->chunks / (2 * cp);
    int c = inner / below, part = inner % below * 2 + k;
    return part < below ? c * below + part : (2 * cp - 1 - c) * below + part - below;
}

/* The interval of dimension d that part `part` of `parts` covers. */
static void split_interval(const struct troupe_layout_options *o, int64_t extent, int parts,
                           int part, int d, struct troupe_box *box) {
    const int64_t *offsets = o->offsets[d];
    box->begin[d] = offsets != NULL ? offsets[part] : troupe_split_begin(extent, parts, part);
    box->end[d] = offsets != NULL ? offsets[part + 1] : troupe_split_begin(extent, parts, part + 1);
}

static troupe_status add_rank(const struct troupe_layout_options *o, const struct row_split *rows,
                              struct troupe_layout *layout, int rank) {
    struct troupe_box box = {.end = {1}};
    for (int d = 1; d < TROUPE_BOX_DIMENSIONS; d++) {
        split_interval(o, layout->shape[d], troupe_mesh_group_size(o->mesh, o->split[d]),
                       troupe_mesh_group_index(o->mesh, rank, o->split[d]), d, &box);
    }
    int outer = troupe_mesh_group_index(o->mesh, rank, rows->outer);
    for (int s = 0; s < rows->rounds * rows->sequences; s++) {
        int round = s / rows->sequences, sequence = s % rows->sequences;
        int first = ((round * rows->outer_parts + outer) * rows->sequences + sequence);
        for (int k = 0; k < (o->zigzag ? 2 : 1); k++) {
            int part = first * rows->chunks + chunk_of(o, rows, rank, k);
            if (!o->ragged) {
                split_interval(o, layout->shape[0], rows->parts, part, 0, &box);
            }
            TROUPE_TRY(append_piece(layout, rank, part, &box, false)); /* parts are disjoint */
            layout->pieces[layout->piece_count - 1].summand =
                troupe_mesh_group_index(o->mesh, rank, o->partial);
        }
    }
    return TROUPE_OK;
}

static troupe_status add_stage(const struct troupe_layout_options *o,
                               struct troupe_layout *layout) {
    const struct troupe_mesh *mesh = o->mesh;
    if (o->stage < 0 || o->stage >= mesh->size[TROUPE_PP]) {
        return troupe_fail(TROUPE_ERROR_INVALID, "stage %d of a mesh with %d stages", o->stage,
                           mesh->size[TROUPE_PP]);
    }
    struct row_split rows = split_rows(o);
    layout->part_count = o->ragged ? rows.parts : 0;
    layout->filled_max =
        rows.rounds > 1 ? layout->part_count / rows.outer_parts : layout->part_count;
    layout->chunks = rows.chunks;
    layout->summands = troupe_mesh_group_size(o->mesh, o->partial);
    int count = mesh->stride[TROUPE_PP]; /* the ranks of a stage are adjacent */
    for (int i = 0; i < count; i++) {
        TROUPE_TRY(add_rank(o, &rows, layout, mesh->ranks[o->stage * count + i]));
    }
    return TROUPE_OK;
}

troupe_status troupe_layout_init(const struct troupe_layout_options *options,
                                 struct troupe_layout *out) {
    struct troupe_layout layout = {.ragged = options->ragged, .summands = 1};
    int used = TROUPE_BOX_DIMENSIONS; /* trailing zeros mean 1; other zeros are empty tensors */
    while (used > 1 && options->shape[used - 1] == 0) {
        used--;
    }
    for (int d = 0; d < TROUPE_BOX_DIMENSIONS; d++) {
        layout.shape[d] = d < used ? options->shape[d] : 1;
    }
    TROUPE_TRY(check_options(options, layout.shape));
    if (options->ragged) {
        layout.shape[0] = 0;
        layout.part_count = options->part_count;
        layout.filled_max = options->part_count;
    }
    troupe_status status = options->mesh == NULL ? TROUPE_OK : add_stage(options, &layout);
    if (status != TROUPE_OK) {
        troupe_layout_fini(&layout);
        return status;
    }
    *out = layout;
    return TROUPE_OK;
}

void troupe_layout_fini(struct troupe_layout *layout) {
    troupe_free(layout->pieces);
    *layout = (struct troupe_layout){0};
}

troupe_status troupe_layout_bind(const struct troupe_layout *ragged, const int64_t *offsets,
                                 struct troupe_layout *out) {
    TROUPE_ASSERT(ragged->ragged, "%d pieces with rows of their own", ragged->piece_count);
    TROUPE_TRY(check_offsets(offsets, ragged->part_count, offsets[ragged->part_count], 0));
    struct troupe_layout layout = {.summands = ragged->summands};
    memcpy(layout.shape, ragged->shape, sizeof layout.shape);
    layout.shape[0] = offsets[ragged->part_count];
    for (int i = 0; i < ragged->piece_count; i++) {
        struct troupe_layout_piece piece = ragged->pieces[i];
        piece.box.begin[0] = offsets[piece.part];
        piece.box.end[0] = offsets[piece.part + 1];
        troupe_status status = append_piece(&layout, piece.rank, -1, &piece.box, false);
        if (status != TROUPE_OK) {
            troupe_layout_fini(&layout);
            return status;
        }
        layout.pieces[i].summand = piece.summand;
    }
    *out = layout;
    return TROUPE_OK;
}

void troupe_layout_row_offsets(const struct troupe_layout *ragged, const int64_t *sequences,
                               int64_t *offsets_out) {
    TROUPE_ASSERT(ragged->chunks > 0, "a layout of %d parts without a mesh", ragged->part_count);
    int chunks = ragged->chunks;
    offsets_out[0] = sequences[0];
    for (int i = 0; i < ragged->part_count; i++) {
        int64_t begin = sequences[i / chunks], end = sequences[i / chunks + 1];
        offsets_out[i + 1] = begin + troupe_split_begin(end - begin, chunks, i % chunks + 1);
    }
}

/* ---- counting ---- */

int64_t troupe_layout_held(const struct troupe_layout *layout, int rank) {
    TROUPE_ASSERT(!layout->ragged, "%d pieces with unknown rows", layout->piece_count);
    int64_t held = 0;
    for (int i = 0; i < layout->piece_count; i++) {
        if (layout->pieces[i].rank == rank) {
            held += troupe_box_elements(&layout->pieces[i].box);
        }
    }
    return held;
}

/* The boxes of a rank are disjoint on both sides, so pairwise common parts count once. */
int64_t troupe_layout_lacking(const struct troupe_layout *source,
                              const struct troupe_layout *destination, int rank) {
    int64_t lacking = troupe_layout_held(destination, rank);
    for (int i = 0; i < destination->piece_count; i++) {
        for (int j = 0; j < source->piece_count; j++) {
            const struct troupe_layout_piece *need = &destination->pieces[i];
            const struct troupe_layout_piece *have = &source->pieces[j];
            struct troupe_box common;
            if (need->rank == rank && have->rank == rank && need->part == have->part &&
                troupe_box_intersect(&need->box, &have->box, &common)) {
                lacking -= troupe_box_elements(&common);
            }
        }
    }
    return lacking;
}
