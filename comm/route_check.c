/* SPDX-License-Identifier: Apache-2.0
 *
 * Checks a whole plan against the layouts, knowing nothing of how it was made.
 */
#include <stdlib.h>
#include <string.h>

#include "comm/route_internal.h"
#include "runtime/memory.h"

/* A box and where it comes from. */
struct arrival {
    struct troupe_box box;
    int rank; /* that gets it */
    int peer;
};

/* The plan, indexed by rank. */
struct plan {
    const struct troupe_layout *layouts[2]; /* source, destination */
    struct troupe_route_binding *const *bindings;
    int count;
    const int *host_of_rank;                /* NULL: one host */
    int rank_end;                           /* one more than the largest rank */
    struct troupe_route_span *pieces_of[2]; /* by rank: of the lists */
    const struct troupe_layout_piece **pieces[2];
    const struct troupe_route_binding **binding_of; /* by rank */
    struct arrival *arrivals;
};

static int host_of(const struct plan *plan, int rank) {
    return plan->host_of_rank == NULL ? 0 : plan->host_of_rank[rank];
}

/* ---- the index ---- */

static troupe_status index_pieces(struct plan *plan, int side) {
    const struct troupe_layout *layout = plan->layouts[side];
    TROUPE_TRY(TROUPE_NEW(&plan->pieces_of[side], plan->rank_end + 1));
    TROUPE_TRY(TROUPE_NEW(&plan->pieces[side], layout->piece_count));
    struct troupe_route_span *spans = plan->pieces_of[side];
    for (int i = 0; i < layout->piece_count; i++) {
        spans[layout->pieces[i].rank].end++;
    }
    for (int rank = 0, sum = 0; rank < plan->rank_end; rank++) {
        int count = spans[rank].end;
        spans[rank].begin = spans[rank].end = sum;
        sum += count;
    }
    for (int i = 0; i < layout->piece_count; i++) {
        plan->pieces[side][spans[layout->pieces[i].rank].end++] = &layout->pieces[i];
    }
    return TROUPE_OK;
}

static int arrival_count(const struct troupe_route_binding *binding) {
    int count = binding->kept.box_count;
    for (int i = 0; i < binding->receive_count; i++) {
        count += binding->receives[i].box_count;
    }
    return count;
}

static troupe_status plan_init(struct plan *plan) {
    int64_t arrivals = 0;
    for (int side = 0; side < 2; side++) {
        for (int i = 0; i < plan->layouts[side]->piece_count; i++) {
            int rank = plan->layouts[side]->pieces[i].rank;
            plan->rank_end = rank >= plan->rank_end ? rank + 1 : plan->rank_end;
        }
    }
    for (int i = 0; i < plan->count; i++) {
        int rank = plan->bindings[i]->rank;
        plan->rank_end = rank >= plan->rank_end ? rank + 1 : plan->rank_end;
        arrivals += arrival_count(plan->bindings[i]);
    }
    TROUPE_TRY(index_pieces(plan, 0));
    TROUPE_TRY(index_pieces(plan, 1));
    TROUPE_TRY(TROUPE_NEW(&plan->binding_of, plan->rank_end));
    for (int i = 0; i < plan->count; i++) {
        plan->binding_of[plan->bindings[i]->rank] = plan->bindings[i];
    }
    return TROUPE_NEW(&plan->arrivals, arrivals);
}

static void plan_fini(struct plan *plan) {
    for (int side = 0; side < 2; side++) {
        troupe_free(plan->pieces_of[side]);
        troupe_free(plan->pieces[side]);
    }
    troupe_free(plan->binding_of);
    troupe_free(plan->arrivals);
}

/* ---- boxes ---- */

/* Elements of the box that the rank holds in the layout of the side. */
static int64_t held_of(const struct plan *plan, int side, int rank, const struct troupe_box *box) {
    int64_t held = 0;
    struct troupe_box common;
    struct troupe_route_span span = plan->pieces_of[side][rank];
    for (int i = span.begin; i < span.end; i++) {
        if (troupe_box_intersect(&plan->pieces[side][i]->box, box, &common)) {
            held += troupe_box_elements(&common);
        }
    }
    return held;
}

/* The rank holds all of the message in this layout. */
static troupe_status check_held(const struct plan *plan, int side, int rank,
                                const struct troupe_route_message *message, const char *verb) {
    for (int i = 0; i < message->box_count; i++) {
        const struct troupe_box *box = &message->boxes[i];
        if (held_of(plan, side, rank, box) != troupe_box_elements(box)) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "rank %d %s rows %lld..%lld columns %lld..%lld (peer %d), which are "
                               "not all its own",
                               rank, verb, (long long)box->begin[0], (long long)box->end[0],
                               (long long)box->begin[1], (long long)box->end[1], message->peer);
        }
    }
    return TROUPE_OK;
}

static int compare_arrivals(const void *left, const void *right) {
    const struct troupe_box *a = &((const struct arrival *)left)->box;
    const struct troupe_box *b = &((const struct arrival *)right)->box;
    return (a->begin[0] > b->begin[0]) - (a->begin[0] < b->begin[0]);
}

/* Finds two arrivals that have an element in common; sorts them by rows. */
static bool find_overlap(struct arrival *arrivals, int count, const struct arrival **one,
                         const struct arrival **other, struct troupe_box *common) {
    qsort(arrivals, (size_t)count, sizeof *arrivals, compare_arrivals);
    for (int i = 0; i < count; i++) {
        for (int j = i + 1; j < count && arrivals[j].box.begin[0] < arrivals[i].box.end[0]; j++) {
            if (troupe_box_intersect(&arrivals[i].box, &arrivals[j].box, common)) {
                *one = &arrivals[i];
                *other = &arrivals[j];
                return true;
            }
        }
    }
    return false;
}

static int list_boxes(const struct troupe_route_message *message, int rank, struct arrival *out) {
    for (int i = 0; i < message->box_count; i++) {
        out[i] = (struct arrival){message->boxes[i], rank, message->peer};
    }
    return message->box_count;
}

/* ---- what a rank gets (LB1) ---- */

static troupe_status check_once(const struct plan *plan,
                                const struct troupe_route_binding *binding) {
    int count = list_boxes(&binding->kept, binding->rank, plan->arrivals);
    for (int i = 0; i < binding->receive_count; i++) {
        count += list_boxes(&binding->receives[i], binding->rank, plan->arrivals + count);
    }
    const struct arrival *a = NULL, *b = NULL;
    struct troupe_box common;
    if (find_overlap(plan->arrivals, count, &a, &b, &common)) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "rank %d gets row %lld column %lld twice, from ranks %d and %d",
                           binding->rank, (long long)common.begin[0], (long long)common.begin[1],
                           a->peer, b->peer);
    }
    return TROUPE_OK;
}

/* Elements that the rank needs; without those it has already, if `lacking`. */
static int64_t needed_by(const struct plan *plan, int rank, bool lacking) {
    int64_t needed = 0;
    struct troupe_route_span span = plan->pieces_of[1][rank];
    for (int i = span.begin; i < span.end; i++) {
        const struct troupe_box *box = &plan->pieces[1][i]->box;
        needed += troupe_box_elements(box) - (lacking ? held_of(plan, 0, rank, box) : 0);
    }
    return needed;
}

static troupe_status check_arrivals(const struct plan *plan,
                                    const struct troupe_route_binding *binding) {
    int rank = binding->rank;
    int64_t received = 0, needed = needed_by(plan, rank, false);
    for (int i = 0; i < binding->receive_count; i++) {
        TROUPE_TRY(check_held(plan, 1, rank, &binding->receives[i], "gets"));
        received += binding->receives[i].elements;
    }
    TROUPE_TRY(check_held(plan, 1, rank, &binding->kept, "keeps"));
    TROUPE_TRY(check_once(plan, binding));
    int64_t arrived = received + binding->kept.elements, lacking = needed_by(plan, rank, true);
    if (arrived != needed) {
        return troupe_fail(TROUPE_ERROR_INVALID, "rank %d needs %lld elements, but gets %lld", rank,
                           (long long)needed, (long long)arrived);
    }
    if (received != lacking) {
        return troupe_fail(TROUPE_ERROR_INVALID, "rank %d lacks %lld elements, but receives %lld",
                           rank, (long long)lacking, (long long)received);
    }
    return TROUPE_OK;
}

/* ---- both ends of a message ---- */

static bool messages_equal(const struct troupe_route_message *a,
                           const struct troupe_route_message *b) {
    bool equal = a->box_count == b->box_count && a->elements == b->elements &&
                 a->bytes == b->bytes && a->row_begin == b->row_begin &&
                 a->row_count == b->row_count && a->origin == b->origin;
    for (int i = 0; equal && i < a->box_count; i++) {
        equal = troupe_box_equal(&a->boxes[i], &b->boxes[i]);
    }
    return equal;
}

static const struct troupe_route_message *find_receive(const struct troupe_route_binding *binding,
                                                       int from, bool relayed) {
    for (int i = 0; binding != NULL && i < binding->receive_count; i++) {
        if (binding->receives[i].peer == from && binding->receives[i].relayed == relayed) {
            return &binding->receives[i];
        }
    }
    return NULL;
}

static troupe_status check_message(const struct plan *plan, int from,
                                   const struct troupe_route_message *send) {
    const struct troupe_route_binding *to =
        send->peer < plan->rank_end ? plan->binding_of[send->peer] : NULL;
    const struct troupe_route_message *receive = find_receive(to, from, send->relayed);
    if (receive == NULL || !messages_equal(send, receive)) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "rank %d sends rank %d a message of %zu bytes that rank %d %s", from,
                           send->peer, send->bytes, send->peer,
                           receive == NULL ? "does not expect" : "expects otherwise");
    }
    return TROUPE_OK;
}

static int64_t common_elements(const struct troupe_route_message *message,
                               const struct troupe_box *box) {
    int64_t elements = 0;
    struct troupe_box common;
    bool far = message->row_begin >= box->end[0] ||
               message->row_begin + message->row_count <= box->begin[0];
    for (int i = 0; i < message->box_count && !far; i++) {
        if (troupe_box_intersect(&message->boxes[i], box, &common)) {
            elements += troupe_box_elements(&common);
        }
    }
    return elements;
}

/* A relayed box is all in what the rank receives from others than relays: so it never waits for
 * something that waits for it. */
static troupe_status check_relayed(const struct troupe_route_binding *binding,
                                   const struct troupe_route_message *relay) {
    for (int i = 0; i < relay->box_count; i++) {
        int64_t first_hand = 0;
        for (int m = 0; m < binding->receive_count; m++) {
            if (!binding->receives[m].relayed) {
                first_hand += common_elements(&binding->receives[m], &relay->boxes[i]);
            }
        }
        if (first_hand != troupe_box_elements(&relay->boxes[i])) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "rank %d relays rows %lld..%lld to rank %d, but does not get them "
                               "from a holder",
                               binding->rank, (long long)relay->boxes[i].begin[0],
                               (long long)relay->boxes[i].end[0], relay->peer);
        }
    }
    return TROUPE_OK;
}

static troupe_status check_sends(const struct plan *plan,
                                 const struct troupe_route_binding *sender) {
    for (int i = 0; i < sender->send_count; i++) {
        TROUPE_TRY(check_held(plan, 0, sender->rank, &sender->sends[i], "sends"));
        TROUPE_TRY(check_message(plan, sender->rank, &sender->sends[i]));
    }
    for (int i = 0; i < sender->relay_count; i++) {
        TROUPE_TRY(check_relayed(sender, &sender->relays[i]));
        TROUPE_TRY(check_message(plan, sender->rank, &sender->relays[i]));
    }
    return check_held(plan, 0, sender->rank, &sender->kept, "keeps");
}

/* ---- what a host imports (LB2) ---- */

static troupe_status check_host(const struct plan *plan, int host) {
    int count = 0;
    for (int i = 0; i < plan->count; i++) {
        const struct troupe_route_binding *binding = plan->bindings[i];
        for (int m = 0; m < binding->receive_count && host_of(plan, binding->rank) == host; m++) {
            if (host_of(plan, binding->receives[m].peer) != host) {
                count += list_boxes(&binding->receives[m], binding->rank, plan->arrivals + count);
            }
        }
    }
    const struct arrival *a = NULL, *b = NULL;
    struct troupe_box common;
    if (find_overlap(plan->arrivals, count, &a, &b, &common)) {
        return troupe_fail(
            TROUPE_ERROR_INVALID, "host %d imports row %lld column %lld twice, for ranks %d and %d",
            host, (long long)common.begin[0], (long long)common.begin[1], a->rank, b->rank);
    }
    for (int i = 0; i < plan->layouts[0]->piece_count; i++) {
        const struct troupe_layout_piece *piece = &plan->layouts[0]->pieces[i];
        for (int k = 0; k < count && host_of(plan, piece->rank) == host; k++) {
            if (troupe_box_intersect(&piece->box, &plan->arrivals[k].box, &common)) {
                return troupe_fail(TROUPE_ERROR_INVALID,
                                   "host %d imports row %lld column %lld, which its rank %d holds",
                                   host, (long long)common.begin[0], (long long)common.begin[1],
                                   piece->rank);
            }
        }
    }
    return TROUPE_OK;
}

static troupe_status check_hosts(const struct plan *plan) {
    for (int i = 0; i < plan->count; i++) {
        bool first = true;
        int host = host_of(plan, plan->bindings[i]->rank);
        for (int k = 0; k < i && first; k++) {
            first = host_of(plan, plan->bindings[k]->rank) != host;
        }
        if (first) {
            TROUPE_TRY(check_host(plan, host));
        }
    }
    return TROUPE_OK;
}

/* ---- a whole plan ---- */

static troupe_status check_plan(const struct plan *plan) {
    int sends = 0, receives = 0;
    for (int i = 0; i < plan->count; i++) {
        TROUPE_TRY(check_arrivals(plan, plan->bindings[i]));
    }
    for (int i = 0; i < plan->count; i++) {
        TROUPE_TRY(check_sends(plan, plan->bindings[i]));
        sends += plan->bindings[i]->send_count + plan->bindings[i]->relay_count;
        receives += plan->bindings[i]->receive_count;
    }
    if (sends != receives) { /* each send has its receive, so a receive lacks its send */
        return troupe_fail(TROUPE_ERROR_INVALID, "%d messages are expected, but %d are sent",
                           receives, sends);
    }
    return check_hosts(plan);
}

troupe_status troupe_route_check_bindings(const struct troupe_layout *source,
                                          const struct troupe_layout *destination,
                                          const int *host_of_rank,
                                          struct troupe_route_binding *const *bindings, int count) {
    struct plan plan = {.layouts = {source, destination},
                        .bindings = bindings,
                        .count = count,
                        .host_of_rank = host_of_rank};
    troupe_status status = plan_init(&plan);
    if (status == TROUPE_OK) {
        status = check_plan(&plan);
    }
    plan_fini(&plan);
    return status;
}

/* The layout with its rows: bound if ragged, else itself. */
static troupe_status with_rows(const struct troupe_layout *layout, const int64_t *offsets,
                               struct troupe_layout *bound, const struct troupe_layout **out) {
    *out = layout->ragged ? bound : layout;
    return layout->ragged ? troupe_layout_bind(layout, offsets, bound) : TROUPE_OK;
}

/* The route's numbers of hosts, by rank. */
static troupe_status list_hosts(const troupe_route *route, int **out) {
    TROUPE_TRY(
        TROUPE_NEW(out, route->rank_count > 0 ? route->ranks[route->rank_count - 1] + 1 : 0));
    for (int i = 0; i < route->rank_count; i++) {
        (*out)[route->ranks[i]] = route->hosts[i];
    }
    return TROUPE_OK;
}

/* What each rank of the route does with the microbatch. */
static troupe_status bind_all(const troupe_route *route, const int64_t *source_offsets,
                              const int64_t *destination_offsets,
                              struct troupe_route_binding **out) {
    struct troupe_route_binding *binding = NULL;
    troupe_status status = TROUPE_OK;
    for (int i = 0; i < route->rank_count; i++) {
        int rank = route->ranks[i];
        TROUPE_TRY_FAIL(binding == NULL ? troupe_route_binding_create(route, rank, &binding)
                                        : troupe_route_binding_retarget(binding, rank));
        TROUPE_TRY_FAIL(troupe_route_bind(binding, source_offsets, destination_offsets));
        TROUPE_TRY_FAIL(troupe_route_binding_copy(binding, &out[i]));
    }
fail:
    troupe_route_binding_destroy(binding);
    return status;
}

troupe_status troupe_route_check(const troupe_route *route, const int64_t *source_offsets,
                                 const int64_t *destination_offsets) {
    struct troupe_layout bound[2] = {{.ragged = false}, {.ragged = false}};
    const struct troupe_layout *source = NULL, *destination = NULL;
    struct troupe_route_binding **bindings = NULL;
    int *hosts = NULL, count = route->rank_count;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY_FAIL(TROUPE_NEW(&bindings, count));
    TROUPE_TRY_FAIL(list_hosts(route, &hosts));
    TROUPE_TRY_FAIL(with_rows(&route->source.layout, source_offsets, &bound[0], &source));
    TROUPE_TRY_FAIL(
        with_rows(&route->destination.layout, destination_offsets, &bound[1], &destination));
    TROUPE_TRY_FAIL(bind_all(route, source_offsets, destination_offsets, bindings));
    status = troupe_route_check_bindings(source, destination, hosts, bindings, count);
fail:
    for (int i = 0; bindings != NULL && i < count; i++) {
        troupe_route_binding_destroy(bindings[i]);
    }
    troupe_free(bindings);
    troupe_free(hosts);
    troupe_layout_fini(&bound[0]);
    troupe_layout_fini(&bound[1]);
    return status;
}
