/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

/* One block walks over all rows: a number each, and their sum in one fixed order. */
extern "C" int troupe_cuda_launch_cross_entropy(const troupe_cross_entropy *given, void *stream) {
    const troupe_cross_entropy op = *given;
    return for_rows(1, stream, [=] __device__(int64_t) {
        double sum = 0;
        for (int64_t r = threadIdx.x; r < op.rows; r += BLOCK) {
            bool counted = op.targets[r] >= 0;
            double loss = counted ? log((double)op.row_sum[r]) - op.target_logit[r] : 0.0;
            op.row_loss[r] = (float)loss;
            sum += loss;
        }
        sum = sum_block(sum);
        if (threadIdx.x == 0) {
            *op.loss_sum = sum;
        }
    });
}

extern "C" int troupe_cuda_launch_cross_entropy_backward(const troupe_cross_entropy_backward *given,
                                                         void *stream) {
    const troupe_cross_entropy_backward op = *given;
    return for_elements(op.logits.rows, op.logits.columns, stream,
                        [=] __device__(int64_t r, int64_t c) {
                            float *logit = &at(op.logits, r)[c];
                            float p = expf(*logit - op.row_max[r]) / op.row_sum[r];
                            float hit = c == (int64_t)op.targets[r] - op.begin ? 1.0f : 0.0f;
                            *logit = op.targets[r] >= 0 ? op.scale * (p - hit) : 0.0f;
                        });
}
