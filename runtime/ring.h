/* SPDX-License-Identifier: Apache-2.0
 *
 * A bounded lock-free queue of pointers, one consumer, over Concurrency Kit's ck_ring. This is the
 * only file that includes ck; it is C only, so a header never includes it: hide the ring behind an
 * opaque type.
 *
 *     struct troupe_ring ring;
 *     TROUPE_TRY(troupe_ring_init(&ring, TROUPE_RING_MPSC, 256));
 *     if (!troupe_ring_push(&ring, message)) { ... full: later ... }
 *     struct message *m = troupe_ring_pop(&ring);
 *
 * Ownership: init/fini by the owner of the struct; a pushed object belongs to the ring until
 * popped. Threads: one consumer; one producer (SPSC) or many (MPSC), fixed at init. What the
 * producer wrote before push is visible after pop. Failure: init returns ERROR_MEMORY or
 * ERROR_INVALID; a full ring refuses, an empty one returns NULL.
 */
#ifndef TROUPE_RUNTIME_RING_H
#define TROUPE_RUNTIME_RING_H

#include <ck_pr.h>
#include <ck_ring.h>
#include <stdbool.h>
#include <stddef.h>

#include "runtime/memory.h"
#include "runtime/status.h"

/* ThreadSanitizer understands neither ck's assembly nor its fences. The wrapper hides ck's own
 * accesses and states the one order a ring gives: push of an object before its pop. A race in the
 * object's contents is still found. */
#ifdef __SANITIZE_THREAD__
#define TROUPE_RING_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TROUPE_RING_TSAN 1
#endif
#endif

#ifdef TROUPE_RING_TSAN
void __tsan_acquire(void *address);
void __tsan_release(void *address);
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);

#define TROUPE_RING_PUBLISH(object) __tsan_release(object)
#define TROUPE_RING_OBTAIN(object)  __tsan_acquire(object)
#define TROUPE_RING_IGNORE_BEGIN()                                                                 \
    (AnnotateIgnoreReadsBegin(__FILE__, __LINE__), AnnotateIgnoreWritesBegin(__FILE__, __LINE__))
#define TROUPE_RING_IGNORE_END()                                                                   \
    (AnnotateIgnoreWritesEnd(__FILE__, __LINE__), AnnotateIgnoreReadsEnd(__FILE__, __LINE__))
#else
#define TROUPE_RING_PUBLISH(object) ((void)(object))
#define TROUPE_RING_OBTAIN(object)  ((void)(object))
#define TROUPE_RING_IGNORE_BEGIN()  ((void)0)
#define TROUPE_RING_IGNORE_END()    ((void)0)
#endif

enum troupe_ring_mode { TROUPE_RING_SPSC, TROUPE_RING_MPSC };

enum { TROUPE_RING_CAPACITY_MAX = (1 << 30) - 1 };

struct troupe_ring {
    ck_ring_t ring;
    ck_ring_buffer_t *slots;
    enum troupe_ring_mode mode; /* for life: ck's two ways to push must not be mixed */
};

/* Room for at least `capacity` objects: rounded up to a power of two less one. */
static inline troupe_status troupe_ring_init(struct troupe_ring *ring, enum troupe_ring_mode mode,
                                             size_t capacity) {
    if (capacity == 0 || capacity > TROUPE_RING_CAPACITY_MAX) {
        return troupe_fail(TROUPE_ERROR_INVALID, "a ring of %zu objects; 1 to %d are possible",
                           capacity, TROUPE_RING_CAPACITY_MAX);
    }
    unsigned int slots = 2;
    while (slots - 1 < capacity) {
        slots *= 2;
    }
    TROUPE_TRY(TROUPE_NEW(&ring->slots, slots));
    ck_ring_init(&ring->ring, slots);
    ring->mode = mode;
    return TROUPE_OK;
}

/* Objects still inside are forgotten. */
static inline void troupe_ring_fini(struct troupe_ring *ring) {
    troupe_free(ring->slots);
    ring->slots = NULL;
}

static inline size_t troupe_ring_capacity(const struct troupe_ring *ring) {
    return ck_ring_capacity(&ring->ring) - 1;
}

/* False when full. With many producers it may wait for a slower one that is between its two
 * steps: short, but not wait-free. `object` is not NULL. */
static inline bool troupe_ring_push(struct troupe_ring *ring, void *object) {
    TROUPE_RING_PUBLISH(object);
    TROUPE_RING_IGNORE_BEGIN();
    bool pushed = ring->mode == TROUPE_RING_SPSC
                      ? ck_ring_enqueue_spsc(&ring->ring, ring->slots, object)
                      : ck_ring_enqueue_mpsc(&ring->ring, ring->slots, object);
    TROUPE_RING_IGNORE_END();
    return pushed;
}

/* The oldest object, or NULL when empty. */
static inline void *troupe_ring_pop(struct troupe_ring *ring) {
    void *object = NULL;
    TROUPE_RING_IGNORE_BEGIN();
    bool popped = ring->mode == TROUPE_RING_SPSC
                      ? ck_ring_dequeue_spsc(&ring->ring, ring->slots, &object)
                      : ck_ring_dequeue_mpsc(&ring->ring, ring->slots, &object);
    TROUPE_RING_IGNORE_END();
    if (!popped) {
        return NULL;
    }
    TROUPE_RING_OBTAIN(object);
    return object;
}

/* A look that may be out of date at once; exact for the consumer only in that "not empty" stays. */
static inline bool troupe_ring_is_empty(const struct troupe_ring *ring) {
    TROUPE_RING_IGNORE_BEGIN();
    bool empty = ck_ring_size(&ring->ring) == 0;
    TROUPE_RING_IGNORE_END();
    return empty;
}

/* A full fence: between a push and a look whether the consumer sleeps, and in the consumer between
 * saying so and a last look into the ring; one of the two then sees the other. */
static inline void troupe_ring_fence(void) {
    ck_pr_fence_memory();
}

#endif
