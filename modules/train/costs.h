/* SPDX-License-Identifier: Apache-2.0
 *
 * What each task and message of a step will cost: from a roofline of a cluster's devices, from a
 * profile, which is what tasks of the same shape took on a machine, or from the steps that have
 * run.
 *
 *     TROUPE_TRY(troupe_fleet_costs_create(&options, &costs));
 *     TROUPE_TRY(troupe_fleet_costs_step(costs, step));
 *     troupe_cost_of_task(troupe_fleet_costs_table(costs), method, step, microbatch)
 *
 * Roofline: a forward's floating-point operations (struct troupe_module_class.flops) divided by TP,
 * at the rate that the efficiency curve gives for its rows, or its weights' bytes; the same again
 * for each half of the backward; and two all-reduces a layer where TP divides it, in forward and in
 * backward_input. A reduction is an all-reduce of the stage's weights over DP.
 *
 * A profile is a text file with one line a measured task,
 *
 *     llm tp 2 parameters 123456 forward rows 512 ns 1234567
 *
 * of a module's shard with so many parameters. Between the rows measured, times are interpolated,
 * beyond them proportional.
 *
 * Learning: the times of a step that has run take the place of these; for each shape and method a
 * line over the rows, in which older steps fade; for messages see link_costs.h. What all ranks have
 * learnt from the same schedule is the same on all of them. The table stays as it is, epoch and
 * all, while what is expected differs little from it.
 *
 * Ownership: create/destroy; fleet, forecast and cluster are borrowed. step and learn do not
 * allocate. Threads: the rank's.
 * Failure: ERROR_IO, ERROR_INVALID with file and line, or naming the shape that a profile lacks.
 */
#ifndef TROUPE_MODULES_TRAIN_COSTS_H
#define TROUPE_MODULES_TRAIN_COSTS_H

#include <stdio.h>

#include "actors/forecast.h"
#include "modules/train/fleet.h"
#include "modules/train/timeline.h"
#include "scheduler/cluster.h"
#include "scheduler/cost.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_fleet_costs troupe_fleet_costs;

struct troupe_fleet_costs_options {
    const struct troupe_fleet *fleet;
    troupe_forecast *forecast; /* NULL: messages take no time */
    const struct troupe_cluster *cluster;
    const char *profile; /* path; NULL: the roofline */
};

troupe_status troupe_fleet_costs_create(const struct troupe_fleet_costs_options *options,
                                        troupe_fleet_costs **out);
/* Of the sample plan's current step, which the forecast has worked out. */
troupe_status troupe_fleet_costs_step(troupe_fleet_costs *costs);
/* What the tasks of the sample plan's current step took. */
void troupe_fleet_costs_learn(troupe_fleet_costs *costs, const struct troupe_schedule *schedule);
const struct troupe_costs *troupe_fleet_costs_table(const troupe_fleet_costs *costs);
/* Accepts NULL. */
void troupe_fleet_costs_destroy(troupe_fleet_costs *costs);

/* Adds the tasks of a step that has run (the sample plan's current one) to a profile. */
void troupe_profile_write(FILE *file, const struct troupe_fleet *fleet,
                          const struct troupe_schedule *schedule);

#ifdef __cplusplus
}
#endif
#endif
