/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/gantt.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "runtime/check.h"

/* Pixels. */
static const double left = 76, top = 46, chart_width = 1300, right_margin = 24;
static const double bottom_margin = 60, lane_gap = 0.16; /* share of a rank's row */

enum tone { TONE_FORWARD, TONE_BACKWARD, TONE_WEIGHT, TONE_COUNT };

/* One row a module, from light to dark; modules beyond begin again. */
static const char *const colours[][TONE_COUNT] = {
    {"#fbd0a4", "#f08c3a", "#b65c14"}, {"#c3e3b4", "#6db356", "#3a7d2a"},
    {"#b4d2f0", "#5b96d6", "#27609f"}, {"#dcc8ee", "#a67fd0", "#6d45a0"},
    {"#f6c3cf", "#e0708d", "#a83355"}, {"#b9e4e2", "#4db3ae", "#1f7a76"},
};
static const char *const colour_reduction = "#8a8f98";
static const char *const colour_update = "#4a4e57";
static const char *const colour_other = "#c9ccd1";

static const char *tone_names[TONE_COUNT] = {"F", "B", "W"};

struct scale {
    double pixels_per_ns;
    double row; /* height of a rank */
    int64_t end_ns;
    int rank_count;
};

/* ---- text that goes into XML or JSON ---- */

static void write_escaped(FILE *file, const char *text) {
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '<':
            fputs("&lt;", file);
            break;
        case '&':
            fputs("&amp;", file);
            break;
        case '"':
            fputs("&quot;", file);
            break;
        default:
            fputc(*text, file);
        }
    }
}

static void write_json_text(FILE *file, const char *text) {
    fputc('"', file);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') {
            fputc('\\', file);
        }
        fputc((unsigned char)*text < ' ' ? ' ' : *text, file);
    }
    fputc('"', file);
}

/* "12.5 ms" in the unit that suits `like`. */
static void format_like(double ns, int64_t like, char *out, size_t bytes) {
    static const struct {
        double ns;
        const char *unit;
    } units[] = {{1e9, "s"}, {1e6, "ms"}, {1e3, "us"}, {1, "ns"}};
    size_t i = 0;
    while (i + 1 < TROUPE_COUNT_OF(units) && (double)like < units[i].ns) {
        i++;
    }
    snprintf(out, bytes, "%.4g %s", ns / units[i].ns, units[i].unit);
}

static void format_time(int64_t ns, char *out, size_t bytes) {
    format_like((double)ns, ns, out, bytes);
}

/* ---- the chart ---- */

static const struct troupe_gang *gang_of(const struct troupe_schedule *schedule,
                                         const struct troupe_task *task) {
    return &schedule->graph->gangs[schedule->graph->methods[task->method].gang];
}

static const char *colour_of(const struct troupe_schedule *schedule,
                             const struct troupe_task *task) {
    const char *const *module =
        colours[(size_t)gang_of(schedule, task)->module % TROUPE_COUNT_OF(colours)];
    switch (schedule->graph->methods[task->method].kind) {
    case TROUPE_METHOD_FORWARD:
        return module[TONE_FORWARD];
    case TROUPE_METHOD_BACKWARD_INPUT:
        return module[TONE_BACKWARD];
    case TROUPE_METHOD_BACKWARD_WEIGHT:
        return module[TONE_WEIGHT];
    case TROUPE_METHOD_REDUCE:
        return colour_reduction;
    case TROUPE_METHOD_UPDATE:
        return colour_update;
    default:
        return colour_other;
    }
}

static struct scale scale_of(const struct troupe_gantt *gantt) {
    struct scale scale = {.end_ns = gantt->bound_ns,
                          .rank_count = gantt->schedule.graph->rank_count};
    for (int i = 0; i < gantt->schedule.task_count; i++) {
        int64_t end = gantt->schedule.tasks[i].end_ns;
        scale.end_ns = end > scale.end_ns ? end : scale.end_ns;
    }
    scale.end_ns = scale.end_ns > 0 ? scale.end_ns : 1;
    scale.pixels_per_ns = chart_width / (double)scale.end_ns;
    scale.row = scale.rank_count <= 16 ? 34 : fmax(3, 34 * 16.0 / scale.rank_count);
    return scale;
}

static double x_of(const struct scale *scale, int64_t ns) {
    return left + (double)ns * scale->pixels_per_ns;
}

static double y_of(const struct scale *scale, int rank) {
    return top + rank * scale->row;
}

static double bottom_of(const struct scale *scale) {
    return y_of(scale, scale->rank_count);
}

static void write_head(FILE *file, const struct troupe_gantt *gantt, const struct scale *scale) {
    double width = left + chart_width + right_margin;
    double height = bottom_of(scale) + bottom_margin;
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
            "viewBox=\"0 0 %.0f %.0f\" font-family=\"DejaVu Sans, Helvetica, sans-serif\" "
            "font-size=\"11\" fill=\"#22262e\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n"
            "<text x=\"%.1f\" y=\"20\" font-size=\"14\" font-weight=\"bold\">",
            width, height, width, height, left);
    write_escaped(file, gantt->title != NULL ? gantt->title : "");
    fprintf(file, "</text>\n");
}

/* A round step that gives 5 to 12 marks. */
static double tick_of(int64_t end_ns) {
    double tick = pow(10, floor(log10((double)end_ns)));
    for (int i = 0; (double)end_ns / tick < 5; i++) {
        tick /= i % 2 == 0 ? 2 : 2.5;
    }
    return tick;
}

static void write_axis(FILE *file, const struct scale *scale) {
    double tick = tick_of(scale->end_ns), bottom = bottom_of(scale);
    char text[32];
    for (double at = 0; at <= (double)scale->end_ns; at += tick) {
        double x = x_of(scale, (int64_t)at);
        format_like(at, scale->end_ns, text, sizeof text);
        fprintf(file,
                "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#dfe2e7\"/>"
                "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" fill=\"#666c78\">%s</text>\n",
                x, top, x, bottom + 4, x, bottom + 18, at == 0 ? "0" : text);
    }
}

static void write_ranks(FILE *file, const struct scale *scale) {
    int every = (int)ceil(13 / scale->row);
    for (int r = 0; r < scale->rank_count; r++) {
        double y = y_of(scale, r);
        fprintf(file,
                "<rect x=\"%.1f\" y=\"%.2f\" width=\"%.1f\" height=\"%.2f\" fill=\"#f4f5f7\"/>\n",
                left, y + scale->row * lane_gap / 2, chart_width, scale->row * (1 - lane_gap));
        if (r % every == 0) {
            fprintf(file,
                    "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" fill=\"#666c78\">rank "
                    "%d</text>\n",
                    left - 8, y + scale->row / 2 + 4, r);
        }
    }
}

/* A task is a full row high, a collective a thin bar along its lower edge. */
static void write_box(FILE *file, const struct troupe_gantt *gantt, const struct scale *scale,
                      const struct troupe_task *task, int rank) {
    const struct troupe_method *method = &gantt->schedule.graph->methods[task->method];
    bool reduces = method->lane == TROUPE_LANE_REDUCTION;
    double full = scale->row * (1 - lane_gap), height = reduces ? full * 0.18 : full;
    double y = y_of(scale, rank) + scale->row * lane_gap / 2 + (full - height);
    double x = x_of(scale, task->begin_ns), width = x_of(scale, task->end_ns) - x;
    char begin[32], length[32];
    format_time(task->begin_ns, begin, sizeof begin);
    format_time(task->end_ns - task->begin_ns, length, sizeof length);
    fputs("<g><title>", file);
    write_escaped(file, gang_of(&gantt->schedule, task)->name);
    fprintf(file,
            " %s %d: %s at %s</title><rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" "
            "height=\"%.2f\" fill=\"%s\"",
            method->name, task->microbatch, length, begin, x, y, fmax(width, 0.2), height,
            colour_of(&gantt->schedule, task));
    fprintf(file, "%s/>", width > 3 ? " stroke=\"#ffffff\" stroke-width=\"0.6\"" : "");
    bool dark =
        method->kind == TROUPE_METHOD_BACKWARD_WEIGHT || method->kind == TROUPE_METHOD_UPDATE;
    double digits = task->microbatch < 10 ? 1 : task->microbatch < 100 ? 2 : 3;
    if (width > 6.4 * digits + 3 && scale->row > 16 && !reduces && method->firings > 1) {
        fprintf(file,
                "<text x=\"%.2f\" y=\"%.2f\" text-anchor=\"middle\" font-size=\"10\" "
                "fill=\"%s\">%d</text>",
                x + width / 2, y + height / 2 + 3.5, dark ? "#ffffff" : "#22262e",
                task->microbatch);
    }
    fputs("</g>\n", file);
}

static void write_tasks(FILE *file, const struct troupe_gantt *gantt, const struct scale *scale) {
    for (int pass = 0; pass < 2; pass++) { /* collectives lie on top */
        for (int i = 0; i < gantt->schedule.task_count; i++) {
            const struct troupe_task *task = &gantt->schedule.tasks[i];
            const struct troupe_gang *gang = gang_of(&gantt->schedule, task);
            bool reduces =
                gantt->schedule.graph->methods[task->method].lane == TROUPE_LANE_REDUCTION;
            bool empty = task->end_ns == task->begin_ns;
            for (int k = 0; !empty && reduces == (pass == 1) && k < gang->rank_count; k++) {
                write_box(file, gantt, scale, task, gang->ranks[k]);
            }
        }
    }
}

static const char *const colour_bound = "#c8102e";

/* The end of the step above the bound's label. */
static void write_mark(FILE *file, const struct scale *scale, int64_t ns, const char *label,
                       bool is_bound) {
    double x = x_of(scale, ns), y = top - (is_bound ? 4 : 18);
    const char *colour = is_bound ? colour_bound : "#22262e";
    fprintf(file,
            "<line x1=\"%.2f\" y1=\"%.1f\" x2=\"%.2f\" y2=\"%.1f\" stroke=\"%s\" "
            "stroke-width=\"1.6\"%s/>"
            "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" fill=\"%s\">%s</text>\n",
            x, y - 10, x, bottom_of(scale) + 4, colour, is_bound ? " stroke-dasharray=\"5 3\"" : "",
            x - 4, y, colour, label);
}

static void write_marks(FILE *file, const struct troupe_gantt *gantt, const struct scale *scale) {
    int64_t end_ns = 0;
    for (int i = 0; i < gantt->schedule.task_count; i++) {
        int64_t end = gantt->schedule.tasks[i].end_ns;
        end_ns = end > end_ns ? end : end_ns;
    }
    char time[32], label[80];
    format_time(end_ns, time, sizeof time);
    snprintf(label, sizeof label, "T %s", time);
    if (gantt->bound_ns > 0) {
        snprintf(label, sizeof label, "T %s, T/T* %.3f", time,
                 (double)end_ns / (double)gantt->bound_ns);
    }
    write_mark(file, scale, end_ns, label, false);
    if (gantt->bound_ns > 0) {
        format_like((double)gantt->bound_ns, end_ns, time, sizeof time);
        snprintf(label, sizeof label, "T* %s", time);
        write_mark(file, scale, gantt->bound_ns, label, true);
    }
}

static double write_sample(FILE *file, double x, double y, const char *colour, const char *text) {
    fprintf(file, "<rect x=\"%.1f\" y=\"%.1f\" width=\"12\" height=\"12\" fill=\"%s\"/>", x, y - 10,
            colour);
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\">", x + 16, y);
    write_escaped(file, text);
    fprintf(file, "</text>\n");
    return x + 16 + 6.6 * (double)strlen(text) + 14;
}

static bool has_kind(const struct troupe_schedule *schedule, int module,
                     enum troupe_method_kind kind) {
    for (int i = 0; i < schedule->task_count; i++) {
        const struct troupe_task *task = &schedule->tasks[i];
        if (schedule->graph->methods[task->method].kind == kind && task->end_ns > task->begin_ns &&
            (module < 0 || gang_of(schedule, task)->module == module)) {
            return true;
        }
    }
    return false;
}

static void write_legend(FILE *file, const struct troupe_gantt *gantt, const struct scale *scale) {
    static const enum troupe_method_kind kinds[TONE_COUNT] = {
        TROUPE_METHOD_FORWARD, TROUPE_METHOD_BACKWARD_INPUT, TROUPE_METHOD_BACKWARD_WEIGHT};
    double x = left, y = bottom_of(scale) + 44;
    for (int m = 0; m < gantt->module_count; m++) {
        for (int tone = 0; tone < TONE_COUNT; tone++) {
            if (has_kind(&gantt->schedule, m, kinds[tone])) {
                char text[80];
                snprintf(text, sizeof text, "%s %s", gantt->module_names[m], tone_names[tone]);
                x = write_sample(file, x, y, colours[(size_t)m % TROUPE_COUNT_OF(colours)][tone],
                                 text);
            }
        }
    }
    if (has_kind(&gantt->schedule, -1, TROUPE_METHOD_REDUCE)) {
        x = write_sample(file, x, y, colour_reduction, "gradient reduction");
    }
    if (has_kind(&gantt->schedule, -1, TROUPE_METHOD_UPDATE)) {
        x = write_sample(file, x, y, colour_update, "update");
    }
    if (gantt->bound_ns > 0) {
        fprintf(file,
                "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
                "stroke-width=\"1.6\" stroke-dasharray=\"5 3\"/>"
                "<text x=\"%.1f\" y=\"%.1f\">T*: no order of these tasks is shorter</text>\n",
                x, y - 4, x + 18, y - 4, colour_bound, x + 24, y);
    }
}

troupe_status troupe_gantt_write_svg(FILE *file, const struct troupe_gantt *gantt) {
    struct scale scale = scale_of(gantt);
    write_head(file, gantt, &scale);
    write_ranks(file, &scale);
    write_axis(file, &scale);
    write_tasks(file, gantt, &scale);
    write_marks(file, gantt, &scale);
    write_legend(file, gantt, &scale);
    fprintf(file, "</svg>\n");
    return fflush(file) == 0 && !ferror(file)
               ? TROUPE_OK
               : troupe_fail(TROUPE_ERROR_IO, "the chart cannot be written");
}

/* ---- the trace ---- */

enum { THREAD_TASKS = 0, THREAD_REDUCTIONS = 1 };

static void write_names(FILE *file, const struct troupe_schedule *schedule) {
    static const char *const threads[] = {"tasks", "reductions"};
    for (int r = 0; r < schedule->graph->rank_count; r++) {
        fprintf(file,
                "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":%d,\"args\":{\"name\":\"rank "
                "%d\"}},\n",
                r, r);
        for (int t = THREAD_TASKS; t <= THREAD_REDUCTIONS; t++) {
            fprintf(file,
                    "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%d,\"tid\":%d,\"args\":"
                    "{\"name\":\"%s\"}},\n",
                    r, t, threads[t]);
        }
    }
}

static void write_event(FILE *file, const struct troupe_gantt *gantt,
                        const struct troupe_task *task, int rank) {
    const struct troupe_method *method = &gantt->schedule.graph->methods[task->method];
    const struct troupe_gang *gang = gang_of(&gantt->schedule, task);
    char name[160];
    snprintf(name, sizeof name, "%s %s %d", gang->name, method->name, task->microbatch);
    fprintf(file, "{\"ph\":\"X\",\"name\":");
    write_json_text(file, name);
    fprintf(file, ",\"cat\":");
    write_json_text(file, gang->module < gantt->module_count ? gantt->module_names[gang->module]
                                                             : method->name);
    fprintf(file,
            ",\"pid\":%d,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,\"args\":{\"microbatch\":%d}},\n",
            rank, method->lane == TROUPE_LANE_REDUCTION ? THREAD_REDUCTIONS : THREAD_TASKS,
            (double)task->begin_ns * 1e-3, (double)(task->end_ns - task->begin_ns) * 1e-3,
            task->microbatch);
}

troupe_status troupe_gantt_write_trace(FILE *file, const struct troupe_gantt *gantt) {
    fprintf(file, "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n");
    write_names(file, &gantt->schedule);
    for (int i = 0; i < gantt->schedule.task_count; i++) {
        const struct troupe_gang *gang = gang_of(&gantt->schedule, &gantt->schedule.tasks[i]);
        for (int k = 0; k < gang->rank_count; k++) {
            write_event(file, gantt, &gantt->schedule.tasks[i], gang->ranks[k]);
        }
    }
    fprintf(file,
            "{\"ph\":\"i\",\"s\":\"g\",\"name\":\"lower bound T*\",\"pid\":0,\"tid\":0,"
            "\"ts\":%.3f}\n]}\n",
            (double)gantt->bound_ns * 1e-3);
    return fflush(file) == 0 && !ferror(file)
               ? TROUPE_OK
               : troupe_fail(TROUPE_ERROR_IO, "the trace cannot be written");
}
