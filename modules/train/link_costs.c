/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/link_costs.h"

#include <stdlib.h>
#include <string.h>

#include "modules/train/line_fit.h"
#include "runtime/check.h"
#include "runtime/memory.h"

enum { LINK_INSIDE, LINK_BETWEEN, LINK_COUNT }; /* a host, hosts */

/* The part of a message that takes longest. */
struct message {
    int64_t bytes; /* 0: nothing leaves its rank */
    int64_t ns;    /* by the cluster */
    int link;
};

/* The quickest message of an edge in a step. */
struct sight {
    int64_t ns; /* -1: none seen */
    struct message message;
};

struct troupe_link_costs {
    struct troupe_link_costs_options options;
    struct troupe_line_fit fits[LINK_COUNT];
    /* Scratch of learn. */
    int *first; /* by method: of its firings in `tasks` */
    const struct troupe_task **tasks;
    const struct troupe_task **by_begin;
    int64_t *free_ns;     /* by rank: the end of its tasks so far */
    int *latest;          /* by task: the edge of the message that was sent to it last; -1: none */
    struct sight *sights; /* by edge */
};

static const struct troupe_gang *gang_of(const troupe_link_costs *links, int method) {
    const struct troupe_graph *graph = links->options.graph;
    return &graph->gangs[graph->methods[method].gang];
}

/* ---- what is expected ---- */

static struct message message_of(const troupe_link_costs *links, int edge, int microbatch) {
    const struct troupe_link_costs_options *o = &links->options;
    const struct troupe_gang *from = gang_of(links, o->graph->edges[edge].from);
    const struct troupe_gang *to = gang_of(links, o->graph->edges[edge].to);
    uint64_t receivers = troupe_forecast_receivers(o->forecast, edge, 0, microbatch);
    struct message longest = {0};
    for (int k = 0; k < to->rank_count; k++) {
        int source = from->ranks[k % from->rank_count], target = to->ranks[k];
        int64_t bytes = troupe_forecast_bytes(o->forecast, edge, 0, microbatch, k);
        bool leaves = (receivers >> k & 1) != 0 && source != target && bytes > 0;
        int64_t ns = leaves ? troupe_cluster_transfer_ns(o->cluster, source, target, bytes) : 0;
        if (ns > longest.ns) {
            bool inside = troupe_comm_host(o->comm, source) == troupe_comm_host(o->comm, target);
            longest = (struct message){
                .bytes = bytes, .ns = ns, .link = inside ? LINK_INSIDE : LINK_BETWEEN};
        }
    }
    return longest;
}

int64_t troupe_link_costs_ns(const troupe_link_costs *links, int edge, int microbatch) {
    struct message message = message_of(links, edge, microbatch);
    const struct troupe_line_fit *fit = &links->fits[message.link];
    return message.bytes > 0 && fit->weight > 0
               ? (int64_t)troupe_line_fit_above_base_at(fit, (double)message.bytes)
               : message.ns;
}

/* ---- what is seen ---- */

static int compare_begins(const void *a, const void *b) {
    const struct troupe_task *x = *(const struct troupe_task *const *)a;
    const struct troupe_task *y = *(const struct troupe_task *const *)b;
    if (x->begin_ns != y->begin_ns) {
        return x->begin_ns < y->begin_ns ? -1 : 1;
    }
    return x->method != y->method ? x->method - y->method : x->microbatch - y->microbatch;
}

/* The tasks that keep ranks busy, by their begin; returns how many. */
static int sort_tasks(troupe_link_costs *links, const struct troupe_schedule *schedule) {
    const struct troupe_graph *graph = links->options.graph;
    int count = 0;
    for (int i = 0; i < schedule->task_count; i++) {
        const struct troupe_task *task = &schedule->tasks[i];
        links->tasks[links->first[task->method] + task->microbatch] = task;
        if (graph->methods[task->method].lane != TROUPE_LANE_REDUCTION) {
            links->by_begin[count++] = task;
        }
    }
    qsort(links->by_begin, (size_t)count, sizeof(void *), compare_begins);
    return count;
}

static int64_t producer_end_ns(const troupe_link_costs *links, int edge, int microbatch) {
    return links->tasks[links->first[links->options.graph->edges[edge].from] + microbatch]->end_ns;
}

/* For each task the edge of the message that was sent to it last. */
static void find_latest(troupe_link_costs *links) {
    const struct troupe_graph *graph = links->options.graph;
    memset(links->latest, -1,
           (size_t)links->first[graph->method_count] * sizeof *links->latest); /* all bits: -1 */
    for (int e = 0; e < graph->edge_count; e++) {
        int to = graph->edges[e].to;
        for (int k = 0; graph->edges[e].initial == 0 && k < graph->methods[to].firings; k++) {
            int *latest = &links->latest[links->first[to] + k];
            bool sent = troupe_forecast_receivers(links->options.forecast, e, 0, k) != 0;
            if (sent && (*latest < 0 ||
                         producer_end_ns(links, e, k) > producer_end_ns(links, *latest, k))) {
                *latest = e;
            }
        }
    }
}

static bool waits_for_reduction(const struct troupe_graph *graph, int method) {
    const struct troupe_method *plan = &graph->methods[method];
    for (int i = 0; i < plan->after_count; i++) {
        if (graph->methods[plan->after[i]].lane == TROUPE_LANE_REDUCTION) {
            return true;
        }
    }
    return false;
}

/* The task begins; its ranks have been free since free_ns. */
static void see_task(troupe_link_costs *links, const struct troupe_task *task, int64_t free_ns) {
    int e = links->latest[links->first[task->method] + task->microbatch];
    if (e < 0 || waits_for_reduction(links->options.graph, task->method)) {
        return;
    }
    int64_t sent_ns = producer_end_ns(links, e, task->microbatch);
    int64_t ns = task->begin_ns - sent_ns;
    struct sight *sight = &links->sights[e];
    if (free_ns <= sent_ns && ns >= 0 && (sight->ns < 0 || ns < sight->ns)) {
        *sight = (struct sight){.ns = ns, .message = message_of(links, e, task->microbatch)};
    }
}

/* Goes through the tasks as they began. */
static void see_tasks(troupe_link_costs *links, int count) {
    memset(links->free_ns, 0, (size_t)links->options.graph->rank_count * sizeof *links->free_ns);
    for (int i = 0; i < count; i++) {
        const struct troupe_task *task = links->by_begin[i];
        const struct troupe_gang *gang = gang_of(links, task->method);
        int64_t free_ns = 0;
        for (int k = 0; k < gang->rank_count; k++) {
            int64_t *own = &links->free_ns[gang->ranks[k]];
            free_ns = *own > free_ns ? *own : free_ns;
            *own = task->end_ns > *own ? task->end_ns : *own;
        }
        see_task(links, task, free_ns);
    }
}

void troupe_link_costs_learn(troupe_link_costs *links, const struct troupe_schedule *schedule,
                             double keep) {
    int edges = links->options.graph->edge_count;
    for (int e = 0; e < edges; e++) {
        links->sights[e].ns = -1;
    }
    int count = sort_tasks(links, schedule);
    find_latest(links);
    see_tasks(links, count);
    for (int i = 0; i < LINK_COUNT; i++) {
        troupe_line_fit_fade(&links->fits[i], keep);
    }
    for (int e = 0; e < edges; e++) {
        const struct sight *sight = &links->sights[e];
        if (sight->ns >= 0 && sight->message.bytes > 0) {
            troupe_line_fit_add(&links->fits[sight->message.link], (double)sight->message.bytes,
                                (double)sight->ns);
        }
    }
}

/* ---- life ---- */

static troupe_status make(troupe_link_costs *links) {
    const struct troupe_graph *graph = links->options.graph;
    TROUPE_TRY(TROUPE_NEW(&links->first, graph->method_count + 1));
    for (int m = 0; m < graph->method_count; m++) {
        links->first[m + 1] = links->first[m] + graph->methods[m].firings;
    }
    int tasks = links->first[graph->method_count];
    TROUPE_TRY(TROUPE_NEW(&links->tasks, tasks));
    TROUPE_TRY(TROUPE_NEW(&links->by_begin, tasks));
    TROUPE_TRY(TROUPE_NEW(&links->latest, tasks));
    TROUPE_TRY(TROUPE_NEW(&links->free_ns, graph->rank_count));
    return TROUPE_NEW(&links->sights, graph->edge_count);
}

troupe_status troupe_link_costs_create(const struct troupe_link_costs_options *options,
                                       troupe_link_costs **out) {
    troupe_link_costs *links = NULL;
    TROUPE_TRY(TROUPE_NEW(&links, 1));
    links->options = *options;
    troupe_status status = make(links);
    if (status != TROUPE_OK) {
        troupe_link_costs_destroy(links);
        return status;
    }
    *out = links;
    return TROUPE_OK;
}

void troupe_link_costs_destroy(troupe_link_costs *links) {
    if (links != NULL) {
        troupe_free(links->first);
        troupe_free(links->tasks);
        troupe_free(links->by_begin);
        troupe_free(links->latest);
        troupe_free(links->free_ns);
        troupe_free(links->sights);
        troupe_free(links);
    }
}
