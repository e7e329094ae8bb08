/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a step can end. Each task of a step waits for others: for the one before it in its
 * method, for inputs, for what goes before it, for a credit or slot that another returns, for the
 * reduction before it in the lane. Each message, credit and slot has one method that makes it and
 * one that takes it, so a task that can be issued stays so, whatever else is issued: a step can end
 * exactly if no task waits for itself (a marked graph; Commoner, Holt, Even, Pnueli, "Marked
 * directed graphs", 1971). Memory that gangs share is the exception; the reserve keeps it out of
 * this (engine.h), as one order of tickets in an island does for gangs.
 *
 * Methods without steps count with their first firing: a cycle without tokens shows there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/memory.h"
#include "scheduler/graph_index.h"
#include "scheduler/graph_internal.h"

enum { NONE = -1, TEXT_BYTES = 900 };

enum arc_kind { ARC_SEQUENCE, ARC_AFTER, ARC_INPUT, ARC_CREDIT, ARC_SLOT, ARC_LANE };

/* Task `to` waits for task `from`. */
struct arc {
    int from;
    int to;
    enum arc_kind kind;
    int index; /* edge, or rank of the lane */
};

struct unfolding {
    const struct troupe_graph *graph;
    struct troupe_graph_index *index;
    int task_count;
    int *first_task; /* by method */
    int *method_of;  /* by task */
    /* The members of one collective complete together, so they count as one task: the first. */
    int *stands_for; /* by task */
    int *taker;      /* by gang: the method that takes slots, or NONE */
    int *reductions; /* methods of the reduction lane, by lane_order */
    int reduction_count;
    struct arc *arcs; /* sorted by from */
    int arc_count;
    int *first_arc; /* by task, see visit_arcs */
    int *waits;     /* by task: arcs to it that are left */
    int *queue;
    int *last_of_rank;
    bool placing;
};

static void free_unfolding(struct unfolding *u) {
    troupe_graph_index_destroy(u->index);
    troupe_free(u->first_task);
    troupe_free(u->method_of);
    troupe_free(u->stands_for);
    troupe_free(u->taker);
    troupe_free(u->reductions);
    troupe_free(u->arcs);
    troupe_free(u->first_arc);
    troupe_free(u->waits);
    troupe_free(u->queue);
    troupe_free(u->last_of_rank);
}

static int firings_of(const struct unfolding *u, int method) {
    int firings = u->graph->methods[method].firings;
    return firings > 0 ? firings : 1;
}

static int compare_lane_order(const void *a, const void *b, void *arg) {
    const struct troupe_method *methods = arg;
    int m = *(const int *)a, n = *(const int *)b;
    int x = methods[m].lane_order, y = methods[n].lane_order;
    return x != y ? (x > y) - (x < y) : (m > n) - (m < n);
}

static troupe_status make_tasks(struct unfolding *u) {
    const struct troupe_graph *graph = u->graph;
    TROUPE_TRY(TROUPE_NEW(&u->first_task, graph->method_count));
    TROUPE_TRY(TROUPE_NEW(&u->reductions, graph->method_count));
    TROUPE_TRY(TROUPE_NEW(&u->taker, graph->gang_count));
    TROUPE_TRY(TROUPE_NEW(&u->last_of_rank, graph->rank_count));
    for (int g = 0; g < graph->gang_count; g++) {
        u->taker[g] = NONE;
    }
    for (int m = 0; m < graph->method_count; m++) {
        u->first_task[m] = u->task_count;
        u->task_count += firings_of(u, m);
        if (graph->methods[m].lane == TROUPE_LANE_REDUCTION) {
            u->reductions[u->reduction_count++] = m;
        }
        if (graph->methods[m].slot_take) {
            u->taker[graph->methods[m].gang] = m;
        }
    }
    TROUPE_TRY(TROUPE_NEW(&u->method_of, u->task_count));
    TROUPE_TRY(TROUPE_NEW(&u->stands_for, u->task_count));
    TROUPE_TRY(TROUPE_NEW(&u->first_arc, u->task_count + 1));
    TROUPE_TRY(TROUPE_NEW(&u->waits, u->task_count));
    TROUPE_TRY(TROUPE_NEW(&u->queue, u->task_count));
    for (int m = 0; m < graph->method_count; m++) {
        for (int k = 0; k < firings_of(u, m); k++) {
            u->method_of[u->first_task[m] + k] = m;
            u->stands_for[u->first_task[m] + k] = u->first_task[m] + k;
        }
    }
    qsort_r(u->reductions, (size_t)u->reduction_count, sizeof *u->reductions, compare_lane_order,
            (void *)graph->methods);
    for (int i = 1; i < u->reduction_count; i++) {
        int m = u->reductions[i], before = u->reductions[i - 1];
        if (graph->methods[m].lane_order == graph->methods[before].lane_order) {
            u->stands_for[u->first_task[m]] = u->stands_for[u->first_task[before]];
        }
    }
    return TROUPE_OK;
}

/* Counts the arc, or puts it in place. Tasks beyond the step are none. */
static void take_arc(struct unfolding *u, int from_method, int from, int to_method, int to,
                     enum arc_kind kind, int index) {
    if (from >= firings_of(u, from_method) || to < 0 || to >= firings_of(u, to_method)) {
        return;
    }
    struct arc arc = {.from = u->stands_for[u->first_task[from_method] + from],
                      .to = u->stands_for[u->first_task[to_method] + to],
                      .kind = kind,
                      .index = index};
    if (u->placing) {
        u->arcs[u->first_arc[arc.from]++] = arc;
        u->waits[arc.to]++;
    } else {
        u->first_arc[arc.from + 1]++;
        u->arc_count++;
    }
}

static void visit_data(struct unfolding *u, int m, int k) {
    const struct troupe_graph_index *index = u->index;
    for (int i = index->outputs.begin[m]; i < index->outputs.begin[m + 1]; i++) {
        int e = index->outputs.items[i];
        const struct troupe_edge *edge = &u->graph->edges[e];
        take_arc(u, m, k, edge->to, k + edge->initial, ARC_INPUT, e);
    }
    for (int i = index->inputs.begin[m]; i < index->inputs.begin[m + 1]; i++) {
        int e = index->inputs.items[i];
        const struct troupe_edge *edge = &u->graph->edges[e];
        take_arc(u, m, k, edge->from, k + edge->credits - edge->initial, ARC_CREDIT, e);
    }
}

/* Where the counts differ one of them is 1: it waits for the last, or the first waits for it. */
static void visit_followers(struct unfolding *u, int m, int k) {
    const struct troupe_graph_index *index = u->index;
    for (int i = index->followers.begin[m]; i < index->followers.begin[m + 1]; i++) {
        int follower = index->followers.items[i];
        bool equal = firings_of(u, follower) == firings_of(u, m);
        if (equal || k == firings_of(u, m) - 1) {
            take_arc(u, m, k, follower, equal ? k : 0, ARC_AFTER, 0);
        }
    }
}

/* A rank posts its reductions in ascending lane_order, so each waits for the rank's one before. */
static void visit_lanes(struct unfolding *u) {
    for (int r = 0; r < u->graph->rank_count; r++) {
        u->last_of_rank[r] = NONE;
    }
    for (int i = 0; i < u->reduction_count; i++) {
        int m = u->reductions[i];
        const struct troupe_gang *gang = &u->graph->gangs[u->graph->methods[m].gang];
        for (int k = 0; k < gang->rank_count; k++) {
            int *last = &u->last_of_rank[gang->ranks[k]];
            if (*last != NONE) {
                take_arc(u, *last, 0, m, 0, ARC_LANE, gang->ranks[k]);
            }
            *last = m;
        }
    }
}

static void visit_arcs(struct unfolding *u) {
    for (int m = 0; m < u->graph->method_count; m++) {
        const struct troupe_method *method = &u->graph->methods[m];
        for (int k = 0; k < firings_of(u, m); k++) {
            take_arc(u, m, k, m, k + 1, ARC_SEQUENCE, 0);
            visit_data(u, m, k);
            visit_followers(u, m, k);
            if (method->slot_return) {
                take_arc(u, m, k, u->taker[method->gang], k + u->graph->gangs[method->gang].slots,
                         ARC_SLOT, 0);
            }
        }
    }
    visit_lanes(u);
}

static troupe_status make_arcs(struct unfolding *u) {
    visit_arcs(u);
    TROUPE_TRY(TROUPE_NEW(&u->arcs, u->arc_count));
    for (int t = 0; t < u->task_count; t++) {
        u->first_arc[t + 1] += u->first_arc[t];
    }
    u->placing = true;
    visit_arcs(u);
    for (int t = u->task_count; t > 0; t--) { /* placing moved each to its end */
        u->first_arc[t] = u->first_arc[t - 1];
    }
    u->first_arc[0] = 0;
    return TROUPE_OK;
}

/* Two members of one collective on one rank would wait for each other. */
static troupe_status check_lanes(const struct unfolding *u) {
    const struct troupe_graph *graph = u->graph;
    for (int r = 0; r < graph->rank_count; r++) {
        u->last_of_rank[r] = NONE;
    }
    for (int i = 0; i < u->reduction_count; i++) {
        const struct troupe_method *method = &graph->methods[u->reductions[i]];
        const struct troupe_gang *gang = &graph->gangs[method->gang];
        for (int k = 0; k < gang->rank_count; k++) {
            int last = u->last_of_rank[gang->ranks[k]];
            if (last != NONE && graph->methods[last].lane_order == method->lane_order) {
                return troupe_fail(TROUPE_ERROR_INVALID,
                                   "rank %d has two reductions with lane order %d: %s %s and %s %s",
                                   gang->ranks[k], method->lane_order,
                                   graph->gangs[graph->methods[last].gang].name,
                                   graph->methods[last].name, gang->name, method->name);
            }
            u->last_of_rank[gang->ranks[k]] = u->reductions[i];
        }
    }
    return TROUPE_OK;
}

/* Removes tasks that wait for nothing until none is left (Kahn, 1962); true if all go. */
static bool can_end(struct unfolding *u) {
    int count = 0, tasks = 0;
    for (int t = 0; t < u->task_count; t++) {
        tasks += u->stands_for[t] == t;
        if (u->stands_for[t] == t && u->waits[t] == 0) {
            u->queue[count++] = t;
        }
    }
    for (int i = 0; i < count; i++) {
        for (int a = u->first_arc[u->queue[i]]; a < u->first_arc[u->queue[i] + 1]; a++) {
            if (--u->waits[u->arcs[a].to] == 0) {
                u->queue[count++] = u->arcs[a].to;
            }
        }
    }
    return count == tasks;
}

static void name_task(const struct unfolding *u, int task, char *text, size_t bytes) {
    int m = u->method_of[task];
    const struct troupe_method *method = &u->graph->methods[m];
    int length = snprintf(text, bytes, "%s %s", u->graph->gangs[method->gang].name, method->name);
    if (method->firings > 1 && (size_t)length < bytes) {
        snprintf(text + length, bytes - (size_t)length, " %d", task - u->first_task[m]);
    }
}

static void name_arc(const struct unfolding *u, const struct arc *arc, char *text, size_t bytes) {
    char from[160];
    name_task(u, arc->from, from, sizeof from);
    switch (arc->kind) {
    case ARC_SEQUENCE:
    case ARC_AFTER:
        snprintf(text, bytes, "waits for %s", from);
        break;
    case ARC_INPUT:
        snprintf(text, bytes, "waits for input %s of %s", u->graph->edges[arc->index].name, from);
        break;
    case ARC_CREDIT:
        snprintf(text, bytes, "waits for one of the %d credits of %s that %s returns",
                 u->graph->edges[arc->index].credits, u->graph->edges[arc->index].name, from);
        break;
    case ARC_SLOT:
        snprintf(text, bytes, "waits for one of %d activation slots that %s returns",
                 u->graph->gangs[u->graph->methods[u->method_of[arc->to]].gang].slots, from);
        break;
    case ARC_LANE:
        snprintf(text, bytes, "waits in the reduction lane of rank %d for %s", arc->index, from);
        break;
    }
}

/* Every task that is left waits for one that is left: going from one to the next ends in a cycle.
 */
static troupe_status report_cycle(struct unfolding *u) {
    int *arc_to = u->queue; /* by task: an arc to it from one that is left */
    int task = NONE;
    for (int a = 0; a < u->arc_count; a++) {
        if (u->waits[u->arcs[a].from] > 0 && u->waits[u->arcs[a].to] > 0) {
            task = u->arcs[a].to;
            arc_to[task] = a;
        }
    }
    for (int hop = 0; hop < u->task_count; hop++) {
        task = u->arcs[arc_to[task]].from;
    }
    char text[TEXT_BYTES];
    int first = task;
    name_task(u, first, text, sizeof text);
    do {
        size_t used = strlen(text);
        const struct arc *arc = &u->arcs[arc_to[task]];
        char what[320];
        name_arc(u, arc, what, sizeof what);
        if (used + strlen(what) + 64 > sizeof text) { /* and so on */
            snprintf(text + used, sizeof text - used, ", ...");
            break;
        }
        snprintf(text + used, sizeof text - used, "%s%s", task == first ? " " : ", which ", what);
        task = arc->from;
    } while (task != first);
    return troupe_fail(TROUPE_ERROR_INVALID,
                       "no step could end: %s; a cycle needs more credits or slots, an edge with "
                       "initial messages, or reductions a lane order that follows their inputs",
                       text);
}

troupe_status troupe_graph_check_cycles(const struct troupe_graph *graph) {
    struct unfolding unfolding = {.graph = graph};
    troupe_status status = TROUPE_OK;
    TROUPE_TRY_FAIL(troupe_graph_index_create(graph, &unfolding.index));
    TROUPE_TRY_FAIL(make_tasks(&unfolding));
    TROUPE_TRY_FAIL(check_lanes(&unfolding));
    TROUPE_TRY_FAIL(make_arcs(&unfolding));
    if (!can_end(&unfolding)) {
        TROUPE_TRY_FAIL(report_cycle(&unfolding));
    }
fail:
    free_unfolding(&unfolding);
    return status;
}
