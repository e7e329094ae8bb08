/* SPDX-License-Identifier: Apache-2.0
 *
 * A team of worker threads that serves parallel-for: the calling thread and count-1 workers run
 * body(arg, part) for every part in [0, parts). The parts are fixed by the caller (the tiling of a
 * kernel never depends on the number of workers), so results are the same for any team size.
 *
 * Workers spin for a budget, then park on a futex: a quiet team uses no CPU.
 *
 * Ownership: create/destroy by one owner. Threads: one thread at a time calls run; run is not
 * reentrant (a nested call runs serially in the caller). Failure: create returns ERROR_MEMORY or
 * ERROR_INVALID; run cannot fail.
 */
#ifndef TROUPE_RUNTIME_WORKERS_H
#define TROUPE_RUNTIME_WORKERS_H

#include <stdint.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_workers troupe_workers;

struct troupe_workers_options {
    int count;        /* threads in all, the caller included; 0 means 1 */
    const int *cores; /* OS core to bind worker i to, or NULL; -1 leaves it unbound */
    int64_t spin_ns;  /* before parking; 0: 50 us, or none when cores are shared; -1: none */
};

troupe_status troupe_workers_create(const struct troupe_workers_options *options,
                                    troupe_workers **out);
void troupe_workers_destroy(troupe_workers *workers);
int troupe_workers_count(const troupe_workers *workers);

/* Runs all parts, returns when the last is done. workers may be NULL: runs them in the caller.
 * Never allocates. */
void troupe_workers_run(troupe_workers *workers, int64_t parts,
                        void (*body)(void *arg, int64_t part), void *arg);

#ifdef __cplusplus
}
#endif
#endif
