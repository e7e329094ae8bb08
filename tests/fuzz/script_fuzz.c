/* SPDX-License-Identifier: Apache-2.0 */
/* Mode static in a simulated world: the scripts of random graphs, whose ranks run their lines at
 * random speeds. A task runs when it is the next line of all its members and its inputs, buffers
 * and reductions are there. Nothing resolves a conflict: a wrong order makes ranks wait for ever,
 * or hands out a slot twice.
 *
 *     script_fuzz SEEDS                    all must pass; TEST_SEED repeats from a seed
 *     script_fuzz SEEDS --expect-caught    with two lines of a rank exchanged one must hang */
#include "scheduler/graph_index.h"
#include "scheduler/script.h"
#include "tests/fuzz/scenario.h"
#include "tests/test.h"

enum { LINES_MAX = METHODS_MAX * MICROBATCHES_MAX };

struct world {
    struct scenario scenario;
    uint64_t chance;
    int64_t step;
    const struct troupe_graph *graph;
    struct troupe_graph_index *index;
    struct troupe_script_line lines[RANKS_MAX][LINES_MAX];
    int count[RANKS_MAX], next[RANKS_MAX];
    int begun[METHODS_MAX]; /* firings; of a reduction: members that have posted */
    int done[METHODS_MAX];
    bool held[GANGS_MAX][SLOTS_MAX];
    int slot_of[GANGS_MAX][MICROBATCHES_MAX];
};

static int64_t task_ns(void *arg, int method, int64_t step, int microbatch) {
    const struct world *w = arg;
    (void)step;
    return 1 +
           (int64_t)(chance_hash(w->scenario.seed + (uint64_t)method, (uint64_t)microbatch) % 1000);
}

static bool anyone_receives(struct world *w, int edge, int firing) {
    return firing < w->graph->edges[edge].initial ||
           scenario_receivers(&w->scenario, edge, w->step, firing) != 0;
}

/* Messages of the edge that hold one of its buffers. */
static int in_flight(struct world *w, int edge) {
    const struct troupe_edge *plan = &w->graph->edges[edge];
    int held = 0;
    for (int f = w->done[plan->to]; f < w->done[plan->from] + plan->initial; f++) {
        held += f >= w->graph->methods[plan->to].firings || anyone_receives(w, edge, f);
    }
    return held;
}

static bool may_run(struct world *w, int method, int firing) {
    const struct troupe_method *plan = &w->graph->methods[method];
    const struct troupe_lists *in = &w->index->inputs, *out = &w->index->outputs;
    for (int i = 0; i < plan->after_count; i++) {
        int before = plan->after[i], firings = w->graph->methods[before].firings;
        if (w->done[before] < (firings == plan->firings ? firing + 1 : firings)) {
            return false;
        }
    }
    for (int i = in->begin[method]; i < in->begin[method + 1]; i++) {
        const struct troupe_edge *edge = &w->graph->edges[in->items[i]];
        if (w->done[edge->from] + edge->initial <= firing &&
            anyone_receives(w, in->items[i], firing)) {
            return false;
        }
    }
    for (int i = out->begin[method]; i < out->begin[method + 1]; i++) {
        const struct troupe_edge *edge = &w->graph->edges[out->items[i]];
        int message = firing + edge->initial;
        bool takes = message >= w->graph->methods[edge->to].firings ||
                     anyone_receives(w, out->items[i], message);
        if (edge->from != edge->to && takes && in_flight(w, out->items[i]) >= edge->credits) {
            return false;
        }
    }
    return true;
}

static void take_and_return_slot(struct world *w, const struct troupe_script_line *line) {
    const struct troupe_method *plan = &w->graph->methods[line->method];
    if (plan->slot_take) {
        EXPECT(line->slot < w->graph->gangs[plan->gang].slots && !w->held[plan->gang][line->slot],
               "seed %llu: %s takes slot %d of %s twice", (unsigned long long)w->scenario.seed,
               plan->name, line->slot, w->graph->gangs[plan->gang].name);
        w->held[plan->gang][line->slot] = true;
        w->slot_of[plan->gang][line->microbatch] = line->slot;
    }
    if (plan->slot_return) {
        w->held[plan->gang][w->slot_of[plan->gang][line->microbatch]] = false;
    }
}

/* When all members of all its gangs have posted, the collective is done. */
static void post(struct world *w, int method) {
    int order = w->graph->methods[method].lane_order;
    w->begun[method]++;
    for (int pass = 0; pass < 2; pass++) {
        for (int m = 0; m < w->graph->method_count; m++) {
            const struct troupe_method *plan = &w->graph->methods[m];
            bool same = plan->lane == TROUPE_LANE_REDUCTION && plan->lane_order == order;
            if (same && pass == 0 && w->begun[m] < w->graph->gangs[plan->gang].rank_count) {
                return;
            }
            w->done[m] += same && pass == 1;
        }
    }
}

/* Runs the rank's next line, on all members, if all is there. */
static bool try_rank(struct world *w, int rank) {
    if (w->next[rank] == w->count[rank]) {
        return false;
    }
    const struct troupe_script_line *line = &w->lines[rank][w->next[rank]];
    const struct troupe_method *plan = &w->graph->methods[line->method];
    const struct troupe_gang *gang = &w->graph->gangs[plan->gang];
    if (plan->lane == TROUPE_LANE_REDUCTION) {
        bool ready = may_run(w, line->method, 0);
        w->next[rank] += ready;
        if (ready) {
            post(w, line->method);
        }
        return ready;
    }
    for (int k = 0; k < gang->rank_count; k++) {
        int r = gang->ranks[k];
        const struct troupe_script_line *other = &w->lines[r][w->next[r]];
        if (w->next[r] == w->count[r] || other->method != line->method ||
            other->microbatch != line->microbatch) {
            return false;
        }
    }
    if (w->done[line->method] != line->microbatch || !may_run(w, line->method, line->microbatch)) {
        return false;
    }
    take_and_return_slot(w, line);
    w->done[line->method]++;
    for (int k = 0; k < gang->rank_count; k++) {
        w->next[gang->ranks[k]]++;
    }
    return true;
}

/* Whether all lines have run. */
static bool run_lines(struct world *w) {
    for (;;) {
        int first = chance_below(&w->chance, w->graph->rank_count), tried = 0;
        while (tried < w->graph->rank_count &&
               !try_rank(w, (first + tried) % w->graph->rank_count)) {
            tried++;
        }
        if (tried == w->graph->rank_count) {
            break;
        }
    }
    for (int r = 0; r < w->graph->rank_count; r++) {
        if (w->next[r] < w->count[r]) {
            return false;
        }
    }
    return true;
}

/* Exchanges the first line of some rank with the first of another task. */
static void spoil(struct world *w) {
    int r = chance_below(&w->chance, w->graph->rank_count), other = 0;
    while (other < w->count[r] && w->lines[r][other].method == w->lines[r][0].method) {
        other++;
    }
    if (other < w->count[r]) {
        struct troupe_script_line line = w->lines[r][0];
        w->lines[r][0] = w->lines[r][other];
        w->lines[r][other] = line;
    }
}

static void plan(struct world *w) {
    static const char *const orders[] = {"fifo", "1f1b", "fill", "zero_bubble"};
    const struct troupe_costs costs = {.task_ns = task_ns, .arg = w, .search_ns = 20000};
    struct troupe_script_options options = {.look_ahead = 1 + chance_below(&w->chance, 3),
                                            .costs = &costs,
                                            .receivers = scenario_receivers,
                                            .arg = &w->scenario,
                                            .lanes_apart = false};
    troupe_script *script = NULL;
    EXPECT_OK(troupe_order_find(orders[chance_below(&w->chance, 4)], &options.order));
    EXPECT_OK(troupe_script_create(w->graph, &options, &script));
    EXPECT_OK(troupe_script_plan(script, w->step));
    for (int r = 0; r < w->graph->rank_count; r++) {
        const struct troupe_script_line *lines = troupe_script_lines(script, r, &w->count[r]);
        EXPECT(w->count[r] <= LINES_MAX, "%d lines", w->count[r]);
        memcpy(w->lines[r], lines, (size_t)w->count[r] * sizeof *lines);
    }
    troupe_script_destroy(script);
}

static bool run_seed(uint64_t seed, bool spoils) {
    static struct world w;
    memset(&w, 0, sizeof w);
    scenario_make(&w.scenario, seed);
    w.chance = chance_hash(seed, 77);
    w.step = w.scenario.first_step;
    w.graph = &w.scenario.graph;
    EXPECT_OK(troupe_graph_index_create(w.graph, &w.index));
    plan(&w);
    if (spoils) {
        spoil(&w);
    }
    bool ended = run_lines(&w);
    troupe_graph_index_destroy(w.index);
    return ended;
}

int main(int argc, char **argv) {
    int seeds = argc > 1 ? atoi(argv[1]) : 200;
    bool expect_caught = argc > 2 && strcmp(argv[2], "--expect-caught") == 0;
    uint64_t first = test_seed();
    int hung = 0;
    for (int i = 0; i < seeds; i++) {
        if (!run_seed(first + (uint64_t)i, expect_caught)) {
            EXPECT(expect_caught, "seed %llu: the ranks wait for each other",
                   (unsigned long long)(first + (uint64_t)i));
            hung++;
        }
    }
    EXPECT(!expect_caught || hung > 0, "of %d spoilt scripts none hangs", seeds);
    return 0;
}
