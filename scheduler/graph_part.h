/* SPDX-License-Identifier: Apache-2.0
 *
 * Some methods of a task graph as a graph of its own: the gangs they belong to, the ranks of those,
 * the edges between them. So a part of a job can be simulated without the rest.
 *
 *     TROUPE_TRY(troupe_graph_part_create(graph, is_in_part, slots, &part));
 *     troupe_sim_create(&part->graph, ...);     part->method_of[m] is method m's in the whole graph
 *
 * Order is kept: of two methods (gangs, edges, ranks) the one that comes first does so in both.
 *
 * Ownership: create/destroy; names are borrowed from the whole graph. Threads: plain data.
 * Failure: create ERROR_MEMORY.
 */
#ifndef TROUPE_SCHEDULER_GRAPH_PART_H
#define TROUPE_SCHEDULER_GRAPH_PART_H

#include "runtime/status.h"
#include "scheduler/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_graph_part {
    struct troupe_graph graph;
    int *method_of; /* by method of the part: of the whole graph */
    int *edge_of;
    void *internal;
};

/* By method of the whole graph whether it is in the part; by gang of it how many slots it has
 * there, instead of its own and of bounds on the ranks' memory. */
troupe_status troupe_graph_part_create(const struct troupe_graph *whole, const bool *is_in_part,
                                       const int *slots, struct troupe_graph_part **out);
/* Accepts NULL. */
void troupe_graph_part_destroy(struct troupe_graph_part *part);

#ifdef __cplusplus
}
#endif
#endif
