/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

uint64_t troupe_clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

double troupe_clock_seconds(uint64_t begin_ns, uint64_t end_ns) {
    return (double)(int64_t)(end_ns - begin_ns) * 1e-9;
}

/* The system keeps its own time by the counter only where all cores agree on it and it never
 * changes its pace. */
static bool counter_is_trusted(void) {
    char name[32] = "";
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "r");
    if (file != NULL) {
        name[fread(name, 1, sizeof name - 1, file)] = '\0';
        fclose(file);
    }
    return strncmp(name, "tsc", 3) == 0 || strncmp(name, "arch_sys_counter", 16) == 0;
}

void troupe_counter_begin(struct troupe_counter *counter) {
    *counter = (struct troupe_counter){.is_trusted = counter_is_trusted(),
                                       .begin_ticks = troupe_counter_ticks(),
                                       .begin_ns = troupe_clock_ns()};
    counter->ticks = counter->begin_ticks;
    counter->ns = counter->begin_ns;
}

void troupe_counter_adjust(struct troupe_counter *counter) {
    counter->ticks = troupe_counter_ticks();
    counter->ns = troupe_clock_ns();
    uint64_t ticks = counter->ticks - counter->begin_ticks;
    counter->ns_per_tick =
        ticks > 0 ? (double)(counter->ns - counter->begin_ns) / (double)ticks : 0;
}
