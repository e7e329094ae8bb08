/* SPDX-License-Identifier: Apache-2.0
 *
 * What planning costs: compile, bind of one rank's own part, and the check of a whole plan.
 *
 *     bench.route_plans            one line per case, best and median of many binds, in
 * microseconds
 *
 * 512 or 8 x ranks ragged samples; hosts of eight ranks.
 */
#include <stdio.h>
#include <stdlib.h>

#include "comm/route.h"
#include "runtime/check.h"
#include "runtime/clock.h"
#include "runtime/memory.h"
#include "tests/test.h"

enum { RANKS_MAX = 3072, BINDS = 51, ROUNDS = 8 };

struct plan_case {
    const char *name;
    int ranks, samples;
    int source[2], destination[3]; /* tp, dp; tp, cp, dp; on all ranks, or disjoint halves */
    bool disjoint, sequence_parallel, check;
};

static const struct plan_case cases[] = {
    {"dp64 -> dp8 tp8", 64, 512, {1, 64}, {8, 1, 8}, false, false, true},
    {"dp64 -> dp8 tp8 sp", 64, 512, {1, 64}, {8, 1, 8}, false, true, true},
    {"dp64 -> dp4 cp4 tp4 zig-zag", 64, 512, {1, 64}, {4, 4, 4}, false, false, true},
    {"dp4 tp8 -> dp4 tp8, disjoint", 64, 512, {8, 4}, {8, 1, 4}, true, false, true},
    {"dp64 tp8 -> dp64 tp8", 512, 4096, {8, 64}, {8, 1, 64}, false, false, true},
    {"dp512 -> dp16 cp4 tp8 zig-zag", 512, 4096, {1, 512}, {8, 4, 16}, false, false, true},
    {"dp512 -> dp64 tp8", 512, 4096, {1, 512}, {8, 1, 64}, false, false, true},
    {"dp3072 -> dp384 tp8", 3072, 24576, {1, 3072}, {8, 1, 384}, false, false, false},
    {"dp3072 -> dp48 cp8 tp8 zig-zag sp", 3072, 24576, {1, 3072}, {8, 8, 48}, false, true, false},
    {"dp192 tp8 -> dp192 tp8, disjoint", 3072, 24576, {8, 192}, {8, 1, 192}, true, false, false},
};

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double now_us(void) {
    return 1e-3 * (double)troupe_clock_ns();
}

static void make_layout(const struct plan_case *c, int first, const int size[3], bool destination,
                        struct troupe_layout *out) {
    static int ranks[RANKS_MAX];
    struct troupe_mesh mesh;
    int count = size[0] * size[1] * size[2];
    for (int i = 0; i < count; i++) {
        ranks[i] = first + i;
    }
    EXPECT_OK(troupe_mesh_init(
        &(struct troupe_mesh_options){
            .ranks = ranks, .rank_count = count, .tp = size[0], .cp = size[1], .dp = size[2]},
        &mesh));
    struct troupe_layout_options options = {
        .mesh = &mesh, .shape = {0, 4096}, .zigzag = size[1] > 1, .ragged = true};
    options.split[0] = TROUPE_AXES(TROUPE_DP, TROUPE_CP, TROUPE_TP);
    options.split[0].count = destination && c->sequence_parallel ? 3 : size[1] > 1 ? 2 : 1;
    options.sequences = destination && options.split[0].count > 1 ? c->samples / size[2] : 0;
    EXPECT_OK(troupe_layout_init(&options, out));
    troupe_mesh_fini(&mesh);
}

/* Rows of samples, and where the parts of a layout begin. */
static void make_offsets(const struct plan_case *c, const struct troupe_layout *layout,
                         const int64_t *begin, int64_t *offsets) {
    int sequences = layout->part_count / layout->chunks;
    int64_t *starts = malloc(sizeof *starts * (size_t)(sequences + 1));
    for (int i = 0; i <= sequences; i++) {
        starts[i] = begin[troupe_split_begin(c->samples, sequences, i)];
    }
    troupe_layout_row_offsets(layout, starts, offsets);
    free(starts);
}

static void run_case(const struct plan_case *c) {
    struct troupe_layout layouts[2];
    troupe_route *route = NULL;
    int *hosts = malloc(sizeof *hosts * RANKS_MAX), first = c->disjoint ? c->ranks / 2 : 0;
    int64_t *begin = calloc((size_t)c->samples + 1, sizeof *begin), *offsets[2];
    make_layout(c, 0, (int[]){c->source[0], 1, c->source[1]}, false, &layouts[0]);
    make_layout(c, first, c->destination, true, &layouts[1]);
    for (int r = 0; r < RANKS_MAX; r++) {
        hosts[r] = r / 8;
    }
    srand(1);
    for (int i = 0; i < c->samples; i++) {
        begin[i + 1] = begin[i] + rand() % 300;
    }
    for (int s = 0; s < 2; s++) {
        offsets[s] = malloc(sizeof **offsets * (size_t)(layouts[s].part_count + 1));
        make_offsets(c, &layouts[s], begin, offsets[s]);
    }
    double start = now_us(), times[BINDS * ROUNDS];
    EXPECT_OK(troupe_route_compile(&(struct troupe_route_options){.source = &layouts[0],
                                                                  .destination = &layouts[1],
                                                                  .host_of_rank = hosts,
                                                                  .element_bytes = 2},
                                   &route));
    double compile = now_us() - start, create = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct troupe_route_binding *binding = NULL;
        int rank = troupe_route_rank(route, troupe_route_rank_count(route) * round / ROUNDS);
        start = now_us();
        EXPECT_OK(troupe_route_binding_create(route, rank, &binding));
        create += (now_us() - start) / ROUNDS;
        troupe_memory_set_steady(true); /* an allocation would abort */
        for (int i = 0; i < BINDS; i++) {
            start = now_us();
            EXPECT_OK(troupe_route_bind(binding, offsets[0], offsets[1]));
            times[round * BINDS + i] = now_us() - start;
        }
        troupe_memory_set_steady(false);
        troupe_route_binding_destroy(binding);
    }
    qsort(times, BINDS * ROUNDS, sizeof *times, compare_doubles);
    printf("%-36s compile %9.0f  create %7.0f  bind %8.1f (best %.1f, worst %.1f)", c->name,
           compile, create, times[BINDS * ROUNDS / 2], times[0], times[BINDS * ROUNDS - 1]);
    if (c->check) {
        start = now_us();
        EXPECT_OK(troupe_route_check(route, offsets[0], offsets[1]));
        printf("  check %9.0f", now_us() - start);
    }
    printf("\n");
    troupe_route_destroy(route);
    for (int s = 0; s < 2; s++) {
        troupe_layout_fini(&layouts[s]);
        free(offsets[s]);
    }
    free(begin);
    free(hosts);
}

int main(void) {
    for (size_t i = 0; i < TROUPE_COUNT_OF(cases); i++) {
        run_case(&cases[i]);
    }
    return 0;
}
