/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

extern "C" int troupe_cuda_launch_row_sum_exp(const troupe_row_sum_exp *given, void *stream) {
    const troupe_row_sum_exp op = *given;
    return for_rows(op.logits.rows, stream, [=] __device__(int64_t r) {
        const float *logits = at(op.logits, r);
        float max = op.row_max[r];
        double sum = 0;
        for (int64_t c = threadIdx.x; c < op.logits.columns; c += BLOCK) {
            sum += expf(logits[c] - max);
        }
        sum = sum_block(sum);
        if (threadIdx.x == 0) {
            int64_t column = (int64_t)op.targets[r] - op.begin;
            bool held = op.targets[r] >= 0 && column >= 0 && column < op.logits.columns;
            op.row_sum[r] = (float)sum;
            op.target_logit[r] = held ? logits[column] - max : 0.0f;
        }
    });
}
