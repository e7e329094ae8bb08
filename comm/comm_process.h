/* SPDX-License-Identifier: Apache-2.0
 *
 * What endpoints between processes share, whatever carries their bytes:
 *
 *   lane    control messages in order, bounded by credits: a rank sends at most LANE_WINDOW frames
 *           that the other has not handled yet, so pre-posted buffers always suffice and none drops
 *   watch   the death of a rank (comm/watch.h), which is told to all others
 *   bells   shared memory per rank of this host: a word on which it sleeps and others wake it, and
 *           a notice of why it ends
 *
 * A rank that ends because of another must not be taken for the dead one. So before it closes
 * anything it pins its notice up for the ranks of its host and sends it to all: on every connection
 * the reason precedes the end. Who sees an end looks at the notices of its host, which settles it
 * for a rank of this host; before it names a rank of another host it listens for a while.
 *
 *     sender:    troupe_lane_send -> carrier->transmit(frame) ... troupe_lane_sent(frame)
 *     receiver:  troupe_lane_received(frame), then the buffer is posted again
 *
 * Ownership: frames belong to the endpoint. Threads: the endpoint's.
 * Failure: carrier->transmit returns AGAIN (asked again at the next progress) or reports a lost
 * rank; the first failure is told to all others.
 */
#ifndef TROUPE_COMM_COMM_PROCESS_H
#define TROUPE_COMM_COMM_PROCESS_H

#include "comm/bootstrap.h"
#include "comm/group_internal.h"
#include "comm/watch.h"

enum {
    TROUPE_LANE_WINDOW = 32,
    /* Frames from one rank that may be under way: the window, two of returned credits (each stands
     * for at least half a window), one notice of failure. */
    TROUPE_LANE_BUFFERS_PER_RANK = TROUPE_LANE_WINDOW + 3,
};

/* Begins every asynchronous operation; lies in a transfer's scratch or in a frame. */
struct __attribute__((may_alias)) troupe_operation {
    uint64_t context[8]; /* the carrier's: struct fi_context2, MPI_Request */
    struct troupe_operation *next;
    enum troupe_operation_kind {
        TROUPE_OPERATION_SEND,
        TROUPE_OPERATION_RECEIVE,
        TROUPE_OPERATION_FRAME_OUT,
        TROUPE_OPERATION_FRAME_IN,
    } kind;
};
_Static_assert(sizeof(struct troupe_operation) <= TROUPE_TRANSFER_SCRATCH_BYTES,
               "fits the scratch");

struct troupe_operation_list {
    struct troupe_operation *head, *tail;
};

static inline struct troupe_transfer *
troupe_operation_transfer(struct troupe_operation *operation) {
    return (struct troupe_transfer *)((char *)operation -
                                      offsetof(struct troupe_transfer, scratch[2]));
}

enum troupe_frame_kind {
    TROUPE_FRAME_MESSAGE,
    TROUPE_FRAME_CREDIT,
    TROUPE_FRAME_FAILURE,
    TROUPE_FRAME_ANNOUNCE
};

/* On the wire up to `data + bytes`. */
struct troupe_frame_wire {
    int32_t from;
    uint16_t kind;
    uint16_t bytes;
    uint32_t credits; /* frames of the other side handled since the last */
    uint32_t unused;
    unsigned char data[TROUPE_CONTROL_BYTES_MAX];
};

struct troupe_frame {
    struct troupe_operation operation;
    int to;
    bool busy; /* handed to the carrier; for the frames that are not from the pool */
    struct troupe_frame_wire wire;
};

typedef struct troupe_process troupe_process;

struct troupe_carrier {
    /* Starts sending a frame; AGAIN: not now. */
    troupe_status (*transmit)(troupe_process *process, struct troupe_frame *frame);
    /* A TROUPE_FRAME_ANNOUNCE arrived: the carrier's own kind of message. */
    void (*announced)(troupe_process *process, int from, const void *data, size_t bytes);
    /* One look at the network. */
    void (*poll)(troupe_process *process);
    /* Every rank that hands something to the network rings, and this rank has nothing to send that
     * needs its polls. */
    bool (*rings)(troupe_process *process);
};

/* Per rank. */
struct troupe_lane {
    struct troupe_operation_list queue; /* frames not yet handed to the carrier */
    int credits;                        /* frames that the other side still takes */
    int owed;                           /* frames handled and not yet told */
    bool told;                          /* failure_frame was handed to the carrier */
    bool answered;                      /* the rank has sent its own */
    struct troupe_frame credit_frame, failure_frame;
};

/* Why a rank ends: what a TROUPE_FRAME_FAILURE carries and a rank pins up. */
struct troupe_notice {
    int32_t status;
    int32_t origin; /* the rank that found it out */
    int32_t lost;   /* the rank that is no more; -1: none */
    char text[TROUPE_CONTROL_BYTES_MAX - 12];
};

struct troupe_bell;

struct troupe_process {
    troupe_comm comm; /* first: an endpoint is a process is a carrier's endpoint */
    const struct troupe_carrier *carrier;
    struct troupe_bootstrap bootstrap;

    struct troupe_lane *lanes; /* by rank */
    struct troupe_frame *frames;
    struct troupe_operation_list frames_free;
    int frames_free_count;
    int queued; /* frames in all the queues */

    struct troupe_bell *bells; /* by rank, shared by the ranks of this host; NULL: alone here */
    size_t bells_bytes;

    struct troupe_watch watch;
    int64_t watched_ns; /* when it was looked at */
    unsigned polls;

    struct troupe_notice notice; /* of the failure; origin -1: not made yet */
    bool said_farewell;
    /* A rank of another host that seems to be gone, if nobody says why it ended; -1: none. */
    int suspect;
    int64_t suspected_ns;
    char suspected_how[64];
};

/* Takes over *bootstrap. Collective. */
troupe_status troupe_process_init(troupe_process *process, const struct troupe_carrier *carrier,
                                  const struct troupe_comm_backend *backend,
                                  const struct troupe_comm_options *options,
                                  struct troupe_bootstrap *bootstrap);
/* Sends one empty frame to every rank and waits until all have done so: afterwards every pair of
 * ranks is connected. Collective, at the end of opening. */
troupe_status troupe_process_greet(troupe_process *process);
/* Before the end: waits for the other ranks, polling the carrier; not for long if the endpoint has
 * failed. False: not all have come. */
bool troupe_process_meet(troupe_process *process);
void troupe_process_fini(troupe_process *process);

bool troupe_lane_has_room(const troupe_process *process);
void troupe_lane_send(troupe_process *process, int to, enum troupe_frame_kind kind,
                      const void *data, size_t bytes);
void troupe_lane_sent(troupe_process *process, struct troupe_frame *frame);
void troupe_lane_received(troupe_process *process, const struct troupe_frame_wire *wire);

/* Wakes a rank that sleeps in troupe_process_park; after anything was handed to the network. */
void troupe_process_ring(troupe_process *process, int rank);

/* Rank `peer` is gone: fails this endpoint, now or when nobody has explained it in time. */
void troupe_process_lost(troupe_process *process, int peer, const char *how);
/* Says to all others why the endpoint has failed, before anything of it is closed; once, and only
 * if it has. Blocks for a short time. */
void troupe_process_farewell(troupe_process *process);

/* For comm/spin_lock.h: another rank's lock will not be released, since its process has ended or
 * the job ends, or since a rank has stopped for longer than this one's patience; that fails this
 * endpoint. process: the endpoint. */
bool troupe_process_gives_up(void *process, int64_t waited_ns);

/* Slots for the carriers' backends. */
troupe_status troupe_process_send_control(troupe_comm *comm, int to, const void *message,
                                          size_t bytes);
int troupe_process_control_room(troupe_comm *comm);
void troupe_process_progress(troupe_comm *comm);
void troupe_process_park(troupe_comm *comm, int64_t timeout_ns);
bool troupe_process_wakes(troupe_comm *comm);
void troupe_process_announce_abort(troupe_comm *comm, const char *why);

void troupe_operation_append(struct troupe_operation_list *list,
                             struct troupe_operation *operation);
struct troupe_operation *troupe_operation_take(struct troupe_operation_list *list);

/* A kind of transport between processes. */
struct troupe_comm_opener {
    const char *provider;
    bool one_host_only;
    /* Takes over *bootstrap on success. */
    troupe_status (*open)(const struct troupe_comm_options *options,
                          struct troupe_bootstrap *bootstrap, troupe_comm **out);
};
extern const struct troupe_comm_opener troupe_comm_opener_shm, troupe_comm_opener_tcp,
    troupe_comm_opener_mpi;

/* Rank 0 of 1: a loopback world that the endpoint owns. */
troupe_status troupe_comm_open_alone(const struct troupe_comm_options *options, troupe_comm **out);

#endif
