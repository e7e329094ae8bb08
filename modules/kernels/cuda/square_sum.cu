/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

extern "C" int troupe_cuda_launch_square_sum(const troupe_square_sum *given, double *scratch,
                                             void *stream) {
    const troupe_square_sum op = *given;
    return combine_all(
        op.x.rows, op.x.columns, 0.0, scratch, stream,
        [=] __device__(int64_t r, int64_t c) {
            double x = at(op.x, r)[c];
            return x * x;
        },
        [] __device__(double a, double b) { return a + b; },
        [=] __device__(double sum) { *op.out = sum; });
}
