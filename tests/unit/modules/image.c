/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding, resizing and sizing of pictures; damaged bytes of every kind must end in a sentence,
 * never in a crash (run under asan too). */
#include <stdio.h>

#include <jpeglib.h>

#include "modules/data/image.h"
#include "runtime/memory.h"
#include "runtime/random.h"
#include "tests/unit/modules/data_files.h"

static uint64_t seed;

static void encode_jpeg(const struct troupe_image *image, uint8_t **bytes_out, size_t *count_out) {
    struct jpeg_compress_struct jpeg = {0};
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    unsigned long count = 0;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, &count);
    jpeg.image_width = (JDIMENSION)image->width;
    jpeg.image_height = (JDIMENSION)image->height;
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 95, TRUE);
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height) {
        JSAMPROW row = image->pixels + (size_t)jpeg.next_scanline * (size_t)image->width * 3;
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    *bytes_out = bytes;
    *count_out = count;
}

static void png_comes_back_exactly(void) {
    struct troupe_image image, back;
    uint8_t *bytes = NULL;
    size_t count = 0;
    test_picture(33, 21, 90, &image);
    EXPECT_OK(troupe_image_encode_png(&image, &bytes, &count));
    EXPECT_OK(troupe_image_decode(bytes, count, "a.png", &back));
    EXPECT_EQ(back.width, 33);
    EXPECT_EQ(back.height, 21);
    EXPECT_EQ(memcmp(image.pixels, back.pixels, 33 * 21 * 3), 0);
    troupe_free(bytes);
    troupe_image_fini(&image);
    troupe_image_fini(&back);
}

static void jpeg_comes_back_nearly(void) {
    struct troupe_image image, back;
    uint8_t *bytes = NULL;
    size_t count = 0;
    test_picture(40, 24, 90, &image);
    encode_jpeg(&image, &bytes, &count);
    EXPECT_OK(troupe_image_decode(bytes, count, "a.jpg", &back));
    EXPECT_EQ(back.width, 40);
    EXPECT_EQ(back.height, 24);
    for (int i = 0; i < 40 * 24 * 3; i++) {
        EXPECT_NEAR(back.pixels[i], image.pixels[i], 12);
    }
    free(bytes);
    troupe_image_fini(&image);
    troupe_image_fini(&back);
}

static const char half_red_svg[] =
    "<svg xmlns='http://www.w3.org/2000/svg' width='20' height='10' viewBox='0 0 20 10'>"
    "<rect x='0' y='0' width='10' height='10' fill='#ff0000'/></svg>";

static void svg_is_drawn_on_white(void) {
    struct troupe_image image;
    int size[2];
    EXPECT_OK(troupe_image_decode_svg((const uint8_t *)half_red_svg, sizeof half_red_svg - 1,
                                      "a.svg", 80, &image, size));
    EXPECT_EQ(size[0], 20);
    EXPECT_EQ(size[1], 10);
    EXPECT_EQ(image.width, 80);
    EXPECT_EQ(image.height, 40);
    const uint8_t *left = image.pixels + (20 * 80 + 20) * 3;
    const uint8_t *right = image.pixels + (20 * 80 + 60) * 3;
    static const uint8_t red[] = {255, 0, 0}, white[] = {255, 255, 255};
    EXPECT_EQ(memcmp(left, red, 3), 0);
    EXPECT_EQ(memcmp(right, white, 3), 0);
    troupe_image_fini(&image);
}

/* The mean over the area, worked out in float64. */
static double area_mean(const struct troupe_image *image, int x, int y, int width, int height,
                        int channel) {
    double x0 = (double)x * image->width / width, x1 = (double)(x + 1) * image->width / width;
    double y0 = (double)y * image->height / height, y1 = (double)(y + 1) * image->height / height;
    double sum = 0;
    for (int v = 0; v < image->height; v++) {
        for (int u = 0; u < image->width; u++) {
            double w = fmin(u + 1, x1) - fmax(u, x0), h = fmin(v + 1, y1) - fmax(v, y0);
            if (w > 0 && h > 0) {
                sum += w * h * image->pixels[(v * image->width + u) * 3 + channel];
            }
        }
    }
    return sum / ((x1 - x0) * (y1 - y0));
}

static void resize_is_the_area_mean(void) {
    static const int sizes[][2] = {{8, 8}, {7, 5}, {29, 17}, {1, 1}, {40, 50}};
    struct troupe_image image;
    test_picture(29, 17, 200, &image);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        int width = sizes[k][0], height = sizes[k][1];
        static uint8_t pixels[40 * 50 * 3];
        EXPECT_OK(troupe_image_resize(&image, width, height, pixels));
        for (int i = 0; i < width * height * 3; i++) {
            int p = i / 3;
            double mean = area_mean(&image, p % width, p / width, width, height, i % 3);
            EXPECT_NEAR(pixels[i], mean, 0.5 + 1e-9);
        }
    }
    troupe_image_fini(&image);
}

static void sizes_keep_the_ratio_in_whole_patches(void) {
    static const struct {
        int width, height, enlarge, to_width, to_height;
    } cases[] = {
        {640, 480, 0, 64, 48}, {480, 640, 0, 48, 64}, {64, 64, 0, 64, 64},  {40, 24, 0, 40, 24},
        {1000, 10, 0, 64, 8},  {30, 17, 0, 32, 16},   {5, 3, 0, 8, 8},      {30, 15, 1, 64, 32},
        {100, 70, 1, 64, 48},  {16384, 1, 0, 64, 8},  {8, 16384, 1, 8, 64},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct troupe_image_fit fit = {.image = 64, .patch = 8, .enlarge = cases[i].enlarge};
        int width = 0, height = 0;
        troupe_image_size(cases[i].width, cases[i].height, &fit, &width, &height);
        EXPECT_EQ(width, cases[i].to_width);
        EXPECT_EQ(height, cases[i].to_height);
    }
}

static void foreign_bytes_are_named(void) {
    struct troupe_image image;
    EXPECT_ERROR(troupe_image_decode((const uint8_t *)"GIF89a..", 8, "shard 3: x.png", &image),
                 TROUPE_ERROR_DATA, "shard 3: x.png: 8 bytes that begin neither as a PNG");
    EXPECT_ERROR(troupe_image_decode((const uint8_t *)"", 0, "x", &image), TROUPE_ERROR_DATA,
                 "0 bytes");
    int size[2];
    EXPECT_ERROR(troupe_image_decode_svg((const uint8_t *)"<svg", 4, "x.svg", 64, &image, size),
                 TROUPE_ERROR_DATA, "x.svg: not a whole SVG picture");
}

/* A PNG header may claim any size; the claim alone must not take the memory. */
static void huge_claims_are_refused(void) {
    struct troupe_image image, out;
    uint8_t *bytes = NULL;
    size_t count = 0;
    test_picture(2, 2, 0, &image);
    EXPECT_OK(troupe_image_encode_png(&image, &bytes, &count));
    bytes[16] = 0x10; /* width 0x10000002; the checksum of the header no longer fits either */
    EXPECT(troupe_image_decode(bytes, count, "a.png", &out) == TROUPE_ERROR_DATA, "accepted");
    troupe_free(bytes);
    troupe_image_fini(&image);
}

/* Every truncation fails; a flipped byte either fails or gives a picture of sane size. */
static void attack(const uint8_t *bytes, size_t count) {
    uint8_t *copy = NULL;
    struct troupe_image image;
    for (size_t cut = 0; cut + 2 < count; cut += 1 + count / 200) {
        EXPECT_OK(TROUPE_NEW(&copy, cut + 1));
        memcpy(copy, bytes, cut);
        EXPECT_EQ(troupe_image_decode(copy, cut, "cut", &image), TROUPE_ERROR_DATA);
        troupe_free(copy);
    }
    for (uint64_t round = 0; round < 400; round++) {
        EXPECT_OK(TROUPE_NEW(&copy, count));
        memcpy(copy, bytes, count);
        uint64_t flips = 1 + troupe_random_below(seed, 1, round, 8);
        for (uint64_t k = 0; k < flips; k++) {
            copy[troupe_random_below(seed, 2, 8 * round + k, count)] ^=
                (uint8_t)(1 + troupe_random_below(seed, 3, 8 * round + k, 255));
        }
        if (troupe_image_decode(copy, count, "flipped", &image) == TROUPE_OK) {
            EXPECT(image.width <= TROUPE_IMAGE_SIDE_MAX, "width %d", image.width);
            troupe_image_fini(&image);
        } else {
            EXPECT(strstr(troupe_last_error(), "flipped: ") != NULL, "%s", troupe_last_error());
        }
        troupe_free(copy);
    }
}

static void damaged_pictures_end_in_a_sentence(void) {
    struct troupe_image image;
    uint8_t *png = NULL, *jpeg = NULL;
    size_t png_bytes = 0, jpeg_bytes = 0;
    test_picture(48, 32, 120, &image);
    EXPECT_OK(troupe_image_encode_png(&image, &png, &png_bytes));
    encode_jpeg(&image, &jpeg, &jpeg_bytes);
    attack(png, png_bytes);
    attack(jpeg, jpeg_bytes);
    troupe_free(png);
    free(jpeg);
    troupe_image_fini(&image);
}

int main(void) {
    seed = test_seed();
    TEST(png_comes_back_exactly);
    TEST(jpeg_comes_back_nearly);
    TEST(svg_is_drawn_on_white);
    TEST(resize_is_the_area_mean);
    TEST(sizes_keep_the_ratio_in_whole_patches);
    TEST(foreign_bytes_are_named);
    TEST(huge_claims_are_refused);
    TEST(damaged_pictures_end_in_a_sentence);
    return TEST_END();
}
