/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/nn/module.h"

#include "modules/nn/classes_internal.h"
#include "runtime/memory.h"
#include "runtime/random.h"

static const struct troupe_module_class *const classes[] = {
    &troupe_vision_class, &troupe_projector_class, &troupe_llm_class, NULL};

const struct troupe_module_class *const *troupe_module_classes(void) {
    return classes;
}

struct troupe_shard troupe_shard_whole(const struct troupe_module_class *module_class,
                                       const struct troupe_model_config *config) {
    return (struct troupe_shard){.tp_count = 1,
                                 .layer_end = module_class->layer_count(config),
                                 .first_stage = true,
                                 .last_stage = true};
}

int troupe_model_specs(const struct troupe_model_config *config,
                       struct troupe_parameter_spec *out) {
    int count = 0;
    for (int i = 0; classes[i] != NULL; i++) {
        struct troupe_shard whole = troupe_shard_whole(classes[i], config);
        count += classes[i]->specs(config, &whole, out != NULL ? out + count : NULL);
    }
    return count;
}

int64_t troupe_parameter_elements(const struct troupe_parameter *parameter) {
    int64_t elements = 1;
    for (int d = 0; d < parameter->spec.dimensions; d++) {
        elements *= parameter->extent[d];
    }
    return elements;
}

/* The row-major index in the full parameter of element `local` of this shard's box. */
static int64_t global_element(const struct troupe_parameter *parameter, int64_t local) {
    int64_t global = 0;
    int64_t stride = 1;
    for (int d = parameter->spec.dimensions - 1; d >= 0; d--) {
        global += (parameter->begin[d] + local % parameter->extent[d]) * stride;
        local /= parameter->extent[d];
        stride *= parameter->spec.shape[d];
    }
    return global;
}

/* The values of one parameter, on the host. */
static void draw_values(const struct troupe_parameter *parameter, uint64_t seed, float *out) {
    const struct troupe_parameter_spec *spec = &parameter->spec;
    uint64_t stream = troupe_random_stream(spec->name);
    int64_t elements = troupe_parameter_elements(parameter);
    for (int64_t i = 0; i < elements; i++) {
        double value = spec->init == TROUPE_INIT_ONE ? 1 : 0;
        if (spec->init == TROUPE_INIT_NORMAL) {
            uint64_t counter = (uint64_t)global_element(parameter, i);
            value = spec->init_scale * troupe_random_normal(seed, stream, counter);
        }
        out[i] = (float)value;
    }
}

static troupe_status init_one(troupe_stream *stream, const struct troupe_parameter *parameter,
                              uint64_t seed) {
    int64_t elements = troupe_parameter_elements(parameter);
    float *values = NULL;
    TROUPE_TRY(TROUPE_NEW(&values, elements));
    draw_values(parameter, seed, values);
    struct troupe_copy copy = {.to = parameter->value,
                               .from = values,
                               .rows = 1,
                               .row_bytes = (size_t)elements * sizeof(float)};
    troupe_status status = troupe_stream_copy(stream, &copy);
    if (status == TROUPE_OK) {
        status = troupe_stream_synchronize(stream);
    }
    troupe_free(values);
    return status;
}

troupe_status troupe_parameters_init(troupe_stream *stream, struct troupe_parameter *parameters,
                                     int count, uint64_t seed) {
    for (int i = 0; i < count; i++) {
        TROUPE_TRY(init_one(stream, &parameters[i], seed));
    }
    return TROUPE_OK;
}

troupe_status troupe_gradients_zero(troupe_stream *stream, struct troupe_parameter *parameters,
                                    int count) {
    for (int i = 0; i < count; i++) {
        size_t bytes = (size_t)troupe_parameter_elements(&parameters[i]) * sizeof(float);
        TROUPE_TRY(troupe_stream_fill_zero(stream, parameters[i].gradient, bytes));
    }
    return TROUPE_OK;
}

size_t troupe_module_group_bytes(const struct troupe_model_config *config, int64_t rows_max) {
    int widest =
        config->vision.hidden > config->llm.hidden ? config->vision.hidden : config->llm.hidden;
    int64_t columns = widest < 2 ? 2 : widest; /* sums and target logits travel together */
    return (size_t)(rows_max * columns) * sizeof(float);
}
