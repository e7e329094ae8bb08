/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/step_plan.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/memory.h"

enum { NONE = -1 };

/* start(to) >= start(from) + weight_ns; of a credit, whose taker may begin with the one that
 * returns it, weight 0, else the duration and the way of the message. */
struct arc {
    int from;
    int to;
    int edge; /* NONE: no message */
    bool credit;
    int64_t weight_ns;
};

/* What a rank does, in order. */
struct rank_row {
    int *tasks;
    int count;
};

struct search {
    struct arc *arcs;
    int arc_count;
    struct troupe_lists from; /* arcs by the task that they leave */
    struct troupe_lists to;   /* arcs by the task that they lead to */
    const int *limits;
    struct rank_row *rows; /* by rank of the graph; without tasks where it is not in the part */
    int *row_memory;
    bool *in_part;  /* by gang */
    bool *left_out; /* by method: a reduction, or after one */
    int *taker;     /* by gang */
    int *twin;      /* by rank: in another plan; NONE: not known */
    int64_t *start; /* of the schedule being made */
    int64_t *end;
    int64_t *earliest;
    int64_t *keys; /* of the search */
    int64_t *trial;
    int *waits; /* by task: arcs to it from tasks not placed */
    int *heap;
    int heap_count;
    int64_t placements;
    uint64_t chance;
};

static struct search *search_of(const struct troupe_step_plan *plan) {
    return plan->internal;
}

static const struct troupe_gang *gang_of(const struct troupe_step_plan *plan, int method) {
    return &plan->index->graph->gangs[plan->index->graph->methods[method].gang];
}

static bool is_planned(const struct troupe_step_plan *plan, int method) {
    return plan->first_task[method] != NONE;
}

/* ---- which part of the job ---- */

/* Reductions, what waits for them, and what has no steps. */
static void leave_out(struct troupe_step_plan *plan, int method) {
    const struct troupe_graph_index *index = plan->index;
    struct search *s = search_of(plan);
    if (s->left_out[method]) {
        return;
    }
    s->left_out[method] = true;
    for (int i = index->followers.begin[method]; i < index->followers.begin[method + 1]; i++) {
        leave_out(plan, index->followers.items[i]);
    }
    for (int i = index->outputs.begin[method]; i < index->outputs.begin[method + 1]; i++) {
        leave_out(plan, index->graph->edges[index->outputs.items[i]].to);
    }
}

static int gang_at_end(const struct troupe_step_plan *plan, int edge, bool consumer) {
    const struct troupe_edge *e = &plan->index->graph->edges[edge];
    const struct search *s = search_of(plan);
    bool counts = !s->left_out[e->from] && !s->left_out[e->to];
    return counts ? plan->index->graph->methods[consumer ? e->to : e->from].gang : NONE;
}

static void visit_gang(struct troupe_step_plan *plan, int gang, int *queue, int *count) {
    struct search *s = search_of(plan);
    if (gang != NONE && !s->in_part[gang]) {
        s->in_part[gang] = true;
        queue[(*count)++] = gang;
    }
}

/* Gangs that are joined to those of `rank`, by edges or by ranks. */
static troupe_status find_part(struct troupe_step_plan *plan, int rank) {
    const struct troupe_graph_index *index = plan->index;
    const struct troupe_graph *graph = index->graph;
    int *queue = NULL, count = 0;
    TROUPE_TRY(TROUPE_NEW(&queue, graph->gang_count));
    for (int i = index->gangs.begin[rank]; i < index->gangs.begin[rank + 1]; i++) {
        visit_gang(plan, index->gangs.items[i], queue, &count);
    }
    for (int q = 0; q < count; q++) {
        int g = queue[q];
        for (int i = index->neighbours.begin[g]; i < index->neighbours.begin[g + 1]; i++) {
            visit_gang(plan, index->neighbours.items[i], queue, &count);
        }
        for (int i = index->methods.begin[g]; i < index->methods.begin[g + 1]; i++) {
            int m = index->methods.items[i];
            for (int j = index->inputs.begin[m]; j < index->inputs.begin[m + 1]; j++) {
                visit_gang(plan, gang_at_end(plan, index->inputs.items[j], false), queue, &count);
            }
            for (int j = index->outputs.begin[m]; j < index->outputs.begin[m + 1]; j++) {
                visit_gang(plan, gang_at_end(plan, index->outputs.items[j], true), queue, &count);
            }
        }
    }
    troupe_free(queue);
    return TROUPE_OK;
}

static troupe_status make_tasks(struct troupe_step_plan *plan) {
    const struct troupe_graph *graph = plan->index->graph;
    struct search *s = search_of(plan);
    for (int m = 0; m < graph->method_count; m++) {
        bool planned = s->in_part[graph->methods[m].gang] && !s->left_out[m];
        plan->first_task[m] = planned ? plan->task_count : NONE;
        plan->task_count += planned ? graph->methods[m].firings : 0;
        if (graph->methods[m].slot_take) {
            s->taker[graph->methods[m].gang] = m;
        }
    }
    TROUPE_TRY(TROUPE_NEW(&plan->method_of, plan->task_count));
    for (int m = 0; m < graph->method_count; m++) {
        for (int k = 0; is_planned(plan, m) && k < graph->methods[m].firings; k++) {
            plan->method_of[plan->first_task[m] + k] = m;
        }
    }
    return TROUPE_OK;
}

/* ---- what waits for what ---- */

/* Counts the arc, or adds it where there is room for it. Tasks beyond the step are none. */
static void take_arc(struct troupe_step_plan *plan, int from_method, int from, int to_method,
                     int to, int edge, bool credit) {
    const struct troupe_graph *graph = plan->index->graph;
    struct search *s = search_of(plan);
    if (!is_planned(plan, from_method) || !is_planned(plan, to_method) || to < 0 ||
        to >= graph->methods[to_method].firings) {
        return;
    }
    if (s->arcs != NULL) {
        s->arcs[s->arc_count] = (struct arc){.from = plan->first_task[from_method] + from,
                                             .to = plan->first_task[to_method] + to,
                                             .edge = edge,
                                             .credit = credit};
    }
    s->arc_count++;
}

static void visit_task(struct troupe_step_plan *plan, int m, int k) {
    const struct troupe_graph_index *index = plan->index;
    const struct troupe_graph *graph = index->graph;
    const struct troupe_method *method = &graph->methods[m];
    const struct search *s = search_of(plan);
    take_arc(plan, m, k, m, k + 1, NONE, false);
    for (int i = index->outputs.begin[m]; i < index->outputs.begin[m + 1]; i++) {
        int e = index->outputs.items[i];
        take_arc(plan, m, k, graph->edges[e].to, k + graph->edges[e].initial, e, false);
    }
    for (int i = index->inputs.begin[m]; i < index->inputs.begin[m + 1]; i++) {
        const struct troupe_edge *edge = &graph->edges[index->inputs.items[i]];
        take_arc(plan, m, k, edge->from, k + edge->credits - edge->initial, NONE, true);
    }
    for (int i = index->followers.begin[m]; i < index->followers.begin[m + 1]; i++) {
        int follower = index->followers.items[i];
        bool equal = graph->methods[follower].firings == method->firings;
        if (equal || k == method->firings - 1) {
            take_arc(plan, m, k, follower, equal ? k : 0, NONE, false);
        }
    }
    if (method->slot_return) {
        take_arc(plan, m, k, s->taker[method->gang], k + s->limits[method->gang], NONE, false);
    }
}

static void visit_tasks(struct troupe_step_plan *plan) {
    for (int t = 0; t < plan->task_count; t++) {
        visit_task(plan, plan->method_of[t], t - plan->first_task[plan->method_of[t]]);
    }
}

static troupe_status sort_arcs(const struct troupe_step_plan *plan, bool by_from,
                               struct troupe_lists *out) {
    const struct search *s = search_of(plan);
    TROUPE_TRY(TROUPE_NEW(&out->begin, plan->task_count + 1));
    TROUPE_TRY(TROUPE_NEW(&out->items, s->arc_count));
    for (int a = 0; a < s->arc_count; a++) {
        out->begin[(by_from ? s->arcs[a].from : s->arcs[a].to) + 1]++;
    }
    for (int t = 0; t < plan->task_count; t++) {
        out->begin[t + 1] += out->begin[t];
    }
    for (int a = s->arc_count; a-- > 0;) { /* from behind, so that lists stay ascending */
        out->items[--out->begin[(by_from ? s->arcs[a].from : s->arcs[a].to) + 1]] = a;
    }
    for (int t = 0; t < plan->task_count; t++) { /* each begin is one place too far */
        out->begin[t] = out->begin[t + 1];
    }
    out->begin[plan->task_count] = s->arc_count;
    return TROUPE_OK;
}

static troupe_status make_arcs(struct troupe_step_plan *plan) {
    struct search *s = search_of(plan);
    visit_tasks(plan);
    TROUPE_TRY(TROUPE_NEW(&s->arcs, s->arc_count));
    s->arc_count = 0;
    visit_tasks(plan);
    TROUPE_TRY(sort_arcs(plan, true, &s->from));
    return sort_arcs(plan, false, &s->to);
}

/* Tasks in an order that arcs allow (Kahn, 1962); the graph check has seen that there is one. */
static void make_order(struct troupe_step_plan *plan) {
    struct search *s = search_of(plan);
    int count = 0;
    for (int t = 0; t < plan->task_count; t++) {
        s->waits[t] = s->to.begin[t + 1] - s->to.begin[t];
        if (s->waits[t] == 0) {
            plan->order[count++] = t;
        }
    }
    for (int i = 0; i < count; i++) {
        int t = plan->order[i];
        for (int a = s->from.begin[t]; a < s->from.begin[t + 1]; a++) {
            int to = s->arcs[s->from.items[a]].to;
            if (--s->waits[to] == 0) {
                plan->order[count++] = to;
            }
        }
    }
    TROUPE_ASSERT(count == plan->task_count, "%d of %d tasks can run", count, plan->task_count);
}

static troupe_status make_rows(struct troupe_step_plan *plan) {
    const struct troupe_graph *graph = plan->index->graph;
    struct search *s = search_of(plan);
    int places = 0;
    TROUPE_TRY(TROUPE_NEW(&s->rows, graph->rank_count));
    for (int t = 0; t < plan->task_count; t++) {
        const struct troupe_gang *gang = gang_of(plan, plan->method_of[t]);
        places += gang->rank_count;
        for (int k = 0; k < gang->rank_count; k++) {
            s->rows[gang->ranks[k]].count++;
        }
    }
    TROUPE_TRY(TROUPE_NEW(&s->row_memory, places));
    int *memory = s->row_memory;
    for (int r = 0; r < graph->rank_count; r++) {
        s->rows[r].tasks = memory;
        memory += s->rows[r].count;
    }
    return TROUPE_OK;
}

troupe_status troupe_step_plan_create(const struct troupe_graph_index *index, int rank,
                                      const int *limits, struct troupe_step_plan **out) {
    const struct troupe_graph *graph = index->graph;
    troupe_status status = TROUPE_OK;
    struct troupe_step_plan *plan = NULL;
    struct search *s = NULL;
    TROUPE_TRY(TROUPE_NEW(&plan, 1));
    plan->index = index;
    TROUPE_TRY_FAIL(TROUPE_NEW(&s, 1));
    plan->internal = s;
    s->limits = limits;
    TROUPE_TRY_FAIL(TROUPE_NEW(&plan->first_task, graph->method_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->in_part, graph->gang_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->taker, graph->gang_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->twin, graph->rank_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->left_out, graph->method_count));
    for (int m = 0; m < graph->method_count; m++) {
        if (graph->methods[m].lane == TROUPE_LANE_REDUCTION || graph->methods[m].firings == 0) {
            leave_out(plan, m);
        }
    }
    TROUPE_TRY_FAIL(find_part(plan, rank));
    TROUPE_TRY_FAIL(make_tasks(plan));
    TROUPE_TRY_FAIL(make_arcs(plan));
    TROUPE_TRY_FAIL(TROUPE_NEW(&plan->order, plan->task_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&plan->duration_ns, plan->task_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&plan->start_ns, plan->task_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->start, plan->task_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->end, plan->task_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->earliest, plan->task_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->keys, plan->task_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->trial, plan->task_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->waits, plan->task_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->heap, plan->task_count));
    TROUPE_TRY_FAIL(make_rows(plan));
    make_order(plan);
    *out = plan;
    return TROUPE_OK;
fail:
    troupe_step_plan_destroy(plan);
    return status;
}

void troupe_step_plan_destroy(struct troupe_step_plan *plan) {
    if (plan == NULL) {
        return;
    }
    struct search *s = search_of(plan);
    if (s != NULL) {
        troupe_free(s->arcs);
        troupe_free(s->from.begin);
        troupe_free(s->from.items);
        troupe_free(s->to.begin);
        troupe_free(s->to.items);
        troupe_free(s->rows);
        troupe_free(s->row_memory);
        troupe_free(s->in_part);
        troupe_free(s->left_out);
        troupe_free(s->taker);
        troupe_free(s->twin);
        troupe_free(s->start);
        troupe_free(s->end);
        troupe_free(s->earliest);
        troupe_free(s->keys);
        troupe_free(s->trial);
        troupe_free(s->waits);
        troupe_free(s->heap);
        troupe_free(s);
    }
    troupe_free(plan->first_task);
    troupe_free(plan->method_of);
    troupe_free(plan->order);
    troupe_free(plan->duration_ns);
    troupe_free(plan->start_ns);
    troupe_free(plan);
}

/* ---- making one schedule ---- */

/* Time may run backwards: then arcs do, too, and a task's start is counted from the end. */
static int64_t weight_of(const struct troupe_step_plan *plan, const struct arc *arc,
                         bool backwards) {
    return backwards ? arc->weight_ns + plan->duration_ns[arc->to] - plan->duration_ns[arc->from]
                     : arc->weight_ns;
}

/* The heap holds tasks that wait for none that is not placed; the lowest key, then the lowest task
 * is on top. */
static bool is_before(const int64_t *keys, int a, int b) {
    return keys[a] != keys[b] ? keys[a] < keys[b] : a < b;
}

static void push_task(struct search *s, const int64_t *keys, int task) {
    int i = s->heap_count++;
    for (; i > 0 && is_before(keys, task, s->heap[(i - 1) / 2]); i = (i - 1) / 2) {
        s->heap[i] = s->heap[(i - 1) / 2];
    }
    s->heap[i] = task;
}

static int pop_task(struct search *s, const int64_t *keys) {
    int top = s->heap[0], last = s->heap[--s->heap_count], i = 0;
    for (int child = 1; child < s->heap_count; child = 2 * i + 1) {
        child += child + 1 < s->heap_count && is_before(keys, s->heap[child + 1], s->heap[child]);
        if (!is_before(keys, s->heap[child], last)) {
            break;
        }
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return top;
}

/* The first of the row's tasks that ends after `time`. */
static int first_after(const struct search *s, const struct rank_row *row, int64_t time) {
    int low = 0, high = row->count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (s->end[row->tasks[middle]] > time) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

/* The earliest time from `time` on at which the row has a gap of `duration`. */
static int64_t find_gap(const struct search *s, const struct rank_row *row, int64_t time,
                        int64_t duration) {
    for (int i = first_after(s, row, time); i < row->count; i++) {
        if (time + duration <= s->start[row->tasks[i]]) {
            break;
        }
        time = s->end[row->tasks[i]];
    }
    return time;
}

static void place(const struct troupe_step_plan *plan, int task) {
    struct search *s = search_of(plan);
    const struct troupe_gang *gang = gang_of(plan, plan->method_of[task]);
    int64_t time = s->earliest[task], duration = plan->duration_ns[task];
    for (int agreed = 0, k = 0; agreed < gang->rank_count; k = (k + 1) % gang->rank_count) {
        int64_t found = find_gap(s, &s->rows[gang->ranks[k]], time, duration);
        agreed = found == time ? agreed + 1 : 1;
        time = found;
    }
    s->start[task] = time;
    s->end[task] = time + duration;
    for (int k = 0; duration > 0 && k < gang->rank_count;
         k++) { /* what takes no time takes no place */
        struct rank_row *row = &s->rows[gang->ranks[k]];
        int at = first_after(s, row, time);
        memmove(&row->tasks[at + 1], &row->tasks[at],
                (size_t)(row->count - at) * sizeof *row->tasks);
        row->tasks[at] = task;
        row->count++;
    }
    s->placements++;
}

/* Places all tasks, lowest keys first; returns the makespan. */
static int64_t make_schedule(const struct troupe_step_plan *plan, const int64_t *keys,
                             bool backwards) {
    struct search *s = search_of(plan);
    const struct troupe_lists *in = backwards ? &s->from : &s->to;
    const struct troupe_lists *out = backwards ? &s->to : &s->from;
    int64_t makespan = 0;
    for (int r = 0; r < plan->index->graph->rank_count; r++) {
        s->rows[r].count = 0;
    }
    for (int t = 0; t < plan->task_count; t++) {
        s->earliest[t] = 0;
        s->waits[t] = in->begin[t + 1] - in->begin[t];
        if (s->waits[t] == 0) {
            push_task(s, keys, t);
        }
    }
    while (s->heap_count > 0) {
        int t = pop_task(s, keys);
        place(plan, t);
        makespan = s->end[t] > makespan ? s->end[t] : makespan;
        for (int i = out->begin[t]; i < out->begin[t + 1]; i++) {
            const struct arc *arc = &s->arcs[out->items[i]];
            int next = backwards ? arc->from : arc->to;
            int64_t time = s->start[t] + weight_of(plan, arc, backwards);
            s->earliest[next] = time > s->earliest[next] ? time : s->earliest[next];
            if (--s->waits[next] == 0) {
                push_task(s, keys, next);
            }
        }
    }
    return makespan;
}

/* ---- the search ---- */

/* Whether the schedule just made is the best so far, which it then becomes. */
static bool keep_if_better(struct troupe_step_plan *plan, int64_t makespan, bool or_equal) {
    const struct search *s = search_of(plan);
    if (makespan > plan->makespan_ns || (makespan == plan->makespan_ns && !or_equal)) {
        return false;
    }
    plan->makespan_ns = makespan;
    memcpy(plan->start_ns, s->start, (size_t)plan->task_count * sizeof *s->start);
    return true;
}

/* Pushes the schedule in the order of `keys` to the right and back until that gains nothing. */
static void push_to_and_fro(struct troupe_step_plan *plan, const int64_t *keys) {
    struct search *s = search_of(plan);
    int64_t makespan = make_schedule(plan, keys, false), before = INT64_MAX;
    keep_if_better(plan, makespan, true);
    while (makespan < before && makespan > plan->bound_ns) {
        before = makespan;
        for (int t = 0; t < plan->task_count; t++) { /* what ends last is placed first */
            s->trial[t] = -s->end[t];
        }
        int64_t span = make_schedule(plan, s->trial, true);
        for (int t = 0; t < plan->task_count; t++) {
            s->trial[t] = span - s->end[t];
        }
        makespan = make_schedule(plan, s->trial, false);
        keep_if_better(plan, makespan, true);
    }
}

void troupe_step_plan_try(struct troupe_step_plan *plan, const int64_t *keys) {
    push_to_and_fro(plan, keys);
}

/* Tasks that share a rank in one plan do so in the other. */
static bool share_ranks_alike(struct troupe_step_plan *plan, const struct troupe_step_plan *other) {
    int *twin = search_of(plan)->twin;
    for (int r = 0; r < plan->index->graph->rank_count; r++) {
        twin[r] = NONE;
    }
    for (int t = 0; t < plan->task_count; t++) {
        const struct troupe_gang *gang = gang_of(plan, plan->method_of[t]);
        const struct troupe_gang *like = gang_of(other, other->method_of[t]);
        if (gang->rank_count != like->rank_count) {
            return false;
        }
        for (int k = 0; k < gang->rank_count; k++) {
            int *rank = &twin[gang->ranks[k]];
            *rank = *rank == NONE ? like->ranks[k] : *rank;
            if (*rank != like->ranks[k]) {
                return false;
            }
        }
    }
    return true;
}

static bool wait_alike(const struct troupe_step_plan *plan, const struct troupe_step_plan *other) {
    const struct search *s = search_of(plan), *o = search_of(other);
    bool alike = s->arc_count == o->arc_count;
    for (int a = 0; alike && a < s->arc_count; a++) {
        const struct arc *x = &s->arcs[a], *y = &o->arcs[a];
        alike = x->from == y->from && x->to == y->to && x->credit == y->credit &&
                x->weight_ns == y->weight_ns;
    }
    return alike;
}

bool troupe_step_plan_take(struct troupe_step_plan *plan, const struct troupe_step_plan *other) {
    size_t bytes = (size_t)plan->task_count * sizeof *plan->duration_ns;
    if (plan->task_count != other->task_count ||
        memcmp(plan->duration_ns, other->duration_ns, bytes) != 0 || !wait_alike(plan, other) ||
        !share_ranks_alike(plan, other)) {
        return false;
    }
    memcpy(plan->start_ns, other->start_ns, bytes);
    plan->makespan_ns = other->makespan_ns;
    return true;
}

/* Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. */
static uint64_t next_chance(struct search *s) {
    uint64_t x = s->chance += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The starts of the best schedule, some of them moved: of one method, or of a few tasks. */
static void vary_keys(struct troupe_step_plan *plan) {
    struct search *s = search_of(plan);
    uint64_t chance = next_chance(s);
    int64_t reach = plan->makespan_ns / (1 << (1 + chance % 6)) + 1;
    bool one_method = (chance >> 8) % 4 == 0;
    int method = plan->method_of[(chance >> 16) % (uint64_t)plan->task_count];
    int64_t shift = (int64_t)(next_chance(s) % (uint64_t)(2 * reach)) - reach;
    uint64_t share = 1 + (chance >> 10) % 8;
    for (int t = 0; t < plan->task_count; t++) {
        s->keys[t] = plan->start_ns[t];
        if (one_method) {
            s->keys[t] += plan->method_of[t] == method ? shift : 0;
        } else if (next_chance(s) % 16 < share) {
            s->keys[t] += (int64_t)(next_chance(s) % (uint64_t)(2 * reach)) - reach;
        }
    }
}

/* Longest ways from the begin to each task (in `head`) and from its begin to the end. */
static void measure_paths(struct troupe_step_plan *plan, int64_t *head, int64_t *tail) {
    const struct search *s = search_of(plan);
    for (int i = 0; i < plan->task_count; i++) {
        int t = plan->order[i];
        head[t] = 0;
        for (int a = s->to.begin[t]; a < s->to.begin[t + 1]; a++) {
            const struct arc *arc = &s->arcs[s->to.items[a]];
            int64_t time = head[arc->from] + arc->weight_ns;
            head[t] = time > head[t] ? time : head[t];
        }
    }
    for (int i = plan->task_count - 1; i >= 0; i--) {
        int t = plan->order[i];
        tail[t] = plan->duration_ns[t];
        for (int a = s->from.begin[t]; a < s->from.begin[t + 1]; a++) {
            const struct arc *arc = &s->arcs[s->from.items[a]];
            int64_t time = tail[arc->to] + arc->weight_ns;
            tail[t] = time > tail[t] ? time : tail[t];
        }
    }
}

/* No step is shorter than its longest way, nor than a rank's work between the earliest begin and
 * the shortest way to the end. */
static int64_t find_bound(const struct troupe_step_plan *plan, const int64_t *head,
                          const int64_t *tail) {
    int64_t bound = 0;
    for (int r = 0; r < plan->index->graph->rank_count; r++) {
        search_of(plan)->rows[r].count = 0;
    }
    for (int t = 0; t < plan->task_count; t++) {
        const struct troupe_gang *gang = gang_of(plan, plan->method_of[t]);
        bound = head[t] + tail[t] > bound ? head[t] + tail[t] : bound;
        for (int k = 0; k < gang->rank_count; k++) {
            struct rank_row *row = &search_of(plan)->rows[gang->ranks[k]];
            row->tasks[row->count++] = t;
        }
    }
    for (int r = 0; r < plan->index->graph->rank_count; r++) {
        const struct rank_row *row = &search_of(plan)->rows[r];
        int64_t first = INT64_MAX, last = INT64_MAX, work = 0;
        for (int i = 0; i < row->count; i++) {
            int t = row->tasks[i];
            int64_t behind = tail[t] - plan->duration_ns[t];
            first = head[t] < first ? head[t] : first;
            last = behind < last ? behind : last;
            work += plan->duration_ns[t];
        }
        bound = row->count > 0 && first + work + last > bound ? first + work + last : bound;
    }
    return bound;
}

void troupe_step_plan_costs(struct troupe_step_plan *plan, const struct troupe_costs *costs,
                            int64_t step) {
    struct search *s = search_of(plan);
    for (int t = 0; t < plan->task_count; t++) {
        int m = plan->method_of[t];
        plan->duration_ns[t] = troupe_cost_of_task(costs, m, step, t - plan->first_task[m]);
    }
    for (int a = 0; a < s->arc_count; a++) {
        struct arc *arc = &s->arcs[a];
        int microbatch = arc->to - plan->first_task[plan->method_of[arc->to]];
        arc->weight_ns = arc->credit ? 0 : plan->duration_ns[arc->from];
        if (arc->edge != NONE) {
            arc->weight_ns += troupe_cost_of_edge(costs, arc->edge, step, microbatch);
        }
    }
    plan->makespan_ns = INT64_MAX;
    s->chance = (uint64_t)step;
    measure_paths(plan, s->start, s->end);
    plan->bound_ns = find_bound(plan, s->start, s->end);
    for (int t = 0; t < plan->task_count; t++) { /* the longest way to the end goes first */
        s->keys[t] = -s->end[t];
    }
    push_to_and_fro(plan, s->keys);
}

void troupe_step_plan_improve(struct troupe_step_plan *plan, int64_t placements) {
    struct search *s = search_of(plan);
    int64_t most = s->placements + placements;
    while (s->placements < most && plan->makespan_ns > plan->bound_ns) {
        vary_keys(plan);
        push_to_and_fro(plan, s->keys);
    }
}

void troupe_step_plan_sequence(struct troupe_step_plan *plan, int *tasks_out) {
    struct search *s = search_of(plan);
    for (int i = 0; i < plan->task_count; i++) { /* the heap orders places in `order` */
        s->trial[i] = plan->start_ns[plan->order[i]];
        push_task(s, s->trial, i);
    }
    for (int i = 0; i < plan->task_count; i++) {
        tasks_out[i] = plan->order[pop_task(s, s->trial)];
    }
}
