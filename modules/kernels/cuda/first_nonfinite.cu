/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

extern "C" int troupe_cuda_launch_first_nonfinite(const troupe_first_nonfinite *given,
                                                  int64_t *scratch, void *stream) {
    const troupe_first_nonfinite op = *given;
    const int64_t none = op.x.rows;
    return combine_all(
        op.x.rows, op.x.columns, none, scratch, stream,
        [=] __device__(int64_t r, int64_t c) { return isfinite(at(op.x, r)[c]) ? none : r; },
        [] __device__(int64_t a, int64_t b) { return a < b ? a : b; },
        [=] __device__(int64_t row) { *op.row_out = row < none ? row : -1; });
}
