/* SPDX-License-Identifier: Apache-2.0 */
/* How long the tasks of a gang took on its device: an event before and after each. */
#include "actors/runtime_internal.h"
#include "runtime/memory.h"

troupe_status troupe_task_clock_make(struct troupe_actor_gang *gang, int capacity) {
    struct troupe_task_clock *clock = &gang->clock;
    troupe_device *device = troupe_stream_device(gang->stream);
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

troupe_status troupe_task_clock_begin(struct troupe_actor_gang *gang) {
    struct troupe_task_clock *clock = &gang->clock;
    return clock->count < clock->capacity
               ? troupe_event_record(clock->begins[clock->count], gang->stream)
               : TROUPE_OK;
}

troupe_status troupe_task_clock_end(struct troupe_actor_gang *gang) {
    struct troupe_task_clock *clock = &gang->clock;
    return clock->count < clock->capacity
               ? troupe_event_record(clock->ends[clock->count++], gang->stream)
               : TROUPE_OK;
}

uint64_t troupe_task_clock_total_ns(const struct troupe_task_clock *clock) {
    uint64_t total = 0;
    for (int i = 0; i < clock->count; i++) {
        uint64_t ns = 0;
        if (troupe_event_query(clock->ends[i]) == TROUPE_OK &&
            troupe_event_elapsed(clock->begins[i], clock->ends[i], &ns) == TROUPE_OK) {
            total += ns;
        }
    }
    return total;
}
