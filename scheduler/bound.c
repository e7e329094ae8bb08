/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes are firings of one step, arcs what makes one wait for the end of another. Reductions that
 * meet in one collective are one node. Heads and tails are longest paths, found in one topological
 * order that is kept; then Jackson's preemptive schedule for each rank. */
#include "scheduler/bound.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/memory.h"

struct arc {
    int from; /* node */
    int to;
    int edge; /* whose message it is, and its producing microbatch; -1: no message */
    int microbatch;
};

struct job {
    int node;
    int64_t head_ns;
};

struct troupe_bound {
    const struct troupe_graph *graph;
    struct troupe_bound_options options;
    int *first; /* node of a method's microbatch 0; of a reduction, the collective's */
    int node_count;
    int64_t *task_ns; /* by node */
    int64_t *head_ns; /* longest path before it */
    int64_t *tail_ns; /* longest path behind it */
    struct arc *arcs; /* by the topological order of `from` */
    int arc_count;
    int *jobs_of; /* nodes by rank: jobs_of[first_job[r] .. first_job[r + 1]) */
    int *first_job;
    struct job *sorted; /* scratch: of the rank with most */
    int *heap;          /* scratch: nodes released, longest tail on top */
    int64_t *left_ns;   /* scratch: by node */
};

static bool reduces(const troupe_bound *bound, int method) {
    return bound->graph->methods[method].lane == TROUPE_LANE_REDUCTION;
}

static const struct troupe_gang *gang_of(const troupe_bound *bound, int method) {
    return &bound->graph->gangs[bound->graph->methods[method].gang];
}

/* ---- creation ---- */

/* The first method of the same collective. */
static int meets_at(const troupe_bound *bound, int method) {
    const struct troupe_method *methods = bound->graph->methods;
    int first = 0;
    while (!reduces(bound, first) || methods[first].lane_order != methods[method].lane_order) {
        first++;
    }
    return first;
}

static troupe_status make_nodes(troupe_bound *bound) {
    const struct troupe_graph *graph = bound->graph;
    TROUPE_TRY(TROUPE_NEW(&bound->first, graph->method_count));
    for (int m = 0; m < graph->method_count; m++) {
        int meets = reduces(bound, m) ? meets_at(bound, m) : m;
        bound->first[m] = meets == m ? bound->node_count : bound->first[meets];
        bound->node_count += meets == m ? graph->methods[m].firings : 0;
    }
    TROUPE_TRY(TROUPE_NEW(&bound->task_ns, bound->node_count));
    TROUPE_TRY(TROUPE_NEW(&bound->head_ns, bound->node_count));
    TROUPE_TRY(TROUPE_NEW(&bound->tail_ns, bound->node_count));
    return TROUPE_NEW(&bound->left_ns, bound->node_count);
}

/* Counts, or also keeps where there is memory. */
static void add_arc(troupe_bound *bound, struct arc arc) {
    if (bound->arcs != NULL && arc.from != arc.to) {
        bound->arcs[bound->arc_count] = arc;
    }
    bound->arc_count += arc.from != arc.to;
}

static void add_wait(troupe_bound *bound, int from, int from_firing, int to, int to_firing) {
    add_arc(bound, (struct arc){.from = bound->first[from] + from_firing,
                                .to = bound->first[to] + to_firing,
                                .edge = -1});
}

static void add_method_arcs(troupe_bound *bound, int m) {
    const struct troupe_method *method = &bound->graph->methods[m];
    for (int k = 1; k < method->firings; k++) {
        add_wait(bound, m, k - 1, m, k);
    }
    for (int i = 0; i < method->after_count; i++) {
        int before = method->after[i], firings = bound->graph->methods[before].firings;
        for (int k = 0; firings == method->firings && k < firings; k++) {
            add_wait(bound, before, k, m, k);
        }
        if (firings != method->firings && firings > 0 && method->firings > 0) {
            add_wait(bound, before, firings - 1, m, 0);
        }
    }
}

static void add_edge_arcs(troupe_bound *bound, int e) {
    const struct troupe_edge *edge = &bound->graph->edges[e];
    int firings = bound->graph->methods[edge->to].firings;
    for (int k = 0; edge->from != edge->to && k + edge->initial < firings; k++) {
        add_arc(bound, (struct arc){.from = bound->first[edge->from] + k,
                                    .to = bound->first[edge->to] + k + edge->initial,
                                    .edge = e,
                                    .microbatch = k});
    }
}

/* The method of the gang that takes, or returns, the slots; -1: none. */
static int slot_method(const troupe_bound *bound, int gang, bool takes) {
    for (int m = 0; m < bound->graph->method_count; m++) {
        const struct troupe_method *method = &bound->graph->methods[m];
        if (method->gang == gang && (takes ? method->slot_take : method->slot_return)) {
            return m;
        }
    }
    return -1;
}

static void add_slot_arcs(troupe_bound *bound, int take) {
    const struct troupe_method *method = &bound->graph->methods[take];
    int slots = bound->graph->gangs[method->gang].slots;
    int give = slot_method(bound, method->gang, false);
    for (int k = 0; give >= 0 && slots > 0 && k + slots < method->firings; k++) {
        add_wait(bound, give, k, take, k + slots);
    }
}

static void add_arcs(troupe_bound *bound) {
    bound->arc_count = 0;
    for (int m = 0; m < bound->graph->method_count; m++) {
        add_method_arcs(bound, m);
        if (bound->graph->methods[m].slot_take) {
            add_slot_arcs(bound, m);
        }
    }
    for (int e = 0; e < bound->graph->edge_count; e++) {
        add_edge_arcs(bound, e);
    }
}

static int compare_arcs(const void *a, const void *b, void *arg) {
    const int *place = arg;
    int x = place[((const struct arc *)a)->from], y = place[((const struct arc *)b)->from];
    return (x > y) - (x < y);
}

/* Sorts the arcs by a topological order of the nodes (Kahn, 1962). */
static void sort_arcs(troupe_bound *bound, int *waits, int *queue, int *place, int *first_arc) {
    for (int a = 0; a < bound->arc_count; a++) {
        waits[bound->arcs[a].to]++;
        first_arc[bound->arcs[a].from + 1]++;
        place[bound->arcs[a].from] = bound->arcs[a].from;
    }
    qsort_r(bound->arcs, (size_t)bound->arc_count, sizeof *bound->arcs, compare_arcs, place);
    int count = 0;
    for (int n = 0; n < bound->node_count; n++) {
        first_arc[n + 1] += first_arc[n];
        if (waits[n] == 0) {
            queue[count++] = n;
        }
    }
    for (int i = 0; i < count; i++) {
        place[queue[i]] = i;
        for (int a = first_arc[queue[i]]; a < first_arc[queue[i] + 1]; a++) {
            if (--waits[bound->arcs[a].to] == 0) {
                queue[count++] = bound->arcs[a].to;
            }
        }
    }
    TROUPE_ASSERT(count == bound->node_count, "%d of %d tasks wait for themselves",
                  bound->node_count - count, bound->node_count);
    qsort_r(bound->arcs, (size_t)bound->arc_count, sizeof *bound->arcs, compare_arcs, place);
}

static troupe_status make_arcs(troupe_bound *bound) {
    int *memory = NULL;
    add_arcs(bound); /* counts */
    TROUPE_TRY(TROUPE_NEW(&bound->arcs, bound->arc_count));
    add_arcs(bound);
    int n = bound->node_count;
    TROUPE_TRY(TROUPE_NEW(&memory, 4 * n + 1));
    sort_arcs(bound, memory, memory + n, memory + 2 * n, memory + 3 * n);
    troupe_free(memory);
    return TROUPE_OK;
}

static troupe_status make_jobs(troupe_bound *bound) {
    const struct troupe_graph *graph = bound->graph;
    int total = 0, most = 0;
    TROUPE_TRY(TROUPE_NEW(&bound->first_job, graph->rank_count + 1));
    for (int pass = 0; pass < 2; pass++) { /* count, then fill */
        for (int m = 0; m < graph->method_count; m++) {
            const struct troupe_gang *gang = gang_of(bound, m);
            for (int k = 0; !reduces(bound, m) && k < gang->rank_count; k++) {
                int *at = &bound->first_job[gang->ranks[k] + 1];
                for (int i = 0; pass == 1 && i < graph->methods[m].firings; i++) {
                    bound->jobs_of[at[-1] + i] = bound->first[m] + i;
                }
                *(pass == 0 ? at : at - 1) += graph->methods[m].firings;
            }
        }
        for (int r = 0; pass == 0 && r < graph->rank_count; r++) {
            int count = bound->first_job[r + 1];
            most = count > most ? count : most;
            total += count;
            bound->first_job[r + 1] += bound->first_job[r];
        }
        if (pass == 0) {
            TROUPE_TRY(TROUPE_NEW(&bound->jobs_of, total));
        }
    }
    for (int r = graph->rank_count; r > 0; r--) { /* filling has moved each to the next */
        bound->first_job[r] = bound->first_job[r - 1];
    }
    bound->first_job[0] = 0;
    TROUPE_TRY(TROUPE_NEW(&bound->sorted, most));
    return TROUPE_NEW(&bound->heap, most);
}

troupe_status troupe_bound_create(const struct troupe_graph *graph,
                                  const struct troupe_bound_options *options, troupe_bound **out) {
    troupe_bound *bound = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY(TROUPE_NEW(&bound, 1));
    bound->graph = graph;
    bound->options = *options;
    TROUPE_TRY_FAIL(make_nodes(bound));
    TROUPE_TRY_FAIL(make_arcs(bound));
    TROUPE_TRY_FAIL(make_jobs(bound));
    *out = bound;
    return TROUPE_OK;
fail:
    troupe_bound_destroy(bound);
    return status;
}

void troupe_bound_destroy(troupe_bound *bound) {
    if (bound == NULL) {
        return;
    }
    troupe_free(bound->first);
    troupe_free(bound->task_ns);
    troupe_free(bound->head_ns);
    troupe_free(bound->tail_ns);
    troupe_free(bound->left_ns);
    troupe_free(bound->arcs);
    troupe_free(bound->jobs_of);
    troupe_free(bound->first_job);
    troupe_free(bound->sorted);
    troupe_free(bound->heap);
    troupe_free(bound);
}

/* ---- heads and tails ---- */

static void read_costs(troupe_bound *bound, const struct troupe_costs *costs, int64_t step) {
    memset(bound->task_ns, 0, (size_t)bound->node_count * sizeof *bound->task_ns);
    for (int m = 0; m < bound->graph->method_count; m++) {
        for (int k = 0; k < bound->graph->methods[m].firings; k++) {
            int64_t ns = troupe_cost_of_task(costs, m, step, k);
            int64_t *kept = &bound->task_ns[bound->first[m] + k];
            *kept = ns > *kept ? ns : *kept; /* a collective takes what its slowest gang says */
        }
    }
}

/* What the arc adds between the end of one and the begin of the other; -1: nothing waits. */
static int64_t delay_of(const troupe_bound *bound, const struct arc *arc,
                        const struct troupe_costs *costs, int64_t step) {
    if (arc->edge < 0) {
        return 0;
    }
    const struct troupe_edge *edge = &bound->graph->edges[arc->edge];
    const struct troupe_bound_options *o = &bound->options;
    if (o->receivers != NULL && edge->initial == 0 &&
        o->receivers(o->arg, arc->edge, step, arc->microbatch) == 0) {
        return -1;
    }
    return troupe_cost_of_edge(costs, arc->edge, step, arc->microbatch);
}

static void raise(int64_t *value, int64_t to) {
    *value = to > *value ? to : *value;
}

static void find_paths(troupe_bound *bound, const struct troupe_costs *costs, int64_t step) {
    size_t bytes = (size_t)bound->node_count * sizeof *bound->head_ns;
    memset(bound->head_ns, 0, bytes);
    memset(bound->tail_ns, 0, bytes);
    for (int a = 0; a < bound->arc_count; a++) {
        const struct arc *arc = &bound->arcs[a];
        int64_t delay = delay_of(bound, arc, costs, step);
        if (delay >= 0) {
            raise(&bound->head_ns[arc->to],
                  bound->head_ns[arc->from] + bound->task_ns[arc->from] + delay);
        }
    }
    for (int a = bound->arc_count - 1; a >= 0; a--) {
        const struct arc *arc = &bound->arcs[a];
        int64_t delay = delay_of(bound, arc, costs, step);
        if (delay >= 0) {
            raise(&bound->tail_ns[arc->from],
                  bound->tail_ns[arc->to] + bound->task_ns[arc->to] + delay);
        }
    }
}

/* ---- one rank ---- */

static int compare_heads(const void *a, const void *b) {
    int64_t x = ((const struct job *)a)->head_ns, y = ((const struct job *)b)->head_ns;
    return (x > y) - (x < y);
}

static void heap_push(troupe_bound *bound, int *count, int node) {
    int i = (*count)++;
    const int64_t *tail = bound->tail_ns;
    for (; i > 0 && tail[bound->heap[(i - 1) / 2]] < tail[node]; i = (i - 1) / 2) {
        bound->heap[i] = bound->heap[(i - 1) / 2];
    }
    bound->heap[i] = node;
}

static void heap_pop(troupe_bound *bound, int *count) {
    int last = bound->heap[--(*count)], i = 0;
    const int64_t *tail = bound->tail_ns;
    for (int child = 1; child < *count; child = 2 * i + 1) {
        child += child + 1 < *count && tail[bound->heap[child + 1]] > tail[bound->heap[child]];
        if (tail[bound->heap[child]] <= tail[last]) {
            break;
        }
        bound->heap[i] = bound->heap[child];
        i = child;
    }
    bound->heap[i] = last;
}

/* Of the jobs whose head is over, the one with the longest tail runs; a new one may interrupt it.
 * No schedule of these jobs on one machine is shorter. */
static int64_t machine_bound(troupe_bound *bound, int rank, int64_t *work_out) {
    const int *nodes = bound->jobs_of + bound->first_job[rank];
    int count = bound->first_job[rank + 1] - bound->first_job[rank], ready = 0;
    int64_t now = 0, longest = 0, work = 0;
    for (int i = 0; i < count; i++) {
        bound->sorted[i] = (struct job){nodes[i], bound->head_ns[nodes[i]]};
        bound->left_ns[nodes[i]] = bound->task_ns[nodes[i]];
        work += bound->task_ns[nodes[i]];
    }
    qsort(bound->sorted, (size_t)count, sizeof *bound->sorted, compare_heads);
    for (int next = 0; next < count || ready > 0;) {
        if (ready == 0 && bound->sorted[next].head_ns > now) {
            now = bound->sorted[next].head_ns;
        }
        while (next < count && bound->sorted[next].head_ns <= now) {
            heap_push(bound, &ready, bound->sorted[next++].node);
        }
        int node = bound->heap[0];
        int64_t until = now + bound->left_ns[node];
        if (next < count && bound->sorted[next].head_ns < until) {
            bound->left_ns[node] -= bound->sorted[next].head_ns - now;
            now = bound->sorted[next].head_ns;
            continue;
        }
        now = until;
        heap_pop(bound, &ready);
        raise(&longest, now + bound->tail_ns[node]);
    }
    *work_out = work;
    return longest;
}

void troupe_bound_compute(troupe_bound *bound, const struct troupe_costs *costs, int64_t step,
                          struct troupe_bound_result *out) {
    struct troupe_bound_result result = {.kind = TROUPE_BOUND_PATH, .rank = -1};
    read_costs(bound, costs, step);
    find_paths(bound, costs, step);
    for (int n = 0; n < bound->node_count; n++) {
        raise(&result.path_ns, bound->head_ns[n] + bound->task_ns[n] + bound->tail_ns[n]);
    }
    result.ns = result.path_ns;
    for (int r = 0; r < bound->graph->rank_count; r++) {
        int64_t work = 0, ns = machine_bound(bound, r, &work);
        raise(&result.work_ns, work);
        if (ns > result.ns) {
            result.ns = ns;
            result.kind = TROUPE_BOUND_MACHINE;
            result.rank = r;
        }
    }
    *out = result;
}
