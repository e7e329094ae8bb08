/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads a checkpoint into a fleet: each rank reads an even share of the rows of every tensor, so
 * the job reads each byte of the files once, and the state then moves to the fleet's plan as it
 * does at a switch of placement.
 *
 *     TROUPE_TRY(troupe_restore(fleet, world, "runs/demo/step-300"));
 *
 * Ownership: nothing is kept. Threads: the rank's thread; collective over the world.
 * Failure: on all ranks what the checkpoint says on one; the transport's.
 */
#ifndef TROUPE_MODULES_TRAIN_RESTORE_H
#define TROUPE_MODULES_TRAIN_RESTORE_H

#include "modules/train/fleet.h"

#ifdef __cplusplus
extern "C" {
#endif

troupe_status troupe_restore(struct troupe_fleet *fleet, troupe_group *world, const char *path);

#ifdef __cplusplus
}
#endif
#endif
