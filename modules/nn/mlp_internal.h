/* SPDX-License-Identifier: Apache-2.0
 *
 * y = down(act(up(x))): GELU with biases, or SwiGLU (gate and up as one product) without. Over TP
 * the inner columns are split: `up` column-parallel, `down` row-parallel, one sum in each
 * direction.
 *
 * Legend: R rows, F inner columns of this shard. Ownership, threads, failure: as
 * context_internal.h.
 */
#ifndef TROUPE_MODULES_NN_MLP_INTERNAL_H
#define TROUPE_MODULES_NN_MLP_INTERNAL_H

#include "modules/nn/linear_internal.h"

struct mlp {
    bool gated;    /* SwiGLU without biases; else GELU with biases */
    int64_t inner; /* F */
    struct linear up;
    struct linear down;
};

struct mlp_shape {
    const char *prefix; /* "llm.layers.3.mlp" */
    int64_t in;
    int64_t inner; /* full */
    int64_t out;
    double down_gain;
};

/* hidden: (R, F), gated (R, 2 F) with the gate first; backward_input turns it into its gradient. */
struct mlp_slot {
    float *hidden;
    float *activation; /* (R, F) */
};

/* mlp->gated is set before. */
void mlp_declare(struct mlp *mlp, struct context *context, const struct mlp_shape *shape);
void mlp_carve(const struct mlp *mlp, struct slab *slab, int64_t rows_max, struct mlp_slot *slot);
troupe_status mlp_forward(const struct mlp *mlp, const struct context *context,
                          const struct mlp_slot *slot, struct troupe_tensor x,
                          struct troupe_tensor y);
/* scratch: rows_max * F floats. */
troupe_status mlp_backward_input(const struct mlp *mlp, const struct context *context,
                                 const struct mlp_slot *slot, float *scratch,
                                 struct troupe_tensor dy, struct troupe_tensor dx);
troupe_status mlp_backward_weight(const struct mlp *mlp, const struct context *context,
                                  const struct mlp_slot *slot, struct troupe_tensor x,
                                  struct troupe_tensor dy);

#endif
