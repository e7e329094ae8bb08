/* SPDX-License-Identifier: Apache-2.0 */
/* The index pass over shards made here: what it records, what it refuses and in which words, when
 * it runs again. */
#include <fcntl.h>
#include <sys/stat.h>

#include "modules/data/index.h"
#include "runtime/random.h"
#include "tests/unit/modules/data_files.h"

static struct test_folder folder;
static const struct troupe_sample_shape shape = {
    .patch = 8, .image = 64, .sequence = 128, .images_max = 3};

static struct troupe_shards pattern(const char *text) {
    static const char *patterns[1];
    patterns[0] = text;
    return (struct troupe_shards){.patterns = patterns, .count = 1};
}

static troupe_status build(const char *text, struct troupe_index_options options,
                           struct troupe_index_summary *summary) {
    struct troupe_shards shards = pattern(text);
    options.shape = options.shape.patch != 0 ? options.shape : shape;
    return troupe_index_build(&shards, &options, summary);
}

static const struct troupe_index_options plain;

static void samples_of_every_form_are_recorded(void) {
    const char *path = test_path(&folder, "forms.tar");
    troupe_tar *tar = test_tar(path);
    test_add_png(tar, "dir.x/a.png", 64, 48, 1);
    test_add_text(tar, "dir.x/a.txt", " A caption. \n");
    test_add_text(tar, "b.json", "{\"caption\": \"two h\\u00e9\"}");
    test_add_png(tar, "b.1.png", 16, 8, 1);
    test_add_png(tar, "b.0.png", 640, 320, 1); /* fitted to 64 x 32 */
    test_add_text(tar, "b.cls", "7");
    test_add_text(tar, "c.txt", "text only");
    test_add_text(tar, "d.json", "{\"source\": 1}"); /* no caption in it, but a .txt beside */
    test_add_text(tar, "d.txt", "");
    test_add_text(tar, "unrelated.ogg", "...");
    EXPECT_OK(troupe_tar_close(tar));

    struct troupe_index_summary summary;
    struct troupe_shards shards = pattern(path);
    struct troupe_index *index = NULL;
    EXPECT_OK(build(path, plain, &summary));
    EXPECT_EQ(summary.samples, 4);
    EXPECT_EQ(summary.images, 3);
    EXPECT_OK(troupe_index_open(&shards, &shape, &index));
    EXPECT_EQ(index->sample_count, 4);
    const struct troupe_index_sample *s = index->samples;
    EXPECT_STRING(s[0].key, "dir.x/a");
    EXPECT_EQ(s[0].text_tokens, 10);
    EXPECT_EQ(s[0].text.bytes, 10);
    EXPECT_EQ(s[0].image_tokens, 48);
    EXPECT_STRING(s[1].key, "b");
    EXPECT_EQ(s[1].text_is_json, true);
    EXPECT_EQ(s[1].text_tokens, 7); /* the accented letter has two bytes */
    EXPECT_EQ(s[1].images, 2);
    EXPECT_EQ(index->images[1].grid.columns, 8); /* number 0 first */
    EXPECT_EQ(index->images[1].grid.rows, 4);
    EXPECT_EQ(index->images[2].grid.columns, 2);
    EXPECT_EQ(s[2].images, 0);
    EXPECT_EQ(s[3].text_tokens, 0);
    EXPECT_EQ(index->bounds.images, 2);
    EXPECT_EQ(index->bounds.rows, 48 + 10 + 2);
    EXPECT_EQ(index->bounds.image_tokens, 48);
    troupe_index_close(index);
}

/* A shard of `samples` pictures with captions. */
static void make_shard(const char *path, int samples) {
    troupe_tar *tar = test_tar(path);
    for (int i = 0; i < samples; i++) {
        char name[32];
        snprintf(name, sizeof name, "s%d.png", i);
        test_add_png(tar, name, 16 + 8 * (i % 3), 24, i);
        snprintf(name, sizeof name, "s%d.txt", i);
        test_add_text(tar, name, "A picture.");
    }
    EXPECT_OK(troupe_tar_close(tar));
}

static void patterns_take_shards_in_order(void) {
    make_shard(test_path(&folder, "many-1.tar"), 2);
    make_shard(test_path(&folder, "many-0.tar"), 3);
    struct troupe_shards shards = pattern(test_path(&folder, "many-*.tar"));
    struct troupe_index *index = NULL;
    EXPECT_OK(build(shards.patterns[0], plain, NULL));
    EXPECT_OK(troupe_index_open(&shards, &shape, &index));
    EXPECT_EQ(index->shard_count, 2);
    EXPECT(strstr(index->shards[0], "many-0.tar") != NULL, "%s", index->shards[0]);
    EXPECT_EQ(index->sample_count, 5);
    EXPECT_EQ(index->samples[2].shard, 0);
    EXPECT_EQ(index->samples[3].shard, 1);
    troupe_index_close(index);
    EXPECT_ERROR(build(test_path(&folder, "none-*.tar"), plain, NULL), TROUPE_ERROR_IO,
                 "none-*.tar: no shard matches");
}

static void second_pass_finds_nothing_to_do(void) {
    const char *path = test_path(&folder, "again.tar");
    struct troupe_index_summary summary;
    make_shard(path, 3);
    EXPECT_OK(build(path, plain, &summary));
    EXPECT_EQ(summary.up_to_date, false);
    EXPECT_OK(build(path, plain, &summary));
    EXPECT_EQ(summary.up_to_date, true);
    EXPECT_EQ(summary.samples, 3);
    struct troupe_index_options cutting = {.truncate = true};
    EXPECT_OK(build(path, cutting, &summary));
    EXPECT_EQ(summary.up_to_date, false);
}

static void stale_or_foreign_index_says_to_run_again(void) {
    const char *path = test_path(&folder, "stale.tar");
    struct troupe_shards shards = pattern(path);
    struct troupe_index *index = NULL;
    make_shard(path, 3);
    EXPECT_ERROR(troupe_index_open(&shards, &shape, &index), TROUPE_ERROR_IO,
                 "run `troupe data index`");
    EXPECT_OK(build(path, plain, NULL));
    struct troupe_sample_shape other = shape;
    other.patch = 16;
    EXPECT_ERROR(troupe_index_open(&shards, &other, &index), TROUPE_ERROR_DATA,
                 "was built for patch 8, the model has 16");
    other = shape;
    other.images_max = 0;
    EXPECT_ERROR(troupe_index_open(&shards, &other, &index), TROUPE_ERROR_DATA,
                 "a sample of 1 pictures; data.max_images is 0");
    make_shard(path, 4);
    EXPECT_ERROR(troupe_index_open(&shards, &shape, &index), TROUPE_ERROR_DATA,
                 "stale.tar: has changed since");
    EXPECT_OK(build(path, plain, NULL));
    struct timespec long_ago[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    EXPECT_EQ(utimensat(AT_FDCWD, path, long_ago, 0), 0);
    EXPECT_ERROR(troupe_index_open(&shards, &shape, &index), TROUPE_ERROR_DATA,
                 "run `troupe data index` on its shards again");
}

/* Reads a file, lets `change` damage it, writes it back under another name. */
static const char *damaged(const char *from, const char *name, size_t cut_to, size_t flip_at) {
    uint8_t *bytes = NULL;
    size_t count = 0;
    EXPECT_OK(troupe_file_read(from, &bytes, &count));
    if (flip_at > 0) {
        bytes[flip_at] ^= 0x55;
    }
    const char *path = test_path(&folder, name);
    test_write(path, bytes, cut_to > 0 ? cut_to : count);
    troupe_free(bytes);
    return path;
}

static void truncated_shard_is_refused_wherever_it_is_cut(void) {
    const char *path = test_path(&folder, "whole.tar");
    make_shard(path, 4);
    uint8_t *bytes = NULL;
    size_t count = 0;
    EXPECT_OK(troupe_file_read(path, &bytes, &count));
    size_t end = count;
    while (end > 0 && bytes[end - 1] == 0) { /* the padding behind the last member may go */
        end--;
    }
    troupe_free(bytes);
    for (size_t cut = 1; cut < end; cut += 256) {
        const char *part = damaged(path, "part.tar", cut, 0);
        troupe_status status = build(part, plain, NULL);
        EXPECT(status == TROUPE_ERROR_DATA || status == TROUPE_ERROR_IO, "cut to %zu: %s", cut,
               troupe_last_error());
        EXPECT(strstr(troupe_last_error(), "part.tar") != NULL, "%s", troupe_last_error());
    }
    EXPECT_ERROR(build(damaged(path, "part.tar", 600, 0), plain, NULL), TROUPE_ERROR_DATA,
                 "part.tar: member s0.png at byte 512: truncated");
}

static void damaged_member_is_named(void) {
    const char *path = test_path(&folder, "sound.tar");
    make_shard(path, 2);
    EXPECT_ERROR(build(damaged(path, "picture.tar", 0, 512 + 50), plain, NULL), TROUPE_ERROR_DATA,
                 "picture.tar: member s0.png at byte 512: not a whole PNG picture");
    EXPECT_ERROR(build(damaged(path, "header.tar", 0, 150), plain, NULL), TROUPE_ERROR_DATA,
                 "header.tar: not a plain tar file");
    uint8_t *bytes = NULL;
    size_t count = 0;
    EXPECT_OK(troupe_file_read(path, &bytes, &count));
    size_t second = (size_t)((uint8_t *)memmem(bytes, count, "s1.png", 6) - bytes);
    troupe_free(bytes);
    EXPECT_ERROR(build(damaged(path, "header.tar", 0, second + 150), plain, NULL),
                 TROUPE_ERROR_DATA, "header.tar: truncated or damaged after sample s0, at byte");
    EXPECT_ERROR(build(damaged(path, "nothing.tar", 0, 0),
                       (struct troupe_index_options){
                           .shape = {.patch = 8, .image = 64, .sequence = 10, .images_max = 1}},
                       NULL),
                 TROUPE_ERROR_DATA, "sample s0: 6 image tokens, 10 caption bytes");
}

/* A header in the middle overwritten with zeros looks like the end of the archive. */
static void samples_behind_a_false_end_are_not_lost_silently(void) {
    const char *path = test_path(&folder, "holes.tar");
    make_shard(path, 4);
    uint8_t *bytes = NULL;
    size_t count = 0;
    EXPECT_OK(troupe_file_read(path, &bytes, &count));
    uint8_t *second = memmem(bytes, count, "s1.png", 6);
    EXPECT(second != NULL, "no second sample");
    memset(second, 0, 512);
    test_write(path, bytes, count);
    troupe_free(bytes);
    EXPECT_ERROR(build(path, plain, NULL), TROUPE_ERROR_DATA, "holes.tar: truncated or damaged");
}

static void undecodable_picture_is_skipped_only_if_asked(void) {
    const char *path = test_path(&folder, "skip.tar");
    troupe_tar *tar = test_tar(path);
    test_add_text(tar, "good.txt", "good");
    test_add_text(tar, "bad.png", "no picture");
    test_add_text(tar, "bad.txt", "bad");
    EXPECT_OK(troupe_tar_close(tar));
    EXPECT_ERROR(build(path, plain, NULL), TROUPE_ERROR_DATA,
                 "skip.tar: member bad.png at byte 1536: 10 bytes that begin neither");
    struct troupe_index_summary summary;
    struct troupe_index_options skipping = {.skip_undecodable = true};
    EXPECT_OK(build(path, skipping, &summary));
    EXPECT_EQ(summary.samples, 1);
    EXPECT_EQ(summary.skipped, 1);
}

static void samples_beyond_the_bounds_are_refused(void) {
    const char *path = test_path(&folder, "bounds.tar");
    troupe_tar *tar = test_tar(path);
    for (int i = 0; i < 4; i++) {
        char name[16];
        snprintf(name, sizeof name, "x.%d.png", i);
        test_add_png(tar, name, 8, 8, i);
    }
    test_add_text(tar, "x.txt", "four");
    EXPECT_OK(troupe_tar_close(tar));
    EXPECT_ERROR(build(path, plain, NULL), TROUPE_ERROR_DATA,
                 "one more picture than data.max_images, 3");

    tar = test_tar(path);
    test_add_png(tar, "y.png", 8, 8, 0);
    EXPECT_OK(troupe_tar_close(tar));
    EXPECT_ERROR(build(path, plain, NULL), TROUPE_ERROR_DATA, "sample y: has no caption");
}

static void long_caption_is_cut_at_a_character_if_asked(void) {
    const char *path = test_path(&folder, "long.tar");
    troupe_tar *tar = test_tar(path);
    /* 128 - 2 = 126 bytes have room: 125 letters, and the two bytes of the next do not fit */
    char text[160];
    memset(text, 'x', sizeof text);
    memcpy(text + 125, "\xc3\xa9", 2);
    text[150] = '\0';
    test_add_text(tar, "long.txt", text);
    EXPECT_OK(troupe_tar_close(tar));
    EXPECT_ERROR(build(path, plain, NULL), TROUPE_ERROR_DATA, "or let captions be cut");
    struct troupe_index_summary summary;
    struct troupe_index_options cutting = {.truncate = true};
    struct troupe_shards shards = pattern(path);
    struct troupe_index *index = NULL;
    EXPECT_OK(build(path, cutting, &summary));
    EXPECT_EQ(summary.truncated, 1);
    EXPECT_OK(troupe_index_open(&shards, &shape, &index));
    EXPECT_EQ(index->samples[0].text_tokens, 125);
    troupe_index_close(index);
}

/* Random damage to the shard: whatever happens, it is a status, and a success has all samples. */
static void random_damage_never_crashes(void) {
    uint64_t seed = test_seed();
    const char *path = test_path(&folder, "fuzz.tar");
    make_shard(path, 3);
    uint8_t *bytes = NULL;
    size_t count = 0;
    EXPECT_OK(troupe_file_read(path, &bytes, &count));
    for (uint64_t round = 0; round < 150; round++) {
        uint64_t at = troupe_random_below(seed, 1, round, count);
        uint8_t kept = bytes[at];
        bytes[at] ^= (uint8_t)(1 + troupe_random_below(seed, 2, round, 255));
        test_write(path, bytes, count);
        bytes[at] = kept;
        struct troupe_index_options anew = {.rebuild = true};
        troupe_status status = build(path, anew, NULL);
        EXPECT(status == TROUPE_OK || strstr(troupe_last_error(), "fuzz.tar") != NULL, "%s",
               troupe_last_error());
    }
    troupe_free(bytes);
}

static void damaged_index_is_refused_with_its_line(void) {
    const char *path = test_path(&folder, "lines.tar");
    struct troupe_shards shards = pattern(path);
    struct troupe_index *index = NULL;
    make_shard(path, 3);
    EXPECT_OK(build(path, plain, NULL));
    uint8_t *bytes = NULL;
    size_t count = 0;
    const char *file = test_path(&folder, "lines.tar.index");
    EXPECT_OK(troupe_file_read(file, &bytes, &count));
    test_write(file, bytes, count - 20);
    EXPECT_ERROR(troupe_index_open(&shards, &shape, &index), TROUPE_ERROR_DATA, "line 4");
    char *last = memrchr(bytes, '\n', count - 1);
    test_write(file, bytes, (size_t)(last - (char *)bytes) + 1);
    EXPECT_ERROR(troupe_index_open(&shards, &shape, &index), TROUPE_ERROR_DATA,
                 "samples are missing");
    test_write(file, "{}", 2);
    EXPECT_ERROR(troupe_index_open(&shards, &shape, &index), TROUPE_ERROR_DATA,
                 "not an index of version 1");
    troupe_free(bytes);
}

int main(void) {
    test_folder_init(&folder);
    TEST(samples_of_every_form_are_recorded);
    TEST(patterns_take_shards_in_order);
    TEST(second_pass_finds_nothing_to_do);
    TEST(stale_or_foreign_index_says_to_run_again);
    TEST(truncated_shard_is_refused_wherever_it_is_cut);
    TEST(damaged_member_is_named);
    TEST(samples_behind_a_false_end_are_not_lost_silently);
    TEST(undecodable_picture_is_skipped_only_if_asked);
    TEST(samples_beyond_the_bounds_are_refused);
    TEST(long_caption_is_cut_at_a_character_if_asked);
    TEST(random_damage_never_crashes);
    TEST(damaged_index_is_refused_with_its_line);
    test_folder_fini(&folder);
    return TEST_END();
}
