/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory of a binding, sized for the largest part that any microbatch can give the rank.
 *
 * Counting rests on two facts. Segments lie on a staircase over source and destination parts, so
 * those between a parts of one side and b of the other are at most a + b - 1, whatever the offsets.
 * And the shares of a balance have no cycles, so over all its groups there are fewer cuts than
 * ranks.
 */
#include <string.h>

#include "comm/route_internal.h"
#include "runtime/memory.h"

enum { CUT_BOXES = 6 }; /* boxes that an interval within rows makes beside its full rows */

/* Sizes that depend on the rank. */
struct sizes {
    int64_t sends, relays, receives; /* messages */
    int64_t hops, boxes;
};

static int64_t chain(int64_t a, int64_t b) {
    return a == 0 || b == 0 ? 0 : a + b - 1;
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* The parts that a rank or host has of a side, if as many have rows as may. */
static int part_count(const struct troupe_route_side *side, const struct troupe_route_span *parts) {
    int count = parts->end - parts->begin;
    return count < side->filled_max ? count : side->filled_max;
}

/* Segments between source and destination parts that touch the host, for each cell. */
static int64_t local_demands(const troupe_route *route, int host) {
    const struct troupe_route_side *from = &route->source, *to = &route->destination;
    return route->cell_count * chain(part_count(from, &from->parts_of_host[host]),
                                     part_count(to, &to->parts_of_host[host]));
}

static bool holds(const struct troupe_route_set *set, const struct troupe_route_run *run,
                  int slot) {
    for (int i = run->begin; i < run->end; i++) {
        if (set->members[i] == slot) {
            return true;
        }
    }
    return false;
}

/* The most cells of any part that the rank has on the side. */
static int own_cells(const troupe_route *route, const struct troupe_route_side *side, int slot) {
    int most = 0;
    struct troupe_route_span parts = side->parts_of[slot];
    for (int p = parts.begin; p < parts.end; p++) {
        int cells = 0;
        for (int c = 0; c < route->cell_count; c++) {
            int set = side->set_of[side->part_lists[p] * route->cell_count + c];
            const struct troupe_route_run *run =
                set == TROUPE_ROUTE_NOBODY
                    ? NULL
                    : troupe_route_run_of(&route->sets[set], route->hosts[slot]);
            cells += run != NULL && holds(&route->sets[set], run, slot);
        }
        most = cells > most ? cells : most;
    }
    return most;
}

static void mark_members(const struct troupe_route_set *set, const struct troupe_route_run *run,
                         int *marks) {
    for (int i = run->begin; i < run->end; i++) {
        marks[set->members[i]] = 1;
    }
}

/* How many ranks of its host need something that the rank needs. */
static int count_neighbours(const troupe_route *route, int slot, int *marks) {
    struct troupe_route_span parts = route->destination.parts_of[slot];
    int count = 0;
    memset(marks, 0, (size_t)route->rank_count * sizeof *marks);
    for (int p = parts.begin; p < parts.end; p++) {
        const int *set_of =
            route->destination.set_of + route->destination.part_lists[p] * route->cell_count;
        for (int c = 0; c < route->cell_count; c++) {
            const struct troupe_route_set *set =
                set_of[c] == TROUPE_ROUTE_NOBODY ? NULL : &route->sets[set_of[c]];
            const struct troupe_route_run *run =
                set == NULL ? NULL : troupe_route_run_of(set, route->hosts[slot]);
            if (run != NULL && holds(set, run, slot)) {
                mark_members(set, run, marks);
            }
        }
    }
    marks[slot] = 0;
    for (int other = 0; other < route->rank_count; other++) {
        count += marks[other];
    }
    return count;
}

static int ranks_on(const troupe_route *route, int host) {
    int count = 0;
    for (int i = 0; i < route->rank_count; i++) {
        count += route->hosts[i] == host;
    }
    return count;
}

static int ranks_with_parts(const troupe_route *route, const struct troupe_route_side *side) {
    int count = 0;
    for (int i = 0; i < route->rank_count; i++) {
        count += side->parts_of[i].end > side->parts_of[i].begin;
    }
    return count;
}

/* `cuts` counts those in pieces that the rank can have to do with. */
static struct sizes find_sizes(const troupe_route *route, int slot, int *marks) {
    int host = route->hosts[slot];
    int held = part_count(&route->source, &route->source.parts_of[slot]);
    int needed = part_count(&route->destination, &route->destination.parts_of[slot]);
    int holders = ranks_with_parts(route, &route->source);
    int needers = ranks_with_parts(route, &route->destination);
    int near = ranks_on(route, host), all = route->rank_count;
    int copies = route->needers_max[host];
    int64_t weights = 1; /* different ones of relays: copies - 1 */
    for (int h = 0; h < route->host_count; h++) {
        weights = route->needers_max[h] - 1 > weights ? route->needers_max[h] - 1 : weights;
    }
    int neighbours = count_neighbours(route, slot, marks);
    int64_t cuts = holders + near * weights; /* of the first hops, and of the relays of this host */
    int64_t out = own_cells(route, &route->source, slot) *
                  chain(held, route->destination.filled_max) * route->runs_max;
    int64_t in =
        own_cells(route, &route->destination, slot) * chain(needed, route->source.filled_max);
    int64_t sends = held == 0 ? 0 : out + holders + all * weights;
    int64_t near_sends = held == 0 ? 0 : (smaller(out, local_demands(route, host)) + cuts) * copies;
    int64_t receives = needed == 0 ? 0 : in + cuts;
    int64_t relays = copies > 1 ? receives * (copies - 1) : 0;
    int64_t partial =
        (held == 0 ? 0 : holders + all * weights + cuts * copies) + cuts * (copies + 1);
    struct sizes sizes = {.sends = held == 0 ? 0 : smaller(sends + near_sends, needers),
                          .relays = smaller(relays, neighbours),
                          .receives = smaller(receives, holders + neighbours),
                          .hops = sends + near_sends + receives + relays + in};
    sizes.boxes = sizes.hops + (route->cell_count > 1 ? CUT_BOXES * partial : 0);
    return sizes;
}

static void find_largest_runs(const troupe_route *route, const struct troupe_route_side *side,
                              int *largest, int *runs_max) {
    for (int i = 0; i < side->parts * route->cell_count; i++) {
        int index = side->set_of[i];
        for (int r = 0; index >= 0 && r < route->sets[index].run_count; r++) {
            const struct troupe_route_run *run = &route->sets[index].runs[r];
            int size = run->end - run->begin;
            largest[run->host] = size > largest[run->host] ? size : largest[run->host];
            *runs_max = r + 1 > *runs_max ? r + 1 : *runs_max;
        }
    }
}

/* The most groups and members that sharing out the relays of a host can take: one group for each of
 * its runs, and one for each demand with holders on it. */
troupe_status troupe_route_find_maxima(troupe_route *route) {
    int *holders = NULL, unused = 0;
    int64_t *groups = NULL, *members = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY_FAIL(TROUPE_NEW(&holders, route->host_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&groups, route->host_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&members, route->host_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&route->needers_max, route->host_count));
    find_largest_runs(route, &route->source, holders, &unused);
    find_largest_runs(route, &route->destination, route->needers_max, &route->runs_max);
    for (int i = 0; i < route->set_count; i++) {
        for (int r = 0; r < route->sets[i].run_count; r++) {
            const struct troupe_route_run *run = &route->sets[i].runs[r];
            groups[run->host]++;
            members[run->host] += run->end - run->begin;
        }
    }
    route->groups_max = route->group_count;
    route->members_max = route->share_count;
    for (int host = 0; host < route->host_count; host++) {
        int64_t near = local_demands(route, host);
        groups[host] += near;
        members[host] += near * (holders[host] + route->needers_max[host]);
        route->groups_max = groups[host] > route->groups_max ? groups[host] : route->groups_max;
        route->members_max =
            members[host] > route->members_max ? members[host] : route->members_max;
    }
fail:
    troupe_free(holders);
    troupe_free(groups);
    troupe_free(members);
    return status;
}

static troupe_status work_init(struct troupe_route_work *w, const troupe_route *route) {
    int segments = (int)chain(route->source.filled_max, route->destination.filled_max);
    w->demands_max = segments * route->cell_count * route->runs_max;
    TROUPE_TRY(TROUPE_NEW(&w->segments, segments));
    TROUPE_TRY(TROUPE_NEW(&w->of_source, route->source.parts));
    TROUPE_TRY(TROUPE_NEW(&w->of_destination, route->destination.parts));
    TROUPE_TRY(TROUPE_NEW(&w->first_demand, segments * route->cell_count));
    TROUPE_TRY(TROUPE_NEW(&w->first_offset, w->demands_max));
    TROUPE_TRY(TROUPE_NEW(&w->relay_offset, w->demands_max));
    TROUPE_TRY(TROUPE_NEW(&w->relay_group, w->demands_max));
    w->relay_mask = 1;
    while ((int64_t)w->relay_mask < 2 * route->groups_max) {
        w->relay_mask = 2 * w->relay_mask + 1;
    }
    TROUPE_TRY(TROUPE_NEW(&w->relay_groups, w->relay_mask + 1));
    TROUPE_TRY(TROUPE_NEW(&w->amounts, route->group_count));
    TROUPE_TRY(TROUPE_NEW(&w->group_shares, route->groups_max));
    TROUPE_TRY(TROUPE_NEW(&w->shares, route->share_count));
    TROUPE_TRY(TROUPE_NEW(&w->solved, route->component_count));
    TROUPE_TRY(TROUPE_NEW(&w->walked, route->host_count));
    TROUPE_TRY(TROUPE_NEW(&w->lacking, route->rank_count));
    TROUPE_TRY(TROUPE_NEW(&w->received, route->rank_count));
    TROUPE_TRY(TROUPE_NEW(&w->position, TROUPE_HOP_KINDS * route->rank_count));
    return troupe_balance_create(route->rank_count, route->groups_max, route->members_max,
                                 &w->balance);
}

static void work_destroy(struct troupe_route_work *w) {
    if (w == NULL) {
        return;
    }
    troupe_free(w->segments);
    troupe_free(w->of_source);
    troupe_free(w->of_destination);
    troupe_free(w->first_demand);
    troupe_free(w->first_offset);
    troupe_free(w->relay_offset);
    troupe_free(w->relay_group);
    troupe_free(w->relay_groups);
    troupe_free(w->amounts);
    troupe_free(w->group_shares);
    troupe_free(w->shares);
    troupe_free(w->solved);
    troupe_free(w->walked);
    troupe_free(w->lacking);
    troupe_free(w->received);
    troupe_free(w->position);
    troupe_free(w->hops);
    troupe_free(w->order);
    troupe_free(w->boxes);
    troupe_balance_destroy(w->balance);
    troupe_free(w);
}

/* Room for the boxes of so many messages, unless there is. */
static troupe_status make_room(struct troupe_route_work *w, const struct sizes *sizes) {
    if (sizes->hops > w->hops_max) {
        troupe_free(w->hops);
        troupe_free(w->order);
        w->hops = NULL;
        w->order = NULL;
        TROUPE_TRY(TROUPE_NEW(&w->hops, sizes->hops));
        TROUPE_TRY(TROUPE_NEW(&w->order, sizes->hops));
        w->hops_max = sizes->hops;
    }
    if (sizes->boxes > w->boxes_max) {
        troupe_free(w->boxes);
        w->boxes = NULL;
        TROUPE_TRY(TROUPE_NEW(&w->boxes, sizes->boxes));
        w->boxes_max = sizes->boxes;
    }
    return TROUPE_OK;
}

static void free_messages(struct troupe_route_binding *binding) {
    troupe_free(binding->sends);
    troupe_free(binding->relays);
    troupe_free(binding->receives);
    binding->sends = binding->relays = binding->receives = NULL;
}

troupe_status troupe_route_binding_retarget(struct troupe_route_binding *binding, int rank) {
    struct troupe_route_work *w = binding->work;
    const troupe_route *route = binding->route;
    w->slot = troupe_route_slot(route, rank);
    struct sizes sizes = find_sizes(route, w->slot, w->position);
    binding->rank = rank;
    binding->sends_max = (int)sizes.sends;
    binding->relays_max = (int)sizes.relays;
    binding->receives_max = (int)sizes.receives;
    binding->scattered = route->needers_max[route->hosts[w->slot]] > 1;
    free_messages(binding);
    TROUPE_TRY(TROUPE_NEW(&binding->sends, sizes.sends));
    TROUPE_TRY(TROUPE_NEW(&binding->relays, sizes.relays));
    TROUPE_TRY(TROUPE_NEW(&binding->receives, sizes.receives));
    return make_room(w, &sizes);
}

troupe_status troupe_route_binding_create(const troupe_route *route, int rank,
                                          struct troupe_route_binding **out) {
    struct troupe_route_binding *binding = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY(TROUPE_NEW(&binding, 1));
    binding->rank = rank;
    binding->route = route;
    TROUPE_TRY_FAIL(TROUPE_NEW(&binding->work, 1));
    binding->work->slot = troupe_route_slot(route, rank);
    if (binding->work->slot != TROUPE_ROUTE_NOBODY) {
        TROUPE_TRY_FAIL(work_init(binding->work, route));
        TROUPE_TRY_FAIL(troupe_route_binding_retarget(binding, rank));
    }
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
    work_destroy(binding->work);
    free_messages(binding);
    troupe_free(binding->copied_boxes);
    troupe_free(binding);
}

/* ---- copies ---- */

static int64_t count_boxes(const struct troupe_route_message *messages, int count) {
    int64_t boxes = 0;
    for (int i = 0; i < count; i++) {
        boxes += messages[i].box_count;
    }
    return boxes;
}

static void copy_message(const struct troupe_route_message *message, struct troupe_box **boxes,
                         struct troupe_route_message *out) {
    *out = *message;
    out->boxes = *boxes;
    for (int i = 0; i < message->box_count; i++) {
        *(*boxes)++ = message->boxes[i];
    }
}

static troupe_status copy_messages(const struct troupe_route_message *messages, int count,
                                   struct troupe_box **boxes, struct troupe_route_message **out) {
    TROUPE_TRY(TROUPE_NEW(out, count));
    for (int i = 0; i < count; i++) {
        copy_message(&messages[i], boxes, &(*out)[i]);
    }
    return TROUPE_OK;
}

troupe_status troupe_route_binding_copy(const struct troupe_route_binding *binding,
                                        struct troupe_route_binding **out) {
    const struct troupe_route_binding *b = binding;
    struct troupe_route_binding *copy = NULL;
    troupe_status status = TROUPE_OK;
    int64_t count = b->kept.box_count + count_boxes(b->sends, b->send_count) +
                    count_boxes(b->relays, b->relay_count) +
                    count_boxes(b->receives, b->receive_count);
    TROUPE_TRY(TROUPE_NEW(&copy, 1));
    *copy = *b;
    copy->work = NULL;
    copy->sends = copy->relays = copy->receives = NULL;
    TROUPE_TRY_FAIL(TROUPE_NEW(&copy->copied_boxes, count));
    struct troupe_box *boxes = copy->copied_boxes;
    copy_message(&b->kept, &boxes, &copy->kept);
    TROUPE_TRY_FAIL(copy_messages(b->sends, b->send_count, &boxes, &copy->sends));
    TROUPE_TRY_FAIL(copy_messages(b->relays, b->relay_count, &boxes, &copy->relays));
    TROUPE_TRY_FAIL(copy_messages(b->receives, b->receive_count, &boxes, &copy->receives));
    *out = copy;
    return TROUPE_OK;
fail:
    troupe_route_binding_destroy(copy);
    return status;
}

struct troupe_route_bytes troupe_route_binding_bytes(const struct troupe_route_binding *binding) {
    struct troupe_route_bytes bytes = {.kept = binding->kept.bytes};
    for (int i = 0; i < binding->send_count; i++) {
        bytes.sent += binding->sends[i].bytes;
    }
    for (int i = 0; i < binding->relay_count; i++) {
        bytes.relayed += binding->relays[i].bytes;
    }
    for (int i = 0; i < binding->receive_count; i++) {
        bytes.received += binding->receives[i].bytes;
    }
    return bytes;
}
