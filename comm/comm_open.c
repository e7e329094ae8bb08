/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of transports between processes, and the choice among them.
 */
#include <stdio.h>
#include <string.h>

#include "comm/comm_process.h"
#include "runtime/memory.h"

/* Fastest first: `auto` takes the first that can serve the job. */
static const struct troupe_comm_opener *const openers[] = {
#ifdef TROUPE_HAVE_OFI
    &troupe_comm_opener_shm,
    &troupe_comm_opener_tcp,
#endif
#ifdef TROUPE_HAVE_MPI
    &troupe_comm_opener_mpi,
#endif
    NULL,
};

static bool one_host(const struct troupe_bootstrap *bootstrap) {
    for (int r = 0; r < bootstrap->size; r++) {
        if (bootstrap->hosts[r] != bootstrap->hosts[0]) {
            return false;
        }
    }
    return true;
}

static troupe_status choose(const char *provider, const struct troupe_bootstrap *bootstrap,
                            const struct troupe_comm_opener **out) {
    bool any = provider == NULL || strcmp(provider, "auto") == 0;
    char known[128] = "auto";
    for (int i = 0; openers[i] != NULL; i++) {
        size_t length = strlen(known);
        snprintf(known + length, sizeof(known) - length, ", %s", openers[i]->provider);
        bool able = one_host(bootstrap) || !openers[i]->one_host_only;
        if (any && able) {
            *out = openers[i];
            return TROUPE_OK;
        }
        if (!any && strcmp(provider, openers[i]->provider) == 0) {
            if (!able) {
                return troupe_fail(TROUPE_ERROR_INVALID,
                                   "comm.provider %s needs all ranks on one host, but rank %d is "
                                   "on another than rank 0; use auto or tcp",
                                   provider, bootstrap->rank);
            }
            *out = openers[i];
            return TROUPE_OK;
        }
    }
    return troupe_fail(TROUPE_ERROR_INVALID, "comm.provider %s is not one of: %s",
                       any ? "auto" : provider, known);
}

static troupe_status open_job(const struct troupe_comm_options *options, troupe_comm **out) {
    struct troupe_bootstrap bootstrap;
    const struct troupe_comm_opener *opener = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY_FAIL(troupe_bootstrap_open(&bootstrap, NULL));
    TROUPE_TRY_FAIL(choose(options->provider, &bootstrap, &opener));
    TROUPE_TRY_FAIL(opener->open(options, &bootstrap, out));
    return TROUPE_OK;
fail:
    /* After a refusal all ranks come here. Else the others may have come further or not; the
     * process ends soon, so nothing is collective. */
    troupe_bootstrap_close(&bootstrap, bootstrap.refuser >= 0);
    return status;
}

bool troupe_comm_refuse(const char *why) {
    struct troupe_bootstrap bootstrap;
    if (troupe_launcher_size() == 1) {
        return true;
    }
    troupe_bootstrap_open(&bootstrap, why);
    bool met = bootstrap.refuser >= 0;
    bool speaks = !met || bootstrap.refuser == bootstrap.rank;
    troupe_bootstrap_close(&bootstrap, met);
    return speaks;
}

troupe_status troupe_comm_open(const struct troupe_comm_options *options, troupe_comm **out) {
    if (troupe_launcher_size() == 1) {
        return troupe_comm_open_alone(options, out);
    }
    return open_job(options, out);
}
