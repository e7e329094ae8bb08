/* SPDX-License-Identifier: Apache-2.0
 *
 * Checks a whole plan against the layouts, knowing nothing of how it was made.
 */
#include "comm/route.h"

#include "runtime/memory.h"

/* Elements of the box that the rank holds in the layout. */
static int64_t held_of(const struct troupe_layout *layout, int rank, const struct troupe_box *box) {
    int64_t held = 0;
    struct troupe_box common;
    for (int i = 0; i < layout->piece_count; i++) {
        if (layout->pieces[i].rank == rank &&
            troupe_box_intersect(&layout->pieces[i].box, box, &common)) {
            held += troupe_box_elements(&common);
        }
    }
    return held;
}

/* The rank holds all of the message in this layout. */
static troupe_status check_held(const struct troupe_layout *layout, int rank,
                                const struct troupe_route_message *message, const char *verb) {
    for (int i = 0; i < message->box_count; i++) {
        const struct troupe_box *box = &message->boxes[i];
        if (held_of(layout, rank, box) != troupe_box_elements(box)) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "rank %d %s rows %lld..%lld columns %lld..%lld (peer %d), which are "
                               "not all its own",
                               rank, verb, (long long)box->begin[0], (long long)box->end[0],
                               (long long)box->begin[1], (long long)box->end[1], message->peer);
        }
    }
    return TROUPE_OK;
}

/* No element of message b comes in message a, too; of the same message: boxes are disjoint. */
static troupe_status check_disjoint(int rank, const struct troupe_route_message *a,
                                    const struct troupe_route_message *b) {
    for (int i = 0; i < a->box_count; i++) {
        for (int j = a == b ? i + 1 : 0; j < b->box_count; j++) {
            struct troupe_box common;
            if (troupe_box_intersect(&a->boxes[i], &b->boxes[j], &common)) {
                return troupe_fail(TROUPE_ERROR_INVALID,
                                   "rank %d gets row %lld column %lld twice, from ranks %d and %d",
                                   rank, (long long)common.begin[0], (long long)common.begin[1],
                                   a->peer, b->peer);
            }
        }
    }
    return TROUPE_OK;
}

/* What the rank gets: the received messages, then what it keeps. */
static const struct troupe_route_message *arrival(const struct troupe_route_binding *binding,
                                                  int index) {
    return index < binding->receive_count ? &binding->receives[index] : &binding->kept;
}

static troupe_status check_arrivals(const struct troupe_layout *source,
                                    const struct troupe_layout *destination,
                                    const struct troupe_route_binding *binding) {
    int rank = binding->rank;
    int64_t arrived = 0;
    for (int i = 0; i <= binding->receive_count; i++) {
        const struct troupe_route_message *message = arrival(binding, i);
        TROUPE_TRY(check_held(destination, rank, message, "gets"));
        for (int j = i; j <= binding->receive_count; j++) {
            TROUPE_TRY(check_disjoint(rank, message, arrival(binding, j)));
        }
        arrived += message->elements;
    }
    int64_t needed = troupe_layout_held(destination, rank);
    int64_t lacking = troupe_layout_lacking(source, destination, rank);
    if (arrived != needed) {
        return troupe_fail(TROUPE_ERROR_INVALID, "rank %d needs %lld elements, but gets %lld", rank,
                           (long long)needed, (long long)arrived);
    }
    if (arrived - binding->kept.elements != lacking) {
        return troupe_fail(TROUPE_ERROR_INVALID, "rank %d lacks %lld elements, but receives %lld",
                           rank, (long long)lacking, (long long)(arrived - binding->kept.elements));
    }
    return TROUPE_OK;
}

static bool messages_equal(const struct troupe_route_message *a,
                           const struct troupe_route_message *b) {
    bool equal = a->box_count == b->box_count && a->elements == b->elements &&
                 a->bytes == b->bytes && a->row_begin == b->row_begin &&
                 a->row_count == b->row_count;
    for (int i = 0; equal && i < a->box_count; i++) {
        equal = troupe_box_equal(&a->boxes[i], &b->boxes[i]);
    }
    return equal;
}

/* The receive of `to` from `from`. */
static const struct troupe_route_message *find_receive(struct troupe_route_binding *const *bindings,
                                                       int count, int from, int to) {
    for (int i = 0; i < count; i++) {
        for (int j = 0; bindings[i]->rank == to && j < bindings[i]->receive_count; j++) {
            if (bindings[i]->receives[j].peer == from) {
                return &bindings[i]->receives[j];
            }
        }
    }
    return NULL;
}

static troupe_status check_sends(const struct troupe_layout *source,
                                 struct troupe_route_binding *const *bindings, int count,
                                 const struct troupe_route_binding *sender) {
    for (int i = 0; i < sender->send_count; i++) {
        const struct troupe_route_message *send = &sender->sends[i];
        const struct troupe_route_message *receive =
            find_receive(bindings, count, sender->rank, send->peer);
        TROUPE_TRY(check_held(source, sender->rank, send, "sends"));
        if (receive == NULL || !messages_equal(send, receive)) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "rank %d sends rank %d a message of %zu bytes that rank %d %s",
                               sender->rank, send->peer, send->bytes, send->peer,
                               receive == NULL ? "does not expect" : "expects otherwise");
        }
    }
    return check_held(source, sender->rank, &sender->kept, "keeps");
}

troupe_status troupe_route_check_bindings(const struct troupe_layout *source,
                                          const struct troupe_layout *destination,
                                          struct troupe_route_binding *const *bindings, int count) {
    int sends = 0, receives = 0;
    for (int i = 0; i < count; i++) {
        TROUPE_TRY(check_arrivals(source, destination, bindings[i]));
    }
    for (int i = 0; i < count; i++) {
        TROUPE_TRY(check_sends(source, bindings, count, bindings[i]));
        sends += bindings[i]->send_count;
        receives += bindings[i]->receive_count;
    }
    if (sends != receives) { /* each send has its receive, so a receive lacks its send */
        return troupe_fail(TROUPE_ERROR_INVALID, "%d messages are expected, but %d are sent",
                           receives, sends);
    }
    return TROUPE_OK;
}

/* The layout with its rows: bound if ragged, else itself. */
static troupe_status with_rows(const struct troupe_layout *layout, const int64_t *offsets,
                               struct troupe_layout *bound, const struct troupe_layout **out) {
    *out = layout->ragged ? bound : layout;
    return layout->ragged ? troupe_layout_bind(layout, offsets, bound) : TROUPE_OK;
}

static troupe_status bind_and_check(const troupe_route *route, const int64_t *source_offsets,
                                    const int64_t *destination_offsets,
                                    struct troupe_layout bound[2],
                                    struct troupe_route_binding **bindings) {
    const struct troupe_layout *source = NULL, *destination = NULL;
    int count = troupe_route_rank_count(route);
    TROUPE_TRY(with_rows(troupe_route_source(route), source_offsets, &bound[0], &source));
    TROUPE_TRY(
        with_rows(troupe_route_destination(route), destination_offsets, &bound[1], &destination));
    for (int i = 0; i < count; i++) {
        TROUPE_TRY(troupe_route_binding_create(route, troupe_route_rank(route, i), &bindings[i]));
        TROUPE_TRY(troupe_route_bind(bindings[i], source_offsets, destination_offsets));
    }
    return troupe_route_check_bindings(source, destination, bindings, count);
}

troupe_status troupe_route_check(const troupe_route *route, const int64_t *source_offsets,
                                 const int64_t *destination_offsets) {
    struct troupe_layout bound[2] = {{.ragged = false}, {.ragged = false}};
    struct troupe_route_binding **bindings = NULL;
    int count = troupe_route_rank_count(route);
    TROUPE_TRY(TROUPE_NEW(&bindings, count));
    troupe_status status =
        bind_and_check(route, source_offsets, destination_offsets, bound, bindings);
    for (int i = 0; i < count; i++) {
        troupe_route_binding_destroy(bindings[i]);
    }
    troupe_free(bindings);
    troupe_layout_fini(&bound[0]);
    troupe_layout_fini(&bound[1]);
    return status;
}
