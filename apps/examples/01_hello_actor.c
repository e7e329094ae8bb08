/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest program: one actor per rank, without ports, whose method fires once a microbatch.
 *
 *     01_hello_actor --ranks 2               ranks as threads
 *     mpirun -n 2 01_hello_actor             ranks as processes
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/job.h"
#include "actors/runtime.h"

enum { RANKS_MAX = 64, MICROBATCHES = 2, STEPS = 2 };

static troupe_status greet(void *state, struct troupe_firing *firing) {
    printf("%s says hello in microbatch %d of step %" PRId64 "\n", (const char *)state,
           firing->microbatch, firing->step);
    return TROUPE_OK;
}

static const struct troupe_actor_method methods[] = {{.name = "greet", .run = greet}};
static const struct troupe_actor_class greeter = {
    .name = "greeter", .methods = methods, .method_count = 1};

/* Every rank makes the same calls; the actors on other ranks are known here, but not made. */
static troupe_status build(troupe_runtime *runtime, int ranks, char names[][24]) {
    for (int r = 0; r < ranks; r++) {
        snprintf(names[r], sizeof names[r], "actor %d", r);
        TROUPE_TRY(troupe_spawn(runtime,
                                &(struct troupe_spawn_options){.actor_class = &greeter,
                                                               .name = names[r],
                                                               .ranks = &r,
                                                               .rank_count = 1,
                                                               .argument = names[r]},
                                NULL));
    }
    return troupe_runtime_start(runtime);
}

static troupe_status say_hello(void *arg, troupe_comm *comm) {
    (void)arg;
    char names[RANKS_MAX][24];
    troupe_runtime *runtime = NULL;
    struct troupe_runtime_options options = {.microbatches = MICROBATCHES};
    TROUPE_TRY(troupe_runtime_create(comm, &options, &runtime));
    troupe_status status = build(runtime, troupe_comm_size(comm), names);
    for (int64_t step = 0; step < STEPS && status == TROUPE_OK; step++) {
        status = troupe_runtime_step(runtime, step);
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
    return troupe_job_main(&(struct troupe_job_options){.ranks = ranks}, say_hello, NULL);
}
