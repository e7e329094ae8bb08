/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/report.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "modules/train/fleet.h"
#include "runtime/clock.h"

/* ---- what the ranks add up ---- */

struct totals {
    double squares[TROUPE_CONFIG_MODULES]; /* of the gradients */
    double compute_ms[TROUPE_CONFIG_MODULES];
    double wait_ms[TROUPE_CONFIG_MODULES];
    double launch_ms[TROUPE_CONFIG_MODULES];
    double copy_ms;
    double loss;
    double flops;
    double edge_bytes[TROUPE_REPORT_EDGES_MAX];
};
_Static_assert(sizeof(struct totals) == TROUPE_REPORT_TOTALS * sizeof(double), "one array");

static int edge_count(const struct troupe_fleet *fleet) {
    int count = troupe_runtime_edge_count(fleet->runtime);
    return count < TROUPE_REPORT_EDGES_MAX ? count : TROUPE_REPORT_EDGES_MAX;
}

static void add_part(const struct troupe_fleet *fleet, const struct troupe_part *part,
                     struct totals *totals) {
    const struct troupe_stage *stage = part->stage;
    struct troupe_gang_times times =
        troupe_runtime_gang_times(fleet->runtime, troupe_fleet_gang(fleet, part));
    totals->compute_ms[part->module] += (double)times.compute_ns * 1e-6;
    totals->launch_ms[part->module] += (double)times.launch_ns * 1e-6;
    totals->wait_ms[part->module] +=
        (double)(times.wait_ticket_ns + times.wait_input_ns + times.wait_output_ns) * 1e-6;
    totals->flops += 3 * stage->flops;
    for (int k = 0; stage->options.shard.tp_index == 0 && k < stage->microbatch_count; k++) {
        totals->loss += stage->loss_sums[k];
    }
    totals->squares[part->module] += troupe_part_square_sum(part);
}

static troupe_status find_totals(const struct troupe_report_options *o, struct totals *totals) {
    const struct troupe_fleet *fleet = o->fleet;
    memset(totals, 0, sizeof *totals);
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        if (fleet->parts[i] != NULL) {
            add_part(fleet, fleet->parts[i], totals);
        }
    }
    totals->copy_ms = (double)troupe_runtime_copy_ns(fleet->runtime) * 1e-6;
    for (int e = 0; e < edge_count(fleet); e++) {
        totals->edge_bytes[e] = (double)troupe_runtime_edge_bytes(fleet->runtime, e);
    }
    return troupe_group_all_reduce(o->world, TROUPE_SUM, TROUPE_ELEMENT_FLOAT64, totals,
                                   TROUPE_REPORT_TOTALS);
}

/* ---- what they take the maximum of ---- */

struct peaks {
    double step_ms;
    double plan_ms;
    double nonfinite; /* where a value first was not finite, as a number that is largest for the
                         earliest microbatch and then module; 0: nowhere */
};

enum { PEAK_BASE = 1 << 24, PEAK_MODULES = 8 };

static troupe_status find_peaks(const struct troupe_report_options *o, struct peaks *out) {
    double values[3] = {troupe_clock_seconds(o->started_ns, troupe_clock_ns() + o->update_ns) * 1e3,
                        (double)troupe_fleet_plan_ns(o->fleet) * 1e-6, 0};
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        const struct troupe_part *part = o->fleet->parts[i];
        if (part != NULL && part->stage->nonfinite_microbatch >= 0) {
            double code = PEAK_BASE - part->stage->nonfinite_microbatch * PEAK_MODULES - i;
            values[2] = code > values[2] ? code : values[2];
        }
    }
    TROUPE_TRY(troupe_group_all_reduce(o->world, TROUPE_MAX, TROUPE_ELEMENT_FLOAT64, values, 3));
    *out = (struct peaks){.step_ms = values[0], .plan_ms = values[1], .nonfinite = values[2]};
    return TROUPE_OK;
}

/* The same verdict on every rank: nobody updates, or everybody. */
static troupe_status check_finite(const struct troupe_step_report *report,
                                  const struct peaks *peaks) {
    if (peaks->nonfinite > 0) {
        int code = PEAK_BASE - (int)peaks->nonfinite;
        return troupe_fail(TROUPE_ERROR_NUMERIC,
                           "step %" PRId64 ": %s is the first module whose output is not finite, "
                           "in microbatch %d; lower train.lr or set train.clip, and resume from "
                           "the last checkpoint",
                           report->step, troupe_module_classes()[code % PEAK_MODULES]->name,
                           code / PEAK_MODULES);
    }
    for (int i = TROUPE_LLM; i >= TROUPE_VISION; i--) { /* gradients come from the loss's side */
        if (!isfinite(report->module_norm[i])) {
            return troupe_fail(TROUPE_ERROR_NUMERIC,
                               "step %" PRId64 ": the gradient of %s is not finite (loss %g); "
                               "lower train.lr or set train.clip, and resume from the last "
                               "checkpoint",
                               report->step, troupe_module_classes()[i]->name, report->loss);
        }
    }
    return TROUPE_OK;
}

/* ---- the report ---- */

static void fill(const struct troupe_report_options *o, const struct totals *totals,
                 struct troupe_step_report *out) {
    const struct troupe_config *config = o->fleet->options.config;
    const troupe_sample_plan *samples = o->fleet->options.samples;
    int64_t batch = config->train.global_batch;
    double square_sum = 0;
    memset(out, 0, sizeof *out);
    out->step = o->position + 1;
    out->loss = totals->loss / (double)troupe_sample_plan_step_targets(samples);
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        square_sum += totals->squares[i];
        out->module_norm[i] = sqrt(totals->squares[i]);
        out->compute_ms[i] = totals->compute_ms[i];
        out->wait_ms[i] = totals->wait_ms[i];
        out->launch_ms[i] = totals->launch_ms[i];
    }
    out->grad_norm = sqrt(square_sum);
    out->lr = troupe_learning_rate(&(struct troupe_lr_schedule){.lr = config->train.lr,
                                                                .lr_min = config->train.lr_min,
                                                                .warmup = config->train.warmup,
                                                                .steps = config->train.steps},
                                   out->step);
    out->tokens = troupe_sample_plan_rows(samples)[batch];
    out->images = troupe_sample_plan_images(samples)[batch];
    out->copy_ms = totals->copy_ms;
    out->flops = totals->flops;
    out->edge_count = edge_count(o->fleet);
    for (int e = 0; e < out->edge_count; e++) {
        out->edges[e].name = troupe_runtime_edge_name(o->fleet->runtime, e);
        out->edges[e].bytes = totals->edge_bytes[e];
    }
}

troupe_status troupe_report_collect(const struct troupe_report_options *options,
                                    struct troupe_step_report *out) {
    struct totals totals;
    struct peaks peaks;
    TROUPE_TRY(find_totals(options, &totals));
    TROUPE_TRY(find_peaks(options, &peaks));
    fill(options, &totals, out);
    out->step_ms = peaks.step_ms;
    out->plan_ms = peaks.plan_ms;
    return check_finite(out, &peaks);
}
