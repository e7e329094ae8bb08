/* SPDX-License-Identifier: Apache-2.0 */
/* Hello, actor: one actor on each rank, joined in a circle. A token goes round once; whoever holds
 * it says hello, and the last one ends the program.
 *
 *     mpirun -n 3 01_hello_actor        or        01_hello_actor --ranks 3 */
#include <stdio.h>

#include "actors/runtime.h"
#include "apps/launch.h"

static troupe_status say_hello(void *state, struct troupe_firing *firing) {
    int ranks = *(int *)state;
    int token = *(const int32_t *)firing->inputs[0].data;
    printf("hello from actor %d of %d\n", token, ranks);
    fflush(stdout);
    *(int32_t *)firing->outputs[0].data = token + 1;
    if (token + 1 == ranks) {
        troupe_stop(firing);
    }
    return TROUPE_OK;
}

static const struct troupe_method_class methods[] = {
    {.name = "say_hello", .run = say_hello, .input_count = 1, .output_count = 1}};
static const struct troupe_actor_class greeter = {
    .name = "greeter", .methods = methods, .method_count = 1};

static troupe_status body(void *arg, troupe_comm *comm, troupe_workers *workers) {
    (void)arg;
    (void)workers;
    int ranks = troupe_comm_size(comm);
    int actors[LAUNCH_RANKS_MAX];
    troupe_runtime *runtime = NULL;
    TROUPE_TRY(troupe_runtime_create(&(struct troupe_runtime_options){.comm = comm}, &runtime));
    for (int r = 0; r < ranks; r++) {
        actors[r] = troupe_spawn(runtime, &(struct troupe_spawn_options){.actor = &greeter,
                                                                         .name = "greeter",
                                                                         .ranks = &r,
                                                                         .rank_count = 1,
                                                                         .state = &ranks});
    }
    for (int r = 0; r < ranks; r++) {
        TROUPE_TRY(troupe_connect(runtime, &(struct troupe_connect_options){
                                               .name = "token",
                                               .from = &actors[r],
                                               .from_count = 1,
                                               .to = &actors[(r + 1) % ranks],
                                               .to_count = 1,
                                               .initial = r == ranks - 1, /* a zero: actor 0 */
                                               .dtype = TROUPE_INT32,
                                               .columns = 1,
                                               .from_rows_max = 1}));
    }
    troupe_status status = troupe_runtime_start(runtime);
    if (status == TROUPE_OK) {
        status = troupe_runtime_run(runtime);
    }
    troupe_runtime_destroy(runtime);
    return status;
}

int main(int argc, char **argv) {
    int ranks = launch_take_ranks(&argc, argv);
    return ranks < 0 || launch(&(struct launch_options){.ranks = ranks}, body, NULL) != TROUPE_OK;
}
