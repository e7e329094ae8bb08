/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/spin_lock.h"

#include <pthread.h>
#include <sched.h>
#include <stddef.h>

#include "runtime/clock.h"
#include "runtime/eventcount.h"

enum { SPINS = 200 }; /* before the first yield: a holder that runs is done by then */

static _Thread_local struct {
    troupe_spin_lock_judge gives_up;
    void *arg;
} judge;

void troupe_spin_lock_set_judge(troupe_spin_lock_judge gives_up, void *arg) {
    judge.gives_up = gives_up;
    judge.arg = arg;
}

void troupe_spin_lock_clear_judge(const void *arg) {
    if (judge.arg == arg) {
        judge.gives_up = NULL;
        judge.arg = NULL;
    }
}

/* Stands before libc's. Others may wait for the lock as well and get it first, so who has released
 * it for its holder waits on. */
int pthread_spin_lock(pthread_spinlock_t *lock) {
    int64_t begin_ns = 0;
    for (int tries = 0; pthread_spin_trylock(lock) != 0; tries++) {
        if (tries < SPINS) {
            troupe_cpu_relax();
            continue;
        }
        sched_yield();
        int64_t now = (int64_t)troupe_clock_ns();
        begin_ns = begin_ns == 0 ? now : begin_ns;
        if (judge.gives_up != NULL && judge.gives_up(judge.arg, now - begin_ns)) {
            pthread_spin_unlock(lock);
            begin_ns = now;
        }
    }
    return 0;
}
