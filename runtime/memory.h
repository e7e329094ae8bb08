/* SPDX-License-Identifier: Apache-2.0
 *
 * Host memory with phases. Startup and shutdown may allocate; the steady state (training) may not:
 * a thread that has called troupe_memory_set_steady(true) aborts if it allocates, naming the size.
 * Steady-state objects come from arenas and pools sized from the plan.
 *
 *     float *x = NULL;
 *     TROUPE_TRY(TROUPE_NEW(&x, rows * columns));      (zeroed, 64-byte aligned)
 *     troupe_free(x);
 *
 * Ownership: the caller frees with troupe_free. Threads: any; the phase is per thread.
 * Failure: TROUPE_ERROR_MEMORY, *out untouched, text names the bytes.
 */
#ifndef TROUPE_RUNTIME_MEMORY_H
#define TROUPE_RUNTIME_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TROUPE_CACHE_LINE = 64 };

/* count * bytes, zeroed, aligned to a cache line; count 0 gives a unique pointer. */
troupe_status troupe_alloc(size_t count, size_t bytes, void **out);
/* Accepts NULL. */
void troupe_free(void *memory);

#define TROUPE_NEW(out, count) troupe_alloc((size_t)(count), sizeof(**(out)), (void **)(out))

/* Copy of a string. */
troupe_status troupe_string_copy(const char *text, char **out);

/* Enters or leaves the steady phase on this thread. */
void troupe_memory_set_steady(bool steady);
bool troupe_memory_is_steady(void);

/* For tests of what happens when memory runs out: on this thread `count` more allocations succeed,
 * then one fails. Negative: none fails. Returns how many were still to succeed, negative if the
 * failure has happened or none was asked for. */
int64_t troupe_memory_fail_after(int64_t count);

#ifdef __cplusplus
}
#endif
#endif
