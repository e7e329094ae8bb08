/* SPDX-License-Identifier: Apache-2.0
 *
 * The optimum of a small scheduling problem: the shortest step that the engine's rules (sequence,
 * `after`, data, slots) allow, by exhaustive search over active schedules (Giffler and Thompson,
 * 1960) with branch and bound. Gangs of one rank, methods with steps, no reductions.
 *
 *     solver_solve(&graph, &costs, 1000000, &solution);
 *     if (solution.proved) { solution.optimum_ns }
 *
 * Its bounds inside are its own, not those of scheduler/bound.h, so that one can test the other.
 *
 * Ownership: none. Threads: one. Failure: not proved when it would take more than nodes_max.
 */
#ifndef TROUPE_TESTS_SCHEDULE_SOLVER_H
#define TROUPE_TESTS_SCHEDULE_SOLVER_H

#include <stdbool.h>
#include <stdint.h>

#include "scheduler/cost.h"
#include "scheduler/graph.h"

struct solution {
    int64_t optimum_ns; /* of the best schedule found */
    bool proved;        /* that there is no better one */
    int64_t nodes;
};

void solver_solve(const struct troupe_graph *graph, const struct troupe_costs *costs,
                  int64_t nodes_max, struct solution *out);

#endif
