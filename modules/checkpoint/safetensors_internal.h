/* SPDX-License-Identifier: Apache-2.0
 *
 * The header of a safetensors file as text and as a table.
 *
 * Ownership: header_fini. Threads: one at a time. Failure: ERROR_MEMORY, ERROR_DATA.
 */
#ifndef TROUPE_MODULES_CHECKPOINT_SAFETENSORS_INTERNAL_H
#define TROUPE_MODULES_CHECKPOINT_SAFETENSORS_INTERNAL_H

#include <stddef.h>

#include "modules/checkpoint/safetensors.h"

struct header_entry {
    struct troupe_file_tensor tensor;
    int64_t begin; /* bytes from the start of the data */
    int64_t end;
};

struct header {
    struct header_entry *entries;
    int count;
    void *json; /* keeps the metadata's strings */
};

/* JSON text of the content, padded with spaces to a multiple of 8 bytes; freed by troupe_free. */
troupe_status header_write(const struct troupe_file_content *content, char **out);
/* text: ended by a zero byte. data_bytes: what the file holds behind the header. */
troupe_status header_read(const char *path, const char *text, int64_t data_bytes,
                          struct header *out);
void header_fini(struct header *header);
const char *header_metadata(const struct header *header, const char *key);
/* Bytes of a tensor's data; -1 if that does not fit int64_t or an extent is negative. */
int64_t tensor_bytes(const struct troupe_file_tensor *tensor);

#endif
