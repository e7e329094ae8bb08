/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/eventcount.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/clock.h"

/* Looks between two readings of the clock while spinning: some 1 us. */
enum { SPINS_PER_CLOCK = 32 };

static void futex_wait(uint32_t *word, uint32_t expected, uint64_t timeout_ns) {
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                               .tv_nsec = (long)(timeout_ns % 1000000000u)};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns > 0 ? &timeout : NULL, NULL,
            0);
}

static void futex_wake_all(uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* acquire: pairs with the addition in notify, so that what the notifier wrote is visible. */
static bool notified(const struct troupe_eventcount *e, uint32_t key) {
    return __atomic_load_n(&e->sequence, __ATOMIC_ACQUIRE) != key;
}

static bool spin(const struct troupe_eventcount *e, uint32_t key, uint64_t spin_ns) {
    uint64_t begin = troupe_clock_ns();
    do {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (notified(e, key)) {
                return true;
            }
            troupe_cpu_relax();
        }
    } while (troupe_clock_ns() - begin < spin_ns);
    return false;
}

uint32_t troupe_eventcount_key(const struct troupe_eventcount *e) {
    return __atomic_load_n(&e->sequence, __ATOMIC_ACQUIRE); /* as in notified() */
}

bool troupe_eventcount_wait(struct troupe_eventcount *e, uint32_t key,
                            const struct troupe_wait_limits *limits) {
    if (notified(e, key) || (limits->spin_ns > 0 && spin(e, key, limits->spin_ns))) {
        return true;
    }
    /* Sequentially consistent, as is notify: either it sees this waiter and wakes it, or the futex
     * sees the new sequence and does not sleep. */
    __atomic_fetch_add(&e->waiters, 1, __ATOMIC_SEQ_CST);
    futex_wait(&e->sequence, key, limits->park_ns);
    __atomic_fetch_sub(&e->waiters, 1, __ATOMIC_RELAXED);
    return notified(e, key);
}

void troupe_eventcount_notify(struct troupe_eventcount *e) {
    /* release part: publishes what the caller wrote; pairs with the acquire in notified(). */
    __atomic_fetch_add(&e->sequence, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&e->waiters, __ATOMIC_SEQ_CST) > 0) {
        futex_wake_all(&e->sequence);
    }
}
