/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/nn/mlp_internal.h"

void mlp_declare(struct mlp *mlp, struct context *context, const struct mlp_shape *shape) {
    struct linear_shape up = {.prefix = shape->prefix,
                              .parts = {mlp->gated ? "gate" : "up", mlp->gated ? "up" : NULL},
                              .out = {shape->inner, shape->inner},
                              .in = shape->in,
                              .split = LINEAR_COLUMN,
                              .bias = !mlp->gated,
                              .gain = LINEAR_GAIN};
    struct linear_shape down = {.prefix = shape->prefix,
                                .parts = {"down"},
                                .out = {shape->out},
                                .in = shape->inner,
                                .split = LINEAR_ROW,
                                .bias = !mlp->gated,
                                .gain = shape->down_gain};
    struct interval share = interval_share(shape->inner, context->tp_index, context->tp_count);
    mlp->inner = share.end - share.begin;
    linear_declare(&mlp->up, context, &up);
    linear_declare(&mlp->down, context, &down);
}

static int64_t hidden_columns(const struct mlp *mlp) {
    return mlp->gated ? 2 * mlp->inner : mlp->inner;
}

void mlp_carve(const struct mlp *mlp, struct slab *slab, int64_t rows_max, struct mlp_slot *slot) {
    slot->hidden = slab_take(slab, rows_max * hidden_columns(mlp));
    slot->activation = slab_take(slab, rows_max * mlp->inner);
}

troupe_status mlp_forward(const struct mlp *mlp, const struct context *context,
                          const struct mlp_slot *slot, struct troupe_tensor x,
                          struct troupe_tensor y) {
    const struct troupe_kernels *kernels = context->kernels;
    struct troupe_tensor hidden = matrix(slot->hidden, x.rows, hidden_columns(mlp));
    struct troupe_tensor activation = matrix(slot->activation, x.rows, mlp->inner);
    TROUPE_TRY(linear_forward(&mlp->up, context, x, hidden));
    if (mlp->gated) {
        TROUPE_TRY(kernels->swiglu(
            context->stream,
            &(struct troupe_swiglu){.gate = columns_of(hidden, 0, mlp->inner),
                                    .up = columns_of(hidden, mlp->inner, mlp->inner),
                                    .y = activation}));
    } else {
        TROUPE_TRY(
            kernels->gelu(context->stream, &(struct troupe_gelu){.x = hidden, .y = activation}));
    }
    return linear_forward(&mlp->down, context, activation, y);
}

troupe_status mlp_backward_input(const struct mlp *mlp, const struct context *context,
                                 const struct mlp_slot *slot, float *scratch,
                                 struct troupe_tensor dy, struct troupe_tensor dx) {
    const struct troupe_kernels *kernels = context->kernels;
    struct troupe_tensor hidden = matrix(slot->hidden, dy.rows, hidden_columns(mlp));
    struct troupe_tensor dactivation = matrix(scratch, dy.rows, mlp->inner);
    TROUPE_TRY(linear_backward_input(&mlp->down, context, dy, dactivation));
    if (mlp->gated) {
        struct troupe_tensor gate = columns_of(hidden, 0, mlp->inner);
        struct troupe_tensor up = columns_of(hidden, mlp->inner, mlp->inner);
        TROUPE_TRY(kernels->swiglu_backward(
            context->stream,
            &(struct troupe_swiglu_backward){
                .gate = gate, .up = up, .dy = dactivation, .dgate = gate, .dup = up}));
    } else {
        TROUPE_TRY(kernels->gelu_backward(
            context->stream,
            &(struct troupe_gelu_backward){.x = hidden, .dy = dactivation, .dx = hidden}));
    }
    return linear_backward_input(&mlp->up, context, hidden, dx);
}

troupe_status mlp_backward_weight(const struct mlp *mlp, const struct context *context,
                                  const struct mlp_slot *slot, struct troupe_tensor x,
                                  struct troupe_tensor dy) {
    struct troupe_tensor dhidden = matrix(slot->hidden, x.rows, hidden_columns(mlp));
    struct troupe_tensor activation = matrix(slot->activation, x.rows, mlp->inner);
    TROUPE_TRY(linear_backward_weight(&mlp->down, context, activation, dy));
    return linear_backward_weight(&mlp->up, context, x, dhidden);
}
