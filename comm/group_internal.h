/* SPDX-License-Identifier: Apache-2.0
 *
 * A group's insides: slots in which collectives run, and the one primitive that a transport gives,
 * the exchange. Everything else (pieces, ordered sums, order of operations) is group.c's and the
 * same on every transport; so the results are, too.
 *
 * Ownership: a slot's arrays are the group's; the engine keeps its own state in slot->engine.
 * Threads: the communicating thread. Failure: an exchange that fails passes its status to
 * troupe_group_exchanged.
 */
#ifndef TROUPE_COMM_GROUP_INTERNAL_H
#define TROUPE_COMM_GROUP_INTERNAL_H

#include "comm/comm_internal.h"
#include "comm/group.h"

enum { TROUPE_GROUP_SLOTS = 2 };

/* Member i's parts of what goes out and what comes in. An exchange either scatters (each member
 * gets its own part of `send`) or gathers (each gets the whole of this member's one part; then
 * send_at and send_bytes are the same for all i). This rank's own part is not moved. Zero bytes
 * send no message. */
struct troupe_exchange {
    bool gather;
    char *send, *receive;
    size_t *send_at, *send_bytes;       /* per member */
    size_t *receive_at, *receive_bytes; /* per member */
};

struct troupe_group_slot {
    troupe_group *group;
    struct troupe_exchange exchange;
    void *engine;
    char *staging;                       /* what arrives before it is summed */
    uint64_t sequence;                   /* number of the exchange, the same on every member */
    struct troupe_collective *operation; /* NULL: free */
    int phase;
};

struct troupe_group_engine {
    troupe_status (*open)(troupe_group *group, struct troupe_group_slot *slot);
    /* Starts slot->exchange; troupe_group_exchanged follows from progress. */
    void (*start)(struct troupe_group_slot *slot);
    void (*close)(struct troupe_group_slot *slot);
};

struct troupe_group {
    troupe_comm *comm;
    const struct troupe_group_engine *engine;
    int *ranks;
    int count, index;
    uint32_t id;
    size_t bytes_max;
    struct troupe_group_slot slots[TROUPE_GROUP_SLOTS];
    uint64_t started; /* operations that got a slot; operation k runs in slot k % slots */
    struct troupe_collective *waiting_head, *waiting_tail;
    troupe_status failure;
};

/* The engine's word that the exchange of a slot is over. From progress. */
void troupe_group_exchanged(struct troupe_group_slot *slot, troupe_status status);

/* Point-to-point messages of the endpoint; works on every transport. */
extern const struct troupe_group_engine troupe_group_engine_direct;
/* MPI_Ialltoallv and MPI_Iallgatherv; of the MPI transport. */
extern const struct troupe_group_engine troupe_group_engine_mpi;

#endif
