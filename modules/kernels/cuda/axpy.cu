/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

extern "C" int troupe_cuda_launch_axpy(const troupe_axpy *given, void *stream) {
    const troupe_axpy op = *given;
    return for_elements(op.y.rows, op.y.columns, stream, [=] __device__(int64_t r, int64_t c) {
        at(op.y, r)[c] += op.alpha * at(op.x, r)[c];
    });
}
