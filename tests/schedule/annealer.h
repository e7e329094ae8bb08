/* SPDX-License-Identifier: Apache-2.0
 *
 * The best schedule that a long search finds where exhaustive search is out of reach: simulated
 * annealing over the order of tasks on each rank (Kirkpatrick, Gelatt, Vecchi, 1983), begun from a
 * schedule that obeys the rules. It is off line and knows nothing of the order policies.
 *
 *     best_ns = annealer_run(&problem, start_ns, seconds, seed, bound_ns);
 *
 * Ownership: none. Threads: one. Failure: prints and ends the program, as tests do.
 */
#ifndef TROUPE_TESTS_SCHEDULE_ANNEALER_H
#define TROUPE_TESTS_SCHEDULE_ANNEALER_H

#include <stdint.h>

#include "tests/schedule/problem.h"

/* start_ns: when each task begins in the first schedule. Ends early where `bound_ns` is met. */
int64_t annealer_run(const struct problem *problem, const int64_t *start_ns, double seconds,
                     uint64_t seed, int64_t bound_ns);

#endif
