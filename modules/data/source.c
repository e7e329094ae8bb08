/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/source.h"

#include "runtime/check.h"

troupe_status troupe_sample_shape_check(const struct troupe_sample_shape *shape) {
    if (shape->patch < 1 || shape->patch > 256) {
        return troupe_fail(TROUPE_ERROR_INVALID, "model.vision.patch is %d; it must be 1 to 256",
                           shape->patch);
    }
    if (shape->image < shape->patch || shape->image % shape->patch != 0 || shape->image > 8192) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "model.vision.image is %d; it must be a multiple of the patch (%d), at "
                           "most 8192",
                           shape->image, shape->patch);
    }
    if (shape->sequence < 3) {
        return troupe_fail(TROUPE_ERROR_INVALID, "model.llm.sequence is %d; it must be 3 or more",
                           shape->sequence);
    }
    if (shape->images_max < 0 || shape->images_max > TROUPE_SAMPLE_IMAGES_MAX) {
        return troupe_fail(TROUPE_ERROR_INVALID, "data.max_images is %d; it must be 0 to %d",
                           shape->images_max, TROUPE_SAMPLE_IMAGES_MAX);
    }
    return TROUPE_OK;
}

static void raise_to(int64_t *most, int64_t value) {
    *most = value > *most ? value : *most;
}

void troupe_sample_bounds_include(struct troupe_sample_bounds *bounds,
                                  const struct troupe_sample_info *info) {
    raise_to(&bounds->rows, troupe_sample_rows(info));
    raise_to(&bounds->images, info->images);
    raise_to(&bounds->image_tokens, info->image_tokens);
}

static void check_sample(const troupe_source *source, int64_t sample) {
    TROUPE_ASSERT(sample >= 0 && sample < source->samples, "sample %lld of %lld", (long long)sample,
                  (long long)source->samples);
}

troupe_status troupe_source_prepare(troupe_source *source, int parts, const uint8_t *needed) {
    return source->table->prepare == NULL ? TROUPE_OK
                                          : source->table->prepare(source, parts, needed);
}

void troupe_source_info(const troupe_source *source, int64_t sample,
                        struct troupe_sample_info *out) {
    check_sample(source, sample);
    source->table->info(source, sample, out);
}

troupe_status troupe_source_load_text(troupe_source *source, int64_t sample, int32_t *tokens_out) {
    check_sample(source, sample);
    return source->table->load_text(source, sample, tokens_out);
}

troupe_status troupe_source_load_image(troupe_source *source, int64_t sample, int picture,
                                       uint8_t *pixels_out) {
    check_sample(source, sample);
    return source->table->load_image(source, sample, picture, pixels_out);
}

troupe_status troupe_source_load_images(troupe_source *source, int64_t sample,
                                        uint8_t *pixels_out) {
    struct troupe_sample_info info;
    troupe_source_info(source, sample, &info);
    for (int32_t i = 0; i < info.images; i++) {
        TROUPE_TRY(troupe_source_load_image(source, sample, i, pixels_out));
        pixels_out +=
            troupe_source_pixel_bytes(source, (int64_t)info.grids[i].rows * info.grids[i].columns);
    }
    return TROUPE_OK;
}

size_t troupe_source_pixel_bytes(const troupe_source *source, int64_t patches) {
    return (size_t)patches * (size_t)source->shape.patch * (size_t)source->shape.patch * 3;
}

void troupe_source_destroy(troupe_source *source) {
    if (source != NULL) {
        source->table->destroy(source);
    }
}
