/* SPDX-License-Identifier: Apache-2.0
 *
 * How the ranks of a job find each other: number, hosts, process ids, and an exchange of addresses
 * at start-up. The launcher (mpirun, srun) is asked through MPI; a process without one is alone.
 *
 *     TROUPE_TRY(troupe_bootstrap_open(&bootstrap));
 *     TROUPE_TRY(troupe_bootstrap_gather(&bootstrap, &mine, sizeof(mine), all));
 *     troupe_bootstrap_close(&bootstrap, true);
 *
 * Ownership: the struct is the caller's, its arrays are released by close.
 * Threads: the one that opened it. Failure: ERROR_TRANSPORT; ERROR_INVALID when the launcher
 * promised more ranks than MPI sees. Everything here blocks: start-up and shutdown only.
 */
#ifndef TROUPE_COMM_BOOTSTRAP_H
#define TROUPE_COMM_BOOTSTRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/status.h"

struct troupe_bootstrap {
    int rank, size;
    int *hosts;     /* ranks of one host share the number of its lowest rank */
    int *processes; /* process ids; mean something on this host only */
    bool owns_mpi;  /* this one initialised MPI and ends it */
};

/* The ranks that the launcher's environment promises; 1 without a launcher. */
int troupe_launcher_size(void);

troupe_status troupe_bootstrap_open(struct troupe_bootstrap *bootstrap);
/* all: size blocks of `bytes`, in rank order. */
troupe_status troupe_bootstrap_gather(const struct troupe_bootstrap *bootstrap, const void *mine,
                                      size_t bytes, void *all);
/* Waits for all ranks, calling `serve` meanwhile. When serve returns false, a rank is probably
 * gone: the wait ends within patience_ns, with TROUPE_ERROR_PEER if not all have come. */
troupe_status troupe_bootstrap_meet(const struct troupe_bootstrap *bootstrap,
                                    bool (*serve)(void *arg), void *arg, int64_t patience_ns);
/* Orderly: all ranks take part, and MPI ends. Otherwise (a rank is lost) only memory is freed. */
void troupe_bootstrap_close(struct troupe_bootstrap *bootstrap, bool orderly);

#endif
