/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/fleet.h"

#include <stdio.h>
#include <string.h>

#include "modules/train/costs.h"
#include "runtime/clock.h"
#include "runtime/memory.h"

/* ---- parts and their actors ---- */

/* Microbatches that a stage of the module holds at once: those under way to the loss and back. */
static int slots_of(const struct troupe_fleet *fleet, int module, int stage) {
    int m = fleet->options.config->train.microbatches;
    int slots = fleet->options.config->schedule.slots;
    if (slots == 0) {
        int behind = fleet->plan->modules[module].pp - stage;
        for (int i = module + 1; i < TROUPE_CONFIG_MODULES; i++) {
            behind += fleet->plan->modules[i].pp;
        }
        slots = behind + 1;
    }
    return slots < m ? slots : m;
}

static troupe_status create_part(struct troupe_fleet *fleet, int module) {
    const struct troupe_fleet_options *o = &fleet->options;
    const struct troupe_mesh *mesh = &fleet->plan->modules[module].mesh;
    if (troupe_mesh_position(mesh, fleet->rank) < 0) {
        return TROUPE_OK;
    }
    int stage = troupe_mesh_coordinate(mesh, fleet->rank, TROUPE_PP);
    struct troupe_part_options options = {
        .config = o->config,
        .plan = fleet->plan,
        .module = module,
        .stage = stage,
        .dp = troupe_mesh_coordinate(mesh, fleet->rank, TROUPE_DP),
        .tp = troupe_mesh_coordinate(mesh, fleet->rank, TROUPE_TP),
        .slots = slots_of(fleet, module, stage),
        .generation = o->generation,
        .alone = o->alone,
        .samples = o->samples,
        .split = fleet->splits.of[module],
        .source = o->source,
        .device = o->device,
        .lane = fleet->lane,
        .comm = o->comm,
    };
    return troupe_part_create(&options, &fleet->parts[module]);
}

/* Stages that share a tied parameter meet in one collective, so they share the lane's number. */
static int lane_order(const struct troupe_module_plan *module, int index, int stage) {
    enum { STAGES_MAX = 1024 };
    return index * STAGES_MAX + (stage == module->pp - 1 ? 0 : stage);
}

static troupe_status spawn_module(struct troupe_fleet *fleet, int index) {
    const struct troupe_module_plan *module = &fleet->plan->modules[index];
    int *ranks = NULL;
    TROUPE_TRY(TROUPE_NEW(&fleet->gangs[index], module->pp * module->dp));
    TROUPE_TRY(TROUPE_NEW(&ranks, module->tp));
    troupe_status status = TROUPE_OK;
    for (int i = 0; status == TROUPE_OK && i < module->pp * module->dp; i++) {
        char name[64];
        int stage = i / module->dp, dp = i % module->dp;
        snprintf(name, sizeof name, "%s stage %d dp %d", module->module_class->name, stage, dp);
        struct troupe_spawn_options options = {
            .actor_class = &troupe_part_class,
            .name = name,
            .ranks = ranks,
            .rank_count = troupe_plan_tp_ranks(module, stage, dp, ranks),
            .slots = slots_of(fleet, index, stage),
            .lane_order = lane_order(module, index, stage),
            .module = index,
            .depth = TROUPE_LLM - index,
            .stage = stage,
            .stage_count = module->pp,
            .dp = dp,
            .argument = fleet->parts[index],
            .stream = fleet->parts[index] != NULL ? fleet->parts[index]->stream : NULL,
        };
        status = troupe_spawn(fleet->runtime, &options, &fleet->gangs[index][i]);
    }
    troupe_free(ranks);
    return status;
}

/* ---- boundaries ---- */

static struct troupe_boundary_side side_of(const struct troupe_fleet *fleet, int index, int stage,
                                           bool source) {
    const struct troupe_module_plan *module = &fleet->plan->modules[index];
    return (struct troupe_boundary_side){
        .module = module,
        .stage = stage,
        .gangs = fleet->gangs[index] + stage * module->dp,
        .rows_port = source ? TROUPE_PART_ROWS_OUT : TROUPE_PART_ROWS_IN,
        .gradients_port = source ? TROUPE_PART_GRADIENTS_IN : TROUPE_PART_GRADIENTS_OUT,
        .split = fleet->splits.of[index],
    };
}

/* From (module, stage) to the next stage of the chain. */
static troupe_status add_boundary(struct troupe_fleet *fleet, const int *hosts, int index,
                                  int stage) {
    const struct troupe_module_plan *module = &fleet->plan->modules[index];
    bool inside = stage + 1 < module->pp;
    int next = inside ? index : index + 1;
    char name[64];
    if (inside) {
        snprintf(name, sizeof name, "%s.%d->%d", module->module_class->name, stage, stage + 1);
    } else {
        snprintf(name, sizeof name, "%s->%s", module->module_class->name,
                 fleet->plan->modules[next].module_class->name);
    }
    struct troupe_shard shard = troupe_plan_shard(module, stage, 0);
    struct troupe_boundary_options options = {
        .name = name,
        .source = side_of(fleet, index, stage, true),
        .destination = side_of(fleet, next, inside ? stage + 1 : 0, false),
        .fused = inside && index == TROUPE_LLM,
        .columns = module->module_class->output_columns(&fleet->options.config->model, &shard),
        .credits = fleet->options.config->schedule.credits,
        .samples = fleet->options.samples,
        .host_of_rank = hosts,
    };
    struct troupe_boundary *boundary = &fleet->boundaries[fleet->boundary_count];
    TROUPE_TRY(troupe_boundary_init(&options, boundary));
    fleet->boundary_count++;
    return troupe_boundary_connect(boundary, fleet->runtime);
}

static troupe_status add_boundaries(struct troupe_fleet *fleet) {
    int *hosts = NULL;
    int count = 0;
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        count += fleet->plan->modules[i].pp;
    }
    TROUPE_TRY(TROUPE_NEW(&fleet->boundaries, count));
    TROUPE_TRY(TROUPE_NEW(&hosts, fleet->plan->rank_count));
    for (int r = 0; r < fleet->plan->rank_count; r++) {
        hosts[r] = troupe_comm_host(fleet->options.comm, r);
    }
    troupe_status status = TROUPE_OK;
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        for (int s = 0; status == TROUPE_OK && s < fleet->plan->modules[i].pp; s++) {
            bool last = i == TROUPE_LLM && s == fleet->plan->modules[i].pp - 1;
            status = last ? TROUPE_OK : add_boundary(fleet, hosts, i, s);
        }
    }
    troupe_free(hosts);
    return status;
}

/* ---- life ---- */

/* Staged sums make the host wait, and ranks that share a GPU may not have room for two lanes. */
bool troupe_fleet_serializes(const struct troupe_fleet *fleet) {
    const struct troupe_fleet_options *o = &fleet->options;
    const char *wanted = o->config->comm.serialize;
    if (fleet->lane == NULL) {
        return false; /* the host's own, or an outline, which has no collectives */
    }
    bool must = strcmp(o->collectives.engine, "staged") == 0;
    return must || strcmp(wanted, "true") == 0 ||
           (strcmp(wanted, "auto") == 0 && o->collectives.shared);
}

static troupe_status create_runtime(struct troupe_fleet *fleet) {
    const struct troupe_config *config = fleet->options.config;
    struct troupe_runtime_options options = {
        .microbatches = config->train.microbatches,
        .order = config->schedule.order,
        .look_ahead = config->schedule.look_ahead,
        .static_order = strcmp(config->schedule.mode, "static") == 0,
        .costs = fleet->options.outline ? NULL : &fleet->cost_table,
        .stall_ns = (int64_t)(config->comm.stall_s * 1e9),
        .serialize = troupe_fleet_serializes(fleet),
        .host_may_wait = fleet->lane != NULL,
        .through_host = !config->comm.windows,
        .generation = fleet->options.generation,
        .trace = fleet->timeline != NULL ? troupe_timeline_trace(fleet->timeline) : NULL,
    };
    TROUPE_TRY(troupe_runtime_create(fleet->options.comm, &options, &fleet->runtime));
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        TROUPE_TRY(spawn_module(fleet, i));
    }
    return add_boundaries(fleet);
}

/* All groups of this rank's parts get their device. */
static troupe_status open_groups(struct troupe_fleet *fleet) {
    enum { GROUPS = 3 };
    troupe_group *groups[TROUPE_CONFIG_MODULES * GROUPS];
    int count = 0;
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        const struct troupe_part *part = fleet->parts[i];
        if (part != NULL) {
            groups[count++] = part->tp;
            groups[count++] = part->sums.dp;
            groups[count++] = part->sums.tied;
        }
    }
    return troupe_groups_open_device(fleet->options.comm, fleet->options.device, groups, count,
                                     NULL);
}

static troupe_status create_parts(struct troupe_fleet *fleet) {
    troupe_device *device = fleet->options.device;
    TROUPE_TRY(troupe_stream_create(device, &fleet->stream));
    if (!troupe_device_is_host(device)) {
        TROUPE_TRY(troupe_stream_create(device, &fleet->lane));
    }
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        TROUPE_TRY(create_part(fleet, i));
    }
    return troupe_timeline_create(fleet->options.comm, &fleet->timeline);
}

static troupe_status build(struct troupe_fleet *fleet) {
    TROUPE_TRY(troupe_splits_init(fleet->options.config, fleet->plan, fleet->options.samples,
                                  &fleet->splits));
    if (!fleet->options.outline) {
        TROUPE_TRY(create_parts(fleet));
    }
    return create_runtime(fleet);
}

troupe_status troupe_fleet_create(const struct troupe_fleet_options *options,
                                  struct troupe_plan *plan, struct troupe_fleet **out) {
    struct troupe_fleet *fleet = NULL;
    troupe_status status = TROUPE_NEW(&fleet, 1);
    if (status != TROUPE_OK) {
        troupe_plan_destroy(plan);
        return status;
    }
    fleet->options = *options;
    fleet->rank = troupe_comm_rank(options->comm);
    fleet->plan = plan;
    status = build(fleet);
    if (status != TROUPE_OK) {
        troupe_fleet_destroy(fleet);
        return status;
    }
    *out = fleet;
    return TROUPE_OK;
}

void troupe_fleet_stop(struct troupe_fleet *fleet) {
    troupe_forecast_destroy(fleet->forecast);
    fleet->forecast = NULL;
    troupe_runtime_destroy(fleet->runtime);
    fleet->runtime = NULL;
}

void troupe_fleet_destroy(struct troupe_fleet *fleet) {
    if (fleet == NULL) {
        return;
    }
    troupe_fleet_stop(fleet);
    for (int i = 0; i < fleet->boundary_count; i++) {
        troupe_boundary_fini(&fleet->boundaries[i]);
    }
    troupe_free(fleet->boundaries);
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        troupe_part_destroy(fleet->parts[i]);
        troupe_free(fleet->gangs[i]);
    }
    troupe_splits_fini(&fleet->splits);
    troupe_timeline_destroy(fleet->timeline);
    troupe_fleet_costs_destroy(fleet->costs);
    troupe_stream_destroy(fleet->lane);
    troupe_stream_destroy(fleet->stream);
    troupe_plan_destroy(fleet->plan);
    troupe_free(fleet);
}

/* ---- before the first step ---- */

/* Marks the samples of which a part has something in the steps [first, last). */
static void find_samples(struct troupe_fleet *fleet, const struct troupe_part *part, int64_t first,
                         int64_t last, uint8_t *needed) {
    const struct troupe_stage_options *o = &part->stage->options;
    if (o->split == NULL) {
        troupe_sample_plan_needed(fleet->options.samples, first, last, o->dp_index, o->dp_count,
                                  needed);
        return;
    }
    for (int64_t step = first; step < last; step++) {
        troupe_sample_plan_set_step(fleet->options.samples, step);
        troupe_splits_begin_step(&fleet->splits);
        troupe_image_split_needed(o->split, o->dp_index, needed);
    }
}

static troupe_status prepare_samples(struct troupe_fleet *fleet, int64_t first, int64_t last,
                                     uint8_t *needed) {
    troupe_source *source = fleet->options.source;
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        const struct troupe_part *part = fleet->parts[i];
        if (part != NULL) {
            memset(needed, 0, (size_t)source->samples);
            find_samples(fleet, part, first, last, needed);
            TROUPE_TRY(troupe_source_prepare(
                source, i == TROUPE_LLM ? TROUPE_SAMPLE_TEXT : TROUPE_SAMPLE_IMAGES, needed));
        }
    }
    return TROUPE_OK;
}

troupe_status troupe_fleet_prepare_samples(struct troupe_fleet *fleet, int64_t first,
                                           int64_t last) {
    uint8_t *needed = NULL;
    TROUPE_TRY(TROUPE_NEW(&needed, fleet->options.source->samples));
    troupe_status status = prepare_samples(fleet, first, last, needed);
    troupe_free(needed);
    return status;
}

troupe_status troupe_fleet_draw_weights(struct troupe_fleet *fleet) {
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        const struct troupe_part *part = fleet->parts[i];
        if (part != NULL) {
            TROUPE_TRY(troupe_parameters_init(part->stream, part->stage->parameters,
                                              part->stage->parameter_count,
                                              (uint64_t)fleet->options.config->train.seed));
        }
    }
    return TROUPE_OK;
}

static bool costs_are_given(const struct troupe_fleet *fleet) {
    const char *costs = fleet->options.config->schedule.costs;
    return strcmp(costs, "measured") != 0 && strcmp(costs, "roofline") != 0;
}

static troupe_status prepare_costs(struct troupe_fleet *fleet) {
    const struct troupe_graph *graph = NULL;
    TROUPE_TRY(troupe_runtime_graph(fleet->runtime, &graph));
    if (!troupe_runtime_asks_costs(fleet->runtime)) {
        return TROUPE_OK;
    }
    troupe_cluster_default(&fleet->cluster);
    TROUPE_TRY(troupe_forecast_create(fleet->runtime, &fleet->forecast));
    TROUPE_TRY(troupe_fleet_costs_create(
        &(struct troupe_fleet_costs_options){
            .fleet = fleet,
            .forecast = fleet->forecast,
            .cluster = &fleet->cluster,
            .profile = costs_are_given(fleet) ? fleet->options.config->schedule.costs : NULL},
        &fleet->costs));
    fleet->cost_table = *troupe_fleet_costs_table(fleet->costs);
    return TROUPE_OK;
}

void troupe_fleet_learn(struct troupe_fleet *fleet) {
    if (fleet->costs != NULL && strcmp(fleet->options.config->schedule.costs, "measured") == 0) {
        troupe_fleet_costs_learn(fleet->costs, troupe_timeline_schedule(fleet->timeline));
    }
}

troupe_status troupe_fleet_prepare(struct troupe_fleet *fleet) {
    const struct troupe_graph *graph = NULL;
    TROUPE_TRY(prepare_costs(fleet));
    TROUPE_TRY(troupe_runtime_prepare(fleet->runtime));
    TROUPE_TRY(troupe_runtime_graph(fleet->runtime, &graph));
    return troupe_timeline_attach(fleet->timeline, graph);
}

troupe_status troupe_fleet_start(struct troupe_fleet *fleet) {
    if (fleet->lane != NULL) {
        TROUPE_TRY(open_groups(fleet));
    }
    return troupe_runtime_start(fleet->runtime);
}

/* ---- steps ---- */

/* Waits until the parts' streams have done the step; others may still need this rank meanwhile. */
static troupe_status wait_for_parts(struct troupe_fleet *fleet) {
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        troupe_status status = TROUPE_AGAIN;
        while (fleet->parts[i] != NULL &&
               (status = troupe_part_poll_end(fleet->parts[i])) == TROUPE_AGAIN) {
            if (troupe_comm_progress(fleet->options.comm) == 0) {
                troupe_comm_idle(fleet->options.comm);
            }
            TROUPE_TRY(troupe_comm_failure(fleet->options.comm));
        }
        TROUPE_TRY(fleet->parts[i] != NULL ? status : TROUPE_OK);
    }
    return TROUPE_OK;
}

void troupe_fleet_begin_samples(struct troupe_fleet *fleet, int64_t step) {
    troupe_sample_plan_set_step(fleet->options.samples, step);
    troupe_splits_begin_step(&fleet->splits);
    for (int i = 0; i < fleet->boundary_count; i++) {
        troupe_boundary_begin_step(&fleet->boundaries[i]);
    }
}

/* What this step's tasks and messages should take, where somebody here asks. */
static troupe_status expect_costs(struct troupe_fleet *fleet, int64_t step) {
    if (fleet->costs == NULL) {
        return TROUPE_OK;
    }
    uint64_t begin_ns = troupe_clock_ns();
    TROUPE_TRY(troupe_forecast_step(fleet->forecast, step));
    TROUPE_TRY(troupe_fleet_costs_step(fleet->costs));
    fleet->cost_table = *troupe_fleet_costs_table(fleet->costs);
    fleet->expect_ns = troupe_clock_ns() - begin_ns;
    return TROUPE_OK;
}

troupe_status troupe_fleet_step(struct troupe_fleet *fleet, int64_t step) {
    troupe_fleet_begin_samples(fleet, step);
    TROUPE_TRY(expect_costs(fleet, step));
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        if (fleet->parts[i] != NULL) {
            TROUPE_TRY(troupe_stage_begin_step(fleet->parts[i]->stage));
        }
    }
    TROUPE_TRY(troupe_runtime_step(fleet->runtime, step));
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        if (fleet->parts[i] != NULL) {
            TROUPE_TRY(troupe_part_enqueue_end(fleet->parts[i]));
        }
    }
    TROUPE_TRY(wait_for_parts(fleet));
    return troupe_runtime_trace_device(fleet->runtime);
}

troupe_status troupe_fleet_update(struct troupe_fleet *fleet,
                                  const struct troupe_optimizer_step *update) {
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        if (fleet->parts[i] != NULL) {
            TROUPE_TRY(troupe_optimizer_update(fleet->parts[i]->optimizer, update));
        }
    }
    return TROUPE_OK;
}

troupe_status troupe_fleet_drain(const struct troupe_fleet *fleet) {
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        if (fleet->parts[i] != NULL) {
            TROUPE_TRY(troupe_stream_synchronize(fleet->parts[i]->stream));
        }
    }
    return TROUPE_OK;
}

/* ---- queries ---- */

static void add_state(const struct troupe_part *part, const struct troupe_state_map *map,
                      struct troupe_state_part *parts) {
    int hint = 0;
    for (int i = 0; i < part->stage->parameter_count; i++) {
        const struct troupe_parameter *parameter = &part->stage->parameters[i];
        struct troupe_moments moments = troupe_optimizer_moments(part->optimizer, i);
        int tensor = troupe_state_map_find(map, parameter->spec.name, hint);
        parts[tensor] =
            (struct troupe_state_part){.data = {[TROUPE_STATE_VALUE] = parameter->value,
                                                [TROUPE_STATE_FIRST] = moments.first,
                                                [TROUPE_STATE_SECOND] = moments.second}};
        hint = tensor + 1;
    }
}

troupe_status troupe_fleet_state(const struct troupe_fleet *fleet,
                                 const struct troupe_state_map *map,
                                 struct troupe_state_part **out) {
    TROUPE_TRY(TROUPE_NEW(out, map->tensor_count));
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        if (fleet->parts[i] != NULL) {
            add_state(fleet->parts[i], map, *out);
        }
    }
    return TROUPE_OK;
}

uint64_t troupe_fleet_plan_ns(const struct troupe_fleet *fleet) {
    return fleet->expect_ns + troupe_runtime_plan_ns(fleet->runtime);
}

int troupe_fleet_gang(const struct troupe_fleet *fleet, const struct troupe_part *part) {
    const struct troupe_module_plan *module = &fleet->plan->modules[part->module];
    int stage = troupe_mesh_coordinate(&module->mesh, fleet->rank, TROUPE_PP);
    return fleet->gangs[part->module][stage * module->dp + part->stage->options.dp_index];
}

void troupe_fleet_describe(const struct troupe_fleet *fleet,
                           void (*line)(void *arg, const char *text), void *arg) {
    troupe_plan_describe(fleet->plan, line, arg);
    troupe_runtime_describe(fleet->runtime, line, arg);
}
