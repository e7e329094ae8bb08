/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/optim/optimizer.h"

#include <math.h>

#include "runtime/memory.h"

struct troupe_optimizer {
    struct troupe_optimizer_options options;
    float *memory;    /* device: all first moments in list order, then all second ones */
    int64_t *offsets; /* (count + 1) elements before each parameter */
};

double troupe_learning_rate(const struct troupe_lr_schedule *schedule, int64_t step) {
    if (step < schedule->warmup) {
        return schedule->lr * (double)step / (double)schedule->warmup;
    }
    int64_t first = schedule->warmup > 1 ? schedule->warmup : 1;
    if (step >= schedule->steps && schedule->steps > first) {
        return schedule->lr_min;
    }
    double span = schedule->steps > first ? (double)(schedule->steps - first) : 1;
    double wave = 0.5 * (1 + cos(M_PI * (double)(step - first) / span));
    return schedule->lr_min + (schedule->lr - schedule->lr_min) * wave;
}

static double or_default(double value, double fallback) {
    return value == 0 ? fallback : value;
}

static troupe_status build(troupe_optimizer *optimizer) {
    struct troupe_optimizer_options *options = &optimizer->options;
    options->beta1 = or_default(options->beta1, 0.9);
    options->beta2 = or_default(options->beta2, 0.95);
    options->epsilon = or_default(options->epsilon, 1e-8);
    TROUPE_TRY(TROUPE_NEW(&optimizer->offsets, options->count + 1));
    for (int i = 0; i < options->count; i++) {
        int64_t elements = troupe_parameter_elements(&options->parameters[i]);
        optimizer->offsets[i + 1] = optimizer->offsets[i] + elements;
    }
    size_t bytes = 2 * (size_t)optimizer->offsets[options->count] * sizeof(float);
    void *memory = NULL;
    TROUPE_TRY(troupe_device_alloc(troupe_stream_device(options->stream), bytes, &memory));
    optimizer->memory = memory;
    return TROUPE_OK;
}

troupe_status troupe_optimizer_create(const struct troupe_optimizer_options *options,
                                      troupe_optimizer **out) {
    troupe_optimizer *optimizer = NULL;
    TROUPE_TRY(TROUPE_NEW(&optimizer, 1));
    optimizer->options = *options;
    troupe_status status = build(optimizer);
    if (status != TROUPE_OK) {
        troupe_optimizer_destroy(optimizer);
        return status;
    }
    *out = optimizer;
    return TROUPE_OK;
}

void troupe_optimizer_destroy(troupe_optimizer *optimizer) {
    if (optimizer == NULL) {
        return;
    }
    if (optimizer->memory != NULL) {
        troupe_device_free(troupe_stream_device(optimizer->options.stream), optimizer->memory);
    }
    troupe_free(optimizer->offsets);
    troupe_free(optimizer);
}

struct troupe_moments troupe_optimizer_moments(const troupe_optimizer *optimizer, int index) {
    float *first = optimizer->memory + optimizer->offsets[index];
    return (struct troupe_moments){first, first + optimizer->offsets[optimizer->options.count]};
}

static struct troupe_tensor flat(float *data, int64_t elements) {
    return (struct troupe_tensor){data, 1, elements, elements, TROUPE_FLOAT32};
}

troupe_status troupe_optimizer_update(troupe_optimizer *optimizer,
                                      const struct troupe_optimizer_step *step) {
    const struct troupe_optimizer_options *options = &optimizer->options;
    for (int i = 0; i < options->count; i++) {
        const struct troupe_parameter *parameter = &options->parameters[i];
        struct troupe_moments moments = troupe_optimizer_moments(optimizer, i);
        int64_t elements = troupe_parameter_elements(parameter);
        struct troupe_adamw op = {.param = flat(parameter->value, elements),
                                  .grad = flat(parameter->gradient, elements),
                                  .m = flat(moments.first, elements),
                                  .v = flat(moments.second, elements),
                                  .lr = step->lr,
                                  .beta1 = options->beta1,
                                  .beta2 = options->beta2,
                                  .epsilon = options->epsilon,
                                  .decay = parameter->spec.decay ? options->weight_decay : 0,
                                  .grad_scale = step->gradient_scale,
                                  .step = step->step};
        TROUPE_TRY(options->kernels->adamw(options->stream, &op));
    }
    return TROUPE_OK;
}

troupe_status troupe_gradient_square_sums(const struct troupe_gradient_list *gradients,
                                          double *squares_out) {
    for (int i = 0; i < gradients->count; i++) {
        const struct troupe_parameter *parameter = &gradients->parameters[i];
        bool replicated = parameter->spec.tp_dimension < 0;
        squares_out[i] = 0;
        if (parameter->tied_copy || (replicated && !gradients->replicas_count)) {
            continue;
        }
        struct troupe_square_sum op = {
            .x = flat(parameter->gradient, troupe_parameter_elements(parameter)),
            .out = &squares_out[i]};
        TROUPE_TRY(gradients->kernels->square_sum(gradients->stream, &op));
    }
    return TROUPE_OK;
}

double troupe_clip_scale(double square_sum, double clip) {
    double norm = sqrt(square_sum);
    return clip > 0 && isfinite(norm) && norm > clip ? clip / norm : 1;
}
