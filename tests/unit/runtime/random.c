/* SPDX-License-Identifier: Apache-2.0 */
/* Philox against the known answers of Random123 (kat_vectors), FNV-1a against its published
 * vectors, and the moments of what is derived from them. */
#include "runtime/random.h"

#include <stdbool.h>

#include "tests/test.h"

static void expect_block(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t a, uint32_t b,
                         uint32_t c, uint32_t d) {
    uint32_t out[4];
    troupe_random_block(seed, stream, counter, out);
    EXPECT_EQ(out[0], a);
    EXPECT_EQ(out[1], b);
    EXPECT_EQ(out[2], c);
    EXPECT_EQ(out[3], d);
}

static void philox_gives_the_known_answers(void) {
    expect_block(0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
    expect_block(UINT64_MAX, UINT64_MAX, UINT64_MAX, 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
                 0x6d5451fd);
    expect_block(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, 0xd16cfe09, 0x94fdcceb,
                 0x5001e420, 0x24126ea1);
}

static void stream_is_the_fnv_hash_of_the_name(void) {
    EXPECT_EQ(troupe_random_stream(""), 0xcbf29ce484222325);
    EXPECT_EQ(troupe_random_stream("a"), 0xaf63dc4c8601ec8c);
    EXPECT_EQ(troupe_random_stream("foobar"), 0x85944171f73967e8);
}

static void uniform_lies_in_the_unit_interval_and_is_flat(void) {
    uint64_t seed = test_seed();
    enum { COUNT = 100000, BINS = 16 };
    int bins[BINS] = {0};
    for (uint64_t i = 0; i < COUNT; i++) {
        double x = troupe_random_uniform(seed, 1, i);
        EXPECT(x >= 0.0 && x < 1.0, "%.17g", x);
        bins[(int)(x * BINS)]++;
    }
    /* each bin is binomial: 6 standard deviations are exceeded once in 5e8 */
    double mean = (double)COUNT / BINS;
    for (int b = 0; b < BINS; b++) {
        EXPECT_NEAR(bins[b], mean, 6.0 * sqrt(mean));
    }
}

static void normal_has_the_moments_of_a_normal(void) {
    uint64_t seed = test_seed();
    enum { COUNT = 100000 };
    double sum = 0.0, square = 0.0, fourth = 0.0;
    for (uint64_t i = 0; i < COUNT; i++) {
        double x = troupe_random_normal(seed, 2, i);
        EXPECT(isfinite(x), "%g", x);
        sum += x;
        square += x * x;
        fourth += x * x * x * x;
    }
    /* variances of the three means: 1/n, 2/n, 96/n */
    EXPECT_NEAR(sum / COUNT, 0.0, 6.0 * sqrt(1.0 / COUNT));
    EXPECT_NEAR(square / COUNT, 1.0, 6.0 * sqrt(2.0 / COUNT));
    EXPECT_NEAR(fourth / COUNT, 3.0, 6.0 * sqrt(96.0 / COUNT));
}

static void below_reaches_every_value_and_no_other(void) {
    uint64_t seed = test_seed();
    bool seen[7] = {false};
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t x = troupe_random_below(seed, 3, i, 7);
        EXPECT(x < 7, "%" PRIu64, x);
        seen[x] = true;
    }
    for (int i = 0; i < 7; i++) {
        EXPECT(seen[i], "%d never came", i);
    }
    EXPECT_EQ(troupe_random_below(seed, 3, 0, 1), 0);
}

static void streams_and_seeds_are_independent(void) {
    EXPECT(troupe_random_bits(1, 2, 3) != troupe_random_bits(1, 3, 2), "stream equals counter");
    EXPECT(troupe_random_bits(1, 2, 3) != troupe_random_bits(2, 1, 3), "seed equals stream");
    EXPECT_EQ(troupe_random_bits(1, 2, 3), troupe_random_bits(1, 2, 3));
}

int main(void) {
    TEST(philox_gives_the_known_answers);
    TEST(stream_is_the_fnv_hash_of_the_name);
    TEST(uniform_lies_in_the_unit_interval_and_is_flat);
    TEST(normal_has_the_moments_of_a_normal);
    TEST(below_reaches_every_value_and_no_other);
    TEST(streams_and_seeds_are_independent);
    return TEST_END();
}
