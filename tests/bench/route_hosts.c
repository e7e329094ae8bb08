/* SPDX-License-Identifier: Apache-2.0 */
/* Routes between two hosts that are network namespaces, made by route_hosts.sh: the first half of
 * the ranks enters the first one, the others the second, each with a host name of its own. All
 * routes lead from the first host to the second.
 *
 *     mpiexec -n 2|4|8 bench.route_hosts SPACE DEVICE SPACE DEVICE MBIT BYTES
 *
 * Fails unless the payload that enters the second host is LB2 exactly, by the routes' own count,
 * and its device has received no more than that, 66 bytes of headers for each segment of 1448, and
 * 256 KiB for all else (acknowledgements, control messages). Prints the time beside that of LB2
 * bytes at the rate of the device, which includes the headers. */
#include <errno.h>
#include <fcntl.h>
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/memory.h"
#include "tests/bench/route_job.h"
#include "tests/test.h"

enum { ROUNDS = 5, MICROBATCHES = 2, HEADER_BYTES = 66, SEGMENT_BYTES = 1448, SLACK = 256 << 10 };

/* Of `half` ranks on each host. */
static int make_cases(int half, struct route_case cases[4]) {
    struct route_side source = {0, .dp = half};
    cases[0] = (struct route_case){"dp -> tp copies", 0, source, {half, .tp = half}};
    cases[1] = (struct route_case){"dp -> tp sp", 0, source, {half, .tp = half, .sequence = true}};
    cases[2] =
        (struct route_case){"dp -> cp zig-zag", 0, source, {half, .cp = half, .zigzag = true}};
    cases[3] = (struct route_case){"tp copies -> dp", 0, {0, .tp = half}, {half, .dp = half}};
    return 4;
}

/* After MPI has started, whose own connections stay where they are. */
static void enter(const char *space) {
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", space);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || setns(file, CLONE_NEWNET) != 0 || unshare(CLONE_NEWUTS) != 0 ||
        sethostname(space, strlen(space)) != 0) {
        printf("skipped: cannot enter the network namespace %s: %s\n", space, strerror(errno));
        MPI_Finalize();
        exit(TEST_SKIPPED);
    }
    close(file);
    setenv("TROUPE_HOST_ID", space, 1);
}

/* Bytes that the device has received, in the namespace of this process. */
static int64_t received_by(const char *device) {
    char line[512];
    long long bytes = -1;
    size_t length = strlen(device);
    FILE *file = fopen("/proc/thread-self/net/dev", "r");
    while (file != NULL && bytes < 0 && fgets(line, sizeof line, file) != NULL) {
        char *name = line + strspn(line, " ");
        if (strncmp(name, device, length) == 0 && name[length] == ':') {
            EXPECT(sscanf(name + length + 1, "%lld", &bytes) == 1, "\"%s\"", line);
        }
    }
    EXPECT(bytes >= 0, "no device %s", device);
    fclose(file);
    return bytes;
}

/* Payload of a microbatch that enters this rank from the other host. */
static int64_t entering(const struct route_job *job) {
    struct troupe_route_binding *binding = NULL;
    int rank = troupe_comm_rank(job->comm);
    int64_t bytes = 0;
    EXPECT_OK(troupe_route_binding_create(job->route, rank, &binding));
    EXPECT_OK(troupe_route_bind(binding, job->source.offsets, job->destination.offsets));
    for (int i = 0; i < binding->receive_count; i++) {
        bool far = troupe_comm_host(job->comm, binding->receives[i].peer) !=
                   troupe_comm_host(job->comm, rank);
        bytes += far ? (int64_t)binding->receives[i].bytes : 0;
    }
    troupe_route_binding_destroy(binding);
    return bytes;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The second host needs every row and has none, so LB2 is the tensor. */
static void measure(troupe_comm *comm, const struct route_case *what, int64_t bytes,
                    const char *device, double mbit) {
    struct route_job job;
    int rank = troupe_comm_rank(comm), teller = troupe_comm_size(comm) / 2;
    double seconds[ROUNDS];
    EXPECT_OK(route_job_open(comm, what, bytes, MICROBATCHES, &job));
    int64_t bound = job.rows * ROUTE_COLUMNS * (int64_t)sizeof(int32_t), payload = entering(&job);
    MPI_Allreduce(MPI_IN_PLACE, &payload, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
    EXPECT_EQ(payload, bound);
    job.checks = true;
    EXPECT_OK(route_job_run(&job));
    job.checks = false;
    MPI_Barrier(MPI_COMM_WORLD);
    int64_t before = received_by(device);
    for (int round = 0; round < ROUNDS; round++) {
        MPI_Barrier(MPI_COMM_WORLD);
        double begin = MPI_Wtime();
        EXPECT_OK(route_job_run(&job));
        seconds[round] = (MPI_Wtime() - begin) / MICROBATCHES;
        MPI_Allreduce(MPI_IN_PLACE, &seconds[round], 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    double wire = (double)(received_by(device) - before) / (ROUNDS * MICROBATCHES);
    qsort(seconds, ROUNDS, sizeof *seconds, compare_doubles);
    if (rank == teller) { /* on the second host */
        double most = (double)bound * (1 + (double)HEADER_BYTES / SEGMENT_BYTES) + SLACK;
        double least_seconds = (double)bound * 8 / (mbit * 1e6);
        printf("%-18s %9.3f %11.3f %9.4f %9.1f %9.1f  %.3f (%.3f-%.3f)\n", what->name,
               (double)bound / (1 << 20), wire / (1 << 20), wire / (double)bound,
               1e3 * seconds[ROUNDS / 2], 1e3 * least_seconds, seconds[ROUNDS / 2] / least_seconds,
               seconds[0] / least_seconds, seconds[ROUNDS - 1] / least_seconds);
        fflush(stdout);
        EXPECT(wire >= (double)bound && wire <= most,
               "%s received %.0f bytes a microbatch, expected %lld to %.0f", device, wire,
               (long long)bound, most);
    }
    route_job_close(&job);
}

int main(int argc, char **argv) {
    int rank = 0, ranks = 0;
    EXPECT(argc == 7, "SPACE DEVICE SPACE DEVICE MBIT BYTES, not %d words", argc - 1);
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    char **host = argv + (rank < ranks / 2 ? 1 : 3);
    double mbit = atof(argv[5]);
    int64_t bytes = atoll(argv[6]);
    struct route_case cases[4];
    troupe_comm *comm = NULL;
    enter(host[0]);
    EXPECT_OK(troupe_comm_open(&(struct troupe_comm_options){.provider = "auto"}, &comm));
    if (rank == ranks / 2) {
        printf("%d ranks on 2 hosts, %s, %.0f Mbit/s\n%-18s %9s %11s %9s %9s %9s  %s\n", ranks,
               troupe_comm_name(comm), mbit, "", "LB2 MiB", "device MiB", "ratio", "ms", "cut ms",
               "ratio (least-most)");
    }
    int count = make_cases(ranks / 2, cases);
    for (int c = 0; c < count; c++) {
        measure(comm, &cases[c], bytes, host[1], mbit);
    }
    troupe_comm_close(comm);
    MPI_Finalize();
    return 0;
}
