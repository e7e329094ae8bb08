/* SPDX-License-Identifier: Apache-2.0
 *
 * The training reader: samples of WebDataset tar shards through their index, read by offset, so a
 * rank reads only the members it needs (bytes_read of the source counts them).
 *
 *     struct troupe_reader_options options = {.cache_bytes = 0};
 *     TROUPE_TRY(troupe_reader_open(&shards, &shape, &options, &source));
 *     troupe_sample_plan_needed(plan, first, last, dp, dp_count, needed);
 *     TROUPE_TRY(troupe_source_prepare(source, TROUPE_SAMPLE_IMAGES, needed));
 *
 * The image libraries allocate while they decode, so decoding happens at startup: prepare fills a
 * cache of decoded pixels and captions of exactly the samples (and parts) that this rank will need,
 * up to a budget; loading one of them is then a copy. A sample beyond the budget is read and
 * decoded in place when it is loaded, by the calling thread, which then does allocate.
 *
 * Ownership: destroy with troupe_source_destroy. Threads: one at a time.
 * Failure: open: as troupe_index_open. prepare, load: ERROR_IO or ERROR_DATA naming shard, sample
 * and offset.
 */
#ifndef TROUPE_MODULES_DATA_READER_H
#define TROUPE_MODULES_DATA_READER_H

#include <stdint.h>

#include "modules/data/index.h"
#include "modules/data/source.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_reader_options {
    int64_t cache_bytes; /* most bytes of decoded samples; 0: 1 GiB */
};

troupe_status troupe_reader_open(const struct troupe_shards *shards,
                                 const struct troupe_sample_shape *shape,
                                 const struct troupe_reader_options *options, troupe_source **out);

/* The sample's key in its shard. */
const char *troupe_reader_key(const troupe_source *source, int64_t sample);

#ifdef __cplusplus
}
#endif
#endif
