/* SPDX-License-Identifier: Apache-2.0
 *
 * What order and placement policies share: finding a constant table by its name among the
 * built-in ones, or loading it from a shared object. Every table begins with its name.
 *
 * Ownership: the object stays loaded until the process ends. Threads: any.
 * Failure: ERROR_INVALID with the loader's sentence.
 */
#ifndef TROUPE_SCHEDULER_POLICY_INTERNAL_H
#define TROUPE_SCHEDULER_POLICY_INTERNAL_H

#include <stdbool.h>

#include "runtime/status.h"

struct troupe_policy_kind {
    const char *what;           /* "placement policy" */
    const char *symbol;         /* of the table in a shared object */
    const void *const *builtin; /* tables */
    int builtin_count;
    const char *required; /* "name or place": what a table must not leave empty */
    bool (*complete)(const void *table);
};

/* A name with a '/' is the path of a shared object. */
troupe_status troupe_policy_find(const struct troupe_policy_kind *kind, const char *name,
                                 const void **out);

#endif
