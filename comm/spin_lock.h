/* SPDX-License-Identifier: Apache-2.0
 *
 * A spin lock that a process took with it. libfabric's shm sends under a spin lock in the
 * receiver's memory; a process that is killed meanwhile, or stopped, never releases it, and whoever
 * sends to that receiver, or is it, would spin for ever inside libfabric, seeing and saying
 * nothing.
 *
 * pthread_spin_lock is therefore the one of spin_lock.c, in all of the program, libfabric included.
 * It yields the core while it waits. The thread of an endpoint is asked now and then whether it
 * gives up: if so, the lock is released for its holder. What the lock protects may be half done
 * then, so this is for endpoints that fail at once.
 *
 *     troupe_spin_lock_set_judge(gives_up, endpoint);
 *     ... calls of libfabric ...
 *     troupe_spin_lock_clear_judge(endpoint);
 *
 * Ownership: none. Threads: a judge is of the thread that set it. Failure: none.
 */
#ifndef TROUPE_COMM_SPIN_LOCK_H
#define TROUPE_COMM_SPIN_LOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Whether to wait no longer, after so long. Called inside of libfabric: must not call it. */
typedef bool (*troupe_spin_lock_judge)(void *arg, int64_t waited_ns);

void troupe_spin_lock_set_judge(troupe_spin_lock_judge gives_up, void *arg);
/* If it is that of `arg`. */
void troupe_spin_lock_clear_judge(const void *arg);

#endif
