/* SPDX-License-Identifier: Apache-2.0 */
/* Validation of a task graph, and its islands. */
#include "scheduler/graph.h"

#include <stdint.h>
#include <stdlib.h>

#include "runtime/check.h"
#include "runtime/memory.h"

static troupe_status check_gang(const struct troupe_graph *graph, int g) {
    const struct troupe_gang *gang = &graph->gangs[g];
    if (gang->name == NULL) {
        return troupe_fail(TROUPE_ERROR_INVALID, "gang %d has no name", g);
    }
    if (gang->rank_count < 1 || gang->rank_count > TROUPE_GANG_RANKS_MAX) {
        return troupe_fail(TROUPE_ERROR_INVALID, "gang %s has %d ranks; it can have 1 to %d",
                           gang->name, gang->rank_count, TROUPE_GANG_RANKS_MAX);
    }
    for (int i = 0; i < gang->rank_count; i++) {
        if (gang->ranks[i] < 0 || gang->ranks[i] >= graph->rank_count) {
            return troupe_fail(TROUPE_ERROR_INVALID, "gang %s lists rank %d; there are %d ranks",
                               gang->name, gang->ranks[i], graph->rank_count);
        }
        for (int j = 0; j < i; j++) {
            if (gang->ranks[i] == gang->ranks[j]) {
                return troupe_fail(TROUPE_ERROR_INVALID, "gang %s lists rank %d twice", gang->name,
                                   gang->ranks[i]);
            }
        }
    }
    return TROUPE_OK;
}

static troupe_status check_method(const struct troupe_graph *graph, int m) {
    const struct troupe_method *method = &graph->methods[m];
    if (method->name == NULL || method->gang < 0 || method->gang >= graph->gang_count) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "method %d needs a name and a gang below %d; its gang is %d", m,
                           graph->gang_count, method->gang);
    }
    const char *gang = graph->gangs[method->gang].name;
    if (method->firings < 0) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s %s fires %d times a step", gang, method->name,
                           method->firings);
    }
    if (method->lane == TROUPE_LANE_REDUCTION && method->firings != 1) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "%s %s is in the reduction lane and fires %d times a step; only once a "
                           "step is possible",
                           gang, method->name, method->firings);
    }
    for (int i = 0; i < method->after_count; i++) {
        int before = method->after[i];
        if (before < 0 || before >= graph->method_count || before == m ||
            graph->methods[before].gang != method->gang) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "%s %s goes after method %d, which is no other method of the gang",
                               gang, method->name, before);
        }
        int firings = graph->methods[before].firings;
        if (firings != method->firings &&
            (firings == 0 || method->firings == 0 || (firings != 1 && method->firings != 1))) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "%s %s fires %d times a step but goes after %s, which fires %d "
                               "times; the counts must be equal or one of them 1",
                               gang, method->name, method->firings, graph->methods[before].name,
                               firings);
        }
    }
    return TROUPE_OK;
}

static troupe_status check_edge(const struct troupe_graph *graph, int e) {
    const struct troupe_edge *edge = &graph->edges[e];
    if (edge->name == NULL || edge->from < 0 || edge->from >= graph->method_count || edge->to < 0 ||
        edge->to >= graph->method_count) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "edge %d needs a name and two methods below %d; it goes from %d to %d",
                           e, graph->method_count, edge->from, edge->to);
    }
    int from = graph->methods[edge->from].firings, to = graph->methods[edge->to].firings;
    if (from != to) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "edge %s joins methods that fire %d and %d times a step; both ends must "
                           "fire equally often",
                           edge->name, from, to);
    }
    if (edge->credits < 1 || edge->initial < 0 || edge->initial > edge->credits) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "edge %s has %d credits and %d initial messages; it needs at least 1 "
                           "credit and one for each initial message",
                           edge->name, edge->credits, edge->initial);
    }
    if (edge->from == edge->to && edge->credits == edge->initial) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "edge %s leads back to its own method and all %d credits are taken by "
                           "initial messages; give it %d",
                           edge->name, edge->credits, edge->credits + 1);
    }
    return TROUPE_OK;
}

/* A gang's pool is taken by one method and returned by one (maybe the same), equally often. */
static troupe_status check_pools(const struct troupe_graph *graph, int *take, int *give) {
    for (int g = 0; g < graph->gang_count; g++) {
        take[g] = give[g] = -1;
    }
    for (int m = 0; m < graph->method_count; m++) {
        const struct troupe_method *method = &graph->methods[m];
        int g = method->gang;
        if ((method->slot_take && take[g] >= 0) || (method->slot_return && give[g] >= 0)) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "gang %s: a second method, %s, takes or returns activation slots",
                               graph->gangs[g].name, method->name);
        }
        take[g] = method->slot_take ? m : take[g];
        give[g] = method->slot_return ? m : give[g];
    }
    for (int g = 0; g < graph->gang_count; g++) {
        const struct troupe_gang *gang = &graph->gangs[g];
        if ((take[g] < 0) != (give[g] < 0) ||
            (take[g] >= 0 && graph->methods[take[g]].firings != graph->methods[give[g]].firings)) {
            return troupe_fail(
                TROUPE_ERROR_INVALID,
                "gang %s: slots must be taken by one method and returned by one that "
                "fires as often",
                gang->name);
        }
        if (take[g] >= 0 && gang->slots < 1) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "gang %s has %d activation slots; %s needs at least 1", gang->name,
                               gang->slots, graph->methods[take[g]].name);
        }
    }
    return TROUPE_OK;
}

/* Scratch of the search for cycles: who waits for whom within one step. The members of one
 * collective complete together, so they count as one node: the first of them. */
struct order_scratch {
    int *reductions;   /* methods of the reduction lane, by lane_order */
    int *last_of_rank; /* the rank's last method in the reduction lane so far */
    int *take;         /* by gang */
    int *give;
    int *node_of;   /* by method: the method that stands for it */
    int *waits;     /* by node: predecessors left */
    int *queue;     /* nodes without predecessors left */
    int (*arcs)[2]; /* from, to */
    int arc_count;
    int arc_capacity;
};

static void free_scratch(struct order_scratch *s) {
    troupe_free(s->reductions);
    troupe_free(s->last_of_rank);
    troupe_free(s->take);
    troupe_free(s->give);
    troupe_free(s->node_of);
    troupe_free(s->waits);
    troupe_free(s->queue);
    troupe_free(s->arcs);
}

static troupe_status make_scratch(const struct troupe_graph *graph, struct order_scratch *s) {
    s->arc_capacity = graph->edge_count;
    for (int m = 0; m < graph->method_count; m++) {
        const struct troupe_method *method = &graph->methods[m];
        s->arc_capacity += method->after_count;
        s->arc_capacity += graph->gangs[method->gang].rank_count; /* order of its lane */
    }
    TROUPE_TRY(TROUPE_NEW(&s->reductions, graph->method_count));
    TROUPE_TRY(TROUPE_NEW(&s->last_of_rank, graph->rank_count));
    TROUPE_TRY(TROUPE_NEW(&s->take, graph->gang_count));
    TROUPE_TRY(TROUPE_NEW(&s->give, graph->gang_count));
    TROUPE_TRY(TROUPE_NEW(&s->node_of, graph->method_count));
    TROUPE_TRY(TROUPE_NEW(&s->waits, graph->method_count));
    TROUPE_TRY(TROUPE_NEW(&s->queue, graph->method_count));
    return TROUPE_NEW(&s->arcs, s->arc_capacity);
}

static void add_arc(struct order_scratch *s, int from, int to) {
    TROUPE_ASSERT(s->arc_count < s->arc_capacity, "%d arcs", s->arc_count);
    s->arcs[s->arc_count][0] = s->node_of[from];
    s->arcs[s->arc_count][1] = s->node_of[to];
    s->arc_count++;
    s->waits[s->node_of[to]]++;
}

static int compare_lane_order(const void *a, const void *b, void *arg) {
    const struct troupe_method *methods = arg;
    int x = methods[*(const int *)a].lane_order, y = methods[*(const int *)b].lane_order;
    return (x > y) - (x < y);
}

/* A rank posts its reductions in ascending lane_order, so each waits for the rank's one before. */
static troupe_status add_lane_arcs(const struct troupe_graph *graph, struct order_scratch *s) {
    int count = 0;
    for (int m = 0; m < graph->method_count; m++) {
        s->node_of[m] = m;
        if (graph->methods[m].lane == TROUPE_LANE_REDUCTION) {
            s->reductions[count++] = m;
        }
    }
    qsort_r(s->reductions, (size_t)count, sizeof *s->reductions, compare_lane_order,
            (void *)graph->methods);
    for (int r = 0; r < graph->rank_count; r++) {
        s->last_of_rank[r] = -1;
    }
    for (int i = 1; i < count; i++) {
        int m = s->reductions[i], before = s->reductions[i - 1];
        bool same = graph->methods[m].lane_order == graph->methods[before].lane_order;
        s->node_of[m] = same ? s->node_of[before] : m;
    }
    for (int i = 0; i < count; i++) {
        const struct troupe_method *method = &graph->methods[s->reductions[i]];
        const struct troupe_gang *gang = &graph->gangs[method->gang];
        for (int k = 0; k < gang->rank_count; k++) {
            int last = s->last_of_rank[gang->ranks[k]];
            if (last >= 0 && graph->methods[last].lane_order == method->lane_order) {
                return troupe_fail(TROUPE_ERROR_INVALID,
                                   "rank %d has two reductions with lane order %d: %s %s and %s %s",
                                   gang->ranks[k], method->lane_order,
                                   graph->gangs[graph->methods[last].gang].name,
                                   graph->methods[last].name, gang->name, method->name);
            }
            if (last >= 0) {
                add_arc(s, last, s->reductions[i]);
            }
            s->last_of_rank[gang->ranks[k]] = s->reductions[i];
        }
    }
    return TROUPE_OK;
}

static void add_data_arcs(const struct troupe_graph *graph, struct order_scratch *s) {
    for (int m = 0; m < graph->method_count; m++) {
        for (int i = 0; i < graph->methods[m].after_count; i++) {
            add_arc(s, graph->methods[m].after[i], m);
        }
    }
    for (int e = 0; e < graph->edge_count; e++) {
        if (graph->edges[e].initial == 0) {
            add_arc(s, graph->edges[e].from, graph->edges[e].to);
        }
    }
}

/* Removes nodes that wait for nothing until none is left (Kahn, 1962); what stays is a cycle or
 * behind one. Walking back from there along arcs ends up on a cycle. */
static troupe_status check_cycles(const struct troupe_graph *graph, struct order_scratch *s) {
    int removed = 0, count = 0, nodes = 0;
    for (int m = 0; m < graph->method_count; m++) {
        nodes += s->node_of[m] == m;
        if (s->node_of[m] == m && s->waits[m] == 0) {
            s->queue[count++] = m;
        }
    }
    for (; removed < count; removed++) {
        for (int a = 0; a < s->arc_count; a++) {
            if (s->arcs[a][0] == s->queue[removed] && --s->waits[s->arcs[a][1]] == 0) {
                s->queue[count++] = s->arcs[a][1];
            }
        }
    }
    if (count == nodes) {
        return TROUPE_OK;
    }
    int m = 0;
    while (s->waits[m] == 0) {
        m++;
    }
    int before = m;
    for (int hop = 0; hop < graph->method_count; hop++) {
        m = before;
        for (int a = 0; a < s->arc_count; a++) {
            if (s->arcs[a][1] == m && s->waits[s->arcs[a][0]] > 0) {
                before = s->arcs[a][0];
                break;
            }
        }
    }
    return troupe_fail(TROUPE_ERROR_INVALID,
                       "%s %s waits for itself through %s %s; a cycle needs an edge with initial "
                       "messages, and reductions a lane order that follows their inputs",
                       graph->gangs[graph->methods[m].gang].name, graph->methods[m].name,
                       graph->gangs[graph->methods[before].gang].name, graph->methods[before].name);
}

static troupe_status check_order(const struct troupe_graph *graph) {
    struct order_scratch scratch = {0};
    troupe_status status = TROUPE_OK;
    TROUPE_TRY_FAIL(make_scratch(graph, &scratch));
    TROUPE_TRY_FAIL(check_pools(graph, scratch.take, scratch.give));
    TROUPE_TRY_FAIL(add_lane_arcs(graph, &scratch));
    add_data_arcs(graph, &scratch);
    TROUPE_TRY_FAIL(check_cycles(graph, &scratch));
fail:
    free_scratch(&scratch);
    return status;
}

troupe_status troupe_graph_check(const struct troupe_graph *graph) {
    if (graph->rank_count < 1) {
        return troupe_fail(TROUPE_ERROR_INVALID, "the task graph has %d ranks; it needs at least 1",
                           graph->rank_count);
    }
    for (int g = 0; g < graph->gang_count; g++) {
        TROUPE_TRY(check_gang(graph, g));
    }
    for (int m = 0; m < graph->method_count; m++) {
        TROUPE_TRY(check_method(graph, m));
    }
    for (int e = 0; e < graph->edge_count; e++) {
        TROUPE_TRY(check_edge(graph, e));
    }
    return check_order(graph);
}

/* Root of the union-find tree of `rank`; roots are lowest ranks. Halves the path on the way. */
static int find_conductor(int *conductor_of, int rank) {
    while (conductor_of[rank] != rank) {
        conductor_of[rank] = conductor_of[conductor_of[rank]];
        rank = conductor_of[rank];
    }
    return rank;
}

int troupe_graph_conductors(const struct troupe_graph *graph, int *conductor_of) {
    for (int r = 0; r < graph->rank_count; r++) {
        conductor_of[r] = r;
    }
    for (int g = 0; g < graph->gang_count; g++) {
        const struct troupe_gang *gang = &graph->gangs[g];
        for (int i = 1; i < gang->rank_count; i++) {
            int a = find_conductor(conductor_of, gang->ranks[0]);
            int b = find_conductor(conductor_of, gang->ranks[i]);
            conductor_of[a > b ? a : b] = a < b ? a : b;
        }
    }
    int count = 0;
    for (int r = 0; r < graph->rank_count; r++) {
        conductor_of[r] = find_conductor(conductor_of, r);
        count += conductor_of[r] == r;
    }
    return count;
}
