/* SPDX-License-Identifier: Apache-2.0 */
/* Pipelines of gangs with forward, backward, weight gradient, reduction and update, over loopback
 * ranks with seeded delays. Every message carries a stamp (step, microbatch, stage) that its reader
 * checks, every slot the stamp of its microbatch, and every gang sums in each forward, so a wrong
 * message, slot or order of collectives shows. */
#include "actors/job.h"
#include "actors/runtime.h"
#include "runtime/memory.h"
#include "tests/test.h"

enum {
    STAGES_MAX = 4,
    MICROBATCHES_MAX = 8,
    MEMBERS_MAX = 3,
    SLOTS_MAX = 3,
    COLUMNS = 3,
    ROWS_MAX = 4,
    STEPS = 12
};
enum { ACT_IN, ACT_OUT, GRAD_IN, GRAD_OUT, PORTS };
enum { FORWARD, BACKWARD, WEIGHT, REDUCE, UPDATE, METHODS };

struct shape {
    int ranks;
    int stages;
    int members;
    int where[STAGES_MAX][MEMBERS_MAX];
    int microbatches, credits, slots, look_ahead;
    const char *order;
    bool static_order, host_may_wait;
    int tree_ranks;
    bool ragged; /* the rows vary, also to zero */
    bool steady;
};

struct stage {
    const struct shape *shape;
    int index;
    troupe_group *group; /* of the gang */
    troupe_group *all;   /* of all ranks, for the reduction */
    int64_t slots[SLOTS_MAX];
    int64_t weights; /* sum over the step's microbatches */
    struct troupe_collective operation;
    int64_t steps_updated;
    const void *written[MICROBATCHES_MAX][2]; /* where output lay: forward, backward */
};

struct rank_state {
    const struct shape *shape;
    struct stage stages[STAGES_MAX];
};

static int64_t stamp(int64_t step, int microbatch, int stage) {
    return (step * 100 + microbatch) * 10 + stage;
}

static int64_t rows_of(const struct shape *shape, int64_t step, int microbatch) {
    return shape->ragged ? (step + 2 * microbatch) % (ROWS_MAX + 1) : 2;
}

static void plan(void *arg, int64_t step, int microbatch, int shard,
                 struct troupe_message_plan *out) {
    (void)shard;
    out->rows = rows_of(arg, step, microbatch);
    out->sample_set =
        troupe_sample_set_add(TROUPE_SAMPLE_SET_EMPTY, (uint64_t)step, (uint64_t)microbatch);
}

static void check_input(const struct stage *stage, const struct troupe_firing *firing,
                        int from_stage) {
    const struct troupe_tensor *x = &firing->inputs[0];
    EXPECT_EQ(x->rows, rows_of(stage->shape, firing->step, firing->microbatch));
    if (stage->shape->ranks == 1 &&
        x->rows > 0) { /* handed over: the reader sees the writer's buffer */
        const struct stage *from = stage + (from_stage - stage->index);
        EXPECT(x->data == from->written[firing->microbatch][from_stage > stage->index], "%p",
               x->data);
    }
    for (int64_t i = 0; i < x->rows * COLUMNS; i++) {
        EXPECT_EQ(((const int32_t *)x->data)[i],
                  stamp(firing->step, firing->microbatch, from_stage));
    }
}

static void write_output(struct stage *stage, const struct troupe_firing *firing, int is_backward) {
    const struct troupe_tensor *y = &firing->outputs[0];
    for (int64_t i = 0; i < y->rows * COLUMNS; i++) {
        ((int32_t *)y->data)[i] = (int32_t)stamp(firing->step, firing->microbatch, stage->index);
    }
    stage->written[firing->microbatch][is_backward] = y->data;
}

static troupe_status forward(void *state, struct troupe_firing *firing) {
    struct stage *stage = state;
    int64_t own = stamp(firing->step, firing->microbatch, stage->index), sum = own;
    if (stage->index > 0) {
        check_input(stage, firing, stage->index - 1);
    }
    TROUPE_TRY(troupe_group_all_reduce(stage->group, TROUPE_SUM, TROUPE_ELEMENT_INT64, &sum, 1));
    EXPECT_EQ(sum, own * stage->shape->members);
    EXPECT(firing->slot >= 0 && firing->slot < stage->shape->slots, "slot %d", firing->slot);
    EXPECT_EQ(stage->slots[firing->slot], -1); /* nobody else's */
    stage->slots[firing->slot] = own;
    if (stage->index + 1 < stage->shape->stages) {
        write_output(stage, firing, 0);
    }
    return TROUPE_OK;
}

static troupe_status backward(void *state, struct troupe_firing *firing) {
    struct stage *stage = state;
    if (stage->index + 1 < stage->shape->stages) {
        check_input(stage, firing, stage->index + 1);
    }
    EXPECT_EQ(stage->slots[firing->slot], stamp(firing->step, firing->microbatch, stage->index));
    if (stage->index > 0) {
        write_output(stage, firing, 1);
    }
    return TROUPE_OK;
}

static troupe_status weight(void *state, struct troupe_firing *firing) {
    struct stage *stage = state;
    EXPECT_EQ(stage->slots[firing->slot], stamp(firing->step, firing->microbatch, stage->index));
    stage->slots[firing->slot] = -1;
    stage->weights += firing->microbatch + 1;
    return TROUPE_OK;
}

static troupe_status reduce(void *state, struct troupe_firing *firing) {
    struct stage *stage = state;
    return troupe_firing_all_reduce(firing, stage->all, TROUPE_SUM, TROUPE_ELEMENT_INT64,
                                    &stage->weights, 1, &stage->operation);
}

static troupe_status update(void *state, struct troupe_firing *firing) {
    struct stage *stage = state;
    int64_t m = stage->shape->microbatches;
    EXPECT_EQ(stage->weights, stage->shape->members * m * (m + 1) / 2);
    EXPECT_EQ(firing->microbatch, 0);
    stage->weights = 0;
    stage->steps_updated++;
    return TROUPE_OK;
}

static const struct troupe_port ports[PORTS] = {
    [ACT_IN] = {"act_in", TROUPE_IN},
    [ACT_OUT] = {"act_out", TROUPE_OUT},
    [GRAD_IN] = {"grad_in", TROUPE_IN},
    [GRAD_OUT] = {"grad_out", TROUPE_OUT},
};
static const struct troupe_actor_method methods[METHODS] = {
    [FORWARD] = {.name = "forward",
                 .kind = TROUPE_METHOD_FORWARD,
                 .inputs = {ACT_IN},
                 .input_count = 1,
                 .outputs = {ACT_OUT},
                 .output_count = 1,
                 .slot_take = true,
                 .run = forward},
    [BACKWARD] = {.name = "backward_input",
                  .kind = TROUPE_METHOD_BACKWARD_INPUT,
                  .inputs = {GRAD_IN},
                  .input_count = 1,
                  .outputs = {GRAD_OUT},
                  .output_count = 1,
                  .after = {FORWARD},
                  .after_count = 1,
                  .run = backward},
    [WEIGHT] = {.name = "backward_weight",
                .kind = TROUPE_METHOD_BACKWARD_WEIGHT,
                .after = {BACKWARD},
                .after_count = 1,
                .slot_return = true,
                .run = weight},
    [REDUCE] = {.name = "reduce_gradients",
                .kind = TROUPE_METHOD_REDUCE,
                .after = {WEIGHT},
                .after_count = 1,
                .lane = TROUPE_LANE_REDUCTION,
                .run = reduce},
    [UPDATE] = {.name = "update",
                .kind = TROUPE_METHOD_UPDATE,
                .after = {REDUCE},
                .after_count = 1,
                .once = true,
                .run = update},
};
static const struct troupe_actor_class stage_class = {.name = "stage",
                                                      .ports = ports,
                                                      .port_count = PORTS,
                                                      .methods = methods,
                                                      .method_count = METHODS};

static bool is_member(const struct shape *shape, int stage, int rank) {
    for (int k = 0; k < shape->members; k++) {
        if (shape->where[stage][k] == rank) {
            return true;
        }
    }
    return false;
}

static troupe_status make_groups(troupe_comm *comm, struct rank_state *state) {
    const struct shape *shape = state->shape;
    for (int s = 0; s < shape->stages; s++) {
        struct stage *stage = &state->stages[s];
        *stage = (struct stage){.shape = shape, .index = s};
        memset(stage->slots, 0xff, sizeof stage->slots);
        if (!is_member(shape, s, troupe_comm_rank(comm))) {
            continue;
        }
        struct troupe_group_options options = {.ranks = shape->where[s],
                                               .count = shape->members,
                                               .id = (uint32_t)(2 * s),
                                               .bytes_max = 8};
        TROUPE_TRY(troupe_group_create(comm, &options, &stage->group));
        options.id++;
        TROUPE_TRY(troupe_group_create(comm, &options, &stage->all));
    }
    return TROUPE_OK;
}

static void destroy_groups(struct rank_state *state) {
    for (int s = 0; s < state->shape->stages; s++) {
        if (state->stages[s].group != NULL) {
            troupe_group_destroy(state->stages[s].group);
            troupe_group_destroy(state->stages[s].all);
        }
    }
}

static troupe_status build(troupe_runtime *runtime, struct rank_state *state) {
    const struct shape *shape = state->shape;
    int gangs[STAGES_MAX];
    for (int s = 0; s < shape->stages; s++) {
        char name[24];
        snprintf(name, sizeof name, "stage %d", s);
        TROUPE_TRY(troupe_spawn(runtime,
                                &(struct troupe_spawn_options){.actor_class = &stage_class,
                                                               .name = name,
                                                               .ranks = shape->where[s],
                                                               .rank_count = shape->members,
                                                               .slots = shape->slots,
                                                               .lane_order = s,
                                                               .stage = s,
                                                               .stage_count = shape->stages,
                                                               .argument = &state->stages[s]},
                                &gangs[s]));
    }
    struct troupe_connect_options edge = {.name = "activations",
                                          .from = gangs,
                                          .from_count = shape->stages - 1,
                                          .from_port = "act_out",
                                          .to = gangs + 1,
                                          .to_port = "act_in",
                                          .credits = shape->credits,
                                          .columns = COLUMNS,
                                          .dtype = TROUPE_INT32,
                                          .from_rows_max = ROWS_MAX,
                                          .plan = plan,
                                          .arg = (void *)(uintptr_t)shape};
    TROUPE_TRY(troupe_connect(runtime, &edge, NULL));
    edge.name = "gradients";
    edge.from = gangs + 1;
    edge.from_port = "grad_out";
    edge.to = gangs;
    edge.to_port = "grad_in";
    TROUPE_TRY(troupe_connect(runtime, &edge, NULL));
    return troupe_runtime_start(runtime);
}

static troupe_status run_steps(troupe_runtime *runtime, const struct rank_state *state) {
    for (int64_t step = 0; step < STEPS; step++) {
        troupe_memory_set_steady(state->shape->steady && step >= 2);
        TROUPE_TRY(troupe_runtime_step(runtime, step));
    }
    troupe_memory_set_steady(false);
    return TROUPE_OK;
}

static troupe_status run_rank(void *arg, troupe_comm *comm) {
    struct rank_state state = {.shape = arg};
    troupe_runtime *runtime = NULL;
    struct troupe_runtime_options options = {.microbatches = state.shape->microbatches,
                                             .order = state.shape->order,
                                             .static_order = state.shape->static_order,
                                             .host_may_wait = state.shape->host_may_wait,
                                             .tree_ranks = state.shape->tree_ranks,
                                             .look_ahead = state.shape->look_ahead,
                                             .stall_ns = 5000000000,
                                             .checksum = true};
    TROUPE_TRY(make_groups(comm, &state));
    TROUPE_TRY(troupe_runtime_create(comm, &options, &runtime));
    troupe_status status = build(runtime, &state);
    if (status == TROUPE_OK) {
        status = run_steps(runtime, &state);
    }
    for (int s = 0; s < state.shape->stages && status == TROUPE_OK; s++) {
        EXPECT_EQ(state.stages[s].steps_updated, state.stages[s].group != NULL ? STEPS : 0);
    }
    troupe_runtime_destroy(runtime);
    destroy_groups(&state);
    return status;
}

static void run(const struct shape *shape, uint64_t seed, int64_t delay_ns) {
    EXPECT_OK(troupe_job_run(
        &(struct troupe_job_options){.ranks = shape->ranks, .seed = seed, .delay_ns_max = delay_ns},
        run_rank, (void *)(uintptr_t)shape));
}

static const struct shape on_one_rank = {.ranks = 1,
                                         .stages = 3,
                                         .members = 1,
                                         .where = {{0}, {0}, {0}},
                                         .microbatches = 4,
                                         .credits = 1,
                                         .slots = 2};
static const struct shape one_rank_each = {.ranks = 3,
                                           .stages = 3,
                                           .members = 1,
                                           .where = {{0}, {1}, {2}},
                                           .microbatches = 5,
                                           .credits = 2,
                                           .slots = 3};
static const struct shape two_gangs = {.ranks = 4,
                                       .stages = 2,
                                       .members = 2,
                                       .where = {{0, 1}, {2, 3}},
                                       .microbatches = 4,
                                       .credits = 2,
                                       .slots = 2};
/* Every pair of gangs shares a rank: one island. */
static const struct shape interleaved_gangs = {.ranks = 3,
                                               .stages = 3,
                                               .members = 2,
                                               .where = {{0, 1}, {1, 2}, {2, 0}},
                                               .microbatches = 4,
                                               .credits = 1,
                                               .slots = 2};

static void a_pipeline_on_one_rank_hands_buffers_over(void) {
    run(&on_one_rank, 1, 0);
}

static void a_pipeline_over_ranks_keeps_every_stamp(void) {
    run(&one_rank_each, 1, 0);
}

static void two_gangs_of_two_fire_together(void) {
    run(&two_gangs, 1, 0);
}

static void gangs_that_share_ranks_agree_on_the_order_of_collectives(void) {
    run(&interleaved_gangs, 1, 0);
}

static void ragged_and_empty_messages_keep_step(void) {
    struct shape shape = one_rank_each;
    shape.ragged = true;
    run(&shape, 1, 0);
    shape = interleaved_gangs;
    shape.ragged = true;
    run(&shape, 1, 0);
}

/* Empty messages take no credit, so they may be issued while every buffer waits for its reader. */
static void an_empty_message_finds_room_beyond_the_credits(void) {
    for (int i = 0; i < 2 * 3 * 4; i++) {
        struct shape shape = on_one_rank;
        shape.ragged = true;
        shape.microbatches = 6;
        shape.order = i % 2 == 0 ? "fifo" : "1f1b";
        shape.slots = 1 + i / 2 % 3;
        shape.look_ahead = 1 + i / 6;
        run(&shape, 1, 0);
    }
}

static void delays_orders_and_limits_change_nothing(void) {
    const struct shape *shapes[] = {&on_one_rank, &one_rank_each, &two_gangs, &interleaved_gangs};
    uint64_t seed = test_seed();
    for (uint64_t i = 0; i < 24; i++) {
        struct shape shape = *shapes[i % 4];
        shape.order = i % 3 == 0 ? "1f1b" : "fifo";
        shape.look_ahead = 1 + (int)((seed + i) % 4);
        shape.credits = 1 + (int)((seed / 4 + i) % 2);
        shape.slots = 1 + (int)((seed / 8 + i) % SLOTS_MAX);
        shape.microbatches = 1 + (int)((seed / 32 + i) % 6);
        shape.ragged = (seed / 256 + i) % 2 == 0;
        run(&shape, seed + i, 30000);
    }
}

static void mode_static_changes_nothing(void) {
    static const char *const orders[] = {"fifo", "1f1b", "fill"};
    const struct shape *shapes[] = {&on_one_rank, &one_rank_each, &two_gangs, &interleaved_gangs};
    uint64_t seed = test_seed();
    for (uint64_t i = 0; i < 24; i++) {
        struct shape shape = *shapes[i % 4];
        shape.order = orders[i % 3];
        shape.static_order = true;
        shape.host_may_wait = i / 4 % 2 == 0; /* members come together before each task */
        shape.look_ahead = 1 + (int)((seed + i) % 4);
        shape.credits = 1 + (int)((seed / 4 + i) % 2);
        shape.slots = 1 + (int)((seed / 8 + i) % SLOTS_MAX);
        shape.microbatches = 1 + (int)((seed / 32 + i) % 6);
        shape.ragged = (seed / 256 + i) % 2 == 0;
        run(&shape, seed + i, 30000);
    }
}

/* Every island of two ranks or more has a tree. */
static void tickets_by_tree_change_nothing(void) {
    const struct shape *shapes[] = {&two_gangs, &interleaved_gangs};
    uint64_t seed = test_seed();
    for (uint64_t i = 0; i < 12; i++) {
        struct shape shape = *shapes[i % 2];
        shape.order = i % 3 == 0 ? "1f1b" : "fifo";
        shape.tree_ranks = 1;
        shape.look_ahead = 1 + (int)((seed + i) % 4);
        shape.microbatches = 1 + (int)((seed / 32 + i) % 6);
        shape.ragged = (seed / 256 + i) % 2 == 0;
        run(&shape, seed + i, 30000);
    }
}

static void ten_steps_allocate_nothing(void) {
    struct shape shape = two_gangs;
    shape.steady = true;
    run(&shape, 1, 0);
    shape = interleaved_gangs;
    shape.steady = shape.ragged = true;
    run(&shape, 1, 0);
    shape.static_order = true;
    run(&shape, 1, 0);
}

/* Under the launcher, four processes: gangs of two, then gangs that share ranks. */
static troupe_status run_processes(void *arg, troupe_comm *comm) {
    (void)arg;
    struct shape shape = two_gangs;
    TROUPE_TRY(run_rank(&shape, comm));
    shape = interleaved_gangs;
    shape.ranks = 4;
    shape.stages = 4;
    memcpy(shape.where[3], (int[]){3, 1}, 2 * sizeof(int));
    shape.ragged = true;
    shape.order = "1f1b";
    return run_rank(&shape, comm);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "processes") == 0) {
        return troupe_job_main(&(struct troupe_job_options){0}, run_processes, NULL);
    }
    TEST(a_pipeline_on_one_rank_hands_buffers_over);
    TEST(a_pipeline_over_ranks_keeps_every_stamp);
    TEST(two_gangs_of_two_fire_together);
    TEST(gangs_that_share_ranks_agree_on_the_order_of_collectives);
    TEST(ragged_and_empty_messages_keep_step);
    TEST(an_empty_message_finds_room_beyond_the_credits);
    TEST(delays_orders_and_limits_change_nothing);
    TEST(mode_static_changes_nothing);
    TEST(tickets_by_tree_change_nothing);
    TEST(ten_steps_allocate_nothing);
    return TEST_END();
}
