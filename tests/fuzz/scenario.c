/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/scenario.h"

#include <stdio.h>
#include <string.h>

#include "runtime/check.h"

/* Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. */
static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t chance_hash(uint64_t a, uint64_t b) {
    return mix(mix(a + UINT64_C(0x9e3779b97f4a7c15)) ^ b);
}

int chance_below(uint64_t *state, int bound) {
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return (int)(mix(*state) % (uint64_t)bound);
}

static int below(struct scenario *s, int bound) {
    return chance_below(&s->chance, bound);
}

static bool one_in(struct scenario *s, int n) {
    return below(s, n) == 0;
}

static void shuffle(struct scenario *s, int *values, int count) {
    for (int i = count - 1; i > 0; i--) {
        int j = below(s, i + 1), kept = values[i];
        values[i] = values[j];
        values[j] = kept;
    }
}

/* A module's layout on random ranks. Modules feed one that comes before them. */
static void make_module(struct scenario *s, int index) {
    struct module_plan *module = &s->modules[index];
    do {
        module->tp = 1 + below(s, 3);
        module->dp = 1 + below(s, 4);
        module->pp = 1 + below(s, index == 0 ? 4 : 2);
    } while (module->tp * module->dp * module->pp > s->graph.rank_count);
    for (int r = 0; r < s->graph.rank_count; r++) {
        module->ranks[r] = r;
    }
    if (!one_in(s, 3)) {
        shuffle(s, module->ranks, s->graph.rank_count);
    }
    module->target = index == 0 ? -1 : below(s, index);
    module->depth = index == 0 ? 0 : s->modules[module->target].depth + 1;
    module->frozen = index > 0 && (s->modules[module->target].frozen || one_in(s, 5));
    module->split_weights = one_in(s, 2);
}

static int add_gang(struct scenario *s, const int *ranks, int rank_count) {
    int g = s->graph.gang_count++;
    TROUPE_ASSERT(g < GANGS_MAX, "%d gangs", g + 1);
    memcpy(s->gang_ranks[g], ranks, (size_t)rank_count * sizeof *ranks);
    s->gangs[g] = (struct troupe_gang){.name = s->gang_names[g],
                                       .ranks = s->gang_ranks[g],
                                       .rank_count = rank_count,
                                       .slots = 1 + below(s, SLOTS_MAX)};
    s->gang_methods[g] = (struct gang_methods){-1, -1, -1, -1, -1};
    return g;
}

static int add_method(struct scenario *s, struct troupe_method method, int after, int after_too) {
    int m = s->graph.method_count++;
    TROUPE_ASSERT(m < METHODS_MAX, "%d methods", m + 1);
    s->after[m][0] = after;
    s->after[m][1] = after_too;
    method.after = s->after[m];
    method.after_count = (after >= 0) + (after_too >= 0);
    s->methods[m] = method;
    return m;
}

static void add_methods(struct scenario *s, int gang, const struct module_plan *module,
                        int lane_order) {
    struct gang_methods *methods = &s->gang_methods[gang];
    methods->forward = add_method(s,
                                  (struct troupe_method){.name = "forward",
                                                         .gang = gang,
                                                         .kind = TROUPE_METHOD_FORWARD,
                                                         .firings = s->microbatches,
                                                         .slot_take = true,
                                                         .slot_return = module->frozen},
                                  -1, -1);
    if (module->frozen) {
        return;
    }
    methods->backward = add_method(s,
                                   (struct troupe_method){.name = "backward_input",
                                                          .gang = gang,
                                                          .kind = TROUPE_METHOD_BACKWARD_INPUT,
                                                          .firings = s->microbatches,
                                                          .slot_return = !module->split_weights},
                                   methods->forward, -1);
    if (module->split_weights) {
        methods->weight = add_method(s,
                                     (struct troupe_method){.name = "backward_weight",
                                                            .gang = gang,
                                                            .kind = TROUPE_METHOD_BACKWARD_WEIGHT,
                                                            .firings = s->microbatches,
                                                            .slot_return = true},
                                     methods->backward, -1);
    }
    methods->reduce = add_method(s,
                                 (struct troupe_method){.name = "reduce",
                                                        .gang = gang,
                                                        .kind = TROUPE_METHOD_REDUCE,
                                                        .lane = TROUPE_LANE_REDUCTION,
                                                        .lane_order = lane_order,
                                                        .firings = 1},
                                 methods->backward, methods->weight);
    methods->update =
        add_method(s,
                   (struct troupe_method){
                       .name = "update", .gang = gang, .kind = TROUPE_METHOD_UPDATE, .firings = 1},
                   methods->reduce, -1);
}

static void add_edge(struct scenario *s, int from, int to, bool ragged, bool strict, int initial) {
    int e = s->graph.edge_count++;
    TROUPE_ASSERT(e < EDGES_MAX, "%d edges", e + 1);
    const struct troupe_method *a = &s->methods[from], *b = &s->methods[to];
    int least = from == to ? initial + 1 : 1;
    snprintf(s->edge_names[e], sizeof s->edge_names[e], "gang %d %s -> gang %d %s", a->gang,
             a->name, b->gang, b->name);
    s->edges[e] = (struct troupe_edge){.name = s->edge_names[e],
                                       .from = from,
                                       .to = to,
                                       .credits = least + below(s, CREDITS_MAX - least + 1),
                                       .initial = initial,
                                       .strict = strict};
    s->ragged[e] = ragged;
}

/* Forward from one gang to another, and the gradient back where the first is trained. */
static void join(struct scenario *s, int from, int to, bool ragged) {
    add_edge(s, s->gang_methods[from].forward, s->gang_methods[to].forward, ragged, false, 0);
    if (s->gang_methods[from].backward >= 0) {
        add_edge(s, s->gang_methods[to].backward, s->gang_methods[from].backward, ragged, false, 0);
    }
}

static void make_gangs(struct scenario *s, int index, const int *lane_orders) {
    struct module_plan *module = &s->modules[index];
    module->first_gang = s->graph.gang_count;
    for (int stage = 0; stage < module->pp; stage++) {
        for (int dp = 0; dp < module->dp; dp++) {
            int at = module->tp * (dp + module->dp * stage);
            int g = add_gang(s, module->ranks + at, module->tp);
            snprintf(s->gang_names[g], sizeof s->gang_names[g], "module %d stage %d dp %d", index,
                     stage, dp);
            s->gangs[g].module = index;
            s->gangs[g].depth = module->depth;
            s->gangs[g].stage = stage;
            s->gangs[g].stage_count = module->pp;
            s->gangs[g].dp = dp;
            add_methods(s, g, module, lane_orders[stage]);
            if (stage > 0) {
                join(s, g - module->dp, g, false);
            }
        }
    }
}

/* Joins the last stage to the target's first, replica by replica where their samples overlap. */
static void join_target(struct scenario *s, const struct module_plan *module) {
    const struct module_plan *target = &s->modules[module->target];
    for (int d = 0; d < module->dp; d++) {
        for (int t = 0; t < target->dp; t++) {
            if (d * target->dp < (t + 1) * module->dp && t * module->dp < (d + 1) * target->dp) {
                join(s, module->first_gang + (module->pp - 1) * module->dp + d,
                     target->first_gang + t, true);
            }
        }
    }
}

/* As the gradient norm does: an update that waits for the reductions of all gangs. */
static void join_updates(struct scenario *s) {
    for (int a = 0; a < s->graph.gang_count; a++) {
        for (int b = 0; b < s->graph.gang_count; b++) {
            if (a != b && s->gang_methods[a].reduce >= 0 && s->gang_methods[b].update >= 0) {
                add_edge(s, s->gang_methods[a].reduce, s->gang_methods[b].update, false,
                         one_in(s, 2), 0);
            }
        }
    }
}

/* Actors that hand a token round, independent of the training. */
static void make_ring(struct scenario *s) {
    int count = 1 + below(s, 3), first = -1, before = -1;
    for (int i = 0; i < count; i++) {
        int ranks[RANKS_MAX];
        for (int r = 0; r < s->graph.rank_count; r++) {
            ranks[r] = r;
        }
        shuffle(s, ranks, s->graph.rank_count);
        int g = add_gang(s, ranks, 1 + below(s, s->graph.rank_count > 1 ? 2 : 1));
        snprintf(s->gang_names[g], sizeof s->gang_names[g], "ring %d", i);
        int m = add_method(
            s, (struct troupe_method){.name = "pass", .gang = g, .firings = s->microbatches}, -1,
            -1);
        if (before >= 0) {
            add_edge(s, before, m, false, false, 0);
        } else {
            first = m;
        }
        before = m;
    }
    add_edge(s, before, first, false, false, 1);
}

/* Memory for one slot of each gang, and little more. */
static void bound_memory(struct scenario *s) {
    for (int r = 0; r < s->graph.rank_count; r++) {
        s->memory_bytes[r] = below(s, 8);
    }
    for (int g = 0; g < s->graph.gang_count; g++) {
        bool takes = s->gang_methods[g].forward >= 0;
        s->gangs[g].slot_bytes = takes ? 1 + below(s, 4) : 0;
        for (int k = 0; k < s->gangs[g].rank_count; k++) {
            s->memory_bytes[s->gangs[g].ranks[k]] += s->gangs[g].slot_bytes;
        }
    }
    s->graph.memory_bytes = s->memory_bytes;
}

void scenario_make(struct scenario *s, uint64_t seed) {
    memset(s, 0, sizeof *s);
    s->seed = s->chance = seed;
    s->graph = (struct troupe_graph){.rank_count = 1 + below(s, RANKS_MAX),
                                     .gangs = s->gangs,
                                     .methods = s->methods,
                                     .edges = s->edges};
    s->microbatches = 1 + below(s, MICROBATCHES_MAX);
    s->steps = 1 + below(s, 3);
    s->first_step = one_in(s, 3) ? 5 : 0;
    s->module_count = 1 + below(s, MODULES_MAX);
    int lane_orders[MODULES_MAX * RANKS_MAX]; /* by module and stage */
    for (int i = 0; i < MODULES_MAX * RANKS_MAX; i++) {
        lane_orders[i] = i;
    }
    shuffle(s, lane_orders, MODULES_MAX * RANKS_MAX);
    for (int i = 0; i < s->module_count; i++) {
        make_module(s, i);
        make_gangs(s, i, lane_orders + i * RANKS_MAX);
        if (i > 0) {
            join_target(s, &s->modules[i]);
        }
    }
    if (one_in(s, 3) && s->graph.gang_count <= 16) {
        join_updates(s);
    }
    if (one_in(s, 4)) {
        make_ring(s);
    }
    if (one_in(s, 2)) {
        bound_memory(s);
    }
}

uint64_t scenario_receivers(void *arg, int edge, int64_t step, int microbatch) {
    const struct scenario *s = arg;
    int members = s->gangs[s->methods[s->edges[edge].to].gang].rank_count;
    uint64_t everyone = (UINT64_C(1) << members) - 1;
    if (!s->ragged[edge]) {
        return everyone;
    }
    uint64_t hash =
        chance_hash(s->seed + (uint64_t)edge, (uint64_t)step * 1000 + (uint64_t)microbatch);
    switch (hash % 4) {
    case 0:
        return 0;
    case 1:
        return (hash >> 8) & everyone;
    default:
        return everyone;
    }
}
