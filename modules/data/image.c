/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/image.h"

#include <setjmp.h>
#include <stdio.h> /* before jpeglib.h, which needs FILE */
#include <string.h>

#include <jpeglib.h>
#include <librsvg/rsvg.h>
#include <png.h>

#include "modules/data/file.h"
#include "runtime/check.h"
#include "runtime/memory.h"

static troupe_status undecodable(const char *name, const char *kind, const char *reason) {
    return troupe_fail(TROUPE_ERROR_DATA, "%s: not a whole %s picture: %s", name, kind, reason);
}

/* Room for width x height pixels in *out. */
static troupe_status image_init(int64_t width, int64_t height, const char *name,
                                struct troupe_image *out) {
    if (width < 1 || height < 1 || width > TROUPE_IMAGE_SIDE_MAX ||
        height > TROUPE_IMAGE_SIDE_MAX || width * height > TROUPE_IMAGE_PIXELS_MAX) {
        return troupe_fail(TROUPE_ERROR_DATA,
                           "%s: picture of %lld x %lld pixels; sides must be 1 to %d and the "
                           "whole at most %d pixels",
                           name, (long long)width, (long long)height, TROUPE_IMAGE_SIDE_MAX,
                           TROUPE_IMAGE_PIXELS_MAX);
    }
    struct troupe_image image = {.width = (int)width, .height = (int)height};
    TROUPE_TRY(TROUPE_NEW(&image.pixels, (size_t)width * (size_t)height * 3));
    *out = image;
    return TROUPE_OK;
}

void troupe_image_fini(struct troupe_image *image) {
    troupe_free(image->pixels);
    *image = (struct troupe_image){0};
}

/* libpng stops when it has all pixels; a file that ends there has lost its end all the same. */
static const uint8_t png_end[] = {0, 0, 0, 0, 'I', 'E', 'N', 'D', 0xae, 0x42, 0x60, 0x82};

static troupe_status decode_png(const uint8_t *bytes, size_t count, const char *name,
                                struct troupe_image *out) {
    if (memmem(bytes, count, png_end, sizeof png_end) == NULL) {
        return undecodable(name, "PNG", "it has no end mark");
    }
    png_image png = {.version = PNG_IMAGE_VERSION};
    if (!png_image_begin_read_from_memory(&png, bytes, count)) {
        return undecodable(name, "PNG", png.message);
    }
    png.format = PNG_FORMAT_RGB;
    struct troupe_image image = {0};
    troupe_status status = image_init(png.width, png.height, name, &image);
    png_color white = {.red = 255, .green = 255, .blue = 255};
    if (status == TROUPE_OK && !png_image_finish_read(&png, &white, image.pixels, 0, NULL)) {
        status = undecodable(name, "PNG", png.message);
    }
    png_image_free(&png);
    if (status != TROUPE_OK) {
        troupe_image_fini(&image);
        return status;
    }
    *out = image;
    return TROUPE_OK;
}

/* libjpeg reports through callbacks; every complaint, even one it could live with, is an error. */
struct jpeg_failure {
    struct jpeg_error_mgr base;
    jmp_buf jump;
    char reason[JMSG_LENGTH_MAX];
};

static void jpeg_fail(j_common_ptr jpeg) {
    struct jpeg_failure *failure = (struct jpeg_failure *)jpeg->err;
    failure->base.format_message(jpeg, failure->reason);
    longjmp(failure->jump, 1);
}

static void jpeg_message(j_common_ptr jpeg, int level) {
    if (level < 0) {
        jpeg_fail(jpeg);
    }
}

static troupe_status decode_jpeg(const uint8_t *bytes, size_t count, const char *name,
                                 struct troupe_image *out) {
    struct jpeg_decompress_struct jpeg = {0};
    struct jpeg_failure failure = {0};
    struct troupe_image *volatile image = out; /* survives the jump */
    *out = (struct troupe_image){0};
    jpeg.err = jpeg_std_error(&failure.base);
    failure.base.error_exit = jpeg_fail;
    failure.base.emit_message = jpeg_message;
    if (setjmp(failure.jump)) {
        jpeg_destroy_decompress(&jpeg);
        troupe_image_fini(image);
        return undecodable(name, "JPEG", failure.reason);
    }
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(&jpeg, bytes, count);
    jpeg_read_header(&jpeg, TRUE);
    jpeg.out_color_space = JCS_RGB;
    troupe_status status = image_init(jpeg.image_width, jpeg.image_height, name, out);
    if (status == TROUPE_OK) {
        jpeg_start_decompress(&jpeg);
        while (jpeg.output_scanline < jpeg.output_height) {
            JSAMPROW row = out->pixels + (size_t)jpeg.output_scanline * (size_t)out->width * 3;
            jpeg_read_scanlines(&jpeg, &row, 1);
        }
        jpeg_finish_decompress(&jpeg);
    }
    jpeg_destroy_decompress(&jpeg);
    return status;
}

troupe_status troupe_image_decode(const uint8_t *bytes, size_t count, const char *name,
                                  struct troupe_image *out) {
    static const uint8_t png_mark[] = {0x89, 'P', 'N', 'G'};
    static const uint8_t jpeg_mark[] = {0xff, 0xd8};
    struct troupe_image image = {0};
    if (count >= sizeof png_mark && memcmp(bytes, png_mark, sizeof png_mark) == 0) {
        TROUPE_TRY(decode_png(bytes, count, name, &image));
    } else if (count >= sizeof jpeg_mark && memcmp(bytes, jpeg_mark, sizeof jpeg_mark) == 0) {
        TROUPE_TRY(decode_jpeg(bytes, count, name, &image));
    } else {
        return troupe_fail(TROUPE_ERROR_DATA,
                           "%s: %zu bytes that begin neither as a PNG nor as a JPEG picture", name,
                           count);
    }
    *out = image;
    return TROUPE_OK;
}

/* The size that the file gives itself, in pixels; that of its view box if it gives none. */
static void svg_size(RsvgHandle *svg, double *width, double *height) {
    gboolean has_width = FALSE, has_height = FALSE, has_box = FALSE;
    RsvgLength ignored_width, ignored_height;
    RsvgRectangle box;
    if (rsvg_handle_get_intrinsic_size_in_pixels(svg, width, height)) {
        return;
    }
    rsvg_handle_get_intrinsic_dimensions(svg, &has_width, &ignored_width, &has_height,
                                         &ignored_height, &has_box, &box);
    *width = has_box ? box.width : 0;
    *height = has_box ? box.height : 0;
}

/* Draws onto a white surface of the image's size and copies it out of cairo's words. */
static troupe_status svg_draw(RsvgHandle *svg, const char *name, struct troupe_image *image) {
    cairo_surface_t *surface =
        cairo_image_surface_create(CAIRO_FORMAT_RGB24, image->width, image->height);
    cairo_t *cairo = cairo_create(surface);
    cairo_set_source_rgb(cairo, 1, 1, 1);
    cairo_paint(cairo);
    RsvgRectangle whole = {.width = image->width, .height = image->height};
    GError *error = NULL;
    troupe_status status = TROUPE_OK;
    if (!rsvg_handle_render_document(svg, cairo, &whole, &error)) {
        status = undecodable(name, "SVG", error->message);
        g_error_free(error);
    }
    cairo_destroy(cairo);
    cairo_surface_flush(surface);
    const uint8_t *data = cairo_image_surface_get_data(surface);
    if (data == NULL) {
        status = undecodable(name, "SVG", "no memory to draw it");
    }
    size_t stride = (size_t)cairo_image_surface_get_stride(surface);
    for (int y = 0; status == TROUPE_OK && y < image->height; y++) {
        const uint32_t *row = (const uint32_t *)(const void *)(data + (size_t)y * stride);
        uint8_t *to = image->pixels + (size_t)y * (size_t)image->width * 3;
        for (int x = 0; x < image->width; x++) {
            *to++ = (uint8_t)(row[x] >> 16);
            *to++ = (uint8_t)(row[x] >> 8);
            *to++ = (uint8_t)row[x];
        }
    }
    cairo_surface_destroy(surface);
    return status;
}

troupe_status troupe_image_decode_svg(const uint8_t *bytes, size_t count, const char *name,
                                      int side, struct troupe_image *out, int size_out[2]) {
    GError *error = NULL;
    RsvgHandle *svg = rsvg_handle_new_from_data(bytes, count, &error);
    if (svg == NULL) {
        troupe_status status =
            undecodable(name, "SVG", error != NULL ? error->message : "it is empty");
        g_clear_error(&error);
        return status;
    }
    double width = 0, height = 0;
    svg_size(svg, &width, &height);
    struct troupe_image image = {0};
    troupe_status status = TROUPE_OK;
    if (!(width > 0 && height > 0 && width < 1e6 && height < 1e6)) {
        status = undecodable(name, "SVG", "it has no usable size");
    } else {
        double scale = side / (width > height ? width : height);
        int drawn_width = (int)(width * scale + 0.5), drawn_height = (int)(height * scale + 0.5);
        status = image_init(drawn_width > 0 ? drawn_width : 1, drawn_height > 0 ? drawn_height : 1,
                            name, &image);
    }
    if (status == TROUPE_OK) {
        rsvg_handle_set_dpi(svg, 96);
        status = svg_draw(svg, name, &image);
    }
    g_object_unref(svg);
    if (status != TROUPE_OK) {
        troupe_image_fini(&image);
        return status;
    }
    size_out[0] = (int)(width + 0.5);
    size_out[1] = (int)(height + 0.5);
    *out = image;
    return TROUPE_OK;
}

troupe_status troupe_image_read(const char *path, struct troupe_image *out) {
    uint8_t *bytes = NULL;
    size_t count = 0;
    TROUPE_TRY(troupe_file_read(path, &bytes, &count));
    troupe_status status = troupe_image_decode(bytes, count, path, out);
    troupe_free(bytes);
    return status;
}

troupe_status troupe_image_encode_png(const struct troupe_image *image, uint8_t **bytes_out,
                                      size_t *count_out) {
    png_image png = {.version = PNG_IMAGE_VERSION,
                     .width = (png_uint_32)image->width,
                     .height = (png_uint_32)image->height,
                     .format = PNG_FORMAT_RGB};
    png_alloc_size_t count = PNG_IMAGE_PNG_SIZE_MAX(png);
    uint8_t *bytes = NULL;
    TROUPE_TRY(TROUPE_NEW(&bytes, count));
    if (!png_image_write_to_memory(&png, bytes, &count, 0, image->pixels, 0, NULL)) {
        troupe_free(bytes);
        return troupe_fail(TROUPE_ERROR_IO, "picture of %d x %d pixels: %s", image->width,
                           image->height, png.message);
    }
    *bytes_out = bytes;
    *count_out = count;
    return TROUPE_OK;
}

/* Sums the part of a row of `from_count` pixels that output pixel `to` of `to_count` covers, with
 * weights in units of 1/to_count pixels; they add up to from_count. sums: (3,) */
static void area_sum(const uint64_t *row, int from_count, int to, int to_count, uint64_t sums[3]) {
    int64_t begin = (int64_t)to * from_count, end = begin + from_count;
    sums[0] = sums[1] = sums[2] = 0;
    for (int64_t i = begin / to_count; i * to_count < end; i++) {
        int64_t left = i * to_count < begin ? begin : i * to_count;
        int64_t right = (i + 1) * to_count > end ? end : (i + 1) * to_count;
        for (int c = 0; c < 3; c++) {
            sums[c] += row[3 * i + c] * (uint64_t)(right - left);
        }
    }
}

/* Adds the source rows that output row `to` covers, weighted likewise. sums: (width, 3) */
static void sum_rows(const struct troupe_image *image, int to, int to_count, uint64_t *sums) {
    size_t values = (size_t)image->width * 3;
    int64_t begin = (int64_t)to * image->height, end = begin + image->height;
    memset(sums, 0, values * sizeof *sums);
    for (int64_t y = begin / to_count; y * to_count < end; y++) {
        int64_t top = y * to_count < begin ? begin : y * to_count;
        int64_t bottom = (y + 1) * to_count > end ? end : (y + 1) * to_count;
        const uint8_t *row = image->pixels + (size_t)y * values;
        for (size_t i = 0; i < values; i++) {
            sums[i] += row[i] * (uint64_t)(bottom - top);
        }
    }
}

troupe_status troupe_image_resize(const struct troupe_image *image, int width, int height,
                                  uint8_t *pixels_out) {
    TROUPE_ASSERT(width > 0 && height > 0, "resize to %d x %d", width, height);
    uint64_t *sums = NULL;
    TROUPE_TRY(TROUPE_NEW(&sums, (size_t)image->width * 3));
    uint64_t area = (uint64_t)image->width * (uint64_t)image->height;
    for (int y = 0; y < height; y++) {
        sum_rows(image, y, height, sums);
        for (int x = 0; x < width; x++) {
            uint64_t pixel[3];
            area_sum(sums, image->width, x, width, pixel);
            for (int c = 0; c < 3; c++) {
                *pixels_out++ = (uint8_t)((pixel[c] + area / 2) / area);
            }
        }
    }
    troupe_free(sums);
    return TROUPE_OK;
}

/* side * to / from, rounded to a multiple of patch within [patch, to]. */
static int scale_side(int64_t side, int64_t to, int64_t from, int patch) {
    int64_t patches = (2 * side * to + from * patch) / (2 * from * patch);
    int64_t scaled = patches * patch;
    return (int)(scaled < patch ? patch : scaled > to ? to : scaled);
}

void troupe_image_size(int width, int height, const struct troupe_image_fit *fit, int *width_out,
                       int *height_out) {
    int longest = width > height ? width : height;
    int to = fit->image;
    if (longest < to && !fit->enlarge) {
        to = (longest + fit->patch - 1) / fit->patch * fit->patch;
    }
    *width_out = scale_side(width, to, longest, fit->patch);
    *height_out = scale_side(height, to, longest, fit->patch);
}
