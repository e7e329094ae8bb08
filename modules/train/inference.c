/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/inference.h"

#include <stdio.h>
#include <string.h>

#include "modules/data/microbatch.h"
#include "modules/data/tokenizer.h"
#include "modules/nn/module.h"
#include "modules/train/checkpoint.h"
#include "modules/train/dataset.h"
#include "runtime/check.h"
#include "runtime/memory.h"

/* B samples at a time share a forward of the loss. */
enum { SAMPLES_AT_ONCE = 16 };

struct troupe_inference {
    struct troupe_config config;
    int64_t images_max;       /* pictures of SAMPLES_AT_ONCE samples */
    int64_t image_tokens_max; /* and their patches */
    troupe_device *device;
    troupe_stream *stream;
    const struct troupe_module_class *classes[TROUPE_CONFIG_MODULES];
    troupe_module *modules[TROUPE_CONFIG_MODULES];
    float *features; /* (image rows, vision hidden) */
    float *images;   /* (image rows, llm hidden) */
    float *logits;   /* (1, vocabulary) */
    int32_t *tokens; /* token_ids, targets, positions, image_rows: sequence each */
    int32_t *grid;   /* cu_len, rows, columns of pictures */
};

static troupe_status create_module(troupe_inference *model, int index) {
    const struct troupe_config *config = &model->config;
    const struct troupe_module_class *class = troupe_module_classes()[index];
    struct troupe_module_options options = {
        .config = &config->model,
        .shard = troupe_shard_whole(class, &config->model),
        .slots = 1,
        .rows_max = index == TROUPE_LLM ? SAMPLES_AT_ONCE * (int64_t)config->model.llm.sequence
                                        : model->image_tokens_max,
        .samples_max = SAMPLES_AT_ONCE,
        .images_max = model->images_max,
        .inference = true,
        .stream = model->stream,
        .kernels = troupe_kernels_for(TROUPE_DEVICE_CPU),
    };
    model->classes[index] = class;
    return class->create(&options, &model->modules[index]);
}

static troupe_status allocate(troupe_inference *model) {
    const struct troupe_model_config *config = &model->config.model;
    int64_t rows = model->image_tokens_max;
    TROUPE_TRY(TROUPE_NEW(&model->features, rows * config->vision.hidden));
    TROUPE_TRY(TROUPE_NEW(&model->images, rows * config->llm.hidden));
    TROUPE_TRY(TROUPE_NEW(&model->logits, config->llm.vocabulary));
    TROUPE_TRY(TROUPE_NEW(&model->grid, 3 * model->images_max + 1));
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
    struct troupe_sample_shape shape = troupe_dataset_shape(&model->config);
    int64_t side = shape.image / shape.patch;
    model->images_max = SAMPLES_AT_ONCE * (int64_t)shape.images_max;
    model->image_tokens_max = model->images_max * side * side;
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
    troupe_free(model->grid);
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
    TROUPE_TRY(model->classes[TROUPE_VISION]->forward(
        model->modules[TROUPE_VISION],
        &(struct troupe_module_task){.vision = vision, .outputs = &features}));
    return model->classes[TROUPE_PROJECTOR]->forward(
        model->modules[TROUPE_PROJECTOR],
        &(struct troupe_module_task){.vision = vision, .inputs = &features, .outputs = &images});
}

static troupe_status predict(troupe_inference *model, const struct troupe_language_batch *language,
                             double *loss_sum, float *logits) {
    struct troupe_tensor images =
        rows_of(model->images, language->image_tokens, model->config.model.llm.hidden);
    return model->classes[TROUPE_LLM]->forward(
        model->modules[TROUPE_LLM],
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

/* Prefix sums of patches into model->grid: what a vision batch of these pictures points to. */
static struct troupe_vision_batch vision_of(troupe_inference *model,
                                            const struct troupe_inference_pictures *pictures) {
    const struct troupe_vision_config *config = &model->config.model.vision;
    int32_t *cu_len = model->grid, *rows = cu_len + model->images_max + 1;
    int32_t *columns = rows + model->images_max;
    int32_t side = config->image / config->patch;
    TROUPE_ASSERT(pictures->count <= model->images_max, "%d pictures", pictures->count);
    cu_len[0] = 0;
    for (int i = 0; i < pictures->count; i++) {
        rows[i] = pictures->grids[i].rows;
        columns[i] = pictures->grids[i].columns;
        TROUPE_ASSERT(rows[i] <= side && columns[i] <= side, "picture of %d x %d patches of %d",
                      rows[i], columns[i], side);
        cu_len[i + 1] = cu_len[i] + rows[i] * columns[i];
    }
    return (struct troupe_vision_batch){.images = pictures->count,
                                        .patches = cu_len[pictures->count],
                                        .patch = config->patch,
                                        .cu_len = cu_len,
                                        .grid_rows = rows,
                                        .grid_columns = columns,
                                        .pixels = pictures->pixels};
}

/* Begin, image placeholders, and what has been said so far. */
static struct troupe_language_batch prompt_of(troupe_inference *model, int32_t patches) {
    int32_t sequence = model->config.model.llm.sequence;
    int32_t *ids = model->tokens, *targets = ids + sequence, *positions = targets + sequence;
    int32_t *image_rows = positions + sequence;
    for (int32_t i = 0; i < sequence; i++) {
        ids[i] = i == 0 ? TROUPE_TOKEN_BEGIN : -1;
        targets[i] = -1;
        positions[i] = i;
        image_rows[i] = i + 1;
    }
    return (struct troupe_language_batch){.samples = 1,
                                          .rows = 1 + patches,
                                          .image_tokens = patches,
                                          .token_ids = ids,
                                          .targets = targets,
                                          .positions = positions,
                                          .image_rows = image_rows,
                                          .step_targets = 1};
}

troupe_status troupe_inference_caption(troupe_inference *model,
                                       const struct troupe_inference_pictures *pictures,
                                       char *text_out, size_t capacity) {
    const struct troupe_llm_config *config = &model->config.model.llm;
    struct troupe_vision_batch vision = vision_of(model, pictures);
    int32_t first = 1 + (int32_t)vision.patches;
    if (first >= config->sequence) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "pictures of %lld patches leave no room for text in model.llm.sequence "
                           "%d",
                           (long long)vision.patches, config->sequence);
    }
    TROUPE_TRY(encode(model, &vision));
    struct troupe_language_batch language = prompt_of(model, (int32_t)vision.patches);
    int32_t cu_len[2] = {0, 0};
    language.cu_len = cu_len;
    for (; language.rows < config->sequence; language.rows++) {
        cu_len[1] = (int32_t)language.rows;
        TROUPE_TRY(predict(model, &language, NULL, model->logits));
        int32_t token = largest(model->logits, config->vocabulary);
        model->tokens[language.rows] = token;
        if (token == TROUPE_TOKEN_END) {
            break;
        }
    }
    troupe_tokenizer_decode(model->tokens + first, language.rows - first, text_out, capacity);
    return TROUPE_OK;
}

struct tally {
    double loss; /* sum of -log p */
    double targets;
};

/* Adds one batch: the plan's current step, on one shard. */
static troupe_status add_batch(troupe_inference *model, const troupe_sample_plan *plan,
                               troupe_source *source, troupe_microbatch *batch,
                               struct tally *tally) {
    double sum = 0;
    TROUPE_TRY(troupe_microbatch_fill(batch, plan, source, 0, 0, 1));
    TROUPE_TRY(encode(model, troupe_microbatch_vision(batch)));
    TROUPE_TRY(predict(model, troupe_microbatch_language(batch), &sum, NULL));
    tally->loss += sum;
    tally->targets += (double)troupe_sample_plan_step_targets(plan);
    return TROUPE_OK;
}

/* Batches of `size` samples from position `first` of the order. */
struct batches {
    int64_t first;
    int64_t count;
    int64_t size;
};

static troupe_status add_batches(troupe_inference *model, troupe_source *source,
                                 const struct batches *batches, struct tally *tally) {
    troupe_sample_plan *plan = NULL;
    troupe_microbatch *batch = NULL;
    struct troupe_sample_plan_options options = {.seed = (uint64_t)model->config.train.seed,
                                                 .global_batch = batches->size,
                                                 .microbatches = 1,
                                                 .first_position = batches->first};
    troupe_status status = troupe_sample_plan_create(source, &options, &plan);
    if (status == TROUPE_OK) {
        struct troupe_batch_bounds bounds = troupe_sample_plan_bounds(plan, 1);
        status =
            troupe_microbatch_create(&bounds, TROUPE_SAMPLE_TEXT | TROUPE_SAMPLE_IMAGES, &batch);
    }
    for (int64_t i = 0; status == TROUPE_OK && i < batches->count; i++) {
        troupe_sample_plan_set_step(plan, i);
        status = add_batch(model, plan, source, batch, tally);
    }
    troupe_microbatch_destroy(batch);
    troupe_sample_plan_destroy(plan);
    return status;
}

troupe_status troupe_inference_loss(troupe_inference *model, troupe_source *source, int64_t count,
                                    double *loss_out) {
    struct tally tally = {0, 0};
    int64_t full = count / SAMPLES_AT_ONCE, rest = count % SAMPLES_AT_ONCE;
    if (full > 0) {
        TROUPE_TRY(add_batches(model, source, &(struct batches){0, full, SAMPLES_AT_ONCE}, &tally));
    }
    if (rest > 0) {
        TROUPE_TRY(
            add_batches(model, source, &(struct batches){full * SAMPLES_AT_ONCE, 1, rest}, &tally));
    }
    *loss_out = tally.targets > 0 ? tally.loss / tally.targets : 0;
    return TROUPE_OK;
}
