/* SPDX-License-Identifier: Apache-2.0 */
/* Relays: of rows that several ranks of a host need, each comes from a holder to one of them, which
 * hands it on. It does so from its inlet, as soon as all that comes from holders is there, so no
 * relay waits for another. The entry is not ready before its relays are sent: the consumer may then
 * do with the tensor what it likes. */
#include "actors/runtime_internal.h"
#include "runtime/memory.h"

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

/* Notes where a piece on a device comes from and goes to. */
static void locate(struct troupe_inlet_entry *entry, struct troupe_piece *piece) {
    piece->flow = troupe_flow_of(&entry->inlet->end, piece->message->peer, true);
    piece->sequence = entry->message;
    piece->relayed = true;
    piece->bound = &entry->bound;
    piece->taken = entry->kept;
    if (piece->flow != NULL) {
        piece->box_there =
            troupe_box_held(&piece->flow->held, entry->bound.plan.destination_offsets);
    }
}

static void post_relay(struct troupe_inlet_entry *entry, struct troupe_piece *piece) {
    const struct troupe_end *end = &entry->inlet->end;
    const struct troupe_actor_edge *edge = end->edge;
    const struct troupe_route_message *message = piece->message;
    int channel = troupe_channel_of(edge, edge->shard_of_source[message->origin],
                                    edge->shard_of_destination[message->peer]);
    locate(entry, piece);
    troupe_piece_address(end, &entry->bound, channel, message->peer, piece);
    piece->transfer.tag |= troupe_relay_tag(entry);
    if (end->stream == NULL && troupe_piece_is_staged(piece)) {
        troupe_route_message_pack(message, &entry->bound.view, piece->staging);
    }
    troupe_piece_seal(end, &entry->bound, entry->message, piece);
    piece->transfer.done = relayed;
    entry->pending++;
    end->runtime->sends_in_flight++;
    end->edge->bytes_sent += message->bytes;
    troupe_status status = end->stream == NULL
                               ? troupe_comm_post_send(end->runtime->comm, &piece->transfer)
                               : troupe_piece_depart(end->runtime, piece);
    if (status != TROUPE_OK) {
        end->runtime->sends_in_flight--;
        troupe_runtime_fail(end->runtime, status);
    }
}

void troupe_entry_post_relays(struct troupe_inlet_entry *entry) {
    const struct troupe_route_binding *binding = entry->bound.binding;
    troupe_runtime *runtime = entry->inlet->end.runtime;
    if (entry->inlet->end.stream != NULL && binding->relay_count > 0) {
        troupe_status status = troupe_entry_await_pieces(entry, runtime->outgoing);
        if (status != TROUPE_OK) {
            troupe_runtime_fail(runtime, status);
            return;
        }
    }
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
        entry->relays_made = relays;
        for (int k = 0; k < relays; k++) {
            entry->relays[k].owner = entry;
            TROUPE_TRY(troupe_end_create_event(end, &entry->relays[k].copied));
            entry->relays[k].staging =
                (char *)inlet->relay_staging + (size_t)(i * relays + k) * bytes;
        }
    }
    return TROUPE_OK;
}

void troupe_destroy_relays(struct troupe_inlet *inlet) {
    for (int i = 0; i < inlet->depth; i++) {
        struct troupe_inlet_entry *entry = &inlet->entries[i];
        for (int k = 0; k < entry->relays_made; k++) {
            troupe_event_destroy(entry->relays[k].copied);
        }
        troupe_free(entry->relays);
    }
    troupe_end_free(&inlet->end, NULL, inlet->relay_staging);
}
