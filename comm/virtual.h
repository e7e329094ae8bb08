/* SPDX-License-Identifier: Apache-2.0
 *
 * Ranks in virtual time: threads of one process whose messages and modelled tasks take the time
 * that a model says, not the time that passes. One rank runs at a time. When it waits, the next
 * event of all ranks is taken, the clock jumps there, and the rank concerned runs on: so the clock
 * only moves when all ranks are quiet. With this transport the real runtime runs a job in simulated
 * time, deterministically: events happen in the order of (time, rank, kind, sender, number at the
 * sender).
 *
 *     troupe_virtual_create(&(struct troupe_virtual_options){.ranks = 32, .control_ns = 1000,
 *                           .transfer_ns = link_model, .arg = links}, &world);
 *     troupe_comm_open_virtual(world, rank, &comm);          (in each rank's thread; waits for all)
 *     troupe_virtual_align(comm);                            (all ranks go on at the same time)
 *     troupe_virtual_compute(comm, gang, members, ns);       (in a method: instead of its kernels)
 *
 * Collectives of groups begin when their last member has posted and the lanes of all are free, one
 * after the other on each rank, and take what collective_ns says; data are really exchanged.
 *
 * Ownership: the world outlives its endpoints, which are closed by troupe_comm_close.
 * Threads: an endpoint belongs to its rank's thread, which runs only while it is its turn; a rank
 * that waits elsewhere than in idle stops all. Failure: as in comm.h; where nothing is left to
 * happen ranks wait in real time, and the runtime's deadline ends that.
 */
#ifndef TROUPE_COMM_VIRTUAL_H
#define TROUPE_COMM_VIRTUAL_H

#include <stdint.h>

#include "comm/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_virtual troupe_virtual;

struct troupe_virtual_options {
    int ranks;
    int keys;           /* of compute: 0 .. keys - 1 */
    int64_t control_ns; /* a control message to another rank; >= 1 */
    /* When a transfer that both sides have posted at `now_ns` is there, > now_ns between different
     * ranks; `bytes` is all that travels. Called in the order of time. */
    int64_t (*transfer_ns)(void *arg, int64_t now_ns, int from, int to, int64_t bytes);
    /* How long a collective of the group takes that begins at begin_ns; >= 1. NULL: 1. */
    int64_t (*collective_ns)(void *arg, uint32_t group, int64_t begin_ns);
    void *arg;
};

troupe_status troupe_virtual_create(const struct troupe_virtual_options *options,
                                    troupe_virtual **out);
void troupe_virtual_destroy(troupe_virtual *world);
/* Returns when all ranks have been opened and it is this one's turn. */
troupe_status troupe_comm_open_virtual(troupe_virtual *world, int rank, troupe_comm **out);

/* The virtual clock; any endpoint of the world. */
int64_t troupe_virtual_now(const troupe_comm *comm);
/* Waits until all `members` ranks have called with this key, then for `ns` (of the last to call, >=
 * 1); meanwhile drives progress. *begin_ns_out: when the last came. */
troupe_status troupe_virtual_compute(troupe_comm *comm, int key, int members, int64_t ns,
                                     int64_t *begin_ns_out);
/* Waits until all ranks have called. */
troupe_status troupe_virtual_align(troupe_comm *comm);

#ifdef __cplusplus
}
#endif
#endif
