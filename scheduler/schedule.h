/* SPDX-License-Identifier: Apache-2.0
 *
 * A schedule is what has happened in one step, simulated or real: which task ran when. This file
 * says where the time went: for each rank how long it was busy, and why it was idle.
 *
 *     struct troupe_schedule schedule = {.graph = &graph, .tasks = tasks, .task_count = n};
 *     troupe_account_create(&graph, &account);
 *     troupe_account_fill(account, &schedule);
 *     account->ranks[r].idle_ns[TROUPE_IDLE_HEAD]
 *
 * Ownership: tasks are the caller's, in any order; an account is create/destroy, fill does not
 * allocate. Threads: plain data. Failure: create ERROR_MEMORY.
 */
#ifndef TROUPE_SCHEDULER_SCHEDULE_H
#define TROUPE_SCHEDULER_SCHEDULE_H

#include <stdint.h>

#include "runtime/status.h"
#include "scheduler/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One firing, on all ranks of its gang; in the reduction lane: the collective. */
struct troupe_task {
    int method;
    int microbatch;
    int64_t begin_ns; /* since the step began */
    int64_t end_ns;
};

struct troupe_schedule {
    const struct troupe_graph *graph;
    const struct troupe_task *tasks;
    int task_count;
};

enum troupe_idle {
    TROUPE_IDLE_HEAD,      /* before the rank's first task */
    TROUPE_IDLE_TAIL,      /* after its last one */
    TROUPE_IDLE_IMBALANCE, /* for a task of the same module, on another rank */
    TROUPE_IDLE_BOUNDARY,  /* for a task of another module */
    TROUPE_IDLE_REDUCTION, /* for gradients to be summed */
    TROUPE_IDLE_OTHER,     /* inputs were there: tickets, slots, credits, the runtime */
    TROUPE_IDLE_COUNT,
};

/* "head", "tail", ... */
const char *troupe_idle_name(enum troupe_idle cause);

struct troupe_rank_account {
    int64_t busy_ns;
    int64_t idle_ns[TROUPE_IDLE_COUNT]; /* with busy_ns it adds up to the makespan */
};

struct troupe_account {
    const struct troupe_graph *graph;
    int64_t makespan_ns; /* to the end of the last task */
    struct troupe_rank_account *ranks;
    struct troupe_rank_account total; /* over the ranks */
    void *scratch;
};

troupe_status troupe_account_create(const struct troupe_graph *graph, struct troupe_account **out);
/* Tasks of firings that have not run count as if they had no inputs. */
void troupe_account_fill(struct troupe_account *account, const struct troupe_schedule *schedule);
void troupe_account_destroy(struct troupe_account *account);

#ifdef __cplusplus
}
#endif
#endif
