/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

extern "C" int troupe_cuda_launch_row_max(const troupe_row_max *given, void *stream) {
    const troupe_row_max op = *given;
    return for_rows(op.logits.rows, stream, [=] __device__(int64_t r) {
        float max = -CUDART_INF_F;
        for (int64_t c = threadIdx.x; c < op.logits.columns; c += BLOCK) {
            max = fmaxf(max, at(op.logits, r)[c]);
        }
        max = combine_block(max, [](float a, float b) { return fmaxf(a, b); });
        if (threadIdx.x == 0) {
            op.row_max[r] = max;
        }
    });
}
