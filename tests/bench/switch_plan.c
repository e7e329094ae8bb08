/* SPDX-License-Identifier: Apache-2.0 */
/* How long the planning of a switch takes on one rank of 64: state maps, relabelling, routes. A
 * model of some 900 tensors (llm 32 layers x 2048, vision 24 layers x 1024); medians of 15. */
#include <stdlib.h>

#include "modules/train/relabel.h"
#include "modules/train/state_move.h"
#include "runtime/clock.h"
#include "tests/test.h"

enum { RANKS = 64, RUNS = 15, HOST_RANKS = 8 };

static const char *const pairs[][2] = {
    {"placement.policy=homogeneous",
     "placement.vision.ranks=0-63 placement.llm.ranks=0-63 placement.llm.tp=8"},
    {"placement.vision.ranks=0-63 placement.llm.ranks=0-63 placement.llm.tp=8",
     "placement.vision.ranks=0-63 placement.llm.ranks=0-63 placement.llm.tp=4 placement.llm.pp=4"},
    {"placement.vision.ranks=0-15 placement.llm.ranks=16-63 placement.llm.tp=4 placement.llm.pp=4",
     "placement.vision.ranks=0-63 placement.llm.ranks=0-63 placement.llm.tp=8 placement.llm.pp=2"},
    {"placement.vision.ranks=0-63 placement.llm.ranks=0-63 placement.llm.tp=8 placement.llm.pp=8",
     "placement.vision.ranks=0-31 placement.vision.tp=2 placement.llm.ranks=32-63 "
     "placement.llm.tp=4 placement.llm.pp=8"},
};

static void configure(struct troupe_config *config, const char *settings) {
    char copy[1024], *rest = NULL;
    troupe_config_init(config);
    snprintf(copy, sizeof copy,
             "model.vision.layers=24 model.vision.hidden=1024 model.vision.heads=16 "
             "model.llm.layers=32 model.llm.hidden=2048 model.llm.heads=32 model.llm.ffn=5504 "
             "data.synthetic.samples=4 %s",
             settings);
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        EXPECT_OK(troupe_config_set(config, word));
    }
    EXPECT_OK(troupe_config_resolve(config));
}

static double plan_once(troupe_comm *comm, troupe_stream *stream, const struct troupe_config *old,
                        const struct troupe_config *next, int64_t *moved, int64_t *state) {
    struct troupe_plan *from_plan = NULL, *to_plan = NULL;
    struct troupe_state_map from, to;
    struct troupe_state_move *move = NULL;
    int hosts[RANKS], rank_of_role[RANKS];
    int64_t needed = 0, kept = 0;
    for (int r = 0; r < RANKS; r++) {
        hosts[r] = r / HOST_RANKS;
    }
    EXPECT_OK(troupe_plan_create(old, RANKS, &from_plan));
    uint64_t begin_ns = troupe_clock_ns();
    EXPECT_OK(troupe_plan_create(next, RANKS, &to_plan));
    EXPECT_OK(troupe_state_map_of_plan(&old->model, from_plan, &from));
    EXPECT_OK(troupe_state_map_of_plan(&old->model, to_plan, &to));
    EXPECT_OK(troupe_relabel(
        &(struct troupe_relabel_options){
            .from = &from, .to = &to, .host_of_rank = hosts, .rank_count = RANKS},
        rank_of_role, &needed, &kept));
    troupe_state_map_relabel(&to, rank_of_role);
    struct troupe_state_part *parts = calloc((size_t)to.tensor_count, sizeof *parts);
    EXPECT_OK(troupe_state_move_create(&(struct troupe_state_move_options){.comm = comm,
                                                                           .stream = stream,
                                                                           .host_of_rank = hosts,
                                                                           .from = &from,
                                                                           .to = &to,
                                                                           .from_parts = parts,
                                                                           .to_parts = parts},
                                       &move));
    double ms = (double)(troupe_clock_ns() - begin_ns) * 1e-6;
    *moved = (needed - kept) * 12;
    *state = needed * 12;
    troupe_state_move_destroy(move);
    free(parts);
    troupe_state_map_fini(&from);
    troupe_state_map_fini(&to);
    troupe_plan_destroy(from_plan);
    troupe_plan_destroy(to_plan);
    return ms;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(void) {
    static struct troupe_config old, next;
    troupe_loopback *world = NULL;
    troupe_comm *comm = NULL;
    troupe_device *device = NULL;
    troupe_stream *stream = NULL;
    EXPECT_OK(troupe_loopback_create(&(struct troupe_loopback_options){.ranks = RANKS}, &world));
    EXPECT_OK(troupe_comm_open_loopback(world, 5, &comm));
    EXPECT_OK(troupe_device_open(TROUPE_DEVICE_CPU, &(struct troupe_device_options){0}, &device));
    EXPECT_OK(troupe_stream_create(device, &stream));
    for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++) {
        double ms[RUNS];
        int64_t moved = 0, state = 0;
        configure(&old, pairs[p][0]);
        configure(&next, pairs[p][1]);
        for (int i = 0; i < RUNS; i++) {
            ms[i] = plan_once(comm, stream, &old, &next, &moved, &state);
        }
        qsort(ms, RUNS, sizeof *ms, compare);
        printf("pair %zu: planned in %.1f ms (%.1f to %.1f); %.3g of %.3g GB move\n", p + 1,
               ms[RUNS / 2], ms[0], ms[RUNS - 1], (double)moved * 1e-9, (double)state * 1e-9);
        fflush(stdout);
    }
    troupe_stream_destroy(stream);
    troupe_device_close(device);
    troupe_comm_close(comm);
    troupe_loopback_destroy(world);
    return 0;
}
