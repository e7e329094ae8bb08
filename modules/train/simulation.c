/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/simulation.h"

#include <string.h>

#include "modules/train/costs.h"
#include "modules/train/dataset.h"
#include "modules/train/fleet.h"
#include "runtime/memory.h"

struct troupe_simulation {
    struct troupe_simulation_options options;
    troupe_loopback *world; /* of which only rank 0 is opened, to declare the graph */
    troupe_comm *comm;
    troupe_source *source;
    troupe_sample_plan *samples;
    struct troupe_fleet *fleet;
    troupe_forecast *forecast;
    troupe_fleet_costs *costs;
    troupe_sim *sim;
    troupe_bound *bound;
    struct troupe_account *account;
};

static troupe_status open_samples(troupe_simulation *s) {
    const struct troupe_config *config = s->options.config;
    TROUPE_TRY(troupe_dataset_open(config, TROUPE_DATASET_TRAIN, &s->source));
    return troupe_sample_plan_create(
        s->source,
        &(struct troupe_sample_plan_options){.seed = (uint64_t)config->train.seed,
                                             .global_batch = config->train.global_batch,
                                             .microbatches = config->train.microbatches},
        &s->samples);
}

static troupe_status outline_fleet(troupe_simulation *s) {
    struct troupe_plan *plan = NULL;
    TROUPE_TRY(
        troupe_loopback_create(&(struct troupe_loopback_options){.ranks = s->options.rank_count,
                                                                 .control_messages_max = 1},
                               &s->world));
    TROUPE_TRY(troupe_comm_open_loopback(s->world, 0, &s->comm));
    TROUPE_TRY(troupe_plan_create(s->options.config, s->options.rank_count, &plan));
    const struct troupe_fleet_options options = {.config = s->options.config,
                                                 .comm = s->comm,
                                                 .source = s->source,
                                                 .samples = s->samples,
                                                 .outline = true};
    return troupe_fleet_create(&options, plan, &s->fleet);
}

static troupe_status make_costs(troupe_simulation *s) {
    TROUPE_TRY(troupe_forecast_create(s->fleet->runtime, &s->forecast));
    return troupe_fleet_costs_create(
        &(struct troupe_fleet_costs_options){.fleet = s->fleet,
                                             .forecast = s->forecast,
                                             .cluster = s->options.cluster,
                                             .profile = s->options.profile},
        &s->costs);
}

static troupe_status make_sim(troupe_simulation *s) {
    const struct troupe_config *config = s->options.config;
    const struct troupe_graph *graph = NULL;
    const struct troupe_order_policy *order = NULL;
    TROUPE_TRY(troupe_order_find(config->schedule.order, &order));
    TROUPE_TRY(troupe_runtime_graph(s->fleet->runtime, &graph));
    TROUPE_TRY(troupe_sim_create(
        graph,
        &(struct troupe_sim_options){.order = order,
                                     .look_ahead = config->schedule.look_ahead,
                                     .fixed = strcmp(config->schedule.mode, "static") == 0,
                                     .costs = troupe_fleet_costs_table(s->costs),
                                     .cluster = s->options.cluster,
                                     .edge_bytes = troupe_forecast_bytes,
                                     .receivers = troupe_forecast_receivers,
                                     .may_be_empty = troupe_forecast_may_be_empty,
                                     .arg = s->forecast},
        &s->sim));
    TROUPE_TRY(troupe_bound_create(
        graph,
        &(struct troupe_bound_options){.receivers = troupe_forecast_receivers, .arg = s->forecast},
        &s->bound));
    return troupe_account_create(graph, &s->account);
}

static troupe_status build(troupe_simulation *s) {
    TROUPE_TRY(open_samples(s));
    TROUPE_TRY(outline_fleet(s));
    TROUPE_TRY(make_costs(s));
    return make_sim(s);
}

troupe_status troupe_simulation_create(const struct troupe_simulation_options *options,
                                       troupe_simulation **out) {
    troupe_simulation *simulation = NULL;
    TROUPE_TRY(TROUPE_NEW(&simulation, 1));
    simulation->options = *options;
    troupe_status status = build(simulation);
    if (status != TROUPE_OK) {
        troupe_simulation_destroy(simulation);
        return status;
    }
    *out = simulation;
    return TROUPE_OK;
}

troupe_status troupe_simulation_step(troupe_simulation *s, int64_t step,
                                     struct troupe_simulation_result *out) {
    troupe_fleet_begin_samples(s->fleet, step);
    TROUPE_TRY(troupe_forecast_step(s->forecast, step));
    TROUPE_TRY(troupe_fleet_costs_step(s->costs));
    TROUPE_TRY(troupe_sim_run(s->sim, &out->sim));
    troupe_bound_compute(s->bound, troupe_fleet_costs_table(s->costs), step, &out->bound);
    troupe_account_fill(s->account, &out->sim.schedule);
    out->account = s->account;
    return TROUPE_OK;
}

void troupe_simulation_describe(const troupe_simulation *simulation,
                                void (*line)(void *arg, const char *text), void *arg) {
    troupe_fleet_describe(simulation->fleet, line, arg);
}

void troupe_simulation_destroy(troupe_simulation *s) {
    if (s == NULL) {
        return;
    }
    troupe_account_destroy(s->account);
    troupe_bound_destroy(s->bound);
    troupe_sim_destroy(s->sim);
    troupe_fleet_costs_destroy(s->costs);
    troupe_forecast_destroy(s->forecast);
    troupe_fleet_destroy(s->fleet);
    troupe_sample_plan_destroy(s->samples);
    troupe_source_destroy(s->source);
    if (s->comm != NULL) {
        troupe_comm_close(s->comm);
    }
    troupe_loopback_destroy(s->world);
    troupe_free(s);
}
