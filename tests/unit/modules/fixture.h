/* SPDX-License-Identifier: Apache-2.0
 *
 * A tiny whole model (vision, projector, language model in any number of stages) on one rank, and
 * ragged batches for it: 0..2 pictures a sample, text-only samples among them.
 *
 *     fixture_batch_fill(&batch, &config, &(struct fixture_shape){.seed = 1, .samples = 4});
 *     fixture_model_open(&model, &(struct fixture_options){.config = &config, ...});
 *     fixture_forward(&model, &batch, slot);  fixture_backward_input(...);
 * fixture_backward_weight(...)
 */
#ifndef TROUPE_TESTS_FIXTURE_H
#define TROUPE_TESTS_FIXTURE_H

#include "modules/data/tokenizer.h"
#include "modules/nn/module.h"
#include "runtime/memory.h"
#include "runtime/random.h"
#include "tests/test.h"

enum {
    FIXTURE_SAMPLES = 8,
    FIXTURE_IMAGES = 16,
    FIXTURE_ROWS = 512,
    FIXTURE_PATCHES = 256,
    FIXTURE_PIXELS = 1 << 17,
    FIXTURE_STAGES = 4,
    FIXTURE_SLOTS = 3,
    FIXTURE_HIDDEN = 64,
};

struct fixture_batch {
    struct troupe_language_batch language;
    struct troupe_vision_batch vision;
    int32_t cu_len[FIXTURE_SAMPLES + 1];
    int32_t token_ids[FIXTURE_ROWS], targets[FIXTURE_ROWS], positions[FIXTURE_ROWS];
    int32_t image_rows[FIXTURE_PATCHES];
    int32_t image_cu_len[FIXTURE_IMAGES + 1];
    int32_t grid_rows[FIXTURE_IMAGES], grid_columns[FIXTURE_IMAGES];
    uint8_t pixels[FIXTURE_PIXELS];
};

struct fixture_shape {
    uint64_t seed;
    int samples;
    bool text_only;
};

/* Sizes that nothing divides by accident: GQA, vocabulary 53, ffn 26. */
static inline struct troupe_model_config fixture_config(bool untied) {
    struct troupe_model_config config = {
        .vision = {.layers = 2, .hidden = 24, .heads = 3, .ffn = 37, .patch = 2, .image = 8},
        .projector = {.hidden = 29},
        .llm = {.layers = 3,
                .hidden = 32,
                .heads = 4,
                .kv_heads = 2,
                .ffn = 43,
                .sequence = 64,
                .vocabulary = 53,
                .untied = untied}};
    EXPECT_OK(troupe_model_config_resolve(&config));
    return config;
}

static inline int fixture_below(const struct fixture_shape *shape, uint64_t stream, uint64_t *count,
                                int bound) {
    return (int)troupe_random_below(shape->seed, stream, (*count)++, (uint64_t)bound);
}

static inline void fixture_row(struct fixture_batch *batch, int sample, int token, int target) {
    int64_t row = batch->language.rows++;
    EXPECT(row < FIXTURE_ROWS);
    batch->token_ids[row] = token;
    batch->targets[row] = target;
    batch->positions[row] = (int32_t)row - batch->cu_len[sample];
    batch->language.targets_count += target >= 0;
}

static inline void fixture_image(struct fixture_batch *batch, int sample, int rows, int columns) {
    int64_t image = batch->vision.images++;
    batch->grid_rows[image] = rows;
    batch->grid_columns[image] = columns;
    for (int patch = 0; patch < rows * columns; patch++) {
        batch->image_rows[batch->vision.patches++] = (int32_t)batch->language.rows;
        fixture_row(batch, sample, -1, -1);
    }
    EXPECT(batch->vision.patches <= FIXTURE_PATCHES);
    batch->image_cu_len[image + 1] = (int32_t)batch->vision.patches;
}

static inline void fixture_batch_fill(struct fixture_batch *batch,
                                      const struct troupe_model_config *config,
                                      const struct fixture_shape *shape) {
    uint64_t count = 0;
    int side = config->vision.image / config->vision.patch;
    memset(batch, 0, sizeof(*batch));
    for (int s = 0; s < shape->samples; s++) {
        fixture_row(batch, s, fixture_below(shape, 1, &count, config->llm.vocabulary), -1);
        int images = shape->text_only ? 0 : (s + 1) % 3;
        for (int i = 0; i < images; i++) {
            int rows = 1 + fixture_below(shape, 1, &count, side);
            fixture_image(batch, s, rows, 1 + fixture_below(shape, 1, &count, side));
        }
        int text = 2 + fixture_below(shape, 1, &count, 9);
        for (int t = 0; t < text; t++) {
            int token = fixture_below(shape, 1, &count, config->llm.vocabulary);
            batch->targets[batch->language.rows - 1] = token; /* of the row before */
            batch->language.targets_count++;
            fixture_row(batch, s, token, -1);
        }
        batch->cu_len[s + 1] = (int32_t)batch->language.rows;
    }
    int64_t bytes = batch->vision.patches * config->vision.patch * config->vision.patch * 3;
    EXPECT(bytes <= FIXTURE_PIXELS);
    for (int64_t i = 0; i < bytes; i++) {
        batch->pixels[i] = (uint8_t)troupe_random_below(shape->seed, 2, (uint64_t)i, 256);
    }
    batch->language.samples = shape->samples;
    batch->language.image_tokens = batch->vision.patches;
    batch->language.cu_len = batch->cu_len;
    batch->language.token_ids = batch->token_ids;
    batch->language.targets = batch->targets;
    batch->language.positions = batch->positions;
    batch->language.image_rows = batch->image_rows;
    batch->language.step_targets = batch->language.targets_count;
    batch->vision.patch = config->vision.patch;
    batch->vision.cu_len = batch->image_cu_len;
    batch->vision.grid_rows = batch->grid_rows;
    batch->vision.grid_columns = batch->grid_columns;
    batch->vision.pixels = batch->pixels;
}

/* vision, projector, then the language model's stages. */
struct fixture_model {
    const struct troupe_model_config *config;
    troupe_device *device;
    troupe_stream *stream;
    int module_count;
    const struct troupe_module_class *classes[2 + FIXTURE_STAGES];
    struct troupe_shard shards[2 + FIXTURE_STAGES];
    troupe_module *modules[2 + FIXTURE_STAGES];
    /* Output of module i in a slot and its gradient; reused as the next one's input. */
    float *outputs[2 + FIXTURE_STAGES];
    float *gradients[2 + FIXTURE_STAGES];
    bool inference;
    double *loss_sum;
    float *logits;
};

struct fixture_options {
    const struct troupe_model_config *config;
    int tp_index;
    int tp_count; /* 0 means 1 */
    troupe_group *tp;
    int stages; /* of the language model; 0 means 1 */
    bool inference;
    uint64_t seed; /* of the weights */
    enum troupe_device_kind kind;
};

static inline void fixture_module_open(struct fixture_model *model, int i,
                                       const struct fixture_options *options) {
    struct troupe_module_options create = {.config = options->config,
                                           .shard = model->shards[i],
                                           .slots = FIXTURE_SLOTS,
                                           .rows_max = i < 2 ? FIXTURE_PATCHES : FIXTURE_ROWS,
                                           .samples_max = FIXTURE_SAMPLES,
                                           .images_max = FIXTURE_IMAGES,
                                           .inference = options->inference,
                                           .stream = model->stream,
                                           .kernels = troupe_kernels_for(options->kind),
                                           .tp = options->tp};
    EXPECT_OK(model->classes[i]->create(&create, &model->modules[i]));
    struct troupe_parameter *list = NULL;
    int count = model->classes[i]->parameters(model->modules[i], &list);
    EXPECT_OK(troupe_parameters_init(model->stream, list, count, options->seed));
    size_t bytes = sizeof(float) * FIXTURE_SLOTS * FIXTURE_ROWS * FIXTURE_HIDDEN;
    EXPECT_OK(troupe_device_alloc(model->device, bytes, (void **)&model->outputs[i]));
    EXPECT_OK(troupe_device_alloc(model->device, bytes, (void **)&model->gradients[i]));
}

static inline void fixture_model_open(struct fixture_model *model,
                                      const struct fixture_options *options) {
    const struct troupe_module_class *const *classes = troupe_module_classes();
    int stages = options->stages == 0 ? 1 : options->stages;
    int tp_count = options->tp_count == 0 ? 1 : options->tp_count;
    *model = (struct fixture_model){
        .config = options->config, .module_count = 2 + stages, .inference = options->inference};
    EXPECT_OK(
        troupe_device_open(options->kind, &(struct troupe_device_options){0}, &model->device));
    EXPECT_OK(troupe_stream_create(model->device, &model->stream));
    size_t logits = sizeof(float) * FIXTURE_SAMPLES * (size_t)options->config->llm.vocabulary;
    EXPECT_OK(troupe_device_alloc(model->device, logits, (void **)&model->logits));
    EXPECT_OK(troupe_device_alloc_host(model->device, sizeof(double), (void **)&model->loss_sum));
    for (int i = 0; i < model->module_count; i++) {
        const struct troupe_module_class *class = classes[i < 2 ? i : 2];
        int layers = class->layer_count(options->config);
        int part = i < 2 ? 0 : i - 2;
        int parts = i < 2 ? 1 : stages;
        model->classes[i] = class;
        model->shards[i] = (struct troupe_shard){.tp_index = options->tp_index,
                                                 .tp_count = tp_count,
                                                 .layer_begin = layers * part / parts,
                                                 .layer_end = layers * (part + 1) / parts,
                                                 .first_stage = part == 0,
                                                 .last_stage = part == parts - 1};
        fixture_module_open(model, i, options);
    }
}

static inline void fixture_model_close(struct fixture_model *model) {
    for (int i = 0; i < model->module_count; i++) {
        model->classes[i]->destroy(model->modules[i]);
        troupe_device_free(model->device, model->outputs[i]);
        troupe_device_free(model->device, model->gradients[i]);
    }
    troupe_device_free(model->device, model->logits);
    troupe_device_free_host(model->device, model->loss_sum);
    troupe_stream_destroy(model->stream);
    troupe_device_close(model->device);
}

/* Boundary tensor i in a slot: rows of pictures up to the projector, fused rows behind. */
static inline struct troupe_tensor fixture_port(const struct fixture_model *model,
                                                float *const *memory, int i,
                                                const struct fixture_batch *batch, int slot) {
    int64_t columns = model->classes[i]->output_columns(model->config, &model->shards[i]);
    int64_t rows = i < 2 ? batch->vision.patches : batch->language.rows;
    return (struct troupe_tensor){memory[i] + (int64_t)slot * FIXTURE_ROWS * FIXTURE_HIDDEN, rows,
                                  columns, columns, TROUPE_FLOAT32};
}

enum fixture_method { FIXTURE_FORWARD, FIXTURE_BACKWARD_INPUT, FIXTURE_BACKWARD_WEIGHT };

static inline void fixture_fire(struct fixture_model *model, int i, enum fixture_method method,
                                const struct fixture_batch *batch, int slot) {
    const struct troupe_module_class *class = model->classes[i];
    struct troupe_tensor input = {0}, input_gradient = {0};
    if (i > 0) {
        input = fixture_port(model, model->outputs, i - 1, batch, slot);
        input_gradient = fixture_port(model, model->gradients, i - 1, batch, slot);
    }
    struct troupe_tensor output = fixture_port(model, model->outputs, i, batch, slot);
    struct troupe_tensor output_gradient = fixture_port(model, model->gradients, i, batch, slot);
    bool last = i == model->module_count - 1;
    struct troupe_module_task task = {.slot = slot,
                                      .vision = &batch->vision,
                                      .language = &batch->language,
                                      .inputs = &input,
                                      .outputs = &output,
                                      .output_gradients = &output_gradient,
                                      .input_gradients = &input_gradient,
                                      .loss_sum = last ? model->loss_sum : NULL,
                                      .logits = last && model->inference ? model->logits : NULL};
    EXPECT_OK(method == FIXTURE_FORWARD ? class->forward(model->modules[i], &task)
              : method == FIXTURE_BACKWARD_INPUT
                  ? class->backward_input(model->modules[i], &task)
                  : class->backward_weight(model->modules[i], &task));
}

/* Returns the loss sum, for which it waits. */
static inline double fixture_forward(struct fixture_model *model, const struct fixture_batch *batch,
                                     int slot) {
    for (int i = 0; i < model->module_count; i++) {
        fixture_fire(model, i, FIXTURE_FORWARD, batch, slot);
    }
    EXPECT_OK(troupe_stream_synchronize(model->stream));
    return *model->loss_sum;
}

static inline void fixture_backward_input(struct fixture_model *model,
                                          const struct fixture_batch *batch, int slot) {
    for (int i = model->module_count - 1; i >= 0; i--) {
        fixture_fire(model, i, FIXTURE_BACKWARD_INPUT, batch, slot);
    }
}

static inline void fixture_backward_weight(struct fixture_model *model,
                                           const struct fixture_batch *batch, int slot) {
    for (int i = 0; i < model->module_count; i++) {
        fixture_fire(model, i, FIXTURE_BACKWARD_WEIGHT, batch, slot);
    }
}

static inline int fixture_parameters(struct fixture_model *model, int i,
                                     struct troupe_parameter **out) {
    return model->classes[i]->parameters(model->modules[i], out);
}

static inline void fixture_zero_gradients(struct fixture_model *model) {
    for (int i = 0; i < model->module_count; i++) {
        struct troupe_parameter *list = NULL;
        int count = fixture_parameters(model, i, &list);
        EXPECT_OK(troupe_gradients_zero(model->stream, list, count));
    }
}

/* Zeroed gradients, then one microbatch from forward to backward_weight in slot 0, during which an
 * allocation aborts. */
static inline double fixture_step(struct fixture_model *model, const struct fixture_batch *batch) {
    fixture_zero_gradients(model);
    troupe_memory_set_steady(true);
    double loss = fixture_forward(model, batch, 0);
    fixture_backward_input(model, batch, 0);
    fixture_backward_weight(model, batch, 0);
    troupe_memory_set_steady(false);
    return loss;
}

#endif
