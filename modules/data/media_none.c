/* SPDX-License-Identifier: Apache-2.0 */
/* A build without the image and tar libraries: it trains on synthetic samples, and says so. */
#include "modules/data/image.h"
#include "modules/data/index_internal.h"
#include "modules/data/tar_writer.h"

static troupe_status not_built_in(const char *what) {
    return troupe_fail(
        TROUPE_ERROR_UNSUPPORTED,
        "%s: this build has no image and tar libraries; use data.synthetic, or build "
        "with libpng, libjpeg, librsvg and libarchive",
        what);
}

troupe_status troupe_image_decode(const uint8_t *bytes, size_t count, const char *name,
                                  struct troupe_image *out) {
    (void)bytes, (void)count, (void)out;
    return not_built_in(name);
}

troupe_status troupe_image_decode_svg(const uint8_t *bytes, size_t count, const char *name,
                                      int side, struct troupe_image *out, int size_out[2]) {
    (void)bytes, (void)count, (void)side, (void)out, (void)size_out;
    return not_built_in(name);
}

troupe_status troupe_image_encode_png(const struct troupe_image *image, uint8_t **bytes_out,
                                      size_t *count_out) {
    (void)image, (void)bytes_out, (void)count_out;
    return not_built_in("a picture as PNG");
}

troupe_status troupe_tar_create(const char *path, troupe_tar **out) {
    (void)out;
    return not_built_in(path);
}

troupe_status troupe_tar_add(troupe_tar *tar, const char *name, const void *bytes, size_t count) {
    (void)tar, (void)bytes, (void)count;
    return not_built_in(name);
}

troupe_status troupe_tar_close(troupe_tar *tar) {
    (void)tar;
    return not_built_in("a shard");
}

void troupe_tar_destroy(troupe_tar *tar) {
    (void)tar; /* none was made */
}

troupe_status troupe_index_walk(const struct troupe_shard_list *shards,
                                const struct troupe_index_options *options,
                                struct troupe_index *index, struct troupe_index_summary *summary) {
    (void)shards, (void)options, (void)index, (void)summary;
    return not_built_in("data.train");
}
