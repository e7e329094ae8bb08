/* SPDX-License-Identifier: Apache-2.0
 *
 * An event count, over Concurrency Kit's: how a thread waits for a condition that others make true
 * without a lock, first spinning for a budget, then parked on a futex. The waiter takes a key
 * *before* it looks at the condition, so a notification between the look and the wait is never
 * lost:
 *
 *     for (;;) {                                         producer:
 *         uint32_t key = troupe_eventcount_key(&e);          push(queue, x);
 *         if (pop(queue, &x)) { break; }                     troupe_eventcount_notify(&e);
 *         troupe_eventcount_wait(&e, key, &limits);
 *     }
 *
 * Notifying costs one atomic addition; the system is called only when somebody is parked.
 *
 * Ownership: the struct is the caller's; all-zero is ready for use.
 * Threads: any. What happened before notify is visible after the key that counts it, or the wait.
 * Failure: none.
 */
#ifndef TROUPE_RUNTIME_EVENTCOUNT_H
#define TROUPE_RUNTIME_EVENTCOUNT_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ck_ec32, as a plain word so that C++ can include this; touched only by eventcount.c. */
struct troupe_eventcount {
    uint32_t word; /* notifications so far, modulo 2^31, and whether somebody is parked */
};

struct troupe_wait_limits {
    uint64_t spin_ns; /* before parking; 0: park at once */
    uint64_t park_ns; /* at most this long parked; 0: without end */
};

uint32_t troupe_eventcount_key(const struct troupe_eventcount *e);
/* Waits until a notification after `key` was taken (true) or the limits are over (false). */
bool troupe_eventcount_wait(struct troupe_eventcount *e, uint32_t key,
                            const struct troupe_wait_limits *limits);
/* Wakes all who wait. */
void troupe_eventcount_notify(struct troupe_eventcount *e);

/* What a spinning thread does between two looks: tells the core that it waits. */
static inline void troupe_cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#ifdef __cplusplus
}
#endif
#endif
