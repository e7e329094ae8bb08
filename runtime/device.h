/* SPDX-License-Identifier: Apache-2.0
 *
 * A device is where tensors live and kernels run: one GPU, or the CPU cores bound to a rank. Work
 * goes to a stream and runs in stream order; an event marks a point in a stream. On the CPU device
 * a stream runs work at once in the calling thread (helped by the device's workers), so every event
 * is complete when it is recorded: the reference that defines what is correct. The simulated device
 * is as asynchronous as a GPU, with seeded delays: the tests of whoever must not forget an event.
 *
 *     troupe_device_open(TROUPE_DEVICE_CPU, &options, &device);
 *     troupe_stream_create(device, &stream);
 *     troupe_device_alloc(device, bytes, &memory);
 *     troupe_stream_copy(stream, &copy);  troupe_event_record(event, stream);
 *
 * Ownership: close/destroy by whoever opened/created; memory by troupe_device_free.
 * Threads: a stream and its events belong to one thread at a time; the rest is thread safe.
 * Failure: ERROR_MEMORY, ERROR_DEVICE (sticky: a failed device stays failed), ERROR_UNSUPPORTED.
 */
#ifndef TROUPE_RUNTIME_DEVICE_H
#define TROUPE_RUNTIME_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/status.h"
#include "runtime/tensor.h"
#include "runtime/workers.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_device troupe_device;
typedef struct troupe_stream troupe_stream;
typedef struct troupe_event troupe_event;

enum troupe_device_kind { TROUPE_DEVICE_CPU, TROUPE_DEVICE_CUDA, TROUPE_DEVICE_SIM };

struct troupe_device_options {
    int index;               /* which GPU; ignored elsewhere */
    troupe_workers *workers; /* CPU: the team that helps, or NULL; borrowed */
    uint64_t seed;           /* simulated: of the delays */
    int64_t delay_ns_max;    /* simulated: each operation starts up to so much late; 0: none */
};

/* Devices of a kind that can be opened here; 0 where the kind is not built in. */
int troupe_device_count(enum troupe_device_kind kind);
/* One line for logs: "2 cuda devices", "no cuda devices: no NVIDIA driver on this machine". Writes
 * at most `bytes` with the ending 0. */
void troupe_device_summary(enum troupe_device_kind kind, char *text, size_t bytes);
/* Where on the PCI bus, "0000:3b:00.0"; "" for what is not there. Opens nothing. */
void troupe_device_locate(enum troupe_device_kind kind, int index, char *text, size_t bytes);
troupe_status troupe_device_open(enum troupe_device_kind kind,
                                 const struct troupe_device_options *options, troupe_device **out);
void troupe_device_close(troupe_device *device);
enum troupe_device_kind troupe_device_kind(const troupe_device *device);
/* "cpu", "cuda 0: NVIDIA H200" */
const char *troupe_device_name(const troupe_device *device);
/* Bytes that no two GPUs of the world have in common, wherever they are seen from; zeros: no GPU.
 */
enum { TROUPE_DEVICE_IDENTITY_BYTES = 16 };
const unsigned char *troupe_device_identity(const troupe_device *device);
/* "cpu", "cuda", "sim", as in train.device */
const char *troupe_device_kind_name(enum troupe_device_kind kind);
/* The kind of that name; ERROR_INVALID. */
troupe_status troupe_device_kind_find(const char *name, enum troupe_device_kind *out);
/* Whether its memory is the host's and its work is done when the call returns. */
bool troupe_device_is_host(const troupe_device *device);

/* Device memory, 64-byte aligned (256 on a GPU), zeroed. Startup and shutdown only. */
troupe_status troupe_device_alloc(troupe_device *device, size_t bytes, void **out);
void troupe_device_free(troupe_device *device, void *memory);
/* Host memory that the device reads and writes by itself (pinned), zeroed: what asynchronous copies
 * between host and device need, and where kernels put single results. Startup and shutdown only. */
troupe_status troupe_device_alloc_host(troupe_device *device, size_t bytes, void **out);
void troupe_device_free_host(troupe_device *device, void *memory);

troupe_status troupe_stream_create(troupe_device *device, troupe_stream **out);
void troupe_stream_destroy(troupe_stream *stream);
troupe_device *troupe_stream_device(const troupe_stream *stream);
/* The team that serves parallel-for on this stream; NULL on a GPU or a serial CPU device. */
troupe_workers *troupe_stream_workers(const troupe_stream *stream);
/* Blocks the host until all work is done. Not on the path of a step. */
troupe_status troupe_stream_synchronize(troupe_stream *stream);

/* Copies rows x columns bytes between strided blocks, in stream order; any mix of host and device
 * memory that the device can reach. The host does not wait if its side is pinned (alloc_host), and
 * must not touch it before an event after the copy; other host memory makes the call wait. */
struct troupe_copy {
    void *to;
    const void *from;
    size_t rows;
    size_t row_bytes;
    size_t to_stride_bytes;
    size_t from_stride_bytes;
};
troupe_status troupe_stream_copy(troupe_stream *stream, const struct troupe_copy *copy);
troupe_status troupe_stream_fill_zero(troupe_stream *stream, void *memory, size_t bytes);

troupe_status troupe_event_create(troupe_device *device, troupe_event **out);
void troupe_event_destroy(troupe_event *event);
troupe_status troupe_event_record(troupe_event *event, troupe_stream *stream);
/* Makes later work of `stream` wait for the event; the host does not wait. */
troupe_status troupe_stream_wait(troupe_stream *stream, troupe_event *event);
/* OK when complete (also if it was never recorded), AGAIN when not, or the device's failure. Never
 * blocks. */
troupe_status troupe_event_query(troupe_event *event);
/* Nanoseconds on the device from the recording of `begin` to that of `end`, < 0 where `end` came
 * first; both are complete and made by troupe_event_create_timed. */
troupe_status troupe_event_create_timed(troupe_device *device, troupe_event **out);
troupe_status troupe_event_elapsed(troupe_event *begin, troupe_event *end, int64_t *ns_out);

#ifdef __cplusplus
}
#endif
#endif
