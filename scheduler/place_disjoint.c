/* SPDX-License-Identifier: Apache-2.0 */
/* Each module on ranks of its own, shared out by cost: encoders on the first ranks, the language
 * model on the last. Sizes (tp, cp, pp) are those the module's keys say; replicas make up the rest.
 */
#include "scheduler/place_internal.h"

/* Ranks go, a replica at a time, to the module with the most cost for a rank. Greedy is right here:
 * the largest cost for a rank is never lower in another way of sharing out whole replicas of one
 * size. Ranks too few for any replica stay unused. */
static int next_to_grow(const struct troupe_place_problem *problem,
                        const struct troupe_placement *placement, int ranks_left) {
    int best = -1;
    for (int i = 0; i < problem->module_count; i++) {
        const struct troupe_place_module *module = &problem->modules[i];
        if (troupe_place_follows(module) ||
            troupe_place_replica_ranks(&module->wish) > ranks_left) {
            continue;
        }
        double load = module->cost / placement->modules[i].rank_count;
        if (best < 0 || load > problem->modules[best].cost / placement->modules[best].rank_count) {
            best = i;
        }
    }
    return best;
}

/* Deepest modules first, so that data flows from low ranks to high ones. */
static void fill_in_order(const struct troupe_place_problem *problem,
                          struct troupe_placement *out) {
    int first = 0, deepest = 0;
    for (int i = 0; i < problem->module_count; i++) {
        deepest = problem->modules[i].depth > deepest ? problem->modules[i].depth : deepest;
    }
    for (int depth = deepest; depth >= 0; depth--) {
        for (int i = 0; i < problem->module_count; i++) {
            const struct troupe_place_module *module = &problem->modules[i];
            if (module->depth == depth && !troupe_place_follows(module)) {
                int count = out->modules[i].rank_count;
                troupe_place_fill(&out->modules[i], &module->wish, first, count);
                first += count;
            }
        }
    }
}

static troupe_status place(const struct troupe_place_problem *problem,
                           struct troupe_placement *out) {
    int left = problem->rank_count;
    for (int i = 0; i < problem->module_count; i++) {
        if (!troupe_place_follows(&problem->modules[i])) {
            out->modules[i].rank_count = troupe_place_replica_ranks(&problem->modules[i].wish);
            left -= out->modules[i].rank_count;
        }
    }
    if (left < 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "one replica of each module on ranks of its own takes %d ranks (tp x cp "
                           "x pp of each), but this job has %d; start more ranks, or lower a size",
                           problem->rank_count - left, problem->rank_count);
    }
    for (int i; (i = next_to_grow(problem, out, left)) >= 0;) {
        int replica = troupe_place_replica_ranks(&problem->modules[i].wish);
        out->modules[i].rank_count += replica;
        left -= replica;
    }
    fill_in_order(problem, out);
    return TROUPE_OK;
}

const struct troupe_place_policy troupe_place_disjoint = {
    .name = "disjoint",
    .summary = "each module on ranks of its own, shared out by cost",
    .place = place,
};
