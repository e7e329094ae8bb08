/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiling and binding. A needed box is cut until each part of it has one set of holders; each
 * part becomes a hop from the holder that the rule names. In ragged layouts a hop stands for the
 * rows that a source part and a destination part have in common, which bind works out.
 */
#include "comm/route.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/memory.h"

enum hop_kind { HOP_SEND, HOP_RECEIVE, HOP_KEEP };

/* A box on its way between two ranks, seen from one of them. */
struct troupe_route_hop {
    enum hop_kind kind;
    int peer;
    int source_part; /* -1 if the rows are in the box */
    int destination_part;
    struct troupe_box box;
};

/* A piece of a layout with what the choice of holders asks. */
struct place {
    struct troupe_layout_piece piece;
    bool first; /* of its rank in the layout */
    int host;
    int slot;      /* index of its rank among the ranks of the layout */
    int host_slot; /* the same among those on its host */
};

struct side {
    struct troupe_layout layout;
    int part_count; /* 1 if not ragged: then part 0 holds all pieces */
    int place_count;
    struct place *places;         /* in the order of the layout */
    const struct place **by_part; /* the same, by part */
    int *part_begin;              /* part_count + 1 indices into by_part */
};

struct troupe_route {
    size_t element_bytes;
    struct side source;
    struct side destination;
    int rank_count;
    int *ranks;
};

/* ---- sides ---- */

/* Fills place `index`, given those before it. */
static void set_place(struct side *side, int index, const int *host_of_rank) {
    struct place *place = &side->places[index];
    place->piece = side->layout.pieces[index];
    place->host = host_of_rank == NULL ? 0 : host_of_rank[place->piece.rank];
    for (int i = 0; i < index; i++) {
        const struct place *before = &side->places[i];
        if (before->piece.rank == place->piece.rank) {
            place->slot = before->slot;
            place->host_slot = before->host_slot;
            return;
        }
        place->slot += before->first;
        place->host_slot += before->first && before->host == place->host;
    }
    place->first = true;
}

static troupe_status copy_layout(const struct troupe_layout *layout, struct troupe_layout *out) {
    struct troupe_layout copy = *layout;
    copy.piece_capacity = layout->piece_count;
    TROUPE_TRY(TROUPE_NEW(&copy.pieces, layout->piece_count));
    if (layout->piece_count > 0) {
        memcpy(copy.pieces, layout->pieces, (size_t)layout->piece_count * sizeof *copy.pieces);
    }
    *out = copy;
    return TROUPE_OK;
}

static troupe_status side_init(struct side *side, const struct troupe_layout *layout,
                               const int *host_of_rank) {
    TROUPE_TRY(copy_layout(layout, &side->layout));
    side->place_count = layout->piece_count;
    side->part_count = layout->ragged ? layout->part_count : 1;
    TROUPE_TRY(TROUPE_NEW(&side->places, side->place_count));
    TROUPE_TRY(TROUPE_NEW(&side->by_part, side->place_count));
    TROUPE_TRY(TROUPE_NEW(&side->part_begin, side->part_count + 1));
    for (int i = 0; i < side->place_count; i++) {
        set_place(side, i, host_of_rank);
    }
    int count = 0;
    for (int part = 0; part < side->part_count; part++) {
        side->part_begin[part] = count;
        for (int i = 0; i < side->place_count; i++) {
            if (!layout->ragged || layout->pieces[i].part == part) {
                side->by_part[count++] = &side->places[i];
            }
        }
    }
    side->part_begin[side->part_count] = count;
    return TROUPE_OK;
}

static void side_fini(struct side *side) {
    troupe_layout_fini(&side->layout);
    troupe_free(side->places);
    troupe_free(side->by_part);
    troupe_free(side->part_begin);
}

/* ---- hops ---- */

/* A search for the hops of one rank, or with rank < 0 only a check that all needs are held. */
struct search {
    const troupe_route *route;
    int rank;
    int source_part;
    const struct place *need;
    struct troupe_route_hop *hops;
    int hop_count;
    int hop_capacity;
};

static troupe_status add_hop(struct search *search, const struct troupe_route_hop *hop) {
    if (search->hop_count == search->hop_capacity) {
        int capacity = search->hop_capacity == 0 ? 16 : 2 * search->hop_capacity;
        struct troupe_route_hop *hops = NULL;
        TROUPE_TRY(TROUPE_NEW(&hops, capacity));
        if (search->hop_count > 0) {
            memcpy(hops, search->hops, (size_t)search->hop_count * sizeof *hops);
        }
        troupe_free(search->hops);
        search->hops = hops;
        search->hop_capacity = capacity;
    }
    search->hops[search->hop_count++] = *hop;
    return TROUPE_OK;
}

/* Who holds a box that no border of a source piece cuts. */
struct holders {
    const struct place *self; /* the destination itself, or NULL */
    int near;                 /* on its host */
    int all;
};

static struct holders find_holders(const struct search *search, const struct troupe_box *box) {
    const struct side *source = &search->route->source;
    struct holders holders = {.self = NULL};
    struct troupe_box common;
    int end = source->part_begin[search->source_part + 1];
    for (int i = source->part_begin[search->source_part]; i < end; i++) {
        const struct place *place = source->by_part[i];
        if (troupe_box_intersect(&place->piece.box, box, &common)) {
            holders.self = place->piece.rank == search->need->piece.rank ? place : holders.self;
            holders.near += place->host == search->need->host;
            holders.all++;
        }
    }
    return holders;
}

/* The holder whose turn it is, of those on the destination's host if there are any. */
static const struct place *take_turn(const struct search *search, const struct troupe_box *box,
                                     const struct holders *holders) {
    const struct side *source = &search->route->source;
    const struct place *need = search->need;
    struct troupe_box common;
    int turn = holders->near > 0 ? need->host_slot % holders->near : need->slot % holders->all;
    for (int i = source->part_begin[search->source_part];; i++) {
        const struct place *place = source->by_part[i];
        if (troupe_box_intersect(&place->piece.box, box, &common) &&
            (holders->near == 0 || place->host == need->host) && turn-- == 0) {
            return place;
        }
    }
}

/* Makes the hop that brings the box to the destination, if it concerns the rank. */
static troupe_status choose(struct search *search, const struct troupe_box *box) {
    struct holders holders = find_holders(search, box);
    if (holders.all == 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "rank %d needs elements at row %lld, column %lld that no rank of the "
                           "source holds",
                           search->need->piece.rank, (long long)box->begin[0],
                           (long long)box->begin[1]);
    }
    const struct place *chosen =
        holders.self != NULL ? holders.self : take_turn(search, box, &holders);
    int from = chosen->piece.rank, to = search->need->piece.rank;
    if (search->rank != from && search->rank != to) {
        return TROUPE_OK;
    }
    struct troupe_route_hop hop = {.kind = HOP_RECEIVE,
                                   .peer = from,
                                   .source_part = chosen->piece.part,
                                   .destination_part = search->need->piece.part,
                                   .box = *box};
    if (search->rank == from) {
        hop.kind = from == to ? HOP_KEEP : HOP_SEND;
        hop.peer = to;
    }
    return add_hop(search, &hop);
}

/* Where a border of a source piece cuts the box: the dimension, or -1 if none does. */
static int find_cut(const struct search *search, const struct troupe_box *box, int64_t *at) {
    const struct side *source = &search->route->source;
    int end = source->part_begin[search->source_part + 1];
    for (int i = source->part_begin[search->source_part]; i < end; i++) {
        const struct troupe_box *held = &source->by_part[i]->piece.box;
        struct troupe_box common;
        if (!troupe_box_intersect(held, box, &common)) {
            continue;
        }
        for (int d = 0; d < TROUPE_BOX_DIMENSIONS; d++) {
            if (common.begin[d] > box->begin[d] || common.end[d] < box->end[d]) {
                *at = common.begin[d] > box->begin[d] ? common.begin[d] : common.end[d];
                return d;
            }
        }
    }
    return -1;
}

static troupe_status cover(struct search *search, const struct troupe_box *box) {
    int64_t at = 0;
    if (troupe_box_elements(box) == 0) {
        return TROUPE_OK;
    }
    int dimension = find_cut(search, box, &at);
    if (dimension < 0) {
        return choose(search, box);
    }
    struct troupe_box low = *box, high = *box;
    low.end[dimension] = at;
    high.begin[dimension] = at;
    TROUPE_TRY(cover(search, &low));
    return cover(search, &high);
}

/* Whether the rank can have to do with rows of this part at all. */
static bool holds_part(const struct side *source, int part, int rank) {
    for (int i = source->part_begin[part]; i < source->part_begin[part + 1]; i++) {
        if (source->by_part[i]->piece.rank == rank) {
            return true;
        }
    }
    return false;
}

static troupe_status find_hops(struct search *search) {
    const struct side *source = &search->route->source;
    const struct side *destination = &search->route->destination;
    for (int part = 0; part < source->part_count; part++) {
        bool sender = search->rank < 0 || holds_part(source, part, search->rank);
        for (int i = 0; i < destination->place_count; i++) {
            search->source_part = part;
            search->need = &destination->places[i];
            if (sender || search->need->piece.rank == search->rank) {
                TROUPE_TRY(cover(search, &search->need->piece.box));
            }
        }
    }
    return TROUPE_OK;
}

/* ---- order ---- */

static int compare_int64(int64_t a, int64_t b) {
    return (a > b) - (a < b);
}

/* By what both ends know: the boxes of a message are in the same order on both. */
static int compare_hops(const void *left, const void *right) {
    const struct troupe_route_hop *a = left, *b = right;
    int order = compare_int64(a->kind, b->kind);
    order = order != 0 ? order : compare_int64(a->peer, b->peer);
    order = order != 0 ? order : compare_int64(a->source_part, b->source_part);
    order = order != 0 ? order : compare_int64(a->destination_part, b->destination_part);
    for (int d = 0; order == 0 && d < TROUPE_BOX_DIMENSIONS; d++) {
        order = compare_int64(a->box.begin[d], b->box.begin[d]);
    }
    return order;
}

/* Joins b to a if together they are a box and b begins where a ends. */
static bool join_boxes(struct troupe_box *a, const struct troupe_box *b) {
    int apart = -1;
    for (int d = 0; d < TROUPE_BOX_DIMENSIONS; d++) {
        if (a->begin[d] != b->begin[d] || a->end[d] != b->end[d]) {
            if (apart >= 0 || a->end[d] != b->begin[d]) {
                return false;
            }
            apart = d;
        }
    }
    if (apart < 0) {
        return false;
    }
    a->end[apart] = b->end[apart];
    return true;
}

static bool join_hops(struct troupe_route_hop *a, const struct troupe_route_hop *b) {
    return a->kind == b->kind && a->peer == b->peer && a->source_part == b->source_part &&
           a->destination_part == b->destination_part && join_boxes(&a->box, &b->box);
}

static void sort_and_join(struct search *search) {
    if (search->hop_count == 0) {
        return;
    }
    qsort(search->hops, (size_t)search->hop_count, sizeof *search->hops, compare_hops);
    int last = 0;
    for (int i = 1; i < search->hop_count; i++) {
        search->hops[++last] = search->hops[i];
        while (last > 0 && join_hops(&search->hops[last - 1], &search->hops[last])) {
            last--;
        }
    }
    search->hop_count = last + 1;
}

/* ---- routes ---- */

static int compare_ranks(const void *left, const void *right) {
    return compare_int64(*(const int *)left, *(const int *)right);
}

static troupe_status collect_ranks(troupe_route *route) {
    const struct side *sides[2] = {&route->source, &route->destination};
    int all = route->source.place_count + route->destination.place_count, count = 0;
    TROUPE_TRY(TROUPE_NEW(&route->ranks, all));
    for (int s = 0; s < 2; s++) {
        for (int i = 0; i < sides[s]->place_count; i++) {
            route->ranks[count++] = sides[s]->places[i].piece.rank;
        }
    }
    qsort(route->ranks, (size_t)count, sizeof *route->ranks, compare_ranks);
    for (int i = 0; i < count; i++) {
        if (i == 0 || route->ranks[i] != route->ranks[i - 1]) {
            route->ranks[route->rank_count++] = route->ranks[i];
        }
    }
    return TROUPE_OK;
}

static troupe_status check_shapes(const struct troupe_layout *source,
                                  const struct troupe_layout *destination) {
    if (source->ragged != destination->ragged) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "the %s layout is ragged and the other is not: bind it first",
                           source->ragged ? "source" : "destination");
    }
    for (int d = 0; d < TROUPE_BOX_DIMENSIONS; d++) {
        if (source->shape[d] != destination->shape[d]) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "dimension %d has extent %lld in the source layout and %lld in the "
                               "destination layout",
                               d, (long long)source->shape[d], (long long)destination->shape[d]);
        }
    }
    return TROUPE_OK;
}

troupe_status troupe_route_compile(const struct troupe_route_options *options, troupe_route **out) {
    TROUPE_ASSERT(options->element_bytes > 0, "element_bytes %zu", options->element_bytes);
    TROUPE_TRY(check_shapes(options->source, options->destination));
    troupe_route *route = NULL;
    TROUPE_TRY(TROUPE_NEW(&route, 1));
    route->element_bytes = options->element_bytes;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY_FAIL(side_init(&route->source, options->source, options->host_of_rank));
    TROUPE_TRY_FAIL(side_init(&route->destination, options->destination, options->host_of_rank));
    TROUPE_TRY_FAIL(collect_ranks(route));
    TROUPE_TRY_FAIL(find_hops(&(struct search){.route = route, .rank = -1}));
    *out = route;
    return TROUPE_OK;
fail:
    troupe_route_destroy(route);
    return status;
}

void troupe_route_destroy(troupe_route *route) {
    if (route == NULL) {
        return;
    }
    side_fini(&route->source);
    side_fini(&route->destination);
    troupe_free(route->ranks);
    troupe_free(route);
}

int troupe_route_rank_count(const troupe_route *route) {
    return route->rank_count;
}

int troupe_route_rank(const troupe_route *route, int index) {
    TROUPE_ASSERT(index >= 0 && index < route->rank_count, "rank %d of %d", index,
                  route->rank_count);
    return route->ranks[index];
}

const struct troupe_layout *troupe_route_source(const troupe_route *route) {
    return &route->source.layout;
}

const struct troupe_layout *troupe_route_destination(const troupe_route *route) {
    return &route->destination.layout;
}

/* ---- binding ---- */

static int count_peers(const struct troupe_route_binding *binding, enum hop_kind kind) {
    int count = 0, peer = -1;
    for (int i = 0; i < binding->hop_count; i++) {
        const struct troupe_route_hop *hop = &binding->hops[i];
        if (hop->kind == kind && (count == 0 || hop->peer != peer)) {
            peer = hop->peer;
            count++;
        }
    }
    return count;
}

troupe_status troupe_route_binding_create(const troupe_route *route, int rank,
                                          struct troupe_route_binding **out) {
    struct troupe_route_binding *binding = NULL;
    TROUPE_TRY(TROUPE_NEW(&binding, 1));
    binding->rank = rank;
    binding->route = route;
    struct search search = {.route = route, .rank = rank};
    troupe_status status = find_hops(&search);
    sort_and_join(&search);
    binding->hops = search.hops;
    binding->hop_count = search.hop_count;
    TROUPE_TRY_FAIL(status);
    binding->sends_max = count_peers(binding, HOP_SEND);
    binding->receives_max = count_peers(binding, HOP_RECEIVE);
    TROUPE_TRY_FAIL(TROUPE_NEW(&binding->sends, binding->sends_max));
    TROUPE_TRY_FAIL(TROUPE_NEW(&binding->receives, binding->receives_max));
    TROUPE_TRY_FAIL(TROUPE_NEW(&binding->boxes, binding->hop_count));
    *out = binding;
    return TROUPE_OK;
fail:
    troupe_route_binding_destroy(binding);
    return status;
}

void troupe_route_binding_destroy(struct troupe_route_binding *binding) {
    if (binding == NULL) {
        return;
    }
    troupe_free(binding->hops);
    troupe_free(binding->sends);
    troupe_free(binding->receives);
    troupe_free(binding->boxes);
    troupe_free(binding);
}

/* Ascending from 0; the total is out. */
static troupe_status check_offsets(const char *side_name, const struct side *side,
                                   const int64_t *offsets, int64_t *total) {
    *total = 0;
    if (!side->layout.ragged) {
        TROUPE_ASSERT(offsets == NULL, "offsets for a %s layout that is not ragged", side_name);
        return TROUPE_OK;
    }
    if (offsets[0] != 0) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s rows begin at %lld, not at 0", side_name,
                           (long long)offsets[0]);
    }
    for (int part = 0; part < side->part_count; part++) {
        if (offsets[part] > offsets[part + 1]) {
            return troupe_fail(TROUPE_ERROR_INVALID, "%s part %d has rows %lld..%lld", side_name,
                               part, (long long)offsets[part], (long long)offsets[part + 1]);
        }
    }
    *total = offsets[side->part_count];
    return TROUPE_OK;
}

/* The hop's box in this microbatch; false if it has no rows. */
static bool hop_box(const struct troupe_route_hop *hop, const int64_t *source_offsets,
                    const int64_t *destination_offsets, struct troupe_box *out) {
    *out = hop->box;
    if (hop->source_part < 0) {
        return true;
    }
    const int64_t *from = source_offsets + hop->source_part;
    const int64_t *to = destination_offsets + hop->destination_part;
    out->begin[0] = from[0] > to[0] ? from[0] : to[0];
    out->end[0] = from[1] < to[1] ? from[1] : to[1];
    return out->begin[0] < out->end[0];
}

/* The message that the hop belongs to; a new one if the last of its kind has another peer. */
static struct troupe_route_message *message_of(struct troupe_route_binding *binding,
                                               const struct troupe_route_hop *hop) {
    if (hop->kind == HOP_KEEP) {
        return &binding->kept;
    }
    bool send = hop->kind == HOP_SEND;
    struct troupe_route_message *messages = send ? binding->sends : binding->receives;
    int *count = send ? &binding->send_count : &binding->receive_count;
    if (*count == 0 || messages[*count - 1].peer != hop->peer) {
        messages[(*count)++] = (struct troupe_route_message){.peer = hop->peer};
    }
    return &messages[*count - 1];
}

/* Boxes of a message are adjacent in binding->boxes, because its hops are adjacent. */
static void add_box(struct troupe_route_message *message, struct troupe_box *slot,
                    const struct troupe_box *box, int *box_count) {
    message->elements += troupe_box_elements(box);
    if (message->box_count == 0) {
        message->boxes = slot;
        message->row_begin = box->begin[0];
    } else if (join_boxes(slot - 1, box)) {
        return;
    }
    *slot = *box;
    message->box_count++;
    ++*box_count;
}

static void finish_messages(struct troupe_route_message *messages, int count,
                            size_t element_bytes) {
    for (int i = 0; i < count; i++) {
        struct troupe_route_message *m = &messages[i];
        int64_t row_end = m->row_begin;
        for (int b = 0; b < m->box_count; b++) {
            row_end = m->boxes[b].end[0] > row_end ? m->boxes[b].end[0] : row_end;
        }
        m->row_count = row_end - m->row_begin;
        m->bytes = (size_t)m->elements * element_bytes;
    }
}

troupe_status troupe_route_bind(struct troupe_route_binding *binding, const int64_t *source_offsets,
                                const int64_t *destination_offsets) {
    const troupe_route *route = binding->route;
    binding->send_count = 0;
    binding->receive_count = 0;
    binding->kept = (struct troupe_route_message){.peer = binding->rank};
    int64_t sent = 0, received = 0;
    TROUPE_TRY(check_offsets("source", &route->source, source_offsets, &sent));
    TROUPE_TRY(check_offsets("destination", &route->destination, destination_offsets, &received));
    if (sent != received) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "the source splits %lld rows and the destination %lld: the two sides "
                           "disagree about the microbatch",
                           (long long)sent, (long long)received);
    }
    int box_count = 0;
    for (int i = 0; i < binding->hop_count; i++) {
        struct troupe_box box;
        if (hop_box(&binding->hops[i], source_offsets, destination_offsets, &box)) {
            add_box(message_of(binding, &binding->hops[i]), binding->boxes + box_count, &box,
                    &box_count);
        }
    }
    finish_messages(binding->sends, binding->send_count, route->element_bytes);
    finish_messages(binding->receives, binding->receive_count, route->element_bytes);
    finish_messages(&binding->kept, 1, route->element_bytes);
    return TROUPE_OK;
}

struct troupe_route_bytes troupe_route_binding_bytes(const struct troupe_route_binding *binding) {
    struct troupe_route_bytes bytes = {.kept = binding->kept.bytes};
    for (int i = 0; i < binding->send_count; i++) {
        bytes.sent += binding->sends[i].bytes;
    }
    for (int i = 0; i < binding->receive_count; i++) {
        bytes.received += binding->receives[i].bytes;
    }
    return bytes;
}
