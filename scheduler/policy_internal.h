/* SPDX-License-Identifier: Apache-2.0
 *
 * What order and placement policies share: loading a constant table from a shared object.
 *
 * Ownership: the object stays loaded until the process ends. Threads: any.
 * Failure: ERROR_INVALID with the loader's sentence.
 */
#ifndef TROUPE_SCHEDULER_POLICY_INTERNAL_H
#define TROUPE_SCHEDULER_POLICY_INTERNAL_H

#include <stdbool.h>

#include "runtime/status.h"

/* A name with a '/' is a file. */
bool troupe_policy_is_path(const char *name);
/* The address of `symbol` in the shared object at `path`. */
troupe_status troupe_policy_load(const char *path, const char *symbol, const void **out);

#endif
