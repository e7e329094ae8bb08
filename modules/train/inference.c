/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/inference.h"

#include <stdio.h>
#include <string.h>

#include "modules/data/microbatch.h"
#include "modules/data/tokenizer.h"
#include "modules/nn/module.h"
#include "modules/train/checkpoint.h"
#include "runtime/check.h"
#include "runtime/memory.h"

enum { SAMPLES_AT_ONCE = 16, VISION = 0, PROJECTOR = 1, LLM = 2 };

struct troupe_inference {
    struct troupe_config config;
    troupe_device *device;
    troupe_stream *stream;
    const struct troupe_module_class *classes[TROUPE_CONFIG_MODULES];
    troupe_module *modules[TROUPE_CONFIG_MODULES];
    float *features; /* (image rows, vision hidden) */
    float *images;   /* (image rows, llm hidden) */
    float *logits;   /* (1, vocabulary) */
    int32_t *tokens; /* token_ids, targets, positions, image_rows: sequence each */
};

static struct troupe_shard whole(const struct troupe_model_config *config,
                                 const struct troupe_module_class *class) {
    return (struct troupe_shard){.tp_count = 1,
                                 .layer_end = class->layer_count(config),
                                 .first_stage = true,
                                 .last_stage = true};
}

static int64_t image_tokens_max(const struct troupe_config *config) {
    int64_t side = config->model.vision.image / config->model.vision.patch;
    int64_t images = config->data.max_images > 0 ? config->data.max_images : 1;
    return side * side * images;
}

static troupe_status create_module(troupe_inference *model, int index) {
    const struct troupe_config *config = &model->config;
    const struct troupe_module_class *class = troupe_module_classes()[index];
    int64_t sample_rows = index == LLM ? config->model.llm.sequence : image_tokens_max(config);
    struct troupe_module_options options = {
        .config = &config->model,
        .shard = whole(&config->model, class),
        .slots = 1,
        .rows_max = SAMPLES_AT_ONCE * sample_rows,
        .samples_max = SAMPLES_AT_ONCE,
        .images_max = SAMPLES_AT_ONCE * (int64_t)config->data.max_images,
        .inference = true,
        .stream = model->stream,
        .kernels = troupe_kernels_for(TROUPE_DEVICE_CPU),
    };
    model->classes[index] = class;
    return class->create(&options, &model->modules[index]);
}

static troupe_status allocate(troupe_inference *model) {
    const struct troupe_model_config *config = &model->config.model;
    int64_t rows = SAMPLES_AT_ONCE * image_tokens_max(&model->config);
    TROUPE_TRY(TROUPE_NEW(&model->features, rows * config->vision.hidden));
    TROUPE_TRY(TROUPE_NEW(&model->images, rows * config->llm.hidden));
    TROUPE_TRY(TROUPE_NEW(&model->logits, config->llm.vocabulary));
    return TROUPE_NEW(&model->tokens, 4 * (int64_t)config->llm.sequence);
}

static troupe_status load_weights(troupe_inference *model, const char *checkpoint) {
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        struct troupe_parameter *parameters = NULL;
        int count = model->classes[i]->parameters(model->modules[i], &parameters);
        TROUPE_TRY(troupe_checkpoint_read_weights(checkpoint, parameters, count));
    }
    return TROUPE_OK;
}

static troupe_status open_model(troupe_inference *model, const char *checkpoint,
                                troupe_workers *workers) {
    char path[TROUPE_CONFIG_TEXT_BYTES + 32];
    snprintf(path, sizeof path, "%s/config.yaml", checkpoint);
    troupe_config_init(&model->config);
    TROUPE_TRY(troupe_config_read(&model->config, path));
    TROUPE_TRY(troupe_config_resolve(&model->config));
    TROUPE_TRY(troupe_device_open(
        TROUPE_DEVICE_CPU, &(struct troupe_device_options){.workers = workers}, &model->device));
    TROUPE_TRY(troupe_stream_create(model->device, &model->stream));
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        TROUPE_TRY(create_module(model, i));
    }
    TROUPE_TRY(allocate(model));
    return load_weights(model, checkpoint);
}

troupe_status troupe_inference_open(const char *checkpoint, troupe_workers *workers,
                                    troupe_inference **out) {
    troupe_inference *model = NULL;
    TROUPE_TRY(TROUPE_NEW(&model, 1));
    troupe_status status = open_model(model, checkpoint, workers);
    if (status != TROUPE_OK) {
        troupe_inference_close(model);
        return status;
    }
    *out = model;
    return TROUPE_OK;
}

void troupe_inference_close(troupe_inference *model) {
    if (model == NULL) {
        return;
    }
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        if (model->modules[i] != NULL) {
            model->classes[i]->destroy(model->modules[i]);
        }
    }
    troupe_stream_destroy(model->stream);
    troupe_device_close(model->device);
    troupe_free(model->features);
    troupe_free(model->images);
    troupe_free(model->logits);
    troupe_free(model->tokens);
    troupe_free(model);
}

const struct troupe_config *troupe_inference_config(const troupe_inference *model) {
    return &model->config;
}

static struct troupe_tensor rows_of(float *data, int64_t rows, int64_t columns) {
    return (struct troupe_tensor){
        .data = data, .rows = rows, .columns = columns, .stride = columns};
}

/* Pictures -> rows of the language model's width in model->images. */
static troupe_status encode(troupe_inference *model, const struct troupe_vision_batch *vision) {
    const struct troupe_model_config *config = &model->config.model;
    struct troupe_tensor features =
        rows_of(model->features, vision->patches, config->vision.hidden);
    struct troupe_tensor images = rows_of(model->images, vision->patches, config->llm.hidden);
    TROUPE_TRY(model->classes[VISION]->forward(
        model->modules[VISION],
        &(struct troupe_module_task){.vision = vision, .outputs = &features}));
    return model->classes[PROJECTOR]->forward(
        model->modules[PROJECTOR],
        &(struct troupe_module_task){.vision = vision, .inputs = &features, .outputs = &images});
}

static troupe_status predict(troupe_inference *model, const struct troupe_language_batch *language,
                             double *loss_sum, float *logits) {
    struct troupe_tensor images =
        rows_of(model->images, language->image_tokens, model->config.model.llm.hidden);
    return model->classes[LLM]->forward(
        model->modules[LLM],
        &(struct troupe_module_task){
            .language = language, .inputs = &images, .loss_sum = loss_sum, .logits = logits});
}

static int32_t largest(const float *logits, int count) {
    int best = 0;
    for (int i = 1; i < count; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

troupe_status troupe_inference_caption(troupe_inference *model, const uint8_t *pixels, int height,
                                       int width, char *text_out, size_t capacity) {
    const struct troupe_model_config *config = &model->config.model;
    int patch = config->vision.patch, sequence = config->llm.sequence;
    TROUPE_ASSERT(height % patch == 0 && width % patch == 0 && height <= config->vision.image &&
                      width <= config->vision.image,
                  "picture of %d x %d pixels, patch %d, image %d", width, height, patch,
                  config->vision.image);
    int32_t grid_rows = height / patch, grid_columns = width / patch;
    int32_t patches = grid_rows * grid_columns;
    int32_t cu_images[2] = {0, patches}, cu_len[2] = {0, 0};
    struct troupe_vision_batch vision = {.images = 1,
                                         .patches = patches,
                                         .patch = patch,
                                         .cu_len = cu_images,
                                         .grid_rows = &grid_rows,
                                         .grid_columns = &grid_columns,
                                         .pixels = pixels};
    TROUPE_TRY(encode(model, &vision));

    int32_t *ids = model->tokens, *targets = ids + sequence, *positions = targets + sequence;
    int32_t *image_rows = positions + sequence;
    for (int32_t i = 0; i < sequence; i++) {
        ids[i] = i == 0 ? TROUPE_TOKEN_BEGIN : -1;
        targets[i] = -1;
        positions[i] = i;
        image_rows[i] = i + 1;
    }
    int32_t rows = 1 + patches;
    for (; rows < sequence; rows++) {
        cu_len[1] = rows;
        struct troupe_language_batch language = {.samples = 1,
                                                 .rows = rows,
                                                 .image_tokens = patches,
                                                 .cu_len = cu_len,
                                                 .token_ids = ids,
                                                 .targets = targets,
                                                 .positions = positions,
                                                 .image_rows = image_rows,
                                                 .step_targets = 1};
        double unused = 0;
        TROUPE_TRY(predict(model, &language, &unused, model->logits));
        ids[rows] = largest(model->logits, config->llm.vocabulary);
        if (ids[rows] == TROUPE_TOKEN_END) {
            break;
        }
    }
    troupe_tokenizer_decode(ids + 1 + patches, rows - 1 - patches, text_out, capacity);
    return TROUPE_OK;
}

/* Sums -log p and targets over `steps` batches of the plan, one shard. */
static troupe_status sum_loss(troupe_inference *model, troupe_source *source,
                              troupe_sample_plan *plan, troupe_microbatch *batch, int64_t step,
                              double *loss, double *targets) {
    troupe_sample_plan_set_step(plan, step);
    TROUPE_TRY(troupe_microbatch_fill(batch, plan, source, 0, 0, 1));
    TROUPE_TRY(encode(model, troupe_microbatch_vision(batch)));
    double sum = 0;
    TROUPE_TRY(predict(model, troupe_microbatch_language(batch), &sum, NULL));
    *loss += sum;
    *targets += (double)troupe_sample_plan_step_targets(plan);
    return TROUPE_OK;
}

/* One plan of `batch_size` samples a step over samples [first, first + steps * batch_size). */
static troupe_status loss_of_range(troupe_inference *model, troupe_source *source, int64_t first,
                                   int64_t steps, int64_t batch_size, double *loss,
                                   double *targets) {
    troupe_sample_plan *plan = NULL;
    troupe_microbatch *batch = NULL;
    struct troupe_sample_plan_options options = {
        .global_batch = batch_size, .microbatches = 1, .in_order = true, .first_position = first};
    troupe_status status = troupe_sample_plan_create(source, &options, &plan);
    if (status == TROUPE_OK) {
        struct troupe_batch_bounds bounds = troupe_sample_plan_bounds(plan, 1);
        status =
            troupe_microbatch_create(&bounds, TROUPE_SAMPLE_TEXT | TROUPE_SAMPLE_IMAGES, &batch);
    }
    for (int64_t step = 0; status == TROUPE_OK && step < steps; step++) {
        status = sum_loss(model, source, plan, batch, step, loss, targets);
    }
    troupe_microbatch_destroy(batch);
    troupe_sample_plan_destroy(plan);
    return status;
}

troupe_status troupe_inference_loss(troupe_inference *model, troupe_source *source, int64_t count,
                                    double *loss_out) {
    double loss = 0, targets = 0;
    int64_t full = count / SAMPLES_AT_ONCE, rest = count % SAMPLES_AT_ONCE;
    if (full > 0) {
        TROUPE_TRY(loss_of_range(model, source, 0, full, SAMPLES_AT_ONCE, &loss, &targets));
    }
    if (rest > 0) {
        TROUPE_TRY(loss_of_range(model, source, full * SAMPLES_AT_ONCE, 1, rest, &loss, &targets));
    }
    *loss_out = targets > 0 ? loss / targets : 0;
    return TROUPE_OK;
}
