/* SPDX-License-Identifier: Apache-2.0 */
/* Rings keep order, refuse when full, and carry plain payloads between threads; under the thread
 * sanitizer the payload checks that push happens before pop and that nothing else is hidden. */
#include "runtime/ring.h"

#include <pthread.h>
#include <sched.h>

#include "tests/test.h"

static const enum troupe_ring_mode modes[] = {TROUPE_RING_SPSC, TROUPE_RING_MPSC};

static void objects_come_out_in_order_and_a_full_ring_refuses(void) {
    for (int m = 0; m < 2; m++) {
        struct troupe_ring ring;
        EXPECT_OK(troupe_ring_init(&ring, modes[m], 5));
        int objects[8];
        EXPECT_EQ(troupe_ring_capacity(&ring), 7);
        for (int round = 0; round < 3; round++) {
            EXPECT(troupe_ring_is_empty(&ring));
            for (int i = 0; i < 7; i++) {
                EXPECT(troupe_ring_push(&ring, &objects[i]));
            }
            EXPECT(!troupe_ring_push(&ring, &objects[7]));
            EXPECT(!troupe_ring_is_empty(&ring));
            for (int i = 0; i < 7; i++) {
                EXPECT(troupe_ring_pop(&ring) == &objects[i], "object %d", i);
            }
            EXPECT(troupe_ring_pop(&ring) == NULL);
        }
        troupe_ring_fini(&ring);
    }
}

static void impossible_capacities_are_refused(void) {
    struct troupe_ring ring;
    EXPECT_ERROR(troupe_ring_init(&ring, TROUPE_RING_SPSC, 0), TROUPE_ERROR_INVALID, "0 objects");
    EXPECT_ERROR(troupe_ring_init(&ring, TROUPE_RING_SPSC, SIZE_MAX), TROUPE_ERROR_INVALID,
                 "possible");
}

enum { PRODUCERS_MAX = 3, MESSAGES = 20000 };

struct message {
    int producer;
    int number; /* plain: only the ring orders it */
};

struct producer {
    struct troupe_ring *ring;
    int index;
    struct message *messages;
};

static void *produce(void *arg) {
    struct producer *p = arg;
    for (int i = 0; i < MESSAGES; i++) {
        p->messages[i] = (struct message){.producer = p->index, .number = i};
        while (!troupe_ring_push(p->ring, &p->messages[i])) {
            sched_yield();
        }
    }
    return NULL;
}

/* The ring is so large that few turns of the threads suffice, on a busy machine, too. */
static void carry(enum troupe_ring_mode mode, int producer_count) {
    struct troupe_ring ring;
    EXPECT_OK(troupe_ring_init(&ring, mode, 1023));
    struct producer producers[PRODUCERS_MAX];
    pthread_t threads[PRODUCERS_MAX];
    for (int i = 0; i < producer_count; i++) {
        producers[i] = (struct producer){.ring = &ring, .index = i};
        EXPECT_OK(TROUPE_NEW(&producers[i].messages, MESSAGES));
        EXPECT_EQ(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
    }
    int expected[PRODUCERS_MAX] = {0};
    for (int left = producer_count * MESSAGES; left > 0;) {
        struct message *m = troupe_ring_pop(&ring);
        if (m == NULL) {
            sched_yield();
            continue;
        }
        EXPECT_EQ(m->number, expected[m->producer]);
        expected[m->producer]++;
        m->number = -1; /* ours now */
        left--;
    }
    EXPECT(troupe_ring_pop(&ring) == NULL);
    for (int i = 0; i < producer_count; i++) {
        pthread_join(threads[i], NULL);
        troupe_free(producers[i].messages);
    }
    troupe_ring_fini(&ring);
}

static void one_producer_delivers_all_in_order(void) {
    carry(TROUPE_RING_SPSC, 1);
}

static void many_producers_deliver_all_in_order_of_each(void) {
    carry(TROUPE_RING_MPSC, PRODUCERS_MAX);
}

int main(void) {
    TEST(objects_come_out_in_order_and_a_full_ring_refuses);
    TEST(impossible_capacities_are_refused);
    TEST(one_producer_delivers_all_in_order);
    TEST(many_producers_deliver_all_in_order_of_each);
    return TEST_END();
}
