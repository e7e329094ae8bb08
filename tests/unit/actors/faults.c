/* SPDX-License-Identifier: Apache-2.0 */
/* What goes wrong gets its sentence: messages that break their contract, methods that fail, ranks
 * that build different graphs, graphs that cannot be, and stalls. Two ranks, a source and a sink.
 */
#include <unistd.h>

#include "actors/job.h"
#include "actors/runtime.h"
#include "actors/runtime_internal.h" /* the tag of an edge's messages */
#include "tests/test.h"

enum { ROWS = 2, COLUMNS = 2, MICROBATCHES = 4, STEPS = 3, FAULT_STEP = 1, FAULT_MICROBATCH = 2 };

enum fault {
    NO_FAULT,
    OTHER_SAMPLES,
    OTHER_SCALE,
    STALE_STEP,
    SWAPPED_MICROBATCH,
    WRONG_EDGE,
    WRONG_SIZE,
    CORRUPT_PAYLOAD,
    TOO_MANY_ROWS,
    METHOD_FAILS,
    NEVER_STEPS,
    ASKS_FOR_REPORT,
    OTHER_SLOTS,
    CALL_MISSING,
};

struct world {
    enum fault fault;
    troupe_status seen[2];
    char text[2][1024];
    char explained[8192]; /* by rank 1 */
};

struct actor {
    struct world *world;
    int rank;
    struct troupe_transfer transfer; /* of a forged message */
    uint8_t header[TROUPE_WIRE_BYTES];
    int32_t payload[ROWS * COLUMNS];
};

static bool is_moment(const struct troupe_firing *firing) {
    return firing->step == FAULT_STEP && firing->microbatch == FAULT_MICROBATCH;
}

/* Sends rank 1 a message in place of the true one, which it overtakes. */
static troupe_status forge(struct actor *actor, const struct troupe_firing *firing) {
    enum fault fault = actor->world->fault;
    struct troupe_wire_header header = {.version = TROUPE_WIRE_VERSION,
                                        .edge = fault == WRONG_EDGE,
                                        .step = (uint64_t)firing->step - (fault == STALE_STEP),
                                        .microbatch = (uint32_t)firing->microbatch +
                                                      (fault == SWAPPED_MICROBATCH),
                                        .piece_count = 1,
                                        .row_count = ROWS,
                                        .checksum = fault == CORRUPT_PAYLOAD};
    size_t payload_bytes = sizeof actor->payload - 4 * (fault == WRONG_SIZE);
    troupe_wire_pack(&header, actor->header);
    actor->transfer = (struct troupe_transfer){
        .peer = 1,
        .tag = TROUPE_EDGE_TAG,
        .segments = {{actor->header, sizeof actor->header}, {actor->payload, payload_bytes}},
        .segment_count = 2};
    return troupe_comm_post_send(troupe_runtime_comm(firing->runtime), &actor->transfer);
}

static troupe_status produce(void *state, struct troupe_firing *firing) {
    struct actor *actor = state;
    enum fault fault = actor->world->fault;
    int32_t *data = firing->outputs[0].data;
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        data[i] = i;
    }
    if (is_moment(firing) && fault >= STALE_STEP && fault <= CORRUPT_PAYLOAD) {
        return forge(actor, firing);
    }
    if (is_moment(firing) && fault == ASKS_FOR_REPORT) {
        troupe_runtime_request_report(firing->runtime);
    }
    if (is_moment(firing) && fault == METHOD_FAILS) {
        return troupe_fail(TROUPE_ERROR_NUMERIC, "the loss is not a number");
    }
    return TROUPE_OK;
}

static troupe_status consume(void *state, struct troupe_firing *firing) {
    (void)state;
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        EXPECT_EQ(((const int32_t *)firing->inputs[0].data)[i], i);
    }
    return TROUPE_OK;
}

/* Rank 0 lies about the message of one microbatch. */
static void plan(void *arg, int64_t step, int microbatch, int shard,
                 struct troupe_message_plan *out) {
    const struct actor *actor = arg;
    (void)shard;
    bool lies = actor->rank == 0 && step == FAULT_STEP && microbatch == FAULT_MICROBATCH;
    enum fault fault = actor->world->fault;
    out->rows = lies && fault == TOO_MANY_ROWS ? ROWS + 1 : ROWS;
    out->sample_set = lies && fault == OTHER_SAMPLES;
    out->normalisation = lies && fault == OTHER_SCALE;
}

static const struct troupe_port source_ports[] = {{"out", TROUPE_OUT}};
static const struct troupe_actor_method source_methods[] = {
    {.name = "produce", .outputs = {0}, .output_count = 1, .run = produce}};
static const struct troupe_actor_class source_class = {.name = "source",
                                                       .ports = source_ports,
                                                       .port_count = 1,
                                                       .methods = source_methods,
                                                       .method_count = 1};
static const struct troupe_port sink_ports[] = {{"in", TROUPE_IN}};
static const struct troupe_actor_method sink_methods[] = {
    {.name = "consume", .inputs = {0}, .input_count = 1, .run = consume}};
static const struct troupe_actor_class sink_class = {.name = "sink",
                                                     .ports = sink_ports,
                                                     .port_count = 1,
                                                     .methods = sink_methods,
                                                     .method_count = 1};

static troupe_status spawn(troupe_runtime *runtime, const struct troupe_actor_class *class,
                           const char *name, int rank, struct actor *actor, int *gang_out) {
    return troupe_spawn(runtime,
                        &(struct troupe_spawn_options){
                            .actor_class = class,
                            .name = name,
                            .ranks = &rank,
                            .rank_count = 1,
                            .slots = actor->world->fault == OTHER_SLOTS ? actor->rank : 0,
                            .argument = actor},
                        gang_out);
}

static troupe_status build(troupe_runtime *runtime, struct actor *actor) {
    int source = 0, sink = 0;
    TROUPE_TRY(spawn(runtime, &source_class, "the source", 0, actor, &source));
    TROUPE_TRY(spawn(runtime, &sink_class, "the sink", 1, actor, &sink));
    struct troupe_connect_options edge = {.name = "source -> sink",
                                          .from = &source,
                                          .from_port = "out",
                                          .to = &sink,
                                          .to_port = "in",
                                          .columns = COLUMNS,
                                          .dtype = TROUPE_INT32,
                                          .from_rows_max = ROWS,
                                          .plan = plan,
                                          .arg = actor};
    if (actor->world->fault != CALL_MISSING || actor->rank == 0) {
        TROUPE_TRY(troupe_connect(runtime, &edge, NULL));
    }
    return troupe_runtime_start(runtime);
}

static void keep_line(void *arg, const char *text) {
    struct world *world = arg;
    size_t used = strlen(world->explained);
    snprintf(world->explained + used, sizeof world->explained - used, "%s\n", text);
}

/* What the step did, rank 0 as the source, rank 1 as the sink. */
static void check_accounts(const troupe_runtime *runtime, int rank) {
    for (int gang = 0; gang < troupe_runtime_gang_count(runtime); gang++) {
        struct troupe_gang_times times = troupe_runtime_gang_times(runtime, gang);
        EXPECT_EQ(times.firings, gang == rank ? MICROBATCHES : 0);
        EXPECT(gang != rank || times.compute_ns > 0, "gang %d took no time", gang);
    }
    EXPECT_EQ(troupe_runtime_edge_count(runtime), 1);
    EXPECT_STRING(troupe_runtime_edge_name(runtime, 0), "source -> sink");
    EXPECT_EQ(troupe_runtime_edge_bytes(runtime, 0),
              rank == 0 ? MICROBATCHES * ROWS * COLUMNS * sizeof(int32_t) : 0);
}

static troupe_status run_steps(troupe_runtime *runtime, const struct actor *actor,
                               troupe_comm *comm) {
    if (actor->world->fault == NEVER_STEPS && actor->rank == 0) {
        while (troupe_comm_failure(comm) == TROUPE_OK) {
            troupe_comm_progress(comm);
            troupe_comm_idle(comm);
        }
        return troupe_comm_failure(comm);
    }
    for (int64_t step = 0; step < STEPS; step++) {
        TROUPE_TRY(troupe_runtime_step(runtime, step));
        check_accounts(runtime, actor->rank);
    }
    return TROUPE_OK;
}

static troupe_status run_rank(void *arg, troupe_comm *comm) {
    struct actor actor = {.world = arg, .rank = troupe_comm_rank(comm)};
    struct world *world = arg;
    troupe_runtime *runtime = NULL;
    struct troupe_runtime_options options = {.microbatches = MICROBATCHES,
                                             .stall_ns = world->fault == NEVER_STEPS ? 50000000
                                                                                     : 5000000000,
                                             .checksum = world->fault == CORRUPT_PAYLOAD};
    TROUPE_TRY(troupe_runtime_create(comm, &options, &runtime));
    troupe_status status = build(runtime, &actor);
    if (status == TROUPE_OK) {
        status = run_steps(runtime, &actor, comm);
    }
    world->seen[actor.rank] = status;
    snprintf(world->text[actor.rank], sizeof world->text[0], "%s", troupe_last_error());
    if (world->fault == NO_FAULT && actor.rank == 1) {
        troupe_runtime_describe(runtime, keep_line, world);
    }
    troupe_runtime_destroy(runtime);
    return troupe_fail(status, "%s", world->text[actor.rank]);
}

static struct world meet(enum fault fault) {
    struct world world = {.fault = fault};
    (void)troupe_job_run(&(struct troupe_job_options){.ranks = 2}, run_rank, &world);
    return world;
}

static void expect_text(const char *text, const char *part) {
    EXPECT(strstr(text, part) != NULL, "\"%s\" does not say \"%s\"", text, part);
}

/* `rank` sees it and says it; the other is told. */
static void expect_fault(enum fault fault, int rank, troupe_status status, const char *part) {
    struct world world = meet(fault);
    EXPECT_EQ(world.seen[rank], status);
    EXPECT_EQ(world.seen[!rank], TROUPE_ERROR_ABORTED);
    expect_text(world.text[rank], part);
    expect_text(world.text[!rank], part);
}

static void without_a_fault_all_is_well(void) {
    struct world world = meet(NO_FAULT);
    EXPECT_EQ(world.seen[0], TROUPE_OK);
    EXPECT_EQ(world.seen[1], TROUPE_OK);
    EXPECT_STRING(world.explained, "island of 1 rank, conductor 0: the source\n"
                                   "island of 1 rank, conductor 1: the sink\n");
}

static void other_samples_are_noticed(void) {
    expect_fault(OTHER_SAMPLES, 1, TROUPE_ERROR_CONTRACT, "disagree about the samples");
}

static void another_scale_is_noticed(void) {
    expect_fault(OTHER_SCALE, 1, TROUPE_ERROR_CONTRACT, "scale the loss differently");
}

static void a_stale_step_is_noticed(void) {
    expect_fault(STALE_STEP, 1, TROUPE_ERROR_CONTRACT, "the message is stale");
}

static void a_swapped_microbatch_is_noticed(void) {
    expect_fault(SWAPPED_MICROBATCH, 1, TROUPE_ERROR_CONTRACT,
                 "rank 1 expected microbatch 2: the two ends run the microbatches in different");
}

static void a_message_of_another_edge_is_noticed(void) {
    expect_fault(WRONG_EDGE, 1, TROUPE_ERROR_CONTRACT, "routed to the wrong edge");
}

static void a_message_of_another_size_is_noticed(void) {
    expect_fault(WRONG_SIZE, 1, TROUPE_ERROR_CONTRACT,
                 "edge source -> sink, microbatch 2 of step 1");
}

static void a_corrupt_payload_is_noticed(void) {
    expect_fault(CORRUPT_PAYLOAD, 1, TROUPE_ERROR_CONTRACT, "checksum");
}

static void rows_beyond_the_buffer_are_noticed(void) {
    expect_fault(TOO_MANY_ROWS, 0, TROUPE_ERROR_INVALID,
                 "microbatch 2 of step 1 has 3 rows on rank 0, its buffers hold 2");
}

static void a_method_that_fails_ends_all_ranks(void) {
    expect_fault(METHOD_FAILS, 0, TROUPE_ERROR_NUMERIC,
                 "the source produce, microbatch 2 of step 1, rank 0: the loss is not a number");
}

static void ranks_that_build_differently_are_named(void) {
    for (int k = 0; k < 2; k++) {
        struct world world = meet(k == 0 ? OTHER_SLOTS : CALL_MISSING);
        for (int rank = 0; rank < 2; rank++) {
            expect_text(world.text[rank], "rank 1 built another graph than rank 0");
        }
        int other = world.seen[0] == TROUPE_ERROR_INVALID ? 0 : 1;
        EXPECT_EQ(world.seen[other], TROUPE_ERROR_INVALID);
        expect_text(world.text[0], k == 0 ? "call 1 differs" : "call 3 differs");
    }
}

/* Runs the body with standard error in `text`. */
static void capture(void (*body)(void), char *text, size_t bytes) {
    FILE *file = tmpfile();
    EXPECT(file != NULL, "no temporary file");
    fflush(stderr);
    int kept = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    body();
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    text[fread(text, 1, bytes - 1, file)] = '\0';
    fclose(file);
}

static void stall_once(void) {
    struct world world = meet(NEVER_STEPS);
    for (int rank = 0; rank < 2; rank++) { /* either may give up first, and tells the other */
        EXPECT(world.seen[rank] == TROUPE_ERROR_STALL || world.seen[rank] == TROUPE_ERROR_ABORTED,
               "rank %d: %s", rank, world.text[rank]);
        expect_text(world.text[rank], "no progress for 0.");
        expect_text(world.text[rank], "the program of rank 0 has not begun step 0");
    }
}

static void a_stall_says_which_rank_the_others_wait_for(void) {
    static char text[16384];
    capture(stall_once, text, sizeof text);
    expect_text(text, "the program of rank 0 has not begun step 0");
    expect_text(text, "the sink consume 0");
    expect_text(text, "source -> sink at rank 1");
}

static void ask_once(void) {
    struct world world = meet(ASKS_FOR_REPORT);
    EXPECT_EQ(world.seen[0], TROUPE_OK);
    EXPECT_EQ(world.seen[1], TROUPE_OK);
}

static void a_report_can_be_asked_for_any_time(void) {
    static char text[16384];
    capture(ask_once, text, sizeof text);
    expect_text(text, "troupe: who waits for what in step 1: ");
    expect_text(text, "\n     0       1 ");
    expect_text(text, "\n     1       1 ");
}

/* ---- graphs that cannot be ---- */

static troupe_status try_graphs(void *arg, troupe_comm *comm) {
    (void)arg;
    struct world world = {0};
    struct actor actor = {.world = &world};
    int source = 0, sink = 0;
    troupe_runtime *runtime = NULL;
    struct troupe_runtime_options options = {.order = "fifi"};
    EXPECT_ERROR(troupe_runtime_create(comm, &options, &runtime), TROUPE_ERROR_INVALID, "fifi");
    options.order = NULL;
    EXPECT_OK(troupe_runtime_create(comm, &options, &runtime));
    EXPECT_OK(spawn(runtime, &source_class, "a", 0, &actor, &source));
    EXPECT_OK(spawn(runtime, &sink_class, "b", 0, &actor, &sink));
    EXPECT_ERROR(spawn(runtime, &sink_class, "a", 0, &actor, &sink), TROUPE_ERROR_INVALID,
                 "two gangs are named a");
    EXPECT_ERROR(spawn(runtime, &sink_class, "c", 1, &actor, &sink), TROUPE_ERROR_INVALID,
                 "lists rank 1; there are 1 ranks");
    struct troupe_connect_options edge = {
        .name = "e", .from = &source, .from_port = "out", .to = &sink, .to_port = "nose"};
    EXPECT_ERROR(troupe_connect(runtime, &edge, NULL), TROUPE_ERROR_INVALID,
                 "class sink has no method with an input port nose");
    edge.to_port = "in";
    edge.initial = 3;
    EXPECT_ERROR(troupe_connect(runtime, &edge, NULL), TROUPE_ERROR_INVALID,
                 "2 credits and 3 initial messages");
    edge.initial = 0;
    edge.plan = plan;
    EXPECT_ERROR(troupe_connect(runtime, &edge, NULL), TROUPE_ERROR_INVALID, "need steps");
    edge.plan = NULL;
    EXPECT_OK(troupe_connect(runtime, &edge, NULL));
    edge.name = "f";
    EXPECT_ERROR(troupe_connect(runtime, &edge, NULL), TROUPE_ERROR_INVALID,
                 "edges e and f both leave port out of a");
    troupe_runtime_destroy(runtime);
    return TROUPE_OK;
}

static void graphs_that_cannot_be_are_refused(void) {
    EXPECT_OK(troupe_job_run(&(struct troupe_job_options){.ranks = 1}, try_graphs, NULL));
}

int main(void) {
    TEST(without_a_fault_all_is_well);
    TEST(other_samples_are_noticed);
    TEST(another_scale_is_noticed);
    TEST(a_stale_step_is_noticed);
    TEST(a_swapped_microbatch_is_noticed);
    TEST(a_message_of_another_edge_is_noticed);
    TEST(a_message_of_another_size_is_noticed);
    TEST(a_corrupt_payload_is_noticed);
    TEST(rows_beyond_the_buffer_are_noticed);
    TEST(a_method_that_fails_ends_all_ranks);
    TEST(ranks_that_build_differently_are_named);
    TEST(a_stall_says_which_rank_the_others_wait_for);
    TEST(a_report_can_be_asked_for_any_time);
    TEST(graphs_that_cannot_be_are_refused);
    return TEST_END();
}
