/* SPDX-License-Identifier: Apache-2.0 */
/* The reference device: work is done when the call returns, so events are always complete. */
#include <stdio.h>
#include <string.h>

#include "runtime/clock.h"
#include "runtime/device_internal.h"
#include "runtime/memory.h"

struct cpu_device {
    troupe_device base;
    troupe_workers *workers; /* borrowed */
};

struct cpu_event {
    troupe_event base;
    uint64_t recorded_ns;
};

static int cpu_count(const char **why) {
    *why = "";
    return 1;
}

static troupe_status cpu_open(const struct troupe_device_options *options, troupe_device **out) {
    struct cpu_device *device = NULL;
    TROUPE_TRY(TROUPE_NEW(&device, 1));
    device->workers = options->workers;
    snprintf(device->base.name, sizeof device->base.name, "cpu");
    *out = &device->base;
    return TROUPE_OK;
}

static void cpu_close(troupe_device *device) {
    troupe_free(device);
}

static troupe_status cpu_alloc(troupe_device *device, size_t bytes, void **out) {
    (void)device;
    return troupe_alloc(bytes, 1, out);
}

static void cpu_free(troupe_device *device, void *memory) {
    (void)device;
    troupe_free(memory);
}

static troupe_status cpu_stream_create(troupe_device *device, troupe_stream **out) {
    TROUPE_TRY(TROUPE_NEW(out, 1));
    (*out)->device = device;
    (*out)->workers = ((struct cpu_device *)device)->workers;
    return TROUPE_OK;
}

static void cpu_stream_destroy(troupe_stream *stream) {
    troupe_free(stream);
}

static troupe_status cpu_stream_synchronize(troupe_stream *stream) {
    (void)stream;
    return TROUPE_OK;
}

static troupe_status cpu_stream_copy(troupe_stream *stream, const struct troupe_copy *copy) {
    (void)stream;
    char *to = copy->to;
    const char *from = copy->from;
    if (copy->to_stride_bytes == copy->row_bytes && copy->from_stride_bytes == copy->row_bytes) {
        memcpy(to, from, copy->rows * copy->row_bytes);
        return TROUPE_OK;
    }
    for (size_t row = 0; row < copy->rows; row++) {
        memcpy(to + row * copy->to_stride_bytes, from + row * copy->from_stride_bytes,
               copy->row_bytes);
    }
    return TROUPE_OK;
}

static troupe_status cpu_stream_fill_zero(troupe_stream *stream, void *memory, size_t bytes) {
    (void)stream;
    memset(memory, 0, bytes);
    return TROUPE_OK;
}

static troupe_status cpu_stream_wait(troupe_stream *stream, troupe_event *event) {
    (void)stream, (void)event;
    return TROUPE_OK;
}

static troupe_status cpu_event_create(troupe_device *device, troupe_event **out) {
    (void)device;
    return troupe_alloc(1, sizeof(struct cpu_event), (void **)out);
}

static void cpu_event_destroy(troupe_event *event) {
    troupe_free(event);
}

static troupe_status cpu_event_record(troupe_event *event, troupe_stream *stream) {
    (void)stream;
    ((struct cpu_event *)event)->recorded_ns = troupe_clock_ns();
    return TROUPE_OK;
}

static troupe_status cpu_event_elapsed(troupe_event *begin, troupe_event *end, int64_t *ns_out) {
    *ns_out = (int64_t)(((struct cpu_event *)end)->recorded_ns -
                        ((struct cpu_event *)begin)->recorded_ns);
    return TROUPE_OK;
}

static troupe_status cpu_event_query(troupe_event *event) {
    (void)event;
    return TROUPE_OK;
}

const struct troupe_device_backend troupe_device_backend_cpu = {
    .kind = TROUPE_DEVICE_CPU,
    .is_host = true,
    .count = cpu_count,
    .locate = troupe_device_locate_none,
    .open = cpu_open,
    .close = cpu_close,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .alloc_host = cpu_alloc, /* one memory */
    .free_host = cpu_free,
    .stream_create = cpu_stream_create,
    .stream_destroy = cpu_stream_destroy,
    .stream_synchronize = cpu_stream_synchronize,
    .stream_copy = cpu_stream_copy,
    .stream_fill_zero = cpu_stream_fill_zero,
    .stream_wait = cpu_stream_wait,
    .event_create = cpu_event_create,
    .event_create_timed = cpu_event_create,
    .event_elapsed = cpu_event_elapsed,
    .event_destroy = cpu_event_destroy,
    .event_record = cpu_event_record,
    .event_query = cpu_event_query,
    .sharing = &troupe_device_sharing_none,
};
