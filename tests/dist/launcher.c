/* SPDX-License-Identifier: Apache-2.0
 *
 * The first test of a machine's launcher: every process of the job sees all the others, before any
 * other distributed test can blame Troupe.
 *
 *     mpiexec -n 4 launcher 4
 */
#include "comm/comm.h"
#include "comm/group.h"
#include "tests/test.h"

static int ranks_expected;

static void every_rank_sees_every_other(void) {
    troupe_comm *comm = NULL;
    troupe_group *world = NULL;
    EXPECT_OK(troupe_comm_open(&(struct troupe_comm_options){.provider = "mpi"}, &comm));
    int size = troupe_comm_size(comm);
    EXPECT_EQ(size, ranks_expected);
    EXPECT_OK(troupe_group_create(comm, &(struct troupe_group_options){.bytes_max = 8}, &world));
    int64_t sum = 1 + troupe_comm_rank(comm);
    EXPECT_OK(troupe_group_all_reduce(world, TROUPE_SUM, TROUPE_ELEMENT_INT64, &sum, 1));
    EXPECT_EQ(sum, size * (size + 1) / 2);
    troupe_group_destroy(world);
    troupe_comm_close(comm);
}

int main(int argc, char **argv) {
    ranks_expected = argc > 1 ? atoi(argv[1]) : 1;
    TEST(every_rank_sees_every_other);
    return TEST_END();
}
