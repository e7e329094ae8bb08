/* SPDX-License-Identifier: Apache-2.0
 *
 * Turns one process into its rank (or ranks) of a job: opens the endpoint that mpirun, srun or
 * --ranks call for, binds it to its share of the cores, makes its worker team and runs the body.
 *
 * Ownership: endpoint and team are destroyed when the body returns. Threads: the body runs in the
 * calling thread (a launched rank) or in one thread per loopback rank.
 * Failure: the body's; the first rank's sentence goes to stderr, "rank 2: ...".
 */
#ifndef TROUPE_APPS_LAUNCH_H
#define TROUPE_APPS_LAUNCH_H

#include <stdbool.h>

#include "comm/comm.h"
#include "runtime/status.h"
#include "runtime/workers.h"

enum { LAUNCH_RANKS_MAX = 256 };

struct launch_options {
    int ranks;            /* loopback ranks; 0: this process is one rank */
    const char *provider; /* as in comm.provider */
    int workers;          /* threads per rank; 0: TROUPE_THREADS, or its share of the cores */
    bool verbose;         /* say on stdout which cores each rank is bound to */
};

/* "--ranks N" anywhere in argv is taken out of it; returns N, or 0 if it is not there, or -1 with a
 * sentence if N is not in 1..LAUNCH_RANKS_MAX. */
int launch_take_ranks(int *argc, char **argv);

troupe_status launch(const struct launch_options *options,
                     troupe_status (*body)(void *arg, troupe_comm *comm, troupe_workers *workers),
                     void *arg);

#endif
