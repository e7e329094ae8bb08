/* SPDX-License-Identifier: Apache-2.0
 *
 * Between a rank's matrix and the contiguous bytes of a message.
 */
#include <string.h>

#include "comm/route.h"
#include "runtime/check.h"

/* The last stretch that begins at the row or before. */
static const struct troupe_route_stretch *stretch_of(const struct troupe_route_view *view,
                                                     int64_t row) {
    int low = 0, high = view->stretch_count;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (view->stretches[middle].begin <= row) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return &view->stretches[low];
}

static size_t columns_bytes(const struct troupe_route_view *view, const struct troupe_box *box) {
    return (size_t)(box->end[1] - box->begin[1]) * view->element_bytes;
}

void *troupe_route_view_at(const struct troupe_route_view *view, const struct troupe_box *box) {
    const struct troupe_route_stretch all = {.begin = view->box.begin[0], .end = view->box.end[0]};
    const struct troupe_route_stretch *rows =
        view->stretch_count == 0 ? &all : stretch_of(view, box->begin[0]);
    TROUPE_ASSERT(box->begin[0] >= rows->begin && box->end[0] <= rows->end &&
                      box->begin[1] >= view->box.begin[1] && box->end[1] <= view->box.end[1],
                  "a box with rows %lld..%lld columns %lld..%lld is not within the view",
                  (long long)box->begin[0], (long long)box->end[0], (long long)box->begin[1],
                  (long long)box->end[1]);
    return (char *)view->data + (size_t)(box->begin[0] - rows->begin + rows->at) * view->row_bytes +
           (size_t)(box->begin[1] - view->box.begin[1]) * view->element_bytes;
}

bool troupe_route_message_is_contiguous(const struct troupe_route_message *message,
                                        const struct troupe_route_view *view) {
    if (message->box_count != 1) {
        return false;
    }
    const struct troupe_box *box = message->boxes;
    return box->end[0] - box->begin[0] == 1 || columns_bytes(view, box) == view->row_bytes;
}

void *troupe_route_message_data(const struct troupe_route_message *message,
                                const struct troupe_route_view *view) {
    TROUPE_ASSERT(troupe_route_message_is_contiguous(message, view),
                  "message of %d boxes is not contiguous", message->box_count);
    return troupe_route_view_at(view, &message->boxes[0]);
}

/* `rows` rows of `row_bytes` each; adjacent ones in one go. */
static void copy_rows(char *to, size_t to_stride, const char *from, size_t from_stride,
                      int64_t rows, size_t row_bytes) {
    if (to_stride == row_bytes && from_stride == row_bytes) {
        memcpy(to, from, (size_t)rows * row_bytes);
        return;
    }
    for (int64_t row = 0; row < rows; row++, to += to_stride, from += from_stride) {
        memcpy(to, from, row_bytes);
    }
}

void troupe_route_message_pack(const struct troupe_route_message *message,
                               const struct troupe_route_view *view, void *bytes_out) {
    char *out = bytes_out;
    for (int i = 0; i < message->box_count; i++) {
        const struct troupe_box *box = &message->boxes[i];
        size_t bytes = columns_bytes(view, box);
        int64_t rows = box->end[0] - box->begin[0];
        copy_rows(out, bytes, troupe_route_view_at(view, box), view->row_bytes, rows, bytes);
        out += (size_t)rows * bytes;
    }
}

void troupe_route_message_unpack(const struct troupe_route_message *message, const void *bytes,
                                 const struct troupe_route_view *view) {
    const char *in = bytes;
    for (int i = 0; i < message->box_count; i++) {
        const struct troupe_box *box = &message->boxes[i];
        size_t row_bytes = columns_bytes(view, box);
        int64_t rows = box->end[0] - box->begin[0];
        copy_rows(troupe_route_view_at(view, box), view->row_bytes, in, row_bytes, rows, row_bytes);
        in += (size_t)rows * row_bytes;
    }
}

void troupe_route_message_copy(const struct troupe_route_message *message,
                               const struct troupe_route_view *from,
                               const struct troupe_route_view *to) {
    for (int i = 0; i < message->box_count; i++) {
        const struct troupe_box *box = &message->boxes[i];
        copy_rows(troupe_route_view_at(to, box), to->row_bytes, troupe_route_view_at(from, box),
                  from->row_bytes, box->end[0] - box->begin[0], columns_bytes(from, box));
    }
}
