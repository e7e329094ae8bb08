/* SPDX-License-Identifier: Apache-2.0
 *
 * A random task graph, of the kind that training makes, for fuzzing the engine: a language model
 * with a pipeline, encoders that feed it or each other, each on random ranks in a random layout, so
 * that gangs overlap in every way; frozen modules, split backwards, reductions in a random job-wide
 * order, updates that also wait for reductions elsewhere, rings, and empty messages.
 *
 *     scenario_make(&scenario, seed);   (the graph points into the scenario: do not copy it)
 *
 * Ownership: one flat struct, nothing to free. Threads: one. Failure: none.
 */
#ifndef TROUPE_TESTS_FUZZ_SCENARIO_H
#define TROUPE_TESTS_FUZZ_SCENARIO_H

#include <stdint.h>

#include "scheduler/graph.h"

enum {
    RANKS_MAX = 8,
    MODULES_MAX = 4,
    GANGS_MAX = 40,
    METHODS_MAX = 5 * GANGS_MAX,
    EDGES_MAX = 600,
    MICROBATCHES_MAX = 6,
    CREDITS_MAX = 3,
    SLOTS_MAX = 3,
};

struct module_plan {
    int ranks[RANKS_MAX];
    int tp, dp, pp;
    int target; /* the module it feeds; -1 for the language model */
    int depth;
    bool frozen;        /* forward only */
    bool split_weights; /* backward_weight is a task of its own */
    int first_gang;     /* gang of (stage, dp) is first_gang + stage * dp_count + dp */
};

/* Methods of a gang, -1 where it has none. */
struct gang_methods {
    int forward, backward, weight, reduce, update;
};

struct scenario {
    uint64_t seed;
    uint64_t chance; /* state of the generator */
    int microbatches;
    int steps;
    int64_t first_step;
    struct module_plan modules[MODULES_MAX];
    int module_count;
    struct troupe_gang gangs[GANGS_MAX];
    char gang_names[GANGS_MAX][64];
    int gang_ranks[GANGS_MAX][RANKS_MAX];
    struct gang_methods gang_methods[GANGS_MAX];
    struct troupe_method methods[METHODS_MAX];
    int after[METHODS_MAX][2];
    struct troupe_edge edges[EDGES_MAX];
    char edge_names[EDGES_MAX][90];
    bool ragged[EDGES_MAX]; /* messages may be empty or miss members */
    int64_t memory_bytes[RANKS_MAX];
    struct troupe_graph graph;
};

void scenario_make(struct scenario *scenario, uint64_t seed);

/* As engine.h asks for: who receives something of a message. */
uint64_t scenario_receivers(void *scenario, int edge, int64_t step, int microbatch);

/* A number in [0, bound). */
int chance_below(uint64_t *state, int bound);
uint64_t chance_hash(uint64_t a, uint64_t b);

#endif
