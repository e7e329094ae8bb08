/* SPDX-License-Identifier: Apache-2.0
 *
 * The part of troupe_graph_check that looks at a whole step. Ownership: none. Threads: any.
 * Failure: ERROR_INVALID with the cycle, ERROR_MEMORY.
 */
#ifndef TROUPE_SCHEDULER_GRAPH_INTERNAL_H
#define TROUPE_SCHEDULER_GRAPH_INTERNAL_H

#include "scheduler/graph.h"

/* No task of a step waits for itself, be it through data, credits, slots, or the reduction lane.
 * The graph is right in all else. */
troupe_status troupe_graph_check_cycles(const struct troupe_graph *graph);

#endif
