/* SPDX-License-Identifier: Apache-2.0
 *
 * A stack of pre-norm transformer layers, the body of encoder and language model alike:
 *
 *     middle = x + attention(norm1(x));   y = middle + mlp(norm2(middle))
 *
 * A slot keeps per layer x, middle, the norms' statistics and the inner tensors of attention and
 * MLP; normed rows are recomputed by backward_weight. backward_input leaves behind the gradients
 * that backward_weight needs.
 *
 * Legend: R rows, C columns. Ownership, threads, failure: as context_internal.h.
 */
#ifndef TROUPE_MODULES_NN_STACK_INTERNAL_H
#define TROUPE_MODULES_NN_STACK_INTERNAL_H

#include "modules/nn/attention_internal.h"
#include "modules/nn/mlp_internal.h"
#include "modules/nn/norm_internal.h"

struct layer {
    struct norm norm1;
    struct attention attention;
    struct norm norm2;
    struct mlp mlp;
};

struct layer_slot {
    float *x;      /* (R, C) */
    float *middle; /* (R, C) */
    struct norm_slot norm1;
    struct norm_slot norm2;
    struct attention_slot attention;
    struct mlp_slot mlp;
    /* Gradients with respect to x, middle and the outputs of the norms. All (R, C). */
    float *dx;
    float *dmiddle;
    float *dnormed1;
    float *dnormed2;
};

/* What kind of transformer this is. */
struct stack_shape {
    const char *module; /* prefix of the names: "llm" */
    int layers;         /* of the whole module */
    int layer_begin;
    int layer_end;
    int64_t hidden;
    int heads;
    int kv_heads;
    int64_t ffn;
    enum norm_kind norm; /* NORM_LAYER goes with GELU and biases, NORM_RMS with SwiGLU, none */
    double epsilon;
    bool causal;
    int64_t segment_rows_max;
};

struct stack {
    struct stack_shape shape;
    struct layer *layers; /* layer_end - layer_begin */
    struct {
        float *normed; /* (R, C) */
        float *branch; /* (R, C) */
        float *inner;  /* (R, F) */
        struct attention_scratch attention;
    } scratch;
};

struct stack_slot {
    struct layer_slot *layers;
    float *y;  /* (R, C): the last layer's output */
    float *dy; /* (R, C): its gradient, from the caller */
};

int stack_layer_count(const struct stack_shape *shape);
/* The parameters of all layers; stack->layers may be NULL where only the specs are wanted. */
void stack_declare(struct stack *stack, struct context *context);
/* Memory of the layers, before the second stack_declare, and of their slots' lists. */
troupe_status stack_create(struct stack *stack);
void stack_destroy(struct stack *stack);
troupe_status stack_slot_create(const struct stack *stack, struct stack_slot *slot);
void stack_slot_destroy(struct stack_slot *slot);
/* Buffers for rows_max rows; with `inference` all layers share one slot and there are no
 * gradients. */
void stack_carve(const struct stack *stack, struct slab *slab, int64_t rows_max, bool inference,
                 struct stack_slot *slot);
void stack_carve_scratch(struct stack *stack, const struct context *context, struct slab *slab,
                         int64_t rows_max, bool inference);
/* The first layer's input (or y of an empty stack): the caller writes it before forward. */
struct troupe_tensor stack_input(const struct stack *stack, const struct stack_slot *slot,
                                 int64_t rows);
struct troupe_tensor stack_output(const struct stack *stack, const struct stack_slot *slot,
                                  int64_t rows);
/* The output's gradient: the caller writes it before backward_input. */
struct troupe_tensor stack_output_gradient(const struct stack *stack, const struct stack_slot *slot,
                                           int64_t rows);
struct troupe_tensor stack_input_gradient(const struct stack *stack, const struct stack_slot *slot,
                                          int64_t rows);
troupe_status stack_forward(const struct stack *stack, const struct context *context,
                            const struct stack_slot *slot, const struct segments *segments,
                            int64_t rows);
troupe_status stack_backward_input(const struct stack *stack, const struct context *context,
                                   const struct stack_slot *slot, const struct segments *segments,
                                   int64_t rows);
troupe_status stack_backward_weight(const struct stack *stack, const struct context *context,
                                    const struct stack_slot *slot, int64_t rows);
/* Floating-point operations of one forward: 2 per multiply-add of the matrix products, attention
 * scores and values over whole segments (causal: half of them), nothing else; full model, all TP
 * shards together. */
double stack_flops(const struct stack_shape *shape, const struct segments *segments, int64_t rows);

#endif
