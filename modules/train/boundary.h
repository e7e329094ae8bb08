/* SPDX-License-Identifier: Apache-2.0
 *
 * One boundary of the training graph: the rows that leave one stage and arrive at the next, and
 * the gradients that come back by the adjoint route. Rows are image tokens up to the language
 * model and fused tokens inside it.
 *
 * Ownership: init/fini on the caller's storage; must outlive the runtime that it is connected to.
 * Threads: the rank's thread. Failure: ERROR_INVALID, ERROR_MEMORY.
 */
#ifndef TROUPE_MODULES_TRAIN_BOUNDARY_H
#define TROUPE_MODULES_TRAIN_BOUNDARY_H

#include "actors/edge.h"
#include "modules/data/image_split.h"
#include "modules/data/sample_plan.h"
#include "modules/train/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One side: a stage of a module, its gangs by DP shard, and the ports that carry rows out of (into)
 * it and gradients back. */
struct troupe_boundary_side {
    const struct troupe_module_plan *module;
    int stage;
    const int *gangs; /* by DP shard */
    const char *rows_port;
    const char *gradients_port;
    const troupe_image_split *split; /* of its rows; NULL: contiguous intervals of samples */
};

struct troupe_boundary_options {
    const char *name; /* "vision->projector" */
    struct troupe_boundary_side source;
    struct troupe_boundary_side destination;
    bool fused; /* rows of fused sequences; else image tokens */
    int64_t columns;
    int credits;
    const troupe_sample_plan *samples;
    const int *host_of_rank;
};

/* One direction: its route, and the row offsets of the current step's microbatches. */
struct troupe_boundary_direction {
    struct troupe_boundary *boundary;
    troupe_route *route;
    bool backward;
};

struct troupe_boundary {
    struct troupe_boundary_options options;
    struct troupe_boundary_direction directions[2]; /* forward, backward */
    int microbatches;
    int64_t *source_offsets;      /* (microbatches, source parts + 1), see .._offsets below */
    int64_t *destination_offsets; /* (microbatches, destination parts + 1) */
    uint64_t *sample_sets;        /* (microbatches) */
    uint64_t normalisation;
};

troupe_status troupe_boundary_init(const struct troupe_boundary_options *options,
                                   struct troupe_boundary *out);
void troupe_boundary_fini(struct troupe_boundary *boundary);
/* Connects both directions. */
troupe_status troupe_boundary_connect(struct troupe_boundary *boundary, troupe_runtime *runtime);
/* Works out the offsets of the sample plan's current step; the splits have begun it. */
void troupe_boundary_begin_step(struct troupe_boundary *boundary);
/* The current step's row offsets of a microbatch, for troupe_route_bind of the forward route. */
const int64_t *troupe_boundary_source_offsets(const struct troupe_boundary *boundary,
                                              int microbatch);
const int64_t *troupe_boundary_destination_offsets(const struct troupe_boundary *boundary,
                                                   int microbatch);

#ifdef __cplusplus
}
#endif
#endif
