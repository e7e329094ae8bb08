/* SPDX-License-Identifier: Apache-2.0
 *
 * The index of a set of WebDataset tar shards (`troupe data index`): one pass reads every member,
 * decodes every picture and records where each sample's members lie and what they weigh, so that
 * training knows all row counts beforehand and reads only what it needs.
 *
 *     struct troupe_index_options options = {.shape = shape, .progress = print, .arg = NULL};
 *     struct troupe_shards shards = {.patterns = (const char *[]){"train-*.tar"}, .count = 1};
 *     TROUPE_TRY(troupe_index_build(&shards, &options, NULL));
 *     TROUPE_TRY(troupe_index_open(&shards, &shape, &index));
 *
 * A sample is a run of consecutive members with the same key (the name up to the first dot of its
 * last part): one caption, .txt or, where there is none, .json with "text" or "caption"; pictures
 * .png, .jpg, .jpeg or numbered .0.png, .1.png, ... in the order of their numbers. Other members
 * are not looked at. A caption is trimmed of white space at both ends.
 *
 * The file is JSON lines: a header (version, shape, shards with size and time), then one sample a
 * line. It lies beside the first shard (first.tar.index) unless a path is given.
 *
 * Ownership: build keeps nothing; open/close. Threads: one at a time; an open index is constant.
 * Failure: ERROR_IO (missing shard), ERROR_DATA naming shard, member and offset (truncated or
 * damaged shard, undecodable picture, sample over the bounds; index made for other sizes or older
 * than its shards, with the command that renews it), ERROR_MEMORY.
 */
#ifndef TROUPE_MODULES_DATA_INDEX_H
#define TROUPE_MODULES_DATA_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "modules/data/source.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Called from time to time; total counts the same thing as done: bytes of shards, pictures. */
typedef void troupe_data_progress(void *arg, int64_t done, int64_t total);

/* Which shards, and where their index is. */
struct troupe_shards {
    const char *const *patterns; /* file names or shell patterns, in order */
    int count;
    const char *index; /* NULL: beside the first shard */
};

struct troupe_index_options {
    struct troupe_sample_shape shape;
    bool truncate;         /* cut captions that exceed the sequence, at a whole character */
    bool skip_undecodable; /* leave out and count samples with a picture that does not decode */
    bool rebuild;          /* even if the index is up to date */
    troupe_data_progress *progress; /* or NULL */
    void *arg;
};

/* What a build did. */
struct troupe_index_summary {
    int64_t shards;
    int64_t samples;
    int64_t images;
    int64_t skipped;   /* samples left out */
    int64_t truncated; /* captions cut */
    bool up_to_date;   /* nothing had to be done */
};

/* Bytes of a member of a shard. */
struct troupe_index_member {
    int64_t offset;
    int64_t bytes;
};

struct troupe_index_image {
    struct troupe_index_member member;
    struct troupe_grid grid; /* patches, after fitting to the shape */
};

struct troupe_index_sample {
    char *key;
    int shard;
    bool text_is_json;
    struct troupe_index_member text; /* the caption itself (text_tokens bytes), or the JSON */
    int32_t text_tokens;
    int32_t image_tokens;
    int32_t images;
    int64_t first_image; /* in troupe_index.images */
};

struct troupe_index {
    struct troupe_sample_shape shape;
    struct troupe_sample_bounds bounds;
    int64_t shard_count;
    char **shards; /* paths */
    int64_t sample_count;
    struct troupe_index_sample *samples;
    int64_t image_count;
    struct troupe_index_image *images;
};

/* Does nothing if an up to date index of the same shape is there. summary_out may be NULL. */
troupe_status troupe_index_build(const struct troupe_shards *shards,
                                 const struct troupe_index_options *options,
                                 struct troupe_index_summary *summary_out);

/* Opens the index of the shards; fails if it was built for other sizes (images_max may differ as
 * long as every sample fits) or if a shard has changed since. */
troupe_status troupe_index_open(const struct troupe_shards *shards,
                                const struct troupe_sample_shape *shape, struct troupe_index **out);
/* Accepts NULL. */
void troupe_index_close(struct troupe_index *index);

#ifdef __cplusplus
}
#endif
#endif
