/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/index.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "modules/data/file.h"
#include "modules/data/index_internal.h"
#include "modules/data/shards_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

/* The file format: bump it when the meaning of a field changes. */
enum { VERSION = 1, GROWTH_FIRST = 256 };

/* --- the index in memory ---------------------------------------------------------------------- */

/* Makes room for one more of `count` items, which live in an array that doubles. */
static troupe_status grow(void **items, int64_t count, size_t item_bytes) {
    bool full = count == 0 || (count >= GROWTH_FIRST && (count & (count - 1)) == 0);
    if (!full) {
        return TROUPE_OK;
    }
    void *larger = NULL;
    TROUPE_TRY(troupe_alloc((size_t)(count == 0 ? GROWTH_FIRST : 2 * count), item_bytes, &larger));
    if (count > 0) {
        memcpy(larger, *items, (size_t)count * item_bytes);
    }
    troupe_free(*items);
    *items = larger;
    return TROUPE_OK;
}

troupe_status troupe_index_add(struct troupe_index *index, const struct troupe_index_sample *sample,
                               const struct troupe_index_image *images) {
    struct troupe_index_sample copy = *sample;
    for (int32_t i = 0; i < sample->images; i++) {
        TROUPE_TRY(grow((void **)&index->images, index->image_count + i, sizeof *index->images));
        index->images[index->image_count + i] = images[i];
    }
    TROUPE_TRY(grow((void **)&index->samples, index->sample_count, sizeof *index->samples));
    TROUPE_TRY(troupe_string_copy(sample->key, &copy.key));
    copy.first_image = index->image_count;
    index->image_count += sample->images;
    index->samples[index->sample_count++] = copy;

    struct troupe_sample_info info = {.text_tokens = sample->text_tokens,
                                      .images = sample->images,
                                      .image_tokens = sample->image_tokens};
    troupe_sample_bounds_include(&index->bounds, &info);
    return TROUPE_OK;
}

void troupe_index_close(struct troupe_index *index) {
    if (index == NULL) {
        return;
    }
    for (int64_t i = 0; i < index->sample_count; i++) {
        troupe_free(index->samples[i].key);
    }
    for (int64_t i = 0; i < index->shard_count; i++) {
        troupe_free(index->shards[i]);
    }
    troupe_free(index->samples);
    troupe_free(index->images);
    troupe_free(index->shards);
    troupe_free(index);
}

/* --- writing ---------------------------------------------------------------------------------- */

static void add_shape(cJSON *header, const struct troupe_sample_shape *shape) {
    cJSON *object = cJSON_AddObjectToObject(header, "shape");
    cJSON_AddNumberToObject(object, "patch", shape->patch);
    cJSON_AddNumberToObject(object, "image", shape->image);
    cJSON_AddNumberToObject(object, "sequence", shape->sequence);
    cJSON_AddNumberToObject(object, "images_max", shape->images_max);
}

static cJSON *header_json(const struct troupe_index *index, const struct troupe_shard_list *shards,
                          const struct troupe_index_options *options,
                          const struct troupe_index_summary *summary) {
    cJSON *header = cJSON_CreateObject();
    cJSON_AddStringToObject(header, "format", "troupe-index");
    cJSON_AddNumberToObject(header, "version", VERSION);
    add_shape(header, &index->shape);
    cJSON_AddBoolToObject(header, "truncate", options->truncate);
    cJSON_AddBoolToObject(header, "skip_undecodable", options->skip_undecodable);
    cJSON_AddNumberToObject(header, "samples", (double)summary->samples);
    cJSON_AddNumberToObject(header, "images", (double)summary->images);
    cJSON_AddNumberToObject(header, "skipped", (double)summary->skipped);
    cJSON_AddNumberToObject(header, "truncated", (double)summary->truncated);
    cJSON *list = cJSON_AddArrayToObject(header, "shards");
    for (int64_t i = 0; i < shards->count; i++) {
        cJSON *shard = cJSON_CreateObject();
        cJSON_AddStringToObject(shard, "name", shards->files[i].name);
        cJSON_AddNumberToObject(shard, "bytes", (double)shards->files[i].bytes);
        cJSON_AddStringToObject(shard, "changed", shards->files[i].changed);
        cJSON_AddItemToArray(list, shard);
    }
    return header;
}

static cJSON *member_json(const struct troupe_index_member *member) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "offset", (double)member->offset);
    cJSON_AddNumberToObject(object, "bytes", (double)member->bytes);
    return object;
}

static cJSON *sample_json(const struct troupe_index *index, int64_t i) {
    const struct troupe_index_sample *sample = &index->samples[i];
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "key", sample->key);
    cJSON_AddNumberToObject(object, "shard", sample->shard);
    cJSON *text = member_json(&sample->text);
    cJSON_AddNumberToObject(text, "tokens", sample->text_tokens);
    cJSON_AddNumberToObject(text, "targets", sample->text_tokens + 1);
    cJSON_AddItemToObject(object, sample->text_is_json ? "json" : "text", text);
    cJSON *images = cJSON_AddArrayToObject(object, "images");
    for (int32_t k = 0; k < sample->images; k++) {
        const struct troupe_index_image *image = &index->images[sample->first_image + k];
        cJSON *item = member_json(&image->member);
        cJSON_AddNumberToObject(item, "width", image->grid.columns * index->shape.patch);
        cJSON_AddNumberToObject(item, "height", image->grid.rows * index->shape.patch);
        cJSON_AddNumberToObject(item, "tokens", image->grid.rows * image->grid.columns);
        cJSON_AddItemToArray(images, item);
    }
    return object;
}

static void print_line(FILE *to, cJSON *object) {
    char *line = cJSON_PrintUnformatted(object);
    if (line != NULL) {
        fprintf(to, "%s\n", line);
    }
    cJSON_free(line);
    cJSON_Delete(object);
}

static troupe_status index_write(const struct troupe_index *index,
                                 const struct troupe_shard_list *shards,
                                 const struct troupe_index_options *options,
                                 const struct troupe_index_summary *summary) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    if (to == NULL) {
        return troupe_fail(TROUPE_ERROR_MEMORY, "%s: no memory to write it", shards->index);
    }
    print_line(to, header_json(index, shards, options, summary));
    for (int64_t i = 0; i < index->sample_count; i++) {
        print_line(to, sample_json(index, i));
    }
    fclose(to);
    troupe_status status = troupe_file_write(shards->index, text, bytes);
    free(text); /* open_memstream's */
    return status;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* One line of the file at a time, parsed. */
struct lines {
    const char *path;
    const char *next;
    int64_t number;
};

static troupe_status fail_line(const struct lines *lines, const char *what) {
    return troupe_fail(TROUPE_ERROR_DATA, "%s: line %lld: %s; run `troupe data index` again",
                       lines->path, (long long)lines->number, what);
}

/* *out: the object of the next line, to be deleted; NULL at the end. */
static troupe_status next_line(struct lines *lines, cJSON **out) {
    *out = NULL;
    if (*lines->next == '\0') {
        return TROUPE_OK;
    }
    lines->number++;
    const char *end = strchrnul(lines->next, '\n');
    *out = cJSON_ParseWithLength(lines->next, (size_t)(end - lines->next));
    lines->next = *end == '\0' ? end : end + 1;
    return *out != NULL ? TROUPE_OK : fail_line(lines, "not valid JSON");
}

/* A whole number in [0, max]; -1 if it is none. */
static int64_t number_of(const cJSON *object, const char *name, int64_t max) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    bool valid = cJSON_IsNumber(item) && item->valuedouble >= 0 && item->valuedouble <= (double)max;
    return valid ? (int64_t)item->valuedouble : -1;
}

enum { NUMBER_MAX = INT32_MAX };
static const int64_t offset_max = INT64_C(1) << 53;

static bool read_member(const cJSON *object, struct troupe_index_member *out) {
    out->offset = number_of(object, "offset", offset_max);
    out->bytes = number_of(object, "bytes", offset_max);
    return out->offset >= 0 && out->bytes >= 0;
}

static bool read_image(const cJSON *object, const struct troupe_sample_shape *shape,
                       struct troupe_index_image *out) {
    int64_t width = number_of(object, "width", shape->image);
    int64_t height = number_of(object, "height", shape->image);
    out->grid.rows = (int32_t)(height / shape->patch);
    out->grid.columns = (int32_t)(width / shape->patch);
    return read_member(object, &out->member) && width >= shape->patch && height >= shape->patch;
}

static troupe_status read_sample(struct troupe_index *index, struct lines *lines,
                                 const cJSON *line) {
    struct troupe_index_image images[TROUPE_SAMPLE_IMAGES_MAX];
    struct troupe_index_sample sample = {0};
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(line, "text");
    sample.text_is_json = text == NULL;
    if (text == NULL) {
        text = cJSON_GetObjectItemCaseSensitive(line, "json");
    }
    sample.key = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "key"));
    sample.shard = (int)number_of(line, "shard", index->shard_count - 1);
    sample.text_tokens = (int32_t)number_of(text, "tokens", NUMBER_MAX);
    if (sample.key == NULL || sample.shard < 0 || sample.text_tokens < 0 ||
        !read_member(text, &sample.text)) {
        return fail_line(lines, "not a sample");
    }
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(line, "images");
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, list) {
        if (sample.images == TROUPE_SAMPLE_IMAGES_MAX) {
            return fail_line(lines, "too many pictures");
        }
        struct troupe_index_image *image = &images[sample.images++];
        if (!read_image(item, &index->shape, image)) {
            return fail_line(lines, "not a picture");
        }
        sample.image_tokens += image->grid.rows * image->grid.columns;
    }
    return troupe_index_add(index, &sample, images);
}

static const char *const renew = "run `troupe data index` on its shards again";

static troupe_status check_header(const cJSON *header, const char *path,
                                  const struct troupe_sample_shape *shape) {
    const char *format = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(header, "format"));
    if (format == NULL || strcmp(format, "troupe-index") != 0 ||
        number_of(header, "version", NUMBER_MAX) != VERSION) {
        return troupe_fail(TROUPE_ERROR_DATA, "%s: not an index of version %d; %s", path, VERSION,
                           renew);
    }
    const cJSON *built = cJSON_GetObjectItemCaseSensitive(header, "shape");
    const struct {
        const char *name;
        int wanted;
    } sizes[] = {{"patch", shape->patch}, {"image", shape->image}, {"sequence", shape->sequence}};
    for (size_t i = 0; i < TROUPE_COUNT_OF(sizes); i++) {
        int64_t value = number_of(built, sizes[i].name, NUMBER_MAX);
        if (value != sizes[i].wanted) {
            return troupe_fail(TROUPE_ERROR_DATA,
                               "%s: was built for %s %lld, the model has %d; %s with the sizes of "
                               "the model",
                               path, sizes[i].name, (long long)value, sizes[i].wanted, renew);
        }
    }
    return TROUPE_OK;
}

static troupe_status check_shards(const cJSON *header, const struct troupe_shard_list *shards) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(header, "shards");
    if (cJSON_GetArraySize(list) != shards->count) {
        return troupe_fail(TROUPE_ERROR_DATA, "%s: is of %d shards, now there are %lld; %s",
                           shards->index, cJSON_GetArraySize(list), (long long)shards->count,
                           renew);
    }
    int64_t i = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, list) {
        const struct troupe_shard_file *file = &shards->files[i++];
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "name"));
        const char *changed =
            cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "changed"));
        if (name == NULL || changed == NULL || strcmp(name, file->name) != 0 ||
            strcmp(changed, file->changed) != 0 ||
            number_of(item, "bytes", offset_max) != file->bytes) {
            return troupe_fail(TROUPE_ERROR_DATA, "%s: has changed since %s was built; %s",
                               file->path, shards->index, renew);
        }
    }
    return TROUPE_OK;
}

static troupe_status check_bounds(const struct troupe_index *index, const char *path,
                                  const struct troupe_sample_shape *shape) {
    if (index->bounds.images > shape->images_max) {
        return troupe_fail(TROUPE_ERROR_DATA,
                           "%s: holds a sample of %lld pictures; data.max_images is %d", path,
                           (long long)index->bounds.images, shape->images_max);
    }
    if (index->bounds.rows > shape->sequence) {
        return troupe_fail(TROUPE_ERROR_DATA,
                           "%s: holds a sample of %lld tokens; model.llm.sequence is %d; %s", path,
                           (long long)index->bounds.rows, shape->sequence, renew);
    }
    return TROUPE_OK;
}

static troupe_status set_shards(struct troupe_index *index,
                                const struct troupe_shard_list *shards) {
    TROUPE_TRY(TROUPE_NEW(&index->shards, shards->count));
    for (int64_t i = 0; i < shards->count; i++) {
        TROUPE_TRY(troupe_string_copy(shards->files[i].path, &index->shards[i]));
        index->shard_count++;
    }
    return TROUPE_OK;
}

/* The sample lines; their number must be the header's, or the file was cut. */
static troupe_status read_samples(struct troupe_index *index, struct lines *lines,
                                  int64_t samples) {
    cJSON *line = NULL;
    TROUPE_TRY(next_line(lines, &line));
    while (line != NULL) {
        troupe_status status = read_sample(index, lines, line);
        cJSON_Delete(line);
        TROUPE_TRY(status);
        TROUPE_TRY(next_line(lines, &line));
    }
    return index->sample_count == samples ? TROUPE_OK : fail_line(lines, "samples are missing");
}

static troupe_status read_index(const char *text, const struct troupe_shard_list *shards,
                                struct troupe_index *index,
                                struct troupe_index_header *header_out) {
    struct lines lines = {.path = shards->index, .next = text};
    cJSON *header = NULL;
    TROUPE_TRY(next_line(&lines, &header));
    troupe_status status = check_header(header, shards->index, &index->shape);
    if (status == TROUPE_OK) {
        status = check_shards(header, shards);
    }
    int64_t samples = number_of(header, "samples", offset_max);
    *header_out = (struct troupe_index_header){
        .truncate = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(header, "truncate")),
        .skip_undecodable =
            cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(header, "skip_undecodable")),
        .skipped = number_of(header, "skipped", offset_max),
        .truncated = number_of(header, "truncated", offset_max),
    };
    cJSON_Delete(header);
    TROUPE_TRY(status);
    TROUPE_TRY(set_shards(index, shards));
    TROUPE_TRY(read_samples(index, &lines, samples));
    return check_bounds(index, shards->index, &index->shape);
}

static troupe_status open_listed(const struct troupe_shard_list *shards,
                                 const struct troupe_sample_shape *shape, struct troupe_index **out,
                                 struct troupe_index_header *header_out) {
    uint8_t *text = NULL;
    size_t bytes = 0;
    struct troupe_index *index = NULL;
    if (troupe_file_read(shards->index, &text, &bytes) != TROUPE_OK) {
        return troupe_fail_in(troupe_fail(TROUPE_ERROR_IO, "%s; %s", troupe_last_error(), renew),
                              "index");
    }
    troupe_status status = TROUPE_NEW(&index, 1);
    if (status == TROUPE_OK) {
        index->shape = *shape;
        status = read_index((const char *)text, shards, index, header_out);
    }
    troupe_free(text);
    if (status != TROUPE_OK) {
        troupe_index_close(index);
        return status;
    }
    *out = index;
    return TROUPE_OK;
}

troupe_status troupe_index_open(const struct troupe_shards *shards,
                                const struct troupe_sample_shape *shape,
                                struct troupe_index **out) {
    TROUPE_TRY(troupe_sample_shape_check(shape));
    struct troupe_shard_list list;
    struct troupe_index_header header;
    TROUPE_TRY(troupe_shard_list_init(shards, &list));
    troupe_status status = open_listed(&list, shape, out, &header);
    troupe_shard_list_fini(&list);
    return status;
}

/* --- building --------------------------------------------------------------------------------- */

static bool up_to_date(const struct troupe_shard_list *shards,
                       const struct troupe_index_options *options,
                       struct troupe_index_summary *summary) {
    struct troupe_index *index = NULL;
    struct troupe_index_header header;
    if (options->rebuild || open_listed(shards, &options->shape, &index, &header) != TROUPE_OK) {
        return false;
    }
    bool same = header.truncate == options->truncate &&
                header.skip_undecodable == options->skip_undecodable;
    *summary = (struct troupe_index_summary){.shards = shards->count,
                                             .samples = index->sample_count,
                                             .images = index->image_count,
                                             .skipped = header.skipped,
                                             .truncated = header.truncated,
                                             .up_to_date = true};
    troupe_index_close(index);
    return same;
}

static troupe_status build_listed(const struct troupe_shard_list *shards,
                                  const struct troupe_index_options *options,
                                  struct troupe_index_summary *summary) {
    if (up_to_date(shards, options, summary)) {
        return TROUPE_OK;
    }
    *summary = (struct troupe_index_summary){.shards = shards->count};
    struct troupe_index *index = NULL;
    TROUPE_TRY(TROUPE_NEW(&index, 1));
    index->shape = options->shape;
    troupe_status status = troupe_index_walk(shards, options, index, summary);
    summary->samples = index->sample_count;
    summary->images = index->image_count;
    if (status == TROUPE_OK && index->sample_count == 0) {
        status =
            troupe_fail(TROUPE_ERROR_DATA, "%s: no samples in the shards", shards->files[0].path);
    }
    if (status == TROUPE_OK) {
        status = index_write(index, shards, options, summary);
    }
    troupe_index_close(index);
    return status;
}

troupe_status troupe_index_build(const struct troupe_shards *shards,
                                 const struct troupe_index_options *options,
                                 struct troupe_index_summary *summary_out) {
    TROUPE_TRY(troupe_sample_shape_check(&options->shape));
    struct troupe_shard_list list;
    struct troupe_index_summary summary = {0};
    TROUPE_TRY(troupe_shard_list_init(shards, &list));
    troupe_status status = build_listed(&list, options, &summary);
    troupe_shard_list_fini(&list);
    if (status == TROUPE_OK && summary_out != NULL) {
        *summary_out = summary;
    }
    return status;
}
