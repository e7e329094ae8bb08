/* SPDX-License-Identifier: Apache-2.0 */
/* Large islands over loopback: gangs over neighbouring ranks, and as many shifted by half a gang,
 * so that all hang together. Ranks of the same gangs must run the same tickets in the same order,
 * by tree and straight. With arguments it prints what a step costs the conductor's thread:
 *
 *     bench.island [RANKS [GANG [MICROBATCHES [TREE_RANKS]]]]     64 8 16 64 */
#include <pthread.h>
#include <time.h>

#include "actors/runtime.h"
#include "runtime/memory.h"
#include "tests/test.h"

enum { STEPS = 4, CONTROL_MESSAGES = 2048 };

struct island {
    int ranks, gang, microbatches, tree_ranks;
    troupe_loopback *world;
    int log_capacity; /* tasks that a rank runs */
    double cpu_ms[STEPS];
};

struct rank {
    struct island *island;
    int rank;
    pthread_t thread;
    troupe_status status;
    char text[512];
    int *log; /* gang and method of each task, in order */
    int count;
};

enum { FORWARD, BACKWARD, METHODS };

static troupe_status note(struct rank *rank, const struct troupe_firing *firing, int method) {
    EXPECT(rank->count < rank->island->log_capacity, "rank %d runs %d tasks", rank->rank,
           rank->count);
    rank->log[rank->count++] = firing->gang * METHODS + method;
    return TROUPE_OK;
}

static troupe_status forward(void *state, struct troupe_firing *firing) {
    return note(state, firing, FORWARD);
}

static troupe_status backward(void *state, struct troupe_firing *firing) {
    return note(state, firing, BACKWARD);
}

static const struct troupe_actor_method methods[] = {
    {.name = "forward", .kind = TROUPE_METHOD_FORWARD, .slot_take = true, .run = forward},
    {.name = "backward",
     .kind = TROUPE_METHOD_BACKWARD_INPUT,
     .after = {FORWARD},
     .after_count = 1,
     .slot_return = true,
     .run = backward}};
static const struct troupe_actor_class part = {
    .name = "part", .methods = methods, .method_count = METHODS};

/* Gangs of `gang` ranks from `first` on. */
static troupe_status spawn(troupe_runtime *runtime, struct rank *rank, int first) {
    const struct island *island = rank->island;
    for (int begin = first; begin < island->ranks; begin += island->gang) {
        int ranks[TROUPE_GANG_RANKS_MAX], count = 0, gang = 0;
        char name[32];
        snprintf(name, sizeof name, "part of %d", begin);
        for (int r = begin; r < begin + island->gang && r < island->ranks; r++) {
            ranks[count++] = r;
        }
        TROUPE_TRY(troupe_spawn(runtime,
                                &(struct troupe_spawn_options){.actor_class = &part,
                                                               .name = name,
                                                               .ranks = ranks,
                                                               .rank_count = count,
                                                               .slots = 2,
                                                               .argument = rank},
                                &gang));
    }
    return TROUPE_OK;
}

static double thread_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec * 1e-6;
}

static troupe_status run_rank(struct rank *rank, troupe_comm *comm) {
    struct island *island = rank->island;
    troupe_runtime *runtime = NULL;
    TROUPE_TRY(
        troupe_runtime_create(comm,
                              &(struct troupe_runtime_options){.microbatches = island->microbatches,
                                                               .tree_ranks = island->tree_ranks},
                              &runtime));
    TROUPE_TRY(spawn(runtime, rank, 0));
    TROUPE_TRY(spawn(runtime, rank, island->gang / 2));
    TROUPE_TRY(troupe_runtime_start(runtime));
    for (int64_t step = 0; step < STEPS; step++) {
        double begin_ms = thread_ms();
        TROUPE_TRY(troupe_runtime_step(runtime, step));
        if (rank->rank == 0) {
            island->cpu_ms[step] = thread_ms() - begin_ms;
        }
    }
    troupe_runtime_destroy(runtime);
    return TROUPE_OK;
}

static void *run_thread(void *arg) {
    struct rank *rank = arg;
    troupe_comm *comm = NULL;
    rank->status = troupe_comm_open_loopback(rank->island->world, rank->rank, &comm);
    if (rank->status == TROUPE_OK) {
        rank->status = run_rank(rank, comm);
        snprintf(rank->text, sizeof rank->text, "%s", troupe_last_error());
        if (rank->status != TROUPE_OK) {
            troupe_comm_abort(comm, rank->text);
        }
        troupe_comm_close(comm);
    }
    return NULL;
}

/* Whether the ranks are in the same gangs. */
static bool are_alike(const struct island *island, int a, int b) {
    int half = island->gang / 2;
    return a / island->gang == b / island->gang && a >= half && b >= half &&
           (a - half) / island->gang == (b - half) / island->gang;
}

static void run(struct island *island) {
    struct rank *ranks = calloc((size_t)island->ranks, sizeof *ranks);
    int checked = 0;
    island->log_capacity = 2 * METHODS * island->microbatches * STEPS;
    EXPECT_OK(troupe_loopback_create(
        &(struct troupe_loopback_options){.ranks = island->ranks,
                                          .control_messages_max = CONTROL_MESSAGES},
        &island->world));
    for (int r = 0; r < island->ranks; r++) {
        ranks[r].island = island;
        ranks[r].rank = r;
        ranks[r].log = calloc((size_t)island->log_capacity, sizeof *ranks[r].log);
        EXPECT_EQ(pthread_create(&ranks[r].thread, NULL, run_thread, &ranks[r]), 0);
    }
    for (int r = 0; r < island->ranks; r++) {
        pthread_join(ranks[r].thread, NULL);
        EXPECT(ranks[r].status == TROUPE_OK, "rank %d: %s", r, ranks[r].text);
    }
    for (int r = 0; r + 1 < island->ranks; r++) {
        if (are_alike(island, r, r + 1)) {
            EXPECT_EQ(ranks[r].count, island->log_capacity);
            EXPECT(ranks[r].count == ranks[r + 1].count &&
                       memcmp(ranks[r].log, ranks[r + 1].log,
                              (size_t)ranks[r].count * sizeof *ranks[r].log) == 0,
                   "ranks %d and %d run their tickets in different orders", r, r + 1);
            checked++;
        }
    }
    EXPECT(checked > 0, "no two of %d ranks are alike", island->ranks);
    for (int r = 0; r < island->ranks; r++) {
        free(ranks[r].log);
    }
    free(ranks);
    troupe_loopback_destroy(island->world);
}

/* Two levels below the conductor, and a rest. */
static void tickets_by_tree_keep_one_order(void) {
    struct island island = {.ranks = 28, .gang = 4, .microbatches = 5, .tree_ranks = 1};
    run(&island);
}

static void straight_tickets_keep_one_order(void) {
    struct island island = {.ranks = 28, .gang = 4, .microbatches = 5, .tree_ranks = 64};
    run(&island);
}

int main(int argc, char **argv) {
    if (argc > 1) {
        struct island island = {.ranks = atoi(argv[1]),
                                .gang = argc > 2 ? atoi(argv[2]) : 8,
                                .microbatches = argc > 3 ? atoi(argv[3]) : 16,
                                .tree_ranks = argc > 4 ? atoi(argv[4]) : 64};
        run(&island);
        for (int step = 0; step < STEPS; step++) {
            printf("%d ranks, gangs of %d, %d tasks a rank: step %d takes %.2f ms of the "
                   "conductor's core\n",
                   island.ranks, island.gang, 2 * METHODS * island.microbatches, step,
                   island.cpu_ms[step]);
        }
        return 0;
    }
    TEST(tickets_by_tree_keep_one_order);
    TEST(straight_tickets_keep_one_order);
    return TEST_END();
}
