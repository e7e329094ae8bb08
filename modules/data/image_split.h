/* SPDX-License-Identifier: Apache-2.0
 *
 * Which shard of an encoder has which images of each microbatch of the sample plan's current step,
 * where images are dealt out for balance and locality (image_owners.h) instead of with their
 * samples. Every rank works out the same.
 *
 *     troupe_image_split_create(&(struct troupe_image_split_options){.samples = plan, .shards = 4,
 *                               .linear = 1, .next_shards = 2, .home_of_shard = homes}, &split);
 *     troupe_sample_plan_set_step(plan, step);
 *     troupe_image_split_begin_step(split);
 *     troupe_microbatch_fill_split(batch, split, source, microbatch, shard);
 *
 * Rows of a boundary stay in the order of the samples. So a shard has several intervals of them,
 * which a layout expresses by rounds (comm/layout.h): the offsets below are for one with
 * troupe_image_split_rounds of them, one for each image.
 *
 * A shard never gets more rows than the contiguous split might bring it, or a quarter more than the
 * largest share (its buffers are made for that): where the solver would, the microbatch is split
 * contiguously.
 *
 * Ownership: create/destroy; the plan and `next` are borrowed for the split's life.
 * Threads: one at a time. Failure: create: ERROR_MEMORY. Nothing else fails or allocates.
 */
#ifndef TROUPE_MODULES_DATA_IMAGE_SPLIT_H
#define TROUPE_MODULES_DATA_IMAGE_SPLIT_H

#include <stdint.h>

#include "modules/data/sample_plan.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_image_split troupe_image_split;

struct troupe_image_split_options {
    const troupe_sample_plan *samples;
    int shards;
    int64_t linear, quadratic; /* what an image costs, see image_owners.h */
    /* Who needs the rows next: the shards of another split, or, NULL, next_shards of them that have
     * contiguous intervals of the samples. */
    const troupe_image_split *next;
    int next_shards;
    const int *home_of_shard; /* (shards,) the next shard on the same ranks; -1: none */
    const int *shares;        /* (shards,) of the work, see image_owners.h; NULL: all alike */
};

struct troupe_split_image {
    int owner;       /* the shard */
    int32_t tokens;  /* its rows */
    int64_t at;      /* the position of its sample in the step */
    int32_t picture; /* of the sample's */
};

troupe_status troupe_image_split_create(const struct troupe_image_split_options *options,
                                        troupe_image_split **out);
/* Accepts NULL. */
void troupe_image_split_destroy(troupe_image_split *split);

/* Works out the plan's current step; that of `next` comes first. Cheap if it is there already. */
void troupe_image_split_begin_step(troupe_image_split *split);

/* The images of a microbatch in the order of their rows; returns how many. */
int troupe_image_split_images(const troupe_image_split *split, int microbatch,
                              const struct troupe_split_image **out);
/* Rows that a shard has of a microbatch. */
int64_t troupe_image_split_rows(const troupe_image_split *split, int microbatch, int shard);

int troupe_image_split_rounds(const troupe_image_split *split);
/* offsets_out: (rounds * shards + 1,) as a layout of so many rounds takes them. */
void troupe_image_split_offsets(const troupe_image_split *split, int microbatch,
                                int64_t *offsets_out);
/* The most that any shard can get of a microbatch. */
struct troupe_batch_bounds troupe_image_split_bounds(const troupe_image_split *split);
/* Sets the bytes of all samples of the step of which the shard has images, see
 * troupe_source_prepare. */
void troupe_image_split_needed(const troupe_image_split *split, int shard, uint8_t *needed_out);

const troupe_sample_plan *troupe_image_split_plan(const troupe_image_split *split);

#ifdef __cplusplus
}
#endif
#endif
