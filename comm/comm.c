/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/comm_internal.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime/clock.h"
#include "runtime/eventcount.h"
#include "runtime/log.h"
#include "runtime/memory.h"

enum {
    SPIN_NS_DEFAULT = 5000,
    YIELD_NS = 300000, /* after the spin budget, before parking */
};

/* The common part's share of a transfer's scratch. */
struct __attribute__((may_alias)) in_flight_links {
    struct troupe_transfer *next, *previous;
};

static struct in_flight_links *links(struct troupe_transfer *transfer) {
    return (struct in_flight_links *)transfer->scratch;
}

static void link_in_flight(troupe_comm *comm, struct troupe_transfer *transfer) {
    links(transfer)->next = comm->in_flight;
    links(transfer)->previous = NULL;
    if (comm->in_flight != NULL) {
        links(comm->in_flight)->previous = transfer;
    }
    comm->in_flight = transfer;
}

static void unlink_in_flight(troupe_comm *comm, struct troupe_transfer *transfer) {
    struct in_flight_links *own = links(transfer);
    if (own->previous != NULL) {
        links(own->previous)->next = own->next;
    } else {
        comm->in_flight = own->next;
    }
    if (own->next != NULL) {
        links(own->next)->previous = own->previous;
    }
}

static troupe_status report_failure(const troupe_comm *comm) {
    return troupe_fail(comm->failure, "%s", comm->failure_text);
}

/* Ends every transfer in flight with the failure. */
static void fail_in_flight(troupe_comm *comm) {
    comm->failed_in_flight = true;
    for (struct troupe_comm_poller *p = comm->pollers; p != NULL; p = p->next) {
        p->withdraw(p);
    }
    while (comm->gated != NULL) { /* the backend does not know these */
        struct troupe_transfer *transfer = comm->gated;
        comm->gated = transfer->link;
        report_failure(comm);
        troupe_comm_complete(comm, transfer, comm->failure);
    }
    comm->backend->withdraw(comm);
    while (comm->in_flight != NULL) {
        report_failure(comm);
        troupe_comm_complete(comm, comm->in_flight, comm->failure);
    }
}

static void check_transfer(const troupe_comm *comm, const struct troupe_transfer *transfer) {
    TROUPE_ASSERT(transfer->peer >= 0 && transfer->peer < comm->size, "peer %d of %d ranks",
                  transfer->peer, comm->size);
    TROUPE_ASSERT(transfer->segment_count >= 0 && transfer->segment_count <= TROUPE_SEGMENTS_MAX,
                  "%d segments, at most %d", transfer->segment_count, TROUPE_SEGMENTS_MAX);
    TROUPE_ASSERT(transfer->tag >> TROUPE_TAG_NAMESPACE_SHIFT <= TROUPE_TAG_GROUP,
                  "tag 0x%016llx uses the reserved top four bits",
                  (unsigned long long)transfer->tag);
}

static int cores_available(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

static int ranks_on_this_host(const troupe_comm *comm) {
    int count = 0;
    for (int r = 0; r < comm->size; r++) {
        count += comm->hosts[r] == comm->hosts[comm->rank];
    }
    return count;
}

int troupe_comm_rank(const troupe_comm *comm) {
    return comm->rank;
}

int troupe_comm_size(const troupe_comm *comm) {
    return comm->size;
}

int troupe_comm_host(const troupe_comm *comm, int rank) {
    TROUPE_ASSERT(rank >= 0 && rank < comm->size, "rank %d of %d", rank, comm->size);
    return comm->hosts[rank];
}

int troupe_comm_host_index(const troupe_comm *comm) {
    int index = 0;
    for (int r = 0; r < comm->rank; r++) {
        index += comm->hosts[r] == comm->hosts[comm->rank];
    }
    return index;
}

const char *troupe_comm_name(const troupe_comm *comm) {
    return comm->name;
}

void troupe_comm_set_control_handler(troupe_comm *comm, troupe_control_handler handler, void *arg) {
    comm->handler = handler;
    comm->handler_arg = arg;
}

void troupe_comm_set_watch(troupe_comm *comm, troupe_comm_watch watch, void *arg) {
    comm->watch = watch;
    comm->watch_arg = arg;
}

void troupe_comm_set_patience(troupe_comm *comm, int64_t patience_ns) {
    comm->patience_ns = patience_ns;
}

/* A post that fails in the transport ends at the next progress. */
troupe_status troupe_comm_begin(troupe_comm *comm, struct troupe_transfer *transfer) {
    check_transfer(comm, transfer);
    if (comm->failure != TROUPE_OK) {
        transfer->status = comm->failure;
        return report_failure(comm);
    }
    transfer->status = TROUPE_AGAIN;
    link_in_flight(comm, transfer);
    return TROUPE_OK;
}

troupe_status troupe_comm_post_send(troupe_comm *comm, struct troupe_transfer *transfer) {
    TROUPE_TRY(troupe_comm_begin(comm, transfer));
    if (transfer->peer != comm->rank) {
        comm->bytes_sent += troupe_transfer_bytes(transfer);
    }
    comm->backend->post_send(comm, transfer);
    return TROUPE_OK;
}

troupe_status troupe_comm_post_receive(troupe_comm *comm, struct troupe_transfer *transfer) {
    TROUPE_TRY(troupe_comm_begin(comm, transfer));
    comm->backend->post_receive(comm, transfer);
    return TROUPE_OK;
}

troupe_status troupe_comm_send_control(troupe_comm *comm, int to, const void *message,
                                       size_t bytes) {
    TROUPE_ASSERT(to >= 0 && to < comm->size, "control message to rank %d of %d", to, comm->size);
    TROUPE_ASSERT(bytes <= TROUPE_CONTROL_BYTES_MAX, "control message of %zu bytes, at most %d",
                  bytes, TROUPE_CONTROL_BYTES_MAX);
    if (comm->failure != TROUPE_OK) {
        return report_failure(comm);
    }
    TROUPE_ASSERT(comm->backend->control_room(comm) > 0,
                  "rank %d has %d control messages under way; raise control_messages_max or ask "
                  "troupe_comm_control_room first",
                  comm->rank, comm->control_messages_max);
    return comm->backend->send_control(comm, to, message, bytes);
}

int troupe_comm_control_room(troupe_comm *comm) {
    return comm->backend->control_room(comm);
}

int troupe_comm_progress(troupe_comm *comm) {
    TROUPE_ASSERT(!comm->in_progress, "rank %d calls progress from a callback", comm->rank);
    comm->in_progress = true;
    comm->events = 0;
    if (comm->failure == TROUPE_OK) {
        comm->backend->progress(comm);
        troupe_comm_poll_gated(comm);
        for (struct troupe_comm_poller *p = comm->pollers; p != NULL; p = p->next) {
            p->poll(p);
        }
    }
    if (comm->failure != TROUPE_OK && !comm->failed_in_flight) {
        fail_in_flight(comm);
    }
    comm->in_progress = false;
    comm->active |= comm->events > 0;
    return comm->events;
}

static void idle(troupe_comm *comm, bool wakes_long) {
    int64_t now = (int64_t)troupe_clock_ns();
    if (comm->active) {
        comm->active = false;
        comm->active_ns = now;
    }
    int64_t quiet_ns = now - comm->active_ns;
    if (quiet_ns < comm->spin_ns) {
        troupe_cpu_relax();
    } else if (quiet_ns < comm->spin_ns + YIELD_NS || comm->gated != NULL) {
        sched_yield(); /* no bell rings for an event */
    } else {
        bool polls = !wakes_long || comm->pollers != NULL || !comm->backend->wakes(comm);
        comm->backend->park(comm, polls ? TROUPE_PARK_NS_MAX : TROUPE_PARK_NS_LONG);
    }
    if (comm->watch != NULL) {
        comm->watch(comm->watch_arg, (uint64_t)quiet_ns);
    }
}

void troupe_comm_idle(troupe_comm *comm) {
    idle(comm, false);
}

void troupe_comm_wait(troupe_comm *comm) {
    idle(comm, true);
}

troupe_status troupe_comm_failure(const troupe_comm *comm) {
    return comm->failure == TROUPE_OK ? TROUPE_OK : report_failure(comm);
}

void troupe_comm_abort(troupe_comm *comm, const char *why) {
    if (comm->failure == TROUPE_OK) {
        comm->ends_job = true;
        troupe_comm_fail(comm, TROUPE_ERROR_ABORTED, "%s", why); /* the others add who it was */
        comm->backend->announce_abort(comm, why);
    } else if (comm->failure == TROUPE_ERROR_ABORTED && !comm->ends_job) {
        comm->spoken_for = true;
    }
}

bool troupe_comm_is_spoken_for(const troupe_comm *comm) {
    return comm->spoken_for;
}

uint64_t troupe_comm_bytes_sent(const troupe_comm *comm) {
    return comm->bytes_sent;
}

void troupe_comm_close(troupe_comm *comm) {
    if (comm != NULL) {
        comm->backend->close(comm);
    }
}

/* ---- for the backends ---- */

troupe_status troupe_comm_init(troupe_comm *comm, const struct troupe_comm_backend *backend,
                               int rank, int size) {
    comm->backend = backend;
    comm->rank = rank;
    comm->size = size;
    return TROUPE_NEW(&comm->hosts, size);
}

void troupe_comm_set_limits(troupe_comm *comm, int64_t spin_ns, int control_messages_max) {
    bool crowded = ranks_on_this_host(comm) > cores_available();
    comm->spin_ns = spin_ns > 0 ? spin_ns : crowded ? 0 : SPIN_NS_DEFAULT;
    comm->control_messages_max =
        control_messages_max > 0 ? control_messages_max : TROUPE_CONTROL_MESSAGES_DEFAULT;
}

void troupe_comm_fini(troupe_comm *comm) {
    troupe_free(comm->hosts);
    comm->hosts = NULL;
}

void troupe_comm_complete(troupe_comm *comm, struct troupe_transfer *transfer,
                          troupe_status status) {
    unlink_in_flight(comm, transfer);
    comm->events++;
    transfer->status = status;
    if (transfer->done != NULL) {
        transfer->done(transfer);
    }
}

troupe_status troupe_comm_wrong_size(const troupe_comm *comm,
                                     const struct troupe_transfer *transfer, size_t arrived) {
    return troupe_fail(TROUPE_ERROR_CONTRACT,
                       "rank %d expects %zu bytes from rank %d with tag 0x%016llx, but %zu arrived",
                       comm->rank, troupe_transfer_bytes(transfer), transfer->peer,
                       (unsigned long long)transfer->tag, arrived);
}

void troupe_comm_deliver(troupe_comm *comm, int from, const void *message, size_t bytes) {
    TROUPE_ASSERT(comm->handler != NULL, "rank %d got a control message from rank %d, no handler",
                  comm->rank, from);
    if (comm->failure != TROUPE_OK) {
        return; /* a farewell still polls, but nothing is acted upon */
    }
    comm->events++;
    comm->handler(comm->handler_arg, from, message, bytes);
}

troupe_status troupe_comm_fail(troupe_comm *comm, troupe_status status, const char *format, ...) {
    if (comm->failure == TROUPE_OK) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(comm->failure_text, sizeof(comm->failure_text), format, arguments);
        va_end(arguments);
        comm->failure = status;
        bool echo = status == TROUPE_ERROR_ABORTED; /* who aborts says why */
        TROUPE_LOG_AT(echo ? TROUPE_LEVEL_INFO : TROUPE_LEVEL_ERROR, "comm", "%s",
                      comm->failure_text);
    }
    return report_failure(comm);
}

void troupe_comm_add_poller(troupe_comm *comm, struct troupe_comm_poller *poller) {
    poller->next = comm->pollers;
    comm->pollers = poller;
}

void troupe_comm_remove_poller(troupe_comm *comm, struct troupe_comm_poller *poller) {
    struct troupe_comm_poller **place = &comm->pollers;
    while (*place != poller) {
        TROUPE_ASSERT(*place != NULL, "rank %d removes a poller that it does not have", comm->rank);
        place = &(*place)->next;
    }
    *place = poller->next;
}

struct troupe_transfer *troupe_transfer_next(struct troupe_transfer *transfer) {
    return links(transfer)->next;
}

size_t troupe_transfer_bytes(const struct troupe_transfer *transfer) {
    size_t bytes = 0;
    for (int i = 0; i < transfer->segment_count; i++) {
        bytes += transfer->segments[i].bytes;
    }
    return bytes;
}

void troupe_transfer_copy(const struct troupe_transfer *from, struct troupe_transfer *to) {
    size_t left = troupe_transfer_bytes(from), from_used = 0, to_used = 0;
    for (int i = 0, j = 0; left > 0;) {
        const struct troupe_segment *source = &from->segments[i], *target = &to->segments[j];
        size_t source_left = source->bytes - from_used, target_left = target->bytes - to_used;
        size_t bytes = source_left < target_left ? source_left : target_left;
        if (bytes > 0) {
            memcpy((char *)target->data + to_used, (const char *)source->data + from_used, bytes);
        }
        left -= bytes;
        from_used += bytes;
        to_used += bytes;
        if (from_used == source->bytes) {
            i++;
            from_used = 0;
        }
        if (to_used == target->bytes) {
            j++;
            to_used = 0;
        }
    }
}
