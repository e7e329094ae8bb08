/* SPDX-License-Identifier: Apache-2.0
 *
 * What code that speaks CUDA needs of a CUDA device (kernels, NCCL); only in builds that have it.
 *
 *     struct troupe_cuda_native native = troupe_cuda_native(stream);
 *     TROUPE_TRY_CUDA(troupe_cuda_launch_gelu(op, native.stream));
 *
 *     const void *tokens = NULL;           (a host array that a kernel reads)
 *     TROUPE_TRY(troupe_cuda_stage(stream, &(struct troupe_copy){.from = host, ...}, &tokens));
 *
 * Ownership: everything handed out belongs to the stream or its device.
 * Threads: as the stream. Failure: ERROR_DEVICE with CUDA's own words; ERROR_MEMORY.
 */
#ifndef TROUPE_RUNTIME_DEVICE_CUDA_H
#define TROUPE_RUNTIME_DEVICE_CUDA_H

#include <stddef.h>

#include "runtime/device.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_cuda_native {
    void *stream; /* cudaStream_t */
    void *blas;   /* cublasLtHandle_t */
    void *
        scratch; /* device memory for the work in flight in this stream, one kernel after another */
    size_t scratch_bytes;
};

/* Makes the stream's device current in this thread and returns what it is to CUDA. */
struct troupe_cuda_native troupe_cuda_native(troupe_stream *stream);

/* Copies rows of a host array to the device, packed, in stream order. The array may change when the
 * call returns. *out serves work enqueued before the next STAGE_BYTES staged bytes; the host waits
 * only when it is several such blocks ahead of the device. `to` and its stride are not used. */
enum { TROUPE_CUDA_STAGE_BYTES = 4 << 20 }; /* largest array of one call */
troupe_status troupe_cuda_stage(troupe_stream *stream, const struct troupe_copy *from,
                                const void **out);

/* The status of a cudaError_t: OK, or the sentence about the call. */
troupe_status troupe_cuda_status(int error, const char *call);

#define TROUPE_TRY_CUDA(call) TROUPE_TRY(troupe_cuda_status((int)(call), #call))

#ifdef __cplusplus
}
#endif
#endif
