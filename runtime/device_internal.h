/* SPDX-License-Identifier: Apache-2.0
 *
 * What a device backend fills in: one const table per kind, listed in device.c. A backend's own
 * device, stream and event structs begin with the base structs below. All slots are filled; what a
 * backend cannot do returns TROUPE_ERROR_UNSUPPORTED. The CPU backend is the template.
 *
 * Ownership and threads: as in device.h. Failure: slots return what device.h promises.
 */
#ifndef TROUPE_RUNTIME_DEVICE_INTERNAL_H
#define TROUPE_RUNTIME_DEVICE_INTERNAL_H

#include "runtime/device.h"

struct troupe_device {
    const struct troupe_device_backend *backend;
    char name[96]; /* "cpu", "cuda 0: NVIDIA H200" */
    unsigned char identity[TROUPE_DEVICE_IDENTITY_BYTES];
};

struct troupe_stream {
    troupe_device *device;
    troupe_workers *workers; /* NULL on a GPU */
};

struct troupe_event {
    troupe_device *device;
};

/* How a process gives its memory and events to others of the machine; `native` has
 * TROUPE_SHARE_NATIVE_BYTES (runtime/device_share.h). */
struct troupe_device_sharing {
    bool imports_own; /* called for what is the process's own, too; else its address is enough */
    troupe_status (*memory_export)(troupe_device *device, void *memory, unsigned char *native);
    troupe_status (*memory_import)(troupe_device *device, const unsigned char *native, void **out);
    void (*memory_release)(troupe_device *device, void *memory);
    /* An event that is exported from the beginning. */
    troupe_status (*event_create)(troupe_device *device, unsigned char *native, troupe_event **out);
    troupe_status (*event_import)(troupe_device *device, const unsigned char *native,
                                  troupe_event **out);
};

/* device.c sets the base fields `backend` of a device and `device` of an event; the backend sets
 * the rest. Only stream_synchronize blocks. Arguments are checked by device.c: same device, sane
 * strides. */
struct troupe_device_backend {
    enum troupe_device_kind kind;
    bool is_host; /* see troupe_device_is_host */
    /* Where there are none, *why says so in a few words. */
    int (*count)(const char **why);
    /* Leaves an empty text as it is where the device is on no bus. */
    void (*locate)(int index, char *text, size_t bytes);
    troupe_status (*open)(const struct troupe_device_options *options, troupe_device **out);
    void (*close)(troupe_device *device);
    troupe_status (*alloc)(troupe_device *device, size_t bytes, void **out);
    void (*free)(troupe_device *device, void *memory);
    troupe_status (*alloc_host)(troupe_device *device, size_t bytes, void **out);
    void (*free_host)(troupe_device *device, void *memory);
    troupe_status (*stream_create)(troupe_device *device, troupe_stream **out);
    void (*stream_destroy)(troupe_stream *stream);
    troupe_status (*stream_synchronize)(troupe_stream *stream);
    troupe_status (*stream_copy)(troupe_stream *stream, const struct troupe_copy *copy);
    troupe_status (*stream_fill_zero)(troupe_stream *stream, void *memory, size_t bytes);
    troupe_status (*stream_wait)(troupe_stream *stream, troupe_event *event);
    troupe_status (*event_create)(troupe_device *device, troupe_event **out);
    troupe_status (*event_create_timed)(troupe_device *device, troupe_event **out);
    troupe_status (*event_elapsed)(troupe_event *begin, troupe_event *end, int64_t *ns_out);
    void (*event_destroy)(troupe_event *event);
    troupe_status (*event_record)(troupe_event *event, troupe_stream *stream);
    troupe_status (*event_query)(troupe_event *event);
    const struct troupe_device_sharing *sharing;
};

/* Of a device that is no PCI device. */
void troupe_device_locate_none(int index, char *text, size_t bytes);

/* TROUPE_ERROR_UNSUPPORTED: not with another process. */
troupe_status troupe_device_refuse_sharing(const troupe_device *device);

/* Of a device that other processes cannot reach. */
extern const struct troupe_device_sharing troupe_device_sharing_none;

extern const struct troupe_device_backend troupe_device_backend_cpu;
extern const struct troupe_device_backend troupe_device_backend_sim;
extern const struct troupe_device_backend troupe_device_backend_cuda;

#endif
