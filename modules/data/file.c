/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/memory.h"

static troupe_status fail_errno(const char *path, const char *what) {
    return troupe_fail(TROUPE_ERROR_IO, "%s: cannot be %s: %s", path, what, strerror(errno));
}

troupe_status troupe_file_read_at(int descriptor, const char *path, int64_t offset, size_t count,
                                  void *bytes_out) {
    size_t done = 0;
    while (done < count) {
        ssize_t got = pread(descriptor, (char *)bytes_out + done, count - done,
                            (off_t)(offset + (int64_t)done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return fail_errno(path, "read");
        }
        if (got == 0) {
            return troupe_fail(TROUPE_ERROR_IO,
                               "%s: ends at byte %lld; %zu bytes at %lld were expected", path,
                               (long long)(offset + (int64_t)done), count, (long long)offset);
        }
        done += (size_t)got;
    }
    return TROUPE_OK;
}

static troupe_status read_whole(int descriptor, const char *path, uint8_t **bytes_out,
                                size_t *count_out) {
    struct stat info;
    if (fstat(descriptor, &info) != 0) {
        return fail_errno(path, "read");
    }
    if (!S_ISREG(info.st_mode)) {
        return troupe_fail(TROUPE_ERROR_IO, "%s: is not a regular file", path);
    }
    uint8_t *bytes = NULL;
    size_t count = (size_t)info.st_size;
    TROUPE_TRY(TROUPE_NEW(&bytes, count + 1));
    troupe_status status = troupe_file_read_at(descriptor, path, 0, count, bytes);
    if (status != TROUPE_OK) {
        troupe_free(bytes);
        return status;
    }
    *bytes_out = bytes;
    *count_out = count;
    return TROUPE_OK;
}

troupe_status troupe_file_read(const char *path, uint8_t **bytes_out, size_t *count_out) {
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
        return fail_errno(path, "opened");
    }
    troupe_status status = read_whole(descriptor, path, bytes_out, count_out);
    close(descriptor);
    return status;
}

troupe_status troupe_file_write(const char *path, const void *bytes, size_t count) {
    char temporary[PATH_MAX];
    if (snprintf(temporary, sizeof temporary, "%s.part", path) >= (int)sizeof temporary) {
        return troupe_fail(TROUPE_ERROR_IO, "%s: the name is too long", path);
    }
    FILE *file = fopen(temporary, "wb");
    if (file == NULL) {
        return fail_errno(temporary, "written");
    }
    size_t written = fwrite(bytes, 1, count, file);
    if (fclose(file) != 0 || written != count || rename(temporary, path) != 0) {
        troupe_status status = fail_errno(path, "written");
        unlink(temporary);
        return status;
    }
    return TROUPE_OK;
}
