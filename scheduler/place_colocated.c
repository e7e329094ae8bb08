/* SPDX-License-Identifier: Apache-2.0 */
/* Every module on all ranks, each in its own layout: encoders as replicas, the language model with
 * the tp and pp that its keys say or, if they say nothing, with as much tp as its memory needs. */
#include "scheduler/place_internal.h"

static bool tp_fits(const struct troupe_place_problem *problem,
                    const struct troupe_place_module *module, int tp) {
    for (int i = 0; i < module->divisible_count; i++) {
        if (module->divisible[i].count % tp != 0) {
            return false;
        }
    }
    return problem->rank_count % tp == 0;
}

/* The smallest tp whose share of the module fits a rank; else the largest that can be had. */
static int tp_needed(const struct troupe_place_problem *problem,
                     const struct troupe_place_module *module) {
    int largest = 1;
    for (int tp = 1; tp <= problem->rank_count; tp++) {
        if (!tp_fits(problem, module, tp)) {
            continue;
        }
        largest = tp;
        if (problem->rank_bytes <= 0 || module->bytes <= problem->rank_bytes * tp) {
            break;
        }
    }
    return largest;
}

static troupe_status place(const struct troupe_place_problem *problem,
                           struct troupe_placement *out) {
    for (int i = 0; i < problem->module_count; i++) {
        const struct troupe_place_module *module = &problem->modules[i];
        if (troupe_place_follows(module)) {
            continue;
        }
        troupe_place_fill(&out->modules[i], &module->wish, 0, problem->rank_count);
        if (module->depth == 0 && module->wish.tp == 0 && module->wish.pp == 0) {
            out->modules[i].tp = tp_needed(problem, module);
        }
    }
    return TROUPE_OK;
}

const struct troupe_place_policy troupe_place_colocated = {
    .name = "colocated",
    .summary = "every module on all ranks, each in its own layout",
    .place = place,
};
