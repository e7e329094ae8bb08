/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes what the single-rank model computes to a safetensors file, for pytorch.py to compare:
 * weights, two ragged microbatches (one of them text only), the loss, every gradient of step 1, and
 * losses, gradient norms and parameters of five AdamW steps with clipping.
 *
 *     parity.model OUT.safetensors tied|untied
 */
#include "modules/checkpoint/safetensors.h"
#include "modules/optim/optimizer.h"
#include "tests/unit/modules/fixture.h"

enum { MICROBATCHES = 2, STEPS = 5, TENSORS_MAX = 512, MODULES = 3 };

static const struct troupe_lr_schedule schedule = {
    .lr = 1e-2, .lr_min = 1e-3, .warmup = 2, .steps = STEPS};
static const double clip = 1.0, beta2 = 0.95, epsilon = 1e-5, decay = 0.1;

/* The file's tensors: collected first, written in one go. */
struct output {
    struct troupe_file_tensor tensors[TENSORS_MAX];
    float *data[TENSORS_MAX];
    int count;
};

static float *output_add(struct output *output, const struct troupe_file_tensor *tensor,
                         int64_t elements) {
    EXPECT(output->count < TENSORS_MAX);
    output->tensors[output->count] = *tensor;
    EXPECT_OK(TROUPE_NEW(&output->data[output->count], elements));
    return output->data[output->count++];
}

static float *add_vector(struct output *output, const char *prefix, const char *name,
                         int64_t elements) {
    struct troupe_file_tensor tensor = {.shape = {elements}, .dimensions = 1};
    snprintf(tensor.name, sizeof(tensor.name), "%s/%s", prefix, name);
    return output_add(output, &tensor, elements);
}

static void add_int32(struct output *output, const char *prefix, const char *name,
                      const int32_t *values, int64_t count) {
    float *data = add_vector(output, prefix, name, count);
    for (int64_t i = 0; i < count; i++) {
        data[i] = (float)values[i];
    }
}

static void add_batch(struct output *output, const char *prefix,
                      const struct fixture_batch *batch) {
    int64_t rows = batch->language.rows, images = batch->vision.images;
    int64_t patches = batch->vision.patches, side = batch->vision.patch;
    add_int32(output, prefix, "cu_len", batch->cu_len, batch->language.samples + 1);
    add_int32(output, prefix, "token_ids", batch->token_ids, rows);
    add_int32(output, prefix, "targets", batch->targets, rows);
    add_int32(output, prefix, "image_rows", batch->image_rows, patches);
    add_int32(output, prefix, "grid_rows", batch->grid_rows, images);
    add_int32(output, prefix, "grid_columns", batch->grid_columns, images);
    float *pixels = add_vector(output, prefix, "pixels", patches * side * side * 3);
    for (int64_t i = 0; i < patches * side * side * 3; i++) {
        pixels[i] = batch->pixels[i];
    }
}

static void add_parameters(struct output *output, const char *prefix, struct fixture_model *model,
                           bool gradients) {
    for (int m = 0; m < model->module_count; m++) {
        struct troupe_parameter *list = NULL;
        int count = fixture_parameters(model, m, &list);
        for (int i = 0; i < count; i++) {
            struct troupe_file_tensor tensor = {.dimensions = list[i].spec.dimensions};
            snprintf(tensor.name, sizeof(tensor.name), "%s/%s", prefix, list[i].spec.name);
            memcpy(tensor.shape, list[i].spec.shape, sizeof(tensor.shape));
            int64_t elements = troupe_parameter_elements(&list[i]);
            memcpy(output_add(output, &tensor, elements),
                   gradients ? list[i].gradient : list[i].value, (size_t)elements * sizeof(float));
        }
    }
}

static void write_file(const struct output *output, const char *path,
                       const struct troupe_model_config *config) {
    char sizes[512], training[256];
    snprintf(sizes, sizeof(sizes),
             "{\"vision\": {\"layers\": %d, \"hidden\": %d, \"heads\": %d, \"patch\": %d, "
             "\"image\": %d}, \"llm\": {\"layers\": %d, \"hidden\": %d, \"heads\": %d, "
             "\"kv_heads\": %d, \"theta\": %g, \"epsilon\": %g, \"untied\": %d}}",
             config->vision.layers, config->vision.hidden, config->vision.heads,
             config->vision.patch, config->vision.image, config->llm.layers, config->llm.hidden,
             config->llm.heads, config->llm.kv_heads, config->llm.rope_theta, config->llm.norm_eps,
             config->llm.untied);
    snprintf(training, sizeof(training),
             "{\"clip\": %g, \"beta1\": 0.9, \"beta2\": %g, \"epsilon\": %g, \"decay\": %g, "
             "\"microbatches\": %d}",
             clip, beta2, epsilon, decay, MICROBATCHES);
    struct troupe_file_metadata metadata[] = {{"model", sizes}, {"training", training}};
    struct troupe_file_content content = {.tensors = output->tensors,
                                          .tensor_count = output->count,
                                          .metadata = metadata,
                                          .metadata_count = 2};
    troupe_safetensors *file = NULL;
    EXPECT_OK(troupe_safetensors_create(path, &content, &file));
    for (int i = 0; i < output->count; i++) {
        struct troupe_file_box box = {.tensor = output->tensors[i]};
        memcpy(box.extent, box.tensor.shape, sizeof(box.extent));
        EXPECT_OK(troupe_safetensors_write_box(file, &box, output->data[i]));
    }
    EXPECT_OK(troupe_safetensors_close(file));
}

/* Gradients of all microbatches; returns the loss. */
static double accumulate(struct fixture_model *model, const struct fixture_batch *batches) {
    double loss_sum = 0;
    fixture_zero_gradients(model);
    for (int k = 0; k < MICROBATCHES; k++) {
        loss_sum += fixture_forward(model, &batches[k], k);
        fixture_backward_input(model, &batches[k], k);
        fixture_backward_weight(model, &batches[k], k);
    }
    return loss_sum / (double)batches[0].language.step_targets;
}

static double gradient_square_sum(struct fixture_model *model) {
    double total = 0;
    for (int m = 0; m < model->module_count; m++) {
        double squares[TENSORS_MAX];
        struct troupe_gradient_list gradients = {.stream = model->stream,
                                                 .kernels = troupe_kernels_for(TROUPE_DEVICE_CPU),
                                                 .replicas_count = true};
        struct troupe_parameter *list = NULL;
        gradients.count = fixture_parameters(model, m, &list);
        gradients.parameters = list;
        EXPECT_OK(troupe_gradient_square_sums(&gradients, squares));
        for (int i = 0; i < gradients.count; i++) {
            total += squares[i];
        }
    }
    return total;
}

static void train(struct fixture_model *model, const struct fixture_batch *batches,
                  struct output *output) {
    float *losses = add_vector(output, "steps", "loss", STEPS);
    float *norms = add_vector(output, "steps", "norm", STEPS);
    float *rates = add_vector(output, "steps", "lr", STEPS);
    troupe_optimizer *optimizers[MODULES] = {NULL};
    for (int m = 0; m < MODULES; m++) {
        struct troupe_optimizer_options options = {.stream = model->stream,
                                                   .kernels = troupe_kernels_for(TROUPE_DEVICE_CPU),
                                                   .beta2 = beta2,
                                                   .epsilon = epsilon,
                                                   .weight_decay = decay};
        options.count = fixture_parameters(model, m, &options.parameters);
        EXPECT_OK(troupe_optimizer_create(&options, &optimizers[m]));
    }
    for (int step = 1; step <= STEPS; step++) {
        losses[step - 1] = (float)accumulate(model, batches);
        if (step == 1) {
            add_parameters(output, "gradients", model, true);
        }
        double squares = gradient_square_sum(model);
        struct troupe_optimizer_step update = {.step = step,
                                               .lr = troupe_learning_rate(&schedule, step),
                                               .gradient_scale = troupe_clip_scale(squares, clip)};
        norms[step - 1] = (float)sqrt(squares);
        rates[step - 1] = (float)update.lr;
        for (int m = 0; m < MODULES; m++) {
            EXPECT_OK(troupe_optimizer_update(optimizers[m], &update));
        }
    }
    for (int m = 0; m < MODULES; m++) {
        troupe_optimizer_destroy(optimizers[m]);
    }
}

int main(int argc, char **argv) {
    EXPECT(argc == 3, "usage: parity.model OUT.safetensors tied|untied");
    struct troupe_model_config config = fixture_config(strcmp(argv[2], "untied") == 0);
    static struct fixture_batch batches[MICROBATCHES];
    static struct output output;
    fixture_batch_fill(&batches[0], &config, &(struct fixture_shape){.seed = 5, .samples = 6});
    fixture_batch_fill(&batches[1], &config,
                       &(struct fixture_shape){.seed = 6, .samples = 3, .text_only = true});
    int64_t targets = batches[0].language.targets_count + batches[1].language.targets_count;
    batches[0].language.step_targets = batches[1].language.step_targets = targets;
    add_batch(&output, "batch0", &batches[0]);
    add_batch(&output, "batch1", &batches[1]);

    struct fixture_model model;
    fixture_model_open(&model, &(struct fixture_options){.config = &config, .seed = 7});
    add_parameters(&output, "weights", &model, false);
    train(&model, batches, &output);
    add_parameters(&output, "final", &model, false);
    write_file(&output, argv[1], &config);
    fixture_model_close(&model);
    for (int i = 0; i < output.count; i++) {
        troupe_free(output.data[i]);
    }
    return 0;
}
