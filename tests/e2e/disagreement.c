/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that do not agree about the job: each such difference must end it on every rank with a
 * sentence that names what differs, and must never train. The ranks get different configurations,
 * as if someone had edited one host's copy of the file. */
#include "tests/e2e/loopback_job.h"

/* What a rank's first failure said. */
struct verdict {
    troupe_status status;
    int64_t steps;
    char text[512];
};

static void train_until_failure(struct loopback_job *job, int rank, troupe_comm *comm) {
    struct verdict *verdict = (struct verdict *)job->arg + rank;
    struct troupe_train_options options = {.config = &job->configs[rank], .comm = comm};
    struct troupe_step_report report;
    troupe_train *train = NULL;
    verdict->steps = 0;
    verdict->status = troupe_train_create(&options, &train);
    while (verdict->status == TROUPE_OK && verdict->steps < job->configs[rank].train.steps) {
        verdict->status = troupe_train_step(train, &report);
        verdict->steps += verdict->status == TROUPE_OK;
    }
    snprintf(verdict->text, sizeof verdict->text, "%s", troupe_last_error());
    if (verdict->status != TROUPE_OK) {
        troupe_comm_abort(comm, verdict->text);
    }
    troupe_train_destroy(train);
}

static bool says_all(const char *text, const char *const *parts) {
    for (; *parts != NULL; parts++) {
        if (strstr(text, *parts) == NULL) {
            return false;
        }
    }
    return true;
}

/* Every rank fails before its first update; one at least with this status and these words. */
static void expect_refused(const char *common, const char *odd_settings, int first_odd,
                           troupe_status status, const char *const *parts) {
    static struct verdict verdicts[4];
    static struct loopback_job job;
    job = (struct loopback_job){.ranks = 4, .body = train_until_failure, .arg = verdicts};
    loopback_job_configure(&job, loopback_job_model);
    for (int r = 0; r < job.ranks; r++) {
        loopback_job_set(&job.configs[r], common);
        loopback_job_set(&job.configs[r], "train.steps=3 placement.vision.ranks=0-1 "
                                          "placement.vision.dp=2 placement.llm.ranks=2-3 "
                                          "placement.llm.tp=2");
        if (r >= first_odd) {
            loopback_job_set(&job.configs[r], odd_settings);
        }
    }
    loopback_job_run(&job);
    int found = 0;
    for (int r = 0; r < job.ranks; r++) {
        printf("    rank %d: %s\n", r, verdicts[r].text);
        EXPECT(verdicts[r].status != TROUPE_OK, "rank %d trained", r);
        EXPECT_EQ(verdicts[r].steps, 0);
        found += verdicts[r].status == status && says_all(verdicts[r].text, parts);
    }
    EXPECT(found > 0, "no rank said what differs");
}

/* Samples of one size: both orders make the same rows, so that only the samples differ. */
static const char same_sizes[] =
    "model.vision.image=4 data.synthetic.samples=64 data.synthetic.text_min=12 "
    "data.synthetic.text_max=12";

static void another_sample_order_is_named_with_both_sides(void) {
    static const char *const parts[] = {"edge projector->llm: rank ", " sent to rank ",
                                        " of step 0 microbatch 0 ",
                                        "the two modules disagree about the samples", NULL};
    expect_refused(same_sizes, "train.seed=2", 2, TROUPE_ERROR_CONTRACT, parts);
}

/* The same pictures with longer captions: as many rows, but another number of target tokens. */
static void another_normaliser_is_named_with_both_sides(void) {
    static const char *const parts[] = {"edge projector->llm: rank ", " sent to rank ",
                                        " of step 0 microbatch 0 ", "normalisation", NULL};
    expect_refused(same_sizes, "data.synthetic.text_min=13 data.synthetic.text_max=13", 2,
                   TROUPE_ERROR_CONTRACT, parts);
}

/* Other orders of ragged samples: a message of another size, or the header of one that happens to
 * have the same, whichever comes first. */
static void another_order_of_ragged_samples_is_named_with_both_sides(void) {
    static const char *const parts[] = {"edge projector->llm", "microbatch 0", "step 0", "rank ",
                                        NULL};
    expect_refused("data.synthetic.samples=64 data.synthetic.text_min=12 "
                   "data.synthetic.text_max=12",
                   "train.seed=2", 2, TROUPE_ERROR_CONTRACT, parts);
}

static void another_graph_is_refused_at_the_start(void) {
    static const char *const parts[] = {
        "rank 2 built another graph than rank 0: ", "connect vision->projector", NULL};
    expect_refused(same_sizes, "schedule.credits=3", 2, TROUPE_ERROR_INVALID, parts);
}

int main(void) {
    TEST(another_sample_order_is_named_with_both_sides);
    TEST(another_normaliser_is_named_with_both_sides);
    TEST(another_order_of_ragged_samples_is_named_with_both_sides);
    TEST(another_graph_is_refused_at_the_start);
    return TEST_END();
}
