/* SPDX-License-Identifier: Apache-2.0 */
/* How long pieces of work took on a device, and when: an event before and after each. */
#include "actors/runtime_internal.h"
#include "runtime/clock.h"
#include "runtime/memory.h"

troupe_status troupe_task_clock_make(struct troupe_task_clock *clock, troupe_stream *stream,
                                     int capacity) {
    troupe_device *device = troupe_stream_device(stream);
    clock->stream = stream;
    TROUPE_TRY(TROUPE_NEW(&clock->begins, capacity));
    TROUPE_TRY(TROUPE_NEW(&clock->ends, capacity));
    clock->capacity = capacity;
    for (int i = 0; i < capacity; i++) {
        TROUPE_TRY(troupe_event_create_timed(device, &clock->begins[i]));
        TROUPE_TRY(troupe_event_create_timed(device, &clock->ends[i]));
    }
    return TROUPE_OK;
}

void troupe_task_clock_destroy(struct troupe_task_clock *clock) {
    for (int i = 0; i < clock->capacity; i++) {
        troupe_event_destroy(clock->begins[i]);
        troupe_event_destroy(clock->ends[i]);
    }
    troupe_free(clock->begins);
    troupe_free(clock->ends);
}

troupe_status troupe_task_clock_begin(const struct troupe_task_clock *clock) {
    return clock->count < clock->capacity
               ? troupe_event_record(clock->begins[clock->count], clock->stream)
               : TROUPE_OK;
}

troupe_status troupe_task_clock_end(struct troupe_task_clock *clock) {
    return clock->count < clock->capacity
               ? troupe_event_record(clock->ends[clock->count++], clock->stream)
               : TROUPE_OK;
}

uint64_t troupe_task_clock_total_ns(const struct troupe_task_clock *clock) {
    uint64_t total = 0;
    for (int i = 0; i < clock->count; i++) {
        int64_t ns = 0;
        if (troupe_event_query(clock->ends[i]) == TROUPE_OK &&
            troupe_event_elapsed(clock->begins[i], clock->ends[i], &ns) == TROUPE_OK) {
            total += (uint64_t)ns;
        }
    }
    return total;
}

/* ---- when ---- */

/* In a stream that has nothing to do between steps, so the device comes to it at once. */
troupe_status troupe_mark_origin(troupe_runtime *runtime) {
    if (runtime->origin == NULL) {
        return TROUPE_OK;
    }
    runtime->origin_ns = troupe_clock_ns();
    return troupe_event_record(runtime->origin, runtime->outgoing);
}

/* The clock that timed the event's task, and in *pair_out which pair of its events; NULL: none did.
 * Events are asked about in their order, after rewind. */
static struct troupe_task_clock *timed_by(troupe_runtime *runtime,
                                          const struct troupe_trace_event *event, int *pair_out) {
    struct troupe_task_clock *clock = &troupe_gang_of(runtime, event->what)->clock;
    bool reduces = runtime->graph_methods[event->what].lane == TROUPE_LANE_REDUCTION;
    if (reduces || clock->read == clock->count) {
        return NULL;
    }
    *pair_out = clock->read++;
    return clock;
}

static void rewind_clocks(troupe_runtime *runtime) {
    for (int g = 0; g < runtime->gang_count; g++) {
        runtime->gangs[g].clock.read = 0;
    }
}

/* By how much the device came late to the origin, at least: no task began before its launch. */
static troupe_status correct_origin(troupe_runtime *runtime, const struct troupe_trace *trace) {
    int64_t late_ns = 0;
    rewind_clocks(runtime);
    for (int i = 0; i < trace->count; i++) {
        int pair = 0;
        const struct troupe_trace_event *launch = &trace->events[i];
        const struct troupe_task_clock *clock = timed_by(runtime, launch, &pair);
        if (clock != NULL) {
            int64_t ns = 0;
            TROUPE_TRY(troupe_event_elapsed(runtime->origin, clock->begins[pair], &ns));
            int64_t early_ns = (int64_t)(launch->begin_ns - runtime->origin_ns) - ns;
            late_ns = early_ns > late_ns ? early_ns : late_ns;
        }
    }
    runtime->origin_ns += (uint64_t)late_ns;
    return TROUPE_OK;
}

/* The host's clock when the device passed the event. */
static troupe_status find_time(const troupe_runtime *runtime, troupe_event *event, uint64_t *out) {
    int64_t ns = 0;
    TROUPE_TRY(troupe_event_elapsed(runtime->origin, event, &ns));
    *out = runtime->origin_ns + (uint64_t)ns;
    return TROUPE_OK;
}

/* Events of the launches, in their order, become those of the tasks. */
static troupe_status replace_times(troupe_runtime *runtime, struct troupe_trace *trace) {
    rewind_clocks(runtime);
    for (int i = 0; i < trace->count; i++) {
        int pair = 0;
        struct troupe_trace_event *event = &trace->events[i];
        const struct troupe_task_clock *clock = timed_by(runtime, event, &pair);
        if (clock != NULL) {
            TROUPE_TRY(find_time(runtime, clock->begins[pair], &event->begin_ns));
            TROUPE_TRY(find_time(runtime, clock->ends[pair], &event->end_ns));
        }
    }
    return TROUPE_OK;
}

/* By their ends. Streams finish nearly in the order of the launches, so few have to move. */
static void sort_events(struct troupe_trace *trace) {
    for (int i = 1; i < trace->count; i++) {
        struct troupe_trace_event event = trace->events[i];
        int at = i;
        for (; at > 0 && trace->events[at - 1].end_ns > event.end_ns; at--) {
            trace->events[at] = trace->events[at - 1];
        }
        trace->events[at] = event;
    }
}

/* Streams of several actors run side by side and share the device: what two had at the same time
 * counts for the one that ended first, so that a rank does one task at a time. */
static void part_tasks(const troupe_runtime *runtime, struct troupe_trace *trace) {
    uint64_t free_ns = 0;
    for (int i = 0; i < trace->count; i++) {
        struct troupe_trace_event *event = &trace->events[i];
        if (runtime->graph_methods[event->what].lane != TROUPE_LANE_REDUCTION) {
            event->begin_ns = event->begin_ns > free_ns ? event->begin_ns : free_ns;
            free_ns = event->end_ns;
        }
    }
}

troupe_status troupe_runtime_trace_device(troupe_runtime *runtime) {
    struct troupe_trace *trace = runtime->options.trace;
    if (trace == NULL || runtime->origin == NULL) {
        return TROUPE_OK;
    }
    TROUPE_TRY(troupe_stream_synchronize(runtime->outgoing)); /* empty but, maybe, for the origin */
    TROUPE_TRY(correct_origin(runtime, trace));
    TROUPE_TRY(replace_times(runtime, trace));
    sort_events(trace);
    part_tasks(runtime, trace);
    return TROUPE_OK;
}
