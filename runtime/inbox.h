/* SPDX-License-Identifier: Apache-2.0
 *
 * What many threads put and one takes, all at once and oldest first: Concurrency Kit's stack,
 * turned round when it is taken. Unbounded, for the links lie inside the objects; a put waits for
 * nobody. C only: a header that others include does not include it.
 *
 *     struct message { struct troupe_inbox_link link; int number; };
 *     troupe_inbox_put(&inbox, &message->link);
 *     for (struct troupe_inbox_link *next, *link = troupe_inbox_take(&inbox); link != NULL; link =
 * next) { next = troupe_inbox_next(link); handle(TROUPE_CONTAINER_OF(link, struct message, link));
 *     }
 *
 * Ownership: the struct is the caller's; all-zero is empty. An object belongs to the inbox from put
 * to take. Threads: any put, one takes. What was written before put is visible after take.
 * Failure: none; an empty inbox gives NULL.
 */
#ifndef TROUPE_RUNTIME_INBOX_H
#define TROUPE_RUNTIME_INBOX_H

#include <ck_pr.h>
#include <ck_stack.h>
#include <stdbool.h>
#include <stddef.h>

#include "runtime/sanitizer.h"

struct troupe_inbox {
    ck_stack_t stack;
};

struct troupe_inbox_link {
    ck_stack_entry_t entry;
};

static inline void troupe_inbox_put(struct troupe_inbox *inbox, struct troupe_inbox_link *link) {
    TROUPE_SANITIZER_RELEASE(&link->entry);
    TROUPE_SANITIZER_IGNORE_BEGIN();
    ck_stack_push_upmc(&inbox->stack, &link->entry);
    TROUPE_SANITIZER_IGNORE_END();
}

static inline struct troupe_inbox_link *troupe_inbox_take(struct troupe_inbox *inbox) {
    ck_stack_entry_t *newest = ck_stack_batch_pop_upmc(&inbox->stack), *oldest = NULL;
    while (newest != NULL) {
        TROUPE_SANITIZER_ACQUIRE(newest);
        ck_stack_entry_t *older = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = older;
    }
    return (struct troupe_inbox_link *)oldest;
}

/* The one behind it of those taken with it; NULL: the last. */
static inline struct troupe_inbox_link *troupe_inbox_next(const struct troupe_inbox_link *link) {
    return (struct troupe_inbox_link *)link->entry.next;
}

/* A look that may be out of date at once; for who takes, "not empty" stays. */
static inline bool troupe_inbox_is_empty(const struct troupe_inbox *inbox) {
    return ck_pr_load_ptr(&inbox->stack.head) == NULL;
}

#endif
