/* SPDX-License-Identifier: Apache-2.0 */
/* Relays: of rows that several ranks of a host need, each comes from a holder to one of them, which
 * hands it on. It does so from its inlet, as soon as all that comes from holders is there, so no
 * relay waits for another. The entry is not ready before its relays are sent: the consumer may then
 * do with the tensor what it likes. */
#include <string.h>

#include "actors/runtime_internal.h"
#include "runtime/memory.h"

/* Copies the common part of two boxes between their packed bytes. */
static void copy_common(const struct troupe_box *to_box, char *to,
                        const struct troupe_box *from_box, const char *from, size_t element_bytes) {
    struct troupe_box common;
    if (!troupe_box_intersect(to_box, from_box, &common)) {
        return;
    }
    int64_t to_columns = to_box->end[1] - to_box->begin[1];
    int64_t from_columns = from_box->end[1] - from_box->begin[1];
    size_t bytes = (size_t)(common.end[1] - common.begin[1]) * element_bytes;
    for (int64_t row = common.begin[0]; row < common.end[0]; row++) {
        int64_t to_at = (row - to_box->begin[0]) * to_columns + common.begin[1] - to_box->begin[1];
        int64_t from_at =
            (row - from_box->begin[0]) * from_columns + common.begin[1] - from_box->begin[1];
        memcpy(to + (size_t)to_at * element_bytes, from + (size_t)from_at * element_bytes, bytes);
    }
}

/* The tensor is on a device, its bytes as they came still on the host: gathers the piece of them.
 */
static void gather(const struct troupe_inlet_entry *entry, const struct troupe_piece *piece) {
    size_t element_bytes = entry->bound.view.element_bytes;
    char *to = piece->staging;
    for (int i = 0; i < piece->message->box_count; i++) {
        const struct troupe_box *box = &piece->message->boxes[i];
        for (int r = 0; r < entry->bound.binding->receive_count; r++) {
            const struct troupe_route_message *came = entry->receives[r].message;
            const char *from = entry->receives[r].staging;
            for (int b = 0; b < came->box_count && !came->relayed; b++) {
                copy_common(box, to, &came->boxes[b], from, element_bytes);
                from += (size_t)troupe_box_elements(&came->boxes[b]) * element_bytes;
            }
        }
        to += (size_t)troupe_box_elements(box) * element_bytes;
    }
}

static void count_down(struct troupe_inlet_entry *entry) {
    if (--entry->pending == 0) {
        entry->state = TROUPE_ENTRY_READY;
    }
}

static void relayed(struct troupe_transfer *transfer) {
    struct troupe_piece *piece = transfer->arg;
    struct troupe_inlet_entry *entry = piece->owner;
    troupe_runtime *runtime = entry->inlet->end.runtime;
    runtime->sends_in_flight--;
    if (transfer->status != TROUPE_OK) {
        troupe_runtime_fail(runtime, transfer->status);
        return;
    }
    count_down(entry);
}

uint64_t troupe_relay_tag(const struct troupe_inlet_entry *entry) {
    return (uint64_t)(1 + entry->message % entry->inlet->depth) << 32;
}

static void post_relay(struct troupe_inlet_entry *entry, struct troupe_piece *piece) {
    const struct troupe_end *end = &entry->inlet->end;
    const struct troupe_actor_edge *edge = end->edge;
    const struct troupe_route_message *message = piece->message;
    int channel = troupe_channel_of(edge, edge->shard_of_source[message->origin],
                                    edge->shard_of_destination[message->peer]);
    troupe_piece_address(end, &entry->bound, channel, message->peer, piece);
    piece->transfer.tag |= troupe_relay_tag(entry);
    if (end->stream != NULL) {
        gather(entry, piece);
    } else if (troupe_piece_is_staged(piece)) {
        troupe_route_message_pack(message, &entry->bound.view, piece->staging);
    }
    troupe_piece_seal(end, &entry->bound, entry->message, piece);
    piece->transfer.done = relayed;
    entry->pending++;
    end->runtime->sends_in_flight++;
    end->edge->bytes_sent += message->bytes;
    troupe_status status = troupe_comm_post_send(end->runtime->comm, &piece->transfer);
    if (status != TROUPE_OK) {
        end->runtime->sends_in_flight--;
        troupe_runtime_fail(end->runtime, status);
    }
}

void troupe_entry_post_relays(struct troupe_inlet_entry *entry) {
    const struct troupe_route_binding *binding = entry->bound.binding;
    for (int i = 0; i < binding->relay_count; i++) {
        entry->relays[i].message = &binding->relays[i];
        post_relay(entry, &entry->relays[i]);
    }
}

troupe_status troupe_make_relays(struct troupe_inlet *inlet) {
    const struct troupe_end *end = &inlet->end;
    for (int i = 0; end->edge->options.route != NULL && i < inlet->depth; i++) {
        struct troupe_inlet_entry *entry = &inlet->entries[i];
        int relays = entry->bound.binding->relays_max;
        size_t bytes = troupe_end_buffer_bytes(end);
        if (i == 0) {
            TROUPE_TRY(troupe_end_alloc_staging(end, (size_t)(inlet->depth * relays) * bytes,
                                                &inlet->relay_staging));
        }
        TROUPE_TRY(TROUPE_NEW(&entry->relays, relays));
        for (int k = 0; k < relays; k++) {
            entry->relays[k].owner = entry;
            entry->relays[k].staging =
                (char *)inlet->relay_staging + (size_t)(i * relays + k) * bytes;
        }
    }
    return TROUPE_OK;
}

void troupe_destroy_relays(struct troupe_inlet *inlet) {
    for (int i = 0; i < inlet->depth; i++) {
        troupe_free(inlet->entries[i].relays);
    }
    troupe_end_free(&inlet->end, NULL, inlet->relay_staging);
}
