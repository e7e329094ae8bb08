/* SPDX-License-Identifier: Apache-2.0
 *
 * Bump allocation from one slab whose size a plan has computed: pieces are taken one after another
 * and given back all at once. The arena never touches the memory, so the slab may be device memory.
 *
 *     struct troupe_arena arena;
 *     troupe_arena_init(&arena, slab, slab_bytes);
 *     TROUPE_TRY(troupe_arena_take(&arena, rows * columns * 4, (void **)&x));
 *     troupe_arena_reset(&arena);
 *
 * Ownership: the slab is the caller's and outlives the pieces. Threads: one at a time.
 * Failure: ERROR_MEMORY when the slab is used up, *out untouched, nothing taken.
 */
#ifndef TROUPE_RUNTIME_ARENA_H
#define TROUPE_RUNTIME_ARENA_H

#include <stddef.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Pieces start at multiples of this from the slab's begin: enough for any kernel on any device. */
enum { TROUPE_ARENA_ALIGNMENT = 256 };

struct troupe_arena {
    char *slab;
    size_t bytes;
    size_t used;
    size_t used_max; /* since init */
};

/* What a piece of `bytes` uses of the slab: a plan adds these up. */
size_t troupe_arena_piece_bytes(size_t bytes);

void troupe_arena_init(struct troupe_arena *arena, void *slab, size_t bytes);
/* Never calls the system; contents are whatever was there. */
troupe_status troupe_arena_take(struct troupe_arena *arena, size_t bytes, void **out);
/* Gives back every piece. */
void troupe_arena_reset(struct troupe_arena *arena);

#ifdef __cplusplus
}
#endif
#endif
