/* SPDX-License-Identifier: Apache-2.0 */
/* Zero-bubble schedules with a barrier per step (Qi et al., "Zero bubble pipeline parallelism",
 * ICLR 2024, and "Pipeline parallelism with controllable memory", NeurIPS 2024), with no more
 * microbatches in flight than 1F1B has on its first stage: with one stage a rank the class of
 * ZB-H1, with two in the shape of a V that of ZB-V. Where costs are known the step is planned. Else
 * input gradients go first, then forwards as far as 1F1B would be, then weight gradients; later
 * stages of a rank before earlier ones. */
#include "scheduler/order_planned.h"

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

static int wanted_slots(const struct troupe_graph *graph, int gang, int left) {
    const struct troupe_gang *plan = &graph->gangs[gang];
    int stages = plan->stage_count > 1 ? plan->stage_count : 1;
    return plan->depth == 0 ? stages : left;
}

static troupe_status create(const struct troupe_order_setting *setting, void **state_out) {
    static const struct troupe_planning planning = {
        .wanted = wanted_slots, .search_once = 500000, .portfolio = false};
    return troupe_order_planned_create(setting, &planning, state_out);
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

int troupe_order_pick_eager(const struct troupe_order_info *info,
                            const struct troupe_order_view *view,
                            const struct troupe_candidate *candidates, int count) {
    return troupe_order_pick_least((void *)info, view, candidates, count, key);
}

static int pick(void *arg, const struct troupe_order_view *view,
                const struct troupe_candidate *candidates, int count) {
    const struct troupe_order_planned *state = arg;
    return state->plan != NULL ? troupe_order_planned_pick(arg, view, candidates, count)
                               : troupe_order_pick_eager(state->info, view, candidates, count);
}

const struct troupe_order_policy troupe_order_zero_bubble = {
    .name = "zero_bubble",
    .summary = "input gradients first, weight gradients in the gaps: ZB-H1, ZB-V",
    .create = create,
    .destroy = troupe_order_planned_destroy,
    .begin_step = troupe_order_planned_begin_step,
    .in_flight = troupe_order_planned_in_flight,
    .pick = pick,
};
