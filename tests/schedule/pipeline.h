/* SPDX-License-Identifier: Apache-2.0
 *
 * Pipelines to schedule, as graphs with costs: p ranks, v stages of the language model on each,
 * fused or split backward, and an encoder spread over the ranks, on the first rank, or on ranks of
 * its own. What theory and published schedules speak of.
 *
 *     pipeline_make(&(struct pipeline_options){.ranks = 4, .microbatches = 8, .forward = 10,
 *                   .backward = 10, .weight = 10, .split = true}, &pipeline);
 *     troupe_sim_create(&pipeline.graph, &(struct troupe_sim_options){.costs = &pipeline.costs},
 *                       &sim);
 *     pipeline_free(&pipeline);
 *
 * Ownership: make/free; do not copy a made one, costs and graph point into it. Threads: one.
 * Failure: prints and ends the program, as tests do.
 */
#ifndef TROUPE_TESTS_SCHEDULE_PIPELINE_H
#define TROUPE_TESTS_SCHEDULE_PIPELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "scheduler/cost.h"
#include "scheduler/graph.h"

enum pipeline_encoder {
    ENCODER_NONE,
    ENCODER_SPREAD, /* a share of every microbatch on every rank of the pipeline */
    ENCODER_FIRST,  /* on the first rank of the pipeline */
    ENCODER_APART,  /* spread over encoder_ranks ranks of its own */
};

struct pipeline_options {
    int ranks;
    int chunks; /* stages of the language model on each rank, 0: 1; stage s is on rank s % ranks */
    bool v_shape; /* two chunks, the second in reverse order of ranks */
    int replicas; /* of all that on further ranks, 0: 1 */
    int microbatches;
    int64_t forward, backward, weight; /* of one stage and microbatch */
    bool split;                        /* backward and weight are two tasks */
    int slots;                         /* of each stage, 0: as many as microbatches */
    int encoder_slots;                 /* 0: as many as microbatches */
    int credits;                       /* 0: as many as microbatches */
    int64_t link_ns;                   /* between ranks */
    int64_t reduce;                    /* of a stage's gradients over the replicas; 0: none */
    /* Of a stage and microbatch; the slot is then held from here to the backward, not from the
     * forward on. 0: none */
    int64_t recompute;
    int64_t prefetch; /* of a microbatch, for stage 0, by a rank of its own, the last; 0: none */
    int prefetch_credits; /* microbatches that may be ahead, 0: all */
    enum pipeline_encoder encoder;
    int encoder_ranks;
    int64_t encoder_forward, encoder_backward; /* of one encoder actor and microbatch */
    const double *llm_factor;                  /* by microbatch; NULL: all 1 */
    const double *encoder_factor;
    const double *encoder_share; /* by encoder actor: of an even share; NULL: all 1 */
};

struct pipeline {
    struct pipeline_options options;
    struct troupe_graph graph;
    struct troupe_costs costs;
    struct troupe_gang *gangs;
    struct troupe_method *methods;
    struct troupe_edge *edges;
    int *after;      /* one for each method */
    int *rank_lists; /* 0, 1, 2, ...: a gang's list is one element */
};

void pipeline_make(const struct pipeline_options *options, struct pipeline *out);
void pipeline_free(struct pipeline *pipeline);

/* Factors by microbatch: logarithms normally distributed, stretched so that the largest is
 * `disparity` times the smallest; the mean is 1. */
void pipeline_draw_factors(int count, double disparity, uint64_t seed, uint64_t stream,
                           double *factors_out);

#endif
