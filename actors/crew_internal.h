/* SPDX-License-Identifier: Apache-2.0
 *
 * A crew: the worker threads that fire the actors of a rank straight from counters, without
 * tickets. Each actor belongs to one worker at a time, who alone touches its counters, so firing
 * needs no lock and no atomic addition: what concerns another worker's actor is sent there through
 * a ring of one producer and one consumer.
 *
 *     TROUPE_TRY(troupe_crew_create(runtime, &crew));      (after the graph and the actors are
 * made) TROUPE_TRY(troupe_crew_step(crew, step));            (for each step; the caller is worker
 * 0)
 *
 * A task (a method of an actor) has gates, one for each thing that a firing takes: a message on an
 * input, room on an output, a slot, an earlier method. It is ready while all are open. A firing
 * closes one unit of each of its gates and opens one at those of the tasks it gives to. All
 * counters are back where they began at the end of a step, so a step is replayed as it is.
 *
 * An idle worker asks another for work. That one hands a ready actor over between two tasks, with
 * its counters, through the queue: events that come later follow it through the same one. See
 * Acar, Charguéraud, Rainey, Scheduling parallel programs by work stealing with private deques,
 * PPoPP 2013.
 *
 * Ownership: the runtime's. Threads: create, step and destroy by the rank's own; methods run in any
 * worker, those of one actor one at a time. Failure: create ERROR_INVALID for what a crew cannot
 * run; step returns the first failure of a method, with its sentence. Nothing allocates in a step.
 */
#ifndef TROUPE_ACTORS_CREW_INTERNAL_H
#define TROUPE_ACTORS_CREW_INTERNAL_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "actors/runtime_internal.h"
#include "runtime/clock.h"
#include "runtime/eventcount.h"
#include "runtime/memory.h"
#include "runtime/spsc.h"

struct crew_task;

/* One thing that each firing of a task takes. Touched only by the worker that keeps the task. */
struct crew_gate {
    struct crew_task *task;
    int64_t open; /* units that are there; the gate is open above 0 */
};

/* Who keeps an actor: the index of the worker, and above bit 16 that of the next one: another while
 * the actor is on its way there. Others read it to address their events. */
struct crew_actor {
    atomic_uint_least32_t place;
    int task_count;
    struct crew_task *tasks;
    void *state;
    const char *name;
};

struct crew_give {
    struct crew_gate *gate;
    struct crew_actor *actor; /* that takes */
};

/* The messages of a port: a tensor's data go round in them. */
struct crew_window {
    struct troupe_tensor *tensor;
    char *memory;
    size_t bytes; /* of a message */
    int count, next;
};

struct crew_task {
    _Alignas(TROUPE_CACHE_LINE) int missing; /* gates that are closed */
    bool queued;
    int gate_count, give_count, window_count;
    int index; /* of the method in the task graph */
    int slots;
    int64_t fired; /* in all steps */
    struct crew_gate *gates;
    struct crew_give *gives;
    struct crew_window *windows; /* ports with one message need none */
    const struct troupe_actor_method *method;
    struct crew_actor *actor;
    struct troupe_firing firing; /* of the next firing */
};

struct crew_worker {
    struct troupe_crew *crew;
    int index;
    uint_least32_t home; /* the place of its actors */
    uint32_t epoch;      /* steps begun here */
    uint32_t ready_begin, ready_end;
    struct crew_task **ready; /* a ring */
    int64_t fired;            /* not yet reported */
    /* With a trace: when the latest task ended, and where events go: a block of the trace. */
    uint64_t clock_ns;
    struct troupe_trace_event *trace_next, *trace_end;
    int64_t trace_dropped;
    struct troupe_spsc *outgoing; /* by receiver */
    uint64_t told;                /* bit i: worker i has something new and may have to be woken */
    struct crew_worker *asked;    /* for work; NULL: nobody */
    int turn;                     /* the latest asked */
    pthread_t thread;
    _Alignas(TROUPE_CACHE_LINE) atomic_bool asleep; /* or about to be: wants to be woken */
    struct troupe_eventcount wake;
    _Alignas(TROUPE_CACHE_LINE) atomic_int asker; /* the worker that wants work, from 1; 0: none */
};

struct troupe_crew {
    troupe_runtime *runtime;
    struct troupe_trace *trace; /* NULL: none */
    struct troupe_counter counter;
    int worker_count, thread_count, microbatches;
    cpu_set_t cores;     /* that the caller may use */
    bool sleeper_fences; /* see fence_before_wake */
    uint64_t spin_ns;
    uint32_t ready_mask; /* the rings of ready tasks hold one more */
    int64_t step;
    struct crew_actor *actors;
    struct crew_task *tasks;
    int task_count, gate_total, starter_count;
    struct crew_task **starters;
    struct crew_gate *gates;
    struct crew_give *gives;
    struct crew_window *windows;
    char *memory;
    struct crew_worker *workers;
    char failure_text[1024];
    atomic_bool failing;                                  /* a worker writes the failure */
    atomic_int failure;                                   /* troupe_status */
    _Alignas(TROUPE_CACHE_LINE) atomic_int trace_claimed; /* events of the trace, in blocks */
    /* Written once a step. */
    _Alignas(TROUPE_CACHE_LINE) atomic_uint_least32_t epoch;
    atomic_bool stopping;
    atomic_int_least64_t limit; /* firings of each task, of all steps begun */
    _Alignas(TROUPE_CACHE_LINE) atomic_int_least64_t remaining; /* firings of the step */
};

/* ---- crew_make.c ---- */

troupe_status troupe_crew_create(troupe_runtime *runtime, struct troupe_crew **out);
/* Accepts NULL and half-built ones. */
void troupe_crew_destroy(struct troupe_crew *crew);

/* ---- crew.c ---- */

troupe_status troupe_crew_start(struct troupe_crew *crew);
troupe_status troupe_crew_step(struct troupe_crew *crew, int64_t step);
/* Ends the threads; the crew cannot start again. */
void troupe_crew_stop(struct troupe_crew *crew);

static inline uint_least32_t crew_place(int keeper, int next) {
    return (uint_least32_t)keeper | (uint_least32_t)next << 16;
}

#endif
