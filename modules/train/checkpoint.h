/* SPDX-License-Identifier: Apache-2.0
 *
 * A checkpoint is a folder run_dir/step-N that any layout can read, since it holds full tensors
 * under layout-free names:
 *
 *     model.safetensors         weights
 *     optimizer-m.safetensors   first moments, same names and shapes
 *     optimizer-v.safetensors   second moments
 *     config.yaml               the resolved configuration
 *     state.json                step, data cursor, seed, plan, format version
 *
 * All ranks write it together, each its own boxes, what is replicated once. It is written as
 * step-N.tmp, synced to the disk, then renamed: a save that dies leaves earlier checkpoints as they
 * were, and a folder called step-N is whole.
 *
 *     TROUPE_TRY(troupe_checkpoint_save(&checkpoint));               (every rank)
 *     TROUPE_TRY(troupe_checkpoint_newest("runs/demo", path, sizeof path));
 *     TROUPE_TRY(troupe_checkpoint_load_state(path, &state));
 *     TROUPE_TRY(troupe_checkpoint_read(path, TROUPE_CHECKPOINT_MODEL, parameters, count));
 *
 * Ownership: everything is borrowed for the call. Threads: the rank's thread; values and moments
 * are host memory that nothing writes meanwhile.
 * Failure: ERROR_IO, ERROR_DATA or ERROR_INVALID naming the file and the tensor. A save fails on
 * every rank if it fails on one.
 */
#ifndef TROUPE_MODULES_TRAIN_CHECKPOINT_H
#define TROUPE_MODULES_TRAIN_CHECKPOINT_H

#include <stddef.h>
#include <stdint.h>

#include "comm/group.h"
#include "modules/nn/module.h"
#include "modules/optim/optimizer.h"
#include "modules/train/config.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TROUPE_CHECKPOINT_FORMAT = 1 };

/* One shard of a stage on this rank. DP replica 0 writes; a parameter that TP replicates is written
 * by TP index 0, a tied copy by nobody. */
struct troupe_checkpoint_shard {
    const struct troupe_parameter *parameters;
    int count;
    const troupe_optimizer *optimizer; /* made with these parameters */
    troupe_stream *stream;             /* their device's; NULL: they are in host memory */
    int tp_index;
    int dp_index;
};

struct troupe_checkpoint {
    const struct troupe_config *config; /* resolved; train.run_dir is where it goes */
    int64_t step;                       /* steps done: N of step-N */
    int64_t position;                   /* data cursor: samples taken by these steps */
    const char *plan;                   /* modules and ranks in words, for people */
    const struct troupe_checkpoint_shard *shards;
    int shard_count;
    troupe_group *world; /* every rank of the job */
};

/* Collective over `world`. A step-N that is there already is replaced. */
troupe_status troupe_checkpoint_save(const struct troupe_checkpoint *checkpoint);

struct troupe_checkpoint_state {
    int64_t step;
    int64_t position;
    int64_t seed;
};
troupe_status troupe_checkpoint_load_state(const char *path, struct troupe_checkpoint_state *out);

enum troupe_checkpoint_file {
    TROUPE_CHECKPOINT_MODEL,
    TROUPE_CHECKPOINT_FIRST_MOMENTS,
    TROUPE_CHECKPOINT_SECOND_MOMENTS,
    TROUPE_CHECKPOINT_FILES
};

/* Fills the values of these boxes, tied copies too, with what the file has of them. */
troupe_status troupe_checkpoint_read(const char *path, enum troupe_checkpoint_file file,
                                     const struct troupe_parameter *parameters, int count);

/* The path of the step-N with the largest N in run_dir; unfinished ones do not count. */
troupe_status troupe_checkpoint_newest(const char *run_dir, char *out, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
