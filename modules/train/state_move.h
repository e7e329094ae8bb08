/* SPDX-License-Identifier: Apache-2.0
 *
 * Parameters and their moments on the way from one state map to another, along routes: when a
 * placement changes, and when a checkpoint is read into a plan.
 *
 *     TROUPE_TRY(troupe_state_move_create(&options, &move));    (all that may fail for want of
 * memory) TROUPE_TRY(troupe_state_move_run(move));                  (every rank)
 *     troupe_state_move_destroy(move);
 *
 * Ownership: create/destroy; what the options name is borrowed until destroy.
 * Threads: the rank's thread. Failure: create: ERROR_MEMORY, on this rank alone; run: the
 * transport's or the device's.
 */
#ifndef TROUPE_MODULES_TRAIN_STATE_MOVE_H
#define TROUPE_MODULES_TRAIN_STATE_MOVE_H

#include "comm/move.h"
#include "modules/train/state_map.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What there is of each parameter. */
enum { TROUPE_STATE_VALUE, TROUPE_STATE_FIRST, TROUPE_STATE_SECOND, TROUPE_STATE_KINDS };

/* This rank's box of a tensor in a map: row-major, without gaps; NULL where it has none. */
struct troupe_state_part {
    float *data[TROUPE_STATE_KINDS];
};

struct troupe_state_move_options {
    troupe_comm *comm;
    troupe_stream *stream;
    const int *host_of_rank;
    const struct troupe_state_map *from;
    const struct troupe_state_map *to;
    const struct troupe_state_part *from_parts; /* by tensor */
    const struct troupe_state_part *to_parts;
};

struct troupe_state_move;

troupe_status troupe_state_move_create(const struct troupe_state_move_options *options,
                                       struct troupe_state_move **out);
troupe_status troupe_state_move_run(struct troupe_state_move *move);
/* Accepts NULL. */
void troupe_state_move_destroy(struct troupe_state_move *move);

/* Of this rank. */
struct troupe_route_bytes troupe_state_move_bytes(const struct troupe_state_move *move);

#ifdef __cplusplus
}
#endif
#endif
