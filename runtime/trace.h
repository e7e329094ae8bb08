/* SPDX-License-Identifier: Apache-2.0
 *
 * A trace: what happened when, as fixed-size events in memory that was allocated before. Adding one
 * is a few stores; who adds has read the clock already, so what is not traced costs nothing.
 *
 *     TROUPE_TRY(troupe_trace_init(&trace, capacity));
 *     troupe_trace_add(&trace, &(struct troupe_trace_event){method, microbatch, begin, end});
 *     for (int i = 0; i < trace.count; i++) { trace.events[i] ... }
 *     troupe_trace_reset(&trace);                                      (a step each)
 *
 * Ownership: init/fini on the caller's storage. Threads: one thread adds; the events are read by
 * it, or after it has stopped. Failure: init ERROR_MEMORY; a full trace counts what it drops.
 */
#ifndef TROUPE_RUNTIME_TRACE_H
#define TROUPE_RUNTIME_TRACE_H

#include <stdint.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_trace_event {
    int32_t what;  /* whatever the one who adds numbers: a method */
    int32_t index; /* a microbatch */
    uint64_t begin_ns;
    uint64_t end_ns; /* of troupe_clock_ns */
};

struct troupe_trace {
    struct troupe_trace_event *events;
    int capacity;
    int count;
    int64_t dropped; /* since init */
};

troupe_status troupe_trace_init(struct troupe_trace *trace, int capacity);
/* Accepts a zeroed one. */
void troupe_trace_fini(struct troupe_trace *trace);

static inline void troupe_trace_reset(struct troupe_trace *trace) {
    trace->count = 0;
}

static inline void troupe_trace_add(struct troupe_trace *trace,
                                    const struct troupe_trace_event *event) {
    if (trace->count == trace->capacity) {
        trace->dropped++;
        return;
    }
    trace->events[trace->count++] = *event;
}

#ifdef __cplusplus
}
#endif
#endif
