/* SPDX-License-Identifier: Apache-2.0
 *
 * The pass over the shards: members in file order, gathered into samples by key.
 */
#include <archive.h>
#include <archive_entry.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "modules/data/caption_internal.h"
#include "modules/data/file.h"
#include "modules/data/image.h"
#include "modules/data/index_internal.h"
#include "runtime/memory.h"

enum { TAR_BLOCK = 512, READ_BYTES = 1 << 16, WHERE_BYTES = 512, NUMBER_DIGITS = 6 };

enum member_kind { MEMBER_OTHER, MEMBER_TEXT, MEMBER_JSON, MEMBER_IMAGE };

/* Bytes that grow and are used again. */
struct buffer {
    char *bytes;
    size_t count;
    size_t capacity;
};

/* The sample being gathered. */
struct gathered {
    char key[PATH_MAX];
    bool any; /* has a member that counts */
    bool has_text;
    bool is_json;
    struct troupe_index_member text;
    struct buffer caption;
    int images;
    int numbers[TROUPE_SAMPLE_IMAGES_MAX];
    struct troupe_index_image pictures[TROUPE_SAMPLE_IMAGES_MAX];
    bool undecodable;
};

struct walk {
    const struct troupe_index_options *options;
    struct troupe_index *index;
    struct troupe_index_summary *summary;
    int shard;
    const char *path;
    int descriptor;
    struct archive *archive;
    struct gathered sample;
    struct buffer data;  /* of the current member */
    struct buffer again; /* the same bytes by offset */
};

/* The member being read. */
struct member {
    const char *name;
    enum member_kind kind;
    int number; /* of a picture */
    struct troupe_index_member place;
    char where[WHERE_BYTES]; /* "shard: member m at byte n" for error sentences */
};

static troupe_status buffer_resize(struct buffer *buffer, size_t count) {
    if (count + 1 > buffer->capacity) {
        char *larger = NULL;
        TROUPE_TRY(TROUPE_NEW(&larger, 2 * count + 1));
        troupe_free(buffer->bytes);
        buffer->bytes = larger;
        buffer->capacity = 2 * count + 1;
    }
    buffer->count = count;
    return TROUPE_OK;
}

static troupe_status buffer_set(struct buffer *buffer, const char *bytes, size_t count) {
    TROUPE_TRY(buffer_resize(buffer, count));
    memcpy(buffer->bytes, bytes, count);
    return TROUPE_OK;
}

/* --- names ------------------------------------------------------------------------------------ */

/* The first dot of the last part of a name; its end if there is none. */
static const char *key_end(const char *name) {
    const char *slash = strrchr(name, '/');
    return strchrnul(slash != NULL ? slash + 1 : name, '.');
}

static bool is_picture_suffix(const char *suffix) {
    return strcasecmp(suffix, "png") == 0 || strcasecmp(suffix, "jpg") == 0 ||
           strcasecmp(suffix, "jpeg") == 0;
}

/* What the extension ("txt", "png", "1.png", ...) makes of a member. */
static enum member_kind kind_of(const char *extension, int *number_out) {
    *number_out = 0;
    if (strcasecmp(extension, "txt") == 0) {
        return MEMBER_TEXT;
    }
    if (strcasecmp(extension, "json") == 0) {
        return MEMBER_JSON;
    }
    size_t digits = strspn(extension, "0123456789");
    if (digits > 0 && digits <= NUMBER_DIGITS && extension[digits] == '.') {
        *number_out = atoi(extension);
        extension += digits + 1;
    }
    return is_picture_suffix(extension) ? MEMBER_IMAGE : MEMBER_OTHER;
}

/* --- one sample ------------------------------------------------------------------------------- */

static troupe_status fail_sample(const struct walk *walk, const char *what) {
    return troupe_fail(TROUPE_ERROR_DATA, "%s: sample %s: %s", walk->path, walk->sample.key, what);
}

static void sort_pictures(struct gathered *sample) {
    for (int i = 1; i < sample->images; i++) {
        for (int k = i; k > 0 && sample->numbers[k - 1] > sample->numbers[k]; k--) {
            int number = sample->numbers[k];
            struct troupe_index_image picture = sample->pictures[k];
            sample->numbers[k] = sample->numbers[k - 1];
            sample->pictures[k] = sample->pictures[k - 1];
            sample->numbers[k - 1] = number;
            sample->pictures[k - 1] = picture;
        }
    }
}

/* Bytes of the caption that fit beside the pictures; -1 and an error if it may not be cut. */
static troupe_status fit_caption(struct walk *walk, int32_t image_tokens, int32_t *tokens_out) {
    int64_t room = (int64_t)walk->options->shape.sequence - 2 - image_tokens;
    const struct buffer *caption = &walk->sample.caption;
    if (room < 0 || ((int64_t)caption->count > room && !walk->options->truncate)) {
        return troupe_fail(
            TROUPE_ERROR_DATA,
            "%s: sample %s: %d image tokens, %zu caption bytes, begin and end exceed "
            "model.llm.sequence, %d; make it longer%s",
            walk->path, walk->sample.key, image_tokens, caption->count,
            walk->options->shape.sequence,
            room < 0 ? " or the pictures smaller" : " or let captions be cut");
    }
    size_t tokens = troupe_caption_cut(caption->bytes, caption->count, (size_t)room);
    walk->summary->truncated += tokens < caption->count;
    *tokens_out = (int32_t)tokens;
    return TROUPE_OK;
}

/* Adds the gathered sample to the index and begins an empty one. */
static troupe_status finish_sample(struct walk *walk) {
    struct gathered *sample = &walk->sample;
    if (!sample->any) {
        return TROUPE_OK;
    }
    if (sample->undecodable) {
        walk->summary->skipped++;
        return TROUPE_OK;
    }
    if (!sample->has_text) {
        return fail_sample(walk, "has no caption: no .txt, and no .json with a string \"text\" or "
                                 "\"caption\"");
    }
    struct troupe_index_sample out = {.key = sample->key,
                                      .shard = walk->shard,
                                      .text_is_json = sample->is_json,
                                      .text = sample->text,
                                      .images = sample->images};
    sort_pictures(sample);
    for (int i = 0; i < sample->images; i++) {
        if (i > 0 && sample->numbers[i] == sample->numbers[i - 1]) {
            return fail_sample(walk, "has two pictures of the same number");
        }
        out.image_tokens += sample->pictures[i].grid.rows * sample->pictures[i].grid.columns;
    }
    TROUPE_TRY(fit_caption(walk, out.image_tokens, &out.text_tokens));
    if (!out.text_is_json) {
        out.text.bytes = out.text_tokens;
    }
    return troupe_index_add(walk->index, &out, sample->pictures);
}

static void begin_sample(struct gathered *sample, const char *name, size_t key_bytes) {
    struct buffer caption = sample->caption;
    *sample = (struct gathered){.caption = caption};
    memcpy(sample->key, name, key_bytes);
}

/* --- one member ------------------------------------------------------------------------------- */

static troupe_status take_text(struct walk *walk, const struct member *member) {
    struct gathered *sample = &walk->sample;
    if (sample->has_text && !sample->is_json) {
        return fail_sample(walk, "has two .txt members");
    }
    struct troupe_span span = troupe_caption_trim(walk->data.bytes, walk->data.count);
    TROUPE_TRY(buffer_set(&sample->caption, walk->data.bytes + span.begin, span.bytes));
    sample->text = (struct troupe_index_member){member->place.offset + (int64_t)span.begin,
                                                (int64_t)span.bytes};
    sample->has_text = true;
    sample->is_json = false;
    return TROUPE_OK;
}

/* JSON without a caption is somebody else's: not an error if a .txt comes. */
static troupe_status take_json(struct walk *walk, const struct member *member) {
    struct gathered *sample = &walk->sample;
    char *caption = NULL;
    if (sample->has_text || troupe_caption_of_json(walk->data.bytes, walk->data.count,
                                                   member->where, &caption) != TROUPE_OK) {
        return TROUPE_OK;
    }
    troupe_status status = buffer_set(&sample->caption, caption, strlen(caption));
    troupe_free(caption);
    sample->text = member->place;
    sample->has_text = true;
    sample->is_json = true;
    return status;
}

static troupe_status take_picture(struct walk *walk, const struct member *member) {
    struct gathered *sample = &walk->sample;
    const struct troupe_sample_shape *shape = &walk->options->shape;
    if (sample->images >= shape->images_max) {
        return troupe_fail(TROUPE_ERROR_DATA,
                           "%s: one more picture than data.max_images, %d, allows", member->where,
                           shape->images_max);
    }
    struct troupe_image image;
    troupe_status status = troupe_image_decode((const uint8_t *)walk->data.bytes, walk->data.count,
                                               member->where, &image);
    if (status == TROUPE_ERROR_DATA && walk->options->skip_undecodable) {
        sample->undecodable = true;
        return TROUPE_OK;
    }
    TROUPE_TRY(status);
    int width = 0, height = 0;
    struct troupe_image_fit fit = {.image = shape->image, .patch = shape->patch};
    troupe_image_size(image.width, image.height, &fit, &width, &height);
    troupe_image_fini(&image);
    sample->numbers[sample->images] = member->number;
    sample->pictures[sample->images] = (struct troupe_index_image){
        .member = member->place, .grid = {height / shape->patch, width / shape->patch}};
    sample->images++;
    return TROUPE_OK;
}

/* The member's bytes; and the place found for them must hold the same bytes in the file, or the
 * reader, which goes there directly, would read something else (compressed or sparse shards). */
static troupe_status read_member(struct walk *walk, struct member *member) {
    TROUPE_TRY(buffer_resize(&walk->data, (size_t)member->place.bytes));
    size_t done = 0;
    while (done < walk->data.count) {
        la_ssize_t got =
            archive_read_data(walk->archive, walk->data.bytes + done, walk->data.count - done);
        if (got <= 0) {
            return troupe_fail(TROUPE_ERROR_DATA, "%s: %zu of %zu bytes can be read: %s",
                               member->where, done, walk->data.count,
                               got < 0 ? archive_error_string(walk->archive) : "the shard ends");
        }
        done += (size_t)got;
    }
    TROUPE_TRY(buffer_resize(&walk->again, walk->data.count));
    TROUPE_TRY(troupe_file_read_at(walk->descriptor, member->where, member->place.offset,
                                   walk->again.count, walk->again.bytes));
    if (memcmp(walk->data.bytes, walk->again.bytes, walk->data.count) != 0) {
        return troupe_fail(TROUPE_ERROR_DATA,
                           "%s: its bytes do not lie there as they are; shards must be plain tar "
                           "files",
                           member->where);
    }
    return TROUPE_OK;
}

static troupe_status take_member(struct walk *walk, struct member *member) {
    const char *end = key_end(member->name);
    size_t key_bytes = (size_t)(end - member->name);
    if (key_bytes >= sizeof walk->sample.key) {
        return troupe_fail(TROUPE_ERROR_DATA, "%s: the name is too long", member->where);
    }
    if (strlen(walk->sample.key) != key_bytes ||
        memcmp(walk->sample.key, member->name, key_bytes) != 0) {
        TROUPE_TRY(finish_sample(walk));
        begin_sample(&walk->sample, member->name, key_bytes);
    }
    member->kind = kind_of(*end == '.' ? end + 1 : end, &member->number);
    if (member->kind == MEMBER_OTHER) {
        return TROUPE_OK;
    }
    walk->sample.any = true;
    TROUPE_TRY(read_member(walk, member));
    switch (member->kind) {
    case MEMBER_TEXT:
        return take_text(walk, member);
    case MEMBER_JSON:
        return take_json(walk, member);
    default:
        return take_picture(walk, member);
    }
}

/* --- one shard -------------------------------------------------------------------------------- */

static int64_t position_of(const struct walk *walk) {
    return archive_filter_bytes(walk->archive, 0);
}

/* After the last member a shard holds zeros only, at least one block of them; otherwise its end is
 * cut off or its middle is damaged. */
static troupe_status check_end(const struct walk *walk, int64_t position, int64_t bytes) {
    char block[TAR_BLOCK];
    int64_t from = position < bytes - TAR_BLOCK ? position : bytes - TAR_BLOCK;
    for (int64_t at = from < 0 ? 0 : from; at < bytes; at += TAR_BLOCK) {
        size_t count = bytes - at < TAR_BLOCK ? (size_t)(bytes - at) : TAR_BLOCK;
        TROUPE_TRY(troupe_file_read_at(walk->descriptor, walk->path, at, count, block));
        for (size_t i = 0; i < count; i++) {
            if (block[i] != 0) {
                return troupe_fail(TROUPE_ERROR_DATA,
                                   "%s: truncated or damaged: no end mark after sample %s, but "
                                   "other bytes at byte %lld",
                                   walk->path, walk->sample.key, (long long)(at + (int64_t)i));
            }
        }
    }
    return TROUPE_OK;
}

/* What libarchive found next: *entry_out NULL at the end of the shard. */
static troupe_status next_entry(const struct walk *walk, struct archive_entry **entry_out) {
    int got = archive_read_next_header(walk->archive, entry_out);
    if (got == ARCHIVE_EOF) {
        *entry_out = NULL;
        return TROUPE_OK;
    }
    /* A warning with a name is about characters or times, not about the bytes. */
    if (got == ARCHIVE_OK || (got == ARCHIVE_WARN && archive_entry_pathname(*entry_out) != NULL)) {
        return TROUPE_OK;
    }
    const char *reason = archive_error_string(walk->archive);
    return troupe_fail(TROUPE_ERROR_DATA,
                       "%s: truncated or damaged after sample %s, at byte %lld: %s", walk->path,
                       walk->sample.key[0] != '\0' ? walk->sample.key : "(none)",
                       (long long)position_of(walk), reason != NULL ? reason : "no header there");
}

static troupe_status walk_members(struct walk *walk, int64_t shard_bytes, int64_t bytes_before,
                                  int64_t bytes_all) {
    struct archive_entry *entry = NULL;
    TROUPE_TRY(next_entry(walk, &entry));
    while (entry != NULL) {
        struct member member = {.name = archive_entry_pathname(entry),
                                .place = {position_of(walk), archive_entry_size(entry)}};
        snprintf(member.where, sizeof member.where, "%s: member %s at byte %lld", walk->path,
                 member.name, (long long)member.place.offset);
        if (archive_entry_filetype(entry) == AE_IFREG) {
            if (member.place.bytes > shard_bytes - member.place.offset) {
                return troupe_fail(TROUPE_ERROR_DATA,
                                   "%s: truncated: it says %lld bytes, the shard ends at byte %lld",
                                   member.where, (long long)member.place.bytes,
                                   (long long)shard_bytes);
            }
            TROUPE_TRY(take_member(walk, &member));
        }
        if (walk->options->progress != NULL) {
            walk->options->progress(walk->options->arg, bytes_before + position_of(walk),
                                    bytes_all);
        }
        TROUPE_TRY(next_entry(walk, &entry));
    }
    TROUPE_TRY(check_end(walk, position_of(walk), shard_bytes));
    return finish_sample(walk);
}

static troupe_status open_archive(struct walk *walk) {
    walk->archive = archive_read_new();
    if (walk->archive == NULL) {
        return troupe_fail(TROUPE_ERROR_MEMORY, "%s: no memory to read it", walk->path);
    }
    archive_read_support_format_tar(walk->archive);
    if (archive_read_open_fd(walk->archive, walk->descriptor, READ_BYTES) != ARCHIVE_OK) {
        return troupe_fail(TROUPE_ERROR_DATA, "%s: not a plain tar file: %s", walk->path,
                           archive_error_string(walk->archive));
    }
    return TROUPE_OK;
}

static troupe_status walk_shard(struct walk *walk, const struct troupe_shard_file *file,
                                int64_t bytes_before, int64_t bytes_all) {
    walk->path = file->path;
    walk->descriptor = open(file->path, O_RDONLY | O_CLOEXEC);
    if (walk->descriptor < 0) {
        return troupe_fail(TROUPE_ERROR_IO, "%s: cannot be opened: %s", file->path,
                           strerror(errno));
    }
    begin_sample(&walk->sample, "", 0);
    troupe_status status = open_archive(walk);
    if (status == TROUPE_OK) {
        status = walk_members(walk, file->bytes, bytes_before, bytes_all);
    }
    archive_read_free(walk->archive);
    close(walk->descriptor);
    return status;
}

troupe_status troupe_index_walk(const struct troupe_shard_list *shards,
                                const struct troupe_index_options *options,
                                struct troupe_index *index, struct troupe_index_summary *summary) {
    struct walk *walk = NULL;
    TROUPE_TRY(TROUPE_NEW(&walk, 1));
    walk->options = options;
    walk->index = index;
    walk->summary = summary;
    troupe_status status = TROUPE_OK;
    int64_t before = 0;
    for (int64_t i = 0; i < shards->count && status == TROUPE_OK; i++) {
        walk->shard = (int)i;
        status = walk_shard(walk, &shards->files[i], before, shards->bytes);
        before += shards->files[i].bytes;
    }
    troupe_free(walk->data.bytes);
    troupe_free(walk->again.bytes);
    troupe_free(walk->sample.caption.bytes);
    troupe_free(walk);
    return status;
}
