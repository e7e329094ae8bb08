/* SPDX-License-Identifier: Apache-2.0
 *
 * libfabric: providers shm (one host) and tcp;ofi_rxm. Tagged messages of a reliable-datagram
 * endpoint, matched by (source, 64-bit tag) in libfabric itself. Addresses are exchanged once by
 * the bootstrap. No memory is registered: providers that demand it are not asked for.
 *
 * Over shm, a send of more than the inject size completes only after all such sends before it, to
 * whomever; one whose receive comes late would hold up what the late rank itself waits for. There,
 * a large send is handed to libfabric only when the receiver has granted it: its receive is posted.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_tagged.h>

#include "comm/comm_process.h"
#include "comm/spin_lock.h"
#include "runtime/clock.h"
#include "runtime/log.h"
#include "runtime/memory.h"

#define SHM_PREFIX "fi_shm://"

enum {
    VECTORS_MAX = TROUPE_SEGMENTS_MAX + 1,
    ADDRESS_BYTES_MAX = 256,
    COMPLETIONS_PER_READ = 16,
    READS_PER_POLL = 4,
    SPILL_BYTES = 64 << 20,
    GRANTS_MAX = 16384,
    ASK_NS = 1000000000,
};

_Static_assert(sizeof(struct fi_context2) <= sizeof(((struct troupe_operation *)0)->context),
               "libfabric's context fits");

static const uint64_t control_tag = (uint64_t)TROUPE_TAG_CONTROL << TROUPE_TAG_NAMESPACE_SHIFT;

/* A pre-posted buffer for one frame of any rank. */
struct buffer {
    struct troupe_operation operation;
    struct troupe_frame_wire wire;
};

/* What a TROUPE_FRAME_ANNOUNCE carries. */
struct grant_wire {
    uint64_t tag;
    bool asks; /* from the sender: is there a receive? Else a grant, from the receiver. */
};

/* A large receive of another rank that waits for its send. */
struct grant {
    struct grant *next;
    uint64_t tag;
};

/* Large sends to one rank, and its grants. */
struct handshake {
    struct troupe_operation_list held; /* sends without a grant, and smaller ones behind them */
    struct grant *grants;
};

struct ofi {
    troupe_process process;
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_av *addresses;
    struct fid_cq *completions;
    struct fid_ep *endpoint;
    fi_addr_t *ranks; /* address of each rank */

    struct troupe_operation_list *sends_waiting; /* by rank: libfabric said EAGAIN */
    int sends_waiting_count;
    struct troupe_operation_list receives_waiting;

    size_t ungranted_bytes_max;   /* larger messages need a grant; SIZE_MAX: none does */
    struct handshake *handshakes; /* by rank */
    struct grant *grants, *grants_free;
    int held_count;
    int64_t asked_ns;

    struct buffer *buffers;
    struct troupe_operation_list buffers_waiting;

    /* Every receive ends in this memory, which nobody reads: a message that is too long arrives
     * whole, so its size is known, where a provider's own truncation closes the connection (tcp) or
     * fails the sender (shm). Its pages are touched only then. */
    void *spill;
};

static struct ofi *ofi_of(troupe_comm *comm) {
    return (struct ofi *)comm;
}

/* The one translation of libfabric's errors. */
static troupe_status ofi_status(ssize_t code, const char *what) {
    if (code >= 0) {
        return TROUPE_OK;
    }
    if (code == -FI_EAGAIN) {
        return TROUPE_AGAIN;
    }
    return troupe_fail(TROUPE_ERROR_TRANSPORT, "%s: %s", what, fi_strerror((int)-code));
}

#define TROUPE_TRY_FI(call) TROUPE_TRY(ofi_status((call), #call))

/* ---- posting ---- */

/* The segments that hold something; an empty message has one empty vector. */
static size_t vectors_of(const struct troupe_transfer *transfer,
                         struct iovec vectors[VECTORS_MAX]) {
    size_t count = 0;
    for (int i = 0; i < transfer->segment_count; i++) {
        if (transfer->segments[i].bytes > 0) {
            vectors[count].iov_base = transfer->segments[i].data;
            vectors[count++].iov_len = transfer->segments[i].bytes;
        }
    }
    if (count == 0) {
        vectors[count].iov_base = (void *)(uintptr_t)transfer;
        vectors[count++].iov_len = 0;
    }
    return count;
}

static troupe_status try_send(struct ofi *ofi, struct troupe_transfer *transfer) {
    struct troupe_operation *operation = troupe_transfer_scratch(transfer);
    struct iovec vectors[VECTORS_MAX];
    size_t count = vectors_of(transfer, vectors);
    ssize_t code = fi_tsendv(ofi->endpoint, vectors, NULL, count, ofi->ranks[transfer->peer],
                             transfer->tag, operation->context);
    if (code == 0) {
        troupe_process_ring(&ofi->process, transfer->peer);
    } else if (code != -FI_EAGAIN) {
        troupe_process_lost(&ofi->process, transfer->peer, fi_strerror((int)-code));
    }
    return ofi_status(code, "fi_tsendv");
}

static bool needs_grant(const struct ofi *ofi, const struct troupe_transfer *transfer) {
    return troupe_transfer_bytes(transfer) > ofi->ungranted_bytes_max;
}

static void tell_peer(struct ofi *ofi, const struct troupe_transfer *transfer, bool asks) {
    struct grant_wire wire = {.tag = transfer->tag, .asks = asks};
    troupe_lane_send(&ofi->process, transfer->peer, TROUPE_FRAME_ANNOUNCE, &wire, sizeof(wire));
}

static troupe_status try_receive(struct ofi *ofi, struct troupe_transfer *transfer) {
    bool grants = needs_grant(ofi, transfer);
    if (grants && !troupe_lane_has_room(&ofi->process)) {
        return TROUPE_AGAIN;
    }
    struct troupe_operation *operation = troupe_transfer_scratch(transfer);
    struct iovec vectors[VECTORS_MAX];
    size_t count = vectors_of(transfer, vectors);
    vectors[count++] = (struct iovec){.iov_base = ofi->spill, .iov_len = SPILL_BYTES};
    ssize_t code = fi_trecvv(ofi->endpoint, vectors, NULL, count, ofi->ranks[transfer->peer],
                             transfer->tag, 0, operation->context);
    if (code < 0 && code != -FI_EAGAIN) {
        troupe_process_lost(&ofi->process, transfer->peer, fi_strerror((int)-code));
    } else if (code == 0 && grants) {
        tell_peer(ofi, transfer, false);
    }
    return ofi_status(code, "fi_trecvv");
}

static void send_now(struct ofi *ofi, struct troupe_transfer *transfer) {
    struct troupe_operation *operation = troupe_transfer_scratch(transfer);
    struct troupe_operation_list *waiting = &ofi->sends_waiting[transfer->peer];
    if (waiting->head != NULL || try_send(ofi, transfer) == TROUPE_AGAIN) {
        troupe_operation_append(waiting, operation);
        ofi->sends_waiting_count++;
    }
}

/* ---- grants ---- */

static bool take_grant(struct ofi *ofi, const struct troupe_transfer *transfer) {
    struct grant **place = &ofi->handshakes[transfer->peer].grants;
    while (*place != NULL && (*place)->tag != transfer->tag) {
        place = &(*place)->next;
    }
    struct grant *grant = *place;
    if (grant != NULL) {
        *place = grant->next;
        grant->next = ofi->grants_free;
        ofi->grants_free = grant;
    }
    return grant != NULL;
}

static void keep_grant(struct ofi *ofi, int from, uint64_t tag) {
    struct grant *grant = ofi->grants_free, **place = &ofi->handshakes[from].grants;
    TROUPE_ASSERT(grant != NULL, "rank %d has %d grants without a send", ofi->process.comm.rank,
                  GRANTS_MAX);
    ofi->grants_free = grant->next;
    *grant = (struct grant){.tag = tag};
    while (*place != NULL) {
        place = &(*place)->next;
    }
    *place = grant;
}

static bool is_held(const struct ofi *ofi, int peer, uint64_t tag) {
    struct troupe_operation *operation = ofi->handshakes[peer].held.head;
    while (operation != NULL && troupe_operation_transfer(operation)->tag != tag) {
        operation = operation->next;
    }
    return operation != NULL;
}

/* Sends off what the grants allow, one tag's sends in their order. */
static void release_held(struct ofi *ofi, int peer) {
    struct troupe_operation_list held = ofi->handshakes[peer].held;
    ofi->handshakes[peer].held = (struct troupe_operation_list){0};
    struct troupe_operation *operation;
    while ((operation = troupe_operation_take(&held)) != NULL) {
        struct troupe_transfer *transfer = troupe_operation_transfer(operation);
        if (is_held(ofi, peer, transfer->tag) ||
            (needs_grant(ofi, transfer) && !take_grant(ofi, transfer))) {
            troupe_operation_append(&ofi->handshakes[peer].held, operation);
        } else {
            ofi->held_count--;
            send_now(ofi, transfer);
        }
    }
}

/* Whoever expects a small message grants nothing; if the sender's is large, it must come
 * nevertheless, so that the receiver sees the broken contract. */
static void answer_question(struct ofi *ofi, int from, uint64_t tag) {
    struct troupe_transfer *transfer = ofi->process.comm.in_flight;
    for (; transfer != NULL; transfer = troupe_transfer_next(transfer)) {
        struct troupe_operation *operation = troupe_transfer_scratch(transfer);
        if (operation->kind == TROUPE_OPERATION_RECEIVE && transfer->peer == from &&
            transfer->tag == tag && !needs_grant(ofi, transfer)) {
            tell_peer(ofi, transfer, false);
            return;
        }
    }
}

static void announced(troupe_process *process, int from, const void *data, size_t bytes) {
    struct ofi *ofi = (struct ofi *)process;
    struct grant_wire wire;
    if (ofi->handshakes == NULL || bytes != sizeof(wire)) {
        troupe_comm_fail(&process->comm, TROUPE_ERROR_TRANSPORT,
                         "rank %d sends as if over another transport; all ranks must choose the "
                         "same comm.provider",
                         from);
        return;
    }
    memcpy(&wire, data, sizeof(wire));
    if (wire.asks) {
        answer_question(ofi, from, wire.tag);
    } else {
        keep_grant(ofi, from, wire.tag);
        release_held(ofi, from);
    }
}

/* What has been held for long asks the receiver, now and then. */
static void ask_receivers(struct ofi *ofi) {
    int64_t now = ofi->held_count > 0 ? (int64_t)troupe_clock_ns() : 0;
    if (now - ofi->asked_ns < ASK_NS) {
        return;
    }
    ofi->asked_ns = now;
    for (int r = 0; r < ofi->process.comm.size; r++) {
        struct troupe_operation *operation = ofi->handshakes[r].held.head;
        for (; operation != NULL && troupe_lane_has_room(&ofi->process);
             operation = operation->next) {
            tell_peer(ofi, troupe_operation_transfer(operation), true);
        }
    }
}

/* ---- slots ---- */

static troupe_status post_send(troupe_comm *comm, struct troupe_transfer *transfer) {
    struct ofi *ofi = ofi_of(comm);
    struct troupe_operation *operation = troupe_transfer_scratch(transfer);
    operation->kind = TROUPE_OPERATION_SEND;
    bool held = ofi->handshakes != NULL && is_held(ofi, transfer->peer, transfer->tag);
    if (held || (needs_grant(ofi, transfer) && !take_grant(ofi, transfer))) {
        troupe_operation_append(&ofi->handshakes[transfer->peer].held, operation);
        ofi->asked_ns = ofi->held_count++ == 0 ? (int64_t)troupe_clock_ns() : ofi->asked_ns;
    } else {
        send_now(ofi, transfer);
    }
    return TROUPE_OK;
}

static troupe_status post_receive(troupe_comm *comm, struct troupe_transfer *transfer) {
    struct ofi *ofi = ofi_of(comm);
    struct troupe_operation *operation = troupe_transfer_scratch(transfer);
    operation->kind = TROUPE_OPERATION_RECEIVE;
    if (ofi->receives_waiting.head != NULL || try_receive(ofi, transfer) == TROUPE_AGAIN) {
        troupe_operation_append(&ofi->receives_waiting, operation);
    }
    return TROUPE_OK;
}

static troupe_status transmit(troupe_process *process, struct troupe_frame *frame) {
    struct ofi *ofi = (struct ofi *)process;
    size_t bytes = offsetof(struct troupe_frame_wire, data) + frame->wire.bytes;
    ssize_t code = fi_tsend(ofi->endpoint, &frame->wire, bytes, NULL, ofi->ranks[frame->to],
                            control_tag, frame->operation.context);
    if (code < 0 && code != -FI_EAGAIN) {
        troupe_process_lost(process, frame->to, fi_strerror((int)-code));
    }
    return ofi_status(code, "fi_tsend");
}

static troupe_status try_post_buffer(struct ofi *ofi, struct buffer *buffer) {
    ssize_t code = fi_trecv(ofi->endpoint, &buffer->wire, sizeof(buffer->wire), NULL,
                            FI_ADDR_UNSPEC, control_tag, 0, buffer->operation.context);
    return ofi_status(code, "fi_trecv");
}

static void post_buffer(struct ofi *ofi, struct buffer *buffer) {
    buffer->operation.kind = TROUPE_OPERATION_FRAME_IN;
    troupe_status status = try_post_buffer(ofi, buffer);
    if (status == TROUPE_AGAIN) {
        troupe_operation_append(&ofi->buffers_waiting, &buffer->operation);
    } else if (status != TROUPE_OK) {
        troupe_comm_fail(&ofi->process.comm, status, "%s", troupe_last_error());
    }
}

/* ---- completions ---- */

static void complete(struct ofi *ofi, struct troupe_operation *operation, size_t bytes) {
    troupe_comm *comm = &ofi->process.comm;
    switch (operation->kind) {
    case TROUPE_OPERATION_SEND:
        troupe_comm_complete(comm, troupe_operation_transfer(operation), TROUPE_OK);
        break;
    case TROUPE_OPERATION_RECEIVE: {
        struct troupe_transfer *transfer = troupe_operation_transfer(operation);
        bool exact = bytes == troupe_transfer_bytes(transfer);
        if (needs_grant(ofi, transfer)) { /* the sender, too, is done only now, and may sleep */
            troupe_process_ring(&ofi->process, transfer->peer);
        }
        troupe_comm_complete(comm, transfer,
                             exact ? TROUPE_OK : troupe_comm_wrong_size(comm, transfer, bytes));
        break;
    }
    case TROUPE_OPERATION_FRAME_OUT:
        troupe_lane_sent(&ofi->process, (struct troupe_frame *)operation);
        break;
    case TROUPE_OPERATION_FRAME_IN: {
        struct buffer *buffer = (struct buffer *)operation;
        troupe_lane_received(&ofi->process, &buffer->wire);
        post_buffer(ofi, buffer);
        break;
    }
    }
}

static int peer_of(struct troupe_operation *operation) {
    return operation->kind == TROUPE_OPERATION_FRAME_OUT
               ? ((struct troupe_frame *)operation)->to
               : troupe_operation_transfer(operation)->peer;
}

/* A message that not even the spill could hold breaks the contract, and the connection with it;
 * all else is a lost rank. A frame that came to nothing does not say whose it was: the watch will.
 */
static void complete_with_error(struct ofi *ofi) {
    struct fi_cq_err_entry error = {0};
    if (fi_cq_readerr(ofi->completions, &error, 0) != 1) {
        return;
    }
    struct troupe_operation *operation = error.op_context;
    if (error.err == FI_ETRUNC && operation->kind == TROUPE_OPERATION_RECEIVE) {
        struct troupe_transfer *transfer = troupe_operation_transfer(operation);
        size_t arrived = troupe_transfer_bytes(transfer) + error.olen;
        troupe_comm_complete(&ofi->process.comm, transfer,
                             troupe_comm_wrong_size(&ofi->process.comm, transfer, arrived));
        troupe_comm_fail(&ofi->process.comm, TROUPE_ERROR_CONTRACT, "%s", troupe_last_error());
    } else if (operation != NULL && operation->kind == TROUPE_OPERATION_FRAME_IN) {
        post_buffer(ofi, (struct buffer *)operation);
    } else if (operation != NULL) {
        troupe_process_lost(&ofi->process, peer_of(operation), fi_strerror(error.err));
    }
}

static void retry_sends(struct ofi *ofi) {
    for (int r = 0; r < ofi->process.comm.size && ofi->sends_waiting_count > 0; r++) {
        struct troupe_operation_list *waiting = &ofi->sends_waiting[r];
        while (waiting->head != NULL &&
               try_send(ofi, troupe_operation_transfer(waiting->head)) != TROUPE_AGAIN) {
            troupe_operation_take(waiting);
            ofi->sends_waiting_count--;
        }
    }
}

static void retry_receives(struct ofi *ofi) {
    struct troupe_operation_list *waiting = &ofi->receives_waiting;
    while (waiting->head != NULL &&
           try_receive(ofi, troupe_operation_transfer(waiting->head)) != TROUPE_AGAIN) {
        troupe_operation_take(waiting);
    }
    struct troupe_operation_list buffers = ofi->buffers_waiting;
    ofi->buffers_waiting = (struct troupe_operation_list){0};
    struct troupe_operation *operation;
    while ((operation = troupe_operation_take(&buffers)) != NULL) {
        post_buffer(ofi, (struct buffer *)operation);
    }
}

static void poll_network(troupe_process *process) {
    struct ofi *ofi = (struct ofi *)process;
    struct fi_cq_tagged_entry entries[COMPLETIONS_PER_READ];
    retry_receives(ofi);
    retry_sends(ofi);
    ask_receivers(ofi);
    for (int reads = 0; reads < READS_PER_POLL && ofi->endpoint != NULL; reads++) {
        ssize_t count = fi_cq_read(ofi->completions, entries, COMPLETIONS_PER_READ);
        for (ssize_t i = 0; i < count; i++) {
            complete(ofi, entries[i].op_context, entries[i].len);
        }
        if (count == -FI_EAVAIL) {
            complete_with_error(ofi);
        } else if (count < 0 && count != -FI_EAGAIN) {
            troupe_comm_fail(&process->comm, TROUPE_ERROR_TRANSPORT, "fi_cq_read: %s",
                             fi_strerror((int)-count));
        }
        if (count != COMPLETIONS_PER_READ) {
            return;
        }
    }
}

/* A send in flight may need this rank's polls to get any further. */
static bool rings(troupe_process *process) {
    struct troupe_transfer *transfer = process->comm.in_flight;
    for (; transfer != NULL; transfer = troupe_transfer_next(transfer)) {
        const struct troupe_operation *operation = troupe_transfer_scratch(transfer);
        if (operation->kind == TROUPE_OPERATION_SEND) {
            return false;
        }
    }
    return true;
}

/* ---- life ---- */

/* Each kind of libfabric object begins with a fid. */
#define CLOSE(object)                                                                              \
    do {                                                                                           \
        if ((object) != NULL) {                                                                    \
            fi_close(&(object)->fid);                                                              \
            (object) = NULL;                                                                       \
        }                                                                                          \
    } while (0)

/* Without an endpoint nobody reads or writes the caller's memory. */
static void withdraw(troupe_comm *comm) {
    struct ofi *ofi = ofi_of(comm);
    troupe_process_farewell(&ofi->process);
    CLOSE(ofi->endpoint);
    memset(ofi->sends_waiting, 0, (size_t)comm->size * sizeof(*ofi->sends_waiting));
    ofi->receives_waiting = ofi->buffers_waiting = (struct troupe_operation_list){0};
    ofi->sends_waiting_count = ofi->held_count = 0;
    for (int r = 0; ofi->handshakes != NULL && r < comm->size; r++) {
        ofi->handshakes[r] = (struct handshake){0};
    }
}

static void destroy(struct ofi *ofi) {
    CLOSE(ofi->endpoint);
    CLOSE(ofi->completions);
    CLOSE(ofi->addresses);
    CLOSE(ofi->domain);
    CLOSE(ofi->fabric);
    if (ofi->info != NULL) {
        fi_freeinfo(ofi->info);
    }
    troupe_free(ofi->ranks);
    troupe_free(ofi->sends_waiting);
    troupe_free(ofi->buffers);
    troupe_free(ofi->handshakes);
    troupe_free(ofi->grants);
    if (ofi->spill != NULL) {
        munmap(ofi->spill, SPILL_BYTES);
    }
    troupe_spin_lock_clear_judge(&ofi->process);
    troupe_process_fini(&ofi->process);
    troupe_free(ofi);
}

static void close_endpoint(troupe_comm *comm) {
    struct ofi *ofi = ofi_of(comm);
    struct troupe_bootstrap bootstrap = ofi->process.bootstrap;
    bool orderly = troupe_process_meet(&ofi->process);
    destroy(ofi);
    troupe_bootstrap_close(&bootstrap, orderly);
}

static const struct troupe_carrier ofi_carrier = {
    .transmit = transmit,
    .announced = announced,
    .poll = poll_network,
    .rings = rings,
};

static const struct troupe_comm_backend ofi_backend = {
    .post_send = post_send,
    .post_receive = post_receive,
    .send_control = troupe_process_send_control,
    .control_room = troupe_process_control_room,
    .progress = troupe_process_progress,
    .park = troupe_process_park,
    .wakes = troupe_process_wakes,
    .announce_abort = troupe_process_announce_abort,
    .withdraw = withdraw,
    .close = close_endpoint,
    .group_engine = &troupe_group_engine_direct,
};

static troupe_status find_provider(struct ofi *ofi, const char *provider) {
    struct fi_info *hints = fi_allocinfo();
    if (hints == NULL) {
        return troupe_fail(TROUPE_ERROR_MEMORY, "fi_allocinfo: out of memory");
    }
    hints->caps = FI_TAGGED | FI_DIRECTED_RECV;
    hints->mode = FI_CONTEXT | FI_CONTEXT2;
    hints->ep_attr->type = FI_EP_RDM;
    hints->domain_attr->mr_mode = 0; /* none: no FI_MR_LOCAL, so no registrations */
    hints->domain_attr->threading = FI_THREAD_DOMAIN;
    hints->domain_attr->control_progress = FI_PROGRESS_MANUAL;
    hints->domain_attr->data_progress = FI_PROGRESS_MANUAL;
    hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
    hints->domain_attr->av_type = FI_AV_TABLE;
    hints->tx_attr->msg_order = FI_ORDER_SAS;
    hints->rx_attr->msg_order = FI_ORDER_SAS;
    hints->fabric_attr->prov_name = strdup(provider); /* fi_freeinfo's */
    int code = fi_getinfo(FI_VERSION(1, 17), NULL, NULL, 0, hints, &ofi->info);
    fi_freeinfo(hints);
    if (code != 0) {
        return troupe_fail(TROUPE_ERROR_TRANSPORT,
                           "libfabric has no usable provider %s (fi_getinfo: %s); try another "
                           "comm.provider",
                           provider, fi_strerror(-code));
    }
    return TROUPE_OK;
}

static troupe_status open_endpoint(struct ofi *ofi) {
    struct fi_av_attr address_attributes = {.type = FI_AV_TABLE,
                                            .count = (size_t)ofi->process.comm.size};
    struct fi_cq_attr completion_attributes = {.format = FI_CQ_FORMAT_TAGGED,
                                               .wait_obj = FI_WAIT_NONE};
    TROUPE_TRY_FI(fi_fabric(ofi->info->fabric_attr, &ofi->fabric, NULL));
    TROUPE_TRY_FI(fi_domain(ofi->fabric, ofi->info, &ofi->domain, NULL));
    TROUPE_TRY_FI(fi_av_open(ofi->domain, &address_attributes, &ofi->addresses, NULL));
    TROUPE_TRY_FI(fi_cq_open(ofi->domain, &completion_attributes, &ofi->completions, NULL));
    TROUPE_TRY_FI(fi_endpoint(ofi->domain, ofi->info, &ofi->endpoint, NULL));
    TROUPE_TRY_FI(fi_ep_bind(ofi->endpoint, &ofi->addresses->fid, 0));
    TROUPE_TRY_FI(fi_ep_bind(ofi->endpoint, &ofi->completions->fid, FI_TRANSMIT | FI_RECV));
    TROUPE_TRY_FI(fi_enable(ofi->endpoint));
    return TROUPE_OK;
}

struct address {
    size_t bytes;
    _Alignas(struct sockaddr_storage) char data[ADDRESS_BYTES_MAX];
};

static troupe_status insert_addresses(struct ofi *ofi, const struct address *all) {
    for (int r = 0; r < ofi->process.comm.size; r++) {
        int inserted = fi_av_insert(ofi->addresses, all[r].data, 1, &ofi->ranks[r], 0, NULL);
        if (inserted != 1) {
            return troupe_fail(TROUPE_ERROR_TRANSPORT, "fi_av_insert: the address of rank %d: %s",
                               r, inserted < 0 ? fi_strerror(-inserted) : "refused");
        }
    }
    return TROUPE_OK;
}

static troupe_status exchange_addresses(struct ofi *ofi) {
    struct address mine = {.bytes = ADDRESS_BYTES_MAX}, *all = NULL;
    TROUPE_TRY_FI(fi_getname(&ofi->endpoint->fid, mine.data, &mine.bytes));
    TROUPE_TRY(TROUPE_NEW(&all, ofi->process.comm.size));
    troupe_status status =
        troupe_bootstrap_gather(&ofi->process.bootstrap, &mine, sizeof(mine), all);
    if (status == TROUPE_OK) {
        status = insert_addresses(ofi, all);
    }
    troupe_free(all);
    TROUPE_TRY(status);
    return troupe_watch_hosts(&ofi->process.watch, &ofi->process.bootstrap,
                              (struct sockaddr *)mine.data, (socklen_t)mine.bytes);
}

static troupe_status post_buffers(struct ofi *ofi) {
    int count = TROUPE_LANE_BUFFERS_PER_RANK * ofi->process.comm.size;
    TROUPE_TRY(TROUPE_NEW(&ofi->buffers, count));
    for (int i = 0; i < count; i++) {
        post_buffer(ofi, &ofi->buffers[i]);
    }
    return troupe_comm_failure(&ofi->process.comm);
}

static troupe_status map_spill(struct ofi *ofi) {
    void *memory = mmap(NULL, SPILL_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return troupe_fail(TROUPE_ERROR_MEMORY, "no address space for %d bytes: %s", SPILL_BYTES,
                           strerror(errno));
    }
    ofi->spill = memory;
    return TROUPE_OK;
}

static troupe_status open_grants(struct ofi *ofi) {
    TROUPE_TRY(TROUPE_NEW(&ofi->handshakes, ofi->process.comm.size));
    TROUPE_TRY(TROUPE_NEW(&ofi->grants, GRANTS_MAX));
    for (int i = 0; i < GRANTS_MAX; i++) {
        ofi->grants[i].next = ofi->grants_free;
        ofi->grants_free = &ofi->grants[i];
    }
    ofi->ungranted_bytes_max = ofi->info->tx_attr->inject_size;
    return TROUPE_OK;
}

/* The name of this rank's memory in shm: libfabric would take the process number, and refuse one
 * that a killed process of this number has left behind. */
static troupe_status choose_name(struct ofi *ofi) {
    uint64_t number = 0;
    char name[64];
    if (getrandom(&number, sizeof number, 0) != sizeof number) {
        return troupe_fail(TROUPE_ERROR_IO, "getrandom: %s", strerror(errno));
    }
    snprintf(name, sizeof name, SHM_PREFIX "troupe-%016" PRIx64, number);
    free(ofi->info->src_addr);          /* fi_freeinfo's */
    ofi->info->src_addr = strdup(name); /* fi_freeinfo's */
    ofi->info->src_addrlen = strlen(name) + 1;
    return ofi->info->src_addr != NULL ? TROUPE_OK
                                       : troupe_fail(TROUPE_ERROR_MEMORY, "strdup: out of memory");
}

/* When every rank has opened the memory of every other, its name can go: a killed rank then leaves
 * nothing behind. */
static troupe_status forget_name(struct ofi *ofi) {
    char name[ADDRESS_BYTES_MAX] = "";
    size_t bytes = sizeof name - 1;
    TROUPE_TRY(troupe_process_greet(&ofi->process));
    TROUPE_TRY_FI(fi_getname(&ofi->endpoint->fid, name, &bytes));
    const char *file = strstr(name, "://");
    if (file == NULL || shm_unlink(file + strlen("://")) != 0) {
        TROUPE_LOG_WARN("comm", "libfabric's memory %s would outlive a killed rank: %s", name,
                        strerror(errno));
    }
    return TROUPE_OK;
}

static troupe_status open_ofi(const char *provider, const struct troupe_comm_options *options,
                              struct troupe_bootstrap *bootstrap, troupe_comm **out) {
    struct ofi *ofi = NULL;
    troupe_status status = TROUPE_OK;
    /* Its hooks into malloc corrupt or lock up beside others'; nothing here is registered. */
    setenv("FI_MR_CACHE_MONITOR", "disabled", 0); /* libfabric's */
    TROUPE_TRY(TROUPE_NEW(&ofi, 1));
    TROUPE_TRY_FAIL(
        troupe_process_init(&ofi->process, &ofi_carrier, &ofi_backend, options, bootstrap));
    TROUPE_TRY_FAIL(TROUPE_NEW(&ofi->ranks, bootstrap->size));
    TROUPE_TRY_FAIL(TROUPE_NEW(&ofi->sends_waiting, bootstrap->size));
    TROUPE_TRY_FAIL(map_spill(ofi));
    TROUPE_TRY_FAIL(find_provider(ofi, provider));
    ofi->ungranted_bytes_max = SIZE_MAX;
    bool is_shm = strcmp(provider, "shm") == 0;
    if (is_shm) {
        troupe_spin_lock_set_judge(troupe_process_gives_up, &ofi->process);
        TROUPE_TRY_FAIL(open_grants(ofi));
        TROUPE_TRY_FAIL(choose_name(ofi));
    }
    TROUPE_TRY_FAIL(open_endpoint(ofi));
    TROUPE_TRY_FAIL(exchange_addresses(ofi));
    TROUPE_TRY_FAIL(post_buffers(ofi));
    if (is_shm) {
        TROUPE_TRY_FAIL(forget_name(ofi));
    }
    snprintf(ofi->process.comm.name, sizeof(ofi->process.comm.name), "libfabric %s", provider);
    *out = &ofi->process.comm;
    return TROUPE_OK;
fail:
    destroy(ofi);
    return status;
}

static troupe_status open_shm(const struct troupe_comm_options *options,
                              struct troupe_bootstrap *bootstrap, troupe_comm **out) {
    return open_ofi("shm", options, bootstrap, out);
}

static troupe_status open_tcp(const struct troupe_comm_options *options,
                              struct troupe_bootstrap *bootstrap, troupe_comm **out) {
    return open_ofi("tcp;ofi_rxm", options, bootstrap, out);
}

const struct troupe_comm_opener troupe_comm_opener_shm = {
    .provider = "shm",
    .one_host_only = true,
    .open = open_shm,
};

const struct troupe_comm_opener troupe_comm_opener_tcp = {
    .provider = "tcp",
    .open = open_tcp,
};
