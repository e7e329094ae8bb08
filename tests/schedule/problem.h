/* SPDX-License-Identifier: Apache-2.0
 *
 * A step as a scheduling problem: tasks on ranks, and what each waits for under the engine's rules
 * (sequence, `after`, data, slots). Gangs of one rank, methods with steps, no reductions.
 *
 *     problem_read(&graph, &costs, &problem);
 *     for (int a = problem.begin[t]; a < problem.begin[t + 1]; a++) { problem.before[a] ... }
 *     problem_free(&problem);
 *
 * Ownership: read/free. Threads: one. Failure: prints and ends the program, as tests do.
 */
#ifndef TROUPE_TESTS_SCHEDULE_PROBLEM_H
#define TROUPE_TESTS_SCHEDULE_PROBLEM_H

#include <stdint.h>

#include "scheduler/cost.h"
#include "scheduler/graph.h"

/* The task waits for the end of this one, and then for a message. */
struct problem_arc {
    int task;
    int64_t delay;
};

struct problem {
    const struct troupe_graph *graph;
    int task_count;
    int *first; /* task of each method's microbatch 0, and behind the last method */
    int *method_of;
    int *rank_of;
    int64_t *ns;
    int *begin; /* of each task's arcs in before, and their end */
    struct problem_arc *before;
    int arc_count;
    int *order; /* topological */
};

void problem_read(const struct troupe_graph *graph, const struct troupe_costs *costs,
                  struct problem *out);
void problem_free(struct problem *problem);

#endif
