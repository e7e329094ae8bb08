/* SPDX-License-Identifier: Apache-2.0
 *
 * Files for the tests of data: a temporary folder, shards made member by member, pictures.
 */
#ifndef TROUPE_TESTS_UNIT_MODULES_DATA_FILES_H
#define TROUPE_TESTS_UNIT_MODULES_DATA_FILES_H

#include <ftw.h>
#include <unistd.h>

#include "modules/data/file.h"
#include "modules/data/image.h"
#include "modules/data/index.h"
#include "modules/data/tar_writer.h"
#include "runtime/memory.h"
#include "tests/test.h"

struct test_folder {
    char path[64];
};

static inline void test_folder_init(struct test_folder *folder) {
    snprintf(folder->path, sizeof folder->path, "/tmp/troupe-test-XXXXXX");
    EXPECT(mkdtemp(folder->path) != NULL, "mkdtemp %s", folder->path);
}

static inline int test_remove(const char *path, const struct stat *info, int type,
                              struct FTW *place) {
    (void)info;
    (void)type;
    (void)place;
    return remove(path);
}

static inline void test_folder_fini(struct test_folder *folder) {
    nftw(folder->path, test_remove, 8, FTW_DEPTH | FTW_PHYS);
}

/* "folder/name"; the text stays as it is to the end of the program. */
static inline const char *test_path(const struct test_folder *folder, const char *name) {
    enum { PATHS = 256, BYTES = 128 };
    static char paths[PATHS][BYTES];
    static int count;
    char path[BYTES];
    snprintf(path, sizeof path, "%s/%s", folder->path, name);
    for (int i = 0; i < count; i++) {
        if (strcmp(paths[i], path) == 0) {
            return paths[i];
        }
    }
    EXPECT(count < PATHS, "more than %d paths", PATHS);
    memcpy(paths[count], path, sizeof path);
    return paths[count++];
}

static inline void test_write(const char *path, const void *bytes, size_t count) {
    EXPECT_OK(troupe_file_write(path, bytes, count));
}

/* A picture whose pixels tell position and `tint`. */
static inline void test_picture(int width, int height, int tint, struct troupe_image *out) {
    *out = (struct troupe_image){.width = width, .height = height};
    EXPECT_OK(TROUPE_NEW(&out->pixels, width * height * 3));
    for (int i = 0; i < width * height; i++) {
        out->pixels[3 * i] = (uint8_t)(i % width * 3);
        out->pixels[3 * i + 1] = (uint8_t)(i / width * 3);
        out->pixels[3 * i + 2] = (uint8_t)tint;
    }
}

static inline void test_add_text(troupe_tar *tar, const char *name, const char *text) {
    EXPECT_OK(troupe_tar_add(tar, name, text, strlen(text)));
}

/* Returns the size of the PNG member. */
static inline size_t test_add_png(troupe_tar *tar, const char *name, int width, int height,
                                  int tint) {
    struct troupe_image image;
    uint8_t *png = NULL;
    size_t bytes = 0;
    test_picture(width, height, tint, &image);
    EXPECT_OK(troupe_image_encode_png(&image, &png, &bytes));
    EXPECT_OK(troupe_tar_add(tar, name, png, bytes));
    troupe_free(png);
    troupe_image_fini(&image);
    return bytes;
}

static inline troupe_tar *test_tar(const char *path) {
    troupe_tar *tar = NULL;
    EXPECT_OK(troupe_tar_create(path, &tar));
    return tar;
}

#endif
