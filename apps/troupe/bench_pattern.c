/* SPDX-License-Identifier: Apache-2.0 */
/* A pattern as actors: one for each task, an edge for each dependency, replayed step by step. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/job.h"
#include "actors/runtime.h"
#include "apps/troupe/bench.h"
#include "runtime/check.h"
#include "runtime/clock.h"
#include "runtime/memory.h"

enum { NAME_BYTES = 48, CALIBRATION_ITERATIONS = 1 << 20 };

/* Classes differ in their number of ports only. */
struct point_class {
    struct troupe_actor_method method;
    struct troupe_actor_class class;
};

struct task {
    const struct bench_pattern *run;
    int step, point;
    int input_count, output_count;
    int inputs[TROUPE_PORTS_MAX];
    int gang;
    int next_output; /* port of the next edge that leaves it */
};

struct job {
    const struct bench_pattern *run;
    troupe_runtime *runtime;
    struct task *tasks; /* by step and point; those that are not there have no gang */
    int *scratch;
    struct point_class *classes; /* by inputs and outputs */
    struct troupe_port ports[2 * TROUPE_PORTS_MAX];
    char port_names[2 * TROUPE_PORTS_MAX][8];
    bool planted;
};

/* ---- a task ---- */

/* The task's step, counted over all replays. */
static int64_t step_of(const struct task *task, const struct troupe_firing *firing) {
    return firing->step * task->run->pattern.steps +
           (task->run->loops ? firing->microbatch : task->step);
}

static troupe_status check_input(const struct task *task, const struct troupe_firing *firing,
                                 int i) {
    const struct pattern_stamp *stamps = firing->inputs[i].data;
    int64_t step = step_of(task, firing);       /* of t - 1, from 1 */
    int point = step > 0 ? task->inputs[i] : 0; /* the messages of the beginning are zero */
    int64_t count = firing->inputs[i].columns * 4 / (int64_t)sizeof *stamps;
    for (int64_t k = 0; k < count; k++) {
        if (__builtin_expect(stamps[k].step != step || stamps[k].point != point, 0)) {
            return troupe_fail(TROUPE_ERROR_DATA,
                               "task %d of step %d has read stamp %" PRId64 ", %" PRId64
                               " where point %d must have left %" PRId64,
                               task->point, task->step, stamps[k].step, stamps[k].point, point,
                               step);
        }
    }
    return TROUPE_OK;
}

static troupe_status run_task(void *state, struct troupe_firing *firing) {
    const struct task *task = state;
    for (int i = 0; i < task->input_count; i++) {
        TROUPE_TRY(check_input(task, firing, i));
    }
    if (task->run->iterations > 0) {
        pattern_work(task->run->iterations);
    }
    const struct pattern_stamp stamp = {.step = step_of(task, firing) + 1, .point = task->point};
    for (int i = 0; i < task->output_count; i++) {
        struct pattern_stamp *stamps = firing->outputs[i].data;
        int64_t count = firing->outputs[i].columns * 4 / (int64_t)sizeof *stamps;
        for (int64_t k = 0; k < count; k++) {
            stamps[k] = stamp;
        }
    }
    return TROUPE_OK;
}

/* ---- the graph ---- */

/* Rows of tasks: of the pattern's steps, or of the one that repeats. */
static int rows_of(const struct bench_pattern *run) {
    return run->loops ? 1 : run->pattern.steps;
}

static struct task *task_at(const struct job *job, int step, int point) {
    return &job->tasks[step * job->run->pattern.width + point];
}

/* The task whose output one of the row reads. */
static struct task *task_before(const struct job *job, int row, int point) {
    return task_at(job, job->run->loops ? 0 : row - 1, point);
}

static const struct troupe_actor_class *class_of(struct job *job, int inputs, int outputs) {
    struct point_class *c = &job->classes[inputs * (TROUPE_PORTS_MAX + 1) + outputs];
    c->method = (struct troupe_actor_method){
        .name = "run", .input_count = inputs, .output_count = outputs, .run = run_task};
    for (int i = 0; i < TROUPE_PORTS_MAX; i++) {
        c->method.inputs[i] = i;
        c->method.outputs[i] = TROUPE_PORTS_MAX + i;
    }
    c->class = (struct troupe_actor_class){.name = "point",
                                           .ports = job->ports,
                                           .port_count = 2 * TROUPE_PORTS_MAX,
                                           .methods = &c->method,
                                           .method_count = 1};
    return &c->class;
}

static void name_ports(struct job *job) {
    for (int i = 0; i < 2 * TROUPE_PORTS_MAX; i++) {
        bool in = i < TROUPE_PORTS_MAX;
        snprintf(job->port_names[i], sizeof job->port_names[i], "%s%d", in ? "in" : "out",
                 i % TROUPE_PORTS_MAX);
        job->ports[i] = (struct troupe_port){.name = job->port_names[i],
                                             .direction = in ? TROUPE_IN : TROUPE_OUT};
    }
}

/* Reads the pattern: inputs of every task, and how many read it. */
static troupe_status fill_tasks(struct job *job) {
    const struct pattern *pattern = &job->run->pattern;
    for (int t = 0; t < rows_of(job->run); t++) {
        for (int p = 0; p < pattern->width; p++) {
            struct task *task = task_at(job, t, p);
            int step = job->run->loops ? 1 : t;
            task->run = job->run;
            task->step = t;
            task->point = p;
            int count =
                pattern_has(pattern, step, p) ? pattern_inputs(pattern, step, p, job->scratch) : 0;
            if (count > TROUPE_PORTS_MAX) {
                return troupe_fail(TROUPE_ERROR_INVALID,
                                   "%s: a task reads %d others; an actor has %d inputs",
                                   pattern_name(pattern->kind), count, TROUPE_PORTS_MAX);
            }
            task->input_count = count;
            memcpy(task->inputs, job->scratch, (size_t)count * sizeof *job->scratch);
            for (int i = 0; i < count; i++) {
                task_before(job, t, job->scratch[i])->output_count++;
            }
        }
    }
    return TROUPE_OK;
}

static troupe_status spawn_task(struct job *job, struct task *task, int rank_count) {
    const struct pattern *pattern = &job->run->pattern;
    char name[NAME_BYTES];
    int workers = job->run->workers > 0 ? job->run->workers : 1;
    int place = task->point * rank_count * workers / pattern->width;
    int rank = place / workers;
    if (task->output_count > TROUPE_PORTS_MAX) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s: %d tasks read one; an actor has %d outputs",
                           pattern_name(pattern->kind), task->output_count, TROUPE_PORTS_MAX);
    }
    snprintf(name, sizeof name, "point %d step %d", task->point, task->step);
    return troupe_spawn(job->runtime,
                        &(struct troupe_spawn_options){
                            .actor_class = class_of(job, task->input_count, task->output_count),
                            .name = name,
                            .ranks = &rank,
                            .rank_count = 1,
                            .worker = place % workers + 1,
                            .argument = task},
                        &task->gang);
}

static troupe_status connect_input(struct job *job, const struct task *task, int i) {
    struct task *from = task_before(job, task->step, task->inputs[i]);
    char name[NAME_BYTES];
    int port = from->next_output++;
    snprintf(name, sizeof name, "%d to %d at step %d", from->point, task->point, task->step);
    size_t bytes = job->run->bytes > 0 ? job->run->bytes : sizeof(struct pattern_stamp);
    bool plant = job->run->plant && !job->planted && task->step == job->run->pattern.steps - 1;
    job->planted |= plant;
    return troupe_connect(
        job->runtime,
        &(struct troupe_connect_options){.name = name,
                                         .from = &from->gang,
                                         .from_port = job->port_names[TROUPE_PORTS_MAX + port],
                                         .to = &task->gang,
                                         .to_port = job->port_names[i],
                                         .credits = plant || job->run->loops ? 2 : 1,
                                         .initial = plant || job->run->loops ? 1 : 0,
                                         .columns = (int64_t)bytes / 4,
                                         .dtype = TROUPE_INT32},
        NULL);
}

static troupe_status build(struct job *job, int rank_count) {
    const struct pattern *pattern = &job->run->pattern;
    int tasks = rows_of(job->run) * pattern->width;
    TROUPE_TRY(TROUPE_NEW(&job->tasks, tasks));
    TROUPE_TRY(TROUPE_NEW(&job->scratch, pattern->width));
    TROUPE_TRY(TROUPE_NEW(&job->classes, (TROUPE_PORTS_MAX + 1) * (TROUPE_PORTS_MAX + 1)));
    name_ports(job);
    TROUPE_TRY(fill_tasks(job));
    for (int i = 0; i < tasks; i++) {
        struct task *task = &job->tasks[i];
        if (pattern_has(pattern, task->step, task->point)) {
            TROUPE_TRY(spawn_task(job, task, rank_count));
        }
    }
    for (int t = 0; t < tasks; t++) {
        for (int i = 0; i < job->tasks[t].input_count; i++) {
            TROUPE_TRY(connect_input(job, &job->tasks[t], i));
        }
    }
    return troupe_runtime_start(job->runtime);
}

/* ---- the run ---- */

static troupe_status measure(struct job *job, double *samples) {
    int64_t step = 0;
    TROUPE_TRY(troupe_runtime_step(job->runtime, step++)); /* warms up */
    TROUPE_TRY(troupe_runtime_step(job->runtime, step++));
    for (int round = 0; round < BENCH_ROUNDS; round++) {
        uint64_t begin_ns = troupe_clock_ns();
        for (int i = 0; i < job->run->replays; i++) {
            if (job->run->trace != NULL) {
                troupe_trace_reset(job->run->trace);
            }
            TROUPE_TRY(troupe_runtime_step(job->runtime, step++));
        }
        samples[round] =
            troupe_clock_seconds(begin_ns, troupe_clock_ns()) / (double)job->run->replays;
    }
    return TROUPE_OK;
}

troupe_status bench_pattern_run(troupe_comm *comm, const struct bench_pattern *run,
                                double *samples) {
    struct job job = {.run = run};
    TROUPE_TRY(pattern_check(&run->pattern));
    if (run->loops && !pattern_repeats(&run->pattern)) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s has other dependencies in each step",
                           pattern_name(run->pattern.kind));
    }
    const struct troupe_runtime_options options = {.microbatches =
                                                       run->loops ? run->pattern.steps : 1,
                                                   .workers = run->workers,
                                                   .trace = run->trace};
    troupe_status status = troupe_runtime_create(comm, &options, &job.runtime);
    if (status == TROUPE_OK) {
        status = build(&job, troupe_comm_size(comm));
    }
    if (status == TROUPE_OK) {
        status = measure(&job, samples);
    }
    if (status != TROUPE_OK) {
        status = troupe_job_abort(comm, status);
    }
    troupe_runtime_destroy(job.runtime);
    troupe_free(job.tasks);
    troupe_free(job.scratch);
    troupe_free(job.classes);
    return status;
}

double bench_iteration_ns(void) {
    double best = 0;
    for (int round = 0; round < 2 * BENCH_ROUNDS; round++) {
        uint64_t begin_ns = troupe_clock_ns();
        pattern_work(CALIBRATION_ITERATIONS);
        double ns = troupe_clock_seconds(begin_ns, troupe_clock_ns()) * 1e9;
        best = round == 0 || ns < best ? ns : best;
    }
    return best / CALIBRATION_ITERATIONS;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct bench_figure bench_figure_of(const double *samples, int count) {
    double sorted[BENCH_ROUNDS];
    TROUPE_ASSERT(count >= 1 && count <= BENCH_ROUNDS, "%d samples", count);
    memcpy(sorted, samples, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, compare);
    return (struct bench_figure){
        .median = sorted[count / 2], .least = sorted[0], .most = sorted[count - 1]};
}
