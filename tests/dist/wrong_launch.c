/* SPDX-License-Identifier: Apache-2.0
 *
 * A launcher that promises several ranks, but whose processes find no MPI job, must not become
 * several jobs of one rank. And no launcher means one rank, at once.
 */
#include <unistd.h>

#include "comm/comm.h"
#include "tests/test.h"

static const char *const launcher_variables[] = {"OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS",
                                                 "PMI_SIZE"};

static void without_a_launcher_there_is_one_rank(void) {
    troupe_comm *comm = NULL;
    EXPECT_OK(troupe_comm_open(&(struct troupe_comm_options){0}, &comm));
    EXPECT_EQ(troupe_comm_size(comm), 1);
    EXPECT_EQ(troupe_comm_rank(comm), 0);
    troupe_comm_close(comm);
}

/* MPI starts once in a process; each launcher is tried in a fresh one. */
static void singletons_under_a_launcher_are_refused(void) {
    troupe_comm *comm = NULL;
    EXPECT_ERROR(troupe_comm_open(&(struct troupe_comm_options){0}, &comm), TROUPE_ERROR_INVALID,
                 "started 4 processes, but each sees itself as the only MPI rank");
}

int main(int argc, char **argv) {
    for (size_t i = 0; i < sizeof(launcher_variables) / sizeof(launcher_variables[0]); i++) {
        unsetenv(launcher_variables[i]);
    }
    if (argc > 1) {
        setenv(argv[1], "4", 1);
        TEST(singletons_under_a_launcher_are_refused);
    } else {
        TEST(without_a_launcher_there_is_one_rank);
    }
    return TEST_END();
}
