/* SPDX-License-Identifier: Apache-2.0
 *
 * Built without MPI: a job of several processes cannot start.
 */
#include "comm/bootstrap.h"

troupe_status troupe_bootstrap_open(struct troupe_bootstrap *bootstrap) {
    *bootstrap = (struct troupe_bootstrap){0};
    return troupe_fail(TROUPE_ERROR_UNSUPPORTED,
                       "a launcher started %d processes, but this Troupe is built without MPI; "
                       "install libopenmpi-dev and configure again",
                       troupe_launcher_size());
}

troupe_status troupe_bootstrap_gather(const struct troupe_bootstrap *bootstrap, const void *mine,
                                      size_t bytes, void *all) {
    (void)bootstrap, (void)mine, (void)bytes, (void)all;
    return troupe_fail(TROUPE_ERROR_UNSUPPORTED, "built without MPI");
}

troupe_status troupe_bootstrap_meet(const struct troupe_bootstrap *bootstrap,
                                    bool (*serve)(void *arg), void *arg, int64_t patience_ns) {
    (void)bootstrap, (void)serve, (void)arg, (void)patience_ns;
    return troupe_fail(TROUPE_ERROR_UNSUPPORTED, "built without MPI");
}

void troupe_bootstrap_close(struct troupe_bootstrap *bootstrap, bool orderly) {
    (void)bootstrap, (void)orderly;
}
