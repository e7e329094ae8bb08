/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/window.h"

#include "runtime/check.h"
#include "runtime/memory.h"

struct troupe_window {
    troupe_device *device;
    struct troupe_window_offer offer;
    struct troupe_window_answer answer;
    bool receives; /* this end owns the memory and, without a `first`, the event `released` */
    const struct troupe_window *first;
    void *allocation;
    troupe_event *written; /* made by the sender; NULL: no answer yet */
    troupe_event *released;
};

static troupe_status fill_receiver(troupe_window *window, void *allocation) {
    struct troupe_window_offer *offer = &window->offer;
    window->allocation = allocation;
    TROUPE_TRY(troupe_memory_share(window->device, allocation, &offer->memory));
    if (window->first != NULL) {
        window->released = window->first->released;
        offer->released = window->first->offer.released;
        return TROUPE_OK;
    }
    return troupe_event_create_shared(window->device, &window->released, &offer->released);
}

troupe_status troupe_window_create(troupe_device *device,
                                   const struct troupe_window_options *options, troupe_window **out,
                                   struct troupe_window_offer *offer_out) {
    troupe_window *window = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY(TROUPE_NEW(&window, 1));
    window->device = device;
    window->receives = true;
    window->first = options->first;
    window->offer.offset_bytes = options->offset_bytes;
    window->offer.bytes = options->bytes;
    TROUPE_TRY_FAIL(fill_receiver(window, options->allocation));
    *offer_out = window->offer;
    *out = window;
    return TROUPE_OK;
fail:
    troupe_window_close(window);
    return status;
}

static troupe_status fill_sender(troupe_window *window) {
    const struct troupe_window_offer *offer = &window->offer;
    TROUPE_TRY(troupe_memory_open(window->device, &offer->memory, &window->allocation));
    TROUPE_TRY(troupe_event_open(window->device, &offer->released, &window->released));
    return troupe_event_create_shared(window->device, &window->written, &window->answer.written);
}

troupe_status troupe_window_open(troupe_device *device, const struct troupe_window_offer *offer,
                                 troupe_window **out, struct troupe_window_answer *answer_out) {
    troupe_window *window = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY(TROUPE_NEW(&window, 1));
    window->device = device;
    window->offer = *offer;
    TROUPE_TRY_FAIL(fill_sender(window));
    *answer_out = window->answer;
    *out = window;
    return TROUPE_OK;
fail:
    troupe_window_close(window);
    return status;
}

troupe_status troupe_window_accept(troupe_window *window,
                                   const struct troupe_window_answer *answer) {
    TROUPE_ASSERT(window->receives && window->written == NULL, "a window is accepted twice");
    window->answer = *answer;
    return troupe_event_open(window->device, &answer->written, &window->written);
}

void *troupe_window_memory(const troupe_window *window) {
    return (char *)window->allocation + window->offer.offset_bytes;
}

size_t troupe_window_bytes(const troupe_window *window) {
    return (size_t)window->offer.bytes;
}

static void check_copy(const troupe_window *window, const struct troupe_copy *copy) {
    if (copy->rows == 0 || copy->row_bytes == 0) {
        return;
    }
    const char *begin = troupe_window_memory(window), *to = copy->to;
    size_t extent = (copy->rows - 1) * copy->to_stride_bytes + copy->row_bytes;
    TROUPE_ASSERT(to >= begin && (size_t)(to - begin) <= window->offer.bytes &&
                      extent <= window->offer.bytes - (size_t)(to - begin),
                  "a copy of %zu bytes to place %td of a window of %zu", extent, to - begin,
                  (size_t)window->offer.bytes);
}

troupe_status troupe_window_begin(const troupe_window *window, troupe_stream *stream) {
    TROUPE_ASSERT(!window->receives, "the receiver's end of a window does not write");
    return troupe_stream_wait(stream, window->released);
}

troupe_status troupe_window_copy(const troupe_window *window, troupe_stream *stream,
                                 const struct troupe_copy *copy) {
    check_copy(window, copy);
    return troupe_stream_copy(stream, copy);
}

troupe_status troupe_window_end(const troupe_window *window, troupe_stream *stream) {
    return troupe_event_record(window->written, stream);
}

troupe_status troupe_window_write(troupe_window *window, troupe_stream *stream,
                                  const struct troupe_copy *copies, int count) {
    TROUPE_TRY(troupe_window_begin(window, stream));
    for (int i = 0; i < count; i++) {
        TROUPE_TRY(troupe_window_copy(window, stream, &copies[i]));
    }
    return troupe_window_end(window, stream);
}

troupe_event *troupe_window_written(troupe_window *window) {
    return window->written;
}

troupe_status troupe_window_await(const troupe_window *window, troupe_stream *stream) {
    TROUPE_ASSERT(window->receives, "the sender's end of a window awaits nothing");
    return troupe_stream_wait(stream, window->written);
}

troupe_status troupe_window_release(const troupe_window *window, troupe_stream *stream) {
    TROUPE_ASSERT(window->receives, "the sender's end of a window has nothing to release");
    return troupe_event_record(window->released, stream);
}

void troupe_window_close(troupe_window *window) {
    if (window == NULL) {
        return;
    }
    if (window->receives) {
        troupe_event_close(window->device, &window->answer.written, window->written);
        troupe_event_destroy(window->first == NULL ? window->released : NULL);
    } else {
        troupe_event_destroy(window->written);
        troupe_event_close(window->device, &window->offer.released, window->released);
        troupe_memory_close(window->device, &window->offer.memory, window->allocation);
    }
    troupe_free(window);
}
