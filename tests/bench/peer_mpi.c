/* SPDX-License-Identifier: Apache-2.0 */
/* Open MPI's ping-pong, for `troupe bench`: mpiexec -n 2 bench.peer_mpi BYTES REPEATS prints the
 * microseconds one way, median, least and most of 5 rounds. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 5 };

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    int rank = 0, bytes = argc > 1 ? atoi(argv[1]) : 8, repeats = argc > 2 ? atoi(argv[2]) : 1000;
    double rounds[ROUNDS];
    char *memory = calloc(1, (size_t)bytes);
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    for (int round = -1; round < ROUNDS; round++) { /* the first one warms up */
        double begin = MPI_Wtime();
        for (int i = 0; i < repeats; i++) {
            if (rank == 0) {
                MPI_Send(memory, bytes, MPI_BYTE, 1, 0, MPI_COMM_WORLD);
            }
            MPI_Recv(memory, bytes, MPI_BYTE, 1 - rank, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            if (rank == 1) {
                MPI_Send(memory, bytes, MPI_BYTE, 0, 0, MPI_COMM_WORLD);
            }
        }
        if (round >= 0) {
            rounds[round] = (MPI_Wtime() - begin) * 1e6 / (2.0 * repeats);
        }
    }
    if (rank == 0) {
        qsort(rounds, ROUNDS, sizeof *rounds, compare);
        printf("figure %g %g %g\n", rounds[ROUNDS / 2], rounds[0], rounds[ROUNDS - 1]);
    }
    MPI_Finalize();
    free(memory);
    return 0;
}
