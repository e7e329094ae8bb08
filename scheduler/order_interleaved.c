/* SPDX-License-Identifier: Apache-2.0 */
/* Interleaved one forward, one backward, for ranks that hold several stages of the language model
 * (Narayanan et al., SC21); with one stage a rank it is 1F1B in the textbook's sequence. Where a
 * rank's next task cannot run and another can, that one runs; the textbook's memory bounds how far
 * that goes. Modules before the language model fill in. */
#include "scheduler/order_internal.h"

/* Lowest goes first. */
enum key_class {
    CLASS_CLOSING, /* what costs nothing or ends something: reductions, updates, W after its B */
    CLASS_TRUNK,
    CLASS_ENCODER_BACKWARD,
    CLASS_ENCODER_FORWARD,
    CLASS_USER,
};

static int in_flight(const void *state, const struct troupe_graph *graph, int gang) {
    (void)graph;
    const struct troupe_order_gang *g = troupe_order_gang_at(state, gang);
    return g->trunk ? troupe_textbook_in_flight(g) : g->left;
}

static int64_t key(void *state, const struct troupe_order_view *view,
                   const struct troupe_candidate *candidate) {
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
        return gang->trunk ? TROUPE_KEY_OF(CLASS_TRUNK, troupe_textbook_backward(gang, k))
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

const struct troupe_order_policy troupe_order_interleaved = {
    .name = "interleaved",
    .summary = "one forward, one backward over several stages a rank; encoders fill in",
    .create = troupe_order_create_info,
    .destroy = troupe_order_destroy_info,
    .begin_step = troupe_order_no_plan,
    .in_flight = in_flight,
    .pick = pick,
};
