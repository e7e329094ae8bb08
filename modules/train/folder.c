/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OPEN_FOLDERS = 8 };

static troupe_status fail_errno(const char *path, const char *what) {
    return troupe_fail(TROUPE_ERROR_IO, "%s: cannot be %s: %s", path, what, strerror(errno));
}

troupe_status troupe_folder_make(const char *path) {
    char part[PATH_MAX];
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part) {
        return troupe_fail(TROUPE_ERROR_IO, "%s: the name is too long", path);
    }
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(part, 0755); /* the last one tells whether it worked */
        *slash = '/';
    }
    struct stat about;
    if (mkdir(part, 0755) != 0 && (stat(part, &about) != 0 || !S_ISDIR(about.st_mode))) {
        return fail_errno(path, "made");
    }
    return TROUPE_OK;
}

static int remove_entry(const char *path, const struct stat *about, int type, struct FTW *place) {
    (void)about;
    (void)type;
    (void)place;
    return remove(path);
}

troupe_status troupe_folder_remove(const char *path) {
    if (nftw(path, remove_entry, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT) {
        return fail_errno(path, "removed");
    }
    return TROUPE_OK;
}

troupe_status troupe_folder_sync(const char *path) {
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) {
        return fail_errno(path, "opened");
    }
    troupe_status status = fsync(descriptor) == 0 ? TROUPE_OK : fail_errno(path, "synced");
    close(descriptor);
    return status;
}

troupe_status troupe_folder_write_text(const char *path, void (*print)(const void *arg, FILE *file),
                                       const void *arg) {
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        return fail_errno(path, "written");
    }
    print(arg, file);
    int failed = fflush(file) != 0 || ferror(file) || fsync(fileno(file)) != 0;
    troupe_status status = failed ? fail_errno(path, "written") : TROUPE_OK;
    fclose(file);
    return status;
}
