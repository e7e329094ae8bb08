/* SPDX-License-Identifier: Apache-2.0
 *
 * An NVIDIA GPU. A stream owns the memory that its work needs in passing: scratch for kernels, and
 * a ring of pinned blocks through which small host arrays reach the device. The host waits in
 * stream_synchronize, in copies of host memory that is not pinned, and when it laps the ring.
 */
#include "runtime/device_cuda.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/device_internal.h"
#include "runtime/device_share.h"
#include "runtime/log.h"
#include "runtime/memory.h"

enum { STAGE_BLOCKS = 4, STAGE_ALIGNMENT = 256, SCRATCH_BYTES = 32 << 20 };

struct cuda_device {
    troupe_device base;
    int index;
    cublasLtHandle_t blas;
};

/* One pinned block and its twin on the device. */
struct stage_block {
    char *host;
    char *device;
    cudaEvent_t sent; /* after the last copy out of `host` */
};

struct cuda_stream {
    troupe_stream base;
    cudaStream_t native;
    void *scratch;
    struct stage_block stage[STAGE_BLOCKS];
    int stage_now;
    size_t stage_used; /* bytes of the current block */
};

struct cuda_event {
    troupe_event base;
    cudaEvent_t native;
};

troupe_status troupe_cuda_status(int error, const char *call) {
    if (error == cudaSuccess) {
        return TROUPE_OK;
    }
    cudaGetLastError(); /* forget it, if it can be forgotten */
    bool lost = cudaFree(NULL) != cudaSuccess;
    cudaGetLastError();
    const char *name = cudaGetErrorName((cudaError_t)error);
    const char *text = cudaGetErrorString((cudaError_t)error);
    if (lost) {
        return troupe_fail(
            TROUPE_ERROR_DEVICE,
            "%s: %s (%s); the device is lost to this process and the cause may be an "
            "earlier kernel: end the process, and run it under compute-sanitizer",
            call, name, text);
    }
    if (error == cudaErrorMemoryAllocation) {
        return troupe_fail(TROUPE_ERROR_MEMORY,
                           "%s: %s (%s); use a smaller microbatch or more ranks", call, name, text);
    }
    return troupe_fail(TROUPE_ERROR_DEVICE, "%s: %s (%s)", call, name, text);
}

static troupe_status blas_status(cublasStatus_t status, const char *call) {
    return status == CUBLAS_STATUS_SUCCESS
               ? TROUPE_OK
               : troupe_fail(TROUPE_ERROR_DEVICE, "%s: %s", call, cublasLtGetStatusString(status));
}

/* Devices belong to the calling thread in CUDA; every call of ours says which one it means. */
static troupe_status enter(const troupe_device *device) {
    TROUPE_TRY_CUDA(cudaSetDevice(((const struct cuda_device *)device)->index));
    return TROUPE_OK;
}

static cudaStream_t native_stream(const troupe_stream *stream) {
    return ((const struct cuda_stream *)stream)->native;
}

/* Code that CUDA loads when it is first used makes the host wait for running kernels, among them
 * collectives that wait for what this host has yet to send. */
static void load_code_at_once(void) {
    setenv("CUDA_MODULE_LOADING", "EAGER", 0); /* cuda's */
}

static int cuda_count(const char **why) {
    int count = 0;
    load_code_at_once();
    cudaError_t error = cudaGetDeviceCount(&count);
    cudaGetLastError();
    if (error == cudaErrorInsufficientDriver || error == cudaErrorSystemDriverMismatch) {
        *why = "no NVIDIA driver on this machine that CUDA " TROUPE_CUDA_VERSION " can use";
        return 0;
    }
    *why = error == cudaErrorNoDevice || error == cudaSuccess ? "no NVIDIA GPU is visible"
                                                              : cudaGetErrorString(error);
    return error == cudaSuccess ? count : 0;
}

static void cuda_locate(int index, char *text, size_t bytes) {
    if (cudaDeviceGetPCIBusId(text, (int)bytes, index) != cudaSuccess) {
        cudaGetLastError();
        text[0] = '\0';
    }
}

static troupe_status fill_device(struct cuda_device *device, int index) {
    struct cudaDeviceProp properties;
    device->index = index;
    TROUPE_TRY(enter(&device->base));
    TROUPE_TRY_CUDA(cudaGetDeviceProperties(&properties, index));
    snprintf(device->base.name, sizeof device->base.name, "cuda %d: %.80s", index, properties.name);
    _Static_assert(sizeof properties.uuid == sizeof device->base.identity,
                   "a UUID is the identity");
    memcpy(device->base.identity, &properties.uuid, sizeof properties.uuid);
    return blas_status(cublasLtCreate(&device->blas), "cublasLtCreate");
}

static void cuda_close(troupe_device *device) {
    struct cuda_device *d = (struct cuda_device *)device;
    if (d->blas != NULL) {
        cublasLtDestroy(d->blas);
    }
    troupe_free(d);
}

static troupe_status cuda_open(const struct troupe_device_options *options, troupe_device **out) {
    const char *why = NULL;
    int count = cuda_count(&why);
    if (count == 0) {
        return troupe_fail(TROUPE_ERROR_UNSUPPORTED, "no cuda devices: %s; use device cpu", why);
    }
    if (options->index < 0 || options->index >= count) {
        return troupe_fail(TROUPE_ERROR_INVALID, "cuda device %d: this process sees %d",
                           options->index, count);
    }
    struct cuda_device *device = NULL;
    TROUPE_TRY(TROUPE_NEW(&device, 1));
    troupe_status status = fill_device(device, options->index);
    if (status != TROUPE_OK) {
        cuda_close(&device->base);
        return status;
    }
    TROUPE_LOG_INFO("device", "opened %s", device->base.name);
    *out = &device->base;
    return TROUPE_OK;
}

static troupe_status cuda_alloc(troupe_device *device, size_t bytes, void **out) {
    TROUPE_TRY(enter(device));
    void *memory = NULL;
    size_t size = bytes > 0 ? bytes : 1;
    if (cudaMalloc(&memory, size) != cudaSuccess) {
        size_t free_bytes = 0, total = 0;
        cudaGetLastError();
        TROUPE_TRY_CUDA(cudaMemGetInfo(&free_bytes, &total));
        return troupe_fail(TROUPE_ERROR_MEMORY,
                           "%s: cannot allocate %zu bytes, %zu of %zu are free", device->name,
                           bytes, free_bytes, total);
    }
    troupe_status status = troupe_cuda_status(cudaMemset(memory, 0, size), "cudaMemset");
    if (status == TROUPE_OK) { /* streams of ours do not wait for the default stream */
        status = troupe_cuda_status(cudaStreamSynchronize(NULL), "cudaStreamSynchronize");
    }
    if (status != TROUPE_OK) {
        cudaFree(memory);
        return status;
    }
    *out = memory;
    return TROUPE_OK;
}

static void cuda_free(troupe_device *device, void *memory) {
    if (enter(device) == TROUPE_OK) {
        cudaFree(memory);
    }
}

static troupe_status cuda_alloc_host(troupe_device *device, size_t bytes, void **out) {
    TROUPE_TRY(enter(device));
    void *memory = NULL;
    size_t size = bytes > 0 ? bytes : 1;
    TROUPE_TRY_CUDA(cudaHostAlloc(&memory, size, cudaHostAllocPortable));
    memset(memory, 0, size);
    *out = memory;
    return TROUPE_OK;
}

static void cuda_free_host(troupe_device *device, void *memory) {
    if (enter(device) == TROUPE_OK) {
        cudaFreeHost(memory);
    }
}

static void cuda_stream_destroy(troupe_stream *stream) {
    struct cuda_stream *s = (struct cuda_stream *)stream;
    if (enter(stream->device) == TROUPE_OK) {
        for (int i = 0; i < STAGE_BLOCKS; i++) {
            cudaFreeHost(s->stage[i].host);
            cudaFree(s->stage[i].device);
            if (s->stage[i].sent != NULL) {
                cudaEventDestroy(s->stage[i].sent);
            }
        }
        cudaFree(s->scratch);
        if (s->native != NULL) {
            cudaStreamDestroy(s->native);
        }
    }
    troupe_free(s);
}

static troupe_status fill_stream(struct cuda_stream *stream) {
    troupe_device *device = stream->base.device;
    TROUPE_TRY(enter(device));
    TROUPE_TRY_CUDA(cudaStreamCreateWithFlags(&stream->native, cudaStreamNonBlocking));
    TROUPE_TRY(cuda_alloc(device, SCRATCH_BYTES, &stream->scratch));
    for (int i = 0; i < STAGE_BLOCKS; i++) {
        struct stage_block *block = &stream->stage[i];
        TROUPE_TRY(cuda_alloc_host(device, TROUPE_CUDA_STAGE_BYTES, (void **)&block->host));
        TROUPE_TRY(cuda_alloc(device, TROUPE_CUDA_STAGE_BYTES, (void **)&block->device));
        TROUPE_TRY_CUDA(cudaEventCreateWithFlags(&block->sent, cudaEventDisableTiming));
    }
    return TROUPE_OK;
}

static troupe_status cuda_stream_create(troupe_device *device, troupe_stream **out) {
    struct cuda_stream *stream = NULL;
    TROUPE_TRY(TROUPE_NEW(&stream, 1));
    stream->base.device = device;
    troupe_status status = fill_stream(stream);
    if (status != TROUPE_OK) {
        cuda_stream_destroy(&stream->base);
        return status;
    }
    *out = &stream->base;
    return TROUPE_OK;
}

static troupe_status cuda_stream_synchronize(troupe_stream *stream) {
    TROUPE_TRY(enter(stream->device));
    TROUPE_TRY_CUDA(cudaStreamSynchronize(native_stream(stream)));
    return TROUPE_OK;
}

static troupe_status cuda_stream_copy(troupe_stream *stream, const struct troupe_copy *copy) {
    TROUPE_TRY(enter(stream->device));
    bool packed = copy->rows == 1 || (copy->to_stride_bytes == copy->row_bytes &&
                                      copy->from_stride_bytes == copy->row_bytes);
    if (packed) {
        TROUPE_TRY_CUDA(cudaMemcpyAsync(copy->to, copy->from, copy->rows * copy->row_bytes,
                                        cudaMemcpyDefault, native_stream(stream)));
        return TROUPE_OK;
    }
    TROUPE_TRY_CUDA(cudaMemcpy2DAsync(copy->to, copy->to_stride_bytes, copy->from,
                                      copy->from_stride_bytes, copy->row_bytes, copy->rows,
                                      cudaMemcpyDefault, native_stream(stream)));
    return TROUPE_OK;
}

static troupe_status cuda_stream_fill_zero(troupe_stream *stream, void *memory, size_t bytes) {
    TROUPE_TRY(enter(stream->device));
    TROUPE_TRY_CUDA(cudaMemsetAsync(memory, 0, bytes, native_stream(stream)));
    return TROUPE_OK;
}

static troupe_status cuda_stream_wait(troupe_stream *stream, troupe_event *event) {
    TROUPE_TRY(enter(stream->device));
    TROUPE_TRY_CUDA(
        cudaStreamWaitEvent(native_stream(stream), ((struct cuda_event *)event)->native, 0));
    return TROUPE_OK;
}

static void cuda_event_destroy(troupe_event *event) {
    struct cuda_event *e = (struct cuda_event *)event;
    if (e->native != NULL) {
        cudaEventDestroy(e->native);
    }
    troupe_free(e);
}

static troupe_status create_event(troupe_device *device, unsigned flags, troupe_event **out) {
    TROUPE_TRY(enter(device));
    struct cuda_event *event = NULL;
    TROUPE_TRY(TROUPE_NEW(&event, 1));
    troupe_status status =
        troupe_cuda_status(cudaEventCreateWithFlags(&event->native, flags), "cudaEventCreate");
    if (status != TROUPE_OK) {
        cuda_event_destroy(&event->base);
        return status;
    }
    *out = &event->base;
    return TROUPE_OK;
}

static troupe_status cuda_event_create(troupe_device *device, troupe_event **out) {
    return create_event(device, cudaEventDisableTiming, out);
}

static troupe_status cuda_event_create_timed(troupe_device *device, troupe_event **out) {
    return create_event(device, cudaEventDefault, out);
}

static troupe_status cuda_event_elapsed(troupe_event *begin, troupe_event *end, int64_t *ns_out) {
    float milliseconds = 0;
    TROUPE_TRY(enter(begin->device));
    TROUPE_TRY_CUDA(cudaEventElapsedTime(&milliseconds, ((struct cuda_event *)begin)->native,
                                         ((struct cuda_event *)end)->native));
    *ns_out = (int64_t)((double)milliseconds * 1e6);
    return TROUPE_OK;
}

static troupe_status cuda_event_record(troupe_event *event, troupe_stream *stream) {
    TROUPE_TRY(enter(stream->device));
    TROUPE_TRY_CUDA(cudaEventRecord(((struct cuda_event *)event)->native, native_stream(stream)));
    return TROUPE_OK;
}

static troupe_status cuda_event_query(troupe_event *event) {
    cudaError_t error = cudaEventQuery(((struct cuda_event *)event)->native);
    if (error == cudaErrorNotReady) {
        cudaGetLastError(); /* it is no failure: later checks must not see it */
        return TROUPE_AGAIN;
    }
    return troupe_cuda_status(error, "cudaEventQuery");
}

struct troupe_cuda_native troupe_cuda_native(troupe_stream *stream) {
    TROUPE_ASSERT(stream != NULL && troupe_device_kind(stream->device) == TROUPE_DEVICE_CUDA,
                  "work for a GPU in a stream of %s",
                  stream != NULL ? stream->device->name : "none");
    struct cuda_device *device = (struct cuda_device *)stream->device;
    cudaSetDevice(device->index); /* a failed device fails the launch that follows */
    return (struct troupe_cuda_native){.stream = native_stream(stream),
                                       .blas = device->blas,
                                       .scratch = ((struct cuda_stream *)stream)->scratch,
                                       .scratch_bytes = SCRATCH_BYTES};
}

/* Closes the current block and waits until the next one may be overwritten: long ago, normally. */
static troupe_status next_block(struct cuda_stream *stream) {
    TROUPE_TRY_CUDA(cudaEventRecord(stream->stage[stream->stage_now].sent, stream->native));
    stream->stage_now = (stream->stage_now + 1) % STAGE_BLOCKS;
    stream->stage_used = 0;
    TROUPE_TRY_CUDA(cudaEventSynchronize(stream->stage[stream->stage_now].sent));
    return TROUPE_OK;
}

troupe_status troupe_cuda_stage(troupe_stream *stream, const struct troupe_copy *from,
                                const void **out) {
    struct cuda_stream *s = (struct cuda_stream *)stream;
    size_t bytes = from->rows * from->row_bytes;
    size_t room = (bytes + STAGE_ALIGNMENT - 1) / STAGE_ALIGNMENT * STAGE_ALIGNMENT;
    if (room > TROUPE_CUDA_STAGE_BYTES) {
        return troupe_fail(TROUPE_ERROR_MEMORY,
                           "%s: a host array of %zu bytes does not fit the staging block of %d",
                           stream->device->name, bytes, TROUPE_CUDA_STAGE_BYTES);
    }
    TROUPE_TRY(enter(stream->device));
    if (s->stage_used + room > TROUPE_CUDA_STAGE_BYTES) {
        TROUPE_TRY(next_block(s));
    }
    const struct stage_block *block = &s->stage[s->stage_now];
    for (size_t row = 0; row < from->rows; row++) {
        memcpy(block->host + s->stage_used + row * from->row_bytes,
               (const char *)from->from + row * from->from_stride_bytes, from->row_bytes);
    }
    TROUPE_TRY_CUDA(cudaMemcpyAsync(block->device + s->stage_used, block->host + s->stage_used,
                                    bytes, cudaMemcpyHostToDevice, s->native));
    *out = block->device + s->stage_used;
    s->stage_used += room;
    return TROUPE_OK;
}

/* ---- sharing with other processes: CUDA IPC ---- */

static troupe_status cuda_memory_export(troupe_device *device, void *memory,
                                        unsigned char *native) {
    cudaIpcMemHandle_t handle;
    TROUPE_TRY(enter(device));
    TROUPE_TRY_CUDA(cudaIpcGetMemHandle(&handle, memory));
    memcpy(native, &handle, sizeof handle);
    return TROUPE_OK;
}

static troupe_status cuda_memory_import(troupe_device *device, const unsigned char *native,
                                        void **out) {
    cudaIpcMemHandle_t handle;
    void *memory = NULL;
    memcpy(&handle, native, sizeof handle);
    TROUPE_TRY(enter(device));
    TROUPE_TRY_CUDA(cudaIpcOpenMemHandle(&memory, handle, cudaIpcMemLazyEnablePeerAccess));
    *out = memory;
    return TROUPE_OK;
}

static void cuda_memory_release(troupe_device *device, void *memory) {
    if (enter(device) == TROUPE_OK) {
        cudaIpcCloseMemHandle(memory);
    }
}

static troupe_status cuda_event_create_shared(troupe_device *device, unsigned char *native,
                                              troupe_event **out) {
    cudaIpcEventHandle_t handle;
    troupe_event *event = NULL;
    TROUPE_TRY(create_event(device, cudaEventDisableTiming | cudaEventInterprocess, &event));
    troupe_status status =
        troupe_cuda_status(cudaIpcGetEventHandle(&handle, ((struct cuda_event *)event)->native),
                           "cudaIpcGetEventHandle");
    if (status != TROUPE_OK) {
        cuda_event_destroy(event);
        return status;
    }
    memcpy(native, &handle, sizeof handle);
    *out = event;
    return TROUPE_OK;
}

static troupe_status cuda_event_import(troupe_device *device, const unsigned char *native,
                                       troupe_event **out) {
    cudaIpcEventHandle_t handle;
    struct cuda_event *event = NULL;
    memcpy(&handle, native, sizeof handle);
    TROUPE_TRY(enter(device));
    TROUPE_TRY(TROUPE_NEW(&event, 1));
    troupe_status status = troupe_cuda_status(cudaIpcOpenEventHandle(&event->native, handle),
                                              "cudaIpcOpenEventHandle");
    if (status != TROUPE_OK) {
        cuda_event_destroy(&event->base);
        return status;
    }
    *out = &event->base;
    return TROUPE_OK;
}

_Static_assert(sizeof(cudaIpcMemHandle_t) <= TROUPE_SHARE_NATIVE_BYTES &&
                   sizeof(cudaIpcEventHandle_t) <= TROUPE_SHARE_NATIVE_BYTES,
               "handles fit a share");

static const struct troupe_device_sharing cuda_sharing = {
    .memory_export = cuda_memory_export,
    .memory_import = cuda_memory_import,
    .memory_release = cuda_memory_release,
    .event_create = cuda_event_create_shared,
    .event_import = cuda_event_import,
};

const struct troupe_device_backend troupe_device_backend_cuda = {
    .kind = TROUPE_DEVICE_CUDA,
    .count = cuda_count,
    .locate = cuda_locate,
    .open = cuda_open,
    .close = cuda_close,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .alloc_host = cuda_alloc_host,
    .free_host = cuda_free_host,
    .stream_create = cuda_stream_create,
    .stream_destroy = cuda_stream_destroy,
    .stream_synchronize = cuda_stream_synchronize,
    .stream_copy = cuda_stream_copy,
    .stream_fill_zero = cuda_stream_fill_zero,
    .stream_wait = cuda_stream_wait,
    .event_create = cuda_event_create,
    .event_create_timed = cuda_event_create_timed,
    .event_elapsed = cuda_event_elapsed,
    .event_destroy = cuda_event_destroy,
    .event_record = cuda_event_record,
    .event_query = cuda_event_query,
    .sharing = &cuda_sharing,
};
