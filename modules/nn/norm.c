/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/nn/norm_internal.h"

void norm_declare(struct norm *norm, struct context *context, const char *prefix, int64_t columns) {
    struct troupe_parameter_spec spec = {
        .shape = {columns}, .dimensions = 1, .tp_dimension = -1, .init = TROUPE_INIT_ONE};
    norm->weight = parameter_declare(&context->parameters, prefix, "weight", &spec);
    norm->bias = -1;
    if (norm->kind == NORM_LAYER) {
        spec.init = TROUPE_INIT_ZERO;
        norm->bias = parameter_declare(&context->parameters, prefix, "bias", &spec);
    }
}

void norm_carve(const struct norm *norm, struct slab *slab, int64_t rows_max,
                struct norm_slot *slot) {
    slot->mean = norm->kind == NORM_LAYER ? slab_take(slab, rows_max) : NULL;
    slot->rstd = slab_take(slab, rows_max);
}

troupe_status norm_forward(const struct norm *norm, const struct context *context,
                           const struct norm_slot *slot, struct troupe_tensor x,
                           struct troupe_tensor y) {
    const struct parameter_set *set = &context->parameters;
    struct troupe_norm op = {.x = x,
                             .weight = parameter_value(set, norm->weight, 1),
                             .y = y,
                             .mean = slot->mean,
                             .rstd = slot->rstd,
                             .epsilon = norm->epsilon};
    if (norm->kind == NORM_RMS) {
        return context->kernels->rmsnorm(context->stream, &op);
    }
    op.bias = parameter_value(set, norm->bias, 1);
    return context->kernels->layernorm(context->stream, &op);
}

troupe_status norm_backward_input(const struct norm *norm, const struct context *context,
                                  const struct norm_slot *slot, struct troupe_tensor x,
                                  struct troupe_tensor dy, struct troupe_tensor dx,
                                  bool accumulate) {
    const struct troupe_kernels *kernels = context->kernels;
    struct troupe_norm_backward_input op = {
        .x = x,
        .dy = dy,
        .weight = parameter_value(&context->parameters, norm->weight, 1),
        .mean = slot->mean,
        .rstd = slot->rstd,
        .dx = dx,
        .accumulate = accumulate};
    return norm->kind == NORM_RMS ? kernels->rmsnorm_backward_input(context->stream, &op)
                                  : kernels->layernorm_backward_input(context->stream, &op);
}

troupe_status norm_backward_weight(const struct norm *norm, const struct context *context,
                                   const struct norm_slot *slot, struct troupe_tensor x,
                                   struct troupe_tensor dy) {
    const struct parameter_set *set = &context->parameters;
    struct troupe_norm_backward_weight op = {.x = x,
                                             .dy = dy,
                                             .mean = slot->mean,
                                             .rstd = slot->rstd,
                                             .dweight = parameter_gradient(set, norm->weight, 1),
                                             .accumulate = true};
    if (norm->kind == NORM_RMS) {
        return context->kernels->rmsnorm_backward_weight(context->stream, &op);
    }
    op.dbias = parameter_gradient(set, norm->bias, 1);
    return context->kernels->layernorm_backward_weight(context->stream, &op);
}
