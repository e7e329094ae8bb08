/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

/* In float64: memory sets the pace, and bias correction cancels. */
extern "C" int troupe_cuda_launch_adamw(const troupe_adamw *given, void *stream) {
    const troupe_adamw op = *given;
    const double correct_m = 1 - pow(op.beta1, (double)op.step);
    const double correct_v = 1 - pow(op.beta2, (double)op.step);
    return for_elements(op.param.rows, op.param.columns, stream,
                        [=] __device__(int64_t r, int64_t c) {
                            float *param = &at(op.param, r)[c];
                            float *m = &at(op.m, r)[c], *v = &at(op.v, r)[c];
                            double g = op.grad_scale * at(op.grad, r)[c];
                            double next_m = op.beta1 * *m + (1 - op.beta1) * g;
                            double next_v = op.beta2 * *v + (1 - op.beta2) * g * g;
                            double root = sqrt(next_v / correct_v) + op.epsilon;
                            double change = next_m / correct_m / root + op.decay * *param;
                            *param = (float)(*param - op.lr * change);
                            *m = (float)next_m;
                            *v = (float)next_v;
                        });
}
