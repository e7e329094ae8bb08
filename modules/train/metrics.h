/* SPDX-License-Identifier: Apache-2.0
 *
 * What a run writes about itself: run_dir/metrics.jsonl, one JSON object a step, and the progress
 * line on the terminal. Rank 0 only.
 *
 *     {"step": 1, "loss": 5.54, "grad_norm": 2.1, "grad_norm_vision": 0.4, ..., "lr": 0.001,
 *      "tokens": 3012, "images": 32, "step_ms": 812.4, "plan_ms": 0.1, "tokens_per_s": 3707,
 * "model_tflops": 0.09, "compute_ms": {"vision": 120.1, ...}, "wait_ms": {...}, "launch_ms": {...},
 * "copy_ms": 0, "bytes": {"vision->projector": 0}, "schedule": {"t_ms": 700.1, "bound_ms": 655.0,
 * "ratio": 1.069, "busy_ms": [...], "idle_ms": {"head": [...], "tail": [...], ...}}, "switches":
 * [{"to": "colocated", "bytes_moved": 118784, "bytes_bound": 118784, ...}]}
 *
 * The list of switches stands only where there were some just before the step.
 *
 * model_tflops is the model's floating-point operations per second: 2 per multiply-add of its
 * matrix products in forward, three times that with backward (attention scores included),
 * divided by the time of the step; no recomputation is counted.
 *
 * schedule: T, the time of the step's tasks (all but the update); T*, the least that any order of
 * them could take with the times that they took (scheduler/bound.h); T/T*; and by rank how long it
 * was busy and idle, and why (scheduler/schedule.h).
 *
 * Ownership: open/close by the caller. Threads: one. Failure: ERROR_IO with the path.
 */
#ifndef TROUPE_MODULES_TRAIN_METRICS_H
#define TROUPE_MODULES_TRAIN_METRICS_H

#include <stdio.h>

#include "modules/train/train.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Opens run_dir/metrics.jsonl for appending after the lines up to `position`; later lines (of a
 * run that died after its last checkpoint) are cut off, so that a step stands there once. */
troupe_status troupe_metrics_open(const char *run_dir, int64_t position, FILE **out);
/* A switch of placement or order before the step; `to` as the user asked for it. */
struct troupe_metrics_switch {
    const char *to;
    struct troupe_switch_report report;
};
/* One object, flushed. */
troupe_status troupe_metrics_write(FILE *file, const struct troupe_step_report *report,
                                   const struct troupe_metrics_switch *switches, int switch_count);
/* "step 12/300  loss 3.2145  norm 1.32  4521 tokens/s  T/T* 1.18, idle 39 %, 17 % reduction  2m14s
 * left", without a line end. */
void troupe_metrics_progress(const struct troupe_step_report *report, int64_t steps,
                             double seconds_left, char *out, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
