/* SPDX-License-Identifier: Apache-2.0
 *
 * Pictures of a step, for the commands that have one: --svg FILE a Gantt chart, --trace FILE events
 * for Perfetto or chrome://tracing.
 *
 * Ownership: paths point into argv. Threads: the main thread, or rank 0's.
 * Failure: ERROR_IO with the path.
 */
#ifndef TROUPE_APPS_TROUPE_CHART_H
#define TROUPE_APPS_TROUPE_CHART_H

#include "scheduler/bound.h"
#include "scheduler/schedule.h"

struct chart_paths {
    const char *svg; /* NULL: not asked for */
    const char *trace;
};

/* Writes what is asked for. */
troupe_status chart_write(const struct chart_paths *paths, const struct troupe_schedule *schedule,
                          const struct troupe_bound_result *bound, const char *title);

/* Prints T, T*, T/T*, and for ranks (all of them where they are few) busy and idle shares. */
void chart_print_account(const struct troupe_account *account,
                         const struct troupe_bound_result *bound);

#endif
