/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/arena.h"

#include <stdint.h>

size_t troupe_arena_piece_bytes(size_t bytes) {
    if (bytes > SIZE_MAX - TROUPE_ARENA_ALIGNMENT) {
        return SIZE_MAX; /* fits no slab */
    }
    return (bytes + TROUPE_ARENA_ALIGNMENT - 1) / TROUPE_ARENA_ALIGNMENT * TROUPE_ARENA_ALIGNMENT;
}

void troupe_arena_init(struct troupe_arena *arena, void *slab, size_t bytes) {
    *arena = (struct troupe_arena){.slab = slab, .bytes = bytes};
}

troupe_status troupe_arena_take(struct troupe_arena *arena, size_t bytes, void **out) {
    size_t piece = troupe_arena_piece_bytes(bytes);
    if (piece > arena->bytes - arena->used) {
        return troupe_fail(TROUPE_ERROR_MEMORY,
                           "an arena of %zu bytes with %zu in use has no room for %zu more; the "
                           "plan that sized it left them out",
                           arena->bytes, arena->used, bytes);
    }
    *out = arena->slab + arena->used;
    arena->used += piece;
    if (arena->used > arena->used_max) {
        arena->used_max = arena->used;
    }
    return TROUPE_OK;
}

void troupe_arena_reset(struct troupe_arena *arena) {
    arena->used = 0;
}
