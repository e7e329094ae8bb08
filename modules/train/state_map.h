/* SPDX-License-Identifier: Apache-2.0
 *
 * Who holds what of the model's parameters, and of the moments that go with them: one layout a
 * tensor, of all ranks. Tensors are those of troupe_model_specs, as matrices (a vector is a
 * column); many share a layout, so layouts are kept by class.
 *
 *     TROUPE_TRY(troupe_state_map_of_plan(&config->model, plan, &map));
 *     const struct troupe_layout *layout = &map.layouts[map.class_of_tensor[tensor]];
 *
 * Ownership: init (of_plan, of_readers) and fini on the caller's storage; fini accepts zeroed and
 * half-built ones. Threads: constant but for relabel. Failure: ERROR_MEMORY.
 */
#ifndef TROUPE_MODULES_TRAIN_STATE_MAP_H
#define TROUPE_MODULES_TRAIN_STATE_MAP_H

#include <stdint.h>

#include "comm/layout.h"
#include "modules/train/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_state_map {
    int tensor_count;
    struct troupe_parameter_spec *specs;
    int *class_of_tensor;
    int class_count;
    struct troupe_layout *layouts; /* by class; each rank has at most one box of a tensor */
};

/* While training under the plan. */
troupe_status troupe_state_map_of_plan(const struct troupe_model_config *config,
                                       const struct troupe_plan *plan,
                                       struct troupe_state_map *out);
/* While a checkpoint is read: every rank an even share of the rows of each tensor. */
troupe_status troupe_state_map_of_readers(const struct troupe_model_config *config, int rank_count,
                                          struct troupe_state_map *out);
void troupe_state_map_fini(struct troupe_state_map *map);

/* What rank r held, rank_of_role[r] holds. */
void troupe_state_map_relabel(struct troupe_state_map *map, const int *rank_of_role);

/* The number of the tensor of this name, which there must be. The search begins at `hint`: 0, or
 * one after the tensor found before. */
int troupe_state_map_find(const struct troupe_state_map *map, const char *name, int hint);
/* The rank's box of a tensor; false if it has none. */
bool troupe_state_map_box(const struct troupe_state_map *map, int tensor, int rank,
                          struct troupe_box *out);

#ifdef __cplusplus
}
#endif
#endif
