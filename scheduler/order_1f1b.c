/* SPDX-License-Identifier: Apache-2.0 */
/* One forward, one backward (Narayanan et al., "PipeDream", SOSP 2019; flushing form of
 * "Memory-efficient pipeline-parallel DNN training", ICML 2021). Stage s of p of the language model
 * runs w = p - s forwards, then one backward and one forward in turn, then the last backwards, so
 * it never holds more than w microbatches. Modules before it fill in: their forward when nothing
 * better can run, which is just in time, their backward when its gradient is in.
 *
 * The stage's own order is kept where both directions could run; where only the other one can
 * (an encoder is late, say), that one runs, because policies never leave a rank idle. */
#include "scheduler/order_internal.h"

/* Lowest goes first. */
enum urgency {
    URGENCY_CLOSING, /* what costs nothing or ends something: reductions, updates, W after its B */
    URGENCY_BACKWARD,
    URGENCY_FORWARD,
    URGENCY_ENCODER_BACKWARD,
    URGENCY_ENCODER_FORWARD,
    URGENCY_USER,
    URGENCY_OUT_OF_TURN, /* of the language model's pair, the one whose turn it is not */
};

/* w of the comment above; the slots of the pool bound it further. For modules before the language
 * model: as many as are on their way through what follows. */
static int in_flight(const void *state, const struct troupe_graph *graph, int gang) {
    (void)graph;
    return troupe_order_gang_at(state, gang)->left;
}

/* The pair's turn: forward until w are in flight, then backward until one less is; at the end, when
 * no forward is left, backward. */
static bool is_turn_of_forward(const struct troupe_order_view *view,
                               const struct troupe_method *method,
                               const struct troupe_order_gang *gang) {
    int slots = view->graph->gangs[method->gang].slots;
    int width = slots > 0 && slots < gang->left ? slots : gang->left;
    if (gang->backward < 0) {
        return true;
    }
    int forwards = gang->forward >= 0 ? view->issued[gang->forward] : gang->microbatches;
    return forwards < gang->microbatches && forwards - view->issued[gang->backward] < width;
}

static enum urgency urgency_of(const struct troupe_order_info *info,
                               const struct troupe_order_view *view, int m) {
    const struct troupe_method *method = &view->graph->methods[m];
    const struct troupe_order_gang *gang = troupe_order_gang_at(info, method->gang);
    bool encoder = !gang->trunk;
    switch (method->kind) {
    case TROUPE_METHOD_BACKWARD_WEIGHT:
    case TROUPE_METHOD_REDUCE:
    case TROUPE_METHOD_UPDATE:
        return URGENCY_CLOSING;
    case TROUPE_METHOD_BACKWARD_INPUT:
        if (encoder) {
            return URGENCY_ENCODER_BACKWARD;
        }
        return is_turn_of_forward(view, method, gang) ? URGENCY_OUT_OF_TURN : URGENCY_BACKWARD;
    case TROUPE_METHOD_FORWARD:
        if (encoder) {
            return URGENCY_ENCODER_FORWARD;
        }
        return is_turn_of_forward(view, method, gang) ? URGENCY_FORWARD : URGENCY_OUT_OF_TURN;
    case TROUPE_METHOD_RECOMPUTE:
        return URGENCY_BACKWARD;
    case TROUPE_METHOD_PREFETCH:
        return URGENCY_FORWARD;
    case TROUPE_METHOD_USER:
        break;
    }
    return URGENCY_USER;
}

static int64_t key(void *state, const struct troupe_order_view *view,
                   const struct troupe_candidate *candidate) {
    return urgency_of(state, view, candidate->method);
}

static int pick(void *state, const struct troupe_order_view *view,
                const struct troupe_candidate *candidates, int count) {
    return troupe_order_pick_least(state, view, candidates, count, key);
}

const struct troupe_order_policy troupe_order_1f1b = {
    .name = "1f1b",
    .summary = "one forward, one backward; encoders fill in",
    .create = troupe_order_create_info,
    .destroy = troupe_order_destroy_info,
    .begin_step = troupe_order_no_plan,
    .in_flight = in_flight,
    .pick = pick,
};
