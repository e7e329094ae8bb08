/* SPDX-License-Identifier: Apache-2.0
 *
 * LayerNorm (weight, bias) or RMSNorm (weight), the same on every TP member.
 *
 * Ownership, threads, failure: as context_internal.h.
 */
#ifndef TROUPE_MODULES_NN_NORM_INTERNAL_H
#define TROUPE_MODULES_NN_NORM_INTERNAL_H

#include "modules/nn/context_internal.h"

enum norm_kind { NORM_LAYER, NORM_RMS };

struct norm {
    enum norm_kind kind;
    int weight;
    int bias; /* -1 for NORM_RMS */
    float epsilon;
};

/* Statistics of each row, kept from forward to backward. */
struct norm_slot {
    float *mean; /* NORM_LAYER only */
    float *rstd;
};

void norm_declare(struct norm *norm, struct context *context, const char *prefix, int64_t columns);
void norm_carve(const struct norm *norm, struct slab *slab, int64_t rows_max,
                struct norm_slot *slot);
/* y = norm(x), and the statistics. All x, y: (R, C). */
troupe_status norm_forward(const struct norm *norm, const struct context *context,
                           const struct norm_slot *slot, struct troupe_tensor x,
                           struct troupe_tensor y);
/* dx = gradient of x; with `accumulate` it is added to dx, which holds the residual's gradient. */
troupe_status norm_backward_input(const struct norm *norm, const struct context *context,
                                  const struct norm_slot *slot, struct troupe_tensor x,
                                  struct troupe_tensor dy, struct troupe_tensor dx,
                                  bool accumulate);
troupe_status norm_backward_weight(const struct norm *norm, const struct context *context,
                                   const struct norm_slot *slot, struct troupe_tensor x,
                                   struct troupe_tensor dy);

#endif
