/* SPDX-License-Identifier: Apache-2.0
 *
 * What a transport costs: one-way time of a ping-pong at three sizes, of a control message, and of
 * an all-reduce of 1 MiB. Prints one row per transport, the median of ROUNDS.
 *
 *     comm_latency loopback                     two ranks as threads
 *     mpiexec -n 2 comm_latency shm|tcp|mpi     two ranks as processes
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"
#include "comm/group.h"
#include "runtime/clock.h"
#include "runtime/memory.h"

enum { ROUNDS = 5, BYTES_MAX = 4 << 20, REDUCE_BYTES = 1 << 20 };

struct bench {
    troupe_comm *comm;
    troupe_group *world;
    unsigned char *memory;
    int controls; /* arrived */
};

static void must(troupe_status status) {
    if (status != TROUPE_OK) {
        fprintf(stderr, "%s: %s\n", troupe_status_name(status), troupe_last_error());
        exit(1);
    }
}

static void step(struct bench *b) {
    if (troupe_comm_progress(b->comm) == 0) {
        troupe_comm_idle(b->comm);
        must(troupe_comm_failure(b->comm));
    }
}

static void move(struct bench *b, size_t bytes, bool send) {
    struct troupe_transfer transfer = {.peer = 1 - troupe_comm_rank(b->comm),
                                       .tag = 1,
                                       .segments = {{b->memory, bytes}},
                                       .segment_count = 1};
    must(send ? troupe_comm_post_send(b->comm, &transfer)
              : troupe_comm_post_receive(b->comm, &transfer));
    while (transfer.status == TROUPE_AGAIN) {
        step(b);
    }
    must(transfer.status);
}

static void ping_pong(struct bench *b, size_t bytes) {
    bool first = troupe_comm_rank(b->comm) == 0;
    move(b, bytes, first);
    move(b, bytes, !first);
}

static void count_control(void *arg, int from, const void *message, size_t bytes) {
    (void)from, (void)message, (void)bytes;
    ((struct bench *)arg)->controls++;
}

static void control_ping_pong(struct bench *b, size_t bytes) {
    int rank = troupe_comm_rank(b->comm);
    if (rank == 0) {
        must(troupe_comm_send_control(b->comm, 1, b->memory, bytes));
    }
    while (b->controls == 0) {
        step(b);
    }
    b->controls = 0;
    if (rank == 1) {
        must(troupe_comm_send_control(b->comm, 0, b->memory, bytes));
    }
}

static void reduce(struct bench *b, size_t bytes) {
    must(troupe_group_all_reduce(b->world, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32, b->memory,
                                 (int64_t)bytes / 4));
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Microseconds of one call, the median of ROUNDS times `repeats`. */
static double median_us(struct bench *b, void (*what)(struct bench *, size_t), size_t bytes,
                        int repeats) {
    double rounds[ROUNDS];
    must(troupe_group_barrier(b->world));
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t begin = troupe_clock_ns();
        for (int i = 0; i < repeats; i++) {
            what(b, bytes);
        }
        rounds[round] = troupe_clock_seconds(begin, troupe_clock_ns()) * 1e6 / repeats;
    }
    qsort(rounds, ROUNDS, sizeof(double), compare);
    return rounds[ROUNDS / 2];
}

static void measure(troupe_comm *comm) {
    struct bench b = {.comm = comm};
    int ranks[] = {0, 1};
    if (troupe_comm_size(comm) != 2) {
        fprintf(stderr, "comm_latency needs 2 ranks, not %d\n", troupe_comm_size(comm));
        exit(1);
    }
    must(TROUPE_NEW(&b.memory, BYTES_MAX));
    must(troupe_group_create(comm,
                             &(struct troupe_group_options){
                                 .ranks = ranks, .count = 2, .id = 1, .bytes_max = REDUCE_BYTES},
                             &b.world));
    troupe_comm_set_control_handler(comm, count_control, &b);
    double control = median_us(&b, control_ping_pong, 64, 2000) / 2;
    double small = median_us(&b, ping_pong, 8, 2000) / 2;
    double medium = median_us(&b, ping_pong, 65536, 500) / 2;
    double large = median_us(&b, ping_pong, BYTES_MAX, 20) / 2;
    double sum = median_us(&b, reduce, REDUCE_BYTES, 50);
    if (troupe_comm_rank(comm) == 0) {
        printf("%-24s %12s %10s %10s %10s %16s\n", "us, one way", "control 64 B", "8 B", "64 KiB",
               "4 MiB", "all-reduce 1 MiB");
        printf("%-24s %12.2f %10.2f %10.1f %10.0f %16.0f\n", troupe_comm_name(comm), control, small,
               medium, large, sum);
    }
    troupe_group_destroy(b.world);
    troupe_free(b.memory);
    troupe_comm_close(comm);
}

struct thread_args {
    troupe_loopback *world;
    int rank;
};

static void *rank_thread(void *arg) {
    const struct thread_args *args = arg;
    troupe_comm *comm = NULL;
    must(troupe_comm_open_loopback(args->world, args->rank, &comm));
    measure(comm);
    return NULL;
}

static void run_loopback(void) {
    troupe_loopback *world = NULL;
    pthread_t threads[2];
    struct thread_args args[2];
    must(troupe_loopback_create(&(struct troupe_loopback_options){.ranks = 2}, &world));
    for (int r = 0; r < 2; r++) {
        args[r] = (struct thread_args){.world = world, .rank = r};
        pthread_create(&threads[r], NULL, rank_thread, &args[r]);
    }
    for (int r = 0; r < 2; r++) {
        pthread_join(threads[r], NULL);
    }
    troupe_loopback_destroy(world);
}

int main(int argc, char **argv) {
    const char *provider = argc > 1 ? argv[1] : "loopback";
    if (strcmp(provider, "loopback") == 0) {
        run_loopback();
        return 0;
    }
    troupe_comm *comm = NULL;
    must(troupe_comm_open(&(struct troupe_comm_options){.provider = provider}, &comm));
    measure(comm);
    return 0;
}
