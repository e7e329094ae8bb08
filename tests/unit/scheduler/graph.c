/* SPDX-License-Identifier: Apache-2.0 */
/* Islands of overlapping gangs, and one sentence for each way in which a task graph can be wrong.
 * Each bad graph is the good one with one field changed. */
#include "scheduler/graph.h"
#include "tests/test.h"

/* Two gangs of two ranks: 0 sends to 1. Methods of each: forward, backward, reduce, update. */
enum { FORWARD_0, BACKWARD_0, REDUCE_0, UPDATE_0, FORWARD_1, BACKWARD_1, REDUCE_1, UPDATE_1 };
enum { METHODS = 8 };

struct fixture {
    int ranks[2][2];
    int after_forward[2][1];
    int after_backward[2][1];
    int after_reduce[2][1];
    struct troupe_gang gangs[2];
    struct troupe_method methods[METHODS];
    struct troupe_edge edges[2];
    struct troupe_graph graph;
};

static void make_gang(struct fixture *f, int g) {
    int base = g * METHODS / 2;
    f->ranks[g][0] = 2 * g;
    f->ranks[g][1] = 2 * g + 1;
    f->after_forward[g][0] = base + FORWARD_0;
    f->after_backward[g][0] = base + BACKWARD_0;
    f->after_reduce[g][0] = base + REDUCE_0;
    f->gangs[g] = (struct troupe_gang){
        .name = g == 0 ? "vision" : "llm", .ranks = f->ranks[g], .rank_count = 2, .slots = 1};
    f->methods[base + FORWARD_0] = (struct troupe_method){.name = "forward",
                                                          .gang = g,
                                                          .kind = TROUPE_METHOD_FORWARD,
                                                          .firings = 4,
                                                          .slot_take = true};
    f->methods[base + BACKWARD_0] = (struct troupe_method){.name = "backward_input",
                                                           .gang = g,
                                                           .kind = TROUPE_METHOD_BACKWARD_INPUT,
                                                           .firings = 4,
                                                           .after = f->after_forward[g],
                                                           .after_count = 1,
                                                           .slot_return = true};
    f->methods[base + REDUCE_0] = (struct troupe_method){.name = "reduce",
                                                         .gang = g,
                                                         .kind = TROUPE_METHOD_REDUCE,
                                                         .lane = TROUPE_LANE_REDUCTION,
                                                         .lane_order = 7,
                                                         .firings = 1,
                                                         .after = f->after_backward[g],
                                                         .after_count = 1};
    f->methods[base + UPDATE_0] = (struct troupe_method){.name = "update",
                                                         .gang = g,
                                                         .kind = TROUPE_METHOD_UPDATE,
                                                         .firings = 1,
                                                         .after = f->after_reduce[g],
                                                         .after_count = 1};
}

static void make_good(struct fixture *f) {
    make_gang(f, 0);
    make_gang(f, 1);
    f->edges[0] = (struct troupe_edge){
        .name = "vision -> llm", .from = FORWARD_0, .to = FORWARD_1, .credits = 1};
    f->edges[1] = (struct troupe_edge){
        .name = "llm -> vision", .from = BACKWARD_1, .to = BACKWARD_0, .credits = 1};
    f->graph = (struct troupe_graph){.rank_count = 4,
                                     .gangs = f->gangs,
                                     .gang_count = 2,
                                     .methods = f->methods,
                                     .method_count = METHODS,
                                     .edges = f->edges,
                                     .edge_count = 2};
}

static void good_graph_passes(void) {
    struct fixture f;
    make_good(&f);
    EXPECT_OK(troupe_graph_check(&f.graph));
}

#define EXPECT_BAD(change, sentence)                                                               \
    do {                                                                                           \
        struct fixture f;                                                                          \
        make_good(&f);                                                                             \
        change;                                                                                    \
        EXPECT_ERROR(troupe_graph_check(&f.graph), TROUPE_ERROR_INVALID, sentence);                \
    } while (0)

static void bad_gangs_are_named(void) {
    EXPECT_BAD(f.graph.rank_count = 0, "has 0 ranks");
    EXPECT_BAD(f.gangs[1].name = NULL, "gang 1 has no name");
    EXPECT_BAD(f.gangs[1].rank_count = 65, "gang llm has 65 ranks; it can have 1 to 64");
    EXPECT_BAD(f.ranks[1][1] = 4, "gang llm lists rank 4; there are 4 ranks");
    EXPECT_BAD(f.ranks[1][1] = 2, "gang llm lists rank 2 twice");
    EXPECT_BAD(f.gangs[1].slots = 0, "gang llm has 0 activation slots; forward needs at least 1");
}

static void bad_methods_are_named(void) {
    EXPECT_BAD(f.methods[FORWARD_1].gang = 2, "method 4 needs a name and a gang below 2");
    EXPECT_BAD(f.methods[FORWARD_1].firings = -1, "llm forward fires -1 times a step");
    EXPECT_BAD(f.methods[REDUCE_1].firings = 4, "llm reduce is in the reduction lane and fires 4");
    EXPECT_BAD(f.after_forward[1][0] = FORWARD_0, "llm backward_input goes after method 0");
    EXPECT_BAD(f.after_forward[1][0] = BACKWARD_1, "llm backward_input goes after method 5");
    EXPECT_BAD(f.methods[BACKWARD_1].firings = 3, "llm backward_input fires 3 times");
    EXPECT_BAD(f.methods[BACKWARD_1].slot_return = false, "gang llm: slots must be taken by one");
    EXPECT_BAD(f.methods[UPDATE_1].slot_take = true, "gang llm: a second method, update, takes");
}

static void bad_edges_are_named(void) {
    EXPECT_BAD(f.edges[0].to = METHODS, "edge 0 needs a name and two methods below 8");
    EXPECT_BAD(f.edges[0].to = UPDATE_1, "edge vision -> llm joins methods that fire 4 and 1");
    EXPECT_BAD(f.edges[0].credits = 0, "edge vision -> llm has 0 credits");
    EXPECT_BAD(f.edges[0].initial = 2, "edge vision -> llm has 1 credits and 2 initial");
    EXPECT_BAD((f.edges[0].to = FORWARD_0, f.edges[0].initial = 1), "give it 2");
}

static void cycle_without_initial_message_is_named(void) {
    EXPECT_BAD((f.edges[0].from = BACKWARD_1, f.edges[0].to = FORWARD_0,
                f.edges[1].from = BACKWARD_0, f.edges[1].to = FORWARD_1),
               "which waits for input llm -> vision of vision backward_input 0, which waits for "
               "vision forward 0");
}

/* The collective of order 7 needs both backwards; an edge from its update back cannot be. */
static void reductions_of_one_order_complete_together(void) {
    EXPECT_BAD((f.edges[0].from = UPDATE_0, f.edges[0].to = REDUCE_1),
               "waits for input vision -> llm of vision update, which waits for vision reduce;");
}

/* All forwards before the first backward, with slots for fewer: a gpipe without memory. */
static void too_few_slots_are_named(void) {
    EXPECT_BAD(
        (f.after_reduce[1][0] = FORWARD_1, f.after_forward[1][0] = UPDATE_1, f.gangs[1].slots = 3),
        "waits for one of 3 activation slots that llm backward_input 0 returns");
}

/* A consumer that begins when all is there, and an edge that does not hold all. */
static void too_few_credits_are_named(void) {
    EXPECT_BAD((f.after_reduce[1][0] = FORWARD_1, f.after_forward[1][0] = UPDATE_1,
                f.gangs[1].slots = 4, f.edges[1].from = FORWARD_1, f.edges[1].to = BACKWARD_1,
                f.edges[1].credits = 2, f.edges[1].name = "kept"),
               "waits for one of the 2 credits of kept that llm backward_input 1 returns");
}

static void memory_below_the_reserve_is_named(void) {
    const int64_t memory[4] = {100, 100, 100, 9};
    EXPECT_BAD((f.gangs[1].slot_bytes = 10, f.graph.memory_bytes = memory),
               "rank 3 has 9 bytes for activations, but one slot of each of its gangs takes 10");
}

static void two_reductions_of_one_order_on_a_rank_are_named(void) {
    EXPECT_BAD(f.ranks[1][0] = 1, "rank 1 has two reductions with lane order 7");
    EXPECT_BAD((f.ranks[1][0] = 1, f.methods[REDUCE_0].lane_order = 9, f.edges[0].from = UPDATE_0,
                f.edges[0].to = REDUCE_1),
               "reductions a lane order that follows their inputs");
}

static void cycle_with_initial_message_passes(void) {
    const int ranks[2] = {0, 1};
    const struct troupe_gang gangs[2] = {{.name = "ping", .ranks = &ranks[0], .rank_count = 1},
                                         {.name = "pong", .ranks = &ranks[1], .rank_count = 1}};
    const struct troupe_method methods[2] = {{.name = "hit", .gang = 0},
                                             {.name = "hit", .gang = 1}};
    struct troupe_edge edges[2] = {{.name = "there", .from = 0, .to = 1, .credits = 1},
                                   {.name = "back", .from = 1, .to = 0, .credits = 1}};
    const struct troupe_graph graph = {.rank_count = 2,
                                       .gangs = gangs,
                                       .gang_count = 2,
                                       .methods = methods,
                                       .method_count = 2,
                                       .edges = edges,
                                       .edge_count = 2};
    EXPECT_ERROR(troupe_graph_check(&graph), TROUPE_ERROR_INVALID,
                 "ping hit waits for input back of pong hit, which waits for input there");
    edges[1].initial = 1;
    EXPECT_OK(troupe_graph_check(&graph));
}

static void islands_are_ranks_tied_by_gangs(void) {
    const int a[] = {5, 4}, b[] = {1, 2, 3}, c[] = {3, 4}, d[] = {6};
    const struct troupe_gang gangs[] = {{.name = "a", .ranks = a, .rank_count = 2},
                                        {.name = "b", .ranks = b, .rank_count = 3},
                                        {.name = "c", .ranks = c, .rank_count = 2},
                                        {.name = "d", .ranks = d, .rank_count = 1}};
    struct troupe_graph graph = {.rank_count = 8, .gangs = gangs, .gang_count = 4};
    int conductor_of[8];
    EXPECT_EQ(troupe_graph_conductors(&graph, conductor_of), 4);
    const int expected[8] = {0, 1, 1, 1, 1, 1, 6, 7};
    for (int r = 0; r < 8; r++) {
        EXPECT_EQ(conductor_of[r], expected[r]);
    }
    graph.gang_count = 2;
    EXPECT_EQ(troupe_graph_conductors(&graph, conductor_of), 5);
    EXPECT_EQ(conductor_of[5], 4);
}

int main(void) {
    TEST(good_graph_passes);
    TEST(bad_gangs_are_named);
    TEST(bad_methods_are_named);
    TEST(bad_edges_are_named);
    TEST(cycle_without_initial_message_is_named);
    TEST(reductions_of_one_order_complete_together);
    TEST(too_few_slots_are_named);
    TEST(too_few_credits_are_named);
    TEST(memory_below_the_reserve_is_named);
    TEST(two_reductions_of_one_order_on_a_rank_are_named);
    TEST(cycle_with_initial_message_passes);
    TEST(islands_are_ranks_tied_by_gangs);
    return TEST_END();
}
