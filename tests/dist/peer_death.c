/* SPDX-License-Identifier: Apache-2.0
 *
 * Rank 1 kills itself with SIGKILL in the middle of work. Every other rank must fail within 10 s
 * with a sentence that names rank 1, whatever it waits for: a message, a collective, nothing.
 * mpiexec runs with --enable-recovery, which leaves the survivors alone; each writes down what it
 * saw, and rank 0 reads it all and judges.
 *
 *     mpiexec --enable-recovery -n 4 peer_death shm|tcp|mpi
 */
#include <signal.h>
#include <unistd.h>

#include "comm/comm.h"
#include "comm/group.h"
#include "tests/test.h"

enum { VICTIM = 1, LIMIT_S = 10 };

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

/* Rank 2 waits in a collective, the others for a message of the victim. */
static troupe_status wait_for_the_dead(troupe_comm *comm, troupe_group *world) {
    float value = 1;
    struct troupe_transfer receive = {
        .peer = VICTIM, .tag = 3, .segments = {{&value, 4}}, .segment_count = 1};
    if (troupe_comm_rank(comm) == 2) {
        return troupe_group_all_reduce(world, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32, &value, 1);
    }
    TROUPE_TRY(troupe_comm_post_receive(comm, &receive));
    double begin = seconds();
    while (receive.status == TROUPE_AGAIN) {
        EXPECT(seconds() - begin < LIMIT_S, "rank %d still waits", troupe_comm_rank(comm));
        if (troupe_comm_progress(comm) == 0) {
            troupe_comm_idle(comm);
        }
    }
    return receive.status;
}

static void survivors_name_the_dead(const char *provider) {
    troupe_comm *comm = NULL;
    troupe_group *world = NULL;
    EXPECT_OK(troupe_comm_open(&(struct troupe_comm_options){.provider = provider}, &comm));
    EXPECT_OK(troupe_group_create(comm, &(struct troupe_group_options){.bytes_max = 64}, &world));
    EXPECT_OK(troupe_group_barrier(world));
    shared_memory_is_nameless();
    if (troupe_comm_rank(comm) == VICTIM) {
        usleep(100000); /* so that the others have left the barrier and wait */
        kill(getpid(), SIGKILL);
    }
    double begin = seconds();
    EXPECT_EQ(wait_for_the_dead(comm, world), TROUPE_ERROR_PEER);
    double took = seconds() - begin;
    EXPECT(took < LIMIT_S, "rank %d noticed after %.1f s", troupe_comm_rank(comm), took);
    EXPECT_ERROR(troupe_comm_failure(comm), TROUPE_ERROR_PEER, "rank 1 is lost: ");
    printf("survivor %d after %.3f s: %s\n", troupe_comm_rank(comm), took, troupe_last_error());
    fflush(stdout);
    troupe_group_destroy(world);
    troupe_comm_close(comm);
}

int main(int argc, char **argv) {
    survivors_name_the_dead(argc > 1 ? argv[1] : "auto");
    return 0;
}
