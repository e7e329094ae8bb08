/* SPDX-License-Identifier: Apache-2.0 */
/* Outlets and inlets: the two ends of an edge on this rank, and the life of a message between them.
 *
 * An outlet buffer is busy from the begin of its firing until its sends are complete and the local
 * consumer is done with it. An inlet entry gets its receives posted as soon as it is free and its
 * message is known, is ready when all pieces are there, and free again when consumed. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "actors/runtime_internal.h"
#include "runtime/check.h"
#include "runtime/clock.h"
#include "runtime/memory.h"

static size_t whole_lines(size_t bytes) {
    return (bytes + TROUPE_CACHE_LINE - 1) / TROUPE_CACHE_LINE * TROUPE_CACHE_LINE;
}

/* ---- binding an end to a message ---- */

static struct troupe_rows bound_rows(struct troupe_rows rows, const int64_t *offsets) {
    if (rows.part >= 0) {
        rows.begin = offsets[rows.part];
        rows.end = offsets[rows.part + 1];
    }
    return rows;
}

static struct troupe_rows rows_at(const struct troupe_end *end, int index, const int64_t *offsets) {
    return bound_rows(end->rows[index], offsets);
}

struct troupe_box troupe_box_held(const struct troupe_held *held, const int64_t *offsets) {
    struct troupe_rows rows = bound_rows(held->rows, offsets);
    return troupe_box_2d(rows.begin, rows.end, held->column_begin,
                         held->column_begin + held->columns);
}

/* How many rows the rank holds of the message. */
static int64_t count_rows(const struct troupe_end *end, const int64_t *offsets) {
    int64_t count = 0;
    for (int i = 0; i < end->rows_count; i++) {
        struct troupe_rows rows = rows_at(end, i, offsets);
        count += rows.end - rows.begin;
    }
    return count;
}

/* What the rank holds of the message: stretches of rows, one after the other in its tensor. */
static void bind_rows(const struct troupe_end *end, const int64_t *offsets,
                      struct troupe_bound *bound) {
    struct troupe_route_stretch *last = NULL;
    int64_t count = 0;
    int stretches = 0;
    for (int i = 0; i < end->rows_count; i++) {
        struct troupe_rows rows = rows_at(end, i, offsets);
        if (rows.begin == rows.end) {
            continue;
        }
        if (last != NULL && last->end == rows.begin) {
            last->end = rows.end;
        } else {
            last = &bound->stretches[stretches++];
            *last = (struct troupe_route_stretch){rows.begin, rows.end, count};
        }
        count += rows.end - rows.begin;
    }
    bound->rows = count;
    bound->view.stretches = bound->stretches;
    bound->view.stretch_count = stretches;
    bound->view.box =
        troupe_box_2d(stretches > 0 ? bound->stretches[0].begin : 0, last != NULL ? last->end : 0,
                      end->column_begin, end->column_begin + end->columns);
}

static troupe_status bind(const struct troupe_end *end, bool is_source, int64_t message, void *data,
                          struct troupe_bound *bound) {
    const struct troupe_actor_edge *edge = end->edge;
    struct troupe_message_plan *plan = &bound->plan;
    int64_t step = troupe_edge_step(edge, message);
    int microbatch = troupe_edge_microbatch(edge, message);
    bool routed = bound->binding != NULL;
    troupe_edge_plan(edge, step, microbatch, routed ? 0 : end->shard, plan);
    bound->rows = plan->rows;
    bound->view =
        (struct troupe_route_view){.data = data,
                                   .row_bytes = (size_t)end->columns * edge->element_bytes,
                                   .element_bytes = edge->element_bytes,
                                   .box = troupe_box_2d(0, plan->rows, 0, end->columns)};
    if (routed) {
        troupe_status status =
            troupe_route_bind(bound->binding, plan->source_offsets, plan->destination_offsets);
        if (status != TROUPE_OK) {
            return troupe_fail_in(status, "edge %s, microbatch %d of step %" PRId64, edge->name,
                                  microbatch, step);
        }
        bind_rows(end, is_source ? plan->source_offsets : plan->destination_offsets, bound);
    }
    bound->travels = edge->options.plan == NULL || bound->rows > 0;
    if (bound->rows < 0 || bound->rows > end->rows_max) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "edge %s: microbatch %d of step %" PRId64 " has %" PRId64
                           " rows on rank %d, its buffers hold %" PRId64 "; raise %s_rows_max",
                           edge->name, microbatch, step, bound->rows, end->runtime->rank,
                           end->rows_max, is_source ? "from" : "to");
    }
    return TROUPE_OK;
}

static struct troupe_tensor tensor_of(const struct troupe_end *end,
                                      const struct troupe_bound *bound) {
    return (struct troupe_tensor){.data = bound->view.data,
                                  .rows = bound->rows,
                                  .columns = end->columns,
                                  .stride = end->columns,
                                  .dtype = end->edge->options.dtype};
}

static struct troupe_wire_header header_of(const struct troupe_end *end,
                                           const struct troupe_bound *bound, int64_t message,
                                           const struct troupe_piece *piece) {
    const struct troupe_actor_edge *edge = end->edge;
    return (struct troupe_wire_header){
        .version = TROUPE_WIRE_VERSION,
        .edge = (uint32_t)end->edge_index,
        .step = (uint64_t)troupe_edge_step(edge, message),
        .microbatch = (uint32_t)troupe_edge_microbatch(edge, message),
        .piece_count = 1,
        .row_begin = piece->message != NULL ? piece->message->row_begin : 0,
        .row_count = piece->message != NULL ? piece->message->row_count : bound->rows,
        .sample_set = bound->plan.sample_set,
        .normalisation = bound->plan.normalisation};
}

/* The payload as one stretch: in the tensor where it is one there, else (and always from and to a
 * device) in staging. */
static struct troupe_segment payload_of(const struct troupe_bound *bound,
                                        const struct troupe_piece *piece, bool on_device) {
    const struct troupe_route_message *message = piece->message;
    if (on_device) {
        size_t rows_bytes = (size_t)bound->rows * bound->view.row_bytes;
        return (struct troupe_segment){piece->staging,
                                       message != NULL ? message->bytes : rows_bytes};
    }
    if (message == NULL) {
        return (struct troupe_segment){bound->view.data,
                                       (size_t)bound->rows * bound->view.row_bytes};
    }
    if (troupe_route_message_is_contiguous(message, &bound->view)) {
        return (struct troupe_segment){troupe_route_message_data(message, &bound->view),
                                       message->bytes};
    }
    TROUPE_ASSERT(piece->staging != NULL, "a message of %d boxes came without staging",
                  message->box_count);
    return (struct troupe_segment){piece->staging, message->bytes};
}

bool troupe_piece_is_staged(const struct troupe_piece *piece) {
    return piece->transfer.segments[1].data == piece->staging && piece->staging != NULL;
}

void troupe_piece_address(const struct troupe_end *end, const struct troupe_bound *bound,
                          int channel, int peer, struct troupe_piece *piece) {
    struct troupe_transfer *transfer = &piece->transfer;
    transfer->peer = peer;
    transfer->tag = TROUPE_EDGE_TAG | (uint64_t)channel;
    transfer->segments[0] = (struct troupe_segment){piece->header, TROUPE_WIRE_BYTES};
    transfer->segments[1] = payload_of(bound, piece, end->stream != NULL);
    transfer->segment_count = piece->flow == NULL && transfer->segments[1].bytes > 0 ? 2 : 1;
    transfer->arg = piece;
}

void troupe_piece_seal(const struct troupe_end *end, const struct troupe_bound *bound,
                       int64_t message, struct troupe_piece *piece) {
    const struct troupe_segment *payload = &piece->transfer.segments[1];
    struct troupe_wire_header header = header_of(end, bound, message, piece);
    if (end->runtime->options.checksum) {
        header.checksum = troupe_wire_checksum(0, payload->data, payload->bytes);
    }
    troupe_wire_pack(&header, piece->header);
}

/* Callbacks cannot return it. */
static void keep_failure(troupe_runtime *runtime, troupe_status status) {
    if (status != TROUPE_OK) {
        troupe_runtime_fail(runtime, status);
    }
}

/* ---- outlets ---- */

static void hold(struct troupe_outlet_buffer *buffer) {
    buffer->holds++;
}

static void release(struct troupe_outlet_buffer *buffer) {
    const struct troupe_end *end = &buffer->outlet->end;
    if (--buffer->holds > 0) {
        return;
    }
    buffer->busy = false;
    if (end->edge->first_return >= 0) {
        troupe_tell_conductor(
            end->runtime,
            &(struct troupe_control){.kind = TROUPE_CONTROL_ARRIVED,
                                     .index = end->edge->first_return + end->shard,
                                     .firing = buffer->firing + end->edge->options.credits,
                                     .member = end->member});
    }
}

struct troupe_outlet_buffer *troupe_outlet_free(struct troupe_outlet *outlet) {
    for (int i = 0; i < outlet->buffer_count; i++) {
        if (!outlet->buffers[i].busy) {
            return &outlet->buffers[i];
        }
    }
    return NULL;
}

troupe_status troupe_outlet_begin(struct troupe_outlet_buffer *buffer, int64_t firing,
                                  struct troupe_tensor *out) {
    const struct troupe_end *end = &buffer->outlet->end;
    int64_t message = firing + end->edge->options.initial;
    TROUPE_TRY(bind(end, true, message, buffer->data, &buffer->bound));
    TROUPE_TRY(troupe_buffer_await_readers(buffer));
    buffer->busy = true;
    buffer->firing = firing;
    *out = tensor_of(end, &buffer->bound);
    return TROUPE_OK;
}

static void sent(struct troupe_transfer *transfer) {
    struct troupe_piece *piece = transfer->arg;
    struct troupe_outlet_buffer *buffer = piece->owner;
    troupe_runtime *runtime = buffer->outlet->end.runtime;
    runtime->sends_in_flight--;
    if (transfer->status != TROUPE_OK) {
        troupe_runtime_fail(runtime, transfer->status);
        return;
    }
    release(buffer);
}

/* Notes where a piece on a device comes from and goes to. */
static void locate(struct troupe_outlet_buffer *buffer, int64_t message,
                   struct troupe_piece *piece) {
    const struct troupe_bound *bound = &buffer->bound;
    piece->sequence = message;
    piece->bound = bound;
    piece->taken = buffer->taken;
    piece->box_there = bound->view.box;
    if (piece->flow != NULL && bound->binding != NULL) {
        piece->box_there = troupe_box_held(&piece->flow->held, bound->plan.destination_offsets);
    }
}

static void post_send(struct troupe_outlet_buffer *buffer, struct troupe_piece *piece, int peer,
                      int to_shard) {
    const struct troupe_end *end = &buffer->outlet->end;
    troupe_runtime *runtime = end->runtime;
    int64_t message = buffer->firing + end->edge->options.initial;
    int channel = troupe_channel_of(end->edge, end->shard, to_shard);
    piece->flow = troupe_flow_of(end, peer, true);
    locate(buffer, message, piece);
    troupe_piece_address(end, &buffer->bound, channel, peer, piece);
    if (end->stream == NULL && troupe_piece_is_staged(piece)) {
        troupe_route_message_pack(piece->message, &buffer->bound.view, piece->staging);
    }
    troupe_piece_seal(end, &buffer->bound, message, piece);
    piece->transfer.done = sent;
    hold(buffer);
    runtime->sends_in_flight++;
    end->edge->bytes_sent += piece->transfer.segments[1].bytes;
    troupe_status status = end->stream == NULL
                               ? troupe_comm_post_send(runtime->comm, &piece->transfer)
                               : troupe_piece_depart(runtime, piece);
    if (status != TROUPE_OK) {
        runtime->sends_in_flight--;
        troupe_runtime_fail(runtime, status);
        return;
    }
    if (end->edge->firings == 0) {
        troupe_send_control(runtime, peer,
                            &(struct troupe_control){
                                .kind = TROUPE_CONTROL_SENT, .index = channel, .firing = message});
    }
}

static void deliver(struct troupe_inlet_entry *entry, struct troupe_outlet_buffer *buffer);

static struct troupe_inlet_entry *entry_of(struct troupe_inlet *inlet, int64_t message) {
    return &inlet->entries[message % inlet->depth];
}

static void offer_locally(struct troupe_outlet_buffer *buffer) {
    struct troupe_inlet *inlet = buffer->outlet->local;
    int64_t message = buffer->firing + buffer->outlet->end.edge->options.initial;
    hold(buffer);
    buffer->for_local = true;
    if (buffer->outlet->end.edge->firings == 0) {
        troupe_inlet_announce(inlet, message + 1); /* may take it at once */
    }
    struct troupe_inlet_entry *entry = entry_of(inlet, message);
    if (buffer->for_local && entry->state == TROUPE_ENTRY_WAITING && entry->message == message) {
        deliver(entry, buffer);
    }
}

void troupe_outlet_finish(struct troupe_outlet_buffer *buffer) {
    const struct troupe_end *end = &buffer->outlet->end;
    const struct troupe_actor_edge *edge = end->edge;
    const struct troupe_route_binding *binding = buffer->bound.binding;
    hold(buffer);
    keep_failure(end->runtime, troupe_buffer_mark_written(buffer));
    if (binding != NULL) {
        for (int i = 0; i < binding->send_count; i++) {
            struct troupe_piece *piece = &buffer->sends[i];
            piece->message = &binding->sends[i];
            post_send(buffer, piece, piece->message->peer,
                      edge->shard_of_destination[piece->message->peer]);
        }
        if (binding->kept.box_count > 0) {
            offer_locally(buffer);
        }
    } else if (buffer->bound.travels && buffer->outlet->local != NULL) {
        offer_locally(buffer);
    } else if (buffer->bound.travels) {
        const struct troupe_actor_gang *to = &end->runtime->gangs[edge->to[end->shard]];
        post_send(buffer, &buffer->sends[0], to->ranks[end->member], end->shard);
    }
    release(buffer);
}

/* ---- inlets ---- */

static void count_down(struct troupe_inlet_entry *entry, int from_shard) {
    const struct troupe_end *end = &entry->inlet->end;
    troupe_runtime *runtime = end->runtime;
    entry->pending--;
    if (entry->pending == 0) {
        entry->state = TROUPE_ENTRY_READY;
    }
    int channel = troupe_channel_of(end->edge, from_shard, end->shard);
    bool in_island = troupe_conductor_of_gang(runtime, end->edge->from[from_shard]) ==
                     runtime->conductor_of[runtime->rank];
    if (--entry->pending_from[from_shard] > 0 ||
        (in_island && !runtime->graph_edges[channel].strict)) {
        return;
    }
    troupe_tell_conductor(runtime, &(struct troupe_control){.kind = TROUPE_CONTROL_ARRIVED,
                                                            .index = channel,
                                                            .firing = entry->message,
                                                            .member = end->member});
}

/* The local producer's buffer becomes the input, or is copied into it. */
static void deliver(struct troupe_inlet_entry *entry, struct troupe_outlet_buffer *buffer) {
    buffer->for_local = false;
    if (entry->hand_over) {
        entry->tensor.data = buffer->data;
        entry->handed = buffer;
    } else if (entry->inlet->end.stream != NULL) {
        keep_failure(entry->inlet->end.runtime, troupe_entry_copy_kept(entry, buffer));
        release(buffer);
    } else {
        troupe_route_message_copy(&entry->bound.binding->kept, &buffer->bound.view,
                                  &entry->bound.view);
        release(buffer);
    }
    count_down(entry, buffer->outlet->end.shard);
}

static troupe_status check_arrival(const struct troupe_piece *piece) {
    const struct troupe_inlet_entry *entry = piece->owner;
    const struct troupe_end *end = &entry->inlet->end;
    const struct troupe_segment *payload = &piece->transfer.segments[1];
    struct troupe_contract contract = {.edge_name = end->edge->name,
                                       .sender = piece->transfer.peer,
                                       .receiver = end->runtime->rank,
                                       .expected =
                                           header_of(end, &entry->bound, entry->message, piece)};
    if (end->runtime->options.checksum) {
        contract.expected.checksum = troupe_wire_checksum(0, payload->data, payload->bytes);
    }
    struct troupe_wire_header header;
    troupe_wire_unpack(piece->header, &header);
    return troupe_contract_check(&contract, &header);
}

static void arrived(struct troupe_transfer *transfer) {
    struct troupe_piece *piece = transfer->arg;
    struct troupe_inlet_entry *entry = piece->owner;
    const struct troupe_end *end = &entry->inlet->end;
    troupe_status status = transfer->status;
    if (status == TROUPE_ERROR_CONTRACT) {
        troupe_fail_in(status, "edge %s, microbatch %d of step %" PRId64, end->edge->name,
                       troupe_edge_microbatch(end->edge, entry->message),
                       troupe_edge_step(end->edge, entry->message));
    } else if (status == TROUPE_OK) {
        status = check_arrival(piece);
    }
    if (status != TROUPE_OK) {
        troupe_runtime_fail(end->runtime, status);
        return;
    }
    if (end->stream != NULL) {
        keep_failure(end->runtime,
                     piece->flow == NULL ? troupe_piece_copy_in(entry, piece) : TROUPE_OK);
    } else if (troupe_piece_is_staged(piece)) {
        troupe_route_message_unpack(piece->message, piece->staging, &entry->bound.view);
    }
    if (piece->message != NULL && !piece->message->relayed && --entry->entering == 0) {
        troupe_entry_post_relays(entry);
    }
    count_down(entry, piece->shard);
}

static void post_receive(struct troupe_inlet_entry *entry, struct troupe_piece *piece, int peer,
                         int from_shard) {
    const struct troupe_end *end = &entry->inlet->end;
    piece->shard = from_shard;
    piece->flow = troupe_flow_of(end, peer, false);
    entry->pending++;
    entry->pending_from[from_shard]++;
    troupe_piece_address(end, &entry->bound, troupe_channel_of(end->edge, from_shard, end->shard),
                         peer, piece);
    if (piece->message != NULL && piece->message->relayed) {
        piece->transfer.tag |= troupe_relay_tag(entry);
    }
    piece->transfer.done = arrived;
    troupe_comm *comm = end->runtime->comm;
    bool staged = end->stream != NULL && piece->flow == NULL;
    /* into staging when what was there before has gone to the device */
    keep_failure(end->runtime,
                 staged ? troupe_comm_post_receive_after(comm, entry->filled, &piece->transfer)
                        : troupe_comm_post_receive(comm, &piece->transfer));
    if (piece->flow != NULL) {
        troupe_flow_grant(piece);
    }
}

/* Takes the local producer's buffer if it is there already, else waits for it. */
static void expect_locally(struct troupe_inlet_entry *entry) {
    struct troupe_outlet *outlet = entry->inlet->local;
    int64_t firing = entry->message - entry->inlet->end.edge->options.initial;
    entry->pending++;
    entry->pending_from[outlet->end.shard]++;
    for (int i = 0; i < outlet->buffer_count; i++) {
        struct troupe_outlet_buffer *buffer = &outlet->buffers[i];
        if (buffer->busy && buffer->for_local && buffer->firing == firing) {
            deliver(entry, buffer);
            return;
        }
    }
}

/* Whether what stays on the rank is all of its output and all of its input: then both have the same
 * rows in the same order. */
static bool may_hand_over(const struct troupe_inlet_entry *entry) {
    const struct troupe_inlet *inlet = entry->inlet;
    const struct troupe_route_binding *binding = entry->bound.binding;
    if (binding == NULL) {
        return true;
    }
    const struct troupe_end *source = &inlet->local->end;
    int64_t rows = count_rows(source, entry->bound.plan.source_offsets);
    return binding->kept.elements == rows * source->columns &&
           binding->kept.elements == entry->bound.rows * inlet->end.columns;
}

/* Gives each receive its message and its part of the entry's staging, and counts those that come
 * from holders. */
static void stage_receives(struct troupe_inlet_entry *entry) {
    const struct troupe_route_binding *binding = entry->bound.binding;
    char *staging = entry->staging;
    entry->entering = 0;
    for (int i = 0; i < binding->receive_count; i++) {
        const struct troupe_route_message *message = &binding->receives[i];
        entry->receives[i].message = message;
        entry->receives[i].staging = staging;
        staging += staging != NULL ? whole_lines(message->bytes) : 0;
        entry->entering += !message->relayed;
    }
}

static void expect_pieces(struct troupe_inlet_entry *entry) {
    const struct troupe_inlet *inlet = entry->inlet;
    const struct troupe_actor_edge *edge = inlet->end.edge;
    const struct troupe_route_binding *binding = entry->bound.binding;
    entry->receive_count = 0;
    bool from_here = binding != NULL ? binding->kept.box_count > 0
                                     : inlet->local != NULL && entry->bound.travels;
    if (binding != NULL) {
        entry->receive_count = binding->receive_count;
        stage_receives(entry);
        for (int i = 0; i < binding->receive_count; i++) {
            struct troupe_piece *piece = &entry->receives[i];
            post_receive(entry, piece, piece->message->peer,
                         edge->shard_of_source[piece->message->origin]);
        }
    } else if (inlet->local == NULL && entry->bound.travels) {
        int shard = inlet->end.shard;
        const struct troupe_actor_gang *from = &inlet->end.runtime->gangs[edge->from[shard]];
        entry->receive_count = 1;
        post_receive(entry, &entry->receives[0], from->ranks[inlet->end.member], shard);
    }
    if (from_here) {
        entry->hand_over = may_hand_over(entry);
        expect_locally(entry);
    }
}

static troupe_status prepare(struct troupe_inlet_entry *entry, int64_t message) {
    struct troupe_inlet *inlet = entry->inlet;
    TROUPE_TRY(bind(&inlet->end, false, message, entry->data, &entry->bound));
    entry->message = message;
    entry->state = TROUPE_ENTRY_WAITING;
    entry->since_ns = troupe_clock_ns();
    entry->tensor = tensor_of(&inlet->end, &entry->bound);
    entry->hand_over = false;
    entry->handed = NULL;
    entry->pending = 1; /* until all are posted */
    if (message >= inlet->initial_end) {
        expect_pieces(entry);
    }
    if (--entry->pending == 0) {
        entry->state = TROUPE_ENTRY_READY;
    }
    return TROUPE_OK;
}

static void prepare_all(struct troupe_inlet *inlet) {
    troupe_runtime *runtime = inlet->end.runtime;
    while (inlet->next < inlet->limit && runtime->failure == TROUPE_OK) {
        struct troupe_inlet_entry *entry = entry_of(inlet, inlet->next);
        if (entry->state != TROUPE_ENTRY_FREE) {
            return;
        }
        troupe_status status = prepare(entry, inlet->next++);
        if (status != TROUPE_OK) {
            troupe_runtime_fail(runtime, status);
        }
    }
}

void troupe_inlet_begin_step(struct troupe_inlet *inlet, int64_t step, bool first) {
    const struct troupe_actor_edge *edge = inlet->end.edge;
    if (first) {
        inlet->next = step * edge->firings;
        inlet->initial_end = inlet->next + edge->options.initial;
    }
    inlet->limit = (step + 1) * edge->firings + edge->options.initial;
    prepare_all(inlet);
}

void troupe_inlet_announce(struct troupe_inlet *inlet, int64_t limit) {
    inlet->limit = limit;
    prepare_all(inlet);
}

struct troupe_inlet_entry *troupe_inlet_ready(struct troupe_inlet *inlet, int64_t message) {
    struct troupe_inlet_entry *entry = entry_of(inlet, message);
    return entry->state == TROUPE_ENTRY_READY && entry->message == message ? entry : NULL;
}

void troupe_inlet_consume(struct troupe_inlet *inlet, struct troupe_inlet_entry *entry) {
    keep_failure(inlet->end.runtime, troupe_entry_mark_consumed(entry));
    entry->state = TROUPE_ENTRY_FREE;
    if (entry->handed != NULL) {
        release(entry->handed);
        entry->handed = NULL;
    }
    prepare_all(inlet);
}

bool troupe_inlet_is_waiting(const struct troupe_inlet *inlet) {
    for (int i = 0; i < inlet->depth; i++) {
        if (inlet->entries[i].state == TROUPE_ENTRY_WAITING) {
            return true;
        }
    }
    return false;
}

/* ---- making them ---- */

static int pieces_of(const struct troupe_layout *layout, int rank) {
    int count = 0;
    for (int i = 0; i < layout->piece_count; i++) {
        count += layout->pieces[i].rank == rank;
    }
    return count;
}

static int compare_rows(const void *left, const void *right) {
    const struct troupe_rows *a = left, *b = right;
    return a->part != b->part ? a->part - b->part : (a->begin > b->begin) - (a->begin < b->begin);
}

void troupe_find_held(const struct troupe_actor_edge *edge, int rank, struct troupe_held *out) {
    const struct troupe_layout *layout = troupe_route_destination(edge->options.route);
    *out = (struct troupe_held){.pieces = pieces_of(layout, rank)};
    for (int i = 0; i < layout->piece_count; i++) {
        const struct troupe_box *box = &layout->pieces[i].box;
        if (layout->pieces[i].rank == rank) {
            out->rows = (struct troupe_rows){layout->ragged ? layout->pieces[i].part : -1,
                                             box->begin[0], box->end[0]};
            out->column_begin = box->begin[1];
            out->columns = box->end[1] - box->begin[1];
        }
    }
}

/* The pieces that the rank holds of the route's layout: rows of the same columns. */
static troupe_status find_rows(struct troupe_end *end, bool is_source) {
    const struct troupe_actor_edge *edge = end->edge;
    const struct troupe_layout *layout = is_source ? troupe_route_source(edge->options.route)
                                                   : troupe_route_destination(edge->options.route);
    int rank = end->runtime->rank, found = pieces_of(layout, rank);
    const struct troupe_box *first = NULL;
    TROUPE_TRY(TROUPE_NEW(&end->rows, found));
    for (int i = 0; i < layout->piece_count; i++) {
        const struct troupe_box *box = &layout->pieces[i].box;
        if (layout->pieces[i].rank != rank) {
            continue;
        }
        first = first == NULL ? box : first;
        if (box->begin[1] != first->begin[1] || box->end[1] != first->end[1]) {
            break;
        }
        end->rows[end->rows_count++] = (struct troupe_rows){
            layout->ragged ? layout->pieces[i].part : -1, box->begin[0], box->end[0]};
    }
    if (found == 0 || end->rows_count < found) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "edge %s: the %s layout of its route gives rank %d %s; a port holds "
                           "rows of the same columns",
                           edge->name, is_source ? "source" : "destination", rank,
                           found == 0 ? "nothing" : "pieces with different columns");
    }
    qsort(end->rows, (size_t)found, sizeof *end->rows, compare_rows);
    end->column_begin = first->begin[1];
    end->columns = first->end[1] - first->begin[1];
    return TROUPE_OK;
}

/* Whether a message may be more than one stretch of the end's memory: some piece of the other side
 * cuts its columns, or either side has ranks with several pieces. */
static bool is_cut(const struct troupe_end *end, bool is_source) {
    const struct troupe_actor_edge *edge = end->edge;
    const struct troupe_layout *other = is_source ? troupe_route_destination(edge->options.route)
                                                  : troupe_route_source(edge->options.route);
    const int *shards = is_source ? edge->shard_of_destination : edge->shard_of_source;
    int ranks = 0;
    for (int r = 0; r < end->runtime->rank_count; r++) {
        ranks += shards[r] != TROUPE_NOBODY;
    }
    bool cut = end->rows_count > 1 || other->piece_count > ranks;
    for (int i = 0; i < other->piece_count; i++) {
        const struct troupe_box *piece = &other->pieces[i].box;
        cut = cut || piece->begin[1] > end->column_begin ||
              piece->end[1] < end->column_begin + end->columns;
    }
    return cut;
}

static troupe_status init_end(troupe_runtime *runtime, int edge_index, int shard, bool is_source,
                              struct troupe_end *end) {
    struct troupe_actor_edge *edge = &runtime->edges[edge_index];
    const struct troupe_connect_options *options = &edge->options;
    int gang = is_source ? edge->from[shard] : edge->to[shard];
    *end =
        (struct troupe_end){.runtime = runtime,
                            .edge = edge,
                            .edge_index = edge_index,
                            .shard = shard,
                            .member = runtime->gangs[gang].member,
                            .stream = runtime->gangs[gang].stream,
                            .rows_max = is_source ? options->from_rows_max : options->to_rows_max,
                            .columns = options->columns};
    return options->route != NULL ? find_rows(end, is_source) : TROUPE_OK;
}

size_t troupe_end_buffer_bytes(const struct troupe_end *end) {
    return whole_lines((size_t)end->rows_max * (size_t)end->columns * end->edge->element_bytes);
}

/* Gives each of `count` pieces its part of the staging memory. */
static void give_staging(const struct troupe_end *end, char *staging, int count,
                         struct troupe_piece *pieces) {
    for (int i = 0; i < count; i++) {
        pieces[i].staging = staging + (size_t)i * troupe_end_buffer_bytes(end);
    }
}

static troupe_status make_binding(const struct troupe_end *end, struct troupe_bound *bound) {
    const troupe_route *route = end->edge->options.route;
    if (route == NULL) {
        return TROUPE_OK;
    }
    TROUPE_TRY(TROUPE_NEW(&bound->stretches, end->rows_count));
    return troupe_route_binding_create(route, end->runtime->rank, &bound->binding);
}

static void destroy_binding(struct troupe_bound *bound) {
    troupe_route_binding_destroy(bound->binding);
    troupe_free(bound->stretches);
}

static troupe_status make_outlet(struct troupe_outlet *outlet) {
    const struct troupe_end *end = &outlet->end;
    const troupe_route *route = end->edge->options.route;
    bool cut = route != NULL && is_cut(end, true);
    /* Messages that may be empty take no credit then: one buffer more, so that such a firing finds
     * one while all others wait for their readers. */
    bool may_be_empty = end->edge->options.plan != NULL;
    int buffers = end->edge->options.credits + may_be_empty;
    TROUPE_TRY(TROUPE_NEW(&outlet->buffers, buffers));
    outlet->buffer_count = buffers;
    TROUPE_TRY(
        troupe_end_alloc(end, (size_t)buffers * troupe_end_buffer_bytes(end), &outlet->memory));
    for (int i = 0; i < buffers; i++) {
        struct troupe_outlet_buffer *buffer = &outlet->buffers[i];
        buffer->outlet = outlet;
        buffer->data = (char *)outlet->memory + (size_t)i * troupe_end_buffer_bytes(end);
        TROUPE_TRY(make_binding(end, &buffer->bound));
        int sends = route != NULL ? buffer->bound.binding->sends_max : 1;
        bool staged =
            end->stream != NULL || cut || (route != NULL && buffer->bound.binding->scattered);
        TROUPE_TRY(TROUPE_NEW(&buffer->sends, sends));
        for (int k = 0; k < sends; k++) {
            buffer->sends[k].owner = buffer;
            TROUPE_TRY(troupe_end_create_event(end, &buffer->sends[k].copied));
        }
        buffer->send_count = sends;
        TROUPE_TRY(troupe_end_create_event(end, &buffer->written));
        TROUPE_TRY(troupe_end_create_event(end, &buffer->read));
        TROUPE_TRY(troupe_end_create_event(end, &buffer->taken));
        if (staged && i == 0) {
            TROUPE_TRY(troupe_end_alloc_staging(
                end, (size_t)(buffers * sends) * troupe_end_buffer_bytes(end), &outlet->staging));
        }
        if (staged) {
            give_staging(
                end, (char *)outlet->staging + (size_t)(i * sends) * troupe_end_buffer_bytes(end),
                sends, buffer->sends);
        }
    }
    return TROUPE_OK;
}

static troupe_status make_inlet(struct troupe_inlet *inlet) {
    const struct troupe_end *end = &inlet->end;
    const struct troupe_connect_options *options = &end->edge->options;
    const troupe_route *route = options->route;
    bool cut = route != NULL && is_cut(end, false);
    bool has_data = route != NULL || inlet->local == NULL || options->initial > 0;
    TROUPE_TRY(TROUPE_NEW(&inlet->entries, options->credits));
    inlet->depth = options->credits;
    inlet->initial_end = inlet->limit = options->initial;
    TROUPE_TRY(TROUPE_NEW(&inlet->counts, inlet->depth * options->from_count));
    TROUPE_TRY(troupe_end_alloc(
        end, (size_t)inlet->depth * (has_data ? troupe_end_buffer_bytes(end) : 0), &inlet->memory));
    for (int i = 0; i < inlet->depth; i++) {
        struct troupe_inlet_entry *entry = &inlet->entries[i];
        entry->inlet = inlet;
        entry->data =
            has_data ? (char *)inlet->memory + (size_t)i * troupe_end_buffer_bytes(end) : NULL;
        entry->pending_from = inlet->counts + i * options->from_count;
        TROUPE_TRY(make_binding(end, &entry->bound));
        int receives = route != NULL ? entry->bound.binding->receives_max : 1;
        TROUPE_TRY(TROUPE_NEW(&entry->receives, receives));
        for (int k = 0; k < receives; k++) {
            entry->receives[k].owner = entry;
        }
        TROUPE_TRY(troupe_end_create_event(end, &entry->filled));
        TROUPE_TRY(troupe_end_create_event(end, &entry->kept));
        TROUPE_TRY(troupe_end_create_event(end, &entry->consumed));
        if (end->stream != NULL || cut ||
            (route != NULL &&
             entry->bound.binding->scattered)) { /* all receives have no more rows than it */
            size_t bytes = troupe_end_buffer_bytes(end) + (size_t)receives * TROUPE_CACHE_LINE;
            if (i == 0) {
                TROUPE_TRY(
                    troupe_end_alloc_staging(end, (size_t)inlet->depth * bytes, &inlet->staging));
            }
            entry->staging = (char *)inlet->staging + (size_t)i * bytes;
            entry->receives[0].staging = entry->staging; /* without a route */
        }
    }
    return TROUPE_OK;
}

/* An outlet and an inlet of one edge on one rank; without a route only of the same shard and
 * member. */
static bool are_neighbours(const struct troupe_outlet *outlet, const struct troupe_inlet *inlet) {
    return outlet->end.edge == inlet->end.edge &&
           (outlet->end.edge->options.route != NULL ||
            (outlet->end.shard == inlet->end.shard && outlet->end.member == inlet->end.member));
}

static troupe_status introduce(struct troupe_outlet *outlet, struct troupe_inlet *inlet) {
    if ((outlet->end.stream == NULL) != (inlet->end.stream == NULL)) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "edge %s joins an actor on the host to one on a device, both on rank "
                           "%d; give both a stream, or none",
                           outlet->end.edge->name, outlet->end.runtime->rank);
    }
    outlet->local = inlet;
    inlet->local = outlet;
    return TROUPE_OK;
}

static troupe_status introduce_neighbours(troupe_runtime *runtime) {
    for (int o = 0; o < runtime->outlet_count; o++) {
        for (int i = 0; i < runtime->inlet_count; i++) {
            if (are_neighbours(&runtime->outlets[o], &runtime->inlets[i])) {
                TROUPE_TRY(introduce(&runtime->outlets[o], &runtime->inlets[i]));
            }
        }
    }
    return TROUPE_OK;
}

static bool is_here(const troupe_runtime *runtime, int gang) {
    return runtime->gangs[gang].member != TROUPE_NOBODY;
}

static troupe_status make_ends(troupe_runtime *runtime) {
    for (int e = 0; e < runtime->edge_count; e++) {
        const struct troupe_actor_edge *edge = &runtime->edges[e];
        for (int i = 0; i < edge->options.from_count; i++) {
            if (is_here(runtime, edge->from[i])) {
                struct troupe_outlet *outlet = &runtime->outlets[runtime->outlet_count++];
                runtime->gangs[edge->from[i]].outlets[edge->from_port] = outlet;
                TROUPE_TRY(init_end(runtime, e, i, true, &outlet->end));
            }
        }
        for (int i = 0; i < edge->options.to_count; i++) {
            if (is_here(runtime, edge->to[i])) {
                struct troupe_inlet *inlet = &runtime->inlets[runtime->inlet_count++];
                runtime->gangs[edge->to[i]].inlets[edge->to_port] = inlet;
                TROUPE_TRY(init_end(runtime, e, i, false, &inlet->end));
            }
        }
    }
    return TROUPE_OK;
}

troupe_status troupe_make_mailboxes(troupe_runtime *runtime) {
    int outlets = 0, inlets = 0;
    for (int e = 0; e < runtime->edge_count; e++) {
        const struct troupe_actor_edge *edge = &runtime->edges[e];
        for (int i = 0; i < edge->options.from_count; i++) {
            outlets += is_here(runtime, edge->from[i]);
        }
        for (int i = 0; i < edge->options.to_count; i++) {
            inlets += is_here(runtime, edge->to[i]);
        }
    }
    TROUPE_TRY(TROUPE_NEW(&runtime->outlets, outlets));
    TROUPE_TRY(TROUPE_NEW(&runtime->inlets, inlets));
    TROUPE_TRY(make_ends(runtime));
    TROUPE_TRY(introduce_neighbours(runtime));
    for (int i = 0; i < outlets; i++) {
        TROUPE_TRY(make_outlet(&runtime->outlets[i]));
    }
    for (int i = 0; i < inlets; i++) {
        TROUPE_TRY(make_inlet(&runtime->inlets[i]));
        TROUPE_TRY(troupe_make_relays(&runtime->inlets[i]));
    }
    return TROUPE_OK;
}

static void destroy_outlet(struct troupe_outlet *outlet) {
    for (int i = 0; i < outlet->buffer_count; i++) {
        struct troupe_outlet_buffer *buffer = &outlet->buffers[i];
        for (int k = 0; k < buffer->send_count; k++) {
            troupe_event_destroy(buffer->sends[k].copied);
        }
        troupe_event_destroy(buffer->written);
        troupe_event_destroy(buffer->read);
        troupe_event_destroy(buffer->taken);
        destroy_binding(&buffer->bound);
        troupe_free(buffer->sends);
    }
    troupe_free(outlet->buffers);
    troupe_free(outlet->end.rows);
    troupe_end_free(&outlet->end, outlet->memory, outlet->staging);
}

static void destroy_inlet(struct troupe_inlet *inlet) {
    troupe_destroy_relays(inlet);
    for (int i = 0; i < inlet->depth; i++) {
        struct troupe_inlet_entry *entry = &inlet->entries[i];
        troupe_event_destroy(entry->filled);
        troupe_event_destroy(entry->kept);
        troupe_event_destroy(entry->consumed);
        destroy_binding(&entry->bound);
        troupe_free(entry->receives);
    }
    troupe_free(inlet->entries);
    troupe_free(inlet->counts);
    troupe_free(inlet->end.rows);
    troupe_end_free(&inlet->end, inlet->memory, inlet->staging);
}

void troupe_destroy_mailboxes(troupe_runtime *runtime) {
    for (int i = 0; i < runtime->outlet_count; i++) {
        destroy_outlet(&runtime->outlets[i]);
    }
    for (int i = 0; i < runtime->inlet_count; i++) {
        destroy_inlet(&runtime->inlets[i]);
    }
    troupe_free(runtime->outlets);
    troupe_free(runtime->inlets);
}
