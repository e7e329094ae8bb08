/* SPDX-License-Identifier: Apache-2.0
 *
 * The shapes of work that the kernels share: every element, a block for every row, a sum for every
 * column, one number from a whole tensor. All orders of summation follow from the shape alone.
 *
 *     return for_elements(rows, columns, stream, [=] __device__(int64_t r, int64_t c) { ... });
 *
 * Each returns the cudaError_t of its launches as an int; nothing is launched for no work.
 */
#ifndef TROUPE_KERNELS_CUDA_GRID_CUH
#define TROUPE_KERNELS_CUDA_GRID_CUH

#include <cuda_runtime.h>
#include <math_constants.h>

#include "modules/kernels/cuda/launch_internal.h"

namespace {

enum { WARP = 32, BLOCK = 256, GRID_MAX = 1 << 16, PARTS = TROUPE_CUDA_SCRATCH_PARTS };

__host__ __device__ inline float *at(const troupe_tensor &t, int64_t row) {
    return (float *)t.data + row * t.stride;
}

inline int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

template <class Body> __global__ void elements_kernel(int64_t count, int64_t columns, Body body) {
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        body(i / columns, i % columns);
    }
}

/* body(row, column), any order */
template <class Body> int for_elements(int64_t rows, int64_t columns, void *stream, Body body) {
    int64_t count = rows * columns;
    if (count > 0) {
        int64_t blocks = smaller((count + BLOCK - 1) / BLOCK, GRID_MAX);
        elements_kernel<<<(unsigned)blocks, BLOCK, 0, (cudaStream_t)stream>>>(count, columns, body);
    }
    return (int)cudaGetLastError();
}

template <class Body> __global__ void rows_kernel(int64_t rows, Body body) {
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        body(row);
    }
}

/* body(row), by all BLOCK threads of a block together */
template <class Body> int for_rows(int64_t rows, void *stream, Body body) {
    if (rows > 0) {
        rows_kernel<<<(unsigned)smaller(rows, GRID_MAX), BLOCK, 0, (cudaStream_t)stream>>>(rows,
                                                                                           body);
    }
    return (int)cudaGetLastError();
}

/* One value of every thread of a block into one, which every thread gets; halves upon halves. */
template <class Value, class Combine> __device__ Value combine_block(Value value, Combine combine) {
    __shared__ Value part[BLOCK];
    __syncthreads(); /* an earlier call's result has been read */
    part[threadIdx.x] = value;
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            part[threadIdx.x] = combine(part[threadIdx.x], part[threadIdx.x + half]);
        }
    }
    __syncthreads();
    return part[0];
}

__device__ inline double sum_block(double value) {
    return combine_block(value, [](double a, double b) { return a + b; });
}

__device__ inline float sum_warp(float value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    }
    return value;
}

/* COUNT sums over the rows of each column. */
template <int COUNT> struct sums { double value[COUNT]; };

enum { COLUMN_LANES = 16 }; /* threads that share a column */

template <int COUNT, class Add, class Store>
__global__ void columns_kernel(int64_t rows, int64_t columns, Add add, Store store) {
    __shared__ sums<COUNT> part[COLUMN_LANES][WARP];
    int64_t column = (int64_t)blockIdx.x * WARP + threadIdx.x;
    sums<COUNT> sum = {};
    for (int64_t row = threadIdx.y; column < columns && row < rows; row += COLUMN_LANES) {
        add(row, column, sum);
    }
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < columns) {
        for (int lane = 1; lane < COLUMN_LANES; lane++) {
            for (int i = 0; i < COUNT; i++) {
                sum.value[i] += part[lane][threadIdx.x].value[i];
            }
        }
        store(column, sum);
    }
}

/* add(row, column, sum) for every row, then store(column, sum). */
template <int COUNT, class Add, class Store>
int sum_columns(int64_t rows, int64_t columns, void *stream, Add add, Store store) {
    if (columns > 0) {
        dim3 block(WARP, COLUMN_LANES);
        columns_kernel<COUNT>
            <<<(unsigned)((columns + WARP - 1) / WARP), block, 0, (cudaStream_t)stream>>>(
                rows, columns, add, store);
    }
    return (int)cudaGetLastError();
}

template <class Value, class Get, class Combine>
__global__ void parts_kernel(int64_t count, int64_t columns, Value start, Get get, Combine combine,
                             Value *part) {
    Value value = start;
    int64_t step = (int64_t)PARTS * BLOCK;
    for (int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x; i < count; i += step) {
        value = combine(value, get(i / columns, i % columns));
    }
    value = combine_block(value, combine);
    if (threadIdx.x == 0) {
        part[blockIdx.x] = value;
    }
}

template <class Value, class Combine, class Store>
__global__ void whole_kernel(Value start, const Value *part, Combine combine, Store store) {
    Value value = start;
    for (int i = threadIdx.x; i < PARTS; i += BLOCK) {
        value = combine(value, part[i]);
    }
    value = combine_block(value, combine);
    if (threadIdx.x == 0) {
        store(value);
    }
}

/* store(start combined with get(row, column) of every element). part: PARTS values. */
template <class Value, class Get, class Combine, class Store>
int combine_all(int64_t rows, int64_t columns, Value start, Value *part, void *stream, Get get,
                Combine combine, Store store) {
    parts_kernel<<<PARTS, BLOCK, 0, (cudaStream_t)stream>>>(rows * columns, columns, start, get,
                                                            combine, part);
    whole_kernel<<<1, BLOCK, 0, (cudaStream_t)stream>>>(start, part, combine, store);
    return (int)cudaGetLastError();
}

/* *out = value, or += value. */
__device__ inline void store_value(float *out, double value, bool accumulate) {
    *out = (float)(accumulate ? *out + value : value);
}

/* to[destination(i)] += from(i)[column] for i ascending; destinations outside [0, to.rows) drop
 * out. A block owns a row of `to` and looks through all i for what lands there. */
template <class Destination, class From>
int add_by_destination(const troupe_tensor &to, int64_t count, void *stream,
                       Destination destination, From from) {
    const troupe_tensor out = to;
    return for_rows(to.rows, stream, [=] __device__(int64_t row) {
        for (int64_t base = 0; base < out.columns; base += BLOCK) {
            int64_t column = base + threadIdx.x;
            if (column >= out.columns) {
                return;
            }
            float sum = at(out, row)[column];
            for (int64_t i = 0; i < count; i++) {
                if (destination(i) == row) {
                    sum += from(i)[column];
                }
            }
            at(out, row)[column] = sum;
        }
    });
}

} // namespace

#endif
