/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/splits.h"

#include <string.h>

#include "runtime/memory.h"

/* For each shard of the module the shard of the next one that has most of its ranks, counting the
 * last stage here and the first there; -1: none. ranks: (module tp) and counts: (next dp), scratch.
 */
static void find_homes(const struct troupe_module_plan *module,
                       const struct troupe_module_plan *next, int *ranks, int *counts,
                       int *homes_out) {
    for (int shard = 0; shard < module->dp; shard++) {
        int count = troupe_plan_tp_ranks(module, module->pp - 1, shard, ranks);
        homes_out[shard] = -1;
        memset(counts, 0, (size_t)next->dp * sizeof *counts);
        for (int i = 0; i < count; i++) {
            if (troupe_mesh_position(&next->mesh, ranks[i]) >= 0 &&
                troupe_mesh_coordinate(&next->mesh, ranks[i], TROUPE_PP) == 0) {
                int home = troupe_mesh_coordinate(&next->mesh, ranks[i], TROUPE_DP);
                int most = homes_out[shard] < 0 ? 0 : counts[homes_out[shard]];
                homes_out[shard] = ++counts[home] > most ? home : homes_out[shard];
            }
        }
    }
}

/* All modules reckon with what an image costs the vision encoder, so that images need not travel
 * between them. Of its layers' 2 * hidden * ((2 * hidden + ffn) * tokens + tokens^2) multiply-adds
 * for each image the common factor does not matter. */
static troupe_status init_module(const struct troupe_config *config, const struct troupe_plan *plan,
                                 const troupe_sample_plan *samples, int index,
                                 struct troupe_splits *splits) {
    const struct troupe_vision_config *vision = &config->model.vision;
    const struct troupe_module_plan *module = &plan->modules[index];
    const struct troupe_module_plan *next = &plan->modules[index + 1];
    int *homes = NULL;
    TROUPE_TRY(TROUPE_NEW(&homes, module->dp + module->tp + next->dp));
    int *ranks = homes + module->dp, *counts = ranks + module->tp;
    find_homes(module, next, ranks, counts, homes);
    troupe_status status = troupe_image_split_create(
        &(struct troupe_image_split_options){.samples = samples,
                                             .shards = module->dp,
                                             .linear = 2 * (int64_t)vision->hidden + vision->ffn,
                                             .quadratic = 1,
                                             .next = splits->of[index + 1],
                                             .next_shards = next->dp,
                                             .home_of_shard = homes,
                                             .shares = module->shares},
        &splits->of[index]);
    troupe_free(homes);
    return status;
}

troupe_status troupe_splits_init(const struct troupe_config *config, const struct troupe_plan *plan,
                                 const troupe_sample_plan *samples, struct troupe_splits *out) {
    *out = (struct troupe_splits){{NULL}};
    bool balanced = strcmp(config->data.assign, "balanced") == 0;
    for (int i = TROUPE_LLM - 1; balanced && i >= 0; i--) {
        troupe_status status = init_module(config, plan, samples, i, out);
        if (status != TROUPE_OK) {
            troupe_splits_fini(out);
            return status;
        }
    }
    return TROUPE_OK;
}

void troupe_splits_fini(struct troupe_splits *splits) {
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        troupe_image_split_destroy(splits->of[i]);
        splits->of[i] = NULL;
    }
}

void troupe_splits_begin_step(struct troupe_splits *splits) {
    for (int i = TROUPE_CONFIG_MODULES - 1; i >= 0; i--) {
        if (splits->of[i] != NULL) {
            troupe_image_split_begin_step(splits->of[i]);
        }
    }
}
