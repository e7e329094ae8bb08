/* SPDX-License-Identifier: Apache-2.0 */
/* Puts the pieces together: samples, the fleet of the plan; then one step after the other. */
#include "modules/train/train.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "modules/train/agree.h"
#include "modules/train/checkpoint.h"
#include "modules/train/costs.h"
#include "modules/train/dataset.h"
#include "modules/train/fleet.h"
#include "modules/train/restore.h"
#include "modules/train/switch.h"
#include "runtime/check.h"
#include "runtime/clock.h"
#include "runtime/memory.h"

enum { DESCRIPTION_BYTES = 8192 };

struct troupe_train {
    struct troupe_train_options options;
    struct troupe_config configs[2]; /* by generation of the fleet that has it */
    int generation;
    const struct troupe_config *config; /* the current one */
    troupe_device *device;
    struct troupe_group_device_choice collectives; /* on the device */
    troupe_source *source;
    troupe_sample_plan *samples;
    troupe_group *world;
    struct troupe_fleet *fleet;
    int64_t position;                   /* steps done */
    uint64_t update_ns;                 /* that the last update took */
    _Atomic(troupe_runtime *) reporter; /* what a signal handler may call; NULL: nothing now */
    char description[DESCRIPTION_BYTES];
};

/* ---- creation ---- */

static troupe_status check_seed(const troupe_train *train,
                                const struct troupe_checkpoint_state *state) {
    if (train->options.resume != NULL && state->seed != train->config->train.seed) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "%s was trained with train.seed %" PRId64 ", the config says %" PRId64
                           ": the order of the samples would change",
                           train->options.resume, state->seed, train->config->train.seed);
    }
    return TROUPE_OK;
}

static troupe_status open_device(troupe_train *train) {
    enum { SIMULATED_DELAY_NS = 100000 };
    enum troupe_device_kind kind = TROUPE_DEVICE_CPU;
    TROUPE_TRY(troupe_device_kind_find(train->config->train.device, &kind));
    int count = troupe_device_count(kind), index = troupe_comm_host_index(train->options.comm);
    return troupe_device_open(
        kind,
        &(struct troupe_device_options){.index = count > 0 ? index % count : 0,
                                        .workers = train->options.workers,
                                        .seed = (uint64_t)index,
                                        .delay_ns_max = SIMULATED_DELAY_NS},
        &train->device);
}

/* Collective: by which library ranks sum on their devices, and whether some share one. */
static troupe_status choose_collectives(troupe_train *train) {
    TROUPE_TRY(troupe_groups_open_device(
        train->options.comm, train->device, NULL, 0,
        &(struct troupe_group_device_options){.choice = &train->collectives}));
    bool staged = strcmp(train->collectives.engine, "staged") == 0;
    if (staged && strcmp(train->config->comm.serialize, "false") == 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "comm.serialize is false, but sums over ranks go through host memory "
                           "here and hold up the rank; use auto or true");
    }
    return TROUPE_OK;
}

static troupe_status open_samples(troupe_train *train,
                                  const struct troupe_checkpoint_state *state) {
    TROUPE_TRY(troupe_dataset_open(train->config, TROUPE_DATASET_TRAIN, &train->source));
    return troupe_sample_plan_create(
        train->source,
        &(struct troupe_sample_plan_options){.seed = (uint64_t)train->config->train.seed,
                                             .global_batch = train->config->train.global_batch,
                                             .microbatches = train->config->train.microbatches,
                                             .first_step = state->step,
                                             .first_position = state->position},
        &train->samples);
}

static troupe_status create_world(troupe_train *train) {
    struct troupe_group_options options = {.id = TROUPE_GROUP_ID_TRAIN,
                                           .bytes_max = TROUPE_REPORT_TOTALS * sizeof(double)};
    return troupe_group_create(train->options.comm, &options, &train->world);
}

static troupe_status create_fleet(troupe_train *train) {
    struct troupe_plan *plan = NULL;
    TROUPE_TRY(troupe_plan_create(train->config, troupe_comm_size(train->options.comm), &plan));
    struct troupe_fleet_options options = {.config = train->config,
                                           .comm = train->options.comm,
                                           .device = train->device,
                                           .collectives = train->collectives,
                                           .source = train->source,
                                           .samples = train->samples};
    return troupe_fleet_create(&options, plan, &train->fleet);
}

static struct troupe_checkpoint_shard shard_of(const struct troupe_part *part) {
    return (struct troupe_checkpoint_shard){
        .parameters = part->stage->parameters,
        .count = part->stage->parameter_count,
        .optimizer = part->optimizer,
        .stream = part->stream,
        .tp_index = part->stage->options.shard.tp_index,
        .dp_index = part->stage->options.dp_index,
    };
}

static void describe_line(void *arg, const char *text) {
    troupe_train *train = arg;
    size_t used = strlen(train->description);
    snprintf(train->description + used, sizeof train->description - used, "%s\n", text);
}

/* On a GPU: which, how ranks sum, and whether their lanes are kept apart. */
static void describe_device(troupe_train *train) {
    char line[256];
    if (troupe_device_is_host(train->device)) {
        return;
    }
    snprintf(line, sizeof line, "rank 0 on %s; sums by %s, %s%s", troupe_device_name(train->device),
             train->collectives.engine,
             troupe_fleet_serializes(train->fleet) ? "one lane at a time" : "two lanes",
             train->collectives.shared ? "; ranks share a GPU" : "");
    describe_line(train, line);
}

/* The fleet has started. */
static void take_fleet(troupe_train *train) {
    train->description[0] = '\0';
    troupe_fleet_describe(train->fleet, describe_line, train);
    describe_device(train);
    atomic_store(&train->reporter, train->fleet->runtime);
}

static troupe_status build(troupe_train *train) {
    struct troupe_checkpoint_state state = {.step = 0};
    if (train->options.resume != NULL) {
        TROUPE_TRY(troupe_checkpoint_load_state(train->options.resume, &state));
        TROUPE_TRY(check_seed(train, &state));
    }
    train->position = state.step;
    TROUPE_TRY(open_device(train));
    TROUPE_TRY(choose_collectives(train));
    TROUPE_TRY(open_samples(train, &state));
    TROUPE_TRY(create_world(train));
    TROUPE_TRY(create_fleet(train));
    TROUPE_TRY(
        troupe_fleet_prepare_samples(train->fleet, train->position, train->config->train.steps));
    TROUPE_TRY(train->options.resume != NULL
                   ? troupe_restore(train->fleet, train->world, train->options.resume)
                   : troupe_fleet_draw_weights(train->fleet));
    TROUPE_TRY(troupe_fleet_prepare(train->fleet));
    TROUPE_TRY(troupe_fleet_start(train->fleet));
    take_fleet(train);
    return TROUPE_OK;
}

troupe_status troupe_train_create(const struct troupe_train_options *options, troupe_train **out) {
    troupe_train *train = NULL;
    TROUPE_TRY(TROUPE_NEW(&train, 1));
    train->options = *options;
    train->configs[0] = *options->config;
    train->config = &train->configs[0];
    troupe_status status = build(train);
    if (status != TROUPE_OK) {
        troupe_train_destroy(train);
        return status;
    }
    *out = train;
    return TROUPE_OK;
}

void troupe_train_destroy(troupe_train *train) {
    if (train == NULL) {
        return;
    }
    atomic_store(&train->reporter, NULL);
    troupe_fleet_destroy(train->fleet);
    troupe_group_destroy(train->world);
    troupe_sample_plan_destroy(train->samples);
    troupe_source_destroy(train->source);
    troupe_device_close(train->device);
    troupe_free(train);
}

/* ---- one step ---- */

static troupe_status run_step(troupe_train *train, struct troupe_step_report *report) {
    uint64_t started_ns = troupe_clock_ns();
    troupe_timeline_begin(train->fleet->timeline);
    TROUPE_TRY(troupe_fleet_step(train->fleet, train->position));
    TROUPE_TRY(troupe_timeline_collect(train->fleet->timeline, train->world));
    TROUPE_TRY(troupe_report_collect(&(struct troupe_report_options){.fleet = train->fleet,
                                                                     .world = train->world,
                                                                     .position = train->position,
                                                                     .started_ns = started_ns,
                                                                     .update_ns = train->update_ns},
                                     report));
    troupe_fleet_learn(train->fleet);
    report->timeline = troupe_timeline_result(train->fleet->timeline);
    uint64_t update_ns = troupe_clock_ns();
    double square_sum = report->grad_norm * report->grad_norm;
    TROUPE_TRY(troupe_fleet_update(
        train->fleet, &(struct troupe_optimizer_step){.step = report->step,
                                                      .lr = report->lr,
                                                      .gradient_scale = troupe_clip_scale(
                                                          square_sum, train->config->train.clip)}));
    train->update_ns = troupe_clock_ns() - update_ns;
    train->position++;
    return TROUPE_OK;
}

troupe_status troupe_train_step(troupe_train *train, struct troupe_step_report *report) {
    troupe_memory_set_steady(true);
    troupe_status status = run_step(train, report);
    troupe_memory_set_steady(false);
    return status;
}

int64_t troupe_train_position(const troupe_train *train) {
    return train->position;
}

/* ---- another placement ---- */

troupe_status troupe_train_agree(troupe_train *train, troupe_status status) {
    return troupe_agree(train->world, status, 0);
}

troupe_status troupe_train_switch(troupe_train *train, const struct troupe_config *config,
                                  struct troupe_switch_report *report) {
    struct troupe_config *next = &train->configs[1 - train->generation];
    *next = *config;
    atomic_store(&train->reporter, NULL);
    troupe_status status =
        troupe_switch_run(&(struct troupe_switch_options){.config = next,
                                                          .world = train->world,
                                                          .first_step = train->position,
                                                          .last_step = config->train.steps},
                          &train->fleet, report);
    if (status != TROUPE_OK) {
        atomic_store(&train->reporter, train->fleet->runtime);
        return status;
    }
    train->generation = 1 - train->generation;
    train->config = next;
    take_fleet(train);
    return TROUPE_OK;
}

bool troupe_train_is_alive(const troupe_train *train) {
    return troupe_comm_failure(train->options.comm) == TROUPE_OK;
}

/* ---- saving, describing ---- */

troupe_status troupe_train_save(troupe_train *train) {
    struct troupe_checkpoint_shard shards[TROUPE_CONFIG_MODULES];
    int count = 0;
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        if (train->fleet->parts[i] != NULL) {
            shards[count++] = shard_of(train->fleet->parts[i]);
        }
    }
    return troupe_checkpoint_save(&(struct troupe_checkpoint){
        .config = train->config,
        .step = train->position,
        .position = troupe_sample_plan_position(train->samples, train->position),
        .plan = train->description,
        .shards = shards,
        .shard_count = count,
        .world = train->world});
}

void troupe_train_write_profile(const troupe_train *train, FILE *file) {
    const struct troupe_timeline_result *result = troupe_timeline_result(train->fleet->timeline);
    TROUPE_ASSERT(result != NULL, "a profile of rank %d", train->fleet->rank);
    troupe_profile_write(file, train->fleet, &result->schedule);
}

const char *troupe_train_ignored(const troupe_train *train) {
    return train->fleet->plan->ignored;
}

const char *troupe_train_describe(const troupe_train *train) {
    return train->description;
}

void troupe_train_visit(troupe_train *train,
                        void (*visit)(void *arg, const struct troupe_parameter *parameter,
                                      const struct troupe_shard *shard, int dp_index),
                        void *arg) {
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        const struct troupe_part *part = train->fleet->parts[i];
        for (int p = 0; part != NULL && p < part->stage->parameter_count; p++) {
            visit(arg, &part->stage->parameters[p], &part->stage->options.shard,
                  part->stage->options.dp_index);
        }
    }
}

void troupe_train_request_report(troupe_train *train) {
    troupe_runtime *runtime = atomic_load(&train->reporter);
    if (runtime != NULL) {
        troupe_runtime_request_report(runtime);
    }
}
