/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of a language model: final RMSNorm, vocabulary-parallel head and cross-entropy. Only rows
 * that have a target are normed and multiplied. Over TP every member holds a share of the
 * vocabulary (shares may differ by one); the row maximum, then the sum and the target's logit, are
 * reduced over the group.
 *
 * Legend: R rows, T rows with a target, C columns, V vocabulary rows of this shard. Ownership,
 * threads, failure: as context_internal.h.
 */
#ifndef TROUPE_MODULES_NN_HEAD_INTERNAL_H
#define TROUPE_MODULES_NN_HEAD_INTERNAL_H

#include "modules/nn/linear_internal.h"
#include "modules/nn/norm_internal.h"

struct head {
    struct norm norm;
    struct linear linear;  /* its weight may be the token embedding */
    struct interval share; /* of the vocabulary */
    int64_t columns;       /* C */
};

struct head_slot {
    int64_t rows;       /* T */
    int32_t *row_index; /* (T) ascending rows of the batch */
    int32_t *targets;   /* (T) */
    float scale;        /* of the loss: 1 / target tokens of the step */
    float *x;           /* (T, C) */
    struct norm_slot norm;
    float *normed;   /* (T, C) */
    float *logits;   /* (T, V); backward_input turns it into its gradient */
    float *row_max;  /* (T) */
    float *row_sum;  /* (T), then the targets' logits (T): reduced in one go */
    float *row_loss; /* (T) */
    float *dnormed;  /* (T, C) */
};

/* norm is set before; weight is the parameter of a (vocabulary, C) matrix split by rows. */
void head_declare(struct head *head, struct context *context, int64_t vocabulary, int64_t columns,
                  int weight);
void head_carve(const struct head *head, struct slab *slab, int64_t rows_max, bool inference,
                struct head_slot *slot);
/* x: (R, C). *loss_sum = sum of -log p over the targets of the batch. */
troupe_status head_forward(const struct head *head, const struct context *context,
                           struct head_slot *slot, const struct troupe_language_batch *batch,
                           struct troupe_tensor x, double *loss_sum);
/* logits: (samples, V) of the last row of each sample. Uses the slot's buffers. */
troupe_status head_logits(const struct head *head, const struct context *context,
                          struct head_slot *slot, const struct troupe_language_batch *batch,
                          struct troupe_tensor x, float *logits);
/* dx: (R, C), written in full. scratch: rows_max * C floats. */
troupe_status head_backward_input(const struct head *head, const struct context *context,
                                  const struct head_slot *slot, float *scratch,
                                  struct troupe_tensor dx);
troupe_status head_backward_weight(const struct head *head, const struct context *context,
                                   const struct head_slot *slot);

#endif
