/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/check.h"

static _Thread_local bool steady_phase;
static _Thread_local int64_t successes_left = -1; /* before a failure that a test asked for */

troupe_status troupe_alloc(size_t count, size_t bytes, void **out) {
    TROUPE_ASSERT(!steady_phase, "allocation of %zu x %zu bytes in the steady phase", count, bytes);
    size_t total = 0;
    if (__builtin_mul_overflow(count, bytes, &total) || total > SIZE_MAX - TROUPE_CACHE_LINE) {
        return troupe_fail(TROUPE_ERROR_MEMORY, "%zu objects of %zu bytes exceed the address space",
                           count, bytes);
    }
    size_t rounded = (total + TROUPE_CACHE_LINE) / TROUPE_CACHE_LINE * TROUPE_CACHE_LINE;
    bool refused = successes_left >= 0 && successes_left-- == 0;
    void *memory = refused ? NULL : aligned_alloc(TROUPE_CACHE_LINE, rounded);
    if (memory == NULL) {
        return troupe_fail(TROUPE_ERROR_MEMORY, "the system refused %zu bytes of host memory",
                           rounded);
    }
    memset(memory, 0, rounded);
    *out = memory;
    return TROUPE_OK;
}

void troupe_free(void *memory) {
    free(memory);
}

troupe_status troupe_string_copy(const char *text, char **out) {
    size_t bytes = strlen(text) + 1;
    char *copy = NULL;
    TROUPE_TRY(TROUPE_NEW(&copy, bytes));
    memcpy(copy, text, bytes);
    *out = copy;
    return TROUPE_OK;
}

void troupe_memory_set_steady(bool steady) {
    steady_phase = steady;
}

bool troupe_memory_is_steady(void) {
    return steady_phase;
}

int64_t troupe_memory_fail_after(int64_t count) {
    int64_t left = successes_left;
    successes_left = count;
    return left;
}
