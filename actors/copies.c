/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors of actors on a device: the copies between them and the pinned memory of messages, and the
 * events that keep them in order. The host waits for none of it.
 *
 *     outlet buffer   written: behind the method            read: behind the local consumer's use
 *     send            copied: its rows are in pinned memory
 *     inlet entry     filled: behind the copies of its pieces   kept: behind the copy of what stays
 *                     consumed: behind the consumer's method
 *
 * Copies to the host run in the rank's stream `outgoing`, those from it in `incoming`, so that
 * neither holds up an actor. An event that was never recorded is complete, and a wait means the
 * latest record: those point to work enqueued earlier, so no streams wait in a circle. */
#include "actors/runtime_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

enum { COPIES_TIMED_MAX = 512 }; /* of a step and direction; more go untimed */

/* ---- copies of boxes ---- */

/* The box, between its places in a matrix and in another matrix or packed bytes. */
struct place {
    char *data;
    size_t stride_bytes;
};

static struct place place_in(const struct troupe_route_view *view, const struct troupe_box *box) {
    return (struct place){troupe_route_view_at(view, box), view->row_bytes};
}

static troupe_status copy_box(troupe_stream *stream, const struct troupe_route_view *view,
                              const struct troupe_box *box, struct place to, struct place from) {
    return troupe_stream_copy(
        stream, &(struct troupe_copy){.to = to.data,
                                      .from = from.data,
                                      .rows = (size_t)(box->end[0] - box->begin[0]),
                                      .row_bytes = (size_t)(box->end[1] - box->begin[1]) *
                                                   view->element_bytes,
                                      .to_stride_bytes = to.stride_bytes,
                                      .from_stride_bytes = from.stride_bytes});
}

/* Between the tensor and the packed payload of the piece, box after box as route_pack.c has it. */
static troupe_status copy_payload(troupe_stream *stream, const struct troupe_bound *bound,
                                  const struct troupe_piece *piece, bool to_host) {
    const struct troupe_route_view *view = &bound->view;
    const struct troupe_route_message *message = piece->message;
    int count = message != NULL ? message->box_count : 1;
    char *bytes = piece->staging;
    for (int i = 0; i < count; i++) {
        const struct troupe_box *box = message != NULL ? &message->boxes[i] : &view->box;
        size_t row_bytes = (size_t)(box->end[1] - box->begin[1]) * view->element_bytes;
        struct place tensor = place_in(view, box), packed = {bytes, row_bytes};
        TROUPE_TRY(
            copy_box(stream, view, box, to_host ? packed : tensor, to_host ? tensor : packed));
        bytes += (size_t)(box->end[0] - box->begin[0]) * row_bytes;
    }
    return TROUPE_OK;
}

/* ---- outlets ---- */

troupe_status troupe_buffer_await_readers(const struct troupe_outlet_buffer *buffer) {
    const struct troupe_end *end = &buffer->outlet->end;
    return end->stream == NULL ? TROUPE_OK : troupe_stream_wait(end->stream, buffer->read);
}

troupe_status troupe_buffer_mark_written(const struct troupe_outlet_buffer *buffer) {
    const struct troupe_end *end = &buffer->outlet->end;
    if (end->stream == NULL) {
        return TROUPE_OK;
    }
    TROUPE_TRY(troupe_event_record(buffer->written, end->stream));
    return troupe_stream_wait(end->runtime->outgoing, buffer->written);
}

troupe_status troupe_piece_copy_out(const struct troupe_outlet_buffer *buffer,
                                    const struct troupe_piece *piece) {
    troupe_runtime *runtime = buffer->outlet->end.runtime;
    troupe_stream *outgoing = runtime->outgoing;
    TROUPE_TRY(troupe_task_clock_begin(&runtime->outgoing_clock));
    TROUPE_TRY(copy_payload(outgoing, &buffer->bound, piece, true));
    TROUPE_TRY(troupe_task_clock_end(&runtime->outgoing_clock));
    return troupe_event_record(piece->copied, outgoing);
}

/* ---- inlets ---- */

troupe_status troupe_piece_copy_in(const struct troupe_inlet_entry *entry,
                                   const struct troupe_piece *piece) {
    troupe_runtime *runtime = entry->inlet->end.runtime;
    troupe_stream *incoming = runtime->incoming;
    TROUPE_TRY(troupe_stream_wait(incoming, entry->consumed)); /* what lay there before */
    TROUPE_TRY(troupe_task_clock_begin(&runtime->incoming_clock));
    TROUPE_TRY(copy_payload(incoming, &entry->bound, piece, false));
    TROUPE_TRY(troupe_task_clock_end(&runtime->incoming_clock));
    return troupe_event_record(entry->filled, incoming);
}

troupe_status troupe_entry_copy_kept(const struct troupe_inlet_entry *entry,
                                     const struct troupe_outlet_buffer *buffer) {
    const struct troupe_route_message *kept = &entry->bound.binding->kept;
    const struct troupe_route_view *from = &buffer->bound.view, *to = &entry->bound.view;
    troupe_stream *outgoing = entry->inlet->end.runtime->outgoing; /* waits for `written` already */
    TROUPE_TRY(troupe_stream_wait(outgoing, entry->consumed));
    for (int i = 0; i < kept->box_count; i++) {
        const struct troupe_box *box = &kept->boxes[i];
        TROUPE_TRY(copy_box(outgoing, from, box, place_in(to, box), place_in(from, box)));
    }
    TROUPE_TRY(troupe_event_record(entry->kept, outgoing));
    return troupe_event_record(buffer->read, outgoing);
}

troupe_status troupe_entry_await(const struct troupe_inlet_entry *entry) {
    troupe_stream *stream = entry->inlet->end.stream;
    if (stream == NULL) {
        return TROUPE_OK;
    }
    if (entry->handed != NULL) {
        return troupe_stream_wait(stream, entry->handed->written);
    }
    TROUPE_TRY(troupe_stream_wait(stream, entry->filled));
    return troupe_stream_wait(stream, entry->kept);
}

troupe_status troupe_entry_mark_consumed(const struct troupe_inlet_entry *entry) {
    troupe_stream *stream = entry->inlet->end.stream;
    if (stream == NULL) {
        return TROUPE_OK;
    }
    troupe_event *event = entry->handed != NULL ? entry->handed->read : entry->consumed;
    return troupe_event_record(event, stream);
}

/* ---- memory and events ---- */

static troupe_device *device_of(const struct troupe_end *end) {
    return troupe_stream_device(end->stream);
}

troupe_status troupe_end_alloc(const struct troupe_end *end, size_t bytes, void **out) {
    return end->stream == NULL ? troupe_alloc(1, bytes, out)
                               : troupe_device_alloc(device_of(end), bytes, out);
}

troupe_status troupe_end_alloc_staging(const struct troupe_end *end, size_t bytes, void **out) {
    return end->stream == NULL ? troupe_alloc(1, bytes, out)
                               : troupe_device_alloc_host(device_of(end), bytes, out);
}

void troupe_end_free(const struct troupe_end *end, void *memory, void *staging) {
    if (end->stream == NULL) {
        troupe_free(memory);
        troupe_free(staging);
    } else {
        troupe_device_free(device_of(end), memory);
        troupe_device_free_host(device_of(end), staging);
    }
}

troupe_status troupe_end_create_event(const struct troupe_end *end, troupe_event **out) {
    return end->stream == NULL ? TROUPE_OK : troupe_event_create(device_of(end), out);
}

/* ---- the rank's streams ---- */

/* The device of this rank's actors, or NULL if all compute on the host. */
static troupe_status find_device(const troupe_runtime *runtime, troupe_device **out) {
    *out = NULL;
    for (int g = 0; g < runtime->gang_count; g++) {
        const struct troupe_actor_gang *gang = &runtime->gangs[g];
        if (gang->stream == NULL) {
            continue;
        }
        troupe_device *device = troupe_stream_device(gang->stream);
        if (*out != NULL && *out != device) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "gang %s computes on %s and another of rank %d on %s; a rank has "
                               "one device",
                               gang->name, troupe_device_name(device), runtime->rank,
                               troupe_device_name(*out));
        }
        *out = device;
    }
    return TROUPE_OK;
}

troupe_status troupe_make_streams(troupe_runtime *runtime) {
    troupe_device *device = NULL;
    TROUPE_TRY(find_device(runtime, &device));
    if (device == NULL) {
        return TROUPE_OK;
    }
    if (runtime->options.checksum) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "rank %d computes on %s, where payloads carry no checksums; switch "
                           "checksum off",
                           runtime->rank, troupe_device_name(device));
    }
    TROUPE_TRY(troupe_stream_create(device, &runtime->outgoing));
    TROUPE_TRY(troupe_stream_create(device, &runtime->incoming));
    TROUPE_TRY(
        troupe_task_clock_make(&runtime->outgoing_clock, runtime->outgoing, COPIES_TIMED_MAX));
    TROUPE_TRY(
        troupe_task_clock_make(&runtime->incoming_clock, runtime->incoming, COPIES_TIMED_MAX));
    return troupe_event_create(device, &runtime->lane);
}

/* All that the device still does with our memory is done, or the device has failed. */
void troupe_drain_streams(const troupe_runtime *runtime) {
    for (int g = 0; g < runtime->gang_count; g++) {
        if (runtime->gangs[g].stream != NULL) {
            troupe_stream_synchronize(runtime->gangs[g].stream);
        }
    }
    if (runtime->incoming != NULL) {
        troupe_stream_synchronize(runtime->outgoing);
        troupe_stream_synchronize(runtime->incoming);
    }
}

void troupe_destroy_streams(troupe_runtime *runtime) {
    troupe_task_clock_destroy(&runtime->outgoing_clock);
    troupe_task_clock_destroy(&runtime->incoming_clock);
    troupe_event_destroy(runtime->lane);
    troupe_stream_destroy(runtime->outgoing);
    troupe_stream_destroy(runtime->incoming);
}
