/* SPDX-License-Identifier: Apache-2.0
 *
 * The changes that `--switch STEP:WHAT` asks for while training runs. WHAT is a placement: the name
 * of a policy, a shared object with one (./policy.so), or a file that holds a `placement:` section
 * (./other.yaml); or order=NAME for another order policy.
 *
 *     TROUPE_TRY(switches_read(&edits, &switches));
 *     TROUPE_TRY(switch_apply(&switches.list[i], &config));          (to a copy of the current one)
 *
 * Ownership: plain data; texts point into the edits. Threads: plain data.
 * Failure: ERROR_INVALID or ERROR_IO with what was asked for.
 */
#ifndef TROUPE_APPS_TROUPE_SWITCHES_H
#define TROUPE_APPS_TROUPE_SWITCHES_H

#include "apps/troupe/arguments.h"

struct switch_wish {
    int64_t step; /* after so many steps */
    const char *what;
};

struct switches {
    struct switch_wish list[CONFIG_EDITS_MAX]; /* by step; of one step in the order given */
    int count;
};

troupe_status switches_read(const struct config_edits *texts, struct switches *out);
/* Changes placement or order in the config, and resolves it. */
troupe_status switch_apply(const struct switch_wish *wish, struct troupe_config *config);

#endif
