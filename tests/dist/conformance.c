/* SPDX-License-Identifier: Apache-2.0
 *
 * What every transport must do, told once and run over each:
 *
 *     conformance loopback 4 [delay in us]      ranks are threads
 *     mpiexec -n 4 conformance shm|tcp|mpi|auto [part of its name]  ranks are processes
 *
 * TEST_CLAIM=part runs only the claims whose names contain it.
 */
#include <pthread.h>

#include "comm/comm.h"
#include "comm/group.h"
#include "runtime/memory.h"
#include "runtime/random.h"
#include "tests/test.h"

enum { TRANSFERS = 48, STORM = 100000, BIG = 8 << 20 };

struct rank_state {
    troupe_comm *comm;
    troupe_group *world;
    uint64_t seed;
    uint64_t *control_next; /* expected number of the next storm message, per sender */
    uint64_t control_got;
    struct troupe_transfer *reply; /* posted from the control handler */
};

static void step(struct rank_state *s) {
    if (troupe_comm_progress(s->comm) == 0) {
        troupe_comm_idle(s->comm);
    }
    EXPECT_OK(troupe_comm_failure(s->comm));
}

static void wait_for(struct rank_state *s, struct troupe_transfer *transfer) {
    while (transfer->status == TROUPE_AGAIN) {
        step(s);
    }
}

static uint64_t draw(const struct rank_state *s, uint64_t stream, uint64_t counter,
                     uint64_t bound) {
    return troupe_random_below(s->seed, stream, counter, bound);
}

static void fill(unsigned char *data, size_t bytes, uint64_t key) {
    for (size_t i = 0; i < bytes; i++) {
        data[i] = (unsigned char)(key * 31 + i * 7 + (i >> 8));
    }
}

static void expect_filled(const unsigned char *data, size_t bytes, uint64_t key) {
    for (size_t i = 0; i < bytes; i++) {
        EXPECT(data[i] == (unsigned char)(key * 31 + i * 7 + (i >> 8)), "byte %zu of %zu is %d", i,
               bytes, data[i]);
    }
}

static unsigned char *new_bytes(size_t bytes) {
    unsigned char *data = NULL;
    EXPECT_OK(TROUPE_NEW(&data, bytes));
    return data;
}

/* Cuts the data at `cut` into two segments. */
static struct troupe_transfer make(int peer, uint64_t tag, unsigned char *data, size_t bytes,
                                   size_t cut) {
    return (struct troupe_transfer){.peer = peer,
                                    .tag = tag,
                                    .segments = {{data, cut}, {data + cut, bytes - cut}},
                                    .segment_count = 2};
}

/* Both ends draw message k from a to b alike: its size, tag and cuts. */
static size_t size_of(const struct rank_state *s, int a, int b, int k) {
    uint64_t stream = (uint64_t)(a * 1024 + b);
    if (k % 16 == 0) {
        return 0;
    }
    return (size_t)draw(s, stream, (uint64_t)k, k % 16 == 1 ? 262144 : 3000);
}

static uint64_t tag_of(const struct rank_state *s, int a, int b, int k) {
    return draw(s, (uint64_t)(a * 1024 + b) + 77777, (uint64_t)k, 3) << 50 | 5;
}

/* Random sizes from 0, three tags, both directions and to itself, differently cut at both ends;
 * receives of one (peer, tag) in the order of the sends. */
static void random_transfers_arrive_in_order(struct rank_state *s) {
    int size = troupe_comm_size(s->comm), me = troupe_comm_rank(s->comm);
    struct troupe_transfer *sends = NULL, *receives = NULL;
    int total = size * TRANSFERS;
    EXPECT_OK(TROUPE_NEW(&sends, total));
    EXPECT_OK(TROUPE_NEW(&receives, total));
    for (int k = 0; k < TRANSFERS; k++) {
        for (int shift = 0; shift < size; shift++) {
            int to = (me + shift) % size, from = (me + size - shift) % size;
            size_t out = size_of(s, me, to, k), in = size_of(s, from, me, k);
            unsigned char *data = new_bytes(out);
            fill(data, out, (uint64_t)(me * 1000 + k));
            sends[to * TRANSFERS + k] = make(to, tag_of(s, me, to, k), data, out, out / 3);
            receives[from * TRANSFERS + k] =
                make(from, tag_of(s, from, me, k), new_bytes(in), in, in / 2);
            if ((k + me) % 2 == 0) { /* half the sends come before their receives */
                EXPECT_OK(troupe_comm_post_send(s->comm, &sends[to * TRANSFERS + k]));
                EXPECT_OK(troupe_comm_post_receive(s->comm, &receives[from * TRANSFERS + k]));
            } else {
                EXPECT_OK(troupe_comm_post_receive(s->comm, &receives[from * TRANSFERS + k]));
                EXPECT_OK(troupe_comm_post_send(s->comm, &sends[to * TRANSFERS + k]));
            }
        }
        troupe_comm_progress(s->comm);
    }
    for (int i = 0; i < total; i++) {
        wait_for(s, &sends[i]);
        wait_for(s, &receives[i]);
        EXPECT_OK(sends[i].status);
        EXPECT_OK(receives[i].status);
        size_t in = size_of(s, i / TRANSFERS, me, i % TRANSFERS);
        expect_filled(receives[i].segments[0].data, in,
                      (uint64_t)(i / TRANSFERS * 1000 + i % TRANSFERS));
        troupe_free(sends[i].segments[0].data);
        troupe_free(receives[i].segments[0].data);
    }
    troupe_free(sends);
    troupe_free(receives);
}

/* 8 MiB around a ring, both directions at once. */
static void big_messages_arrive_both_ways(struct rank_state *s) {
    int size = troupe_comm_size(s->comm), me = troupe_comm_rank(s->comm);
    unsigned char *data[4];
    struct troupe_transfer transfers[4];
    for (int i = 0; i < 4; i++) {
        data[i] = new_bytes(BIG);
        fill(data[i], i < 2 ? BIG : 0, (uint64_t)(me * 2 + i));
        int peer = (me + (i % 2 == 0 ? 1 : size - 1)) % size;
        uint64_t tag = (uint64_t)(i < 2 ? i : 1 - i % 2);
        transfers[i] = make(peer, tag, data[i], BIG, 64);
        EXPECT_OK(i < 2 ? troupe_comm_post_send(s->comm, &transfers[i])
                        : troupe_comm_post_receive(s->comm, &transfers[i]));
    }
    for (int i = 0; i < 4; i++) {
        wait_for(s, &transfers[i]);
        EXPECT_OK(transfers[i].status);
    }
    expect_filled(data[2], BIG, (uint64_t)((me + 1) % size * 2 + 1));
    expect_filled(data[3], BIG, (uint64_t)((me + size - 1) % size * 2));
    for (int i = 0; i < 4; i++) {
        troupe_free(data[i]);
    }
}

static void count_storm(void *arg, int from, const void *message, size_t bytes) {
    struct rank_state *s = arg;
    uint64_t number;
    memcpy(&number, message, sizeof(number));
    EXPECT_EQ(bytes, 8 + number % 249);
    EXPECT_EQ(number, s->control_next[from]);
    s->control_next[from]++;
    s->control_got++;
    for (size_t i = 8; i < bytes; i++) {
        EXPECT_EQ(((const unsigned char *)message)[i], (unsigned char)(number + i));
    }
}

/* Every rank floods all ranks, itself too; nothing is lost and the order per pair holds. */
static void control_storm_is_ordered_and_complete(struct rank_state *s) {
    int size = troupe_comm_size(s->comm);
    uint64_t each = STORM / (uint64_t)(size * size), sent = 0;
    s->control_got = 0;
    memset(s->control_next, 0, (size_t)size * sizeof(uint64_t));
    troupe_comm_set_control_handler(s->comm, count_storm, s);
    EXPECT_OK(troupe_group_barrier(s->world));
    while (sent < each || s->control_got < each * (uint64_t)size) {
        while (sent < each && troupe_comm_control_room(s->comm) >= size) {
            unsigned char message[TROUPE_CONTROL_BYTES_MAX];
            memcpy(message, &sent, sizeof(sent));
            for (size_t i = 8; i < sizeof(message); i++) {
                message[i] = (unsigned char)(sent + i);
            }
            for (int to = 0; to < size; to++) {
                EXPECT_OK(troupe_comm_send_control(s->comm, to, message, 8 + sent % 249));
            }
            sent++;
        }
        step(s);
    }
    EXPECT_OK(troupe_group_barrier(s->world));
}

static void reply_to_control(void *arg, int from, const void *message, size_t bytes) {
    struct rank_state *s = arg;
    (void)message, (void)bytes;
    s->reply->peer = from;
    EXPECT_OK(troupe_comm_post_send(s->comm, s->reply));
}

/* A control message asks, the handler answers with a transfer. */
static void handler_may_post(struct rank_state *s) {
    int size = troupe_comm_size(s->comm), me = troupe_comm_rank(s->comm), next = (me + 1) % size;
    int64_t answer = -1, mine = me * 10;
    struct troupe_transfer send = {.tag = 9, .segments = {{&mine, 8}}, .segment_count = 1};
    struct troupe_transfer receive = {
        .peer = next, .tag = 9, .segments = {{&answer, 8}}, .segment_count = 1};
    s->reply = &send;
    send.status = TROUPE_AGAIN;
    troupe_comm_set_control_handler(s->comm, reply_to_control, s);
    EXPECT_OK(troupe_group_barrier(s->world));
    EXPECT_OK(troupe_comm_post_receive(s->comm, &receive));
    EXPECT_OK(troupe_comm_send_control(s->comm, next, "?", 1));
    wait_for(s, &receive);
    wait_for(s, &send);
    EXPECT_EQ(answer, next * 10);
}

static void wrong_size_is_a_contract_error(struct rank_state *s) {
    int size = troupe_comm_size(s->comm), me = troupe_comm_rank(s->comm), next = (me + 1) % size;
    int previous = (me + size - 1) % size;
    for (int longer = 0; longer < 2; longer++) {
        unsigned char out[128] = {1}, in[128];
        size_t expected = longer ? 100 : 128, sent = 228 - expected;
        struct troupe_transfer send = make(next, 3, out, sent, 7);
        struct troupe_transfer receive = make(previous, 3, in, expected, 64);
        EXPECT_OK(troupe_comm_post_send(s->comm, &send));
        EXPECT_OK(troupe_comm_post_receive(s->comm, &receive));
        while (receive.status == TROUPE_AGAIN) {
            step(s);
            if (receive.status == TROUPE_ERROR_CONTRACT) {
                char text[64];
                snprintf(text, sizeof(text), "%zu bytes from rank %d with tag 0x%016x", expected,
                         previous, 3);
                EXPECT_ERROR(receive.status, TROUPE_ERROR_CONTRACT, text);
            }
        }
        EXPECT_EQ(receive.status, TROUPE_ERROR_CONTRACT);
        wait_for(s, &send);
        EXPECT_OK(send.status);
        EXPECT_OK(troupe_comm_failure(s->comm));
    }
}

/* Values whose float32 sum depends on the order. */
static float value(const struct rank_state *s, int rank, int64_t i) {
    uint64_t bits = troupe_random_bits(s->seed, (uint64_t)rank + 500, (uint64_t)i);
    return (float)((double)(int64_t)bits * 0x1p-63) * (float)(1 << (bits & 15));
}

static float ordered_sum(const struct rank_state *s, const troupe_group *group, int64_t i) {
    float sum = value(s, troupe_group_rank(group, 0), i);
    for (int member = 1; member < troupe_group_size(group); member++) {
        sum += value(s, troupe_group_rank(group, member), i);
    }
    return sum;
}

static void check_float_sum(struct rank_state *s, troupe_group *group, int64_t count) {
    int me = troupe_comm_rank(s->comm);
    float *data = NULL;
    EXPECT_OK(TROUPE_NEW(&data, count));
    for (int64_t i = 0; i < count; i++) {
        data[i] = value(s, me, i);
    }
    EXPECT_OK(troupe_group_all_reduce(group, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32, data, count));
    for (int64_t i = 0; i < count; i++) {
        float expected = ordered_sum(s, group, i);
        EXPECT(memcmp(&data[i], &expected, 4) == 0,
               "element %" PRId64 " of %" PRId64 ": %a, not %a", i, count, (double)data[i],
               (double)expected);
    }
    troupe_free(data);
}

static void sums_are_in_group_order_bit_for_bit(struct rank_state *s) {
    static const int64_t counts[] = {0, 1, 3, 17, 1000, 5000, 100003};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        check_float_sum(s, s->world, counts[i]);
    }
}

static void all_elements_and_reductions_work(struct rank_state *s) {
    int size = troupe_comm_size(s->comm), me = troupe_comm_rank(s->comm);
    int64_t counts[] = {2, 20001}; /* both algorithms */
    for (int c = 0; c < 2; c++) {
        double *f = NULL;
        int64_t *n = NULL;
        uint64_t *u = NULL;
        EXPECT_OK(TROUPE_NEW(&f, counts[c]));
        EXPECT_OK(TROUPE_NEW(&n, counts[c]));
        EXPECT_OK(TROUPE_NEW(&u, counts[c]));
        for (int64_t i = 0; i < counts[c]; i++) {
            f[i] = -(double)me - (double)i;
            n[i] = -me - i;
            u[i] = UINT64_MAX - (uint64_t)me;
        }
        EXPECT_OK(
            troupe_group_all_reduce(s->world, TROUPE_MAX, TROUPE_ELEMENT_FLOAT64, f, counts[c]));
        EXPECT_OK(
            troupe_group_all_reduce(s->world, TROUPE_SUM, TROUPE_ELEMENT_INT64, n, counts[c]));
        EXPECT_OK(
            troupe_group_all_reduce(s->world, TROUPE_MAX, TROUPE_ELEMENT_UINT64, u, counts[c]));
        for (int64_t i = 0; i < counts[c]; i++) {
            EXPECT(f[i] == -(double)i, "max of float64 is %g", f[i]);
            EXPECT_EQ(n[i], -(int64_t)size * (size - 1) / 2 - size * i);
            EXPECT(u[i] == UINT64_MAX, "max of uint64 is %" PRIu64, u[i]);
        }
        EXPECT_OK(
            troupe_group_all_reduce(s->world, TROUPE_MAX, TROUPE_ELEMENT_INT64, n, counts[c]));
        EXPECT_OK(
            troupe_group_all_reduce(s->world, TROUPE_SUM, TROUPE_ELEMENT_FLOAT64, f, counts[c]));
        EXPECT_EQ(n[1], -(int64_t)size * (size - 1) / 2 - size);
        EXPECT(f[1] == -(double)size, "sum of float64 is %g", f[1]);
        troupe_free(f);
        troupe_free(n);
        troupe_free(u);
    }
}

static void nan_survives_a_maximum(struct rank_state *s) {
    float data[2] = {troupe_comm_rank(s->comm) == 0 ? NAN : 1.0f, 2.0f};
    EXPECT_OK(troupe_group_all_reduce(s->world, TROUPE_MAX, TROUPE_ELEMENT_FLOAT32, data, 2));
    EXPECT(isnan(data[0]) && data[1] == 2.0f, "max is %g %g", (double)data[0], (double)data[1]);
}

static void gather_and_broadcast_move_blocks(struct rank_state *s) {
    int size = troupe_comm_size(s->comm), me = troupe_comm_rank(s->comm);
    static const size_t sizes[] = {0, 1, 4097, 300000};
    for (size_t k = 0; k < 4; k++) {
        size_t bytes = sizes[k];
        unsigned char *mine = new_bytes(bytes), *all = new_bytes(bytes * (size_t)size);
        fill(mine, bytes, (uint64_t)me);
        EXPECT_OK(troupe_group_all_gather(s->world, mine, bytes, all));
        for (int r = 0; r < size; r++) {
            expect_filled(all + (size_t)r * bytes, bytes, (uint64_t)r);
        }
        for (int root = 0; root < size; root++) {
            fill(mine, bytes, (uint64_t)(me == root ? 42 + root : 7));
            EXPECT_OK(troupe_group_broadcast(s->world, root, mine, bytes));
            expect_filled(mine, bytes, (uint64_t)(42 + root));
        }
        troupe_free(mine);
        troupe_free(all);
    }
}

/* A group in another order than the ranks', and one of which some ranks are no member. */
static void groups_of_some_ranks_keep_their_order(struct rank_state *s) {
    int size = troupe_comm_size(s->comm), me = troupe_comm_rank(s->comm);
    int ranks[64], count = 0;
    for (int r = size - 1; r >= 0; r--) {
        if (r % 2 == me % 2) {
            ranks[count++] = r;
        }
    }
    troupe_group *group = NULL;
    EXPECT_OK(troupe_group_create(
        s->comm,
        &(struct troupe_group_options){
            .ranks = ranks, .count = count, .id = (uint32_t)(2 + me % 2), .bytes_max = 400012},
        &group));
    EXPECT_EQ(troupe_group_rank(group, troupe_group_index(group)), me);
    check_float_sum(s, group, 5);
    check_float_sum(s, group, 100003);
    troupe_group_destroy(group);
}

static void count_done(struct troupe_collective *operation) {
    ++*(int *)operation->arg;
}

/* Six reductions in flight beside transfers and control messages. */
static void posted_reductions_overlap_with_everything(struct rank_state *s) {
    enum { OPERATIONS = 6, COUNT = 50001 };
    int size = troupe_comm_size(s->comm), me = troupe_comm_rank(s->comm), done = 0;
    struct troupe_collective operations[OPERATIONS] = {0};
    float *data[OPERATIONS];
    s->control_got = 0;
    memset(s->control_next, 0, (size_t)size * sizeof(uint64_t));
    troupe_comm_set_control_handler(s->comm, count_storm, s);
    EXPECT_OK(troupe_group_barrier(s->world));
    for (int k = 0; k < OPERATIONS; k++) {
        int64_t count = k % 2 == 0 ? COUNT : 7;
        EXPECT_OK(TROUPE_NEW(&data[k], COUNT));
        for (int64_t i = 0; i < count; i++) {
            data[k][i] = value(s, me, i + k);
        }
        operations[k].done = count_done;
        operations[k].arg = &done;
        EXPECT_OK(troupe_group_post_all_reduce(s->world, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32,
                                               data[k], count, &operations[k]));
        uint64_t number = (uint64_t)k;
        unsigned char message[16] = {0};
        memcpy(message, &number, 8);
        for (size_t i = 8; i < 16; i++) {
            message[i] = (unsigned char)(number + i);
        }
        EXPECT_OK(troupe_comm_send_control(s->comm, (me + 1) % size, message, 8 + number));
    }
    random_transfers_arrive_in_order(s);
    while (done < OPERATIONS || s->control_got < OPERATIONS) {
        step(s);
    }
    for (int k = 0; k < OPERATIONS; k++) {
        EXPECT_OK(operations[k].status);
        for (int64_t i = 0; i < (k % 2 == 0 ? COUNT : 7); i++) {
            float expected = ordered_sum(s, s->world, i + k);
            EXPECT(memcmp(&data[k][i], &expected, 4) == 0, "operation %d, element %" PRId64, k, i);
        }
        troupe_free(data[k]);
    }
    EXPECT_OK(troupe_group_barrier(s->world));
}

/* Nothing but open and create allocates. */
static void steady_state_allocates_nothing(struct rank_state *s) {
    static const int64_t count = 30000;
    float *data = NULL;
    EXPECT_OK(TROUPE_NEW(&data, count));
    troupe_memory_set_steady(true);
    EXPECT_OK(troupe_group_all_reduce(s->world, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32, data, count));
    EXPECT_OK(troupe_group_barrier(s->world));
    troupe_memory_set_steady(false);
    troupe_free(data);
}

static void count_control(void *arg, int from, const void *message, size_t bytes) {
    (void)from, (void)message, (void)bytes;
    ((struct rank_state *)arg)->control_got++;
}

/* Last: the endpoints do not survive it. */
static void abort_reaches_every_rank(struct rank_state *s) {
    int size = troupe_comm_size(s->comm), me = troupe_comm_rank(s->comm);
    unsigned char byte = 0;
    struct troupe_transfer receive = make((me + 1) % size, 11, &byte, 1, 1);
    s->control_got = 0;
    troupe_comm_set_control_handler(s->comm, count_control, s);
    EXPECT_OK(troupe_group_barrier(s->world));
    EXPECT_OK(troupe_comm_post_receive(s->comm, &receive));
    EXPECT_OK(troupe_comm_send_control(s->comm, size - 1, "ready", 5));
    if (me == size - 1) {
        while (s->control_got < (uint64_t)size) {
            step(s);
        }
        troupe_comm_abort(s->comm, "the loss is not finite");
    }
    while (receive.status == TROUPE_AGAIN) {
        if (troupe_comm_progress(s->comm) == 0) {
            troupe_comm_idle(s->comm);
        }
    }
    EXPECT_EQ(receive.status, TROUPE_ERROR_ABORTED);
    char text[80];
    snprintf(text, sizeof(text), "rank %d ended the job: the loss is not finite", size - 1);
    if (troupe_comm_rank(s->comm) == size - 1) { /* it knows who it is */
        snprintf(text, sizeof(text), "the loss is not finite");
        EXPECT(troupe_comm_failure(s->comm) != TROUPE_OK, "no failure of its own");
        EXPECT_STRING(troupe_last_error(), text);
    }
    EXPECT_ERROR(troupe_comm_failure(s->comm), TROUPE_ERROR_ABORTED, text);
    EXPECT_ERROR(troupe_comm_post_send(s->comm, &receive), TROUPE_ERROR_ABORTED, text);
    EXPECT_ERROR(troupe_group_barrier(s->world), TROUPE_ERROR_ABORTED, text);
}

struct claim {
    const char *name;
    void (*check)(struct rank_state *);
};
#define CLAIM(name)                                                                                \
    { #name, name }
static const struct claim claims[] = {
    CLAIM(random_transfers_arrive_in_order),
    CLAIM(big_messages_arrive_both_ways),
    CLAIM(control_storm_is_ordered_and_complete),
    CLAIM(handler_may_post),
    CLAIM(wrong_size_is_a_contract_error),
    CLAIM(sums_are_in_group_order_bit_for_bit),
    CLAIM(all_elements_and_reductions_work),
    CLAIM(nan_survives_a_maximum),
    CLAIM(gather_and_broadcast_move_blocks),
    CLAIM(groups_of_some_ranks_keep_their_order),
    CLAIM(posted_reductions_overlap_with_everything),
    CLAIM(steady_state_allocates_nothing),
    CLAIM(abort_reaches_every_rank),
};

static void check_all(troupe_comm *comm, uint64_t seed) {
    struct rank_state state = {.comm = comm, .seed = seed};
    EXPECT_OK(TROUPE_NEW(&state.control_next, troupe_comm_size(comm)));
    EXPECT_OK(troupe_group_create(
        comm, &(struct troupe_group_options){.id = 1, .bytes_max = 400012}, &state.world));
    EXPECT_EQ(troupe_group_size(state.world), troupe_comm_size(comm));
    EXPECT_EQ(troupe_group_index(state.world), troupe_comm_rank(comm));
    EXPECT_OK(troupe_group_broadcast(state.world, 0, &state.seed, sizeof(state.seed)));
    const char *wanted = getenv("TEST_CLAIM");
    for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++) {
        if (wanted != NULL && strstr(claims[i].name, wanted) == NULL) {
            continue;
        }
        if (troupe_comm_rank(comm) == 0) {
            struct timespec now;
            clock_gettime(CLOCK_MONOTONIC, &now);
            printf("  %ld.%03ld %s\n", (long)now.tv_sec % 1000, now.tv_nsec / 1000000,
                   claims[i].name);
            fflush(stdout);
            test_count++;
        }
        claims[i].check(&state);
    }
    troupe_group_destroy(state.world);
    troupe_free(state.control_next);
    troupe_comm_close(comm);
}

struct thread_args {
    troupe_loopback *world;
    uint64_t seed;
    int rank;
};

static void *rank_thread(void *arg) {
    const struct thread_args *args = arg;
    troupe_comm *comm = NULL;
    EXPECT_OK(troupe_comm_open_loopback(args->world, args->rank, &comm));
    check_all(comm, args->seed);
    return NULL;
}

static void run_loopback(int ranks, int64_t delay_us) {
    pthread_t threads[64];
    struct thread_args args[64];
    struct troupe_loopback_options options = {
        .ranks = ranks, .seed = test_seed(), .delay_ns_max = delay_us * 1000};
    troupe_loopback *world = NULL;
    EXPECT_OK(troupe_loopback_create(&options, &world));
    for (int r = 0; r < ranks; r++) {
        args[r] = (struct thread_args){.world = world, .seed = options.seed, .rank = r};
        EXPECT_EQ(pthread_create(&threads[r], NULL, rank_thread, &args[r]), 0);
    }
    for (int r = 0; r < ranks; r++) {
        pthread_join(threads[r], NULL);
    }
    troupe_loopback_destroy(world);
}

int main(int argc, char **argv) {
    const char *provider = argc > 1 ? argv[1] : "auto";
    if (strcmp(provider, "loopback") == 0) {
        run_loopback(argc > 2 ? atoi(argv[2]) : 2, argc > 3 ? atoll(argv[3]) : 0);
        return TEST_END();
    }
    troupe_comm *comm = NULL;
    EXPECT_OK(troupe_comm_open(&(struct troupe_comm_options){.provider = provider}, &comm));
    if (troupe_comm_rank(comm) == 0) {
        printf("  %d ranks over %s\n", troupe_comm_size(comm), troupe_comm_name(comm));
    }
    if (argc > 2) {
        EXPECT(strstr(troupe_comm_name(comm), argv[2]) != NULL, "%s has chosen %s", provider,
               troupe_comm_name(comm));
    }
    bool first = troupe_comm_rank(comm) == 0;
    check_all(comm, first ? test_seed() : 0);
    return first ? TEST_END() : 0;
}
