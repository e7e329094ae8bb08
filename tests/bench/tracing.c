/* SPDX-License-Identifier: Apache-2.0 */
/* What tracing costs an event: the store alone, and with a reading of the clock.
 *
 *     bench.tracing */
#include <stdbool.h>

#include "runtime/clock.h"
#include "runtime/trace.h"
#include "tests/test.h"

enum { EVENTS = 1 << 20, ROUNDS = 5 };

static double round_ns(struct troupe_trace *trace, bool reads_clock) {
    uint64_t begin_ns = troupe_clock_ns(), last_ns = begin_ns;
    troupe_trace_reset(trace);
    for (int i = 0; i < EVENTS; i++) {
        uint64_t now_ns = reads_clock ? troupe_clock_ns() : last_ns + 1;
        troupe_trace_add(trace,
                         &(struct troupe_trace_event){
                             .what = i & 7, .index = i, .begin_ns = last_ns, .end_ns = now_ns});
        last_ns = now_ns;
    }
    return troupe_clock_seconds(begin_ns, troupe_clock_ns()) * 1e9 / EVENTS;
}

int main(void) {
    struct troupe_trace trace;
    EXPECT_OK(troupe_trace_init(&trace, EVENTS));
    for (int reads_clock = 0; reads_clock < 2; reads_clock++) {
        printf("%-20s", reads_clock != 0 ? "with the clock:" : "the event alone:");
        for (int i = 0; i < ROUNDS; i++) {
            printf(" %6.2f", round_ns(&trace, reads_clock != 0));
        }
        printf(" ns\n");
    }
    EXPECT_EQ(trace.dropped, 0);
    troupe_trace_fini(&trace);
    return 0;
}
