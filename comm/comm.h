/* SPDX-License-Identifier: Apache-2.0
 *
 * One rank's endpoint: point-to-point transfers matched by (peer, tag), a control lane of small
 * messages, and one `progress` that advances everything. Backends: loopback (ranks are threads of
 * one process, with seeded delay and reordering), libfabric (tcp, shm), MPI.
 *
 *     struct troupe_transfer t = {.peer = 3, .tag = tag, .segments = {{x, bytes}},
 *                                 .segment_count = 1};
 *     troupe_comm_post_send(comm, &t);
 *     while (t.status == TROUPE_AGAIN) { troupe_comm_progress(comm); troupe_comm_idle(comm); }
 *
 * Ownership: a posted transfer and its memory belong to the endpoint until status leaves
 * TROUPE_AGAIN (then `done` has been called, if set). Control messages are copied.
 * Threads: one thread per endpoint makes all calls (MPI_THREAD_FUNNELED).
 * Failure: a lost peer or a transport error is sticky: every later call and every transfer in
 * flight ends with it, and troupe_last_error names the rank. Nothing here blocks but idle and wait,
 * which are bounded. No call but open/connect allocates.
 */
#ifndef TROUPE_COMM_COMM_H
#define TROUPE_COMM_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/device.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_comm troupe_comm;

enum { TROUPE_SEGMENTS_MAX = 2, TROUPE_CONTROL_BYTES_MAX = 256 };

struct troupe_segment {
    void *data;
    size_t bytes;
};

/* A send or receive: the caller fills the first part. Segments are sent (received) back to back.
 * A receive needs the exact size: a shorter or longer message ends it with TROUPE_ERROR_CONTRACT
 * (the send and the endpoint go on). Messages of one (peer, tag) arrive in the order they were
 * posted; others may overtake. A send may wait for its receive to be posted (rendezvous). */
struct troupe_transfer {
    int peer;
    uint64_t tag; /* the caller's; the top 4 bits are kept for the groups */
    struct troupe_segment segments[TROUPE_SEGMENTS_MAX];
    int segment_count;
    void (*done)(struct troupe_transfer *transfer); /* from progress; may post and send control */
    void *arg;
    troupe_status status; /* AGAIN while in flight */
    void *link;           /* the endpoint's */
    uint64_t scratch[12]; /* the endpoint's */
};

/* From progress, for each control message, in order per sender. May send control and post. */
typedef void (*troupe_control_handler)(void *arg, int from, const void *message, size_t bytes);

int troupe_comm_rank(const troupe_comm *comm);
int troupe_comm_size(const troupe_comm *comm);
/* Ranks with equal host index share a machine (TROUPE_HOST_ID overrides). */
int troupe_comm_host(const troupe_comm *comm, int rank);
/* This rank among those of its host, from 0: ranks take the host's GPUs in turn. */
int troupe_comm_host_index(const troupe_comm *comm);
/* "loopback", "libfabric tcp;ofi_rxm", "mpi" */
const char *troupe_comm_name(const troupe_comm *comm);

/* From idle, while this rank waits for something, wherever that is: `quiet_ns` since the latest
 * completion or the beginning of the wait. May do what idle's caller may, progress included. */
typedef void (*troupe_comm_watch)(void *arg, uint64_t quiet_ns);

void troupe_comm_set_control_handler(troupe_comm *comm, troupe_control_handler handler, void *arg);
/* NULL: none. */
void troupe_comm_set_watch(troupe_comm *comm, troupe_comm_watch watch, void *arg);
/* How long the transport itself may be kept waiting by a rank that lives but has stopped, before
 * the endpoint fails; <= 0 (the start value): for ever. Only where ranks share locks. */
void troupe_comm_set_patience(troupe_comm *comm, int64_t patience_ns);
troupe_status troupe_comm_post_send(troupe_comm *comm, struct troupe_transfer *transfer);
troupe_status troupe_comm_post_receive(troupe_comm *comm, struct troupe_transfer *transfer);
/* Posts when the event is complete, which progress looks at: how pinned memory that a device reads
 * or writes is sent or received without the host waiting. In flight from here on; the event is not
 * recorded again until the transfer is over. Those of one (peer, tag) and direction keep their
 * order among themselves; others overtake. A failure of the device fails the endpoint. */
troupe_status troupe_comm_post_send_after(troupe_comm *comm, troupe_event *event,
                                          struct troupe_transfer *transfer);
troupe_status troupe_comm_post_receive_after(troupe_comm *comm, troupe_event *event,
                                             struct troupe_transfer *transfer);
/* Reliable, never dropped, ordered per pair of ranks; to itself too (delivered by progress).
 * Messages under way occupy the endpoint's fixed pool (control_messages_max in the options). The
 * plan bounds them; more than that is a programmer error, and who sends floods asks for room. */
troupe_status troupe_comm_send_control(troupe_comm *comm, int to, const void *message,
                                       size_t bytes);
/* How many control messages the pool takes at this moment; progress makes room. */
int troupe_comm_control_room(troupe_comm *comm);
/* Advances sends, receives, collectives and control; returns how many things completed. */
int troupe_comm_progress(troupe_comm *comm);
/* Called when progress returned 0 and there is nothing to run: spins for a budget since the last
 * completion, then yields, then parks until something arrives or at most 1 ms. */
void troupe_comm_idle(troupe_comm *comm);
/* The same for one who waits for nothing but messages of other ranks: parks for up to 50 ms where
 * each of them would wake it. */
void troupe_comm_wait(troupe_comm *comm);
/* OK, or the sticky failure. */
troupe_status troupe_comm_failure(const troupe_comm *comm);
/* Tells every rank that this one gives up and why: this one fails with TROUPE_ERROR_ABORTED and
 * that sentence, the others with "rank 2 ended the job: " in front of it. */
void troupe_comm_abort(troupe_comm *comm, const char *why);
/* This rank has aborted, but another did so before, or a lower one at the same time: it says why.
 */
bool troupe_comm_is_spoken_for(const troupe_comm *comm);
/* Payload bytes sent to other ranks so far, control excluded. */
uint64_t troupe_comm_bytes_sent(const troupe_comm *comm);

/* Opening. Loopback: one world object, then one endpoint per rank thread. Processes: collective
 * over all ranks of the job started by mpirun or srun; a process without a launcher is rank 0 of 1.
 */
struct troupe_loopback_options {
    int ranks;
    uint64_t seed;            /* of delays and reorderings */
    int64_t delay_ns_max;     /* 0: no delay; else each message is held a seeded time up to this */
    int host_ranks;           /* the first so many are on one host, the next on another; 0: all */
    int control_messages_max; /* under way from one endpoint; 0: 8192 */
    int64_t spin_ns;          /* idle spins so long, then yields, then parks; 0: 5 us, or none when
                                 ranks outnumber cores */
};
typedef struct troupe_loopback troupe_loopback;
troupe_status troupe_loopback_create(const struct troupe_loopback_options *options,
                                     troupe_loopback **out);
void troupe_loopback_destroy(troupe_loopback *world);
troupe_status troupe_comm_open_loopback(troupe_loopback *world, int rank, troupe_comm **out);

struct troupe_comm_options {
    const char *provider; /* "auto" (NULL), "shm", "tcp", "mpi"; see comm.provider in the config */
    int control_messages_max; /* under way from this endpoint; 0: 8192 */
    int64_t spin_ns;          /* as in troupe_loopback_options */
};
/* Initialises MPI at the first call. */
troupe_status troupe_comm_open(const struct troupe_comm_options *options, troupe_comm **out);
/* Instead of open, for a process that cannot take part: the job ends, the others' open fails with
 * TROUPE_ERROR_ABORTED. True if this rank is the one to say why: the lowest of those that refuse.
 */
bool troupe_comm_refuse(const char *why);
/* Collective where the backend needs it; ends MPI for the last process endpoint. */
void troupe_comm_close(troupe_comm *comm);

#ifdef __cplusplus
}
#endif
#endif
