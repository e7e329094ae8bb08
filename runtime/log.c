/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

enum { LINE_BYTES = 2048 };

static atomic_int log_level = TROUPE_LEVEL_WARN; /* relaxed: a late change only delays a line */
static _Thread_local int log_rank = -1;

void troupe_log_set_level(enum troupe_log_level level) {
    atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

bool troupe_log_enabled(enum troupe_log_level level) {
    return (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

void troupe_log_set_rank(int rank) {
    log_rank = rank;
}

void troupe_log_write(enum troupe_log_level level, const char *subsystem, const char *format, ...) {
    static const char *const prefix[] = {"error: ", "warning: ", "", "", ""};
    int saved_errno = errno;
    char line[LINE_BYTES];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm local;
    localtime_r(&now.tv_sec, &local);
    int used = snprintf(line, sizeof line, "%02d:%02d:%02d.%03ld ", local.tm_hour, local.tm_min,
                        local.tm_sec, now.tv_nsec / 1000000);
    if (log_rank >= 0) {
        used += snprintf(line + used, sizeof line - (size_t)used, "r%d ", log_rank);
    }
    used += snprintf(line + used, sizeof line - (size_t)used, "%s: %s", subsystem, prefix[level]);
    va_list args;
    va_start(args, format);
    int text = vsnprintf(line + used, sizeof line - (size_t)used - 1, format, args);
    va_end(args);
    int room = LINE_BYTES - used - 2;
    used += text < room ? text : room;
    line[used++] = '\n';
    fwrite(line, 1, (size_t)used, stderr);
    errno = saved_errno;
}
