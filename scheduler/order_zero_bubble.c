/* SPDX-License-Identifier: Apache-2.0 */
/* Zero-bubble schedules with a barrier per step (Qi et al., "Zero bubble pipeline parallelism",
 * ICLR 2024, and "Pipeline parallelism with controllable memory", NeurIPS 2024): input gradients
 * first, forwards as far as 1F1B would be, weight gradients where neither can run. One stage a rank
 * gives ZB-H1, with the memory of 1F1B's first stage on each rank; two stages in the shape of a V
 * give ZB-V, in which the microbatch on its way back to the first rank goes first. */
#include "scheduler/order_internal.h"

/* Lowest goes first. */
enum key_class {
    CLASS_CLOSING, /* reductions, updates */
    CLASS_BACKWARD,
    CLASS_FORWARD,
    CLASS_ENCODER_FORWARD,
    CLASS_ENCODER_BACKWARD,
    CLASS_WEIGHT,
    CLASS_USER,
    CLASS_FORWARD_AHEAD, /* of what 1F1B would have in flight */
};

static int in_flight(const void *state, const struct troupe_graph *graph, int gang) {
    (void)graph;
    const struct troupe_order_gang *g = troupe_order_gang_at(state, gang);
    return g->trunk ? 2 * g->pipeline_ranks / g->chunks + (g->chunks > 1) * g->pipeline_ranks
                    : g->left;
}

/* Whether 1F1B would run one more forward before the next backward. */
static bool is_in_turn(const struct troupe_order_view *view, const struct troupe_order_gang *gang) {
    int backwards = gang->backward >= 0 ? view->issued[gang->backward] : gang->microbatches;
    return view->issued[gang->forward] - backwards < gang->left;
}

static int64_t key(void *state, const struct troupe_order_view *view,
                   const struct troupe_candidate *candidate) {
    const struct troupe_method *method = &view->graph->methods[candidate->method];
    const struct troupe_order_gang *gang = troupe_order_gang_at(state, method->gang);
    int k = candidate->microbatch, back = gang->chunks - 1 - gang->chunk; /* later stages first */
    switch (method->kind) {
    case TROUPE_METHOD_REDUCE:
    case TROUPE_METHOD_UPDATE:
        return TROUPE_KEY_OF(CLASS_CLOSING, 0);
    case TROUPE_METHOD_FORWARD:
    case TROUPE_METHOD_PREFETCH:
        if (!gang->trunk) {
            return TROUPE_KEY_OF(CLASS_ENCODER_FORWARD, k);
        }
        return TROUPE_KEY_OF(is_in_turn(view, gang) ? CLASS_FORWARD : CLASS_FORWARD_AHEAD,
                             (int64_t)back * gang->microbatches + k);
    case TROUPE_METHOD_BACKWARD_INPUT:
    case TROUPE_METHOD_RECOMPUTE:
        return gang->trunk ? TROUPE_KEY_OF(CLASS_BACKWARD, k * gang->chunks + gang->chunk)
                           : TROUPE_KEY_OF(CLASS_ENCODER_BACKWARD, k);
    case TROUPE_METHOD_BACKWARD_WEIGHT:
        return TROUPE_KEY_OF(CLASS_WEIGHT, k);
    case TROUPE_METHOD_USER:
        break;
    }
    return TROUPE_KEY_OF(CLASS_USER, 0);
}

static int pick(void *state, const struct troupe_order_view *view,
                const struct troupe_candidate *candidates, int count) {
    return troupe_order_pick_least(state, view, candidates, count, key);
}

const struct troupe_order_policy troupe_order_zero_bubble = {
    .name = "zero_bubble",
    .summary = "input gradients first, weight gradients in the gaps: ZB-H1, ZB-V",
    .create = troupe_order_create_info,
    .destroy = troupe_order_destroy_info,
    .begin_step = troupe_order_no_plan,
    .in_flight = in_flight,
    .pick = pick,
};
