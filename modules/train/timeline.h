/* SPDX-License-Identifier: Apache-2.0
 *
 * When the tasks of a step ran, brought together from all ranks on all of them; and on rank 0 how
 * long the step took at least (T*, for the times that the tasks took), and why ranks were idle.
 *
 *     TROUPE_TRY(troupe_timeline_create(comm, &timeline));
 *     options.trace = troupe_timeline_trace(timeline);               (of the runtime)
 *     TROUPE_TRY(troupe_timeline_attach(timeline, &graph));          (before the first step)
 *     troupe_timeline_begin(timeline);  ... the step ...
 *     TROUPE_TRY(troupe_timeline_collect(timeline, world));
 *     const struct troupe_timeline_result *result = troupe_timeline_result(timeline);
 *
 * Clocks: ranks of one host share theirs; the steps of other hosts are laid upon each other by
 * their beginnings. A gang's task begins when its last member has begun and ends with its last; a
 * collective begins when the last rank has posted it.
 *
 * Ownership: create/destroy; the graph is borrowed until the next attach. Threads: the rank's.
 * Failure: ERROR_MEMORY; the group's. begin and collect do not allocate.
 */
#ifndef TROUPE_MODULES_TRAIN_TIMELINE_H
#define TROUPE_MODULES_TRAIN_TIMELINE_H

#include <stdint.h>

#include "comm/group.h"
#include "runtime/trace.h"
#include "scheduler/bound.h"
#include "scheduler/schedule.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_timeline troupe_timeline;

struct troupe_timeline_result {
    struct troupe_schedule schedule;
    const struct troupe_account *account; /* T and idle time by rank and cause */
    struct troupe_bound_result bound;     /* T* */
};

troupe_status troupe_timeline_create(troupe_comm *comm, troupe_timeline **out);
struct troupe_trace *troupe_timeline_trace(troupe_timeline *timeline);
/* Sizes it for the graph; again when the graph is another one. */
troupe_status troupe_timeline_attach(troupe_timeline *timeline, const struct troupe_graph *graph);
void troupe_timeline_begin(troupe_timeline *timeline);
/* Collective over the world group. */
troupe_status troupe_timeline_collect(troupe_timeline *timeline, troupe_group *world);
/* After a collect, until the next begin: the same on every rank. */
const struct troupe_schedule *troupe_timeline_schedule(const troupe_timeline *timeline);
/* On rank 0 after a collect, until the next begin; elsewhere NULL. */
const struct troupe_timeline_result *troupe_timeline_result(const troupe_timeline *timeline);
/* Accepts NULL. */
void troupe_timeline_destroy(troupe_timeline *timeline);

#ifdef __cplusplus
}
#endif
#endif
