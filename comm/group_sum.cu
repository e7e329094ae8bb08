/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads members * count and writes count elements, one addition each: bound by memory. One thread
 * per element, in strides of the grid.
 */
#include <cuda_runtime_api.h>

#include "comm/group_sum_internal.h"

static const int64_t THREADS = 256, BLOCKS_MAX = 1024;

struct add {
    template <typename T> __device__ T operator()(T total, T value) const {
        return total + value;
    }
};

struct larger {
    template <typename T> __device__ T operator()(T total, T value) const {
        return value > total || value != value ? value : total; /* a NaN stays */
    }
};

template <typename T, typename Combine>
__global__ void ordered_sum(const T *own, const T *others, T *out, int64_t count, int members,
                            int index) {
    int64_t stride = (int64_t)gridDim.x * blockDim.x;
    for (int64_t e = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; e < count; e += stride) {
        T total = index == 0 ? own[e] : others[e];
        for (int i = 1; i < members; i++) {
            total = Combine()(total, i == index ? own[e] : others[i * count + e]);
        }
        out[e] = total;
    }
}

template <typename T, typename Combine>
static cudaError_t launch(const struct troupe_ordered_sum *sum, cudaStream_t stream) {
    int64_t blocks = (sum->count + THREADS - 1) / THREADS;
    blocks = blocks < BLOCKS_MAX ? blocks : BLOCKS_MAX;
    ordered_sum<T, Combine><<<(unsigned)blocks, (unsigned)THREADS, 0, stream>>>(
        static_cast<const T *>(sum->own), static_cast<const T *>(sum->others),
        static_cast<T *>(sum->out), sum->count, sum->members, sum->index);
    return cudaGetLastError();
}

template <typename T>
static cudaError_t launch_as(const struct troupe_ordered_sum *sum, cudaStream_t stream) {
    return sum->reduction == TROUPE_SUM ? launch<T, add>(sum, stream)
                                        : launch<T, larger>(sum, stream);
}

extern "C" int troupe_cuda_launch_ordered_sum(const struct troupe_ordered_sum *sum, void *stream) {
    cudaStream_t native = static_cast<cudaStream_t>(stream);
    if (sum->count == 0) {
        return cudaSuccess;
    }
    switch (sum->element) {
    case TROUPE_ELEMENT_FLOAT32:
        return launch_as<float>(sum, native);
    case TROUPE_ELEMENT_FLOAT64:
        return launch_as<double>(sum, native);
    case TROUPE_ELEMENT_INT64:
        return launch_as<long long>(sum, native);
    case TROUPE_ELEMENT_UINT64:
        return launch_as<unsigned long long>(sum, native);
    }
    return cudaErrorInvalidValue;
}
