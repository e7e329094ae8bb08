/* SPDX-License-Identifier: Apache-2.0 */
/* PNG, JPEG and SVG by their libraries; media_none.c stands in where those are not built in. */
#include "modules/data/image.h"

#include <setjmp.h>
#include <stdio.h> /* before jpeglib.h, which needs FILE */
#include <string.h>

#include <jpeglib.h>
#include <librsvg/rsvg.h>
#include <png.h>

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
