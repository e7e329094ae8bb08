/* SPDX-License-Identifier: Apache-2.0 */
/* Order policies over the real engine, driven by a clock: a pipeline of p stages, optionally with
 * an encoder on every rank, each task one time unit long, messages at once. The argument is a
 * policy in a shared object. */
#include "scheduler/order.h"
#include "scheduler/engine.h"
#include "tests/test.h"

enum { STAGES_MAX = 4, MICROBATCHES_MAX = 8, TASKS_MAX = 64, EDGES_MAX = 64 };
enum { FORWARD, BACKWARD, KINDS };

/* Gang s is stage s on rank s; gang p + s, if there is an encoder, is its replica on rank s. */
struct pipeline {
    int stages, gang_count;
    int ranks[STAGES_MAX];
    int after[2 * STAGES_MAX];
    struct troupe_gang gangs[2 * STAGES_MAX + 1];
    struct troupe_method methods[2 * STAGES_MAX * KINDS];
    struct troupe_edge edges[EDGES_MAX];
    struct troupe_graph graph;
    troupe_engine *engines[STAGES_MAX]; /* by rank; the same one in an island */
    struct troupe_ticket queue[STAGES_MAX][TASKS_MAX];
    int queued[STAGES_MAX], finished[STAGES_MAX];
    bool ended[2 * STAGES_MAX * KINDS][MICROBATCHES_MAX];
};

static int method_of(int gang, int kind) {
    return gang * KINDS + kind;
}

static void add_edge(struct pipeline *p, int from, int to) {
    p->edges[p->graph.edge_count++] =
        (struct troupe_edge){.name = "edge", .from = from, .to = to, .credits = p->stages};
}

static void add_gang(struct pipeline *p, int rank, int depth, int microbatches) {
    int g = p->gang_count++;
    p->gangs[g] = (struct troupe_gang){.name = depth == 0 ? "llm" : "vision",
                                       .ranks = &p->ranks[rank],
                                       .rank_count = 1,
                                       .slots = STAGES_MAX,
                                       .depth = depth,
                                       .stage = depth == 0 ? rank : 0,
                                       .stage_count = depth == 0 ? p->stages : 1};
    p->after[g] = method_of(g, FORWARD);
    p->methods[method_of(g, FORWARD)] = (struct troupe_method){.name = "forward",
                                                               .gang = g,
                                                               .kind = TROUPE_METHOD_FORWARD,
                                                               .firings = microbatches,
                                                               .slot_take = true};
    p->methods[method_of(g, BACKWARD)] =
        (struct troupe_method){.name = "backward_input",
                               .gang = g,
                               .kind = TROUPE_METHOD_BACKWARD_INPUT,
                               .firings = microbatches,
                               .after = &p->after[g],
                               .after_count = 1,
                               .slot_return = true};
}

static void make_pipeline(struct pipeline *p, int stages, int microbatches, bool encoder,
                          bool one_island, const char *order, int look_ahead) {
    memset(p, 0, sizeof *p);
    p->stages = stages;
    for (int s = 0; s < stages; s++) {
        p->ranks[s] = s;
        add_gang(p, s, 0, microbatches);
    }
    for (int s = 0; s < stages; s++) {
        if (s > 0) {
            add_edge(p, method_of(s - 1, FORWARD), method_of(s, FORWARD));
            add_edge(p, method_of(s, BACKWARD), method_of(s - 1, BACKWARD));
        }
        if (encoder) {
            add_gang(p, s, 1, microbatches);
            add_edge(p, method_of(stages + s, FORWARD), method_of(0, FORWARD));
            add_edge(p, method_of(0, BACKWARD), method_of(stages + s, BACKWARD));
        }
    }
    p->graph = (struct troupe_graph){.rank_count = stages,
                                     .gangs = p->gangs,
                                     .gang_count = p->gang_count,
                                     .methods = p->methods,
                                     .method_count = p->gang_count * KINDS,
                                     .edges = p->edges,
                                     .edge_count = p->graph.edge_count};
    if (one_island) { /* a gang of all ranks that does nothing itself */
        p->gangs[p->graph.gang_count++] =
            (struct troupe_gang){.name = "tie", .ranks = p->ranks, .rank_count = stages};
    }
    const struct troupe_order_policy *policy = NULL;
    EXPECT_OK(troupe_order_find(order, &policy));
    EXPECT_OK(troupe_graph_check(&p->graph));
    for (int r = 0; r < stages; r++) {
        if (one_island && r > 0) {
            p->engines[r] = p->engines[0];
            continue;
        }
        EXPECT_OK(troupe_engine_create(&p->graph,
                                       &(struct troupe_engine_options){.conductor = r,
                                                                       .look_ahead = look_ahead,
                                                                       .order = policy},
                                       &p->engines[r]));
        EXPECT_OK(troupe_engine_begin_step(p->engines[r], 0));
    }
}

static int rank_of(const struct pipeline *p, int method) {
    return p->gangs[p->methods[method].gang].ranks[0];
}

static void pump(struct pipeline *p, int rank) {
    struct troupe_ticket ticket;
    while (troupe_engine_next(p->engines[rank], &ticket) == TROUPE_OK) {
        int r = rank_of(p, ticket.method);
        p->queue[r][p->queued[r]++] = ticket;
        for (int e = 0; e < p->graph.edge_count; e++) {
            int from = rank_of(p, p->edges[e].from);
            if (p->edges[e].to == ticket.method && !troupe_engine_edge_is_local(p->engines[r], e)) {
                EXPECT_OK(troupe_engine_credit_returned(p->engines[from], e));
            }
        }
    }
}

/* Whether everything that the ticket reads has been written. */
static bool can_run(const struct pipeline *p, const struct troupe_ticket *ticket) {
    for (int e = 0; e < p->graph.edge_count; e++) {
        if (p->edges[e].to == ticket->method && !p->ended[p->edges[e].from][ticket->microbatch]) {
            return false;
        }
    }
    return true;
}

static void end_task(struct pipeline *p, const struct troupe_ticket *ticket) {
    int r = rank_of(p, ticket->method);
    p->ended[ticket->method][ticket->microbatch] = true;
    p->finished[r]++;
    troupe_engine_done(p->engines[r], ticket->method, ticket->firing, 0);
    for (int e = 0; e < p->graph.edge_count; e++) {
        int to = rank_of(p, p->edges[e].to);
        if (p->edges[e].from == ticket->method) {
            EXPECT_OK(troupe_engine_arrived(p->engines[to], e, ticket->firing, 0));
        }
    }
}

/* One time unit: every rank whose next task can run runs it. Returns how many did. */
static int tick(struct pipeline *p) {
    const struct troupe_ticket *running[STAGES_MAX] = {NULL};
    int count = 0;
    for (int pass = 0; pass < p->stages; pass++) { /* credits come back from later ranks */
        for (int r = 0; r < p->stages; r++) {
            pump(p, r);
        }
    }
    for (int r = 0; r < p->stages; r++) {
        const struct troupe_ticket *next = &p->queue[r][p->finished[r]];
        if (p->finished[r] < p->queued[r] && can_run(p, next)) {
            running[r] = next;
        }
    }
    for (int r = 0; r < p->stages; r++) {
        if (running[r] != NULL) {
            end_task(p, running[r]);
            count++;
        }
    }
    return count;
}

/* Runs the step to its end; returns the time it took. */
static int run(struct pipeline *p) {
    int time = 0, tasks = p->graph.method_count * p->methods[0].firings;
    while (tasks > 0) {
        int count = tick(p);
        EXPECT(count > 0, "%d tasks left at time %d and nothing runs", tasks, time);
        tasks -= count;
        time++;
    }
    for (int r = p->stages - 1; r >= 0; r--) { /* in an island, rank 0's engine is everyone's */
        EXPECT(troupe_engine_step_done(p->engines[r]), "rank %d", r);
        if (r == 0 || p->engines[r] != p->engines[0]) {
            troupe_engine_destroy(p->engines[r]);
        }
    }
    return time;
}

/* "F0 F1 B0 ..." of the rank's language model stage. */
static const char *order_of(const struct pipeline *p, int rank) {
    static char text[TASKS_MAX * 4];
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < p->queued[rank]; i++) {
        const struct troupe_ticket *ticket = &p->queue[rank][i];
        if (p->gangs[ticket->gang].depth == 0) {
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%c%d", used > 0 ? " " : "",
                                     "FB"[ticket->method % KINDS], ticket -> microbatch);
        }
    }
    return text;
}

/* As Megatron-LM writes it: p - s - 1 warm-up forwards, pairs of one forward and one backward, the
 * backwards that are left. */
static const char *textbook(int stages, int stage, int microbatches) {
    static char text[TASKS_MAX * 4];
    size_t used = 0;
    int forward = 0, backward = 0;
    int warm_up = stages - stage - 1 < microbatches ? stages - stage - 1 : microbatches;
    while (forward < warm_up) {
        used += (size_t)snprintf(text + used, sizeof text - used, "F%d ", forward++);
    }
    while (forward < microbatches) {
        used += (size_t)snprintf(text + used, sizeof text - used, "F%d B%d ", forward, backward);
        forward++;
        backward++;
    }
    while (backward < microbatches) {
        used += (size_t)snprintf(text + used, sizeof text - used, "B%d ", backward++);
    }
    text[used - 1] = '\0';
    return text;
}

static void expect_textbook(bool one_island, int look_ahead) {
    for (int stages = 2; stages <= STAGES_MAX; stages++) {
        for (int m = 1; m <= MICROBATCHES_MAX; m++) {
            struct pipeline p;
            make_pipeline(&p, stages, m, false, one_island, "1f1b", look_ahead);
            int time = run(&p);
            for (int s = 0; s < stages; s++) {
                EXPECT_STRING(order_of(&p, s), textbook(stages, s, m));
            }
            EXPECT_EQ(time, 2 * (m + stages - 1)); /* theory: (m + p - 1)(F + B) */
        }
    }
}

static void one_f_one_b_is_the_textbook_sequence(void) {
    expect_textbook(false, 1);
    expect_textbook(false, 2);
    expect_textbook(false, 8);
}

static void one_f_one_b_is_the_textbook_sequence_in_one_island(void) {
    expect_textbook(true, 1);
    expect_textbook(true, 2);
    expect_textbook(true, 4);
}

/* The most microbatches of which the rank's stage holds activations at once. */
static int most_in_flight(const struct pipeline *p, int rank) {
    int in_flight = 0, most = 0;
    for (const char *c = order_of(p, rank); *c != '\0'; c++) {
        in_flight += (*c == 'F') - (*c == 'B');
        most = in_flight > most ? in_flight : most;
    }
    return most;
}

/* Encoder replicas on all ranks: the language model stays within its memory, the encoders fill in,
 * and the step is near the bound of its work (theory: at least work, and e_f + T_LLM + e_b). */
static void one_f_one_b_fits_a_colocated_encoder_in(void) {
    for (int one_island = 0; one_island < 2; one_island++) {
        struct pipeline p;
        make_pipeline(&p, 3, 6, true, one_island, "1f1b", 2);
        int time = run(&p);
        int work = 6 * 4; /* of each rank */
        EXPECT(time >= work && time <= work + 4, "%d time units for %d of work a rank", time, work);
        for (int s = 0; s < 3; s++) {
            EXPECT_EQ(most_in_flight(&p, s), 3 - s);
        }
    }
}

/* With look-ahead 1 a rank gets a ticket whenever it is idle and has a candidate, so one rank with
 * nothing to wait for is never idle. */
static void fifo_never_leaves_a_rank_idle(void) {
    struct pipeline p;
    make_pipeline(&p, 1, 8, true, false, "fifo", 1);
    EXPECT_EQ(run(&p), 8 * 4);
}

static void fifo_takes_the_oldest_then_the_lowest(void) {
    const struct troupe_order_policy *fifo = NULL;
    EXPECT_OK(troupe_order_find("fifo", &fifo));
    const struct troupe_candidate c[4] = {{.method = 0, .microbatch = 0, .ready = 9},
                                          {.method = 1, .microbatch = 2, .ready = 4},
                                          {.method = 2, .microbatch = 1, .ready = 4},
                                          {.method = 3, .microbatch = 1, .ready = 4}};
    EXPECT_EQ(fifo->pick(NULL, NULL, c, 1), 0);
    EXPECT_EQ(fifo->pick(NULL, NULL, c, 2), 1);
    EXPECT_EQ(fifo->pick(NULL, NULL, c, 4), 2);
}

static void one_f_one_b_breaks_ties_in_the_stated_order(void) {
    struct pipeline p;
    make_pipeline(&p, 1, 4, true, false, "1f1b", 8);
    const struct troupe_order_policy *policy = NULL;
    EXPECT_OK(troupe_order_find("1f1b", &policy));
    struct troupe_graph_index *index = NULL;
    void *state = NULL;
    EXPECT_OK(troupe_graph_index_create(&p.graph, &index));
    EXPECT_OK(policy->create(&(struct troupe_order_setting){.index = index}, &state));
    int issued[4] = {1, 0, 1, 0}; /* stage 0 of 1: it is the backward's turn */
    const struct troupe_order_view view = {.graph = &p.graph, .issued = issued};
    struct troupe_candidate c[4] = {{.method = method_of(1, FORWARD), .microbatch = 1, .ready = 1},
                                    {.method = method_of(1, BACKWARD), .ready = 2},
                                    {.method = method_of(0, FORWARD), .microbatch = 1, .ready = 3},
                                    {.method = method_of(0, BACKWARD), .ready = 4}};
    EXPECT_EQ(policy->pick(state, &view, c, 4), 3);
    issued[FORWARD] = issued[BACKWARD] = 1;
    EXPECT_EQ(policy->pick(state, &view, c, 3), 2);
    EXPECT_EQ(policy->pick(state, &view, c, 2), 1);
    EXPECT_EQ(policy->pick(state, &view, c, 1), 0);
    c[1].waits = c[2].waits = true; /* would hold the rank up: the encoder's forward fills in */
    EXPECT_EQ(policy->pick(state, &view, c, 3), 0);
    policy->destroy(state);
    troupe_graph_index_destroy(index);
    troupe_engine_destroy(p.engines[0]);
}

static void unknown_order_lists_the_known(void) {
    const struct troupe_order_policy *policy = NULL;
    EXPECT_ERROR(troupe_order_find("lifo", &policy), TROUPE_ERROR_INVALID,
                 "order policy \"lifo\" is not known; there are fifo, 1f1b, gpipe, ");
    EXPECT_ERROR(troupe_order_find("./no-such.so", &policy), TROUPE_ERROR_INVALID,
                 "policy ./no-such.so cannot be loaded");
    EXPECT_STRING(troupe_order_builtin(1)->name, "1f1b");
    EXPECT(troupe_order_builtin(99) == NULL && troupe_order_builtin(-1) == NULL, "not so many");
}

static const char *policy_path;

static void order_of_a_shared_object_runs(void) {
    struct pipeline p;
    const struct troupe_order_policy *policy = NULL;
    EXPECT_OK(troupe_order_find(policy_path, &policy));
    EXPECT_STRING(policy->name, "last");
    make_pipeline(&p, 3, 4, true, false, policy_path, 2);
    run(&p);
}

int main(int argc, char **argv) {
    EXPECT_EQ(argc, 2);
    policy_path = argv[1];
    TEST(one_f_one_b_is_the_textbook_sequence);
    TEST(one_f_one_b_is_the_textbook_sequence_in_one_island);
    TEST(one_f_one_b_fits_a_colocated_encoder_in);
    TEST(one_f_one_b_breaks_ties_in_the_stated_order);
    TEST(fifo_never_leaves_a_rank_idle);
    TEST(fifo_takes_the_oldest_then_the_lowest);
    TEST(unknown_order_lists_the_known);
    TEST(order_of_a_shared_object_runs);
    return TEST_END();
}
