/* SPDX-License-Identifier: Apache-2.0
 *
 * A part of the job on this rank: one stage shard with its groups, its gradient reduction and its
 * optimizer, as an actor. `forward`, `backward_input` and `backward_weight` fire per microbatch;
 * `reduce_gradients` posts the sums over DP once the last microbatch is done, in a lane of its own,
 * and nothing but the update waits for it.
 *
 * Ownership: create/destroy by the training object, after the runtime. Threads: the rank's thread.
 * Failure: what the stage, the groups or the optimizer says.
 */
#ifndef TROUPE_MODULES_TRAIN_PART_H
#define TROUPE_MODULES_TRAIN_PART_H

#include "actors/actor.h"
#include "modules/optim/optimizer.h"
#include "modules/train/gradient_sums.h"
#include "modules/train/plan.h"
#include "modules/train/stage.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_part {
    int module;
    troupe_stream *stream; /* its own */
    troupe_event *ended;   /* behind the step's work */
    struct troupe_stage *stage;
    troupe_group *tp; /* NULL: alone */
    struct troupe_gradient_sums sums;
    troupe_optimizer *optimizer;
    double *squares; /* of the gradients, by parameter; memory that host and device reach */
};

struct troupe_part_options {
    const struct troupe_config *config;
    const struct troupe_plan *plan;
    int module;
    int stage; /* this rank's coordinates in the module's mesh */
    int dp;
    int tp;
    int slots;
    int generation; /* 0 or 1: parts of the job that are alive at the same time differ in it */
    bool alone;     /* its groups are made without their other members */
    const troupe_sample_plan *samples;
    const troupe_image_split *split; /* of an encoder's images; NULL: those of its samples */
    troupe_source *source;
    troupe_device *device;
    troupe_stream *lane; /* in which gradients are summed on a device; NULL: the host */
    troupe_comm *comm;
};

/* Ports of the actor, by name. */
#define TROUPE_PART_ROWS_IN       "rows_in"
#define TROUPE_PART_ROWS_OUT      "rows_out"
#define TROUPE_PART_GRADIENTS_IN  "gradients_in"
#define TROUPE_PART_GRADIENTS_OUT "gradients_out"

extern const struct troupe_actor_class troupe_part_class;

troupe_status troupe_part_create(const struct troupe_part_options *options,
                                 struct troupe_part **out);
/* After the step's methods: enqueues the squares of the gradients and marks the end of the step. */
troupe_status troupe_part_enqueue_end(struct troupe_part *part);
/* OK when the part's stream has done all that, AGAIN when not: then the host may look. */
troupe_status troupe_part_poll_end(struct troupe_part *part);
/* The square sum of its gradients. What other ranks hold, too, counts on one of them: the first DP
 * shard, and what TP replicates on the first TP shard. */
double troupe_part_square_sum(const struct troupe_part *part);
/* Accepts NULL. */
void troupe_part_destroy(struct troupe_part *part);

#ifdef __cplusplus
}
#endif
#endif
