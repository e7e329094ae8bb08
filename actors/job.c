/* SPDX-License-Identifier: Apache-2.0 */
#include "actors/job.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/log.h"
#include "runtime/memory.h"

struct rank_thread {
    pthread_t thread;
    troupe_loopback *world;
    int rank;
    troupe_job_body body;
    void *arg;
    troupe_status status;
    char text[1024];
};

troupe_status troupe_job_abort(troupe_comm *comm, troupe_status status) {
    char why[1024];
    snprintf(why, sizeof why, "%s", troupe_last_error());
    troupe_comm_abort(comm, why);
    return troupe_fail(status, "%s", why);
}

static troupe_status run_body(troupe_comm *comm, troupe_job_body body, void *arg) {
    troupe_status status = body(arg, comm);
    return status == TROUPE_OK ? TROUPE_OK : troupe_job_abort(comm, status);
}

/* Runs the body and closes the endpoint; what closing meets does not replace the body's sentence.
 */
static troupe_status run_and_close(troupe_comm *comm, troupe_job_body body, void *arg) {
    char text[sizeof((struct rank_thread *)NULL)->text];
    troupe_status status = run_body(comm, body, arg);
    snprintf(text, sizeof text, "%s", troupe_last_error());
    troupe_comm_close(comm);
    return status == TROUPE_OK ? TROUPE_OK : troupe_fail(status, "%s", text);
}

static void *run_rank(void *arg) {
    struct rank_thread *rank = arg;
    troupe_comm *comm = NULL;
    troupe_log_set_rank(rank->rank);
    rank->status = troupe_comm_open_loopback(rank->world, rank->rank, &comm);
    if (rank->status == TROUPE_OK) {
        rank->status = run_and_close(comm, rank->body, rank->arg);
    }
    snprintf(rank->text, sizeof rank->text, "%s", troupe_last_error());
    return NULL;
}

/* The failure of the rank that began it: an abort is only its echo. */
static troupe_status first_failure(const struct rank_thread *ranks, int count) {
    const struct rank_thread *first = NULL;
    for (int r = 0; r < count; r++) {
        if (ranks[r].status != TROUPE_OK &&
            (first == NULL ||
             (first->status == TROUPE_ERROR_ABORTED && ranks[r].status != TROUPE_ERROR_ABORTED))) {
            first = &ranks[r];
        }
    }
    return first == NULL ? TROUPE_OK : troupe_fail(first->status, "%s", first->text);
}

static troupe_status run_threads(troupe_loopback *world, struct rank_thread *ranks, int count,
                                 troupe_job_body body, void *arg) {
    for (int r = 0; r < count; r++) {
        ranks[r] = (struct rank_thread){.world = world, .rank = r, .body = body, .arg = arg};
        int error = pthread_create(&ranks[r].thread, NULL, run_rank, &ranks[r]);
        TROUPE_ASSERT(error == 0, "cannot start the thread of rank %d of %d: %s", r, count,
                      strerror(error));
    }
    for (int r = 0; r < count; r++) {
        pthread_join(ranks[r].thread, NULL);
    }
    return first_failure(ranks, count);
}

static troupe_status run_loopback(const struct troupe_job_options *options, troupe_job_body body,
                                  void *arg) {
    struct rank_thread *ranks = NULL;
    troupe_loopback *world = NULL;
    TROUPE_TRY(TROUPE_NEW(&ranks, options->ranks));
    troupe_status status = troupe_loopback_create(
        &(struct troupe_loopback_options){
            .ranks = options->ranks, .seed = options->seed, .delay_ns_max = options->delay_ns_max},
        &world);
    if (status == TROUPE_OK) {
        status = run_threads(world, ranks, options->ranks, body, arg);
    }
    troupe_loopback_destroy(world);
    troupe_free(ranks);
    return status;
}

static troupe_status run_process(const struct troupe_job_options *options, troupe_job_body body,
                                 void *arg) {
    troupe_comm *comm = NULL;
    TROUPE_TRY(
        troupe_comm_open(&(struct troupe_comm_options){.provider = options->provider}, &comm));
    troupe_log_set_rank(troupe_comm_rank(comm));
    return run_and_close(comm, body, arg);
}

troupe_status troupe_job_run(const struct troupe_job_options *options, troupe_job_body body,
                             void *arg) {
    TROUPE_ASSERT(options->ranks >= 0, "a job of %d ranks", options->ranks);
    return options->ranks > 0 ? run_loopback(options, body, arg) : run_process(options, body, arg);
}

int troupe_job_main(const struct troupe_job_options *options, troupe_job_body body, void *arg) {
    troupe_status status = troupe_job_run(options, body, arg);
    if (status != TROUPE_OK && status != TROUPE_ERROR_ABORTED) {
        fprintf(stderr, "error: %s\n", troupe_last_error());
    }
    return status == TROUPE_OK ? 0 : 1;
}
