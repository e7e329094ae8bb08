/* SPDX-License-Identifier: Apache-2.0
 *
 * Pictures as 8-bit RGB: decoded from PNG, JPEG or SVG bytes, laid on white where they are
 * transparent, resized by exact area averages (integers: the same bytes on every machine).
 *
 *     struct troupe_image image;
 *     TROUPE_TRY(troupe_image_decode(bytes, count, "shard 3: cat.png", &image));
 *     troupe_image_size(image.width, image.height, &fit, &width, &height);
 *     TROUPE_TRY(troupe_image_resize(&image, width, height, pixels));
 *     troupe_image_fini(&image);
 *
 * Ownership: images are the caller's storage, ended with troupe_image_fini.
 * Threads: any. Failure: ERROR_DATA with the name given and the decoder's reason for bytes that are
 * no whole picture (damaged or cut short ones are refused, never patched up); ERROR_MEMORY. The
 * decoders allocate by themselves: not for the steady state.
 */
#ifndef TROUPE_MODULES_DATA_IMAGE_H
#define TROUPE_MODULES_DATA_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Larger pictures are refused: a few bytes can claim any size. */
enum { TROUPE_IMAGE_SIDE_MAX = 16384, TROUPE_IMAGE_PIXELS_MAX = 1 << 26 };

struct troupe_image {
    int width;
    int height;
    uint8_t *pixels; /* (height, width, 3) uint8, without gaps */
};

/* PNG or JPEG, told by the first bytes; name is for the error sentence. */
troupe_status troupe_image_decode(const uint8_t *bytes, size_t count, const char *name,
                                  struct troupe_image *out);
/* SVG, drawn with its longest side at `side` pixels; its own size in pixels goes to size_out
 * (width, height). */
troupe_status troupe_image_decode_svg(const uint8_t *bytes, size_t count, const char *name,
                                      int side, struct troupe_image *out, int size_out[2]);
/* Reads and decodes a PNG or JPEG file. */
troupe_status troupe_image_read(const char *path, struct troupe_image *out);
/* A PNG file of the picture; *bytes_out is freed with troupe_free. */
troupe_status troupe_image_encode_png(const struct troupe_image *image, uint8_t **bytes_out,
                                      size_t *count_out);
void troupe_image_fini(struct troupe_image *image);

/* pixels_out: (height, width, 3) uint8. Each pixel is the mean of the area that it covers. */
troupe_status troupe_image_resize(const struct troupe_image *image, int width, int height,
                                  uint8_t *pixels_out);

/* The size at which a picture of width x height is used: the longest side is `image` pixels (or
 * less, if the picture is smaller and not enlarged), both sides multiples of `patch`, at least one
 * patch, the ratio kept as far as that allows. */
struct troupe_image_fit {
    int image; /* longest side, a multiple of patch */
    int patch;
    int enlarge; /* not 0: smaller pictures are enlarged to `image` too */
};
void troupe_image_size(int width, int height, const struct troupe_image_fit *fit, int *width_out,
                       int *height_out);

#ifdef __cplusplus
}
#endif
#endif
