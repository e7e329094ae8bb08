/* SPDX-License-Identifier: Apache-2.0
 *
 * Rank 1 leaves in the middle, and the others are in a collective on their devices that can never
 * end. Each must get a status and a sentence within 10 s, its stream must run dry, and it must be
 * able to close everything. MODE abort: rank 1 gives up and says why. MODE kill: it dies (started
 * by peer_death.sh, which counts the survivors). device_job.h says how it is started.
 */
#include <signal.h>

#include "tests/dist/device_job.h"

enum { LEAVER = 1, LIMIT_S = 10, COUNT = 1 << 20 };

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void leave(struct device_job *job) {
    double begin = seconds();
    while (seconds() - begin < 0.2) { /* the others have come to their collective */
        job_step(job);
    }
    if (strcmp(job->mode, "kill") == 0) {
        kill(getpid(), SIGKILL);
    }
    troupe_comm_abort(job->comm, "the test is over");
    EXPECT_ERROR(troupe_comm_failure(job->comm), TROUPE_ERROR_ABORTED, "the test is over");
}

/* The call itself may wait (staged) or not (nccl); then the endpoint tells. */
static void wait_in_vain(struct device_job *job, troupe_group *group, void *data) {
    bool killed = strcmp(job->mode, "kill") == 0;
    double begin = seconds();
    troupe_status status = troupe_group_enqueue_all_reduce(group, job->stream, TROUPE_SUM,
                                                           TROUPE_ELEMENT_FLOAT32, data, COUNT);
    while (status == TROUPE_OK) {
        EXPECT(seconds() - begin < LIMIT_S, "rank %d still waits", job->rank);
        if (troupe_comm_progress(job->comm) == 0) {
            troupe_comm_idle(job->comm);
        }
        status = troupe_comm_failure(job->comm);
    }
    double took = seconds() - begin;
    EXPECT(took < LIMIT_S, "rank %d noticed after %.1f s", job->rank, took);
    EXPECT_ERROR(troupe_comm_failure(job->comm), killed ? TROUPE_ERROR_PEER : TROUPE_ERROR_ABORTED,
                 killed ? "rank 1 is lost: " : "rank 1 ended the job: the test is over");
    printf("survivor %d after %.3f s: %s\n", job->rank, took, troupe_last_error());
    fflush(stdout);
    troupe_comm_progress(job->comm); /* withdraws what is in flight, the communicators too */
    EXPECT_OK(troupe_stream_synchronize(job->stream));
}

static void the_others_get_a_status_and_dry_streams(struct device_job *job) {
    void *data = job_alloc(job, COUNT * sizeof(float));
    struct troupe_group_device_options options = {.engine = job->engine};
    troupe_group *group = job_group(job, NULL, 0, 8, COUNT * sizeof(float));
    EXPECT_OK(troupe_groups_open_device(job->comm, job->device, &group, 1, &options));
    EXPECT_OK(troupe_group_enqueue_all_reduce(group, job->stream, TROUPE_SUM,
                                              TROUPE_ELEMENT_FLOAT32, data, COUNT));
    job_finish(job, job->stream);
    if (job->rank == LEAVER) {
        leave(job);
    } else {
        wait_in_vain(job, group, data);
    }
    EXPECT(troupe_group_enqueue_all_reduce(group, job->stream, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32,
                                           data, 1) != TROUPE_OK,
           "the endpoint has failed, but takes work");
    troupe_group_destroy(group);
    troupe_device_free(job->device, data);
}

int main(int argc, char **argv) {
    return device_job_main(argc, argv, the_others_get_a_status_and_dry_streams);
}
