/* SPDX-License-Identifier: Apache-2.0 */
/* What an island's engine costs its conductor, without messages: replicas of a pipeline of 8 ranks
 * with an encoder on every rank, tied into one island; tasks end in the order of their tickets.
 *
 *     bench.conductor [RANKS [MICROBATCHES [CHUNKS [ORDER]]]]     64 16 1 1f1b */
#include "runtime/clock.h"
#include "scheduler/engine.h"
#include "tests/schedule/pipeline.h"
#include "tests/test.h"

enum { STAGES = 8, STEPS = 5, RANKS_MAX = 4096 };

/* Gangs without methods, each sharing a rank with the next. */
static int add_ties(struct troupe_gang *gangs, int count, int *ranks, int rank_count) {
    for (int first = 0; first + 1 < rank_count; first += TROUPE_GANG_RANKS_MAX - 1) {
        int left = rank_count - first;
        gangs[count++] = (struct troupe_gang){
            .name = "tie",
            .ranks = ranks + first,
            .rank_count = left < TROUPE_GANG_RANKS_MAX ? left : TROUPE_GANG_RANKS_MAX};
    }
    return count;
}

static int64_t run_step(troupe_engine *engine, int64_t step, struct troupe_ticket *queue) {
    int64_t begun = 0, ended = 0;
    EXPECT_OK(troupe_engine_begin_step(engine, step));
    do {
        while (troupe_engine_next(engine, &queue[begun]) == TROUPE_OK) {
            begun++;
        }
        EXPECT(ended < begun, "nothing runs after %d tickets", (int)ended);
        troupe_engine_done(engine, queue[ended].method, queue[ended].firing, 0);
        ended++;
    } while (!troupe_engine_step_done(engine));
    return ended;
}

int main(int argc, char **argv) {
    int ranks = argc > 1 ? atoi(argv[1]) : 64, microbatches = argc > 2 ? atoi(argv[2]) : 16;
    int chunks = argc > 3 ? atoi(argv[3]) : 1;
    const struct troupe_order_policy *order = NULL;
    struct pipeline p;
    troupe_engine *engine = NULL;
    static struct troupe_gang gangs[1 << 17];
    EXPECT(ranks >= STAGES && ranks <= RANKS_MAX, "%d ranks", ranks);
    EXPECT_OK(troupe_order_find(argc > 4 ? argv[4] : "1f1b", &order));
    pipeline_make(&(struct pipeline_options){.ranks = STAGES,
                                             .chunks = chunks,
                                             .replicas = ranks / STAGES,
                                             .microbatches = microbatches,
                                             .split = true,
                                             .forward = 1,
                                             .backward = 1,
                                             .weight = 1,
                                             .encoder = ENCODER_SPREAD,
                                             .encoder_forward = 1,
                                             .encoder_backward = 1},
                  &p);
    memcpy(gangs, p.gangs, (size_t)p.graph.gang_count * sizeof *gangs);
    p.graph.gang_count = add_ties(gangs, p.graph.gang_count, p.rank_lists, p.graph.rank_count);
    p.graph.gangs = gangs;
    EXPECT_OK(troupe_graph_check(&p.graph));
    EXPECT_OK(
        troupe_engine_create(&p.graph, &(struct troupe_engine_options){.order = order}, &engine));
    struct troupe_ticket *queue =
        calloc((size_t)p.graph.method_count * (size_t)microbatches, sizeof *queue);
    for (int64_t step = 0; step < STEPS; step++) {
        uint64_t begin_ns = troupe_clock_ns();
        int64_t tickets = run_step(engine, step, queue);
        double seconds = troupe_clock_seconds(begin_ns, troupe_clock_ns());
        printf("%d ranks, %d tickets: %.2f ms a step, %.3f us a ticket\n", ranks, (int)tickets,
               seconds * 1e3, seconds * 1e6 / (double)tickets);
    }
    free(queue);
    troupe_engine_destroy(engine);
    pipeline_free(&p);
    return 0;
}
