/* SPDX-License-Identifier: Apache-2.0
 *
 * One shard of one stage of one module on this rank: the module, its view of the step's
 * microbatches, and where its gradients and replicas stand in the job.
 *
 * Ownership: create/destroy by the training object. Threads: the rank's thread.
 * Failure: the module's or the data source's sentence.
 */
#ifndef TROUPE_MODULES_TRAIN_STAGE_H
#define TROUPE_MODULES_TRAIN_STAGE_H

#include <stdint.h>

#include "modules/data/microbatch.h"
#include "modules/nn/module.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_stage_options {
    const struct troupe_module_class *module_class;
    const struct troupe_model_config *config;
    int module; /* index in troupe_module_classes */
    struct troupe_shard shard;
    int dp_index;
    int dp_count;
    int slots;
    const troupe_sample_plan *plan;
    const troupe_image_split *split; /* of an encoder's images; NULL: those of its samples */
    troupe_source *source;
    troupe_stream *stream;
    troupe_group *tp; /* NULL: alone */
};

struct troupe_stage {
    struct troupe_stage_options options;
    troupe_module *module;
    struct troupe_parameter *parameters;
    int parameter_count;
    int microbatch_count;
    troupe_microbatch **batches; /* one a microbatch of the step */
    /* What the device says of each microbatch of the step, in memory that host and device reach;
     * for the host to read after troupe_stage_end_step. */
    double *loss_sums;        /* last stage of the language model; else 0 */
    int64_t *nonfinite_rows;  /* first row of the output that is not finite, or -1 */
    int nonfinite_microbatch; /* first whose output was not finite, or -1 */
    double flops;             /* of the step's forwards on this shard */
};

troupe_status troupe_stage_create(const struct troupe_stage_options *options,
                                  struct troupe_stage **out);
void troupe_stage_destroy(struct troupe_stage *stage);

/* Loads this shard's part of every microbatch of the plan's current step, zeroes the gradients. */
troupe_status troupe_stage_begin_step(struct troupe_stage *stage);

/* The stream's work of the step is done: looks at what it left. */
void troupe_stage_end_step(struct troupe_stage *stage);

/* input and output are NULL where the shard has no such port. */
troupe_status troupe_stage_forward(struct troupe_stage *stage, int microbatch, int slot,
                                   const struct troupe_tensor *input,
                                   const struct troupe_tensor *output);
troupe_status troupe_stage_backward_input(struct troupe_stage *stage, int microbatch, int slot,
                                          const struct troupe_tensor *output_gradient,
                                          const struct troupe_tensor *input_gradient);
troupe_status troupe_stage_backward_weight(struct troupe_stage *stage, int microbatch, int slot);

#ifdef __cplusplus
}
#endif
#endif
