/* SPDX-License-Identifier: Apache-2.0 */
/* Counting, parking and waking are Concurrency Kit's ck_ec; the spinning, which it counts in looks
 * and we in nanoseconds, is ours. */
#include "runtime/eventcount.h"

#include <ck_ec.h>
#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/clock.h"
#include "runtime/sanitizer.h"

/* Looks between two readings of the clock while spinning: some 1 us. */
enum { SPINS_PER_CLOCK = 32 };

static int read_clock(const struct ck_ec_ops *ops, struct timespec *out) {
    (void)ops;
    return clock_gettime(CLOCK_MONOTONIC, out);
}

/* ck's deadline comes closer in steps, for the sake of a single notifier whose step may overlook a
 * waiter, and may lie behind the caller's. Ours overlook none: parked until the caller's. */
static void park(const struct ck_ec_wait_state *state, const uint32_t *word, uint32_t expected,
                 const struct timespec *deadline) {
    (void)deadline;
    syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, state->data, NULL,
            FUTEX_BITSET_MATCH_ANY);
}

static void wake_all(const struct ck_ec_ops *ops, const uint32_t *word) {
    (void)ops;
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static const struct ck_ec_ops ops = {
    .gettime = read_clock, .wait32 = park, .wake32 = wake_all, .busy_loop_iter = 1};
static const struct ck_ec_mode mode = {.ops = &ops}; /* anyone may notify */

static struct ck_ec32 *count_of(const struct troupe_eventcount *e) {
    return (struct ck_ec32 *)&e->word;
}

static bool notified(const struct troupe_eventcount *e, uint32_t key) {
    return troupe_eventcount_key(e) != key;
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
    uint32_t key = ck_ec32_value(count_of(e));
    TROUPE_SANITIZER_ACQUIRE(&e->word);
    return key;
}

bool troupe_eventcount_wait(struct troupe_eventcount *e, uint32_t key,
                            const struct troupe_wait_limits *limits) {
    if (notified(e, key) || (limits->spin_ns > 0 && spin(e, key, limits->spin_ns))) {
        return true;
    }
    struct timespec deadline, *until = NULL;
    if (limits->park_ns > 0) {
        until = &deadline;
        ck_ec_deadline(until, &mode,
                       &(struct timespec){.tv_sec = (time_t)(limits->park_ns / 1000000000u),
                                          .tv_nsec = (long)(limits->park_ns % 1000000000u)});
    }
    ck_ec32_wait_pred(count_of(e), &mode, key, NULL, until, until);
    return notified(e, key);
}

void troupe_eventcount_notify(struct troupe_eventcount *e) {
    TROUPE_SANITIZER_RELEASE(&e->word);
    ck_ec32_inc(count_of(e), &mode);
}
