/* SPDX-License-Identifier: Apache-2.0
 *
 * One slot of a receiver's memory that a sender on the same machine writes by itself: an edge by
 * peer or IPC copies. The copy is the device's own work in a stream of the sender; nothing in it
 * waits for the receiver's streams but a slot that is still read, so it never blocks a lane.
 *
 *     receiver                                    sender
 *     troupe_window_create(..., &window, &offer)
 *                        -- offer, by message ->  troupe_window_open(device, &offer, &window,
 * &answer) troupe_window_accept(window, &answer)  <- answer, by message --
 *                                                 troupe_window_write(window, stream, copies, n)
 *                       <- "written", a message   troupe_comm_send_control(...)
 *     troupe_window_await(window, stream)
 *     ... work that reads troupe_window_memory ...
 *     troupe_window_release(window, stream)
 *                        -- "free", a message ->  troupe_window_write(...) the next
 *
 * The host waits nowhere: a message says that the other side has *enqueued*, the events inside the
 * window make the streams wait. So the messages must alternate as above: a write before the word
 * "free", or an await before the word "written", would see the events of the time before.
 *
 * Ownership: the memory is the receiver's, and stays until the sender has closed; each side closes
 * its own end, the sender first. Threads: the rank's own. Failure: ERROR_UNSUPPORTED where the two
 * cannot share memory (use pinned memory and troupe_comm_post_send_after); else ERROR_DEVICE.
 * No call but create and open allocates.
 */
#ifndef TROUPE_COMM_WINDOW_H
#define TROUPE_COMM_WINDOW_H

#include <stddef.h>
#include <stdint.h>

#include "comm/comm.h"
#include "runtime/device.h"
#include "runtime/device_share.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_window troupe_window;

/* Plain bytes, sent once at start-up. Each side makes the event that it records. */
struct troupe_window_offer {
    struct troupe_share memory, released;
    uint64_t offset_bytes, bytes;
};
struct troupe_window_answer {
    struct troupe_share written;
};

/* Which part of what allocation (as troupe_device_alloc returned it) becomes the slot. */
struct troupe_window_options {
    void *allocation;
    size_t offset_bytes;
    size_t bytes;
    /* Another window of the same slot, for another sender: the release of that one is this one's,
     * too. It is closed last. NULL: the first. */
    const troupe_window *first;
};

/* Receiver: makes the slot and what the sender needs to know of it. */
troupe_status troupe_window_create(troupe_device *device,
                                   const struct troupe_window_options *options, troupe_window **out,
                                   struct troupe_window_offer *offer_out);
/* Sender. */
troupe_status troupe_window_open(troupe_device *device, const struct troupe_window_offer *offer,
                                 troupe_window **out, struct troupe_window_answer *answer_out);
/* Receiver, before the first await. */
troupe_status troupe_window_accept(troupe_window *window,
                                   const struct troupe_window_answer *answer);
/* Where the slot lies for this process. */
void *troupe_window_memory(const troupe_window *window);
size_t troupe_window_bytes(const troupe_window *window);

/* Sender: behind the work of `stream` and behind the receiver's release. Each copy's `to` lies in
 * troupe_window_memory; count 0 sends nothing but the event. */
troupe_status troupe_window_write(troupe_window *window, troupe_stream *stream,
                                  const struct troupe_copy *copies, int count);
/* The same in parts: begin, copies, end. */
troupe_status troupe_window_begin(const troupe_window *window, troupe_stream *stream);
troupe_status troupe_window_copy(const troupe_window *window, troupe_stream *stream,
                                 const struct troupe_copy *copy);
troupe_status troupe_window_end(const troupe_window *window, troupe_stream *stream);
/* Either end: complete when the latest write is (sender: when `from` may be overwritten). */
troupe_event *troupe_window_written(troupe_window *window);

/* Receiver: later work of `stream` sees what was written. */
troupe_status troupe_window_await(const troupe_window *window, troupe_stream *stream);
/* Receiver: the slot may be written when the work of `stream` up to here is done. */
troupe_status troupe_window_release(const troupe_window *window, troupe_stream *stream);

/* Either end. */
void troupe_window_close(troupe_window *window);

#ifdef __cplusplus
}
#endif
#endif
