/* SPDX-License-Identifier: Apache-2.0
 *
 * What `troupe bench` measures, each through the calls that any app makes: spawn, connect, step.
 *
 *     struct bench_pattern run = {.pattern = pattern, .workers = 2, .replays = 100};
 *     TROUPE_TRY(bench_pattern_run(comm, &run, samples));       (seconds a replay, by round)
 *     struct bench_figure figure = bench_figure_of(samples, BENCH_ROUNDS);
 *
 * Ownership: none. Threads: the endpoint's. Failure: a status with a sentence; a task that finds a
 * wrong stamp in an input ends the run with ERROR_DATA, naming both.
 */
#ifndef TROUPE_APPS_TROUPE_BENCH_H
#define TROUPE_APPS_TROUPE_BENCH_H

#include "apps/troupe/pattern.h"
#include "comm/comm.h"
#include "runtime/status.h"
#include "runtime/trace.h"

enum { BENCH_ROUNDS = 5 };

/* Median and spread of the rounds. */
struct bench_figure {
    double median, least, most;
};
struct bench_figure bench_figure_of(const double *samples, int count);

/* ---- bench_pattern.c ---- */

struct bench_pattern {
    struct pattern pattern;
    int workers;                /* of struct troupe_runtime_options; 0: tickets */
    int64_t iterations;         /* of pattern_work, in each task */
    int replays;                /* in a round */
    size_t bytes;               /* of an output, a multiple of a stamp's; 0: one stamp */
    bool loops;                 /* one actor for each point, see below */
    bool plant;                 /* leaves one dependency out: the stamps must tell */
    struct troupe_trace *trace; /* NULL: none */
};

/* One actor for each task, an edge for each dependency, replayed as a step. With `loops` one actor
 * for each point, which fires once for each step of the pattern, as the stages of a model do for
 * each microbatch; only of patterns whose steps all are the same, and the first reads the last of
 * the replay before. Points are spread over
 * the ranks, and over the workers of a rank, in even intervals. Seconds of a replay, BENCH_ROUNDS
 * of them. */
troupe_status bench_pattern_run(troupe_comm *comm, const struct bench_pattern *run,
                                double *samples);
/* Nanoseconds of an iteration of pattern_work on a core that has nothing else to do: the best of
 * several rounds. */
double bench_iteration_ns(void);

/* ---- bench_message.c ---- */

struct bench_message {
    int workers;   /* 0: tickets */
    bool apart;    /* the two actors on two workers, or ranks */
    int64_t bytes; /* of a message */
    int firings;   /* of each actor in a round */
};

/* Two actors and a message that goes back and forth: seconds one way, receiver's firing included.
 */
troupe_status bench_message_run(troupe_comm *comm, const struct bench_message *run,
                                double *samples);
/* A gang on all ranks that fires again and again, one ticket at a time: seconds of a round of
 * ready, ticket, run. */
troupe_status bench_conductor_run(troupe_comm *comm, int firings, double *samples);
/* The CPU time of the last rank while it waits `wait_ms` for a message of the first one, as a share
 * of that time. */
troupe_status bench_idle_run(troupe_comm *comm, int wait_ms, double *samples);
/* The same of a process whose workers are between two steps. */
troupe_status bench_idle_workers_run(troupe_comm *comm, int workers, int wait_ms, double *samples);

#endif
