/* SPDX-License-Identifier: Apache-2.0
 *
 * Folders: made with their parents, removed with their contents, synced to the disk; and text files
 * that are on the disk when they are closed.
 *
 *     TROUPE_TRY(troupe_folder_make("runs/demo"));
 *
 * Ownership: none. Threads: any. Failure: ERROR_IO with the path and the system's reason.
 */
#ifndef TROUPE_MODULES_TRAIN_FOLDER_H
#define TROUPE_MODULES_TRAIN_FOLDER_H

#include <stdio.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* mkdir -p */
troupe_status troupe_folder_make(const char *path);
/* rm -rf: nothing there is fine too. */
troupe_status troupe_folder_remove(const char *path);
/* Its entries (made, renamed) are on the disk. */
troupe_status troupe_folder_sync(const char *path);
/* Writes what `print` prints. */
troupe_status troupe_folder_write_text(const char *path, void (*print)(const void *arg, FILE *file),
                                       const void *arg);

#ifdef __cplusplus
}
#endif
#endif
