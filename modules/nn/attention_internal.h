/* SPDX-License-Identifier: Apache-2.0
 *
 * Multi-head attention inside segments of ragged rows, grouped-query where kv_heads < heads, with
 * or without biases and rotary positions. Over TP the heads are split: q, k, v column-parallel (one
 * product), o row-parallel.
 *
 * Legend: R rows, H heads and G key/value heads of this shard, D columns of a head. Ownership,
 * threads, failure: as context_internal.h.
 */
#ifndef TROUPE_MODULES_NN_ATTENTION_INTERNAL_H
#define TROUPE_MODULES_NN_ATTENTION_INTERNAL_H

#include "modules/nn/linear_internal.h"

struct attention {
    int heads;    /* H */
    int kv_heads; /* G */
    int head_dim; /* D */
    bool causal;
    struct linear qkv;
    struct linear o;
};

struct attention_shape {
    const char *prefix; /* "llm.layers.3.attention" */
    int64_t hidden;
    int heads; /* full */
    int kv_heads;
    bool bias;
    double o_gain;
};

/* The segments of one microbatch; the arrays belong to the batch view. */
struct segments {
    const int32_t *cu_len; /* (count + 1) */
    int64_t count;
    struct troupe_tensor rope; /* angles (positions, D); no data: no rotation */
    const int32_t *positions;  /* (R), of the rotation */
};

struct attention_slot {
    float *qkv; /* (R, (H + 2 G) D), rotated; backward_input turns it into its gradient */
    float *lse; /* (R, H) */
    float *o;   /* (R, H D) */
};

/* Shared by all layers of a module: what does not outlive a call. */
struct attention_scratch {
    float *d_o;  /* (R, H D) */
    float *dqkv; /* (R, (H + 2 G) D) */
    void *workspace;
};

/* attention->causal is set before. */
void attention_declare(struct attention *attention, struct context *context,
                       const struct attention_shape *shape);
void attention_carve(const struct attention *attention, struct slab *slab, int64_t rows_max,
                     struct attention_slot *slot);
void attention_carve_scratch(const struct attention *attention, const struct context *context,
                             struct slab *slab, int64_t rows_max, int64_t segment_rows_max,
                             struct attention_scratch *scratch);
/* x, y: (R, C). */
troupe_status attention_forward(const struct attention *attention, const struct context *context,
                                const struct attention_slot *slot,
                                const struct attention_scratch *scratch,
                                const struct segments *segments, struct troupe_tensor x,
                                struct troupe_tensor y);
troupe_status attention_backward_input(const struct attention *attention,
                                       const struct context *context,
                                       const struct attention_slot *slot,
                                       const struct attention_scratch *scratch,
                                       const struct segments *segments, struct troupe_tensor dy,
                                       struct troupe_tensor dx);
troupe_status attention_backward_weight(const struct attention *attention,
                                        const struct context *context,
                                        const struct attention_slot *slot, struct troupe_tensor x,
                                        struct troupe_tensor dy);

#endif
