/* SPDX-License-Identifier: Apache-2.0
 *
 * A schedule for one step, found before it runs: when each task of a part of the job begins, under
 * the engine's rules, for given costs. The part is all that the gangs of one rank are joined to by
 * edges and common ranks, as a pipeline with its encoders; replicas are apart. Reductions and what
 * comes after them are left out: they are never held up, and hold nothing up.
 *
 *     troupe_step_plan_create(index, rank, limits, &plan);
 *     troupe_step_plan_costs(plan, &costs, step);
 *     troupe_step_plan_improve(plan, 1000000);              any number of times
 *     plan->start_ns[plan->first_task[method] + microbatch], plan->makespan_ns
 *
 * Tasks are placed one by one into the earliest gap on their ranks that what they wait for allows
 * (a serial generation scheme, so all active schedules can be had), in the order of a key. From a
 * first key each, schedules are pushed to the right and back to the left (Li and Willis, "An
 * iterative scheduling technique for resource-constrained project scheduling", EJOR 1992), then
 * keys are varied by chance from a fixed seed: the same input gives the same plan on every rank.
 *
 * Ownership: create/destroy; the index is borrowed. Only create allocates. Threads: one at a time.
 * Failure: create ERROR_MEMORY.
 */
#ifndef TROUPE_SCHEDULER_STEP_PLAN_H
#define TROUPE_SCHEDULER_STEP_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/status.h"
#include "scheduler/cost.h"
#include "scheduler/graph_index.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_step_plan {
    const struct troupe_graph_index *index;
    int task_count;
    int *first_task; /* by method of the graph; -1: not part of the plan */
    int *method_of;  /* by task */
    int *order;      /* tasks so that each comes after all that it waits for */
    int64_t *duration_ns;
    int64_t *start_ns;   /* of the best schedule so far */
    int64_t makespan_ns; /* of it; INT64_MAX: none yet */
    int64_t bound_ns;    /* no schedule is shorter, as far as a quick look tells */
    void *internal;
};

/* Limits by gang of the graph: microbatches that it may hold, at most its slots. */
troupe_status troupe_step_plan_create(const struct troupe_graph_index *index, int rank,
                                      const int *limits, struct troupe_step_plan **out);
/* Accepts NULL. */
void troupe_step_plan_destroy(struct troupe_step_plan *plan);
/* Forgets the schedule and takes the costs of a step. */
void troupe_step_plan_costs(struct troupe_step_plan *plan, const struct troupe_costs *costs,
                            int64_t step);
/* Tries the order in which tasks begin elsewhere (ascending keys, by task) and what pushing it to
 * and fro makes of it. The schedule is at least as good as that one, if it obeyed the rules. */
void troupe_step_plan_try(struct troupe_step_plan *plan, const int64_t *keys);
/* Takes the schedule of another plan of the same graph if that has the same tasks, which wait for
 * each other and share ranks in the same way and take as long, as replicas do. */
bool troupe_step_plan_take(struct troupe_step_plan *plan, const struct troupe_step_plan *other);
/* Searches until so many tasks have been placed, or the bound is met. */
void troupe_step_plan_improve(struct troupe_step_plan *plan, int64_t placements);

/* The tasks of the best schedule in the order in which they begin; of those that begin together,
 * what others wait for comes first. Following it on each rank is safe: nobody waits for ever. */
void troupe_step_plan_sequence(struct troupe_step_plan *plan, int *tasks_out);

#ifdef __cplusplus
}
#endif
#endif
