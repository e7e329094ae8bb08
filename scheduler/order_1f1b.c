/* SPDX-License-Identifier: Apache-2.0 */
/* One forward, one backward (Narayanan et al., "PipeDream", SOSP 2019; flushing form of
 * "Memory-efficient pipeline-parallel DNN training", ICML 2021). Stage s of p of the language model
 * runs w = p - s forwards, then one backward and one forward in turn, then the last backwards, so
 * it never holds more than w microbatches. Modules before it fill in: their forward when nothing
 * better can run, which is just in time, their backward when its gradient is in.
 *
 * The stage's own order is kept where both directions could run; where only the other one can
 * (an encoder is late, say), that one runs, because policies never leave a rank idle. */
#include <stddef.h>

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
    URGENCY_COUNT,
};

/* w of the comment above; the slots of the pool bound it further. */
static int in_flight(const void *state, const struct troupe_graph *graph, int gang) {
    (void)state;
    const struct troupe_gang *g = &graph->gangs[gang];
    if (g->depth > 0) {
        return troupe_order_unbounded(NULL, graph, gang);
    }
    int stages_left = g->stage_count - g->stage;
    return stages_left > 0 ? stages_left : 1;
}

/* Firings of the gang's method of a kind issued in this step, -1 if it has none. */
static int issued_of(const struct troupe_order_view *view, int gang, enum troupe_method_kind kind) {
    for (int m = 0; m < view->graph->method_count; m++) {
        if (view->graph->methods[m].gang == gang && view->graph->methods[m].kind == kind) {
            return view->issued[m];
        }
    }
    return -1;
}

/* The pair's turn: forward until w are in flight, then backward until one less is; at the end, when
 * no forward is left, backward. */
static bool is_turn_of_forward(const struct troupe_order_view *view,
                               const struct troupe_method *method) {
    const struct troupe_gang *gang = &view->graph->gangs[method->gang];
    int forwards = issued_of(view, method->gang, TROUPE_METHOD_FORWARD);
    int backwards = issued_of(view, method->gang, TROUPE_METHOD_BACKWARD_INPUT);
    int width = in_flight(NULL, view->graph, method->gang);
    width = gang->slots > 0 && gang->slots < width ? gang->slots : width;
    return backwards < 0 || (forwards < method->firings && forwards - backwards < width);
}

static enum urgency urgency_of(const struct troupe_order_view *view, int m) {
    const struct troupe_method *method = &view->graph->methods[m];
    bool encoder = view->graph->gangs[method->gang].depth > 0;
    switch (method->kind) {
    case TROUPE_METHOD_BACKWARD_WEIGHT:
    case TROUPE_METHOD_REDUCE:
    case TROUPE_METHOD_UPDATE:
        return URGENCY_CLOSING;
    case TROUPE_METHOD_BACKWARD_INPUT:
        if (encoder) {
            return URGENCY_ENCODER_BACKWARD;
        }
        return is_turn_of_forward(view, method) ? URGENCY_OUT_OF_TURN : URGENCY_BACKWARD;
    case TROUPE_METHOD_FORWARD:
        if (encoder) {
            return URGENCY_ENCODER_FORWARD;
        }
        return is_turn_of_forward(view, method) ? URGENCY_FORWARD : URGENCY_OUT_OF_TURN;
    case TROUPE_METHOD_RECOMPUTE:
        return URGENCY_BACKWARD;
    case TROUPE_METHOD_PREFETCH:
        return URGENCY_FORWARD;
    case TROUPE_METHOD_USER:
        break;
    }
    return URGENCY_USER;
}

/* What can run at once goes before what would hold its ranks up. */
static int precedence_of(const struct troupe_order_view *view,
                         const struct troupe_candidate *candidate) {
    return (int)urgency_of(view, candidate->method) + (candidate->waits ? URGENCY_COUNT : 0);
}

static int pick(void *state, const struct troupe_order_view *view,
                const struct troupe_candidate *candidates, int count) {
    (void)state;
    int best = 0, least = precedence_of(view, &candidates[0]);
    for (int i = 1; i < count; i++) {
        int precedence = precedence_of(view, &candidates[i]);
        if (precedence < least ||
            (precedence == least && troupe_candidate_is_older(&candidates[i], &candidates[best]))) {
            best = i;
            least = precedence;
        }
    }
    return best;
}

const struct troupe_order_policy troupe_order_1f1b = {
    .name = "1f1b",
    .summary = "one forward, one backward; encoders fill in",
    .create = troupe_order_no_state,
    .destroy = troupe_order_keep_state,
    .begin_step = troupe_order_no_plan,
    .in_flight = in_flight,
    .pick = pick,
};
