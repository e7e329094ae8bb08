/* SPDX-License-Identifier: Apache-2.0
 *
 * What a module's method sees of the data: its own interval of one microbatch, packed without
 * padding. S samples, N fused rows, P image tokens (= patches), I pictures.
 *
 *     troupe_microbatch_create(&bounds, TROUPE_SAMPLE_TEXT, &batch);    (one for each slot)
 *     TROUPE_TRY(troupe_microbatch_fill(batch, plan, source, microbatch, dp, dp_count));
 *     const struct troupe_language_batch *view = troupe_microbatch_language(batch);
 *
 * Both views of the same interval agree: boundary row i is the i-th patch of the vision batch and
 * goes to fused row image_rows[i] of the language batch. A module whose interval is another one has
 * another microbatch object.
 *
 * Ownership: create/destroy; views point into the object and hold until the next fill.
 * Threads: one at a time. Failure: create: ERROR_MEMORY. fill: what loading says; it does not
 * allocate if the source is prepared (troupe_source_prepare).
 */
#ifndef TROUPE_MODULES_DATA_MICROBATCH_H
#define TROUPE_MODULES_DATA_MICROBATCH_H

#include <stdint.h>

#include "modules/data/image_split.h"
#include "modules/data/sample_plan.h"
#include "modules/data/source.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All arrays: int32, host. */
struct troupe_language_batch {
    int64_t samples;           /* S */
    int64_t rows;              /* N, may be 0 */
    int64_t image_tokens;      /* P, may be 0 */
    const int32_t *cu_len;     /* (S + 1,) sample s has rows cu_len[s] .. cu_len[s + 1] */
    const int32_t *token_ids;  /* (N,) -1: the row comes from a picture */
    const int32_t *targets;    /* (N,) -1: no target */
    const int32_t *positions;  /* (N,) position within its sample, from 0 */
    const int32_t *image_rows; /* (P,) fused row of boundary row i; ascending */
    int64_t targets_count;     /* rows with a target here */
    int64_t step_targets;      /* of the whole step on all shards: the loss is divided by it */
};

struct troupe_vision_batch {
    int64_t images;              /* I, may be 0 */
    int64_t patches;             /* P: rows of the encoder's input and output */
    int patch;                   /* side of a patch in pixels */
    const int32_t *cu_len;       /* (I + 1,) int32: picture i has patches cu_len[i] .. [i + 1] */
    const int32_t *grid_rows;    /* (I,) int32: height / patch */
    const int32_t *grid_columns; /* (I,) int32: width / patch */
    /* Picture i: (height, width, 3) uint8 RGB at pixels + cu_len[i] * patch * patch * 3. Its
     * patches are numbered row by row of the grid. */
    const uint8_t *pixels;
};

typedef struct troupe_microbatch troupe_microbatch;

/* parts: TROUPE_SAMPLE_TEXT for the language view, TROUPE_SAMPLE_IMAGES for the vision view; the
 * view not asked for stays empty. */
troupe_status troupe_microbatch_create(const struct troupe_batch_bounds *bounds, int parts,
                                       troupe_microbatch **out);
void troupe_microbatch_destroy(troupe_microbatch *batch);

/* Loads shard `shard` of `shards` of a microbatch of the plan's current step. */
troupe_status troupe_microbatch_fill(troupe_microbatch *batch, const troupe_sample_plan *plan,
                                     troupe_source *source, int microbatch, int shard, int shards);

/* The images that a split gives the shard, in the order of their rows; the object is for the vision
 * view alone, with the bounds of the split. */
troupe_status troupe_microbatch_fill_split(troupe_microbatch *batch,
                                           const troupe_image_split *split, troupe_source *source,
                                           int microbatch, int shard);

const struct troupe_language_batch *troupe_microbatch_language(const troupe_microbatch *batch);
const struct troupe_vision_batch *troupe_microbatch_vision(const troupe_microbatch *batch);

#ifdef __cplusplus
}
#endif
#endif
