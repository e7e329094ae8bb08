/* SPDX-License-Identifier: Apache-2.0 */
/* Synthetic samples: raggedness within bounds, repeatability, captions that fit the pictures. */
#include "modules/data/synthetic.h"
#include "modules/data/tokenizer.h"
#include "runtime/memory.h"
#include "tests/test.h"

static uint64_t seed;
static const struct troupe_sample_shape shape = {
    .patch = 8, .image = 64, .sequence = 256, .images_max = 2};

static troupe_source *make(struct troupe_synthetic_options options) {
    troupe_source *source = NULL;
    options.seed = seed;
    EXPECT_OK(troupe_synthetic_create(&shape, &options, &source));
    return source;
}

static void samples_stay_within_bounds_and_reach_them(void) {
    troupe_source *source = make((struct troupe_synthetic_options){.samples = 2000,
                                                                   .images_max = 2,
                                                                   .side_min = 16,
                                                                   .side_max = 40,
                                                                   .text_min = 5,
                                                                   .text_max = 9,
                                                                   .text_only_fraction = 0.25});
    int side_low = 99, side_high = 0, text_only = 0, pairs = 0;
    for (int64_t i = 0; i < source->samples; i++) {
        struct troupe_sample_info info;
        troupe_source_info(source, i, &info);
        EXPECT(info.text_tokens >= 5 && info.text_tokens <= 9, "%d", info.text_tokens);
        EXPECT(troupe_sample_rows(&info) <= source->bounds.rows, "rows");
        text_only += info.images == 0;
        pairs += info.images == 2;
        for (int k = 0; k < info.images; k++) {
            int rows = info.grids[k].rows;
            side_low = rows < side_low ? rows : side_low;
            side_high = rows > side_high ? rows : side_high;
        }
    }
    EXPECT_EQ(side_low, 2);
    EXPECT_EQ(side_high, 5);
    EXPECT(text_only > 400 && text_only < 600, "%d of 2000 text-only", text_only);
    EXPECT(pairs > 600 && pairs < 900, "%d of 2000 with two pictures", pairs);
    troupe_source_destroy(source);
}

/* The centre of every shape is inked, so its colour is the one that the caption names. */
static void caption_names_the_colour_of_the_picture(void) {
    troupe_source *source =
        make((struct troupe_synthetic_options){.samples = 50, .side_min = 64, .text_min = 20});
    static uint8_t pixels[64 * 64 * 3];
    for (int64_t i = 0; i < 50; i++) {
        int32_t tokens[256];
        char text[256];
        struct troupe_sample_info info;
        troupe_source_info(source, i, &info);
        EXPECT_OK(troupe_source_load_text(source, i, tokens));
        EXPECT_OK(troupe_source_load_images(source, i, pixels));
        troupe_tokenizer_decode(tokens, info.text_tokens, text, sizeof text);
        const uint8_t *centre = pixels + (32 * 64 + 32) * 3;
        int loudest = centre[0] >= centre[1] && centre[0] >= centre[2]   ? 0
                      : centre[1] >= centre[0] && centre[1] >= centre[2] ? 1
                                                                         : 2;
        bool red = strstr(text, "A red ") == text, green = strstr(text, "A green ") == text;
        bool blue = strstr(text, "A blue ") == text;
        EXPECT(!red || loudest == 0, "%s", text);
        EXPECT(!green || loudest == 1, "%s", text);
        EXPECT(!blue || loudest == 2, "%s", text);
    }
    troupe_source_destroy(source);
}

static void same_seed_gives_the_same_samples_in_any_order(void) {
    struct troupe_synthetic_options options = {.samples = 20, .images_max = 2};
    troupe_source *a = make(options), *b = make(options);
    static uint8_t pixels_a[2 * 64 * 64 * 3], pixels_b[2 * 64 * 64 * 3];
    for (int64_t i = 19; i >= 0; i--) {
        struct troupe_sample_info info_a, info_b;
        troupe_source_info(b, (i + 7) % 20, &info_b);
        troupe_source_info(a, i, &info_a);
        troupe_source_info(b, i, &info_b);
        EXPECT_EQ(info_a.text_tokens, info_b.text_tokens);
        EXPECT_EQ(info_a.image_tokens, info_b.image_tokens);
        EXPECT_OK(troupe_source_load_images(a, i, pixels_a));
        EXPECT_OK(troupe_source_load_images(b, i, pixels_b));
        EXPECT_EQ(memcmp(pixels_a, pixels_b, (size_t)info_a.image_tokens * 8 * 8 * 3), 0);
    }
    troupe_source_destroy(a);
    troupe_source_destroy(b);
}

static void options_that_cannot_be_are_refused(void) {
    troupe_source *source = NULL;
    struct troupe_synthetic_options long_text = {.text_min = 5, .text_max = 200};
    EXPECT_ERROR(troupe_synthetic_create(&shape, &long_text, &source), TROUPE_ERROR_INVALID,
                 "model.llm.sequence is 256");
    struct troupe_synthetic_options backwards = {.side_min = 48, .side_max = 16};
    EXPECT_ERROR(troupe_synthetic_create(&shape, &backwards, &source), TROUPE_ERROR_INVALID,
                 "data.synthetic.side_min is 48");
    struct troupe_synthetic_options crowd = {.images_min = 3};
    EXPECT_ERROR(troupe_synthetic_create(&shape, &crowd, &source), TROUPE_ERROR_INVALID,
                 "data.max_images, 2");
    struct troupe_sample_shape odd = {.patch = 8, .image = 60, .sequence = 256};
    struct troupe_synthetic_options plain = {0};
    EXPECT_ERROR(troupe_synthetic_create(&odd, &plain, &source), TROUPE_ERROR_INVALID,
                 "model.vision.image is 60");
}

int main(void) {
    seed = test_seed();
    TEST(samples_stay_within_bounds_and_reach_them);
    TEST(caption_names_the_colour_of_the_picture);
    TEST(same_seed_gives_the_same_samples_in_any_order);
    TEST(options_that_cannot_be_are_refused);
    return TEST_END();
}
