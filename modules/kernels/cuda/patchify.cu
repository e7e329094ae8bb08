/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/cuda/grid.cuh"

extern "C" int troupe_cuda_launch_patchify(const troupe_patchify *given, void *stream) {
    const troupe_patchify op = *given;
    const troupe_pixels image = op.images[0];
    int64_t across = image.width / op.patch, line_values = (int64_t)op.patch * 3;
    return for_elements(op.out.rows, op.out.columns, stream, [=] __device__(int64_t r, int64_t c) {
        int64_t y = r / across * op.patch + c / line_values;
        int64_t byte = r % across * line_values + c % line_values;
        int channel = (int)(c % 3);
        float deviation = op.deviation[channel] != 0.0f ? op.deviation[channel] : 1.0f;
        double value = image.pixels[y * image.stride_bytes + byte] / 255.0;
        at(op.out, r)[c] = (float)((value - op.mean[channel]) / deviation);
    });
}
