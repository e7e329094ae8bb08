/* SPDX-License-Identifier: Apache-2.0
 *
 * The sample plan: which samples a step trains on, in which order, and how many rows each brings;
 * pure and the same on every rank before the step, so that both sides of a boundary compile the
 * same route by themselves. Samples are taken without replacement, each epoch in its own order (a
 * keyed permutation: any position costs the same, nothing is stored); a step takes the next
 * global_batch of them and may begin in one epoch and end in the next.
 *
 *     troupe_sample_plan_create(source, &options, &plan);
 *     troupe_sample_plan_set_step(plan, step);
 *     struct troupe_interval mine = troupe_sample_plan_interval(plan, microbatch, dp, dp_count);
 *     for (int64_t i = mine.begin; i < mine.end; i++) { ... troupe_sample_plan_ids(plan)[i] ... }
 *
 * Microbatch k of m is the k-th contiguous near-even slice of the step's samples, and shard d of D
 * of a module the d-th contiguous near-even slice of the microbatch; all offsets below are
 * positions in the step, 0 .. global_batch.
 *
 * Ownership: create/destroy; the source is borrowed for the plan's life. Pointers returned are the
 * plan's and hold until the next set_step. Threads: one at a time.
 * Failure: create: ERROR_INVALID, ERROR_MEMORY. Nothing else fails or allocates.
 */
#ifndef TROUPE_MODULES_DATA_SAMPLE_PLAN_H
#define TROUPE_MODULES_DATA_SAMPLE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "modules/data/source.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_sample_plan troupe_sample_plan;

struct troupe_sample_plan_options {
    uint64_t seed;
    int64_t global_batch; /* samples of a step, at least microbatches */
    int microbatches;     /* of a step, m */
    bool in_order;        /* no shuffle: sample 0, 1, 2, ... (evaluation) */
    int64_t first_step;   /* set_step(first_step) begins at ... */
    int64_t
        first_position; /* ... this many samples into the run; from a checkpoint's data cursor */
};

struct troupe_interval {
    int64_t begin;
    int64_t end;
};

/* Part `part` of `parts` contiguous near-even parts of `count` things. */
struct troupe_interval troupe_interval_of(int64_t count, int parts, int part);

/* Position i of the order of epoch `epoch` over `count` samples: a permutation of 0 .. count-1. */
int64_t troupe_sample_order(uint64_t seed, int64_t epoch, int64_t count, int64_t i);

troupe_status troupe_sample_plan_create(const troupe_source *source,
                                        const struct troupe_sample_plan_options *options,
                                        troupe_sample_plan **out);
void troupe_sample_plan_destroy(troupe_sample_plan *plan);

/* Works out the samples of a step, at least first_step. Every function below speaks of this step.
 * Cheap if the step is set already. */
void troupe_sample_plan_set_step(troupe_sample_plan *plan, int64_t step);
int64_t troupe_sample_plan_step(const troupe_sample_plan *plan);

/* The data cursor before `step`: samples taken since the run began; set_step of a plan made with
 * (first_step, first_position) = (step, this) continues the same sequence. */
int64_t troupe_sample_plan_position(const troupe_sample_plan *plan, int64_t step);

const troupe_source *troupe_sample_plan_source(const troupe_sample_plan *plan);
int64_t troupe_sample_plan_global_batch(const troupe_sample_plan *plan);
int troupe_sample_plan_microbatches(const troupe_sample_plan *plan);

/* (global_batch,) sample numbers in order. */
const int64_t *troupe_sample_plan_ids(const troupe_sample_plan *plan);

/* Positions of the samples of microbatch k that shard d of D holds; shards 1: the microbatch. */
struct troupe_interval troupe_sample_plan_interval(const troupe_sample_plan *plan, int microbatch,
                                                   int shard, int shards);

/* Prefix sums over the step, (global_batch + 1,): item [i] is the sum over positions < i. */
const int64_t *troupe_sample_plan_rows(const troupe_sample_plan *plan);         /* fused rows */
const int64_t *troupe_sample_plan_image_tokens(const troupe_sample_plan *plan); /* boundary rows */
const int64_t *troupe_sample_plan_images(const troupe_sample_plan *plan);
const int64_t *troupe_sample_plan_targets(const troupe_sample_plan *plan);

/* The row split of a boundary at microbatch k for a module of `shards` shards: offsets_out
 * (shards + 1,) of image tokens (boundary rows), or of fused rows, counted from the microbatch's
 * first. What troupe_route_bind takes. */
void troupe_sample_plan_image_offsets(const troupe_sample_plan *plan, int microbatch, int shards,
                                      int64_t *offsets_out);
void troupe_sample_plan_row_offsets(const troupe_sample_plan *plan, int microbatch, int shards,
                                    int64_t *offsets_out);

/* Target tokens of the whole step: the global normaliser of the loss. */
int64_t troupe_sample_plan_step_targets(const troupe_sample_plan *plan);

/* The sample-set hash of microbatch k: 64 bits over its ordered (sample, image tokens) pairs, as
 * every message of the microbatch carries it (comm/wire.h). */
uint64_t troupe_sample_plan_hash(const troupe_sample_plan *plan, int microbatch);

/* The most that one shard of `shards` can hold of any microbatch of any step. */
struct troupe_batch_bounds {
    int64_t samples;
    int64_t rows;
    int64_t images;
    int64_t image_tokens;
    int patch; /* side of a patch in pixels */
};
struct troupe_batch_bounds troupe_sample_plan_bounds(const troupe_sample_plan *plan, int shards);

/* Marks (sets to 1) in needed_out, one byte a sample, what shard `shard` of `shards` needs in steps
 * [step_begin, step_end). Leaves the plan at another step. */
void troupe_sample_plan_needed(troupe_sample_plan *plan, int64_t step_begin, int64_t step_end,
                               int shard, int shards, uint8_t *needed_out);

#ifdef __cplusplus
}
#endif
#endif
