/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/trace.h"

#include "runtime/memory.h"

troupe_status troupe_trace_init(struct troupe_trace *trace, int capacity) {
    *trace = (struct troupe_trace){.capacity = capacity};
    return TROUPE_NEW(&trace->events, capacity);
}

void troupe_trace_fini(struct troupe_trace *trace) {
    troupe_free(trace->events);
    *trace = (struct troupe_trace){.capacity = 0};
}
