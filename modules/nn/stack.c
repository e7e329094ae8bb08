/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/nn/stack_internal.h"

#include <math.h>
#include <stdio.h>

#include "runtime/memory.h"

int stack_layer_count(const struct stack_shape *shape) {
    return shape->layer_end - shape->layer_begin;
}

/* Projections that end a residual branch start smaller, so that the sum over 2 * layers branches
 * keeps its size (Radford et al., GPT-2, 2019). */
static double branch_gain(const struct stack_shape *shape) {
    return LINEAR_GAIN / sqrt(2.0 * shape->layers);
}

static void layer_declare(struct layer *layer, const struct stack_shape *shape, int index,
                          struct context *context) {
    char prefix[4][TROUPE_PARAMETER_NAME_BYTES / 2];
    const char *suffix[4] = {"norm1", "attention", "norm2", "mlp"};
    for (int i = 0; i < 4; i++) {
        snprintf(prefix[i], sizeof(prefix[i]), "%s.layers.%d.%s", shape->module, index, suffix[i]);
    }
    bool bias = shape->norm == NORM_LAYER;
    layer->norm1 = (struct norm){.kind = shape->norm, .epsilon = (float)shape->epsilon};
    layer->norm2 = layer->norm1;
    layer->attention.causal = shape->causal;
    layer->mlp.gated = !bias;
    norm_declare(&layer->norm1, context, prefix[0], shape->hidden);
    attention_declare(&layer->attention, context,
                      &(struct attention_shape){.prefix = prefix[1],
                                                .hidden = shape->hidden,
                                                .heads = shape->heads,
                                                .kv_heads = shape->kv_heads,
                                                .bias = bias,
                                                .o_gain = branch_gain(shape)});
    norm_declare(&layer->norm2, context, prefix[2], shape->hidden);
    mlp_declare(&layer->mlp, context,
                &(struct mlp_shape){.prefix = prefix[3],
                                    .in = shape->hidden,
                                    .inner = shape->ffn,
                                    .out = shape->hidden,
                                    .down_gain = branch_gain(shape)});
}

void stack_declare(struct stack *stack, struct context *context) {
    const struct stack_shape *shape = &stack->shape;
    for (int i = 0; i < stack_layer_count(shape); i++) {
        struct layer discarded = {0};
        layer_declare(stack->layers == NULL ? &discarded : &stack->layers[i], shape,
                      shape->layer_begin + i, context);
    }
}

troupe_status stack_create(struct stack *stack) {
    return TROUPE_NEW(&stack->layers, stack_layer_count(&stack->shape));
}

void stack_destroy(struct stack *stack) {
    troupe_free(stack->layers);
}

troupe_status stack_slot_create(const struct stack *stack, struct stack_slot *slot) {
    return TROUPE_NEW(&slot->layers, stack_layer_count(&stack->shape));
}

void stack_slot_destroy(struct stack_slot *slot) {
    troupe_free(slot->layers);
}

static void layer_carve(const struct layer *layer, struct slab *slab, int64_t rows_max,
                        int64_t columns, bool inference, struct layer_slot *slot) {
    slot->x = slab_take(slab, rows_max * columns);
    slot->middle = slab_take(slab, rows_max * columns);
    norm_carve(&layer->norm1, slab, rows_max, &slot->norm1);
    norm_carve(&layer->norm2, slab, rows_max, &slot->norm2);
    attention_carve(&layer->attention, slab, rows_max, &slot->attention);
    mlp_carve(&layer->mlp, slab, rows_max, &slot->mlp);
    if (!inference) {
        slot->dx = slab_take(slab, rows_max * columns);
        slot->dmiddle = slab_take(slab, rows_max * columns);
        slot->dnormed1 = slab_take(slab, rows_max * columns);
        slot->dnormed2 = slab_take(slab, rows_max * columns);
    }
}

void stack_carve(const struct stack *stack, struct slab *slab, int64_t rows_max, bool inference,
                 struct stack_slot *slot) {
    int64_t columns = stack->shape.hidden;
    for (int i = 0; i < stack_layer_count(&stack->shape); i++) {
        if (inference && i > 0) {
            slot->layers[i] = slot->layers[0];
        } else {
            layer_carve(&stack->layers[i], slab, rows_max, columns, inference, &slot->layers[i]);
        }
    }
    slot->y = slab_take(slab, rows_max * columns);
    slot->dy = inference ? NULL : slab_take(slab, rows_max * columns);
}

void stack_carve_scratch(struct stack *stack, const struct context *context, struct slab *slab,
                         int64_t rows_max, bool inference) {
    int64_t columns = stack->shape.hidden;
    stack->scratch.normed = slab_take(slab, rows_max * columns);
    stack->scratch.branch = slab_take(slab, rows_max * columns);
    if (stack_layer_count(&stack->shape) == 0) {
        return;
    }
    const struct layer *layer = &stack->layers[0];
    stack->scratch.inner = inference ? NULL : slab_take(slab, rows_max * layer->mlp.inner);
    attention_carve_scratch(&layer->attention, context, slab, rows_max,
                            stack->shape.segment_rows_max, &stack->scratch.attention);
}

/* The input of layer i, or the stack's output past the last one. */
static struct troupe_tensor input_of(const struct stack *stack, const struct stack_slot *slot,
                                     int i, int64_t rows) {
    bool past = i == stack_layer_count(&stack->shape);
    return matrix(past ? slot->y : slot->layers[i].x, rows, stack->shape.hidden);
}

static struct troupe_tensor gradient_of(const struct stack *stack, const struct stack_slot *slot,
                                        int i, int64_t rows) {
    bool past = i == stack_layer_count(&stack->shape);
    return matrix(past ? slot->dy : slot->layers[i].dx, rows, stack->shape.hidden);
}

struct troupe_tensor stack_input(const struct stack *stack, const struct stack_slot *slot,
                                 int64_t rows) {
    return input_of(stack, slot, 0, rows);
}

struct troupe_tensor stack_output(const struct stack *stack, const struct stack_slot *slot,
                                  int64_t rows) {
    return input_of(stack, slot, stack_layer_count(&stack->shape), rows);
}

struct troupe_tensor stack_output_gradient(const struct stack *stack, const struct stack_slot *slot,
                                           int64_t rows) {
    return gradient_of(stack, slot, stack_layer_count(&stack->shape), rows);
}

struct troupe_tensor stack_input_gradient(const struct stack *stack, const struct stack_slot *slot,
                                          int64_t rows) {
    return gradient_of(stack, slot, 0, rows);
}

troupe_status stack_forward(const struct stack *stack, const struct context *context,
                            const struct stack_slot *slot, const struct segments *segments,
                            int64_t rows) {
    int64_t columns = stack->shape.hidden;
    struct troupe_tensor normed = matrix(stack->scratch.normed, rows, columns);
    struct troupe_tensor branch = matrix(stack->scratch.branch, rows, columns);
    for (int i = 0; i < stack_layer_count(&stack->shape); i++) {
        const struct layer *layer = &stack->layers[i];
        const struct layer_slot *kept = &slot->layers[i];
        struct troupe_tensor x = input_of(stack, slot, i, rows);
        struct troupe_tensor middle = matrix(kept->middle, rows, columns);
        TROUPE_TRY(norm_forward(&layer->norm1, context, &kept->norm1, x, normed));
        TROUPE_TRY(attention_forward(&layer->attention, context, &kept->attention,
                                     &stack->scratch.attention, segments, normed, branch));
        TROUPE_TRY(tensor_add(context, x, branch, middle));
        TROUPE_TRY(norm_forward(&layer->norm2, context, &kept->norm2, middle, normed));
        TROUPE_TRY(mlp_forward(&layer->mlp, context, &kept->mlp, normed, branch));
        TROUPE_TRY(tensor_add(context, middle, branch, input_of(stack, slot, i + 1, rows)));
    }
    return TROUPE_OK;
}

troupe_status stack_backward_input(const struct stack *stack, const struct context *context,
                                   const struct stack_slot *slot, const struct segments *segments,
                                   int64_t rows) {
    int64_t columns = stack->shape.hidden;
    for (int i = stack_layer_count(&stack->shape) - 1; i >= 0; i--) {
        const struct layer *layer = &stack->layers[i];
        const struct layer_slot *kept = &slot->layers[i];
        struct troupe_tensor dy = gradient_of(stack, slot, i + 1, rows);
        struct troupe_tensor dmiddle = matrix(kept->dmiddle, rows, columns);
        struct troupe_tensor dx = matrix(kept->dx, rows, columns);
        struct troupe_tensor dnormed1 = matrix(kept->dnormed1, rows, columns);
        struct troupe_tensor dnormed2 = matrix(kept->dnormed2, rows, columns);
        TROUPE_TRY(mlp_backward_input(&layer->mlp, context, &kept->mlp, stack->scratch.inner, dy,
                                      dnormed2));
        TROUPE_TRY(tensor_copy(context, dy, dmiddle));
        TROUPE_TRY(norm_backward_input(&layer->norm2, context, &kept->norm2,
                                       matrix(kept->middle, rows, columns), dnormed2, dmiddle,
                                       true));
        TROUPE_TRY(attention_backward_input(&layer->attention, context, &kept->attention,
                                            &stack->scratch.attention, segments, dmiddle,
                                            dnormed1));
        TROUPE_TRY(tensor_copy(context, dmiddle, dx));
        TROUPE_TRY(norm_backward_input(&layer->norm1, context, &kept->norm1,
                                       input_of(stack, slot, i, rows), dnormed1, dx, true));
    }
    return TROUPE_OK;
}

troupe_status stack_backward_weight(const struct stack *stack, const struct context *context,
                                    const struct stack_slot *slot, int64_t rows) {
    int64_t columns = stack->shape.hidden;
    struct troupe_tensor normed = matrix(stack->scratch.normed, rows, columns);
    for (int i = stack_layer_count(&stack->shape) - 1; i >= 0; i--) {
        const struct layer *layer = &stack->layers[i];
        const struct layer_slot *kept = &slot->layers[i];
        struct troupe_tensor x = input_of(stack, slot, i, rows);
        struct troupe_tensor middle = matrix(kept->middle, rows, columns);
        TROUPE_TRY(norm_forward(&layer->norm2, context, &kept->norm2, middle, normed));
        TROUPE_TRY(mlp_backward_weight(&layer->mlp, context, &kept->mlp, normed,
                                       gradient_of(stack, slot, i + 1, rows)));
        TROUPE_TRY(norm_backward_weight(&layer->norm2, context, &kept->norm2, middle,
                                        matrix(kept->dnormed2, rows, columns)));
        TROUPE_TRY(norm_forward(&layer->norm1, context, &kept->norm1, x, normed));
        TROUPE_TRY(attention_backward_weight(&layer->attention, context, &kept->attention, normed,
                                             matrix(kept->dmiddle, rows, columns)));
        TROUPE_TRY(norm_backward_weight(&layer->norm1, context, &kept->norm1, x,
                                        matrix(kept->dnormed1, rows, columns)));
    }
    return TROUPE_OK;
}

double stack_flops(const struct stack_shape *shape, const struct segments *segments, int64_t rows) {
    double hidden = (double)shape->hidden;
    double kv_hidden = hidden / shape->heads * shape->kv_heads;
    double matrices = shape->norm == NORM_RMS ? 3 : 2;
    double weights =
        2 * hidden * hidden + 2 * hidden * kv_hidden + matrices * hidden * (double)shape->ffn;
    double pairs = 0;
    for (int64_t s = 0; s < segments->count; s++) {
        double length = segments->cu_len[s + 1] - segments->cu_len[s];
        pairs += shape->causal ? length * (length + 1) / 2 : length * length;
    }
    return stack_layer_count(shape) * (2 * weights * (double)rows + 4 * pairs * hidden);
}
