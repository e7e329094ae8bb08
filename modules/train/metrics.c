/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/check.h"

static const char *module_name(int module) {
    return troupe_module_classes()[module]->name;
}

/* The byte after the last line whose step is at most `position`; lines are in order of step. */
static long end_of_position(FILE *file, int64_t position) {
    static const char prefix[] = "{\"step\": ";
    char *line = NULL;
    size_t capacity = 0;
    long end = 0;
    while (getline(&line, &capacity, file) > 0) {
        if (strncmp(line, prefix, sizeof prefix - 1) != 0 ||
            strtoll(line + sizeof prefix - 1, NULL, 10) > position) {
            break;
        }
        end = ftell(file);
    }
    free(line); /* getline's */
    return end;
}

troupe_status troupe_metrics_open(const char *run_dir, int64_t position, FILE **out) {
    char path[TROUPE_CONFIG_TEXT_BYTES + 32];
    snprintf(path, sizeof path, "%s/metrics.jsonl", run_dir);
    FILE *file = fopen(path, position > 0 ? "r+" : "w");
    if (file == NULL && position > 0 && errno == ENOENT) {
        file = fopen(path, "w");
    }
    if (file == NULL) {
        return troupe_fail(TROUPE_ERROR_IO, "%s: %s", path, strerror(errno));
    }
    long end = position > 0 ? end_of_position(file, position) : 0;
    if (fseek(file, end, SEEK_SET) != 0 || ftruncate(fileno(file), end) != 0) {
        troupe_status status = troupe_fail(TROUPE_ERROR_IO, "%s: %s", path, strerror(errno));
        fclose(file);
        return status;
    }
    *out = file;
    return TROUPE_OK;
}

static void write_modules(FILE *file, const char *name, const double *values) {
    fprintf(file, ", \"%s\": {", name);
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        fprintf(file, "%s\"%s\": %.4g", i > 0 ? ", " : "", module_name(i), values[i]);
    }
    fputc('}', file);
}

/* The text may hold anything a file name may. */
static void write_text(FILE *file, const char *text) {
    fputc('"', file);
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') {
            fprintf(file, "\\%c", *c);
        } else if (*c < 0x20) {
            fprintf(file, "\\u%04x", *c);
        } else {
            fputc(*c, file);
        }
    }
    fputc('"', file);
}

static void write_switches(FILE *file, const struct troupe_metrics_switch *switches, int count) {
    for (int i = 0; i < count; i++) {
        const struct troupe_switch_report *r = &switches[i].report;
        fprintf(file, "%s{\"to\": ", i == 0 ? ", \"switches\": [" : ", ");
        write_text(file, switches[i].to);
        fprintf(file,
                ", \"bytes_moved\": %" PRId64 ", \"bytes_bound\": %" PRId64
                ", \"bytes_state\": %" PRId64
                ", \"relabelled\": %d, \"plan_ms\": %.3f, \"pause_ms\": %.3f}%s",
                r->bytes_moved, r->bytes_bound, r->bytes_state, r->relabelled, r->plan_ms,
                r->pause_ms, i == count - 1 ? "]" : "");
    }
}

/* One number a rank; cause TROUPE_IDLE_COUNT: how long it was busy. */
static void write_by_rank(FILE *file, const char *name, const struct troupe_account *account,
                          enum troupe_idle cause) {
    fprintf(file, "\"%s\": [", name);
    for (int k = 0; k < account->graph->rank_count; k++) {
        const struct troupe_rank_account *rank = &account->ranks[k];
        int64_t ns = cause == TROUPE_IDLE_COUNT ? rank->busy_ns : rank->idle_ns[cause];
        fprintf(file, "%s%.4g", k > 0 ? ", " : "", (double)ns * 1e-6);
    }
    fputc(']', file);
}

static void write_schedule(FILE *file, const struct troupe_timeline_result *timeline) {
    double t = (double)timeline->account->makespan_ns, bound = (double)timeline->bound.ns;
    fprintf(file, ", \"schedule\": {\"t_ms\": %.4f, \"bound_ms\": %.4f, \"ratio\": %.4f, ",
            t * 1e-6, bound * 1e-6, bound > 0 ? t / bound : 1);
    write_by_rank(file, "busy_ms", timeline->account, TROUPE_IDLE_COUNT);
    fprintf(file, ", \"idle_ms\": {");
    for (int i = 0; i < TROUPE_IDLE_COUNT; i++) {
        fprintf(file, "%s", i > 0 ? ", " : "");
        write_by_rank(file, troupe_idle_name((enum troupe_idle)i), timeline->account,
                      (enum troupe_idle)i);
    }
    fprintf(file, "}}");
}

troupe_status troupe_metrics_write(FILE *file, const struct troupe_step_report *r,
                                   const struct troupe_metrics_switch *switches, int switch_count) {
    double seconds = r->step_ms * 1e-3;
    fprintf(file, "{\"step\": %" PRId64 ", \"loss\": %.9g, \"grad_norm\": %.9g", r->step, r->loss,
            r->grad_norm);
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        fprintf(file, ", \"grad_norm_%s\": %.9g", module_name(i), r->module_norm[i]);
    }
    fprintf(
        file,
        ", \"lr\": %.9g, \"tokens\": %" PRId64 ", \"images\": %" PRId64
        ", \"step_ms\": %.3f, \"plan_ms\": %.3f, \"tokens_per_s\": %.1f, \"model_tflops\": %.6g",
        r->lr, r->tokens, r->images, r->step_ms, r->plan_ms, (double)r->tokens / seconds,
        r->flops / seconds * 1e-12);
    write_modules(file, "compute_ms", r->compute_ms);
    write_modules(file, "wait_ms", r->wait_ms);
    write_modules(file, "launch_ms", r->launch_ms);
    fprintf(file, ", \"copy_ms\": %.4g", r->copy_ms);
    fprintf(file, ", \"bytes\": {");
    for (int i = 0; i < r->edge_count; i++) {
        fprintf(file, "%s\"%s\": %.0f", i > 0 ? ", " : "", r->edges[i].name, r->edges[i].bytes);
    }
    fputc('}', file);
    write_switches(file, switches, switch_count);
    if (r->timeline != NULL) {
        write_schedule(file, r->timeline);
    }
    fprintf(file, "}\n");
    if (fflush(file) != 0) {
        return troupe_fail(TROUPE_ERROR_IO, "metrics.jsonl: %s", strerror(errno));
    }
    return TROUPE_OK;
}

/* "  T/T* 1.18, idle 39 %, 17 % reduction": and most of that why. */
static void describe_schedule(const struct troupe_timeline_result *timeline, char *out,
                              size_t bytes) {
    const struct troupe_account *account = timeline->account;
    double all = (double)account->makespan_ns * account->graph->rank_count;
    int most = 0;
    for (int i = 1; i < TROUPE_IDLE_COUNT; i++) {
        most = account->total.idle_ns[i] > account->total.idle_ns[most] ? i : most;
    }
    if (timeline->bound.ns <= 0 || all <= 0) {
        return;
    }
    snprintf(out, bytes, "  T/T* %.2f, idle %.0f %%, %.0f %% %s",
             (double)account->makespan_ns / (double)timeline->bound.ns,
             100 * (1 - (double)account->total.busy_ns / all),
             100 * (double)account->total.idle_ns[most] / all,
             troupe_idle_name((enum troupe_idle)most));
}

void troupe_metrics_progress(const struct troupe_step_report *report, int64_t steps,
                             double seconds_left, char *out, size_t bytes) {
    long left = (long)(seconds_left + 0.5);
    char schedule[64] = "";
    if (report->timeline != NULL) {
        describe_schedule(report->timeline, schedule, sizeof schedule);
    }
    snprintf(out, bytes,
             "step %" PRId64 "/%" PRId64 "  loss %.4f  norm %.2f  %.0f tokens/s%s  %ldm%02lds left",
             report->step, steps, report->loss, report->grad_norm,
             (double)report->tokens / (report->step_ms * 1e-3), schedule, left / 60, left % 60);
}
