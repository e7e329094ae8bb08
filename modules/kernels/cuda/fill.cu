/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

extern "C" int troupe_cuda_launch_fill(const troupe_fill *given, void *stream) {
    const troupe_fill op = *given;
    return for_elements(op.x.rows, op.x.columns, stream,
                        [=] __device__(int64_t r, int64_t c) { at(op.x, r)[c] = op.value; });
}
