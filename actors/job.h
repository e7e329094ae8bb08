/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs the same body once per rank, wherever the ranks live: as threads of this process over the
 * loopback transport, or as the processes that mpirun or srun started.
 *
 *     static troupe_status body(void *arg, troupe_comm *comm) { ... }
 *     int main(int argc, char **argv) {
 *         return troupe_job_main(&(struct troupe_job_options){.ranks = ranks}, body, NULL);
 *     }
 *
 * Ownership: the endpoint is opened before and closed after the body. Threads: with loopback ranks
 * each body has its own thread; `arg` is shared by them.
 * Failure: a body that fails ends the job on the other ranks (troupe_comm_abort); run returns the
 * first failure that is not an echo of another, and its sentence is the last error. A rank for
 * which another speaks, having failed alike at the same time, has an empty one.
 */
#ifndef TROUPE_ACTORS_JOB_H
#define TROUPE_ACTORS_JOB_H

#include <stdint.h>

#include "comm/comm.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_job_options {
    int ranks;             /* loopback ranks; 0: processes of the launcher (one without) */
    uint64_t seed;         /* loopback: of delays and reorderings */
    int64_t delay_ns_max;  /* loopback: 0: none */
    const char *provider;  /* processes: see struct troupe_comm_options */
    troupe_status refused; /* not OK: this process cannot take part, why is the last error; no body
                              runs anywhere */
};

typedef troupe_status (*troupe_job_body)(void *arg, troupe_comm *comm);

troupe_status troupe_job_run(const struct troupe_job_options *options, troupe_job_body body,
                             void *arg);
/* For a body that fails between collective calls: ends the job on all ranks, with this thread's
 * last error, which stays. Before it destroys what is collective, for that would wait for the
 * others. Returns status. */
troupe_status troupe_job_abort(troupe_comm *comm, troupe_status status);
/* troupe_job_run for a main: prints the sentence of a failure, returns the exit status. */
int troupe_job_main(const struct troupe_job_options *options, troupe_job_body body, void *arg);

#ifdef __cplusplus
}
#endif
#endif
