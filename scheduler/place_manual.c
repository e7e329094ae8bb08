/* SPDX-License-Identifier: Apache-2.0 */
/* What the config says: ranks and sizes of every module. A module without ranks follows another. */
#include "scheduler/place_internal.h"

static troupe_status place(const struct troupe_place_problem *problem,
                           struct troupe_placement *out) {
    for (int i = 0; i < problem->module_count; i++) {
        const struct troupe_place_layout *wish = &problem->modules[i].wish;
        struct troupe_place_layout *layout = &out->modules[i];
        if (wish->rank_count == 0) {
            continue;
        }
        troupe_place_fill(layout, wish, 0, wish->rank_count);
        layout->dp = wish->dp;
        for (int k = 0; k < wish->rank_count; k++) {
            layout->ranks[k] = wish->ranks[k];
        }
    }
    return TROUPE_OK;
}

const struct troupe_place_policy troupe_place_manual = {
    .name = "manual",
    .summary = "the ranks and sizes that the config gives each module",
    .place = place,
};
