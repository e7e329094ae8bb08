/* SPDX-License-Identifier: Apache-2.0
 *
 * Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011). A value is a pure function of (seed, stream, counter), so
 * initial weights and dropout masks are the same in every layout: `stream` is the hash of a
 * parameter name or layer, `counter` the global element or sample index.
 *
 *     double w = 0.02 * troupe_random_normal(seed, troupe_random_stream(name), element);
 *
 * Ownership: none. Threads: any, pure. Failure: none.
 */
#ifndef TROUPE_RUNTIME_RANDOM_H
#define TROUPE_RUNTIME_RANDOM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The four 32-bit words of block `counter`. */
void troupe_random_block(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]);
/* 64 bits. */
uint64_t troupe_random_bits(uint64_t seed, uint64_t stream, uint64_t counter);
/* Uniform in [0, 1), 53 bits. */
double troupe_random_uniform(uint64_t seed, uint64_t stream, uint64_t counter);
/* Uniform integer in [0, bound), bound >= 1, by multiply-shift. */
uint64_t troupe_random_below(uint64_t seed, uint64_t stream, uint64_t counter, uint64_t bound);
/* Standard normal (Box and Muller, 1958), float64. */
double troupe_random_normal(uint64_t seed, uint64_t stream, uint64_t counter);
/* 64-bit FNV-1a hash of a name, for use as a stream. */
uint64_t troupe_random_stream(const char *name);

#ifdef __cplusplus
}
#endif
#endif
