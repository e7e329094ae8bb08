/* SPDX-License-Identifier: Apache-2.0 */
/* One mesh for all modules, over all ranks: replicas (dp), unless placement.all says otherwise. The
 * reference, and what a planner has to beat. */
#include "scheduler/place_internal.h"

static troupe_status place(const struct troupe_place_problem *problem,
                           struct troupe_placement *out) {
    for (int i = 0; i < problem->module_count; i++) {
        if (!troupe_place_follows(&problem->modules[i])) {
            troupe_place_fill(&out->modules[i], &problem->everywhere, 0, problem->rank_count);
            out->modules[i].dp = problem->everywhere.dp;
        }
    }
    return TROUPE_OK;
}

const struct troupe_place_policy troupe_place_homogeneous = {
    .name = "homogeneous",
    .summary = "one mesh over all ranks for every module",
    .place = place,
};
