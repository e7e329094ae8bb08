/* SPDX-License-Identifier: Apache-2.0 */
/* Two actors of one rank in two streams of a simulated device, whose tasks take a known time there
 * at least and next to nothing to launch. The trace has to end up with the device's times. */
#include "actors/job.h"
#include "actors/runtime.h"
#include "runtime/clock.h"
#include "runtime/device.h"
#include "runtime/device_sim.h"
#include "tests/test.h"

enum { ACTORS = 2, MICROBATCHES = 4, STEPS = 3, TASK_NS = 2000000 };

static troupe_status work(const void *payload) {
    uint64_t end_ns = troupe_clock_ns() + TASK_NS;
    (void)payload;
    while (troupe_clock_ns() < end_ns) {
    }
    return TROUPE_OK;
}

static troupe_status run(void *state, struct troupe_firing *firing) {
    int nothing = 0;
    (void)state;
    return troupe_sim_enqueue(firing->stream, work, &nothing, sizeof nothing);
}

static const struct troupe_actor_method methods[] = {{.name = "run", .run = run}};
static const struct troupe_actor_class worker_class = {
    .name = "worker", .methods = methods, .method_count = 1};

/* Tasks of one stream take what they take, and no two tasks of the rank share a moment. */
static void expect_times_of_device(const struct troupe_trace *trace, uint64_t step_ns,
                                   bool one_stream) {
    uint64_t free_ns = step_ns;
    EXPECT_EQ(trace->count % MICROBATCHES, 0);
    for (int i = 0; i < trace->count; i++) {
        const struct troupe_trace_event *event = &trace->events[i];
        EXPECT(event->begin_ns >= free_ns && event->end_ns >= event->begin_ns,
               "task %d from %lld to %lld ns, while its rank was busy", i,
               (long long)(event->begin_ns - free_ns), (long long)(event->end_ns - free_ns));
        EXPECT(!one_stream || event->end_ns - event->begin_ns >= TASK_NS, "task %d took %lld ns", i,
               (long long)(event->end_ns - event->begin_ns));
        EXPECT(!one_stream || event->index == i, "task %d is number %d", event->index, i);
        free_ns = event->end_ns;
    }
}

static void run_steps(troupe_runtime *runtime, troupe_stream **streams, struct troupe_trace *trace,
                      int actors) {
    for (int64_t step = 0; step < STEPS; step++) {
        uint64_t begin_ns = troupe_clock_ns();
        troupe_trace_reset(trace);
        EXPECT_OK(troupe_runtime_step(runtime, step));
        for (int i = 0; i < actors; i++) {
            EXPECT_OK(troupe_stream_synchronize(streams[i]));
        }
        EXPECT_OK(troupe_runtime_trace_device(runtime));
        EXPECT_EQ(trace->count, actors * MICROBATCHES);
        expect_times_of_device(trace, begin_ns, actors == 1);
    }
}

static troupe_status run_rank(void *arg, troupe_comm *comm) {
    const int *actors = arg;
    troupe_runtime *runtime = NULL;
    troupe_device *device = NULL;
    troupe_stream *streams[ACTORS] = {NULL};
    struct troupe_trace trace = {0};
    EXPECT_OK(
        troupe_device_open(TROUPE_DEVICE_SIM, &(struct troupe_device_options){.seed = 1}, &device));
    EXPECT_OK(troupe_trace_init(&trace, ACTORS * MICROBATCHES));
    EXPECT_OK(troupe_runtime_create(comm,
                                    &(struct troupe_runtime_options){.microbatches = MICROBATCHES,
                                                                     .host_may_wait = true,
                                                                     .trace = &trace},
                                    &runtime));
    for (int i = 0; i < *actors; i++) {
        EXPECT_OK(troupe_stream_create(device, &streams[i]));
        int gang = 0, rank = 0;
        EXPECT_OK(troupe_spawn(runtime,
                               &(struct troupe_spawn_options){.actor_class = &worker_class,
                                                              .name = i == 0 ? "a" : "b",
                                                              .ranks = &rank,
                                                              .rank_count = 1,
                                                              .stream = streams[i]},
                               &gang));
    }
    EXPECT_OK(troupe_runtime_start(runtime));
    run_steps(runtime, streams, &trace, *actors);
    troupe_runtime_destroy(runtime);
    for (int i = 0; i < *actors; i++) {
        troupe_stream_destroy(streams[i]);
    }
    troupe_trace_fini(&trace);
    troupe_device_close(device);
    return TROUPE_OK;
}

static void run_actors(int actors) {
    EXPECT_OK(troupe_job_run(&(struct troupe_job_options){.ranks = 1}, run_rank, &actors));
}

static void tasks_take_the_time_of_the_device(void) {
    run_actors(1);
}

static void tasks_side_by_side_are_told_apart(void) {
    run_actors(2);
}

int main(void) {
    TEST(tasks_take_the_time_of_the_device);
    TEST(tasks_side_by_side_are_told_apart);
    return TEST_END();
}
