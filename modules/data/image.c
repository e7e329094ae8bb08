/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/image.h"

#include <string.h>

#include "modules/data/file.h"
#include "runtime/check.h"
#include "runtime/memory.h"

void troupe_image_fini(struct troupe_image *image) {
    troupe_free(image->pixels);
    *image = (struct troupe_image){0};
}

troupe_status troupe_image_read(const char *path, struct troupe_image *out) {
    uint8_t *bytes = NULL;
    size_t count = 0;
    TROUPE_TRY(troupe_file_read(path, &bytes, &count));
    troupe_status status = troupe_image_decode(bytes, count, path, out);
    troupe_free(bytes);
    return status;
}

/* Sums the part of a row of `from_count` pixels that output pixel `to` of `to_count` covers, with
 * weights in units of 1/to_count pixels; they add up to from_count. sums: (3,) */
static void area_sum(const uint64_t *row, int from_count, int to, int to_count, uint64_t sums[3]) {
    int64_t begin = (int64_t)to * from_count, end = begin + from_count;
    sums[0] = sums[1] = sums[2] = 0;
    for (int64_t i = begin / to_count; i * to_count < end; i++) {
        int64_t left = i * to_count < begin ? begin : i * to_count;
        int64_t right = (i + 1) * to_count > end ? end : (i + 1) * to_count;
        for (int c = 0; c < 3; c++) {
            sums[c] += row[3 * i + c] * (uint64_t)(right - left);
        }
    }
}

/* Adds the source rows that output row `to` covers, weighted likewise. sums: (width, 3) */
static void sum_rows(const struct troupe_image *image, int to, int to_count, uint64_t *sums) {
    size_t values = (size_t)image->width * 3;
    int64_t begin = (int64_t)to * image->height, end = begin + image->height;
    memset(sums, 0, values * sizeof *sums);
    for (int64_t y = begin / to_count; y * to_count < end; y++) {
        int64_t top = y * to_count < begin ? begin : y * to_count;
        int64_t bottom = (y + 1) * to_count > end ? end : (y + 1) * to_count;
        const uint8_t *row = image->pixels + (size_t)y * values;
        for (size_t i = 0; i < values; i++) {
            sums[i] += row[i] * (uint64_t)(bottom - top);
        }
    }
}

troupe_status troupe_image_resize(const struct troupe_image *image, int width, int height,
                                  uint8_t *pixels_out) {
    TROUPE_ASSERT(width > 0 && height > 0, "resize to %d x %d", width, height);
    uint64_t *sums = NULL;
    TROUPE_TRY(TROUPE_NEW(&sums, (size_t)image->width * 3));
    uint64_t area = (uint64_t)image->width * (uint64_t)image->height;
    for (int y = 0; y < height; y++) {
        sum_rows(image, y, height, sums);
        for (int x = 0; x < width; x++) {
            uint64_t pixel[3];
            area_sum(sums, image->width, x, width, pixel);
            for (int c = 0; c < 3; c++) {
                *pixels_out++ = (uint8_t)((pixel[c] + area / 2) / area);
            }
        }
    }
    troupe_free(sums);
    return TROUPE_OK;
}

/* side * to / from, rounded to a multiple of patch within [patch, to]. */
static int scale_side(int64_t side, int64_t to, int64_t from, int patch) {
    int64_t patches = (2 * side * to + from * patch) / (2 * from * patch);
    int64_t scaled = patches * patch;
    return (int)(scaled < patch ? patch : scaled > to ? to : scaled);
}

void troupe_image_size(int width, int height, const struct troupe_image_fit *fit, int *width_out,
                       int *height_out) {
    int longest = width > height ? width : height;
    int to = fit->image;
    if (longest < to && !fit->enlarge) {
        to = (longest + fit->patch - 1) / fit->patch * fit->patch;
    }
    *width_out = scale_side(width, to, longest, fit->patch);
    *height_out = scale_side(height, to, longest, fit->patch);
}
