/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

extern "C" int troupe_cuda_launch_embedding(const troupe_embedding *given, void *stream) {
    const troupe_embedding op = *given;
    return for_elements(op.y.rows, op.y.columns, stream, [=] __device__(int64_t r, int64_t c) {
        int64_t row = (int64_t)op.tokens[r] - op.begin;
        bool held = row >= 0 && row < op.table.rows;
        at(op.y, r)[c] = held ? at(op.table, row)[c] : 0.0f;
    });
}

extern "C" int troupe_cuda_launch_embedding_backward(const troupe_embedding_backward *given,
                                                     void *stream) {
    const troupe_embedding_backward op = *given;
    return add_by_destination(
        op.dtable, op.dy.rows, stream,
        [=] __device__(int64_t r) { return (int64_t)op.tokens[r] - op.begin; },
        [=] __device__(int64_t r) { return (const float *)at(op.dy, r); });
}
