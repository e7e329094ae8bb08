/* SPDX-License-Identifier: Apache-2.0 */
/* A stall ends the job with its cause, behind one screen that leads to it: a message that is lost,
 * credits that do not come back, a peer that is dead, a policy that never picks a task, a cycle.
 * Three ranks, each an island: a source, a worker, a sink. The linker puts the functions of this
 * file between the runtime and its transport. */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "actors/job.h"
#include "actors/runtime.h"
#include "actors/runtime_internal.h" /* control messages, tags of edges */
#include "tests/test.h"

enum { RANKS = 3, MICROBATCHES = 8, FAULT_MICROBATCH = 2, STALL_MS = 500, WORKER = 1, SINK = 2 };

enum fault { NO_FAULT, LOST_MESSAGE, LOST_CREDIT, DEAD_PEER, IDLE_POLICY, CYCLE };

struct world {
    enum fault fault;
    bool asked;          /* all the time, who waits for what */
    int microbatch;      /* sent from the worker to the sink so far; the worker's */
    atomic_bool is_over; /* a rank has seen the end */
    troupe_status seen[RANKS];
    char text[RANKS][1024];
};

static struct world world;
static pthread_mutex_t source_lock = PTHREAD_MUTEX_INITIALIZER;
static troupe_runtime *source;  /* of rank 0 while it steps */
static const char *idle_policy; /* the shared object */

/* ---- between the runtime and its transport ---- */

troupe_status __real_troupe_comm_post_send(troupe_comm *comm, struct troupe_transfer *transfer);
troupe_status __wrap_troupe_comm_post_send(troupe_comm *comm, struct troupe_transfer *transfer);
troupe_status __real_troupe_comm_send_control(troupe_comm *comm, int to, const void *message,
                                              size_t bytes);
troupe_status __wrap_troupe_comm_send_control(troupe_comm *comm, int to, const void *message,
                                              size_t bytes);

static bool is_of_edge(const struct troupe_transfer *transfer) {
    return transfer->tag >> 56 == TROUPE_EDGE_TAG >> 56;
}

/* The sender believes that it has been sent. Those behind it are lost, too: they would be taken for
 * it, which the contract notices. */
troupe_status __wrap_troupe_comm_post_send(troupe_comm *comm, struct troupe_transfer *transfer) {
    bool is_its = is_of_edge(transfer) && transfer->peer == SINK;
    if (is_its && world.microbatch++ >= FAULT_MICROBATCH && world.fault == LOST_MESSAGE) {
        transfer->status = TROUPE_OK;
        transfer->done(transfer);
        return TROUPE_OK;
    }
    return __real_troupe_comm_post_send(comm, transfer);
}

/* Facts of a worker that waits for the sink, and of a sink that waits for the worker. */
static struct troupe_wait_fact falsify(const void *message, int rank) {
    struct troupe_wait_fact fact;
    memcpy(&fact, message, sizeof fact);
    bool of_method = !fact.of_rank && rank == fact.method;
    if (of_method && rank == WORKER) {
        fact.state = TROUPE_WAIT_FOR_CREDIT;
        fact.index = 1;
        fact.in_flight = 0;
    } else if (of_method && rank == SINK) {
        fact.state = TROUPE_WAIT_FOR_INPUT;
        fact.index = 1;
        fact.rank = TROUPE_NOBODY;
    }
    return fact;
}

troupe_status __wrap_troupe_comm_send_control(troupe_comm *comm, int to, const void *message,
                                              size_t bytes) {
    const struct troupe_control *control = message;
    bool is_credit = bytes == sizeof *control && control->kind == TROUPE_CONTROL_CREDIT;
    bool loses = world.fault == LOST_CREDIT || world.fault == CYCLE;
    if (loses && is_credit && troupe_comm_rank(comm) == SINK) {
        return TROUPE_OK;
    }
    if (world.fault == CYCLE && bytes == sizeof(struct troupe_wait_fact)) {
        struct troupe_wait_fact fact = falsify(message, troupe_comm_rank(comm));
        return __real_troupe_comm_send_control(comm, to, &fact, sizeof fact);
    }
    return __real_troupe_comm_send_control(comm, to, message, bytes);
}

/* ---- the job ---- */

static troupe_status produce(void *state, struct troupe_firing *firing) {
    (void)state;
    *(int32_t *)firing->outputs[0].data = firing->microbatch;
    return TROUPE_OK;
}

static troupe_status work(void *state, struct troupe_firing *firing) {
    (void)state;
    while (world.fault == DEAD_PEER && firing->microbatch == FAULT_MICROBATCH &&
           !atomic_load(&world.is_over)) {
        usleep(1000);
    }
    *(int32_t *)firing->outputs[0].data = *(const int32_t *)firing->inputs[0].data;
    return TROUPE_OK;
}

static troupe_status consume(void *state, struct troupe_firing *firing) {
    (void)state;
    EXPECT_EQ(*(const int32_t *)firing->inputs[0].data, firing->microbatch);
    return TROUPE_OK;
}

static const struct troupe_port ports[] = {{"in", TROUPE_IN}, {"out", TROUPE_OUT}};
static const struct troupe_actor_method source_methods[] = {
    {.name = "produce", .outputs = {1}, .output_count = 1, .run = produce}};
static const struct troupe_actor_method worker_methods[] = {{.name = "work",
                                                             .inputs = {0},
                                                             .input_count = 1,
                                                             .outputs = {1},
                                                             .output_count = 1,
                                                             .run = work}};
static const struct troupe_actor_method sink_methods[] = {
    {.name = "consume", .inputs = {0}, .input_count = 1, .run = consume}};
static const struct troupe_actor_class classes[RANKS] = {
    {.name = "source",
     .ports = ports,
     .port_count = 2,
     .methods = source_methods,
     .method_count = 1},
    {.name = "worker",
     .ports = ports,
     .port_count = 2,
     .methods = worker_methods,
     .method_count = 1},
    {.name = "sink", .ports = ports, .port_count = 2, .methods = sink_methods, .method_count = 1}};

static troupe_status build(troupe_runtime *runtime) {
    int gangs[RANKS];
    for (int r = 0; r < RANKS; r++) {
        TROUPE_TRY(troupe_spawn(
            runtime,
            &(struct troupe_spawn_options){
                .actor_class = &classes[r], .name = classes[r].name, .ranks = &r, .rank_count = 1},
            &gangs[r]));
    }
    for (int e = 0; e < RANKS - 1; e++) {
        TROUPE_TRY(troupe_connect(
            runtime,
            &(struct troupe_connect_options){.name = e == 0 ? "source -> worker" : "worker -> sink",
                                             .from = &gangs[e],
                                             .from_port = "out",
                                             .to = &gangs[e + 1],
                                             .to_port = "in",
                                             .columns = 1,
                                             .dtype = TROUPE_INT32,
                                             .from_rows_max = 1},
            NULL));
    }
    return troupe_runtime_start(runtime);
}

/* Whom `ask` asks; the runtime lives as long as it is set. */
static void set_source(int rank, troupe_runtime *runtime) {
    if (rank == 0) {
        pthread_mutex_lock(&source_lock);
        source = runtime;
        pthread_mutex_unlock(&source_lock);
    }
}

static troupe_status run_rank(void *arg, troupe_comm *comm) {
    (void)arg;
    int rank = troupe_comm_rank(comm);
    troupe_runtime *runtime = NULL;
    struct troupe_runtime_options options = {.microbatches = MICROBATCHES,
                                             .stall_ns = (int64_t)STALL_MS * 1000000,
                                             .order =
                                                 world.fault == IDLE_POLICY ? idle_policy : NULL};
    TROUPE_TRY(troupe_runtime_create(comm, &options, &runtime));
    troupe_status status = build(runtime);
    if (status == TROUPE_OK) {
        set_source(rank, runtime);
        status = troupe_runtime_step(runtime, 0);
    }
    atomic_store(&world.is_over, true);
    world.seen[rank] = status;
    snprintf(world.text[rank], sizeof world.text[0], "%s", troupe_last_error());
    set_source(rank, NULL);
    troupe_runtime_destroy(runtime);
    return troupe_fail(status, "%s", world.text[rank]);
}

static void *ask(void *arg) {
    while (!atomic_load(&world.is_over)) {
        pthread_mutex_lock(&source_lock);
        if (source != NULL) {
            troupe_runtime_request_report(source);
        }
        pthread_mutex_unlock(&source_lock);
        usleep(20000);
    }
    return arg;
}

static void run_job(void) {
    pthread_t thread;
    bool asked = world.asked && pthread_create(&thread, NULL, ask, NULL) == 0;
    (void)troupe_job_run(&(struct troupe_job_options){.ranks = RANKS}, run_rank, NULL);
    if (asked) {
        pthread_join(thread, NULL);
    }
}

/* Runs the job with standard error in `text`. */
static void meet(enum fault fault, bool asked, char *text, size_t bytes) {
    world = (struct world){.fault = fault, .asked = asked};
    FILE *file = tmpfile();
    EXPECT(file != NULL, "no temporary file");
    fflush(stderr);
    int kept = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    run_job();
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    text[fread(text, 1, bytes - 1, file)] = '\0';
    fclose(file);
}

static void expect_text(const char *text, const char *part) {
    EXPECT(strstr(text, part) != NULL, "\"%s\" does not say \"%s\"", text, part);
}

static int count(const char *text, const char *part) {
    int found = 0;
    for (const char *at = strstr(text, part); at != NULL; at = strstr(at + 1, part)) {
        found++;
    }
    return found;
}

/* Every rank ends with the cause, one of them as the rank that noticed. */
static void expect_cause(const char *screen, const char *cause) {
    int noticed = 0;
    for (int r = 0; r < RANKS; r++) {
        noticed += world.seen[r] == TROUPE_ERROR_STALL;
        EXPECT(world.seen[r] == TROUPE_ERROR_STALL || world.seen[r] == TROUPE_ERROR_ABORTED,
               "rank %d: %s", r, world.text[r]);
        expect_text(world.text[r], cause);
    }
    EXPECT_EQ(noticed, 1);
    EXPECT_EQ(count(screen, "troupe: no progress for"), 1);
    expect_text(screen, cause);
    EXPECT(count(screen, "\n") <= 24, "more than a screen:\n%s", screen);
}

static void without_a_fault_nothing_is_said(void) {
    static char screen[8192];
    meet(NO_FAULT, false, screen, sizeof screen);
    EXPECT_STRING(screen, "");
    EXPECT_EQ(world.seen[0], TROUPE_OK);
}

static void a_lost_message_is_named(void) {
    static char screen[8192];
    meet(LOST_MESSAGE, false, screen, sizeof screen);
    expect_cause(screen,
                 "in step 0: the message of worker -> sink (worker work 2) of step 0 has been sent "
                 "by rank 1 and has not arrived at rank 2");
    expect_text(screen, "worker -> sink at rank 2\n");
}

static void a_lost_credit_is_named(void) {
    static char screen[8192];
    meet(LOST_CREDIT, false, screen, sizeof screen);
    expect_cause(
        screen,
        "in step 0: 2 of 2 credits of worker -> sink are lost: sink consume 1 has taken its message and "
        "worker work");
}

static void a_dead_peer_is_named(void) {
    static char screen[8192];
    meet(DEAD_PEER, false, screen, sizeof screen);
    expect_cause(screen, "in step 0: rank 1 does not answer");
    expect_text(screen, "a ticket from its conductor, rank 1\n");
    expect_text(screen, "\n     1       -      -          -  does not answer\n");
}

static void a_policy_that_never_picks_is_named(void) {
    static char screen[8192];
    meet(IDLE_POLICY, false, screen, sizeof screen);
    expect_cause(screen,
                 "in step 0: order policy idle does not pick worker work 2, which could run");
}

static void a_cycle_is_named(void) {
    static char screen[8192];
    meet(CYCLE, false, screen, sizeof screen);
    expect_text(screen, " wait for each other");
    expect_text(screen, "which closes the cycle");
    expect_text(world.text[0], "worker work 2");
    expect_text(world.text[0], "sink consume 2");
}

/* Messages about waiting do not count as progress. */
static void questions_do_not_put_the_end_off(void) {
    static char screen[1 << 16];
    meet(LOST_MESSAGE, true, screen, sizeof screen);
    EXPECT_EQ(count(screen, "troupe: no progress for"), 1);
    EXPECT(count(screen, "troupe: who waits for what in step 0: ") >= 2, "nobody was asked: %s",
           screen);
    expect_text(world.text[0], "has not arrived at rank 2");
}

int main(int argc, char **argv) {
    idle_policy = argc > 1 ? argv[1] : "";
    TEST(without_a_fault_nothing_is_said);
    TEST(a_lost_message_is_named);
    TEST(a_lost_credit_is_named);
    TEST(a_dead_peer_is_named);
    TEST(a_policy_that_never_picks_is_named);
    TEST(a_cycle_is_named);
    TEST(questions_do_not_put_the_end_off);
    return TEST_END();
}
