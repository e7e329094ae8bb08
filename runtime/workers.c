/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/workers.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/eventcount.h"
#include "runtime/memory.h"

enum { COUNT_MAX = 1024, SPIN_NS_DEFAULT = 50000 };

/* The gate's top bit: a job is open for workers. The rest counts the workers inside. A worker that
 * wakes late finds the gate closed and touches nothing; the caller waits only for those inside. */
static const uint32_t gate_open = UINT32_C(1) << 31;

struct job {
    void (*body)(void *arg, int64_t part);
    void *arg;
    int64_t parts;
};

struct troupe_workers {
    int count; /* the caller included */
    uint64_t spin_ns;
    struct job job; /* written while the gate is closed and nobody is inside */
    struct troupe_eventcount begin;
    struct troupe_eventcount end;
    _Alignas(TROUPE_CACHE_LINE) atomic_int_fast64_t next_part;
    _Alignas(TROUPE_CACHE_LINE) atomic_uint_fast32_t gate;
    atomic_bool stopping;
    int thread_count; /* started so far: count-1 once created */
    pthread_t *threads;
};

static _Thread_local bool inside_run; /* a nested run is serial */

static void run_parts(struct troupe_workers *w) {
    struct job job = w->job;
    inside_run = true;
    for (;;) {
        /* relaxed: it only hands out numbers; the gate orders the data */
        int64_t part = atomic_fetch_add_explicit(&w->next_part, 1, memory_order_relaxed);
        if (part >= job.parts) {
            break;
        }
        job.body(job.arg, part);
    }
    inside_run = false;
}

static bool enter(struct troupe_workers *w) {
    uint_fast32_t gate = atomic_load_explicit(&w->gate, memory_order_relaxed);
    while ((gate & gate_open) != 0) {
        /* acquire: pairs with the release that opens the gate, makes the job visible */
        if (atomic_compare_exchange_weak_explicit(&w->gate, &gate, gate + 1, memory_order_acquire,
                                                  memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

static void leave(struct troupe_workers *w) {
    /* release: publishes this worker's parts; pairs with the acquire in wait_until_empty */
    if (atomic_fetch_sub_explicit(&w->gate, 1, memory_order_acq_rel) == 1) {
        troupe_eventcount_notify(&w->end);
    }
}

static void *worker_main(void *arg) {
    struct troupe_workers *w = arg;
    const struct troupe_wait_limits limits = {.spin_ns = w->spin_ns};
    while (!atomic_load_explicit(&w->stopping, memory_order_acquire)) {
        uint32_t key = troupe_eventcount_key(&w->begin);
        if (enter(w)) {
            run_parts(w);
            leave(w);
        }
        /* destroy sets `stopping` before it notifies: look between key and wait */
        if (!atomic_load_explicit(&w->stopping, memory_order_acquire)) {
            troupe_eventcount_wait(&w->begin, key, &limits);
        }
    }
    return NULL;
}

static void wait_until_empty(struct troupe_workers *w) {
    const struct troupe_wait_limits limits = {.spin_ns = w->spin_ns};
    for (;;) {
        uint32_t key = troupe_eventcount_key(&w->end);
        /* acquire: pairs with the release in leave, makes the results visible */
        if (atomic_load_explicit(&w->gate, memory_order_acquire) == 0) {
            return;
        }
        troupe_eventcount_wait(&w->end, key, &limits);
    }
}

/* Cores that this thread, and the workers it starts, may run on. */
static int allowed_core_count(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static uint64_t spin_budget(const struct troupe_workers_options *options, int count) {
    if (options->spin_ns != 0) {
        return options->spin_ns > 0 ? (uint64_t)options->spin_ns : 0;
    }
    return count <= allowed_core_count() ? SPIN_NS_DEFAULT : 0;
}

static troupe_status start_worker(struct troupe_workers *w, int core) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    if (core >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)core, &set);
        pthread_attr_setaffinity_np(&attributes, sizeof set, &set);
    }
    int error = pthread_create(&w->threads[w->thread_count], &attributes, worker_main, w);
    pthread_attr_destroy(&attributes);
    if (error != 0) {
        return troupe_fail(error == EINVAL ? TROUPE_ERROR_INVALID : TROUPE_ERROR_MEMORY,
                           "worker %d on core %d cannot start: %s", w->thread_count + 1, core,
                           strerror(error));
    }
    w->thread_count++;
    return TROUPE_OK;
}

troupe_status troupe_workers_create(const struct troupe_workers_options *options,
                                    troupe_workers **out) {
    int count = options->count > 0 ? options->count : 1;
    if (options->count < 0 || count > COUNT_MAX) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%d workers; 1 to %d are possible", options->count,
                           COUNT_MAX);
    }
    troupe_workers *w = NULL;
    TROUPE_TRY(TROUPE_NEW(&w, 1));
    w->count = count;
    w->spin_ns = spin_budget(options, count);
    troupe_status status = TROUPE_OK;
    TROUPE_TRY_FAIL(TROUPE_NEW(&w->threads, count));
    for (int i = 1; i < count; i++) {
        TROUPE_TRY_FAIL(start_worker(w, options->cores != NULL ? options->cores[i] : -1));
    }
    *out = w;
    return TROUPE_OK;
fail:
    troupe_workers_destroy(w);
    return status;
}

void troupe_workers_destroy(troupe_workers *workers) {
    if (workers == NULL) {
        return;
    }
    /* release: pairs with the acquire in worker_main */
    atomic_store_explicit(&workers->stopping, true, memory_order_release);
    troupe_eventcount_notify(&workers->begin);
    for (int i = 0; i < workers->thread_count; i++) {
        pthread_join(workers->threads[i], NULL);
    }
    troupe_free(workers->threads);
    troupe_free(workers);
}

int troupe_workers_count(const troupe_workers *workers) {
    return workers != NULL ? workers->count : 1;
}

static void run_serially(int64_t parts, void (*body)(void *arg, int64_t part), void *arg) {
    for (int64_t part = 0; part < parts; part++) {
        body(arg, part);
    }
}

void troupe_workers_run(troupe_workers *workers, int64_t parts,
                        void (*body)(void *arg, int64_t part), void *arg) {
    TROUPE_ASSERT(parts >= 0, "%lld parts", (long long)parts);
    if (workers == NULL || workers->count == 1 || parts <= 1 || inside_run) {
        run_serially(parts, body, arg);
        return;
    }
    workers->job = (struct job){.body = body, .arg = arg, .parts = parts};
    atomic_store_explicit(&workers->next_part, 0, memory_order_relaxed);
    /* release: publishes the job; pairs with the acquire in enter */
    atomic_store_explicit(&workers->gate, gate_open, memory_order_release);
    troupe_eventcount_notify(&workers->begin);
    run_parts(workers);
    atomic_fetch_and_explicit(&workers->gate, ~gate_open, memory_order_acq_rel);
    wait_until_empty(workers);
}
