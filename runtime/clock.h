/* SPDX-License-Identifier: Apache-2.0
 *
 * The monotonic clock of this machine in nanoseconds: for deadlines, spin budgets and measured
 * times. Its zero is arbitrary, so only differences mean something, and only on one machine.
 *
 *     uint64_t begin = troupe_clock_ns();
 *     work();
 *     TROUPE_LOG_DEBUG("x", "took %.3f ms", troupe_clock_seconds(begin, troupe_clock_ns()) * 1e3);
 *
 * For reading it every few hundred nanoseconds there is the core's own counter, some 10 ns, scaled:
 *
 *     troupe_counter_begin(&counter);  ...  troupe_counter_adjust(&counter);  (now and then, by
 * one) uint64_t now_ns = troupe_counter_ns(&counter);                          (any thread)
 *
 * Ownership: none; a counter is the caller's storage. Threads: any; who adjusts a counter publishes
 * it to those who read it. Failure: none; where the system does not trust the core's counter, it
 * reads the clock.
 */
#ifndef TROUPE_RUNTIME_CLOCK_H
#define TROUPE_RUNTIME_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Nanoseconds since an arbitrary point; never goes back. Some 20 ns, no system call. */
uint64_t troupe_clock_ns(void);
/* Seconds from `begin` to `end`, both from troupe_clock_ns; negative when end is earlier. */
double troupe_clock_seconds(uint64_t begin_ns, uint64_t end_ns);

/* The core's counter beside the clock: at the beginning, which gives the rate, and lately. */
struct troupe_counter {
    bool is_trusted;
    uint64_t begin_ticks, begin_ns;
    uint64_t ticks, ns;
    double ns_per_tick;
};

void troupe_counter_begin(struct troupe_counter *counter);
/* The longer after begin, the more exact: some 50 ns in all that time. */
void troupe_counter_adjust(struct troupe_counter *counter);

static inline uint64_t troupe_counter_ticks(void) {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return 0;
#endif
}

/* As troupe_clock_ns, to within what the latest adjustment is off. */
static inline uint64_t troupe_counter_ns(const struct troupe_counter *counter) {
    if (!counter->is_trusted) {
        return troupe_clock_ns();
    }
    int64_t ticks = (int64_t)(troupe_counter_ticks() - counter->ticks);
    return counter->ns + (uint64_t)(int64_t)((double)ticks * counter->ns_per_tick);
}

#ifdef __cplusplus
}
#endif
#endif
