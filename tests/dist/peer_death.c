/* SPDX-License-Identifier: Apache-2.0
 *
 * Rank 1 kills itself with SIGKILL in the middle of work. Every other rank must fail within 10 s
 * with a sentence that names rank 1, whatever it waits for: a message, a collective, nothing.
 * mpiexec runs with --enable-recovery, which leaves the survivors alone; each writes down what it
 * saw, and peer_death.sh counts.
 *
 *     mpiexec --enable-recovery -n 4 peer_death shm|tcp|mpi
 *
 * libfabric's shm sends under a spin lock in the receiver's memory. `shm dies`: the victim dies
 * while it holds the lock of rank 0; `shm stops`: it stays there, alive. The others end as well.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "comm/comm.h"
#include "comm/group.h"
#include "tests/test.h"

enum { VICTIM = 1, LIMIT_S = 10 };

enum fate { DIES_OUTSIDE, DIES_HOLDING, STOPS_HOLDING };

static enum fate in_lock = DIES_OUTSIDE; /* what the next release of a spin lock brings */

/* Stands before libc's, so libfabric calls it. The inner lock is released first: the victim still
 * holds the receiver's. */
int pthread_spin_unlock(pthread_spinlock_t *lock) {
    static int (*libc_unlock)(pthread_spinlock_t *);
    if (in_lock == DIES_HOLDING) {
        kill(getpid(), SIGKILL);
    } else if (in_lock == STOPS_HOLDING) {
        sleep(LIMIT_S);
        _exit(1);
    }
    if (libc_unlock == NULL) {
        void *found = dlsym(RTLD_NEXT, "pthread_spin_unlock");
        memcpy(&libc_unlock, &found, sizeof found);
    }
    return libc_unlock(lock);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* All that ranks share of a host's memory has lost its name already. */
static void shared_memory_is_nameless(void) {
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    EXPECT(maps != NULL, "no /proc/self/maps");
    while (fgets(line, sizeof line, maps) != NULL) {
        EXPECT(strstr(line, "/dev/shm/troupe") == NULL || strstr(line, "(deleted)") != NULL,
               "a killed rank would leave behind %s", line);
    }
    fclose(maps);
}

static void end_victim(troupe_comm *comm, enum fate fate) {
    float value = 1;
    struct troupe_transfer send = {
        .peer = 0, .tag = 4, .segments = {{&value, 4}}, .segment_count = 1};
    usleep(100000); /* so that the others have left the barrier and wait */
    in_lock = fate;
    if (fate != DIES_OUTSIDE) {
        troupe_comm_post_send(comm, &send);
        EXPECT(false, "the send to rank 0 released no lock");
    }
    kill(getpid(), SIGKILL);
}

/* Rank 2 waits in a collective, the others for a message of the victim. Rank 3 sends to rank 0
 * when the victim has ended and nobody knows. */
static troupe_status wait_for_the_dead(troupe_comm *comm, troupe_group *world) {
    float value = 1, late = 2;
    struct troupe_transfer send = {
        .peer = 0, .tag = 5, .segments = {{&late, 4}}, .segment_count = 1};
    struct troupe_transfer receive = {
        .peer = VICTIM, .tag = 3, .segments = {{&value, 4}}, .segment_count = 1};
    if (troupe_comm_rank(comm) == 2) {
        return troupe_group_all_reduce(world, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32, &value, 1);
    }
    TROUPE_TRY(troupe_comm_post_receive(comm, &receive));
    if (troupe_comm_rank(comm) == 3) {
        usleep(300000);
        TROUPE_TRY(troupe_comm_post_send(comm, &send));
    }
    double begin = seconds();
    while (receive.status == TROUPE_AGAIN) {
        EXPECT(seconds() - begin < LIMIT_S, "rank %d still waits", troupe_comm_rank(comm));
        if (troupe_comm_progress(comm) == 0) {
            troupe_comm_idle(comm);
        }
    }
    return receive.status;
}

/* Whoever gives up first says why, and the others repeat it. */
static void expect_cause(troupe_comm *comm, troupe_status status, enum fate fate) {
    if (fate == STOPS_HOLDING) {
        EXPECT(status == TROUPE_ERROR_TRANSPORT || status == TROUPE_ERROR_ABORTED, "status %d",
               status);
        EXPECT_ERROR(troupe_comm_failure(comm), status, "a rank of this host has stopped");
    } else {
        EXPECT_EQ(status, TROUPE_ERROR_PEER);
        EXPECT_ERROR(troupe_comm_failure(comm), TROUPE_ERROR_PEER, "rank 1 is lost: ");
    }
}

static void survivors_end(const char *provider, enum fate fate) {
    troupe_comm *comm = NULL;
    troupe_group *world = NULL;
    EXPECT_OK(troupe_comm_open(&(struct troupe_comm_options){.provider = provider}, &comm));
    EXPECT_OK(troupe_group_create(comm, &(struct troupe_group_options){.bytes_max = 64}, &world));
    EXPECT_OK(troupe_group_barrier(world));
    shared_memory_is_nameless();
    troupe_comm_set_patience(comm, 1000000000);
    if (troupe_comm_rank(comm) == VICTIM) {
        end_victim(comm, fate);
    }
    double begin = seconds();
    troupe_status status = wait_for_the_dead(comm, world);
    double took = seconds() - begin;
    EXPECT(took < LIMIT_S, "rank %d noticed after %.1f s", troupe_comm_rank(comm), took);
    expect_cause(comm, status, fate);
    printf("survivor %d after %.3f s: %s\n", troupe_comm_rank(comm), took, troupe_last_error());
    fflush(stdout);
    troupe_group_destroy(world);
    troupe_comm_close(comm);
}

int main(int argc, char **argv) {
    enum fate fate = argc < 3                       ? DIES_OUTSIDE
                     : strcmp(argv[2], "dies") == 0 ? DIES_HOLDING
                                                    : STOPS_HOLDING;
    survivors_end(argc > 1 ? argv[1] : "auto", fate);
    return 0;
}
