/* SPDX-License-Identifier: Apache-2.0 */
/* What messages, tickets and waiting cost. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "actors/job.h"
#include "actors/runtime.h"
#include "apps/troupe/bench.h"
#include "runtime/clock.h"

enum { IN = 0, OUT = 1, RANKS_MAX = 256 };

/* Steps of a runtime, each `firings` of every actor: seconds of a step by round. */
static troupe_status time_steps(troupe_runtime *runtime, double *samples) {
    TROUPE_TRY(troupe_runtime_step(runtime, 0)); /* warms up */
    for (int round = 0; round < BENCH_ROUNDS; round++) {
        uint64_t begin_ns = troupe_clock_ns();
        TROUPE_TRY(troupe_runtime_step(runtime, round + 1));
        samples[round] = troupe_clock_seconds(begin_ns, troupe_clock_ns());
    }
    return TROUPE_OK;
}

static void scale(double *samples, double factor) {
    for (int i = 0; i < BENCH_ROUNDS; i++) {
        samples[i] *= factor;
    }
}

/* ---- a ball ---- */

/* The first word of the message counts its hits. */
static troupe_status hit(void *state, struct troupe_firing *firing) {
    (void)state;
    *(int64_t *)firing->outputs[0].data = *(const int64_t *)firing->inputs[0].data + 1;
    return TROUPE_OK;
}

static const struct troupe_port ports[] = {[IN] = {"in", TROUPE_IN}, [OUT] = {"out", TROUPE_OUT}};
static const struct troupe_actor_method hit_method = {.name = "hit",
                                                      .inputs = {IN},
                                                      .input_count = 1,
                                                      .outputs = {OUT},
                                                      .output_count = 1,
                                                      .run = hit};
static const struct troupe_actor_class player = {
    .name = "player", .ports = ports, .port_count = 2, .methods = &hit_method, .method_count = 1};

static troupe_status join(troupe_runtime *runtime, const char *name, int from, int to, int initial,
                          int64_t bytes) {
    return troupe_connect(runtime,
                          &(struct troupe_connect_options){.name = name,
                                                           .from = &from,
                                                           .from_port = "out",
                                                           .to = &to,
                                                           .to_port = "in",
                                                           .credits = 2,
                                                           .initial = initial,
                                                           .columns = bytes / 4,
                                                           .dtype = TROUPE_INT32},
                          NULL);
}

static troupe_status play(troupe_runtime *runtime, int ranks, const struct bench_message *run,
                          double *samples) {
    int ping = 0, pong = 0;
    struct troupe_spawn_options options = {
        .actor_class = &player, .name = "ping", .ranks = (int[]){0}, .rank_count = 1, .worker = 1};
    TROUPE_TRY(troupe_spawn(runtime, &options, &ping));
    options.name = "pong";
    options.ranks = (int[]){run->apart ? ranks - 1 : 0};
    options.worker = run->apart ? 2 : 1;
    TROUPE_TRY(troupe_spawn(runtime, &options, &pong));
    TROUPE_TRY(join(runtime, "there", ping, pong, 0, run->bytes));
    TROUPE_TRY(join(runtime, "back", pong, ping, 1, run->bytes));
    TROUPE_TRY(troupe_runtime_start(runtime));
    return time_steps(runtime, samples);
}

troupe_status bench_message_run(troupe_comm *comm, const struct bench_message *run,
                                double *samples) {
    troupe_runtime *runtime = NULL;
    troupe_status status = troupe_runtime_create(
        comm,
        &(struct troupe_runtime_options){.microbatches = run->firings, .workers = run->workers},
        &runtime);
    if (status == TROUPE_OK) {
        status = play(runtime, troupe_comm_size(comm), run, samples);
    }
    if (status != TROUPE_OK) {
        status = troupe_job_abort(comm, status);
    }
    troupe_runtime_destroy(runtime);
    scale(samples, 1 / (2.0 * run->firings));
    return status;
}

/* ---- a gang without ports ---- */

static troupe_status nothing(void *state, struct troupe_firing *firing) {
    (void)state, (void)firing;
    return TROUPE_OK;
}

static const struct troupe_actor_method idle_method = {.name = "nothing", .run = nothing};
static const struct troupe_actor_class idler = {
    .name = "idler", .ports = ports, .port_count = 2, .methods = &idle_method, .method_count = 1};

static troupe_status conduct(troupe_runtime *runtime, int rank_count, double *samples) {
    int ranks[RANKS_MAX];
    for (int r = 0; r < rank_count && r < RANKS_MAX; r++) {
        ranks[r] = r;
    }
    TROUPE_TRY(troupe_spawn(
        runtime,
        &(struct troupe_spawn_options){
            .actor_class = &idler, .name = "gang", .ranks = ranks, .rank_count = rank_count},
        NULL));
    TROUPE_TRY(troupe_runtime_start(runtime));
    return time_steps(runtime, samples);
}

troupe_status bench_conductor_run(troupe_comm *comm, int firings, double *samples) {
    troupe_runtime *runtime = NULL;
    troupe_status status = troupe_runtime_create(
        comm, &(struct troupe_runtime_options){.microbatches = firings, .look_ahead = 1}, &runtime);
    if (status == TROUPE_OK) {
        status = conduct(runtime, troupe_comm_size(comm), samples);
    }
    if (status != TROUPE_OK) {
        status = troupe_job_abort(comm, status);
    }
    troupe_runtime_destroy(runtime);
    scale(samples, 1.0 / firings);
    return status;
}

/* ---- waiting ---- */

static void sleep_ms(int ms) {
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

static double cpu_seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static troupe_status send_late(void *state, struct troupe_firing *firing) {
    sleep_ms(*(const int *)state);
    *(int64_t *)firing->outputs[0].data = firing->step;
    return TROUPE_OK;
}

static const struct troupe_actor_method late_method = {
    .name = "send", .outputs = {OUT}, .output_count = 1, .run = send_late};
static const struct troupe_actor_class late_class = {
    .name = "late", .ports = ports, .port_count = 2, .methods = &late_method, .method_count = 1};
static const struct troupe_actor_method receive_method = {
    .name = "receive", .inputs = {IN}, .input_count = 1, .run = nothing};
static const struct troupe_actor_class receiver = {.name = "receiver",
                                                   .ports = ports,
                                                   .port_count = 2,
                                                   .methods = &receive_method,
                                                   .method_count = 1};

static troupe_status wait_late(troupe_runtime *runtime, int ranks, int *wait_ms, double *samples) {
    int from = 0, to = 0;
    struct troupe_spawn_options options = {.actor_class = &late_class,
                                           .name = "late",
                                           .ranks = (int[]){0},
                                           .rank_count = 1,
                                           .argument = wait_ms};
    TROUPE_TRY(troupe_spawn(runtime, &options, &from));
    options.actor_class = &receiver;
    options.name = "receiver";
    options.ranks = (int[]){ranks - 1};
    TROUPE_TRY(troupe_spawn(runtime, &options, &to));
    TROUPE_TRY(join(runtime, "late message", from, to, 0, 8));
    TROUPE_TRY(troupe_runtime_start(runtime));
    for (int round = 0; round < BENCH_ROUNDS; round++) {
        double used = cpu_seconds();
        uint64_t begin_ns = troupe_clock_ns();
        TROUPE_TRY(troupe_runtime_step(runtime, round));
        samples[round] = (cpu_seconds() - used) / troupe_clock_seconds(begin_ns, troupe_clock_ns());
    }
    return TROUPE_OK;
}

troupe_status bench_idle_run(troupe_comm *comm, int wait_ms, double *samples) {
    troupe_runtime *runtime = NULL;
    troupe_status status =
        troupe_runtime_create(comm, &(struct troupe_runtime_options){.microbatches = 1}, &runtime);
    if (status == TROUPE_OK) {
        status = wait_late(runtime, troupe_comm_size(comm), &wait_ms, samples);
    }
    if (status != TROUPE_OK) {
        status = troupe_job_abort(comm, status);
    }
    troupe_runtime_destroy(runtime);
    return status;
}

static troupe_status rest(troupe_runtime *runtime, int wait_ms, double *samples) {
    TROUPE_TRY(troupe_spawn(
        runtime, &(struct troupe_spawn_options){.actor_class = &idler, .name = "idler"}, NULL));
    TROUPE_TRY(troupe_runtime_start(runtime));
    for (int round = 0; round < BENCH_ROUNDS; round++) {
        TROUPE_TRY(troupe_runtime_step(runtime, round));
        double used = cpu_seconds();
        sleep_ms(wait_ms);
        samples[round] = (cpu_seconds() - used) / (wait_ms * 1e-3);
    }
    return TROUPE_OK;
}

troupe_status bench_idle_workers_run(troupe_comm *comm, int workers, int wait_ms, double *samples) {
    troupe_runtime *runtime = NULL;
    troupe_status status = troupe_runtime_create(
        comm, &(struct troupe_runtime_options){.microbatches = 1, .workers = workers}, &runtime);
    if (status == TROUPE_OK) {
        status = rest(runtime, wait_ms, samples);
    }
    if (status != TROUPE_OK) {
        status = troupe_job_abort(comm, status);
    }
    troupe_runtime_destroy(runtime);
    return status;
}
