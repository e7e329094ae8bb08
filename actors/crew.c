/* SPDX-License-Identifier: Apache-2.0 */
/* The workers of a crew: gates, events between workers, handing over of actors, waiting. */
#include "actors/crew_internal.h"

#include <ck_pr.h>
#include <inttypes.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/clock.h"

enum {
    FIRINGS_PER_POLL = 4, /* a busy worker looks into its rings so often */
    LOOKS_PER_CLOCK = 64,
    TRACE_BLOCK = 16,
    READY_LEAST = 2, /* who has fewer ready tasks keeps them */
};

/* An idle worker asks for work after this: hand-offs of small tasks take less, and an actor that
 * moves leaves its data in the other core's cache. */
static const uint64_t ask_after_ns = 2000;

/* ---- who keeps a task ---- */

static int keeper_of(uint_least32_t place) {
    return (int)(place & 0xffff);
}

static int next_keeper_of(uint_least32_t place) {
    return (int)(place >> 16);
}

/* ---- ready tasks, oldest first ---- */

static bool may_fire(const struct crew_worker *w, const struct crew_task *task) {
    /* relaxed: who made the task ready, or this step's beginning, has published the limit */
    return task->missing == 0 && !task->queued &&
           task->fired < atomic_load_explicit(&w->crew->limit, memory_order_relaxed);
}

static void queue_if_ready(struct crew_worker *w, struct crew_task *task) {
    if (may_fire(w, task)) {
        task->queued = true;
        w->ready[w->ready_end++ & w->crew->ready_mask] = task;
    }
}

static uint32_t ready_count(const struct crew_worker *w) {
    return w->ready_end - w->ready_begin;
}

/* ---- events ---- */

static void open_gate(struct crew_worker *w, struct crew_gate *gate) {
    if (gate->open++ == 0 && --gate->task->missing == 0) {
        queue_if_ready(w, gate->task);
    }
}

static void wake(struct crew_worker *w) {
    if (atomic_load_explicit(&w->asleep, memory_order_relaxed)) {
        troupe_eventcount_notify(&w->wake);
    }
}

static void send(struct crew_worker *w, int to, void *object) {
    bool pushed = troupe_spsc_push(&w->outgoing[to], object);
    TROUPE_ASSERT(pushed, "the queue from worker %d to %d is full", w->index, to);
    w->told |= UINT64_C(1) << to;
}

/* Between what a worker publishes and its look whether another sleeps. A fence here would wait for
 * the other core's cache, so where the system can, who goes to sleep puts it into all others. */
static void fence_before_wake(const struct troupe_crew *crew) {
    if (crew->sleeper_fences) {
        atomic_signal_fence(memory_order_seq_cst);
    } else {
        ck_pr_fence_memory();
    }
}

static void fence_before_sleep(const struct troupe_crew *crew) {
    if (!crew->sleeper_fences ||
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0) {
        ck_pr_fence_memory();
    }
}

/* After sends: either the other one sees them before it sleeps, or we see that it sleeps. */
static void wake_told(struct crew_worker *w) {
    if (w->told == 0) {
        return;
    }
    fence_before_wake(w->crew);
    for (; w->told != 0; w->told &= w->told - 1) {
        wake(&w->crew->workers[__builtin_ctzll(w->told)]);
    }
}

/* One unit more at the gate, wherever its task is. */
static void give(struct crew_worker *w, const struct crew_actor *actor, struct crew_gate *gate) {
    uint_least32_t place = atomic_load_explicit(&actor->place, memory_order_relaxed);
    if (place == w->home) {
        open_gate(w, gate);
    } else if (keeper_of(place) == w->index) {
        send(w, next_keeper_of(place), gate); /* behind the task that we have handed over */
    } else {
        send(w, keeper_of(place), gate);
    }
}

/* ---- handing over: the object in the ring is an actor, marked by its lowest bit ---- */

static bool is_movable(const struct crew_actor *actor, const struct crew_task *ready) {
    for (int i = 0; i < actor->task_count; i++) {
        if (actor->tasks[i].queued && &actor->tasks[i] != ready) {
            return false;
        }
    }
    return true;
}

static void hand_over(struct crew_worker *w, int to) {
    struct crew_task *task = w->ready[w->ready_begin & w->crew->ready_mask];
    struct crew_actor *actor = task->actor;
    if (!is_movable(actor, task)) {
        return;
    }
    w->ready_begin++;
    task->queued = false;
    /* relaxed: the place carries nothing; the ring orders what is handed over */
    atomic_store_explicit(&actor->place, crew_place(w->index, to), memory_order_relaxed);
    send(w, to, (char *)actor + 1);
    wake_told(w);
}

static void take_over(struct crew_worker *w, struct crew_actor *actor) {
    atomic_store_explicit(&actor->place, w->home, memory_order_relaxed);
    for (int i = 0; i < actor->task_count; i++) {
        queue_if_ready(w, &actor->tasks[i]);
    }
}

static void answer_request(struct crew_worker *w) {
    int asker = atomic_load_explicit(&w->asker, memory_order_relaxed);
    if (__builtin_expect(asker != 0, 0) && ready_count(w) >= READY_LEAST) {
        /* relaxed: it carries nothing; the ring orders what is handed over */
        if (atomic_compare_exchange_strong_explicit(&w->asker, &asker, 0, memory_order_relaxed,
                                                    memory_order_relaxed)) {
            hand_over(w, asker - 1);
        }
    }
}

static void withdraw_request(struct crew_worker *w) {
    if (w->asked != NULL) {
        int mine = w->index + 1;
        atomic_compare_exchange_strong_explicit(&w->asked->asker, &mine, 0, memory_order_relaxed,
                                                memory_order_relaxed);
        w->asked = NULL;
    }
}

/* Asks the next one in turn. */
static void ask(struct crew_worker *w) {
    struct troupe_crew *crew = w->crew;
    withdraw_request(w);
    w->turn = (w->turn + 1) % crew->worker_count;
    if (w->turn != w->index) {
        int nobody = 0;
        struct crew_worker *other = &crew->workers[w->turn];
        if (atomic_compare_exchange_strong_explicit(&other->asker, &nobody, w->index + 1,
                                                    memory_order_relaxed, memory_order_relaxed)) {
            w->asked = other;
        }
    }
}

/* Takes what the others have sent. */
static void poll(struct crew_worker *w) {
    for (int i = 0; i < w->crew->worker_count; i++) {
        if (i == w->index) {
            continue;
        }
        struct troupe_spsc *queue = &w->crew->workers[i].outgoing[w->index];
        for (char *object; (object = troupe_spsc_pop(queue)) != NULL;) {
            if (((uintptr_t)object & 1) != 0) {
                take_over(w, (struct crew_actor *)(object - 1));
            } else {
                struct crew_gate *gate = (struct crew_gate *)object;
                give(w, gate->task->actor, gate);
            }
        }
    }
    wake_told(w);
}

/* ---- firing ---- */

static void keep_failure(struct crew_worker *w, const struct crew_task *task,
                         troupe_status status) {
    struct troupe_crew *crew = w->crew;
    bool first = false;
    if (atomic_compare_exchange_strong(&crew->failing, &first, true)) {
        const struct troupe_firing *firing = &task->firing;
        troupe_fail_in(status, "%s %s, microbatch %d of step %" PRId64 ", worker %d",
                       task->actor->name, task->method->name, firing->microbatch, firing->step,
                       w->index);
        snprintf(crew->failure_text, sizeof crew->failure_text, "%s", troupe_last_error());
        /* release: publishes the sentence; pairs with the acquire in work */
        atomic_store_explicit(&crew->failure, status, memory_order_release);
    }
    for (int i = 0; i < crew->worker_count; i++) {
        troupe_eventcount_notify(&crew->workers[i].wake);
    }
}

static void advance_windows(struct crew_task *task) {
    for (int i = 0; i < task->window_count; i++) {
        struct crew_window *window = &task->windows[i];
        window->next = window->next + 1 == window->count ? 0 : window->next + 1;
        window->tensor->data = window->memory + window->bytes * (size_t)window->next;
    }
}

static void advance_firing(const struct troupe_crew *crew, struct crew_task *task) {
    struct troupe_firing *firing = &task->firing;
    task->fired++;
    if (++firing->microbatch == crew->microbatches) {
        firing->microbatch = 0;
        firing->step++;
    }
    if (task->slots > 0) {
        firing->slot = firing->slot + 1 == task->slots ? 0 : firing->slot + 1;
    }
}

/* Room for events in the trace, in blocks so that workers seldom meet; towards its end one by one,
 * so that none is lost while there is room. */
static bool claim_trace(struct crew_worker *w) {
    struct troupe_crew *crew = w->crew;
    int claimed = atomic_load_explicit(&crew->trace_claimed, memory_order_relaxed), block;
    do {
        int room = crew->trace->capacity - claimed;
        block = room > TRACE_BLOCK * crew->worker_count ? TRACE_BLOCK : 1;
        if (room == 0) {
            return false;
        }
        /* relaxed: it only hands out places; the end of the step orders the events */
    } while (!atomic_compare_exchange_weak_explicit(&crew->trace_claimed, &claimed, claimed + block,
                                                    memory_order_relaxed, memory_order_relaxed));
    w->trace_next = &crew->trace->events[claimed];
    w->trace_end = w->trace_next + block;
    return true;
}

static void trace(struct crew_worker *w, const struct crew_task *task) {
    uint64_t begin_ns = w->clock_ns;
    w->clock_ns = troupe_counter_ns(&w->crew->counter);
    if (w->trace_next == w->trace_end && !claim_trace(w)) {
        w->trace_dropped++;
        return;
    }
    *w->trace_next++ = (struct troupe_trace_event){.what = task->index,
                                                   .index = task->firing.microbatch,
                                                   .begin_ns = begin_ns,
                                                   .end_ns = w->clock_ns};
}

static void fire(struct crew_worker *w, struct crew_task *task) {
    troupe_status status = task->method->run(task->actor->state, &task->firing);
    if (__builtin_expect(status != TROUPE_OK, 0)) {
        keep_failure(w, task, status);
        return;
    }
    if (w->crew->trace != NULL) {
        trace(w, task);
    }
    task->queued = false;
    advance_windows(task);
    advance_firing(w->crew, task);
    for (int i = 0; i < task->gate_count; i++) {
        task->missing += --task->gates[i].open == 0;
    }
    for (int i = 0; i < task->give_count; i++) {
        give(w, task->gives[i].actor, task->gives[i].gate);
    }
    wake_told(w);
    queue_if_ready(w, task);
    w->fired++;
}

static bool is_failed(const struct troupe_crew *crew) {
    return atomic_load_explicit(&crew->failure, memory_order_acquire) != TROUPE_OK;
}

static void run_ready_tasks(struct crew_worker *w) {
    int until_poll = FIRINGS_PER_POLL;
    if (w->crew->trace != NULL && ready_count(w) > 0) {
        w->clock_ns = troupe_counter_ns(&w->crew->counter);
    }
    while (w->ready_begin != w->ready_end) {
        struct crew_task *task = w->ready[w->ready_begin++ & w->crew->ready_mask];
        fire(w, task);
        answer_request(w);
        if (--until_poll == 0) {
            until_poll = FIRINGS_PER_POLL;
            poll(w);
            if (is_failed(w->crew)) {
                return;
            }
        }
    }
}

/* ---- waiting ---- */

/* Adds what this worker has fired to the step; the last one tells the caller. */
static void report_fired(struct crew_worker *w) {
    if (w->fired == 0) {
        return;
    }
    int64_t fired = w->fired;
    w->fired = 0;
    /* acq_rel: what the tasks wrote is published to who begins the next step */
    if (atomic_fetch_sub_explicit(&w->crew->remaining, fired, memory_order_acq_rel) == fired) {
        troupe_eventcount_notify(&w->crew->workers[0].wake);
    }
}

static bool hears_something(const struct crew_worker *w) {
    const struct troupe_crew *crew = w->crew;
    for (int i = 0; i < crew->worker_count; i++) {
        if (i != w->index && !troupe_spsc_is_empty(&crew->workers[i].outgoing[w->index])) {
            return true;
        }
    }
    return atomic_load_explicit(&crew->epoch, memory_order_acquire) != w->epoch ||
           is_failed(crew) ||
           (w->index == 0 && atomic_load_explicit(&crew->remaining, memory_order_acquire) == 0);
}

static void sleep_until_woken(struct crew_worker *w) {
    const struct troupe_crew *crew = w->crew;
    uint32_t key = troupe_eventcount_key(&w->wake);
    atomic_store_explicit(&w->asleep, true, memory_order_relaxed);
    fence_before_sleep(crew); /* pairs with the one in wake_told */
    if (!hears_something(w)) {
        troupe_eventcount_wait(&w->wake, key, &(struct troupe_wait_limits){0});
    }
    atomic_store_explicit(&w->asleep, false, memory_order_relaxed);
}

/* Spins for the budget, asking the others in turn, then sleeps. */
static void wait_for_events(struct crew_worker *w) {
    struct troupe_crew *crew = w->crew;
    uint64_t begin_ns = 0, asked_ns = 0;
    for (int looks = 1; !hears_something(w); looks++) {
        troupe_cpu_relax();
        if (looks % LOOKS_PER_CLOCK != 0 && crew->spin_ns > 0) {
            continue;
        }
        uint64_t now_ns = troupe_clock_ns();
        begin_ns = begin_ns == 0 ? now_ns : begin_ns;
        asked_ns = asked_ns == 0 ? now_ns : asked_ns;
        bool busy = atomic_load_explicit(&crew->remaining, memory_order_relaxed) > 0;
        if (busy && now_ns - asked_ns >= ask_after_ns) {
            ask(w);
            asked_ns = now_ns;
        }
        if (now_ns - begin_ns >= crew->spin_ns) {
            if (busy && w->asked == NULL) {
                ask(w); /* who has work answers while we sleep */
            }
            sleep_until_woken(w);
            begin_ns = asked_ns = 0;
        }
    }
    withdraw_request(w);
}

static void begin_epoch(struct crew_worker *w, uint32_t epoch) {
    struct troupe_crew *crew = w->crew;
    w->epoch = epoch;
    for (int i = 0; i < crew->starter_count; i++) {
        struct crew_task *task = crew->starters[i];
        if (atomic_load_explicit(&task->actor->place, memory_order_relaxed) == w->home) {
            queue_if_ready(w, task);
        }
    }
}

/* Until the step is over (worker 0) or the crew ends (the others). */
static void work(struct crew_worker *w) {
    struct troupe_crew *crew = w->crew;
    for (;;) {
        /* acquire: pairs with the release in troupe_crew_step and in destroy */
        uint32_t epoch = atomic_load_explicit(&crew->epoch, memory_order_acquire);
        if (atomic_load_explicit(&crew->stopping, memory_order_relaxed) || is_failed(crew)) {
            return;
        }
        if (epoch != w->epoch) {
            begin_epoch(w, epoch);
        }
        poll(w);
        run_ready_tasks(w);
        report_fired(w);
        if (w->index == 0 && atomic_load_explicit(&crew->remaining, memory_order_acquire) == 0) {
            return;
        }
        wait_for_events(w);
    }
}

static void *worker_main(void *arg) {
    work(arg);
    return NULL;
}

/* ---- steps ---- */

static void open_trace(struct troupe_crew *crew) {
    if (crew->trace != NULL) {
        troupe_counter_adjust(&crew->counter);
        atomic_store_explicit(&crew->trace_claimed, crew->trace->count, memory_order_relaxed);
    }
}

/* Events of the end go where blocks were not filled. */
static void close_trace(struct troupe_crew *crew) {
    struct troupe_trace *all = crew->trace;
    if (all == NULL) {
        return;
    }
    struct troupe_trace_event *end =
        all->events + atomic_load_explicit(&crew->trace_claimed, memory_order_relaxed);
    for (int i = 0; i < crew->worker_count; i++) {
        struct crew_worker *w = &crew->workers[i];
        while (w->trace_next != w->trace_end) {
            struct crew_worker *last = crew->workers; /* whose block is at the end, unfilled */
            while (last != crew->workers + crew->worker_count &&
                   (last->trace_next == last->trace_end || last->trace_end != end)) {
                last++;
            }
            end--;
            if (last != crew->workers + crew->worker_count) {
                last->trace_end--;
            } else {
                *w->trace_next++ = *end;
            }
        }
        all->dropped += w->trace_dropped;
        w->trace_dropped = 0;
        w->trace_next = w->trace_end = NULL;
    }
    all->count = (int)(end - all->events);
}

static void begin_step(struct troupe_crew *crew, int64_t step) {
    if (crew->step < 0) { /* the first step may be any */
        for (int t = 0; t < crew->task_count; t++) {
            crew->tasks[t].firing.step = step;
        }
    }
    crew->step = step;
    open_trace(crew);
    atomic_store_explicit(&crew->remaining, (int64_t)crew->task_count * crew->microbatches,
                          memory_order_relaxed);
    atomic_store_explicit(
        &crew->limit, atomic_load_explicit(&crew->limit, memory_order_relaxed) + crew->microbatches,
        memory_order_relaxed);
    /* release: publishes all that; pairs with the acquire in work */
    atomic_fetch_add_explicit(&crew->epoch, 1, memory_order_release);
    fence_before_wake(crew); /* pairs with the one in sleep_until_woken */
    for (int i = 1; i < crew->worker_count; i++) {
        wake(&crew->workers[i]);
    }
}

static void join_workers(struct troupe_crew *crew) {
    for (; crew->thread_count > 1; crew->thread_count--) {
        pthread_join(crew->workers[crew->thread_count - 1].thread, NULL);
    }
}

troupe_status troupe_crew_step(struct troupe_crew *crew, int64_t step) {
    begin_step(crew, step);
    work(&crew->workers[0]);
    if (is_failed(crew)) {
        join_workers(crew); /* they end by themselves */
        return troupe_fail(atomic_load(&crew->failure), "%s", crew->failure_text);
    }
    close_trace(crew);
    return TROUPE_OK;
}

/* Two workers on one core would take turns, each spinning for the other: where there is a core for
 * each, each has one. The caller's thread gets its own cores back at the end. */
static void bind_worker(const struct troupe_crew *crew, int index, pthread_t thread) {
    int core = -1;
    for (int i = 0; crew->worker_count <= CPU_COUNT(&crew->cores) && i <= index; i++) {
        for (core++; !CPU_ISSET((size_t)core, &crew->cores);) {
            core++;
        }
    }
    if (core >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)core, &set);
        pthread_setaffinity_np(thread, sizeof set, &set); /* if refused it only is slower */
    }
}

troupe_status troupe_crew_start(struct troupe_crew *crew) {
    crew->workers[0].thread = pthread_self();
    crew->sleeper_fences =
        syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
    bind_worker(crew, 0, pthread_self());
    for (crew->thread_count = 1; crew->thread_count < crew->worker_count; crew->thread_count++) {
        struct crew_worker *w = &crew->workers[crew->thread_count];
        int error = pthread_create(&w->thread, NULL, worker_main, w);
        if (error != 0) {
            return troupe_fail(TROUPE_ERROR_MEMORY, "worker %d cannot start: %s",
                               crew->thread_count, strerror(error));
        }
        bind_worker(crew, crew->thread_count, w->thread);
    }
    return TROUPE_OK;
}

void troupe_crew_stop(struct troupe_crew *crew) {
    atomic_store_explicit(&crew->stopping, true, memory_order_relaxed);
    atomic_fetch_add_explicit(&crew->epoch, 1, memory_order_release);
    for (int i = 0; i < crew->worker_count && crew->workers != NULL; i++) {
        troupe_eventcount_notify(&crew->workers[i].wake);
    }
    join_workers(crew);
    if (crew->thread_count > 0) {
        pthread_setaffinity_np(pthread_self(), sizeof crew->cores, &crew->cores);
    }
}
