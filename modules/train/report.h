/* SPDX-License-Identifier: Apache-2.0
 *
 * What a step was: loss, norms, times and bytes, the same on every rank.
 *
 *     TROUPE_TRY(troupe_report_collect(&options, &report));
 *
 * Ownership: plain data; edge names belong to the fleet. Threads: the rank's thread.
 * Failure: ERROR_NUMERIC on every rank if a value somewhere was not finite; it names the first
 * module that produced one. Does not allocate.
 */
#ifndef TROUPE_MODULES_TRAIN_REPORT_H
#define TROUPE_MODULES_TRAIN_REPORT_H

#include <stdint.h>

#include "comm/group.h"
#include "modules/nn/config.h"
#include "modules/train/timeline.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TROUPE_REPORT_EDGES_MAX = 64,
    /* Numbers that collect sums over its group. */
    TROUPE_REPORT_TOTALS = 4 * TROUPE_CONFIG_MODULES + 3 + TROUPE_REPORT_EDGES_MAX,
};

struct troupe_step_report {
    int64_t step;     /* of this report, counted from 1 */
    double loss;      /* mean over the step's target tokens */
    double grad_norm; /* before clipping */
    double module_norm[TROUPE_CONFIG_MODULES];
    double lr;
    int64_t tokens; /* fused tokens of the global batch */
    int64_t images;
    double step_ms; /* of the slowest rank, from update to update */
    double plan_ms; /* of that, before the first ticket: to work out what its tasks and messages
                       will be and in which order they go; of the slowest rank */
    double flops;   /* of the model: forward plus twice that backward */
    double compute_ms[TROUPE_CONFIG_MODULES]; /* summed over the module's ranks */
    double wait_ms[TROUPE_CONFIG_MODULES];
    double launch_ms[TROUPE_CONFIG_MODULES]; /* of the hosts in the tasks: on the CPU the same as
                                                compute, on a GPU launches and waits for sums */
    double copy_ms; /* of the devices, messages between them and their hosts; all ranks */
    const struct troupe_timeline_result *timeline; /* of rank 0 until the next step; else NULL */
    int edge_count;
    struct {
        const char *name;
        double bytes; /* sent to other ranks in this step */
    } edges[TROUPE_REPORT_EDGES_MAX];
};

/* A change of placement or order between two steps, see switch.h; the same on every rank. */
struct troupe_switch_report {
    int64_t step;        /* steps done before it */
    int64_t bytes_moved; /* received by all ranks together */
    int64_t bytes_bound; /* what their ranks lacked after relabelling: no way moves less */
    int64_t bytes_state; /* parameters and moments of all ranks */
    int relabelled;      /* roles that another rank plays than the placement says */
    double plan_ms;      /* layouts, relabelling, routes; of the slowest rank */
    double pause_ms;     /* from the last step's end to the next one's beginning, likewise */
};

struct troupe_fleet;

struct troupe_report_options {
    const struct troupe_fleet *fleet;
    troupe_group *world; /* made for TROUPE_REPORT_TOTALS float64 */
    int64_t position;    /* steps done before this one */
    uint64_t started_ns; /* when this one began */
    uint64_t update_ns;  /* that the update before it took: this step's comes after the report */
};

/* Between the sums of the gradients and the update. */
troupe_status troupe_report_collect(const struct troupe_report_options *options,
                                    struct troupe_step_report *out);

#ifdef __cplusplus
}
#endif
#endif
