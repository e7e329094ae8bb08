/* SPDX-License-Identifier: Apache-2.0
 *
 * Meshes against written-out enumerations, and rank lists with every way to get them wrong.
 */
#include "comm/mesh.h"

#include "runtime/check.h"
#include "tests/test.h"

/* Ranks first, first + 1, ... */
static void init_mesh(struct troupe_mesh *mesh, int first, struct troupe_mesh_options options) {
    int ranks[16];
    for (int i = 0; i < options.rank_count; i++) {
        ranks[i] = first + i;
    }
    options.ranks = ranks;
    EXPECT_OK(troupe_mesh_init(&options, mesh));
}

/* The groups in order of their first rank, members written back to back. */
static void expect_groups(const struct troupe_mesh *mesh, struct troupe_axes axes,
                          const int *expected) {
    int size = troupe_mesh_group_size(mesh, axes), group[16], row = 0;
    for (int i = 0; i < mesh->rank_count; i++) {
        int rank = mesh->ranks[i];
        EXPECT_EQ(troupe_mesh_group(mesh, rank, axes, group), size);
        EXPECT_EQ(group[troupe_mesh_group_index(mesh, rank, axes)], rank);
        if (group[0] == rank) {
            for (int m = 0; m < size; m++) {
                EXPECT_EQ(group[m], expected[row * size + m]);
            }
            row++;
        }
    }
    EXPECT_EQ(row * size, mesh->rank_count);
}

static void groups_follow_the_enumerations(void) {
    struct troupe_mesh mesh;
    init_mesh(&mesh, 0, (struct troupe_mesh_options){.rank_count = 8, .tp = 2, .dp = 4});
    expect_groups(&mesh, TROUPE_AXES(TROUPE_TP), (int[]){0, 1, 2, 3, 4, 5, 6, 7});
    expect_groups(&mesh, TROUPE_AXES(TROUPE_DP), (int[]){0, 2, 4, 6, 1, 3, 5, 7});
    expect_groups(&mesh, (struct troupe_axes){0}, (int[]){0, 1, 2, 3, 4, 5, 6, 7});
    troupe_mesh_fini(&mesh);

    init_mesh(&mesh, 0, (struct troupe_mesh_options){.rank_count = 8, .tp = 2, .cp = 2, .dp = 2});
    expect_groups(&mesh, TROUPE_AXES(TROUPE_TP, TROUPE_CP), (int[]){0, 2, 1, 3, 4, 6, 5, 7});
    expect_groups(&mesh, TROUPE_AXES(TROUPE_CP, TROUPE_TP), (int[]){0, 1, 2, 3, 4, 5, 6, 7});
    expect_groups(&mesh, TROUPE_AXES(TROUPE_DP), (int[]){0, 4, 1, 5, 2, 6, 3, 7});
    troupe_mesh_fini(&mesh);

    init_mesh(&mesh, 4, (struct troupe_mesh_options){.rank_count = 4, .tp = 2, .dp = 2});
    expect_groups(&mesh, TROUPE_AXES(TROUPE_TP), (int[]){4, 5, 6, 7});
    EXPECT_EQ(troupe_mesh_position(&mesh, 3), -1);
    troupe_mesh_fini(&mesh);

    /* encoder tp2 dp2 on 0-3, language model tp2 pp2 on 4-7 */
    init_mesh(&mesh, 4, (struct troupe_mesh_options){.rank_count = 4, .tp = 2, .pp = 2});
    expect_groups(&mesh, TROUPE_AXES(TROUPE_PP), (int[]){4, 6, 5, 7});
    troupe_mesh_fini(&mesh);
}

static void coordinates_have_tp_fastest_and_pp_slowest(void) {
    struct troupe_mesh mesh;
    int ranks[] = {9, 4, 7, 1, 0, 3, 2, 8};
    EXPECT_OK(troupe_mesh_init(
        &(struct troupe_mesh_options){.ranks = ranks, .rank_count = 8, .tp = 2, .dp = 2, .pp = 2},
        &mesh));
    for (int i = 0; i < 8; i++) {
        EXPECT_EQ(troupe_mesh_coordinate(&mesh, ranks[i], TROUPE_TP), i % 2);
        EXPECT_EQ(troupe_mesh_coordinate(&mesh, ranks[i], TROUPE_CP), 0);
        EXPECT_EQ(troupe_mesh_coordinate(&mesh, ranks[i], TROUPE_DP), i / 2 % 2);
        EXPECT_EQ(troupe_mesh_coordinate(&mesh, ranks[i], TROUPE_PP), i / 4);
    }
    troupe_mesh_fini(&mesh);
}

/* tp2 x dp4 seen as etp1 x ep4 x edp2, and with two stages. */
static void the_expert_view_names_the_same_ranks(void) {
    struct troupe_mesh mesh;
    init_mesh(&mesh, 0,
              (struct troupe_mesh_options){.rank_count = 16, .tp = 2, .dp = 4, .pp = 2, .ep = 4});
    EXPECT_EQ(mesh.size[TROUPE_EDP], 2);
    expect_groups(&mesh, TROUPE_AXES(TROUPE_EP),
                  (int[]){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15});
    expect_groups(&mesh, TROUPE_AXES(TROUPE_EDP),
                  (int[]){0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15});
    EXPECT_EQ(troupe_mesh_coordinate(&mesh, 13, TROUPE_PP), 1);
    EXPECT_EQ(troupe_mesh_coordinate(&mesh, 13, TROUPE_EDP), 1);
    EXPECT_EQ(troupe_mesh_coordinate(&mesh, 13, TROUPE_EP), 1);
    troupe_mesh_fini(&mesh);
}

static void expect_refused(struct troupe_mesh_options options, const char *part) {
    struct troupe_mesh mesh;
    static const int ranks[] = {0, 1, 2, 3, 2};
    options.ranks = ranks;
    EXPECT_ERROR(troupe_mesh_init(&options, &mesh), TROUPE_ERROR_INVALID, part);
}

static void sizes_that_do_not_fit_are_refused(void) {
    struct troupe_mesh mesh;
    expect_refused((struct troupe_mesh_options){.rank_count = 4, .tp = 3},
                   "tp 3 x cp 1 x dp 1 x pp 1 makes 3 ranks, but 4 are listed");
    expect_refused((struct troupe_mesh_options){.rank_count = 0}, "makes 1 ranks, but 0");
    expect_refused((struct troupe_mesh_options){.rank_count = 4, .tp = 4, .dp = -1}, "dp -1");
    expect_refused((struct troupe_mesh_options){.rank_count = 4, .tp = 2, .dp = 2, .ep = 3},
                   "ep 3 does not divide the 4 ranks");
    expect_refused((struct troupe_mesh_options){.rank_count = 5, .dp = 5}, "rank 2 is twice");
    EXPECT_ERROR(
        troupe_mesh_init(
            &(struct troupe_mesh_options){.ranks = (int[]){0, -1}, .rank_count = 2, .dp = 2},
            &mesh),
        TROUPE_ERROR_INVALID, "entry 1 of a rank list is -1");
}

static void expect_ranks(const char *text, int count, const int *expected) {
    int ranks[8], parsed = -1;
    EXPECT_OK(troupe_ranks_parse(text, 8, ranks, &parsed));
    EXPECT_EQ(parsed, count);
    for (int i = 0; i < count; i++) {
        EXPECT_EQ(ranks[i], expected[i]);
    }
}

static void rank_lists_are_numbers_and_intervals(void) {
    expect_ranks("0-3", 4, (int[]){0, 1, 2, 3});
    expect_ranks("0,2,5-7", 5, (int[]){0, 2, 5, 6, 7});
    expect_ranks(" 7 , 0 - 1", 3, (int[]){7, 0, 1});
    expect_ranks("3-3", 1, (int[]){3});
    expect_ranks("0-7", 8, (int[]){0, 1, 2, 3, 4, 5, 6, 7});
}

static void wrong_rank_lists_name_what_is_wrong(void) {
    static const struct {
        const char *text, *part;
    } wrong[] = {{"", "a rank or an interval is expected at \"\""},
                 {"0,", "expected at \"\""},
                 {"0,,1", "expected at \",1\""},
                 {"0-", "expected at \"\""},
                 {"-1", "expected at \"-1\""},
                 {"all", "expected at \"all\""},
                 {"0 1", "expected at \"1\""},
                 {"0-3x", "expected at \"x\""},
                 {"3-1", "the interval 3-1 runs backwards; write 1-3"},
                 {"0-8", "rank 8 does not exist; the job has 8 (0-7)"},
                 {"99999999999999999999", "expected at"},
                 {"0-3,2", "rank 2 is named twice"}};
    for (size_t i = 0; i < TROUPE_COUNT_OF(wrong); i++) {
        int ranks[8], count = 0;
        EXPECT_ERROR(troupe_ranks_parse(wrong[i].text, 8, ranks, &count), TROUPE_ERROR_INVALID,
                     wrong[i].part);
    }
}

int main(void) {
    TEST(groups_follow_the_enumerations);
    TEST(coordinates_have_tp_fastest_and_pp_slowest);
    TEST(the_expert_view_names_the_same_ranks);
    TEST(sizes_that_do_not_fit_are_refused);
    TEST(rank_lists_are_numbers_and_intervals);
    TEST(wrong_rank_lists_name_what_is_wrong);
    return TEST_END();
}
