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
#include "comm/group_stream.h"

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

/* What all ranks of a job know about their devices before the first communicator is made. */
struct troupe_group_devices {
    troupe_device *device;
    troupe_stream *stream; /* for trials; its work is done when open returns */
    struct troupe_group_device_options options;
    bool shared;  /* two ranks of the job have one GPU */
    int before;   /* ranks below this one that have its GPU */
    bool threads; /* two ranks of one process have one GPU */
};

/* How collectives run in stream order (group_stream.h, which has checked the arguments: more than
 * one member, more than zero bytes). Slots but open and close enqueue, or wait if they must. */
struct troupe_group_stream_engine {
    const char *name;
    /* Whether it can serve; the sentence says why not. */
    troupe_status (*check)(const struct troupe_group_devices *devices);
    /* Once per process before its first open, on all ranks of the job. */
    troupe_status (*prepare)(troupe_comm *comm, const struct troupe_group_devices *devices);
    troupe_status (*open)(troupe_group *group, const struct troupe_group_devices *devices);
    troupe_status (*all_reduce)(troupe_group *group, troupe_stream *stream,
                                enum troupe_reduction reduction, enum troupe_element element,
                                void *data, int64_t count);
    troupe_status (*reduce_scatter)(troupe_group *group, troupe_stream *stream,
                                    enum troupe_reduction reduction, enum troupe_element element,
                                    const void *data, int64_t count, void *out);
    troupe_status (*all_gather)(troupe_group *group, troupe_stream *stream, const void *mine,
                                size_t bytes, void *out);
    troupe_status (*broadcast)(troupe_group *group, troupe_stream *stream, int root_index,
                               void *data, size_t bytes);
    troupe_status (*exchange)(troupe_group *group, troupe_stream *stream,
                              const struct troupe_move *moves, int count);
    void (*close)(troupe_group *group);
};

struct troupe_group {
    troupe_comm *comm;
    const struct troupe_group_engine *engine;
    int *ranks;
    int count, index;
    uint32_t id;
    size_t bytes_max;
    struct troupe_group_slot slots[TROUPE_GROUP_SLOTS];
    const struct troupe_group_stream_engine *stream_engine;
    void *stream_state; /* the stream engine's */
    uint64_t started;   /* operations that got a slot; operation k runs in slot k % slots */
    struct troupe_collective *waiting_head, *waiting_tail;
    troupe_status failure;
};

size_t troupe_element_bytes(enum troupe_element element);
/* Of an operand of `count` elements, member i owns [piece_at(i), piece_at(i + 1)). */
size_t troupe_group_piece_at(const troupe_group *group, size_t count, int i);

/* The engine's word that the exchange of a slot is over. From progress. */
void troupe_group_exchanged(struct troupe_group_slot *slot, troupe_status status);

/* Point-to-point messages of the endpoint; works on every transport. */
extern const struct troupe_group_engine troupe_group_engine_direct;
/* MPI_Ialltoallv and MPI_Iallgatherv; of the MPI transport. */
extern const struct troupe_group_engine troupe_group_engine_mpi;

/* The device is the CPU: the collectives of group.h. */
extern const struct troupe_group_stream_engine troupe_group_stream_engine_host;
/* Any device; through pinned host memory. */
extern const struct troupe_group_stream_engine troupe_group_stream_engine_staged;
extern const struct troupe_group_stream_engine troupe_group_stream_engine_nccl;

/* Into the order in which communicators are made: ascending id; NULL and groups of one are dropped.
 * Returns how many are left. */
int troupe_groups_order(troupe_group **groups, int count);

/* Moves host memory between members as group_stream.h says of an exchange; waits. */
troupe_status troupe_group_exchange(troupe_group *group, const struct troupe_move *moves,
                                    int count);

#endif
