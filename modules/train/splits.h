/* SPDX-License-Identifier: Apache-2.0
 *
 * How the images of a step are dealt to the encoder shards of a plan (data.assign balanced): a
 * split for each module in front of the language model, made against the module that gets its rows.
 *
 *     TROUPE_TRY(troupe_splits_init(&config, plan, samples, &splits));
 *     troupe_splits_begin_step(&splits);       (after troupe_sample_plan_set_step)
 *     ... splits.of[TROUPE_VISION] ...         (NULL: contiguous intervals of samples)
 *
 * Ownership: init/fini on the caller's storage; the samples are borrowed. Threads: one at a time.
 * Failure: ERROR_MEMORY.
 */
#ifndef TROUPE_MODULES_TRAIN_SPLITS_H
#define TROUPE_MODULES_TRAIN_SPLITS_H

#include "modules/data/image_split.h"
#include "modules/train/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_splits {
    troupe_image_split *of[TROUPE_CONFIG_MODULES];
};

troupe_status troupe_splits_init(const struct troupe_config *config, const struct troupe_plan *plan,
                                 const troupe_sample_plan *samples, struct troupe_splits *out);
void troupe_splits_fini(struct troupe_splits *splits);
/* Works out the sample plan's current step. */
void troupe_splits_begin_step(struct troupe_splits *splits);

#ifdef __cplusplus
}
#endif
#endif
