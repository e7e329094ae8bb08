/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated device: as late as a GPU, and in the order of streams and events. */
#include "runtime/device_sim.h"

#include <sys/wait.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/device.h"
#include "runtime/device_share.h"
#include "tests/test.h"

enum { WORDS = 1000, ROUNDS = 200 };

static troupe_device *device;
static troupe_stream *stream, *other;
static troupe_event *event;

static uint64_t *new_words(size_t count) {
    uint64_t *words = NULL;
    EXPECT_OK(troupe_device_alloc(device, count * sizeof *words, (void **)&words));
    return words;
}

struct put {
    uint64_t *to;
    const uint64_t *from; /* NULL: the value */
    uint64_t value;
};

static troupe_status run_put(const void *payload) {
    const struct put *put = payload; /* atomic: one test leaves out what keeps streams apart */
    uint64_t value = put->from != NULL ? __atomic_load_n(put->from, __ATOMIC_RELAXED) : put->value;
    __atomic_store_n(put->to, value, __ATOMIC_RELAXED);
    return TROUPE_OK;
}

static void it_is_no_host(void) {
    EXPECT(!troupe_device_is_host(device));
    EXPECT_EQ(troupe_device_kind(device), TROUPE_DEVICE_SIM);
    EXPECT_STRING(troupe_device_name(device), "sim");
}

/* The host runs ahead: with delays, an event is not complete for a while, and then for good. */
static void events_complete_later(void) {
    uint64_t *word = new_words(1);
    int early = 0;
    EXPECT_OK(troupe_event_query(event));
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        struct put put = {.to = word, .value = i};
        troupe_status status = TROUPE_AGAIN;
        EXPECT_OK(troupe_sim_enqueue(stream, run_put, &put, sizeof put));
        EXPECT_OK(troupe_event_record(event, stream));
        early += troupe_event_query(event) == TROUPE_AGAIN;
        while ((status = troupe_event_query(event)) == TROUPE_AGAIN) {
        }
        EXPECT_OK(status);
        EXPECT_EQ(*word, i);
    }
    EXPECT(early > 0, "no event of %d was late", ROUNDS);
    troupe_device_free(device, word);
}

/* One stream writes, the other copies what it wrote; back and forth through two events. */
static void streams_wait_for_events(void) {
    uint64_t *word = new_words(1), *copies = new_words(ROUNDS);
    troupe_event *taken = NULL;
    EXPECT_OK(troupe_event_create(device, &taken));
    for (uint64_t i = 0; i < ROUNDS; i++) {
        struct put put = {.to = word, .value = i}, take = {.to = &copies[i], .from = word};
        EXPECT_OK(troupe_stream_wait(stream, taken));
        EXPECT_OK(troupe_sim_enqueue(stream, run_put, &put, sizeof put));
        EXPECT_OK(troupe_event_record(event, stream));
        EXPECT_OK(troupe_stream_wait(other, event));
        EXPECT_OK(troupe_sim_enqueue(other, run_put, &take, sizeof take));
        EXPECT_OK(troupe_event_record(taken, other));
    }
    EXPECT_OK(troupe_stream_synchronize(other));
    for (uint64_t i = 0; i < ROUNDS; i++) {
        EXPECT_EQ(copies[i], i);
    }
    troupe_event_destroy(taken);
    troupe_device_free(device, copies);
    troupe_device_free(device, word);
}

/* Without the waits the same goes wrong: what the other tests rely on. */
static void a_forgotten_wait_is_seen(void) {
    uint64_t *word = new_words(1), *copies = new_words(ROUNDS);
    int wrong = 0;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        struct put put = {.to = word, .value = i + 1}, take = {.to = &copies[i], .from = word};
        EXPECT_OK(troupe_sim_enqueue(stream, run_put, &put, sizeof put));
        EXPECT_OK(troupe_stream_synchronize(other));
        EXPECT_OK(troupe_sim_enqueue(other, run_put, &take, sizeof take));
    }
    EXPECT_OK(troupe_stream_synchronize(stream));
    EXPECT_OK(troupe_stream_synchronize(other));
    for (uint64_t i = 0; i < ROUNDS; i++) {
        wrong += copies[i] != i + 1;
    }
    EXPECT(wrong > 0, "two streams without an event kept their order %d times", ROUNDS);
    troupe_device_free(device, copies);
    troupe_device_free(device, word);
}

static void copies_move_blocks_between_strides(void) {
    unsigned char from[15], to[21], *middle = NULL;
    for (int i = 0; i < 15; i++) {
        from[i] = (unsigned char)(i + 1);
    }
    memset(to, 0xee, sizeof to);
    EXPECT_OK(troupe_device_alloc(device, 27, (void **)&middle));
    EXPECT_OK(troupe_stream_copy(stream, &(struct troupe_copy){middle, from, 3, 4, 9, 5}));
    memset(from, 0, sizeof from); /* host memory that the device does not know: has been read */
    EXPECT_OK(troupe_stream_copy(stream, &(struct troupe_copy){to, middle, 3, 4, 7, 9}));
    for (int i = 0; i < 21; i++) {
        int row = i / 7, column = i % 7;
        EXPECT_EQ(to[i], column < 4 ? row * 5 + column + 1 : 0xee);
    }
    troupe_device_free(device, middle);
}

/* More than the queue holds, in payloads of odd sizes. */
static troupe_status run_count(const void *payload) {
    uint64_t *counter = NULL;
    memcpy(&counter, payload, sizeof counter);
    (*counter)++;
    return TROUPE_OK;
}

static void a_full_queue_goes_round(void) {
    static unsigned char payload[TROUPE_SIM_PAYLOAD_MAX];
    uint64_t *counter = new_words(1);
    memcpy(payload, &counter, sizeof counter);
    for (size_t i = 0; i < 64; i++) {
        EXPECT_OK(troupe_sim_enqueue(stream, run_count, payload, sizeof payload - 37 * i));
    }
    EXPECT_OK(troupe_stream_fill_zero(stream, payload, sizeof payload));
    EXPECT_OK(troupe_stream_synchronize(stream));
    EXPECT_EQ(*counter, 64);
    EXPECT_EQ(payload[0], 0);
    troupe_device_free(device, counter);
}

static void timed_events_measure(void) {
    troupe_event *begin = NULL, *end = NULL;
    int64_t ns = 0;
    EXPECT_OK(troupe_event_create_timed(device, &begin));
    EXPECT_OK(troupe_event_create_timed(device, &end));
    EXPECT_OK(troupe_event_record(begin, stream));
    for (int i = 0; i < 100; i++) {
        EXPECT_OK(troupe_stream_fill_zero(stream, NULL, 0));
    }
    EXPECT_OK(troupe_event_record(end, stream));
    EXPECT_OK(troupe_stream_synchronize(stream));
    EXPECT_OK(troupe_event_elapsed(begin, end, &ns));
    EXPECT(ns >= 0 && ns < 60000000000, "%lld ns", (long long)ns);
    int64_t back = 0;
    EXPECT_OK(troupe_event_elapsed(end, begin, &back));
    EXPECT_EQ(back, -ns);
    troupe_event_destroy(begin);
    troupe_event_destroy(end);
}

/* ---- two devices of one process ---- */

/* What the first owns and the second opens. */
struct shared {
    struct troupe_share memory, event;
    troupe_device *device; /* the second */
    troupe_stream *stream;
    uint64_t *words;
    troupe_event *theirs;
};

static void open_shared(struct shared *s, uint64_t *words, troupe_event **made) {
    EXPECT_OK(troupe_memory_share(device, words, &s->memory));
    EXPECT_OK(troupe_event_create_shared(device, made, &s->event));
    EXPECT_OK(troupe_device_open(
        TROUPE_DEVICE_SIM, &(struct troupe_device_options){.delay_ns_max = 300000}, &s->device));
    EXPECT_OK(troupe_stream_create(s->device, &s->stream));
    EXPECT_OK(troupe_memory_open(s->device, &s->memory, (void **)&s->words));
    EXPECT_OK(troupe_event_open(s->device, &s->event, &s->theirs));
}

static void close_shared(struct shared *s) {
    EXPECT_OK(troupe_stream_synchronize(s->stream));
    troupe_event_close(s->device, &s->event, s->theirs);
    troupe_memory_close(s->device, &s->memory, s->words);
    troupe_stream_destroy(s->stream);
    troupe_device_close(s->device);
}

/* One stream writes, that of the other device reads behind the event, and the host waits for
 * neither: it is ahead of the copy. */
static void devices_share_memory_in_the_order_of_events(void) {
    struct shared s = {0};
    troupe_event *made = NULL;
    uint64_t *words = new_words(1), *taken = NULL;
    open_shared(&s, words, &made);
    EXPECT_OK(troupe_device_alloc(s.device, ROUNDS * sizeof *taken, (void **)&taken));
    for (uint64_t i = 0; i < ROUNDS; i++) {
        struct put put = {.to = words, .value = i + 1};
        struct put take = {.to = &taken[i], .from = s.words};
        EXPECT_OK(troupe_sim_enqueue(stream, run_put, &put, sizeof put));
        EXPECT_OK(troupe_event_record(made, stream));
        EXPECT_OK(troupe_stream_wait(s.stream, s.theirs));
        EXPECT_OK(troupe_sim_enqueue(s.stream, run_put, &take, sizeof take));
        EXPECT_OK(troupe_event_record(s.theirs, s.stream));
        EXPECT_OK(troupe_stream_wait(stream, made));
    }
    EXPECT_OK(troupe_stream_synchronize(s.stream));
    for (uint64_t i = 0; i < ROUNDS; i++) {
        EXPECT_EQ(taken[i], i + 1);
    }
    troupe_device_free(s.device, taken);
    EXPECT_OK(troupe_stream_synchronize(stream));
    close_shared(&s);
    troupe_event_destroy(made);
    troupe_device_free(device, words);
}

/* The owner goes first; the other still works on what it has opened. */
static void what_is_shared_outlives_its_owner(void) {
    struct shared s = {0};
    troupe_event *made = NULL;
    uint64_t *words = new_words(WORDS);
    open_shared(&s, words, &made);
    troupe_event_destroy(made);
    troupe_device_free(device, words);
    for (uint64_t i = 0; i < WORDS; i++) {
        struct put put = {.to = &s.words[i], .value = i};
        EXPECT_OK(troupe_sim_enqueue(s.stream, run_put, &put, sizeof put));
        EXPECT_OK(troupe_event_record(s.theirs, s.stream));
    }
    EXPECT_OK(troupe_stream_synchronize(s.stream));
    EXPECT_OK(troupe_event_query(s.theirs));
    EXPECT_EQ(s.words[WORDS - 1], WORDS - 1);
    close_shared(&s);
}

static void other_processes_are_refused(void) {
    struct shared s = {0};
    troupe_event *made = NULL;
    uint64_t *words = new_words(1);
    void *memory = NULL;
    open_shared(&s, words, &made);
    pid_t child = fork();
    if (child == 0) { /* only what takes no lock: threads are not forked */
        troupe_status status = troupe_memory_open(s.device, &s.memory, &memory);
        _exit(status == TROUPE_ERROR_UNSUPPORTED && memory == NULL ? 0 : 1);
    }
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
    close_shared(&s);
    troupe_event_destroy(made);
    troupe_device_free(device, words);
}

static troupe_status run_failure(const void *payload) {
    return troupe_fail(TROUPE_ERROR_DEVICE, "%s", (const char *)payload);
}

static void a_failure_stays(void) {
    static const char why[] = "simulated fire";
    EXPECT_OK(troupe_sim_enqueue(stream, run_failure, why, sizeof why));
    EXPECT_ERROR(troupe_stream_synchronize(stream), TROUPE_ERROR_DEVICE, why);
    EXPECT_ERROR(troupe_event_query(event), TROUPE_ERROR_DEVICE, why);
    EXPECT_ERROR(troupe_event_record(event, stream), TROUPE_ERROR_DEVICE, why);
}

int main(void) {
    struct troupe_device_options options = {.seed = test_seed(), .delay_ns_max = 300000};
    EXPECT_OK(troupe_device_open(TROUPE_DEVICE_SIM, &options, &device));
    EXPECT_OK(troupe_stream_create(device, &stream));
    EXPECT_OK(troupe_stream_create(device, &other));
    EXPECT_OK(troupe_event_create(device, &event));
    TEST(it_is_no_host);
    TEST(events_complete_later);
    TEST(streams_wait_for_events);
    TEST(a_forgotten_wait_is_seen);
    TEST(copies_move_blocks_between_strides);
    TEST(a_full_queue_goes_round);
    TEST(timed_events_measure);
    TEST(devices_share_memory_in_the_order_of_events);
    TEST(what_is_shared_outlives_its_owner);
    TEST(other_processes_are_refused);
    TEST(a_failure_stays);
    troupe_event_destroy(event);
    troupe_stream_destroy(stream);
    troupe_stream_destroy(other);
    troupe_device_close(device);
    return TEST_END();
}
