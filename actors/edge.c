/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a message: bound to its sizes, sent piece by piece, checked, and consumed. */
#include <stdio.h>
#include <string.h>

#include "actors/runtime_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

static size_t row_bytes(const struct connection *c) {
    return (size_t)c->options.columns * troupe_dtype_bytes(c->options.dtype);
}

static int64_t step_of(const struct connection *c, int64_t firing) {
    int m = c->runtime->options.microbatches;
    return m > 0 ? firing / m : firing;
}

static int microbatch_of(const struct connection *c, int64_t firing) {
    int m = c->runtime->options.microbatches;
    return m > 0 ? (int)(firing % m) : 0;
}

/* Binds to the sizes of the message; fills sample_set and normalisation of *plan. */
static troupe_status bind(struct connection *c, struct troupe_route_binding *binding, int64_t step,
                          int microbatch, struct troupe_message_plan *plan) {
    *plan = (struct troupe_message_plan){.source_offsets = c->source_offsets,
                                         .destination_offsets = c->destination_offsets};
    if (c->options.plan == NULL) {
        return troupe_route_bind(binding, NULL, NULL);
    }
    c->options.plan(c->options.arg, step, microbatch, plan);
    return troupe_route_bind(binding, plan->source_offsets, plan->destination_offsets);
}

/* The rows that a piece holds of the message bound last. */
static struct troupe_box box_of(const struct troupe_layout_piece *piece, const int64_t *offsets) {
    struct troupe_box box = piece->box;
    if (piece->part >= 0) {
        box.begin[0] = offsets[piece->part];
        box.end[0] = offsets[piece->part + 1];
    }
    return box;
}

static struct troupe_route_view view_of(const struct connection *c, void *data,
                                        const struct troupe_box *box) {
    return (struct troupe_route_view){.data = data,
                                      .row_bytes = row_bytes(c),
                                      .element_bytes = troupe_dtype_bytes(c->options.dtype),
                                      .box = *box};
}

static struct troupe_tensor tensor_of(const struct connection *c, void *data, int64_t rows) {
    return (struct troupe_tensor){.data = data,
                                  .rows = rows,
                                  .columns = c->options.columns,
                                  .stride = c->options.columns,
                                  .dtype = c->options.dtype};
}

static struct troupe_wire_header header_of(const struct connection *c, int64_t firing,
                                           const struct troupe_route_message *message,
                                           uint64_t sample_set, uint64_t normalisation) {
    return (struct troupe_wire_header){
        .version = TROUPE_WIRE_VERSION,
        .edge = (uint32_t)c->index,
        .step = (uint64_t)step_of(c, firing),
        .microbatch = (uint32_t)microbatch_of(c, firing),
        .piece_count = 1,
        .row_begin = message->row_begin,
        .row_count = message->row_count,
        .sample_set = sample_set,
        .normalisation = normalisation,
    };
}

/* One message of a firing to a peer: connection and firing; the top 4 bits are the groups'. */
static uint64_t tag_of(const struct connection *c, int64_t firing) {
    return (uint64_t)c->index << 40 | ((uint64_t)firing & ((UINT64_C(1) << 40) - 1));
}

/* Header, then the payload: straight from the buffer where it is one stretch, else staged. */
static void prepare_transfer(const struct connection *c, struct troupe_transfer *transfer,
                             const struct troupe_route_message *message, int64_t firing,
                             uint8_t *header, void *payload) {
    *transfer = (struct troupe_transfer){
        .peer = message->peer,
        .tag = tag_of(c, firing),
        .segments = {{header, TROUPE_WIRE_BYTES}, {payload, message->bytes}},
        .segment_count = 2,
        .arg = transfer->arg,
    };
}

/* ---- sending ---- */

static void on_sent(struct troupe_transfer *transfer) {
    struct outgoing *out = transfer->arg;
    troupe_runtime *runtime = out->connection->runtime;
    out->in_flight--;
    runtime->in_flight--;
    if (transfer->status != TROUPE_OK && runtime->failure == TROUPE_OK) {
        runtime->failure = transfer->status;
    }
}

troupe_status troupe_connection_bind_output(struct connection *c, int buffer, int64_t produced,
                                            void *memory, struct troupe_tensor *view) {
    int64_t firing = produced + c->options.initial;
    struct troupe_message_plan plan;
    TROUPE_TRY(bind(c, c->outgoing[buffer].binding, step_of(c, firing), microbatch_of(c, firing),
                    &plan));
    struct troupe_box box = box_of(&c->source_piece, c->source_offsets);
    int64_t rows = box.end[0] - box.begin[0];
    TROUPE_ASSERT(rows <= c->options.from_rows_max, "%s: %lld rows, planned for %lld", c->name,
                  (long long)rows, (long long)c->options.from_rows_max);
    *view = tensor_of(c, memory, rows);
    return TROUPE_OK;
}

/* What this rank needs of its own output: handed over as it is if it is all of both sides, else
 * copied into the input buffer. */
static void keep(struct connection *c, const struct outgoing *out, int64_t firing,
                 const struct troupe_box *box, const struct troupe_tensor *view) {
    const struct troupe_route_message *kept = &out->binding->kept;
    struct incoming *in = &c->incoming[firing % c->options.credits];
    TROUPE_ASSERT(in->firing == firing && in->kept_missing,
                  "%s: input buffer holds firing %lld, not %lld", c->name, (long long)in->firing,
                  (long long)firing);
    if (in->view.rows == view->rows && in->row_begin == box->begin[0] && kept->box_count == 1 &&
        kept->elements == view->rows * view->columns) {
        in->view.data = view->data;
    } else {
        for (int i = 0; i < kept->box_count; i++) {
            const struct troupe_box *piece = &kept->boxes[i];
            size_t rows = (size_t)(piece->end[0] - piece->begin[0]);
            memcpy((char *)in->memory +
                       (size_t)(piece->begin[0] - in->row_begin) * row_bytes(c),
                   (const char *)view->data +
                       (size_t)(piece->begin[0] - box->begin[0]) * row_bytes(c),
                   rows * row_bytes(c));
        }
    }
    in->kept_missing = false;
}

troupe_status troupe_connection_send(struct connection *c, int buffer, int64_t produced,
                                     const struct troupe_tensor *view) {
    struct outgoing *out = &c->outgoing[buffer];
    int64_t firing = produced + c->options.initial;
    struct troupe_message_plan plan;
    /* The offsets are scratch; the method may have run other plans since bind_output. */
    TROUPE_TRY(bind(c, out->binding, step_of(c, firing), microbatch_of(c, firing), &plan));
    struct troupe_box box = box_of(&c->source_piece, c->source_offsets);
    struct troupe_route_view source = view_of(c, view->data, &box);
    uint8_t *staging = out->staging;
    for (int i = 0; i < out->binding->send_count; i++) {
        const struct troupe_route_message *message = &out->binding->sends[i];
        uint8_t *header = out->headers + i * TROUPE_WIRE_BYTES;
        struct troupe_wire_header fields =
            header_of(c, firing, message, plan.sample_set, plan.normalisation);
        troupe_wire_pack(&fields, header);
        void *payload = staging;
        if (troupe_route_message_is_contiguous(message, &source)) {
            payload = troupe_route_message_data(message, &source);
        } else {
            troupe_route_message_pack(message, &source, staging);
            staging += message->bytes;
        }
        prepare_transfer(c, &out->transfers[i], message, firing, header, payload);
        out->in_flight++;
        c->runtime->in_flight++;
        c->bytes_sent += message->bytes;
        TROUPE_TRY(troupe_comm_post_send(c->runtime->comm, &out->transfers[i]));
    }
    if (out->binding->kept.box_count > 0) {
        keep(c, out, firing, &box, view);
    }
    return TROUPE_OK;
}

/* ---- receiving ---- */

static troupe_status check_message(const struct incoming *in, int index) {
    const struct connection *c = in->connection;
    const struct troupe_route_message *message = &in->binding->receives[index];
    struct troupe_wire_header received;
    troupe_wire_unpack(in->headers + index * TROUPE_WIRE_BYTES, &received);
    struct troupe_contract contract = {
        .edge_name = c->name,
        .sender = message->peer,
        .receiver = c->runtime->rank,
        .expected = header_of(c, in->firing, message, in->sample_set, in->normalisation),
    };
    return troupe_contract_check(&contract, &received);
}

/* The input buffer as a matrix of this rank's rows of the microbatch. */
static struct troupe_route_view input_view(const struct incoming *in) {
    struct troupe_box box = in->connection->destination_piece.box;
    box.begin[0] = in->row_begin;
    box.end[0] = in->row_begin + in->view.rows;
    return view_of(in->connection, in->memory, &box);
}

static void report_if_complete(struct incoming *in, int from) {
    const struct connection *c = in->connection;
    if (in->missing[from] == 0) {
        int member = c->runtime->actors[c->options.to[c->to_index]].member;
        troupe_report_arrived(c->runtime, c->edge_base + from * c->options.to_count + c->to_index,
                              in->firing, member);
    }
}

static void on_received(struct troupe_transfer *transfer) {
    struct incoming *in = transfer->arg;
    const struct connection *c = in->connection;
    int index = (int)(transfer - in->transfers);
    troupe_status status = transfer->status;
    if (status == TROUPE_OK) {
        status = check_message(in, index);
    } else if (status == TROUPE_ERROR_CONTRACT) {
        troupe_fail_in(status, "edge %s, rank %d to rank %d, step %lld, microbatch %d", c->name,
                       transfer->peer, c->runtime->rank, (long long)step_of(c, in->firing),
                       microbatch_of(c, in->firing));
    }
    if (status != TROUPE_OK) {
        if (c->runtime->failure == TROUPE_OK) {
            c->runtime->failure = status;
        }
        return;
    }
    const struct troupe_route_message *message = &in->binding->receives[index];
    struct troupe_route_view view = input_view(in);
    if (!troupe_route_message_is_contiguous(message, &view)) {
        troupe_route_message_unpack(message, transfer->segments[1].data, &view);
    }
    int from = c->from_of_rank[message->peer];
    in->missing[from]--;
    in->missing_total--;
    report_if_complete(in, from);
}

static troupe_status bind_input(struct connection *c, struct incoming *in, int64_t firing) {
    struct troupe_message_plan plan;
    TROUPE_TRY(bind(c, in->binding, step_of(c, firing), microbatch_of(c, firing), &plan));
    struct troupe_box box = box_of(&c->destination_piece, c->destination_offsets);
    int64_t rows = box.end[0] - box.begin[0];
    TROUPE_ASSERT(rows <= c->options.to_rows_max, "%s: %lld rows, planned for %lld", c->name,
                  (long long)rows, (long long)c->options.to_rows_max);
    in->firing = firing;
    in->row_begin = box.begin[0];
    in->view = tensor_of(c, in->memory, rows);
    in->sample_set = plan.sample_set;
    in->normalisation = plan.normalisation;
    in->kept_missing = in->binding->kept.box_count > 0 && firing >= c->options.initial;
    in->missing_total = 0;
    memset(in->missing, 0, (size_t)c->options.from_count * sizeof *in->missing);
    return TROUPE_OK;
}

static troupe_status post_receives(struct connection *c, struct incoming *in) {
    struct troupe_route_view view = input_view(in);
    uint8_t *staging = in->staging;
    for (int i = 0; i < in->binding->receive_count; i++) {
        in->missing[c->from_of_rank[in->binding->receives[i].peer]]++;
        in->missing_total++;
    }
    for (int i = 0; i < in->binding->receive_count; i++) {
        const struct troupe_route_message *message = &in->binding->receives[i];
        void *payload = staging;
        if (troupe_route_message_is_contiguous(message, &view)) {
            payload = troupe_route_message_data(message, &view);
        } else {
            staging += message->bytes;
        }
        prepare_transfer(c, &in->transfers[i], message, in->firing,
                         in->headers + i * TROUPE_WIRE_BYTES, payload);
        TROUPE_TRY(troupe_comm_post_receive(c->runtime->comm, &in->transfers[i]));
    }
    return TROUPE_OK;
}

troupe_status troupe_connection_receive(struct connection *c) {
    const troupe_runtime *runtime = c->runtime;
    int m = runtime->options.microbatches;
    int64_t known = m > 0 ? (runtime->step + 1) * m : INT64_MAX;
    while (c->next_receive < c->consumed + c->options.credits && c->next_receive < known) {
        int64_t firing = c->next_receive++;
        struct incoming *in = &c->incoming[firing % c->options.credits];
        TROUPE_TRY(bind_input(c, in, firing));
        if (firing >= c->options.initial) {
            TROUPE_TRY(post_receives(c, in));
        }
    }
    return TROUPE_OK;
}

bool troupe_connection_input_ready(const struct connection *c, int64_t firing) {
    const struct incoming *in = &c->incoming[firing % c->options.credits];
    return in->firing == firing && in->missing_total == 0 && !in->kept_missing;
}

troupe_status troupe_connection_consume(struct connection *c, int64_t firing) {
    TROUPE_ASSERT(firing == c->consumed, "%s: firing %lld read, %lld is next", c->name,
                  (long long)firing, (long long)c->consumed);
    c->consumed++;
    return troupe_connection_receive(c);
}

uint64_t troupe_connection_receivers(struct connection *c, int from, int to, int64_t step,
                                     int microbatch) {
    const struct actor *target = &c->runtime->actors[c->options.to[to]];
    uint64_t members = 0;
    for (int k = 0; k < target->options.rank_count; k++) {
        struct troupe_message_plan plan;
        struct troupe_route_binding *probe = c->probes[target->options.ranks[k]];
        troupe_status status = bind(c, probe, step, microbatch, &plan);
        TROUPE_ASSERT(status == TROUPE_OK, "%s: %s", c->name, troupe_last_error());
        for (int i = 0; i < probe->receive_count; i++) {
            if (c->from_of_rank[probe->receives[i].peer] == from) {
                members |= UINT64_C(1) << k;
            }
        }
    }
    return members;
}

/* ---- building ---- */

/* Without a route: member i of from[j] sends all its rows to member i of to[j]. */
static troupe_status make_plain_layouts(struct connection *c) {
    const struct troupe_connect_options *o = &c->options;
    const struct actor *actors = c->runtime->actors;
    int64_t rows = 0;
    for (int j = 0; j < o->from_count; j++) {
        rows += actors[o->from[j]].options.rank_count * o->from_rows_max;
    }
    struct troupe_layout_options options = {.shape = {rows, o->columns}};
    c->owns_layouts = true;
    TROUPE_TRY(troupe_layout_init(&options, &c->source));
    TROUPE_TRY(troupe_layout_init(&options, &c->destination));
    rows = 0;
    for (int j = 0; j < o->from_count; j++) {
        const struct troupe_spawn_options *from = &actors[o->from[j]].options;
        const struct troupe_spawn_options *to = &actors[o->to[j]].options;
        if (o->from_count != o->to_count || from->rank_count != to->rank_count) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "connection %s: a connection without a route joins gangs of equal "
                               "size one by one, not %s (%d ranks) to %s (%d ranks)",
                               c->name, from->name, from->rank_count, to->name, to->rank_count);
        }
        for (int k = 0; k < from->rank_count; k++, rows += o->from_rows_max) {
            struct troupe_box box = troupe_box_2d(rows, rows + o->from_rows_max, 0, o->columns);
            TROUPE_TRY(troupe_layout_add(&c->source, from->ranks[k], -1, &box));
            TROUPE_TRY(troupe_layout_add(&c->destination, to->ranks[k], -1, &box));
        }
    }
    return TROUPE_OK;
}

static troupe_status compile_route(struct connection *c) {
    if (c->options.route != NULL) {
        return troupe_route_compile(c->options.route, &c->route);
    }
    TROUPE_TRY(make_plain_layouts(c));
    return troupe_route_compile(
        &(struct troupe_route_options){.source = &c->source,
                                       .destination = &c->destination,
                                       .element_bytes = troupe_dtype_bytes(c->options.dtype)},
        &c->route);
}

static struct troupe_layout_piece piece_of(const struct troupe_layout *layout, int rank) {
    for (int i = 0; i < layout->piece_count; i++) {
        if (layout->pieces[i].rank == rank) {
            return layout->pieces[i];
        }
    }
    return (struct troupe_layout_piece){.rank = -1, .part = -1};
}

static void find_sides(struct connection *c) {
    const troupe_runtime *runtime = c->runtime;
    c->from_index = c->to_index = -1;
    for (int r = 0; r < runtime->rank_count; r++) {
        c->from_of_rank[r] = -1;
    }
    for (int j = 0; j < c->options.from_count; j++) {
        const struct troupe_spawn_options *gang = &runtime->actors[c->options.from[j]].options;
        for (int k = 0; k < gang->rank_count; k++) {
            c->from_of_rank[gang->ranks[k]] = j;
        }
    }
    c->from_index = c->from_of_rank[runtime->rank];
    for (int j = 0; j < c->options.to_count; j++) {
        if (runtime->actors[c->options.to[j]].member >= 0) {
            c->to_index = j;
        }
    }
    c->source_piece = piece_of(troupe_route_source(c->route), runtime->rank);
    c->destination_piece = piece_of(troupe_route_destination(c->route), runtime->rank);
}

static troupe_status make_transfers(struct troupe_transfer **transfers, uint8_t **headers,
                                    int count, void (*done)(struct troupe_transfer *), void *arg) {
    TROUPE_TRY(TROUPE_NEW(transfers, count));
    TROUPE_TRY(TROUPE_NEW(headers, count * TROUPE_WIRE_BYTES));
    for (int i = 0; i < count; i++) {
        (*transfers)[i].done = done;
        (*transfers)[i].arg = arg;
    }
    return TROUPE_OK;
}

static troupe_status make_outgoing(struct connection *c) {
    const troupe_runtime *runtime = c->runtime;
    struct actor *actor = &runtime->actors[c->options.from[c->from_index]];
    c->outgoing_count = actor->output[c->options.from_port].buffer_count;
    TROUPE_TRY(TROUPE_NEW(&c->outgoing, c->outgoing_count));
    for (int i = 0; i < c->outgoing_count; i++) {
        struct outgoing *out = &c->outgoing[i];
        out->connection = c;
        TROUPE_TRY(troupe_route_binding_create(c->route, runtime->rank, &out->binding));
        TROUPE_TRY(make_transfers(&out->transfers, &out->headers,
                                  out->binding->sends_max,
                                  on_sent, out));
        TROUPE_TRY(TROUPE_NEW(&out->staging, (size_t)c->options.from_rows_max * row_bytes(c)));
    }
    return TROUPE_OK;
}

static troupe_status make_incoming(struct connection *c) {
    const troupe_runtime *runtime = c->runtime;
    TROUPE_TRY(TROUPE_NEW(&c->incoming, c->options.credits));
    for (int i = 0; i < c->options.credits; i++) {
        struct incoming *in = &c->incoming[i];
        in->connection = c;
        in->firing = -1;
        TROUPE_TRY(troupe_route_binding_create(c->route, runtime->rank, &in->binding));
        TROUPE_TRY(make_transfers(&in->transfers, &in->headers,
                                  in->binding->receives_max,
                                  on_received, in));
        TROUPE_TRY(TROUPE_NEW(&in->missing, c->options.from_count));
        size_t bytes = (size_t)c->options.to_rows_max * row_bytes(c);
        uint8_t *memory = NULL;
        TROUPE_TRY(TROUPE_NEW(&memory, bytes));
        in->memory = memory;
        TROUPE_TRY(TROUPE_NEW(&in->staging, bytes));
    }
    return TROUPE_OK;
}

/* Conductors ask for the receivers of messages between islands, on any rank. */
static troupe_status make_probes(struct connection *c) {
    const troupe_runtime *runtime = c->runtime;
    TROUPE_TRY(TROUPE_NEW(&c->probes, runtime->rank_count));
    for (int j = 0; j < c->options.to_count; j++) {
        const struct troupe_spawn_options *gang = &runtime->actors[c->options.to[j]].options;
        for (int k = 0; k < gang->rank_count; k++) {
            TROUPE_TRY(troupe_route_binding_create(c->route, gang->ranks[k],
                                                   &c->probes[gang->ranks[k]]));
        }
    }
    return TROUPE_OK;
}

troupe_status troupe_connection_build(struct connection *c) {
    const troupe_runtime *runtime = c->runtime;
    TROUPE_TRY(compile_route(c));
    TROUPE_TRY(TROUPE_NEW(&c->from_of_rank, runtime->rank_count));
    TROUPE_TRY(TROUPE_NEW(&c->source_offsets, c->options.source_parts + 1));
    TROUPE_TRY(TROUPE_NEW(&c->destination_offsets, c->options.destination_parts + 1));
    find_sides(c);
    if (c->from_index >= 0) {
        TROUPE_TRY(make_outgoing(c));
    }
    if (c->to_index >= 0) {
        TROUPE_TRY(make_incoming(c));
    }
    if (runtime->conductor_of[runtime->rank] == runtime->rank && c->options.plan != NULL) {
        TROUPE_TRY(make_probes(c));
    }
    return TROUPE_OK;
}

static void destroy_outgoing(struct outgoing *out) {
    troupe_route_binding_destroy(out->binding);
    troupe_free(out->transfers);
    troupe_free(out->headers);
    troupe_free(out->staging);
}

static void destroy_incoming(struct incoming *in) {
    troupe_route_binding_destroy(in->binding);
    troupe_free(in->transfers);
    troupe_free(in->headers);
    troupe_free(in->staging);
    troupe_free(in->memory);
    troupe_free(in->missing);
}

void troupe_connection_destroy(struct connection *c) {
    if (c == NULL) {
        return;
    }
    for (int i = 0; c->outgoing != NULL && i < c->outgoing_count; i++) {
        destroy_outgoing(&c->outgoing[i]);
    }
    for (int i = 0; c->incoming != NULL && i < c->options.credits; i++) {
        destroy_incoming(&c->incoming[i]);
    }
    for (int r = 0; c->probes != NULL && r < c->runtime->rank_count; r++) {
        troupe_route_binding_destroy(c->probes[r]);
    }
    troupe_free(c->outgoing);
    troupe_free(c->incoming);
    troupe_free(c->probes);
    troupe_route_destroy(c->route);
    if (c->owns_layouts) {
        troupe_layout_fini(&c->source);
        troupe_layout_fini(&c->destination);
    }
    troupe_free(c->from_of_rank);
    troupe_free(c->source_offsets);
    troupe_free(c->destination_offsets);
    troupe_free((void *)c->options.from);
    troupe_free((void *)c->options.to);
    troupe_free(c);
}
