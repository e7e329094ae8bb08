/* SPDX-License-Identifier: Apache-2.0
 *
 * Placement policies decide *where*: which ranks, and which sizes of which mesh axes, each module
 * gets. A policy sees the modules as data (cost, memory, what a TP size must divide) and fills in
 * one layout a module; what it gives is checked before anything is built on it.
 *
 *     TROUPE_TRY(troupe_place_find("colocated", &policy));
 *     TROUPE_TRY(troupe_place(policy, &problem, &placement));
 *     placement.modules[i].{ranks, rank_count, tp, cp, dp, pp, etp, ep, layers}
 *     troupe_placement_fini(&placement);
 *
 * A policy is a small constant table (place_homogeneous.c is the reference). As the symbol
 * `troupe_place_policy` of a shared object it can be loaded: troupe_place_find("./my.so", &policy);
 * apps/examples/place_interleave.c is one.
 *
 * Ownership: the problem is the caller's; a placement owns its arrays until fini, which accepts a
 * zeroed one; policies are constant, a loaded one stays loaded until the process ends.
 * Threads: any. Failure: ERROR_INVALID with a sentence that names config key, values and remedy.
 */
#ifndef TROUPE_SCHEDULER_PLACE_H
#define TROUPE_SCHEDULER_PLACE_H

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Something of a module that TP splits evenly: {"heads", 8}. */
struct troupe_place_divisible {
    const char *what;
    int count;
};

/* Ranks in the order of comm/mesh.h (tp fastest), sizes and layers. As a wish: 0 is not said. As a
 * result: sizes are >= 1 and tp * cp * dp * pp = rank_count. */
struct troupe_place_layout {
    int *ranks; /* in a placement: room for the rank_count of the problem */
    int rank_count;
    int tp, cp, dp, pp;
    int etp, ep;
    int *layers;      /* by stage; in a placement: room for the rank_count of the problem */
    int layers_count; /* stages said; in a placement 0 (split evenly) or pp */
};

struct troupe_place_module {
    const char *name; /* its keys are placement.NAME.tp and so on */
    int depth;        /* modules between this one and the loss: 0 language model, 1 encoder */
    int follows;      /* 1 + index of the module on whose last stage it lives if the policy leaves
                         it out, as the projector on the encoder's; 0: none */
    int layers;       /* that pp splits; 0: it has no stages */
    double cost;      /* work of a microbatch, in any unit; disjoint shares ranks by it */
    double bytes;     /* parameters, gradients and optimizer state on one rank; 0: unknown */
    const struct troupe_place_divisible *divisible;
    int divisible_count;
    struct troupe_place_layout wish; /* what the config says; ranks and dp bind `manual` only */
};

struct troupe_place_problem {
    int rank_count;
    double rank_bytes; /* memory of one rank for `bytes`; 0: unknown */
    const struct troupe_place_module *modules;
    int module_count;
    struct troupe_place_layout everywhere; /* placement.all: the one mesh of `homogeneous` */
};

struct troupe_placement {
    struct troupe_place_layout *modules;
    int module_count;
    int *memory;
};

struct troupe_place_policy {
    const char *name;
    const char *summary; /* one line for `troupe info` */
    /* Fills in out->modules[i], which come zeroed but for their arrays. Sizes left 0 become 1 (dp:
     * what the other sizes leave of the ranks); a module left without ranks follows another. */
    troupe_status (*place)(const struct troupe_place_problem *problem,
                           struct troupe_placement *out);
};

/* A built-in policy by its name, or (where the name contains a '/') the symbol
 * `troupe_place_policy` of a shared object. */
troupe_status troupe_place_find(const char *name, const struct troupe_place_policy **out);
/* The built-in policies in order of their index; NULL after the last. */
const struct troupe_place_policy *troupe_place_builtin(int index);

/* Lets the policy place the modules, completes the layouts and checks them. */
troupe_status troupe_place(const struct troupe_place_policy *policy,
                           const struct troupe_place_problem *problem,
                           struct troupe_placement *out);
void troupe_placement_fini(struct troupe_placement *placement);

#ifdef __cplusplus
}
#endif
#endif
