/* SPDX-License-Identifier: Apache-2.0
 *
 * A source is a numbered set of samples: 0..n pictures and one caption each. What a sample weighs
 * (text tokens, patch grids) is known without loading it, on every rank; loading brings the tokens
 * or the pixels. Implementations: reader.h (indexed WebDataset tars), synthetic.h, mismatch.h.
 *
 *     struct troupe_sample_info info;
 *     troupe_source_info(source, sample, &info);
 *     TROUPE_TRY(troupe_source_load_text(source, sample, tokens));    (info.text_tokens of them)
 *     TROUPE_TRY(troupe_source_load_images(source, sample, pixels));
 *
 * The fused sequence of a sample is
 *
 *     begin, image placeholder x tokens of picture 1, ... picture n, caption bytes, end
 *
 * and a position is a target if its next token is a caption byte or end. A picture of h x w patches
 * is h * w image tokens; its sides are multiples of the patch.
 *
 * Ownership: destroyed by whoever created it. Threads: one at a time.
 * Failure: load: ERROR_IO or ERROR_DATA naming shard, member and offset.
 */
#ifndef TROUPE_MODULES_DATA_SOURCE_H
#define TROUPE_MODULES_DATA_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TROUPE_SAMPLE_IMAGES_MAX = 32 };

/* What the model makes of a sample; from the config. */
struct troupe_sample_shape {
    int patch;      /* side of a patch in pixels */
    int image;      /* longest side of a picture in pixels, a multiple of patch */
    int sequence;   /* longest fused sequence in tokens */
    int images_max; /* pictures of one sample, at most TROUPE_SAMPLE_IMAGES_MAX */
};

/* ERROR_INVALID naming the config key of a size that does not fit. */
troupe_status troupe_sample_shape_check(const struct troupe_sample_shape *shape);

/* Patches of a picture. */
struct troupe_grid {
    int32_t rows;
    int32_t columns;
};

struct troupe_sample_info {
    int32_t text_tokens; /* caption bytes */
    int32_t images;
    int32_t image_tokens; /* of all pictures */
    struct troupe_grid grids[TROUPE_SAMPLE_IMAGES_MAX];
};

/* Begin, image tokens, caption, end. */
static inline int64_t troupe_sample_rows(const struct troupe_sample_info *info) {
    return (int64_t)info->image_tokens + info->text_tokens + 2;
}

/* Positions with a target: one for each caption byte and one for end. */
static inline int64_t troupe_sample_targets(const struct troupe_sample_info *info) {
    return (int64_t)info->text_tokens + 1;
}

/* The largest sample of a source. */
struct troupe_sample_bounds {
    int64_t rows;
    int64_t images;
    int64_t image_tokens;
};

/* Makes the bounds hold this sample too. */
void troupe_sample_bounds_include(struct troupe_sample_bounds *bounds,
                                  const struct troupe_sample_info *info);

typedef struct troupe_source troupe_source;

struct troupe_source_table {
    /* Never fails, never allocates. */
    void (*info)(const troupe_source *source, int64_t sample, struct troupe_sample_info *out);
    /* tokens_out: (text_tokens,) int32. */
    troupe_status (*load_text)(troupe_source *source, int64_t sample, int32_t *tokens_out);
    /* Picture `picture` of the sample. pixels_out: (height, width, 3) uint8. */
    troupe_status (*load_image)(troupe_source *source, int64_t sample, int picture,
                                uint8_t *pixels_out);
    /* May be NULL: nothing to prepare. See troupe_source_prepare. */
    troupe_status (*prepare)(troupe_source *source, int parts, const uint8_t *needed);
    void (*destroy)(troupe_source *source);
};

/* First member of every source. */
struct troupe_source {
    const struct troupe_source_table *table;
    int64_t samples;
    struct troupe_sample_shape shape;
    struct troupe_sample_bounds bounds;
    int64_t bytes_read; /* from files, so far */
};

enum { TROUPE_SAMPLE_TEXT = 1, TROUPE_SAMPLE_IMAGES = 2 };

/* Startup: loads the given parts (TROUPE_SAMPLE_*) of the samples whose byte in `needed` (one a
 * sample; see troupe_sample_plan_needed) is not 0, so that loading them later neither reads files
 * nor allocates. What exceeds the source's memory budget stays to be loaded in place. */
troupe_status troupe_source_prepare(troupe_source *source, int parts, const uint8_t *needed);

void troupe_source_info(const troupe_source *source, int64_t sample,
                        struct troupe_sample_info *out);
troupe_status troupe_source_load_text(troupe_source *source, int64_t sample, int32_t *tokens_out);
troupe_status troupe_source_load_image(troupe_source *source, int64_t sample, int picture,
                                       uint8_t *pixels_out);
/* All of the sample, one after the other without gaps. */
troupe_status troupe_source_load_images(troupe_source *source, int64_t sample, uint8_t *pixels_out);
/* Bytes of the pixels of so many patches. */
size_t troupe_source_pixel_bytes(const troupe_source *source, int64_t patches);
/* Accepts NULL. */
void troupe_source_destroy(troupe_source *source);

#ifdef __cplusplus
}
#endif
#endif
