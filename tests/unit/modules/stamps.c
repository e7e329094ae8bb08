/* SPDX-License-Identifier: Apache-2.0 */
/* The stamp converter on a small folder made here in the form of the package. */
#include <sys/stat.h>

#include "modules/data/reader.h"
#include "modules/data/stamps.h"
#include "modules/data/tokenizer.h"
#include "tests/unit/modules/data_files.h"

enum { PICTURES = 60 };

static struct test_folder folder;

static void make_folder(const char *name) {
    EXPECT_EQ(mkdir(test_path(&folder, name), 0755), 0);
}

static void write_text(const char *name, const char *text) {
    test_write(test_path(&folder, name), text, strlen(text));
}

static void write_png(const char *name, int width, int height) {
    struct troupe_image image;
    uint8_t *bytes = NULL;
    size_t count = 0;
    test_picture(width, height, 9, &image);
    EXPECT_OK(troupe_image_encode_png(&image, &bytes, &count));
    test_write(test_path(&folder, name), bytes, count);
    troupe_free(bytes);
    troupe_image_fini(&image);
}

/* Sixty captioned pictures, one mirrored variant without a caption, one picture that exists both
 * drawn and as pixels. */
static void make_stamps(void) {
    make_folder("stamps");
    make_folder("stamps/animals");
    make_folder("stamps/animals/cartoon");
    for (int i = 0; i < PICTURES - 1; i++) {
        char name[64], text[64];
        snprintf(name, sizeof name, "stamps/animals/a%d.png", i);
        write_png(name, 100 + i, 70);
        snprintf(name, sizeof name, "stamps/animals/a%d.txt", i);
        snprintf(text, sizeof text, " Animal %d. \nde.utf8=Tier %d.\n", i, i);
        write_text(name, text);
    }
    write_png("stamps/animals/a1_mirror.png", 100, 70);
    write_text("stamps/animals/cartoon/cat.svg",
               "<svg xmlns='http://www.w3.org/2000/svg' width='30' height='60'>"
               "<rect width='30' height='60' fill='#0000ff'/></svg>");
    write_png("stamps/animals/cartoon/cat.png", 10, 10);
    write_text("stamps/animals/cartoon/cat.txt", "A blue cat.\n");
}

static troupe_status convert(const char *out, struct troupe_stamps_options options,
                             struct troupe_stamps_summary *summary) {
    options.source = test_path(&folder, "stamps");
    return troupe_stamps_convert(test_path(&folder, out), &options, summary);
}

static void expect_same_file(const char *a, const char *b) {
    uint8_t *bytes_a = NULL, *bytes_b = NULL;
    size_t count_a = 0, count_b = 0;
    EXPECT_OK(troupe_file_read(test_path(&folder, a), &bytes_a, &count_a));
    EXPECT_OK(troupe_file_read(test_path(&folder, b), &bytes_b, &count_b));
    EXPECT_EQ(count_a, count_b);
    EXPECT_EQ(memcmp(bytes_a, bytes_b, count_a), 0);
    troupe_free(bytes_a);
    troupe_free(bytes_b);
}

static void captioned_pictures_become_samples_once(void) {
    struct troupe_stamps_summary summary;
    EXPECT_OK(convert("out", (struct troupe_stamps_options){.shard_samples = 20}, &summary));
    EXPECT_EQ(summary.train + summary.heldout, PICTURES);
    EXPECT_EQ(summary.heldout, PICTURES / 20);
    EXPECT_EQ(summary.shards, 3);
}

static void same_package_gives_the_same_bytes(void) {
    troupe_workers *workers = NULL;
    struct troupe_workers_options team = {.count = 3, .spin_ns = -1};
    EXPECT_OK(troupe_workers_create(&team, &workers));
    struct troupe_stamps_options options = {.shard_samples = 20, .workers = workers};
    EXPECT_OK(convert("out2", options, NULL));
    expect_same_file("out/train-000000.tar", "out2/train-000000.tar");
    expect_same_file("out/train-000002.tar", "out2/train-000002.tar");
    expect_same_file("out/heldout-000000.tar", "out2/heldout-000000.tar");
    troupe_workers_destroy(workers);
}

/* The index pass accepts the shards; sizes, captions and the drawn picture are as they should. */
static void shards_are_readable(void) {
    const char *patterns[] = {test_path(&folder, "out/*.tar")};
    struct troupe_shards shards = {.patterns = patterns, .count = 1};
    struct troupe_sample_shape shape = {.patch = 8, .image = 64, .sequence = 100, .images_max = 1};
    struct troupe_index_options options = {.shape = shape};
    struct troupe_reader_options reader = {0};
    troupe_source *source = NULL;
    EXPECT_OK(troupe_index_build(&shards, &options, NULL));
    EXPECT_OK(troupe_reader_open(&shards, &shape, &reader, &source));
    EXPECT_EQ(source->samples, PICTURES);
    int cats = 0;
    for (int64_t i = 0; i < PICTURES; i++) {
        struct troupe_sample_info info;
        int32_t tokens[100];
        char text[100];
        static uint8_t pixels[64 * 64 * 3];
        troupe_source_info(source, i, &info);
        EXPECT_OK(troupe_source_load_text(source, i, tokens));
        EXPECT_OK(troupe_source_load_images(source, i, pixels));
        troupe_tokenizer_decode(tokens, info.text_tokens, text, sizeof text);
        bool cat = strcmp(troupe_reader_key(source, i), "animals-cartoon-cat") == 0;
        cats += cat;
        EXPECT(strncmp(text, cat ? "A blue cat." : "Animal ", cat ? 12 : 7) == 0, "%s", text);
        EXPECT_EQ(info.grids[0].rows == 8 || info.grids[0].columns == 8, true);
        if (cat) {
            EXPECT_EQ(info.grids[0].columns, 4);
            EXPECT_EQ(pixels[0], 0);
            EXPECT_EQ(pixels[2], 255);
        }
    }
    EXPECT_EQ(cats, 1);
    troupe_source_destroy(source);
}

static void second_run_does_nothing_until_something_changes(void) {
    struct troupe_stamps_summary summary;
    struct troupe_stamps_options options = {.shard_samples = 20};
    EXPECT_OK(convert("out", options, &summary));
    EXPECT_EQ(summary.up_to_date, true);
    EXPECT_EQ(summary.train + summary.heldout, PICTURES);
    EXPECT_EQ(unlink(test_path(&folder, "out/train-000001.tar")), 0);
    EXPECT_OK(convert("out", options, &summary));
    EXPECT_EQ(summary.up_to_date, false);
    options.shard_samples = 50;
    EXPECT_OK(convert("out", options, &summary));
    EXPECT_EQ(summary.up_to_date, false);
    EXPECT_EQ(summary.shards, 2);
    EXPECT(access(test_path(&folder, "out/train-000002.tar"), F_OK) != 0, "old shard is left");
}

static void missing_package_says_how_to_install_it(void) {
    struct troupe_stamps_options options = {.source = "/nonexistent/stamps"};
    EXPECT_ERROR(troupe_stamps_convert(test_path(&folder, "none"), &options, NULL), TROUPE_ERROR_IO,
                 "apt-get install tuxpaint-stamps-default");
}

static void undecodable_picture_is_named(void) {
    write_text("stamps/animals/a3.png", "no picture");
    EXPECT_ERROR(convert("out3", (struct troupe_stamps_options){0}, NULL), TROUPE_ERROR_DATA,
                 "stamps/animals/a3.png: 10 bytes that begin neither");
}

int main(void) {
    test_folder_init(&folder);
    make_stamps();
    TEST(captioned_pictures_become_samples_once);
    TEST(same_package_gives_the_same_bytes);
    TEST(shards_are_readable);
    TEST(second_run_does_nothing_until_something_changes);
    TEST(missing_package_says_how_to_install_it);
    TEST(undecodable_picture_is_named);
    test_folder_fini(&folder);
    return TEST_END();
}
