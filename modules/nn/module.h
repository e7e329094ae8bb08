/* SPDX-License-Identifier: Apache-2.0
 *
 * A module is a part of the model with parameters: vision encoder, projector, language model. A
 * module class says how one shard of one stage of it is built and what its three methods compute;
 * it never sees ranks, meshes or messages. The runtime calls, for every microbatch,
 *
 *     forward          inputs -> outputs, keeps what backward needs in activation slot `slot`
 *     backward_input   output_gradients -> input_gradients   (B)
 *     backward_weight  adds to the parameter gradients, then the slot is free   (W)
 *
 * and the fused backward is the last two in sequence. A new encoder is one file that fills this
 * table (see modules/nn/vision.c).
 *
 * Shapes: a boundary tensor is (rows, hidden) float32 on the actor's device; a row is one token of
 * one sample, rows are ragged and nothing is padded. Inputs and outputs belong to the caller, are
 * contiguous (stride == columns) and valid during the call only. Rows may be 0. The batch views
 * (without the pixels) stay the same and valid from forward to backward_weight.
 * Threads: the rank's executor. Ownership: create/destroy by the caller.
 * Failure: create: ERROR_INVALID with the config key, ERROR_MEMORY. Methods: the device's or the
 * group's failure. Methods do not allocate.
 */
#ifndef TROUPE_MODULES_NN_MODULE_H
#define TROUPE_MODULES_NN_MODULE_H

#include <stdbool.h>
#include <stdint.h>

#include "comm/group.h"
#include "modules/data/microbatch.h"
#include "modules/kernels/kernels.h"
#include "modules/nn/config.h"
#include "runtime/device.h"
#include "runtime/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TROUPE_DIMENSIONS_MAX = 4, TROUPE_PARAMETER_NAME_BYTES = 96, TROUPE_MODULE_PORTS_MAX = 4 };

/* How the elements of a fresh parameter are drawn. */
enum troupe_init { TROUPE_INIT_ZERO, TROUPE_INIT_ONE, TROUPE_INIT_NORMAL };

/* What a parameter is in every layout: its global name and full shape. */
struct troupe_parameter_spec {
    char name[TROUPE_PARAMETER_NAME_BYTES]; /* "llm.layers.3.attention.q.weight" */
    int64_t shape[TROUPE_DIMENSIONS_MAX];   /* full extents; weights are (out, in) */
    int dimensions;
    int tp_dimension; /* the dimension split over TP, or -1: replicated */
    enum troupe_init init;
    double init_scale; /* standard deviation of NORMAL */
    bool decay;        /* weight decay applies: matrices, not norms, biases */
};

/* This shard's box of a parameter, contiguous row-major (extent[0], extent[1], ...). A module's
 * boxes lie back to back in list order, values in one block and gradients in another, so that a
 * reduction may take neighbours, or all, in one go. Dimension tp_dimension is split near-evenly,
 * as a layout does (troupe_split_begin). */
struct troupe_parameter {
    struct troupe_parameter_spec spec;
    int64_t begin[TROUPE_DIMENSIONS_MAX];
    int64_t extent[TROUPE_DIMENSIONS_MAX];
    float *value;    /* device; belongs to the module */
    float *gradient; /* device; sums over the microbatches of a step; zeroed by the caller with
                        troupe_gradients_zero; NULL with options.inference */
    /* A tied parameter lives on the first and on the last stage; the second copy counts for
     * nothing in norms and files, and its gradient is summed with the first one's. */
    bool tied_copy;
};

/* Which part of the module this is. */
struct troupe_shard {
    int tp_index;
    int tp_count;
    int layer_begin; /* of the module's layers */
    int layer_end;
    bool first_stage; /* holds the input embedding */
    bool last_stage;  /* holds the final norm, and the head and loss of a language model */
};

struct troupe_module_options {
    const struct troupe_model_config *config; /* borrowed for the module's life */
    struct troupe_shard shard;
    int slots;        /* activation slots: microbatches between forward and backward_weight */
    int64_t rows_max; /* of one microbatch on this shard, this module's own rows */
    int64_t samples_max;
    int64_t images_max;
    bool inference; /* forward only: no gradients, no backward buffers */
    troupe_stream *stream;
    const struct troupe_kernels *kernels;
    troupe_group *tp; /* NULL when tp_count is 1 */
};

/* One firing. The class uses the batch that its kind of module needs. */
struct troupe_module_task {
    int slot;
    const struct troupe_vision_batch *vision; /* of this shard's interval of the microbatch */
    const struct troupe_language_batch *language;
    const struct troupe_tensor *inputs;           /* forward: class order of ports */
    const struct troupe_tensor *outputs;          /* forward: to be written in full */
    const struct troupe_tensor *output_gradients; /* backward_input */
    const struct troupe_tensor *input_gradients;  /* backward_input: to be written in full */
    double *loss_sum; /* last stage of a language model, forward: sum of -log p over the targets of
                         this batch; NULL only with options.inference */
    float *logits;    /* inference, last stage: (samples, vocabulary shard) of the last row of each
                         sample, or NULL */
};

typedef struct troupe_module troupe_module;

struct troupe_module_class {
    const char *name; /* config key and prefix of the parameter names: "vision" */
    /* Layers that stages divide; 1 if it cannot be divided. */
    int (*layer_count)(const struct troupe_model_config *config);
    /* Columns of the boundary tensors at a shard's input and output; 0: no such port. */
    int64_t (*input_columns)(const struct troupe_model_config *config,
                             const struct troupe_shard *shard);
    int64_t (*output_columns)(const struct troupe_model_config *config,
                              const struct troupe_shard *shard);
    /* ERROR_INVALID with the reason if this TP degree does not fit the head counts. */
    troupe_status (*check)(const struct troupe_model_config *config, int tp_count);
    /* The specs of all parameters of a shard; out may be NULL to count. Full shapes, so
     * tp_index does not matter; with layers [0, n), first and last stage: the whole module. */
    int (*specs)(const struct troupe_model_config *config, const struct troupe_shard *shard,
                 struct troupe_parameter_spec *out);
    /* Floating-point operations of one forward (backward counts twice), for model_tflops. */
    double (*flops)(const struct troupe_model_config *config, const struct troupe_shard *shard,
                    const struct troupe_module_task *task);
    troupe_status (*create)(const struct troupe_module_options *options, troupe_module **out);
    void (*destroy)(troupe_module *module);
    int (*parameters)(troupe_module *module, struct troupe_parameter **out);
    troupe_status (*forward)(troupe_module *module, const struct troupe_module_task *task);
    troupe_status (*backward_input)(troupe_module *module, const struct troupe_module_task *task);
    troupe_status (*backward_weight)(troupe_module *module, const struct troupe_module_task *task);
};

/* NULL-terminated list of the classes built in, in graph order: vision, projector, llm. */
const struct troupe_module_class *const *troupe_module_classes(void);

/* The shard that is the whole module. */
struct troupe_shard troupe_shard_whole(const struct troupe_module_class *module_class,
                                       const struct troupe_model_config *config);
/* The specs of all parameters of the model, module by module: the same in every layout. out may be
 * NULL to count. */
int troupe_model_specs(const struct troupe_model_config *config, struct troupe_parameter_spec *out);

/* Elements of this shard's box. */
int64_t troupe_parameter_elements(const struct troupe_parameter *parameter);

/* The largest operand of a module's TP collectives in bytes, for the group's options. */
size_t troupe_module_group_bytes(const struct troupe_model_config *config, int64_t rows_max);

troupe_status troupe_gradients_zero(troupe_stream *stream, struct troupe_parameter *parameters,
                                    int count);

/* Fills values with the initial weights: computed in float64 from (seed, name, global element),
 * then rounded; the same in every layout. Start-up only: waits for the stream. */
troupe_status troupe_parameters_init(troupe_stream *stream, struct troupe_parameter *parameters,
                                     int count, uint64_t seed);

#ifdef __cplusplus
}
#endif
#endif
