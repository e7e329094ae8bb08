/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

static __device__ float sigmoid(float z) {
    return 1.0f / (1.0f + expf(-z));
}

extern "C" int troupe_cuda_launch_swiglu(const troupe_swiglu *given, void *stream) {
    const troupe_swiglu op = *given;
    return for_elements(op.gate.rows, op.gate.columns, stream,
                        [=] __device__(int64_t r, int64_t c) {
                            float gate = at(op.gate, r)[c];
                            at(op.y, r)[c] = gate * sigmoid(gate) * at(op.up, r)[c];
                        });
}

extern "C" int troupe_cuda_launch_swiglu_backward(const troupe_swiglu_backward *given,
                                                  void *stream) {
    const troupe_swiglu_backward op = *given;
    return for_elements(op.gate.rows, op.gate.columns, stream,
                        [=] __device__(int64_t r, int64_t c) {
                            float gate = at(op.gate, r)[c], up = at(op.up, r)[c];
                            float dy = at(op.dy, r)[c], s = sigmoid(gate);
                            at(op.dgate, r)[c] = dy * up * s * (1.0f + gate * (1.0f - s));
                            at(op.dup, r)[c] = dy * gate * s;
                        });
}
