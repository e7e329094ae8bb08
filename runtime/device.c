/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/device.h"

#include <stdio.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/device_internal.h"

/* The one list of device kinds. */
static const struct troupe_device_backend *const backends[] = {
    &troupe_device_backend_cpu,
    &troupe_device_backend_sim,
#ifdef TROUPE_HAVE_CUDA
    &troupe_device_backend_cuda,
#endif
};

static const struct troupe_device_backend *find_backend(enum troupe_device_kind kind) {
    for (size_t i = 0; i < TROUPE_COUNT_OF(backends); i++) {
        if (backends[i]->kind == kind) {
            return backends[i];
        }
    }
    return NULL;
}

void troupe_device_locate_none(int index, char *text, size_t bytes) {
    (void)index;
    (void)text;
    (void)bytes;
}

const char *troupe_device_kind_name(enum troupe_device_kind kind) {
    static const char *const names[] = {
        [TROUPE_DEVICE_CPU] = "cpu", [TROUPE_DEVICE_CUDA] = "cuda", [TROUPE_DEVICE_SIM] = "sim"};
    return names[kind];
}

troupe_status troupe_device_kind_find(const char *name, enum troupe_device_kind *out) {
    for (int kind = TROUPE_DEVICE_CPU; kind <= TROUPE_DEVICE_SIM; kind++) {
        if (strcmp(troupe_device_kind_name((enum troupe_device_kind)kind), name) == 0) {
            *out = (enum troupe_device_kind)kind;
            return TROUPE_OK;
        }
    }
    return troupe_fail(TROUPE_ERROR_INVALID, "device %s; there are cpu, cuda and sim", name);
}

int troupe_device_count(enum troupe_device_kind kind) {
    const struct troupe_device_backend *backend = find_backend(kind);
    const char *why = NULL;
    return backend != NULL ? backend->count(&why) : 0;
}

void troupe_device_summary(enum troupe_device_kind kind, char *text, size_t bytes) {
    const struct troupe_device_backend *backend = find_backend(kind);
    const char *why = "this build has none";
    int count = backend != NULL ? backend->count(&why) : 0;
    if (count > 0) {
        snprintf(text, bytes, "%d %s device%s", count, troupe_device_kind_name(kind),
                 count > 1 ? "s" : "");
    } else {
        snprintf(text, bytes, "no %s devices: %s", troupe_device_kind_name(kind), why);
    }
}

void troupe_device_locate(enum troupe_device_kind kind, int index, char *text, size_t bytes) {
    const struct troupe_device_backend *backend = find_backend(kind);
    text[0] = '\0';
    if (backend != NULL) {
        backend->locate(index, text, bytes);
    }
}

troupe_status troupe_device_open(enum troupe_device_kind kind,
                                 const struct troupe_device_options *options, troupe_device **out) {
    const struct troupe_device_backend *backend = find_backend(kind);
    if (backend == NULL) {
        return troupe_fail(TROUPE_ERROR_UNSUPPORTED,
                           "this build has no %s devices; use a build with them, or device cpu",
                           troupe_device_kind_name(kind));
    }
    troupe_device *device = NULL;
    TROUPE_TRY(backend->open(options, &device));
    device->backend = backend;
    *out = device;
    return TROUPE_OK;
}

void troupe_device_close(troupe_device *device) {
    if (device != NULL) {
        device->backend->close(device);
    }
}

enum troupe_device_kind troupe_device_kind(const troupe_device *device) {
    return device->backend->kind;
}

const char *troupe_device_name(const troupe_device *device) {
    return device->name;
}

const unsigned char *troupe_device_identity(const troupe_device *device) {
    return device->identity;
}

bool troupe_device_is_host(const troupe_device *device) {
    return device->backend->is_host;
}

troupe_status troupe_device_alloc(troupe_device *device, size_t bytes, void **out) {
    return device->backend->alloc(device, bytes, out);
}

void troupe_device_free(troupe_device *device, void *memory) {
    if (memory != NULL) {
        device->backend->free(device, memory);
    }
}

troupe_status troupe_device_alloc_host(troupe_device *device, size_t bytes, void **out) {
    return device->backend->alloc_host(device, bytes, out);
}

void troupe_device_free_host(troupe_device *device, void *memory) {
    if (memory != NULL) {
        device->backend->free_host(device, memory);
    }
}

troupe_status troupe_stream_create(troupe_device *device, troupe_stream **out) {
    return device->backend->stream_create(device, out);
}

void troupe_stream_destroy(troupe_stream *stream) {
    if (stream != NULL) {
        stream->device->backend->stream_destroy(stream);
    }
}

troupe_device *troupe_stream_device(const troupe_stream *stream) {
    return stream->device;
}

troupe_workers *troupe_stream_workers(const troupe_stream *stream) {
    return stream->workers;
}

troupe_status troupe_stream_synchronize(troupe_stream *stream) {
    return stream->device->backend->stream_synchronize(stream);
}

troupe_status troupe_stream_copy(troupe_stream *stream, const struct troupe_copy *copy) {
    if (copy->rows == 0 || copy->row_bytes == 0) {
        return TROUPE_OK;
    }
    TROUPE_ASSERT(copy->rows == 1 || (copy->to_stride_bytes >= copy->row_bytes &&
                                      copy->from_stride_bytes >= copy->row_bytes),
                  "rows of %zu bytes overlap: strides %zu and %zu bytes", copy->row_bytes,
                  copy->to_stride_bytes, copy->from_stride_bytes);
    return stream->device->backend->stream_copy(stream, copy);
}

troupe_status troupe_stream_fill_zero(troupe_stream *stream, void *memory, size_t bytes) {
    return bytes > 0 ? stream->device->backend->stream_fill_zero(stream, memory, bytes) : TROUPE_OK;
}

troupe_status troupe_event_create(troupe_device *device, troupe_event **out) {
    troupe_event *event = NULL;
    TROUPE_TRY(device->backend->event_create(device, &event));
    event->device = device;
    *out = event;
    return TROUPE_OK;
}

troupe_status troupe_event_create_timed(troupe_device *device, troupe_event **out) {
    troupe_event *event = NULL;
    TROUPE_TRY(device->backend->event_create_timed(device, &event));
    event->device = device;
    *out = event;
    return TROUPE_OK;
}

troupe_status troupe_event_elapsed(troupe_event *begin, troupe_event *end, int64_t *ns_out) {
    TROUPE_ASSERT(begin->device == end->device, "time from an event of %s to one of %s",
                  begin->device->name, end->device->name);
    return begin->device->backend->event_elapsed(begin, end, ns_out);
}

void troupe_event_destroy(troupe_event *event) {
    if (event != NULL) {
        event->device->backend->event_destroy(event);
    }
}

troupe_status troupe_event_record(troupe_event *event, troupe_stream *stream) {
    TROUPE_ASSERT(event->device->backend == stream->device->backend,
                  "event of %s recorded in a stream of %s", event->device->name,
                  stream->device->name);
    return event->device->backend->event_record(event, stream);
}

troupe_status troupe_stream_wait(troupe_stream *stream, troupe_event *event) {
    TROUPE_ASSERT(event->device->backend == stream->device->backend,
                  "a stream of %s waits for an event of %s", stream->device->name,
                  event->device->name);
    return stream->device->backend->stream_wait(stream, event);
}

troupe_status troupe_event_query(troupe_event *event) {
    return event->device->backend->event_query(event);
}
