/* SPDX-License-Identifier: Apache-2.0
 *
 * The runtime of one rank: its actors, the edges between them and all others, and the conductor of
 * the island if this is the island's lowest rank. Everything hangs from it; one process may hold
 * several (loopback ranks as threads).
 *
 *     troupe_runtime_create(&(struct troupe_runtime_options){.comm = comm}, &runtime);
 *     int a = troupe_spawn(runtime, &...);  troupe_connect(runtime, &...);    (same on all ranks)
 *     TROUPE_TRY(troupe_runtime_start(runtime));
 *     TROUPE_TRY(troupe_runtime_run(runtime));      until an actor calls troupe_stop; or
 *     TROUPE_TRY(troupe_runtime_step(runtime, step));           one step of all microbatches
 *
 * Ownership: the endpoint and the actors' states are borrowed. Threads: one thread per runtime.
 * Failure: a method's or the transport's status, ERROR_CONTRACT for a message that is not what the
 * plan says, ERROR_STALL after stall_ns without progress; the runtime is then only good for
 * destroy, and the app tells the other ranks with troupe_comm_abort.
 * After start nothing allocates.
 */
#ifndef TROUPE_ACTORS_RUNTIME_H
#define TROUPE_ACTORS_RUNTIME_H

#include <stdint.h>

#include "actors/actor.h"
#include "comm/comm.h"
#include "runtime/status.h"
#include "scheduler/order.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_runtime_options {
    troupe_comm *comm;
    const struct troupe_order_policy *order; /* NULL: fifo */
    int look_ahead;                          /* tickets a rank holds; 0: 2 */
    int microbatches;                        /* of a step; 0: free-running methods */
    int64_t stall_ns;                        /* 0: 120 s */
};

troupe_status troupe_runtime_create(const struct troupe_runtime_options *options,
                                    troupe_runtime **out);
/* Accepts NULL. */
void troupe_runtime_destroy(troupe_runtime *runtime);

/* Checks the graph, compares it with the other ranks', sizes and allocates everything. */
troupe_status troupe_runtime_start(troupe_runtime *runtime);
/* Runs all tasks of one step on this rank; steps follow one another. */
troupe_status troupe_runtime_step(troupe_runtime *runtime, int64_t step);
/* Fires free-running methods until one of them calls troupe_stop. */
troupe_status troupe_runtime_run(troupe_runtime *runtime);

/* Asks for the report of troupe_runtime_explain on stderr at the next chance; safe in a signal
 * handler and from other threads. */
void troupe_runtime_request_report(troupe_runtime *runtime);
/* What each actor of this rank waits for, line by line, and if this rank conducts an island, what
 * the engine waits for. */
void troupe_runtime_explain(const troupe_runtime *runtime,
                            void (*line)(void *arg, const char *text), void *arg);

/* Islands of the started graph: conductor_of[rank]; returns their number. */
int troupe_runtime_islands(const troupe_runtime *runtime, int *conductor_of);

/* Since start. Of an actor on this rank: time in methods, and time the rank waited before them. */
struct troupe_actor_times {
    uint64_t compute_ns;
    uint64_t wait_ns;
};
struct troupe_actor_times troupe_runtime_times(const troupe_runtime *runtime, int actor);
int troupe_runtime_connection_count(const troupe_runtime *runtime);
const char *troupe_runtime_connection_name(const troupe_runtime *runtime, int connection);
/* Payload bytes that this rank has sent to other ranks over the connection. */
uint64_t troupe_runtime_connection_bytes(const troupe_runtime *runtime, int connection);

#ifdef __cplusplus
}
#endif
#endif
