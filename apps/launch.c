/* SPDX-License-Identifier: Apache-2.0 */
#include "apps/launch.h"

#include <stdio.h>
#include <string.h>

#include "actors/job.h"
#include "comm/group.h"
#include "runtime/device.h"
#include "runtime/log.h"
#include "runtime/memory.h"
#include "runtime/options.h"
#include "runtime/topology.h"

enum { CORES_MAX = 1024, PROCESSORS_MAX = 4096 };

struct job {
    const struct launch_options *options;
    struct troupe_options environment;
    troupe_topology *topology; /* opened once: hwloc's helpers do not like several threads */
    launch_body body;
    void *arg;
};

/* Where a rank may run: as the launcher left it, next to its GPU. Ranks of one host with equal
 * sets share them. */
struct place {
    int host;
    unsigned char processors[PROCESSORS_MAX / 8];
};

static troupe_status gather_places(troupe_comm *comm, const struct place *mine,
                                   struct place *places) {
    troupe_group *group = NULL;
    struct troupe_group_options options = {.id = TROUPE_GROUP_ID_LAUNCH, .bytes_max = sizeof *mine};
    TROUPE_TRY(troupe_group_create(comm, &options, &group));
    troupe_status status = troupe_group_all_gather(group, mine, sizeof *mine, places);
    troupe_group_destroy(group);
    return status;
}

/* gpu: PCI bus id of this rank's, or "". */
static troupe_status slice_of(const struct job *job, troupe_comm *comm, const char *gpu,
                              struct troupe_slice *out) {
    struct place *places = NULL, mine;
    int rank = troupe_comm_rank(comm), size = troupe_comm_size(comm);
    memset(&mine, 0, sizeof mine);
    mine.host = troupe_comm_host(comm, rank);
    troupe_topology_processors(job->topology, gpu, mine.processors, sizeof mine.processors);
    TROUPE_TRY(TROUPE_NEW(&places, size));
    troupe_status status = gather_places(comm, &mine, places);
    *out = (struct troupe_slice){.gpu = gpu};
    for (int r = 0; status == TROUPE_OK && r < size; r++) {
        bool same = memcmp(&places[r], &mine, sizeof mine) == 0;
        out->index += same && r < rank;
        out->count += same;
    }
    troupe_free(places);
    return status;
}

/* The bus id of the GPU that this rank will open; "" if it opens none. */
static void find_gpu(const struct job *job, const troupe_comm *comm, char *text, size_t bytes) {
    enum troupe_device_kind kind = TROUPE_DEVICE_CPU;
    text[0] = '\0';
    if (job->options->device != NULL &&
        troupe_device_kind_find(job->options->device, &kind) == TROUPE_OK) {
        int count = troupe_device_count(kind);
        if (count > 0) {
            troupe_device_locate(kind, troupe_comm_host_index(comm) % count, text, bytes);
        }
    }
}

/* Binds this rank to its share of the cores and makes its team. */
static troupe_status settle(const struct job *job, troupe_comm *comm, troupe_workers **out) {
    int cores[CORES_MAX];
    char text[320], gpu[32];
    struct troupe_slice slice;
    find_gpu(job, comm, gpu, sizeof gpu);
    TROUPE_TRY(slice_of(job, comm, gpu, &slice));
    int count = troupe_topology_cores(job->topology, slice, cores, CORES_MAX);
    bool binds = strcmp(job->environment.bind, "yes") == 0;
    snprintf(text, sizeof text, "not bound (TROUPE_BIND no)");
    if (binds) {
        troupe_topology_bind(job->topology, slice, text, sizeof text);
    }
    TROUPE_LOG_INFO("launch", "%s, %s", troupe_comm_name(comm), text);
    if (job->options->verbose) {
        printf("rank %d: %s, %s\n", troupe_comm_rank(comm), troupe_comm_name(comm), text);
        fflush(stdout);
    }
    int wanted = job->options->workers > 0 ? job->options->workers : (int)job->environment.threads;
    int threads = wanted > 0 ? wanted : count;
    return troupe_workers_create(
        &(struct troupe_workers_options){.count = threads,
                                         .cores = binds && threads <= count ? cores : NULL},
        out);
}

static troupe_status run_rank(void *arg, troupe_comm *comm) {
    const struct job *job = arg;
    troupe_workers *workers = NULL;
    troupe_status status = settle(job, comm, &workers);
    if (status == TROUPE_OK) {
        status = job->body(job->arg, comm, workers);
    }
    troupe_workers_destroy(workers);
    bool about_this_rank = status != TROUPE_OK && status != TROUPE_ERROR_ABORTED &&
                           status != TROUPE_ERROR_INVALID && troupe_comm_size(comm) > 1;
    return about_this_rank ? troupe_fail_in(status, "rank %d", troupe_comm_rank(comm)) : status;
}

troupe_status launch(const struct launch_options *options, launch_body body, void *arg) {
    struct job job = {.options = options, .body = body, .arg = arg};
    if (options->refused != TROUPE_OK) {
        return troupe_job_run(
            &(struct troupe_job_options){.ranks = options->ranks, .refused = options->refused},
            run_rank, NULL);
    }
    TROUPE_TRY(troupe_options_read(&job.environment));
    TROUPE_TRY(troupe_topology_open(&(struct troupe_topology_options){0}, &job.topology));
    const char *forced = job.environment.provider;
    struct troupe_job_options of_job = {
        .ranks = options->ranks,
        .provider = strcmp(forced, "auto") != 0 ? forced : options->provider};
    troupe_status status = troupe_job_run(&of_job, run_rank, &job);
    troupe_topology_close(job.topology);
    return status;
}
