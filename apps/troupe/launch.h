/* SPDX-License-Identifier: Apache-2.0
 *
 * Turns one process into its rank (or ranks) of a job: opens the endpoint that mpirun, srun or
 * --ranks call for, binds it to its share of the cores, makes its worker team and runs the body.
 *
 * Ownership: endpoint and team are destroyed when the body returns. Threads: the body runs in the
 * calling thread (a launched rank) or in one thread per loopback rank.
 * Failure: the body's; the first rank's sentence goes to stderr, "rank 2: ...".
 */
#ifndef TROUPE_APPS_TROUPE_LAUNCH_H
#define TROUPE_APPS_TROUPE_LAUNCH_H

#include "comm/comm.h"
#include "runtime/status.h"
#include "runtime/workers.h"

enum { TROUPE_LAUNCH_RANKS_MAX = 256 };

struct troupe_launch_options {
    int ranks;            /* loopback ranks; 0: this process is one rank */
    const char *provider; /* as in comm.provider */
    int workers;          /* threads per rank; 0: its share of the cores */
};

troupe_status troupe_launch(const struct troupe_launch_options *options,
                            troupe_status (*body)(void *arg, troupe_comm *comm,
                                                  troupe_workers *workers),
                            void *arg);

#endif
