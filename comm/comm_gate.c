/* SPDX-License-Identifier: Apache-2.0
 *
 * Transfers that wait for an event before they are posted. Each is looked at by itself, because an
 * event may wait for a stream that waits for another rank that waits for one of the others.
 */
#include "comm/comm_internal.h"

/* Until the backend gets the transfer, its part of the scratch is ours. */
struct __attribute__((may_alias)) gate {
    troupe_event *event;
    troupe_status (*post)(troupe_comm *comm, struct troupe_transfer *transfer);
};
_Static_assert(sizeof(struct gate) <= TROUPE_TRANSFER_SCRATCH_BYTES, "a gate fits the scratch");

static struct gate *gate_of(struct troupe_transfer *transfer) {
    return troupe_transfer_scratch(transfer);
}

static troupe_status add(troupe_comm *comm, troupe_event *event, struct troupe_transfer *transfer,
                         troupe_status (*post)(troupe_comm *, struct troupe_transfer *)) {
    TROUPE_TRY(troupe_comm_begin(comm, transfer));
    struct troupe_transfer **end = &comm->gated;
    while (*end != NULL) {
        end = (struct troupe_transfer **)&(*end)->link;
    }
    *gate_of(transfer) = (struct gate){event, post};
    transfer->link = NULL;
    *end = transfer;
    return TROUPE_OK;
}

troupe_status troupe_comm_post_send_after(troupe_comm *comm, troupe_event *event,
                                          struct troupe_transfer *transfer) {
    TROUPE_TRY(add(comm, event, transfer, comm->backend->post_send));
    if (transfer->peer != comm->rank) {
        comm->bytes_sent += troupe_transfer_bytes(transfer);
    }
    return TROUPE_OK;
}

troupe_status troupe_comm_post_receive_after(troupe_comm *comm, troupe_event *event,
                                             struct troupe_transfer *transfer) {
    return add(comm, event, transfer, comm->backend->post_receive);
}

/* An older one of the same direction, peer and tag is still at its gate. */
static bool must_wait(const troupe_comm *comm, struct troupe_transfer *transfer) {
    for (struct troupe_transfer *t = comm->gated; t != transfer; t = t->link) {
        if (t->peer == transfer->peer && t->tag == transfer->tag &&
            gate_of(t)->post == gate_of(transfer)->post) {
            return true;
        }
    }
    return false;
}

void troupe_comm_poll_gated(troupe_comm *comm) {
    struct troupe_transfer **place = &comm->gated;
    while (*place != NULL && comm->failure == TROUPE_OK) {
        struct troupe_transfer *transfer = *place;
        struct gate gate = *gate_of(transfer);
        troupe_status status =
            must_wait(comm, transfer) ? TROUPE_AGAIN : troupe_event_query(gate.event);
        if (status == TROUPE_OK) {
            *place = transfer->link;
            gate.post(comm, transfer);
        } else if (status == TROUPE_AGAIN) {
            place = (struct troupe_transfer **)&transfer->link;
        } else {
            troupe_comm_fail(comm, status, "%s", troupe_last_error());
        }
    }
}
