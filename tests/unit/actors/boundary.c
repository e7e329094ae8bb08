/* SPDX-License-Identifier: Apache-2.0 */
/* Boundaries between modules of different layouts: an encoder sends ragged rows to a language model
 * through a real route, and gets gradients back through the reverse one. Every element is an exact
 * integer of (step, microbatch, row, column) that its reader checks; some parts and some
 * microbatches have no rows. Layouts are split over dp, over cp (contiguous or zig-zag) and, in
 * sequence parallelism, over tp, or dealt in rounds; ports then hold several pieces. The encoder's
 * shards sum over the reduction lane, across islands. All of it also on the simulated device, where
 * methods only enqueue, and what they enqueue runs late: an event that is not waited for is a wrong
 * element; with messages that go through host memory, and that devices write into each other's. */
#include "actors/job.h"
#include "actors/runtime.h"
#include "comm/group_stream.h"
#include "runtime/check.h"
#include "runtime/device_sim.h"
#include "runtime/memory.h"
#include "runtime/random.h"
#include "tests/tamper.h"
#include "tests/test.h"

enum {
    SIDE_RANKS_MAX = 8,
    DP_MAX = 4,
    PARTS_MAX = 48,
    MICROBATCHES = 5,
    COLUMNS = 6,
    ROWS_MAX = 24,
    STEPS = 8
};
enum { ENCODER, MODEL, SIDES };
enum { IN, OUT };
enum { FORWARD, BACKWARD, REDUCE, UPDATE };

struct side_shape {
    int tp, dp;
    int where[SIDE_RANKS_MAX]; /* tp fastest, then cp */
    bool cut;                  /* columns split over tp; else copies */
    int cp;                    /* 0: 1 */
    bool zigzag;               /* over cp */
    bool sequence;             /* rows split over tp, too */
    int sequences;             /* of a dp shard; 0: 1 */
    int rounds;                /* in which rows are dealt to dp; 0: 1 */
};

struct shape {
    int ranks;
    struct side_shape side[SIDES];
    int credits;
    bool hands_over; /* both sides cut the rows alike, so nothing may be sent */
    bool on_device;
    bool through_host;
    bool fails;       /* in the second step, on one rank */
    const int *hosts; /* by rank, for the route: who gets rows from another hands them on */
    uint64_t seed;
    int sender; /* of the message that is tampered with */
    struct tamper *tamper;
};

struct rank_state;

struct member {
    struct rank_state *rank;
    int side, where, dp, tp;
    troupe_group *gang_group;
    troupe_group *side_group;
    int64_t *gradients; /* one number, where the member computes */
    struct troupe_collective operation;
    int updates;
    troupe_stream *stream;
};

struct rank_state {
    const struct shape *shape;
    struct troupe_mesh mesh[SIDES];
    struct troupe_layout layout[SIDES];
    troupe_route *route[SIDES]; /* from that side to the other */
    int64_t offsets[MICROBATCHES][SIDES][PARTS_MAX + 1];
    struct member members[SIDES];
    troupe_device *device; /* NULL: the host */
};

static int32_t value_of(int64_t step, int microbatch, int64_t row, int64_t column, int from_side) {
    return (int32_t)(step * 7919 + microbatch * 613 + row * 31 + column + from_side * 1000000);
}

/* Random cuts of the rows. */
static void cut_rows(const struct shape *shape, int side, int parts, uint64_t counter,
                     int64_t *offsets) {
    for (int i = 1; i < parts; i++) {
        int64_t left = offsets[parts] - offsets[i - 1];
        offsets[i] = offsets[i - 1] + (int64_t)troupe_random_below(
                                          shape->seed, 3 + (uint64_t)(shape->hands_over ? 0 : side),
                                          counter + (uint64_t)i, (uint64_t)left + 1);
    }
}

/* Items of one or a few rows, each to the next part of a random rank. */
static void deal_rows(const struct shape *shape, int side, int parts, uint64_t counter,
                      int64_t *offsets) {
    int dp = shape->side[side].dp, rounds = parts / dp, part = 0;
    int64_t rows = offsets[parts], each = (rows + rounds - 1) / rounds, row = 0;
    while (row < rows) {
        int owner = (int)troupe_random_below(shape->seed, 5, counter + (uint64_t)row, (uint64_t)dp);
        for (; part % dp != owner; part++) {
            offsets[part + 1] = row;
        }
        row = row + each < rows ? row + each : rows;
    }
    for (; part < parts; part++) {
        offsets[part + 1] = row;
    }
}

/* A random number of rows; every third microbatch of a step may have none. */
static void fill_offsets(struct rank_state *rank, int64_t step, int microbatch) {
    const struct shape *shape = rank->shape;
    uint64_t counter = (uint64_t)(step * 100 + microbatch) * 100;
    bool empty = troupe_random_below(shape->seed, 1, counter, 3) == 0;
    int64_t rows = empty ? 0 : (int64_t)troupe_random_below(shape->seed, 2, counter, ROWS_MAX + 1);
    for (int s = 0; s < SIDES; s++) {
        int parts = rank->layout[s].part_count;
        int64_t *offsets = rank->offsets[microbatch][s];
        offsets[0] = 0;
        offsets[parts] = rows;
        if (shape->side[s].rounds > 0) {
            deal_rows(shape, s, parts, counter, offsets);
        } else {
            cut_rows(shape, s, parts, counter, offsets);
        }
    }
}

static void plan_from(struct rank_state *rank, int from, int64_t step, int microbatch,
                      struct troupe_message_plan *out) {
    fill_offsets(rank, step, microbatch);
    out->source_offsets = rank->offsets[microbatch][from];
    out->destination_offsets = rank->offsets[microbatch][!from];
    out->sample_set =
        troupe_sample_set_add(TROUPE_SAMPLE_SET_EMPTY, (uint64_t)step, (uint64_t)microbatch);
}

static void plan_tokens(void *arg, int64_t step, int microbatch, int shard,
                        struct troupe_message_plan *out) {
    (void)shard;
    plan_from(arg, ENCODER, step, microbatch, out);
}

static void plan_gradients(void *arg, int64_t step, int microbatch, int shard,
                           struct troupe_message_plan *out) {
    (void)shard;
    plan_from(arg, MODEL, step, microbatch, out);
}

/* What a method does to its tensor, wherever and whenever it runs. */
struct work {
    struct troupe_tensor x;
    int64_t step, column_begin;
    int8_t rows[ROWS_MAX]; /* of the logical tensor, by row of x */
    int microbatch, from_side;
    bool write;
};

static troupe_status do_work(const void *payload) {
    const struct work *work = payload;
    for (int64_t r = 0; r < work->x.rows; r++) {
        int32_t *row = (int32_t *)work->x.data + r * work->x.stride;
        for (int64_t c = 0; c < work->x.columns; c++) {
            int32_t value = value_of(work->step, work->microbatch, work->rows[r],
                                     work->column_begin + c, work->from_side);
            if (work->write) {
                row[c] = value;
            } else {
                EXPECT_EQ(row[c], value);
            }
        }
    }
    return TROUPE_OK;
}

/* At once, or in the order of the firing's stream. */
static troupe_status run_work(const struct troupe_firing *firing,
                              troupe_status (*run)(const void *), const void *payload,
                              size_t bytes) {
    return firing->stream == NULL ? run(payload)
                                  : troupe_sim_enqueue(firing->stream, run, payload, bytes);
}

/* The rows that the member holds, ascending; returns how many. */
static int64_t rows_of(const struct member *member, int microbatch, int8_t *rows_out) {
    const struct troupe_layout *layout = &member->rank->layout[member->side];
    const int64_t *offsets = member->rank->offsets[microbatch][member->side];
    bool mine[ROWS_MAX] = {false};
    int64_t count = 0;
    for (int i = 0; i < layout->piece_count; i++) {
        int part = layout->pieces[i].part;
        for (int64_t row = offsets[part];
             layout->pieces[i].rank == member->where && row < offsets[part + 1]; row++) {
            mine[row] = true;
        }
    }
    for (int row = 0; row < ROWS_MAX; row++) {
        if (mine[row]) {
            rows_out[count++] = (int8_t)row;
        }
    }
    return count;
}

/* Writes or checks each element that the member holds. */
static troupe_status each_element(const struct member *member, const struct troupe_firing *firing,
                                  const struct troupe_tensor *x, int from_side, bool write) {
    const struct side_shape *side = &member->rank->shape->side[member->side];
    int64_t column_begin = side->cut ? troupe_split_begin(COLUMNS, side->tp, member->tp) : 0;
    int64_t column_end =
        side->cut ? troupe_split_begin(COLUMNS, side->tp, member->tp + 1) : COLUMNS;
    EXPECT_EQ(x->columns, column_end - column_begin);
    struct work work = {.x = *x,
                        .step = firing->step,
                        .column_begin = column_begin,
                        .microbatch = firing->microbatch,
                        .from_side = from_side,
                        .write = write};
    EXPECT_EQ(x->rows, rows_of(member, firing->microbatch, work.rows));
    return run_work(firing, do_work, &work, sizeof work);
}

struct gradient_work {
    int64_t *gradients;
    int64_t value;
};

static troupe_status add_gradient(const void *payload) {
    const struct gradient_work *work = payload;
    *work->gradients += work->value;
    return TROUPE_OK;
}

/* The whole sum is there; the next step begins with nothing. */
static troupe_status check_gradient(const void *payload) {
    const struct gradient_work *work = payload;
    EXPECT_EQ(*work->gradients, work->value);
    *work->gradients = 0;
    return TROUPE_OK;
}

static troupe_status add_to_gradients(const struct member *member,
                                      const struct troupe_firing *firing) {
    struct gradient_work work = {member->gradients, firing->microbatch + 1};
    return run_work(firing, add_gradient, &work, sizeof work);
}

static int gang_size(const struct side_shape *side) {
    return side->tp * (side->cp == 0 ? 1 : side->cp);
}

/* A sum over the gang inside the task: a different order of tasks on two members would mix values
 * up, or hang. */
static troupe_status meet(struct member *member, const struct troupe_firing *firing, int64_t what) {
    int64_t own = (firing->step * 100 + firing->microbatch) * 10 + what, sum = own;
    TROUPE_TRY(
        troupe_group_all_reduce(member->gang_group, TROUPE_SUM, TROUPE_ELEMENT_INT64, &sum, 1));
    EXPECT_EQ(sum, own * gang_size(&member->rank->shape->side[member->side]));
    return TROUPE_OK;
}

static troupe_status encoder_forward(void *state, struct troupe_firing *firing) {
    TROUPE_TRY(meet(state, firing, 1));
    return each_element(state, firing, &firing->outputs[0], ENCODER, true);
}

static troupe_status encoder_backward(void *state, struct troupe_firing *firing) {
    TROUPE_TRY(meet(state, firing, 2));
    TROUPE_TRY(each_element(state, firing, &firing->inputs[0], MODEL, false));
    return add_to_gradients(state, firing);
}

static bool shall_fail(const struct member *member, const struct troupe_firing *firing) {
    const struct shape *shape = member->rank->shape;
    return shape->fails && member->dp == 0 && member->tp == 0 && firing->step == 1 &&
           firing->microbatch == (int)(shape->seed % MICROBATCHES);
}

static troupe_status model_forward(void *state, struct troupe_firing *firing) {
    if (shall_fail(state, firing)) {
        return troupe_fail(TROUPE_ERROR_NUMERIC, "a planted failure");
    }
    TROUPE_TRY(meet(state, firing, 3));
    return each_element(state, firing, &firing->inputs[0], ENCODER, false);
}

static troupe_status model_backward(void *state, struct troupe_firing *firing) {
    TROUPE_TRY(meet(state, firing, 4));
    TROUPE_TRY(each_element(state, firing, &firing->outputs[0], MODEL, true));
    return add_to_gradients(state, firing);
}

static troupe_status reduce(void *state, struct troupe_firing *firing) {
    struct member *member = state;
    if (firing->stream != NULL) {
        return troupe_group_enqueue_all_reduce(member->side_group, firing->stream, TROUPE_SUM,
                                               TROUPE_ELEMENT_INT64, member->gradients, 1);
    }
    return troupe_firing_all_reduce(firing, member->side_group, TROUPE_SUM, TROUPE_ELEMENT_INT64,
                                    member->gradients, 1, &member->operation);
}

static troupe_status update(void *state, struct troupe_firing *firing) {
    struct member *member = state;
    const struct side_shape *side = &member->rank->shape->side[member->side];
    struct gradient_work work = {member->gradients, gang_size(side) * side->dp * MICROBATCHES *
                                                        (MICROBATCHES + 1) / 2};
    EXPECT_EQ(firing->step, member->updates);
    member->updates++;
    return run_work(firing, check_gradient, &work, sizeof work);
}

#define COMMON_METHODS                                                                             \
    [REDUCE] = {.name = "reduce_gradients",                                                        \
                .after = {BACKWARD},                                                               \
                .after_count = 1,                                                                  \
                .lane = TROUPE_LANE_REDUCTION,                                                     \
                .run = reduce},                                                                    \
    [UPDATE] = {                                                                                   \
        .name = "update", .after = {REDUCE}, .after_count = 1, .once = true, .run = update}

static const struct troupe_port ports[] = {[IN] = {"in", TROUPE_IN}, [OUT] = {"out", TROUPE_OUT}};
static const struct troupe_actor_method encoder_methods[] = {[FORWARD] = {.name = "forward",
                                                                          .outputs = {OUT},
                                                                          .output_count = 1,
                                                                          .slot_take = true,
                                                                          .run = encoder_forward},
                                                             [BACKWARD] = {.name = "backward",
                                                                           .inputs = {IN},
                                                                           .input_count = 1,
                                                                           .after = {FORWARD},
                                                                           .after_count = 1,
                                                                           .slot_return = true,
                                                                           .run = encoder_backward},
                                                             COMMON_METHODS};
static const struct troupe_actor_method model_methods[] = {[FORWARD] = {.name = "forward",
                                                                        .inputs = {IN},
                                                                        .input_count = 1,
                                                                        .slot_take = true,
                                                                        .run = model_forward},
                                                           [BACKWARD] = {.name = "backward",
                                                                         .outputs = {OUT},
                                                                         .output_count = 1,
                                                                         .after = {FORWARD},
                                                                         .after_count = 1,
                                                                         .slot_return = true,
                                                                         .run = model_backward},
                                                           COMMON_METHODS};
static const struct troupe_actor_class classes[SIDES] = {
    {.name = "encoder",
     .ports = ports,
     .port_count = 2,
     .methods = encoder_methods,
     .method_count = 4},
    {.name = "model", .ports = ports, .port_count = 2, .methods = model_methods, .method_count = 4},
};

static int position_of(const struct side_shape *side, int rank) {
    for (int i = 0; i < gang_size(side) * side->dp; i++) {
        if (side->where[i] == rank) {
            return i;
        }
    }
    return -1;
}

/* Where the member computes. */
static troupe_status init_place(struct rank_state *rank, struct member *member) {
    if (rank->device == NULL) {
        return TROUPE_NEW(&member->gradients, 1);
    }
    TROUPE_TRY(troupe_stream_create(rank->device, &member->stream));
    return troupe_device_alloc(rank->device, sizeof *member->gradients,
                               (void **)&member->gradients);
}

static void fini_place(const struct rank_state *rank, const struct member *member) {
    troupe_stream_destroy(member->stream);
    if (rank->device == NULL) {
        troupe_free(member->gradients);
    } else {
        troupe_device_free(rank->device, member->gradients);
    }
}

static troupe_status init_device(troupe_comm *comm, struct rank_state *rank) {
    const struct shape *shape = rank->shape;
    struct troupe_device_options options = {
        .seed = shape->seed * 97 + (uint64_t)troupe_comm_rank(comm), .delay_ns_max = 200000};
    return shape->on_device ? troupe_device_open(TROUPE_DEVICE_SIM, &options, &rank->device)
                            : TROUPE_OK;
}

static troupe_status open_groups(troupe_comm *comm, struct rank_state *rank) {
    troupe_group *groups[2 * SIDES];
    for (int s = 0; s < SIDES; s++) {
        groups[2 * s] = rank->members[s].gang_group;
        groups[2 * s + 1] = rank->members[s].side_group;
    }
    return rank->device != NULL
               ? troupe_groups_open_device(comm, rank->device, groups, 2 * SIDES, NULL)
               : TROUPE_OK;
}

static troupe_status init_side(troupe_comm *comm, struct rank_state *rank, int s) {
    const struct side_shape *side = &rank->shape->side[s];
    struct troupe_layout_options layout = {.mesh = &rank->mesh[s],
                                           .shape = {0, COLUMNS},
                                           .split = {TROUPE_AXES(TROUPE_DP, TROUPE_CP)},
                                           .ragged = true,
                                           .sequences = side->sequences,
                                           .zigzag = side->zigzag,
                                           .rounds = side->rounds};
    TROUPE_TRY(
        troupe_mesh_init(&(struct troupe_mesh_options){.ranks = side->where,
                                                       .rank_count = gang_size(side) * side->dp,
                                                       .tp = side->tp,
                                                       .cp = side->cp,
                                                       .dp = side->dp},
                         &rank->mesh[s]));
    if (side->cut) {
        layout.split[1] = TROUPE_AXES(TROUPE_TP);
    }
    if (side->sequence) {
        layout.split[0] = TROUPE_AXES(TROUPE_DP, TROUPE_CP, TROUPE_TP);
    }
    TROUPE_TRY(troupe_layout_init(&layout, &rank->layout[s]));
    EXPECT(rank->layout[s].part_count <= PARTS_MAX, "%d parts", rank->layout[s].part_count);
    int position = position_of(side, troupe_comm_rank(comm));
    struct member *member = &rank->members[s];
    *member = (struct member){.rank = rank,
                              .side = s,
                              .where = troupe_comm_rank(comm),
                              .dp = position < 0 ? -1 : position / gang_size(side),
                              .tp = position < 0 ? -1 : position % side->tp};
    if (position < 0) {
        return TROUPE_OK;
    }
    TROUPE_TRY(init_place(rank, member));
    struct troupe_group_options group = {.ranks = side->where + member->dp * gang_size(side),
                                         .count = gang_size(side),
                                         .id = (uint32_t)(10 * s + member->dp),
                                         .bytes_max = 8};
    TROUPE_TRY(troupe_group_create(comm, &group, &member->gang_group));
    group = (struct troupe_group_options){.ranks = side->where,
                                          .count = gang_size(side) * side->dp,
                                          .id = (uint32_t)(100 + s),
                                          .bytes_max = 8};
    return troupe_group_create(comm, &group, &member->side_group);
}

static void fini(struct rank_state *rank) {
    for (int s = 0; s < SIDES; s++) {
        troupe_route_destroy(rank->route[s]);
        troupe_layout_fini(&rank->layout[s]);
        troupe_mesh_fini(&rank->mesh[s]);
        if (rank->members[s].gang_group != NULL) {
            troupe_group_destroy(rank->members[s].gang_group);
            troupe_group_destroy(rank->members[s].side_group);
        }
        fini_place(rank, &rank->members[s]);
    }
    troupe_device_close(rank->device);
}

static troupe_status spawn_side(troupe_runtime *runtime, struct rank_state *rank, int s,
                                int *gangs) {
    const struct side_shape *side = &rank->shape->side[s];
    for (int d = 0; d < side->dp; d++) {
        char name[32];
        snprintf(name, sizeof name, "%s dp %d", classes[s].name, d);
        TROUPE_TRY(
            troupe_spawn(runtime,
                         &(struct troupe_spawn_options){.actor_class = &classes[s],
                                                        .name = name,
                                                        .ranks = side->where + d * gang_size(side),
                                                        .rank_count = gang_size(side),
                                                        .slots = 2,
                                                        .lane_order = s,
                                                        .module = s,
                                                        .depth = s == ENCODER,
                                                        .dp = d,
                                                        .argument = &rank->members[s],
                                                        .stream = rank->members[s].stream},
                         &gangs[d]));
    }
    return TROUPE_OK;
}

static troupe_status build(troupe_runtime *runtime, struct rank_state *rank) {
    const struct shape *shape = rank->shape;
    int gangs[SIDES][DP_MAX];
    static const char *names[SIDES] = {"tokens", "gradients"};
    for (int s = 0; s < SIDES; s++) {
        TROUPE_TRY(
            troupe_route_compile(&(struct troupe_route_options){.source = &rank->layout[s],
                                                                .destination = &rank->layout[!s],
                                                                .host_of_rank = shape->hosts,
                                                                .element_bytes = sizeof(int32_t)},
                                 &rank->route[s]));
        TROUPE_TRY(spawn_side(runtime, rank, s, gangs[s]));
    }
    for (int s = 0; s < SIDES; s++) {
        struct troupe_connect_options edge = {.name = names[s],
                                              .from = gangs[s],
                                              .from_count = shape->side[s].dp,
                                              .from_port = "out",
                                              .to = gangs[!s],
                                              .to_count = shape->side[!s].dp,
                                              .to_port = "in",
                                              .credits = shape->credits,
                                              .columns = COLUMNS,
                                              .dtype = TROUPE_INT32,
                                              .from_rows_max = ROWS_MAX,
                                              .route = rank->route[s],
                                              .plan = s == ENCODER ? plan_tokens : plan_gradients,
                                              .arg = rank};
        TROUPE_TRY(troupe_connect(runtime, &edge, NULL));
    }
    return troupe_runtime_start(runtime);
}

static troupe_status run_steps(troupe_runtime *runtime, const struct rank_state *rank) {
    for (int64_t step = 0; step < STEPS; step++) {
        troupe_memory_set_steady(step >= 1);
        TROUPE_TRY(troupe_runtime_step(runtime, step));
        if (rank->shape->hands_over) {
            EXPECT_EQ(troupe_runtime_edge_bytes(runtime, 0), 0);
            EXPECT_EQ(troupe_runtime_edge_bytes(runtime, 1), 0);
        }
    }
    troupe_memory_set_steady(false);
    return TROUPE_OK;
}

/* Flows by either way: "... devices of one machine: 3 flows by copies ..., 1 through host memory".
 */
struct flows {
    int direct, by_host;
};

static void count_flows(void *arg, const char *text) {
    struct flows *flows = arg;
    const char *found = strstr(text, "machine: ");
    if (found != NULL) {
        flows->direct = atoi(found + strlen("machine: "));
        flows->by_host = atoi(strstr(found, "to device, ") + strlen("to device, "));
    }
}

/* Into tensors of several pieces messages go through host memory. */
static bool has_pieces(const struct side_shape *side) {
    return side->cp > 1 || side->sequence || side->sequences > 1 || side->rounds > 1;
}

/* On devices of one process every pair of ranks has its flow, unless told otherwise. */
static void expect_flows(const troupe_runtime *runtime, const struct shape *shape) {
    struct flows flows = {0};
    troupe_runtime_describe(runtime, count_flows, &flows);
    bool expected = shape->on_device && !shape->through_host && shape->ranks > 1;
    bool whole = !has_pieces(&shape->side[ENCODER]) && !has_pieces(&shape->side[MODEL]);
    EXPECT(expected || flows.direct == 0, "%d flows on %d ranks", flows.direct, shape->ranks);
    EXPECT(!expected || !whole || (flows.direct > 0 && flows.by_host == 0),
           "%d flows and %d through host memory on %d ranks", flows.direct, flows.by_host,
           shape->ranks);
}

static troupe_status run_rank(void *arg, troupe_comm *comm) {
    struct rank_state rank = {.shape = arg};
    troupe_runtime *runtime = NULL;
    struct troupe_runtime_options options = {.microbatches = MICROBATCHES,
                                             .look_ahead = 1 + (int)(rank.shape->seed % 4),
                                             .order = rank.shape->seed % 3 == 0 ? "1f1b" : "fifo",
                                             .stall_ns = rank.shape->tamper != NULL ? 500000000
                                                                                    : 5000000000,
                                             .checksum = !rank.shape->on_device,
                                             .serialize = rank.shape->on_device,
                                             .host_may_wait = rank.shape->on_device,
                                             .through_host = rank.shape->through_host};
    if (rank.shape->tamper != NULL && rank.shape->sender == troupe_comm_rank(comm)) {
        tamper_install(rank.shape->tamper, comm);
    }
    TROUPE_TRY(init_device(comm, &rank));
    TROUPE_TRY(init_side(comm, &rank, ENCODER));
    TROUPE_TRY(init_side(comm, &rank, MODEL));
    TROUPE_TRY(open_groups(comm, &rank));
    TROUPE_TRY(troupe_runtime_create(comm, &options, &runtime));
    troupe_status status = build(runtime, &rank);
    if (status == TROUPE_OK) {
        expect_flows(runtime, rank.shape);
        status = run_steps(runtime, &rank);
    }
    for (int s = 0; s < SIDES && status == TROUPE_OK; s++) {
        EXPECT_EQ(rank.members[s].updates, rank.members[s].dp < 0 ? 0 : STEPS);
    }
    troupe_runtime_destroy(runtime);
    fini(&rank);
    return status;
}

static bool on_device, through_host; /* of all that follows */
static const int *hosts;             /* of the next */
static bool fails;                   /* the next */

/* Without delays, and with: each from its own seed. */
static void run(int ranks, struct side_shape encoder, struct side_shape model, bool hands_over) {
    struct shape shape = {.ranks = ranks,
                          .side = {encoder, model},
                          .hands_over = hands_over,
                          .on_device = on_device,
                          .hosts = hosts,
                          .fails = fails,
                          .through_host = through_host};
    static const int64_t delays[] = {0, 20000, 20000, 40000, 40000, 40000};
    uint64_t seed = test_seed();
    uint64_t stride = on_device ? 2 : 1; /* its delays are longer */
    for (uint64_t i = 0; i < TROUPE_COUNT_OF(delays); i += stride) {
        shape.seed = seed + i;
        shape.credits = 1 + (int)(i / stride % 2);
        troupe_status status = troupe_job_run(
            &(struct troupe_job_options){
                .ranks = shape.ranks, .seed = shape.seed, .delay_ns_max = delays[i]},
            run_rank, &shape);
        if (shape.fails) {
            EXPECT_ERROR(status, TROUPE_ERROR_NUMERIC, "a planted failure");
        } else {
            EXPECT_OK(status);
        }
    }
}

static void dp3_feeds_dp2_on_shared_ranks(void) {
    run(3, (struct side_shape){.tp = 1, .dp = 3, .where = {0, 1, 2}},
        (struct side_shape){.tp = 1, .dp = 2, .where = {0, 1}}, false);
}

static void dp3_feeds_dp2_on_other_ranks(void) {
    run(5, (struct side_shape){.tp = 1, .dp = 3, .where = {0, 1, 2}},
        (struct side_shape){.tp = 1, .dp = 2, .where = {3, 4}}, false);
}

static void dp2_feeds_dp3_on_partly_shared_ranks(void) {
    run(4, (struct side_shape){.tp = 1, .dp = 2, .where = {2, 0}},
        (struct side_shape){.tp = 1, .dp = 3, .where = {1, 2, 3}}, false);
}

static void dp4_feeds_tp2_dp2_on_the_same_ranks(void) {
    run(4, (struct side_shape){.tp = 1, .dp = 4, .where = {0, 1, 2, 3}},
        (struct side_shape){.tp = 2, .dp = 2, .where = {0, 1, 2, 3}}, false);
}

static void tp2_beside_tp3_meet_in_one_order(void) {
    run(4, (struct side_shape){.tp = 2, .dp = 1, .where = {0, 1}},
        (struct side_shape){.tp = 3, .dp = 1, .where = {1, 2, 3}}, false);
}

static void columns_cut_on_either_side_are_packed(void) {
    run(4, (struct side_shape){.tp = 2, .dp = 1, .where = {0, 1}, .cut = true},
        (struct side_shape){.tp = 1, .dp = 3, .where = {1, 2, 3}}, false);
    run(4, (struct side_shape){.tp = 1, .dp = 2, .where = {0, 3}},
        (struct side_shape){.tp = 3, .dp = 1, .where = {1, 2, 3}, .cut = true}, false);
}

/* Each row enters a host once and is relayed there, in both directions. */
static void tp3_gets_relays_from_tp2_on_another_host(void) {
    static const int two_hosts[] = {0, 0, 1, 1, 1};
    hosts = two_hosts;
    run(5, (struct side_shape){.tp = 2, .dp = 1, .where = {0, 1}},
        (struct side_shape){.tp = 3, .dp = 1, .where = {2, 3, 4}}, false);
    hosts = NULL;
}

static void equal_layouts_on_the_same_ranks_send_nothing(void) {
    run(2, (struct side_shape){.tp = 1, .dp = 2, .where = {0, 1}},
        (struct side_shape){.tp = 1, .dp = 2, .where = {0, 1}}, true);
}

static void one_rank_hands_everything_over(void) {
    run(1, (struct side_shape){.tp = 1, .dp = 1, .where = {0}},
        (struct side_shape){.tp = 1, .dp = 1, .where = {0}}, true);
}

static void context_parallel_ends_hold_several_pieces(void) {
    struct side_shape zigzag = {
        .tp = 1, .dp = 1, .where = {0, 1, 2}, .cp = 3, .zigzag = true, .sequences = 2};
    run(4, (struct side_shape){.tp = 1, .dp = 4, .where = {0, 1, 2, 3}}, zigzag, false);
    struct side_shape contiguous = {
        .tp = 1, .dp = 2, .where = {1, 2, 3, 0}, .cp = 2, .sequences = 2};
    run(4, zigzag, contiguous, false);
}

static void sequence_parallel_rows_lie_below_cp(void) {
    struct side_shape model = {
        2, 1, {0, 1, 2, 3}, false, .cp = 2, .zigzag = true, .sequence = true};
    run(4, (struct side_shape){.tp = 1, .dp = 4, .where = {0, 1, 2, 3}}, model, false);
    model.zigzag = false;
    run(5, (struct side_shape){.tp = 1, .dp = 3, .where = {2, 3, 4}}, model, false);
    struct side_shape encoder = {.tp = 3, .dp = 1, .where = {3, 4, 5}, .sequence = true};
    model.zigzag = true;
    run(6, encoder, model, false);
}

static void dealt_rows_feed_any_layout(void) {
    struct side_shape dealt = {.tp = 1, .dp = 4, .where = {0, 1, 2, 3}, .rounds = 6};
    run(4, dealt, (struct side_shape){.tp = 2, .dp = 2, .where = {0, 1, 2, 3}}, false);
    run(4, dealt, dealt, true);
    struct side_shape pairs = {.tp = 2, .dp = 2, .where = {0, 1, 2, 3}, .cut = true, .rounds = 5};
    run(4, pairs,
        (struct side_shape){
            .tp = 1, .dp = 1, .where = {0, 1, 2}, .cp = 3, .zigzag = true, .sequences = 2},
        false);
}

/* The ranks end in any order, while what they have enqueued still runs. */
static void failure_among_copies_ends_the_job_with_its_sentence(void) {
    fails = true;
    run(4, (struct side_shape){.tp = 2, .dp = 1, .where = {0, 1}},
        (struct side_shape){.tp = 1, .dp = 2, .where = {2, 3}}, false);
    fails = false;
}

/* The gradient that a context-parallel rank hands back is lost. */
static troupe_status lose_gradient(uint64_t seed, uint32_t microbatch, struct tamper *tamper) {
    *tamper = (struct tamper){.kind = TAMPER_LOST, .step = 1, .microbatch = microbatch};
    struct shape shape = {.ranks = 5,
                          .side = {{.tp = 1, .dp = 2, .where = {0, 1}},
                                   {.tp = 1, .dp = 1, .where = {2, 3, 4}, .cp = 3, .zigzag = true}},
                          .credits = 2,
                          .on_device = on_device,
                          .through_host = through_host,
                          .seed = seed,
                          .sender = 3,
                          .tamper = tamper};
    return troupe_job_run(&(struct troupe_job_options){.ranks = shape.ranks, .seed = seed},
                          run_rank, &shape);
}

/* Another message takes its place, of the same size or not, or none does. */
static void expect_notice(troupe_status status, int receiver) {
    const char *form = "rank 3 sent to rank %d ";
    if (strstr(troupe_last_error(), "no progress") != NULL) {
        form = ") of step 1 has been sent by ranks 2, 3, 4 and has not arrived at rank %d";
    } else if (strstr(troupe_last_error(), "expects") != NULL) {
        form = "of step 1: rank %d expects ";
        EXPECT_ERROR(status, status, " bytes from rank 3 ");
    }
    char ranks[80];
    snprintf(ranks, sizeof ranks, form, receiver);
    EXPECT_ERROR(status, status, ranks);
    EXPECT_ERROR(status, status, "step 1");
}

static void lost_gradients_of_cp_ranks_are_noticed(void) {
    static struct tamper tamper;
    int noticed[2] = {0, 0};
    for (uint64_t seed = test_seed(), i = 0; i < 64 && (noticed[0] == 0 || noticed[1] == 0); i++) {
        bool is_last = noticed[0] > 0; /* waiting for a stall takes long: once is enough */
        troupe_status status =
            lose_gradient(seed + i, is_last ? MICROBATCHES - 1 : (uint32_t)(i % 3), &tamper);
        if (!tamper.done) { /* the rank had no rows */
            EXPECT_OK(status);
            continue;
        }
        printf("    %s\n", troupe_last_error());
        expect_notice(status, tamper.peer);
        noticed[is_last]++;
    }
    EXPECT(noticed[0] > 0 && noticed[1] > 0, "rank 3 never had rows");
}

static void run_all(void) {
    TEST(context_parallel_ends_hold_several_pieces);
    TEST(sequence_parallel_rows_lie_below_cp);
    TEST(dealt_rows_feed_any_layout);
    TEST(dp3_feeds_dp2_on_shared_ranks);
    TEST(dp3_feeds_dp2_on_other_ranks);
    TEST(dp2_feeds_dp3_on_partly_shared_ranks);
    TEST(dp4_feeds_tp2_dp2_on_the_same_ranks);
    TEST(tp2_beside_tp3_meet_in_one_order);
    TEST(columns_cut_on_either_side_are_packed);
    TEST(tp3_gets_relays_from_tp2_on_another_host);
    TEST(equal_layouts_on_the_same_ranks_send_nothing);
    TEST(failure_among_copies_ends_the_job_with_its_sentence);
    TEST(one_rank_hands_everything_over);
    if (!on_device) {
        TEST(lost_gradients_of_cp_ranks_are_noticed);
    }
}

int main(int argc, char **argv) {
    through_host = argc > 1 && strcmp(argv[1], "through_host") == 0;
    on_device = through_host || (argc > 1 && strcmp(argv[1], "device") == 0);
    run_all();
    return TEST_END();
}
