/* SPDX-License-Identifier: Apache-2.0
 *
 * Which gradients of a stage shard are summed with whom: over the replicas of the shard (DP), and
 * tied parameters over the replicas of the first and the last stage. Neighbouring gradients go in
 * one collective, long ones in several, so that staging stays small however large the stage is.
 *
 *     TROUPE_TRY(troupe_gradient_sums_init(&options, &sums));
 *     TROUPE_TRY(troupe_gradient_sums_post(&sums, firing));            (from the reduction lane)
 *
 * Ownership: init/fini on the caller's storage; init is collective over the groups it makes.
 * Threads: the rank's thread. Failure: ERROR_MEMORY, or what the groups say.
 */
#ifndef TROUPE_MODULES_TRAIN_GRADIENT_SUMS_H
#define TROUPE_MODULES_TRAIN_GRADIENT_SUMS_H

#include "actors/actor.h"
#include "modules/train/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_gradient_sums_options {
    troupe_comm *comm;
    const struct troupe_model_config *config;
    const struct troupe_module_plan *module;
    int stage;
    int tp;
    uint32_t dp_group; /* ids of the groups */
    uint32_t tied_group;
    bool alone;                                /* the groups are made without their other members */
    const struct troupe_parameter *parameters; /* of the shard */
    int count;
};

/* What one collective sums. */
struct troupe_gradient_run {
    float *data;
    int64_t count;
    bool tied;
    struct troupe_collective operation;
};

struct troupe_gradient_sums {
    troupe_group *dp;   /* NULL: alone */
    troupe_group *tied; /* NULL: nothing is tied */
    struct troupe_gradient_run *runs;
    int run_count;
};

troupe_status troupe_gradient_sums_init(const struct troupe_gradient_sums_options *options,
                                        struct troupe_gradient_sums *out);
/* Accepts zeroed and half-built ones. */
void troupe_gradient_sums_fini(struct troupe_gradient_sums *sums);
/* Posts all sums; the firing is done when they are. */
troupe_status troupe_gradient_sums_post(struct troupe_gradient_sums *sums,
                                        struct troupe_firing *firing);

#ifdef __cplusplus
}
#endif
#endif
