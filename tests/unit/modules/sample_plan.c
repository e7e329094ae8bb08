/* SPDX-License-Identifier: Apache-2.0 */
/* The sample plan over synthetic samples: order, slices, prefix sums, cursor, hash; each against
 * its definition worked out again here. */
#include "modules/data/sample_plan.h"
#include "modules/data/synthetic.h"
#include "runtime/memory.h"
#include "tests/test.h"

static uint64_t seed;

static troupe_source *make_source(int64_t samples) {
    struct troupe_sample_shape shape = {.patch = 8, .image = 32, .sequence = 128};
    struct troupe_synthetic_options options = {
        .seed = seed, .samples = samples, .images_max = 3, .text_only_fraction = 0.3};
    troupe_source *source = NULL;
    EXPECT_OK(troupe_synthetic_create(&shape, &options, &source));
    return source;
}

static troupe_sample_plan *make_plan(const troupe_source *source,
                                     struct troupe_sample_plan_options options) {
    troupe_sample_plan *plan = NULL;
    options.seed = seed;
    EXPECT_OK(troupe_sample_plan_create(source, &options, &plan));
    return plan;
}

static void order_is_a_permutation_of_any_count(void) {
    static const int64_t counts[] = {1, 2, 3, 7, 64, 65, 1000, 4097};
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
        static uint8_t seen[4097];
        memset(seen, 0, sizeof seen);
        for (int64_t i = 0; i < counts[k]; i++) {
            int64_t sample = troupe_sample_order(seed, 3, counts[k], i);
            EXPECT(sample >= 0 && sample < counts[k], "sample %lld", (long long)sample);
            EXPECT_EQ(seen[sample]++, 0);
        }
    }
}

static void epochs_and_seeds_have_their_own_order(void) {
    int same_epoch = 0, same_seed = 0, in_place = 0;
    for (int64_t i = 0; i < 1000; i++) {
        int64_t sample = troupe_sample_order(seed, 0, 1000, i);
        same_epoch += sample == troupe_sample_order(seed, 1, 1000, i);
        same_seed += sample == troupe_sample_order(seed + 1, 0, 1000, i);
        in_place += sample == i;
    }
    /* About one each is expected. */
    EXPECT(same_epoch < 20 && same_seed < 20 && in_place < 20, "%d %d %d", same_epoch, same_seed,
           in_place);
}

/* Every one of the six orders of three samples turns up about equally often. */
static void small_orders_are_even(void) {
    int counts[27] = {0};
    for (int64_t epoch = 0; epoch < 6000; epoch++) {
        int code = 0;
        for (int i = 0; i < 3; i++) {
            code = 3 * code + (int)troupe_sample_order(seed, epoch, 3, i);
        }
        counts[code]++;
    }
    int orders = 0;
    for (int i = 0; i < 27; i++) {
        orders += counts[i] > 0;
        EXPECT(counts[i] == 0 || (counts[i] > 800 && counts[i] < 1200), "order %d: %d times", i,
               counts[i]);
    }
    EXPECT_EQ(orders, 6);
}

static void every_sample_comes_once_an_epoch(void) {
    enum { SAMPLES = 50, BATCH = 7 }; /* 50 steps are seven epochs */
    troupe_source *source = make_source(SAMPLES);
    troupe_sample_plan *plan = make_plan(
        source, (struct troupe_sample_plan_options){.global_batch = BATCH, .microbatches = 2});
    int seen[SAMPLES] = {0};
    for (int64_t step = 0; step < SAMPLES; step++) {
        troupe_sample_plan_set_step(plan, step);
        for (int i = 0; i < BATCH; i++) {
            int64_t position = step * BATCH + i;
            int64_t sample = troupe_sample_plan_ids(plan)[i];
            EXPECT_EQ(seen[sample]++, position / SAMPLES);
        }
    }
    troupe_sample_plan_destroy(plan);
    troupe_source_destroy(source);
}

static void intervals_cover_the_step_in_order_and_evenly(void) {
    troupe_source *source = make_source(100);
    troupe_sample_plan *plan = make_plan(
        source, (struct troupe_sample_plan_options){.global_batch = 13, .microbatches = 4});
    for (int shards = 1; shards <= 5; shards++) {
        int64_t next = 0;
        for (int m = 0; m < 4; m++) {
            for (int d = 0; d < shards; d++) {
                struct troupe_interval i = troupe_sample_plan_interval(plan, m, d, shards);
                EXPECT_EQ(i.begin, next);
                EXPECT(i.end - i.begin <= troupe_sample_plan_bounds(plan, shards).samples, "bound");
                EXPECT(i.end - i.begin >= 3 / shards, "uneven: %lld samples",
                       (long long)(i.end - i.begin));
                next = i.end;
            }
        }
        EXPECT_EQ(next, 13);
    }
    troupe_sample_plan_destroy(plan);
    troupe_source_destroy(source);
}

static void prefix_sums_are_those_of_the_samples(void) {
    troupe_source *source = make_source(40);
    troupe_sample_plan *plan = make_plan(
        source, (struct troupe_sample_plan_options){.global_batch = 10, .microbatches = 3});
    troupe_sample_plan_set_step(plan, 5);
    int64_t rows = 0, tokens = 0, images = 0, targets = 0;
    for (int i = 0; i < 10; i++) {
        struct troupe_sample_info info;
        EXPECT_EQ(troupe_sample_plan_rows(plan)[i], rows);
        EXPECT_EQ(troupe_sample_plan_image_tokens(plan)[i], tokens);
        EXPECT_EQ(troupe_sample_plan_images(plan)[i], images);
        EXPECT_EQ(troupe_sample_plan_targets(plan)[i], targets);
        troupe_source_info(source, troupe_sample_plan_ids(plan)[i], &info);
        for (int k = 0; k < info.images; k++) {
            tokens += info.grids[k].rows * info.grids[k].columns;
            rows += info.grids[k].rows * info.grids[k].columns;
        }
        rows += 1 + info.text_tokens + 1;
        targets += info.text_tokens + 1;
        images += info.images;
    }
    EXPECT_EQ(troupe_sample_plan_rows(plan)[10], rows);
    EXPECT_EQ(troupe_sample_plan_step_targets(plan), targets);
    troupe_sample_plan_destroy(plan);
    troupe_source_destroy(source);
}

static void offsets_split_a_microbatch_by_shard(void) {
    troupe_source *source = make_source(40);
    troupe_sample_plan *plan = make_plan(
        source, (struct troupe_sample_plan_options){.global_batch = 11, .microbatches = 2});
    troupe_sample_plan_set_step(plan, 1);
    const int64_t *tokens = troupe_sample_plan_image_tokens(plan);
    const int64_t *rows = troupe_sample_plan_rows(plan);
    for (int m = 0; m < 2; m++) {
        int64_t image_offsets[5], row_offsets[5];
        troupe_sample_plan_image_offsets(plan, m, 4, image_offsets);
        troupe_sample_plan_row_offsets(plan, m, 4, row_offsets);
        for (int d = 0; d < 4; d++) {
            struct troupe_interval i = troupe_sample_plan_interval(plan, m, d, 4);
            EXPECT_EQ(image_offsets[d + 1] - image_offsets[d], tokens[i.end] - tokens[i.begin]);
            EXPECT_EQ(row_offsets[d + 1] - row_offsets[d], rows[i.end] - rows[i.begin]);
        }
        EXPECT_EQ(image_offsets[0], 0);
        EXPECT_EQ(row_offsets[0], 0);
    }
    troupe_sample_plan_destroy(plan);
    troupe_source_destroy(source);
}

static void cursor_continues_the_same_sequence(void) {
    troupe_source *source = make_source(30);
    struct troupe_sample_plan_options options = {.global_batch = 8, .microbatches = 2};
    troupe_sample_plan *whole = make_plan(source, options);
    options.first_step = 6;
    options.first_position = troupe_sample_plan_position(whole, 6);
    troupe_sample_plan *rest = make_plan(source, options);
    for (int64_t step = 6; step < 12; step++) {
        troupe_sample_plan_set_step(whole, step);
        troupe_sample_plan_set_step(rest, step);
        EXPECT_EQ(memcmp(troupe_sample_plan_ids(whole), troupe_sample_plan_ids(rest),
                         8 * sizeof(int64_t)),
                  0);
        EXPECT_EQ(troupe_sample_plan_position(whole, step),
                  troupe_sample_plan_position(rest, step));
    }
    troupe_sample_plan_destroy(whole);
    troupe_sample_plan_destroy(rest);
    troupe_source_destroy(source);
}

static void a_step_does_not_depend_on_the_ones_before(void) {
    troupe_source *source = make_source(30);
    struct troupe_sample_plan_options options = {.global_batch = 8, .microbatches = 2};
    troupe_sample_plan *walked = make_plan(source, options), *jumped = make_plan(source, options);
    for (int64_t step = 0; step <= 9; step++) {
        troupe_sample_plan_set_step(walked, step);
    }
    troupe_sample_plan_set_step(jumped, 9);
    for (int m = 0; m < 2; m++) {
        EXPECT(troupe_sample_plan_hash(walked, m) == troupe_sample_plan_hash(jumped, m), "hash");
    }
    EXPECT(troupe_sample_plan_hash(walked, 0) != troupe_sample_plan_hash(walked, 1), "two sets");
    troupe_sample_plan_destroy(walked);
    troupe_sample_plan_destroy(jumped);
    troupe_source_destroy(source);
}

static void planning_a_step_allocates_nothing(void) {
    troupe_source *source = make_source(30);
    troupe_sample_plan *plan = make_plan(
        source, (struct troupe_sample_plan_options){.global_batch = 8, .microbatches = 2});
    troupe_memory_set_steady(true); /* an allocation aborts from here on */
    troupe_sample_plan_set_step(plan, 0);
    troupe_sample_plan_set_step(plan, 1);
    troupe_memory_set_steady(false);
    EXPECT_EQ(troupe_sample_plan_step(plan), 1);
    troupe_sample_plan_destroy(plan);
    troupe_source_destroy(source);
}

static void needed_samples_are_those_of_the_shard(void) {
    troupe_source *source = make_source(60);
    troupe_sample_plan *plan = make_plan(
        source, (struct troupe_sample_plan_options){.global_batch = 10, .microbatches = 2});
    uint8_t first[60] = {0}, second[60] = {0}, all[60] = {0};
    troupe_sample_plan_needed(plan, 2, 5, 0, 2, first);
    troupe_sample_plan_needed(plan, 2, 5, 1, 2, second);
    troupe_sample_plan_needed(plan, 2, 5, 0, 1, all);
    int count = 0;
    for (int i = 0; i < 60; i++) {
        EXPECT_EQ(all[i], first[i] | second[i]);
        EXPECT_EQ(first[i] & second[i], 0);
        count += all[i];
    }
    EXPECT_EQ(count, 30);
    troupe_sample_plan_destroy(plan);
    troupe_source_destroy(source);
}

static void batch_smaller_than_its_microbatches_is_refused(void) {
    troupe_source *source = make_source(10);
    troupe_sample_plan *plan = NULL;
    struct troupe_sample_plan_options options = {.global_batch = 3, .microbatches = 4};
    EXPECT_ERROR(troupe_sample_plan_create(source, &options, &plan), TROUPE_ERROR_INVALID,
                 "train.global_batch is 3 and train.microbatches 4");
    troupe_source_destroy(source);
}

int main(void) {
    seed = test_seed();
    TEST(order_is_a_permutation_of_any_count);
    TEST(epochs_and_seeds_have_their_own_order);
    TEST(small_orders_are_even);
    TEST(every_sample_comes_once_an_epoch);
    TEST(intervals_cover_the_step_in_order_and_evenly);
    TEST(prefix_sums_are_those_of_the_samples);
    TEST(offsets_split_a_microbatch_by_shard);
    TEST(cursor_continues_the_same_sequence);
    TEST(a_step_does_not_depend_on_the_ones_before);
    TEST(planning_a_step_allocates_nothing);
    TEST(needed_samples_are_those_of_the_shard);
    TEST(batch_smaller_than_its_microbatches_is_refused);
    return TEST_END();
}
