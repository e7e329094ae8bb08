/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/graph_part.h"

#include "runtime/check.h"
#include "runtime/memory.h"

enum { NONE = -1 };

struct arrays {
    struct troupe_gang *gangs;
    struct troupe_method *methods;
    struct troupe_edge *edges;
    int *ranks; /* of all gangs, one list behind the other */
    int *after; /* of all methods */
};

/* Where things of the whole graph are in the part. */
struct places {
    int *method, *gang, *rank;
};

static void free_places(struct places *places) {
    troupe_free(places->method);
    troupe_free(places->gang);
    troupe_free(places->rank);
}

/* Marks what the part has, then numbers it. */
static troupe_status find_places(const struct troupe_graph *whole, const bool *is_in_part,
                                 struct places *places, struct troupe_graph *counts) {
    TROUPE_TRY(TROUPE_NEW(&places->method, whole->method_count));
    TROUPE_TRY(TROUPE_NEW(&places->gang, whole->gang_count));
    TROUPE_TRY(TROUPE_NEW(&places->rank, whole->rank_count));
    for (int m = 0; m < whole->method_count; m++) {
        const struct troupe_gang *gang = &whole->gangs[whole->methods[m].gang];
        places->method[m] = is_in_part[m] ? counts->method_count++ : NONE;
        for (int k = 0; is_in_part[m] && k < gang->rank_count; k++) {
            places->gang[whole->methods[m].gang] = true;
            places->rank[gang->ranks[k]] = true;
        }
    }
    for (int g = 0; g < whole->gang_count; g++) {
        places->gang[g] = places->gang[g] ? counts->gang_count++ : NONE;
    }
    for (int r = 0; r < whole->rank_count; r++) {
        places->rank[r] = places->rank[r] ? counts->rank_count++ : NONE;
    }
    for (int e = 0; e < whole->edge_count; e++) {
        counts->edge_count += is_in_part[whole->edges[e].from] && is_in_part[whole->edges[e].to];
    }
    return TROUPE_OK;
}

static troupe_status allocate(const struct troupe_graph *whole, struct troupe_graph_part *part,
                              struct arrays *arrays) {
    int ranks = 0, after = 0;
    for (int g = 0; g < whole->gang_count; g++) {
        ranks += whole->gangs[g].rank_count;
    }
    for (int m = 0; m < whole->method_count; m++) {
        after += whole->methods[m].after_count;
    }
    TROUPE_TRY(TROUPE_NEW(&arrays->gangs, part->graph.gang_count));
    TROUPE_TRY(TROUPE_NEW(&arrays->methods, part->graph.method_count));
    TROUPE_TRY(TROUPE_NEW(&arrays->edges, part->graph.edge_count));
    TROUPE_TRY(TROUPE_NEW(&arrays->ranks, ranks));
    TROUPE_TRY(TROUPE_NEW(&arrays->after, after));
    TROUPE_TRY(TROUPE_NEW(&part->method_of, part->graph.method_count));
    return TROUPE_NEW(&part->edge_of, part->graph.edge_count);
}

static void copy_gangs(const struct troupe_graph *whole, const struct places *places,
                       const int *slots, struct arrays *arrays) {
    int *list = arrays->ranks;
    for (int g = 0; g < whole->gang_count; g++) {
        const struct troupe_gang *from = &whole->gangs[g];
        if (places->gang[g] == NONE) {
            continue;
        }
        struct troupe_gang *to = &arrays->gangs[places->gang[g]];
        *to = *from;
        to->ranks = list;
        to->slots = slots[g];
        to->slot_bytes = 0;
        for (int k = 0; k < from->rank_count; k++) {
            *list++ = places->rank[from->ranks[k]];
        }
    }
}

static void copy_methods(const struct troupe_graph *whole, const struct places *places,
                         struct arrays *arrays, int *method_of) {
    int *list = arrays->after;
    for (int m = 0; m < whole->method_count; m++) {
        const struct troupe_method *from = &whole->methods[m];
        if (places->method[m] == NONE) {
            continue;
        }
        struct troupe_method *to = &arrays->methods[places->method[m]];
        *to = *from;
        to->gang = places->gang[from->gang];
        to->after = list;
        to->after_count = 0;
        for (int i = 0; i < from->after_count; i++) {
            if (places->method[from->after[i]] != NONE) {
                list[to->after_count++] = places->method[from->after[i]];
            }
        }
        list += to->after_count;
        method_of[places->method[m]] = m;
    }
}

static void copy_edges(const struct troupe_graph *whole, const struct places *places,
                       struct arrays *arrays, int *edge_of) {
    int count = 0;
    for (int e = 0; e < whole->edge_count; e++) {
        int from = places->method[whole->edges[e].from], to = places->method[whole->edges[e].to];
        if (from != NONE && to != NONE) {
            arrays->edges[count] = whole->edges[e];
            arrays->edges[count].from = from;
            arrays->edges[count].to = to;
            edge_of[count++] = e;
        }
    }
}

troupe_status troupe_graph_part_create(const struct troupe_graph *whole, const bool *is_in_part,
                                       const int *slots, struct troupe_graph_part **out) {
    troupe_status status = TROUPE_OK;
    struct troupe_graph_part *part = NULL;
    struct arrays *arrays = NULL;
    struct places places = {0};
    TROUPE_TRY_FAIL(TROUPE_NEW(&part, 1));
    TROUPE_TRY_FAIL(TROUPE_NEW(&arrays, 1));
    part->internal = arrays;
    TROUPE_TRY_FAIL(find_places(whole, is_in_part, &places, &part->graph));
    TROUPE_TRY_FAIL(allocate(whole, part, arrays));
    copy_gangs(whole, &places, slots, arrays);
    copy_methods(whole, &places, arrays, part->method_of);
    copy_edges(whole, &places, arrays, part->edge_of);
    part->graph.gangs = arrays->gangs;
    part->graph.methods = arrays->methods;
    part->graph.edges = arrays->edges;
    free_places(&places);
    *out = part;
    return TROUPE_OK;
fail:
    free_places(&places);
    troupe_graph_part_destroy(part);
    return status;
}

void troupe_graph_part_destroy(struct troupe_graph_part *part) {
    if (part == NULL) {
        return;
    }
    struct arrays *arrays = part->internal;
    if (arrays != NULL) {
        troupe_free(arrays->gangs);
        troupe_free(arrays->methods);
        troupe_free(arrays->edges);
        troupe_free(arrays->ranks);
        troupe_free(arrays->after);
        troupe_free(arrays);
    }
    troupe_free(part->method_of);
    troupe_free(part->edge_of);
    troupe_free(part);
}
