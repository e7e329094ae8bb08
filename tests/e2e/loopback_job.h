/* SPDX-License-Identifier: Apache-2.0
 *
 * A training job whose ranks are threads of the test: each rank has a configuration of its own, so
 * that a test can make them disagree.
 *
 *     struct loopback_job job = {.ranks = 4, .body = train_some_steps, .arg = &seen};
 *     loopback_job_configure(&job, loopback_job_model);
 *     loopback_job_run(&job);
 *
 * Ownership: the caller's storage; `comm` is open while the body runs. Threads: one a rank.
 * Failure: what the test does not expect ends the program.
 */
#ifndef TROUPE_TESTS_E2E_LOOPBACK_JOB_H
#define TROUPE_TESTS_E2E_LOOPBACK_JOB_H

#include <pthread.h>

#include "modules/train/train.h"
#include "tests/test.h"

enum { LOOPBACK_JOB_RANKS_MAX = 8 };

struct loopback_job {
    int ranks;
    uint64_t seed;        /* of delays and reorderings */
    int64_t delay_ns_max; /* of a message; 0: none */
    void (*body)(struct loopback_job *job, int rank, troupe_comm *comm);
    void *arg;
    struct troupe_config configs[LOOPBACK_JOB_RANKS_MAX]; /* by rank */
};

struct loopback_job_rank {
    struct loopback_job *job;
    troupe_loopback *world;
    int rank;
    pthread_t thread;
};

/* A model of a few thousand parameters that trains in milliseconds; no placement, no data. */
static const char loopback_job_model[] __attribute__((unused)) =
    "model.vision.layers=2 model.vision.hidden=24 model.vision.heads=4 model.vision.ffn=40 "
    "model.vision.patch=4 model.vision.image=16 model.projector.hidden=20 model.llm.layers=4 "
    "model.llm.hidden=32 model.llm.heads=4 model.llm.ffn=44 model.llm.sequence=96 "
    "train.global_batch=8 train.microbatches=4 train.lr=1e-3 train.workers=1";

/* "a.b=1 c.d=2" */
static inline void loopback_job_set(struct troupe_config *config, const char *settings) {
    char copy[2048], *rest = NULL;
    EXPECT(snprintf(copy, sizeof copy, "%s", settings) < (int)sizeof copy, "settings too long");
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        EXPECT_OK(troupe_config_set(config, word));
    }
}

/* Defaults and these settings on every rank; not resolved, so that a test may add more. */
static inline void loopback_job_configure(struct loopback_job *job, const char *settings) {
    for (int r = 0; r < job->ranks; r++) {
        troupe_config_init(&job->configs[r]);
        loopback_job_set(&job->configs[r], settings);
    }
}

static void *loopback_job_rank_main(void *arg) {
    struct loopback_job_rank *me = arg;
    troupe_comm *comm = NULL;
    EXPECT_OK(troupe_comm_open_loopback(me->world, me->rank, &comm));
    me->job->body(me->job, me->rank, comm);
    troupe_comm_close(comm);
    return NULL;
}

static inline void loopback_job_run(struct loopback_job *job) {
    struct loopback_job_rank all[LOOPBACK_JOB_RANKS_MAX];
    troupe_loopback *world = NULL;
    EXPECT_OK(troupe_loopback_create(
        &(struct troupe_loopback_options){
            .ranks = job->ranks, .seed = job->seed, .delay_ns_max = job->delay_ns_max},
        &world));
    for (int r = 0; r < job->ranks; r++) {
        EXPECT_OK(troupe_config_resolve(&job->configs[r]));
        all[r] = (struct loopback_job_rank){.job = job, .world = world, .rank = r};
        EXPECT_EQ(pthread_create(&all[r].thread, NULL, loopback_job_rank_main, &all[r]), 0);
    }
    for (int r = 0; r < job->ranks; r++) {
        pthread_join(all[r].thread, NULL);
    }
    troupe_loopback_destroy(world);
}

#endif
