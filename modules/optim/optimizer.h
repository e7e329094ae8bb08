/* SPDX-License-Identifier: Apache-2.0
 *
 * AdamW with decoupled decay and bias correction over the parameters of one shard, the learning
 * rate schedule, and the pieces of global gradient-norm clipping:
 *
 *     troupe_gradient_square_sums(&gradients, squares);      (then summed over ranks)
 *     double scale = troupe_clip_scale(total, clip);
 *     troupe_optimizer_update(optimizer, &(struct troupe_optimizer_step){step, lr, scale});
 *
 * Ownership: create/destroy; the optimizer owns the moments, parameters are borrowed.
 * Threads: the rank's executor. Failure: create: ERROR_MEMORY; update: the device's failure.
 */
#ifndef TROUPE_MODULES_OPTIM_OPTIMIZER_H
#define TROUPE_MODULES_OPTIM_OPTIMIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "modules/kernels/kernels.h"
#include "modules/nn/module.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_optimizer troupe_optimizer;

/* Linear warm-up to lr at step `warmup`, then half a cosine down to lr_min at step `steps`. */
struct troupe_lr_schedule {
    double lr;
    double lr_min;
    int64_t warmup; /* steps; 0: starts at lr */
    int64_t steps;
};
/* step counts from 1; past `steps` it stays at lr_min. */
double troupe_learning_rate(const struct troupe_lr_schedule *schedule, int64_t step);

struct troupe_optimizer_options {
    troupe_stream *stream;
    const struct troupe_kernels *kernels;
    struct troupe_parameter *parameters;
    int count;
    double beta1;        /* 0 means 0.9 */
    double beta2;        /* 0 means 0.95 */
    double epsilon;      /* 0 means 1e-8 */
    double weight_decay; /* of parameters with spec.decay */
};

troupe_status troupe_optimizer_create(const struct troupe_optimizer_options *options,
                                      troupe_optimizer **out);
void troupe_optimizer_destroy(troupe_optimizer *optimizer);

/* The moments of parameter `index`, shaped as its box; for checkpoints. */
struct troupe_moments {
    float *first;
    float *second;
};
struct troupe_moments troupe_optimizer_moments(const troupe_optimizer *optimizer, int index);

/* gradient_scale: from clipping, else 1. step counts from 1 (bias correction). */
struct troupe_optimizer_step {
    int64_t step;
    double lr;
    double gradient_scale;
};
troupe_status troupe_optimizer_update(troupe_optimizer *optimizer,
                                      const struct troupe_optimizer_step *step);

/* Square sums in float64 of each parameter's gradient into squares_out (count). What is held
 * elsewhere too counts once: a tied copy gives 0, and so does a parameter that is replicated over
 * TP unless `replicas_count` (set it on tp_index 0, for one DP replica). */
struct troupe_gradient_list {
    troupe_stream *stream;
    const struct troupe_kernels *kernels;
    const struct troupe_parameter *parameters;
    int count;
    bool replicas_count;
};
troupe_status troupe_gradient_square_sums(const struct troupe_gradient_list *gradients,
                                          double *squares_out);
/* clip / norm where the norm exceeds clip, else 1; clip 0 switches clipping off. A norm that is not
 * finite gives 1: it is for the caller to stop. */
double troupe_clip_scale(double square_sum, double clip);

#ifdef __cplusplus
}
#endif
#endif
