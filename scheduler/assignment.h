/* SPDX-License-Identifier: Apache-2.0
 *
 * Linear assignment: gives each of n rows a column of its own so that the gains add up to the most.
 * The way to relabel ranks when state moves: rows are roles, columns are ranks, the gain is what a
 * rank holds already of what the role needs.
 *
 *     TROUPE_TRY(troupe_assign(gains, n, column_of_row));
 *
 * Shortest augmenting paths with potentials (Kuhn 1955; Jonker, Volgenant 1987): O(n^3). Where
 * several assignments are best, rows keep the column of their own number before others, and lower
 * columns come first; so the result is the same on every rank.
 *
 * Ownership: the caller's arrays. Threads: any. Failure: ERROR_MEMORY.
 */
#ifndef TROUPE_SCHEDULER_ASSIGNMENT_H
#define TROUPE_SCHEDULER_ASSIGNMENT_H

#include <stdint.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* gains: (n, n) row-major, at least 0, their sums and those times n below 2^62. */
troupe_status troupe_assign(const int64_t *gains, int n, int *column_of_row_out);

#ifdef __cplusplus
}
#endif
#endif
