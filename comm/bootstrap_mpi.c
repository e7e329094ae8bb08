/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/bootstrap.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "comm/comm_mpi_internal.h"
#include "runtime/clock.h"
#include "runtime/memory.h"
#include "runtime/options.h"

enum { HOST_NAME_BYTES = 128 };

struct introduction {
    char host[HOST_NAME_BYTES];
    int process;
};

/* TROUPE_HOST_ID overrides the system's name. */
static troupe_status get_host_name(char name[HOST_NAME_BYTES]) {
    struct troupe_options options;
    TROUPE_TRY(troupe_options_read(&options));
    if (options.host_id[0] != '\0') {
        snprintf(name, HOST_NAME_BYTES, "%s", options.host_id);
    } else {
        gethostname(name, HOST_NAME_BYTES - 1);
    }
    return TROUPE_OK;
}

static troupe_status start_mpi(struct troupe_bootstrap *bootstrap) {
    int initialized = 0, finalized = 0, provided = 0;
    TROUPE_TRY_MPI(MPI_Finalized(&finalized));
    if (finalized) {
        return troupe_fail(TROUPE_ERROR_INVALID, "MPI has been ended already in this process; keep "
                                                 "the first endpoint open");
    }
    TROUPE_TRY_MPI(MPI_Initialized(&initialized));
    if (!initialized) {
        TROUPE_TRY_MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided));
        bootstrap->owns_mpi = true;
    }
    TROUPE_TRY_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    TROUPE_TRY_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &bootstrap->rank));
    TROUPE_TRY_MPI(MPI_Comm_size(MPI_COMM_WORLD, &bootstrap->size));
    return TROUPE_OK;
}

static void number_hosts(struct troupe_bootstrap *bootstrap, const struct introduction *all) {
    for (int r = 0; r < bootstrap->size; r++) {
        int first = 0;
        while (strcmp(all[first].host, all[r].host) != 0) {
            first++;
        }
        bootstrap->hosts[r] = first;
        bootstrap->processes[r] = all[r].process;
    }
}

static troupe_status introduce(struct troupe_bootstrap *bootstrap) {
    struct introduction mine = {.process = getpid()}, *all = NULL;
    TROUPE_TRY(get_host_name(mine.host));
    TROUPE_TRY(TROUPE_NEW(&bootstrap->hosts, bootstrap->size));
    TROUPE_TRY(TROUPE_NEW(&bootstrap->processes, bootstrap->size));
    TROUPE_TRY(TROUPE_NEW(&all, bootstrap->size));
    troupe_status status = troupe_bootstrap_gather(bootstrap, &mine, sizeof(mine), all);
    if (status == TROUPE_OK) {
        number_hosts(bootstrap, all);
    }
    troupe_free(all);
    return status;
}

troupe_status troupe_bootstrap_open(struct troupe_bootstrap *bootstrap) {
    memset(bootstrap, 0, sizeof(*bootstrap));
    int promised = troupe_launcher_size();
    TROUPE_TRY(start_mpi(bootstrap));
    if (bootstrap->size == 1 && promised > 1) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "the launcher started %d processes, but each sees itself as the only "
                           "MPI rank; start with the mpirun of the Open MPI that Troupe was built "
                           "with, or with srun --mpi=pmix",
                           promised);
    }
    return introduce(bootstrap);
}

troupe_status troupe_bootstrap_gather(const struct troupe_bootstrap *bootstrap, const void *mine,
                                      size_t bytes, void *all) {
    (void)bootstrap;
    TROUPE_TRY_MPI(
        MPI_Allgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, MPI_COMM_WORLD));
    return TROUPE_OK;
}

troupe_status troupe_bootstrap_meet(const struct troupe_bootstrap *bootstrap,
                                    bool (*serve)(void *arg), void *arg, int64_t patience_ns) {
    MPI_Request request;
    int met = 0;
    uint64_t give_up_ns = UINT64_MAX;
    TROUPE_TRY_MPI(MPI_Ibarrier(MPI_COMM_WORLD, &request));
    for (;;) {
        TROUPE_TRY_MPI(MPI_Test(&request, &met, MPI_STATUS_IGNORE));
        if (met) {
            return TROUPE_OK;
        }
        uint64_t now = troupe_clock_ns();
        if (now > give_up_ns) {
            return troupe_fail(TROUPE_ERROR_PEER,
                               "rank %d waited for the others to end, but not "
                               "all came",
                               bootstrap->rank);
        }
        if (!serve(arg) && give_up_ns == UINT64_MAX) {
            give_up_ns = now + (uint64_t)patience_ns;
        }
        sched_yield();
    }
}

void troupe_bootstrap_close(struct troupe_bootstrap *bootstrap, bool orderly) {
    troupe_free(bootstrap->hosts);
    troupe_free(bootstrap->processes);
    bootstrap->hosts = bootstrap->processes = NULL;
    if (orderly && bootstrap->owns_mpi) {
        MPI_Finalize();
    }
}
