/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/tar_writer.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/memory.h"

struct troupe_tar {
    char path[PATH_MAX];
    char temporary[PATH_MAX];
    struct archive *archive;
    struct archive_entry *entry; /* used for every member */
};

static troupe_status fail_archive(const troupe_tar *tar) {
    return troupe_fail(TROUPE_ERROR_IO, "%s: cannot be written: %s", tar->path,
                       archive_error_string(tar->archive));
}

static troupe_status open_archive(troupe_tar *tar, const char *path) {
    if (snprintf(tar->path, sizeof tar->path, "%s", path) >= (int)sizeof tar->path ||
        snprintf(tar->temporary, sizeof tar->temporary, "%s.part", path) >=
            (int)sizeof tar->temporary) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s: the name is too long", path);
    }
    tar->archive = archive_write_new();
    tar->entry = archive_entry_new();
    if (tar->archive == NULL || tar->entry == NULL) {
        return troupe_fail(TROUPE_ERROR_MEMORY, "%s: no memory to write it", path);
    }
    archive_write_set_format_pax_restricted(tar->archive);
    if (archive_write_open_filename(tar->archive, tar->temporary) != ARCHIVE_OK) {
        return fail_archive(tar);
    }
    return TROUPE_OK;
}

troupe_status troupe_tar_create(const char *path, troupe_tar **out) {
    troupe_tar *tar = NULL;
    TROUPE_TRY(TROUPE_NEW(&tar, 1));
    troupe_status status = open_archive(tar, path);
    if (status != TROUPE_OK) {
        troupe_tar_destroy(tar);
        return status;
    }
    *out = tar;
    return TROUPE_OK;
}

troupe_status troupe_tar_add(troupe_tar *tar, const char *name, const void *bytes, size_t count) {
    archive_entry_clear(tar->entry);
    archive_entry_set_pathname(tar->entry, name);
    archive_entry_set_size(tar->entry, (la_int64_t)count);
    archive_entry_set_filetype(tar->entry, AE_IFREG);
    archive_entry_set_perm(tar->entry, 0644);
    archive_entry_set_mtime(tar->entry, 0, 0);
    if (archive_write_header(tar->archive, tar->entry) != ARCHIVE_OK ||
        archive_write_data(tar->archive, bytes, count) != (la_ssize_t)count) {
        return fail_archive(tar);
    }
    return TROUPE_OK;
}

troupe_status troupe_tar_close(troupe_tar *tar) {
    troupe_status status = TROUPE_OK;
    if (archive_write_close(tar->archive) != ARCHIVE_OK) {
        status = fail_archive(tar);
    } else if (rename(tar->temporary, tar->path) != 0) {
        status =
            troupe_fail(TROUPE_ERROR_IO, "%s: cannot be written: %s", tar->path, strerror(errno));
    }
    troupe_tar_destroy(tar);
    return status;
}

void troupe_tar_destroy(troupe_tar *tar) {
    if (tar != NULL) {
        archive_entry_free(tar->entry);
        archive_write_free(tar->archive);
        unlink(tar->temporary); /* gone already if close went well */
        troupe_free(tar);
    }
}
