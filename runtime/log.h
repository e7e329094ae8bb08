/* SPDX-License-Identifier: Apache-2.0
 *
 * Leveled logging to stderr, one line a message:
 *
 *     TROUPE_LOG_INFO("comm", "peer %d lost after %d ms", peer, ms);
 *     12:03:44.120 r2 comm: peer 3 lost after 5000 ms
 *
 * Lower case, values as words, no trailing full stop. Debug volume is proportional to objects,
 * trace to operations; nothing above DEBUG per training step. The level comes from
 * TROUPE_LOG (error, warn, info, debug, trace; default warn).
 *
 * Ownership: none. Threads: any; a line is written in one call. Failure: none; errno is preserved.
 */
#ifndef TROUPE_RUNTIME_LOG_H
#define TROUPE_RUNTIME_LOG_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum troupe_log_level {
    TROUPE_LEVEL_ERROR,
    TROUPE_LEVEL_WARN,
    TROUPE_LEVEL_INFO,
    TROUPE_LEVEL_DEBUG,
    TROUPE_LEVEL_TRACE,
};

void troupe_log_set_level(enum troupe_log_level level);
bool troupe_log_enabled(enum troupe_log_level level);
/* The rank printed by this thread's lines; -1 (the start value) prints none. */
void troupe_log_set_rank(int rank);
void troupe_log_write(enum troupe_log_level level, const char *subsystem, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define TROUPE_LOG_AT(level, subsystem, ...)                                                       \
    do {                                                                                           \
        if (troupe_log_enabled(level)) {                                                           \
            troupe_log_write(level, subsystem, __VA_ARGS__);                                       \
        }                                                                                          \
    } while (0)
#define TROUPE_LOG_ERROR(subsystem, ...) TROUPE_LOG_AT(TROUPE_LEVEL_ERROR, subsystem, __VA_ARGS__)
#define TROUPE_LOG_WARN(subsystem, ...)  TROUPE_LOG_AT(TROUPE_LEVEL_WARN, subsystem, __VA_ARGS__)
#define TROUPE_LOG_INFO(subsystem, ...)  TROUPE_LOG_AT(TROUPE_LEVEL_INFO, subsystem, __VA_ARGS__)
#define TROUPE_LOG_DEBUG(subsystem, ...) TROUPE_LOG_AT(TROUPE_LEVEL_DEBUG, subsystem, __VA_ARGS__)
#define TROUPE_LOG_TRACE(subsystem, ...) TROUPE_LOG_AT(TROUPE_LEVEL_TRACE, subsystem, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
