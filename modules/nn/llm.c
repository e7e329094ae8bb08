/* SPDX-License-Identifier: Apache-2.0
 *
 * The language model: decoder-only transformer with RMSNorm, rotary positions, grouped-query
 * attention and SwiGLU, without biases, as LLaMA (Touvron et al., 2023); the head is the token
 * embedding's transpose unless untied. Image rows take the place of token embeddings at the rows
 * that the batch names.
 *
 * Legend: R fused rows, P image rows, C columns, V vocabulary rows of this shard. TP splits heads,
 * inner columns and vocabulary. PP splits layers: the first stage embeds, the last one has the
 * final norm, the head and the loss; a tied embedding then lives on both.
 */
#include "modules/nn/classes_internal.h"
#include "modules/nn/head_internal.h"
#include "modules/nn/stack_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

static const double embedding_deviation = 0.02;

struct slot {
    int64_t rows;
    struct stack_slot stack;
    struct head_slot head;
};

struct troupe_module {
    struct context context;
    struct troupe_shard shard;
    struct troupe_llm_config config;
    int embedding; /* parameter (vocabulary, C) */
    struct stack stack;
    struct head head;
    struct troupe_tensor rope; /* (sequence, D) angles */
    bool inference;
    int slot_count;
    struct slot *slots;
};

static int layer_count(const struct troupe_model_config *config) {
    return config->llm.layers;
}

static int64_t input_columns(const struct troupe_model_config *config,
                             const struct troupe_shard *shard) {
    (void)shard;
    return config->llm.hidden;
}

static int64_t output_columns(const struct troupe_model_config *config,
                              const struct troupe_shard *shard) {
    return shard->last_stage ? 0 : config->llm.hidden;
}

static troupe_status at_least_tp(const char *key, int value, int tp_count) {
    if (value < tp_count) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s %d is less than tp %d", key, value, tp_count);
    }
    return TROUPE_OK;
}

static troupe_status check(const struct troupe_model_config *config, int tp_count) {
    TROUPE_TRY(heads_check("llm.heads", config->llm.heads, tp_count));
    TROUPE_TRY(heads_check("llm.kv_heads", config->llm.kv_heads, tp_count));
    TROUPE_TRY(at_least_tp("llm.ffn", config->llm.ffn, tp_count));
    return at_least_tp("llm.vocabulary", config->llm.vocabulary, tp_count);
}

static struct stack_shape stack_shape(const struct troupe_llm_config *config,
                                      const struct troupe_shard *shard) {
    return (struct stack_shape){.module = "llm",
                                .layers = config->layers,
                                .layer_begin = shard->layer_begin,
                                .layer_end = shard->layer_end,
                                .hidden = config->hidden,
                                .heads = config->heads,
                                .kv_heads = config->kv_heads,
                                .ffn = config->ffn,
                                .norm = NORM_RMS,
                                .epsilon = config->norm_eps,
                                .causal = true,
                                .segment_rows_max = config->sequence};
}

static int declare_vocabulary(struct troupe_module *module, const char *name) {
    struct troupe_parameter_spec spec = {
        .shape = {module->config.vocabulary, module->config.hidden},
        .dimensions = 2,
        .tp_dimension = 0,
        .init = TROUPE_INIT_NORMAL,
        .init_scale = embedding_deviation,
        .decay = true};
    return parameter_declare(&module->context.parameters, "llm", name, &spec);
}

static void declare(struct troupe_module *module) {
    const struct troupe_llm_config *config = &module->config;
    bool tied_here = module->shard.last_stage && !config->untied;
    module->stack.shape = stack_shape(config, &module->shard);
    if (module->shard.first_stage || tied_here) {
        module->embedding = declare_vocabulary(module, "embedding.weight");
    }
    stack_declare(&module->stack, &module->context);
    if (module->shard.last_stage) {
        int weight = tied_here ? module->embedding : declare_vocabulary(module, "head.weight");
        module->head.norm = (struct norm){.kind = NORM_RMS, .epsilon = (float)config->norm_eps};
        head_declare(&module->head, &module->context, config->vocabulary, config->hidden, weight);
    }
}

static int specs(const struct troupe_model_config *config, const struct troupe_shard *shard,
                 struct troupe_parameter_spec *out) {
    struct troupe_module module = {
        .context = context_for_specs(shard, out), .shard = *shard, .config = config->llm};
    declare(&module);
    return module.context.parameters.count;
}

static struct segments segments_of(const struct troupe_module *module,
                                   const struct troupe_language_batch *batch) {
    return (struct segments){.cu_len = batch->cu_len,
                             .count = batch->samples,
                             .rope = module->rope,
                             .positions = batch->positions};
}

/* The layers, and on the last stage the head on the rows with a target. */
static double flops(const struct troupe_model_config *config, const struct troupe_shard *shard,
                    const struct troupe_module_task *task) {
    const struct troupe_language_batch *batch = task->language;
    struct stack_shape shape = stack_shape(&config->llm, shard);
    struct segments segments = {.cu_len = batch->cu_len, .count = batch->samples};
    double head = shard->last_stage ? 2 * (double)batch->targets_count * config->llm.hidden *
                                          config->llm.vocabulary
                                    : 0;
    return head + stack_flops(&shape, &segments, batch->rows);
}

static void carve(struct troupe_module *module, int64_t rows_max, bool inference) {
    struct slab *slab = &module->context.activations;
    int64_t head_dim = module->config.hidden / module->config.heads;
    for (int i = 0; i < module->slot_count; i++) {
        struct slot *slot = &module->slots[i];
        stack_carve(&module->stack, slab, rows_max, inference, &slot->stack);
        if (module->shard.last_stage) {
            head_carve(&module->head, slab, rows_max, inference, &slot->head);
        }
    }
    stack_carve_scratch(&module->stack, &module->context, slab, rows_max, inference);
    module->rope = matrix(slab_take(slab, module->config.sequence * head_dim),
                          module->config.sequence, head_dim);
}

static void destroy(troupe_module *module) {
    if (module == NULL) {
        return;
    }
    for (int i = 0; module->slots != NULL && i < module->slot_count; i++) {
        stack_slot_destroy(&module->slots[i].stack);
    }
    context_fini(&module->context);
    stack_destroy(&module->stack);
    troupe_free(module->slots);
    troupe_free(module);
}

static troupe_status build(struct troupe_module *module,
                           const struct troupe_module_options *options) {
    struct context *context = &module->context;
    context_init(context, options);
    module->shard = options->shard;
    module->config = options->config->llm;
    module->inference = options->inference;
    declare(module);
    TROUPE_TRY(parameters_prepare(context));
    TROUPE_TRY(stack_create(&module->stack));
    declare(module);
    TROUPE_TRY(parameters_create(context, options->inference));
    if (module->shard.last_stage && !module->shard.first_stage && !module->config.untied) {
        context->parameters.list[module->embedding].tied_copy = true;
    }
    module->slot_count = options->slots;
    TROUPE_TRY(TROUPE_NEW(&module->slots, options->slots));
    for (int i = 0; i < options->slots; i++) {
        TROUPE_TRY(stack_slot_create(&module->stack, &module->slots[i].stack));
    }
    carve(module, options->rows_max, options->inference);
    TROUPE_TRY(slab_create(&context->activations, options->stream));
    carve(module, options->rows_max, options->inference);
    struct troupe_rope_table table = {.table = module->rope, .base = module->config.rope_theta};
    return context->kernels->rope_table(options->stream, &table);
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

static int32_t vocabulary_begin(const struct troupe_module *module) {
    return (int32_t)module->context.parameters.list[module->embedding].begin[0];
}

/* Token embeddings, then the image rows in their places. x: (R, C); a row of a picture has token
 * -1 and so starts as zeros. */
static troupe_status embed(const struct troupe_module *module,
                           const struct troupe_module_task *task, struct troupe_tensor x) {
    const struct context *context = &module->context;
    const struct troupe_language_batch *batch = task->language;
    struct troupe_embedding embedding = {
        .table = parameter_value(&context->parameters, module->embedding, 1),
        .tokens = batch->token_ids,
        .begin = vocabulary_begin(module),
        .y = x};
    TROUPE_TRY(context->kernels->embedding(context->stream, &embedding));
    TROUPE_TRY(tensor_sum(context, x));
    if (batch->image_tokens == 0) {
        return TROUPE_OK;
    }
    struct troupe_rows place = {.from = task->inputs[0],
                                .to = x,
                                .to_index = batch->image_rows,
                                .count = batch->image_tokens};
    return context->kernels->rows_copy(context->stream, &place);
}

static troupe_status forward(troupe_module *module, const struct troupe_module_task *task) {
    const struct context *context = &module->context;
    struct slot *slot = slot_of(module, task);
    slot->rows = task->language->rows;
    struct segments segments = segments_of(module, task->language);
    struct troupe_tensor x = stack_input(&module->stack, &slot->stack, slot->rows);
    struct troupe_tensor y = stack_output(&module->stack, &slot->stack, slot->rows);
    TROUPE_TRY(module->shard.first_stage ? embed(module, task, x)
                                         : tensor_copy(context, task->inputs[0], x));
    TROUPE_TRY(stack_forward(&module->stack, context, &slot->stack, &segments, slot->rows));
    if (!module->shard.last_stage) {
        return tensor_copy(context, y, task->outputs[0]);
    }
    TROUPE_ASSERT(task->logits == NULL || module->inference, "logits of a model in training");
    if (task->loss_sum != NULL) {
        TROUPE_TRY(
            head_forward(&module->head, context, &slot->head, task->language, y, task->loss_sum));
    }
    if (task->logits != NULL) {
        TROUPE_TRY(
            head_logits(&module->head, context, &slot->head, task->language, y, task->logits));
    }
    return TROUPE_OK;
}

/* The image rows' gradient, or on later stages every row's. */
static troupe_status give_input_gradient(const struct troupe_module *module,
                                         const struct troupe_module_task *task,
                                         struct troupe_tensor dx) {
    const struct context *context = &module->context;
    if (!module->shard.first_stage) {
        return tensor_copy(context, dx, task->input_gradients[0]);
    }
    if (task->language->image_tokens == 0) {
        return TROUPE_OK;
    }
    struct troupe_rows pick = {.from = dx,
                               .from_index = task->language->image_rows,
                               .to = task->input_gradients[0],
                               .count = task->language->image_tokens};
    return context->kernels->rows_copy(context->stream, &pick);
}

static troupe_status backward_input(troupe_module *module, const struct troupe_module_task *task) {
    const struct context *context = &module->context;
    struct slot *slot = slot_of(module, task);
    struct segments segments = segments_of(module, task->language);
    struct troupe_tensor dy = stack_output_gradient(&module->stack, &slot->stack, slot->rows);
    if (module->shard.last_stage) {
        TROUPE_TRY(head_backward_input(&module->head, context, &slot->head,
                                       module->stack.scratch.branch, dy));
    } else {
        TROUPE_TRY(tensor_copy(context, task->output_gradients[0], dy));
    }
    TROUPE_TRY(stack_backward_input(&module->stack, context, &slot->stack, &segments, slot->rows));
    return give_input_gradient(module, task,
                               stack_input_gradient(&module->stack, &slot->stack, slot->rows));
}

static troupe_status backward_weight(troupe_module *module, const struct troupe_module_task *task) {
    const struct context *context = &module->context;
    struct slot *slot = slot_of(module, task);
    if (module->shard.last_stage) {
        TROUPE_TRY(head_backward_weight(&module->head, context, &slot->head));
    }
    TROUPE_TRY(stack_backward_weight(&module->stack, context, &slot->stack, slot->rows));
    if (!module->shard.first_stage) {
        return TROUPE_OK;
    }
    struct troupe_embedding_backward embedding = {
        .dy = stack_input_gradient(&module->stack, &slot->stack, slot->rows),
        .tokens = task->language->token_ids,
        .begin = vocabulary_begin(module),
        .dtable = parameter_gradient(&context->parameters, module->embedding, 1)};
    return context->kernels->embedding_backward(context->stream, &embedding);
}

const struct troupe_module_class troupe_llm_class = {
    .name = "llm",
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
