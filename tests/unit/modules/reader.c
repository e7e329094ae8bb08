/* SPDX-License-Identifier: Apache-2.0 */
/* The reader over shards made here: what was put in comes out, only needed bytes are read, prepared
 * samples load without allocating. */
#include "modules/data/reader.h"
#include "modules/data/sample_plan.h"
#include "modules/data/tokenizer.h"
#include "tests/unit/modules/data_files.h"

enum { SAMPLES = 12, PER_SHARD = 5, PIXELS = 64 * 64 * 3 };

static struct test_folder folder;
static const char *patterns[1];
static struct troupe_shards shards = {.patterns = patterns, .count = 1};
static const struct troupe_sample_shape shape = {
    .patch = 8, .image = 64, .sequence = 128, .images_max = 2};
static size_t picture_bytes[SAMPLES], caption_bytes[SAMPLES];

static void caption_of(int sample, char text[64]) {
    snprintf(text, 64, "Caption %d of %d%s", sample, SAMPLES, sample % 2 ? "!" : ".....");
}

static int width_of(int sample) {
    return 8 * (1 + sample % 4);
}

/* Sample 7 has no picture, sample 8 its caption in JSON. */
static void make_shards(void) {
    troupe_tar *tar = NULL;
    for (int i = 0; i < SAMPLES; i++) {
        char name[32], text[64], json[96];
        if (i % PER_SHARD == 0) {
            snprintf(name, sizeof name, "r-%d.tar", i / PER_SHARD);
            tar = test_tar(test_path(&folder, name));
        }
        caption_of(i, text);
        caption_bytes[i] = strlen(text);
        snprintf(name, sizeof name, "k%02d.png", i);
        picture_bytes[i] = i == 7 ? 0 : test_add_png(tar, name, width_of(i), 16, i);
        snprintf(name, sizeof name, "k%02d.%s", i, i == 8 ? "json" : "txt");
        snprintf(json, sizeof json, "{\"text\": \"%s\"}", text);
        caption_bytes[i] = i == 8 ? strlen(json) : caption_bytes[i];
        test_add_text(tar, name, i == 8 ? json : text);
        if (i % PER_SHARD == PER_SHARD - 1 || i == SAMPLES - 1) {
            EXPECT_OK(troupe_tar_close(tar));
        }
    }
    patterns[0] = test_path(&folder, "r-*.tar");
    struct troupe_index_options options = {.shape = shape};
    EXPECT_OK(troupe_index_build(&shards, &options, NULL));
}

static troupe_source *open_reader(int64_t cache_bytes) {
    troupe_source *source = NULL;
    struct troupe_reader_options options = {.cache_bytes = cache_bytes};
    EXPECT_OK(troupe_reader_open(&shards, &shape, &options, &source));
    return source;
}

static void expect_sample(troupe_source *source, int sample) {
    struct troupe_sample_info info;
    int32_t tokens[128];
    char text[64], expected[64];
    static uint8_t pixels[PIXELS];
    troupe_source_info(source, sample, &info);
    EXPECT_OK(troupe_source_load_text(source, sample, tokens));
    EXPECT_OK(troupe_source_load_images(source, sample, pixels));
    troupe_tokenizer_decode(tokens, info.text_tokens, text, sizeof text);
    caption_of(sample, expected);
    EXPECT_STRING(text, expected);
    if (sample == 7) {
        EXPECT_EQ(info.images, 0);
        return;
    }
    bool steady = troupe_memory_is_steady();
    troupe_memory_set_steady(false);
    struct troupe_image picture;
    test_picture(width_of(sample), 16, sample, &picture);
    EXPECT_EQ(info.grids[0].columns * 8, picture.width);
    EXPECT_EQ(info.grids[0].rows * 8, 16);
    EXPECT_EQ(memcmp(pixels, picture.pixels, (size_t)picture.width * 16 * 3), 0);
    troupe_image_fini(&picture);
    troupe_memory_set_steady(steady);
}

static void what_went_in_comes_out(void) {
    troupe_source *source = open_reader(0);
    EXPECT_EQ(source->samples, SAMPLES);
    for (int i = SAMPLES - 1; i >= 0; i--) {
        expect_sample(source, i);
    }
    EXPECT_STRING(troupe_reader_key(source, 11), "k11");
    troupe_source_destroy(source);
}

static void only_needed_bytes_are_read_and_once(void) {
    static const uint8_t needed[SAMPLES] = {[1] = 1, [6] = 1, [7] = 1, [8] = 1};
    troupe_source *source = open_reader(0);
    EXPECT_EQ(source->bytes_read, 0);
    EXPECT_OK(troupe_source_prepare(source, TROUPE_SAMPLE_TEXT, needed));
    size_t text = caption_bytes[1] + caption_bytes[6] + caption_bytes[7] + caption_bytes[8];
    EXPECT_EQ(source->bytes_read, text);
    EXPECT_OK(troupe_source_prepare(source, TROUPE_SAMPLE_TEXT | TROUPE_SAMPLE_IMAGES, needed));
    size_t pictures = picture_bytes[1] + picture_bytes[6] + picture_bytes[8];
    EXPECT_EQ(source->bytes_read, text + pictures);
    troupe_memory_set_steady(true); /* an allocation aborts from here on */
    expect_sample(source, 1);
    expect_sample(source, 7);
    expect_sample(source, 8);
    troupe_memory_set_steady(false);
    EXPECT_EQ(source->bytes_read, text + pictures);
    troupe_source_destroy(source);
}

static void shards_of_a_module_read_their_part(void) {
    troupe_source *source = open_reader(0);
    struct troupe_sample_plan_options options = {.seed = 5, .global_batch = 4, .microbatches = 2};
    troupe_sample_plan *plan = NULL;
    EXPECT_OK(troupe_sample_plan_create(source, &options, &plan));
    int64_t total = 0, expected = 0;
    for (int d = 0; d < 2; d++) {
        troupe_source *mine = open_reader(0);
        uint8_t needed[SAMPLES] = {0};
        troupe_sample_plan_needed(plan, 0, 2, d, 2, needed);
        EXPECT_OK(troupe_source_prepare(mine, TROUPE_SAMPLE_IMAGES, needed));
        total += mine->bytes_read;
        troupe_source_destroy(mine);
    }
    for (int64_t step = 0; step < 2; step++) {
        troupe_sample_plan_set_step(plan, step);
        for (int i = 0; i < 4; i++) {
            expected += (int64_t)picture_bytes[troupe_sample_plan_ids(plan)[i]];
        }
    }
    EXPECT_EQ(total, expected);
    troupe_sample_plan_destroy(plan);
    troupe_source_destroy(source);
}

static void samples_beyond_the_budget_load_in_place(void) {
    static const uint8_t all[SAMPLES] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    troupe_source *source = open_reader(1000);
    EXPECT_OK(troupe_source_prepare(source, TROUPE_SAMPLE_TEXT | TROUPE_SAMPLE_IMAGES, all));
    troupe_memory_set_steady(true);
    for (int i = 0; i < SAMPLES; i++) {
        expect_sample(source, i);
    }
    troupe_memory_set_steady(false);
    troupe_source_destroy(source);
}

/* The index is sound, the shard is gone or damaged afterwards: the reader names place and reason.
 */
static void later_damage_is_named(void) {
    troupe_source *source = open_reader(0);
    uint8_t *bytes = NULL;
    size_t count = 0;
    static uint8_t pixels[PIXELS];
    const char *path = test_path(&folder, "r-1.tar");
    EXPECT_OK(troupe_file_read(path, &bytes, &count));
    memset(bytes + 512, 0, 64);
    test_write(path, bytes, count);
    troupe_free(bytes);
    EXPECT_ERROR(troupe_source_load_images(source, 5, pixels), TROUPE_ERROR_DATA,
                 "r-1.tar: sample k05 at byte 512: ");
    EXPECT_EQ(unlink(test_path(&folder, "r-2.tar")), 0);
    EXPECT_ERROR(troupe_source_load_images(source, 10, pixels), TROUPE_ERROR_IO,
                 "r-2.tar: cannot be opened");
    troupe_source_destroy(source);
}

int main(void) {
    test_folder_init(&folder);
    make_shards();
    TEST(what_went_in_comes_out);
    TEST(only_needed_bytes_are_read_and_once);
    TEST(shards_of_a_module_read_their_part);
    TEST(samples_beyond_the_budget_load_in_place);
    TEST(later_damage_is_named);
    test_folder_fini(&folder);
    return TEST_END();
}
