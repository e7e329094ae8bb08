/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's rules one by one, on graphs of a few methods: what is issued, what is held back, and
 * what explain says about it. The fuzzer (tests/fuzz/engine_fuzz.c) covers their interplay. */
#include "scheduler/engine.h"
#include "runtime/memory.h"
#include "tests/test.h"

/* One producer and one consumer, on ranks of choice. */
struct pair {
    int ranks[2][2];
    struct troupe_gang gangs[2];
    struct troupe_method methods[2];
    struct troupe_edge edge;
    struct troupe_graph graph;
};

static void make_pair(struct pair *p, int firings, int credits) {
    memset(p, 0, sizeof *p);
    p->ranks[1][0] = 1;
    p->ranks[1][1] = 2;
    for (int g = 0; g < 2; g++) {
        p->gangs[g] = (struct troupe_gang){
            .name = g == 0 ? "vision" : "llm", .ranks = p->ranks[g], .rank_count = 1 + g};
        p->methods[g] = (struct troupe_method){.name = "forward", .gang = g, .firings = firings};
    }
    p->edge = (struct troupe_edge){.name = "vision -> llm", .from = 0, .to = 1, .credits = credits};
    p->graph = (struct troupe_graph){.rank_count = 3,
                                     .gangs = p->gangs,
                                     .gang_count = 2,
                                     .methods = p->methods,
                                     .method_count = 2,
                                     .edges = &p->edge,
                                     .edge_count = 1};
}

static troupe_engine *start(const struct troupe_graph *graph, int conductor, int look_ahead) {
    troupe_engine *engine = NULL;
    EXPECT_OK(troupe_graph_check(graph));
    EXPECT_OK(troupe_engine_create(
        graph, &(struct troupe_engine_options){.conductor = conductor, .look_ahead = look_ahead},
        &engine));
    return engine;
}

static void expect_ticket(troupe_engine *engine, int method, int64_t firing) {
    struct troupe_ticket ticket;
    EXPECT_OK(troupe_engine_next(engine, &ticket));
    EXPECT_EQ(ticket.method, method);
    EXPECT_EQ(ticket.firing, firing);
}

static void expect_nothing(troupe_engine *engine) {
    struct troupe_ticket ticket;
    EXPECT_EQ(troupe_engine_next(engine, &ticket), TROUPE_AGAIN);
}

struct lines {
    char text[1024];
};

static void keep_line(void *arg, const char *text) {
    struct lines *lines = arg;
    size_t used = strlen(lines->text);
    snprintf(lines->text + used, sizeof lines->text - used, "%s\n", text);
}

static void expect_explained(const troupe_engine *engine, const char *expected) {
    struct lines lines = {""};
    troupe_engine_explain(engine, keep_line, &lines);
    EXPECT_STRING(lines.text, expected);
}

static void rank_that_conducts_nothing_is_refused(void) {
    struct pair p;
    troupe_engine *engine = NULL;
    make_pair(&p, 1, 1);
    EXPECT_ERROR(
        troupe_engine_create(&p.graph, &(struct troupe_engine_options){.conductor = 2}, &engine),
        TROUPE_ERROR_INVALID, "rank 2 conducts no island");
}

static void nothing_fires_before_its_step(void) {
    struct pair p;
    make_pair(&p, 2, 2);
    troupe_engine *engine = start(&p.graph, 0, 8);
    expect_nothing(engine);
    EXPECT_OK(troupe_engine_begin_step(engine, 10));
    expect_ticket(engine, 0, 20);
    expect_ticket(engine, 0, 21);
    expect_nothing(engine);
    EXPECT(troupe_engine_step_issued(engine), "both firings are out");
    EXPECT(!troupe_engine_step_done(engine), "none is done");
    troupe_engine_done(engine, 0, 20, 0);
    troupe_engine_done(engine, 0, 21, 0);
    EXPECT(troupe_engine_step_done(engine), "both are done");
    troupe_engine_destroy(engine);
}

static void credits_bound_what_a_producer_may_send(void) {
    struct pair p;
    make_pair(&p, 3, 1);
    troupe_engine *engine = start(&p.graph, 0, 8);
    EXPECT_OK(troupe_engine_begin_step(engine, 0));
    expect_ticket(engine, 0, 0);
    expect_nothing(engine);
    expect_explained(engine,
                     "vision forward 1 of step 0 waits for a credit on vision -> llm: llm forward "
                     "has to take one of 1 messages\n"
                     "vision forward 0 of step 0 is issued but not done on rank 0\n");
    EXPECT_OK(troupe_engine_credit_returned(engine, 0));
    expect_ticket(engine, 0, 1);
    EXPECT_OK(troupe_engine_credit_returned(engine, 0));
    EXPECT_ERROR(troupe_engine_credit_returned(engine, 0), TROUPE_ERROR_CONTRACT,
                 "edge vision -> llm: a credit came back that was not taken");
    troupe_engine_destroy(engine);
}

static void input_counts_when_all_members_have_it(void) {
    struct pair p;
    make_pair(&p, 2, 2);
    troupe_engine *engine = start(&p.graph, 1, 8);
    EXPECT_OK(troupe_engine_arrived(engine, 0, 1, 1)); /* ahead of its step and its turn */
    EXPECT_OK(troupe_engine_begin_step(engine, 0));
    EXPECT_OK(troupe_engine_arrived(engine, 0, 1, 0));
    EXPECT_OK(troupe_engine_arrived(engine, 0, 0, 0));
    expect_nothing(engine);
    expect_explained(engine, "llm forward 0 of step 0 waits for input vision -> llm: rank 2 has "
                             "not reported it\n");
    EXPECT_OK(troupe_engine_arrived(engine, 0, 0, 1));
    expect_ticket(engine, 1, 0);
    expect_ticket(engine, 1, 1);
    troupe_engine_destroy(engine);
}

static void messages_that_cannot_be_are_refused(void) {
    struct pair p;
    make_pair(&p, 2, 1);
    troupe_engine *engine = start(&p.graph, 1, 8);
    EXPECT_OK(troupe_engine_begin_step(engine, 0));
    EXPECT_OK(troupe_engine_arrived(engine, 0, 0, 0));
    EXPECT_ERROR(troupe_engine_arrived(engine, 0, 0, 0), TROUPE_ERROR_CONTRACT, "vision -> llm");
    EXPECT_ERROR(troupe_engine_arrived(engine, 0, 1, 0), TROUPE_ERROR_CONTRACT, "1 credits allow");
    EXPECT_ERROR(troupe_engine_arrived(engine, 0, 0, 2), TROUPE_ERROR_CONTRACT, "member 2");
    EXPECT_OK(troupe_engine_arrived(engine, 0, 0, 1));
    expect_ticket(engine, 1, 0);
    EXPECT_ERROR(troupe_engine_arrived(engine, 0, 0, 1), TROUPE_ERROR_CONTRACT, "message 0");
    troupe_engine_destroy(engine);
}

static uint64_t odd_ones_are_empty(void *arg, int edge, int64_t step, int microbatch) {
    (void)arg;
    (void)edge;
    (void)step;
    return microbatch % 2 == 0 ? 2 : 0; /* member 1 alone receives something */
}

static void empty_message_needs_neither_arrival_nor_credit(void) {
    struct pair p;
    make_pair(&p, 3, 1);
    for (int side = 0; side < 2; side++) {
        troupe_engine *engine = NULL;
        EXPECT_OK(troupe_engine_create(
            &p.graph,
            &(struct troupe_engine_options){
                .conductor = side, .look_ahead = 8, .receivers = odd_ones_are_empty},
            &engine));
        EXPECT_OK(troupe_engine_begin_step(engine, 0));
        if (side == 1) {
            expect_nothing(engine);
            EXPECT_OK(troupe_engine_arrived(engine, 0, 0, 1));
        }
        expect_ticket(engine, side, 0);
        expect_ticket(engine, side, 1);
        expect_nothing(engine);
        troupe_engine_destroy(engine);
    }
}

/* Reports may come before their step; who receives something is known only then. */
static void early_message_to_one_who_receives_nothing_is_refused(void) {
    struct pair p;
    make_pair(&p, 2, 2);
    troupe_engine *engine = NULL;
    EXPECT_OK(troupe_engine_create(&p.graph,
                                   &(struct troupe_engine_options){.conductor = 1,
                                                                   .look_ahead = 8,
                                                                   .receivers = odd_ones_are_empty},
                                   &engine));
    EXPECT_OK(troupe_engine_begin_step(engine, 0));
    EXPECT_OK(troupe_engine_arrived(engine, 0, 0, 1));
    expect_ticket(engine, 1, 0);
    expect_ticket(engine, 1, 1);
    EXPECT_OK(troupe_engine_arrived(engine, 0, 2, 1)); /* of step 1, and rightly so */
    EXPECT_OK(troupe_engine_begin_step(engine, 1));
    expect_ticket(engine, 1, 2);
    expect_ticket(engine, 1, 3);
    EXPECT_OK(troupe_engine_arrived(engine, 0, 5, 1)); /* microbatch 1 of step 2 is empty */
    EXPECT_ERROR(troupe_engine_begin_step(engine, 2), TROUPE_ERROR_CONTRACT,
                 "edge vision -> llm: member 1 reports message 5 of step 2");
    troupe_engine_destroy(engine);
}

/* Producer and consumer tied into one island by a third gang. */
struct island {
    struct pair pair;
    struct troupe_gang gangs[3];
    int all[3];
};

static void make_island(struct island *i, int firings, int credits) {
    make_pair(&i->pair, firings, credits);
    i->gangs[0] = i->pair.gangs[0];
    i->gangs[1] = i->pair.gangs[1];
    i->all[0] = 0;
    i->all[1] = 1;
    i->all[2] = 2;
    i->gangs[2] = (struct troupe_gang){.name = "tie", .ranks = i->all, .rank_count = 3};
    i->pair.graph.gangs = i->gangs;
    i->pair.graph.gang_count = 3;
}

static void issued_producer_counts_as_input(void) {
    struct island i;
    make_island(&i, 2, 1);
    troupe_engine *engine = start(&i.pair.graph, 0, 8);
    EXPECT(troupe_engine_edge_is_local(engine, 0), "both ends are here");
    EXPECT_OK(troupe_engine_begin_step(engine, 0));
    expect_ticket(engine, 0, 0);
    expect_ticket(engine, 1, 0); /* returns the credit */
    expect_ticket(engine, 0, 1);
    expect_ticket(engine, 1, 1);
    troupe_engine_destroy(engine);
}

static void strict_edge_waits_for_the_message(void) {
    struct island i;
    make_island(&i, 1, 1);
    i.pair.edge.strict = true;
    troupe_engine *engine = start(&i.pair.graph, 0, 8);
    EXPECT_OK(troupe_engine_begin_step(engine, 0));
    expect_ticket(engine, 0, 0);
    expect_nothing(engine);
    EXPECT_OK(troupe_engine_arrived(engine, 0, 0, 0));
    EXPECT_OK(troupe_engine_arrived(engine, 0, 0, 1));
    expect_ticket(engine, 1, 0);
    troupe_engine_destroy(engine);
}

static void look_ahead_bounds_unfinished_tickets_of_a_rank(void) {
    struct pair p;
    make_pair(&p, 3, 3);
    troupe_engine *engine = start(&p.graph, 0, 2);
    EXPECT_OK(troupe_engine_begin_step(engine, 0));
    expect_ticket(engine, 0, 0);
    expect_ticket(engine, 0, 1);
    expect_nothing(engine);
    expect_explained(engine,
                     "vision forward 2 of step 0 waits for rank 0, which has not finished 2 "
                     "tickets\n"
                     "vision forward 0 of step 0 is issued but not done on rank 0\n");
    troupe_engine_done(engine, 0, 0, 0);
    expect_ticket(engine, 0, 2);
    troupe_engine_destroy(engine);
}

/* Gang 1 spans ranks 1 and 2; gang 0 keeps rank 1 busy. */
static void large_gang_queues_behind_the_work_of_some_members(void) {
    struct pair p;
    make_pair(&p, 8, 8);
    p.ranks[0][0] = 1;
    p.graph.edge_count = 0;
    troupe_engine *engine = start(&p.graph, 1, 1);
    EXPECT_OK(troupe_engine_begin_step(engine, 0));
    expect_ticket(engine, 0, 0); /* rank 1 is full, rank 2 is not: the gang of both gets more */
    for (int k = 0; k < 1; k++) {
        expect_ticket(engine, 1, k);
    }
    expect_nothing(engine);
    troupe_engine_done(engine, 1, 0, 1); /* on rank 2 */
    expect_ticket(engine, 1, 1);
    for (int k = 1; k < TROUPE_TICKETS_OVER - 1; k++) {
        troupe_engine_done(engine, 1, k, 1);
        expect_ticket(engine, 1, k + 1);
    }
    troupe_engine_done(engine, 1, TROUPE_TICKETS_OVER - 1, 1);
    expect_nothing(engine); /* rank 1 holds 1 + TROUPE_TICKETS_OVER */
    troupe_engine_destroy(engine);
}

static void actors_without_steps_hand_a_token_on_for_ever(void) {
    struct pair p;
    make_pair(&p, 0, 1);
    p.gangs[1].rank_count = 1;
    p.graph.rank_count = 2;
    struct troupe_edge edges[2] = {
        p.edge, {.name = "back", .from = 1, .to = 0, .credits = 1, .initial = 1}};
    p.graph.edges = edges;
    p.graph.edge_count = 2;
    troupe_engine *ping = start(&p.graph, 0, 1), *pong = start(&p.graph, 1, 1);
    for (int64_t k = 0; k < 100; k++) {
        expect_ticket(ping, 0, k);
        EXPECT_OK(troupe_engine_credit_returned(pong, 1));
        troupe_engine_done(ping, 0, k, 0);
        expect_nothing(ping);
        EXPECT_OK(troupe_engine_arrived(pong, 0, k, 0));
        expect_ticket(pong, 1, k);
        EXPECT_OK(troupe_engine_credit_returned(ping, 0));
        troupe_engine_done(pong, 1, k, 0);
        EXPECT_OK(troupe_engine_arrived(ping, 1, k + 1, 0));
    }
    troupe_engine_destroy(ping);
    troupe_engine_destroy(pong);
}

/* One rank: forward and backward twice a step, then reduce, then update. */
enum { FORWARD, BACKWARD, NORM, REDUCE, UPDATE, METHODS };

struct trainer {
    int rank;
    int after[METHODS][2];
    struct troupe_gang gang;
    struct troupe_method methods[METHODS];
    struct troupe_graph graph;
};

static void make_trainer(struct trainer *t, int slots) {
    memset(t, 0, sizeof *t);
    t->after[BACKWARD][0] = FORWARD;
    t->after[REDUCE][0] = t->after[NORM][0] = BACKWARD;
    t->after[UPDATE][0] = REDUCE;
    t->after[UPDATE][1] = NORM;
    t->gang =
        (struct troupe_gang){.name = "llm", .ranks = &t->rank, .rank_count = 1, .slots = slots};
    const struct troupe_method methods[METHODS] = {
        [FORWARD] = {.name = "forward",
                     .kind = TROUPE_METHOD_FORWARD,
                     .firings = 2,
                     .slot_take = true},
        [BACKWARD] = {.name = "backward_input",
                      .kind = TROUPE_METHOD_BACKWARD_INPUT,
                      .firings = 2,
                      .after_count = 1,
                      .slot_return = true},
        [NORM] = {.name = "norm",
                  .kind = TROUPE_METHOD_REDUCE,
                  .lane = TROUPE_LANE_REDUCTION,
                  .lane_order = 1,
                  .firings = 1,
                  .after_count = 1},
        [REDUCE] = {.name = "reduce",
                    .kind = TROUPE_METHOD_REDUCE,
                    .lane = TROUPE_LANE_REDUCTION,
                    .lane_order = 0,
                    .firings = 1,
                    .after_count = 1},
        [UPDATE] = {.name = "update", .kind = TROUPE_METHOD_UPDATE, .firings = 1, .after_count = 2},
    };
    for (int m = 0; m < METHODS; m++) {
        t->methods[m] = methods[m];
        t->methods[m].after = t->after[m];
    }
    t->graph = (struct troupe_graph){.rank_count = 1,
                                     .gangs = &t->gang,
                                     .gang_count = 1,
                                     .methods = t->methods,
                                     .method_count = METHODS};
}

/* Forwards of the lowest method first. */
static int pick_forward(void *state, const struct troupe_order_view *view,
                        const struct troupe_candidate *candidates, int count) {
    (void)state;
    int best = 0;
    for (int i = 1; i < count; i++) {
        bool forward = view->graph->methods[candidates[i].method].kind == TROUPE_METHOD_FORWARD;
        bool best_is = view->graph->methods[candidates[best].method].kind == TROUPE_METHOD_FORWARD;
        bool lower = candidates[i].method < candidates[best].method;
        best = (forward && !best_is) || (forward == best_is && lower) ? i : best;
    }
    return best;
}

/* Two gangs on one rank that has memory for three slots. */
static void memory_is_shared_above_a_reserve_of_one_slot_each(void) {
    struct trainer t;
    make_trainer(&t, 4);
    const int64_t memory[1] = {30};
    struct troupe_gang gangs[2] = {t.gang, t.gang};
    struct troupe_method methods[4];
    int after[2] = {0, 2};
    for (int g = 0; g < 2; g++) {
        gangs[g].slot_bytes = 10;
        gangs[g].name = g == 0 ? "llm" : "vision";
        for (int i = 0; i < 2; i++) {
            methods[2 * g + i] = t.methods[i];
            methods[2 * g + i].gang = g;
            methods[2 * g + i].firings = 3;
        }
        methods[2 * g + 1].after = &after[g];
        methods[2 * g + 1].firings = 3;
        methods[2 * g + 1].after_count = 1;
    }
    struct troupe_graph graph = {.rank_count = 1,
                                 .gangs = gangs,
                                 .gang_count = 2,
                                 .methods = methods,
                                 .method_count = 4,
                                 .memory_bytes = memory};
    const struct troupe_order_policy forwards_first = {.name = "forwards first",
                                                       .create = troupe_order_no_state,
                                                       .destroy = troupe_order_keep_state,
                                                       .begin_step = troupe_order_no_plan,
                                                       .in_flight = troupe_order_unbounded,
                                                       .pick = pick_forward};
    troupe_engine *engine = NULL;
    EXPECT_OK(troupe_graph_check(&graph));
    EXPECT_OK(troupe_engine_create(
        &graph, &(struct troupe_engine_options){.look_ahead = 99, .order = &forwards_first},
        &engine));
    EXPECT_OK(troupe_engine_begin_step(engine, 0));
    expect_ticket(engine, 0, 0);
    expect_ticket(engine, 0, 1);
    expect_ticket(engine, 2, 0);
    EXPECT_EQ(troupe_engine_wait_of(engine, 0).kind, TROUPE_WAIT_FOR_MEMORY);
    EXPECT_EQ(troupe_engine_wait_of(engine, 2).kind, TROUPE_WAIT_FOR_MEMORY);
    expect_ticket(engine, 1, 0); /* its backward returns what the other gang may now take */
    EXPECT_EQ(troupe_engine_wait_of(engine, 2).kind, TROUPE_WAIT_FOR_NOTHING);
    troupe_engine_destroy(engine);
    graph.memory_bytes = (const int64_t[]){19};
    EXPECT_ERROR(troupe_graph_check(&graph), TROUPE_ERROR_INVALID,
                 "rank 0 has 19 bytes for activations, but one slot of each of its gangs takes 20");
}

static void slots_bound_microbatches_in_flight(void) {
    struct trainer t;
    make_trainer(&t, 1);
    troupe_engine *engine = start(&t.graph, 0, 8);
    EXPECT_OK(troupe_engine_begin_step(engine, 0));
    expect_ticket(engine, FORWARD, 0);
    expect_ticket(engine, BACKWARD, 0);
    expect_ticket(engine, FORWARD, 1);
    troupe_engine_destroy(engine);
}

static void update_waits_for_reductions_and_they_hold_nothing_up(void) {
    struct trainer t;
    make_trainer(&t, 1);
    troupe_engine *engine = start(&t.graph, 0, 1);
    for (int64_t step = 0; step < 3; step++) {
        EXPECT_OK(troupe_engine_begin_step(engine, step));
        for (int k = 0; k < 2; k++) {
            expect_ticket(engine, FORWARD, 2 * step + k);
            troupe_engine_done(engine, FORWARD, 2 * step + k, 0);
            expect_ticket(engine, BACKWARD, 2 * step + k);
            if (k == 0) {
                expect_nothing(engine); /* look-ahead 1 */
                troupe_engine_done(engine, BACKWARD, 2 * step, 0);
            }
        }
        expect_ticket(engine, REDUCE, step); /* posted in lane order, beside the unfinished one */
        expect_ticket(engine, NORM, step);
        troupe_engine_done(engine, BACKWARD, 2 * step + 1, 0);
        troupe_engine_done(engine, NORM, step, 0);
        expect_nothing(engine);
        troupe_engine_done(engine, REDUCE, step, 0);
        expect_ticket(engine, UPDATE, step);
        troupe_engine_done(engine, UPDATE, step, 0);
        EXPECT(troupe_engine_step_done(engine), "step %d", (int)step);
    }
    troupe_engine_destroy(engine);
}

static void explain_names_what_an_update_waits_for(void) {
    struct trainer t;
    make_trainer(&t, 2);
    troupe_engine *engine = start(&t.graph, 0, 8);
    EXPECT_OK(troupe_engine_begin_step(engine, 4));
    expect_ticket(engine, FORWARD, 8);
    troupe_engine_done(engine, FORWARD, 8, 0);
    expect_explained(engine, "llm forward 1 of step 4 can be issued\n"
                             "llm backward_input 0 of step 4 can be issued\n"
                             "llm norm 0 of step 4 waits until backward_input is issued\n"
                             "llm reduce 0 of step 4 waits until backward_input is issued\n"
                             "llm update 0 of step 4 waits until reduce is done\n");
    troupe_engine_destroy(engine);
}

/* After creation nothing is allocated: allocation would abort in the steady phase. */
/* Two members that only reduce; the second lags behind. */
static void reductions_do_not_run_away_from_a_slow_rank(void) {
    const int ranks[2] = {0, 1};
    const struct troupe_gang gang = {.name = "llm", .ranks = ranks, .rank_count = 2};
    const struct troupe_method reduce = {
        .name = "reduce", .lane = TROUPE_LANE_REDUCTION, .firings = 1};
    const struct troupe_graph graph = {
        .rank_count = 2, .gangs = &gang, .gang_count = 1, .methods = &reduce, .method_count = 1};
    troupe_engine *engine = start(&graph, 0, 8);
    for (int64_t step = 0; step < 3; step++) {
        EXPECT_OK(troupe_engine_begin_step(engine, step));
        if (step < TROUPE_REDUCTIONS_AHEAD) {
            expect_ticket(engine, 0, step);
            troupe_engine_done(engine, 0, step, 0);
        }
    }
    expect_nothing(engine);
    expect_explained(engine,
                     "llm reduce 0 of step 2 waits for rank 1, which has not finished 2 tickets\n"
                     "llm reduce 0 of step 0 is issued but not done on rank 1\n");
    troupe_engine_done(engine, 0, 0, 1);
    expect_ticket(engine, 0, 2);
    troupe_engine_destroy(engine);
}

static void steady_state_allocates_nothing(void) {
    struct trainer t;
    make_trainer(&t, 2);
    troupe_engine *engine = start(&t.graph, 0, 8);
    troupe_memory_set_steady(true);
    struct troupe_ticket ticket;
    for (int64_t step = 0; step < 10; step++) {
        EXPECT_OK(troupe_engine_begin_step(engine, step));
        while (troupe_engine_next(engine, &ticket) == TROUPE_OK) {
            troupe_engine_done(engine, ticket.method, ticket.firing, 0);
        }
        EXPECT(troupe_engine_step_done(engine), "step %d", (int)step);
    }
    troupe_memory_set_steady(false);
    troupe_engine_destroy(engine);
}

int main(void) {
    TEST(rank_that_conducts_nothing_is_refused);
    TEST(nothing_fires_before_its_step);
    TEST(credits_bound_what_a_producer_may_send);
    TEST(input_counts_when_all_members_have_it);
    TEST(messages_that_cannot_be_are_refused);
    TEST(early_message_to_one_who_receives_nothing_is_refused);
    TEST(empty_message_needs_neither_arrival_nor_credit);
    TEST(issued_producer_counts_as_input);
    TEST(strict_edge_waits_for_the_message);
    TEST(look_ahead_bounds_unfinished_tickets_of_a_rank);
    TEST(large_gang_queues_behind_the_work_of_some_members);
    TEST(memory_is_shared_above_a_reserve_of_one_slot_each);
    TEST(actors_without_steps_hand_a_token_on_for_ever);
    TEST(slots_bound_microbatches_in_flight);
    TEST(update_waits_for_reductions_and_they_hold_nothing_up);
    TEST(explain_names_what_an_update_waits_for);
    TEST(reductions_do_not_run_away_from_a_slow_rank);
    TEST(steady_state_allocates_nothing);
    return TEST_END();
}
