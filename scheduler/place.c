/* SPDX-License-Identifier: Apache-2.0 */
/* The list of placement policies; completing and checking what they give. */
#include "scheduler/place.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/memory.h"
#include "scheduler/place_internal.h"
#include "scheduler/policy_internal.h"

static const struct troupe_place_policy *const builtin[] = {
    &troupe_place_homogeneous,
    &troupe_place_colocated,
    &troupe_place_disjoint,
    &troupe_place_manual,
};

bool troupe_place_follows(const struct troupe_place_module *module) {
    return module->follows > 0;
}

static int at_least_one(int size) {
    return size > 0 ? size : 1;
}

int troupe_place_replica_ranks(const struct troupe_place_layout *wish) {
    return at_least_one(wish->tp) * at_least_one(wish->cp) * at_least_one(wish->pp);
}

void troupe_place_fill(struct troupe_place_layout *layout, const struct troupe_place_layout *wish,
                       int first_rank, int rank_count) {
    layout->rank_count = rank_count;
    for (int i = 0; i < rank_count; i++) {
        layout->ranks[i] = first_rank + i;
    }
    layout->tp = wish->tp;
    layout->cp = wish->cp;
    layout->pp = wish->pp;
    layout->etp = wish->etp;
    layout->ep = wish->ep;
    layout->layers_count = wish->layers_count;
    for (int i = 0; i < wish->layers_count; i++) {
        layout->layers[i] = wish->layers[i];
    }
}

/* ---- completion ---- */

/* Sizes left out are 1, replicas as many as there are ranks for. */
static void complete_sizes(struct troupe_place_layout *layout) {
    layout->tp = at_least_one(layout->tp);
    layout->cp = at_least_one(layout->cp);
    layout->pp = at_least_one(layout->pp);
    layout->etp = at_least_one(layout->etp);
    layout->ep = at_least_one(layout->ep);
    if (layout->dp == 0) {
        layout->dp = at_least_one(layout->rank_count / troupe_place_replica_ranks(layout));
    }
}

/* Earlier stages take the layers that are left over: the last one also has the head. */
static void complete_layers(const struct troupe_place_module *module,
                            struct troupe_place_layout *layout) {
    if (module->layers == 0 || layout->layers_count > 0) {
        return;
    }
    layout->layers_count = layout->pp;
    for (int i = 0; i < layout->pp; i++) {
        layout->layers[i] = module->layers / layout->pp + (i < module->layers % layout->pp);
    }
}

static troupe_status check_sizes(const char *name, const struct troupe_place_layout *layout) {
    int replica = troupe_place_replica_ranks(layout);
    if (layout->tp < 1 || layout->cp < 1 || layout->dp < 1 || layout->pp < 1 ||
        replica * layout->dp != layout->rank_count) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "placement.%s: tp %d x cp %d x dp %d x pp %d = %d ranks, but ranks "
                           "lists %d; list as many ranks, or choose sizes whose product is %d",
                           name, layout->tp, layout->cp, layout->dp, layout->pp,
                           replica * layout->dp, layout->rank_count, layout->rank_count);
    }
    if (layout->etp < 1 || layout->ep < 1 ||
        layout->tp * layout->cp * layout->dp % (layout->etp * layout->ep) != 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "placement.%s: etp %d x ep %d does not divide the %d ranks of a stage "
                           "(tp x cp x dp); choose a divisor",
                           name, layout->etp, layout->ep, layout->tp * layout->cp * layout->dp);
    }
    return TROUPE_OK;
}

/* A module that the policy left out lives on the last stage of the one that it follows. */
static troupe_status complete_follower(const struct troupe_place_problem *problem, int index,
                                       struct troupe_placement *out) {
    const struct troupe_place_module *module = &problem->modules[index];
    if (module->follows < 1 || module->follows > problem->module_count ||
        out->modules[module->follows - 1].rank_count == 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "placement.%s.ranks: no ranks are given; name them, or use a policy "
                           "that places every module",
                           module->name);
    }
    const struct troupe_place_layout *other = &out->modules[module->follows - 1];
    struct troupe_place_layout *layout = &out->modules[index];
    TROUPE_TRY(check_sizes(problem->modules[module->follows - 1].name, other));
    layout->rank_count = other->tp * other->cp * other->dp;
    layout->tp = other->tp;
    layout->cp = other->cp;
    const int *last_stage = other->ranks + other->rank_count - layout->rank_count;
    memcpy(layout->ranks, last_stage, (size_t)layout->rank_count * sizeof *last_stage);
    return TROUPE_OK;
}

/* ---- checks ---- */

static troupe_status check_ranks(const struct troupe_place_problem *problem, const char *name,
                                 const struct troupe_place_layout *layout) {
    for (int i = 0; i < layout->rank_count; i++) {
        if (layout->ranks[i] < 0 || layout->ranks[i] >= problem->rank_count) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "placement.%s.ranks: rank %d is not one of the %d ranks of this "
                               "job; start %d ranks or name lower ones",
                               name, layout->ranks[i], problem->rank_count, layout->ranks[i] + 1);
        }
        for (int j = 0; j < i; j++) {
            if (layout->ranks[i] == layout->ranks[j]) {
                return troupe_fail(TROUPE_ERROR_INVALID,
                                   "placement.%s.ranks: rank %d is listed twice; list it once",
                                   name, layout->ranks[i]);
            }
        }
    }
    return TROUPE_OK;
}

static troupe_status check_divisible(const struct troupe_place_module *module,
                                     const struct troupe_place_layout *layout) {
    for (int i = 0; i < module->divisible_count; i++) {
        const struct troupe_place_divisible *divisible = &module->divisible[i];
        if (divisible->count % layout->tp != 0) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "placement.%s.tp: tp %d does not divide %d %s; choose a tp that "
                               "does, or another number of %s",
                               module->name, layout->tp, divisible->count, divisible->what,
                               divisible->what);
        }
    }
    return TROUPE_OK;
}

static troupe_status check_layers(const struct troupe_place_module *module,
                                  const struct troupe_place_layout *layout) {
    if (module->layers == 0) {
        if (layout->pp > 1) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "placement.%s.pp: %d stages for a module without layers; use 1",
                               module->name, layout->pp);
        }
        return TROUPE_OK;
    }
    if (layout->pp > module->layers) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "placement.%s.pp: %d stages for %d layers; a stage holds at least one, "
                           "so use pp %d or less",
                           module->name, layout->pp, module->layers, module->layers);
    }
    if (layout->layers_count != layout->pp) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "placement.%s.layers: %d stages are listed, but pp is %d; list one "
                           "number a stage",
                           module->name, layout->layers_count, layout->pp);
    }
    int64_t sum = 0;
    for (int i = 0; i < layout->pp; i++) {
        sum += layout->layers[i];
        if (layout->layers[i] < 1) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "placement.%s.layers: stage %d has %d layers; a stage holds at "
                               "least one",
                               module->name, i, layout->layers[i]);
        }
    }
    if (sum != module->layers) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "placement.%s.layers: the stages hold %lld layers, the model has %d; "
                           "make the numbers add up to %d",
                           module->name, (long long)sum, module->layers, module->layers);
    }
    return TROUPE_OK;
}

/* ---- the calls ---- */

static troupe_status make_placement(const struct troupe_place_problem *problem,
                                    struct troupe_placement *out) {
    int ranks = problem->rank_count;
    out->module_count = problem->module_count;
    TROUPE_TRY(TROUPE_NEW(&out->modules, problem->module_count));
    TROUPE_TRY(TROUPE_NEW(&out->memory, 2 * ranks * problem->module_count));
    for (int i = 0; i < problem->module_count; i++) {
        out->modules[i].ranks = out->memory + (ptrdiff_t)2 * i * ranks;
        out->modules[i].layers = out->modules[i].ranks + ranks;
    }
    return TROUPE_OK;
}

/* What the config says must fit the arrays of a placement before a policy copies it. */
static troupe_status check_wish(const struct troupe_place_problem *problem, const char *name,
                                const struct troupe_place_layout *wish) {
    if (wish->rank_count > problem->rank_count || wish->layers_count > problem->rank_count) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "placement.%s: %d ranks and %d stages are listed; this job has %d ranks",
                           name, wish->rank_count, wish->layers_count, problem->rank_count);
    }
    const int sizes[] = {wish->tp, wish->cp, wish->dp, wish->pp, wish->etp, wish->ep};
    for (size_t i = 0; i < TROUPE_COUNT_OF(sizes); i++) {
        if (sizes[i] < 0 || sizes[i] > problem->rank_count) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "placement.%s: a size of %d cannot be had from %d ranks; use 1 to "
                               "%d, or start more ranks",
                               name, sizes[i], problem->rank_count, problem->rank_count);
        }
    }
    return TROUPE_OK;
}

static troupe_status place(const struct troupe_place_policy *policy,
                           const struct troupe_place_problem *problem,
                           struct troupe_placement *out) {
    TROUPE_TRY(check_wish(problem, "all", &problem->everywhere));
    for (int i = 0; i < problem->module_count; i++) {
        TROUPE_TRY(check_wish(problem, problem->modules[i].name, &problem->modules[i].wish));
    }
    TROUPE_TRY(make_placement(problem, out));
    TROUPE_TRY(policy->place(problem, out));
    for (int i = 0; i < problem->module_count; i++) {
        if (out->modules[i].rank_count > 0) {
            complete_sizes(&out->modules[i]);
        }
    }
    for (int i = 0; i < problem->module_count; i++) {
        const struct troupe_place_module *module = &problem->modules[i];
        struct troupe_place_layout *layout = &out->modules[i];
        if (layout->rank_count == 0) {
            TROUPE_TRY(complete_follower(problem, i, out));
            complete_sizes(layout);
        }
        TROUPE_TRY(check_ranks(problem, module->name, layout));
        TROUPE_TRY(check_sizes(module->name, layout));
        TROUPE_TRY(check_divisible(module, layout));
        complete_layers(module, layout);
        TROUPE_TRY(check_layers(module, layout));
    }
    return TROUPE_OK;
}

troupe_status troupe_place(const struct troupe_place_policy *policy,
                           const struct troupe_place_problem *problem,
                           struct troupe_placement *out) {
    struct troupe_placement placement = {0};
    troupe_status status = place(policy, problem, &placement);
    if (status != TROUPE_OK) {
        troupe_placement_fini(&placement);
        return troupe_fail_in(status, "placement policy %s", policy->name);
    }
    *out = placement;
    return TROUPE_OK;
}

void troupe_placement_fini(struct troupe_placement *placement) {
    troupe_free(placement->modules);
    troupe_free(placement->memory);
    *placement = (struct troupe_placement){0};
}

static bool is_complete(const void *table) {
    const struct troupe_place_policy *policy = table;
    return policy->place != NULL;
}

troupe_status troupe_place_find(const char *name, const struct troupe_place_policy **out) {
    static const struct troupe_policy_kind kind = {
        .what = "placement policy",
        .symbol = "troupe_place_policy",
        .builtin = (const void *const *)builtin,
        .builtin_count = TROUPE_COUNT_OF(builtin),
        .required = "name or place",
        .complete = is_complete,
    };
    const void *table = NULL;
    TROUPE_TRY(troupe_policy_find(&kind, name, &table));
    *out = table;
    return TROUPE_OK;
}

const struct troupe_place_policy *troupe_place_builtin(int index) {
    return index >= 0 && index < (int)TROUPE_COUNT_OF(builtin) ? builtin[index] : NULL;
}
