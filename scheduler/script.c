/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/script.h"

#include "runtime/check.h"
#include "runtime/memory.h"
#include "scheduler/engine.h"
#include "scheduler/sim.h"

enum { TASK_NS = 1000, MESSAGE_NS = 1 };

struct troupe_script {
    const struct troupe_graph *graph;
    struct troupe_script_options options;
    struct troupe_costs costs; /* that the simulator asks: of the step that is planned */
    int64_t step;              /* -1: none is planned */
    troupe_sim *sim;
    int *begin; /* by rank: of its lines; rank_count + 1 numbers */
    int *count; /* by rank: lines so far */
    struct troupe_script_line *lines;
};

/* ---- what the simulator asks ---- */

static int64_t task_ns(void *arg, int method, int64_t step, int microbatch) {
    const troupe_script *script = arg;
    (void)step; /* the simulator counts its own */
    return script->options.costs == NULL
               ? TASK_NS
               : troupe_cost_of_task(script->options.costs, method, script->step, microbatch);
}

static int64_t edge_ns(void *arg, int edge, int64_t step, int microbatch) {
    const troupe_script *script = arg;
    (void)step;
    return script->options.costs == NULL
               ? MESSAGE_NS
               : MESSAGE_NS +
                     troupe_cost_of_edge(script->options.costs, edge, script->step, microbatch);
}

static uint64_t receivers(void *arg, int edge, int64_t step, int microbatch) {
    const troupe_script *script = arg;
    (void)step;
    return script->options.receivers(script->options.arg, edge, script->step, microbatch);
}

static void add_line(void *arg, const struct troupe_ticket *ticket) {
    troupe_script *script = arg;
    const struct troupe_gang *gang = &script->graph->gangs[ticket->gang];
    for (int k = 0; k < gang->rank_count; k++) {
        int rank = gang->ranks[k];
        script->lines[script->begin[rank] + script->count[rank]++] =
            (struct troupe_script_line){.method = ticket->method,
                                        .microbatch = (uint16_t)ticket->microbatch,
                                        .slot = (uint16_t)ticket->slot};
    }
}

/* ---- one step ---- */

static bool is_late(const troupe_script *script, const struct troupe_script_line *line) {
    const struct troupe_method *method = &script->graph->methods[line->method];
    bool late = method->lane == TROUPE_LANE_REDUCTION;
    for (int i = 0; i < method->after_count; i++) {
        late = late || script->graph->methods[method->after[i]].firings != method->firings;
        late = late || script->graph->methods[method->after[i]].lane == TROUPE_LANE_REDUCTION;
    }
    return late;
}

/* Moves the late lines of a rank behind the others; both keep their order. */
static void part_lanes(troupe_script *script, int rank) {
    struct troupe_script_line *lines = &script->lines[script->begin[rank]];
    int count = script->count[rank], early = 0;
    for (int i = 0; i < count; i++) {
        struct troupe_script_line line = lines[i];
        if (is_late(script, &line)) {
            continue;
        }
        for (int k = i; k > early; k--) {
            lines[k] = lines[k - 1];
        }
        lines[early++] = line;
    }
}

static bool serves_again(const troupe_script *script) {
    const struct troupe_costs *costs = script->options.costs;
    if (script->step < 0 || script->options.receivers != NULL) {
        return false;
    }
    return costs == NULL ||
           (costs->epoch > 0 ? costs->epoch == script->costs.epoch : costs->steady);
}

troupe_status troupe_script_plan(troupe_script *script, int64_t step) {
    const struct troupe_graph *graph = script->graph;
    struct troupe_sim_result result;
    if (serves_again(script)) {
        return TROUPE_OK;
    }
    script->step = step;
    if (script->options.costs != NULL) {
        script->costs.epoch = script->options.costs->epoch;
        script->costs.search_ns = script->options.costs->search_ns;
    }
    for (int r = 0; r < graph->rank_count; r++) {
        script->count[r] = 0;
    }
    TROUPE_TRY(troupe_sim_run(script->sim, &result));
    for (int r = 0; r < graph->rank_count; r++) {
        TROUPE_ASSERT(script->count[r] == script->begin[r + 1] - script->begin[r],
                      "rank %d got %d tickets of %d", r, script->count[r],
                      script->begin[r + 1] - script->begin[r]);
        if (script->options.lanes_apart) {
            part_lanes(script, r);
        }
    }
    return TROUPE_OK;
}

/* ---- life ---- */

int troupe_script_count(const struct troupe_graph *graph, int rank) {
    int count = 0;
    for (int m = 0; m < graph->method_count; m++) {
        const struct troupe_gang *gang = &graph->gangs[graph->methods[m].gang];
        for (int k = 0; k < gang->rank_count; k++) {
            count += gang->ranks[k] == rank ? graph->methods[m].firings : 0;
        }
    }
    return count;
}

static troupe_status check_sizes(const struct troupe_graph *graph) {
    for (int m = 0; m < graph->method_count; m++) {
        const struct troupe_gang *gang = &graph->gangs[graph->methods[m].gang];
        if (graph->methods[m].firings > UINT16_MAX || gang->slots > UINT16_MAX) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "%s %s fires %d times a step in %d slots; mode static numbers them "
                               "up to %d",
                               gang->name, graph->methods[m].name, graph->methods[m].firings,
                               gang->slots, UINT16_MAX);
        }
    }
    return TROUPE_OK;
}

static troupe_status make_lines(troupe_script *script) {
    const struct troupe_graph *graph = script->graph;
    TROUPE_TRY(TROUPE_NEW(&script->begin, graph->rank_count + 1));
    TROUPE_TRY(TROUPE_NEW(&script->count, graph->rank_count));
    for (int m = 0; m < graph->method_count; m++) {
        const struct troupe_gang *gang = &graph->gangs[graph->methods[m].gang];
        for (int k = 0; k < gang->rank_count; k++) {
            script->begin[gang->ranks[k] + 1] += graph->methods[m].firings;
        }
    }
    for (int r = 0; r < graph->rank_count; r++) {
        script->begin[r + 1] += script->begin[r];
    }
    return TROUPE_NEW(&script->lines, script->begin[graph->rank_count]);
}

static troupe_status make(troupe_script *script) {
    const struct troupe_script_options *o = &script->options;
    TROUPE_TRY(check_sizes(script->graph));
    TROUPE_TRY(make_lines(script));
    script->costs = (struct troupe_costs){.task_ns = task_ns,
                                          .edge_ns = edge_ns,
                                          .arg = script,
                                          .steady = o->costs == NULL || o->costs->steady};
    const struct troupe_sim_options options = {.order = o->order,
                                               .look_ahead = o->look_ahead,
                                               .costs = &script->costs,
                                               .control_ns = MESSAGE_NS,
                                               .receivers = o->receivers != NULL ? receivers : NULL,
                                               .arg = script,
                                               .issued = add_line,
                                               .issued_arg = script};
    return troupe_sim_create(script->graph, &options, &script->sim);
}

troupe_status troupe_script_create(const struct troupe_graph *graph,
                                   const struct troupe_script_options *options,
                                   troupe_script **out) {
    troupe_script *script = NULL;
    TROUPE_TRY(TROUPE_NEW(&script, 1));
    script->graph = graph;
    script->options = *options;
    script->step = -1;
    troupe_status status = make(script);
    if (status != TROUPE_OK) {
        troupe_script_destroy(script);
        return status;
    }
    *out = script;
    return TROUPE_OK;
}

const struct troupe_script_line *troupe_script_lines(const troupe_script *script, int rank,
                                                     int *count_out) {
    *count_out = script->begin[rank + 1] - script->begin[rank];
    return &script->lines[script->begin[rank]];
}

void troupe_script_destroy(troupe_script *script) {
    if (script != NULL) {
        troupe_sim_destroy(script->sim);
        troupe_free(script->begin);
        troupe_free(script->count);
        troupe_free(script->lines);
        troupe_free(script);
    }
}
