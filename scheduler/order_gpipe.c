/* SPDX-License-Identifier: Apache-2.0 */
/* All forwards, then all backwards (Huang et al., "GPipe", NeurIPS 2019). Backwards are held back
 * until the last forward of their gang is issued, where slots and credits hold a whole step; else
 * forwards go first where there are some. */
#include "scheduler/order_internal.h"

enum key_class { CLASS_CLOSING, CLASS_FORWARD, CLASS_BACKWARD, CLASS_WEIGHT, CLASS_USER };

static bool forwards_are_issued(const struct troupe_order_view *view,
                                const struct troupe_order_gang *gang) {
    return gang->forward < 0 || view->issued[gang->forward] == gang->microbatches;
}

static int64_t key(void *state, const struct troupe_order_view *view,
                   const struct troupe_candidate *candidate) {
    const struct troupe_order_info *info = state;
    const struct troupe_method *method = &view->graph->methods[candidate->method];
    const struct troupe_order_gang *gang = troupe_order_gang_at(info, method->gang);
    bool held = info->roomy && !forwards_are_issued(view, gang);
    switch (method->kind) {
    case TROUPE_METHOD_REDUCE:
    case TROUPE_METHOD_UPDATE:
        return TROUPE_KEY_OF(CLASS_CLOSING, 0);
    case TROUPE_METHOD_FORWARD:
    case TROUPE_METHOD_PREFETCH:
        return TROUPE_KEY_OF(CLASS_FORWARD, candidate->microbatch);
    case TROUPE_METHOD_BACKWARD_INPUT:
    case TROUPE_METHOD_RECOMPUTE:
        return held ? TROUPE_KEY_HELD : TROUPE_KEY_OF(CLASS_BACKWARD, candidate->microbatch);
    case TROUPE_METHOD_BACKWARD_WEIGHT:
        return TROUPE_KEY_OF(CLASS_WEIGHT, candidate->microbatch);
    case TROUPE_METHOD_USER:
        break;
    }
    return TROUPE_KEY_OF(CLASS_USER, 0);
}

static int pick(void *state, const struct troupe_order_view *view,
                const struct troupe_candidate *candidates, int count) {
    return troupe_order_pick_least(state, view, candidates, count, key);
}

const struct troupe_order_policy troupe_order_gpipe = {
    .name = "gpipe",
    .summary = "all forwards, then all backwards",
    .create = troupe_order_create_info,
    .destroy = troupe_order_destroy_info,
    .begin_step = troupe_order_no_plan,
    .in_flight = troupe_order_unbounded,
    .pick = pick,
};
