/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/checkpoint/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "modules/checkpoint/safetensors_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

enum { LENGTH_BYTES = 8 };
/* What other readers accept; a larger length means that this is another kind of file. */
static const uint64_t header_bytes_max = 100000000;

struct troupe_safetensors {
    char *path;
    int descriptor; /* -1: none */
    bool written;
    int64_t data_begin;
    struct header header;
};

static troupe_status system_failure(const troupe_safetensors *file, const char *what) {
    return troupe_fail(TROUPE_ERROR_IO, "%s: cannot %s: %s", file->path, what, strerror(errno));
}

static troupe_status write_all(troupe_safetensors *file, const void *data, size_t bytes,
                               int64_t offset) {
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pwrite(file->descriptor, (const char *)data + done, bytes - done,
                           (off_t)(offset + (int64_t)done));
        if (n < 0 && errno != EINTR) {
            return system_failure(file, "write");
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return TROUPE_OK;
}

static troupe_status read_all(troupe_safetensors *file, void *data, size_t bytes, int64_t offset) {
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(file->descriptor, (char *)data + done, bytes - done,
                          (off_t)(offset + (int64_t)done));
        if (n < 0 && errno != EINTR) {
            return system_failure(file, "read");
        }
        if (n == 0) {
            return troupe_fail(TROUPE_ERROR_DATA, "%s: truncated: ends at byte %lld of %lld",
                               file->path, (long long)(offset + (int64_t)done),
                               (long long)(offset + (int64_t)bytes));
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return TROUPE_OK;
}

static void encode_length(uint64_t length, uint8_t out[LENGTH_BYTES]) {
    for (int i = 0; i < LENGTH_BYTES; i++) {
        out[i] = (uint8_t)(length >> (8 * i));
    }
}

static uint64_t decode_length(const uint8_t bytes[LENGTH_BYTES]) {
    uint64_t length = 0;
    for (int i = 0; i < LENGTH_BYTES; i++) {
        length |= (uint64_t)bytes[i] << (8 * i);
    }
    return length;
}

static void discard(troupe_safetensors *file) {
    if (file->descriptor >= 0) {
        close(file->descriptor);
    }
    header_fini(&file->header);
    troupe_free(file->path);
    troupe_free(file);
}

static troupe_status open_file(const char *path, int flags, troupe_safetensors **out) {
    troupe_safetensors *file = NULL;
    TROUPE_TRY(TROUPE_NEW(&file, 1));
    file->descriptor = -1;
    troupe_status status = troupe_string_copy(path, &file->path);
    if (status == TROUPE_OK) {
        file->descriptor = open(path, flags | O_CLOEXEC, 0644);
        if (file->descriptor < 0) {
            status = system_failure(file, "open");
        }
    }
    if (status != TROUPE_OK) {
        discard(file);
        return status;
    }
    *out = file;
    return TROUPE_OK;
}

/* Reads the header of an open file. */
static troupe_status load_header(troupe_safetensors *file) {
    struct stat about;
    if (fstat(file->descriptor, &about) != 0) {
        return system_failure(file, "stat");
    }
    uint8_t bytes[LENGTH_BYTES];
    TROUPE_TRY(read_all(file, bytes, sizeof(bytes), 0));
    uint64_t length = decode_length(bytes);
    uint64_t rest = (uint64_t)about.st_size - LENGTH_BYTES;
    if (length > header_bytes_max) {
        return troupe_fail(TROUPE_ERROR_DATA,
                           "%s: bad safetensors header: its length is %llu bytes; not a "
                           "safetensors file",
                           file->path, (unsigned long long)length);
    }
    if (length > rest) {
        return troupe_fail(TROUPE_ERROR_DATA, "%s: truncated: header of %llu bytes, %llu follow",
                           file->path, (unsigned long long)length, (unsigned long long)rest);
    }
    char *text = NULL;
    TROUPE_TRY(TROUPE_NEW(&text, length + 1));
    troupe_status status = read_all(file, text, length, LENGTH_BYTES);
    if (status == TROUPE_OK) {
        status = header_read(file->path, text, (int64_t)(rest - length), &file->header);
    }
    troupe_free(text);
    file->data_begin = LENGTH_BYTES + (int64_t)length;
    return status;
}

static troupe_status store_header(troupe_safetensors *file,
                                  const struct troupe_file_content *content) {
    char *text = NULL;
    TROUPE_TRY(header_write(content, &text));
    size_t length = strlen(text);
    int64_t bytes = LENGTH_BYTES + (int64_t)length;
    for (int i = 0; i < content->tensor_count; i++) {
        bytes += tensor_bytes(&content->tensors[i]);
    }
    uint8_t prefix[LENGTH_BYTES];
    encode_length(length, prefix);
    troupe_status status = write_all(file, prefix, sizeof(prefix), 0);
    if (status == TROUPE_OK) {
        status = write_all(file, text, length, LENGTH_BYTES);
    }
    troupe_free(text);
    if (status == TROUPE_OK && ftruncate(file->descriptor, (off_t)bytes) != 0) {
        status = system_failure(file, "extend");
    }
    return status;
}

troupe_status troupe_safetensors_create(const char *path, const struct troupe_file_content *content,
                                        troupe_safetensors **out) {
    troupe_safetensors *file = NULL;
    TROUPE_TRY(open_file(path, O_RDWR | O_CREAT | O_TRUNC, &file));
    file->written = true;
    troupe_status status = store_header(file, content);
    if (status == TROUPE_OK) {
        status = load_header(file);
    }
    if (status != TROUPE_OK) {
        discard(file);
        return status;
    }
    *out = file;
    return TROUPE_OK;
}

troupe_status troupe_safetensors_open(const char *path, enum troupe_file_mode mode,
                                      troupe_safetensors **out) {
    troupe_safetensors *file = NULL;
    TROUPE_TRY(open_file(path, mode == TROUPE_FILE_WRITE ? O_RDWR : O_RDONLY, &file));
    file->written = mode == TROUPE_FILE_WRITE;
    troupe_status status = load_header(file);
    if (status != TROUPE_OK) {
        discard(file);
        return status;
    }
    *out = file;
    return TROUPE_OK;
}

int troupe_safetensors_count(const troupe_safetensors *file) {
    return file->header.count;
}

const struct troupe_file_tensor *troupe_safetensors_tensor(const troupe_safetensors *file,
                                                           int index) {
    TROUPE_ASSERT(index >= 0 && index < file->header.count, "tensor %d of %d", index,
                  file->header.count);
    return &file->header.entries[index].tensor;
}

const char *troupe_safetensors_metadata(const troupe_safetensors *file, const char *key) {
    return header_metadata(&file->header, key);
}

/* "(3, 4)" */
static const char *shape_text(const struct troupe_file_tensor *tensor, char text[128]) {
    int used = snprintf(text, 128, "(");
    for (int d = 0; d < tensor->dimensions; d++) {
        used += snprintf(text + used, 128 - (size_t)used, d == 0 ? "%lld" : ", %lld",
                         (long long)tensor->shape[d]);
    }
    snprintf(text + used, 128 - (size_t)used, ")");
    return text;
}

static bool same_shape(const struct troupe_file_tensor *a, const struct troupe_file_tensor *b) {
    return a->dimensions == b->dimensions &&
           memcmp(a->shape, b->shape, (size_t)a->dimensions * sizeof(a->shape[0])) == 0;
}

static troupe_status find(const troupe_safetensors *file, const struct troupe_file_tensor *tensor,
                          const struct header_entry **out) {
    for (int i = 0; i < file->header.count; i++) {
        const struct header_entry *entry = &file->header.entries[i];
        if (strcmp(entry->tensor.name, tensor->name) != 0) {
            continue;
        }
        if (!same_shape(&entry->tensor, tensor)) {
            char has[128], wants[128];
            return troupe_fail(
                TROUPE_ERROR_INVALID, "%s: tensor %s has shape %s, the model needs %s", file->path,
                tensor->name, shape_text(&entry->tensor, has), shape_text(tensor, wants));
        }
        *out = entry;
        return TROUPE_OK;
    }
    return troupe_fail(TROUPE_ERROR_INVALID, "%s: no tensor %s in this file of %d", file->path,
                       tensor->name, file->header.count);
}

/* A box as equal runs that are contiguous in the file: all inner dimensions that it covers fully,
 * and its share of the next one. */
struct runs {
    int64_t elements; /* of one run */
    int64_t count;
    int outer; /* dimensions that a run does not cover */
};

static struct runs runs_of(const struct troupe_file_box *box) {
    struct runs runs = {.elements = 1, .count = 1, .outer = box->tensor.dimensions};
    bool whole = true;
    while (runs.outer > 0 && whole) {
        int d = --runs.outer;
        runs.elements *= box->extent[d];
        whole = box->extent[d] == box->tensor.shape[d];
    }
    for (int d = 0; d < runs.outer; d++) {
        runs.count *= box->extent[d];
    }
    return runs;
}

/* Element of the file's tensor where run `run` of the box begins. */
static int64_t run_begin(const struct troupe_file_box *box, const struct runs *runs, int64_t run) {
    int64_t element = 0;
    int64_t stride = 1;
    for (int d = box->tensor.dimensions - 1; d >= 0; d--) {
        int64_t index = box->begin[d];
        if (d < runs->outer) {
            index += run % box->extent[d];
            run /= box->extent[d];
        }
        element += index * stride;
        stride *= box->tensor.shape[d];
    }
    return element;
}

static void check_box(const struct troupe_file_box *box) {
    for (int d = 0; d < box->tensor.dimensions; d++) {
        TROUPE_ASSERT(box->begin[d] >= 0 && box->extent[d] >= 0 &&
                          box->begin[d] + box->extent[d] <= box->tensor.shape[d],
                      "%s dimension %d: %lld + %lld of %lld", box->tensor.name, d,
                      (long long)box->begin[d], (long long)box->extent[d],
                      (long long)box->tensor.shape[d]);
    }
}

troupe_status troupe_safetensors_write_box(troupe_safetensors *file,
                                           const struct troupe_file_box *box, const float *data) {
    const struct header_entry *entry = NULL;
    check_box(box);
    TROUPE_TRY(find(file, &box->tensor, &entry));
    struct runs runs = runs_of(box);
    int64_t base = file->data_begin + entry->begin;
    for (int64_t run = 0; runs.elements > 0 && run < runs.count; run++) {
        int64_t offset = base + run_begin(box, &runs, run) * (int64_t)sizeof(float);
        TROUPE_TRY(write_all(file, data + run * runs.elements,
                             (size_t)runs.elements * sizeof(float), offset));
    }
    return TROUPE_OK;
}

troupe_status troupe_safetensors_read_box(troupe_safetensors *file,
                                          const struct troupe_file_box *box, float *data) {
    const struct header_entry *entry = NULL;
    check_box(box);
    TROUPE_TRY(find(file, &box->tensor, &entry));
    struct runs runs = runs_of(box);
    int64_t base = file->data_begin + entry->begin;
    for (int64_t run = 0; runs.elements > 0 && run < runs.count; run++) {
        int64_t offset = base + run_begin(box, &runs, run) * (int64_t)sizeof(float);
        TROUPE_TRY(read_all(file, data + run * runs.elements, (size_t)runs.elements * sizeof(float),
                            offset));
    }
    return TROUPE_OK;
}

troupe_status troupe_safetensors_close(troupe_safetensors *file) {
    if (file == NULL) {
        return TROUPE_OK;
    }
    troupe_status status = TROUPE_OK;
    if (file->written && fsync(file->descriptor) != 0) {
        status = system_failure(file, "sync");
    }
    discard(file);
    return status;
}
