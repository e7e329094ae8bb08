/* SPDX-License-Identifier: Apache-2.0
 *
 * Opens the samples that a config names: its training shards, its held-out shards, or synthetic
 * ones.
 *
 * Ownership: end with troupe_source_destroy. Threads: one at a time.
 * Failure: ERROR_INVALID if the config names none; else what the index or the reader says.
 */
#ifndef TROUPE_MODULES_TRAIN_SAMPLES_H
#define TROUPE_MODULES_TRAIN_SAMPLES_H

#include "modules/data/source.h"
#include "modules/train/config.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum troupe_split { TROUPE_SPLIT_TRAIN, TROUPE_SPLIT_HELDOUT };

/* The sizes that decide what a sample becomes. */
struct troupe_sample_shape troupe_config_sample_shape(const struct troupe_config *config);

troupe_status troupe_samples_open(const struct troupe_config *config, enum troupe_split split,
                                  troupe_source **out);

#ifdef __cplusplus
}
#endif
#endif
