/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

extern "C" int troupe_cuda_launch_norm(const troupe_norm *given, bool centered, void *stream) {
    const troupe_norm op = *given;
    return for_rows(op.x.rows, stream, [=] __device__(int64_t r) {
        const float *x = at(op.x, r);
        int64_t columns = op.x.columns;
        double sum = 0, squares = 0;
        for (int64_t c = threadIdx.x; centered && c < columns; c += BLOCK) {
            sum += x[c];
        }
        double mean = centered ? sum_block(sum) / (double)columns : 0.0;
        for (int64_t c = threadIdx.x; c < columns; c += BLOCK) {
            double d = x[c] - mean;
            squares += d * d;
        }
        double rstd = 1 / sqrt(sum_block(squares) / (double)columns + op.epsilon);
        for (int64_t c = threadIdx.x; c < columns; c += BLOCK) { /* y may be x */
            float bias = centered ? at(op.bias, 0)[c] : 0.0f;
            at(op.y, r)[c] = (float)((x[c] - mean) * rstd) * at(op.weight, 0)[c] + bias;
        }
        if (threadIdx.x == 0) {
            if (centered) {
                op.mean[r] = (float)mean;
            }
            op.rstd[r] = (float)rstd;
        }
    });
}

extern "C" int troupe_cuda_launch_norm_backward_input(const troupe_norm_backward_input *given,
                                                      bool centered, void *stream) {
    const troupe_norm_backward_input op = *given;
    return for_rows(op.x.rows, stream, [=] __device__(int64_t r) {
        const float *x = at(op.x, r), *dy = at(op.dy, r), *weight = at(op.weight, 0);
        int64_t columns = op.x.columns;
        float mean = centered ? op.mean[r] : 0.0f, rstd = op.rstd[r];
        double sum_g = 0, sum_g_hat = 0;
        for (int64_t c = threadIdx.x; c < columns; c += BLOCK) {
            double g = (double)dy[c] * weight[c];
            sum_g += g;
            sum_g_hat += g * (x[c] - mean) * rstd;
        }
        double mean_g = centered ? sum_block(sum_g) / (double)columns : 0.0;
        double mean_g_hat = sum_block(sum_g_hat) / (double)columns;
        for (int64_t c = threadIdx.x; c < columns; c += BLOCK) { /* dx may be dy */
            double g = (double)dy[c] * weight[c], hat = ((double)x[c] - mean) * rstd;
            store_value(&at(op.dx, r)[c], rstd * (g - mean_g - hat * mean_g_hat), op.accumulate);
        }
    });
}

extern "C" int troupe_cuda_launch_norm_backward_weight(const troupe_norm_backward_weight *given,
                                                       bool centered, void *stream) {
    const troupe_norm_backward_weight op = *given;
    return sum_columns<2>(
        op.x.rows, op.x.columns, stream,
        [=] __device__(int64_t r, int64_t c, sums<2> & sum) {
            double dy = at(op.dy, r)[c], mean = centered ? op.mean[r] : 0.0f;
            sum.value[0] += dy * (at(op.x, r)[c] - mean) * op.rstd[r];
            sum.value[1] += dy;
        },
        [=] __device__(int64_t c, const sums<2> &sum) {
            store_value(&at(op.dweight, 0)[c], sum.value[0], op.accumulate);
            if (centered) {
                store_value(&at(op.dbias, 0)[c], sum.value[1], op.accumulate);
            }
        });
}
