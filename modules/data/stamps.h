/* SPDX-License-Identifier: Apache-2.0
 *
 * `troupe data stamps`: turns the pictures and captions of Debian's package
 * tuxpaint-stamps-default into WebDataset tar shards. Each picture (PNG, SVG) that has a caption
 * (first line of name.txt, English) becomes one sample: key.png (resized), key.txt, key.json (where
 * it comes from). 5 % of the pictures, told by the hash of their key, go to heldout-000000.tar, the
 * others to train-000000.tar, train-000001.tar, ... The same package gives the same bytes.
 *
 *     struct troupe_stamps_options options = {.workers = workers, .progress = print};
 *     TROUPE_TRY(troupe_stamps_convert("data/stamps", &options, &summary));
 *
 * Does nothing if the folder holds the shards of the same package and options (stamps.json there
 * says so). Ownership: nothing is kept. Threads: one caller; the workers given help.
 * Failure: ERROR_IO (package not installed: says how to; folder cannot be written), ERROR_DATA
 * naming a picture that does not decode, ERROR_INVALID, ERROR_MEMORY.
 */
#ifndef TROUPE_MODULES_DATA_STAMPS_H
#define TROUPE_MODULES_DATA_STAMPS_H

#include <stdbool.h>
#include <stdint.h>

#include "modules/data/index.h"
#include "runtime/status.h"
#include "runtime/workers.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 0 or NULL: the default. */
struct troupe_stamps_options {
    const char *source;             /* folder; default /usr/share/tuxpaint/stamps */
    int image;                      /* longest side in pixels, a multiple of patch; default 64 */
    int patch;                      /* the other side is a multiple of it; default 8 */
    int shard_samples;              /* samples of a train shard; default 256 */
    bool rebuild;                   /* even if up to date */
    troupe_workers *workers;        /* decode pictures together; borrowed */
    troupe_data_progress *progress; /* pictures done, pictures in all */
    void *arg;
};

struct troupe_stamps_summary {
    int64_t train;   /* samples */
    int64_t heldout; /* samples */
    int64_t shards;  /* train shards */
    bool up_to_date; /* nothing had to be done */
};

/* The folder is made if it is not there. summary_out may be NULL. */
troupe_status troupe_stamps_convert(const char *folder, const struct troupe_stamps_options *options,
                                    struct troupe_stamps_summary *summary_out);

#ifdef __cplusplus
}
#endif
#endif
