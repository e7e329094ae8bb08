/* SPDX-License-Identifier: Apache-2.0
 *
 * exp and erf in float32, without branches or calls, so that loops over them become vector code.
 * Errors are the largest found over all float32 arguments of the range (tests/kernels/math.c checks
 * a sample against the C library in float64).
 *
 * Ownership: none. Threads: any. Failure: none; NaN gives NaN.
 */
#ifndef TROUPE_KERNELS_CPU_MATH_INTERNAL_H
#define TROUPE_KERNELS_CPU_MATH_INTERNAL_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* exp(x), relative error below 1.2e-7 on [-87, 88]. Arguments are clamped to that range, so
 * exp(-infinity) is 1.6e-38, not 0. Cody and Waite, 1980: x = n ln 2 + r, a polynomial in r, then n
 * is added to the exponent. */
static inline float vector_exp(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to the nearest integer */
    float shifted = x * 1.44269504088896341f + round;
    float n = shifted - round;
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    uint32_t exponent, bits;
    memcpy(&exponent, &shifted, sizeof(exponent));
    memcpy(&bits, &p, sizeof(bits));
    bits += exponent << 23;
    memcpy(&p, &bits, sizeof(p));
    return p;
}

/* erf(x), absolute error below 1.2e-7 (relative below 1.5e-7): a polynomial around 0, and
 * 1 - exp(q(|x|)) beyond. */
static inline float vector_erf(float x) {
    float t = x < 0.0f ? -x : x, s = x * x;
    float tail = -1.72853470e-5f * t + 3.83197126e-4f;
    float odd = -3.88396438e-3f * t + 2.42546219e-2f;
    tail = tail * s + odd;
    tail = tail * t - 1.06777877e-1f;
    tail = tail * t - 6.34846687e-1f;
    tail = tail * t - 1.28717512e-1f;
    tail = 1.0f - vector_exp(tail * t - t);
    tail = x < 0.0f ? -tail : tail;
    float near = -5.96761703e-4f;
    near = near * s + 4.99119423e-3f;
    near = near * s - 2.67681349e-2f;
    near = near * s + 1.12819925e-1f;
    near = near * s - 3.76125336e-1f;
    near = near * s + 1.28379166e-1f;
    near = near * x + x;
    return t > 0.927734375f ? tail : near;
}

static inline float vector_sigmoid(float x) {
    return 1.0f / (1.0f + vector_exp(-x));
}

#endif
