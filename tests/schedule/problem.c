/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/schedule/problem.h"

#include <stdbool.h>

#include "runtime/memory.h"
#include "tests/test.h"

static void add_arc(struct problem *p, int from, int64_t delay) {
    if (p->before != NULL) { /* else they are counted */
        p->before[p->arc_count] = (struct problem_arc){from, delay};
    }
    p->arc_count++;
}

static void add_slot_arcs(struct problem *p, int take, int firing) {
    const struct troupe_method *methods = p->graph->methods;
    int slots = p->graph->gangs[methods[take].gang].slots;
    for (int m = 0; m < p->graph->method_count; m++) {
        if (methods[m].gang == methods[take].gang && methods[m].slot_return && firing >= slots) {
            add_arc(p, p->first[m] + firing - slots, 0);
        }
    }
}

/* Everything that the task waits for. */
static void add_arcs_of(struct problem *p, const struct troupe_costs *costs, int task) {
    int m = p->method_of[task], firing = task - p->first[m];
    const struct troupe_method *method = &p->graph->methods[m];
    if (firing > 0) {
        add_arc(p, task - 1, 0);
    }
    for (int i = 0; i < method->after_count; i++) {
        add_arc(p, p->first[method->after[i]] + firing, 0);
    }
    for (int e = 0; e < p->graph->edge_count; e++) {
        if (p->graph->edges[e].to == m) {
            add_arc(p, p->first[p->graph->edges[e].from] + firing,
                    troupe_cost_of_edge(costs, e, 0, firing));
        }
    }
    if (method->slot_take) {
        add_slot_arcs(p, m, firing);
    }
}

static void add_arcs(struct problem *p, const struct troupe_costs *costs) {
    p->arc_count = 0;
    for (int t = 0; t < p->task_count; t++) {
        p->begin[t] = p->arc_count;
        add_arcs_of(p, costs, t);
    }
    p->begin[p->task_count] = p->arc_count;
}

static void sort_tasks(struct problem *p) {
    bool *placed = NULL;
    EXPECT_OK(TROUPE_NEW(&placed, p->task_count));
    for (int count = 0; count < p->task_count;) {
        int before = count;
        for (int t = 0; t < p->task_count; t++) {
            bool ready = !placed[t];
            for (int a = p->begin[t]; ready && a < p->begin[t + 1]; a++) {
                ready = placed[p->before[a].task];
            }
            if (ready) {
                placed[t] = true;
                p->order[count++] = t;
            }
        }
        EXPECT(count > before, "the tasks wait for themselves");
    }
    troupe_free(placed);
}

void problem_read(const struct troupe_graph *graph, const struct troupe_costs *costs,
                  struct problem *p) {
    *p = (struct problem){.graph = graph};
    EXPECT_OK(TROUPE_NEW(&p->first, graph->method_count + 1));
    for (int m = 0; m < graph->method_count; m++) {
        p->first[m + 1] = p->first[m] + graph->methods[m].firings;
        EXPECT(graph->gangs[graph->methods[m].gang].rank_count == 1, "a gang of several ranks");
    }
    p->task_count = p->first[graph->method_count];
    EXPECT_OK(TROUPE_NEW(&p->method_of, p->task_count));
    EXPECT_OK(TROUPE_NEW(&p->rank_of, p->task_count));
    EXPECT_OK(TROUPE_NEW(&p->ns, p->task_count));
    EXPECT_OK(TROUPE_NEW(&p->begin, p->task_count + 1));
    EXPECT_OK(TROUPE_NEW(&p->order, p->task_count));
    for (int m = 0; m < graph->method_count; m++) {
        for (int t = p->first[m]; t < p->first[m + 1]; t++) {
            p->method_of[t] = m;
            p->rank_of[t] = graph->gangs[graph->methods[m].gang].ranks[0];
            p->ns[t] = troupe_cost_of_task(costs, m, 0, t - p->first[m]);
        }
    }
    add_arcs(p, costs);
    EXPECT_OK(TROUPE_NEW(&p->before, p->arc_count));
    add_arcs(p, costs);
    sort_tasks(p);
}

void problem_free(struct problem *p) {
    troupe_free(p->first);
    troupe_free(p->method_of);
    troupe_free(p->rank_of);
    troupe_free(p->ns);
    troupe_free(p->begin);
    troupe_free(p->before);
    troupe_free(p->order);
}
