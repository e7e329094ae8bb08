/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator against textbook makespans, against T*, and against itself; on random graphs of the
 * engine's fuzzer: nothing stalls, ranks run one task at a time, messages are there before. */
#include "scheduler/sim.h"

#include "runtime/memory.h"
#include "scheduler/bound.h"
#include "tests/fuzz/scenario.h"
#include "tests/schedule/pipeline.h"
#include "tests/test.h"

enum { SLACK = 100 }; /* ns; a message between ranks takes at least 1 */

static const struct troupe_order_policy *policy(const char *name) {
    const struct troupe_order_policy *found = NULL;
    EXPECT_OK(troupe_order_find(name, &found));
    return found;
}

static int64_t makespan_of(const struct pipeline *p, const char *order) {
    troupe_sim *sim = NULL;
    struct troupe_sim_result result;
    EXPECT_OK(troupe_sim_create(
        &p->graph, &(struct troupe_sim_options){.order = policy(order), .costs = &p->costs}, &sim));
    EXPECT_OK(troupe_sim_run(sim, &result));
    int64_t ns = result.makespan_ns;
    troupe_sim_destroy(sim);
    return ns;
}

static void one_forward_one_backward_takes_m_plus_p_minus_1(void) {
    for (int p = 1; p <= 6; p++) {
        for (int m = 1; m <= 12; m++) {
            struct pipeline pipeline;
            pipeline_make(
                &(struct pipeline_options){
                    .ranks = p, .microbatches = m, .forward = 10, .backward = 13, .weight = 7},
                &pipeline);
            EXPECT_EQ(makespan_of(&pipeline, "1f1b"), (m + p - 1) * 30);
            pipeline_free(&pipeline);
        }
    }
}

/* One slot a stage: without recompute a microbatch is through the whole pipeline before the next
 * one begins, with it the stages work at the same time, each some longer. */
static void recompute_trades_time_for_memory(void) {
    enum { P = 4, M = 16, F = 10, B = 20 };
    const char *orders[] = {"1f1b", "fill"};
    for (int i = 0; i < 2; i++) {
        const struct pipeline_options options = {
            .ranks = P, .microbatches = M, .forward = F, .backward = B};
        struct pipeline_options one_slot = options, recomputed;
        one_slot.slots = 1;
        recomputed = one_slot;
        recomputed.recompute = F;
        int64_t ns[3];
        const struct pipeline_options *cases[] = {&options, &one_slot, &recomputed};
        for (int k = 0; k < 3; k++) {
            struct pipeline pipeline;
            pipeline_make(cases[k], &pipeline);
            ns[k] = makespan_of(&pipeline, orders[i]);
            pipeline_free(&pipeline);
        }
        printf("    %s: all slots %d, one slot %d, one slot and recompute %d\n", orders[i],
               (int)ns[0], (int)ns[1], (int)ns[2]);
        EXPECT_EQ(ns[0], (M + P - 1) * (F + B));
        EXPECT(ns[1] >= M * P * (F + B), "%d", (int)ns[1]);
        EXPECT(ns[2] > ns[0] && ns[2] <= (M + P - 1) * (F + F + B) + SLACK, "%d", (int)ns[2]);
    }
}

/* A loader of its own, one microbatch ahead or any number, is only waited for at the begin. */
static void prefetch_goes_ahead_as_far_as_credits_allow(void) {
    enum { P = 2, M = 8, F = 10, B = 20, LOAD = 9 };
    for (int credits = 0; credits <= 1; credits++) {
        struct pipeline pipeline;
        struct troupe_sim_result result;
        troupe_sim *sim = NULL;
        int64_t load[M], forward[M];
        pipeline_make(&(struct pipeline_options){.ranks = P,
                                                 .microbatches = M,
                                                 .forward = F,
                                                 .backward = B,
                                                 .prefetch = LOAD,
                                                 .prefetch_credits = credits},
                      &pipeline);
        EXPECT_OK(troupe_sim_create(&pipeline.graph,
                                    &(struct troupe_sim_options){.order = policy("1f1b"),
                                                                 .look_ahead = 1,
                                                                 .costs = &pipeline.costs},
                                    &sim));
        EXPECT_OK(troupe_sim_run(sim, &result));
        for (int i = 0; i < result.schedule.task_count; i++) {
            const struct troupe_task *task = &result.schedule.tasks[i];
            if (pipeline.methods[task->method].kind == TROUPE_METHOD_PREFETCH) {
                load[task->microbatch] = task->begin_ns;
            } else if (task->method == 0) {
                forward[task->microbatch] = task->begin_ns;
            }
        }
        for (int k = 0; k < M; k++) {
            EXPECT(forward[k] >= load[k] + LOAD, "microbatch %d is not there", k);
            EXPECT(credits == 0 || k == 0 || load[k] >= forward[k - 1], "%d is too early", k);
        }
        EXPECT(result.makespan_ns >= LOAD + (M + P - 1) * (F + B) &&
                   result.makespan_ns <= LOAD + (M + P - 1) * (F + B) + SLACK,
               "%d", (int)result.makespan_ns);
        troupe_sim_destroy(sim);
        pipeline_free(&pipeline);
    }
}

static void a_run_is_repeatable(void) {
    struct pipeline pipeline;
    pipeline_make(&(struct pipeline_options){.ranks = 4,
                                             .microbatches = 8,
                                             .forward = 10,
                                             .backward = 12,
                                             .weight = 9,
                                             .split = true,
                                             .link_ns = 3,
                                             .credits = 2,
                                             .encoder = ENCODER_SPREAD,
                                             .encoder_forward = 2,
                                             .encoder_backward = 4},
                  &pipeline);
    troupe_sim *sim = NULL;
    struct troupe_sim_result result;
    EXPECT_OK(troupe_sim_create(&pipeline.graph,
                                &(struct troupe_sim_options){.order = policy("1f1b"),
                                                             .costs = &pipeline.costs,
                                                             .control_ns = 1},
                                &sim));
    EXPECT_OK(troupe_sim_run(sim, &result));
    struct troupe_task *first = calloc((size_t)result.schedule.task_count, sizeof *first);
    memcpy(first, result.schedule.tasks, (size_t)result.schedule.task_count * sizeof *first);
    for (int run = 0; run < 3; run++) {
        EXPECT_OK(troupe_sim_run(sim, &result));
        EXPECT(memcmp(first, result.schedule.tasks,
                      (size_t)result.schedule.task_count * sizeof *first) == 0,
               "run %d differs", run);
    }
    free(first);
    troupe_sim_destroy(sim);
    pipeline_free(&pipeline);
}

static int64_t one_megabyte(void *arg, int edge, int64_t step, int microbatch, int member) {
    (void)arg, (void)edge, (void)step, (void)microbatch, (void)member;
    return 1000000;
}

/* Two encoders send 1 MB each to one rank at the same time: its port takes them one by one. */
static void a_port_carries_one_message_after_the_other(void) {
    const struct troupe_cluster cluster = {.inside = {.latency_ns = 500, .bytes_per_s = 1e9}};
    struct pipeline pipeline;
    pipeline_make(&(struct pipeline_options){.ranks = 1,
                                             .microbatches = 1,
                                             .forward = 10,
                                             .backward = 20,
                                             .encoder = ENCODER_APART,
                                             .encoder_ranks = 2,
                                             .encoder_forward = 100,
                                             .encoder_backward = 50},
                  &pipeline);
    troupe_sim *sim = NULL;
    struct troupe_sim_result result;
    EXPECT_OK(troupe_sim_create(&pipeline.graph,
                                &(struct troupe_sim_options){.costs = &pipeline.costs,
                                                             .cluster = &cluster,
                                                             .edge_bytes = one_megabyte},
                                &sim));
    EXPECT_OK(troupe_sim_run(sim, &result));
    /* forward 100, two messages of 1 ms in turn, 500; F and B; two back in turn from one port. */
    EXPECT_EQ(result.makespan_ns, 100 + 2000000 + 500 + 30 + 2000000 + 500 + 50);
    troupe_sim_destroy(sim);
    pipeline_free(&pipeline);
}

static void a_port_is_shared_by_the_ranks_of_a_host(void) {
    const struct troupe_cluster cluster = {.ranks_per_host = 2,
                                           .nics_per_host = 1,
                                           .inside = {.latency_ns = 1, .bytes_per_s = 1e9},
                                           .between = {.latency_ns = 10, .bytes_per_s = 1e8}};
    troupe_traffic *traffic = NULL;
    EXPECT_OK(troupe_traffic_create(&cluster, 6, &traffic));
    EXPECT_EQ(troupe_traffic_send(traffic, 0, 0, 1, 1000), 1001);
    EXPECT_EQ(troupe_traffic_send(traffic, 0, 0, 2, 1000), 10010);
    EXPECT_EQ(troupe_traffic_send(traffic, 0, 1, 4, 1000), 20010); /* the same card, outward */
    EXPECT_EQ(troupe_traffic_send(traffic, 0, 3, 0, 1000), 10010); /* inward is free */
    EXPECT_EQ(troupe_traffic_send(traffic, 30000, 1, 1, 1000), 30000);
    troupe_traffic_reset(traffic);
    EXPECT_EQ(troupe_traffic_send(traffic, 0, 1, 4, 1000), 10010);
    troupe_traffic_destroy(traffic);
}

static void collectives_take_what_rings_and_trees_take(void) {
    const struct troupe_cluster cluster = {.ranks_per_host = 8,
                                           .inside = {.latency_ns = 1000, .bytes_per_s = 1e9},
                                           .between = {.latency_ns = 1000, .bytes_per_s = 1e8}};
    const int ranks[] = {0, 1, 2, 3, 8};
    /* 4 ranks, 1 MB: a ring moves 3/4 of it twice. */
    EXPECT_EQ(
        troupe_cluster_collective_ns(&cluster, TROUPE_COLLECTIVE_ALL_REDUCE, ranks, 4, 1000000),
        2 * (3 * 1000 + 750000));
    /* Few bytes: a tree has fewer rounds. */
    EXPECT_EQ(troupe_cluster_collective_ns(&cluster, TROUPE_COLLECTIVE_ALL_REDUCE, ranks, 4, 1),
              2 * (2 * 1000 + 1));
    EXPECT_EQ(
        troupe_cluster_collective_ns(&cluster, TROUPE_COLLECTIVE_ALL_GATHER, ranks, 5, 1000000),
        4 * 1000 + 8000000);
    EXPECT_EQ(troupe_cluster_collective_ns(&cluster, TROUPE_COLLECTIVE_ALL_REDUCE, ranks, 1, 9), 0);
}

static void a_cluster_file_is_read_back_as_written(void) {
    char path[] = "troupe-cluster-XXXXXX";
    struct troupe_cluster cluster, read;
    int descriptor = mkstemp(path);
    FILE *file = fdopen(descriptor, "w");
    troupe_cluster_default(&cluster);
    cluster.nics_per_host = 3;
    cluster.control_ns = 77;
    troupe_cluster_write(&cluster, file);
    fclose(file);
    EXPECT_OK(troupe_cluster_read(path, &read));
    EXPECT_EQ(read.nics_per_host, 3);
    EXPECT_EQ(read.control_ns, 77);
    EXPECT_EQ(read.efficiency_count, cluster.efficiency_count);
    EXPECT_NEAR(read.flops_per_s, cluster.flops_per_s, 1e6);
    file = fopen(path, "w");
    fprintf(file, "control_ns: 5\n# nothing\nspeed: 3\n");
    fclose(file);
    EXPECT_ERROR(troupe_cluster_read(path, &read), TROUPE_ERROR_INVALID, ":3: there is no key");
    remove(path);
    EXPECT_ERROR(troupe_cluster_read(path, &read), TROUPE_ERROR_IO, path);
}

static void the_roofline_has_two_slopes_and_a_floor(void) {
    const struct troupe_cluster cluster = {.flops_per_s = 1e12,
                                           .memory_bytes_per_s = 1e11,
                                           .efficiency = {{100, 0.2}, {10000, 0.6}},
                                           .efficiency_count = 2,
                                           .launch_ns = 50};
    EXPECT_EQ(troupe_cluster_compute_ns(
                  &cluster, &(struct troupe_work){.flops = 2e9, .bytes = 1, .rows = 50}),
              10000000);
    EXPECT_EQ(troupe_cluster_compute_ns(
                  &cluster, &(struct troupe_work){.flops = 4e9, .bytes = 1, .rows = 1000}),
              10000000); /* half way on the logarithm: 0.4 */
    EXPECT_EQ(troupe_cluster_compute_ns(
                  &cluster, &(struct troupe_work){.flops = 1, .bytes = 1e6, .rows = 1e6}),
              10000);
    EXPECT_EQ(troupe_cluster_compute_ns(&cluster, &(struct troupe_work){.flops = 1, .rows = 1}),
              50);
    EXPECT_EQ(troupe_cluster_compute_ns(&cluster, &(struct troupe_work){.rows = 1}), 0);
}

/* ---- idle time ---- */

static void idle_time_has_its_cause(void) {
    /* 2 stages, 2 microbatches, F 10, B 20, an encoder (4, 6) on a rank of its own. */
    struct pipeline pipeline;
    pipeline_make(&(struct pipeline_options){.ranks = 2,
                                             .microbatches = 2,
                                             .forward = 10,
                                             .backward = 20,
                                             .encoder = ENCODER_APART,
                                             .encoder_ranks = 1,
                                             .encoder_forward = 4,
                                             .encoder_backward = 6},
                  &pipeline);
    troupe_sim *sim = NULL;
    struct troupe_sim_result result;
    struct troupe_account *account = NULL;
    EXPECT_OK(troupe_sim_create(
        &pipeline.graph,
        &(struct troupe_sim_options){.order = policy("1f1b"), .costs = &pipeline.costs}, &sim));
    EXPECT_OK(troupe_sim_run(sim, &result));
    EXPECT_OK(troupe_account_create(&pipeline.graph, &account));
    troupe_account_fill(account, &result.schedule);
    /* rank 0: F 4-14, F 14-24, B 44-64, B 74-94; rank 1: F 14-24, B 24-44, F 44-54, B 54-74;
     * rank 2: F 0-4, F 4-8, B 64-70, B 94-100. */
    EXPECT_EQ(account->makespan_ns, 100);
    EXPECT_EQ(account->ranks[0].idle_ns[TROUPE_IDLE_HEAD], 4);
    EXPECT_EQ(account->ranks[0].idle_ns[TROUPE_IDLE_IMBALANCE], 30);
    EXPECT_EQ(account->ranks[0].idle_ns[TROUPE_IDLE_TAIL], 6);
    EXPECT_EQ(account->ranks[1].idle_ns[TROUPE_IDLE_HEAD], 14);
    EXPECT_EQ(account->ranks[1].busy_ns, 60);
    EXPECT_EQ(account->ranks[2].idle_ns[TROUPE_IDLE_BOUNDARY], 56 + 24);
    for (int r = 0; r < 3; r++) {
        int64_t sum = account->ranks[r].busy_ns;
        for (int i = 0; i < TROUPE_IDLE_COUNT; i++) {
            sum += account->ranks[r].idle_ns[i];
        }
        EXPECT_EQ(sum, account->makespan_ns);
    }
    troupe_account_destroy(account);
    troupe_sim_destroy(sim);
    pipeline_free(&pipeline);
}

/* ---- random graphs ---- */

static int64_t random_task_ns(void *arg, int method, int64_t step, int microbatch) {
    const struct scenario *s = arg;
    (void)step;
    return 1 + (int64_t)(chance_hash(s->seed + (uint64_t)method, (uint64_t)microbatch) % 50);
}

/* Nothing where all that receive something of the message are on its senders' ranks. */
static int64_t random_edge_ns(void *arg, int edge, int64_t step, int microbatch) {
    struct scenario *s = arg;
    const struct troupe_gang *from = &s->gangs[s->methods[s->edges[edge].from].gang];
    const struct troupe_gang *to = &s->gangs[s->methods[s->edges[edge].to].gang];
    int firing = microbatch + s->edges[edge].initial;
    uint64_t receivers = scenario_receivers(s, edge, step, firing);
    for (int k = 0; k < to->rank_count; k++) {
        if ((receivers >> k & 1) != 0 && from->ranks[k % from->rank_count] != to->ranks[k]) {
            return 1 + (int64_t)(chance_hash(s->seed, (uint64_t)(edge * 100 + microbatch)) % 20);
        }
    }
    return 0;
}

static int compare_begins(const void *a, const void *b) {
    int64_t x = ((const struct troupe_task *)a)->begin_ns;
    int64_t y = ((const struct troupe_task *)b)->begin_ns;
    return (x > y) - (x < y);
}

/* Ranks run one task after the other. */
static void expect_no_overlap(const struct scenario *s, const struct troupe_schedule *schedule) {
    struct troupe_task *tasks = calloc((size_t)schedule->task_count + 1, sizeof *tasks);
    int64_t busy_until[RANKS_MAX] = {0};
    memcpy(tasks, schedule->tasks, (size_t)schedule->task_count * sizeof *tasks);
    qsort(tasks, (size_t)schedule->task_count, sizeof *tasks, compare_begins);
    for (int i = 0; i < schedule->task_count; i++) {
        const struct troupe_method *method = &s->methods[tasks[i].method];
        const struct troupe_gang *gang = &s->gangs[method->gang];
        for (int k = 0; method->lane == TROUPE_LANE_TICKET && k < gang->rank_count; k++) {
            int64_t *until = &busy_until[gang->ranks[k]];
            EXPECT(tasks[i].begin_ns >= *until, "seed %" PRIu64 ": rank %d is busy", s->seed,
                   gang->ranks[k]);
            *until = tasks[i].end_ns;
        }
    }
    free(tasks);
}

static void expect_above_bound(const struct scenario *s, const struct troupe_costs *costs,
                               const struct troupe_sim_result *result) {
    troupe_bound *bound = NULL;
    struct troupe_bound_result least;
    EXPECT_OK(troupe_bound_create(
        &s->graph,
        &(struct troupe_bound_options){.receivers = scenario_receivers, .arg = (void *)s}, &bound));
    troupe_bound_compute(bound, costs, 0, &least);
    EXPECT(result->makespan_ns >= least.ns, "seed %" PRIu64 ": %d is below T* %d", s->seed,
           (int)result->makespan_ns, (int)least.ns);
    troupe_bound_destroy(bound);
}

static void run_scenario(struct scenario *s, uint64_t seed, const char *order) {
    scenario_make(s, seed);
    const struct troupe_costs costs = {
        .task_ns = random_task_ns, .edge_ns = random_edge_ns, .arg = s};
    troupe_sim *sim = NULL;
    struct troupe_sim_result result;
    EXPECT_OK(troupe_sim_create(&s->graph,
                                &(struct troupe_sim_options){.order = policy(order),
                                                             .look_ahead = 1 + (int)(seed % 3),
                                                             .costs = &costs,
                                                             .control_ns = (int64_t)(seed % 4),
                                                             .receivers = scenario_receivers,
                                                             .arg = s},
                                &sim));
    troupe_status status = troupe_sim_run(sim, &result);
    EXPECT(status == TROUPE_OK, "seed %" PRIu64 ": %s", seed, troupe_last_error());
    expect_no_overlap(s, &result.schedule);
    expect_above_bound(s, &costs, &result);
    EXPECT_OK(troupe_sim_run(sim, &result));
    troupe_sim_destroy(sim);
}

static void random_graphs_run_to_their_end(void) {
    struct scenario *scenario = calloc(1, sizeof *scenario);
    uint64_t seed = test_seed();
    for (uint64_t i = 0; i < 200; i++) {
        run_scenario(scenario, chance_hash(seed, i), i % 2 == 0 ? "fifo" : "1f1b");
    }
    /* Here a message has receivers on its senders' ranks alone. */
    run_scenario(scenario, UINT64_C(6552224253543444229), "fifo");
    run_scenario(scenario, UINT64_C(6552224253543444229), "1f1b");
    free(scenario);
}

int main(void) {
    TEST(one_forward_one_backward_takes_m_plus_p_minus_1);
    TEST(recompute_trades_time_for_memory);
    TEST(prefetch_goes_ahead_as_far_as_credits_allow);
    TEST(a_run_is_repeatable);
    TEST(a_port_carries_one_message_after_the_other);
    TEST(a_port_is_shared_by_the_ranks_of_a_host);
    TEST(collectives_take_what_rings_and_trees_take);
    TEST(a_cluster_file_is_read_back_as_written);
    TEST(the_roofline_has_two_slopes_and_a_floor);
    TEST(idle_time_has_its_cause);
    TEST(random_graphs_run_to_their_end);
    return TEST_END();
}
