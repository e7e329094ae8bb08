/* SPDX-License-Identifier: Apache-2.0
 *
 * Files of named float32 tensors in the safetensors format: 8 bytes little-endian length, a JSON
 * header (names, dtype, shapes, offsets, __metadata__), then the data. A file holds full shapes;
 * every rank writes and reads its own boxes of them, at places that follow from the header alone:
 *
 *     troupe_safetensors_create(path, &content, &file);              (one rank; then a barrier)
 *     troupe_safetensors_open(path, TROUPE_FILE_WRITE, &file);       (the others)
 *     troupe_safetensors_write_box(file, &box, data);
 *     TROUPE_TRY(troupe_safetensors_close(file));                    (data are on the disk)
 *
 * Ownership: create or open, then close. Names and metadata returned belong to the file.
 * Threads: one at a time per object; processes may write different boxes at once.
 * Failure: ERROR_IO (the system's reason), ERROR_DATA (not a safetensors file, truncated),
 * ERROR_INVALID (no such tensor, other shape); each names the file and the tensor.
 */
#ifndef TROUPE_MODULES_CHECKPOINT_SAFETENSORS_H
#define TROUPE_MODULES_CHECKPOINT_SAFETENSORS_H

#include <stdint.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TROUPE_FILE_NAME_BYTES = 128, TROUPE_FILE_DIMENSIONS_MAX = 4 };

typedef struct troupe_safetensors troupe_safetensors;

/* One tensor of a file: full shape, row-major. Dimensions may be 0: a scalar. */
struct troupe_file_tensor {
    char name[TROUPE_FILE_NAME_BYTES];
    int64_t shape[TROUPE_FILE_DIMENSIONS_MAX];
    int dimensions;
};

struct troupe_file_metadata {
    const char *key;
    const char *value;
};

struct troupe_file_content {
    const struct troupe_file_tensor *tensors; /* in the order of the data */
    int tensor_count;
    const struct troupe_file_metadata *metadata;
    int metadata_count;
};

enum troupe_file_mode { TROUPE_FILE_READ, TROUPE_FILE_WRITE };

/* Part of a tensor; the memory side is contiguous row-major of `extent`. */
struct troupe_file_box {
    struct troupe_file_tensor tensor; /* must be in the file with this shape */
    int64_t begin[TROUPE_FILE_DIMENSIONS_MAX];
    int64_t extent[TROUPE_FILE_DIMENSIONS_MAX];
};

/* A new file (an old one is replaced) of full size, zeros where nothing is written. */
troupe_status troupe_safetensors_create(const char *path, const struct troupe_file_content *content,
                                        troupe_safetensors **out);
troupe_status troupe_safetensors_open(const char *path, enum troupe_file_mode mode,
                                      troupe_safetensors **out);
int troupe_safetensors_count(const troupe_safetensors *file);
const struct troupe_file_tensor *troupe_safetensors_tensor(const troupe_safetensors *file,
                                                           int index);
/* NULL if the file has no such key. */
const char *troupe_safetensors_metadata(const troupe_safetensors *file, const char *key);
troupe_status troupe_safetensors_write_box(troupe_safetensors *file,
                                           const struct troupe_file_box *box, const float *data);
troupe_status troupe_safetensors_read_box(troupe_safetensors *file,
                                          const struct troupe_file_box *box, float *data);
/* Of a file that was written: syncs it to the disk. Accepts NULL. */
troupe_status troupe_safetensors_close(troupe_safetensors *file);

#ifdef __cplusplus
}
#endif
#endif
