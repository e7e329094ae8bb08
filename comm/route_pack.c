/* SPDX-License-Identifier: Apache-2.0
 *
 * Between a rank's matrix and the contiguous bytes of a message.
 */
#include <string.h>

#include "comm/route.h"
#include "runtime/check.h"

static char *element_at(const struct troupe_route_view *view, int64_t row, int64_t column) {
    return (char *)view->data + (size_t)(row - view->box.begin[0]) * view->row_bytes +
           (size_t)(column - view->box.begin[1]) * view->element_bytes;
}

static size_t columns_bytes(const struct troupe_route_view *view, const struct troupe_box *box) {
    return (size_t)(box->end[1] - box->begin[1]) * view->element_bytes;
}

static void check_view(const struct troupe_route_message *message,
                       const struct troupe_route_view *view) {
    for (int i = 0; i < message->box_count; i++) {
        const struct troupe_box *box = &message->boxes[i];
        struct troupe_box common;
        TROUPE_ASSERT(troupe_box_intersect(box, &view->box, &common) &&
                          troupe_box_equal(box, &common),
                      "box %d of %d with rows %lld..%lld columns %lld..%lld is not within the view",
                      i, message->box_count, (long long)box->begin[0], (long long)box->end[0],
                      (long long)box->begin[1], (long long)box->end[1]);
    }
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
    check_view(message, view);
    return element_at(view, message->boxes[0].begin[0], message->boxes[0].begin[1]);
}

void troupe_route_message_pack(const struct troupe_route_message *message,
                               const struct troupe_route_view *view, void *bytes_out) {
    check_view(message, view);
    char *out = bytes_out;
    for (int i = 0; i < message->box_count; i++) {
        const struct troupe_box *box = &message->boxes[i];
        size_t bytes = columns_bytes(view, box);
        for (int64_t row = box->begin[0]; row < box->end[0]; row++, out += bytes) {
            memcpy(out, element_at(view, row, box->begin[1]), bytes);
        }
    }
}

void troupe_route_message_unpack(const struct troupe_route_message *message, const void *bytes,
                                 const struct troupe_route_view *view) {
    check_view(message, view);
    const char *in = bytes;
    for (int i = 0; i < message->box_count; i++) {
        const struct troupe_box *box = &message->boxes[i];
        size_t row_bytes = columns_bytes(view, box);
        for (int64_t row = box->begin[0]; row < box->end[0]; row++, in += row_bytes) {
            memcpy(element_at(view, row, box->begin[1]), in, row_bytes);
        }
    }
}
