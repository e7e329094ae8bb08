/* SPDX-License-Identifier: Apache-2.0 */
#include "apps/launch.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/group.h"
#include "runtime/log.h"
#include "runtime/memory.h"
#include "runtime/options.h"
#include "runtime/topology.h"

enum { CORES_MAX = 1024, PLACES_GROUP = (1 << 20) - 2 };

typedef troupe_status (*launch_body)(void *arg, troupe_comm *comm, troupe_workers *workers);

/* Where a rank may run, as the launcher left it. Ranks of one host with equal sets share them. */
struct place {
    int host;
    cpu_set_t cores;
};

static troupe_status gather_places(troupe_comm *comm, struct place *places) {
    troupe_group *group = NULL;
    int *ranks = NULL;
    int count = troupe_comm_size(comm);
    TROUPE_TRY(TROUPE_NEW(&ranks, count));
    for (int r = 0; r < count; r++) {
        ranks[r] = r;
    }
    struct place mine;
    memset(&mine, 0, sizeof mine);
    mine.host = troupe_comm_host(comm, troupe_comm_rank(comm));
    sched_getaffinity(0, sizeof mine.cores, &mine.cores);
    troupe_status status = troupe_group_create(
        comm,
        &(struct troupe_group_options){
            .ranks = ranks, .count = count, .id = PLACES_GROUP, .bytes_max = sizeof mine},
        &group);
    if (status == TROUPE_OK) {
        status = troupe_group_all_gather(group, &mine, sizeof mine, places);
    }
    troupe_group_destroy(group);
    troupe_free(ranks);
    return status;
}

static troupe_status slice_of(troupe_comm *comm, struct troupe_slice *out) {
    struct place *places = NULL;
    int rank = troupe_comm_rank(comm), size = troupe_comm_size(comm);
    TROUPE_TRY(TROUPE_NEW(&places, size));
    troupe_status status = gather_places(comm, places);
    *out = (struct troupe_slice){0, 0};
    for (int r = 0; status == TROUPE_OK && r < size; r++) {
        bool same =
            places[r].host == places[rank].host && CPU_EQUAL(&places[r].cores, &places[rank].cores);
        out->index += same && r < rank;
        out->count += same;
    }
    troupe_free(places);
    return status;
}

/* Binds this rank to its share of the cores and makes its team. */
static troupe_status settle(const struct launch_options *options, troupe_comm *comm,
                            const struct troupe_options *environment, troupe_workers **out) {
    int cores[CORES_MAX];
    char text[256];
    troupe_topology *topology = NULL;
    struct troupe_slice slice;
    TROUPE_TRY(slice_of(comm, &slice));
    TROUPE_TRY(troupe_topology_open(&(struct troupe_topology_options){0}, &topology));
    int count = troupe_topology_cores(topology, slice, cores, CORES_MAX);
    snprintf(text, sizeof text, "not bound (TROUPE_BIND no)");
    if (strcmp(environment->bind, "yes") == 0) {
        troupe_topology_bind(topology, slice, text, sizeof text);
    }
    troupe_topology_close(topology);
    TROUPE_LOG_INFO("launch", "%s, %s", troupe_comm_name(comm), text);
    if (options->verbose) {
        printf("rank %d: %s, %s\n", troupe_comm_rank(comm), troupe_comm_name(comm), text);
        fflush(stdout);
    }
    int threads = options->workers > 0 ? options->workers : (int)environment->threads;
    threads = threads > 0 ? threads : count;
    bool bound = strcmp(environment->bind, "yes") == 0 && threads <= count;
    return troupe_workers_create(
        &(struct troupe_workers_options){.count = threads, .cores = bound ? cores : NULL}, out);
}

static troupe_status run_rank(const struct launch_options *options, troupe_comm *comm,
                              const struct troupe_options *environment, launch_body body,
                              void *arg) {
    troupe_workers *workers = NULL;
    troupe_log_set_rank(troupe_comm_rank(comm));
    troupe_status status = settle(options, comm, environment, &workers);
    if (status == TROUPE_OK) {
        status = body(arg, comm, workers);
    }
    if (status != TROUPE_OK) {
        fprintf(stderr, "troupe: rank %d: %s\n", troupe_comm_rank(comm), troupe_last_error());
        troupe_comm_abort(comm, troupe_last_error());
    }
    troupe_workers_destroy(workers);
    return status;
}

/* ---- ranks as threads ---- */

struct thread_rank {
    const struct launch_options *options;
    const struct troupe_options *environment;
    troupe_loopback *world;
    launch_body body;
    void *arg;
    int rank;
    pthread_t thread;
    troupe_status status;
};

static void *thread_main(void *arg) {
    struct thread_rank *me = arg;
    troupe_comm *comm = NULL;
    me->status = troupe_comm_open_loopback(me->world, me->rank, &comm);
    if (me->status == TROUPE_OK) {
        me->status = run_rank(me->options, comm, me->environment, me->body, me->arg);
        troupe_comm_close(comm);
    } else {
        fprintf(stderr, "troupe: rank %d: %s\n", me->rank, troupe_last_error());
    }
    return NULL;
}

static troupe_status run_threads(const struct launch_options *options,
                                 const struct troupe_options *environment, launch_body body,
                                 void *arg) {
    struct thread_rank *ranks = NULL;
    troupe_loopback *world = NULL;
    TROUPE_TRY(TROUPE_NEW(&ranks, options->ranks));
    troupe_status status =
        troupe_loopback_create(&(struct troupe_loopback_options){.ranks = options->ranks}, &world);
    int started = 0;
    for (; status == TROUPE_OK && started < options->ranks; started++) {
        struct thread_rank *rank = &ranks[started];
        *rank = (struct thread_rank){.options = options,
                                     .environment = environment,
                                     .world = world,
                                     .body = body,
                                     .arg = arg,
                                     .rank = started};
        if (pthread_create(&rank->thread, NULL, thread_main, rank) != 0) {
            fprintf(stderr, "troupe: the system refused thread %d of %d ranks\n", started,
                    options->ranks);
            exit(1); /* the ranks that run would wait for it forever */
        }
    }
    for (int r = 0; r < started; r++) {
        pthread_join(ranks[r].thread, NULL);
        status = status == TROUPE_OK ? ranks[r].status : status;
    }
    troupe_loopback_destroy(world);
    troupe_free(ranks);
    return status;
}

/* ---- one launched rank ---- */

static troupe_status run_process(const struct launch_options *options,
                                 const struct troupe_options *environment, launch_body body,
                                 void *arg) {
    troupe_comm *comm = NULL;
    const char *provider =
        strcmp(environment->provider, "auto") != 0 ? environment->provider : options->provider;
    troupe_status status =
        troupe_comm_open(&(struct troupe_comm_options){.provider = provider}, &comm);
    if (status != TROUPE_OK) {
        fprintf(stderr, "troupe: %s\n", troupe_last_error());
        return status;
    }
    status = run_rank(options, comm, environment, body, arg);
    if (status != TROUPE_OK) {
        fflush(NULL);
        _exit(1); /* closing would wait for ranks that are gone; mpirun and srun end them */
    }
    troupe_comm_close(comm);
    return status;
}

int launch_take_ranks(int *argc, char **argv) {
    for (int i = 1; i + 1 < *argc; i++) {
        if (strcmp(argv[i], "--ranks") == 0) {
            int ranks = atoi(argv[i + 1]);
            if (ranks < 1 || ranks > LAUNCH_RANKS_MAX) {
                fprintf(stderr, "--ranks %s is not in 1..%d\n", argv[i + 1], LAUNCH_RANKS_MAX);
                return -1;
            }
            memmove(&argv[i], &argv[i + 2], (size_t)(*argc - i - 1) * sizeof *argv);
            *argc -= 2;
            return ranks;
        }
    }
    return 0;
}

troupe_status launch(const struct launch_options *options, launch_body body, void *arg) {
    struct troupe_options environment;
    troupe_status status = troupe_options_read(&environment);
    if (status != TROUPE_OK) {
        fprintf(stderr, "troupe: %s\n", troupe_last_error());
        return status;
    }
    return options->ranks > 0 ? run_threads(options, &environment, body, arg)
                              : run_process(options, &environment, body, arg);
}
