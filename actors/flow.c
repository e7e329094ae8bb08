/* SPDX-License-Identifier: Apache-2.0 */
/* Flows: pairs of ranks of one machine between which the sender's device writes messages into the
 * receiver's tensor by itself (comm/window.h). Only the header travels, and says that the write is
 * enqueued; so no host waits for a device, and a message costs one copy.
 *
 *     receiver: the entry is free    -- grant -->     sender: copies behind its method, behind the
 *                                                     receiver's release of the entry
 *     receiver: contract, ready     <-- header --     (at once)
 *
 * At the start the two ends of each flow find out whether their devices can do that. Where not, and
 * between machines, messages go through pinned memory (copies.c) as if there were no flow. */
#include "actors/runtime_internal.h"
#include "runtime/check.h"
#include "runtime/log.h"
#include "runtime/memory.h"

/* Beside the tags of channels. */
#define FLOW_TAG (TROUPE_EDGE_TAG | UINT64_C(1) << 55)

/* ---- finding them ---- */

static int shard_of(const struct troupe_end *end) {
    return end->edge->options.route != NULL ? 0 : end->shard;
}

static struct troupe_flow *find(const troupe_runtime *runtime, const struct troupe_flow *like) {
    for (int i = 0; i < runtime->flow_count; i++) {
        struct troupe_flow *flow = &runtime->flows[i];
        if (flow->edge == like->edge && flow->peer == like->peer && flow->shard == like->shard &&
            flow->outgoing == like->outgoing) {
            return flow;
        }
    }
    return NULL;
}

struct troupe_flow *troupe_flow_of(const struct troupe_end *end, int peer, bool outgoing) {
    struct troupe_flow *flow = find(end->runtime, &(struct troupe_flow){.edge = end->edge_index,
                                                                        .shard = shard_of(end),
                                                                        .peer = peer,
                                                                        .outgoing = outgoing});
    return flow != NULL && flow->agreed ? flow : NULL;
}

static int credits_of(const troupe_runtime *runtime, const struct troupe_flow *flow) {
    return runtime->edges[flow->edge].options.credits;
}

static int slot_of(const troupe_runtime *runtime, const struct troupe_flow *flow, int64_t message) {
    return (int)(message % credits_of(runtime, flow));
}

/* ---- listing them, before anybody else is asked ---- */

static bool is_near(const troupe_runtime *runtime, int rank) {
    return rank != runtime->rank &&
           troupe_comm_host(runtime->comm, rank) == troupe_comm_host(runtime->comm, runtime->rank);
}

static troupe_status add_flow(troupe_runtime *runtime, const struct troupe_flow *what) {
    if (!is_near(runtime, what->peer) || find(runtime, what) != NULL) {
        return TROUPE_OK;
    }
    TROUPE_TRY(troupe_grow((void **)&runtime->flows, runtime->flow_count, &runtime->flow_capacity,
                           sizeof *runtime->flows));
    struct troupe_flow *flow = &runtime->flows[runtime->flow_count++];
    *flow = *what;
    int credits = credits_of(runtime, flow);
    TROUPE_TRY(TROUPE_NEW(&flow->windows, credits));
    TROUPE_TRY(TROUPE_NEW(&flow->offers, credits));
    TROUPE_TRY(TROUPE_NEW(&flow->answers, credits));
    TROUPE_TRY(TROUPE_NEW(&flow->granted, credits));
    for (int slot = 0; slot < credits; slot++) {
        flow->granted[slot][false] = flow->granted[slot][true] = TROUPE_NOBODY;
    }
    return TROUPE_OK;
}

/* Into the end's tensors: from all that hold or relay its rows. */
static troupe_status add_incoming(struct troupe_inlet *inlet) {
    const struct troupe_end *end = &inlet->end;
    const struct troupe_actor_edge *edge = end->edge;
    struct troupe_flow flow = {.edge = end->edge_index, .shard = shard_of(end), .inlet = inlet};
    if (edge->options.route == NULL) {
        flow.peer = end->runtime->gangs[edge->from[end->shard]].ranks[end->member];
        return add_flow(end->runtime, &flow);
    }
    for (flow.peer = 0; flow.peer < end->runtime->rank_count; flow.peer++) {
        if (edge->shard_of_source[flow.peer] != TROUPE_NOBODY ||
            edge->shard_of_destination[flow.peer] != TROUPE_NOBODY) {
            TROUPE_TRY(add_flow(end->runtime, &flow));
        }
    }
    return TROUPE_OK;
}

/* Out of an outlet, or, for relays, out of an inlet. */
static troupe_status add_outgoing(const struct troupe_end *end) {
    const struct troupe_actor_edge *edge = end->edge;
    struct troupe_flow flow = {.edge = end->edge_index, .shard = shard_of(end), .outgoing = true};
    if (edge->options.route == NULL) {
        flow.peer = end->runtime->gangs[edge->to[end->shard]].ranks[end->member];
        flow.held = (struct troupe_held){
            .pieces = 1, .rows = {.part = -1}, .columns = edge->options.columns};
        return add_flow(end->runtime, &flow);
    }
    for (flow.peer = 0; flow.peer < end->runtime->rank_count; flow.peer++) {
        if (edge->shard_of_destination[flow.peer] != TROUPE_NOBODY) {
            troupe_find_held(edge, flow.peer, &flow.held);
            TROUPE_TRY(add_flow(end->runtime, &flow));
        }
    }
    return TROUPE_OK;
}

troupe_status troupe_make_flows(troupe_runtime *runtime) {
    if (runtime->outgoing == NULL || runtime->options.through_host) {
        return TROUPE_OK;
    }
    for (int i = 0; i < runtime->outlet_count; i++) {
        TROUPE_TRY(add_outgoing(&runtime->outlets[i].end));
    }
    for (int i = 0; i < runtime->inlet_count; i++) {
        TROUPE_TRY(add_incoming(&runtime->inlets[i]));
        if (runtime->inlets[i].end.edge->options.route != NULL) {
            TROUPE_TRY(add_outgoing(&runtime->inlets[i].end));
        }
    }
    return TROUPE_OK;
}

/* ---- agreeing on them ---- */

/* Of the handshake: the receiver's windows, the sender's answer, what the receiver says to that. */
enum phase { OFFER, ANSWER, VERDICT, PHASES };

static bool speaks(const struct troupe_flow *flow, enum phase phase) {
    return (phase == ANSWER) == flow->outgoing;
}

static bool is_on_device(const troupe_runtime *runtime, const struct troupe_flow *flow) {
    const struct troupe_actor_edge *edge = &runtime->edges[flow->edge];
    if (!flow->outgoing) {
        return flow->inlet->end.stream != NULL && flow->inlet->memory != NULL;
    }
    if (flow->held.pieces != 1) { /* a view of its tensor has one stretch here */
        return false;
    }
    for (int i = 0; i < edge->options.from_count + edge->options.to_count; i++) {
        int gang =
            i < edge->options.from_count ? edge->from[i] : edge->to[i - edge->options.from_count];
        if (runtime->gangs[gang].member != TROUPE_NOBODY && runtime->gangs[gang].stream == NULL) {
            return false;
        }
    }
    return true;
}

static troupe_status make_offers(troupe_runtime *runtime, struct troupe_flow *flow) {
    struct troupe_inlet *inlet = flow->inlet;
    size_t bytes = troupe_end_buffer_bytes(&inlet->end);
    for (int slot = 0; slot < inlet->depth; slot++) {
        struct troupe_inlet_entry *entry = &inlet->entries[slot];
        struct troupe_window_options options = {.allocation = inlet->memory,
                                                .offset_bytes = (size_t)slot * bytes,
                                                .bytes = bytes,
                                                .first = entry->window};
        TROUPE_TRY(troupe_window_create(troupe_stream_device(runtime->incoming), &options,
                                        &flow->windows[slot], &flow->offers[slot]));
        entry->window = entry->window != NULL ? entry->window : flow->windows[slot];
    }
    return TROUPE_OK;
}

static troupe_status open_windows(troupe_runtime *runtime, struct troupe_flow *flow) {
    for (int slot = 0; slot < credits_of(runtime, flow); slot++) {
        TROUPE_TRY(troupe_window_open(troupe_stream_device(runtime->outgoing), &flow->offers[slot],
                                      &flow->windows[slot], &flow->answers[slot]));
    }
    return TROUPE_OK;
}

static troupe_status accept_windows(troupe_runtime *runtime, struct troupe_flow *flow) {
    for (int slot = 0; slot < credits_of(runtime, flow); slot++) {
        TROUPE_TRY(troupe_window_accept(flow->windows[slot], &flow->answers[slot]));
    }
    return TROUPE_OK;
}

/* This end's next step; what fails here makes the messages of the flow take the other way. */
static void take_step(troupe_runtime *runtime, struct troupe_flow *flow, enum phase phase) {
    static troupe_status (*const steps[PHASES])(troupe_runtime *, struct troupe_flow *) = {
        [OFFER] = make_offers, [ANSWER] = open_windows, [VERDICT] = accept_windows};
    flow->works =
        phase == OFFER ? is_on_device(runtime, flow) : flow->works && is_on_device(runtime, flow);
    if (flow->works && steps[phase](runtime, flow) != TROUPE_OK) {
        flow->works = false;
        TROUPE_LOG_INFO("actors", "edge %s: messages %s rank %d go through host memory: %s",
                        runtime->edges[flow->edge].name, flow->outgoing ? "to" : "from", flow->peer,
                        troupe_last_error());
    }
}

static struct troupe_segment words_of(const troupe_runtime *runtime, struct troupe_flow *flow,
                                      enum phase phase) {
    size_t credits = (size_t)credits_of(runtime, flow);
    switch (phase) {
    case OFFER:
        return (struct troupe_segment){flow->offers, credits * sizeof *flow->offers};
    case ANSWER:
        return (struct troupe_segment){flow->answers, credits * sizeof *flow->answers};
    default:
        return (struct troupe_segment){NULL, 0};
    }
}

static troupe_status post_words(troupe_runtime *runtime, struct troupe_flow *flow,
                                enum phase phase) {
    flow->transfer = (struct troupe_transfer){
        .peer = flow->peer,
        .tag = FLOW_TAG | (uint64_t)flow->edge << 24 | (uint64_t)flow->shard << 4 | phase,
        .segments = {{&flow->works, sizeof flow->works}, words_of(runtime, flow, phase)},
        .segment_count = phase == VERDICT ? 1 : 2};
    return speaks(flow, phase) ? troupe_comm_post_send(runtime->comm, &flow->transfer)
                               : troupe_comm_post_receive(runtime->comm, &flow->transfer);
}

static troupe_status await_words(troupe_runtime *runtime) {
    for (int i = 0; i < runtime->flow_count; i++) {
        struct troupe_flow *flow = &runtime->flows[i];
        while (flow->tried && flow->transfer.status == TROUPE_AGAIN) {
            if (troupe_comm_progress(runtime->comm) == 0) {
                troupe_comm_idle(runtime->comm);
            }
        }
        TROUPE_TRY(flow->tried ? flow->transfer.status : TROUPE_OK);
    }
    return TROUPE_OK;
}

static troupe_status run_phase(troupe_runtime *runtime, enum phase phase) {
    for (int i = 0; i < runtime->flow_count; i++) {
        struct troupe_flow *flow = &runtime->flows[i];
        if (flow->tried && speaks(flow, phase)) {
            take_step(runtime, flow, phase);
        }
        TROUPE_TRY(flow->tried ? post_words(runtime, flow, phase) : TROUPE_OK);
    }
    return await_words(runtime);
}

/* Flows are tried between ranks with devices of one kind. */
static troupe_status compare_kinds(troupe_runtime *runtime) {
    uint64_t mine = TROUPE_DEVICE_CPU;
    if (runtime->outgoing != NULL) {
        mine = troupe_device_kind(troupe_stream_device(runtime->outgoing));
    }
    TROUPE_TRY(troupe_group_all_gather(runtime->world, &mine, sizeof mine, runtime->hashes));
    for (int i = 0; i < runtime->flow_count; i++) {
        runtime->flows[i].tried = runtime->hashes[runtime->flows[i].peer] == mine;
    }
    return TROUPE_OK;
}

/* Flows of all ranks that are agreed on, and that are not. */
static troupe_status count_flows(troupe_runtime *runtime) {
    int64_t agreed = 0, all = 0;
    for (int i = 0; i < runtime->flow_count; i++) {
        agreed += runtime->flows[i].outgoing && runtime->flows[i].agreed;
        all += runtime->flows[i].outgoing;
    }
    TROUPE_TRY(
        troupe_group_all_reduce(runtime->world, TROUPE_SUM, TROUPE_ELEMENT_INT64, &agreed, 1));
    TROUPE_TRY(troupe_group_all_reduce(runtime->world, TROUPE_SUM, TROUPE_ELEMENT_INT64, &all, 1));
    runtime->flows_agreed = agreed;
    runtime->flows_refused = all - agreed;
    return TROUPE_OK;
}

troupe_status troupe_agree_on_flows(troupe_runtime *runtime) {
    TROUPE_TRY(compare_kinds(runtime));
    for (int phase = OFFER; phase < PHASES; phase++) {
        TROUPE_TRY(run_phase(runtime, (enum phase)phase));
    }
    for (int i = 0; i < runtime->flow_count; i++) {
        runtime->flows[i].agreed = runtime->flows[i].tried && runtime->flows[i].works;
    }
    return count_flows(runtime);
}

/* ---- messages ---- */

void troupe_flow_grant(const struct troupe_piece *piece) {
    const struct troupe_inlet_entry *entry = piece->owner;
    troupe_send_control(
        entry->inlet->end.runtime, piece->flow->peer,
        &(struct troupe_control){.kind = TROUPE_CONTROL_GRANT,
                                 .index = piece->flow->edge,
                                 .slot = piece->flow->shard,
                                 .member = piece->message != NULL && piece->message->relayed,
                                 .firing = entry->message});
}

/* Where the piece comes to lie at its receiver. */
static struct troupe_route_view view_there(const struct troupe_piece *piece) {
    const struct troupe_flow *flow = piece->flow;
    size_t element_bytes = piece->bound->view.element_bytes;
    return (struct troupe_route_view){.row_bytes = (size_t)flow->held.columns * element_bytes,
                                      .element_bytes = element_bytes,
                                      .box = piece->box_there};
}

static troupe_status write_piece(troupe_runtime *runtime, struct troupe_piece *piece) {
    int slot = slot_of(runtime, piece->flow, piece->sequence);
    struct troupe_route_view there = view_there(piece);
    there.data = troupe_window_memory(piece->flow->windows[slot]);
    TROUPE_TRY(troupe_piece_copy_across(runtime, piece, piece->flow->windows[slot], &there));
    return troupe_comm_post_send(runtime->comm, &piece->transfer);
}

static bool is_granted(const troupe_runtime *runtime, const struct troupe_piece *piece) {
    int slot = slot_of(runtime, piece->flow, piece->sequence);
    return piece->flow->granted[slot][piece->relayed] == piece->sequence;
}

static void put_off(troupe_runtime *runtime, struct troupe_piece *piece) {
    struct troupe_piece **end = &runtime->ungranted;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    piece->next = NULL;
    *end = piece;
}

troupe_status troupe_piece_depart(troupe_runtime *runtime, struct troupe_piece *piece) {
    if (piece->flow == NULL) {
        TROUPE_TRY(troupe_piece_copy_out(runtime, piece));
        return troupe_comm_post_send_after(runtime->comm, piece->copied, &piece->transfer);
    }
    if (!is_granted(runtime, piece)) {
        put_off(runtime, piece);
        return TROUPE_OK;
    }
    return write_piece(runtime, piece);
}

void troupe_heed_grant(troupe_runtime *runtime, int from, const struct troupe_control *control) {
    struct troupe_flow *flow =
        find(runtime,
             &(struct troupe_flow){
                 .edge = control->index, .shard = control->slot, .peer = from, .outgoing = true});
    TROUPE_ASSERT(flow != NULL && flow->agreed,
                  "rank %d grants a message on edge %d without a flow", from, control->index);
    flow->granted[slot_of(runtime, flow, control->firing)][control->member] = control->firing;
    for (struct troupe_piece **place = &runtime->ungranted; *place != NULL;
         place = &(*place)->next) {
        struct troupe_piece *piece = *place;
        if (piece->flow == flow && is_granted(runtime, piece)) {
            *place = piece->next;
            troupe_status status = write_piece(runtime, piece);
            if (status != TROUPE_OK) {
                troupe_runtime_fail(runtime, status);
            }
            return; /* a grant is for one piece */
        }
    }
}

/* ---- the end ---- */

static void close_windows(troupe_runtime *runtime, bool outgoing) {
    for (int i = 0; i < runtime->flow_count; i++) {
        struct troupe_flow *flow = &runtime->flows[i];
        /* the first window of an entry last: the others use its event */
        bool of_these = flow->outgoing == outgoing && flow->windows != NULL;
        for (int slot = 0; of_these && slot < credits_of(runtime, flow); slot++) {
            const struct troupe_inlet *inlet = flow->inlet;
            if (outgoing || flow->windows[slot] != inlet->entries[slot].window) {
                troupe_window_close(flow->windows[slot]);
                flow->windows[slot] = NULL;
            }
        }
    }
}

void troupe_let_go_of_flows(troupe_runtime *runtime) {
    close_windows(runtime, true);
}

void troupe_destroy_flows(troupe_runtime *runtime) {
    close_windows(runtime, false);
    for (int i = 0; i < runtime->flow_count; i++) {
        struct troupe_flow *flow = &runtime->flows[i];
        for (int slot = 0; slot < credits_of(runtime, flow) && flow->windows != NULL; slot++) {
            troupe_window_close(flow->windows[slot]);
        }
        troupe_free(flow->windows);
        troupe_free(flow->offers);
        troupe_free(flow->answers);
        troupe_free(flow->granted);
    }
    troupe_free(runtime->flows);
}
