/* SPDX-License-Identifier: Apache-2.0
 *
 * What tests of communication between devices share: a job of threads or processes, each rank with
 * a device and a stream.
 *
 *     program loopback RANKS cpu|sim ENGINE [MODE]        ranks are threads
 *     program PROVIDER cpu|sim|cuda ENGINE [MODE]         ranks are processes, under mpiexec
 *
 * Where there is no such device every rank ends with status 77. A watchdog ends a test that hangs.
 */
#ifndef TROUPE_TESTS_DIST_DEVICE_JOB_H
#define TROUPE_TESTS_DIST_DEVICE_JOB_H

#include <pthread.h>
#include <unistd.h>

#include "comm/group_stream.h"
#include "runtime/device.h"
#include "runtime/memory.h"
#include "runtime/random.h"
#include "tests/test.h"

enum { JOB_WORLD_ID = 1, JOB_BYTES_MAX = 8 << 20, JOB_LIMIT_S = 100 };

struct device_job {
    troupe_comm *comm;
    troupe_group *world; /* not opened on the device; at most JOB_BYTES_MAX */
    troupe_device *device;
    troupe_stream *stream;
    enum troupe_device_kind kind;
    const char *engine;
    const char *mode; /* "" if none is given */
    uint64_t seed;    /* rank 0's */
    int rank, size;
    void *arg;
};

typedef void (*device_job_body)(struct device_job *job);

static inline void job_step(struct device_job *job) {
    if (troupe_comm_progress(job->comm) == 0) {
        troupe_comm_idle(job->comm);
    }
    EXPECT_OK(troupe_comm_failure(job->comm));
}

/* Until the work of `stream` so far is done, progress going on. */
static inline void job_finish(struct device_job *job, troupe_stream *stream) {
    troupe_event *event = NULL;
    troupe_status status = TROUPE_AGAIN;
    EXPECT_OK(troupe_event_create(job->device, &event));
    EXPECT_OK(troupe_event_record(event, stream));
    while ((status = troupe_event_query(event)) == TROUPE_AGAIN) {
        job_step(job);
    }
    EXPECT_OK(status);
    troupe_event_destroy(event);
}

static inline void *job_alloc(struct device_job *job, size_t bytes) {
    void *memory = NULL;
    EXPECT_OK(troupe_device_alloc(job->device, bytes, &memory));
    return memory;
}

static inline void *job_alloc_host(size_t bytes) {
    char *memory = NULL;
    EXPECT_OK(TROUPE_NEW(&memory, bytes));
    return memory;
}

/* Either way between host and device; done when it returns. */
static inline void job_copy(struct device_job *job, void *to, const void *from, size_t bytes) {
    struct troupe_copy copy = {.to = to, .from = from, .rows = 1, .row_bytes = bytes};
    EXPECT_OK(troupe_stream_copy(job->stream, &copy));
    EXPECT_OK(troupe_stream_synchronize(job->stream));
}

static inline troupe_group *job_group(struct device_job *job, const int *ranks, int count,
                                      uint32_t id, size_t bytes_max) {
    troupe_group *group = NULL;
    struct troupe_group_options options = {
        .ranks = ranks, .count = count, .id = id, .bytes_max = bytes_max};
    EXPECT_OK(troupe_group_create(job->comm, &options, &group));
    return group;
}

static inline void job_run(struct device_job *job, device_job_body body) {
    struct troupe_device_options options = {.delay_ns_max = 20000};
    job->rank = troupe_comm_rank(job->comm);
    job->size = troupe_comm_size(job->comm);
    job->world = job_group(job, NULL, 0, JOB_WORLD_ID, JOB_BYTES_MAX);
    EXPECT_OK(troupe_group_broadcast(job->world, 0, &job->seed, sizeof job->seed));
    options.seed = job->seed + (uint64_t)job->rank;
    if (job->kind == TROUPE_DEVICE_CUDA) { /* ranks take the GPUs in turn, or share one */
        options.index = job->rank % troupe_device_count(job->kind);
    }
    EXPECT_OK(troupe_device_open(job->kind, &options, &job->device));
    EXPECT_OK(troupe_stream_create(job->device, &job->stream));
    body(job);
    troupe_group_destroy(job->world);
    troupe_stream_destroy(job->stream);
    troupe_device_close(job->device);
    troupe_comm_close(job->comm);
}

struct job_thread {
    struct device_job job;
    device_job_body body;
    pthread_t thread;
};

static inline void *job_thread_main(void *arg) {
    struct job_thread *thread = arg;
    job_run(&thread->job, thread->body);
    return NULL;
}

static inline void job_run_threads(const struct device_job *job, int ranks, device_job_body body) {
    struct job_thread *threads = NULL;
    troupe_loopback *world = NULL;
    EXPECT_OK(troupe_loopback_create(
        &(struct troupe_loopback_options){.ranks = ranks, .seed = job->seed, .delay_ns_max = 20000},
        &world));
    EXPECT_OK(TROUPE_NEW(&threads, ranks));
    for (int r = 0; r < ranks; r++) {
        threads[r] = (struct job_thread){.job = *job, .body = body};
        EXPECT_OK(troupe_comm_open_loopback(world, r, &threads[r].job.comm));
    }
    for (int r = 0; r < ranks; r++) {
        EXPECT_EQ(pthread_create(&threads[r].thread, NULL, job_thread_main, &threads[r]), 0);
    }
    for (int r = 0; r < ranks; r++) {
        pthread_join(threads[r].thread, NULL);
    }
    troupe_free(threads);
    troupe_loopback_destroy(world);
}

static inline enum troupe_device_kind job_kind(const char *name) {
    static const enum troupe_device_kind kinds[] = {TROUPE_DEVICE_CPU, TROUPE_DEVICE_SIM,
                                                    TROUPE_DEVICE_CUDA};
    for (int k = 0; k < 3; k++) {
        if (strcmp(name, troupe_device_kind_name(kinds[k])) == 0) {
            return kinds[k];
        }
    }
    TEST_FAIL("there is no device %s", name);
}

static inline int device_job_main(int argc, char **argv, device_job_body body) {
    bool threads = argc > 1 && strcmp(argv[1], "loopback") == 0;
    int first = threads ? 3 : 2;
    EXPECT(argc == first + 2 || argc == first + 3,
           "usage: loopback RANKS DEVICE ENGINE [MODE], or PROVIDER DEVICE ENGINE [MODE]");
    const char *device = argv[first];
    struct device_job job = {.kind = job_kind(device),
                             .engine = argv[first + 1],
                             .mode = argc > first + 2 ? argv[first + 2] : ""};
    if (troupe_device_count(job.kind) == 0) {
        printf("skipped: there is no device of kind %s here\n", device);
        return TEST_SKIPPED;
    }
    alarm(JOB_LIMIT_S);
    job.seed = test_seed();
    if (threads) {
        job_run_threads(&job, atoi(argv[2]), body);
        return 0;
    }
    EXPECT_OK(troupe_comm_open(&(struct troupe_comm_options){.provider = argv[1]}, &job.comm));
    job_run(&job, body);
    return 0;
}

/* As TEST, on every rank; rank 0 prints. */
#define JOB_TEST(job, claim)                                                                       \
    do {                                                                                           \
        if ((job)->rank == 0) {                                                                    \
            printf("  %s\n", #claim);                                                              \
            fflush(stdout);                                                                        \
        }                                                                                          \
        EXPECT_OK(troupe_group_barrier((job)->world));                                             \
        claim(job);                                                                                \
    } while (0)

#endif
