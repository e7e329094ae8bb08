/* SPDX-License-Identifier: Apache-2.0 */
/* Waits end by a notification, by a deadline, and never miss a notification after the key; the
 * ping-pong makes a lost wake-up hang until the test times out. */
#include "runtime/eventcount.h"

#include <pthread.h>
#include <stdatomic.h>

#include "runtime/clock.h"
#include "tests/test.h"

static void clock_goes_forward(void) {
    uint64_t a = troupe_clock_ns(), b = troupe_clock_ns();
    EXPECT(b >= a, "%" PRIu64 " after %" PRIu64, b, a);
    EXPECT_NEAR(troupe_clock_seconds(500000000, 2000000000), 1.5, 1e-12);
    EXPECT_NEAR(troupe_clock_seconds(2000000000, 500000000), -1.5, 1e-12);
}

static void notification_after_the_key_ends_the_wait_at_once(void) {
    struct troupe_eventcount e = {0};
    uint32_t key = troupe_eventcount_key(&e);
    troupe_eventcount_notify(&e);
    EXPECT(troupe_eventcount_wait(&e, key, &(struct troupe_wait_limits){0}));
}

static void wait_ends_at_its_deadline(void) {
    struct troupe_eventcount e = {0};
    uint64_t begin = troupe_clock_ns();
    const struct troupe_wait_limits limits = {.spin_ns = 100000, .park_ns = 5000000};
    EXPECT(!troupe_eventcount_wait(&e, troupe_eventcount_key(&e), &limits));
    EXPECT(troupe_clock_ns() - begin >= 5000000, "came back early");
}

enum { ROUNDS = 5000 };

struct table {
    struct troupe_eventcount turned;
    atomic_int turn;
    int ball; /* plain: ordered by `turn` */
    uint64_t spin_ns;
};

static void play(struct table *t, int side) {
    for (int round = 0; round < ROUNDS; round++) {
        for (;;) {
            uint32_t key = troupe_eventcount_key(&t->turned);
            if (atomic_load_explicit(&t->turn, memory_order_acquire) % 2 == side) {
                break;
            }
            troupe_eventcount_wait(&t->turned, key,
                                   &(struct troupe_wait_limits){.spin_ns = t->spin_ns});
        }
        t->ball++;
        atomic_fetch_add_explicit(&t->turn, 1, memory_order_release);
        troupe_eventcount_notify(&t->turned);
    }
}

static void *play_odd(void *arg) {
    play(arg, 1);
    return NULL;
}

static void ping_pong_loses_no_wake_up(void) {
    static const uint64_t spins[] = {0, 1000, 50000};
    for (int i = 0; i < 3; i++) {
        struct table table = {.spin_ns = spins[i]};
        pthread_t other;
        EXPECT_EQ(pthread_create(&other, NULL, play_odd, &table), 0);
        play(&table, 0);
        pthread_join(other, NULL);
        EXPECT_EQ(table.ball, 2 * ROUNDS);
    }
}

int main(void) {
    TEST(clock_goes_forward);
    TEST(notification_after_the_key_ends_the_wait_at_once);
    TEST(wait_ends_at_its_deadline);
    TEST(ping_pong_loses_no_wake_up);
    return TEST_END();
}
