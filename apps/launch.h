/* SPDX-License-Identifier: Apache-2.0
 *
 * A job (actors/job.h) whose ranks sit on their own cores: each is bound to its share of those that
 * the launcher left it (of those next to its GPU, if it has one), and gets a team of worker threads
 * there.
 *
 *     TROUPE_TRY(launch(&(struct launch_options){.ranks = 4}, body, &config));
 *
 * Ownership: the team is destroyed when the body returns. Threads: the body runs in the calling
 * thread (a launched rank) or in one thread per loopback rank.
 * Failure: the job's, and its sentence ("rank 2: ..." where it is about a rank) is the last error.
 */
#ifndef TROUPE_APPS_LAUNCH_H
#define TROUPE_APPS_LAUNCH_H

#include <stdbool.h>

#include "comm/comm.h"
#include "runtime/status.h"
#include "runtime/workers.h"

enum { LAUNCH_RANKS_MAX = 256 };

struct launch_options {
    int ranks;             /* loopback ranks; 0: this process is one rank */
    const char *provider;  /* as in comm.provider */
    const char *device;    /* as in train.device: ranks sit next to theirs; NULL: cpu */
    int workers;           /* threads per rank; 0: TROUPE_THREADS, or its share of the cores */
    troupe_status refused; /* as in struct troupe_job_options */
    bool verbose;          /* say on stdout which cores each rank is bound to */
};

typedef troupe_status (*launch_body)(void *arg, troupe_comm *comm, troupe_workers *workers);

troupe_status launch(const struct launch_options *options, launch_body body, void *arg);

#endif
