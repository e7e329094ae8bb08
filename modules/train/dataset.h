/* SPDX-License-Identifier: Apache-2.0
 *
 * The samples that a configuration speaks of: its shards through their index, or synthetic ones.
 *
 *     TROUPE_TRY(troupe_dataset_open(&config, TROUPE_DATASET_TRAIN, &source));
 *     troupe_source_destroy(source);
 *
 * Ownership: the caller destroys the source. Threads: one at a time.
 * Failure: the source's (missing shard, no index or an old one, with the command that makes it);
 * ERROR_INVALID if the configuration names no held-out shards.
 */
#ifndef TROUPE_MODULES_TRAIN_DATASET_H
#define TROUPE_MODULES_TRAIN_DATASET_H

#include "modules/data/index.h"
#include "modules/data/source.h"
#include "modules/train/config.h"

#ifdef __cplusplus
extern "C" {
#endif

enum troupe_dataset_part { TROUPE_DATASET_TRAIN, TROUPE_DATASET_HELDOUT };

/* What the model makes of a sample. */
struct troupe_sample_shape troupe_dataset_shape(const struct troupe_config *config);

/* Synthetic held-out samples are drawn with another seed. */
troupe_status troupe_dataset_open(const struct troupe_config *config, enum troupe_dataset_part part,
                                  troupe_source **out);

#ifdef __cplusplus
}
#endif
#endif
