/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

static __device__ const float *row_from(const troupe_rows &op, int64_t i) {
    return at(op.from, op.from_index != NULL ? op.from_index[i] : i);
}

extern "C" int troupe_cuda_launch_rows_copy(const troupe_rows *given, void *stream) {
    const troupe_rows op = *given;
    return for_elements(op.count, op.from.columns, stream, [=] __device__(int64_t i, int64_t c) {
        at(op.to, op.to_index != NULL ? op.to_index[i] : i)[c] = row_from(op, i)[c];
    });
}

extern "C" int troupe_cuda_launch_rows_add(const troupe_rows *given, void *stream) {
    const troupe_rows op = *given;
    if (op.to_index != NULL) { /* several rows may land on one */
        return add_by_destination(
            op.to, op.count, stream, [=] __device__(int64_t i) { return (int64_t)op.to_index[i]; },
            [=] __device__(int64_t i) { return row_from(op, i); });
    }
    return for_elements(op.count, op.from.columns, stream, [=] __device__(int64_t i, int64_t c) {
        at(op.to, i)[c] += row_from(op, i)[c];
    });
}
