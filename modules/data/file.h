/* SPDX-License-Identifier: Apache-2.0
 *
 * Whole files, and parts of files at an offset.
 *
 * Ownership: bytes are freed with troupe_free. Threads: any.
 * Failure: ERROR_IO naming the file and the system's reason; a short part names the offset.
 */
#ifndef TROUPE_MODULES_DATA_FILE_H
#define TROUPE_MODULES_DATA_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A zero byte follows the last one, so text can be used as it is. */
troupe_status troupe_file_read(const char *path, uint8_t **bytes_out, size_t *count_out);
/* count bytes at offset into bytes_out; path is for the error sentence. */
troupe_status troupe_file_read_at(int descriptor, const char *path, int64_t offset, size_t count,
                                  void *bytes_out);
/* Writes under a temporary name, then renames: readers see the old file or the whole new one. */
troupe_status troupe_file_write(const char *path, const void *bytes, size_t count);

#ifdef __cplusplus
}
#endif
#endif
