/* SPDX-License-Identifier: Apache-2.0 */
/* What messages of a training job are expected to take: their bytes over the link at first, then
 * what steps that have run showed. */
#include "modules/train/costs.h"

#include "modules/train/dataset.h"
#include "scheduler/sim.h"
#include "tests/test.h"

enum { RANKS = 4, LATENCY_NS = 7000, NS_PER_BYTE = 2, SEEN_NS = 40000, SEEN_NS_PER_BYTE = 5 };

static const struct troupe_cluster cluster = {
    .inside = {.latency_ns = LATENCY_NS, .bytes_per_s = 1e9 / NS_PER_BYTE},
    .flops_per_s = 1e9,
    .memory_bytes_per_s = 1e9,
};

/* The vision encoder on all ranks, the language model as a pipeline of two stages, twice. */
static const char *const settings[] = {
    "model.vision.layers=1",      "model.vision.hidden=24",
    "model.vision.heads=3",       "model.vision.patch=8",
    "model.vision.image=32",      "model.projector.hidden=16",
    "model.llm.layers=2",         "model.llm.hidden=32",
    "model.llm.heads=4",          "model.llm.ffn=48",
    "model.llm.sequence=64",      "data.synthetic.samples=40",
    "data.synthetic.text_max=20", "train.seed=3",
    "train.global_batch=8",       "train.microbatches=4",
    "placement.policy=manual",    "placement.vision.ranks=0-3",
    "placement.vision.dp=4",      "placement.llm.ranks=0-3",
    "placement.llm.pp=2",         "placement.llm.dp=2",
};

struct world {
    struct troupe_config config;
    troupe_loopback *loopback;
    troupe_comm *comm;
    troupe_source *source;
    troupe_sample_plan *samples;
    struct troupe_fleet *fleet;
    const struct troupe_graph *graph;
    troupe_forecast *forecast;
    troupe_fleet_costs *costs;
};

static void make_fleet(struct world *w) {
    struct troupe_plan *plan = NULL;
    EXPECT_OK(troupe_plan_create(&w->config, RANKS, &plan));
    EXPECT_OK(troupe_fleet_create(&(struct troupe_fleet_options){.config = &w->config,
                                                                 .comm = w->comm,
                                                                 .source = w->source,
                                                                 .samples = w->samples,
                                                                 .outline = true},
                                  plan, &w->fleet));
    EXPECT_OK(troupe_runtime_graph(w->fleet->runtime, &w->graph));
    EXPECT_OK(troupe_forecast_create(w->fleet->runtime, &w->forecast));
    EXPECT_OK(troupe_fleet_costs_create(
        &(struct troupe_fleet_costs_options){
            .fleet = w->fleet, .forecast = w->forecast, .cluster = &cluster},
        &w->costs));
}

static void begin_step(struct world *w, int64_t step) {
    troupe_fleet_begin_samples(w->fleet, step);
    EXPECT_OK(troupe_forecast_step(w->forecast, step));
    EXPECT_OK(troupe_fleet_costs_step(w->costs));
}

static void world_open(struct world *w) {
    *w = (struct world){0};
    troupe_config_init(&w->config);
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        EXPECT_OK(troupe_config_set(&w->config, settings[i]));
    }
    EXPECT_OK(troupe_config_resolve(&w->config));
    EXPECT_OK(troupe_dataset_open(&w->config, TROUPE_DATASET_TRAIN, &w->source));
    EXPECT_OK(troupe_sample_plan_create(
        w->source,
        &(struct troupe_sample_plan_options){.seed = 3, .global_batch = 8, .microbatches = 4},
        &w->samples));
    EXPECT_OK(troupe_loopback_create(
        &(struct troupe_loopback_options){.ranks = RANKS, .control_messages_max = 1},
        &w->loopback));
    EXPECT_OK(troupe_comm_open_loopback(w->loopback, 0, &w->comm));
    make_fleet(w);
    begin_step(w, 0);
}

static void world_close(struct world *w) {
    troupe_fleet_costs_destroy(w->costs);
    troupe_forecast_destroy(w->forecast);
    troupe_fleet_destroy(w->fleet);
    troupe_comm_close(w->comm);
    troupe_loopback_destroy(w->loopback);
    troupe_sample_plan_destroy(w->samples);
    troupe_source_destroy(w->source);
}

static int64_t edge_ns(const struct world *w, int edge, int microbatch) {
    return troupe_cost_of_edge(troupe_fleet_costs_table(w->costs), edge, 0, microbatch);
}

/* Bytes that cross ranks; all gangs here have one. */
static int64_t crossing_bytes(const struct world *w, int edge, int microbatch) {
    const struct troupe_edge *plan = &w->graph->edges[edge];
    const struct troupe_gang *from = &w->graph->gangs[w->graph->methods[plan->from].gang];
    const struct troupe_gang *to = &w->graph->gangs[w->graph->methods[plan->to].gang];
    return from->ranks[0] == to->ranks[0]
               ? 0
               : troupe_forecast_bytes(w->forecast, edge, 0, microbatch, 0);
}

static void messages_take_their_bytes_over_the_link(void) {
    struct world w;
    int crossing = 0, activations = 0;
    world_open(&w);
    for (int e = 0; e < w.graph->edge_count; e++) {
        const struct troupe_edge *edge = &w.graph->edges[e];
        const struct troupe_gang *from = &w.graph->gangs[w.graph->methods[edge->from].gang];
        const struct troupe_gang *to = &w.graph->gangs[w.graph->methods[edge->to].gang];
        bool is_activation = strcmp(edge->name, "llm.0->1") == 0 && from->dp == to->dp &&
                             edge->from != edge->to &&
                             w.graph->methods[edge->to].kind == TROUPE_METHOD_FORWARD;
        for (int k = 0; k < w.config.train.microbatches; k++) {
            int64_t bytes = crossing_bytes(&w, e, k);
            EXPECT_EQ(edge_ns(&w, e, k), bytes > 0 ? LATENCY_NS + NS_PER_BYTE * bytes : 0);
            crossing += bytes > 0;
            if (is_activation) {
                /* float32 rows of all the shard's samples */
                struct troupe_interval part = troupe_sample_plan_interval(w.samples, k, to->dp, 2);
                const int64_t *rows = troupe_sample_plan_rows(w.samples);
                EXPECT_EQ(bytes, (rows[part.end] - rows[part.begin]) * 32 * 4);
                activations++;
            }
        }
    }
    EXPECT(crossing > activations, "%d messages cross ranks", crossing);
    EXPECT_EQ(activations, 2 * w.config.train.microbatches);
    world_close(&w);
}

/* Short, so that messages are what ranks wait for. */
static int64_t seen_task_ns(void *arg, int method, int64_t step, int microbatch) {
    (void)arg, (void)step;
    return 1000 + 100 * (method % 7) + 10 * microbatch;
}

static int64_t seen_edge_ns(void *arg, int edge, int64_t step, int microbatch) {
    (void)step;
    int64_t bytes = crossing_bytes(arg, edge, microbatch);
    return bytes > 0 ? SEEN_NS + SEEN_NS_PER_BYTE * bytes : 0;
}

static void what_steps_showed_takes_their_place(void) {
    struct world w;
    troupe_sim *sim = NULL;
    struct troupe_sim_result result;
    const struct troupe_order_policy *order = NULL;
    world_open(&w);
    const struct troupe_costs seen = {.task_ns = seen_task_ns, .edge_ns = seen_edge_ns, .arg = &w};
    EXPECT_OK(troupe_order_find("1f1b", &order));
    EXPECT_OK(
        troupe_sim_create(w.graph,
                          &(struct troupe_sim_options){.order = order,
                                                       .costs = &seen,
                                                       .receivers = troupe_forecast_receivers,
                                                       .may_be_empty = troupe_forecast_may_be_empty,
                                                       .arg = w.forecast},
                          &sim));
    EXPECT_OK(troupe_sim_run(sim, &result));
    int64_t epoch = troupe_fleet_costs_table(w.costs)->epoch;
    troupe_fleet_costs_learn(w.costs, &result.schedule);
    begin_step(&w, 0);
    EXPECT_EQ(troupe_fleet_costs_table(w.costs)->epoch, epoch + 1);
    for (int e = 0; e < w.graph->edge_count; e++) {
        for (int k = 0; k < w.config.train.microbatches; k++) {
            int64_t wanted = seen_edge_ns(&w, e, 0, k), found = edge_ns(&w, e, k);
            EXPECT(llabs(found - wanted) <= wanted / 100, "edge %s, microbatch %d: %lld, not %lld",
                   w.graph->edges[e].name, k, (long long)found, (long long)wanted);
        }
    }
    troupe_sim_destroy(sim);
    world_close(&w);
}

int main(void) {
    TEST(messages_take_their_bytes_over_the_link);
    TEST(what_steps_showed_takes_their_place);
    return TEST_END();
}
