/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/stamps.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "modules/data/caption_internal.h"
#include "modules/data/file.h"
#include "modules/data/image.h"
#include "modules/data/tar_writer.h"
#include "runtime/check.h"
#include "runtime/memory.h"
#include "runtime/random.h"

static const char default_source[] = "/usr/share/tuxpaint/stamps";

/* Batch: pictures decoded together before they are written. SVGs are drawn larger than needed, so
 * that pictures of both kinds go through the same area filter. */
enum { VERSION = 2, BATCH = 64, SVG_OVERSAMPLING = 4, HELDOUT_ONE_IN = 20, FOLDER_DEPTH = 12 };

/* A picture that has a caption. */
struct stamp {
    char *path;
    const char *relative; /* within the source folder */
    char *key;
    uint64_t lot; /* hash of the key: the smallest lots are held out */
    bool heldout;
};

/* Its members, made by any worker. */
struct members {
    char *caption;
    uint8_t *png;
    size_t png_bytes;
    int width, height; /* of the original, in pixels */
    troupe_status status;
    char error[512];
};

struct conversion {
    struct troupe_stamps_options options; /* defaults filled in */
    const char *folder;
    int64_t count;
    struct stamp *stamps;      /* in order of their keys */
    const struct stamp *batch; /* the BATCH stamps being decoded */
    struct members made[BATCH];
    troupe_tar *train;
    troupe_tar *heldout;
    struct troupe_stamps_summary summary;
};

/* --- which pictures --------------------------------------------------------------------------- */

/* Every file that matches source / * x depth / *.suffix. glob sorts, so the order is fixed. */
static troupe_status find_files(const char *source, const char *suffix, glob_t *out) {
    char pattern[PATH_MAX];
    size_t used = (size_t)snprintf(pattern, sizeof pattern, "%s", source);
    for (int depth = 0; depth < FOLDER_DEPTH; depth++) {
        if (used + strlen(suffix) + 4 > sizeof pattern) {
            return troupe_fail(TROUPE_ERROR_INVALID, "%s: the name is too long", source);
        }
        snprintf(pattern + used, sizeof pattern - used, "/*.%s", suffix);
        int flags = out->gl_pathc > 0 ? GLOB_APPEND : 0;
        int failed = glob(pattern, flags, NULL, out);
        if (failed && failed != GLOB_NOMATCH) {
            return troupe_fail(TROUPE_ERROR_IO, "%s: the folder cannot be read", source);
        }
        memcpy(pattern + used, "/*", 3);
        used += 2;
    }
    return TROUPE_OK;
}

/* "animals/birds/cartoon/chick.svg" -> "animals-birds-cartoon-chick" */
static troupe_status make_key(const char *relative, char **out) {
    char *key = NULL;
    TROUPE_TRY(troupe_string_copy(relative, &key));
    *strrchr(key, '.') = '\0';
    for (char *c = key; *c != '\0'; c++) {
        if (*c == '/' || *c == '.' || *c == ' ') {
            *c = '-';
        }
    }
    *out = key;
    return TROUPE_OK;
}

/* path with its suffix replaced. */
static bool sibling_exists(const char *path, const char *suffix, char sibling[PATH_MAX]) {
    snprintf(sibling, PATH_MAX, "%s", path);
    char *dot = strrchr(sibling, '.');
    TROUPE_ASSERT(dot != NULL, "%s has no suffix", path);
    snprintf(dot + 1, (size_t)(sibling + PATH_MAX - dot - 1), "%s", suffix);
    return access(sibling, R_OK) == 0;
}

static troupe_status add_stamps(struct conversion *c, const glob_t *found) {
    char sibling[PATH_MAX];
    size_t source_bytes = strlen(c->options.source) + 1;
    for (size_t i = 0; i < found->gl_pathc; i++) {
        const char *path = found->gl_pathv[i];
        bool is_png = strcmp(strrchr(path, '.'), ".png") == 0;
        bool drawn_twice = is_png && sibling_exists(path, "svg", sibling);
        if (drawn_twice || !sibling_exists(path, "txt", sibling)) {
            continue;
        }
        struct stamp *stamp = &c->stamps[c->count++];
        TROUPE_TRY(troupe_string_copy(path, &stamp->path));
        stamp->relative = stamp->path + source_bytes;
        TROUPE_TRY(make_key(stamp->relative, &stamp->key));
        stamp->lot = troupe_random_bits(0, troupe_random_stream(stamp->key), 0);
    }
    return TROUPE_OK;
}

static int compare_keys(const void *a, const void *b) {
    return strcmp(((const struct stamp *)a)->key, ((const struct stamp *)b)->key);
}

static int compare_lots(const void *a, const void *b) {
    uint64_t x = ((const struct stamp *)a)->lot, y = ((const struct stamp *)b)->lot;
    return x < y ? -1 : x > y;
}

/* Holds out one in HELDOUT_ONE_IN, rounded up; leaves the stamps in order of their keys. */
static void split(struct conversion *c) {
    int64_t heldout = (c->count + HELDOUT_ONE_IN - 1) / HELDOUT_ONE_IN;
    qsort(c->stamps, (size_t)c->count, sizeof *c->stamps, compare_lots);
    for (int64_t i = 0; i < c->count; i++) {
        c->stamps[i].heldout = i < heldout;
    }
    qsort(c->stamps, (size_t)c->count, sizeof *c->stamps, compare_keys);
}

static troupe_status not_installed(const char *source) {
    return troupe_fail(TROUPE_ERROR_IO,
                       "%s: no stamps there; `apt-get install tuxpaint-stamps-default` brings them",
                       source);
}

static troupe_status find_stamps(struct conversion *c) {
    glob_t pngs = {0}, svgs = {0};
    troupe_status status = find_files(c->options.source, "png", &pngs);
    if (status == TROUPE_OK) {
        status = find_files(c->options.source, "svg", &svgs);
    }
    if (status == TROUPE_OK) {
        status = TROUPE_NEW(&c->stamps, pngs.gl_pathc + svgs.gl_pathc);
    }
    if (status == TROUPE_OK) {
        status = add_stamps(c, &pngs);
    }
    if (status == TROUPE_OK) {
        status = add_stamps(c, &svgs);
    }
    globfree(&pngs);
    globfree(&svgs);
    TROUPE_TRY(status);
    if (c->count == 0) {
        return not_installed(c->options.source);
    }
    split(c);
    return TROUPE_OK;
}

/* --- one picture ------------------------------------------------------------------------------ */

/* The first line of name.txt. */
static troupe_status read_caption(const struct stamp *stamp, char **out) {
    char path[PATH_MAX];
    uint8_t *text = NULL;
    size_t bytes = 0;
    sibling_exists(stamp->path, "txt", path);
    TROUPE_TRY(troupe_file_read(path, &text, &bytes));
    char *line = (char *)text;
    line[strcspn(line, "\n")] = '\0';
    struct troupe_span span = troupe_caption_trim(line, strlen(line));
    line[span.begin + span.bytes] = '\0';
    troupe_status status =
        span.bytes > 0 ? troupe_string_copy(line + span.begin, out)
                       : troupe_fail(TROUPE_ERROR_DATA, "%s: its first line is empty", path);
    troupe_free(text);
    return status;
}

/* The original size goes to members. */
static troupe_status read_picture(const struct conversion *c, const struct stamp *stamp,
                                  struct members *members, struct troupe_image *out) {
    uint8_t *bytes = NULL;
    size_t count = 0;
    TROUPE_TRY(troupe_file_read(stamp->path, &bytes, &count));
    troupe_status status = TROUPE_OK;
    if (strcmp(strrchr(stamp->path, '.'), ".svg") == 0) {
        int size[2] = {0};
        status = troupe_image_decode_svg(bytes, count, stamp->path,
                                         c->options.image * SVG_OVERSAMPLING, out, size);
        members->width = size[0];
        members->height = size[1];
    } else {
        status = troupe_image_decode(bytes, count, stamp->path, out);
        members->width = out->width;
        members->height = out->height;
    }
    troupe_free(bytes);
    return status;
}

static troupe_status resize_picture(const struct conversion *c, const struct troupe_image *image,
                                    struct troupe_image *out) {
    struct troupe_image_fit fit = {
        .image = c->options.image, .patch = c->options.patch, .enlarge = true};
    troupe_image_size(image->width, image->height, &fit, &out->width, &out->height);
    TROUPE_TRY(TROUPE_NEW(&out->pixels, (size_t)out->width * (size_t)out->height * 3));
    return troupe_image_resize(image, out->width, out->height, out->pixels);
}

static troupe_status make_members(const struct conversion *c, const struct stamp *stamp,
                                  struct members *members) {
    struct troupe_image image = {0}, resized = {0};
    TROUPE_TRY(read_caption(stamp, &members->caption));
    troupe_status status = read_picture(c, stamp, members, &image);
    if (status == TROUPE_OK) {
        status = resize_picture(c, &image, &resized);
    }
    if (status == TROUPE_OK) {
        status = troupe_image_encode_png(&resized, &members->png, &members->png_bytes);
    }
    troupe_image_fini(&image);
    troupe_image_fini(&resized);
    return status;
}

/* A worker's part: errors are kept for the caller, whose thread has its own last error. */
static void make_part(void *arg, int64_t part) {
    struct conversion *c = arg;
    struct members *members = &c->made[part];
    *members = (struct members){0};
    members->status = make_members(c, &c->batch[part], members);
    if (members->status != TROUPE_OK) {
        snprintf(members->error, sizeof members->error, "%s", troupe_last_error());
    }
}

static void members_fini(struct members *members) {
    troupe_free(members->caption);
    troupe_free(members->png);
    *members = (struct members){0};
}

/* --- shards ----------------------------------------------------------------------------------- */

static troupe_status shard_path(const struct conversion *c, const char *split, int64_t number,
                                char out[PATH_MAX]) {
    int used = snprintf(out, PATH_MAX, "%s/%s-%06lld.tar", c->folder, split, (long long)number);
    return used < PATH_MAX
               ? TROUPE_OK
               : troupe_fail(TROUPE_ERROR_INVALID, "%s: the name is too long", c->folder);
}

static troupe_status add_member(troupe_tar *tar, const char *key, const char *suffix,
                                const void *bytes, size_t count) {
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s.%s", key, suffix);
    return troupe_tar_add(tar, name, bytes, count);
}

static troupe_status add_json(troupe_tar *tar, const struct stamp *stamp,
                              const struct members *members) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "source", stamp->relative);
    cJSON_AddStringToObject(object, "package", "tuxpaint-stamps-default");
    cJSON_AddStringToObject(object, "license", "GPL-2; see the package's copyright file");
    cJSON_AddNumberToObject(object, "width", members->width);
    cJSON_AddNumberToObject(object, "height", members->height);
    char *text = cJSON_PrintUnformatted(object);
    troupe_status status = text == NULL
                               ? troupe_fail(TROUPE_ERROR_MEMORY, "%s: no memory", stamp->path)
                               : add_member(tar, stamp->key, "json", text, strlen(text));
    cJSON_free(text);
    cJSON_Delete(object);
    return status;
}

static troupe_status add_sample(troupe_tar *tar, const struct stamp *stamp,
                                const struct members *members) {
    TROUPE_TRY(add_member(tar, stamp->key, "png", members->png, members->png_bytes));
    TROUPE_TRY(add_member(tar, stamp->key, "txt", members->caption, strlen(members->caption)));
    return add_json(tar, stamp, members);
}

static troupe_status close_train(struct conversion *c) {
    troupe_tar *tar = c->train;
    c->train = NULL;
    return tar == NULL ? TROUPE_OK : troupe_tar_close(tar);
}

/* The shard for the next training sample. */
static troupe_status open_train(struct conversion *c) {
    if (c->summary.train % c->options.shard_samples != 0) {
        return TROUPE_OK;
    }
    char path[PATH_MAX];
    TROUPE_TRY(close_train(c));
    TROUPE_TRY(shard_path(c, "train", c->summary.shards, path));
    TROUPE_TRY(troupe_tar_create(path, &c->train));
    c->summary.shards++;
    return TROUPE_OK;
}

static troupe_status write_sample(struct conversion *c, const struct stamp *stamp,
                                  const struct members *members) {
    if (members->status != TROUPE_OK) {
        return troupe_fail(members->status, "%s", members->error);
    }
    if (stamp->heldout) {
        c->summary.heldout++;
        return add_sample(c->heldout, stamp, members);
    }
    TROUPE_TRY(open_train(c));
    c->summary.train++;
    return add_sample(c->train, stamp, members);
}

static troupe_status write_batch(struct conversion *c, int64_t begin, int64_t count) {
    c->batch = c->stamps + begin;
    troupe_workers_run(c->options.workers, count, make_part, c);
    troupe_status status = TROUPE_OK;
    for (int64_t i = 0; i < count; i++) {
        if (status == TROUPE_OK) {
            status = write_sample(c, &c->batch[i], &c->made[i]);
        }
        members_fini(&c->made[i]);
    }
    return status;
}

static troupe_status write_shards(struct conversion *c) {
    char path[PATH_MAX];
    TROUPE_TRY(shard_path(c, "heldout", 0, path));
    TROUPE_TRY(troupe_tar_create(path, &c->heldout));
    for (int64_t begin = 0; begin < c->count; begin += BATCH) {
        int64_t count = c->count - begin < BATCH ? c->count - begin : BATCH;
        TROUPE_TRY(write_batch(c, begin, count));
        if (c->options.progress != NULL) {
            c->options.progress(c->options.arg, begin + count, c->count);
        }
    }
    TROUPE_TRY(close_train(c));
    troupe_tar *heldout = c->heldout;
    c->heldout = NULL;
    return troupe_tar_close(heldout);
}

/* Shards of an earlier, longer set would be taken for part of this one. */
static troupe_status remove_leftovers(const struct conversion *c) {
    for (int64_t number = c->summary.shards;; number++) {
        char path[PATH_MAX];
        TROUPE_TRY(shard_path(c, "train", number, path));
        if (unlink(path) != 0) {
            return TROUPE_OK;
        }
    }
}

/* --- up to date? ------------------------------------------------------------------------------ */

/* A number for everything the output depends on: options, and names, sizes and times of what is
 * read. */
static troupe_status fingerprint(const struct conversion *c, char out[32]) {
    const struct troupe_stamps_options *o = &c->options;
    char text[2 * PATH_MAX];
    snprintf(text, sizeof text, "%d %d %d %d", VERSION, o->image, o->patch, o->shard_samples);
    uint64_t hash = troupe_random_stream(text);
    for (int64_t i = 0; i < c->count; i++) {
        struct stat picture, caption;
        char sibling[PATH_MAX];
        if (stat(c->stamps[i].path, &picture) != 0 ||
            !sibling_exists(c->stamps[i].path, "txt", sibling) || stat(sibling, &caption) != 0) {
            return troupe_fail(TROUPE_ERROR_IO, "%s: cannot be read: %s", c->stamps[i].path,
                               strerror(errno));
        }
        snprintf(text, sizeof text, "%016llx %s %lld %lld %lld %lld", (unsigned long long)hash,
                 c->stamps[i].relative, (long long)picture.st_size, (long long)picture.st_mtime,
                 (long long)caption.st_size, (long long)caption.st_mtime);
        hash = troupe_random_stream(text);
    }
    snprintf(out, 32, "%016llx", (unsigned long long)hash);
    return TROUPE_OK;
}

static troupe_status manifest_path(const struct conversion *c, char out[PATH_MAX]) {
    return snprintf(out, PATH_MAX, "%s/stamps.json", c->folder) < PATH_MAX
               ? TROUPE_OK
               : troupe_fail(TROUPE_ERROR_INVALID, "%s: the name is too long", c->folder);
}

static bool shards_exist(const struct conversion *c, int64_t shards) {
    char path[PATH_MAX];
    for (int64_t i = 0; i < shards; i++) {
        if (shard_path(c, "train", i, path) != TROUPE_OK || access(path, R_OK) != 0) {
            return false;
        }
    }
    return shard_path(c, "heldout", 0, path) == TROUPE_OK && access(path, R_OK) == 0;
}

static bool manifest_matches(struct conversion *c, const cJSON *manifest, const char *print) {
    const char *made = cJSON_GetStringValue(cJSON_GetObjectItem(manifest, "fingerprint"));
    const cJSON *train = cJSON_GetObjectItem(manifest, "train");
    const cJSON *heldout = cJSON_GetObjectItem(manifest, "heldout");
    const cJSON *shards = cJSON_GetObjectItem(manifest, "shards");
    if (made == NULL || strcmp(made, print) != 0 || !cJSON_IsNumber(train) ||
        !cJSON_IsNumber(heldout) || !cJSON_IsNumber(shards) ||
        !shards_exist(c, (int64_t)shards->valuedouble)) {
        return false;
    }
    c->summary = (struct troupe_stamps_summary){.train = (int64_t)train->valuedouble,
                                                .heldout = (int64_t)heldout->valuedouble,
                                                .shards = (int64_t)shards->valuedouble,
                                                .up_to_date = true};
    return true;
}

static bool up_to_date(struct conversion *c, const char *path, const char *print) {
    uint8_t *text = NULL;
    size_t bytes = 0;
    if (c->options.rebuild || troupe_file_read(path, &text, &bytes) != TROUPE_OK) {
        return false;
    }
    cJSON *manifest = cJSON_ParseWithLength((const char *)text, bytes);
    bool same = manifest_matches(c, manifest, print);
    cJSON_Delete(manifest);
    troupe_free(text);
    return same;
}

static troupe_status write_manifest(const struct conversion *c, const char *path,
                                    const char *print) {
    char text[256];
    int bytes = snprintf(text, sizeof text,
                         "{\"fingerprint\": \"%s\", \"train\": %lld, \"heldout\": %lld, "
                         "\"shards\": %lld, \"image\": %d, \"patch\": %d}\n",
                         print, (long long)c->summary.train, (long long)c->summary.heldout,
                         (long long)c->summary.shards, c->options.image, c->options.patch);
    return troupe_file_write(path, text, (size_t)bytes);
}

/* --- the conversion --------------------------------------------------------------------------- */

static troupe_status check_options(const struct troupe_stamps_options *o) {
    if (o->patch < 1 || o->image < o->patch || o->image % o->patch != 0 || o->image > 2048) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "image side %d and patch %d: the side must be a multiple of the patch, "
                           "at most 2048",
                           o->image, o->patch);
    }
    return o->shard_samples > 0
               ? TROUPE_OK
               : troupe_fail(TROUPE_ERROR_INVALID, "%d samples in a shard", o->shard_samples);
}

/* mkdir -p */
static troupe_status make_folders(const char *folder) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", folder);
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0755); /* the last one tells whether it worked */
        *slash = '/';
    }
    if (mkdir(path, 0755) != 0 && errno != EEXIST) {
        return troupe_fail(TROUPE_ERROR_IO, "%s: the folder cannot be made: %s", folder,
                           strerror(errno));
    }
    return TROUPE_OK;
}

static troupe_status convert(struct conversion *c) {
    char manifest[PATH_MAX], print[32];
    TROUPE_TRY(check_options(&c->options));
    TROUPE_TRY(find_stamps(c));
    TROUPE_TRY(fingerprint(c, print));
    TROUPE_TRY(manifest_path(c, manifest));
    if (up_to_date(c, manifest, print)) {
        return TROUPE_OK;
    }
    TROUPE_TRY(make_folders(c->folder));
    unlink(manifest); /* until all shards are whole, nothing says so */
    TROUPE_TRY(write_shards(c));
    TROUPE_TRY(remove_leftovers(c));
    return write_manifest(c, manifest, print);
}

static void conversion_destroy(struct conversion *c) {
    for (int64_t i = 0; i < c->count; i++) {
        troupe_free(c->stamps[i].path);
        troupe_free(c->stamps[i].key);
    }
    troupe_free(c->stamps);
    troupe_tar_destroy(c->train);
    troupe_tar_destroy(c->heldout);
    troupe_free(c);
}

troupe_status troupe_stamps_convert(const char *folder, const struct troupe_stamps_options *options,
                                    struct troupe_stamps_summary *summary_out) {
    struct conversion *c = NULL;
    TROUPE_TRY(TROUPE_NEW(&c, 1));
    struct troupe_stamps_options *o = &c->options;
    *o = *options;
    o->source = o->source != NULL ? o->source : default_source;
    o->image = o->image != 0 ? o->image : 64;
    o->patch = o->patch != 0 ? o->patch : 8;
    o->shard_samples = o->shard_samples != 0 ? o->shard_samples : 256;
    c->folder = folder;
    troupe_status status = convert(c);
    if (status == TROUPE_OK && summary_out != NULL) {
        *summary_out = c->summary;
    }
    conversion_destroy(c);
    return status;
}
