/* SPDX-License-Identifier: Apache-2.0
 *
 * The projector: a two-layer MLP with GELU and biases from the encoder's columns to the language
 * model's. The smallest module class; copy it for a new one.
 *
 * Legend: R rows, E encoder columns, C language model columns.
 */
#include "modules/nn/classes_internal.h"
#include "modules/nn/mlp_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

struct slot {
    int64_t rows;
    float *x;  /* (R, E) */
    float *dy; /* (R, C) */
    struct mlp_slot mlp;
};

struct troupe_module {
    struct context context;
    struct mlp mlp;
    int64_t in;
    int64_t out;
    int slot_count;
    struct slot *slots;
    float *scratch; /* rows_max * inner */
};

static int layer_count(const struct troupe_model_config *config) {
    (void)config;
    return 1;
}

static int64_t input_columns(const struct troupe_model_config *config,
                             const struct troupe_shard *shard) {
    (void)shard;
    return config->vision.hidden;
}

static int64_t output_columns(const struct troupe_model_config *config,
                              const struct troupe_shard *shard) {
    (void)shard;
    return config->llm.hidden;
}

static troupe_status check(const struct troupe_model_config *config, int tp_count) {
    if (config->projector.hidden < tp_count) {
        return troupe_fail(TROUPE_ERROR_INVALID, "projector.hidden %d is less than tp %d",
                           config->projector.hidden, tp_count);
    }
    return TROUPE_OK;
}

static void declare(struct troupe_module *module, const struct troupe_model_config *config) {
    module->in = config->vision.hidden;
    module->out = config->llm.hidden;
    mlp_declare(&module->mlp, &module->context,
                &(struct mlp_shape){.prefix = "projector",
                                    .in = module->in,
                                    .inner = config->projector.hidden,
                                    .out = module->out,
                                    .down_gain = LINEAR_GAIN});
}

static int specs(const struct troupe_model_config *config, const struct troupe_shard *shard,
                 struct troupe_parameter_spec *out) {
    struct troupe_module module = {.context = context_for_specs(shard, out)};
    declare(&module, config);
    return module.context.parameters.count;
}

static double flops(const struct troupe_model_config *config, const struct troupe_shard *shard,
                    const struct troupe_module_task *task) {
    (void)shard;
    double weights =
        (double)config->projector.hidden * (config->vision.hidden + config->llm.hidden);
    return 2 * weights * (double)task->vision->patches;
}

static void carve(struct troupe_module *module, int64_t rows_max, bool inference) {
    struct slab *slab = &module->context.activations;
    for (int i = 0; i < module->slot_count; i++) {
        struct slot *slot = &module->slots[i];
        slot->x = slab_take(slab, rows_max * module->in);
        slot->dy = inference ? NULL : slab_take(slab, rows_max * module->out);
        mlp_carve(&module->mlp, slab, rows_max, &slot->mlp);
    }
    module->scratch = inference ? NULL : slab_take(slab, rows_max * module->mlp.inner);
}

static void destroy(troupe_module *module) {
    if (module == NULL) {
        return;
    }
    context_fini(&module->context);
    troupe_free(module->slots);
    troupe_free(module);
}

static troupe_status build(struct troupe_module *module,
                           const struct troupe_module_options *options) {
    context_init(&module->context, options);
    declare(module, options->config);
    TROUPE_TRY(parameters_prepare(&module->context));
    declare(module, options->config);
    TROUPE_TRY(parameters_create(&module->context, options->inference));
    module->slot_count = options->slots;
    TROUPE_TRY(TROUPE_NEW(&module->slots, options->slots));
    carve(module, options->rows_max, options->inference);
    TROUPE_TRY(slab_create(&module->context.activations, options->stream));
    carve(module, options->rows_max, options->inference);
    return TROUPE_OK;
}

static troupe_status create(const struct troupe_module_options *options, troupe_module **out) {
    TROUPE_TRY(check(options->config, options->shard.tp_count));
    struct troupe_module *module = NULL;
    TROUPE_TRY(TROUPE_NEW(&module, 1));
    troupe_status status = build(module, options);
    if (status != TROUPE_OK) {
        destroy(module);
        return status;
    }
    *out = module;
    return TROUPE_OK;
}

static int parameters(troupe_module *module, struct troupe_parameter **out) {
    *out = module->context.parameters.list;
    return module->context.parameters.count;
}

static struct slot *slot_of(struct troupe_module *module, const struct troupe_module_task *task) {
    TROUPE_ASSERT(task->slot >= 0 && task->slot < module->slot_count, "slot %d of %d", task->slot,
                  module->slot_count);
    return &module->slots[task->slot];
}

static troupe_status forward(troupe_module *module, const struct troupe_module_task *task) {
    struct slot *slot = slot_of(module, task);
    slot->rows = task->inputs[0].rows;
    struct troupe_tensor x = matrix(slot->x, slot->rows, module->in);
    TROUPE_TRY(tensor_copy(&module->context, task->inputs[0], x));
    return mlp_forward(&module->mlp, &module->context, &slot->mlp, x, task->outputs[0]);
}

static troupe_status backward_input(troupe_module *module, const struct troupe_module_task *task) {
    struct slot *slot = slot_of(module, task);
    struct troupe_tensor dy = matrix(slot->dy, slot->rows, module->out);
    TROUPE_TRY(tensor_copy(&module->context, task->output_gradients[0], dy));
    return mlp_backward_input(&module->mlp, &module->context, &slot->mlp, module->scratch, dy,
                              task->input_gradients[0]);
}

static troupe_status backward_weight(troupe_module *module, const struct troupe_module_task *task) {
    struct slot *slot = slot_of(module, task);
    return mlp_backward_weight(&module->mlp, &module->context, &slot->mlp,
                               matrix(slot->x, slot->rows, module->in),
                               matrix(slot->dy, slot->rows, module->out));
}

const struct troupe_module_class troupe_projector_class = {
    .name = "projector",
    .layer_count = layer_count,
    .input_columns = input_columns,
    .output_columns = output_columns,
    .check = check,
    .specs = specs,
    .flops = flops,
    .create = create,
    .destroy = destroy,
    .parameters = parameters,
    .forward = forward,
    .backward_input = backward_input,
    .backward_weight = backward_weight,
};
