/* SPDX-License-Identifier: Apache-2.0 */
/* Two actors send a ball back and forth, and the first measures how long that takes. No steps: the
 * methods fire whenever the ball is there, until the first actor has had enough. The ball exists
 * before the start, as the initial message of the edge back.
 *
 *     02_ping_pong --ranks 2                 ranks as threads
 *     mpirun -n 2 02_ping_pong               ranks as processes
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/job.h"
#include "actors/runtime.h"
#include "runtime/clock.h"

enum { ROUNDS = 2000, IN = 0, OUT = 1 };

struct player {
    bool serves;
    int64_t hits;
    uint64_t begin_ns;
};

/* The ball counts its hits. */
static troupe_status hit(void *state, struct troupe_firing *firing) {
    struct player *player = state;
    int32_t ball = *(const int32_t *)firing->inputs[0].data;
    if (ball != 2 * player->hits + !player->serves) {
        return troupe_fail(TROUPE_ERROR_DATA,
                           "the ball has %" PRId32 " hits after %" PRId64 " of mine", ball,
                           player->hits);
    }
    player->begin_ns = player->hits == 0 ? troupe_clock_ns() : player->begin_ns;
    *(int32_t *)firing->outputs[0].data = ball + 1;
    if (player->serves && player->hits == ROUNDS) {
        double us = troupe_clock_seconds(player->begin_ns, troupe_clock_ns()) * 1e6;
        printf("%d rounds, %.1f us one way\n", ROUNDS, us / (2 * ROUNDS));
        troupe_runtime_stop(firing->runtime);
    }
    player->hits++;
    return TROUPE_OK;
}

static const struct troupe_port ports[] = {[IN] = {"in", TROUPE_IN}, [OUT] = {"out", TROUPE_OUT}};
static const struct troupe_actor_method methods[] = {{.name = "hit",
                                                      .inputs = {IN},
                                                      .input_count = 1,
                                                      .outputs = {OUT},
                                                      .output_count = 1,
                                                      .run = hit}};
static const struct troupe_actor_class player_class = {
    .name = "player", .ports = ports, .port_count = 2, .methods = methods, .method_count = 1};

static troupe_status connect(troupe_runtime *runtime, const char *name, int from, int to,
                             int initial) {
    return troupe_connect(runtime,
                          &(struct troupe_connect_options){.name = name,
                                                           .from = &from,
                                                           .from_port = "out",
                                                           .to = &to,
                                                           .to_port = "in",
                                                           .initial = initial,
                                                           .columns = 1,
                                                           .dtype = TROUPE_INT32},
                          NULL);
}

static troupe_status build(troupe_runtime *runtime, int last_rank, struct player *players) {
    int ping = 0, pong = 0;
    struct troupe_spawn_options options = {.actor_class = &player_class, .rank_count = 1};
    options.name = "ping";
    options.ranks = (int[]){0};
    options.argument = &players[0];
    TROUPE_TRY(troupe_spawn(runtime, &options, &ping));
    options.name = "pong";
    options.ranks = &last_rank;
    options.argument = &players[1];
    TROUPE_TRY(troupe_spawn(runtime, &options, &pong));
    TROUPE_TRY(connect(runtime, "there", ping, pong, 0));
    TROUPE_TRY(connect(runtime, "back", pong, ping, 1));
    return troupe_runtime_start(runtime);
}

static troupe_status play(void *arg, troupe_comm *comm) {
    (void)arg;
    struct player players[2] = {{.serves = true}};
    troupe_runtime *runtime = NULL;
    TROUPE_TRY(troupe_runtime_create(comm, &(struct troupe_runtime_options){0}, &runtime));
    troupe_status status = build(runtime, troupe_comm_size(comm) - 1, players);
    if (status == TROUPE_OK) {
        status = troupe_runtime_run(runtime);
    }
    troupe_runtime_destroy(runtime);
    return status;
}

int main(int argc, char **argv) {
    bool threads = argc == 3 && strcmp(argv[1], "--ranks") == 0;
    int ranks = threads ? atoi(argv[2]) : 0;
    if ((argc != 1 && !threads) || ranks < 0) {
        fprintf(stderr, "usage: %s [--ranks N]\n", argv[0]);
        return 2;
    }
    return troupe_job_main(&(struct troupe_job_options){.ranks = ranks}, play, NULL);
}
