/* SPDX-License-Identifier: Apache-2.0 */
/* A placement policy of one's own: deals the ranks out like cards, one module after the other, so
 * that with two modules one has the even ranks and the other the odd ones. Sizes (tp, cp, pp) are
 * those that the config says; replicas make up the rest.
 *
 *     troupe train demo.yaml --placement ./place_interleave.so
 *
 * A policy is one function and one table; what it gives is completed and checked by troupe_place.
 */
#include "scheduler/place.h"

/* The projector, say, goes with its encoder. */
static int is_dealt(const struct troupe_place_module *module) {
    return module->follows == 0;
}

static troupe_status place(const struct troupe_place_problem *problem,
                           struct troupe_placement *out) {
    int players = 0;
    for (int i = 0; i < problem->module_count; i++) {
        players += is_dealt(&problem->modules[i]);
    }
    if (players > problem->rank_count) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "%d modules cannot share out %d ranks; start at least %d", players,
                           problem->rank_count, players);
    }
    int first = 0;
    for (int i = 0; i < problem->module_count; i++) {
        const struct troupe_place_module *module = &problem->modules[i];
        struct troupe_place_layout *layout = &out->modules[i];
        if (!is_dealt(module)) {
            continue;
        }
        for (int rank = first; rank < problem->rank_count; rank += players) {
            layout->ranks[layout->rank_count++] = rank;
        }
        layout->tp = module->wish.tp;
        layout->cp = module->wish.cp;
        layout->pp = module->wish.pp;
        first++;
    }
    return TROUPE_OK;
}

const struct troupe_place_policy troupe_place_policy = {
    .name = "interleave",
    .summary = "deals the ranks out to the modules in turn",
    .place = place,
};
