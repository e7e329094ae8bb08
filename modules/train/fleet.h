/* SPDX-License-Identifier: Apache-2.0
 *
 * The fleet: all that one plan makes of a job on this rank, namely its parts (module shards with
 * weights, gradients and moments), their actors, and the boundaries between them. A fleet can be
 * destroyed and another built for another plan on the same endpoint; two of different generation
 * may be alive at once, of which one is started.
 *
 *     TROUPE_TRY(troupe_fleet_create(&options, plan, &fleet));
 *     TROUPE_TRY(troupe_fleet_draw_weights(fleet));         (or read them, or move them here)
 *     TROUPE_TRY(troupe_fleet_prepare(fleet));
 *     TROUPE_TRY(troupe_fleet_start(fleet));
 *     TROUPE_TRY(troupe_fleet_step(fleet, step));           (forward, backward, sums of gradients)
 *     TROUPE_TRY(troupe_fleet_update(fleet, &update));
 *     troupe_fleet_destroy(fleet);
 *
 * Ownership: takes the plan, also where create fails; what the options name is borrowed.
 * Threads: the rank's thread. Every rank makes the same calls.
 * Failure: what the parts, the boundaries or the runtime say.
 */
#ifndef TROUPE_MODULES_TRAIN_FLEET_H
#define TROUPE_MODULES_TRAIN_FLEET_H

#include "actors/forecast.h"
#include "actors/runtime.h"
#include "comm/group_stream.h"
#include "modules/optim/optimizer.h"
#include "modules/train/boundary.h"
#include "modules/train/part.h"
#include "modules/train/splits.h"
#include "modules/train/state_move.h"
#include "modules/train/timeline.h"
#include "scheduler/cluster.h"
#include "scheduler/cost.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_fleet_options {
    const struct troupe_config *config;
    troupe_comm *comm;
    troupe_device *device;
    struct troupe_group_device_choice collectives; /* of the device, see troupe_fleet_start */
    troupe_source *source;
    troupe_sample_plan *samples;
    int generation; /* 0 or 1 */
    bool alone;     /* create needs no other rank: see struct troupe_group_options */
    bool outline;   /* no parts: for the task graph alone, never started */
};

struct troupe_fleet_costs; /* costs.h */

struct troupe_fleet {
    struct troupe_fleet_options options;
    int rank;
    struct troupe_plan *plan;
    struct troupe_splits splits; /* of images; nothing where data.assign is contiguous */
    struct troupe_part *parts[TROUPE_CONFIG_MODULES]; /* NULL: the module is not on this rank */
    int *gangs[TROUPE_CONFIG_MODULES];                /* by stage * dp + shard */
    struct troupe_boundary *boundaries;
    int boundary_count;
    troupe_stream *stream; /* of moves of the state */
    troupe_stream *lane;   /* of the sums of gradients; NULL: on the host */
    troupe_runtime *runtime;
    troupe_timeline *timeline;        /* of its steps; NULL in an outline */
    struct troupe_cluster cluster;    /* whose roofline is taken before tasks are measured */
    troupe_forecast *forecast;        /* of the messages; NULL where costs are */
    struct troupe_fleet_costs *costs; /* what they are expected to take; NULL in an outline, and
                                         where nobody on this rank asks */
    struct troupe_costs cost_table;   /* of the step, for the order policy */
    uint64_t expect_ns;               /* that the latest step's costs took to work out */
};

troupe_status troupe_fleet_create(const struct troupe_fleet_options *options,
                                  struct troupe_plan *plan, struct troupe_fleet **out);
/* Accepts NULL. */
void troupe_fleet_destroy(struct troupe_fleet *fleet);

/* Loads the samples of the steps [first, last) that are this rank's, while it may allocate. */
troupe_status troupe_fleet_prepare_samples(struct troupe_fleet *fleet, int64_t first, int64_t last);
/* The initial weights of train.seed. */
troupe_status troupe_fleet_draw_weights(struct troupe_fleet *fleet);
/* Allocates all that steps need, for this rank alone. */
troupe_status troupe_fleet_prepare(struct troupe_fleet *fleet);
troupe_status troupe_fleet_start(struct troupe_fleet *fleet);
/* Ends the actors; the parts stay. Collective, unless the job has failed. */
void troupe_fleet_stop(struct troupe_fleet *fleet);

/* The tasks of the step that has run took what the timeline says: what is expected of the next one
 * follows, by schedule.costs. The same on every rank. */
void troupe_fleet_learn(struct troupe_fleet *fleet);

/* The samples of a step: what every rank has of each microbatch. troupe_fleet_step does it, too. */
void troupe_fleet_begin_samples(struct troupe_fleet *fleet, int64_t step);
/* All tasks of a step but the update, done on the device, too: here the host waits for it. */
troupe_status troupe_fleet_step(struct troupe_fleet *fleet, int64_t step);
troupe_status troupe_fleet_update(struct troupe_fleet *fleet,
                                  const struct troupe_optimizer_step *update);

/* Where this rank keeps its boxes of the map, which is that of the fleet's plan: by tensor, freed
 * with troupe_free. */
troupe_status troupe_fleet_state(const struct troupe_fleet *fleet,
                                 const struct troupe_state_map *map,
                                 struct troupe_state_part **out);
/* Waits for what is still in the parts' streams: the latest update. */
troupe_status troupe_fleet_drain(const struct troupe_fleet *fleet);

/* Whether it runs one lane at a time, by comm.serialize. */
bool troupe_fleet_serializes(const struct troupe_fleet *fleet);
/* How long this rank took before the latest step's first ticket to expect, find out and plan. */
uint64_t troupe_fleet_plan_ns(const struct troupe_fleet *fleet);
/* The index of the part's gang in the runtime. */
int troupe_fleet_gang(const struct troupe_fleet *fleet, const struct troupe_part *part);
/* After start: one line a module, then islands. */
void troupe_fleet_describe(const struct troupe_fleet *fleet,
                           void (*line)(void *arg, const char *text), void *arg);

#ifdef __cplusplus
}
#endif
#endif
