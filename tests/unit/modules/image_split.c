/* SPDX-License-Identifier: Apache-2.0 */
/* Images dealt to shards: every image once, the offsets are those of the images, batches hold their
 * pictures, loads are more even than those of intervals of samples, and no shard overflows. Chains
 * of splits keep images where they are. */
#include "modules/data/image_split.h"

#include "comm/layout.h"
#include "modules/data/microbatch.h"
#include "modules/data/synthetic.h"
#include "runtime/check.h"
#include "runtime/memory.h"
#include "tests/test.h"

enum { BATCH = 60, MICROBATCHES = 2, PATCH = 4, STEPS = 5, SHARDS_MAX = 8, PIXELS = 1 << 16 };

struct fixture {
    troupe_source *source;
    troupe_sample_plan *plan;
};

static void fixture_init(struct fixture *f, double text_only) {
    struct troupe_sample_shape shape = {
        .patch = PATCH, .image = 40, .sequence = 400, .images_max = 3};
    struct troupe_synthetic_options options = {.seed = test_seed(),
                                               .samples = 97,
                                               .images_max = 3,
                                               .text_min = 1,
                                               .text_max = 40,
                                               .text_only_fraction = text_only};
    struct troupe_sample_plan_options plan = {
        .seed = options.seed, .global_batch = BATCH, .microbatches = MICROBATCHES};
    EXPECT_OK(troupe_synthetic_create(&shape, &options, &f->source));
    EXPECT_OK(troupe_sample_plan_create(f->source, &plan, &f->plan));
}

static void fixture_fini(struct fixture *f) {
    troupe_sample_plan_destroy(f->plan);
    troupe_source_destroy(f->source);
}

static troupe_image_split *make_split(const struct fixture *f, int shards, int next_shards,
                                      const troupe_image_split *next) {
    troupe_image_split *split = NULL;
    int homes[SHARDS_MAX];
    for (int s = 0; s < shards; s++) {
        homes[s] = s * next_shards / shards;
    }
    EXPECT_OK(
        troupe_image_split_create(&(struct troupe_image_split_options){.samples = f->plan,
                                                                       .shards = shards,
                                                                       .linear = 100,
                                                                       .quadratic = 1,
                                                                       .next = next,
                                                                       .next_shards = next_shards,
                                                                       .home_of_shard = homes},
                                  &split));
    return split;
}

static void begin_step(const struct fixture *f, troupe_image_split *split, int64_t step) {
    troupe_sample_plan_set_step(f->plan, step);
    troupe_memory_set_steady(true);
    troupe_image_split_begin_step(split);
    troupe_memory_set_steady(false);
}

/* Images in the order of samples, none left out, and their rows in the part of their owner. */
static void check_rows(const struct fixture *f, const troupe_image_split *split, int shards,
                       int m) {
    static int64_t offsets[1 << 12];
    const struct troupe_split_image *images = NULL;
    int count = troupe_image_split_images(split, m, &images), seen = 0, part = 0;
    int parts = troupe_image_split_rounds(split) * shards;
    int64_t row = 0, rows = 0;
    troupe_image_split_offsets(split, m, offsets);
    struct troupe_interval all = troupe_sample_plan_interval(f->plan, m, 0, 1);
    for (int64_t at = all.begin; at < all.end; at++) {
        struct troupe_sample_info info;
        troupe_source_info(f->source, troupe_sample_plan_ids(f->plan)[at], &info);
        for (int k = 0; k < info.images; k++, seen++) {
            EXPECT_EQ(images[seen].at, at);
            EXPECT_EQ(images[seen].picture, k);
            EXPECT_EQ(images[seen].tokens, info.grids[k].rows * info.grids[k].columns);
            while (part < parts && offsets[part + 1] <= row) {
                part++;
            }
            EXPECT_EQ(part % shards, images[seen].owner);
            row += images[seen].tokens;
            EXPECT(offsets[part + 1] >= row, "image %d is cut", seen);
        }
    }
    EXPECT_EQ(seen, count);
    EXPECT_EQ(offsets[parts], row);
    for (int s = 0; s < shards; s++) {
        int64_t own = troupe_image_split_rows(split, m, s);
        EXPECT(own <= troupe_image_split_bounds(split).image_tokens, "shard %d has %lld rows", s,
               (long long)own);
        rows += own;
    }
    EXPECT_EQ(rows, row);
}

static void check_batch(const struct fixture *f, const troupe_image_split *split, int m,
                        int shard) {
    static uint8_t pixels[PIXELS];
    const struct troupe_split_image *images = NULL;
    struct troupe_batch_bounds bounds = troupe_image_split_bounds(split);
    troupe_microbatch *batch = NULL;
    int count = troupe_image_split_images(split, m, &images), own = 0;
    EXPECT_OK(troupe_microbatch_create(&bounds, TROUPE_SAMPLE_IMAGES, &batch));
    troupe_memory_set_steady(true);
    EXPECT_OK(troupe_microbatch_fill_split(batch, split, f->source, m, shard));
    troupe_memory_set_steady(false);
    const struct troupe_vision_batch *view = troupe_microbatch_vision(batch);
    for (int i = 0; i < count; i++) {
        if (images[i].owner != shard) {
            continue;
        }
        size_t bytes = (size_t)images[i].tokens * PATCH * PATCH * 3;
        int64_t sample = troupe_sample_plan_ids(f->plan)[images[i].at];
        EXPECT_OK(troupe_source_load_image(f->source, sample, images[i].picture, pixels));
        EXPECT_EQ(view->cu_len[own + 1] - view->cu_len[own], images[i].tokens);
        EXPECT_EQ(view->grid_rows[own] * view->grid_columns[own], images[i].tokens);
        EXPECT_EQ(
            memcmp(view->pixels + (size_t)view->cu_len[own] * PATCH * PATCH * 3, pixels, bytes), 0);
        own++;
    }
    EXPECT_EQ(view->images, own);
    EXPECT_EQ(view->patches, view->cu_len[own]);
    troupe_microbatch_destroy(batch);
}

static void every_image_has_one_owner_and_its_rows(void) {
    static const int shards[][2] = {{1, 1}, {4, 2}, {4, 4}, {3, 5}, {8, 3}};
    for (size_t i = 0; i < TROUPE_COUNT_OF(shards); i++) {
        struct fixture f;
        fixture_init(&f, 0.3);
        troupe_image_split *split = make_split(&f, shards[i][0], shards[i][1], NULL);
        for (int64_t step = 0; step < STEPS; step++) {
            begin_step(&f, split, step);
            for (int m = 0; m < MICROBATCHES; m++) {
                check_rows(&f, split, shards[i][0], m);
                check_batch(&f, split, m, (int)step % shards[i][0]);
            }
        }
        troupe_image_split_destroy(split);
        fixture_fini(&f);
    }
}

static int64_t cost_of(int64_t tokens) {
    return 100 * tokens + tokens * tokens;
}

/* The largest load over the mean, of the split and of intervals of samples. */
static void measure(const struct fixture *f, const troupe_image_split *split, int shards, int m,
                    double *split_out, double *intervals_out) {
    const struct troupe_split_image *images = NULL;
    int count = troupe_image_split_images(split, m, &images);
    double loads[2][SHARDS_MAX] = {{0}}, most[2] = {0}, total = 0;
    for (int i = 0; i < count; i++) {
        int shard = 0;
        while (images[i].at >= troupe_sample_plan_interval(f->plan, m, shard, shards).end) {
            shard++;
        }
        double cost = (double)cost_of(images[i].tokens);
        loads[0][images[i].owner] += cost;
        loads[1][shard] += cost;
        total += cost;
    }
    for (int s = 0; s < shards; s++) {
        most[0] = fmax(most[0], loads[0][s]);
        most[1] = fmax(most[1], loads[1][s]);
    }
    *split_out = most[0] * shards / total;
    *intervals_out = most[1] * shards / total;
}

static void loads_are_even(void) {
    enum { SHARDS = 4 };
    struct fixture f;
    fixture_init(&f, 0.3);
    troupe_image_split *split = make_split(&f, SHARDS, SHARDS, NULL);
    double most = 0, most_intervals = 0;
    for (int64_t step = 0; step < STEPS; step++) {
        begin_step(&f, split, step);
        for (int m = 0; m < MICROBATCHES; m++) {
            double own = 0, intervals = 0;
            measure(&f, split, SHARDS, m, &own, &intervals);
            most = fmax(most, own);
            most_intervals = fmax(most_intervals, intervals);
        }
    }
    printf("    largest load %.3f of the mean, %.3f by intervals of samples\n", most,
           most_intervals);
    EXPECT(most <= 1.06 && most < most_intervals, "largest load %g of the mean", most);
    troupe_image_split_destroy(split);
    fixture_fini(&f);
}

static void what_is_balanced_stays_on_its_shard(void) {
    struct fixture f;
    fixture_init(&f, 0.3);
    troupe_image_split *projector = make_split(&f, 4, 2, NULL);
    troupe_image_split *vision = make_split(&f, 4, 4, projector);
    troupe_sample_plan_set_step(f.plan, 1);
    troupe_image_split_begin_step(projector);
    troupe_image_split_begin_step(vision);
    for (int m = 0; m < MICROBATCHES; m++) {
        const struct troupe_split_image *a = NULL, *b = NULL;
        int count = troupe_image_split_images(projector, m, &a);
        EXPECT_EQ(troupe_image_split_images(vision, m, &b), count);
        for (int i = 0; i < count; i++) {
            EXPECT_EQ(a[i].owner, b[i].owner);
        }
    }
    troupe_image_split_destroy(vision);
    troupe_image_split_destroy(projector);
    fixture_fini(&f);
}

static void steps_without_pictures_have_no_rows(void) {
    static int64_t offsets[1 << 12];
    struct fixture f;
    fixture_init(&f, 1);
    troupe_image_split *split = make_split(&f, 3, 2, NULL);
    begin_step(&f, split, 0);
    troupe_image_split_offsets(split, 1, offsets);
    for (int i = 0; i <= 3 * troupe_image_split_rounds(split); i++) {
        EXPECT_EQ(offsets[i], 0);
    }
    check_batch(&f, split, 1, 2);
    troupe_image_split_destroy(split);
    fixture_fini(&f);
}

int main(void) {
    TEST(every_image_has_one_owner_and_its_rows);
    TEST(loads_are_even);
    TEST(what_is_balanced_stays_on_its_shard);
    TEST(steps_without_pictures_have_no_rows);
    return TEST_END();
}
