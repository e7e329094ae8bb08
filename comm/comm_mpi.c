/* SPDX-License-Identifier: Apache-2.0
 *
 * MPI as the transport, where libfabric is not built. MPI's tags are too small for ours, so this
 * backend matches by itself: a send announces (tag, bytes, number) in a control frame; when the
 * receiver has matched the announcement with a posted receive, the payload comes straight into
 * it as an MPI message whose MPI tag is the number.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "comm/comm_mpi_internal.h"
#include "comm/comm_process.h"
#include "runtime/memory.h"

enum {
    TAG_FRAME = 0,
    TAG_PAYLOAD_FIRST = 1,
    NUMBERS = 30000, /* payloads of one pair of ranks under way, far below MPI's tag limit */
    ANNOUNCEMENTS_MAX = 16384,
    BUCKETS = 256,
};

/* What a TROUPE_FRAME_ANNOUNCE carries. */
struct announcement_wire {
    uint64_t tag;
    uint64_t bytes;
    int32_t number;
};

/* A send of another rank that waits for its receive. */
struct announcement {
    struct announcement *next;
    int from;
    struct announcement_wire wire;
};

struct announcement_list {
    struct announcement *head, *tail;
};

struct bucket {
    struct announcement_list sends;
    struct troupe_operation_list receives;
};

struct buffer {
    struct troupe_operation operation;
    struct troupe_frame_wire wire;
};

struct troupe_mpi {
    troupe_process process;
    MPI_Comm comm;
    struct buffer *buffers;
    int buffer_count, next_buffer;
    struct troupe_operation_list active;        /* has an MPI_Request */
    struct troupe_operation_list sends_waiting; /* for a frame to announce them */
    int32_t *numbers;                           /* next payload number, by rank */
    struct bucket buckets[BUCKETS];
    struct announcement *announcements;
    struct announcement_list announcements_free;
    struct troupe_mpi_collective *collectives;
};

/* The part of a receive's operation beside MPI's request. */
struct __attribute__((may_alias)) payload_context {
    MPI_Request request;
    uint64_t announced_bytes;
};
_Static_assert(sizeof(struct payload_context) <= sizeof(((struct troupe_operation *)0)->context),
               "fits the context");

static struct troupe_mpi *mpi_of(troupe_comm *comm) {
    return (struct troupe_mpi *)comm;
}

static struct payload_context *context_of(struct troupe_operation *operation) {
    return (struct payload_context *)operation->context;
}

/* An MPI error makes the endpoint fail; true if there was none. */
static bool mpi_ok(troupe_process *process, int code, const char *what) {
    troupe_status status = troupe_mpi_status(code, what);
    if (status != TROUPE_OK) {
        troupe_comm_fail(&process->comm, status, "%s", troupe_last_error());
    }
    return status == TROUPE_OK;
}

/* ---- payloads ---- */

/* The segments where they lie, as one MPI type, in chunks that MPI's int can count. */
static int make_type(const struct troupe_transfer *transfer, MPI_Datatype *type) {
    enum { CHUNK_BYTES = 1 << 20 };
    int parts = 0, lengths[2 * TROUPE_SEGMENTS_MAX];
    MPI_Aint places[2 * TROUPE_SEGMENTS_MAX];
    MPI_Datatype chunk, kinds[2 * TROUPE_SEGMENTS_MAX];
    MPI_Type_contiguous(CHUNK_BYTES, MPI_BYTE, &chunk);
    for (int i = 0; i < transfer->segment_count; i++) {
        const struct troupe_segment *segment = &transfer->segments[i];
        size_t whole = segment->bytes / CHUNK_BYTES, rest = segment->bytes % CHUNK_BYTES;
        places[parts] = (MPI_Aint)segment->data;
        kinds[parts] = chunk;
        lengths[parts++] = (int)whole;
        places[parts] = (MPI_Aint)segment->data + (MPI_Aint)(whole * CHUNK_BYTES);
        kinds[parts] = MPI_BYTE;
        lengths[parts++] = (int)rest;
    }
    int code = MPI_Type_create_struct(parts, lengths, places, kinds, type);
    MPI_Type_free(&chunk);
    return code != MPI_SUCCESS ? code : MPI_Type_commit(type);
}

static int start_message(struct troupe_mpi *mpi, struct troupe_operation *operation, void *data,
                         int count, MPI_Datatype type, int number) {
    int peer = troupe_operation_transfer(operation)->peer, tag = TAG_PAYLOAD_FIRST + number;
    MPI_Request *request = &context_of(operation)->request;
    return operation->kind == TROUPE_OPERATION_SEND
               ? MPI_Isend(data, count, type, peer, tag, mpi->comm, request)
               : MPI_Irecv(data, count, type, peer, tag, mpi->comm, request);
}

/* Starts the payload's MPI message in either direction. */
static void start_payload(struct troupe_mpi *mpi, struct troupe_operation *operation, int number) {
    struct troupe_transfer *transfer = troupe_operation_transfer(operation);
    const struct troupe_segment *only = &transfer->segments[0];
    int code;
    if (transfer->segment_count == 1 && only->bytes <= INT_MAX) {
        code = start_message(mpi, operation, only->data, (int)only->bytes, MPI_BYTE, number);
    } else {
        MPI_Datatype type;
        code = make_type(transfer, &type);
        if (code == MPI_SUCCESS) {
            code = start_message(mpi, operation, MPI_BOTTOM, 1, type, number);
            MPI_Type_free(&type);
        }
    }
    if (mpi_ok(&mpi->process, code, "starting a message")) {
        troupe_operation_append(&mpi->active, operation);
        troupe_process_ring(&mpi->process, transfer->peer);
    }
}

/* ---- matching ---- */

static struct bucket *bucket_of(struct troupe_mpi *mpi, int peer, uint64_t tag) {
    uint64_t h = (tag ^ ((uint64_t)peer << 32)) * 0x9e3779b97f4a7c15u;
    return &mpi->buckets[(h >> 32) % BUCKETS];
}

static struct troupe_operation *take_receive(struct bucket *bucket, int peer, uint64_t tag) {
    struct troupe_operation *previous = NULL, *operation = bucket->receives.head;
    for (; operation != NULL; previous = operation, operation = operation->next) {
        const struct troupe_transfer *transfer = troupe_operation_transfer(operation);
        if (transfer->peer == peer && transfer->tag == tag) {
            *(previous == NULL ? &bucket->receives.head : &previous->next) = operation->next;
            if (bucket->receives.tail == operation) {
                bucket->receives.tail = previous;
            }
            return operation;
        }
    }
    return NULL;
}

static void append_announcement(struct announcement_list *list, struct announcement *item) {
    item->next = NULL;
    *(list->head == NULL ? &list->head : &list->tail->next) = item;
    list->tail = item;
}

static bool take_announcement(struct troupe_mpi *mpi, struct bucket *bucket, int peer, uint64_t tag,
                              struct announcement_wire *out) {
    struct announcement *previous = NULL, *item = bucket->sends.head;
    for (; item != NULL; previous = item, item = item->next) {
        if (item->from == peer && item->wire.tag == tag) {
            *(previous == NULL ? &bucket->sends.head : &previous->next) = item->next;
            if (bucket->sends.tail == item) {
                bucket->sends.tail = previous;
            }
            *out = item->wire;
            append_announcement(&mpi->announcements_free, item);
            return true;
        }
    }
    return false;
}

static void start_receive(struct troupe_mpi *mpi, struct troupe_operation *operation,
                          const struct announcement_wire *wire) {
    context_of(operation)->announced_bytes = wire->bytes;
    start_payload(mpi, operation, wire->number);
}

static void announced(troupe_process *process, int from, const void *data, size_t bytes) {
    struct troupe_mpi *mpi = (struct troupe_mpi *)process;
    struct announcement_wire wire;
    TROUPE_ASSERT(bytes == sizeof(wire), "announcement of %zu bytes", bytes);
    memcpy(&wire, data, sizeof(wire));
    struct bucket *bucket = bucket_of(mpi, from, wire.tag);
    struct troupe_operation *receive = take_receive(bucket, from, wire.tag);
    if (receive != NULL) {
        start_receive(mpi, receive, &wire);
        return;
    }
    struct announcement *item = mpi->announcements_free.head;
    TROUPE_ASSERT(item != NULL, "rank %d has %d unmatched messages; post their receives earlier",
                  process->comm.rank, ANNOUNCEMENTS_MAX);
    mpi->announcements_free.head = item->next;
    item->from = from;
    item->wire = wire;
    append_announcement(&bucket->sends, item);
}

static void announce_send(struct troupe_mpi *mpi, struct troupe_operation *operation) {
    const struct troupe_transfer *transfer = troupe_operation_transfer(operation);
    struct announcement_wire wire = {.tag = transfer->tag,
                                     .bytes = troupe_transfer_bytes(transfer),
                                     .number = mpi->numbers[transfer->peer]};
    mpi->numbers[transfer->peer] = (wire.number + 1) % NUMBERS;
    troupe_lane_send(&mpi->process, transfer->peer, TROUPE_FRAME_ANNOUNCE, &wire, sizeof(wire));
    start_payload(mpi, operation, wire.number);
}

static void announce_waiting(struct troupe_mpi *mpi) {
    while (mpi->sends_waiting.head != NULL && troupe_lane_has_room(&mpi->process)) {
        announce_send(mpi, troupe_operation_take(&mpi->sends_waiting));
    }
}

static troupe_status post_send(troupe_comm *comm, struct troupe_transfer *transfer) {
    struct troupe_mpi *mpi = mpi_of(comm);
    struct troupe_operation *operation = troupe_transfer_scratch(transfer);
    operation->kind = TROUPE_OPERATION_SEND;
    troupe_operation_append(&mpi->sends_waiting, operation);
    announce_waiting(mpi);
    return TROUPE_OK;
}

static troupe_status post_receive(troupe_comm *comm, struct troupe_transfer *transfer) {
    struct troupe_mpi *mpi = mpi_of(comm);
    struct troupe_operation *operation = troupe_transfer_scratch(transfer);
    struct bucket *bucket = bucket_of(mpi, transfer->peer, transfer->tag);
    struct announcement_wire wire;
    operation->kind = TROUPE_OPERATION_RECEIVE;
    if (take_announcement(mpi, bucket, transfer->peer, transfer->tag, &wire)) {
        start_receive(mpi, operation, &wire);
    } else {
        troupe_operation_append(&bucket->receives, operation);
    }
    return TROUPE_OK;
}

/* ---- frames ---- */

static troupe_status transmit(troupe_process *process, struct troupe_frame *frame) {
    struct troupe_mpi *mpi = (struct troupe_mpi *)process;
    size_t bytes = offsetof(struct troupe_frame_wire, data) + frame->wire.bytes;
    int code = MPI_Isend(&frame->wire, (int)bytes, MPI_BYTE, frame->to, TAG_FRAME, mpi->comm,
                         &context_of(&frame->operation)->request);
    if (!mpi_ok(process, code, "MPI_Isend")) {
        return TROUPE_ERROR_TRANSPORT;
    }
    troupe_operation_append(&mpi->active, &frame->operation);
    return TROUPE_OK;
}

static void post_buffer(struct troupe_mpi *mpi, struct buffer *buffer) {
    buffer->operation.kind = TROUPE_OPERATION_FRAME_IN;
    int code = MPI_Irecv(&buffer->wire, (int)sizeof(buffer->wire), MPI_BYTE, MPI_ANY_SOURCE,
                         TAG_FRAME, mpi->comm, &context_of(&buffer->operation)->request);
    mpi_ok(&mpi->process, code, "MPI_Irecv");
}

/* ---- completions ---- */

static void complete_receive(struct troupe_mpi *mpi, struct troupe_operation *operation) {
    troupe_comm *comm = &mpi->process.comm;
    struct troupe_transfer *transfer = troupe_operation_transfer(operation);
    size_t bytes = context_of(operation)->announced_bytes;
    bool exact = bytes == troupe_transfer_bytes(transfer);
    troupe_comm_complete(comm, transfer,
                         exact ? TROUPE_OK : troupe_comm_wrong_size(comm, transfer, bytes));
}

static void complete(struct troupe_mpi *mpi, struct troupe_operation *operation) {
    switch (operation->kind) {
    case TROUPE_OPERATION_SEND:
        troupe_comm_complete(&mpi->process.comm, troupe_operation_transfer(operation), TROUPE_OK);
        break;
    case TROUPE_OPERATION_RECEIVE:
        complete_receive(mpi, operation);
        break;
    case TROUPE_OPERATION_FRAME_OUT:
        troupe_lane_sent(&mpi->process, (struct troupe_frame *)operation);
        break;
    case TROUPE_OPERATION_FRAME_IN:
        break; /* poll_frames' own */
    }
}

/* MPI reports a message that is too long as truncated; its size is known from the announcement. */
static bool test(struct troupe_mpi *mpi, struct troupe_operation *operation) {
    int done = 0, class = MPI_SUCCESS;
    int code = MPI_Test(&context_of(operation)->request, &done, MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS) {
        MPI_Error_class(code, &class);
        if (class == MPI_ERR_TRUNCATE && operation->kind == TROUPE_OPERATION_RECEIVE) {
            return true;
        }
        mpi_ok(&mpi->process, code, "MPI_Test");
        return false;
    }
    return done != 0;
}

static void poll_active(struct troupe_mpi *mpi) {
    struct troupe_operation_list active = mpi->active;
    mpi->active = (struct troupe_operation_list){0};
    struct troupe_operation *operation;
    while ((operation = troupe_operation_take(&active)) != NULL) {
        if (test(mpi, operation)) {
            complete(mpi, operation);
        } else {
            troupe_operation_append(&mpi->active, operation);
        }
    }
}

/* MPI fills the buffers in the order in which they were posted, which is a ring. */
static void poll_frames(struct troupe_mpi *mpi) {
    for (int looked = 0; looked < mpi->buffer_count; looked++) {
        struct buffer *buffer = &mpi->buffers[mpi->next_buffer];
        if (!test(mpi, &buffer->operation)) {
            return;
        }
        mpi->next_buffer = (mpi->next_buffer + 1) % mpi->buffer_count;
        troupe_lane_received(&mpi->process, &buffer->wire);
        post_buffer(mpi, buffer);
    }
}

static void poll_network(troupe_process *process) {
    struct troupe_mpi *mpi = (struct troupe_mpi *)process;
    announce_waiting(mpi);
    poll_frames(mpi);
    poll_active(mpi);
    troupe_mpi_poll_collectives(&mpi->collectives);
}

/* ---- life ---- */

/* MPI cannot take a started message back; the job is ending, and MPI with it. */
static void withdraw(troupe_comm *comm) {
    struct troupe_mpi *mpi = mpi_of(comm);
    troupe_process_farewell(&mpi->process);
    mpi->active = mpi->sends_waiting = (struct troupe_operation_list){0};
    memset(mpi->buckets, 0, sizeof(mpi->buckets));
    troupe_mpi_withdraw_collectives(&mpi->collectives, comm->failure);
}

static void cancel_buffers(struct troupe_mpi *mpi) {
    for (int i = 0; i < mpi->buffer_count; i++) {
        MPI_Request *request = &context_of(&mpi->buffers[i].operation)->request;
        if (*request != MPI_REQUEST_NULL) {
            MPI_Cancel(request);
            MPI_Request_free(request);
        }
    }
}

static void destroy(struct troupe_mpi *mpi) {
    troupe_free(mpi->buffers);
    troupe_free(mpi->numbers);
    troupe_free(mpi->announcements);
    troupe_process_fini(&mpi->process);
    troupe_free(mpi);
}

static void close_endpoint(troupe_comm *comm) {
    struct troupe_mpi *mpi = mpi_of(comm);
    struct troupe_bootstrap bootstrap = mpi->process.bootstrap;
    bool orderly = troupe_process_meet(&mpi->process);
    if (orderly) {
        cancel_buffers(mpi);
        if (comm->failure == TROUPE_OK) {
            MPI_Comm_free(&mpi->comm);
        }
    }
    troupe_bootstrap_close(&bootstrap, orderly);
    destroy(mpi); /* nobody calls MPI again, so it does not write into the buffers */
}

/* MPI may need the polls of both sides for anything. */
static bool rings(troupe_process *process) {
    (void)process;
    return false;
}

static const struct troupe_carrier mpi_carrier = {
    .transmit = transmit,
    .announced = announced,
    .poll = poll_network,
    .rings = rings,
};

static const struct troupe_comm_backend mpi_backend = {
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
    .group_engine = &troupe_group_engine_mpi,
};

void troupe_mpi_add_collective(troupe_comm *comm, struct troupe_mpi_collective *collective) {
    collective->next = mpi_of(comm)->collectives;
    mpi_of(comm)->collectives = collective;
    for (int i = 0; i < collective->slot->group->count; i++) {
        troupe_process_ring(&mpi_of(comm)->process, collective->slot->group->ranks[i]);
    }
}

static troupe_status open_tables(struct troupe_mpi *mpi) {
    mpi->buffer_count = TROUPE_LANE_BUFFERS_PER_RANK * mpi->process.comm.size;
    TROUPE_TRY(TROUPE_NEW(&mpi->numbers, mpi->process.comm.size));
    TROUPE_TRY(TROUPE_NEW(&mpi->announcements, ANNOUNCEMENTS_MAX));
    for (int i = 0; i < ANNOUNCEMENTS_MAX; i++) {
        append_announcement(&mpi->announcements_free, &mpi->announcements[i]);
    }
    return TROUPE_NEW(&mpi->buffers, mpi->buffer_count);
}

static troupe_status open_mpi(const struct troupe_comm_options *options,
                              struct troupe_bootstrap *bootstrap, troupe_comm **out) {
    struct troupe_mpi *mpi = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY(TROUPE_NEW(&mpi, 1));
    TROUPE_TRY_FAIL(
        troupe_process_init(&mpi->process, &mpi_carrier, &mpi_backend, options, bootstrap));
    TROUPE_TRY_FAIL(open_tables(mpi));
    TROUPE_TRY_FAIL(troupe_mpi_status(MPI_Comm_dup(MPI_COMM_WORLD, &mpi->comm), "MPI_Comm_dup"));
    TROUPE_TRY_FAIL(troupe_mpi_status(MPI_Comm_set_errhandler(mpi->comm, MPI_ERRORS_RETURN),
                                      "MPI_Comm_set_errhandler"));
    for (int i = 0; i < mpi->buffer_count; i++) {
        post_buffer(mpi, &mpi->buffers[i]);
    }
    TROUPE_TRY_FAIL(troupe_comm_failure(&mpi->process.comm));
    snprintf(mpi->process.comm.name, sizeof(mpi->process.comm.name), "mpi");
    *out = &mpi->process.comm;
    return TROUPE_OK;
fail:
    destroy(mpi);
    return status;
}

const struct troupe_comm_opener troupe_comm_opener_mpi = {
    .provider = "mpi",
    .open = open_mpi,
};
