/* SPDX-License-Identifier: Apache-2.0 */
/* Training in which one message of a boundary is not what it should be, forward or backward: the
 * step must not be finished by any rank, and the message says edge, both ranks, step, microbatch
 * and what differs. Samples have one size, so that nothing but the fault tells messages apart. The
 * order lets the next message follow whether or not one is held back: gpipe. */
#include "tests/e2e/loopback_job.h"
#include "tests/tamper.h"

enum { RANKS = 4, STEP = 1, MICROBATCH = 1, MICROBATCHES = 4, STEPS = 3 };

/* What a rank's first failure said. */
struct verdict {
    troupe_status status;
    int64_t steps;
    char text[512];
};

struct trial {
    int sender;
    struct tamper tamper;
    struct verdict verdicts[RANKS];
};

static void train_until_failure(struct loopback_job *job, int rank, troupe_comm *comm) {
    struct trial *trial = job->arg;
    struct verdict *verdict = &trial->verdicts[rank];
    struct troupe_train_options options = {.config = &job->configs[rank], .comm = comm};
    struct troupe_step_report report;
    troupe_train *train = NULL;
    if (rank == trial->sender) {
        tamper_install(&trial->tamper, comm);
    }
    verdict->status = troupe_train_create(&options, &train);
    while (verdict->status == TROUPE_OK && verdict->steps < STEPS) {
        verdict->status = troupe_train_step(train, &report);
        verdict->steps += verdict->status == TROUPE_OK;
    }
    snprintf(verdict->text, sizeof verdict->text, "%s", troupe_last_error());
    if (verdict->status != TROUPE_OK) {
        troupe_comm_abort(comm, verdict->text);
    }
    troupe_train_destroy(train);
}

static void run(struct trial *trial, const char *settings) {
    static struct loopback_job job;
    job = (struct loopback_job){.ranks = RANKS, .body = train_until_failure, .arg = trial};
    loopback_job_configure(&job, loopback_job_model);
    for (int r = 0; r < RANKS; r++) {
        loopback_job_set(&job.configs[r], "model.vision.image=4 data.synthetic.samples=64 "
                                          "data.synthetic.text_min=12 data.synthetic.text_max=12 "
                                          "placement.vision.ranks=0-1 placement.vision.dp=2 "
                                          "placement.llm.ranks=2-3 placement.llm.tp=2 "
                                          "schedule.order=gpipe");
        loopback_job_set(&job.configs[r], settings);
    }
    loopback_job_run(&job);
}

static const char *edge_of(int sender) {
    return sender < 2 ? "projector->llm" : "projector->llm gradients";
}

/* By the receiver's own words; the others are told. They begin as the format says of the edge and
 * the two ranks. */
static void expect_stopped(const struct tamper *tamper, int sender, const char *format,
                           const char *difference) {
    static struct trial trial;
    char expected[256];
    trial = (struct trial){.sender = sender, .tamper = *tamper};
    run(&trial, "comm.stall_s=20");
    EXPECT(trial.tamper.done, "rank %d sent no such message", sender);
    const struct verdict *receiver = &trial.verdicts[trial.tamper.peer];
    snprintf(expected, sizeof expected, format, edge_of(sender), sender, trial.tamper.peer);
    printf("    rank %d: %s\n", trial.tamper.peer, receiver->text);
    EXPECT_EQ(receiver->status, TROUPE_ERROR_CONTRACT);
    EXPECT(strstr(receiver->text, expected) != NULL, "it does not say \"%s\"", expected);
    EXPECT(strstr(receiver->text, difference) != NULL, "it does not say \"%s\"", difference);
    for (int r = 0; r < RANKS; r++) {
        EXPECT(trial.verdicts[r].status != TROUPE_OK, "rank %d trained on", r);
        EXPECT(trial.verdicts[r].steps <= STEP, "rank %d finished the step", r);
    }
}

static void expect_stopped_both_ways(enum tamper_kind kind, const char *format,
                                     const char *difference) {
    struct tamper tamper = {.kind = kind, .step = STEP, .microbatch = MICROBATCH};
    expect_stopped(&tamper, 0, format, difference); /* forward: an encoder */
    expect_stopped(&tamper, 2, format, difference); /* backward: the language model */
}

/* Nothing comes after the last microbatch of the step that could be in its place. */
static void expect_stall(int sender) {
    static struct trial trial;
    trial = (struct trial){
        .sender = sender,
        .tamper = {.kind = TAMPER_LOST, .step = STEP, .microbatch = MICROBATCHES - 1}};
    run(&trial, "comm.stall_s=0.5");
    EXPECT(trial.tamper.done, "rank %d sent no such message", sender);
    char by[64], at[64], edge[64];
    snprintf(edge, sizeof edge, "the message of %s (", edge_of(sender));
    snprintf(by, sizeof by, " 3) of step 1 has been sent by rank%s %d", sender < 2 ? "" : "s",
             sender);
    snprintf(at, sizeof at, "and has not arrived at rank %d", trial.tamper.peer);
    const char *const parts[] = {edge, by, at};
    printf("    %s\n", trial.verdicts[0].text);
    for (int r = 0; r < RANKS; r++) {
        EXPECT(trial.verdicts[r].status != TROUPE_OK, "rank %d trained on", r);
        for (size_t i = 0; i < TROUPE_COUNT_OF(parts); i++) {
            EXPECT(strstr(trial.verdicts[r].text, parts[i]) != NULL,
                   "rank %d: \"%s\" does not say \"%s\"", r, trial.verdicts[r].text, parts[i]);
        }
    }
}

#define HEADER "edge %s: rank %d sent to rank %d rows "

static void nothing_is_noticed_without_a_fault(void) {
    static struct trial trial;
    for (trial.sender = 0; trial.sender < RANKS; trial.sender++) {
        run(&trial, "comm.stall_s=20");
        for (int r = 0; r < RANKS; r++) {
            EXPECT_EQ(trial.verdicts[r].status, TROUPE_OK);
            EXPECT_EQ(trial.verdicts[r].steps, STEPS);
            trial.verdicts[r] = (struct verdict){0};
        }
    }
}

static void other_samples_stop_the_step(void) {
    expect_stopped_both_ways(TAMPER_SAMPLES, HEADER, "of step 1 microbatch 1 with sample set ");
}

static void another_scale_stops_the_step(void) {
    expect_stopped_both_ways(TAMPER_SCALE, HEADER, "of step 1 microbatch 1 with normalisation ");
}

static void a_stale_step_stops_the_step(void) {
    expect_stopped_both_ways(TAMPER_STALE, HEADER, "of step 0 microbatch 1; rank ");
}

static void swapped_microbatches_stop_the_step(void) {
    expect_stopped_both_ways(TAMPER_SWAPPED, HEADER, "of step 1 microbatch 2; rank ");
}

static void a_truncated_payload_stops_the_step(void) {
    expect_stopped_both_ways(TAMPER_TRUNCATED, "edge %s, microbatch 1 of step 1: ", "bytes");
}

static void a_lost_message_stops_the_step(void) {
    expect_stopped_both_ways(TAMPER_LOST, HEADER, "of step 1 microbatch 2; rank ");
    expect_stall(0);
    expect_stall(2);
}

int main(void) {
    TEST(nothing_is_noticed_without_a_fault);
    TEST(other_samples_stop_the_step);
    TEST(another_scale_stops_the_step);
    TEST(a_stale_step_stops_the_step);
    TEST(swapped_microbatches_stop_the_step);
    TEST(a_truncated_payload_stops_the_step);
    TEST(a_lost_message_stops_the_step);
    return TEST_END();
}
