/* SPDX-License-Identifier: Apache-2.0
 *
 * What the transports share: the endpoint's common part, the table that a backend fills, and the
 * macros that translate foreign errors. `comm_loopback.c` is the template of a backend.
 *
 *     static troupe_status post_send(troupe_comm *comm, struct troupe_transfer *transfer) { ... }
 *     static const struct troupe_comm_backend backend = {.post_send = post_send, ...};
 *     troupe_comm_init(&mine->comm, &backend, rank, size);
 *
 * Ownership: a backend embeds troupe_comm as the first member of its endpoint and frees it in
 * close, after troupe_comm_fini. Threads: the endpoint's thread. Failure: a backend reports through
 * troupe_comm_fail; the common part then ends what is in flight at the next progress.
 */
#ifndef TROUPE_COMM_COMM_INTERNAL_H
#define TROUPE_COMM_COMM_INTERNAL_H

#include "comm/comm.h"
#include "runtime/check.h"
#include "runtime/status.h"

enum {
    TROUPE_CONTROL_MESSAGES_DEFAULT = 8192,
    TROUPE_PARK_NS_MAX = 1000000,   /* idle's bound */
    TROUPE_PARK_NS_LONG = 50000000, /* wait's bound */
    TROUPE_TAG_NAMESPACE_SHIFT = 60,
    TROUPE_TAG_GROUP = 1,   /* top four bits of a group's tags */
    TROUPE_TAG_CONTROL = 2, /* and of a backend's own messages */
};

/* All slots are called by the endpoint's thread and filled by every backend; none blocks except
 * park and close. */
struct troupe_comm_backend {
    /* The transfer is valid and marked in flight. The backend ends it with troupe_comm_complete,
     * from progress only. */
    troupe_status (*post_send)(troupe_comm *comm, struct troupe_transfer *transfer);
    troupe_status (*post_receive)(troupe_comm *comm, struct troupe_transfer *transfer);
    /* There is room for the message. */
    troupe_status (*send_control)(troupe_comm *comm, int to, const void *message, size_t bytes);
    int (*control_room)(troupe_comm *comm);
    /* Advances everything; completions are counted by troupe_comm_complete and _deliver. */
    void (*progress)(troupe_comm *comm);
    /* Sleeps until something arrives, at most timeout_ns. */
    void (*park)(troupe_comm *comm, int64_t timeout_ns);
    /* Whether whatever another rank does for this one ends park. */
    bool (*wakes)(troupe_comm *comm);
    /* Tells the other ranks, as well as it can, that this one gives up. */
    void (*announce_abort)(troupe_comm *comm, const char *why);
    /* The endpoint has failed: afterwards nobody touches the memory of a transfer in flight. */
    void (*withdraw)(troupe_comm *comm);
    void (*close)(troupe_comm *comm);
    /* How groups exchange data over this transport. */
    const struct troupe_group_engine *group_engine;
};

/* What progress looks after besides the transport; embedded in its owner. */
struct troupe_comm_poller {
    struct troupe_comm_poller *next;
    /* From progress; may end the endpoint with troupe_comm_fail. */
    void (*poll)(struct troupe_comm_poller *poller);
    /* The endpoint has failed: let go of everything that still waits for other ranks. Once. */
    void (*withdraw)(struct troupe_comm_poller *poller);
};

struct troupe_comm {
    const struct troupe_comm_backend *backend;
    int rank, size;
    int *hosts; /* of each rank */
    char name[48];

    troupe_control_handler handler;
    void *handler_arg;
    troupe_comm_watch watch;
    void *watch_arg;
    int64_t patience_ns; /* with a rank that has stopped; <= 0: no end */

    struct troupe_transfer *in_flight; /* doubly linked through struct in_flight_links */
    struct troupe_transfer *gated;     /* those of them that wait for an event, oldest first */
    struct troupe_comm_poller *pollers;
    uint64_t bytes_sent;
    int events;        /* completions during this progress */
    bool in_progress;  /* a callback must not call progress */
    bool active;       /* something completed, or a wait began, since idle looked last */
    int64_t active_ns; /* when idle saw that */
    int64_t spin_ns;
    int control_messages_max;

    troupe_status failure; /* sticky */
    bool failed_in_flight; /* what was in flight has been ended */
    bool ends_job;         /* this rank aborts, the others are told */
    bool spoken_for;       /* it does, and so does another, which says why */
    char failure_text[512];
};

troupe_status troupe_comm_init(troupe_comm *comm, const struct troupe_comm_backend *backend,
                               int rank, int size);
/* Sets spin_ns and control_messages_max, 0 meaning default; wants the hosts filled. */
void troupe_comm_set_limits(troupe_comm *comm, int64_t spin_ns, int control_messages_max);
void troupe_comm_fini(troupe_comm *comm);

/* Ends a transfer: status, then done. From progress. */
void troupe_comm_complete(troupe_comm *comm, struct troupe_transfer *transfer,
                          troupe_status status);
/* The contract error of a receive that got another size. */
troupe_status troupe_comm_wrong_size(const troupe_comm *comm,
                                     const struct troupe_transfer *transfer, size_t arrived);
/* Hands a control message to the handler. From progress. */
void troupe_comm_deliver(troupe_comm *comm, int from, const void *message, size_t bytes);
/* Makes the endpoint fail for good; the first failure stays. Returns it. */
troupe_status troupe_comm_fail(troupe_comm *comm, troupe_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The transfer is valid, and in flight from here on. */
troupe_status troupe_comm_begin(troupe_comm *comm, struct troupe_transfer *transfer);
/* Posts the gated transfers whose event is complete. From progress. */
void troupe_comm_poll_gated(troupe_comm *comm);

/* Neither from a poller. */
void troupe_comm_add_poller(troupe_comm *comm, struct troupe_comm_poller *poller);
void troupe_comm_remove_poller(troupe_comm *comm, struct troupe_comm_poller *poller);

size_t troupe_transfer_bytes(const struct troupe_transfer *transfer);
/* Copies the segments of a send into those of a receive of the same size. */
void troupe_transfer_copy(const struct troupe_transfer *from, struct troupe_transfer *to);
/* The part of a transfer that a backend may use: 80 bytes. */
static inline void *troupe_transfer_scratch(struct troupe_transfer *transfer) {
    return &transfer->scratch[2];
}
enum { TROUPE_TRANSFER_SCRATCH_BYTES = 80 };
/* The one after it in comm->in_flight, or NULL. */
struct troupe_transfer *troupe_transfer_next(struct troupe_transfer *transfer);

#endif
