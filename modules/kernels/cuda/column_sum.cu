/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

extern "C" int troupe_cuda_launch_column_sum(const troupe_column_sum *given, void *stream) {
    const troupe_column_sum op = *given;
    return sum_columns<1>(
        op.x.rows, op.x.columns, stream,
        [=] __device__(int64_t r, int64_t c, sums<1> & sum) { sum.value[0] += at(op.x, r)[c]; },
        [=] __device__(int64_t c, const sums<1> &sum) {
            store_value(&at(op.out, 0)[c], sum.value[0], op.accumulate);
        });
}
