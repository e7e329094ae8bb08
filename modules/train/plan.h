/* SPDX-License-Identifier: Apache-2.0
 *
 * Who is where: the mesh of every module and the layers of every stage, as the placement policy
 * decided; the same on every rank.
 *
 *     TROUPE_TRY(troupe_plan_create(&config, rank_count, &plan));
 *     struct troupe_shard shard = troupe_plan_shard(&plan->modules[2], stage, tp_index);
 *
 * Ownership: create/destroy. Threads: constant after create.
 * Failure: ERROR_INVALID with the config key and the remedy.
 */
#ifndef TROUPE_MODULES_TRAIN_PLAN_H
#define TROUPE_MODULES_TRAIN_PLAN_H

#include "comm/mesh.h"
#include "modules/nn/module.h"
#include "modules/train/config.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_module_plan {
    const struct troupe_module_class *module_class;
    struct troupe_mesh mesh;
    int tp, dp, pp;
    int *layer_begin; /* of each stage; pp + 1 numbers */
    int *shares;      /* of image work, by DP shard; NULL: all alike */
};

struct troupe_plan {
    int rank_count;
    struct troupe_module_plan modules[TROUPE_CONFIG_MODULES]; /* vision, projector, llm */
    /* Keys of the config that the policy has not followed, "placement.llm.ranks, placement.llm.dp";
     * "": none. What does not fit is cut off. */
    char ignored[512];
};

troupe_status troupe_plan_create(const struct troupe_config *config, int rank_count,
                                 struct troupe_plan **out);
/* Accepts NULL. */
void troupe_plan_destroy(struct troupe_plan *plan);

/* What rank r does in the plan, rank_of_role[r] does. */
void troupe_plan_relabel(struct troupe_plan *plan, const int *rank_of_role);

/* One line a module: its sizes, ranks and, if it is divided, layers by stage. */
void troupe_plan_describe(const struct troupe_plan *plan, void (*line)(void *arg, const char *text),
                          void *arg);

/* The keys of placement.MODULE that the config gives and the policy has not followed, separated by
 * commas, as "vision.ranks, vision.dp"; "" if there are none. What does not fit is cut off. */
void troupe_plan_list_ignored(const struct troupe_plan *plan, const struct troupe_config *config,
                              char *text, size_t bytes);

struct troupe_shard troupe_plan_shard(const struct troupe_module_plan *module, int stage,
                                      int tp_index);
/* The TP group of a stage's DP shard, and the DP group of its TP shard. */
int troupe_plan_tp_ranks(const struct troupe_module_plan *module, int stage, int dp, int *ranks);
int troupe_plan_dp_ranks(const struct troupe_module_plan *module, int stage, int tp, int *ranks);

#ifdef __cplusplus
}
#endif
#endif
