/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

/* The normal distribution up to x. */
static __device__ float normal_below(float x) {
    return 0.5f * erfcf(-x * CUDART_SQRT_HALF_F);
}

extern "C" int troupe_cuda_launch_gelu(const troupe_gelu *given, void *stream) {
    const troupe_gelu op = *given;
    return for_elements(op.x.rows, op.x.columns, stream, [=] __device__(int64_t r, int64_t c) {
        float x = at(op.x, r)[c];
        at(op.y, r)[c] = x * normal_below(x);
    });
}

extern "C" int troupe_cuda_launch_gelu_backward(const troupe_gelu_backward *given, void *stream) {
    const troupe_gelu_backward op = *given;
    return for_elements(op.x.rows, op.x.columns, stream, [=] __device__(int64_t r, int64_t c) {
        const float one_over_sqrt_two_pi = 0.39894228f;
        float x = at(op.x, r)[c], density = one_over_sqrt_two_pi * expf(-0.5f * x * x);
        at(op.dx, r)[c] = at(op.dy, r)[c] * (normal_below(x) + x * density);
    });
}
