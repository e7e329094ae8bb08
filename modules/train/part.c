/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/part.h"

#include <string.h>

#include "runtime/check.h"
#include "runtime/memory.h"

/* Group ids: one block a module and kind, then stage and shard. */
enum group_kind { GROUP_TP, GROUP_DP, GROUP_TIED };
enum { GROUP_BASE = 1 << 8, GROUP_KIND_STRIDE = 1 << 16, GROUP_MODULE_STRIDE = 1 << 18 };

static uint32_t group_id(int module, enum group_kind kind, int index) {
    TROUPE_ASSERT(index < GROUP_KIND_STRIDE - GROUP_BASE, "group %d of a module", index);
    return (uint32_t)(GROUP_BASE + module * GROUP_MODULE_STRIDE + (int)kind * GROUP_KIND_STRIDE +
                      index);
}

static troupe_status make_group(const struct troupe_part_options *o, const int *ranks, int count,
                                uint32_t id, size_t bytes_max, troupe_group **out) {
    if (count == 1) {
        return TROUPE_OK;
    }
    return troupe_group_create(
        o->comm,
        &(struct troupe_group_options){
            .ranks = ranks, .count = count, .id = id, .bytes_max = bytes_max},
        out);
}

/* ---- tied parameters ---- */

/* Whether both the first and the last stage of a divided module hold the parameter. */
static troupe_status find_tied(const struct troupe_part_options *o,
                               const struct troupe_module_plan *module,
                               const struct troupe_parameter *parameter, bool *out) {
    *out = parameter->tied_copy;
    if (module->pp == 1 || o->stage != 0) {
        return TROUPE_OK;
    }
    struct troupe_parameter_spec *specs = NULL;
    struct troupe_shard last = troupe_plan_shard(module, module->pp - 1, o->tp);
    int count = module->module_class->specs(&o->config->model, &last, NULL);
    TROUPE_TRY(TROUPE_NEW(&specs, count));
    module->module_class->specs(&o->config->model, &last, specs);
    for (int i = 0; i < count; i++) {
        *out = *out || strcmp(specs[i].name, parameter->spec.name) == 0;
    }
    troupe_free(specs);
    return TROUPE_OK;
}

/* ---- gradient runs ---- */

static troupe_status make_runs(struct troupe_part *part, const struct troupe_part_options *o) {
    const struct troupe_module_plan *module = &o->plan->modules[o->module];
    const struct troupe_stage *stage = part->stage;
    struct troupe_gradient_run *run = NULL;
    TROUPE_TRY(TROUPE_NEW(&part->runs, stage->parameter_count));
    for (int i = 0; i < stage->parameter_count; i++) {
        const struct troupe_parameter *p = &stage->parameters[i];
        bool tied = false;
        TROUPE_TRY(find_tied(o, module, p, &tied));
        troupe_group *group = tied ? part->tied : part->dp;
        int64_t elements = troupe_parameter_elements(p);
        if (group == NULL) {
            run = NULL;
        } else if (run != NULL && run->group == group && run->data + run->count == p->gradient) {
            run->count += elements;
        } else {
            run = &part->runs[part->run_count++];
            *run = (struct troupe_gradient_run){
                .data = p->gradient, .count = elements, .group = group};
        }
    }
    return TROUPE_OK;
}

static troupe_status make_replica_groups(struct troupe_part *part,
                                         const struct troupe_part_options *o) {
    const struct troupe_module_plan *module = &o->plan->modules[o->module];
    int *ranks = NULL;
    int64_t elements = 0;
    for (int i = 0; i < part->stage->parameter_count; i++) {
        elements += troupe_parameter_elements(&part->stage->parameters[i]);
    }
    size_t bytes = (size_t)elements * sizeof(float);
    TROUPE_TRY(TROUPE_NEW(&ranks, 2 * module->dp));
    int count = troupe_plan_dp_ranks(module, o->stage, o->tp, ranks);
    troupe_status status =
        make_group(o, ranks, count, group_id(o->module, GROUP_DP, o->stage * module->tp + o->tp),
                   bytes, &part->dp);
    if (status == TROUPE_OK && module->pp > 1 && (o->stage == 0 || o->stage == module->pp - 1)) {
        count = troupe_plan_dp_ranks(module, 0, o->tp, ranks);
        count += troupe_plan_dp_ranks(module, module->pp - 1, o->tp, ranks + count);
        status =
            make_group(o, ranks, count, group_id(o->module, GROUP_TIED, o->tp), bytes, &part->tied);
    }
    troupe_free(ranks);
    return status;
}

/* ---- the part ---- */

static troupe_status make_stage(struct troupe_part *part, const struct troupe_part_options *o) {
    const struct troupe_module_plan *module = &o->plan->modules[o->module];
    struct troupe_batch_bounds bounds = troupe_sample_plan_bounds(o->samples, module->dp);
    int64_t rows = bounds.rows > bounds.image_tokens ? bounds.rows : bounds.image_tokens;
    int *ranks = NULL;
    TROUPE_TRY(TROUPE_NEW(&ranks, module->tp));
    troupe_plan_tp_ranks(module, o->stage, o->dp, ranks);
    troupe_status status = make_group(
        o, ranks, module->tp, group_id(o->module, GROUP_TP, o->stage * module->dp + o->dp),
        troupe_module_group_bytes(&o->config->model, rows), &part->tp);
    troupe_free(ranks);
    TROUPE_TRY(status);
    return troupe_stage_create(
        &(struct troupe_stage_options){.module_class = module->module_class,
                                       .config = &o->config->model,
                                       .module = o->module,
                                       .shard = troupe_plan_shard(module, o->stage, o->tp),
                                       .dp_index = o->dp,
                                       .dp_count = module->dp,
                                       .slots = o->slots,
                                       .plan = o->samples,
                                       .source = o->source,
                                       .stream = o->stream,
                                       .tp = part->tp},
        &part->stage);
}

static troupe_status make_optimizer(struct troupe_part *part, const struct troupe_part_options *o) {
    return troupe_optimizer_create(
        &(struct troupe_optimizer_options){
            .stream = o->stream,
            .kernels = troupe_kernels_for(troupe_device_kind(troupe_stream_device(o->stream))),
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
    TROUPE_TRY_FAIL(make_stage(part, o));
    TROUPE_TRY_FAIL(make_replica_groups(part, o));
    TROUPE_TRY_FAIL(make_runs(part, o));
    TROUPE_TRY_FAIL(make_optimizer(part, o));
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
    troupe_optimizer_destroy(part->optimizer);
    troupe_free(part->runs);
    troupe_stage_destroy(part->stage);
    troupe_group_destroy(part->tied);
    troupe_group_destroy(part->dp);
    troupe_group_destroy(part->tp);
    troupe_free(part);
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
    for (int i = 0; i < part->run_count; i++) {
        struct troupe_gradient_run *run = &part->runs[i];
        TROUPE_TRY(troupe_firing_all_reduce(firing, run->group, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32,
                                            run->data, run->count, &run->operation));
    }
    return TROUPE_OK;
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
