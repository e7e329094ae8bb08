/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/synthetic.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "modules/data/tokenizer.h"
#include "runtime/check.h"
#include "runtime/memory.h"
#include "runtime/random.h"

enum { SHAPES = 4, COLOURS = 6, TEXT_MAX = 4096, PHRASE_BYTES = 64 };

static const char *const shape_names[SHAPES] = {"circle", "square", "triangle", "cross"};

static const struct {
    const char *name;
    uint8_t rgb[3];
} colours[COLOURS] = {
    {"red", {220, 40, 40}},     {"green", {40, 170, 60}},   {"blue", {50, 80, 220}},
    {"yellow", {235, 205, 30}}, {"purple", {150, 50, 180}}, {"black", {20, 20, 20}},
};

/* What is drawn for a sample; each quality of each picture has its own counter. */
enum quality { TEXT_ONLY, TEXT_TOKENS, IMAGES, ROWS, COLUMNS, SHAPE, COLOUR, GROUND, QUALITIES };

struct synthetic {
    troupe_source base;
    struct troupe_synthetic_options options;
    uint64_t stream;
};

static int64_t draw(const struct synthetic *s, int64_t sample, enum quality quality, int image,
                    int64_t low, int64_t high) {
    uint64_t counter = (uint64_t)sample * (TROUPE_SAMPLE_IMAGES_MAX * QUALITIES) +
                       (uint64_t)image * QUALITIES + (uint64_t)quality;
    return low + (int64_t)troupe_random_below(s->options.seed, s->stream, counter,
                                              (uint64_t)(high - low + 1));
}

static void synthetic_info(const troupe_source *source, int64_t sample,
                           struct troupe_sample_info *out) {
    const struct synthetic *s = (const struct synthetic *)source;
    const struct troupe_synthetic_options *o = &s->options;
    int patch = source->shape.patch;
    bool text_only = (double)draw(s, sample, TEXT_ONLY, 0, 0, 999999) < o->text_only_fraction * 1e6;
    out->text_tokens = (int32_t)draw(s, sample, TEXT_TOKENS, 0, o->text_min, o->text_max);
    out->images = text_only ? 0 : (int32_t)draw(s, sample, IMAGES, 0, o->images_min, o->images_max);
    out->image_tokens = 0;
    for (int i = 0; i < out->images; i++) {
        int low = o->side_min / patch, high = o->side_max / patch;
        out->grids[i].rows = (int32_t)draw(s, sample, ROWS, i, low, high);
        out->grids[i].columns = (int32_t)draw(s, sample, COLUMNS, i, low, high);
        out->image_tokens += out->grids[i].rows * out->grids[i].columns;
    }
}

/* "A red circle. " into phrase; returns its length. */
static int describe(const struct synthetic *s, int64_t sample, int images, int image,
                    char phrase[PHRASE_BYTES]) {
    if (images == 0) {
        return snprintf(phrase, PHRASE_BYTES, "No picture. ");
    }
    return snprintf(phrase, PHRASE_BYTES, "A %s %s. ",
                    colours[draw(s, sample, COLOUR, image, 0, COLOURS - 1)].name,
                    shape_names[draw(s, sample, SHAPE, image, 0, SHAPES - 1)]);
}

/* The descriptions of all pictures, over and over, cut to the length drawn. */
static troupe_status synthetic_load_text(troupe_source *source, int64_t sample,
                                         int32_t *tokens_out) {
    const struct synthetic *s = (const struct synthetic *)source;
    struct troupe_sample_info info;
    synthetic_info(source, sample, &info);
    int32_t filled = 0;
    for (int image = 0; filled < info.text_tokens; image++) {
        char phrase[PHRASE_BYTES];
        int index = info.images == 0 ? 0 : image % info.images;
        int length = describe(s, sample, info.images, index, phrase);
        int32_t room = info.text_tokens - filled;
        filled += (int32_t)troupe_tokenizer_encode(phrase, (size_t)(length < room ? length : room),
                                                   tokens_out + filled);
    }
    return TROUPE_OK;
}

/* Whether a point of the unit square, centre (0, 0), corners (+-1, +-1), lies in the shape. */
static bool inside(int64_t shape, double x, double y) {
    double ax = x < 0 ? -x : x, ay = y < 0 ? -y : y;
    switch (shape) {
    case 0:
        return x * x + y * y < 0.64;
    case 1:
        return ax < 0.7 && ay < 0.7;
    case 2:
        return y < 0.7 && ax < (y + 0.8) * 0.5;
    default:
        return (ax < 0.25 && ay < 0.8) || (ay < 0.25 && ax < 0.8);
    }
}

/* pixels: (height, width, 3) uint8. */
static void paint(const struct synthetic *s, int64_t sample, int image, int height, int width,
                  uint8_t *pixels) {
    int64_t shape = draw(s, sample, SHAPE, image, 0, SHAPES - 1);
    const uint8_t *ink = colours[draw(s, sample, COLOUR, image, 0, COLOURS - 1)].rgb;
    uint8_t light = (uint8_t)draw(s, sample, GROUND, image, 225, 255);
    const uint8_t ground[3] = {light, light, light};
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            double u = (2.0 * x + 1) / width - 1, v = (2.0 * y + 1) / height - 1;
            memcpy(pixels, inside(shape, u, v) ? ink : ground, 3);
            pixels += 3;
        }
    }
}

static troupe_status synthetic_load_image(troupe_source *source, int64_t sample, int picture,
                                          uint8_t *pixels_out) {
    const struct synthetic *s = (const struct synthetic *)source;
    int patch = source->shape.patch;
    struct troupe_sample_info info;
    synthetic_info(source, sample, &info);
    paint(s, sample, picture, info.grids[picture].rows * patch, info.grids[picture].columns * patch,
          pixels_out);
    return TROUPE_OK;
}

static void synthetic_destroy(troupe_source *source) {
    troupe_free(source);
}

static const struct troupe_source_table synthetic_table = {
    .info = synthetic_info,
    .load_text = synthetic_load_text,
    .load_image = synthetic_load_image,
    .prepare = NULL,
    .destroy = synthetic_destroy,
};

static int or_default(int value, int fallback) {
    return value != 0 ? value : fallback;
}

static void fill_defaults(const struct troupe_sample_shape *shape,
                          struct troupe_synthetic_options *o) {
    o->samples = o->samples != 0 ? o->samples : 1024;
    o->images_min = or_default(o->images_min, 1);
    o->images_max = or_default(o->images_max, o->images_min);
    o->side_min = or_default(o->side_min, shape->patch);
    o->side_max = or_default(o->side_max, shape->image);
    o->text_min = or_default(o->text_min, 12);
    o->text_max = or_default(o->text_max, o->text_min > 32 ? o->text_min : 32);
}

static troupe_status check_options(const struct troupe_sample_shape *shape,
                                   const struct troupe_synthetic_options *o) {
    if (o->samples < 1) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "data.synthetic.samples is %lld; it must be "
                           "positive",
                           (long long)o->samples);
    }
    if (o->images_min < 1 || o->images_min > o->images_max || o->images_max > shape->images_max) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "data.synthetic.images_min is %d and images_max %d; they must ascend "
                           "from 1 to at most data.max_images, %d",
                           o->images_min, o->images_max, shape->images_max);
    }
    if (o->side_min < shape->patch || o->side_min > o->side_max || o->side_max > shape->image) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "data.synthetic.side_min is %d and side_max %d; they must ascend from "
                           "the patch, %d, to at most model.vision.image, %d",
                           o->side_min, o->side_max, shape->patch, shape->image);
    }
    if (o->text_min < 1 || o->text_min > o->text_max || o->text_max > TEXT_MAX) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "data.synthetic.text_min is %d and text_max %d; they must ascend from 1 "
                           "to at most %d",
                           o->text_min, o->text_max, TEXT_MAX);
    }
    if (!(o->text_only_fraction >= 0 && o->text_only_fraction <= 1)) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "data.synthetic.text_only_fraction is %g; it must be 0 to 1",
                           o->text_only_fraction);
    }
    return TROUPE_OK;
}

static troupe_status set_bounds(troupe_source *source, const struct troupe_synthetic_options *o) {
    int64_t side = o->side_max / source->shape.patch;
    source->bounds.images = o->text_only_fraction < 1 ? o->images_max : 0;
    source->bounds.image_tokens = source->bounds.images * side * side;
    source->bounds.rows = source->bounds.image_tokens + o->text_max + 2;
    if (source->bounds.rows > source->shape.sequence) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "data.synthetic allows samples of %lld tokens (%lld of pictures, %d of "
                           "text, begin and end); model.llm.sequence is %d",
                           (long long)source->bounds.rows, (long long)source->bounds.image_tokens,
                           o->text_max, source->shape.sequence);
    }
    return TROUPE_OK;
}

troupe_status troupe_synthetic_create(const struct troupe_sample_shape *shape,
                                      const struct troupe_synthetic_options *options,
                                      troupe_source **out) {
    struct troupe_synthetic_options filled = *options;
    struct troupe_sample_shape resolved = *shape;
    fill_defaults(shape, &filled);
    resolved.images_max = or_default(shape->images_max, filled.images_max);
    TROUPE_TRY(troupe_sample_shape_check(&resolved));
    TROUPE_TRY(check_options(&resolved, &filled));
    struct troupe_source base = {
        .table = &synthetic_table, .samples = filled.samples, .shape = resolved};
    TROUPE_TRY(set_bounds(&base, &filled));
    struct synthetic *s = NULL;
    TROUPE_TRY(TROUPE_NEW(&s, 1));
    s->base = base;
    s->options = filled;
    s->stream = troupe_random_stream("data.synthetic");
    *out = &s->base;
    return TROUPE_OK;
}
