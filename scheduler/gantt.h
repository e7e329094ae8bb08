/* SPDX-License-Identifier: Apache-2.0
 *
 * Pictures of a schedule: an SVG Gantt chart (ranks down, time across, colours by module and kind
 * of task, the bound drawn in) and a trace for Perfetto or chrome://tracing.
 *
 *     troupe_gantt_write_svg(file, &(struct troupe_gantt){.schedule = schedule, .module_names =
 *                            names, .module_count = 3, .bound_ns = t_star, .title = "fill"});
 *
 * Ownership: all is the caller's. Threads: any. Failure: ERROR_IO when the file takes no more.
 */
#ifndef TROUPE_SCHEDULER_GANTT_H
#define TROUPE_SCHEDULER_GANTT_H

#include <stdio.h>

#include "runtime/status.h"
#include "scheduler/schedule.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_gantt {
    struct troupe_schedule schedule;
    const char *const *module_names; /* by struct troupe_gang.module */
    int module_count;
    int64_t bound_ns; /* T*; 0: none */
    const char *title;
};

troupe_status troupe_gantt_write_svg(FILE *file, const struct troupe_gantt *gantt);
/* Chrome's trace format: one process a rank, one thread for tasks and one for reductions. */
troupe_status troupe_gantt_write_trace(FILE *file, const struct troupe_gantt *gantt);

#ifdef __cplusplus
}
#endif
#endif
