/* SPDX-License-Identifier: Apache-2.0 */
/* One engine, two clocks: the real runtime (32 ranks, messages, tickets, conductors) in virtual
 * time against the simulator, on 20 job layouts and 10 with routes; again in order fill, which
 * plans on every conductor, and in mode static. Makespan and every task's begin and end must be
 * equal. */
#include <pthread.h>

#include "actors/forecast.h"
#include "actors/runtime.h"
#include "comm/virtual.h"
#include "comm/wire.h"
#include "runtime/check.h"
#include "runtime/memory.h"
#include "scheduler/cluster.h"
#include "scheduler/sim.h"
#include "tests/fuzz/scenario.h"
#include "tests/test.h"

enum {
    RANKS = 32,
    CASES = 12,
    ROUTED_CASES = 7,
    CONTROL_NS = 1500,
    GANGS = 96,
    TASKS = 1 << 14,
    GROUP_IDS = 4096
};

/* A pipeline of stages, each a gang of tp ranks, dp replicas of it; an encoder before the first
 * stage of each, on the same ranks (colocated) or on ranks of its own. */
struct layout {
    int tp, pp, dp;
    int encoder_tp; /* 0: none */
    bool colocated;
    int encoder_dp; /* > 0: as many encoders on ranks of their own feed all replicas by a route */
    bool reduces;
    int microbatches;
    int credits;
    int slots;
    int look_ahead;
    const char *order;
    bool static_order;
    int64_t columns; /* of a message's one row, float32 */
};

struct job {
    struct layout layout;
    uint64_t seed;
    struct troupe_cluster cluster;
    troupe_traffic *traffic;
    troupe_virtual *world;
    const struct troupe_graph *graph; /* of rank 0's runtime */
    troupe_forecast *forecast;        /* of that, where it has routes */
    int first[4 * GANGS + 1];         /* by method: of its tasks */
    struct troupe_task tasks[TASKS];  /* as the runtime ran them */
    int64_t started_ns;
    int gang_of_group[GROUP_IDS];
    struct troupe_task *expected;
    int task_count;
};

/* ---- the model ---- */

static int64_t modelled_ns(const struct job *job, int method, int microbatch) {
    return 2000 + (int64_t)(chance_hash(job->seed + (uint64_t)method, (uint64_t)microbatch) % 9000);
}

static int64_t task_ns(void *arg, int method, int64_t step, int microbatch) {
    (void)step;
    return modelled_ns(arg, method, microbatch);
}

static int64_t edge_bytes(void *arg, int edge, int64_t step, int microbatch, int member) {
    const struct job *job = arg;
    if (job->forecast != NULL) {
        return TROUPE_WIRE_BYTES +
               troupe_forecast_bytes(job->forecast, edge, step, microbatch, member);
    }
    return TROUPE_WIRE_BYTES + job->layout.columns * (int64_t)sizeof(float);
}

/* For plans: what the longest message of these layouts takes with the links to itself. */
static int64_t edge_ns(void *arg, int edge, int64_t step, int microbatch) {
    const struct job *job = arg;
    const struct troupe_edge *plan = &job->graph->edges[edge];
    int from = job->graph->gangs[job->graph->methods[plan->from].gang].ranks[0];
    int to = job->graph->gangs[job->graph->methods[plan->to].gang].ranks[0];
    (void)step;
    (void)microbatch;
    return troupe_cluster_transfer_ns(
        &job->cluster, from, to, TROUPE_WIRE_BYTES + job->layout.columns * (int64_t)sizeof(float));
}

static uint64_t receivers(void *arg, int edge, int64_t step, int microbatch) {
    const struct job *job = arg;
    return troupe_forecast_receivers(job->forecast, edge, step, microbatch);
}

static bool may_be_empty(void *arg, int edge) {
    const struct job *job = arg;
    return troupe_forecast_may_be_empty(job->forecast, edge);
}

static int64_t transfer_ns(void *arg, int64_t now_ns, int from, int to, int64_t bytes) {
    const struct job *job = arg;
    return troupe_traffic_send(job->traffic, now_ns, from, to, bytes);
}

/* ---- actors whose kernels are modelled ---- */

struct part {
    struct job *job;
    int gang;
    int first_method;
    troupe_group *group; /* of its reduction; NULL: alone */
    float gradient;
    struct troupe_collective operation;
};

enum { FORWARD, BACKWARD, WEIGHT, REDUCE };
enum { ROWS_IN, ROWS_OUT, GRADIENTS_IN, GRADIENTS_OUT, PICTURES_IN, PICTURE_GRADIENTS_OUT };

static void record(struct job *job, int method, int microbatch, int64_t begin_ns, int64_t end_ns) {
    job->tasks[job->first[method] + microbatch] = (struct troupe_task){
        .method = method, .microbatch = microbatch, .begin_ns = begin_ns, .end_ns = end_ns};
}

static troupe_status compute(struct part *part, struct troupe_firing *firing, int which) {
    struct job *job = part->job;
    troupe_comm *comm = troupe_runtime_comm(firing->runtime);
    int method = part->first_method + which;
    int64_t ns = modelled_ns(job, method, firing->microbatch), begin_ns = 0;
    int members = job->graph->gangs[firing->gang].rank_count;
    TROUPE_TRY(troupe_virtual_compute(comm, firing->gang, members, ns, &begin_ns));
    record(job, method, firing->microbatch, begin_ns, begin_ns + ns);
    return TROUPE_OK;
}

static troupe_status forward(void *state, struct troupe_firing *firing) {
    return compute(state, firing, FORWARD);
}

static troupe_status backward(void *state, struct troupe_firing *firing) {
    return compute(state, firing, BACKWARD);
}

static troupe_status weight(void *state, struct troupe_firing *firing) {
    return compute(state, firing, WEIGHT);
}

static troupe_status reduce(void *state, struct troupe_firing *firing) {
    struct part *part = state;
    return troupe_firing_all_reduce(firing, part->group, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32,
                                    &part->gradient, 1, &part->operation);
}

static const struct troupe_port ports[] = {
    [ROWS_IN] = {"rows_in", TROUPE_IN},
    [ROWS_OUT] = {"rows_out", TROUPE_OUT},
    [GRADIENTS_IN] = {"gradients_in", TROUPE_IN},
    [GRADIENTS_OUT] = {"gradients_out", TROUPE_OUT},
    [PICTURES_IN] = {"pictures_in", TROUPE_IN},
    [PICTURE_GRADIENTS_OUT] = {"picture_gradients_out", TROUPE_OUT},
};

#define METHODS                                                                                    \
    [FORWARD] = {.name = "forward",                                                                \
                 .kind = TROUPE_METHOD_FORWARD,                                                    \
                 .inputs = {ROWS_IN, PICTURES_IN},                                                 \
                 .input_count = 2,                                                                 \
                 .outputs = {ROWS_OUT},                                                            \
                 .output_count = 1,                                                                \
                 .slot_take = true,                                                                \
                 .run = forward},                                                                  \
    [BACKWARD] = {.name = "backward",                                                              \
                  .kind = TROUPE_METHOD_BACKWARD_INPUT,                                            \
                  .inputs = {GRADIENTS_IN},                                                        \
                  .input_count = 1,                                                                \
                  .outputs = {GRADIENTS_OUT, PICTURE_GRADIENTS_OUT},                               \
                  .output_count = 2,                                                               \
                  .after = {FORWARD},                                                              \
                  .after_count = 1,                                                                \
                  .run = backward},                                                                \
    [WEIGHT] = {.name = "weight",                                                                  \
                .kind = TROUPE_METHOD_BACKWARD_WEIGHT,                                             \
                .after = {BACKWARD},                                                               \
                .after_count = 1,                                                                  \
                .slot_return = true,                                                               \
                .run = weight}

static const struct troupe_actor_method plain_methods[] = {METHODS};
static const struct troupe_actor_method reducing_methods[] = {
    METHODS, [REDUCE] = {.name = "reduce",
                         .kind = TROUPE_METHOD_REDUCE,
                         .after = {WEIGHT},
                         .after_count = 1,
                         .lane = TROUPE_LANE_REDUCTION,
                         .run = reduce}};

static const struct troupe_actor_class plain_class = {.name = "plain",
                                                      .ports = ports,
                                                      .port_count = TROUPE_COUNT_OF(ports),
                                                      .methods = plain_methods,
                                                      .method_count =
                                                          TROUPE_COUNT_OF(plain_methods)};
static const struct troupe_actor_class reducing_class = {.name = "reducing",
                                                         .ports = ports,
                                                         .port_count = TROUPE_COUNT_OF(ports),
                                                         .methods = reducing_methods,
                                                         .method_count =
                                                             TROUPE_COUNT_OF(reducing_methods)};

/* ---- a job ---- */

/* What a rank has. */
struct rank {
    struct job *job;
    int rank;
    pthread_t thread;
    struct part parts[2]; /* of the language model, of the encoder */
    struct troupe_mesh meshes[2];
    struct troupe_layout layouts[2];
    troupe_route *routes[2]; /* of pictures, of their gradients */
    int64_t offsets[2][RANKS + 1];
    troupe_status status;
    char text[512];
};

static int llm_rank(const struct layout *l, int tp, int dp, int pp) {
    return tp + l->tp * (dp + l->dp * pp);
}

static int encoder_rank(const struct layout *l, int tp, int dp) {
    return (l->colocated ? 0 : l->tp * l->dp * l->pp) + tp + l->encoder_tp * dp;
}

/* Of a routed message, over all ranks. */
static int64_t rows_max(const struct layout *l) {
    return 4 * (int64_t)(l->dp > l->encoder_dp ? l->dp : l->encoder_dp) + 4;
}

static int spawn(struct rank *rank, troupe_runtime *runtime, struct part *part,
                 struct troupe_spawn_options options) {
    int gang = -1;
    bool here = false;
    for (int k = 0; k < options.rank_count; k++) {
        here = here || options.ranks[k] == rank->rank;
    }
    options.argument = here ? part : NULL;
    EXPECT_OK(troupe_spawn(runtime, &options, &gang));
    if (here) {
        part->job = rank->job;
        part->gang = gang;
        part->first_method = gang * options.actor_class->method_count;
    }
    return gang;
}

static void connect(troupe_runtime *runtime, const struct layout *l, const char *name, int from,
                    const char *from_port, int to, const char *to_port) {
    EXPECT_OK(troupe_connect(runtime,
                             &(struct troupe_connect_options){.name = name,
                                                              .from = &from,
                                                              .from_port = from_port,
                                                              .to = &to,
                                                              .to_port = to_port,
                                                              .credits = l->credits,
                                                              .columns = l->columns},
                             NULL));
}

/* Rows of a picture message on the ends of its route: uneven, of another total each time. */
static void fill_offsets(struct rank *rank, int end, int parts, int64_t rows, uint64_t salt) {
    for (int i = 0; i <= parts; i++) {
        int64_t even = rows * i / parts;
        bool shifts = i > 0 && i < parts;
        rank->offsets[end][i] =
            even + (shifts ? (int64_t)(chance_hash(salt, (uint64_t)i) % 3) - 1 : 0);
    }
}

static void plan_pictures(void *arg, int64_t step, int microbatch, int shard,
                          struct troupe_message_plan *out) {
    struct rank *rank = arg;
    const struct layout *l = &rank->job->layout;
    uint64_t salt = chance_hash(rank->job->seed, (uint64_t)microbatch);
    (void)step, (void)shard;
    out->rows = rows_max(l) - (int64_t)(salt % 4);
    fill_offsets(rank, 0, l->encoder_dp, out->rows, salt);
    fill_offsets(rank, 1, l->dp, out->rows, salt + 1);
    out->source_offsets = rank->offsets[0];
    out->destination_offsets = rank->offsets[1];
}

static void plan_gradients(void *arg, int64_t step, int microbatch, int shard,
                           struct troupe_message_plan *out) {
    plan_pictures(arg, step, microbatch, shard, out);
    const int64_t *source = out->source_offsets;
    out->source_offsets = out->destination_offsets;
    out->destination_offsets = source;
}

static void compile_routes(struct rank *rank) {
    const struct layout *l = &rank->job->layout;
    for (int end = 0; end < 2; end++) {
        int ranks[RANKS], count = end == 0 ? l->encoder_dp : l->dp;
        for (int d = 0; d < count; d++) {
            ranks[d] = end == 0 ? encoder_rank(l, 0, d) : llm_rank(l, 0, d, 0);
        }
        EXPECT_OK(troupe_mesh_init(
            &(struct troupe_mesh_options){
                .ranks = ranks, .rank_count = count, .tp = 1, .dp = count},
            &rank->meshes[end]));
        EXPECT_OK(
            troupe_layout_init(&(struct troupe_layout_options){.mesh = &rank->meshes[end],
                                                               .shape = {0, l->columns},
                                                               .split = {TROUPE_AXES(TROUPE_DP)},
                                                               .ragged = true},
                               &rank->layouts[end]));
    }
    for (int end = 0; end < 2; end++) {
        EXPECT_OK(
            troupe_route_compile(&(struct troupe_route_options){.source = &rank->layouts[end],
                                                                .destination = &rank->layouts[!end],
                                                                .element_bytes = sizeof(float)},
                                 &rank->routes[end]));
    }
}

static void forget_routes(struct rank *rank) {
    for (int end = 0; end < 2 && rank->routes[end] != NULL; end++) {
        troupe_route_destroy(rank->routes[end]);
        troupe_layout_fini(&rank->layouts[end]);
        troupe_mesh_fini(&rank->meshes[end]);
    }
}

/* The encoders of a layout with routes, each of one rank, and both edges. */
static void build_encoders(struct rank *rank, troupe_runtime *runtime) {
    const struct layout *l = &rank->job->layout;
    int gangs[2][RANKS];
    char name[64];
    compile_routes(rank);
    for (int d = 0; d < l->encoder_dp; d++) {
        int where = encoder_rank(l, 0, d);
        snprintf(name, sizeof name, "encoder %d", d);
        gangs[0][d] = spawn(rank, runtime, &rank->parts[1],
                            (struct troupe_spawn_options){.actor_class = &plain_class,
                                                          .name = name,
                                                          .ranks = &where,
                                                          .rank_count = 1,
                                                          .slots = l->slots,
                                                          .module = 1,
                                                          .depth = 1,
                                                          .stage_count = 1,
                                                          .dp = d});
    }
    for (int d = 0; d < l->dp; d++) {
        gangs[1][d] = d * l->pp; /* build_replica begins with it */
    }
    for (int end = 0; end < 2; end++) {
        EXPECT_OK(troupe_connect(runtime,
                                 &(struct troupe_connect_options){
                                     .name = end == 0 ? "pictures" : "picture gradients",
                                     .from = gangs[end],
                                     .from_count = end == 0 ? l->encoder_dp : l->dp,
                                     .from_port = end == 0 ? "rows_out" : "picture_gradients_out",
                                     .to = gangs[!end],
                                     .to_count = end == 0 ? l->dp : l->encoder_dp,
                                     .to_port = end == 0 ? "pictures_in" : "gradients_in",
                                     .credits = l->credits,
                                     .columns = l->columns,
                                     .from_rows_max = rows_max(l),
                                     .route = rank->routes[end],
                                     .plan = end == 0 ? plan_pictures : plan_gradients,
                                     .arg = rank},
                                 NULL));
    }
}

static void build_replica(struct rank *rank, troupe_runtime *runtime, int dp) {
    const struct layout *l = &rank->job->layout;
    const struct troupe_actor_class *class = l->reduces ? &reducing_class : &plain_class;
    int first = -1, before = -1;
    char name[64];
    for (int stage = 0; stage < l->pp; stage++) {
        int ranks[8];
        for (int k = 0; k < l->tp; k++) {
            ranks[k] = llm_rank(l, k, dp, stage);
        }
        snprintf(name, sizeof name, "llm %d %d", stage, dp);
        int gang = spawn(rank, runtime, &rank->parts[0],
                         (struct troupe_spawn_options){.actor_class = class,
                                                       .name = name,
                                                       .ranks = ranks,
                                                       .rank_count = l->tp,
                                                       .slots = l->slots,
                                                       .lane_order = stage,
                                                       .stage = stage,
                                                       .stage_count = l->pp,
                                                       .dp = dp});
        if (stage == 0) {
            first = gang;
        } else {
            snprintf(name, sizeof name, "rows %d %d", stage, dp);
            connect(runtime, l, name, before, "rows_out", gang, "rows_in");
            snprintf(name, sizeof name, "gradients %d %d", stage, dp);
            connect(runtime, l, name, gang, "gradients_out", before, "gradients_in");
        }
        before = gang;
    }
    if (l->encoder_tp > 0 && l->encoder_dp == 0) {
        int ranks[8];
        for (int k = 0; k < l->encoder_tp; k++) {
            ranks[k] = encoder_rank(l, k, dp);
        }
        snprintf(name, sizeof name, "encoder %d", dp);
        int gang = spawn(rank, runtime, &rank->parts[1],
                         (struct troupe_spawn_options){.actor_class = class,
                                                       .name = name,
                                                       .ranks = ranks,
                                                       .rank_count = l->encoder_tp,
                                                       .slots = l->slots,
                                                       .lane_order = l->pp,
                                                       .module = 1,
                                                       .depth = 1,
                                                       .stage_count = 1,
                                                       .dp = dp});
        snprintf(name, sizeof name, "pictures %d", dp);
        connect(runtime, l, name, gang, "rows_out", first, "pictures_in");
        snprintf(name, sizeof name, "picture gradients %d", dp);
        connect(runtime, l, name, first, "picture_gradients_out", gang, "gradients_in");
    }
}

/* The group over the replicas that a reduction of this rank's part sums over. */
static troupe_status make_group(struct rank *rank, troupe_comm *comm, struct part *part,
                                bool encoder) {
    const struct layout *l = &rank->job->layout;
    int ranks[RANKS], position = rank->rank - (encoder ? encoder_rank(l, 0, 0) : 0);
    int tp = encoder ? l->encoder_tp : l->tp, member = position % tp;
    int stage = encoder ? l->pp : position / (l->tp * l->dp);
    for (int d = 0; d < l->dp; d++) {
        ranks[d] = encoder ? encoder_rank(l, member, d) : llm_rank(l, member, d, stage);
    }
    uint32_t id = (uint32_t)(1 + stage * 16 + member);
    rank->job->gang_of_group[id] = part->gang;
    return troupe_group_create(
        comm,
        &(struct troupe_group_options){
            .ranks = ranks, .count = l->dp, .id = id, .bytes_max = sizeof(float)},
        &part->group);
}

static bool has_part(const struct part *part) {
    return part->job != NULL;
}

static void find_first_tasks(struct job *job) {
    job->task_count = 0;
    for (int m = 0; m < job->graph->method_count; m++) {
        job->first[m] = job->task_count;
        job->task_count += job->graph->methods[m].firings;
    }
    EXPECT(job->task_count <= TASKS, "%d tasks", job->task_count);
}

static troupe_status run_rank(struct rank *rank, troupe_comm *comm) {
    struct job *job = rank->job;
    const struct layout *l = &job->layout;
    const struct troupe_costs costs = {.task_ns = task_ns, .edge_ns = edge_ns, .arg = job};
    troupe_runtime *runtime = NULL;
    const struct troupe_graph *graph = NULL;
    TROUPE_TRY(
        troupe_runtime_create(comm,
                              &(struct troupe_runtime_options){.microbatches = l->microbatches,
                                                               .order = l->order,
                                                               .look_ahead = l->look_ahead,
                                                               .costs = &costs,
                                                               .static_order = l->static_order,
                                                               .stall_ns = 60000000000},
                              &runtime));
    for (int dp = 0; dp < l->dp; dp++) {
        build_replica(rank, runtime, dp);
    }
    if (l->encoder_dp > 0) {
        build_encoders(rank, runtime);
    }
    for (int i = 0; l->reduces && i < 2; i++) {
        if (has_part(&rank->parts[i])) {
            TROUPE_TRY(make_group(rank, comm, &rank->parts[i], i == 1));
        }
    }
    TROUPE_TRY(troupe_runtime_start(runtime));
    TROUPE_TRY(troupe_runtime_graph(runtime, &graph));
    if (rank->rank == 0) {
        job->graph = graph;
        find_first_tasks(job);
    }
    TROUPE_TRY(troupe_virtual_align(comm));
    if (rank->rank == 0) {
        job->started_ns = troupe_virtual_now(comm);
        troupe_traffic_reset(job->traffic);
    }
    troupe_status status = troupe_runtime_step(runtime, 0);
    if (status == TROUPE_OK) {
        status = troupe_virtual_align(comm); /* rank 0's graph serves the others until here */
    }
    if (rank->rank == 0 && status == TROUPE_OK) {
        for (int i = 0; i < job->task_count; i++) {
            job->tasks[i].begin_ns -= job->started_ns;
            job->tasks[i].end_ns -= job->started_ns;
        }
        /* The simulator on the very graph that has run. */
        const struct troupe_order_policy *order = NULL;
        troupe_sim *sim = NULL;
        struct troupe_sim_result result;
        if (l->encoder_dp > 0) {
            EXPECT_OK(troupe_forecast_create(runtime, &job->forecast));
            EXPECT_OK(troupe_forecast_step(job->forecast, 0));
        }
        EXPECT_OK(troupe_order_find(l->order, &order));
        EXPECT_OK(troupe_sim_create(
            graph,
            &(struct troupe_sim_options){.order = order,
                                         .look_ahead = l->look_ahead,
                                         .costs = &costs,
                                         .cluster = &job->cluster,
                                         .edge_bytes = edge_bytes,
                                         .control_ns = CONTROL_NS,
                                         .fixed = l->static_order,
                                         .receivers = job->forecast != NULL ? receivers : NULL,
                                         .may_be_empty = may_be_empty,
                                         .arg = job},
            &sim));
        EXPECT_OK(troupe_sim_run(sim, &result));
        EXPECT_EQ(result.schedule.task_count, job->task_count);
        memcpy(job->expected, result.schedule.tasks,
               (size_t)job->task_count * sizeof *job->expected);
        troupe_sim_destroy(sim);
        troupe_forecast_destroy(job->forecast);
        job->forecast = NULL;
    }
    if (status == TROUPE_OK) {
        troupe_runtime_destroy(runtime);
        troupe_group_destroy(rank->parts[0].group);
        troupe_group_destroy(rank->parts[1].group);
        forget_routes(rank);
    }
    return status;
}

static void *run_thread(void *arg) {
    struct rank *rank = arg;
    troupe_comm *comm = NULL;
    rank->status = troupe_comm_open_virtual(rank->job->world, rank->rank, &comm);
    if (rank->status == TROUPE_OK) {
        rank->status = run_rank(rank, comm);
        snprintf(rank->text, sizeof rank->text, "%s", troupe_last_error());
        if (rank->status != TROUPE_OK) {
            troupe_comm_abort(comm, rank->text);
        }
        troupe_comm_close(comm);
    }
    return NULL;
}

static int64_t collective_ns(void *arg, uint32_t group, int64_t begin_ns) {
    struct job *job = arg;
    if (group >= GROUP_IDS || job->gang_of_group[group] < 0 || job->graph == NULL) {
        return 1; /* the runtime's own */
    }
    /* The simulator asks all gangs of a lane order and takes the longest; so does this. */
    int64_t longest = 0;
    const struct troupe_method *mine =
        &job->graph->methods[job->gang_of_group[group] * (REDUCE + 1) + REDUCE];
    for (int m = 0; m < job->graph->method_count; m++) {
        const struct troupe_method *method = &job->graph->methods[m];
        if (method->lane == TROUPE_LANE_REDUCTION && method->lane_order == mine->lane_order) {
            int64_t ns = modelled_ns(job, m, 0);
            longest = ns > longest ? ns : longest;
        }
    }
    for (int m = 0; m < job->graph->method_count; m++) {
        const struct troupe_method *method = &job->graph->methods[m];
        if (method->lane == TROUPE_LANE_REDUCTION && method->lane_order == mine->lane_order) {
            record(job, m, 0, begin_ns, begin_ns + longest);
        }
    }
    return longest;
}

static void run_job(struct job *job) {
    static struct rank ranks[RANKS];
    memset(ranks, 0, sizeof ranks);
    EXPECT_OK(troupe_traffic_create(&job->cluster, RANKS, &job->traffic));
    EXPECT_OK(troupe_virtual_create(&(struct troupe_virtual_options){.ranks = RANKS,
                                                                     .keys = GANGS,
                                                                     .control_ns = CONTROL_NS,
                                                                     .transfer_ns = transfer_ns,
                                                                     .collective_ns = collective_ns,
                                                                     .arg = job},
                                    &job->world));
    for (int r = 0; r < RANKS; r++) {
        ranks[r].job = job;
        ranks[r].rank = r;
        EXPECT_EQ(pthread_create(&ranks[r].thread, NULL, run_thread, &ranks[r]), 0);
    }
    for (int r = 0; r < RANKS; r++) {
        pthread_join(ranks[r].thread, NULL);
    }
    for (int r = 0; r < RANKS; r++) {
        EXPECT(ranks[r].status == TROUPE_OK, "rank %d: %s", r, ranks[r].text);
    }
    troupe_virtual_destroy(job->world);
    troupe_traffic_destroy(job->traffic);
}

static struct layout layout_of(int index, uint64_t seed) {
    static const int routed[][3] = {{2, 8, 4}, {4, 3, 12}, {3, 6, 9}, {1, 12, 20}, {5, 4, 3}};
    static const int shapes[][5] = {
        /* tp, pp, dp, encoder tp, colocated */
        {1, 8, 4, 0, 0}, {2, 8, 2, 0, 0}, {2, 4, 4, 2, 1},  {4, 4, 2, 4, 1}, {1, 4, 6, 1, 0},
        {2, 6, 2, 2, 0}, {8, 2, 2, 8, 1}, {1, 31, 1, 1, 0}, {2, 3, 4, 2, 0}, {1, 8, 4, 1, 1},
    };
    uint64_t hash = chance_hash(seed, (uint64_t)index);
    if (index >= CASES) { /* pp, dp, encoders */
        const int *shape = routed[index % 5];
        return (struct layout){.tp = 1,
                               .pp = shape[0],
                               .dp = shape[1],
                               .encoder_tp = 1,
                               .encoder_dp = shape[2],
                               .microbatches = 2 + (int)(hash % 9),
                               .credits = 1 + (int)(hash >> 8 & 1),
                               .slots = 1 + (int)(hash >> 16 & 7),
                               .look_ahead = 1 + (int)(hash >> 24 & 1),
                               .order = hash >> 32 & 1 ? "1f1b" : "fifo",
                               .columns = 64 << (hash >> 40 & 3)};
    }
    const int *shape = shapes[index % 10];
    return (struct layout){.tp = shape[0],
                           .pp = shape[1],
                           .dp = shape[2],
                           .encoder_tp = shape[3],
                           .colocated = shape[4] != 0,
                           .reduces = index % 3 != 0 && shape[0] == 1 && shape[2] > 1,
                           .microbatches = 2 + (int)(hash % 9),
                           .credits = 1 + (int)(hash >> 8 & 1),
                           .slots = 1 + (int)(hash >> 16 & 7),
                           .look_ahead = 1 + (int)(hash >> 24 & 1),
                           .order = hash >> 32 & 1 ? "1f1b" : "fifo",
                           .columns = 64 << (hash >> 40 & 3)};
}

static void expect_equal(const struct job *job, int index) {
    const struct layout *l = &job->layout;
    int64_t makespan = 0, expected = 0;
    for (int i = 0; i < job->task_count; i++) {
        const struct troupe_task *a = &job->tasks[i], *b = &job->expected[i];
        EXPECT(a->begin_ns == b->begin_ns && a->end_ns == b->end_ns,
               "case %d (tp %d pp %d dp %d encoder %d %s, m %d, credits %d, slots %d, look-ahead "
               "%d, %s): %s %s %d ran %lld-%lld, simulated %lld-%lld",
               index, l->tp, l->pp, l->dp, l->encoder_tp, l->colocated ? "colocated" : "apart",
               l->microbatches, l->credits, l->slots, l->look_ahead, l->order, "method", "",
               a->method, (long long)a->begin_ns, (long long)a->end_ns, (long long)b->begin_ns,
               (long long)b->end_ns);
        makespan = a->end_ns > makespan ? a->end_ns : makespan;
        expected = b->end_ns > expected ? b->end_ns : expected;
    }
    EXPECT_EQ(makespan, expected);
    printf("    case %d: %d tasks, makespan %lld ns\n", index, job->task_count,
           (long long)makespan);
}

/* order: NULL for each layout's own. */
static void compare(int begin, int end, const char *order, bool static_order) {
    struct job *job = calloc(1, sizeof *job);
    struct troupe_task *expected = calloc(TASKS, sizeof *expected);
    uint64_t seed = test_seed();
    for (int i = begin; i < end; i++) {
        memset(job, 0, sizeof *job);
        job->expected = expected;
        job->seed = chance_hash(seed, (uint64_t)i);
        job->layout = layout_of(i, seed);
        job->layout.order = order != NULL ? order : job->layout.order;
        job->layout.static_order = static_order;
        job->cluster = (struct troupe_cluster){.ranks_per_host = 8,
                                               .nics_per_host = 2,
                                               .inside = {.latency_ns = 700, .bytes_per_s = 1e9},
                                               .between = {.latency_ns = 2500, .bytes_per_s = 3e8}};
        memset(job->gang_of_group, -1, sizeof job->gang_of_group);
        run_job(job);
        expect_equal(job, i);
    }
    free(expected);
    free(job);
}

static void runtime_and_simulator_agree(void) {
    compare(0, CASES, NULL, false);
}

static void they_agree_on_routed_edges(void) {
    compare(CASES, CASES + ROUTED_CASES, NULL, false);
}

static void they_agree_where_every_conductor_plans(void) {
    compare(0, 8, "fill", false);
    compare(CASES, CASES + 5, "fill", false);
}

static void they_agree_in_mode_static(void) {
    compare(0, CASES, NULL, true);
    compare(0, 8, "fill", true);
    compare(CASES, CASES + ROUTED_CASES, NULL, true);
    compare(CASES, CASES + 5, "fill", true);
}

int main(void) {
    TEST(runtime_and_simulator_agree);
    TEST(they_agree_on_routed_edges);
    TEST(they_agree_where_every_conductor_plans);
    TEST(they_agree_in_mode_static);
    return TEST_END();
}
