/* SPDX-License-Identifier: Apache-2.0 */
/* Validation of a task graph, and its islands. */
#include "scheduler/graph.h"

#include <stdint.h>

#include "runtime/check.h"
#include "runtime/memory.h"
#include "scheduler/graph_internal.h"

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

/* One slot of each gang that takes slots fits into the memory of its ranks. */
static troupe_status check_memory(const struct troupe_graph *graph, const int *take,
                                  int64_t *reserve) {
    for (int g = 0; g < graph->gang_count; g++) {
        const struct troupe_gang *gang = &graph->gangs[g];
        for (int k = 0; take[g] >= 0 && k < gang->rank_count; k++) {
            reserve[gang->ranks[k]] += gang->slot_bytes;
        }
    }
    for (int r = 0; graph->memory_bytes != NULL && r < graph->rank_count; r++) {
        if (reserve[r] > graph->memory_bytes[r]) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "rank %d has %lld bytes for activations, but one slot of each of "
                               "its gangs takes %lld; give it more, or fewer or smaller stages",
                               r, (long long)graph->memory_bytes[r], (long long)reserve[r]);
        }
    }
    return TROUPE_OK;
}

static troupe_status check_shared(const struct troupe_graph *graph) {
    troupe_status status = TROUPE_OK;
    int *take = NULL, *give = NULL;
    int64_t *reserve = NULL;
    TROUPE_TRY_FAIL(TROUPE_NEW(&take, graph->gang_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&give, graph->gang_count));
    TROUPE_TRY_FAIL(check_pools(graph, take, give));
    TROUPE_TRY_FAIL(TROUPE_NEW(&reserve, graph->rank_count));
    TROUPE_TRY_FAIL(check_memory(graph, take, reserve));
    TROUPE_TRY_FAIL(troupe_graph_check_cycles(graph));
fail:
    troupe_free(take);
    troupe_free(give);
    troupe_free(reserve);
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
    return check_shared(graph);
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
