/* SPDX-License-Identifier: Apache-2.0
 *
 * Dependency patterns for measuring what a task costs: a graph of steps x points, in which the task
 * of point p at step t reads what some points wrote at step t - 1. Our own code after the idea of
 * E. Slaughter et al., "Task Bench: A Parameterized Benchmark for Evaluating Parallel Runtime
 * Performance", SC20; `two_island` is ours: an encoder's points and a language model's, which work
 * in another layout, with microbatches as steps.
 *
 *     struct pattern pattern = {.kind = PATTERN_STENCIL_1D, .width = 16, .steps = 32};
 *     TROUPE_TRY(pattern_check(&pattern));
 *     if (pattern_has(&pattern, t, p)) { count = pattern_inputs(&pattern, t, p, inputs); }
 *
 * Ownership: none. Threads: any. Failure: check returns ERROR_INVALID with a sentence.
 */
#ifndef TROUPE_APPS_TROUPE_PATTERN_H
#define TROUPE_APPS_TROUPE_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/status.h"

enum { PATTERN_WIDTH_MAX = 1024 };

enum pattern_kind {
    PATTERN_TRIVIAL,             /* no inputs */
    PATTERN_NO_COMM,             /* p: as many chains as points */
    PATTERN_STENCIL_1D,          /* p-1 .. p+1 */
    PATTERN_STENCIL_1D_PERIODIC, /* the same, around */
    PATTERN_DOM,                 /* p-1, p; a wavefront that grows to the width and shrinks */
    PATTERN_TREE,                /* p/2; twice as many points each step */
    PATTERN_FFT,                 /* p, p-2^s, p+2^s; s goes through the bits of the width */
    PATTERN_ALL_TO_ALL,          /* all */
    PATTERN_NEAREST,             /* the `radix` nearest */
    PATTERN_SPREAD,              /* `radix` points evenly apart, other ones each step */
    PATTERN_RANDOM_NEAREST,      /* p, and each of the nearest with probability 1/4 */
    PATTERN_TWO_ISLAND,          /* see pattern_island */
    PATTERN_KINDS
};

struct pattern {
    enum pattern_kind kind;
    int width; /* points */
    int steps;
    int radix;  /* 0: 5 */
    int period; /* dependence sets of spread and random_nearest; 0: 3 */
};

/* A task writes this, repeated to the end of its output: never 0, other in every replay. */
struct pattern_stamp {
    int64_t step; /* counted over all replays, from 1 */
    int64_t point;
};

const char *pattern_name(enum pattern_kind kind);
/* False if there is none of this name. */
bool pattern_find(const char *name, enum pattern_kind *out);
troupe_status pattern_check(const struct pattern *pattern);

/* Whether there is a task of the point at the step. */
bool pattern_has(const struct pattern *pattern, int step, int point);
/* Fills the points of step - 1 that it reads, ascending and without repetition; at most `width`.
 * Returns how many. */
int pattern_inputs(const struct pattern *pattern, int step, int point, int *inputs);
int pattern_task_count(const struct pattern *pattern);
/* Whether all steps but the first read the same points. */
bool pattern_repeats(const struct pattern *pattern);
/* Of two_island: points [0, this) are the encoder's, 3 of 8. Encoder points go on by themselves; a
 * point of the language model reads itself, the one before, and those encoder points whose part of
 * the batch overlaps its own. */
int pattern_island(const struct pattern *pattern);

/* The work of a task: each iteration 64 multiplications and additions, without memory traffic. The
 * result only keeps the compiler from leaving it out. */
double pattern_work(int64_t iterations);

#endif
