/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/part.h"

#include "runtime/check.h"
#include "runtime/memory.h"

/* Group ids: generation, module, kind and index, from the highest bit to the lowest. */
enum group_kind { GROUP_TP, GROUP_DP, GROUP_TIED, GROUP_KINDS };
enum { GROUP_INDICES = 1 << 14, GROUP_MODULES = 4 };

static uint32_t group_id(const struct troupe_part_options *o, enum group_kind kind, int index) {
    TROUPE_ASSERT(index < GROUP_INDICES && o->module < GROUP_MODULES, "group %d of module %d",
                  index, o->module);
    int block = (o->generation * GROUP_MODULES + o->module) * GROUP_KINDS + (int)kind;
    return (uint32_t)(TROUPE_GROUP_ID_MODULES + block * GROUP_INDICES + index);
}

static troupe_status make_tp_group(struct troupe_part *part, const struct troupe_part_options *o) {
    const struct troupe_module_plan *module = &o->plan->modules[o->module];
    struct troupe_batch_bounds bounds = o->split != NULL
                                            ? troupe_image_split_bounds(o->split)
                                            : troupe_sample_plan_bounds(o->samples, module->dp);
    int64_t rows = bounds.rows > bounds.image_tokens ? bounds.rows : bounds.image_tokens;
    int *ranks = NULL;
    if (module->tp == 1) {
        return TROUPE_OK;
    }
    TROUPE_TRY(TROUPE_NEW(&ranks, module->tp));
    troupe_plan_tp_ranks(module, o->stage, o->dp, ranks);
    struct troupe_group_options options = {
        .ranks = ranks,
        .count = module->tp,
        .id = group_id(o, GROUP_TP, o->stage * module->dp + o->dp),
        .bytes_max = troupe_module_group_bytes(&o->config->model, rows),
        .alone = o->alone};
    troupe_status status = troupe_group_create(o->comm, &options, &part->tp);
    troupe_free(ranks);
    return status;
}

static troupe_status make_stage(struct troupe_part *part, const struct troupe_part_options *o) {
    const struct troupe_module_plan *module = &o->plan->modules[o->module];
    return troupe_stage_create(
        &(struct troupe_stage_options){.module_class = module->module_class,
                                       .config = &o->config->model,
                                       .module = o->module,
                                       .shard = troupe_plan_shard(module, o->stage, o->tp),
                                       .dp_index = o->dp,
                                       .dp_count = module->dp,
                                       .slots = o->slots,
                                       .plan = o->samples,
                                       .split = o->split,
                                       .source = o->source,
                                       .stream = part->stream,
                                       .tp = part->tp},
        &part->stage);
}

static troupe_status make_sums(struct troupe_part *part, const struct troupe_part_options *o) {
    const struct troupe_module_plan *module = &o->plan->modules[o->module];
    struct troupe_gradient_sums_options options = {
        .comm = o->comm,
        .config = &o->config->model,
        .module = module,
        .stage = o->stage,
        .tp = o->tp,
        .dp_group = group_id(o, GROUP_DP, o->stage * module->tp + o->tp),
        .tied_group = group_id(o, GROUP_TIED, o->tp),
        .alone = o->alone,
        .parameters = part->stage->parameters,
        .count = part->stage->parameter_count,
        .stream = part->stream,
        .lane = o->lane,
    };
    return troupe_gradient_sums_init(&options, &part->sums);
}

static troupe_status make_optimizer(struct troupe_part *part, const struct troupe_part_options *o) {
    return troupe_optimizer_create(
        &(struct troupe_optimizer_options){.stream = part->stream,
                                           .kernels =
                                               troupe_kernels_for(troupe_device_kind(o->device)),
                                           .parameters = part->stage->parameters,
                                           .count = part->stage->parameter_count,
                                           .beta1 = o->config->train.betas[0],
                                           .beta2 = o->config->train.betas[1],
                                           .epsilon = o->config->train.eps,
                                           .weight_decay = o->config->train.weight_decay},
        &part->optimizer);
}

troupe_status troupe_part_create(const struct troupe_part_options *o, struct troupe_part **out) {
    struct troupe_part *part = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY(TROUPE_NEW(&part, 1));
    part->module = o->module;
    TROUPE_TRY_FAIL(troupe_stream_create(o->device, &part->stream));
    TROUPE_TRY_FAIL(troupe_event_create(o->device, &part->ended));
    TROUPE_TRY_FAIL(make_tp_group(part, o));
    TROUPE_TRY_FAIL(make_stage(part, o));
    TROUPE_TRY_FAIL(make_sums(part, o));
    TROUPE_TRY_FAIL(make_optimizer(part, o));
    TROUPE_TRY_FAIL(troupe_device_alloc_host(
        o->device, (size_t)part->stage->parameter_count * sizeof *part->squares,
        (void **)&part->squares));
    *out = part;
    return TROUPE_OK;
fail:
    troupe_part_destroy(part);
    return status;
}

void troupe_part_destroy(struct troupe_part *part) {
    if (part == NULL) {
        return;
    }
    if (part->squares != NULL) {
        troupe_device_free_host(troupe_stream_device(part->stream), part->squares);
    }
    troupe_optimizer_destroy(part->optimizer);
    troupe_gradient_sums_fini(&part->sums);
    troupe_stage_destroy(part->stage);
    troupe_group_destroy(part->tp);
    troupe_event_destroy(part->ended);
    troupe_stream_destroy(part->stream);
    troupe_free(part);
}

/* ---- the end of a step ---- */

static bool counts_squares(const struct troupe_part *part) {
    return part->stage->options.dp_index == 0;
}

troupe_status troupe_part_enqueue_end(struct troupe_part *part) {
    const struct troupe_stage_options *o = &part->stage->options;
    if (counts_squares(part)) {
        TROUPE_TRY(troupe_gradient_square_sums(
            &(struct troupe_gradient_list){
                .stream = part->stream,
                .kernels = troupe_kernels_for(troupe_device_kind(troupe_stream_device(o->stream))),
                .parameters = part->stage->parameters,
                .count = part->stage->parameter_count,
                .replicas_count = o->shard.tp_index == 0},
            part->squares));
    }
    return troupe_event_record(part->ended, part->stream);
}

troupe_status troupe_part_poll_end(struct troupe_part *part) {
    TROUPE_TRY(troupe_event_query(part->ended));
    troupe_stage_end_step(part->stage);
    return TROUPE_OK;
}

double troupe_part_square_sum(const struct troupe_part *part) {
    double sum = 0;
    for (int i = 0; counts_squares(part) && i < part->stage->parameter_count; i++) {
        sum += part->squares[i];
    }
    return sum;
}

/* ---- the actor ---- */

enum { ROWS_IN, ROWS_OUT, GRADIENTS_IN, GRADIENTS_OUT };
enum { FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT, REDUCE };

static const struct troupe_port ports[] = {
    [ROWS_IN] = {TROUPE_PART_ROWS_IN, TROUPE_IN},
    [ROWS_OUT] = {TROUPE_PART_ROWS_OUT, TROUPE_OUT},
    [GRADIENTS_IN] = {TROUPE_PART_GRADIENTS_IN, TROUPE_IN},
    [GRADIENTS_OUT] = {TROUPE_PART_GRADIENTS_OUT, TROUPE_OUT},
};

/* The first stage of the first module has no input, the last of the last no output. */
static bool has_input(const struct troupe_part *part) {
    const struct troupe_stage_options *o = &part->stage->options;
    return o->module_class->input_columns(o->config, &o->shard) > 0;
}

static bool has_output(const struct troupe_part *part) {
    const struct troupe_stage_options *o = &part->stage->options;
    return o->module_class->output_columns(o->config, &o->shard) > 0;
}

static troupe_status forward(void *state, struct troupe_firing *firing) {
    struct troupe_part *part = state;
    return troupe_stage_forward(part->stage, firing->microbatch, firing->slot,
                                has_input(part) ? &firing->inputs[0] : NULL,
                                has_output(part) ? &firing->outputs[0] : NULL);
}

static troupe_status backward_input(void *state, struct troupe_firing *firing) {
    struct troupe_part *part = state;
    return troupe_stage_backward_input(part->stage, firing->microbatch, firing->slot,
                                       has_output(part) ? &firing->inputs[0] : NULL,
                                       has_input(part) ? &firing->outputs[0] : NULL);
}

static troupe_status backward_weight(void *state, struct troupe_firing *firing) {
    struct troupe_part *part = state;
    return troupe_stage_backward_weight(part->stage, firing->microbatch, firing->slot);
}

static troupe_status reduce_gradients(void *state, struct troupe_firing *firing) {
    struct troupe_part *part = state;
    return troupe_gradient_sums_post(&part->sums, firing);
}

static const struct troupe_actor_method methods[] = {
    [FORWARD] = {.name = "forward",
                 .kind = TROUPE_METHOD_FORWARD,
                 .inputs = {ROWS_IN},
                 .input_count = 1,
                 .outputs = {ROWS_OUT},
                 .output_count = 1,
                 .slot_take = true,
                 .run = forward},
    [BACKWARD_INPUT] = {.name = "backward_input",
                        .kind = TROUPE_METHOD_BACKWARD_INPUT,
                        .inputs = {GRADIENTS_IN},
                        .input_count = 1,
                        .outputs = {GRADIENTS_OUT},
                        .output_count = 1,
                        .after = {FORWARD},
                        .after_count = 1,
                        .run = backward_input},
    [BACKWARD_WEIGHT] = {.name = "backward_weight",
                         .kind = TROUPE_METHOD_BACKWARD_WEIGHT,
                         .after = {BACKWARD_INPUT},
                         .after_count = 1,
                         .slot_return = true,
                         .run = backward_weight},
    [REDUCE] = {.name = "reduce_gradients",
                .kind = TROUPE_METHOD_REDUCE,
                .after = {BACKWARD_WEIGHT},
                .after_count = 1,
                .once = true,
                .lane = TROUPE_LANE_REDUCTION,
                .run = reduce_gradients},
};

const struct troupe_actor_class troupe_part_class = {
    .name = "module shard",
    .ports = ports,
    .port_count = TROUPE_COUNT_OF(ports),
    .methods = methods,
    .method_count = TROUPE_COUNT_OF(methods),
};
