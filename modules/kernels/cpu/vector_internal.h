/* SPDX-License-Identifier: Apache-2.0
 *
 * Vectors of float32 as wide as the processor's registers, for the loops that the compiler does not
 * find by itself. Elsewhere plain loops with `omp simd` do.
 *
 * Ownership: none. Threads: any. Failure: none.
 */
#ifndef TROUPE_KERNELS_CPU_VECTOR_INTERNAL_H
#define TROUPE_KERNELS_CPU_VECTOR_INTERNAL_H

#include <stdint.h>

#if defined(__AVX512F__)
enum { VECTOR_LANE = 16 };
#elif defined(__AVX__)
enum { VECTOR_LANE = 8 };
#else
enum { VECTOR_LANE = 4 };
#endif

typedef float vector __attribute__((vector_size(VECTOR_LANE * sizeof(float))));
/* A vector anywhere in memory. */
typedef float unaligned __attribute__((vector_size(VECTOR_LANE * sizeof(float)), aligned(4)));

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16") /* loops whose arrays live in registers */

/* Transposes a square of VECTOR_LANE vectors, swapping blocks of 1, 2, 4, ... numbers. */
INLINE void vector_turn(vector *row) {
    typedef int32_t indices __attribute__((vector_size(VECTOR_LANE * sizeof(int32_t))));
    UNROLL
    for (int size = 1; size < VECTOR_LANE; size *= 2) {
        indices even, odd; /* of the numbers of a and of b, b's from VECTOR_LANE on */
        UNROLL
        for (int j = 0; j < VECTOR_LANE; j++) {
            even[j] = j & size ? VECTOR_LANE + j - size : j;
            odd[j] = j & size ? VECTOR_LANE + j : j + size;
        }
        UNROLL
        for (int i = 0; i < VECTOR_LANE; i++) {
            if ((i & size) == 0) {
                vector a = row[i], b = row[i + size];
                row[i] = __builtin_shuffle(a, b, even);
                row[i + size] = __builtin_shuffle(a, b, odd);
            }
        }
    }
}

#endif
