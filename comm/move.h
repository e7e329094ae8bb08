/* SPDX-License-Identifier: Apache-2.0
 *
 * Moves many tensors from one layout to another at once: parameters and optimizer state when a
 * placement changes or a checkpoint is read. Each rank's tensors go by their routes; all that one
 * rank sends another travels as one stream of bytes, in chunks, through staging of fixed size.
 *
 *     troupe_move_create(&(struct troupe_move_options){.comm = comm, .stream = stream,
 *                        .tensors = tensors, .count = n}, &move);
 *     TROUPE_TRY(troupe_move_run(move));                     (every rank, with the same tensors)
 *     troupe_move_destroy(move);
 *
 * Ownership: create/destroy; tensors, their bindings and memory are borrowed until destroy. No
 * tensor's target overlaps any source. Threads: the rank's communicating thread.
 * Failure: create: ERROR_MEMORY; it concerns this rank alone. run: the transport's or the device's
 * failure, after which the targets hold anything. run does not allocate.
 */
#ifndef TROUPE_COMM_MOVE_H
#define TROUPE_COMM_MOVE_H

#include <stddef.h>

#include "comm/comm.h"
#include "comm/route.h"
#include "runtime/device.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_move troupe_move;

struct troupe_moved_tensor {
    /* Bound; tensors of one shape and pair of layouts may share it. */
    const struct troupe_route_binding *binding;
    struct troupe_route_view from; /* what this rank holds; data NULL: nothing */
    struct troupe_route_view to;   /* what it shall hold */
};

struct troupe_move_options {
    troupe_comm *comm;
    troupe_stream *stream; /* of the memory's device */
    const struct troupe_moved_tensor *tensors;
    int count;
    size_t staging_bytes; /* at most, but for a least size a peer; 0: 64 MiB */
};

troupe_status troupe_move_create(const struct troupe_move_options *options, troupe_move **out);
troupe_status troupe_move_run(troupe_move *move);
/* Accepts NULL. */
void troupe_move_destroy(troupe_move *move);

/* Of this rank, all tensors together. */
struct troupe_route_bytes troupe_move_bytes(const troupe_move *move);

#ifdef __cplusplus
}
#endif
#endif
