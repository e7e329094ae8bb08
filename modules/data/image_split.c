/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/image_split.h"

#include <string.h>

#include "modules/data/image_owners.h"
#include "runtime/check.h"
#include "runtime/memory.h"

enum { NOBODY = -1 };

struct troupe_image_split {
    struct troupe_image_split_options options; /* home_of_shard, shares: not kept */
    int64_t step;                              /* -1: none yet */
    int microbatches;
    int images_max;                    /* of a microbatch */
    struct troupe_batch_bounds bounds; /* of a shard */
    struct troupe_split_image *images; /* (microbatches, images_max) */
    int *counts;                       /* (microbatches,) */
    int *first_of_home;                /* (next shards,) the first shard of each, or NOBODY */
    int *home_of_shard;                /* (shards,) named by its first shard */
    int *shares;                       /* (shards,) or NULL */
    troupe_image_owners *solver;
    int32_t *tokens; /* (images_max,) each: the microbatch at hand */
    int *homes;
    int *owners;
    int64_t *rows; /* (shards,) */
};

/* ---- life ---- */

/* Rows of a shard, of at most `all` in a microbatch. */
static int64_t rows_max(const struct troupe_image_split_options *o, int64_t contiguous,
                        int64_t all) {
    int64_t sum = 0, most = 0;
    for (int s = 0; o->shares != NULL && s < o->shards; s++) {
        sum += o->shares[s];
        most = o->shares[s] > most ? o->shares[s] : most;
    }
    int64_t dealt = sum == 0 ? 0 : all * most / sum;
    dealt += dealt / 4 + 1; /* images are lumps, and small ones cost less for a row */
    dealt = dealt < all ? dealt : all;
    return dealt > contiguous ? dealt : contiguous;
}

static troupe_status copy_shares(troupe_image_split *split, const int *shares, int count) {
    if (shares == NULL) {
        return TROUPE_OK;
    }
    TROUPE_TRY(TROUPE_NEW(&split->shares, count));
    memcpy(split->shares, shares, (size_t)count * sizeof *shares);
    return TROUPE_OK;
}

/* The solver wants homes numbered below the shards: each goes by its first shard. */
static void name_homes(troupe_image_split *split, const int *home_of_shard, int next_shards) {
    for (int h = 0; h < next_shards; h++) {
        split->first_of_home[h] = NOBODY;
    }
    for (int s = 0; s < split->options.shards; s++) {
        int home = home_of_shard[s];
        TROUPE_ASSERT(home >= NOBODY && home < next_shards, "shard %d of %d is at home at %d of %d",
                      s, split->options.shards, home, next_shards);
        split->home_of_shard[s] = NOBODY;
        if (home != NOBODY) {
            int *first = &split->first_of_home[home];
            *first = *first == NOBODY ? s : *first;
            split->home_of_shard[s] = *first;
        }
    }
}

static troupe_status build(troupe_image_split *split,
                           const struct troupe_image_split_options *options) {
    const troupe_sample_plan *plan = options->samples;
    int next_shards = options->next != NULL ? options->next->options.shards : options->next_shards;
    struct troupe_batch_bounds all = troupe_sample_plan_bounds(plan, 1);
    split->microbatches = troupe_sample_plan_microbatches(plan);
    split->images_max = (int)all.images;
    split->bounds = troupe_sample_plan_bounds(plan, options->shards);
    split->bounds.images = all.images; /* many small ones may make up for a large one */
    split->bounds.samples = all.samples;
    if (options->shares != NULL) {
        split->bounds.image_tokens =
            rows_max(options, split->bounds.image_tokens, all.image_tokens);
    }
    TROUPE_TRY(copy_shares(split, options->shares, options->shards));
    TROUPE_TRY(TROUPE_NEW(&split->images, split->microbatches * split->images_max));
    TROUPE_TRY(TROUPE_NEW(&split->counts, split->microbatches));
    TROUPE_TRY(TROUPE_NEW(&split->first_of_home, next_shards));
    TROUPE_TRY(TROUPE_NEW(&split->home_of_shard, options->shards));
    TROUPE_TRY(TROUPE_NEW(&split->tokens, split->images_max));
    TROUPE_TRY(TROUPE_NEW(&split->homes, split->images_max));
    TROUPE_TRY(TROUPE_NEW(&split->owners, split->images_max));
    TROUPE_TRY(TROUPE_NEW(&split->rows, options->shards));
    name_homes(split, options->home_of_shard, next_shards);
    return troupe_image_owners_create(split->images_max, options->shards, &split->solver);
}

troupe_status troupe_image_split_create(const struct troupe_image_split_options *options,
                                        troupe_image_split **out) {
    troupe_image_split *split = NULL;
    TROUPE_TRY(TROUPE_NEW(&split, 1));
    split->options = *options;
    split->options.home_of_shard = split->options.shares = NULL;
    split->step = -1;
    troupe_status status = build(split, options);
    if (status != TROUPE_OK) {
        troupe_image_split_destroy(split);
        return status;
    }
    *out = split;
    return TROUPE_OK;
}

void troupe_image_split_destroy(troupe_image_split *split) {
    if (split == NULL) {
        return;
    }
    troupe_image_owners_destroy(split->solver);
    troupe_free(split->images);
    troupe_free(split->counts);
    troupe_free(split->first_of_home);
    troupe_free(split->home_of_shard);
    troupe_free(split->shares);
    troupe_free(split->tokens);
    troupe_free(split->homes);
    troupe_free(split->owners);
    troupe_free(split->rows);
    troupe_free(split);
}

/* ---- a step ---- */

/* Lists the images of a microbatch, without owners. */
static void list_images(troupe_image_split *split, int microbatch) {
    const troupe_sample_plan *plan = split->options.samples;
    struct troupe_interval all = troupe_sample_plan_interval(plan, microbatch, 0, 1);
    struct troupe_split_image *images = split->images + microbatch * split->images_max;
    int count = 0;
    for (int64_t at = all.begin; at < all.end; at++) {
        struct troupe_sample_info info;
        troupe_source_info(troupe_sample_plan_source(plan), troupe_sample_plan_ids(plan)[at],
                           &info);
        TROUPE_ASSERT(count + info.images <= split->images_max, "%d images of at most %d",
                      count + info.images, split->images_max);
        for (int32_t k = 0; k < info.images; k++) {
            images[count++] = (struct troupe_split_image){
                .tokens = info.grids[k].rows * info.grids[k].columns, .at = at, .picture = k};
        }
    }
    split->counts[microbatch] = count;
}

/* owners_out: by image, the one of `shards` contiguous intervals of samples that it is in. */
static void own_by_interval(const troupe_image_split *split, int microbatch, int shards,
                            int *owners_out) {
    const struct troupe_split_image *images = split->images + microbatch * split->images_max;
    int shard = 0;
    for (int i = 0; i < split->counts[microbatch]; i++) {
        while (images[i].at >=
               troupe_sample_plan_interval(split->options.samples, microbatch, shard, shards).end) {
            shard++;
        }
        owners_out[i] = shard;
    }
}

static void find_homes(troupe_image_split *split, int microbatch) {
    const troupe_image_split *next = split->options.next;
    if (next == NULL) {
        own_by_interval(split, microbatch, split->options.next_shards, split->homes);
    }
    for (int i = 0; i < split->counts[microbatch]; i++) {
        int home =
            next == NULL ? split->homes[i] : next->images[microbatch * next->images_max + i].owner;
        split->homes[i] = split->first_of_home[home];
    }
}

/* Whether every shard has room for its rows. */
static bool fits(troupe_image_split *split, int count) {
    bool all = true;
    memset(split->rows, 0, (size_t)split->options.shards * sizeof *split->rows);
    for (int i = 0; i < count; i++) {
        int64_t *rows = &split->rows[split->owners[i]];
        *rows += split->tokens[i];
        all = all && *rows <= split->bounds.image_tokens;
    }
    return all;
}

static void assign(troupe_image_split *split, int microbatch) {
    const struct troupe_image_split_options *o = &split->options;
    struct troupe_split_image *images = split->images + microbatch * split->images_max;
    int count = split->counts[microbatch];
    for (int i = 0; i < count; i++) {
        split->tokens[i] = images[i].tokens;
    }
    find_homes(split, microbatch);
    troupe_image_owners_find(split->solver,
                             &(struct troupe_image_problem){.tokens = split->tokens,
                                                            .homes = split->homes,
                                                            .images = count,
                                                            .home_of_rank = split->home_of_shard,
                                                            .ranks = o->shards,
                                                            .shares = split->shares,
                                                            .linear = o->linear,
                                                            .quadratic = o->quadratic},
                             split->owners);
    if (!fits(split, count)) {
        own_by_interval(split, microbatch, o->shards, split->owners);
    }
    for (int i = 0; i < count; i++) {
        images[i].owner = split->owners[i];
    }
}

void troupe_image_split_begin_step(troupe_image_split *split) {
    const struct troupe_image_split_options *o = &split->options;
    int64_t step = troupe_sample_plan_step(o->samples);
    if (split->step == step) {
        return;
    }
    TROUPE_ASSERT(o->next == NULL || o->next->step == step,
                  "step %lld begins here, but not where the rows go", (long long)step);
    for (int k = 0; k < split->microbatches; k++) {
        list_images(split, k);
        assign(split, k);
    }
    split->step = step;
}

/* ---- queries ---- */

int troupe_image_split_images(const troupe_image_split *split, int microbatch,
                              const struct troupe_split_image **out) {
    *out = split->images + microbatch * split->images_max;
    return split->counts[microbatch];
}

int64_t troupe_image_split_rows(const troupe_image_split *split, int microbatch, int shard) {
    const struct troupe_split_image *images = NULL;
    int count = troupe_image_split_images(split, microbatch, &images);
    int64_t rows = 0;
    for (int i = 0; i < count; i++) {
        rows += images[i].owner == shard ? images[i].tokens : 0;
    }
    return rows;
}

/* In the worst case every image begins one. */
int troupe_image_split_rounds(const troupe_image_split *split) {
    return split->images_max > 0 ? split->images_max : 1;
}

/* Each image goes to the next part of its owner, or to the one before it. */
void troupe_image_split_offsets(const troupe_image_split *split, int microbatch,
                                int64_t *offsets_out) {
    const struct troupe_split_image *images = NULL;
    int count = troupe_image_split_images(split, microbatch, &images);
    int shards = split->options.shards, parts = troupe_image_split_rounds(split) * shards;
    int part = 0;
    int64_t row = 0;
    offsets_out[0] = 0;
    for (int i = 0; i < count; i++) {
        for (; part % shards != images[i].owner; part++) {
            offsets_out[part + 1] = row;
        }
        row += images[i].tokens;
    }
    for (; part < parts; part++) {
        offsets_out[part + 1] = row;
    }
}

struct troupe_batch_bounds troupe_image_split_bounds(const troupe_image_split *split) {
    return split->bounds;
}

void troupe_image_split_needed(const troupe_image_split *split, int shard, uint8_t *needed_out) {
    const int64_t *ids = troupe_sample_plan_ids(split->options.samples);
    for (int k = 0; k < split->microbatches; k++) {
        const struct troupe_split_image *images = NULL;
        int count = troupe_image_split_images(split, k, &images);
        for (int i = 0; i < count; i++) {
            if (images[i].owner == shard) {
                needed_out[ids[images[i].at]] = 1;
            }
        }
    }
}

const troupe_sample_plan *troupe_image_split_plan(const troupe_image_split *split) {
    return split->options.samples;
}
