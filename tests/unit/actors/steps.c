/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that end a step at different times. A gang of two sources feeds a gang of two sinks; the
 * second sink's rank begins each step only when the first source has fired in the step after. So
 * the second source still sends when its conductor already issues tickets of the next step. */
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "actors/job.h"
#include "actors/runtime.h"
#include "tests/test.h"

enum { RANKS = 4, SLOW_SOURCE = 1, SLOW_SINK = 3, STEPS = 6 };

struct world {
    bool gives_up;              /* rank 0's app fails between two steps */
    atomic_llong step_of_first; /* in which the first source has fired */
};

/* A rank's actor. */
struct actor {
    struct world *world;
    int rank;
    int64_t step; /* that the rank's app has begun */
    int64_t reduced;
};

static troupe_status produce(void *state, struct troupe_firing *firing) {
    struct actor *actor = state;
    EXPECT_EQ(firing->step, actor->step); /* never ahead of the app */
    *(int32_t *)firing->outputs[0].data = (int32_t)firing->step;
    if (actor->rank == 0) {
        atomic_store(&actor->world->step_of_first, firing->step);
    }
    return TROUPE_OK;
}

static troupe_status consume(void *state, struct troupe_firing *firing) {
    struct actor *actor = state;
    EXPECT_EQ(firing->step, actor->step);
    EXPECT_EQ(*(const int32_t *)firing->inputs[0].data, firing->step);
    return TROUPE_OK;
}

/* In the reduction lane: of this rank alone, so it is done at once. */
static troupe_status reduce(void *state, struct troupe_firing *firing) {
    struct actor *actor = state;
    EXPECT_EQ(firing->step, actor->step);
    EXPECT_EQ(actor->reduced, firing->step);
    actor->reduced++;
    return TROUPE_OK;
}

static const struct troupe_port source_ports[] = {{"out", TROUPE_OUT}};
static const struct troupe_actor_method source_methods[] = {
    {.name = "produce", .outputs = {0}, .output_count = 1, .run = produce},
    {.name = "reduce", .lane = TROUPE_LANE_REDUCTION, .run = reduce}};
static const struct troupe_actor_class source_class = {.name = "source",
                                                       .ports = source_ports,
                                                       .port_count = 1,
                                                       .methods = source_methods,
                                                       .method_count = 2};
static const struct troupe_port sink_ports[] = {{"in", TROUPE_IN}};
static const struct troupe_actor_method sink_methods[] = {
    {.name = "consume", .inputs = {0}, .input_count = 1, .run = consume}};
static const struct troupe_actor_class sink_class = {.name = "sink",
                                                     .ports = sink_ports,
                                                     .port_count = 1,
                                                     .methods = sink_methods,
                                                     .method_count = 1};

static troupe_status build(troupe_runtime *runtime, struct actor *actor) {
    int source = 0, sink = 0;
    TROUPE_TRY(troupe_spawn(runtime,
                            &(struct troupe_spawn_options){.actor_class = &source_class,
                                                           .name = "sources",
                                                           .ranks = (int[]){0, SLOW_SOURCE},
                                                           .rank_count = 2,
                                                           .argument = actor},
                            &source));
    TROUPE_TRY(troupe_spawn(runtime,
                            &(struct troupe_spawn_options){.actor_class = &sink_class,
                                                           .name = "sinks",
                                                           .ranks = (int[]){2, SLOW_SINK},
                                                           .rank_count = 2,
                                                           .argument = actor},
                            &sink));
    return troupe_connect(runtime,
                          &(struct troupe_connect_options){.name = "sources -> sinks",
                                                           .from = &source,
                                                           .from_port = "out",
                                                           .to = &sink,
                                                           .to_port = "in",
                                                           .columns = 1,
                                                           .dtype = TROUPE_INT32,
                                                           .credits = 4},
                          NULL);
}

/* Holds the slow sink's rank back while the first source is in this step. */
static void wait_for_next_step(const struct world *world, int64_t step) {
    while (atomic_load(&world->step_of_first) <= step && step + 1 < STEPS) {
        sched_yield();
    }
}

static troupe_status run_steps(troupe_runtime *runtime, struct actor *actor) {
    TROUPE_TRY(troupe_runtime_start(runtime));
    for (int64_t step = 0; step < STEPS; step++) {
        if (actor->rank == SLOW_SINK && !actor->world->gives_up) {
            wait_for_next_step(actor->world, step);
        }
        if (actor->world->gives_up && actor->rank == 0 && step == 1) {
            return troupe_fail(TROUPE_ERROR_IO, "the disk is full");
        }
        actor->step = step;
        TROUPE_TRY(troupe_runtime_step(runtime, step));
    }
    return TROUPE_OK;
}

static troupe_status body(void *arg, troupe_comm *comm) {
    struct actor actor = {.world = arg, .rank = troupe_comm_rank(comm)};
    troupe_runtime *runtime = NULL;
    struct troupe_runtime_options options = {
        .microbatches = 1, .look_ahead = 4, .stall_ns = 10000000000};
    TROUPE_TRY(troupe_runtime_create(comm, &options, &runtime));
    troupe_status status = build(runtime, &actor);
    if (status == TROUPE_OK) {
        status = run_steps(runtime, &actor);
    }
    if (status != TROUPE_OK) {
        status = troupe_job_abort(comm, status);
    }
    troupe_runtime_destroy(runtime);
    return status;
}

static void no_rank_runs_ahead_of_its_own_step(void) {
    struct world world = {.step_of_first = -1};
    EXPECT_OK(troupe_job_run(&(struct troupe_job_options){.ranks = RANKS}, body, &world));
    EXPECT_EQ(atomic_load(&world.step_of_first), STEPS - 1);
}

static void rank_that_gives_up_between_steps_ends_the_job_with_its_sentence(void) {
    struct world world = {.gives_up = true, .step_of_first = -1};
    EXPECT_ERROR(troupe_job_run(&(struct troupe_job_options){.ranks = RANKS}, body, &world),
                 TROUPE_ERROR_IO, "the disk is full");
    EXPECT_STRING(troupe_last_error(), "the disk is full");
}

int main(void) {
    TEST(no_rank_runs_ahead_of_its_own_step);
    TEST(rank_that_gives_up_between_steps_ends_the_job_with_its_sentence);
    return TEST_END();
}
