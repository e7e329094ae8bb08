/* SPDX-License-Identifier: Apache-2.0
 *
 * Collectives of a group in stream order: they read and write device memory, run behind the earlier
 * work of a stream, and later work of that stream sees the result. On a GPU the host does not wait
 * (an event recorded behind the call says when it is done); on a CPU device the call itself runs
 * the collective, like everything in such a stream.
 *
 *     troupe_groups_open_device(comm, device, groups, count, NULL);         (once per placement)
 *     troupe_group_enqueue_all_reduce(dp, lane, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32, x, count);
 *     troupe_event_record(reduced, lane);
 *
 * Engines: `nccl` (GPUs), and `staged`, which carries everything through host memory and the host
 * group while the host waits: the reference, and what remains where NCCL is not built in.
 *
 * Order: all members enqueue the operations of a group in one order, and those of all groups that
 * share ranks too: one lane (stream) per device and purpose. Sums are those of group.h, added in
 * group order and the same bits on every member, unless `any_order` leaves them to NCCL.
 *
 * Ownership: what open_device adds to a group goes with troupe_group_destroy; operands stay the
 * caller's until the stream has passed them. Threads: the rank's communicating thread only.
 * Failure: the endpoint fails as a whole (comm.h): NCCL's failure on any group is one, and on any
 * failure the communicators are aborted, so that streams run dry; their results are then garbage:
 * ask troupe_comm_failure before believing an event. No call but open_device allocates.
 */
#ifndef TROUPE_COMM_GROUP_STREAM_H
#define TROUPE_COMM_GROUP_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "comm/group.h"
#include "runtime/device.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_group_device_options {
    const char *engine; /* "auto" (NULL): nccl where it is built in, else staged; on a CPU none */
    int blocks_max;     /* thread blocks of one communicator, so that all lanes fit; 0: 8 */
    bool any_order;     /* nccl adds in an order of its own: fixed for one set of GPUs and size */
    int64_t timeout_ns; /* for the members to come together; 0: 60 s */
};

/* Gives this rank's groups their device, all in one call. Collective over all ranks of the job,
 * those without groups too. Communicators are made in ascending group id, whatever the order of the
 * list, so no two ranks wait for each other. The list may hold NULL and groups of one, which need
 * none. Ranks that share a GPU tell NCCL that they are different hosts (NCCL_HOSTID). */
troupe_status troupe_groups_open_device(troupe_comm *comm, troupe_device *device,
                                        troupe_group *const *groups, int count,
                                        const struct troupe_group_device_options *options);
/* "nccl 2.28.9", "staged", "host" (a CPU device, or before open_device) */
const char *troupe_group_engine_name(const troupe_group *group);
/* What this build has, for `troupe info`: "nccl 2.28.9", "no nccl: not in this build". */
void troupe_group_engines_summary(char *text, size_t bytes);

/* In place; data: count elements, at most the group's bytes_max. */
troupe_status troupe_group_enqueue_all_reduce(troupe_group *group, troupe_stream *stream,
                                              enum troupe_reduction reduction,
                                              enum troupe_element element, void *data,
                                              int64_t count);
/* data: size blocks of count elements, together at most bytes_max; out: the sum of all members'
 * block `index`. out may be this rank's own block in data. */
troupe_status troupe_group_enqueue_reduce_scatter(troupe_group *group, troupe_stream *stream,
                                                  enum troupe_reduction reduction,
                                                  enum troupe_element element, const void *data,
                                                  int64_t count, void *out);
/* out holds size * bytes, member i's block at i * bytes; this rank's block may be `mine`. */
troupe_status troupe_group_enqueue_all_gather(troupe_group *group, troupe_stream *stream,
                                              const void *mine, size_t bytes, void *out);
troupe_status troupe_group_enqueue_broadcast(troupe_group *group, troupe_stream *stream,
                                             int root_index, void *data, size_t bytes);

/* Sends and receives that run together, so that opposing ones cannot wait for each other. For each
 * pair of members both ends list the same sizes in the same order; none to itself; at most
 * TROUPE_MOVES_MAX of them. On an edge only after both ends have granted it. */
enum { TROUPE_MOVES_MAX = 128 };
struct troupe_move {
    int member; /* the other end */
    bool sends; /* else receives */
    void *data;
    size_t bytes;
};
troupe_status troupe_group_enqueue_exchange(troupe_group *group, troupe_stream *stream,
                                            const struct troupe_move *moves, int count);

#ifdef __cplusplus
}
#endif
#endif
