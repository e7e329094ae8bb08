/* SPDX-License-Identifier: Apache-2.0
 *
 * The ways of an edge between devices: memory of the receiver that the sender writes (windows),
 * pinned memory that travels when an event is complete, and an exchange on a group after both ends
 * have granted it. Ranks 2k and 2k + 1 are partners. At last all of them at once, both directions,
 * larger than NCCL's buffers, beside a lane of reductions, with seeded delays. device_job.h says
 * how it is started.
 */
#include "comm/window.h"
#include "tests/dist/device_job.h"

enum { ROUNDS = 200, CHECK_EVERY = 20, CREDITS = 2 };
static const uint64_t DELAY_US_MAX = 2000;

enum word { WRITTEN, RELEASED, GRANTED, WORDS };

struct edges {
    int partner;
    size_t bytes;             /* of a message */
    troupe_group *all, *pair; /* opened on the device */
    troupe_stream *lane, *out, *in, *exchange;
    char *patterns[2], *taken, *swapped; /* device: what is sent; what came */
    char *slots;                         /* device: CREDITS messages that the partner writes */
    troupe_window *mine[CREDITS], *theirs[CREDITS]; /* NULL: processes share no such memory */
    float *lane_data;
    int lane_count;
    char *host;
    int64_t heard[WORDS]; /* words of the partner so far */
};

static struct edges *edges_of(struct device_job *job) {
    return job->arg;
}

static void hear(void *arg, int from, const void *message, size_t bytes) {
    struct edges *e = ((struct device_job *)arg)->arg;
    int32_t word;
    EXPECT(from == e->partner && bytes == sizeof word, "%zu bytes from rank %d", bytes, from);
    memcpy(&word, message, sizeof word);
    e->heard[word]++;
}

static void say(struct device_job *job, enum word word) {
    int32_t number = (int32_t)word;
    EXPECT_OK(troupe_comm_send_control(job->comm, edges_of(job)->partner, &number, sizeof number));
}

static void await_word(struct device_job *job, enum word word, int64_t times) {
    while (edges_of(job)->heard[word] < times) {
        job_step(job);
    }
}

/* Byte i of pattern p of a rank. */
static char pattern(int rank, int p, size_t i) {
    return (char)(rank * 41 + p * 17 + (int)(i % 251) + (int)(i >> 16));
}

static void expect_pattern(struct device_job *job, const char *device, int p, const char *what) {
    struct edges *e = edges_of(job);
    job_copy(job, e->host, device, e->bytes);
    for (size_t i = 0; i < e->bytes; i++) {
        EXPECT(e->host[i] == pattern(e->partner, p, i), "%s: byte %zu of %zu is %d, expected %d",
               what, i, e->bytes, e->host[i], pattern(e->partner, p, i));
    }
}

static void finish_all(struct device_job *job) {
    struct edges *e = edges_of(job);
    job_finish(job, e->lane);
    job_finish(job, e->out);
    job_finish(job, e->in);
    job_finish(job, e->exchange);
}

/* ---- windows ---- */

static bool processes_share_memory(const struct device_job *job) {
    return strcmp(troupe_comm_name(job->comm), "loopback") == 0 || job->kind == TROUPE_DEVICE_CUDA;
}

/* What this rank has for what the partner has. */
static void swap(struct device_job *job, void *mine, void *theirs, size_t bytes) {
    struct troupe_transfer send = {
        .peer = edges_of(job)->partner, .tag = 1, .segments = {{mine, bytes}}, .segment_count = 1};
    struct troupe_transfer receive = send;
    receive.segments[0].data = theirs;
    EXPECT_OK(troupe_comm_post_receive(job->comm, &receive));
    EXPECT_OK(troupe_comm_post_send(job->comm, &send));
    while (send.status == TROUPE_AGAIN || receive.status == TROUPE_AGAIN) {
        job_step(job);
    }
}

static void open_windows(struct device_job *job) {
    struct edges *e = edges_of(job);
    struct troupe_window_offer mine[CREDITS], theirs[CREDITS];
    struct troupe_window_answer my_answers[CREDITS], their_answers[CREDITS];
    memset(my_answers, 0, sizeof my_answers);
    for (int c = 0; c < CREDITS; c++) {
        struct troupe_window_options options = {
            .allocation = e->slots, .offset_bytes = (size_t)c * e->bytes, .bytes = e->bytes};
        EXPECT_OK(troupe_window_create(job->device, &options, &e->mine[c], &mine[c]));
    }
    swap(job, mine, theirs, sizeof mine);
    for (int c = 0; c < CREDITS; c++) {
        if (processes_share_memory(job)) {
            EXPECT_OK(troupe_window_open(job->device, &theirs[c], &e->theirs[c], &my_answers[c]));
            EXPECT_EQ(troupe_window_bytes(e->theirs[c]), e->bytes);
        } else {
            EXPECT_ERROR(troupe_window_open(job->device, &theirs[c], &e->theirs[c], &my_answers[c]),
                         TROUPE_ERROR_UNSUPPORTED, "another process cannot open its memory");
        }
    }
    swap(job, my_answers, their_answers, sizeof my_answers);
    for (int c = 0; c < CREDITS && e->theirs[c] != NULL; c++) {
        EXPECT_OK(troupe_window_accept(e->mine[c], &their_answers[c]));
    }
}

/* Message k into the partner's slot, in two pieces; at most CREDITS ahead of its releases. */
static void write_message(struct device_job *job, int64_t k) {
    struct edges *e = edges_of(job);
    troupe_window *window = e->theirs[k % CREDITS];
    size_t half = e->bytes / 2;
    char *to = troupe_window_memory(window), *from = e->patterns[k % 2];
    struct troupe_copy pieces[] = {
        {.to = to, .from = from, .rows = 1, .row_bytes = half},
        {.to = to + half, .from = from + half, .rows = 1, .row_bytes = e->bytes - half}};
    await_word(job, RELEASED, k + 1 - CREDITS);
    EXPECT_OK(troupe_window_write(window, e->out, pieces, 2));
    say(job, WRITTEN);
}

static void take_message(struct device_job *job, int64_t k) {
    struct edges *e = edges_of(job);
    troupe_window *window = e->mine[k % CREDITS];
    struct troupe_copy copy = {
        .to = e->taken, .from = troupe_window_memory(window), .rows = 1, .row_bytes = e->bytes};
    await_word(job, WRITTEN, k + 1);
    EXPECT_OK(troupe_window_await(window, e->in));
    EXPECT_OK(troupe_stream_copy(e->in, &copy));
    EXPECT_OK(troupe_window_release(window, e->in));
    say(job, RELEASED);
}

enum { FIRST_MESSAGES = 20 }; /* even, so that later ones have the pattern of their round */

static void windows_carry_messages_both_ways(struct device_job *job) {
    struct edges *e = edges_of(job);
    for (int64_t k = 0; e->theirs[0] != NULL && k < FIRST_MESSAGES; k++) {
        write_message(job, k);
        take_message(job, k);
        job_finish(job, e->in);
        expect_pattern(job, e->taken, (int)(k % 2), "window");
    }
}

/* ---- pinned memory ---- */

/* Device to pinned, across when that is done, and to the device: the host waits at no copy. */
static void gated_transfers_carry_what_the_event_saw(struct device_job *job) {
    enum { MESSAGES = 8 };
    struct edges *e = edges_of(job);
    struct troupe_transfer sends[MESSAGES] = {{0}}, receives[MESSAGES] = {{0}};
    troupe_event *copied[MESSAGES], *free_slot;
    char *sent, *received;
    size_t bytes = e->bytes / MESSAGES;
    EXPECT_OK(troupe_device_alloc_host(job->device, bytes * MESSAGES, (void **)&sent));
    EXPECT_OK(troupe_device_alloc_host(job->device, bytes * MESSAGES, (void **)&received));
    EXPECT_OK(troupe_event_create(job->device, &free_slot));
    EXPECT_OK(troupe_event_record(free_slot, e->in));
    for (int m = 0; m < MESSAGES; m++) {
        size_t at = (size_t)m * bytes;
        struct troupe_copy copy = {
            .to = sent + at, .from = e->patterns[0] + at, .rows = 1, .row_bytes = bytes};
        EXPECT_OK(troupe_event_create(job->device, &copied[m]));
        EXPECT_OK(troupe_stream_copy(e->out, &copy));
        EXPECT_OK(troupe_event_record(copied[m], e->out));
        sends[m] = (struct troupe_transfer){
            .peer = e->partner, .tag = 7, .segments = {{sent + at, bytes}}, .segment_count = 1};
        receives[m] = sends[m];
        receives[m].segments[0].data = received + at;
        EXPECT_OK(troupe_comm_post_send_after(job->comm, copied[m], &sends[m]));
        EXPECT_OK(troupe_comm_post_receive_after(job->comm, free_slot, &receives[m]));
    }
    for (int m = 0; m < MESSAGES; m++) { /* of one tag: in the order of posting */
        while (sends[m].status == TROUPE_AGAIN || receives[m].status == TROUPE_AGAIN) {
            job_step(job);
        }
        EXPECT_OK(sends[m].status);
        EXPECT_OK(receives[m].status);
        troupe_event_destroy(copied[m]);
    }
    for (size_t i = 0; i < bytes * MESSAGES; i++) {
        EXPECT(received[i] == pattern(e->partner, 0, i), "byte %zu is %d", i, received[i]);
    }
    troupe_event_destroy(free_slot);
    troupe_device_free_host(job->device, sent);
    troupe_device_free_host(job->device, received);
}

/* ---- everything at once ---- */

static void delay(struct device_job *job, int64_t round, int which) {
    uint64_t bound = job->kind == TROUPE_DEVICE_CUDA ? DELAY_US_MAX : DELAY_US_MAX / 20;
    usleep((useconds_t)troupe_random_below(job->seed, (uint64_t)(job->rank * 8 + which),
                                           (uint64_t)round, bound));
}

static void reduce_in_the_lane(struct device_job *job) {
    struct edges *e = edges_of(job);
    EXPECT_OK(troupe_group_enqueue_all_reduce(e->all, e->lane, TROUPE_MAX, TROUPE_ELEMENT_FLOAT32,
                                              e->lane_data, e->lane_count));
}

/* Both ends have granted it before either enqueues it. */
static void swap_with_partner(struct device_job *job, int64_t round) {
    struct edges *e = edges_of(job);
    int other = 1 - troupe_group_index(e->pair);
    struct troupe_move moves[] = {{other, true, e->patterns[round % 2], e->bytes},
                                  {other, false, e->swapped, e->bytes}};
    say(job, GRANTED);
    await_word(job, GRANTED, round + 1);
    EXPECT_OK(troupe_group_enqueue_exchange(e->pair, e->exchange, moves, 2));
}

static void check_round(struct device_job *job, int64_t round) {
    struct edges *e = edges_of(job);
    float lane[3] = {0};
    finish_all(job);
    if (e->theirs[0] != NULL) {
        expect_pattern(job, e->taken, (int)(round % 2), "window");
    }
    expect_pattern(job, e->swapped, (int)(round % 2), "exchange");
    job_copy(job, lane, e->lane_data + e->lane_count - 3, sizeof lane);
    EXPECT(lane[0] == (float)job->size && lane[2] == (float)job->size, "lane has %g and %g",
           (double)lane[0], (double)lane[2]);
}

/* In each round the lanes come in an order that is drawn, the same on all ranks. */
static void opposing_edges_beside_a_busy_lane_never_hang(struct device_job *job) {
    struct edges *e = edges_of(job);
    for (int64_t round = 0; round < ROUNDS; round++) {
        bool lane_first = troupe_random_below(job->seed, 99, (uint64_t)round, 2) == 0;
        delay(job, round, 0);
        if (lane_first) {
            reduce_in_the_lane(job);
        }
        if (e->theirs[0] != NULL) {
            write_message(job, FIRST_MESSAGES + round);
        }
        delay(job, round, 1);
        swap_with_partner(job, round);
        if (!lane_first) {
            reduce_in_the_lane(job);
        }
        delay(job, round, 2);
        if (e->theirs[0] != NULL) {
            take_message(job, FIRST_MESSAGES + round);
        }
        if ((round + 1) % CHECK_EVERY == 0) {
            check_round(job, round);
        }
    }
    EXPECT_OK(troupe_group_barrier(job->world));
}

/* ---- the job ---- */

static void fill_patterns(struct device_job *job) {
    struct edges *e = edges_of(job);
    for (int p = 0; p < 2; p++) {
        for (size_t i = 0; i < e->bytes; i++) {
            e->host[i] = pattern(job->rank, p, i);
        }
        e->patterns[p] = job_alloc(job, e->bytes);
        job_copy(job, e->patterns[p], e->host, e->bytes);
    }
    size_t lane_bytes = (size_t)e->lane_count * sizeof(float);
    float *lane = job_alloc_host(lane_bytes);
    for (int i = 0; i < e->lane_count; i++) {
        lane[i] = (float)(job->rank + 1);
    }
    e->lane_data = job_alloc(job, lane_bytes);
    job_copy(job, e->lane_data, lane, lane_bytes);
    troupe_free(lane);
}

static void open_edges(struct device_job *job) {
    struct edges *e = edges_of(job);
    int low = job->rank & ~1, ranks[] = {low, low + 1};
    struct troupe_group_device_options options = {.engine = job->engine};
    EXPECT(job->size % 2 == 0, "%d ranks are no pairs", job->size);
    e->partner = job->rank ^ 1;
    e->bytes = job->kind == TROUPE_DEVICE_CUDA ? (20 << 20) + 8 : (96 << 10) + 8;
    e->lane_count = job->kind == TROUPE_DEVICE_CUDA ? (1 << 20) + 1 : (1 << 14) + 1;
    e->host = job_alloc_host(e->bytes);
    fill_patterns(job);
    e->taken = job_alloc(job, e->bytes);
    e->swapped = job_alloc(job, e->bytes);
    e->slots = job_alloc(job, CREDITS * e->bytes);
    EXPECT_OK(troupe_stream_create(job->device, &e->lane));
    EXPECT_OK(troupe_stream_create(job->device, &e->out));
    EXPECT_OK(troupe_stream_create(job->device, &e->in));
    EXPECT_OK(troupe_stream_create(job->device, &e->exchange));
    e->all = job_group(job, NULL, 0, 30, (size_t)e->lane_count * sizeof(float));
    e->pair = job_group(job, ranks, 2, 40 + (uint32_t)low, 64);
    troupe_group *groups[] = {e->pair, e->all};
    EXPECT_OK(troupe_groups_open_device(job->comm, job->device, groups, 2, &options));
    troupe_comm_set_control_handler(job->comm, hear, job);
}

static void close_edges(struct device_job *job) {
    struct edges *e = edges_of(job);
    finish_all(job);
    for (int c = 0; c < CREDITS; c++) {
        troupe_window_close(e->theirs[c]);
    }
    EXPECT_OK(troupe_group_barrier(job->world)); /* the senders' ends go first */
    for (int c = 0; c < CREDITS; c++) {
        troupe_window_close(e->mine[c]);
    }
    troupe_group_destroy(e->pair);
    troupe_group_destroy(e->all);
    void *const memory[] = {e->patterns[0], e->patterns[1], e->taken,
                            e->swapped,     e->slots,       e->lane_data};
    for (int i = 0; i < 6; i++) {
        troupe_device_free(job->device, memory[i]);
    }
    troupe_stream_destroy(e->lane);
    troupe_stream_destroy(e->out);
    troupe_stream_destroy(e->in);
    troupe_stream_destroy(e->exchange);
    troupe_free(e->host);
}

static void body(struct device_job *job) {
    struct edges edges = {0};
    job->arg = &edges;
    JOB_TEST(job, open_edges);
    JOB_TEST(job, open_windows);
    JOB_TEST(job, windows_carry_messages_both_ways);
    JOB_TEST(job, gated_transfers_carry_what_the_event_saw);
    JOB_TEST(job, opposing_edges_beside_a_busy_lane_never_hang);
    JOB_TEST(job, close_edges);
}

int main(int argc, char **argv) {
    return device_job_main(argc, argv, body);
}
