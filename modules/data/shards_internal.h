/* SPDX-License-Identifier: Apache-2.0
 *
 * The files that a list of shell patterns names, with size and time, and the path of their index.
 *
 * Ownership: init/fini on the caller's storage. Threads: any.
 * Failure: ERROR_IO naming a pattern that matches nothing or a file that cannot be read.
 */
#ifndef TROUPE_MODULES_DATA_SHARDS_INTERNAL_H
#define TROUPE_MODULES_DATA_SHARDS_INTERNAL_H

#include <limits.h>
#include <stdint.h>

#include "modules/data/index.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_shard_file {
    char *path;
    const char *name; /* last part of path */
    int64_t bytes;
    char changed[40]; /* seconds.nanoseconds */
};

struct troupe_shard_list {
    int64_t count;
    int64_t bytes; /* of all */
    struct troupe_shard_file *files;
    char index[PATH_MAX];
};

troupe_status troupe_shard_list_init(const struct troupe_shards *shards,
                                     struct troupe_shard_list *out);
/* Accepts a zeroed list. */
void troupe_shard_list_fini(struct troupe_shard_list *list);

#ifdef __cplusplus
}
#endif
#endif
