/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/timeline.h"

#include <string.h>

#include "runtime/check.h"
#include "runtime/clock.h"
#include "runtime/memory.h"

/* What a rank sends to the others: when its step began, then its events. */
struct page {
    uint64_t begin_ns;
    int64_t count;
    struct troupe_trace_event events[];
};

struct troupe_timeline {
    troupe_comm *comm;
    int rank;
    int rank_count;
    const struct troupe_graph *graph;
    struct troupe_trace trace;
    uint64_t begin_ns;
    size_t page_bytes; /* of the rank with most tasks */
    char *mine;
    char *pages; /* of all ranks */
    int *first;  /* by method: of its tasks in `tasks` */
    struct troupe_task *tasks;
    struct troupe_schedule schedule;
    /* On rank 0. */
    troupe_bound *bound;
    struct troupe_account *account;
    bool collected;
    struct troupe_timeline_result result;
};

troupe_status troupe_timeline_create(troupe_comm *comm, troupe_timeline **out) {
    TROUPE_TRY(TROUPE_NEW(out, 1));
    (*out)->comm = comm;
    (*out)->rank = troupe_comm_rank(comm);
    (*out)->rank_count = troupe_comm_size(comm);
    return TROUPE_OK;
}

struct troupe_trace *troupe_timeline_trace(troupe_timeline *timeline) {
    return &timeline->trace;
}

static void detach(troupe_timeline *timeline) {
    troupe_trace_fini(&timeline->trace);
    troupe_free(timeline->mine);
    troupe_free(timeline->pages);
    troupe_free(timeline->first);
    troupe_free(timeline->tasks);
    troupe_bound_destroy(timeline->bound);
    troupe_account_destroy(timeline->account);
    timeline->mine = timeline->pages = NULL;
    timeline->first = NULL;
    timeline->tasks = NULL;
    timeline->bound = NULL;
    timeline->account = NULL;
    timeline->collected = false;
}

void troupe_timeline_destroy(troupe_timeline *timeline) {
    if (timeline != NULL) {
        detach(timeline);
        troupe_free(timeline);
    }
}

static troupe_status count_most(const struct troupe_graph *graph, int *out) {
    int *counts = NULL;
    TROUPE_TRY(TROUPE_NEW(&counts, graph->rank_count));
    *out = 0;
    for (int m = 0; m < graph->method_count; m++) {
        const struct troupe_gang *gang = &graph->gangs[graph->methods[m].gang];
        for (int k = 0; k < gang->rank_count; k++) {
            int count = counts[gang->ranks[k]] += graph->methods[m].firings;
            *out = count > *out ? count : *out;
        }
    }
    troupe_free(counts);
    return TROUPE_OK;
}

static int64_t measured_ns(void *arg, int method, int64_t step, int microbatch) {
    const troupe_timeline *timeline = arg;
    const struct troupe_task *task = &timeline->tasks[timeline->first[method] + microbatch];
    (void)step;
    return task->end_ns - task->begin_ns;
}

/* A message without rows is not waited for. Which ones that are is seen: their consumer began
 * before their producer had ended. */
static uint64_t waited_for(void *arg, int edge, int64_t step, int microbatch) {
    const troupe_timeline *timeline = arg;
    const struct troupe_edge *plan = &timeline->graph->edges[edge];
    (void)step;
    return timeline->tasks[timeline->first[plan->to] + microbatch].begin_ns >=
           timeline->tasks[timeline->first[plan->from] + microbatch].end_ns;
}

static troupe_status make_tasks(troupe_timeline *timeline, const struct troupe_graph *graph) {
    TROUPE_TRY(TROUPE_NEW(&timeline->first, graph->method_count + 1));
    for (int m = 0; m < graph->method_count; m++) {
        timeline->first[m + 1] = timeline->first[m] + graph->methods[m].firings;
    }
    timeline->schedule = (struct troupe_schedule){
        .graph = graph, .task_count = timeline->first[graph->method_count]};
    TROUPE_TRY(TROUPE_NEW(&timeline->tasks, timeline->schedule.task_count));
    timeline->schedule.tasks = timeline->tasks;
    return TROUPE_OK;
}

static troupe_status make_root(troupe_timeline *timeline, const struct troupe_graph *graph) {
    TROUPE_TRY(troupe_bound_create(
        graph, &(struct troupe_bound_options){.receivers = waited_for, .arg = timeline},
        &timeline->bound));
    return troupe_account_create(graph, &timeline->account);
}

troupe_status troupe_timeline_attach(troupe_timeline *timeline, const struct troupe_graph *graph) {
    int most = 0;
    detach(timeline);
    timeline->graph = graph;
    TROUPE_TRY(count_most(graph, &most));
    TROUPE_TRY(troupe_trace_init(&timeline->trace, most));
    timeline->page_bytes = sizeof(struct page) + (size_t)most * sizeof(struct troupe_trace_event);
    TROUPE_TRY(troupe_alloc(1, timeline->page_bytes, (void **)&timeline->mine));
    TROUPE_TRY(troupe_alloc((size_t)timeline->rank_count, timeline->page_bytes,
                            (void **)&timeline->pages));
    TROUPE_TRY(make_tasks(timeline, graph));
    return timeline->rank == 0 ? make_root(timeline, graph) : TROUPE_OK;
}

void troupe_timeline_begin(troupe_timeline *timeline) {
    troupe_trace_reset(&timeline->trace);
    timeline->begin_ns = troupe_clock_ns();
    timeline->collected = false;
}

/* ---- after the step ---- */

static const struct page *page_of(const troupe_timeline *timeline, int rank) {
    return (const struct page *)(timeline->pages + (size_t)rank * timeline->page_bytes);
}

/* The clock reading of this rank that counts as 0. Ranks of rank 0's host have its clock; there the
 * first to begin is the beginning. */
static uint64_t origin_of(const troupe_timeline *timeline, int rank) {
    int host = troupe_comm_host(timeline->comm, rank);
    uint64_t first = page_of(timeline, rank)->begin_ns;
    for (int r = 0; r < timeline->rank_count; r++) {
        bool shares = troupe_comm_host(timeline->comm, r) == host;
        first = shares && page_of(timeline, r)->begin_ns < first ? page_of(timeline, r)->begin_ns
                                                                 : first;
    }
    return first;
}

/* The last member to begin, the last to end. */
static void take_page(troupe_timeline *timeline, int rank) {
    const struct page *page = page_of(timeline, rank);
    uint64_t origin = origin_of(timeline, rank);
    for (int64_t i = 0; i < page->count; i++) {
        const struct troupe_trace_event *event = &page->events[i];
        struct troupe_task *task = &timeline->tasks[timeline->first[event->what] + event->index];
        int64_t begin = (int64_t)(event->begin_ns - origin);
        int64_t end = (int64_t)(event->end_ns - origin);
        task->begin_ns = begin > task->begin_ns ? begin : task->begin_ns;
        task->end_ns = end > task->end_ns ? end : task->end_ns;
    }
}

/* On a device a collective is posted when the tasks before it are only launched: it begins when
 * they have ended. */
static void begin_after(troupe_timeline *timeline, int method) {
    const struct troupe_method *plan = &timeline->graph->methods[method];
    struct troupe_task *task = &timeline->tasks[timeline->first[method]];
    for (int i = 0; i < plan->after_count; i++) {
        int last = timeline->first[plan->after[i] + 1] - 1;
        int64_t end = timeline->tasks[last].end_ns;
        task->begin_ns = end > task->begin_ns ? end : task->begin_ns;
    }
    task->end_ns = task->begin_ns > task->end_ns ? task->begin_ns : task->end_ns;
}

static void begin_collectives(troupe_timeline *timeline) {
    for (int m = 0; m < timeline->graph->method_count; m++) {
        if (timeline->graph->methods[m].lane == TROUPE_LANE_REDUCTION) {
            begin_after(timeline, m);
        }
    }
}

/* A collective begins when the last of its gangs has posted it, and ends for all at once. */
static void align_collectives(troupe_timeline *timeline) {
    const struct troupe_graph *graph = timeline->graph;
    for (int m = 0; m < graph->method_count; m++) {
        struct troupe_task *task = &timeline->tasks[timeline->first[m]];
        for (int n = 0; graph->methods[m].lane == TROUPE_LANE_REDUCTION && n < graph->method_count;
             n++) {
            const struct troupe_task *other = &timeline->tasks[timeline->first[n]];
            if (graph->methods[n].lane == TROUPE_LANE_REDUCTION &&
                graph->methods[n].lane_order == graph->methods[m].lane_order) {
                task->begin_ns =
                    other->begin_ns > task->begin_ns ? other->begin_ns : task->begin_ns;
                task->end_ns = other->end_ns > task->end_ns ? other->end_ns : task->end_ns;
            }
        }
    }
}

static void join_pages(troupe_timeline *timeline) {
    const struct troupe_graph *graph = timeline->graph;
    for (int m = 0; m < graph->method_count; m++) {
        for (int k = 0; k < graph->methods[m].firings; k++) {
            timeline->tasks[timeline->first[m] + k] =
                (struct troupe_task){.method = m, .microbatch = k};
        }
    }
    for (int r = 0; r < timeline->rank_count; r++) {
        take_page(timeline, r);
    }
    begin_collectives(timeline);
    align_collectives(timeline);
}

static void evaluate(troupe_timeline *timeline) {
    const struct troupe_costs costs = {.task_ns = measured_ns, .arg = timeline};
    timeline->result = (struct troupe_timeline_result){.schedule = timeline->schedule,
                                                       .account = timeline->account};
    troupe_account_fill(timeline->account, &timeline->result.schedule);
    troupe_bound_compute(timeline->bound, &costs, 0, &timeline->result.bound);
}

troupe_status troupe_timeline_collect(troupe_timeline *timeline, troupe_group *world) {
    struct page *page = (struct page *)timeline->mine;
    TROUPE_ASSERT(timeline->trace.dropped == 0, "a step had more than %d tasks on this rank",
                  timeline->trace.capacity);
    page->begin_ns = timeline->begin_ns;
    page->count = timeline->trace.count;
    memcpy(page->events, timeline->trace.events,
           (size_t)page->count * sizeof(struct troupe_trace_event));
    TROUPE_TRY(
        troupe_group_all_gather(world, timeline->mine, timeline->page_bytes, timeline->pages));
    join_pages(timeline);
    if (timeline->rank == 0) {
        evaluate(timeline);
    }
    timeline->collected = true;
    return TROUPE_OK;
}

const struct troupe_schedule *troupe_timeline_schedule(const troupe_timeline *timeline) {
    TROUPE_ASSERT(timeline->collected, "the schedule of rank %d before it is collected",
                  timeline->rank);
    return &timeline->schedule;
}

const struct troupe_timeline_result *troupe_timeline_result(const troupe_timeline *timeline) {
    return timeline->collected && timeline->rank == 0 ? &timeline->result : NULL;
}
