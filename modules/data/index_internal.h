/* SPDX-License-Identifier: Apache-2.0
 *
 * Between the file format of the index (index.c) and the pass over the shards (index_walk.c).
 *
 * Ownership, threads and failure: as in index.h.
 */
#ifndef TROUPE_MODULES_DATA_INDEX_INTERNAL_H
#define TROUPE_MODULES_DATA_INDEX_INTERNAL_H

#include "modules/data/index.h"
#include "modules/data/shards_internal.h"

/* What the first line says beyond shape and shards. */
struct troupe_index_header {
    bool truncate;
    bool skip_undecodable;
    int64_t skipped;
    int64_t truncated;
};

/* Appends a sample; its key and images are copied. */
troupe_status troupe_index_add(struct troupe_index *index, const struct troupe_index_sample *sample,
                               const struct troupe_index_image *images);

/* Reads all shards and adds every sample; counts what was skipped or cut. */
troupe_status troupe_index_walk(const struct troupe_shard_list *shards,
                                const struct troupe_index_options *options,
                                struct troupe_index *index, struct troupe_index_summary *summary);

#endif
