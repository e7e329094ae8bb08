/* SPDX-License-Identifier: Apache-2.0 */
/* A switch that cannot be says why on every rank and leaves the job as it was: it goes on to the
 * very losses of a job that nobody disturbed. Among the reasons: memory that runs out on one rank,
 * at each of the allocations in turn. */
#include "runtime/memory.h"
#include "tests/e2e/loopback_job.h"

enum { RANKS = 4, STEPS = 6 };

static const char settings[] =
    "data.synthetic.samples=32 data.synthetic.images_max=2 data.max_images=2 train.steps=6";
static const char start[] =
    "placement.vision.ranks=0-3 placement.vision.dp=4 placement.llm.ranks=0-3 placement.llm.tp=2 "
    "placement.llm.dp=2";
static const char other[] =
    "placement.vision.ranks=0-1 placement.vision.dp=2 placement.llm.ranks=1-3 placement.llm.pp=3";

/* One attempt: what to ask for, by which ranks, and what the refusal says. */
struct attempt {
    const char *settings;
    int from_rank;    /* the ranks below ask for `other` */
    const char *says; /* NULL: it succeeds, and moves nothing */
};

struct story {
    const struct attempt *attempts; /* the first after step 1, and so on */
    int count;
    int starved_rank; /* after step 1 its memory runs out; -1: nobody's */
    double loss[STEPS];
    int64_t allocations;
};

static void make_config(struct troupe_config *config, const char *placement) {
    troupe_config_init(config);
    loopback_job_set(config, loopback_job_model);
    loopback_job_set(config, settings);
    loopback_job_set(config, placement);
    EXPECT_OK(troupe_config_resolve(config));
}

static void try_once(const struct attempt *attempt, int rank, troupe_train *train) {
    struct troupe_config *next = malloc(sizeof *next);
    struct troupe_switch_report report;
    make_config(next, rank < attempt->from_rank ? other : attempt->settings);
    troupe_status status = troupe_train_switch(train, next, &report);
    if (attempt->says == NULL) {
        EXPECT_OK(status);
        EXPECT_EQ(report.bytes_moved, 0);
        free(next);
        return;
    }
    EXPECT(status == TROUPE_ERROR_INVALID || status == TROUPE_ERROR_ABORTED, "rank %d: %s", rank,
           troupe_status_name(status));
    EXPECT(strstr(troupe_last_error(), attempt->says) != NULL, "rank %d: \"%s\" does not say %s",
           rank, troupe_last_error(), attempt->says);
    free(next);
}

/* Tries until there is memory for all of it; returns after how many allocations. Rank 0 takes longer
 * and longer strides, for this test's time. */
static int64_t starve(const struct story *story, int rank, troupe_train *train) {
    struct troupe_config *next = malloc(sizeof *next);
    struct troupe_switch_report report;
    make_config(next, other);
    bool starves = rank == story->starved_rank;
    for (int64_t allowed = 0;; allowed += story->starved_rank == 0 ? 1 + allowed / 50 : 1) {
        if (starves) {
            troupe_memory_fail_after(allowed);
        }
        troupe_status status = troupe_train_switch(train, next, &report);
        troupe_memory_fail_after(-1);
        if (status == TROUPE_OK) {
            free(next);
            return allowed;
        }
        EXPECT_EQ(status, starves ? TROUPE_ERROR_MEMORY : TROUPE_ERROR_ABORTED);
        EXPECT(strstr(troupe_last_error(), "the system refused") != NULL, "rank %d: %s", rank,
               troupe_last_error());
    }
}

static void tell(struct loopback_job *job, int rank, troupe_comm *comm) {
    struct story *story = job->arg;
    struct troupe_train_options options = {.config = &job->configs[rank], .comm = comm};
    struct troupe_step_report report;
    troupe_train *train = NULL;
    int64_t allocations = 0;
    EXPECT_OK(troupe_train_create(&options, &train));
    for (int step = 0; step < STEPS; step++) {
        EXPECT_OK(troupe_train_step(train, &report));
        if (step < story->count) {
            try_once(&story->attempts[step], rank, train);
        }
        if (step == 0 && story->starved_rank >= 0) {
            allocations = starve(story, rank, train);
        }
        if (rank == 0) {
            story->loss[step] = report.loss;
            story->allocations = allocations;
        }
    }
    troupe_train_destroy(train);
}

static void run(struct story *story) {
    static struct loopback_job job;
    job = (struct loopback_job){.ranks = RANKS, .body = tell, .arg = story};
    for (int r = 0; r < RANKS; r++) {
        make_config(&job.configs[r], start);
    }
    loopback_job_run(&job);
}

static struct story undisturbed = {.starved_rank = -1};

static void each_reason_is_said_and_training_goes_on(void) {
    static const struct attempt attempts[] = {
        {"placement.policy=clever", 0, "placement policy \"clever\" is not known"},
        {"placement.policy=./no-such.so", 0, "policy ./no-such.so cannot be loaded"},
        {"placement.vision.ranks=0-3 placement.llm.ranks=0-2 placement.llm.tp=3", 0,
         "placement.llm.tp: tp 3 does not divide 4 heads"},
        {"placement.vision.ranks=0-1 placement.llm.ranks=2-5", 0,
         "rank 5 does not exist"},
        {"placement.vision.ranks=0-1 placement.llm.ranks=2-3 placement.llm.tp=2", 3,
         "the ranks worked out different things"},
        {"placement.policy=colocated train.lr=7", 0, "not train.lr"},
    };
    struct story story = {.attempts = attempts, .count = STEPS, .starved_rank = -1};
    run(&story);
    for (int i = 0; i < STEPS; i++) {
        EXPECT_NEAR(story.loss[i], undisturbed.loss[i], 0);
    }
}

static void another_order_changes_no_loss(void) {
    static const struct attempt attempts[] = {
        {"schedule.order=clever placement.vision.ranks=0-3 placement.llm.ranks=0-3", 0,
         "order policy \"clever\" is not known"},
        {"schedule.order=fifo placement.vision.ranks=0-3 placement.vision.dp=4 "
         "placement.llm.ranks=0-3 placement.llm.tp=2 placement.llm.dp=2",
         0, NULL}};
    struct story story = {.attempts = attempts, .count = 2, .starved_rank = -1};
    run(&story);
    for (int i = 0; i < STEPS; i++) {
        EXPECT_NEAR(story.loss[i], undisturbed.loss[i], 0);
    }
}

static void no_lack_of_memory_harms(void) {
    for (int rank = 0; rank < RANKS; rank += 3) {
        struct story story = {.starved_rank = rank};
        run(&story);
        EXPECT_NEAR(story.loss[0], undisturbed.loss[0], 0);
        for (int i = 1; i < STEPS; i++) {
            EXPECT_NEAR(story.loss[i], undisturbed.loss[i], 1e-5 * undisturbed.loss[i]);
        }
        EXPECT(story.allocations > 100, "only %" PRId64 " allocations", story.allocations);
        printf("    rank %d: refused at %" PRId64 " allocations\n", rank, story.allocations);
    }
}

int main(void) {
    run(&undisturbed);
    TEST(each_reason_is_said_and_training_goes_on);
    TEST(another_order_changes_no_loss);
    TEST(no_lack_of_memory_harms);
    return TEST_END();
}
