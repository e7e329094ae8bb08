/* SPDX-License-Identifier: Apache-2.0 */
/* The default. It plans the step where costs are known: encoder forwards just in time, encoder
 * backwards, weight gradients and whatever else can wait in the gaps of the pipeline. How many
 * microbatches are in flight does not grow with the step: twice what is on its way at once keeps a
 * pipeline busy. Where costs are not known it chooses as zero_bubble does. */
#include "scheduler/order_planned.h"

static int wanted_slots(const struct troupe_graph *graph, int gang, int left) {
    const struct troupe_gang *plan = &graph->gangs[gang];
    int stages = plan->stage_count > 1 ? plan->stage_count : 1;
    if (plan->depth == 0) {
        return 2 * stages;
    }
    return left > 1 ? 5 * (left - 1) / 2 : 2; /* what follows, twice and a half */
}

static troupe_status create(const struct troupe_order_setting *setting, void **state_out) {
    static const struct troupe_planning planning = {
        .wanted = wanted_slots, .search_once = 2000000, .portfolio = true};
    return troupe_order_planned_create(setting, &planning, state_out);
}

static int pick(void *arg, const struct troupe_order_view *view,
                const struct troupe_candidate *candidates, int count) {
    const struct troupe_order_planned *state = arg;
    return state->plan != NULL ? troupe_order_planned_pick(arg, view, candidates, count)
                               : troupe_order_pick_eager(state->info, view, candidates, count);
}

const struct troupe_order_policy troupe_order_fill = {
    .name = "fill",
    .summary = "plans the step from known costs; encoders and weight gradients fill the gaps",
    .create = create,
    .destroy = troupe_order_planned_destroy,
    .begin_step = troupe_order_planned_begin_step,
    .in_flight = troupe_order_planned_in_flight,
    .pick = pick,
    .choice = troupe_order_planned_choice,
};
