/* SPDX-License-Identifier: Apache-2.0
 *
 * The vision encoder: a ViT (Dosovitskiy et al., 2021) without class token over ragged pictures.
 * Patches are embedded with a bias, get a learned position embedding by their row and column in the
 * image / patch grid, attend to all patches of their picture, and pass a final LayerNorm. One
 * output row per patch.
 *
 * Legend: P patches (rows), C columns. TP splits heads and inner columns; patch and position
 * embedding and norms are the same on every member.
 */
#include "modules/nn/classes_internal.h"
#include "modules/nn/stack_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

static const double norm_epsilon = 1e-5;
static const double position_deviation = 0.02;

struct slot {
    int64_t rows;
    float *patches;     /* (P, patch * patch * 3), normalised pixels */
    int32_t *positions; /* (P) row of the position table */
    struct stack_slot stack;
    struct norm_slot norm;
    float *dy; /* (P, C) gradient of the final norm's output */
};

struct troupe_module {
    struct context context;
    struct troupe_shard shard;
    struct troupe_vision_config config;
    struct linear patch;
    int position; /* parameter (grid, grid, C) */
    struct stack stack;
    struct norm norm;
    int slot_count;
    struct slot *slots;
    int64_t images_max;
    struct troupe_pixels *images;
};

static int layer_count(const struct troupe_model_config *config) {
    return config->vision.layers;
}

static int64_t input_columns(const struct troupe_model_config *config,
                             const struct troupe_shard *shard) {
    return shard->first_stage ? 0 : config->vision.hidden;
}

static int64_t output_columns(const struct troupe_model_config *config,
                              const struct troupe_shard *shard) {
    (void)shard;
    return config->vision.hidden;
}

static troupe_status check(const struct troupe_model_config *config, int tp_count) {
    TROUPE_TRY(heads_check("vision.heads", config->vision.heads, tp_count));
    if (config->vision.ffn < tp_count) {
        return troupe_fail(TROUPE_ERROR_INVALID, "vision.ffn %d is less than tp %d",
                           config->vision.ffn, tp_count);
    }
    return TROUPE_OK;
}

static int grid_side(const struct troupe_vision_config *config) {
    return config->image / config->patch;
}

static int64_t patch_columns(const struct troupe_vision_config *config) {
    return (int64_t)config->patch * config->patch * 3;
}

static struct stack_shape stack_shape(const struct troupe_vision_config *config,
                                      const struct troupe_shard *shard) {
    int64_t grid = grid_side(config);
    return (struct stack_shape){.module = "vision",
                                .layers = config->layers,
                                .layer_begin = shard->layer_begin,
                                .layer_end = shard->layer_end,
                                .hidden = config->hidden,
                                .heads = config->heads,
                                .kv_heads = config->heads,
                                .ffn = config->ffn,
                                .norm = NORM_LAYER,
                                .epsilon = norm_epsilon,
                                .segment_rows_max = grid * grid};
}

static void declare(struct troupe_module *module) {
    const struct troupe_vision_config *config = &module->config;
    module->stack.shape = stack_shape(config, &module->shard);
    module->norm = (struct norm){.kind = NORM_LAYER, .epsilon = (float)norm_epsilon};
    if (module->shard.first_stage) {
        linear_declare(&module->patch, &module->context,
                       &(struct linear_shape){.prefix = "vision",
                                              .parts = {"patch"},
                                              .out = {config->hidden},
                                              .in = patch_columns(config),
                                              .split = LINEAR_WHOLE,
                                              .bias = true,
                                              .gain = LINEAR_GAIN});
        struct troupe_parameter_spec spec = {
            .shape = {grid_side(config), grid_side(config), config->hidden},
            .dimensions = 3,
            .tp_dimension = -1,
            .init = TROUPE_INIT_NORMAL,
            .init_scale = position_deviation,
            .decay = true};
        module->position =
            parameter_declare(&module->context.parameters, "vision", "position.weight", &spec);
    }
    stack_declare(&module->stack, &module->context);
    if (module->shard.last_stage) {
        norm_declare(&module->norm, &module->context, "vision.norm", config->hidden);
    }
}

static int specs(const struct troupe_model_config *config, const struct troupe_shard *shard,
                 struct troupe_parameter_spec *out) {
    struct troupe_module module = {
        .context = context_for_specs(shard, out), .shard = *shard, .config = config->vision};
    declare(&module);
    return module.context.parameters.count;
}

static struct segments segments_of(const struct troupe_vision_batch *batch) {
    return (struct segments){.cu_len = batch->cu_len, .count = batch->images};
}

/* The patch embedding and the layers. */
static double flops(const struct troupe_model_config *config, const struct troupe_shard *shard,
                    const struct troupe_module_task *task) {
    struct stack_shape shape = stack_shape(&config->vision, shard);
    struct segments segments = segments_of(task->vision);
    double rows = (double)task->vision->patches;
    double embedding = shard->first_stage ? 2 * rows * config->vision.hidden *
                                                (double)patch_columns(&config->vision)
                                          : 0;
    return embedding + stack_flops(&shape, &segments, task->vision->patches);
}

static void carve(struct troupe_module *module, int64_t rows_max, bool inference) {
    struct slab *slab = &module->context.activations;
    for (int i = 0; i < module->slot_count; i++) {
        struct slot *slot = &module->slots[i];
        if (module->shard.first_stage) {
            slot->patches = slab_take(slab, rows_max * patch_columns(&module->config));
            slot->positions = slab_take_int32(slab, rows_max);
        }
        stack_carve(&module->stack, slab, rows_max, inference, &slot->stack);
        if (module->shard.last_stage) {
            norm_carve(&module->norm, slab, rows_max, &slot->norm);
            slot->dy = inference ? NULL : slab_take(slab, rows_max * module->config.hidden);
        }
    }
    stack_carve_scratch(&module->stack, &module->context, slab, rows_max, inference);
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
    troupe_free(module->images);
    troupe_free(module->slots);
    troupe_free(module);
}

static troupe_status build(struct troupe_module *module,
                           const struct troupe_module_options *options) {
    context_init(&module->context, options);
    module->shard = options->shard;
    module->config = options->config->vision;
    declare(module);
    TROUPE_TRY(parameters_prepare(&module->context));
    TROUPE_TRY(stack_create(&module->stack));
    declare(module);
    TROUPE_TRY(parameters_create(&module->context, options->inference));
    module->images_max = options->images_max;
    TROUPE_TRY(TROUPE_NEW(&module->images, options->images_max));
    module->slot_count = options->slots;
    TROUPE_TRY(TROUPE_NEW(&module->slots, options->slots));
    for (int i = 0; i < options->slots; i++) {
        TROUPE_TRY(stack_slot_create(&module->stack, &module->slots[i].stack));
    }
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

/* The pictures of the batch as the kernels take them. */
static void find_images(struct troupe_module *module, const struct troupe_vision_batch *batch) {
    TROUPE_ASSERT(batch->images <= module->images_max, "%lld images of %lld",
                  (long long)batch->images, (long long)module->images_max);
    for (int64_t i = 0; i < batch->images; i++) {
        int32_t width = batch->grid_columns[i] * batch->patch;
        module->images[i] = (struct troupe_pixels){
            .pixels = batch->pixels + batch->cu_len[i] * patch_columns(&module->config),
            .stride_bytes = (int64_t)width * 3,
            .height = batch->grid_rows[i] * batch->patch,
            .width = width};
    }
}

static void find_positions(const struct troupe_module *module,
                           const struct troupe_vision_batch *batch, int32_t *positions) {
    int32_t side = grid_side(&module->config);
    int64_t row = 0;
    for (int64_t i = 0; i < batch->images; i++) {
        TROUPE_ASSERT(batch->grid_rows[i] <= side && batch->grid_columns[i] <= side,
                      "picture of %d x %d patches in a grid of %d", batch->grid_rows[i],
                      batch->grid_columns[i], side);
        for (int32_t y = 0; y < batch->grid_rows[i]; y++) {
            for (int32_t x = 0; x < batch->grid_columns[i]; x++) {
                positions[row++] = y * side + x;
            }
        }
    }
}

/* x = patches W^T + b + position. x: (P, C). */
static troupe_status embed(struct troupe_module *module, const struct troupe_vision_batch *batch,
                           struct slot *slot, struct troupe_tensor x) {
    const struct context *context = &module->context;
    struct troupe_tensor patches =
        matrix(slot->patches, slot->rows, patch_columns(&module->config));
    find_images(module, batch);
    find_positions(module, batch, slot->positions);
    /* Pixels in [-1, 1]. */
    struct troupe_patchify patchify = {.images = module->images,
                                       .image_count = batch->images,
                                       .patch = module->config.patch,
                                       .mean = {0.5f, 0.5f, 0.5f},
                                       .deviation = {0.5f, 0.5f, 0.5f},
                                       .out = patches};
    TROUPE_TRY(context->kernels->patchify(context->stream, &patchify));
    TROUPE_TRY(linear_forward(&module->patch, context, patches, x));
    struct troupe_rows add = {.from = parameter_value(&context->parameters, module->position, 1),
                              .from_index = slot->positions,
                              .to = x,
                              .count = slot->rows};
    return context->kernels->rows_add(context->stream, &add);
}

static troupe_status forward(troupe_module *module, const struct troupe_module_task *task) {
    const struct context *context = &module->context;
    struct slot *slot = slot_of(module, task);
    slot->rows = task->vision->patches;
    struct segments segments = segments_of(task->vision);
    struct troupe_tensor x = stack_input(&module->stack, &slot->stack, slot->rows);
    struct troupe_tensor y = stack_output(&module->stack, &slot->stack, slot->rows);
    if (module->shard.first_stage) {
        TROUPE_TRY(embed(module, task->vision, slot, x));
    } else {
        TROUPE_TRY(tensor_copy(context, task->inputs[0], x));
    }
    TROUPE_TRY(stack_forward(&module->stack, context, &slot->stack, &segments, slot->rows));
    if (!module->shard.last_stage) {
        return tensor_copy(context, y, task->outputs[0]);
    }
    return norm_forward(&module->norm, context, &slot->norm, y, task->outputs[0]);
}

static troupe_status backward_input(troupe_module *module, const struct troupe_module_task *task) {
    const struct context *context = &module->context;
    struct slot *slot = slot_of(module, task);
    struct segments segments = segments_of(task->vision);
    struct troupe_tensor y = stack_output(&module->stack, &slot->stack, slot->rows);
    struct troupe_tensor dx = stack_output_gradient(&module->stack, &slot->stack, slot->rows);
    if (module->shard.last_stage) {
        struct troupe_tensor dy = matrix(slot->dy, slot->rows, module->config.hidden);
        TROUPE_TRY(tensor_copy(context, task->output_gradients[0], dy));
        TROUPE_TRY(norm_backward_input(&module->norm, context, &slot->norm, y, dy, dx, false));
    } else {
        TROUPE_TRY(tensor_copy(context, task->output_gradients[0], dx));
    }
    TROUPE_TRY(stack_backward_input(&module->stack, context, &slot->stack, &segments, slot->rows));
    if (module->shard.first_stage) {
        return TROUPE_OK;
    }
    return tensor_copy(context, stack_input_gradient(&module->stack, &slot->stack, slot->rows),
                       task->input_gradients[0]);
}

static troupe_status embed_backward_weight(const struct troupe_module *module,
                                           const struct slot *slot) {
    const struct context *context = &module->context;
    struct troupe_tensor dx = stack_input_gradient(&module->stack, &slot->stack, slot->rows);
    TROUPE_TRY(linear_backward_weight(
        &module->patch, context, matrix(slot->patches, slot->rows, patch_columns(&module->config)),
        dx));
    struct troupe_rows add = {.from = dx,
                              .to = parameter_gradient(&context->parameters, module->position, 1),
                              .to_index = slot->positions,
                              .count = slot->rows};
    return context->kernels->rows_add(context->stream, &add);
}

static troupe_status backward_weight(troupe_module *module, const struct troupe_module_task *task) {
    const struct context *context = &module->context;
    struct slot *slot = slot_of(module, task);
    if (module->shard.last_stage) {
        TROUPE_TRY(norm_backward_weight(&module->norm, context, &slot->norm,
                                        stack_output(&module->stack, &slot->stack, slot->rows),
                                        matrix(slot->dy, slot->rows, module->config.hidden)));
    }
    TROUPE_TRY(stack_backward_weight(&module->stack, context, &slot->stack, slot->rows));
    return module->shard.first_stage ? embed_backward_weight(module, slot) : TROUPE_OK;
}

const struct troupe_module_class troupe_vision_class = {
    .name = "vision",
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
