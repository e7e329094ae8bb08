/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/shards_internal.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/memory.h"

static troupe_status expand(const struct troupe_shards *shards, glob_t *out) {
    for (int i = 0; i < shards->count; i++) {
        int flags = GLOB_BRACE | (i > 0 ? GLOB_APPEND : 0);
        int failed = glob(shards->patterns[i], flags, NULL, out);
        if (failed == GLOB_NOMATCH) {
            return troupe_fail(TROUPE_ERROR_IO,
                               "%s: no shard matches; `troupe data stamps` makes a data set",
                               shards->patterns[i]);
        }
        if (failed) {
            return troupe_fail(TROUPE_ERROR_IO, "%s: the folder cannot be read",
                               shards->patterns[i]);
        }
    }
    return out->gl_pathc > 0 ? TROUPE_OK : troupe_fail(TROUPE_ERROR_INVALID, "no shards given");
}

static troupe_status file_init(const char *path, struct troupe_shard_file *out) {
    struct stat info;
    if (stat(path, &info) != 0) {
        return troupe_fail(TROUPE_ERROR_IO, "%s: cannot be read: %s", path, strerror(errno));
    }
    TROUPE_TRY(troupe_string_copy(path, &out->path));
    const char *slash = strrchr(out->path, '/');
    out->name = slash != NULL ? slash + 1 : out->path;
    out->bytes = info.st_size;
    snprintf(out->changed, sizeof out->changed, "%lld.%09ld", (long long)info.st_mtim.tv_sec,
             info.st_mtim.tv_nsec);
    return TROUPE_OK;
}

static troupe_status list_files(const struct troupe_shards *shards, const glob_t *found,
                                struct troupe_shard_list *list) {
    TROUPE_TRY(TROUPE_NEW(&list->files, found->gl_pathc));
    for (size_t i = 0; i < found->gl_pathc; i++) {
        TROUPE_TRY(file_init(found->gl_pathv[i], &list->files[i]));
        list->count++;
        list->bytes += list->files[i].bytes;
    }
    const char *name = shards->index != NULL ? shards->index : list->files[0].path;
    const char *suffix = shards->index != NULL ? "" : ".index";
    if (snprintf(list->index, sizeof list->index, "%s%s", name, suffix) >=
        (int)sizeof list->index) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s: the name is too long", name);
    }
    return TROUPE_OK;
}

troupe_status troupe_shard_list_init(const struct troupe_shards *shards,
                                     struct troupe_shard_list *out) {
    glob_t found = {0};
    *out = (struct troupe_shard_list){0};
    troupe_status status = expand(shards, &found);
    if (status == TROUPE_OK) {
        status = list_files(shards, &found, out);
    }
    globfree(&found);
    if (status != TROUPE_OK) {
        troupe_shard_list_fini(out);
    }
    return status;
}

void troupe_shard_list_fini(struct troupe_shard_list *list) {
    for (int64_t i = 0; i < list->count; i++) {
        troupe_free(list->files[i].path);
    }
    troupe_free(list->files);
    *list = (struct troupe_shard_list){0};
}
