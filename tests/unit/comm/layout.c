/* SPDX-License-Identifier: Apache-2.0
 *
 * Layouts: which boxes the builder gives to which rank, what it refuses, and the counts.
 */
#include "comm/layout.h"

#include "tests/test.h"

static struct troupe_mesh mesh; /* tp 2, dp 3 on ranks 0-5 */

static void expect_box(const struct troupe_layout *layout, int piece, int rank,
                       struct troupe_box box) {
    EXPECT(piece < layout->piece_count, "piece %d of %d", piece, layout->piece_count);
    EXPECT_EQ(layout->pieces[piece].rank, rank);
    EXPECT(troupe_box_equal(&layout->pieces[piece].box, &box), "rank %d holds another box", rank);
}

static void rows_over_dp_are_replicated_over_tp(void) {
    struct troupe_layout layout;
    int64_t rows[] = {0, 5, 5, 7};
    EXPECT_OK(troupe_layout_init(
        &(struct troupe_layout_options){
            .mesh = &mesh, .shape = {7, 4}, .split = {TROUPE_AXES(TROUPE_DP)}, .offsets = {rows}},
        &layout));
    for (int rank = 0; rank < 6; rank++) {
        expect_box(&layout, rank, rank, troupe_box_2d(rows[rank / 2], rows[rank / 2 + 1], 0, 4));
    }
    EXPECT_EQ(troupe_layout_held(&layout, 1), 20);
    EXPECT_EQ(troupe_layout_held(&layout, 2), 0);
    troupe_layout_fini(&layout);
}

static void columns_over_tp_need_not_divide(void) {
    struct troupe_layout layout;
    EXPECT_OK(troupe_layout_init(
        &(struct troupe_layout_options){
            .mesh = &mesh, .shape = {3, 5}, .split = {[1] = TROUPE_AXES(TROUPE_TP)}},
        &layout));
    for (int rank = 0; rank < 6; rank++) {
        int64_t cut = 2;
        expect_box(&layout, rank, rank,
                   rank % 2 == 0 ? troupe_box_2d(0, 3, 0, cut) : troupe_box_2d(0, 3, cut, 5));
    }
    troupe_layout_fini(&layout);
}

static void no_split_replicates_everywhere(void) {
    struct troupe_layout layout;
    EXPECT_OK(
        troupe_layout_init(&(struct troupe_layout_options){.mesh = &mesh, .shape = {3}}, &layout));
    for (int rank = 0; rank < 6; rank++) {
        expect_box(&layout, rank, rank, troupe_box_2d(0, 3, 0, 1));
    }
    troupe_layout_fini(&layout);
}

static void only_the_stage_holds_the_tensor(void) {
    struct troupe_mesh pipeline;
    struct troupe_layout layout;
    struct troupe_layout_options options = {.mesh = &pipeline, .stage = 2, .shape = {4, 1}};
    int ranks[] = {5, 4, 3};
    EXPECT_OK(troupe_mesh_init(
        &(struct troupe_mesh_options){.ranks = ranks, .rank_count = 3, .pp = 3}, &pipeline));
    EXPECT_OK(troupe_layout_init(&options, &layout));
    EXPECT_EQ(layout.piece_count, 1);
    expect_box(&layout, 0, 3, troupe_box_2d(0, 4, 0, 1));
    troupe_layout_fini(&layout);
    options.stage = 3;
    EXPECT_ERROR(troupe_layout_init(&options, &layout), TROUPE_ERROR_INVALID,
                 "stage 3 of a mesh with 3 stages");
    troupe_mesh_fini(&pipeline);
}

static void ragged_rows_are_bound_later(void) {
    struct troupe_layout ragged, bound;
    EXPECT_OK(troupe_layout_init(
        &(struct troupe_layout_options){
            .mesh = &mesh, .shape = {0, 4}, .split = {TROUPE_AXES(TROUPE_DP)}, .ragged = true},
        &ragged));
    EXPECT_EQ(ragged.part_count, 3);
    int64_t rows[] = {0, 2, 2, 9}, wrong[] = {0, 4, 2, 9};
    EXPECT_OK(troupe_layout_bind(&ragged, rows, &bound));
    EXPECT_EQ(bound.shape[0], 9);
    expect_box(&bound, 5, 5, troupe_box_2d(2, 9, 0, 4));
    troupe_layout_fini(&bound);
    EXPECT_ERROR(troupe_layout_bind(&ragged, wrong, &bound), TROUPE_ERROR_INVALID,
                 "fall from 4 to 2 at part 1");
    troupe_layout_fini(&ragged);
}

static void near_even_splits_cover_without_gaps(void) {
    static const int extents[] = {0, 1, 7, 64, 1000003};
    for (int e = 0; e < 5; e++) {
        for (int parts = 1; parts < 20; parts++) {
            EXPECT_EQ(troupe_split_begin(extents[e], parts, 0), 0);
            EXPECT_EQ(troupe_split_begin(extents[e], parts, parts), extents[e]);
            for (int i = 0; i < parts; i++) {
                int64_t size = troupe_split_begin(extents[e], parts, i + 1) -
                               troupe_split_begin(extents[e], parts, i);
                EXPECT(size == extents[e] / parts || size == extents[e] / parts + 1,
                       "part %d of %d of %d is %d", i, parts, extents[e], (int)size);
            }
        }
    }
}

static void wrong_layouts_are_refused(void) {
    struct troupe_layout layout;
    int64_t short_rows[] = {0, 2, 4, 6};
    struct troupe_layout_options options = {.mesh = &mesh, .shape = {7, 4}};
    options.split[0] = TROUPE_AXES(TROUPE_DP);
    options.offsets[0] = short_rows;
    EXPECT_ERROR(troupe_layout_init(&options, &layout), TROUPE_ERROR_INVALID,
                 "offsets of dimension 0 run from 0 to 6; its extent is 7");
    options.offsets[0] = NULL;
    options.split[1] = TROUPE_AXES(TROUPE_DP);
    EXPECT_ERROR(troupe_layout_init(&options, &layout), TROUPE_ERROR_INVALID,
                 "axis dp cannot split dimension 1");
    options.split[1] = TROUPE_AXES(TROUPE_PP);
    EXPECT_ERROR(troupe_layout_init(&options, &layout), TROUPE_ERROR_INVALID, "axis pp");
}

static void explicit_boxes_of_a_rank_are_disjoint_and_inside(void) {
    struct troupe_layout layout;
    struct troupe_box a = troupe_box_2d(0, 3, 0, 2), b = troupe_box_2d(2, 5, 1, 4);
    struct troupe_box c = troupe_box_2d(3, 5, 0, 5);
    EXPECT_OK(troupe_layout_init(&(struct troupe_layout_options){.shape = {5, 4}}, &layout));
    EXPECT_OK(troupe_layout_add(&layout, 0, -1, &a));
    EXPECT_OK(troupe_layout_add(&layout, 1, -1, &b));
    EXPECT_ERROR(troupe_layout_add(&layout, 0, -1, &b), TROUPE_ERROR_INVALID,
                 "two boxes of rank 0 overlap");
    EXPECT_ERROR(troupe_layout_add(&layout, 2, -1, &c), TROUPE_ERROR_INVALID,
                 "rank 2 is to hold 0..5 of dimension 1, which has extent 4");
    troupe_layout_fini(&layout);
}

static void lacking_is_need_without_have(void) {
    struct troupe_layout have, need;
    struct troupe_layout_options options = {.mesh = &mesh, .shape = {6, 4}};
    options.split[0] = TROUPE_AXES(TROUPE_DP);
    EXPECT_OK(troupe_layout_init(&options, &have));
    options.split[0] = (struct troupe_axes){0};
    options.split[1] = TROUPE_AXES(TROUPE_TP);
    EXPECT_OK(troupe_layout_init(&options, &need));
    EXPECT_EQ(troupe_layout_lacking(&have, &need, 3), 12 - 4);
    EXPECT_EQ(troupe_layout_lacking(&need, &have, 3), 8 - 4);
    EXPECT_EQ(troupe_layout_lacking(&need, &have, 6), 0);
    troupe_layout_fini(&have);
    troupe_layout_fini(&need);
}

/* dp shard 1, tp 1 is rank 3: it has one part of each round, as its tp copy has. */
static void dealt_rows_have_a_part_in_each_round(void) {
    struct troupe_layout layout;
    EXPECT_OK(troupe_layout_init(&(struct troupe_layout_options){.mesh = &mesh,
                                                                 .shape = {0, 4},
                                                                 .split = {TROUPE_AXES(TROUPE_DP)},
                                                                 .ragged = true,
                                                                 .rounds = 4},
                                 &layout));
    EXPECT_EQ(layout.part_count, 12);
    EXPECT_EQ(layout.filled_max, 4);
    EXPECT_EQ(layout.piece_count, 24);
    for (int round = 0, i = 0; i < layout.piece_count; i++) {
        if (layout.pieces[i].rank == 3) {
            EXPECT_EQ(layout.pieces[i].part, 3 * round + 1);
            round++;
        }
    }
    troupe_layout_fini(&layout);
}

int main(void) {
    int ranks[] = {0, 1, 2, 3, 4, 5};
    EXPECT_OK(troupe_mesh_init(
        &(struct troupe_mesh_options){.ranks = ranks, .rank_count = 6, .tp = 2, .dp = 3}, &mesh));
    TEST(rows_over_dp_are_replicated_over_tp);
    TEST(columns_over_tp_need_not_divide);
    TEST(no_split_replicates_everywhere);
    TEST(only_the_stage_holds_the_tensor);
    TEST(ragged_rows_are_bound_later);
    TEST(near_even_splits_cover_without_gaps);
    TEST(wrong_layouts_are_refused);
    TEST(explicit_boxes_of_a_rank_are_disjoint_and_inside);
    TEST(lacking_is_need_without_have);
    TEST(dealt_rows_have_a_part_in_each_round);
    troupe_mesh_fini(&mesh);
    return TEST_END();
}
