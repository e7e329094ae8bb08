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

/* Only the rank that failed ends the job, not one that has heard of it from that rank. */
static troupe_status run_body(troupe_comm *comm, troupe_job_body body, void *arg) {
    troupe_status status = body(arg, comm);
    bool fails = status != TROUPE_OK && status != TROUPE_ERROR_ABORTED;
    return fails ? troupe_job_abort(comm, status) : status;
}

/* Runs the body and closes the endpoint; what closing meets does not replace the body's sentence.
 */
static troupe_status run_and_close(troupe_comm *comm, troupe_job_body body, void *arg) {
    char text[sizeof((struct rank_thread *)NULL)->text];
    troupe_status status = run_body(comm, body, arg);
    bool speaks = !troupe_comm_is_spoken_for(comm);
    snprintf(text, sizeof text, "%s", speaks ? troupe_last_error() : "");
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

/* Another rank's failure has ended this one, or has been said by another. */
static bool is_echo(const struct rank_thread *rank) {
    return rank->status == TROUPE_ERROR_ABORTED || rank->text[0] == '\0';
}

/* The failure of the rank that began it. */
static troupe_status first_failure(const struct rank_thread *ranks, int count) {
    const struct rank_thread *first = NULL;
    for (int r = 0; r < count; r++) {
        if (ranks[r].status != TROUPE_OK &&
            (first == NULL || (is_echo(first) && !is_echo(&ranks[r])))) {
            first = &ranks[r];
        }
    }
    return first == NULL ? TROUPE_OK : troupe_fail(first->status, "%s", first->text);
}

/* A rank whose thread cannot start ends the job for those that did. */
static troupe_status refuse_thread(struct rank_thread *rank, int count, int error) {
    char why[sizeof rank->text];
    snprintf(why, sizeof why, "the thread of rank %d of %d cannot be started: %s", rank->rank,
             count, strerror(error));
    troupe_comm *comm = NULL;
    TROUPE_TRY(troupe_comm_open_loopback(rank->world, rank->rank, &comm));
    troupe_comm_abort(comm, why);
    troupe_comm_close(comm);
    return troupe_fail(TROUPE_ERROR_IO, "%s", why);
}

static troupe_status run_threads(troupe_loopback *world, struct rank_thread *ranks, int count,
                                 troupe_job_body body, void *arg) {
    int started = 0;
    troupe_status status = TROUPE_OK;
    for (; started < count; started++) {
        struct rank_thread *rank = &ranks[started];
        *rank = (struct rank_thread){.world = world, .rank = started, .body = body, .arg = arg};
        int error = pthread_create(&rank->thread, NULL, run_rank, rank);
        if (error != 0) {
            status = refuse_thread(rank, count, error);
            break;
        }
    }
    char text[sizeof ranks->text];
    snprintf(text, sizeof text, "%s", troupe_last_error());
    for (int r = 0; r < started; r++) {
        pthread_join(ranks[r].thread, NULL);
    }
    return status != TROUPE_OK ? troupe_fail(status, "%s", text) : first_failure(ranks, started);
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

static troupe_status refuse(const struct troupe_job_options *options) {
    char why[1024];
    snprintf(why, sizeof why, "%s", troupe_last_error());
    bool speaks = options->ranks > 0 || troupe_comm_refuse(why);
    return troupe_fail(options->refused, "%s", speaks ? why : "");
}

troupe_status troupe_job_run(const struct troupe_job_options *options, troupe_job_body body,
                             void *arg) {
    TROUPE_ASSERT(options->ranks >= 0, "a job of %d ranks", options->ranks);
    if (options->refused != TROUPE_OK) {
        return refuse(options);
    }
    return options->ranks > 0 ? run_loopback(options, body, arg) : run_process(options, body, arg);
}

int troupe_job_main(const struct troupe_job_options *options, troupe_job_body body, void *arg) {
    troupe_status status = troupe_job_run(options, body, arg);
    bool speaks = status != TROUPE_ERROR_ABORTED && troupe_last_error()[0] != '\0';
    if (status != TROUPE_OK && speaks) {
        fprintf(stderr, "error: %s\n", troupe_last_error());
    }
    return status == TROUPE_OK ? 0 : 1;
}
