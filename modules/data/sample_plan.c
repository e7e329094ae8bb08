/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/sample_plan.h"

#include "comm/layout.h"
#include "comm/wire.h"
#include "runtime/check.h"
#include "runtime/memory.h"
#include "runtime/random.h"

/* Rounds of the Feistel network; four make a strong permutation of wide blocks (Luby, Rackoff,
 * 1988), more are cheap here and mix the narrow ones. */
enum { ROUNDS = 8, HALF_BITS_MIN = 3 };

struct troupe_sample_plan {
    const troupe_source *source;
    struct troupe_sample_plan_options options;
    int64_t step; /* -1: none yet */
    int64_t *ids; /* (global_batch,) */
    /* (global_batch + 1,) each */
    int64_t *rows;
    int64_t *image_tokens;
    int64_t *images;
    int64_t *targets;
};

struct troupe_interval troupe_interval_of(int64_t count, int parts, int part) {
    TROUPE_ASSERT(parts > 0 && part >= 0 && part < parts, "part %d of %d", part, parts);
    return (struct troupe_interval){.begin = troupe_split_begin(count, parts, part),
                                    .end = troupe_split_begin(count, parts, part + 1)};
}

/* One pass of a balanced Feistel network over 2 * half bits. */
static uint64_t permute_block(uint64_t seed, uint64_t stream, int half, uint64_t x) {
    uint64_t mask = (UINT64_C(1) << half) - 1;
    uint64_t left = x >> half, right = x & mask;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint64_t mixed = troupe_random_bits(seed, stream, right << 8 | round) & mask;
        uint64_t next = left ^ mixed;
        left = right;
        right = next;
    }
    return left << half | right;
}

int64_t troupe_sample_order(uint64_t seed, int64_t epoch, int64_t count, int64_t i) {
    TROUPE_ASSERT(i >= 0 && i < count, "position %lld of %lld", (long long)i, (long long)count);
    int half = HALF_BITS_MIN;
    while ((UINT64_C(1) << 2 * half) < (uint64_t)count) {
        half++;
    }
    /* Blocks outside the range are permuted again until they fall into it (cycle walking): still a
     * permutation, and it ends because the start lies in the range. */
    uint64_t stream = troupe_random_stream("data.order") ^ (uint64_t)epoch;
    uint64_t x = (uint64_t)i;
    do {
        x = permute_block(seed, stream, half, x);
    } while (x >= (uint64_t)count);
    return (int64_t)x;
}

static troupe_status check_options(const troupe_source *source,
                                   const struct troupe_sample_plan_options *options) {
    if (source->samples < 1) {
        return troupe_fail(TROUPE_ERROR_INVALID, "the data set has no samples");
    }
    if (options->microbatches < 1 || options->global_batch < options->microbatches) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "train.global_batch is %lld and train.microbatches %d; a microbatch "
                           "needs at least one sample",
                           (long long)options->global_batch, options->microbatches);
    }
    return TROUPE_OK;
}

troupe_status troupe_sample_plan_create(const troupe_source *source,
                                        const struct troupe_sample_plan_options *options,
                                        troupe_sample_plan **out) {
    TROUPE_TRY(check_options(source, options));
    troupe_status status = TROUPE_OK;
    troupe_sample_plan *plan = NULL;
    TROUPE_TRY(TROUPE_NEW(&plan, 1));
    plan->source = source;
    plan->options = *options;
    plan->step = -1;
    size_t count = (size_t)options->global_batch;
    TROUPE_TRY_FAIL(TROUPE_NEW(&plan->ids, count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&plan->rows, count + 1));
    TROUPE_TRY_FAIL(TROUPE_NEW(&plan->image_tokens, count + 1));
    TROUPE_TRY_FAIL(TROUPE_NEW(&plan->images, count + 1));
    TROUPE_TRY_FAIL(TROUPE_NEW(&plan->targets, count + 1));
    *out = plan;
    return TROUPE_OK;
fail:
    troupe_sample_plan_destroy(plan);
    return status;
}

void troupe_sample_plan_destroy(troupe_sample_plan *plan) {
    if (plan != NULL) {
        troupe_free(plan->ids);
        troupe_free(plan->rows);
        troupe_free(plan->image_tokens);
        troupe_free(plan->images);
        troupe_free(plan->targets);
        troupe_free(plan);
    }
}

/* The sample at a position of the run. */
static int64_t sample_at(const troupe_sample_plan *plan, int64_t position) {
    int64_t count = plan->source->samples;
    if (plan->options.in_order) {
        return position % count;
    }
    return troupe_sample_order(plan->options.seed, position / count, count, position % count);
}

void troupe_sample_plan_set_step(troupe_sample_plan *plan, int64_t step) {
    if (plan->step == step) {
        return;
    }
    int64_t position = troupe_sample_plan_position(plan, step);
    for (int64_t i = 0; i < plan->options.global_batch; i++) {
        struct troupe_sample_info info;
        plan->ids[i] = sample_at(plan, position + i);
        troupe_source_info(plan->source, plan->ids[i], &info);
        plan->rows[i + 1] = plan->rows[i] + troupe_sample_rows(&info);
        plan->image_tokens[i + 1] = plan->image_tokens[i] + info.image_tokens;
        plan->images[i + 1] = plan->images[i] + info.images;
        plan->targets[i + 1] = plan->targets[i] + troupe_sample_targets(&info);
    }
    plan->step = step;
}

int64_t troupe_sample_plan_step(const troupe_sample_plan *plan) {
    return plan->step;
}

int64_t troupe_sample_plan_position(const troupe_sample_plan *plan, int64_t step) {
    const struct troupe_sample_plan_options *o = &plan->options;
    TROUPE_ASSERT(step >= o->first_step, "step %lld lies before the first, %lld", (long long)step,
                  (long long)o->first_step);
    return o->first_position + (step - o->first_step) * o->global_batch;
}

const troupe_source *troupe_sample_plan_source(const troupe_sample_plan *plan) {
    return plan->source;
}

int64_t troupe_sample_plan_global_batch(const troupe_sample_plan *plan) {
    return plan->options.global_batch;
}

int troupe_sample_plan_microbatches(const troupe_sample_plan *plan) {
    return plan->options.microbatches;
}

const int64_t *troupe_sample_plan_ids(const troupe_sample_plan *plan) {
    return plan->ids;
}

struct troupe_interval troupe_sample_plan_interval(const troupe_sample_plan *plan, int microbatch,
                                                   int shard, int shards) {
    const struct troupe_sample_plan_options *o = &plan->options;
    struct troupe_interval outer = troupe_interval_of(o->global_batch, o->microbatches, microbatch);
    struct troupe_interval inner = troupe_interval_of(outer.end - outer.begin, shards, shard);
    return (struct troupe_interval){outer.begin + inner.begin, outer.begin + inner.end};
}

const int64_t *troupe_sample_plan_rows(const troupe_sample_plan *plan) {
    return plan->rows;
}

const int64_t *troupe_sample_plan_image_tokens(const troupe_sample_plan *plan) {
    return plan->image_tokens;
}

const int64_t *troupe_sample_plan_images(const troupe_sample_plan *plan) {
    return plan->images;
}

const int64_t *troupe_sample_plan_targets(const troupe_sample_plan *plan) {
    return plan->targets;
}

static void split_offsets(const troupe_sample_plan *plan, const int64_t *prefix, int microbatch,
                          int shards, int64_t *offsets_out) {
    int64_t base = prefix[troupe_sample_plan_interval(plan, microbatch, 0, 1).begin];
    offsets_out[0] = 0;
    for (int shard = 0; shard < shards; shard++) {
        int64_t end = troupe_sample_plan_interval(plan, microbatch, shard, shards).end;
        offsets_out[shard + 1] = prefix[end] - base;
    }
}

void troupe_sample_plan_image_offsets(const troupe_sample_plan *plan, int microbatch, int shards,
                                      int64_t *offsets_out) {
    split_offsets(plan, plan->image_tokens, microbatch, shards, offsets_out);
}

void troupe_sample_plan_row_offsets(const troupe_sample_plan *plan, int microbatch, int shards,
                                    int64_t *offsets_out) {
    split_offsets(plan, plan->rows, microbatch, shards, offsets_out);
}

int64_t troupe_sample_plan_step_targets(const troupe_sample_plan *plan) {
    return plan->targets[plan->options.global_batch];
}

uint64_t troupe_sample_plan_hash(const troupe_sample_plan *plan, int microbatch) {
    struct troupe_interval all = troupe_sample_plan_interval(plan, microbatch, 0, 1);
    uint64_t hash = TROUPE_SAMPLE_SET_EMPTY;
    for (int64_t i = all.begin; i < all.end; i++) {
        int64_t image_tokens = plan->image_tokens[i + 1] - plan->image_tokens[i];
        hash = troupe_sample_set_add(hash, (uint64_t)plan->ids[i], (uint64_t)image_tokens);
    }
    return hash;
}

struct troupe_batch_bounds troupe_sample_plan_bounds(const troupe_sample_plan *plan, int shards) {
    TROUPE_ASSERT(shards > 0, "%d shards", shards);
    const struct troupe_sample_plan_options *o = &plan->options;
    int64_t microbatch = (o->global_batch + o->microbatches - 1) / o->microbatches;
    int64_t samples = (microbatch + shards - 1) / shards;
    const struct troupe_sample_bounds *most = &plan->source->bounds;
    return (struct troupe_batch_bounds){.samples = samples,
                                        .rows = samples * most->rows,
                                        .images = samples * most->images,
                                        .image_tokens = samples * most->image_tokens,
                                        .patch = plan->source->shape.patch};
}

void troupe_sample_plan_needed(troupe_sample_plan *plan, int64_t step_begin, int64_t step_end,
                               int shard, int shards, uint8_t *needed_out) {
    for (int64_t step = step_begin; step < step_end; step++) {
        troupe_sample_plan_set_step(plan, step);
        for (int m = 0; m < plan->options.microbatches; m++) {
            struct troupe_interval mine = troupe_sample_plan_interval(plan, m, shard, shards);
            for (int64_t i = mine.begin; i < mine.end; i++) {
                needed_out[plan->ids[i]] = 1;
            }
        }
    }
}
