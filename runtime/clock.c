/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/clock.h"

#include <time.h>

uint64_t troupe_clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

double troupe_clock_seconds(uint64_t begin_ns, uint64_t end_ns) {
    return (double)(int64_t)(end_ns - begin_ns) * 1e-9;
}
