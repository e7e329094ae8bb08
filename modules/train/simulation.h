/* SPDX-License-Identifier: Apache-2.0
 *
 * A step of a training job that does not run: the task graph that training would run, its messages
 * and the costs of a cluster or a profile, through the simulator.
 *
 *     TROUPE_TRY(troupe_simulation_create(&options, &simulation));
 *     TROUPE_TRY(troupe_simulation_step(simulation, 0, &result));
 *     result.sim.makespan_ns, result.bound.ns, result.account->total
 *
 * Ownership: create/destroy; config and cluster are borrowed; a result is valid until the next
 * step. Threads: one. Failure: what training says of the same config before its first step;
 * ERROR_INVALID for a shape that the profile lacks; ERROR_STALL.
 */
#ifndef TROUPE_MODULES_TRAIN_SIMULATION_H
#define TROUPE_MODULES_TRAIN_SIMULATION_H

#include "modules/train/config.h"
#include "scheduler/bound.h"
#include "scheduler/cluster.h"
#include "scheduler/schedule.h"
#include "scheduler/sim.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_simulation troupe_simulation;

struct troupe_simulation_options {
    const struct troupe_config *config; /* resolved */
    int rank_count;
    const struct troupe_cluster *cluster;
    const char *profile; /* path; NULL: the cluster's roofline */
};

struct troupe_simulation_result {
    struct troupe_sim_result sim;
    struct troupe_bound_result bound;
    const struct troupe_account *account;
};

troupe_status troupe_simulation_create(const struct troupe_simulation_options *options,
                                       troupe_simulation **out);
/* The samples are those of this step of the run. */
troupe_status troupe_simulation_step(troupe_simulation *simulation, int64_t step,
                                     struct troupe_simulation_result *out);
/* One line a module, as training says. */
void troupe_simulation_describe(const troupe_simulation *simulation,
                                void (*line)(void *arg, const char *text), void *arg);
/* Accepts NULL. */
void troupe_simulation_destroy(troupe_simulation *simulation);

#ifdef __cplusplus
}
#endif
#endif
