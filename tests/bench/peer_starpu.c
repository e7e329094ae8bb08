/* SPDX-License-Identifier: Apache-2.0 */
/* StarPU on the patterns of `troupe bench`: tasks inserted with their data, dependencies inferred,
 * stamps checked in each, on 2 CPU workers.
 *
 *     bench.peer_starpu PATTERN WIDTH STEPS [ITERATIONS]
 *
 * prints the microseconds of the wall clock a task, median, least and most of 5 rounds. */
#include <starpu.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/troupe/pattern.h"
#include "runtime/clock.h"

enum { ROUNDS = 5, WORKERS = 2, INPUTS_MAX = STARPU_NMAXBUFS - 1 };

/* What a task is told: buffers are its inputs, then its output. */
struct arguments {
    int64_t step; /* from 1 */
    int64_t iterations;
    int point, input_count;
    int inputs[INPUTS_MAX];
};

static void run_task(void *buffers[], void *argument) {
    struct arguments a;
    memcpy(&a, argument, sizeof a);
    for (int i = 0; i < a.input_count; i++) {
        const struct pattern_stamp *stamp = (void *)STARPU_VARIABLE_GET_PTR(buffers[i]);
        if (stamp->step != a.step - 1 || stamp->point != a.inputs[i]) {
            fprintf(stderr, "point %d: wrong stamp\n", a.point);
            abort();
        }
    }
    if (a.iterations > 0) {
        pattern_work(a.iterations);
    }
    struct pattern_stamp *own = (void *)STARPU_VARIABLE_GET_PTR(buffers[a.input_count]);
    *own = (struct pattern_stamp){.step = a.step, .point = a.point};
}

static struct starpu_codelet codelet = {
    .cpu_funcs = {run_task}, .nbuffers = STARPU_VARIABLE_NBUFFERS, .name = "point"};

static void insert(const struct pattern *pattern, int64_t iterations, int64_t base, int t, int p,
                   starpu_data_handle_t *handles) {
    int inputs[PATTERN_WIDTH_MAX];
    struct starpu_data_descr data[STARPU_NMAXBUFS];
    int count = pattern_inputs(pattern, t, p, inputs);
    struct arguments *a = malloc(sizeof *a);
    *a = (struct arguments){
        .step = base + t, .iterations = iterations, .point = p, .input_count = count};
    if (count > INPUTS_MAX) {
        fprintf(stderr, "%d inputs, StarPU has %d\n", count, INPUTS_MAX);
        exit(1);
    }
    for (int i = 0; i < count; i++) {
        a->inputs[i] = inputs[i];
        data[i] =
            (struct starpu_data_descr){handles[(t + 1) % 2 * pattern->width + inputs[i]], STARPU_R};
    }
    data[count] = (struct starpu_data_descr){handles[t % 2 * pattern->width + p], STARPU_W};
    if (starpu_task_insert(&codelet, STARPU_DATA_MODE_ARRAY, data, count + 1, STARPU_CL_ARGS, a,
                           sizeof *a, 0) != 0) {
        exit(1);
    }
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    struct pattern pattern = {.kind = PATTERN_STENCIL_1D,
                              .width = argc > 2 ? atoi(argv[2]) : 16,
                              .steps = argc > 3 ? atoi(argv[3]) : 100};
    int64_t iterations = argc > 4 ? atoll(argv[4]) : 0;
    double rounds[ROUNDS];
    struct starpu_conf conf;
    starpu_conf_init(&conf);
    conf.ncpus = WORKERS;
    if ((argc > 1 && !pattern_find(argv[1], &pattern.kind)) ||
        pattern_check(&pattern) != TROUPE_OK || starpu_init(&conf) != 0) {
        return 1;
    }
    starpu_data_handle_t *handles = calloc((size_t)pattern.width * 2, sizeof *handles);
    struct pattern_stamp *stamps = calloc((size_t)pattern.width * 2, sizeof *stamps);
    for (int i = 0; i < 2 * pattern.width; i++) {
        starpu_variable_data_register(&handles[i], STARPU_MAIN_RAM, (uintptr_t)&stamps[i],
                                      sizeof stamps[i]);
    }
    for (int round = -1; round < ROUNDS; round++) { /* the first one warms up */
        uint64_t begin_ns = troupe_clock_ns();
        for (int t = 0; t < pattern.steps; t++) {
            for (int p = 0; p < pattern.width; p++) {
                if (pattern_has(&pattern, t, p)) {
                    insert(&pattern, iterations, 1, t, p, handles);
                }
            }
        }
        starpu_task_wait_for_all();
        if (round >= 0) {
            rounds[round] = troupe_clock_seconds(begin_ns, troupe_clock_ns()) * 1e6 /
                            pattern_task_count(&pattern);
        }
    }
    for (int i = 0; i < 2 * pattern.width; i++) {
        starpu_data_unregister(handles[i]);
    }
    starpu_shutdown();
    qsort(rounds, ROUNDS, sizeof *rounds, compare);
    printf("figure %g %g %g\n", rounds[ROUNDS / 2], rounds[0], rounds[ROUNDS - 1]);
    free(handles);
    free(stamps);
    return 0;
}
