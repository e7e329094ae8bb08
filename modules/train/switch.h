/* SPDX-License-Identifier: Apache-2.0
 *
 * From one fleet to another while the job runs, at a step boundary: the new plan is made, its ranks
 * relabelled so that most bytes stay, its fleet built beside the old one. If any of that fails on
 * any rank, the old fleet goes on as if nothing had been. Else parameters and moments move along
 * routes, the old actors end and the new ones begin.
 *
 *     TROUPE_TRY(troupe_switch_run(&options, &fleet, &report));
 *
 * Ownership: *fleet is replaced only on success; the old one is destroyed then. What the options
 * name is borrowed for the life of the new fleet. Threads: the rank's thread; collective.
 * Failure: why it was refused; the old fleet runs on (but for a failure of the transport, which
 * ends the job).
 */
#ifndef TROUPE_MODULES_TRAIN_SWITCH_H
#define TROUPE_MODULES_TRAIN_SWITCH_H

#include "modules/train/fleet.h"
#include "modules/train/report.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_switch_options {
    const struct troupe_config *config; /* of the new fleet */
    troupe_group *world;
    int64_t first_step; /* that the new fleet runs */
    int64_t last_step;
};

troupe_status troupe_switch_run(const struct troupe_switch_options *options,
                                struct troupe_fleet **fleet, struct troupe_switch_report *out);

#ifdef __cplusplus
}
#endif
#endif
