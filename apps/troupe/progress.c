/* SPDX-License-Identifier: Apache-2.0 */
#include "apps/troupe/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "runtime/clock.h"

static const uint64_t terminal_ns = 100 * 1000 * 1000, lines_ns = 2000 * 1000 * 1000ull;

static bool rewrites(const struct progress *progress) {
    return !progress->lines && isatty(STDOUT_FILENO);
}

static void print(const struct progress *progress, bool last, const char *format, va_list args) {
    printf("%s", rewrites(progress) ? "\r\033[K" : "");
    vprintf(format, args);
    printf("%s", !rewrites(progress) || last ? "\n" : "");
    fflush(stdout);
}

void progress_show(struct progress *progress, const char *format, ...) {
    uint64_t now_ns = troupe_clock_ns();
    uint64_t pause_ns = rewrites(progress) ? terminal_ns : lines_ns;
    if (progress->shown_ns != 0 && now_ns - progress->shown_ns < pause_ns) {
        return;
    }
    progress->shown_ns = now_ns;
    va_list args;
    va_start(args, format);
    print(progress, false, format, args);
    va_end(args);
}

void progress_end(struct progress *progress, const char *format, ...) {
    progress->shown_ns = 0;
    va_list args;
    va_start(args, format);
    print(progress, true, format, args);
    va_end(args);
}
