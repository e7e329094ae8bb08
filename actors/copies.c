/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors of actors on a device: the copies between them and the pinned memory of messages, and the
 * events that keep them in order. The host waits for none of it.
 *
 *     outlet buffer   written: behind the method            read: behind the local consumer's use
 *                     taken: behind the copies to others
 *     send            copied: its rows are in pinned memory
 *     inlet entry     filled: behind the copies of its pieces from pinned memory
 *                     kept: behind the copy of what stays, and behind relays
 *                     consumed: behind the consumer's method, as is the release of its windows
 *
 * Copies to the host and into the memory of others run in the rank's stream `outgoing`, those from
 * the host in `incoming`, so that neither holds up an actor. An event that was never recorded is
 * complete, and a wait means the latest record: those point to work enqueued earlier, so no streams
 * wait in a circle. */
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

static struct troupe_copy copy_of(const struct troupe_route_view *view,
                                  const struct troupe_box *box, struct place to,
                                  struct place from) {
    return (struct troupe_copy){.to = to.data,
                                .from = from.data,
                                .rows = (size_t)(box->end[0] - box->begin[0]),
                                .row_bytes =
                                    (size_t)(box->end[1] - box->begin[1]) * view->element_bytes,
                                .to_stride_bytes = to.stride_bytes,
                                .from_stride_bytes = from.stride_bytes};
}

static troupe_status copy_box(troupe_stream *stream, const struct troupe_route_view *view,
                              const struct troupe_box *box, struct place to, struct place from) {
    struct troupe_copy copy = copy_of(view, box, to, from);
    return troupe_stream_copy(stream, &copy);
}

static int box_count(const struct troupe_piece *piece) {
    return piece->message != NULL ? piece->message->box_count : 1;
}

static const struct troupe_box *box_at(const struct troupe_bound *bound,
                                       const struct troupe_piece *piece, int i) {
    return piece->message != NULL ? &piece->message->boxes[i] : &bound->view.box;
}

/* Between the tensor and the packed payload of the piece, box after box as route_pack.c has it. */
static troupe_status copy_payload(troupe_stream *stream, const struct troupe_bound *bound,
                                  const struct troupe_piece *piece, bool to_host) {
    const struct troupe_route_view *view = &bound->view;
    char *bytes = piece->staging;
    for (int i = 0; i < box_count(piece); i++) {
        const struct troupe_box *box = box_at(bound, piece, i);
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
    if (end->stream == NULL) {
        return TROUPE_OK;
    }
    TROUPE_TRY(troupe_stream_wait(end->stream, buffer->read));
    return troupe_stream_wait(end->stream, buffer->taken);
}

troupe_status troupe_buffer_mark_written(const struct troupe_outlet_buffer *buffer) {
    const struct troupe_end *end = &buffer->outlet->end;
    if (end->stream == NULL) {
        return TROUPE_OK;
    }
    TROUPE_TRY(troupe_event_record(buffer->written, end->stream));
    return troupe_stream_wait(end->runtime->outgoing, buffer->written);
}

troupe_status troupe_piece_copy_out(troupe_runtime *runtime, const struct troupe_piece *piece) {
    troupe_stream *outgoing = runtime->outgoing;
    TROUPE_TRY(troupe_task_clock_begin(&runtime->outgoing_clock));
    TROUPE_TRY(copy_payload(outgoing, piece->bound, piece, true));
    TROUPE_TRY(troupe_task_clock_end(&runtime->outgoing_clock));
    TROUPE_TRY(troupe_event_record(piece->copied, outgoing));
    return troupe_event_record(piece->taken, outgoing);
}

troupe_status troupe_piece_copy_across(troupe_runtime *runtime, const struct troupe_piece *piece,
                                       troupe_window *window,
                                       const struct troupe_route_view *there) {
    troupe_stream *outgoing = runtime->outgoing;
    TROUPE_TRY(troupe_window_begin(window, outgoing));
    TROUPE_TRY(troupe_task_clock_begin(&runtime->outgoing_clock));
    for (int i = 0; i < box_count(piece); i++) {
        const struct troupe_box *box = box_at(piece->bound, piece, i);
        struct troupe_copy copy =
            copy_of(there, box, place_in(there, box), place_in(&piece->bound->view, box));
        TROUPE_TRY(troupe_window_copy(window, outgoing, &copy));
    }
    TROUPE_TRY(troupe_task_clock_end(&runtime->outgoing_clock));
    TROUPE_TRY(troupe_window_end(window, outgoing));
    return troupe_event_record(piece->taken, outgoing);
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

troupe_status troupe_entry_await_pieces(const struct troupe_inlet_entry *entry,
                                        troupe_stream *stream) {
    TROUPE_TRY(troupe_stream_wait(stream, entry->filled));
    for (int i = 0; i < entry->receive_count; i++) {
        const struct troupe_flow *flow = entry->receives[i].flow;
        int64_t slot = entry->message % entry->inlet->depth;
        TROUPE_TRY(flow != NULL ? troupe_window_await(flow->windows[slot], stream) : TROUPE_OK);
    }
    return TROUPE_OK;
}

troupe_status troupe_entry_await(const struct troupe_inlet_entry *entry) {
    troupe_stream *stream = entry->inlet->end.stream;
    if (stream == NULL) {
        return TROUPE_OK;
    }
    if (entry->handed != NULL) {
        return troupe_stream_wait(stream, entry->handed->written);
    }
    TROUPE_TRY(troupe_entry_await_pieces(entry, stream));
    return troupe_stream_wait(stream, entry->kept);
}

troupe_status troupe_entry_mark_consumed(const struct troupe_inlet_entry *entry) {
    troupe_stream *stream = entry->inlet->end.stream;
    if (stream == NULL) {
        return TROUPE_OK;
    }
    if (entry->handed != NULL) {
        return troupe_event_record(entry->handed->read, stream);
    }
    TROUPE_TRY(entry->window != NULL ? troupe_window_release(entry->window, stream) : TROUPE_OK);
    return troupe_event_record(entry->consumed, stream);
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
    TROUPE_TRY(troupe_event_create_timed(device, &runtime->origin));
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
    troupe_event_destroy(runtime->origin);
    troupe_stream_destroy(runtime->outgoing);
    troupe_stream_destroy(runtime->incoming);
}
