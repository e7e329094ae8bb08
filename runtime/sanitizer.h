/* SPDX-License-Identifier: Apache-2.0
 *
 * What ThreadSanitizer is told about Concurrency Kit, whose assembly and fences it does not see:
 * the order that a handing over makes, and which of ck's own accesses are none of ours. Races in
 * what is handed over are still found. C only.
 *
 *     TROUPE_SANITIZER_RELEASE(entry);          TROUPE_SANITIZER_IGNORE_BEGIN();
 *                                               ck_stack_push_upmc(&stack, entry);
 *                                               TROUPE_SANITIZER_IGNORE_END();
 *     ck_stack_entry_t *entry = ck_stack_pop_upmc(&stack);
 *     TROUPE_SANITIZER_ACQUIRE(entry);
 *
 * Ownership: none. Threads: any. Failure: none; without ThreadSanitizer nothing happens.
 */
#ifndef TROUPE_RUNTIME_SANITIZER_H
#define TROUPE_RUNTIME_SANITIZER_H

#ifdef __SANITIZE_THREAD__
#define TROUPE_SANITIZER_THREADS 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TROUPE_SANITIZER_THREADS 1
#endif
#endif

#ifdef TROUPE_SANITIZER_THREADS
void __tsan_acquire(void *address);
void __tsan_release(void *address);
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);

#define TROUPE_SANITIZER_RELEASE(address) __tsan_release((void *)(address))
#define TROUPE_SANITIZER_ACQUIRE(address) __tsan_acquire((void *)(address))
#define TROUPE_SANITIZER_IGNORE_BEGIN()                                                            \
    (AnnotateIgnoreReadsBegin(__FILE__, __LINE__), AnnotateIgnoreWritesBegin(__FILE__, __LINE__))
#define TROUPE_SANITIZER_IGNORE_END()                                                              \
    (AnnotateIgnoreWritesEnd(__FILE__, __LINE__), AnnotateIgnoreReadsEnd(__FILE__, __LINE__))
#else
#define TROUPE_SANITIZER_RELEASE(address) ((void)(address))
#define TROUPE_SANITIZER_ACQUIRE(address) ((void)(address))
#define TROUPE_SANITIZER_IGNORE_BEGIN()   ((void)0)
#define TROUPE_SANITIZER_IGNORE_END()     ((void)0)
#endif

#endif
