/* SPDX-License-Identifier: Apache-2.0 */
/* Puts the pieces together: samples, plan, this rank's parts as actors, boundaries as edges; then
 * one step after the other. */
#include "modules/train/train.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "actors/runtime.h"
#include "modules/train/boundary.h"
#include "modules/train/checkpoint.h"
#include "modules/train/dataset.h"
#include "modules/train/part.h"
#include "runtime/check.h"
#include "runtime/clock.h"
#include "runtime/memory.h"

enum { DESCRIPTION_BYTES = 8192 };

/* What the ranks add up after a step. */
enum total {
    TOTAL_SQUARES, /* by module, of the gradients */
    TOTAL_COMPUTE_MS = TOTAL_SQUARES + TROUPE_CONFIG_MODULES,
    TOTAL_WAIT_MS = TOTAL_COMPUTE_MS + TROUPE_CONFIG_MODULES,
    TOTAL_LOSS = TOTAL_WAIT_MS + TROUPE_CONFIG_MODULES,
    TOTAL_FLOPS,
    TOTAL_EDGES, /* bytes by edge */
    TOTAL_COUNT = TOTAL_EDGES + TROUPE_REPORT_EDGES_MAX,
};

struct troupe_train {
    struct troupe_train_options options;
    const struct troupe_config *config;
    int rank;
    int rank_count;
    troupe_device *device;
    troupe_stream *stream;
    troupe_source *source;
    troupe_sample_plan *samples;
    struct troupe_plan *plan;
    troupe_group *world;
    troupe_runtime *runtime;
    struct troupe_part *parts[TROUPE_CONFIG_MODULES]; /* NULL: the module is not on this rank */
    int *gangs[TROUPE_CONFIG_MODULES];                /* by stage * dp + shard */
    struct troupe_boundary *boundaries;
    int boundary_count;
    int64_t position;   /* steps done */
    uint64_t update_ns; /* that the last update took */
    double totals[TOTAL_COUNT];
    double *squares; /* scratch: by parameter of a part */
    char description[DESCRIPTION_BYTES];
    size_t description_used;
};

/* ---- samples ---- */

/* Loads what this rank will need while it may still allocate. */
static troupe_status prepare_samples(troupe_train *train, int64_t first_step) {
    uint8_t *needed = NULL;
    TROUPE_TRY(TROUPE_NEW(&needed, train->source->samples));
    troupe_status status = TROUPE_OK;
    for (int i = 0; status == TROUPE_OK && i < TROUPE_CONFIG_MODULES; i++) {
        const struct troupe_module_plan *module = &train->plan->modules[i];
        if (troupe_mesh_position(&module->mesh, train->rank) < 0) {
            continue;
        }
        int dp = troupe_mesh_coordinate(&module->mesh, train->rank, TROUPE_DP);
        memset(needed, 0, (size_t)train->source->samples);
        troupe_sample_plan_needed(train->samples, first_step, train->config->train.steps, dp,
                                  module->dp, needed);
        status = troupe_source_prepare(
            train->source, i == TROUPE_LLM ? TROUPE_SAMPLE_TEXT : TROUPE_SAMPLE_IMAGES, needed);
    }
    troupe_free(needed);
    return status;
}

static troupe_status open_samples(troupe_train *train,
                                  const struct troupe_checkpoint_state *state) {
    TROUPE_TRY(troupe_dataset_open(train->config, TROUPE_DATASET_TRAIN, &train->source));
    TROUPE_TRY(troupe_sample_plan_create(
        train->source,
        &(struct troupe_sample_plan_options){.seed = (uint64_t)train->config->train.seed,
                                             .global_batch = train->config->train.global_batch,
                                             .microbatches = train->config->train.microbatches,
                                             .first_step = state->step,
                                             .first_position = state->position},
        &train->samples));
    return prepare_samples(train, state->step);
}

/* ---- actors ---- */

/* Microbatches that a stage of the module holds at once: those under way to the loss and back. */
static int slots_of(const troupe_train *train, int module, int stage) {
    int m = train->config->train.microbatches;
    int slots = train->config->schedule.slots;
    if (slots == 0) {
        int behind = train->plan->modules[module].pp - stage;
        for (int i = module + 1; i < TROUPE_CONFIG_MODULES; i++) {
            behind += train->plan->modules[i].pp;
        }
        slots = behind + 1;
    }
    return slots < m ? slots : m;
}

static troupe_status create_part(troupe_train *train, int module) {
    const struct troupe_mesh *mesh = &train->plan->modules[module].mesh;
    if (troupe_mesh_position(mesh, train->rank) < 0) {
        return TROUPE_OK;
    }
    int stage = troupe_mesh_coordinate(mesh, train->rank, TROUPE_PP);
    struct troupe_part_options options = {
        .config = train->config,
        .plan = train->plan,
        .module = module,
        .stage = stage,
        .dp = troupe_mesh_coordinate(mesh, train->rank, TROUPE_DP),
        .tp = troupe_mesh_coordinate(mesh, train->rank, TROUPE_TP),
        .slots = slots_of(train, module, stage),
        .samples = train->samples,
        .source = train->source,
        .stream = train->stream,
        .comm = train->options.comm,
    };
    TROUPE_TRY(troupe_part_create(&options, &train->parts[module]));
    struct troupe_stage *part = train->parts[module]->stage;
    return troupe_parameters_init(train->stream, part->parameters, part->parameter_count,
                                  (uint64_t)train->config->train.seed);
}

/* Stages that share a tied parameter meet in one collective, so they share the lane's number. */
static int lane_order(const struct troupe_module_plan *module, int index, int stage) {
    enum { STAGES_MAX = 1024 };
    return index * STAGES_MAX + (stage == module->pp - 1 ? 0 : stage);
}

static troupe_status spawn_module(troupe_train *train, int index) {
    const struct troupe_module_plan *module = &train->plan->modules[index];
    int *ranks = NULL;
    TROUPE_TRY(TROUPE_NEW(&train->gangs[index], module->pp * module->dp));
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
            .slots = slots_of(train, index, stage),
            .lane_order = lane_order(module, index, stage),
            .module = index,
            .depth = TROUPE_LLM - index,
            .stage = stage,
            .stage_count = module->pp,
            .dp = dp,
            .argument = train->parts[index],
        };
        status = troupe_spawn(train->runtime, &options, &train->gangs[index][i]);
    }
    troupe_free(ranks);
    return status;
}

/* ---- boundaries ---- */

static struct troupe_boundary_side side_of(const troupe_train *train, int index, int stage,
                                           bool source) {
    const struct troupe_module_plan *module = &train->plan->modules[index];
    return (struct troupe_boundary_side){
        .module = module,
        .stage = stage,
        .gangs = train->gangs[index] + stage * module->dp,
        .rows_port = source ? TROUPE_PART_ROWS_OUT : TROUPE_PART_ROWS_IN,
        .gradients_port = source ? TROUPE_PART_GRADIENTS_IN : TROUPE_PART_GRADIENTS_OUT,
    };
}

/* From (module, stage) to the next stage of the chain. */
static troupe_status add_boundary(troupe_train *train, const int *hosts, int index, int stage) {
    const struct troupe_module_plan *module = &train->plan->modules[index];
    bool inside = stage + 1 < module->pp;
    int next = inside ? index : index + 1;
    char name[64];
    if (inside) {
        snprintf(name, sizeof name, "%s.%d->%d", module->module_class->name, stage, stage + 1);
    } else {
        snprintf(name, sizeof name, "%s->%s", module->module_class->name,
                 train->plan->modules[next].module_class->name);
    }
    struct troupe_shard shard = troupe_plan_shard(module, stage, 0);
    struct troupe_boundary_options options = {
        .name = name,
        .source = side_of(train, index, stage, true),
        .destination = side_of(train, next, inside ? stage + 1 : 0, false),
        .fused = inside && index == TROUPE_LLM,
        .columns = module->module_class->output_columns(&train->config->model, &shard),
        .credits = train->config->schedule.credits,
        .samples = train->samples,
        .host_of_rank = hosts,
    };
    struct troupe_boundary *boundary = &train->boundaries[train->boundary_count];
    TROUPE_TRY(troupe_boundary_init(&options, boundary));
    train->boundary_count++;
    return troupe_boundary_connect(boundary, train->runtime);
}

static troupe_status add_boundaries(troupe_train *train) {
    int *hosts = NULL;
    int count = 0;
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        count += train->plan->modules[i].pp;
    }
    TROUPE_TRY(TROUPE_NEW(&train->boundaries, count));
    TROUPE_TRY(TROUPE_NEW(&hosts, train->rank_count));
    for (int r = 0; r < train->rank_count; r++) {
        hosts[r] = troupe_comm_host(train->options.comm, r);
    }
    troupe_status status = TROUPE_OK;
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        for (int s = 0; status == TROUPE_OK && s < train->plan->modules[i].pp; s++) {
            bool last = i == TROUPE_LLM && s == train->plan->modules[i].pp - 1;
            status = last ? TROUPE_OK : add_boundary(train, hosts, i, s);
        }
    }
    troupe_free(hosts);
    return status;
}

/* ---- description ---- */

static void describe(troupe_train *train, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void describe(troupe_train *train, const char *format, ...) {
    size_t room = sizeof train->description - train->description_used;
    va_list args;
    va_start(args, format);
    int wrote = vsnprintf(train->description + train->description_used, room, format, args);
    va_end(args);
    train->description_used += wrote < (int)room ? (size_t)wrote : room - 1;
}

static void describe_line(void *arg, const char *text) {
    describe(arg, "%s\n", text);
}

static void describe_job(troupe_train *train) {
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        const struct troupe_module_plan *module = &train->plan->modules[i];
        describe(train, "%-9s tp %d, dp %d, pp %d on ranks", module->module_class->name, module->tp,
                 module->dp, module->pp);
        for (int r = 0; r < module->mesh.rank_count; r++) {
            describe(train, " %d", module->mesh.ranks[r]);
        }
        for (int s = 0; module->pp > 1 && s < module->pp; s++) {
            describe(train, "%s %d-%d", s == 0 ? ", layers by stage" : "", module->layer_begin[s],
                     module->layer_begin[s + 1] - 1);
        }
        describe(train, "\n");
    }
    troupe_runtime_describe(train->runtime, describe_line, train);
}

/* ---- creation ---- */

static troupe_status read_checkpoint(troupe_train *train) {
    const char *path = train->options.resume;
    for (int i = 0; path != NULL && i < TROUPE_CONFIG_MODULES; i++) {
        const struct troupe_part *part = train->parts[i];
        if (part != NULL) {
            TROUPE_TRY(troupe_checkpoint_read_weights(path, part->stage->parameters,
                                                      part->stage->parameter_count));
            TROUPE_TRY(troupe_checkpoint_read_moments(
                path, part->stage->parameters, part->stage->parameter_count, part->optimizer));
        }
    }
    return TROUPE_OK;
}

static troupe_status create_world(troupe_train *train) {
    struct troupe_group_options options = {.id = TROUPE_GROUP_ID_TRAIN,
                                           .bytes_max = sizeof train->totals};
    return troupe_group_create(train->options.comm, &options, &train->world);
}

static troupe_status create_runtime(troupe_train *train) {
    const struct troupe_config *config = train->config;
    struct troupe_runtime_options options = {
        .microbatches = config->train.microbatches,
        .order = config->schedule.order,
        .look_ahead = config->schedule.look_ahead,
        .stall_ns = (int64_t)(config->comm.stall_s * 1e9),
    };
    TROUPE_TRY(troupe_runtime_create(train->options.comm, &options, &train->runtime));
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        TROUPE_TRY(spawn_module(train, i));
    }
    TROUPE_TRY(add_boundaries(train));
    TROUPE_TRY(troupe_runtime_start(train->runtime));
    describe_job(train);
    return TROUPE_OK;
}

static troupe_status allocate_scratch(troupe_train *train) {
    int most = 1;
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        if (train->parts[i] != NULL && train->parts[i]->stage->parameter_count > most) {
            most = train->parts[i]->stage->parameter_count;
        }
    }
    return TROUPE_NEW(&train->squares, most);
}

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

static troupe_status build(troupe_train *train) {
    struct troupe_checkpoint_state state = {.step = 0};
    if (train->options.resume != NULL) {
        TROUPE_TRY(troupe_checkpoint_load_state(train->options.resume, &state));
        TROUPE_TRY(check_seed(train, &state));
    }
    train->position = state.step;
    TROUPE_TRY(troupe_device_open(
        TROUPE_DEVICE_CPU, &(struct troupe_device_options){.workers = train->options.workers},
        &train->device));
    TROUPE_TRY(troupe_stream_create(train->device, &train->stream));
    TROUPE_TRY(troupe_plan_create(train->config, train->rank_count, &train->plan));
    TROUPE_TRY(open_samples(train, &state));
    TROUPE_TRY(create_world(train));
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        TROUPE_TRY(create_part(train, i));
    }
    TROUPE_TRY(read_checkpoint(train));
    TROUPE_TRY(allocate_scratch(train));
    return create_runtime(train);
}

troupe_status troupe_train_create(const struct troupe_train_options *options, troupe_train **out) {
    troupe_train *train = NULL;
    TROUPE_TRY(TROUPE_NEW(&train, 1));
    train->options = *options;
    train->config = options->config;
    train->rank = troupe_comm_rank(options->comm);
    train->rank_count = troupe_comm_size(options->comm);
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
    troupe_runtime_destroy(train->runtime);
    for (int i = 0; i < train->boundary_count; i++) {
        troupe_boundary_fini(&train->boundaries[i]);
    }
    troupe_free(train->boundaries);
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        troupe_part_destroy(train->parts[i]);
        troupe_free(train->gangs[i]);
    }
    troupe_group_destroy(train->world);
    troupe_plan_destroy(train->plan);
    troupe_sample_plan_destroy(train->samples);
    troupe_source_destroy(train->source);
    troupe_stream_destroy(train->stream);
    troupe_device_close(train->device);
    troupe_free(train->squares);
    troupe_free(train);
}

/* ---- one step ---- */

static troupe_status begin_step(troupe_train *train) {
    troupe_sample_plan_set_step(train->samples, train->position);
    for (int i = 0; i < train->boundary_count; i++) {
        troupe_boundary_begin_step(&train->boundaries[i]);
    }
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        if (train->parts[i] != NULL) {
            TROUPE_TRY(troupe_stage_begin_step(train->parts[i]->stage));
        }
    }
    return TROUPE_OK;
}

/* Replicas count once: the first DP shard, and what TP replicates on the first TP shard. */
static troupe_status add_squares(troupe_train *train, const struct troupe_part *part) {
    const struct troupe_stage_options *o = &part->stage->options;
    if (o->dp_index != 0) {
        return TROUPE_OK;
    }
    TROUPE_TRY(troupe_gradient_square_sums(
        &(struct troupe_gradient_list){.stream = train->stream,
                                       .kernels = troupe_kernels_for(TROUPE_DEVICE_CPU),
                                       .parameters = part->stage->parameters,
                                       .count = part->stage->parameter_count,
                                       .replicas_count = o->shard.tp_index == 0},
        train->squares));
    for (int i = 0; i < part->stage->parameter_count; i++) {
        train->totals[TOTAL_SQUARES + part->module] += train->squares[i];
    }
    return TROUPE_OK;
}

static void add_times(troupe_train *train, const struct troupe_part *part) {
    const struct troupe_module_plan *module = &train->plan->modules[part->module];
    const struct troupe_stage_options *o = &part->stage->options;
    int stage = troupe_mesh_coordinate(&module->mesh, train->rank, TROUPE_PP);
    struct troupe_gang_times times = troupe_runtime_gang_times(
        train->runtime, train->gangs[part->module][stage * module->dp + o->dp_index]);
    train->totals[TOTAL_COMPUTE_MS + part->module] += (double)times.compute_ns * 1e-6;
    train->totals[TOTAL_WAIT_MS + part->module] +=
        (double)(times.wait_ticket_ns + times.wait_input_ns + times.wait_output_ns) * 1e-6;
}

static troupe_status add_totals(troupe_train *train) {
    memset(train->totals, 0, sizeof train->totals);
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        const struct troupe_part *part = train->parts[i];
        if (part == NULL) {
            continue;
        }
        TROUPE_TRY(add_squares(train, part));
        add_times(train, part);
        train->totals[TOTAL_FLOPS] += 3 * part->stage->flops;
        if (part->stage->options.shard.tp_index == 0) {
            for (int k = 0; k < part->stage->microbatch_count; k++) {
                train->totals[TOTAL_LOSS] += part->stage->loss_sums[k];
            }
        }
    }
    int edges = troupe_runtime_edge_count(train->runtime);
    for (int e = 0; e < edges && e < TROUPE_REPORT_EDGES_MAX; e++) {
        train->totals[TOTAL_EDGES + e] = (double)troupe_runtime_edge_bytes(train->runtime, e);
    }
    return troupe_group_all_reduce(train->world, TROUPE_SUM, TROUPE_ELEMENT_FLOAT64, train->totals,
                                   TOTAL_COUNT);
}

/* What the ranks take the maximum of: the step's time (with the update of the step before, since
 * this step's comes after the ranks have met), and where a value first was not finite, as
 * a number that is largest for the earliest microbatch and then module. */
struct peaks {
    double step_ms;
    double nonfinite;
};

enum { PEAK_BASE = 1 << 24, PEAK_MODULES = 8 };

static troupe_status find_peaks(troupe_train *train, uint64_t started_ns, struct peaks *out) {
    double values[2] = {
        troupe_clock_seconds(started_ns, troupe_clock_ns() + train->update_ns) * 1e3, 0};
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        const struct troupe_part *part = train->parts[i];
        if (part != NULL && part->stage->nonfinite_microbatch >= 0) {
            double code = PEAK_BASE - part->stage->nonfinite_microbatch * PEAK_MODULES - i;
            values[1] = code > values[1] ? code : values[1];
        }
    }
    TROUPE_TRY(
        troupe_group_all_reduce(train->world, TROUPE_MAX, TROUPE_ELEMENT_FLOAT64, values, 2));
    *out = (struct peaks){.step_ms = values[0], .nonfinite = values[1]};
    return TROUPE_OK;
}

/* The same verdict on every rank: nobody updates, or everybody. */
static troupe_status check_finite(const troupe_train *train,
                                  const struct troupe_step_report *report,
                                  const struct peaks *peaks) {
    if (peaks->nonfinite > 0) {
        int code = PEAK_BASE - (int)peaks->nonfinite;
        return troupe_fail(TROUPE_ERROR_NUMERIC,
                           "step %" PRId64 ": %s is the first module whose output is not finite, "
                           "in microbatch %d; lower train.lr or set train.clip, and resume from "
                           "the last checkpoint",
                           report->step,
                           train->plan->modules[code % PEAK_MODULES].module_class->name,
                           code / PEAK_MODULES);
    }
    for (int i = TROUPE_LLM; i >= TROUPE_VISION; i--) { /* gradients come from the loss's side */
        if (!isfinite(report->module_norm[i])) {
            return troupe_fail(TROUPE_ERROR_NUMERIC,
                               "step %" PRId64 ": the gradient of %s is not finite (loss %g); "
                               "lower train.lr or set train.clip, and resume from the last "
                               "checkpoint",
                               report->step, train->plan->modules[i].module_class->name,
                               report->loss);
        }
    }
    return TROUPE_OK;
}

static void fill_report(const troupe_train *train, struct troupe_step_report *out) {
    const struct troupe_config *config = train->config;
    int64_t batch = config->train.global_batch;
    double square_sum = 0;
    memset(out, 0, sizeof *out);
    out->step = train->position + 1;
    out->loss = train->totals[TOTAL_LOSS] / (double)troupe_sample_plan_step_targets(train->samples);
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        square_sum += train->totals[TOTAL_SQUARES + i];
        out->module_norm[i] = sqrt(train->totals[TOTAL_SQUARES + i]);
        out->compute_ms[i] = train->totals[TOTAL_COMPUTE_MS + i];
        out->wait_ms[i] = train->totals[TOTAL_WAIT_MS + i];
    }
    out->grad_norm = sqrt(square_sum);
    out->lr = troupe_learning_rate(&(struct troupe_lr_schedule){.lr = config->train.lr,
                                                                .lr_min = config->train.lr_min,
                                                                .warmup = config->train.warmup,
                                                                .steps = config->train.steps},
                                   out->step);
    out->tokens = troupe_sample_plan_rows(train->samples)[batch];
    out->images = troupe_sample_plan_images(train->samples)[batch];
    out->flops = train->totals[TOTAL_FLOPS];
    out->edge_count = troupe_runtime_edge_count(train->runtime);
    if (out->edge_count > TROUPE_REPORT_EDGES_MAX) {
        out->edge_count = TROUPE_REPORT_EDGES_MAX;
    }
    for (int e = 0; e < out->edge_count; e++) {
        out->edges[e].name = troupe_runtime_edge_name(train->runtime, e);
        out->edges[e].bytes = train->totals[TOTAL_EDGES + e];
    }
}

static troupe_status update(troupe_train *train, const struct troupe_step_report *report) {
    struct troupe_optimizer_step step = {
        .step = report->step,
        .lr = report->lr,
        .gradient_scale =
            troupe_clip_scale(report->grad_norm * report->grad_norm, train->config->train.clip),
    };
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        if (train->parts[i] != NULL) {
            TROUPE_TRY(troupe_optimizer_update(train->parts[i]->optimizer, &step));
        }
    }
    return TROUPE_OK;
}

static troupe_status run_step(troupe_train *train, struct troupe_step_report *report) {
    uint64_t started_ns = troupe_clock_ns();
    struct peaks peaks;
    TROUPE_TRY(begin_step(train));
    TROUPE_TRY(troupe_runtime_step(train->runtime, train->position));
    TROUPE_TRY(add_totals(train));
    fill_report(train, report);
    TROUPE_TRY(find_peaks(train, started_ns, &peaks));
    TROUPE_TRY(check_finite(train, report, &peaks));
    uint64_t update_ns = troupe_clock_ns();
    TROUPE_TRY(update(train, report));
    train->update_ns = troupe_clock_ns() - update_ns;
    report->step_ms = peaks.step_ms;
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

/* ---- saving, describing ---- */

troupe_status troupe_train_save(troupe_train *train) {
    struct troupe_checkpoint_shard shards[TROUPE_CONFIG_MODULES];
    int count = 0;
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        const struct troupe_part *part = train->parts[i];
        if (part != NULL) {
            shards[count++] = (struct troupe_checkpoint_shard){
                .parameters = part->stage->parameters,
                .count = part->stage->parameter_count,
                .optimizer = part->optimizer,
                .tp_index = part->stage->options.shard.tp_index,
                .dp_index = part->stage->options.dp_index,
            };
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

const char *troupe_train_describe(const troupe_train *train) {
    return train->description;
}

void troupe_train_visit(troupe_train *train,
                        void (*visit)(void *arg, const struct troupe_parameter *parameter,
                                      const struct troupe_shard *shard, int dp_index),
                        void *arg) {
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        const struct troupe_part *part = train->parts[i];
        for (int p = 0; part != NULL && p < part->stage->parameter_count; p++) {
            visit(arg, &part->stage->parameters[p], &part->stage->options.shard,
                  part->stage->options.dp_index);
        }
    }
}

void troupe_train_request_report(troupe_train *train) {
    troupe_runtime_request_report(train->runtime);
}
