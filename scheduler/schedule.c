/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/schedule.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/memory.h"

/* The end of the last input of a task, and where it came from. */
struct readiness {
    int64_t ready_ns;
    enum troupe_idle cause;
};

/* A task on a rank. */
struct stay {
    const struct troupe_task *task;
    int rank;
};

struct scratch {
    int *first;                       /* by method: of its firings in `tasks` */
    const struct troupe_task **tasks; /* by firing; NULL: has not run */
    int *inputs;                      /* edges by consumer */
    int *first_input;                 /* by method */
    struct stay *stays;
    int64_t *reduced_ns; /* by rank: the end of its last reduction */
};

const char *troupe_idle_name(enum troupe_idle cause) {
    static const char *const names[TROUPE_IDLE_COUNT] = {"head",     "tail",      "imbalance",
                                                         "boundary", "reduction", "other"};
    return names[cause];
}

static const struct troupe_gang *gang_of(const struct troupe_graph *graph, int method) {
    return &graph->gangs[graph->methods[method].gang];
}

/* ---- why a task began no earlier ---- */

static const struct troupe_task *find_task(const struct troupe_account *account, int method,
                                           int firing) {
    const struct scratch *scratch = account->scratch;
    bool exists = firing >= 0 && firing < account->graph->methods[method].firings;
    return exists ? scratch->tasks[scratch->first[method] + firing] : NULL;
}

static enum troupe_idle cause_of(const struct troupe_graph *graph, int before, int method) {
    if (graph->methods[before].lane == TROUPE_LANE_REDUCTION) {
        return TROUPE_IDLE_REDUCTION;
    }
    return gang_of(graph, before)->module == gang_of(graph, method)->module ? TROUPE_IDLE_IMBALANCE
                                                                            : TROUPE_IDLE_BOUNDARY;
}

static void wait_for(const struct troupe_account *account, int before, int firing, int method,
                     struct readiness *readiness) {
    const struct troupe_task *task = find_task(account, before, firing);
    if (task != NULL && task->end_ns > readiness->ready_ns) {
        *readiness = (struct readiness){task->end_ns, cause_of(account->graph, before, method)};
    }
}

static struct readiness readiness_of(const struct troupe_account *account,
                                     const struct troupe_task *task) {
    const struct troupe_graph *graph = account->graph;
    const struct scratch *scratch = account->scratch;
    const struct troupe_method *method = &graph->methods[task->method];
    struct readiness readiness = {0, TROUPE_IDLE_OTHER};
    for (int i = 0; i < method->after_count; i++) {
        int before = method->after[i], firings = graph->methods[before].firings;
        int firing = firings == method->firings ? task->microbatch : firings - 1;
        wait_for(account, before, firing, task->method, &readiness);
    }
    for (int i = scratch->first_input[task->method]; i < scratch->first_input[task->method + 1];
         i++) {
        const struct troupe_edge *edge = &graph->edges[scratch->inputs[i]];
        wait_for(account, edge->from, task->microbatch - edge->initial, task->method, &readiness);
    }
    return readiness;
}

/* ---- filling ---- */

static int compare_stays(const void *a, const void *b) {
    const struct stay *x = a, *y = b;
    if (x->rank != y->rank) {
        return x->rank < y->rank ? -1 : 1;
    }
    if (x->task->begin_ns != y->task->begin_ns) {
        return x->task->begin_ns < y->task->begin_ns ? -1 : 1;
    }
    return (x->task->end_ns > y->task->end_ns) - (x->task->end_ns < y->task->end_ns);
}

static int collect_stays(struct troupe_account *account, const struct troupe_schedule *schedule) {
    struct scratch *scratch = account->scratch;
    int count = 0;
    memset(scratch->reduced_ns, 0,
           (size_t)account->graph->rank_count * sizeof *scratch->reduced_ns);
    for (int i = 0; i < schedule->task_count; i++) {
        const struct troupe_task *task = &schedule->tasks[i];
        const struct troupe_gang *gang = gang_of(account->graph, task->method);
        bool reduces = account->graph->methods[task->method].lane == TROUPE_LANE_REDUCTION;
        scratch->tasks[scratch->first[task->method] + task->microbatch] = task;
        account->makespan_ns =
            task->end_ns > account->makespan_ns ? task->end_ns : account->makespan_ns;
        for (int k = 0; k < gang->rank_count; k++) {
            int64_t *reduced = &scratch->reduced_ns[gang->ranks[k]];
            if (!reduces) {
                scratch->stays[count++] = (struct stay){task, gang->ranks[k]};
            } else if (task->end_ns > *reduced) {
                *reduced = task->end_ns;
            }
        }
    }
    qsort(scratch->stays, (size_t)count, sizeof *scratch->stays, compare_stays);
    return count;
}

/* The gap in front of a task that is not the rank's first. */
static void charge_gap(struct troupe_account *account, struct troupe_rank_account *rank,
                       const struct troupe_task *task, int64_t since_ns) {
    struct readiness readiness = readiness_of(account, task);
    bool was_ready = readiness.ready_ns <= since_ns;
    rank->idle_ns[was_ready ? TROUPE_IDLE_OTHER : readiness.cause] += task->begin_ns - since_ns;
}

/* After the last task: waiting for the own reductions, then for the others. */
static void charge_tail(struct troupe_account *account, int rank, int64_t since_ns) {
    const struct scratch *scratch = account->scratch;
    struct troupe_rank_account *out = &account->ranks[rank];
    int64_t reduced = scratch->reduced_ns[rank] > since_ns ? scratch->reduced_ns[rank] : since_ns;
    out->idle_ns[TROUPE_IDLE_REDUCTION] += reduced - since_ns;
    out->idle_ns[TROUPE_IDLE_TAIL] += account->makespan_ns - reduced;
}

/* `stays` are those of the rank, by begin. */
static void fill_rank(struct troupe_account *account, int rank, const struct stay *stays,
                      int count) {
    struct troupe_rank_account *out = &account->ranks[rank];
    int64_t free_ns = 0;
    for (int i = 0; i < count; i++) {
        const struct troupe_task *task = stays[i].task;
        if (i == 0) {
            out->idle_ns[TROUPE_IDLE_HEAD] += task->begin_ns;
        } else if (task->begin_ns > free_ns) {
            charge_gap(account, out, task, free_ns);
        }
        int64_t begin = task->begin_ns > free_ns ? task->begin_ns : free_ns;
        if (task->end_ns > begin) {
            out->busy_ns += task->end_ns - begin;
            free_ns = task->end_ns;
        } else {
            free_ns = begin;
        }
    }
    charge_tail(account, rank, free_ns);
}

void troupe_account_fill(struct troupe_account *account, const struct troupe_schedule *schedule) {
    struct scratch *scratch = account->scratch;
    int ranks = account->graph->rank_count;
    int firings = scratch->first[account->graph->method_count];
    TROUPE_ASSERT(schedule->task_count <= firings, "%d tasks of %d", schedule->task_count, firings);
    memset(scratch->tasks, 0, (size_t)firings * sizeof(void *));
    memset(account->ranks, 0, (size_t)ranks * sizeof *account->ranks);
    account->makespan_ns = 0;
    account->total = (struct troupe_rank_account){0};
    int count = collect_stays(account, schedule), begin = 0;
    for (int r = 0; r < ranks; r++) {
        int end = begin;
        while (end < count && scratch->stays[end].rank == r) {
            end++;
        }
        fill_rank(account, r, scratch->stays + begin, end - begin);
        begin = end;
        account->total.busy_ns += account->ranks[r].busy_ns;
        for (int i = 0; i < TROUPE_IDLE_COUNT; i++) {
            account->total.idle_ns[i] += account->ranks[r].idle_ns[i];
        }
    }
}

/* ---- creation ---- */

static troupe_status make_inputs(const struct troupe_graph *graph, struct scratch *scratch) {
    TROUPE_TRY(TROUPE_NEW(&scratch->inputs, graph->edge_count));
    TROUPE_TRY(TROUPE_NEW(&scratch->first_input, graph->method_count + 2));
    int *first = scratch->first_input + 1; /* ends up one place further */
    for (int e = 0; e < graph->edge_count; e++) {
        first[graph->edges[e].to + 1]++;
    }
    for (int m = 0; m < graph->method_count; m++) {
        first[m + 1] += first[m];
    }
    for (int e = 0; e < graph->edge_count; e++) {
        scratch->inputs[first[graph->edges[e].to]++] = e;
    }
    return TROUPE_OK;
}

static troupe_status make_scratch(struct troupe_account *account) {
    const struct troupe_graph *graph = account->graph;
    struct scratch *scratch = NULL;
    int stays = 0;
    TROUPE_TRY(TROUPE_NEW(&scratch, 1));
    account->scratch = scratch;
    TROUPE_TRY(TROUPE_NEW(&scratch->first, graph->method_count + 1));
    for (int m = 0; m < graph->method_count; m++) {
        scratch->first[m + 1] = scratch->first[m] + graph->methods[m].firings;
        stays += graph->methods[m].firings * gang_of(graph, m)->rank_count;
    }
    TROUPE_TRY(TROUPE_NEW(&scratch->tasks, scratch->first[graph->method_count]));
    TROUPE_TRY(TROUPE_NEW(&scratch->stays, stays));
    TROUPE_TRY(TROUPE_NEW(&scratch->reduced_ns, graph->rank_count));
    return make_inputs(graph, scratch);
}

troupe_status troupe_account_create(const struct troupe_graph *graph, struct troupe_account **out) {
    struct troupe_account *account = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY(TROUPE_NEW(&account, 1));
    account->graph = graph;
    TROUPE_TRY_FAIL(TROUPE_NEW(&account->ranks, graph->rank_count));
    TROUPE_TRY_FAIL(make_scratch(account));
    *out = account;
    return TROUPE_OK;
fail:
    troupe_account_destroy(account);
    return status;
}

void troupe_account_destroy(struct troupe_account *account) {
    if (account == NULL) {
        return;
    }
    struct scratch *scratch = account->scratch;
    if (scratch != NULL) {
        troupe_free(scratch->first);
        troupe_free(scratch->tasks);
        troupe_free(scratch->inputs);
        troupe_free(scratch->first_input);
        troupe_free(scratch->stays);
        troupe_free(scratch->reduced_ns);
        troupe_free(scratch);
    }
    troupe_free(account->ranks);
    troupe_free(account);
}
