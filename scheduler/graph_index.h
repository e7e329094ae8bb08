/* SPDX-License-Identifier: Apache-2.0
 *
 * What is where in a task graph, compiled once: the edges at each method, the methods of each gang,
 * the gangs of each rank, and what each island consists of. So engines and policies cost what their
 * island costs, however large the job; engines of one graph may share one index.
 *
 *     TROUPE_TRY(troupe_graph_index_create(&graph, &index));
 *     for (int i = index->inputs.begin[m]; i < index->inputs.begin[m + 1]; i++) {
 *         edge = index->inputs.items[i];
 *     }
 *
 * Ownership: create/destroy; the graph, which has passed troupe_graph_check, is borrowed.
 * Threads: read only after create. Failure: ERROR_MEMORY.
 */
#ifndef TROUPE_SCHEDULER_GRAPH_INDEX_H
#define TROUPE_SCHEDULER_GRAPH_INDEX_H

#include "runtime/status.h"
#include "scheduler/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Lists one behind the other: list i is items[begin[i]] .. items[begin[i + 1] - 1], ascending. */
struct troupe_lists {
    int *begin;
    int *items;
};

struct troupe_graph_index {
    const struct troupe_graph *graph;
    struct troupe_lists inputs;     /* by method: edges that it consumes */
    struct troupe_lists outputs;    /* by method: edges that it produces */
    struct troupe_lists followers;  /* by method: methods that go after it */
    struct troupe_lists methods;    /* by gang */
    struct troupe_lists gangs;      /* by rank */
    struct troupe_lists neighbours; /* by gang: gangs that share a rank with it, itself too */
    int *conductor_of;              /* by rank */
    int island_count;               /* islands in the order of their conductors */
    int *island_of_rank;
    struct troupe_lists island_ranks, island_gangs, island_methods;
    struct troupe_lists island_edges; /* with an end in the island */
    /* Where something is in the lists of its island. */
    int *place_of_rank, *place_of_gang, *place_of_method;
    int *place_at_consumer, *place_at_producer; /* by edge, in the islands of its ends */
};

troupe_status troupe_graph_index_create(const struct troupe_graph *graph,
                                        struct troupe_graph_index **out);
/* Accepts NULL. */
void troupe_graph_index_destroy(struct troupe_graph_index *index);

int troupe_graph_index_island_of_method(const struct troupe_graph_index *index, int method);

#ifdef __cplusplus
}
#endif
#endif
