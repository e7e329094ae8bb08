/* SPDX-License-Identifier: Apache-2.0
 *
 * A fixed number of equal objects, allocated at start and handed out in the steady state without
 * touching the system. Last given back, first taken: it is still in the cache.
 *
 *     const struct troupe_pool_options options = {.object_bytes = sizeof(struct op), .count = 64};
 *     TROUPE_TRY(troupe_pool_create(&options, &pool));
 *     struct op *op = troupe_pool_take(pool);      (NULL when all are out)
 *     troupe_pool_give(pool, op);
 *
 * Ownership: create/destroy by one owner; a taken object is the taker's until given back.
 * Threads: one at a time. Failure: create returns ERROR_MEMORY; a foreign pointer or one given
 * twice aborts. Objects keep their contents between uses, zero at first.
 */
#ifndef TROUPE_RUNTIME_POOL_H
#define TROUPE_RUNTIME_POOL_H

#include <stddef.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_pool troupe_pool;

struct troupe_pool_options {
    size_t object_bytes; /* each object starts on a cache line */
    size_t count;
};

troupe_status troupe_pool_create(const struct troupe_pool_options *options, troupe_pool **out);
void troupe_pool_destroy(troupe_pool *pool);
/* An object, or NULL when all are out. */
void *troupe_pool_take(troupe_pool *pool);
void troupe_pool_give(troupe_pool *pool, void *object);
/* Objects that can be taken now. */
size_t troupe_pool_free_count(const troupe_pool *pool);

#ifdef __cplusplus
}
#endif
#endif
