/* SPDX-License-Identifier: Apache-2.0 */
/* Placement policies: what each gives for one problem (encoder, projector, language model), and one
 * sentence for each wish that cannot be had. The argument is a policy in a shared object. */
#include "scheduler/place.h"

#include <limits.h>

#include "tests/test.h"

enum { VISION, PROJECTOR, LLM, MODULES };

static const struct troupe_place_divisible vision_divisible[] = {{"heads", 3}};
static const struct troupe_place_divisible llm_divisible[] = {{"heads", 8}, {"kv_heads", 4}};

struct fixture {
    struct troupe_place_module modules[MODULES];
    struct troupe_place_problem problem;
    int vision_ranks[8], llm_ranks[8], llm_layers[8];
};

static void make(struct fixture *f, int ranks) {
    memset(f, 0, sizeof *f);
    for (int i = 0; i < 8; i++) {
        f->vision_ranks[i] = f->llm_ranks[i] = i;
    }
    f->modules[VISION] =
        (struct troupe_place_module){.name = "vision",
                                     .depth = 1,
                                     .layers = 4,
                                     .cost = 1,
                                     .divisible = vision_divisible,
                                     .divisible_count = 1,
                                     .wish = {.ranks = f->vision_ranks, .layers = f->llm_layers}};
    f->modules[PROJECTOR] =
        (struct troupe_place_module){.name = "projector", .depth = 1, .follows = 1 + VISION};
    f->modules[LLM] =
        (struct troupe_place_module){.name = "llm",
                                     .layers = 6,
                                     .cost = 3,
                                     .divisible = llm_divisible,
                                     .divisible_count = 2,
                                     .wish = {.ranks = f->llm_ranks, .layers = f->llm_layers}};
    f->problem = (struct troupe_place_problem){
        .rank_count = ranks, .modules = f->modules, .module_count = MODULES};
}

static troupe_status place(const char *policy_name, const struct fixture *f,
                           struct troupe_placement *out) {
    const struct troupe_place_policy *policy = NULL;
    TROUPE_TRY(troupe_place_find(policy_name, &policy));
    return troupe_place(policy, &f->problem, out);
}

/* "0,1,2,3 tp 1 cp 1 dp 4 pp 1" */
static const char *text_of(const struct troupe_place_layout *layout) {
    static char text[256];
    size_t used = 0;
    for (int i = 0; i < layout->rank_count; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%d", i > 0 ? "," : "",
                                 layout->ranks[i]);
    }
    snprintf(text + used, sizeof text - used, " tp %d cp %d dp %d pp %d", layout->tp, layout->cp,
             layout->dp, layout->pp);
    return text;
}

#define EXPECT_PLACED(policy, f, vision, projector, llm)                                           \
    do {                                                                                           \
        struct troupe_placement p = {0};                                                           \
        EXPECT_OK(place(policy, f, &p));                                                           \
        EXPECT_STRING(text_of(&p.modules[VISION]), vision);                                        \
        EXPECT_STRING(text_of(&p.modules[PROJECTOR]), projector);                                  \
        EXPECT_STRING(text_of(&p.modules[LLM]), llm);                                              \
        troupe_placement_fini(&p);                                                                 \
    } while (0)

#define EXPECT_REFUSED(policy, f, sentence)                                                        \
    do {                                                                                           \
        struct troupe_placement p = {0};                                                           \
        EXPECT_ERROR(place(policy, f, &p), TROUPE_ERROR_INVALID, sentence);                        \
        EXPECT(p.modules == NULL, "nothing is given on failure");                                  \
    } while (0)

static void homogeneous_replicates_everything(void) {
    struct fixture f;
    make(&f, 4);
    EXPECT_PLACED("homogeneous", &f, "0,1,2,3 tp 1 cp 1 dp 4 pp 1", "0,1,2,3 tp 1 cp 1 dp 4 pp 1",
                  "0,1,2,3 tp 1 cp 1 dp 4 pp 1");
    f.problem.everywhere.tp = 2;
    EXPECT_REFUSED("homogeneous", &f,
                   "placement policy homogeneous: placement.vision.tp: tp 2 does not divide 3 "
                   "heads");
}

static void homogeneous_takes_one_mesh_for_all(void) {
    struct fixture f;
    make(&f, 6);
    f.problem.everywhere.pp = 3;
    EXPECT_PLACED("homogeneous", &f, "0,1,2,3,4,5 tp 1 cp 1 dp 2 pp 3", "4,5 tp 1 cp 1 dp 2 pp 1",
                  "0,1,2,3,4,5 tp 1 cp 1 dp 2 pp 3");
}

static void colocated_gives_tp_where_memory_needs_it(void) {
    struct fixture f;
    make(&f, 4);
    f.problem.rank_bytes = 10;
    f.modules[LLM].bytes = 20;
    EXPECT_PLACED("colocated", &f, "0,1,2,3 tp 1 cp 1 dp 4 pp 1", "0,1,2,3 tp 1 cp 1 dp 4 pp 1",
                  "0,1,2,3 tp 2 cp 1 dp 2 pp 1");
    f.modules[LLM].bytes = 1000;
    EXPECT_PLACED("colocated", &f, "0,1,2,3 tp 1 cp 1 dp 4 pp 1", "0,1,2,3 tp 1 cp 1 dp 4 pp 1",
                  "0,1,2,3 tp 4 cp 1 dp 1 pp 1");
}

static void colocated_takes_the_sizes_said(void) {
    struct fixture f;
    make(&f, 4);
    f.modules[LLM].wish.tp = 2;
    f.modules[LLM].wish.dp = 3; /* binds manual only */
    EXPECT_PLACED("colocated", &f, "0,1,2,3 tp 1 cp 1 dp 4 pp 1", "0,1,2,3 tp 1 cp 1 dp 4 pp 1",
                  "0,1,2,3 tp 2 cp 1 dp 2 pp 1");
}

static void disjoint_shares_ranks_by_cost(void) {
    struct fixture f;
    make(&f, 8);
    f.modules[LLM].wish.tp = 2;
    EXPECT_PLACED("disjoint", &f, "0,1 tp 1 cp 1 dp 2 pp 1", "0,1 tp 1 cp 1 dp 2 pp 1",
                  "2,3,4,5,6,7 tp 2 cp 1 dp 3 pp 1");
    make(&f, 2);
    EXPECT_PLACED("disjoint", &f, "0 tp 1 cp 1 dp 1 pp 1", "0 tp 1 cp 1 dp 1 pp 1",
                  "1 tp 1 cp 1 dp 1 pp 1");
    make(&f, 1);
    EXPECT_REFUSED("disjoint", &f, "takes 2 ranks (tp x cp x pp of each), but this job has 1");
}

static void manual_takes_ranks_sizes_and_uneven_stages(void) {
    struct fixture f;
    make(&f, 5);
    f.modules[VISION].wish.rank_count = 2;
    f.modules[LLM].wish.rank_count = 3;
    f.modules[LLM].wish.pp = 3;
    f.llm_ranks[0] = 4;
    f.llm_layers[0] = 3;
    f.llm_layers[1] = 2;
    f.llm_layers[2] = 1;
    f.modules[LLM].wish.layers_count = 3;
    EXPECT_PLACED("manual", &f, "0,1 tp 1 cp 1 dp 2 pp 1", "0,1 tp 1 cp 1 dp 2 pp 1",
                  "4,1,2 tp 1 cp 1 dp 1 pp 3");
    f.llm_layers[2] = 2;
    EXPECT_REFUSED("manual", &f, "placement.llm.layers: the stages hold 7 layers, the model has 6");
    f.llm_layers[2] = 0;
    EXPECT_REFUSED("manual", &f, "placement.llm.layers: stage 2 has 0 layers");
    f.modules[LLM].wish.layers_count = 2;
    EXPECT_REFUSED("manual", &f, "placement.llm.layers: 2 stages are listed, but pp is 3");
}

static void follower_of_an_impossible_layout_blames_the_other(void) {
    struct fixture f;
    make(&f, 2);
    f.modules[VISION].follows = 1 + LLM; /* which is checked after it */
    f.modules[LLM].wish.rank_count = 1;
    f.modules[LLM].wish.tp = 2;
    EXPECT_REFUSED("manual", &f, "placement.llm: tp 2 x cp 1 x dp 1 x pp 1 = 2 ranks");
}

static void layers_of_any_size_add_up(void) {
    struct fixture f;
    make(&f, 2);
    f.modules[VISION].wish.rank_count = 1;
    f.modules[LLM].wish.rank_count = 2;
    f.modules[LLM].wish.pp = 2;
    f.modules[LLM].wish.layers_count = 2;
    f.llm_layers[0] = f.llm_layers[1] = INT_MAX;
    EXPECT_REFUSED("manual", &f, "the stages hold 4294967294 layers, the model has 6");
}

static void layers_that_do_not_divide_go_to_the_first_stages(void) {
    struct fixture f;
    struct troupe_placement p = {0};
    make(&f, 4);
    f.modules[LLM].wish.pp = 4;
    EXPECT_OK(place("colocated", &f, &p));
    const int expected[4] = {2, 2, 1, 1};
    for (int i = 0; i < 4; i++) {
        EXPECT_EQ(p.modules[LLM].layers[i], expected[i]);
    }
    troupe_placement_fini(&p);
}

static void manual_names_what_does_not_fit(void) {
    struct fixture f;
    make(&f, 4);
    EXPECT_REFUSED("manual", &f, "placement.vision.ranks: no ranks are given");
    f.modules[VISION].wish.rank_count = 4;
    f.modules[LLM].wish.rank_count = 3;
    f.modules[LLM].wish.tp = f.modules[LLM].wish.dp = 2;
    EXPECT_REFUSED("manual", &f,
                   "placement.llm: tp 2 x cp 1 x dp 2 x pp 1 = 4 ranks, but ranks lists 3; list as "
                   "many ranks, or choose sizes whose product is 3");
    f.modules[LLM].wish.tp = 3;
    f.modules[LLM].wish.dp = 1;
    EXPECT_REFUSED("manual", &f, "placement.llm.tp: tp 3 does not divide 8 heads");
    f.modules[LLM].wish.tp = 1;
    f.modules[LLM].wish.dp = 3;
    f.llm_ranks[2] = 4;
    EXPECT_REFUSED("manual", &f, "placement.llm.ranks: rank 4 is not one of the 4 ranks");
    f.llm_ranks[2] = 1;
    EXPECT_REFUSED("manual", &f, "placement.llm.ranks: rank 1 is listed twice");
    f.llm_ranks[2] = 2;
    f.modules[LLM].wish.ep = 2;
    EXPECT_REFUSED("manual", &f, "placement.llm: etp 1 x ep 2 does not divide the 3 ranks");
    f.modules[LLM].wish.ep = 5;
    EXPECT_REFUSED("manual", &f, "placement.llm: a size of 5 cannot be had from 4 ranks");
}

static void more_stages_than_layers_are_refused(void) {
    struct fixture f;
    make(&f, 8);
    f.modules[LLM].wish.pp = 8;
    EXPECT_REFUSED("colocated", &f, "placement.llm.pp: 8 stages for 6 layers");
}

static void unknown_policy_lists_the_known(void) {
    const struct troupe_place_policy *policy = NULL;
    EXPECT_ERROR(troupe_place_find("clever", &policy), TROUPE_ERROR_INVALID,
                 "placement policy \"clever\" is not known; there are homogeneous, colocated, "
                 "disjoint, manual, or the path");
    EXPECT_ERROR(troupe_place_find("./no-such.so", &policy), TROUPE_ERROR_INVALID,
                 "policy ./no-such.so cannot be loaded");
    EXPECT_STRING(troupe_place_builtin(0)->name, "homogeneous");
    EXPECT(troupe_place_builtin(4) == NULL, "four are built in");
}

static const char *policy_path;

static void policy_of_a_shared_object_places(void) {
    struct fixture f;
    make(&f, 5);
    f.modules[LLM].wish.tp = 2;
    EXPECT_PLACED(policy_path, &f, "0,2,4 tp 1 cp 1 dp 3 pp 1", "0,2,4 tp 1 cp 1 dp 3 pp 1",
                  "1,3 tp 2 cp 1 dp 1 pp 1");
    make(&f, 1);
    EXPECT_REFUSED(policy_path, &f, "policy interleave: 2 modules cannot share out 1 ranks");
}

static void shared_object_without_the_table_is_refused(void) {
    const struct troupe_place_policy *policy = NULL;
    EXPECT_ERROR(troupe_place_find("/proc/self/exe", &policy), TROUPE_ERROR_INVALID,
                 "policy /proc/self/exe");
}

int main(int argc, char **argv) {
    EXPECT_EQ(argc, 2);
    policy_path = argv[1];
    TEST(homogeneous_replicates_everything);
    TEST(homogeneous_takes_one_mesh_for_all);
    TEST(colocated_gives_tp_where_memory_needs_it);
    TEST(colocated_takes_the_sizes_said);
    TEST(disjoint_shares_ranks_by_cost);
    TEST(manual_takes_ranks_sizes_and_uneven_stages);
    TEST(follower_of_an_impossible_layout_blames_the_other);
    TEST(layers_of_any_size_add_up);
    TEST(layers_that_do_not_divide_go_to_the_first_stages);
    TEST(manual_names_what_does_not_fit);
    TEST(more_stages_than_layers_are_refused);
    TEST(unknown_policy_lists_the_known);
    TEST(policy_of_a_shared_object_places);
    TEST(shared_object_without_the_table_is_refused);
    return TEST_END();
}
