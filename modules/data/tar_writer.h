/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes a tar shard: plain members in the order given, with fixed owner, mode and time, so the
 * same members give the same bytes. The file appears under its name when the writer is closed.
 *
 *     TROUPE_TRY(troupe_tar_create(path, &tar));
 *     TROUPE_TRY(troupe_tar_add(tar, "cat.txt", text, bytes));
 *     TROUPE_TRY(troupe_tar_close(tar));
 *
 * Ownership: close frees, whatever it returns; destroy throws the unfinished file away.
 * Threads: one at a time. Failure: ERROR_IO naming the file.
 */
#ifndef TROUPE_MODULES_DATA_TAR_WRITER_H
#define TROUPE_MODULES_DATA_TAR_WRITER_H

#include <stddef.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_tar troupe_tar;

troupe_status troupe_tar_create(const char *path, troupe_tar **out);
troupe_status troupe_tar_add(troupe_tar *tar, const char *name, const void *bytes, size_t count);
troupe_status troupe_tar_close(troupe_tar *tar);
/* Accepts NULL. */
void troupe_tar_destroy(troupe_tar *tar);

#ifdef __cplusplus
}
#endif
#endif
