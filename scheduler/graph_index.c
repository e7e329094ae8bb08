/* SPDX-License-Identifier: Apache-2.0 */
/* All lists are made by the same counting sort: something to sort is a pair (list, item), and each
 * kind of list has a function that goes through its pairs in ascending order of the items. */
#include "scheduler/graph_index.h"

#include "runtime/check.h"
#include "runtime/memory.h"

/* Takes pairs twice: first counts them by list, then puts the items in place. */
struct sorter {
    struct troupe_lists *lists;
    int list_count;
    bool placing;
};

static void take_pair(struct sorter *sorter, int list, int item) {
    if (sorter->placing) {
        sorter->lists->items[sorter->lists->begin[list]++] = item;
    } else {
        sorter->lists->begin[list + 1]++;
    }
}

typedef void (*visit_pairs)(const struct troupe_graph_index *index, struct sorter *sorter);

static troupe_status make_lists(const struct troupe_graph_index *index, int list_count,
                                visit_pairs visit, struct troupe_lists *out) {
    struct sorter sorter = {.lists = out, .list_count = list_count};
    TROUPE_TRY(TROUPE_NEW(&out->begin, list_count + 1));
    visit(index, &sorter);
    for (int i = 0; i < list_count; i++) {
        out->begin[i + 1] += out->begin[i];
    }
    TROUPE_TRY(TROUPE_NEW(&out->items, out->begin[list_count]));
    sorter.placing = true;
    visit(index, &sorter);
    for (int i = list_count; i > 0; i--) { /* placing moved each begin to its end */
        out->begin[i] = out->begin[i - 1];
    }
    out->begin[0] = 0;
    return TROUPE_OK;
}

static void free_lists(struct troupe_lists *lists) {
    troupe_free(lists->begin);
    troupe_free(lists->items);
}

/* ---- the pairs of each kind of list ---- */

static void visit_inputs(const struct troupe_graph_index *index, struct sorter *sorter) {
    for (int e = 0; e < index->graph->edge_count; e++) {
        take_pair(sorter, index->graph->edges[e].to, e);
    }
}

static void visit_outputs(const struct troupe_graph_index *index, struct sorter *sorter) {
    for (int e = 0; e < index->graph->edge_count; e++) {
        take_pair(sorter, index->graph->edges[e].from, e);
    }
}

static void visit_followers(const struct troupe_graph_index *index, struct sorter *sorter) {
    for (int m = 0; m < index->graph->method_count; m++) {
        for (int i = 0; i < index->graph->methods[m].after_count; i++) {
            take_pair(sorter, index->graph->methods[m].after[i], m);
        }
    }
}

static void visit_methods(const struct troupe_graph_index *index, struct sorter *sorter) {
    for (int m = 0; m < index->graph->method_count; m++) {
        take_pair(sorter, index->graph->methods[m].gang, m);
    }
}

static void visit_gangs(const struct troupe_graph_index *index, struct sorter *sorter) {
    for (int g = 0; g < index->graph->gang_count; g++) {
        for (int k = 0; k < index->graph->gangs[g].rank_count; k++) {
            take_pair(sorter, index->graph->gangs[g].ranks[k], g);
        }
    }
}

/* A neighbour is met once for each common rank and counts at the first one. */
static bool is_first_meeting(const struct troupe_graph_index *index, int gang, int member,
                             int neighbour) {
    const struct troupe_gang *a = &index->graph->gangs[gang];
    const struct troupe_gang *b = &index->graph->gangs[neighbour];
    for (int k = 0; k < member; k++) {
        for (int i = 0; i < b->rank_count; i++) {
            if (a->ranks[k] == b->ranks[i]) {
                return false;
            }
        }
    }
    return true;
}

static void visit_neighbours(const struct troupe_graph_index *index, struct sorter *sorter) {
    for (int g = 0; g < index->graph->gang_count; g++) {
        for (int k = 0; k < index->graph->gangs[g].rank_count; k++) {
            int rank = index->graph->gangs[g].ranks[k];
            for (int i = index->gangs.begin[rank]; i < index->gangs.begin[rank + 1]; i++) {
                if (is_first_meeting(index, g, k, index->gangs.items[i])) {
                    take_pair(sorter, index->gangs.items[i], g);
                }
            }
        }
    }
}

static int island_of_gang(const struct troupe_graph_index *index, int gang) {
    return index->island_of_rank[index->graph->gangs[gang].ranks[0]];
}

int troupe_graph_index_island_of_method(const struct troupe_graph_index *index, int method) {
    return island_of_gang(index, index->graph->methods[method].gang);
}

static void visit_island_ranks(const struct troupe_graph_index *index, struct sorter *sorter) {
    for (int r = 0; r < index->graph->rank_count; r++) {
        take_pair(sorter, index->island_of_rank[r], r);
    }
}

static void visit_island_gangs(const struct troupe_graph_index *index, struct sorter *sorter) {
    for (int g = 0; g < index->graph->gang_count; g++) {
        take_pair(sorter, island_of_gang(index, g), g);
    }
}

static void visit_island_methods(const struct troupe_graph_index *index, struct sorter *sorter) {
    for (int m = 0; m < index->graph->method_count; m++) {
        take_pair(sorter, troupe_graph_index_island_of_method(index, m), m);
    }
}

static void visit_island_edges(const struct troupe_graph_index *index, struct sorter *sorter) {
    for (int e = 0; e < index->graph->edge_count; e++) {
        int to = troupe_graph_index_island_of_method(index, index->graph->edges[e].to);
        int from = troupe_graph_index_island_of_method(index, index->graph->edges[e].from);
        take_pair(sorter, to, e);
        if (from != to) {
            take_pair(sorter, from, e);
        }
    }
}

/* ---- islands ---- */

static troupe_status make_islands(struct troupe_graph_index *index) {
    const struct troupe_graph *graph = index->graph;
    TROUPE_TRY(TROUPE_NEW(&index->conductor_of, graph->rank_count));
    TROUPE_TRY(TROUPE_NEW(&index->island_of_rank, graph->rank_count));
    troupe_graph_conductors(graph, index->conductor_of);
    for (int r = 0; r < graph->rank_count; r++) { /* conductors come before their members */
        int conductor = index->conductor_of[r];
        index->island_of_rank[r] =
            conductor == r ? index->island_count++ : index->island_of_rank[conductor];
    }
    return TROUPE_OK;
}

/* places[item] of each item: where it is in its list. */
static troupe_status make_places(const struct troupe_lists *lists, int list_count, int item_count,
                                 int **out) {
    TROUPE_TRY(TROUPE_NEW(out, item_count));
    for (int list = 0; list < list_count; list++) {
        for (int i = lists->begin[list]; i < lists->begin[list + 1]; i++) {
            (*out)[lists->items[i]] = i - lists->begin[list];
        }
    }
    return TROUPE_OK;
}

static troupe_status make_edge_places(struct troupe_graph_index *index) {
    const struct troupe_lists *lists = &index->island_edges;
    TROUPE_TRY(TROUPE_NEW(&index->place_at_consumer, index->graph->edge_count));
    TROUPE_TRY(TROUPE_NEW(&index->place_at_producer, index->graph->edge_count));
    for (int island = 0; island < index->island_count; island++) {
        for (int i = lists->begin[island]; i < lists->begin[island + 1]; i++) {
            const struct troupe_edge *edge = &index->graph->edges[lists->items[i]];
            int place = i - lists->begin[island];
            if (troupe_graph_index_island_of_method(index, edge->to) == island) {
                index->place_at_consumer[lists->items[i]] = place;
            }
            if (troupe_graph_index_island_of_method(index, edge->from) == island) {
                index->place_at_producer[lists->items[i]] = place;
            }
        }
    }
    return TROUPE_OK;
}

troupe_status troupe_graph_index_create(const struct troupe_graph *graph,
                                        struct troupe_graph_index **out) {
    troupe_status status = TROUPE_OK;
    struct troupe_graph_index *index = NULL;
    TROUPE_TRY(TROUPE_NEW(&index, 1));
    index->graph = graph;
    TROUPE_TRY_FAIL(make_islands(index));
    int islands = index->island_count, methods = graph->method_count;
    TROUPE_TRY_FAIL(make_lists(index, methods, visit_inputs, &index->inputs));
    TROUPE_TRY_FAIL(make_lists(index, methods, visit_outputs, &index->outputs));
    TROUPE_TRY_FAIL(make_lists(index, methods, visit_followers, &index->followers));
    TROUPE_TRY_FAIL(make_lists(index, graph->gang_count, visit_methods, &index->methods));
    TROUPE_TRY_FAIL(make_lists(index, graph->rank_count, visit_gangs, &index->gangs));
    TROUPE_TRY_FAIL(make_lists(index, graph->gang_count, visit_neighbours, &index->neighbours));
    TROUPE_TRY_FAIL(make_lists(index, islands, visit_island_ranks, &index->island_ranks));
    TROUPE_TRY_FAIL(make_lists(index, islands, visit_island_gangs, &index->island_gangs));
    TROUPE_TRY_FAIL(make_lists(index, islands, visit_island_methods, &index->island_methods));
    TROUPE_TRY_FAIL(make_lists(index, islands, visit_island_edges, &index->island_edges));
    TROUPE_TRY_FAIL(
        make_places(&index->island_ranks, islands, graph->rank_count, &index->place_of_rank));
    TROUPE_TRY_FAIL(
        make_places(&index->island_gangs, islands, graph->gang_count, &index->place_of_gang));
    TROUPE_TRY_FAIL(make_places(&index->island_methods, islands, methods, &index->place_of_method));
    TROUPE_TRY_FAIL(make_edge_places(index));
    *out = index;
    return TROUPE_OK;
fail:
    troupe_graph_index_destroy(index);
    return status;
}

void troupe_graph_index_destroy(struct troupe_graph_index *index) {
    if (index == NULL) {
        return;
    }
    struct troupe_lists *const lists[] = {
        &index->inputs,         &index->outputs,      &index->followers,    &index->methods,
        &index->gangs,          &index->neighbours,   &index->island_ranks, &index->island_gangs,
        &index->island_methods, &index->island_edges,
    };
    for (size_t i = 0; i < TROUPE_COUNT_OF(lists); i++) {
        free_lists(lists[i]);
    }
    troupe_free(index->conductor_of);
    troupe_free(index->island_of_rank);
    troupe_free(index->place_of_rank);
    troupe_free(index->place_of_gang);
    troupe_free(index->place_of_method);
    troupe_free(index->place_at_consumer);
    troupe_free(index->place_at_producer);
    troupe_free(index);
}
