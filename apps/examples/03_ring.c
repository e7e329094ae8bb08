/* SPDX-License-Identifier: Apache-2.0 */
/* A token goes round a ring of actors, one per rank, and counts its hops; every actor checks that
 * none was lost. One edge joins each actor to the next, the other leads from the last to the first
 * and holds one message before the start: that is the token. A microbatch is a lap.
 *
 *     03_ring --ranks 4                      ranks as threads
 *     mpirun -n 4 03_ring                    ranks as processes
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/job.h"
#include "actors/runtime.h"

enum { RANKS_MAX = 64, LAPS = 100, STEPS = 10, IN = 0, OUT = 1 };

struct place {
    int index;
    int ranks;
};

static troupe_status pass(void *state, struct troupe_firing *firing) {
    const struct place *place = state;
    int32_t hops = *(const int32_t *)firing->inputs[0].data;
    int64_t lap = firing->step * LAPS + firing->microbatch;
    if (hops != lap * place->ranks + place->index) {
        return troupe_fail(TROUPE_ERROR_DATA,
                           "the token made %" PRId32 " hops in %" PRId64 " laps of %d", hops, lap,
                           place->ranks);
    }
    *(int32_t *)firing->outputs[0].data = hops + 1;
    return TROUPE_OK;
}

static const struct troupe_port ports[] = {[IN] = {"in", TROUPE_IN}, [OUT] = {"out", TROUPE_OUT}};
static const struct troupe_actor_method methods[] = {{.name = "pass",
                                                      .inputs = {IN},
                                                      .input_count = 1,
                                                      .outputs = {OUT},
                                                      .output_count = 1,
                                                      .run = pass}};
static const struct troupe_actor_class place_class = {
    .name = "place", .ports = ports, .port_count = 2, .methods = methods, .method_count = 1};

static troupe_status build(troupe_runtime *runtime, int ranks, struct place *place) {
    int gangs[RANKS_MAX];
    for (int r = 0; r < ranks; r++) {
        char name[24];
        snprintf(name, sizeof name, "place %d", r);
        TROUPE_TRY(troupe_spawn(runtime,
                                &(struct troupe_spawn_options){.actor_class = &place_class,
                                                               .name = name,
                                                               .ranks = &r,
                                                               .rank_count = 1,
                                                               .argument = place},
                                &gangs[r]));
    }
    struct troupe_connect_options edge = {.name = "next",
                                          .from = gangs,
                                          .from_count = ranks - 1,
                                          .from_port = "out",
                                          .to = gangs + 1,
                                          .to_port = "in",
                                          .columns = 1,
                                          .dtype = TROUPE_INT32};
    if (ranks > 1) {
        TROUPE_TRY(troupe_connect(runtime, &edge, NULL));
    }
    edge.name = "home";
    edge.from = gangs + ranks - 1;
    edge.from_count = 1;
    edge.to = gangs;
    edge.initial = 1;
    TROUPE_TRY(troupe_connect(runtime, &edge, NULL));
    return troupe_runtime_start(runtime);
}

static troupe_status run_ring(void *arg, troupe_comm *comm) {
    (void)arg;
    struct place place = {.index = troupe_comm_rank(comm), .ranks = troupe_comm_size(comm)};
    troupe_runtime *runtime = NULL;
    struct troupe_runtime_options options = {.microbatches = LAPS};
    TROUPE_TRY(troupe_runtime_create(comm, &options, &runtime));
    troupe_status status = build(runtime, place.ranks, &place);
    for (int64_t step = 0; step < STEPS && status == TROUPE_OK; step++) {
        status = troupe_runtime_step(runtime, step);
    }
    if (status == TROUPE_OK && place.index == 0) {
        printf("%d laps round %d ranks, no hop lost\n", STEPS * LAPS, place.ranks);
    }
    troupe_runtime_destroy(runtime);
    return status;
}

int main(int argc, char **argv) {
    bool threads = argc == 3 && strcmp(argv[1], "--ranks") == 0;
    int ranks = threads ? atoi(argv[2]) : 0;
    if ((argc != 1 && !threads) || ranks < 0 || ranks > RANKS_MAX) {
        fprintf(stderr, "usage: %s [--ranks N], N up to %d\n", argv[0], RANKS_MAX);
        return 2;
    }
    return troupe_job_main(&(struct troupe_job_options){.ranks = ranks}, run_ring, NULL);
}
