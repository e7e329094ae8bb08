/* SPDX-License-Identifier: Apache-2.0 */
/* An inbox gives everything, oldest first, and carries plain payloads between threads; under the
 * thread sanitizer the payload checks that put happens before take and that nothing is hidden. */
#include "runtime/inbox.h"

#include <pthread.h>
#include <sched.h>

#include "runtime/list.h"
#include "runtime/memory.h"
#include "tests/test.h"

enum { PRODUCERS = 3, MESSAGES = 20000 };

struct message {
    int producer;
    int number; /* plain: only the inbox orders it */
    struct troupe_inbox_link link;
};

static struct message *message_of(struct troupe_inbox_link *link) {
    return TROUPE_CONTAINER_OF(link, struct message, link);
}

static void take_gives_all_oldest_first(void) {
    struct troupe_inbox inbox = {0};
    struct message messages[5];
    for (int round = 0; round < 3; round++) {
        EXPECT(troupe_inbox_is_empty(&inbox));
        EXPECT(troupe_inbox_take(&inbox) == NULL);
        for (int i = 0; i < 5; i++) {
            troupe_inbox_put(&inbox, &messages[i].link);
        }
        EXPECT(!troupe_inbox_is_empty(&inbox));
        struct troupe_inbox_link *link = troupe_inbox_take(&inbox);
        for (int i = 0; i < 5; i++, link = troupe_inbox_next(link)) {
            EXPECT(message_of(link) == &messages[i], "message %d", i);
        }
        EXPECT(link == NULL);
    }
}

struct producer {
    struct troupe_inbox *inbox;
    int index;
    struct message *messages;
};

static void *produce(void *arg) {
    struct producer *p = arg;
    for (int i = 0; i < MESSAGES; i++) {
        p->messages[i] = (struct message){.producer = p->index, .number = i};
        troupe_inbox_put(p->inbox, &p->messages[i].link);
    }
    return NULL;
}

/* The number of messages taken; each producer's come in its order. */
static int receive(struct troupe_inbox *inbox, int *expected) {
    int count = 0;
    for (struct troupe_inbox_link *next, *link = troupe_inbox_take(inbox); link != NULL;
         link = next) {
        next = troupe_inbox_next(link);
        struct message *m = message_of(link);
        EXPECT_EQ(m->number, expected[m->producer]);
        expected[m->producer]++;
        m->number = -1; /* ours now */
        count++;
    }
    return count;
}

static void many_producers_deliver_all_in_order_of_each(void) {
    struct troupe_inbox inbox = {0};
    struct producer producers[PRODUCERS];
    pthread_t threads[PRODUCERS];
    for (int i = 0; i < PRODUCERS; i++) {
        producers[i] = (struct producer){.inbox = &inbox, .index = i};
        EXPECT_OK(TROUPE_NEW(&producers[i].messages, MESSAGES));
        EXPECT_EQ(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
    }
    int expected[PRODUCERS] = {0};
    for (int left = PRODUCERS * MESSAGES; left > 0;) {
        int count = receive(&inbox, expected);
        left -= count;
        if (count == 0) {
            sched_yield();
        }
    }
    EXPECT(troupe_inbox_is_empty(&inbox));
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(threads[i], NULL);
        troupe_free(producers[i].messages);
    }
}

int main(void) {
    TEST(take_gives_all_oldest_first);
    TEST(many_producers_deliver_all_in_order_of_each);
    return TEST_END();
}
