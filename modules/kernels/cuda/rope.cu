/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

extern "C" int troupe_cuda_launch_rope_table(const troupe_rope_table *given, void *stream) {
    const troupe_rope_table op = *given;
    int64_t half = op.table.columns / 2;
    double base = op.base != 0 ? op.base : 10000.0;
    return for_elements(op.table.rows, half, stream, [=] __device__(int64_t p, int64_t i) {
        double angle = (double)p * pow(base, -(double)i / (double)half);
        at(op.table, p)[i] = (float)cos(angle);
        at(op.table, p)[half + i] = (float)sin(angle);
    });
}

/* A thread turns one pair: columns i and half + i of a head. */
extern "C" int troupe_cuda_launch_rope(const troupe_rope *given, void *stream) {
    const troupe_rope op = *given;
    int64_t half = op.table.columns / 2;
    return for_elements(op.x.rows, op.x.columns / 2, stream,
                        [=] __device__(int64_t r, int64_t pair) {
                            int64_t i = pair % half, first = pair / half * 2 * half + i;
                            const float *x = at(op.x, r), *angle = at(op.table, op.positions[r]);
                            float cosine = angle[i];
                            float sine = op.inverse ? -angle[half + i] : angle[half + i];
                            float a = x[first], b = x[first + half];
                            at(op.y, r)[first] = a * cosine - b * sine;
                            at(op.y, r)[first + half] = b * cosine + a * sine;
                        });
}
