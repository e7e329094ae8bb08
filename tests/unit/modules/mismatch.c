/* SPDX-License-Identifier: Apache-2.0 */
/* Exchanged pictures: same captions, the pictures of one other sample, within the sequence. */
#include <stdbool.h>

#include "modules/data/mismatch.h"
#include "modules/data/synthetic.h"
#include "tests/test.h"

enum { SAMPLES = 60, PATCH = 8, SIDE = 64, CAPTION_MAX = 64 };

static uint64_t seed;

static troupe_source *make_source(int sequence, int64_t samples) {
    struct troupe_sample_shape shape = {.patch = PATCH, .image = SIDE, .sequence = sequence};
    struct troupe_synthetic_options options = {.seed = seed, .samples = samples};
    troupe_source *source = NULL;
    EXPECT_OK(troupe_synthetic_create(&shape, &options, &source));
    return source;
}

/* Whether the pictures of `other` are what the mismatched sample loads. */
static bool shows(troupe_source *mismatch, int64_t sample, troupe_source *source, int64_t other) {
    static uint8_t a[SIDE * SIDE * 3], b[SIDE * SIDE * 3];
    struct troupe_sample_info info_a, info_b;
    troupe_source_info(mismatch, sample, &info_a);
    troupe_source_info(source, other, &info_b);
    if (info_a.image_tokens != info_b.image_tokens ||
        memcmp(info_a.grids, info_b.grids, sizeof *info_a.grids * (size_t)info_a.images) != 0) {
        return false;
    }
    EXPECT_OK(troupe_source_load_images(mismatch, sample, a));
    EXPECT_OK(troupe_source_load_images(source, other, b));
    return memcmp(a, b, (size_t)info_a.image_tokens * PATCH * PATCH * 3) == 0;
}

static void captions_stay_and_pictures_are_of_another_sample(void) {
    troupe_source *source = make_source(160, SAMPLES), *mismatch = NULL;
    EXPECT_OK(troupe_mismatch_create(source, seed, &mismatch));
    EXPECT_EQ(troupe_mismatch_own(mismatch), 0);
    int own = 0;
    for (int64_t i = 0; i < SAMPLES; i++) {
        int32_t caption[CAPTION_MAX], kept[CAPTION_MAX];
        struct troupe_sample_info before, after;
        int found = 0;
        troupe_source_info(source, i, &before);
        troupe_source_info(mismatch, i, &after);
        EXPECT_EQ(after.text_tokens, before.text_tokens);
        EXPECT(troupe_sample_rows(&after) <= mismatch->bounds.rows, "rows beyond the bound");
        EXPECT_OK(troupe_source_load_text(source, i, caption));
        EXPECT_OK(troupe_source_load_text(mismatch, i, kept));
        EXPECT_EQ(memcmp(caption, kept, (size_t)before.text_tokens * sizeof *caption), 0);
        for (int64_t other = 0; other < SAMPLES; other++) {
            found += other != i && shows(mismatch, i, source, other);
        }
        EXPECT(found >= 1, "sample %d shows no other sample's picture", (int)i);
        own += shows(mismatch, i, source, i);
    }
    /* Two synthetic pictures may look the same by chance, a few of sixty at most. */
    EXPECT(own <= 3, "%d samples show their own picture", own);
    troupe_source_destroy(mismatch);
    troupe_source_destroy(source);
}

static void one_sample_has_no_partner(void) {
    troupe_source *source = make_source(160, 1), *mismatch = NULL;
    EXPECT_ERROR(troupe_mismatch_create(source, seed, &mismatch), TROUPE_ERROR_INVALID,
                 "pictures of 1 samples cannot be exchanged");
    troupe_source_destroy(source);
}

/* A source whose long captions leave room for small pictures only. */
static void uneven_info(const troupe_source *source, int64_t sample,
                        struct troupe_sample_info *out) {
    (void)source;
    int32_t side = sample < 2 ? 2 : 8;
    *out = (struct troupe_sample_info){.text_tokens = sample < 2 ? 50 : 10,
                                       .images = 1,
                                       .image_tokens = side * side,
                                       .grids = {{side, side}}};
}

static void pairs_stay_within_the_sequence(void) {
    static const struct troupe_source_table table = {.info = uneven_info};
    troupe_source source = {.table = &table,
                            .samples = 10,
                            .shape = {.patch = 8, .image = 64, .sequence = 80, .images_max = 1}};
    troupe_source *mismatch = NULL;
    EXPECT_OK(troupe_mismatch_create(&source, seed, &mismatch));
    EXPECT_EQ(troupe_mismatch_own(mismatch), 0);
    for (int64_t i = 0; i < 10; i++) {
        struct troupe_sample_info info;
        troupe_source_info(mismatch, i, &info);
        EXPECT(troupe_sample_rows(&info) <= 80, "%d rows", (int)troupe_sample_rows(&info));
    }
    troupe_source_destroy(mismatch);
    source.samples = 3; /* the third now has partners, 0 and 1 have each other */
    EXPECT_OK(troupe_mismatch_create(&source, seed, &mismatch));
    EXPECT_EQ(troupe_mismatch_own(mismatch), 0);
    troupe_source_destroy(mismatch);
}

int main(void) {
    seed = test_seed();
    TEST(captions_stay_and_pictures_are_of_another_sample);
    TEST(one_sample_has_no_partner);
    TEST(pairs_stay_within_the_sequence);
    return TEST_END();
}
