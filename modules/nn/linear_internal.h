/* SPDX-License-Identifier: Apache-2.0
 *
 * y = x W^T + b, with W (out, in) split over the TP group or not. LINEAR_COLUMN splits the outputs:
 * x is whole, y is this shard's columns, the input gradient is summed over the group. LINEAR_ROW
 * splits the inputs: x is this shard's columns, y is summed over the group and the bias, which
 * every member holds, is added once. Several matrices with the same input (q, k, v) may be one
 * linear.
 *
 * Ownership, threads, failure: as context_internal.h.
 */
#ifndef TROUPE_MODULES_NN_LINEAR_INTERNAL_H
#define TROUPE_MODULES_NN_LINEAR_INTERNAL_H

#include "modules/nn/context_internal.h"

enum linear_split { LINEAR_WHOLE, LINEAR_COLUMN, LINEAR_ROW };
enum { LINEAR_PARTS_MAX = 3 };

/* Initial deviation of a linear is gain / sqrt(in); this gain gives the variance of the usual
 * uniform initialisation, 1 / (3 in) (LeCun et al., 1998). */
#define LINEAR_GAIN 0.57735026918962573

struct linear {
    enum linear_split split;
    int parts;
    int weight; /* index of the first part's parameter */
    int bias;   /* the same, or -1 */
};

struct linear_shape {
    const char *prefix;                  /* "llm.layers.3.attention" */
    const char *parts[LINEAR_PARTS_MAX]; /* "q", "k", "v"; NULL ends */
    int64_t out[LINEAR_PARTS_MAX];       /* full rows of each */
    int64_t in;
    enum linear_split split;
    bool bias;
    double gain; /* initial deviation is gain / sqrt(in) */
};

void linear_declare(struct linear *linear, struct context *context,
                    const struct linear_shape *shape);
/* x: (R, in), y: (R, out); this shard's columns where split. y is contiguous for LINEAR_ROW. */
troupe_status linear_forward(const struct linear *linear, const struct context *context,
                             struct troupe_tensor x, struct troupe_tensor y);
/* dx = dy W, contiguous for LINEAR_COLUMN. */
troupe_status linear_backward_input(const struct linear *linear, const struct context *context,
                                    struct troupe_tensor dy, struct troupe_tensor dx);
/* dW += dy^T x, db += column sums of dy. */
troupe_status linear_backward_weight(const struct linear *linear, const struct context *context,
                                     struct troupe_tensor x, struct troupe_tensor dy);

#endif
