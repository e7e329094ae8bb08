/* SPDX-License-Identifier: Apache-2.0
 *
 * The monotonic clock of this machine in nanoseconds: for deadlines, spin budgets and measured
 * times. Its zero is arbitrary, so only differences mean something, and only on one machine.
 *
 *     uint64_t begin = troupe_clock_ns();
 *     work();
 *     TROUPE_LOG_DEBUG("x", "took %.3f ms", troupe_clock_seconds(begin, troupe_clock_ns()) * 1e3);
 *
 * Ownership: none. Threads: any. Failure: none.
 */
#ifndef TROUPE_RUNTIME_CLOCK_H
#define TROUPE_RUNTIME_CLOCK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Nanoseconds since an arbitrary point; never goes back. Some 20 ns, no system call. */
uint64_t troupe_clock_ns(void);
/* Seconds from `begin` to `end`, both from troupe_clock_ns; negative when end is earlier. */
double troupe_clock_seconds(uint64_t begin_ns, uint64_t end_ns);

#ifdef __cplusplus
}
#endif
#endif
