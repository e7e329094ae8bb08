/* SPDX-License-Identifier: Apache-2.0
 *
 * Assertions for programmer errors: always compiled in, they print the values and abort.
 * TROUPE_DEBUG_ASSERT is for hot loops and vanishes with NDEBUG. Conditions have no side effects.
 *
 *     TROUPE_ASSERT(port < actor->port_count, "port %d of %d", port, actor->port_count);
 *
 * Ownership: none. Threads: any. Failure: does not return.
 */
#ifndef TROUPE_RUNTIME_CHECK_H
#define TROUPE_RUNTIME_CHECK_H

#ifdef __cplusplus
extern "C" {
#endif

/* Prints "file:line: function: assertion `condition' failed: message" to stderr and aborts. */
void troupe_check_failed(const char *file, int line, const char *function, const char *condition,
                         const char *format, ...)
    __attribute__((noreturn, cold, format(printf, 5, 6)));

#define TROUPE_ASSERT(condition, ...)                                                              \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0)) {                                                   \
            troupe_check_failed(__FILE__, __LINE__, __func__, #condition, __VA_ARGS__);            \
        }                                                                                          \
    } while (0)

#ifdef NDEBUG
#define TROUPE_DEBUG_ASSERT(condition, ...)                                                        \
    do {                                                                                           \
        (void)sizeof(condition);                                                                   \
    } while (0)
#else
#define TROUPE_DEBUG_ASSERT(condition, ...) TROUPE_ASSERT(condition, __VA_ARGS__)
#endif

#define TROUPE_COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#ifdef __cplusplus
}
#endif
#endif
