/* SPDX-License-Identifier: Apache-2.0
 *
 * Embedding, moves of rows by index and patches of pictures against the reference; small cases by
 * hand. Sums by index are exact here: they must be in ascending row order in both tables.
 */
#include "tests/kernels/kernel_case.h"

static uint64_t seed;

enum { ROWS = 200 };

struct indices {
    int32_t from[ROWS];
    int32_t to[ROWS];
    int32_t begin;
    int64_t count;
    bool use_from;
    bool use_to;
    bool add;
};

static troupe_status call_embedding(const struct troupe_kernels *k, troupe_stream *stream,
                                    const struct troupe_tensor *t, const void *arg) {
    const struct indices *i = arg;
    return k->embedding(
        stream,
        &(struct troupe_embedding){.table = t[0], .tokens = i->from, .begin = i->begin, .y = t[1]});
}

static troupe_status call_embedding_backward(const struct troupe_kernels *k, troupe_stream *stream,
                                             const struct troupe_tensor *t, const void *arg) {
    const struct indices *i = arg;
    return k->embedding_backward(
        stream, &(struct troupe_embedding_backward){
                    .dtable = t[0], .tokens = i->from, .begin = i->begin, .dy = t[1]});
}

static troupe_status call_rows(const struct troupe_kernels *k, troupe_stream *stream,
                               const struct troupe_tensor *t, const void *arg) {
    const struct indices *i = arg;
    struct troupe_rows op = {.from = t[0],
                             .to = t[1],
                             .from_index = i->use_from ? i->from : NULL,
                             .to_index = i->use_to ? i->to : NULL,
                             .count = i->count};
    return i->add ? k->rows_add(stream, &op) : k->rows_copy(stream, &op);
}

static void random_indices(struct indices *out, int64_t below) {
    for (uint64_t i = 0; i < ROWS; i++) {
        out->from[i] = (int32_t)troupe_random_below(seed, 100, i, (uint64_t)below);
        out->to[i] = (int32_t)troupe_random_below(seed, 101, i, (uint64_t)below);
    }
}

static void a_vocabulary_shard_matches_the_reference(void) {
    struct indices i = {.begin = 13};
    random_indices(&i, 60);
    for (int64_t columns = 1; columns < 200; columns = columns * 3 + 2) {
        struct kernel_case kc = {
            .name = "embedding",
            .call = call_embedding,
            .arg = &i,
            .operand = {{INPUT, 20, columns, GAP}, {OUTPUT, ROWS, columns, GAP}},
            .count = 2};
        check_case(&kc, seed);
        kc.name = "embedding_backward";
        kc.call = call_embedding_backward;
        kc.terms = ROWS;
        kc.operand[0].role = ACCUMULATED;
        kc.operand[1].role = INPUT;
        check_case(&kc, seed);
    }
}

static void tokens_outside_the_shard_give_zero_rows_and_no_gradient(void) {
    const struct troupe_kernels *k = troupe_kernels_for(TROUPE_DEVICE_CPU);
    float table[2] = {5, 6}, y[4] = {9, 9, 9, 9};
    const struct indices i = {.from = {2, 3, 4, 1}, .begin = 2};
    struct troupe_tensor t[] = {{table, 2, 1, 1, TROUPE_FLOAT32}, {y, 4, 1, 1, TROUPE_FLOAT32}};
    EXPECT_OK(call_embedding(k, NULL, t, &i));
    EXPECT(y[0] == 5 && y[1] == 6 && y[2] == 0 && y[3] == 0, "%g %g %g %g", y[0], y[1], y[2], y[3]);
    float dy[4] = {1, 2, 3, 4};
    t[1].data = dy;
    EXPECT_OK(call_embedding_backward(k, NULL, t, &i));
    EXPECT(table[0] == 6 && table[1] == 8, "%g %g", table[0], table[1]);
}

static void moves_by_index_match_the_reference(void) {
    struct indices i = {.count = ROWS};
    for (int variant = 0; variant < 8; variant++) {
        i.use_from = variant & 1;
        i.use_to = variant & 2;
        i.add = variant & 4;
        struct kernel_case kc = {
            .name = i.add ? "rows_add" : "rows_copy",
            .call = call_rows,
            .arg = &i,
            .operand = {{INPUT, ROWS, 131, GAP}, {i.add ? ACCUMULATED : OUTPUT, ROWS, 131, GAP}},
            .count = 2,
            .terms = ROWS};
        random_indices(&i, i.add ? 50 : ROWS);
        for (int r = 0; !i.add && r < ROWS; r++) {
            i.to[r] = (r * 7 + 3) % ROWS; /* distinct: 7 and 200 have no common factor */
        }
        check_case(&kc, seed);
    }
    i.count = 0;
    struct kernel_case none = {.name = "rows_add of none",
                               .call = call_rows,
                               .arg = &i,
                               .operand = {{INPUT, 0, 5, GAP}, {ACCUMULATED, 3, 5, GAP}},
                               .count = 2};
    check_case(&none, seed);
}

static troupe_status call_patchify(const struct troupe_kernels *k, troupe_stream *stream,
                                   const struct troupe_tensor *t, const void *arg) {
    const struct troupe_patchify *op = arg;
    struct troupe_patchify with_out = *op;
    with_out.out = t[0];
    return k->patchify(stream, &with_out);
}

static void patches_of_several_pictures_match_the_reference(void) {
    static uint8_t pixels[20000];
    for (size_t i = 0; i < sizeof(pixels); i++) {
        pixels[i] = (uint8_t)troupe_random_bits(seed, 102, i);
    }
    for (int patch = 1; patch <= 7; patch += 3) {
        const struct troupe_pixels images[] = {
            {pixels, patch * 3 * 3 + 5, patch * 2, patch * 3},
            {pixels + 7, patch * 3, patch, patch},
            {pixels + 11, 0, 0, patch},
            {pixels + 13, patch * 9 + 1, patch * 4, patch * 2},
        };
        struct troupe_patchify op = {.images = images,
                                     .image_count = 4,
                                     .patch = patch,
                                     .mean = {0.5f, 0.4f, 0.3f},
                                     .deviation = {0.25f, 0.0f, 0.2f}};
        struct kernel_case kc = {.name = "patchify",
                                 .call = call_patchify,
                                 .arg = &op,
                                 .operand = {{OUTPUT, 6 + 1 + 0 + 8, patch * patch * 3, GAP}},
                                 .count = 1};
        check_case(&kc, seed);
    }
}

/* A 2 x 4 picture in patches of 2: the second row begins with the pixel in line 0, column 2. */
static void a_patch_is_lines_of_pixels_of_channels(void) {
    uint8_t pixels[24];
    float out[24];
    for (int i = 0; i < 24; i++) {
        pixels[i] = (uint8_t)i;
    }
    const struct troupe_pixels image = {pixels, 12, 2, 4};
    struct troupe_patchify op = {
        .images = &image, .image_count = 1, .patch = 2, .out = {out, 2, 12, 12, TROUPE_FLOAT32}};
    EXPECT_OK(troupe_kernels_for(TROUPE_DEVICE_CPU)->patchify(NULL, &op));
    const int expected[24] = {0, 1, 2, 3, 4,  5,  12, 13, 14, 15, 16, 17,
                              6, 7, 8, 9, 10, 11, 18, 19, 20, 21, 22, 23};
    for (int i = 0; i < 24; i++) {
        EXPECT_NEAR(out[i] * 255, expected[i], 1e-4);
    }
}

int main(int argc, char **argv) {
    seed = kernel_test_begin(argc, argv);
    TEST(a_vocabulary_shard_matches_the_reference);
    TEST_ON_CPU(tokens_outside_the_shard_give_zero_rows_and_no_gradient);
    TEST(moves_by_index_match_the_reference);
    TEST(patches_of_several_pictures_match_the_reference);
    TEST_ON_CPU(a_patch_is_lines_of_pixels_of_channels);
    return kernel_test_end();
}
