/* SPDX-License-Identifier: Apache-2.0
 *
 * Binding. For the rank's own part of a microbatch:
 *
 *     1. cut the rows into segments, where the offsets of the two sides meet;
 *     2. share out the first hops of the holders that the rank has to do with (per component);
 *     3. for each host concerned, share out the relays, and walk its demands: the shares cut each
 *        demand into pieces with one sender and one relay, and each piece makes hops;
 *     4. put the hops of each pair of ranks together.
 *
 * Shares depend on the offsets only, and all ranks walk demands in the same order, so both ends of
 * a message agree.
 */
#include <string.h>

#include "comm/balance.h"
#include "comm/route_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

/* What a host needs of a segment of a cell. */
struct demand {
    int index;
    int segment, cell, host;
    int64_t units;
    const struct troupe_route_set *holders;
    const struct troupe_route_run *near; /* holders on the host, or NULL */
    const struct troupe_route_set *needers;
    const struct troupe_route_run *run; /* of them on the host */
    int lacking;                        /* how many of the run do not hold it */
};

/* ---- segments ---- */

static troupe_status check_offsets(const char *side_name, const struct troupe_route_side *side,
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
    int filled = 0;
    for (int part = 0; part < side->parts; part++) {
        filled += offsets[part] < offsets[part + 1];
        if (offsets[part] > offsets[part + 1]) {
            return troupe_fail(TROUPE_ERROR_INVALID, "%s part %d has rows %lld..%lld", side_name,
                               part, (long long)offsets[part], (long long)offsets[part + 1]);
        }
    }
    if (filled > side->filled_max) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "%d of %d %s parts have rows; at most %d may, one for each round",
                           filled, side->parts, side_name, side->filled_max);
    }
    *total = offsets[side->parts];
    return TROUPE_OK;
}

static void add_segment(struct troupe_route_work *w, struct troupe_route_segment segment) {
    struct troupe_route_span *spans[2] = {&w->of_source[segment.from],
                                          &w->of_destination[segment.to]};
    for (int s = 0; s < 2; s++) {
        spans[s]->begin = spans[s]->end == 0 ? w->segment_count : spans[s]->begin;
        spans[s]->end = w->segment_count + 1;
    }
    w->segments[w->segment_count++] = segment;
}

static void make_segments(const troupe_route *route, struct troupe_route_work *w,
                          const int64_t *from, const int64_t *to) {
    int i = 0, j = 0;
    w->segment_count = 0;
    memset(w->of_source, 0, (size_t)route->source.parts * sizeof *w->of_source);
    memset(w->of_destination, 0, (size_t)route->destination.parts * sizeof *w->of_destination);
    if (!route->ragged) {
        add_segment(w, (struct troupe_route_segment){.from = 0});
        return;
    }
    while (i < route->source.parts && j < route->destination.parts) {
        int64_t begin = from[i] > to[j] ? from[i] : to[j];
        int64_t end = from[i + 1] < to[j + 1] ? from[i + 1] : to[j + 1];
        if (begin < end) {
            add_segment(
                w, (struct troupe_route_segment){.from = i, .to = j, .begin = begin, .end = end});
        }
        bool source_ends = from[i + 1] <= to[j + 1];
        j += from[i + 1] >= to[j + 1];
        i += source_ends;
    }
}

static const struct troupe_route_set *
set_at(const troupe_route *route, const struct troupe_route_side *side, int part, int cell) {
    int set = side->set_of[part * route->cell_count + cell];
    return set == TROUPE_ROUTE_NOBODY ? NULL : &route->sets[set];
}

static void number_demands(const troupe_route *route, struct troupe_route_work *w) {
    int count = 0;
    for (int s = 0; s < w->segment_count; s++) {
        for (int c = 0; c < route->cell_count; c++) {
            const struct troupe_route_set *set =
                set_at(route, &route->destination, w->segments[s].to, c);
            w->first_demand[s * route->cell_count + c] = count;
            count += set == NULL ? 0 : set->run_count;
        }
    }
    TROUPE_ASSERT(count <= w->demands_max, "%d demands of at most %d", count, w->demands_max);
}

/* ---- demands ---- */

static bool is_member(const struct troupe_route_set *set, const struct troupe_route_run *run,
                      int slot) {
    for (int i = run->begin; i < run->end; i++) {
        if (set->members[i] == slot) {
            return true;
        }
    }
    return false;
}

/* Those of the run that are not among the near holders; both are sorted. Returns how many. */
static int find_lacking(const struct demand *d, int *slots_out) {
    int near = d->near == NULL ? 0 : d->near->begin, near_end = d->near == NULL ? 0 : d->near->end;
    int count = 0;
    for (int i = d->run->begin; i < d->run->end; i++) {
        int slot = d->needers->members[i];
        while (near < near_end && d->holders->members[near] < slot) {
            near++;
        }
        if (near == near_end || d->holders->members[near] != slot) {
            if (slots_out != NULL) {
                slots_out[count] = slot;
            }
            count++;
        }
    }
    return count;
}

/* The demand of one run of the needers. */
static struct demand make_demand(const troupe_route *route, const struct troupe_route_work *w,
                                 int segment, int cell, const struct troupe_route_set *needers,
                                 const struct troupe_route_run *run) {
    const struct troupe_route_segment *s = &w->segments[segment];
    const struct troupe_box *box = &route->cells[cell];
    struct demand d = {.segment = segment,
                       .cell = cell,
                       .host = run->host,
                       .holders = set_at(route, &route->source, s->from, cell),
                       .needers = needers,
                       .run = run};
    d.index = w->first_demand[segment * route->cell_count + cell] + (int)(run - needers->runs);
    d.near = troupe_route_run_of(d.holders, run->host);
    d.units = troupe_box_elements(box) / route->unit * (route->ragged ? s->end - s->begin : 1);
    d.lacking = find_lacking(&d, NULL);
    return d;
}

/* ---- first hops ---- */

/* The holders that may send: those on the host if there are any. */
static int holder_group(const struct demand *d) {
    return d->holders->first_group + (d->near == NULL ? 0 : 1 + (int)(d->near - d->holders->runs));
}

static int holder_shares(const struct demand *d) {
    return d->holders->first_share + (d->near == NULL ? 0 : d->holders->count + d->near->begin);
}

/* Adds up what the groups of the item's set have to send. */
static void collect_item(const troupe_route *route, struct troupe_route_work *w, int item) {
    int part = item / route->cell_count, cell = item % route->cell_count;
    for (int s = w->of_source[part].begin; s < w->of_source[part].end; s++) {
        const struct troupe_route_set *needers =
            set_at(route, &route->destination, w->segments[s].to, cell);
        for (int r = 0; needers != NULL && r < needers->run_count; r++) {
            struct demand d = make_demand(route, w, s, cell, needers, &needers->runs[r]);
            if (d.lacking > 0) {
                int64_t *amount = &w->amounts[holder_group(&d)];
                w->first_offset[d.index] = *amount;
                *amount += d.units;
            }
        }
    }
}

/* Adds a group of holders, members [begin, end) of the set; its shares go to w->shares[at]. */
static void add_holders(struct troupe_route_work *w, const struct troupe_route_set *set, int begin,
                        int end, int64_t *amount, int at) {
    if (*amount == 0) {
        return; /* nothing, or another item of the same set has added it */
    }
    w->group_shares[troupe_balance_add(w->balance, *amount, 1)] = at;
    *amount = 0;
    for (int m = begin; m < end; m++) {
        troupe_balance_member(w->balance, set->members[m], false);
    }
}

static void add_set(struct troupe_route_work *w, const struct troupe_route_set *set) {
    add_holders(w, set, 0, set->count, &w->amounts[set->first_group], set->first_share);
    for (int r = 0; r < set->run_count; r++) {
        const struct troupe_route_run *run = &set->runs[r];
        add_holders(w, set, run->begin, run->end, &w->amounts[set->first_group + 1 + r],
                    set->first_share + set->count + run->begin);
    }
}

/* Shares out the first hops of a component, once a bind. */
static void solve_component(const troupe_route *route, struct troupe_route_work *w, int component) {
    const struct troupe_route_span *span = &route->components[component];
    if (w->solved[component] == w->epoch) {
        return;
    }
    w->solved[component] = w->epoch;
    int groups = 0;
    troupe_balance_begin(w->balance);
    for (int i = span->begin; i < span->end; i++) {
        collect_item(route, w, route->items[i]);
    }
    for (int i = span->begin; i < span->end; i++) {
        add_set(w, &route->sets[route->source.set_of[route->items[i]]]);
    }
    troupe_balance_solve(w->balance, 0);
    for (groups = troupe_balance_groups(w->balance); groups > 0; groups--) {
        for (int m = 0; m < troupe_balance_members(w->balance, groups - 1); m++) {
            w->shares[w->group_shares[groups - 1] + m] =
                troupe_balance_end(w->balance, groups - 1, m);
        }
    }
}

/* Solves what concerns the rank as a holder and as a needer. */
static void solve_first_hops(const troupe_route *route, struct troupe_route_work *w) {
    const struct troupe_route_side *sides[2] = {&route->source, &route->destination};
    const struct troupe_route_span *segments[2] = {w->of_source, w->of_destination};
    for (int side = 0; side < 2; side++) {
        struct troupe_route_span parts = sides[side]->parts_of[w->slot];
        for (int p = parts.begin; p < parts.end; p++) {
            int part = sides[side]->part_lists[p];
            for (int s = segments[side][part].begin; s < segments[side][part].end; s++) {
                for (int c = 0; c < route->cell_count; c++) {
                    const struct troupe_route_set *set =
                        set_at(route, &route->source, w->segments[s].from, c);
                    if (set != NULL && set->count > 1) {
                        solve_component(route, w, set->component);
                    }
                }
            }
        }
    }
}

/* ---- relays ---- */

/* Calls `visit` with each demand of the host that somebody lacks, in the order all ranks know. */
static void each_demand(const troupe_route *route, struct troupe_route_work *w, int host,
                        void (*visit)(const troupe_route *, struct troupe_route_work *,
                                      const struct demand *)) {
    const struct troupe_route_span *parts = &route->destination.parts_of_host[host];
    for (int p = parts->begin; p < parts->end; p++) {
        int part = route->destination.host_part_lists[p];
        for (int s = w->of_destination[part].begin; s < w->of_destination[part].end; s++) {
            for (int c = 0; c < route->cell_count; c++) {
                const struct troupe_route_set *set = set_at(route, &route->destination, part, c);
                const struct troupe_route_run *run =
                    set == NULL ? NULL : troupe_route_run_of(set, host);
                if (run != NULL) {
                    struct demand d = make_demand(route, w, s, c, set, run);
                    if (d.lacking > 0) {
                        visit(route, w, &d);
                    }
                }
            }
        }
    }
}

/* Who shares the relays of a demand: its needers on the host, and its holders there if there are
 * any. Demands of the same key are one group. */
static uint64_t relay_key(const struct demand *d) {
    int needers = d->needers->first_group + 1 + (int)(d->run - d->needers->runs);
    int holders =
        d->near == NULL ? 0 : d->holders->first_group + 1 + (int)(d->near - d->holders->runs);
    return (uint64_t)needers << 32 | (uint64_t)holders;
}

/* The entry of the demand's key; a new one is empty. */
static struct troupe_relay_group *find_relay_group(struct troupe_route_work *w,
                                                   const struct demand *d) {
    uint64_t key = relay_key(d), hash = key * UINT64_C(0x9e3779b97f4a7c15);
    for (uint64_t at = hash >> 32;; at++) {
        struct troupe_relay_group *group = &w->relay_groups[at & w->relay_mask];
        if (group->epoch != w->host_epoch) {
            *group = (struct troupe_relay_group){
                .key = key, .epoch = w->host_epoch, .index = TROUPE_ROUTE_NOBODY};
        }
        if (group->key == key) {
            return group;
        }
    }
}

/* First pass: what each rank receives, and what the groups have to relay. */
static void collect_relay(const troupe_route *route, struct troupe_route_work *w,
                          const struct demand *d) {
    (void)route;
    int lacking = find_lacking(d, w->lacking);
    for (int m = 0; m < lacking; m++) {
        int64_t *received = &w->received[w->lacking[m]];
        *received += d->units;
        w->received_max = *received > w->received_max ? *received : w->received_max;
    }
    if (d->lacking > 1) {
        struct troupe_relay_group *group = find_relay_group(w, d);
        w->relay_offset[d->index] = group->amount;
        group->amount += d->units;
    }
}

/* Second pass: the groups. Near holders may send all copies. A unit of work is a copy for each of
 * the others. */
static void add_relay(const troupe_route *route, struct troupe_route_work *w,
                      const struct demand *d) {
    (void)route;
    w->relay_group[d->index] = TROUPE_ROUTE_NOBODY;
    if (d->lacking < 2) {
        return;
    }
    struct troupe_relay_group *group = find_relay_group(w, d);
    if (group->index == TROUPE_ROUTE_NOBODY) {
        group->index = troupe_balance_add(w->balance, group->amount, d->lacking - 1);
        for (int m = 0; d->near != NULL && m < d->near->end - d->near->begin; m++) {
            troupe_balance_member(w->balance, d->holders->members[d->near->begin + m], true);
        }
        int lacking = find_lacking(d, w->lacking);
        for (int m = 0; m < lacking; m++) {
            troupe_balance_member(w->balance, w->lacking[m], false);
        }
    }
    w->relay_group[d->index] = group->index;
}

/* ---- hops ---- */

static void add_hop(struct troupe_route_work *w, const struct demand *d,
                    enum troupe_route_hop_kind kind, int peer, int origin, int64_t begin,
                    int64_t end) {
    TROUPE_ASSERT(w->hop_count < w->hops_max, "more than %lld hops", (long long)w->hops_max);
    w->hops[w->hop_count++] = (struct troupe_route_hop){.kind = kind,
                                                        .peer = peer,
                                                        .origin = origin,
                                                        .segment = d->segment,
                                                        .cell = d->cell,
                                                        .begin = begin,
                                                        .end = end};
}

/* Walks an interval that is cut into the shares of a group. */
struct cursor {
    const troupe_balance *balance; /* NULL: shares are in `ends` */
    const int64_t *ends;
    int group;
    int64_t offset; /* of the demand in the group */
    int member;
};

/* Where the share of the cursor's member ends, counted from the begin of the demand. */
static int64_t share_end(const struct cursor *c) {
    int64_t end = c->balance == NULL ? c->ends[c->member]
                                     : troupe_balance_end(c->balance, c->group, c->member);
    return end - c->offset;
}

/* Moves to the member whose share `at` is in; returns where that ends. */
static int64_t advance(struct cursor *c, int64_t at) {
    while (share_end(c) <= at) {
        c->member++;
    }
    return share_end(c);
}

/* The hops of one piece, as far as they concern the rank: `sender` to the first of those that lack
 * it, then `relay` (one of them, or a near holder if `direct`) to the others. */
static void add_piece(struct troupe_route_work *w, const struct demand *d, int sender, int relay,
                      bool direct, int64_t begin, int64_t end) {
    int first = relay == TROUPE_ROUTE_NOBODY || direct ? w->lacking[0] : relay;
    int self = w->slot, from = relay;
    if (self == sender) {
        add_hop(w, d, TROUPE_HOP_SEND, first, sender, begin, end);
    } else if (self == first) {
        add_hop(w, d, TROUPE_HOP_RECEIVE, sender, sender, begin, end);
    }
    for (int m = 0; m < d->lacking; m++) {
        int to = w->lacking[m];
        if (to == first) {
            continue;
        }
        int origin = direct ? from : sender;
        if (self == from) {
            add_hop(w, d, direct ? TROUPE_HOP_SEND : TROUPE_HOP_RELAY, to, origin, begin, end);
        } else if (self == to) {
            add_hop(w, d, direct ? TROUPE_HOP_RECEIVE : TROUPE_HOP_RECEIVE_RELAYED, from, origin,
                    begin, end);
        }
    }
}

static bool concerns(const struct troupe_route_work *w, const struct demand *d) {
    bool concerned = is_member(d->needers, d->run, w->slot);
    for (int r = 0; !concerned && r < d->holders->run_count; r++) {
        concerned = is_member(d->holders, &d->holders->runs[r], w->slot);
    }
    return concerned;
}

static int near_count(const struct demand *d) {
    return d->near == NULL ? 0 : d->near->end - d->near->begin;
}

/* Those who may make the first hop, in the order of their shares. */
static const int *senders_of(const struct demand *d) {
    return d->holders->members + (d->near == NULL ? 0 : d->near->begin);
}

/* Cuts the demand into pieces, each with one sender and one relay. */
static void add_pieces(struct troupe_route_work *w, const struct demand *d) {
    int group = w->relay_group[d->index];
    struct cursor first = {.ends = w->shares + holder_shares(d),
                           .offset = w->first_offset[d->index]};
    struct cursor relay = {
        .balance = w->balance, .group = group, .offset = w->relay_offset[d->index]};
    for (int64_t begin = 0, end = 0; begin < d->units; begin = end) {
        end = d->units;
        if (d->holders->count > 1) {
            int64_t until = advance(&first, begin);
            end = until < end ? until : end;
        }
        if (group >= 0) {
            int64_t until = advance(&relay, begin);
            end = until < end ? until : end;
        }
        add_piece(w, d, senders_of(d)[first.member],
                  group < 0 ? TROUPE_ROUTE_NOBODY
                            : troupe_balance_rank(w->balance, group, relay.member),
                  group >= 0 && relay.member < near_count(d), begin, end);
    }
}

static int64_t clamp(int64_t value, int64_t high) {
    return value < 0 ? 0 : value > high ? high : value;
}

/* How much of the demand, which begins at `offset` of its group, lies between two ends of shares.
 */
static int64_t overlap(const struct demand *d, int64_t offset, int64_t begin, int64_t end) {
    return clamp(end - offset, d->units) - clamp(begin - offset, d->units);
}

/* How many of the demand's first hops a near holder makes. */
static int64_t first_hops_of(const struct troupe_route_work *w, const struct demand *d,
                             int member) {
    const int64_t *ends = w->shares + holder_shares(d);
    return overlap(d, w->first_offset[d->index], member > 0 ? ends[member - 1] : 0, ends[member]);
}

/* Whether several holders on the host send all copies, each as many first ones as of any other. */
static bool is_direct(const struct troupe_route_work *w, const struct demand *d) {
    int group = w->relay_group[d->index];
    if (group < 0 || near_count(d) < 2) {
        return false;
    }
    int64_t begin = 0, offset = w->relay_offset[d->index], sent = 0;
    for (int m = 0; m < near_count(d); m++) {
        int64_t end = troupe_balance_end(w->balance, group, m);
        int64_t others = overlap(d, offset, begin, end);
        if (others != first_hops_of(w, d, m)) {
            return false;
        }
        sent += others;
        begin = end;
    }
    return sent == d->units;
}

/* A direct demand: a holder may send any copies as long as they are as many as its shares say; so
 * the copies for one rank after those for another are cut among the holders: the fewest messages.
 */
static void add_copies(struct troupe_route_work *w, const struct demand *d) {
    int64_t at = 0;
    for (int m = 0; m < near_count(d); m++) {
        int from = senders_of(d)[m];
        for (int64_t end = at + d->lacking * first_hops_of(w, d, m); at < end;) {
            int to = w->lacking[at / d->units];
            int64_t begin = at % d->units;
            int64_t until = clamp(begin + end - at, d->units);
            if (w->slot == from) {
                add_hop(w, d, TROUPE_HOP_SEND, to, from, begin, until);
            } else if (w->slot == to) {
                add_hop(w, d, TROUPE_HOP_RECEIVE, from, from, begin, until);
            }
            at += until - begin;
        }
    }
}

static void add_demand(const troupe_route *route, struct troupe_route_work *w,
                       const struct demand *d) {
    (void)route;
    if (!concerns(w, d)) {
        return;
    }
    find_lacking(d, w->lacking);
    if (is_direct(w, d)) {
        add_copies(w, d);
    } else {
        add_pieces(w, d);
    }
}

/* Shares out the relays of a host and makes its hops, once a bind. */
static void walk_host(const troupe_route *route, struct troupe_route_work *w, int host) {
    if (w->walked[host] == w->epoch) {
        return;
    }
    w->walked[host] = w->epoch;
    memset(w->received, 0, (size_t)route->rank_count * sizeof *w->received);
    w->received_max = 0;
    w->host_epoch++;
    troupe_balance_begin(w->balance);
    each_demand(route, w, host, collect_relay);
    each_demand(route, w, host, add_relay);
    troupe_balance_solve(w->balance, w->received_max); /* relays where holders would be slower */
    each_demand(route, w, host, add_demand);
}

/* Every host that the rank sends to, or is on. */
static void walk_hosts(const troupe_route *route, struct troupe_route_work *w) {
    struct troupe_route_span parts = route->source.parts_of[w->slot];
    for (int p = parts.begin; p < parts.end; p++) {
        int part = route->source.part_lists[p];
        for (int s = w->of_source[part].begin; s < w->of_source[part].end; s++) {
            for (int c = 0; c < route->cell_count; c++) {
                const struct troupe_route_set *set =
                    set_at(route, &route->destination, w->segments[s].to, c);
                for (int r = 0; set != NULL && r < set->run_count; r++) {
                    walk_host(route, w, set->runs[r].host);
                }
            }
        }
    }
    walk_host(route, w, route->hosts[w->slot]);
}

/* What the rank needs and holds. */
static void keep(const troupe_route *route, struct troupe_route_work *w) {
    struct troupe_route_span parts = route->destination.parts_of[w->slot];
    int host = route->hosts[w->slot];
    for (int p = parts.begin; p < parts.end; p++) {
        int part = route->destination.part_lists[p];
        for (int s = w->of_destination[part].begin; s < w->of_destination[part].end; s++) {
            for (int c = 0; c < route->cell_count; c++) {
                const struct troupe_route_set *set = set_at(route, &route->destination, part, c);
                const struct troupe_route_run *run =
                    set == NULL ? NULL : troupe_route_run_of(set, host);
                if (run == NULL || !is_member(set, run, w->slot)) {
                    continue;
                }
                struct demand d = make_demand(route, w, s, c, set, run);
                if (d.near != NULL && is_member(d.holders, d.near, w->slot)) {
                    add_hop(w, &d, TROUPE_HOP_KEEP, w->slot, w->slot, 0, d.units);
                }
            }
        }
    }
}

/* ---- messages ---- */

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

/* Boxes of a message are adjacent in w->boxes, because its hops are. */
static void add_box(struct troupe_route_work *w, struct troupe_route_message *message,
                    const struct troupe_box *box) {
    TROUPE_ASSERT(w->box_count < w->boxes_max, "more than %lld boxes", (long long)w->boxes_max);
    message->elements += troupe_box_elements(box);
    w->boxes[w->box_count++] = *box;
    message->box_count++;
    while (message->box_count > 1 &&
           join_boxes(&w->boxes[w->box_count - 2], &w->boxes[w->box_count - 1])) {
        w->box_count--;
        message->box_count--;
    }
}

/* The largest box of elements that begins with element `from` of the box, counted row major, and
 * ends at `to` or before; *from moves behind it. */
static struct troupe_box take_box(const struct troupe_box *box, int64_t *from, int64_t to) {
    struct troupe_box part;
    int64_t inner = 1, rest = *from;
    int d = TROUPE_BOX_DIMENSIONS - 1; /* the outermost that begins at its begin ... */
    for (; d > 0 && rest % (inner * (box->end[d] - box->begin[d])) == 0; d--) {
        inner *= box->end[d] - box->begin[d];
    }
    /* ... and from which there is a whole index left: at the latest the innermost */
    while (d < TROUPE_BOX_DIMENSIONS - 1 && inner > to - *from) {
        d++;
        inner /= box->end[d] - box->begin[d];
    }
    for (int e = TROUPE_BOX_DIMENSIONS - 1; e >= 0; e--) {
        int64_t extent = box->end[e] - box->begin[e];
        int64_t index = e > 0 ? rest % extent : rest;
        int64_t room = extent - index, count = (to - *from) / inner;
        rest = e > 0 ? rest / extent : rest;
        part.begin[e] = box->begin[e] + (e > d ? 0 : index);
        part.end[e] = e > d   ? box->end[e]
                      : e < d ? part.begin[e] + 1
                              : part.begin[e] + (count < room ? count : room);
    }
    *from += troupe_box_elements(&part);
    return part;
}

/* Adds elements [from, to) of the box, counted row major. */
static void add_interval(struct troupe_route_work *w, struct troupe_route_message *message,
                         const struct troupe_box *box, int64_t from, int64_t to) {
    while (from < to) {
        struct troupe_box part = take_box(box, &from, to);
        add_box(w, message, &part);
    }
}

static void add_hop_boxes(const troupe_route *route, struct troupe_route_work *w,
                          struct troupe_route_message *message,
                          const struct troupe_route_hop *hop) {
    struct troupe_box box = route->cells[hop->cell];
    if (route->ragged) {
        box.begin[0] = w->segments[hop->segment].begin;
        box.end[0] = w->segments[hop->segment].end;
    }
    add_interval(w, message, &box, hop->begin * route->unit, hop->end * route->unit);
}

/* Sorts the hops by kind and peer, keeping their order otherwise. */
static void sort_hops(const troupe_route *route, struct troupe_route_work *w) {
    int keys = TROUPE_HOP_KINDS * route->rank_count, sum = 0;
    memset(w->position, 0, (size_t)keys * sizeof *w->position);
    for (int64_t i = 0; i < w->hop_count; i++) {
        w->position[(int)w->hops[i].kind * route->rank_count + w->hops[i].peer]++;
    }
    for (int k = 0; k < keys; k++) {
        int count = w->position[k];
        w->position[k] = sum;
        sum += count;
    }
    for (int64_t i = 0; i < w->hop_count; i++) {
        int key = (int)w->hops[i].kind * route->rank_count + w->hops[i].peer;
        w->order[w->position[key]++] = (int)i;
    }
}

static struct troupe_route_message *new_message(struct troupe_route_binding *binding,
                                                enum troupe_route_hop_kind kind) {
    switch (kind) {
    case TROUPE_HOP_SEND:
        return &binding->sends[binding->send_count++];
    case TROUPE_HOP_RELAY:
        return &binding->relays[binding->relay_count++];
    case TROUPE_HOP_KEEP:
        return &binding->kept;
    default:
        return &binding->receives[binding->receive_count++];
    }
}

static void finish_message(struct troupe_route_message *m, size_t element_bytes) {
    int64_t row_end = 0;
    m->row_begin = m->boxes[0].begin[0];
    for (int b = 0; b < m->box_count; b++) {
        const struct troupe_box *box = &m->boxes[b];
        m->row_begin = box->begin[0] < m->row_begin ? box->begin[0] : m->row_begin;
        row_end = box->end[0] > row_end ? box->end[0] : row_end;
    }
    m->row_count = row_end - m->row_begin;
    m->bytes = (size_t)m->elements * element_bytes;
}

static void make_messages(struct troupe_route_binding *binding) {
    const troupe_route *route = binding->route;
    struct troupe_route_work *w = binding->work;
    sort_hops(route, w);
    w->box_count = 0;
    for (int64_t i = 0; i < w->hop_count;) {
        const struct troupe_route_hop *first = &w->hops[w->order[i]], *hop = first;
        struct troupe_route_message *message = new_message(binding, first->kind);
        *message = (struct troupe_route_message){
            .peer = route->ranks[first->peer],
            .relayed = first->kind == TROUPE_HOP_RELAY || first->kind == TROUPE_HOP_RECEIVE_RELAYED,
            .origin = route->ranks[first->origin],
            .boxes = w->boxes + w->box_count};
        for (; i < w->hop_count && hop->kind == first->kind && hop->peer == first->peer;
             hop = i < w->hop_count ? &w->hops[w->order[i]] : hop) {
            add_hop_boxes(route, w, message, hop);
            i++;
        }
        finish_message(message, route->element_bytes);
    }
}

troupe_status troupe_route_bind(struct troupe_route_binding *binding, const int64_t *source_offsets,
                                const int64_t *destination_offsets) {
    const troupe_route *route = binding->route;
    struct troupe_route_work *w = binding->work;
    int64_t sent = 0, received = 0;
    binding->send_count = binding->relay_count = binding->receive_count = 0;
    binding->kept = (struct troupe_route_message){.peer = binding->rank, .origin = binding->rank};
    TROUPE_TRY(check_offsets("source", &route->source, source_offsets, &sent));
    TROUPE_TRY(check_offsets("destination", &route->destination, destination_offsets, &received));
    if (sent != received) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "the source splits %lld rows and the destination %lld: the two sides "
                           "disagree about the microbatch",
                           (long long)sent, (long long)received);
    }
    if (w->slot == TROUPE_ROUTE_NOBODY) {
        return TROUPE_OK;
    }
    w->epoch++;
    w->hop_count = 0;
    make_segments(route, w, source_offsets, destination_offsets);
    number_demands(route, w);
    solve_first_hops(route, w);
    walk_hosts(route, w);
    keep(route, w);
    make_messages(binding);
    return TROUPE_OK;
}
