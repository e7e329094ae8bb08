/* SPDX-License-Identifier: Apache-2.0
 *
 * What code that computes on the simulated device needs: a stream is a thread of its own that runs
 * what is enqueued, in order and later, with seeded delays. Memory is the host's, so that the CPU's
 * functions do the work; the order is that of a GPU: who forgets to wait for an event reads too
 * early, here as there.
 *
 *     static troupe_status scale(const void *payload) { ... }
 *     TROUPE_TRY(troupe_sim_enqueue(stream, scale, &op, sizeof op));
 *
 * Ownership: the payload is copied. Threads: as the stream; `run` runs in the stream's thread.
 * Failure: a payload larger than TROUPE_SIM_PAYLOAD_MAX aborts. A run that fails makes the device
 * fail: every later call on it returns that.
 */
#ifndef TROUPE_RUNTIME_DEVICE_SIM_H
#define TROUPE_RUNTIME_DEVICE_SIM_H

#include <stddef.h>

#include "runtime/device.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TROUPE_SIM_PAYLOAD_MAX = 1 << 20 };

/* Blocks while the stream's queue is full, as a GPU's does. */
troupe_status troupe_sim_enqueue(troupe_stream *stream, troupe_status (*run)(const void *payload),
                                 const void *payload, size_t bytes);

/* The same for a payload in parts: `run` gets the first, and finds each next one behind it. */
struct troupe_sim_part {
    const void *data; /* NULL where bytes is 0 */
    size_t bytes;
};
troupe_status troupe_sim_enqueue_parts(troupe_stream *stream,
                                       troupe_status (*run)(const void *payload),
                                       const struct troupe_sim_part *parts, size_t count);
const void *troupe_sim_next_part(const void *part, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
