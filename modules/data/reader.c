/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "modules/data/caption_internal.h"
#include "modules/data/file.h"
#include "modules/data/image.h"
#include "modules/data/tokenizer.h"
#include "runtime/check.h"
#include "runtime/log.h"
#include "runtime/memory.h"

enum { WHERE_BYTES = 512 };
static const int64_t cache_bytes_default = INT64_C(1) << 30;

struct reader {
    troupe_source base;
    struct troupe_index *index;
    int descriptor; /* of the shard read last, -1: none */
    int shard;
    int64_t cache_bytes_max;
    int64_t cache_bytes;
    uint8_t **pixels; /* (samples,) cached pictures, or NULL */
    int32_t **tokens; /* (samples,) cached captions, or NULL */
};

static size_t picture_bytes(const struct reader *reader, const struct troupe_index_image *picture) {
    return troupe_source_pixel_bytes(&reader->base,
                                     (int64_t)picture->grid.rows * picture->grid.columns);
}

/* --- reading and decoding: allocates ---------------------------------------------------------- */

static troupe_status open_shard(struct reader *reader, int shard) {
    if (reader->descriptor >= 0 && reader->shard == shard) {
        return TROUPE_OK;
    }
    if (reader->descriptor >= 0) {
        close(reader->descriptor);
    }
    const char *path = reader->index->shards[shard];
    reader->shard = shard;
    reader->descriptor = open(path, O_RDONLY | O_CLOEXEC);
    return reader->descriptor >= 0
               ? TROUPE_OK
               : troupe_fail(TROUPE_ERROR_IO, "%s: cannot be opened: %s", path, strerror(errno));
}

/* "shard: sample k at byte n" */
static void describe(const struct reader *reader, const struct troupe_index_sample *sample,
                     const struct troupe_index_member *member, char where[WHERE_BYTES]) {
    snprintf(where, WHERE_BYTES, "%s: sample %s at byte %lld", reader->index->shards[sample->shard],
             sample->key, (long long)member->offset);
}

/* *bytes_out is freed with troupe_free. */
static troupe_status read_member(struct reader *reader, const struct troupe_index_sample *sample,
                                 const struct troupe_index_member *member, const char *where,
                                 uint8_t **bytes_out) {
    TROUPE_TRY(open_shard(reader, sample->shard));
    uint8_t *bytes = NULL;
    TROUPE_TRY(TROUPE_NEW(&bytes, member->bytes));
    troupe_status status = troupe_file_read_at(reader->descriptor, where, member->offset,
                                               (size_t)member->bytes, bytes);
    if (status != TROUPE_OK) {
        troupe_free(bytes);
        return status;
    }
    reader->base.bytes_read += member->bytes;
    *bytes_out = bytes;
    return TROUPE_OK;
}

/* The caption of a JSON member has the length in the index, or more if it was cut. */
static troupe_status encode_json(const struct troupe_index_sample *sample, const uint8_t *bytes,
                                 const char *where, int32_t *tokens_out) {
    char *caption = NULL;
    TROUPE_TRY(
        troupe_caption_of_json((const char *)bytes, (size_t)sample->text.bytes, where, &caption));
    size_t length = strlen(caption);
    if (length >= (size_t)sample->text_tokens) {
        troupe_tokenizer_encode(caption, (size_t)sample->text_tokens, tokens_out);
    }
    troupe_free(caption);
    return length >= (size_t)sample->text_tokens
               ? TROUPE_OK
               : troupe_fail(TROUPE_ERROR_DATA, "%s: the caption has %zu bytes, %d in the index",
                             where, length, sample->text_tokens);
}

static troupe_status decode_text(struct reader *reader, int64_t number, int32_t *tokens_out) {
    const struct troupe_index_sample *sample = &reader->index->samples[number];
    char where[WHERE_BYTES];
    uint8_t *bytes = NULL;
    describe(reader, sample, &sample->text, where);
    TROUPE_TRY(read_member(reader, sample, &sample->text, where, &bytes));
    troupe_status status = TROUPE_OK;
    if (sample->text_is_json) {
        status = encode_json(sample, bytes, where, tokens_out);
    } else {
        troupe_tokenizer_encode((const char *)bytes, (size_t)sample->text_tokens, tokens_out);
    }
    troupe_free(bytes);
    return status;
}

/* Fits a picture to the grid that the index recorded. */
static troupe_status fit_picture(const struct reader *reader, const struct troupe_image *image,
                                 struct troupe_grid grid, const char *where, uint8_t *pixels_out) {
    int patch = reader->base.shape.patch, width = 0, height = 0;
    struct troupe_image_fit fit = {.image = reader->base.shape.image, .patch = patch};
    troupe_image_size(image->width, image->height, &fit, &width, &height);
    if (width != grid.columns * patch || height != grid.rows * patch) {
        return troupe_fail(TROUPE_ERROR_DATA,
                           "%s: the picture is %d x %d pixels once fitted, %d x %d in the index",
                           where, width, height, grid.columns * patch, grid.rows * patch);
    }
    if (width == image->width && height == image->height) {
        memcpy(pixels_out, image->pixels, (size_t)width * (size_t)height * 3);
        return TROUPE_OK;
    }
    return troupe_image_resize(image, width, height, pixels_out);
}

static troupe_status decode_picture(struct reader *reader, const struct troupe_index_sample *sample,
                                    const struct troupe_index_image *picture, uint8_t *pixels_out) {
    char where[WHERE_BYTES];
    uint8_t *bytes = NULL;
    struct troupe_image image = {0};
    describe(reader, sample, &picture->member, where);
    TROUPE_TRY(read_member(reader, sample, &picture->member, where, &bytes));
    troupe_status status = troupe_image_decode(bytes, (size_t)picture->member.bytes, where, &image);
    troupe_free(bytes);
    if (status == TROUPE_OK) {
        status = fit_picture(reader, &image, picture->grid, where, pixels_out);
        troupe_image_fini(&image);
    }
    return status;
}

static troupe_status decode_images(struct reader *reader, int64_t number, uint8_t *pixels_out) {
    const struct troupe_index_sample *sample = &reader->index->samples[number];
    for (int32_t i = 0; i < sample->images; i++) {
        const struct troupe_index_image *picture = &reader->index->images[sample->first_image + i];
        TROUPE_TRY(decode_picture(reader, sample, picture, pixels_out));
        pixels_out += picture_bytes(reader, picture);
    }
    return TROUPE_OK;
}

/* --- the source ------------------------------------------------------------------------------- */

static void reader_info(const troupe_source *source, int64_t number,
                        struct troupe_sample_info *out) {
    const struct reader *reader = (const struct reader *)source;
    const struct troupe_index_sample *sample = &reader->index->samples[number];
    out->text_tokens = sample->text_tokens;
    out->images = sample->images;
    out->image_tokens = sample->image_tokens;
    for (int32_t i = 0; i < sample->images; i++) {
        out->grids[i] = reader->index->images[sample->first_image + i].grid;
    }
}

static troupe_status reader_load_text(troupe_source *source, int64_t number, int32_t *tokens_out) {
    struct reader *reader = (struct reader *)source;
    if (reader->tokens[number] != NULL) {
        size_t count = (size_t)reader->index->samples[number].text_tokens;
        memcpy(tokens_out, reader->tokens[number], count * sizeof *tokens_out);
        return TROUPE_OK;
    }
    bool steady = troupe_memory_is_steady(); /* in place: see the header */
    troupe_memory_set_steady(false);
    troupe_status status = decode_text(reader, number, tokens_out);
    troupe_memory_set_steady(steady);
    return status;
}

static troupe_status reader_load_image(troupe_source *source, int64_t number, int picture,
                                       uint8_t *pixels_out) {
    struct reader *reader = (struct reader *)source;
    const struct troupe_index_sample *sample = &reader->index->samples[number];
    const struct troupe_index_image *images = &reader->index->images[sample->first_image];
    if (reader->pixels[number] != NULL) {
        const uint8_t *pixels = reader->pixels[number];
        for (int i = 0; i < picture; i++) {
            pixels += picture_bytes(reader, &images[i]);
        }
        memcpy(pixels_out, pixels, picture_bytes(reader, &images[picture]));
        return TROUPE_OK;
    }
    bool steady = troupe_memory_is_steady();
    troupe_memory_set_steady(false);
    troupe_status status = decode_picture(reader, sample, &images[picture], pixels_out);
    troupe_memory_set_steady(steady);
    return status;
}

/* Whether so many more bytes fit the budget; they count as used then. */
static bool reserve(struct reader *reader, size_t bytes) {
    if (reader->cache_bytes + (int64_t)bytes > reader->cache_bytes_max) {
        return false;
    }
    reader->cache_bytes += (int64_t)bytes;
    return true;
}

static troupe_status cache_text(struct reader *reader, int64_t number) {
    size_t count = (size_t)reader->index->samples[number].text_tokens;
    if (reader->tokens[number] != NULL || !reserve(reader, count * sizeof(int32_t))) {
        return TROUPE_OK;
    }
    int32_t *tokens = NULL;
    TROUPE_TRY(TROUPE_NEW(&tokens, count));
    troupe_status status = decode_text(reader, number, tokens);
    if (status != TROUPE_OK) {
        troupe_free(tokens);
        return status;
    }
    reader->tokens[number] = tokens;
    return TROUPE_OK;
}

static troupe_status cache_images(struct reader *reader, int64_t number) {
    size_t bytes =
        troupe_source_pixel_bytes(&reader->base, reader->index->samples[number].image_tokens);
    if (reader->pixels[number] != NULL || !reserve(reader, bytes)) {
        return TROUPE_OK;
    }
    uint8_t *pixels = NULL;
    TROUPE_TRY(TROUPE_NEW(&pixels, bytes));
    troupe_status status = decode_images(reader, number, pixels);
    if (status != TROUPE_OK) {
        troupe_free(pixels);
        return status;
    }
    reader->pixels[number] = pixels;
    return TROUPE_OK;
}

static troupe_status reader_prepare(troupe_source *source, int parts, const uint8_t *needed) {
    struct reader *reader = (struct reader *)source;
    for (int64_t i = 0; i < source->samples; i++) {
        if (needed[i] && (parts & TROUPE_SAMPLE_TEXT)) {
            TROUPE_TRY(cache_text(reader, i));
        }
        if (needed[i] && (parts & TROUPE_SAMPLE_IMAGES)) {
            TROUPE_TRY(cache_images(reader, i));
        }
    }
    TROUPE_LOG_INFO("data", "%lld bytes of decoded samples cached, %lld read",
                    (long long)reader->cache_bytes, (long long)source->bytes_read);
    return TROUPE_OK;
}

static void reader_destroy(troupe_source *source) {
    struct reader *reader = (struct reader *)source;
    for (int64_t i = 0; i < source->samples; i++) {
        if (reader->pixels != NULL) {
            troupe_free(reader->pixels[i]);
        }
        if (reader->tokens != NULL) {
            troupe_free(reader->tokens[i]);
        }
    }
    troupe_free(reader->pixels);
    troupe_free(reader->tokens);
    troupe_index_close(reader->index);
    if (reader->descriptor >= 0) {
        close(reader->descriptor);
    }
    troupe_free(reader);
}

static const struct troupe_source_table reader_table = {
    .info = reader_info,
    .load_text = reader_load_text,
    .load_image = reader_load_image,
    .prepare = reader_prepare,
    .destroy = reader_destroy,
};

troupe_status troupe_reader_open(const struct troupe_shards *shards,
                                 const struct troupe_sample_shape *shape,
                                 const struct troupe_reader_options *options, troupe_source **out) {
    troupe_status status = TROUPE_OK;
    struct reader *reader = NULL;
    TROUPE_TRY(TROUPE_NEW(&reader, 1));
    reader->base.table = &reader_table;
    reader->base.shape = *shape;
    reader->descriptor = -1;
    reader->cache_bytes_max =
        options->cache_bytes != 0 ? options->cache_bytes : cache_bytes_default;
    TROUPE_TRY_FAIL(troupe_index_open(shards, shape, &reader->index));
    reader->base.samples = reader->index->sample_count;
    reader->base.bounds = reader->index->bounds;
    TROUPE_TRY_FAIL(TROUPE_NEW(&reader->pixels, reader->base.samples));
    TROUPE_TRY_FAIL(TROUPE_NEW(&reader->tokens, reader->base.samples));
    *out = &reader->base;
    return TROUPE_OK;
fail:
    reader_destroy(&reader->base);
    return status;
}

const char *troupe_reader_key(const troupe_source *source, int64_t sample) {
    TROUPE_ASSERT(source->table == &reader_table, "not a source of troupe_reader_open");
    TROUPE_ASSERT(sample >= 0 && sample < source->samples, "sample %lld", (long long)sample);
    return ((const struct reader *)source)->index->samples[sample].key;
}
