/* SPDX-License-Identifier: Apache-2.0 */
/* The colocated schedule of Megatron-LM MIMO, kept as the baseline: all encoder forwards, the
 * language model's pipeline in its textbook sequence, all encoder backwards. The encoder's
 * backwards are held back until the rank's part of the pipeline is issued, where slots and credits
 * hold a whole step; else they run where there is nothing of the pipeline to run. */
#include "scheduler/order_internal.h"

enum key_class {
    CLASS_CLOSING,
    CLASS_ENCODER_FORWARD,
    CLASS_TRUNK,
    CLASS_ENCODER_BACKWARD,
    CLASS_USER,
};

static int in_flight(const void *state, const struct troupe_graph *graph, int gang) {
    const struct troupe_order_gang *g = troupe_order_gang_at(state, gang);
    return g->trunk ? troupe_textbook_in_flight(g) : troupe_order_unbounded(state, graph, gang);
}

/* The ranks of the gang have had all tickets of the language model. */
static bool pipeline_is_issued(const struct troupe_order_info *info,
                               const struct troupe_order_view *view, int gang) {
    const struct troupe_lists *neighbours = &info->index->neighbours;
    for (int i = neighbours->begin[gang]; i < neighbours->begin[gang + 1]; i++) {
        const struct troupe_order_gang *other = troupe_order_gang_at(info, neighbours->items[i]);
        int last = other->weight >= 0 ? other->weight : other->backward;
        if (other->trunk && last >= 0 && view->issued[last] < other->microbatches) {
            return false;
        }
    }
    return true;
}

static int64_t key(void *state, const struct troupe_order_view *view,
                   const struct troupe_candidate *candidate) {
    const struct troupe_order_info *info = state;
    const struct troupe_method *method = &view->graph->methods[candidate->method];
    const struct troupe_order_gang *gang = troupe_order_gang_at(state, method->gang);
    int k = candidate->microbatch;
    switch (method->kind) {
    case TROUPE_METHOD_BACKWARD_WEIGHT:
    case TROUPE_METHOD_REDUCE:
    case TROUPE_METHOD_UPDATE:
        return TROUPE_KEY_OF(CLASS_CLOSING, 0);
    case TROUPE_METHOD_FORWARD:
    case TROUPE_METHOD_PREFETCH:
        return gang->trunk ? TROUPE_KEY_OF(CLASS_TRUNK, troupe_textbook_forward(gang, k))
                           : TROUPE_KEY_OF(CLASS_ENCODER_FORWARD, k);
    case TROUPE_METHOD_BACKWARD_INPUT:
    case TROUPE_METHOD_RECOMPUTE:
        if (gang->trunk) {
            return TROUPE_KEY_OF(CLASS_TRUNK, troupe_textbook_backward(gang, k));
        }
        return info->roomy && !pipeline_is_issued(info, view, method->gang)
                   ? TROUPE_KEY_HELD
                   : TROUPE_KEY_OF(CLASS_ENCODER_BACKWARD, k);
    case TROUPE_METHOD_USER:
        break;
    }
    return TROUPE_KEY_OF(CLASS_USER, 0);
}

static int pick(void *state, const struct troupe_order_view *view,
                const struct troupe_candidate *candidates, int count) {
    return troupe_order_pick_least(state, view, candidates, count, key);
}

const struct troupe_order_policy troupe_order_three_phase = {
    .name = "three_phase",
    .summary = "all encoder forwards, the pipeline, all encoder backwards; the baseline",
    .create = troupe_order_create_info,
    .destroy = troupe_order_destroy_info,
    .begin_step = troupe_order_no_plan,
    .in_flight = in_flight,
    .pick = pick,
};
