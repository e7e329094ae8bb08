/* SPDX-License-Identifier: Apache-2.0 */
/* Packed views of a microbatch against fused sequences written out sample by sample; and the
 * tokenizer they use. */
#include "modules/data/microbatch.h"
#include "modules/data/synthetic.h"
#include "modules/data/tokenizer.h"
#include "runtime/memory.h"
#include "tests/test.h"

enum { BATCH = 11, MICROBATCHES = 3, PATCH = 4, SEQUENCE = 160, PIXELS = 1 << 16 };

static uint64_t seed;

struct fixture {
    troupe_source *source;
    troupe_sample_plan *plan;
};

static void fixture_init(struct fixture *f, double text_only) {
    struct troupe_sample_shape shape = {.patch = PATCH, .image = 24, .sequence = SEQUENCE};
    struct troupe_synthetic_options options = {.seed = seed,
                                               .samples = 37,
                                               .images_max = 3,
                                               .text_min = 1,
                                               .text_max = 40,
                                               .text_only_fraction = text_only};
    struct troupe_sample_plan_options plan = {
        .seed = seed, .global_batch = BATCH, .microbatches = MICROBATCHES};
    EXPECT_OK(troupe_synthetic_create(&shape, &options, &f->source));
    EXPECT_OK(troupe_sample_plan_create(f->source, &plan, &f->plan));
}

static void fixture_fini(struct fixture *f) {
    troupe_sample_plan_destroy(f->plan);
    troupe_source_destroy(f->source);
}

/* The fused sequence of a sample as its definition reads; returns its length. */
static int write_out(troupe_source *source, int64_t sample, int32_t ids[SEQUENCE],
                     int32_t targets[SEQUENCE]) {
    struct troupe_sample_info info;
    int32_t caption[SEQUENCE];
    int length = 0;
    troupe_source_info(source, sample, &info);
    EXPECT_OK(troupe_source_load_text(source, sample, caption));
    ids[length++] = TROUPE_TOKEN_BEGIN;
    for (int k = 0; k < info.images; k++) {
        for (int i = 0; i < info.grids[k].rows * info.grids[k].columns; i++) {
            ids[length++] = -1;
        }
    }
    for (int i = 0; i < info.text_tokens; i++) {
        ids[length++] = caption[i];
    }
    ids[length++] = TROUPE_TOKEN_END;
    for (int t = 0; t < length; t++) {
        bool targeted = t + 1 < length && ids[t + 1] != -1;
        targets[t] = targeted ? ids[t + 1] : -1;
    }
    return length;
}

static void check_language(struct fixture *f, const struct troupe_language_batch *view,
                           struct troupe_interval mine) {
    int64_t row = 0, image_row = 0, counted = 0;
    EXPECT_EQ(view->samples, mine.end - mine.begin);
    EXPECT_EQ(view->cu_len[0], 0);
    for (int64_t s = 0; s < view->samples; s++) {
        int32_t ids[SEQUENCE], targets[SEQUENCE];
        int64_t sample = troupe_sample_plan_ids(f->plan)[mine.begin + s];
        int length = write_out(f->source, sample, ids, targets);
        for (int t = 0; t < length; t++, row++) {
            EXPECT_EQ(view->token_ids[row], ids[t]);
            EXPECT_EQ(view->targets[row], targets[t]);
            EXPECT_EQ(view->positions[row], t);
            counted += targets[t] >= 0;
            if (ids[t] == -1) {
                EXPECT_EQ(view->image_rows[image_row++], row);
            }
        }
        EXPECT_EQ(view->cu_len[s + 1], row);
    }
    EXPECT_EQ(view->rows, row);
    EXPECT_EQ(view->image_tokens, image_row);
    EXPECT_EQ(view->targets_count, counted);
    EXPECT_EQ(view->step_targets, troupe_sample_plan_step_targets(f->plan));
}

static void check_vision(struct fixture *f, const struct troupe_vision_batch *view,
                         struct troupe_interval mine) {
    static uint8_t pixels[PIXELS];
    int64_t image = 0, patches = 0;
    EXPECT_EQ(view->cu_len[0], 0);
    for (int64_t i = mine.begin; i < mine.end; i++) {
        int64_t sample = troupe_sample_plan_ids(f->plan)[i];
        struct troupe_sample_info info;
        troupe_source_info(f->source, sample, &info);
        EXPECT_OK(troupe_source_load_images(f->source, sample, pixels));
        EXPECT_EQ(memcmp(view->pixels + patches * PATCH * PATCH * 3, pixels,
                         (size_t)info.image_tokens * PATCH * PATCH * 3),
                  0);
        for (int k = 0; k < info.images; k++, image++) {
            EXPECT_EQ(view->grid_rows[image], info.grids[k].rows);
            EXPECT_EQ(view->grid_columns[image], info.grids[k].columns);
            patches += info.grids[k].rows * info.grids[k].columns;
            EXPECT_EQ(view->cu_len[image + 1], patches);
        }
    }
    EXPECT_EQ(view->images, image);
    EXPECT_EQ(view->patches, patches);
    EXPECT_EQ(view->patch, PATCH);
}

static void check_all(double text_only, int shards) {
    struct fixture f;
    fixture_init(&f, text_only);
    struct troupe_batch_bounds bounds = troupe_sample_plan_bounds(f.plan, shards);
    troupe_microbatch *batch = NULL;
    EXPECT_OK(troupe_microbatch_create(&bounds, TROUPE_SAMPLE_TEXT | TROUPE_SAMPLE_IMAGES, &batch));
    int64_t targets = 0;
    for (int64_t step = 0; step < 4; step++) {
        troupe_sample_plan_set_step(f.plan, step);
        targets -= troupe_sample_plan_step_targets(f.plan);
        for (int part = 0; part < MICROBATCHES * shards; part++) {
            int m = part / shards, d = part % shards;
            struct troupe_interval mine = troupe_sample_plan_interval(f.plan, m, d, shards);
            troupe_memory_set_steady(true);
            EXPECT_OK(troupe_microbatch_fill(batch, f.plan, f.source, m, d, shards));
            troupe_memory_set_steady(false);
            check_language(&f, troupe_microbatch_language(batch), mine);
            check_vision(&f, troupe_microbatch_vision(batch), mine);
            targets += troupe_microbatch_language(batch)->targets_count;
        }
    }
    EXPECT_EQ(targets, 0); /* the shards' targets add up to the step's */
    troupe_microbatch_destroy(batch);
    fixture_fini(&f);
}

static void views_hold_the_fused_sequences(void) {
    check_all(0.3, 1);
    check_all(0.3, 3);
}

static void more_shards_than_samples_leave_empty_views(void) {
    check_all(0.3, 6); /* of three or four samples */
}

static void text_only_samples_have_no_pictures(void) {
    check_all(1.0, 2);
}

static void view_not_asked_for_stays_empty(void) {
    struct fixture f;
    fixture_init(&f, 0);
    struct troupe_batch_bounds bounds = troupe_sample_plan_bounds(f.plan, 1);
    troupe_microbatch *batch = NULL;
    EXPECT_OK(troupe_microbatch_create(&bounds, TROUPE_SAMPLE_TEXT, &batch));
    troupe_sample_plan_set_step(f.plan, 0);
    EXPECT_OK(troupe_microbatch_fill(batch, f.plan, f.source, 0, 0, 1));
    EXPECT(troupe_microbatch_language(batch)->rows > 0, "no rows");
    EXPECT_EQ(troupe_microbatch_vision(batch)->images, 0);
    troupe_microbatch_destroy(batch);
    fixture_fini(&f);
}

static void bytes_survive_the_tokenizer(void) {
    char text[256], back[260];
    int32_t tokens[258];
    for (int i = 0; i < 255; i++) {
        text[i] = (char)(i + 1);
    }
    tokens[0] = TROUPE_TOKEN_BEGIN;
    EXPECT_EQ(troupe_tokenizer_encode(text, 255, tokens + 1), 255);
    tokens[256] = TROUPE_TOKEN_END;
    EXPECT_EQ(troupe_tokenizer_decode(tokens, 257, back, sizeof back), 255);
    EXPECT_EQ(memcmp(text, back, 255), 0);
    EXPECT_EQ(troupe_tokenizer_decode(tokens, 257, back, 10), 9); /* cut, and ended */
    EXPECT_EQ(back[9], 0);
    EXPECT_EQ(TROUPE_TOKEN_COUNT, 261);
}

int main(void) {
    seed = test_seed();
    TEST(views_hold_the_fused_sequences);
    TEST(more_shards_than_samples_leave_empty_views);
    TEST(text_only_samples_have_no_pictures);
    TEST(view_not_asked_for_stays_empty);
    TEST(bytes_survive_the_tokenizer);
    return TEST_END();
}
