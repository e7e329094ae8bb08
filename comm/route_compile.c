/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiling: cells, sets, and the lists that bind walks. See route_internal.h.
 */
#include <stdlib.h>
#include <string.h>

#include "comm/route_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

/* ---- ranks and hosts ---- */

static int compare_ints(const void *left, const void *right) {
    int a = *(const int *)left, b = *(const int *)right;
    return (a > b) - (a < b);
}

static int sort_unique(int *values, int count) {
    int unique = 0;
    qsort(values, (size_t)count, sizeof *values, compare_ints);
    for (int i = 0; i < count; i++) {
        if (i == 0 || values[i] != values[unique - 1]) {
            values[unique++] = values[i];
        }
    }
    return unique;
}

static troupe_status collect_ranks(troupe_route *route) {
    const struct troupe_layout *layouts[2] = {&route->source.layout, &route->destination.layout};
    int count = 0;
    TROUPE_TRY(TROUPE_NEW(&route->ranks, layouts[0]->piece_count + layouts[1]->piece_count));
    for (int s = 0; s < 2; s++) {
        for (int i = 0; i < layouts[s]->piece_count; i++) {
            route->ranks[count++] = layouts[s]->pieces[i].rank;
        }
    }
    route->rank_count = sort_unique(route->ranks, count);
    return TROUPE_OK;
}

/* Numbers the hosts in the order of their names in host_of_rank. */
static troupe_status number_hosts(troupe_route *route, const int *host_of_rank) {
    int *names = NULL;
    TROUPE_TRY(TROUPE_NEW(&route->hosts, route->rank_count));
    TROUPE_TRY(TROUPE_NEW(&names, route->rank_count));
    for (int i = 0; i < route->rank_count; i++) {
        route->hosts[i] = names[i] = host_of_rank == NULL ? 0 : host_of_rank[route->ranks[i]];
    }
    route->host_count = sort_unique(names, route->rank_count);
    for (int i = 0; i < route->rank_count; i++) {
        const int *name = bsearch(&route->hosts[i], names, (size_t)route->host_count, sizeof *names,
                                  compare_ints);
        route->hosts[i] = (int)(name - names);
    }
    troupe_free(names);
    return TROUPE_OK;
}

/* ---- cells ---- */

static int compare_int64s(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static troupe_status add_cell(troupe_route *route, const struct troupe_box *box, int *capacity) {
    if (route->cell_count == *capacity) {
        struct troupe_box *cells = NULL;
        int larger = *capacity == 0 ? 16 : 2 * *capacity;
        TROUPE_TRY(TROUPE_NEW(&cells, larger));
        if (route->cell_count > 0) {
            memcpy(cells, route->cells, (size_t)route->cell_count * sizeof *cells);
        }
        troupe_free(route->cells);
        route->cells = cells;
        *capacity = larger;
    }
    route->cells[route->cell_count++] = *box;
    return TROUPE_OK;
}

/* The middle one of the borders that cut the box, in the first dimension that has any; -1: none. */
static int choose_cut(const struct troupe_box *box, const struct troupe_box *pieces, int count,
                      int64_t *borders, int64_t *at) {
    for (int d = 0; d < TROUPE_BOX_DIMENSIONS; d++) {
        int found = 0;
        for (int i = 0; i < count; i++) {
            int64_t ends[2] = {pieces[i].begin[d], pieces[i].end[d]};
            for (int e = 0; e < 2; e++) {
                if (ends[e] > box->begin[d] && ends[e] < box->end[d]) {
                    borders[found++] = ends[e];
                }
            }
        }
        if (found > 0) {
            qsort(borders, (size_t)found, sizeof *borders, compare_int64s);
            *at = borders[found / 2];
            return d;
        }
    }
    return -1;
}

/* Cuts the box in two until none of the pieces has a border in it. */
static troupe_status cut(troupe_route *route, const struct troupe_box *box,
                         const struct troupe_box *pieces, int piece_count, int *capacity) {
    struct troupe_box *inside = NULL; /* the pieces' parts in the box that do not cover it */
    int64_t *borders = NULL, at = 0;
    int count = 0;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY_FAIL(TROUPE_NEW(&inside, piece_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&borders, 2 * piece_count));
    for (int i = 0; i < piece_count; i++) {
        if (troupe_box_intersect(&pieces[i], box, &inside[count]) &&
            !troupe_box_equal(&inside[count], box)) {
            count++;
        }
    }
    int dimension = choose_cut(box, inside, count, borders, &at);
    if (dimension < 0) {
        TROUPE_TRY_FAIL(add_cell(route, box, capacity));
    } else {
        struct troupe_box low = *box, high = *box;
        low.end[dimension] = high.begin[dimension] = at;
        TROUPE_TRY_FAIL(cut(route, &low, inside, count, capacity));
        TROUPE_TRY_FAIL(cut(route, &high, inside, count, capacity));
    }
fail:
    troupe_free(inside);
    troupe_free(borders);
    return status;
}

static int64_t greatest_divisor(int64_t a, int64_t b) {
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static troupe_status make_cells(troupe_route *route) {
    const struct troupe_layout *layouts[2] = {&route->source.layout, &route->destination.layout};
    int count = layouts[0]->piece_count + layouts[1]->piece_count, filled = 0, capacity = 0;
    struct troupe_box *pieces = NULL, all = {.begin = {0}};
    TROUPE_TRY(TROUPE_NEW(&pieces, count));
    for (int s = 0; s < 2; s++) {
        for (int i = 0; i < layouts[s]->piece_count; i++) {
            pieces[filled++] = layouts[s]->pieces[i].box;
        }
    }
    memcpy(all.end, layouts[0]->shape, sizeof all.end);
    all.end[0] = route->ragged ? 1 : all.end[0];
    troupe_status status =
        troupe_box_elements(&all) == 0 ? TROUPE_OK : cut(route, &all, pieces, count, &capacity);
    troupe_free(pieces);
    for (int c = 0; c < route->cell_count; c++) {
        const struct troupe_box *cell = &route->cells[c];
        int64_t row = troupe_box_elements(cell) / (cell->end[0] - cell->begin[0]);
        route->unit = greatest_divisor(row, route->unit);
    }
    return status;
}

/* ---- sets ---- */

/* One rank of the set of `item`, a part and cell. */
struct membership {
    int item;
    int host;
    int slot;
};

static int compare_memberships(const void *left, const void *right) {
    const struct membership *a = left, *b = right;
    int order = (a->item > b->item) - (a->item < b->item);
    order = order != 0 ? order : (a->host > b->host) - (a->host < b->host);
    return order != 0 ? order : (a->slot > b->slot) - (a->slot < b->slot);
}

/* Sets while they are made: equal ones are found by a hash table of their indices plus 1. */
struct set_builder {
    troupe_route *route;
    int member_count;
    int run_count;
    int table_size; /* a power of two */
    int *table;
};

static unsigned hash_members(const int *members, int count) {
    unsigned hash = 2166136261u; /* FNV-1a */
    for (int i = 0; i < count; i++) {
        hash = (hash ^ (unsigned)members[i]) * 16777619u;
    }
    return hash;
}

static void add_runs(struct set_builder *builder, struct troupe_route_set *set) {
    troupe_route *route = builder->route;
    struct troupe_route_run *runs = route->runs + builder->run_count;
    set->runs = runs;
    for (int i = 0; i < set->count; i++) {
        int host = route->hosts[set->members[i]];
        if (set->run_count == 0 || runs[set->run_count - 1].host != host) {
            runs[set->run_count++] = (struct troupe_route_run){.host = host, .begin = i};
        }
        runs[set->run_count - 1].end = i + 1;
    }
    builder->run_count += set->run_count;
}

/* Index of the set of the members that lie at the end of route->members; a new one keeps them. */
static int find_or_add_set(struct set_builder *builder, int count) {
    troupe_route *route = builder->route;
    const int *members = route->members + builder->member_count;
    unsigned mask = (unsigned)builder->table_size - 1;
    unsigned at = hash_members(members, count) & mask;
    for (; builder->table[at] != 0; at = (at + 1) & mask) {
        const struct troupe_route_set *set = &route->sets[builder->table[at] - 1];
        if (set->count == count &&
            memcmp(set->members, members, (size_t)count * sizeof *members) == 0) {
            return builder->table[at] - 1;
        }
    }
    struct troupe_route_set *set = &route->sets[route->set_count++];
    *set = (struct troupe_route_set){.count = count, .members = members};
    add_runs(builder, set);
    set->first_share = route->share_count;
    set->first_group = route->group_count;
    route->share_count += 2 * count;
    route->group_count += 1 + set->run_count;
    builder->member_count += count;
    builder->table[at] = route->set_count;
    return route->set_count - 1;
}

static bool covers(const struct troupe_box *piece, const struct troupe_box *cell) {
    struct troupe_box common;
    return troupe_box_intersect(piece, cell, &common);
}

static int64_t count_memberships(const troupe_route *route, const struct troupe_route_side *side) {
    int64_t count = 0;
    for (int i = 0; i < side->layout.piece_count; i++) {
        for (int c = 0; c < route->cell_count; c++) {
            count += covers(&side->layout.pieces[i].box, &route->cells[c]);
        }
    }
    return count;
}

static int64_t list_memberships(const troupe_route *route, const struct troupe_route_side *side,
                                struct membership *out) {
    int64_t count = 0;
    for (int i = 0; i < side->layout.piece_count; i++) {
        const struct troupe_layout_piece *piece = &side->layout.pieces[i];
        int slot = troupe_route_slot(route, piece->rank);
        int part = route->ragged ? piece->part : 0;
        for (int c = 0; c < route->cell_count; c++) {
            if (covers(&piece->box, &route->cells[c])) {
                out[count++] = (struct membership){
                    .item = part * route->cell_count + c, .host = route->hosts[slot], .slot = slot};
            }
        }
    }
    qsort(out, (size_t)count, sizeof *out, compare_memberships);
    return count;
}

static void add_sets(struct set_builder *builder, struct troupe_route_side *side,
                     const struct membership *list, int64_t count) {
    for (int i = 0; i < side->parts * builder->route->cell_count; i++) {
        side->set_of[i] = TROUPE_ROUTE_NOBODY;
    }
    for (int64_t begin = 0, end = 0; begin < count; begin = end) {
        int *members = builder->route->members + builder->member_count;
        for (; end < count && list[end].item == list[begin].item; end++) {
            members[end - begin] = list[end].slot;
        }
        side->set_of[list[begin].item] = find_or_add_set(builder, (int)(end - begin));
    }
}

static int compare_parts(const void *left, const void *right) {
    const struct membership *a = left, *b = right;
    int order = (a->host > b->host) - (a->host < b->host);
    return order != 0 ? order : (a->item > b->item) - (a->item < b->item);
}

/* Lists, for each key (kept in `host`), the distinct parts (kept in `item`), ascending. */
static troupe_status list_parts(struct membership *list, int64_t count, int key_count,
                                struct troupe_route_span **spans_out, int **parts_out) {
    TROUPE_TRY(TROUPE_NEW(spans_out, key_count));
    TROUPE_TRY(TROUPE_NEW(parts_out, count));
    qsort(list, (size_t)count, sizeof *list, compare_parts);
    int filled = 0;
    for (int64_t i = 0; i < count; i++) {
        struct troupe_route_span *span = &(*spans_out)[list[i].host];
        bool first = i == 0 || list[i - 1].host != list[i].host;
        span->begin = first ? filled : span->begin;
        if (first || list[i - 1].item != list[i].item) {
            (*parts_out)[filled++] = list[i].item;
        }
        span->end = filled;
    }
    return TROUPE_OK;
}

/* The lists of parts by host and by slot. */
static troupe_status make_lists(troupe_route *route, struct troupe_route_side *side,
                                struct membership *list, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        list[i].item /= route->cell_count;
    }
    TROUPE_TRY(
        list_parts(list, count, route->host_count, &side->parts_of_host, &side->host_part_lists));
    for (int64_t i = 0; i < count; i++) {
        list[i].host = list[i].slot;
    }
    return list_parts(list, count, route->rank_count, &side->parts_of, &side->part_lists);
}

static troupe_status make_side(struct set_builder *builder, struct troupe_route_side *side) {
    troupe_route *route = builder->route;
    struct membership *list = NULL;
    int64_t count = count_memberships(route, side);
    TROUPE_TRY(TROUPE_NEW(&side->set_of, side->parts * route->cell_count));
    TROUPE_TRY(TROUPE_NEW(&list, count));
    list_memberships(route, side, list);
    add_sets(builder, side, list, count);
    troupe_status status = make_lists(route, side, list, count);
    troupe_free(list);
    return status;
}

static troupe_status make_sets(troupe_route *route) {
    int sets = (route->source.parts + route->destination.parts) * route->cell_count;
    int64_t members =
        count_memberships(route, &route->source) + count_memberships(route, &route->destination);
    struct set_builder builder = {.route = route, .table_size = 1};
    while (builder.table_size < 2 * sets + 1) {
        builder.table_size *= 2;
    }
    TROUPE_TRY(TROUPE_NEW(&route->sets, sets));
    TROUPE_TRY(TROUPE_NEW(&route->members, members));
    TROUPE_TRY(TROUPE_NEW(&route->runs, members));
    TROUPE_TRY(TROUPE_NEW(&builder.table, builder.table_size));
    troupe_status status = make_side(&builder, &route->source);
    if (status == TROUPE_OK) {
        status = make_side(&builder, &route->destination);
    }
    troupe_free(builder.table);
    return status;
}

/* ---- components: source sets that share ranks ---- */

static int find_root(int *parent, int slot) {
    while (parent[slot] != slot) {
        parent[slot] = parent[parent[slot]];
        slot = parent[slot];
    }
    return slot;
}

static void join_members(const troupe_route *route, int *parent) {
    for (int i = 0; i < route->source.parts * route->cell_count; i++) {
        if (route->source.set_of[i] != TROUPE_ROUTE_NOBODY) {
            const struct troupe_route_set *set = &route->sets[route->source.set_of[i]];
            for (int m = 1; m < set->count; m++) {
                parent[find_root(parent, set->members[m])] = find_root(parent, set->members[0]);
            }
        }
    }
}

/* Numbers the components in the order of their first item, and lists the items of each. */
static troupe_status make_components(troupe_route *route) {
    int items = route->source.parts * route->cell_count;
    int *parent = NULL, *number = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY_FAIL(TROUPE_NEW(&parent, route->rank_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&number, route->rank_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&route->components, items));
    TROUPE_TRY_FAIL(TROUPE_NEW(&route->items, items));
    for (int i = 0; i < route->rank_count; i++) {
        parent[i] = i;
        number[i] = TROUPE_ROUTE_NOBODY;
    }
    join_members(route, parent);
    for (int pass = 0; pass < 2; pass++) { /* count, then fill */
        for (int i = 0; i < items; i++) {
            if (route->source.set_of[i] == TROUPE_ROUTE_NOBODY) {
                continue;
            }
            struct troupe_route_set *set = &route->sets[route->source.set_of[i]];
            int *own = &number[find_root(parent, set->members[0])];
            *own = *own == TROUPE_ROUTE_NOBODY ? route->component_count++ : *own;
            set->component = *own;
            struct troupe_route_span *span = &route->components[*own];
            if (pass == 1) {
                route->items[span->end] = i;
            }
            span->end++;
        }
        for (int k = 0, begin = 0; pass == 0 && k < route->component_count; k++) {
            struct troupe_route_span *span = &route->components[k];
            int count = span->end;
            span->begin = span->end = begin;
            begin += count;
        }
    }
fail:
    troupe_free(parent);
    troupe_free(number);
    return status;
}

/* ---- routes ---- */

static troupe_status check_shapes(const struct troupe_layout *source,
                                  const struct troupe_layout *destination) {
    if (source->summands > 1 || destination->summands > 1) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "the %s layout has partial sums, which this route would not add up: see "
                           "comm/route_sum.h",
                           source->summands > 1 ? "source" : "destination");
    }
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

/* Any source part may meet any destination part, so what is needed of one must be held of all. */
static troupe_status check_held(const troupe_route *route) {
    const struct troupe_route_side *from = &route->source, *to = &route->destination;
    for (int c = 0; c < route->cell_count; c++) {
        int needer = TROUPE_ROUTE_NOBODY;
        for (int part = 0; part < to->parts && needer == TROUPE_ROUTE_NOBODY; part++) {
            int set = to->set_of[part * route->cell_count + c];
            needer = set == TROUPE_ROUTE_NOBODY ? needer : route->sets[set].members[0];
        }
        for (int part = 0; part < from->parts && needer != TROUPE_ROUTE_NOBODY; part++) {
            if (from->set_of[part * route->cell_count + c] == TROUPE_ROUTE_NOBODY) {
                return troupe_fail(TROUPE_ERROR_INVALID,
                                   "rank %d needs elements at row %lld, column %lld that no rank "
                                   "of the source holds",
                                   route->ranks[needer], (long long)route->cells[c].begin[0],
                                   (long long)route->cells[c].begin[1]);
            }
        }
    }
    return TROUPE_OK;
}

static troupe_status side_init(struct troupe_route_side *side, const struct troupe_layout *layout) {
    struct troupe_layout copy = *layout;
    copy.piece_capacity = layout->piece_count;
    TROUPE_TRY(TROUPE_NEW(&copy.pieces, layout->piece_count));
    if (layout->piece_count > 0) {
        memcpy(copy.pieces, layout->pieces, (size_t)layout->piece_count * sizeof *copy.pieces);
    }
    side->layout = copy;
    side->parts = layout->ragged ? layout->part_count : 1;
    side->filled_max = layout->ragged ? layout->filled_max : 1;
    return TROUPE_OK;
}

static void side_fini(struct troupe_route_side *side) {
    troupe_layout_fini(&side->layout);
    troupe_free(side->set_of);
    troupe_free(side->part_lists);
    troupe_free(side->parts_of);
    troupe_free(side->host_part_lists);
    troupe_free(side->parts_of_host);
}

troupe_status troupe_route_compile(const struct troupe_route_options *options, troupe_route **out) {
    TROUPE_ASSERT(options->element_bytes > 0, "element_bytes %zu", options->element_bytes);
    TROUPE_TRY(check_shapes(options->source, options->destination));
    troupe_route *route = NULL;
    TROUPE_TRY(TROUPE_NEW(&route, 1));
    route->element_bytes = options->element_bytes;
    route->ragged = options->source->ragged;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY_FAIL(side_init(&route->source, options->source));
    TROUPE_TRY_FAIL(side_init(&route->destination, options->destination));
    TROUPE_TRY_FAIL(collect_ranks(route));
    TROUPE_TRY_FAIL(number_hosts(route, options->host_of_rank));
    TROUPE_TRY_FAIL(make_cells(route));
    TROUPE_TRY_FAIL(make_sets(route));
    TROUPE_TRY_FAIL(check_held(route));
    TROUPE_TRY_FAIL(make_components(route));
    TROUPE_TRY_FAIL(troupe_route_find_maxima(route));
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
    troupe_free(route->hosts);
    troupe_free(route->cells);
    troupe_free(route->sets);
    troupe_free(route->members);
    troupe_free(route->runs);
    troupe_free(route->components);
    troupe_free(route->items);
    troupe_free(route->needers_max);
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
