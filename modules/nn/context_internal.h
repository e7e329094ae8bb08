/* SPDX-License-Identifier: Apache-2.0
 *
 * What every layer of a module works with: stream, kernels, the TP group and the parameters; and
 * the slab that activation slots are carved from. Layers are plain structs with four kinds of
 * functions: x_declare (its parameters), x_carve (its buffers of one slot), x_forward,
 * x_backward_input and x_backward_weight.
 *
 * Ownership: the module owns all of it. Threads: the rank's executor. Failure: as module.h says.
 */
#ifndef TROUPE_MODULES_NN_CONTEXT_INTERNAL_H
#define TROUPE_MODULES_NN_CONTEXT_INTERNAL_H

#include "modules/nn/module.h"

/* Sizes are taken in a first pass with base NULL, memory is handed out in a second one. Floats are
 * in device memory; integers, which ops take from the host, in host memory. */
struct slab {
    float *base;
    int64_t used; /* floats */
    int32_t *integers;
    int64_t integers_used;
};

/* The parameters of one shard in declaration order. Boxes are back to back in one allocation, so
 * that weights declared one after the other are one matrix too. */
struct parameter_set {
    struct troupe_parameter_spec *specs; /* NULL: only counting */
    struct troupe_parameter *list;       /* NULL until parameters_create */
    int count;
    struct slab values;
    struct slab gradients;
};

struct context {
    troupe_stream *stream;
    const struct troupe_kernels *kernels;
    troupe_group *tp; /* NULL: alone */
    int tp_index;
    int tp_count;
    struct parameter_set parameters;
    struct slab activations; /* slots and scratch */
};

void context_init(struct context *context, const struct troupe_module_options *options);
/* Frees parameters and activations. */
void context_fini(struct context *context);
/* A context that only collects (out) or counts (out NULL) specs. */
struct context context_for_specs(const struct troupe_shard *shard,
                                 struct troupe_parameter_spec *out);
/* ERROR_INVALID unless tp divides the heads; key: "llm.heads". */
troupe_status heads_check(const char *key, int heads, int tp_count);

/* count floats, 64-byte aligned. */
float *slab_take(struct slab *slab, int64_t count);
int32_t *slab_take_int32(struct slab *slab, int64_t count);
/* Backs what the first pass counted with zeroed memory and rewinds. */
troupe_status slab_create(struct slab *slab, troupe_stream *stream);
void slab_destroy(struct slab *slab, troupe_stream *stream);

/* Share `index` of `count` of [0, extent), as layouts split: near-even, contiguous. */
struct interval {
    int64_t begin;
    int64_t end;
};
struct interval interval_share(int64_t extent, int index, int count);

/* Adds one parameter "prefix.suffix"; returns its index. */
int parameter_declare(struct parameter_set *set, const char *prefix, const char *suffix,
                      const struct troupe_parameter_spec *spec);
/* Room for the specs of what has been declared so far, and back to the first: the next declares
 * are kept. */
troupe_status parameters_prepare(struct context *context);
/* Boxes and memory for what was declared. */
troupe_status parameters_create(struct context *context, bool inference);
void parameters_destroy(struct context *context);
/* `parts` parameters from `index` on as one matrix; a vector is one row. */
struct troupe_tensor parameter_value(const struct parameter_set *set, int index, int parts);
struct troupe_tensor parameter_gradient(const struct parameter_set *set, int index, int parts);

/* A contiguous float32 matrix. */
struct troupe_tensor matrix(float *data, int64_t rows, int64_t columns);
/* Columns [begin, begin + columns) of x. */
struct troupe_tensor columns_of(struct troupe_tensor x, int64_t begin, int64_t columns);

/* count elements at data are reduced over the TP group, the same bits on every member. */
troupe_status group_reduce(const struct context *context, enum troupe_reduction reduction,
                           float *data, int64_t count);
/* The sum over the TP group of x, which is contiguous. */
troupe_status tensor_sum(const struct context *context, struct troupe_tensor x);
troupe_status tensor_copy(const struct context *context, struct troupe_tensor from,
                          struct troupe_tensor to);
troupe_status tensor_add(const struct context *context, struct troupe_tensor x,
                         struct troupe_tensor y, struct troupe_tensor out);

#endif
