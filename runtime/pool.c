/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/pool.h"

#include <stdbool.h>

#include "runtime/check.h"
#include "runtime/memory.h"

struct troupe_pool {
    size_t object_bytes; /* rounded up to cache lines */
    size_t count;
    char *objects;
    void **free_objects; /* a stack: free_count of them */
    size_t free_count;
    bool *taken; /* by object index: finds an object that is given twice */
};

troupe_status troupe_pool_create(const struct troupe_pool_options *options, troupe_pool **out) {
    TROUPE_ASSERT(options->object_bytes > 0, "objects of 0 bytes");
    troupe_pool *pool = NULL;
    TROUPE_TRY(TROUPE_NEW(&pool, 1));
    pool->object_bytes =
        (options->object_bytes + TROUPE_CACHE_LINE - 1) / TROUPE_CACHE_LINE * TROUPE_CACHE_LINE;
    pool->count = options->count;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY_FAIL(troupe_alloc(pool->count, pool->object_bytes, (void **)&pool->objects));
    TROUPE_TRY_FAIL(TROUPE_NEW(&pool->free_objects, pool->count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&pool->taken, pool->count));
    for (size_t i = pool->count; i-- > 0;) { /* the first object is taken first */
        pool->free_objects[pool->free_count++] = pool->objects + i * pool->object_bytes;
    }
    *out = pool;
    return TROUPE_OK;
fail:
    troupe_pool_destroy(pool);
    return status;
}

void troupe_pool_destroy(troupe_pool *pool) {
    if (pool == NULL) {
        return;
    }
    troupe_free(pool->taken);
    troupe_free(pool->free_objects);
    troupe_free(pool->objects);
    troupe_free(pool);
}

static size_t index_of(const troupe_pool *pool, const void *object) {
    size_t offset = (size_t)((const char *)object - pool->objects);
    TROUPE_ASSERT(offset % pool->object_bytes == 0 && offset / pool->object_bytes < pool->count,
                  "%p is not an object of this pool", object);
    return offset / pool->object_bytes;
}

void *troupe_pool_take(troupe_pool *pool) {
    if (pool->free_count == 0) {
        return NULL;
    }
    void *object = pool->free_objects[--pool->free_count];
    pool->taken[index_of(pool, object)] = true;
    return object;
}

void troupe_pool_give(troupe_pool *pool, void *object) {
    size_t index = index_of(pool, object);
    TROUPE_ASSERT(pool->taken[index], "object %zu was given back twice", index);
    pool->taken[index] = false;
    pool->free_objects[pool->free_count++] = object;
}

size_t troupe_pool_free_count(const troupe_pool *pool) {
    return pool->free_count;
}
