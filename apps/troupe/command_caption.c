/* SPDX-License-Identifier: Apache-2.0 */
/* `troupe caption`: what a checkpoint's model says about pictures. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "apps/launch.h"
#include "apps/troupe/arguments.h"
#include "modules/data/image.h"
#include "modules/data/tokenizer.h"
#include "modules/train/dataset.h"
#include "modules/train/inference.h"
#include "runtime/memory.h"

enum { CAPTION_BYTES = 4096, COLUMN = 56 };

struct caption_job {
    const char *checkpoint;
    char **images;
    int image_count;
    int heldout; /* captions of so many held-out samples; 0: of the images */
};

/* What a model says may hold any byte: keep it on its line, without blanks at its end. */
static void tidy(char *text) {
    size_t end = 0;
    for (size_t i = 0; text[i] != '\0'; i++) {
        text[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? ' ' : text[i];
        end = text[i] != ' ' ? i + 1 : end;
    }
    text[end] = '\0';
}

/* ---- picture files ---- */

/* Resized as the data index would. */
static troupe_status caption_image(troupe_inference *model, const struct troupe_image *image,
                                   char *text) {
    struct troupe_sample_shape shape = troupe_dataset_shape(troupe_inference_config(model));
    struct troupe_image_fit fit = {.image = shape.image, .patch = shape.patch};
    int width, height;
    uint8_t *pixels = NULL;
    troupe_image_size(image->width, image->height, &fit, &width, &height);
    TROUPE_TRY(TROUPE_NEW(&pixels, (int64_t)width * height * 3));
    troupe_status status = troupe_image_resize(image, width, height, pixels);
    if (status == TROUPE_OK) {
        struct troupe_grid grid = {.rows = height / shape.patch, .columns = width / shape.patch};
        struct troupe_inference_pictures pictures = {.grids = &grid, .count = 1, .pixels = pixels};
        status = troupe_inference_caption(model, &pictures, text, CAPTION_BYTES);
    }
    troupe_free(pixels);
    return status;
}

static troupe_status caption_files(const struct caption_job *job, troupe_inference *model) {
    char text[CAPTION_BYTES];
    for (int i = 0; i < job->image_count; i++) {
        struct troupe_image image;
        TROUPE_TRY(troupe_image_read(job->images[i], &image));
        troupe_status status = caption_image(model, &image, text);
        troupe_image_fini(&image);
        TROUPE_TRY(status);
        tidy(text);
        printf("%s: %s\n", job->images[i], text);
        fflush(stdout);
    }
    return TROUPE_OK;
}

/* ---- held-out samples ---- */

/* What one sample needs; as large as the largest. */
struct sample_memory {
    int32_t *tokens;
    uint8_t *pixels;
    char *text; /* the true caption */
};

static troupe_status allocate(const troupe_source *source, struct sample_memory *memory) {
    int64_t patch_bytes = (int64_t)source->shape.patch * source->shape.patch * 3;
    TROUPE_TRY(TROUPE_NEW(&memory->tokens, source->bounds.rows));
    TROUPE_TRY(TROUPE_NEW(&memory->pixels, source->bounds.image_tokens * patch_bytes));
    return TROUPE_NEW(&memory->text, source->bounds.rows + 1);
}

/* A text in a column of so many characters, cut with "..." where it is longer. */
static void print_column(const char *text) {
    int characters = 0, shown = 0;
    for (const char *c = text; *c != '\0'; c++) {
        characters += (*c & 0xc0) != 0x80; /* not a UTF-8 continuation byte */
    }
    int limit = characters > COLUMN ? COLUMN - 3 : characters;
    for (const char *c = text; *c != '\0'; c++) {
        shown += (*c & 0xc0) != 0x80;
        if (shown > limit) {
            break;
        }
        putchar(*c);
    }
    printf("%s%*s", characters > limit ? "..." : "",
           COLUMN + 2 - (characters > limit ? COLUMN : characters), "");
}

static troupe_status caption_sample(troupe_inference *model, troupe_source *source, int64_t sample,
                                    const struct sample_memory *memory) {
    char said[CAPTION_BYTES];
    struct troupe_sample_info info;
    troupe_source_info(source, sample, &info);
    TROUPE_TRY(troupe_source_load_text(source, sample, memory->tokens));
    TROUPE_TRY(troupe_source_load_images(source, sample, memory->pixels));
    troupe_tokenizer_decode(memory->tokens, info.text_tokens, memory->text,
                            (size_t)source->bounds.rows + 1);
    struct troupe_inference_pictures pictures = {
        .grids = info.grids, .count = info.images, .pixels = memory->pixels};
    TROUPE_TRY(troupe_inference_caption(model, &pictures, said, sizeof said));
    tidy(memory->text);
    tidy(said);
    print_column(memory->text);
    printf("%s\n", said);
    fflush(stdout);
    return TROUPE_OK;
}

/* Samples evenly spread over the source, beside their true captions. */
static troupe_status caption_samples(troupe_inference *model, troupe_source *source, int count) {
    struct sample_memory memory = {0};
    int64_t shown = count < source->samples ? count : source->samples;
    print_column("true caption");
    printf("the model says\n");
    troupe_status status = allocate(source, &memory);
    for (int64_t i = 0; status == TROUPE_OK && i < shown; i++) {
        status = caption_sample(model, source, i * source->samples / shown, &memory);
    }
    troupe_free(memory.tokens);
    troupe_free(memory.pixels);
    troupe_free(memory.text);
    return status;
}

static troupe_status caption_heldout(const struct caption_job *job, troupe_inference *model) {
    troupe_source *source = NULL;
    TROUPE_TRY(
        troupe_dataset_open(troupe_inference_config(model), TROUPE_DATASET_HELDOUT, &source));
    troupe_status status = caption_samples(model, source, job->heldout);
    troupe_source_destroy(source);
    return status;
}

/* ---- the command ---- */

static troupe_status caption(void *arg, troupe_comm *comm, troupe_workers *workers) {
    (void)comm;
    const struct caption_job *job = arg;
    troupe_inference *model = NULL;
    TROUPE_TRY(troupe_inference_open(job->checkpoint, workers, &model));
    troupe_status status =
        job->heldout > 0 ? caption_heldout(job, model) : caption_files(job, model);
    troupe_inference_close(model);
    return status;
}

static int run(int argc, char **argv) {
    struct caption_job job = {0};
    const struct argument options[] = {{"--heldout", .number = &job.heldout}, {0}};
    int operands = arguments_parse(&command_caption, argc, argv, options);
    if (operands < 0) {
        return EXIT_USAGE;
    }
    if (operands < 1) {
        return command_usage(&command_caption, "name a checkpoint, such as runs/demo/step-300");
    }
    job.checkpoint = argv[1];
    job.images = argv + 2;
    job.image_count = operands - 1;
    if ((job.image_count > 0) == (job.heldout > 0)) {
        return command_usage(&command_caption, "give either pictures or --heldout N");
    }
    return command_end(&command_caption,
                       launch(&(struct launch_options){.ranks = 1}, caption, &job));
}

const struct command command_caption = {
    .name = "caption",
    .usage = "caption CHECKPOINT IMAGE...\n"
             "       troupe caption CHECKPOINT --heldout N",
    .summary = "says what a trained model sees in pictures",
    .help =
        "IMAGE is any PNG or JPEG file; it is resized as the data index would.\n"
        "  --heldout N  captions N samples of the checkpoint's data.heldout beside the true ones\n",
    .run = run,
};
