/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/nn/linear_internal.h"

#include <math.h>
#include <stdio.h>

static void declare_part(struct context *context, const struct linear_shape *shape, int part,
                         bool bias) {
    char suffix[TROUPE_PARAMETER_NAME_BYTES];
    snprintf(suffix, sizeof(suffix), "%s.%s", shape->parts[part], bias ? "bias" : "weight");
    struct troupe_parameter_spec spec = {.shape = {shape->out[part], shape->in},
                                         .dimensions = bias ? 1 : 2,
                                         .tp_dimension = shape->split == LINEAR_COLUMN ? 0 : -1};
    if (!bias) {
        spec.init = TROUPE_INIT_NORMAL;
        spec.init_scale = shape->gain / sqrt((double)shape->in);
        spec.decay = true;
        if (shape->split == LINEAR_ROW) {
            spec.tp_dimension = 1;
        }
    } else {
        spec.shape[1] = 0;
    }
    parameter_declare(&context->parameters, shape->prefix, suffix, &spec);
}

void linear_declare(struct linear *linear, struct context *context,
                    const struct linear_shape *shape) {
    linear->split = shape->split;
    linear->parts = 0;
    while (linear->parts < LINEAR_PARTS_MAX && shape->parts[linear->parts] != NULL) {
        linear->parts++;
    }
    /* Weights first, then biases: so the parts of each are back to back. */
    linear->weight = context->parameters.count;
    for (int part = 0; part < linear->parts; part++) {
        declare_part(context, shape, part, false);
    }
    linear->bias = shape->bias ? context->parameters.count : -1;
    for (int part = 0; shape->bias && part < linear->parts; part++) {
        declare_part(context, shape, part, true);
    }
}

static struct troupe_tensor weight_of(const struct linear *linear, const struct context *context) {
    return parameter_value(&context->parameters, linear->weight, linear->parts);
}

troupe_status linear_forward(const struct linear *linear, const struct context *context,
                             struct troupe_tensor x, struct troupe_tensor y) {
    struct troupe_matmul product = {
        .a = x, .b = weight_of(linear, context), .transpose_b = true, .c = y};
    if (linear->bias < 0) {
        TROUPE_TRY(context->kernels->matmul(context->stream, &product));
        return linear->split == LINEAR_ROW ? tensor_sum(context, y) : TROUPE_OK;
    }
    struct troupe_tensor bias = parameter_value(&context->parameters, linear->bias, linear->parts);
    if (linear->split != LINEAR_ROW || context->tp_count == 1) {
        product.bias = bias;
        return context->kernels->matmul(context->stream, &product);
    }
    TROUPE_TRY(context->kernels->matmul(context->stream, &product));
    TROUPE_TRY(tensor_sum(context, y));
    return context->kernels->bias_add(context->stream,
                                      &(struct troupe_bias_add){.x = y, .bias = bias});
}

troupe_status linear_backward_input(const struct linear *linear, const struct context *context,
                                    struct troupe_tensor dy, struct troupe_tensor dx) {
    TROUPE_TRY(context->kernels->matmul(
        context->stream,
        &(struct troupe_matmul){.a = dy, .b = weight_of(linear, context), .c = dx}));
    return linear->split == LINEAR_COLUMN ? tensor_sum(context, dx) : TROUPE_OK;
}

troupe_status linear_backward_weight(const struct linear *linear, const struct context *context,
                                     struct troupe_tensor x, struct troupe_tensor dy) {
    const struct parameter_set *set = &context->parameters;
    struct troupe_tensor gradient = parameter_gradient(set, linear->weight, linear->parts);
    TROUPE_TRY(context->kernels->matmul(
        context->stream,
        &(struct troupe_matmul){
            .a = dy, .transpose_a = true, .b = x, .c = gradient, .accumulate = true}));
    if (linear->bias < 0) {
        return TROUPE_OK;
    }
    gradient = parameter_gradient(set, linear->bias, linear->parts);
    return context->kernels->column_sum(
        context->stream, &(struct troupe_column_sum){.x = dy, .out = gradient, .accumulate = true});
}
