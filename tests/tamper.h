/* SPDX-License-Identifier: Apache-2.0
 *
 * An endpoint whose messages on edges are tampered with: a table in front of the transport's.
 *
 *     struct tamper tamper = {.kind = TAMPER_SCALE, .step = 1, .microbatch = 2};
 *     tamper_install(&tamper, comm);             (on the rank that shall send wrongly)
 *
 * Ownership: the caller's storage, as long as the endpoint is open. Threads: the endpoint's.
 * Failure: none of its own.
 */
#ifndef TROUPE_TESTS_TAMPER_H
#define TROUPE_TESTS_TAMPER_H

#include "comm/comm_internal.h"
#include "comm/wire.h"
#include "tests/test.h"

enum tamper_kind {
    TAMPER_NOTHING,
    TAMPER_SAMPLES,   /* the sample set of others */
    TAMPER_SCALE,     /* the normalisation tag of another rule */
    TAMPER_STALE,     /* header and payload of the step before, once more */
    TAMPER_SWAPPED,   /* this microbatch after the next one */
    TAMPER_TRUNCATED, /* the last 8 bytes do not come */
    TAMPER_LOST,      /* nothing comes */
    TAMPER_CORRUPT,   /* one bit of the payload is another */
    TAMPER_KINDS
};

enum { TAMPER_BYTES_MAX = 1 << 16 };

struct tamper {
    struct troupe_comm_backend backend; /* the endpoint's, first */
    enum tamper_kind kind;
    uint64_t step; /* what is tampered with: the first message of this microbatch; all there are */
    uint32_t microbatch;
    const struct troupe_comm_backend *real;
    bool done;
    int peer; /* of the message */
    uint64_t tag;
    struct troupe_transfer *held;
    size_t kept_bytes; /* of the step before */
    uint8_t kept_header[TROUPE_WIRE_BYTES], kept[TAMPER_BYTES_MAX];
};

/* What an edge sends: a header and a payload. Control and groups have their own lanes. */
static inline bool tamper_reads(const struct troupe_transfer *transfer,
                                struct troupe_wire_header *header) {
    if (transfer->tag >> TROUPE_TAG_NAMESPACE_SHIFT != 0 || transfer->segment_count != 2 ||
        transfer->segments[0].bytes != TROUPE_WIRE_BYTES) {
        return false;
    }
    troupe_wire_unpack(transfer->segments[0].data, header);
    return header->version == TROUPE_WIRE_VERSION;
}

static inline troupe_status tamper_with(struct tamper *t, troupe_comm *comm,
                                        struct troupe_transfer *transfer,
                                        struct troupe_wire_header header) {
    struct troupe_segment *payload = &transfer->segments[1];
    t->done = true;
    t->peer = transfer->peer;
    t->tag = transfer->tag;
    switch (t->kind) {
    case TAMPER_SAMPLES:
        header.sample_set ^= 1;
        break;
    case TAMPER_SCALE:
        header.normalisation ^= 1;
        break;
    case TAMPER_STALE:
        EXPECT_EQ(t->kept_bytes, payload->bytes);
        troupe_wire_unpack(t->kept_header, &header);
        memcpy(payload->data, t->kept, t->kept_bytes);
        break;
    case TAMPER_TRUNCATED:
        payload->bytes -= 8;
        break;
    case TAMPER_CORRUPT:
        *(uint8_t *)payload->data ^= 1;
        break;
    case TAMPER_SWAPPED:
        t->held = transfer;
        return TROUPE_OK;
    case TAMPER_LOST: /* in flight for ever */
        return TROUPE_OK;
    default:
        break;
    }
    troupe_wire_pack(&header, transfer->segments[0].data);
    return t->real->post_send(comm, transfer);
}

static inline troupe_status tamper_post_send(troupe_comm *comm, struct troupe_transfer *transfer) {
    struct tamper *t = (struct tamper *)(uintptr_t)comm->backend;
    struct troupe_wire_header header;
    bool is_edge = tamper_reads(transfer, &header) && t->kind != TAMPER_NOTHING;
    if (is_edge && !t->done && header.microbatch == t->microbatch) {
        if (header.step == t->step) {
            return tamper_with(t, comm, transfer, header);
        }
        if (header.step + 1 == t->step) {
            t->kept_bytes = transfer->segments[1].bytes;
            EXPECT(t->kept_bytes <= TAMPER_BYTES_MAX, "%zu bytes", t->kept_bytes);
            memcpy(t->kept_header, transfer->segments[0].data, TROUPE_WIRE_BYTES);
            memcpy(t->kept, transfer->segments[1].data, t->kept_bytes);
        }
    }
    troupe_status status = t->real->post_send(comm, transfer);
    if (t->held != NULL && transfer->peer == t->peer && transfer->tag == t->tag) {
        struct troupe_transfer *held = t->held;
        t->held = NULL;
        return status == TROUPE_OK ? t->real->post_send(comm, held) : status;
    }
    return status;
}

static inline void tamper_install(struct tamper *tamper, troupe_comm *comm) {
    tamper->real = comm->backend;
    tamper->backend = *comm->backend;
    tamper->backend.post_send = tamper_post_send;
    comm->backend = &tamper->backend;
}

#endif
