/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/microbatch.h"

#include "modules/data/tokenizer.h"
#include "runtime/check.h"
#include "runtime/memory.h"

struct troupe_microbatch {
    struct troupe_batch_bounds bounds;
    int parts;
    struct troupe_language_batch language;
    struct troupe_vision_batch vision;
    int32_t *samples_cu_len; /* (samples + 1,) */
    int32_t *token_ids;      /* (rows,) */
    int32_t *targets;        /* (rows,) */
    int32_t *positions;      /* (rows,) */
    int32_t *image_rows;     /* (image_tokens,) */
    int32_t *images_cu_len;  /* (images + 1,) */
    int32_t *grid_rows;      /* (images,) */
    int32_t *grid_columns;   /* (images,) */
    uint8_t *pixels;         /* (image_tokens * patch * patch * 3,) */
};

static size_t patch_bytes(int patch) {
    return (size_t)patch * (size_t)patch * 3;
}

static troupe_status alloc_language(troupe_microbatch *batch) {
    const struct troupe_batch_bounds *b = &batch->bounds;
    TROUPE_TRY(TROUPE_NEW(&batch->samples_cu_len, b->samples + 1));
    TROUPE_TRY(TROUPE_NEW(&batch->token_ids, b->rows));
    TROUPE_TRY(TROUPE_NEW(&batch->targets, b->rows));
    TROUPE_TRY(TROUPE_NEW(&batch->positions, b->rows));
    return TROUPE_NEW(&batch->image_rows, b->image_tokens);
}

static troupe_status alloc_vision(troupe_microbatch *batch) {
    const struct troupe_batch_bounds *b = &batch->bounds;
    TROUPE_TRY(TROUPE_NEW(&batch->images_cu_len, b->images + 1));
    TROUPE_TRY(TROUPE_NEW(&batch->grid_rows, b->images));
    TROUPE_TRY(TROUPE_NEW(&batch->grid_columns, b->images));
    return TROUPE_NEW(&batch->pixels, (size_t)b->image_tokens * patch_bytes(b->patch));
}

troupe_status troupe_microbatch_create(const struct troupe_batch_bounds *bounds, int parts,
                                       troupe_microbatch **out) {
    TROUPE_ASSERT(bounds->rows <= INT32_MAX && bounds->image_tokens <= INT32_MAX,
                  "%lld rows in one microbatch exceed int32", (long long)bounds->rows);
    troupe_status status = TROUPE_OK;
    troupe_microbatch *batch = NULL;
    TROUPE_TRY(TROUPE_NEW(&batch, 1));
    batch->bounds = *bounds;
    batch->parts = parts;
    if (parts & TROUPE_SAMPLE_TEXT) {
        TROUPE_TRY_FAIL(alloc_language(batch));
    }
    if (parts & TROUPE_SAMPLE_IMAGES) {
        TROUPE_TRY_FAIL(alloc_vision(batch));
    }
    *out = batch;
    return TROUPE_OK;
fail:
    troupe_microbatch_destroy(batch);
    return status;
}

void troupe_microbatch_destroy(troupe_microbatch *batch) {
    if (batch != NULL) {
        troupe_free(batch->samples_cu_len);
        troupe_free(batch->token_ids);
        troupe_free(batch->targets);
        troupe_free(batch->positions);
        troupe_free(batch->image_rows);
        troupe_free(batch->images_cu_len);
        troupe_free(batch->grid_rows);
        troupe_free(batch->grid_columns);
        troupe_free(batch->pixels);
        troupe_free(batch);
    }
}

static int32_t target_after(int32_t next_token) {
    return next_token >= 0 && (next_token < TROUPE_TOKEN_BEGIN || next_token == TROUPE_TOKEN_END)
               ? next_token
               : -1;
}

/* Rows [row, row + rows of the sample) of the language view; image_row: boundary rows before. */
static troupe_status fill_sample(troupe_microbatch *batch, troupe_source *source, int64_t sample,
                                 const struct troupe_sample_info *info, int32_t row,
                                 int32_t image_row) {
    int32_t rows = (int32_t)troupe_sample_rows(info);
    int32_t *ids = batch->token_ids + row;
    ids[0] = TROUPE_TOKEN_BEGIN;
    for (int32_t i = 0; i < info->image_tokens; i++) {
        ids[1 + i] = -1;
        batch->image_rows[image_row + i] = row + 1 + i;
    }
    TROUPE_TRY(troupe_source_load_text(source, sample, ids + 1 + info->image_tokens));
    ids[rows - 1] = TROUPE_TOKEN_END;
    for (int32_t i = 0; i < rows; i++) {
        batch->positions[row + i] = i;
        batch->targets[row + i] = i + 1 < rows ? target_after(ids[i + 1]) : -1;
    }
    return TROUPE_OK;
}

static troupe_status fill_language(troupe_microbatch *batch, const troupe_sample_plan *plan,
                                   troupe_source *source, struct troupe_interval mine) {
    const int64_t *ids = troupe_sample_plan_ids(plan);
    int32_t row = 0, image_row = 0, targets = 0;
    batch->samples_cu_len[0] = 0;
    for (int64_t i = mine.begin; i < mine.end; i++) {
        struct troupe_sample_info info;
        troupe_source_info(source, ids[i], &info);
        TROUPE_TRY(fill_sample(batch, source, ids[i], &info, row, image_row));
        row += (int32_t)troupe_sample_rows(&info);
        image_row += info.image_tokens;
        targets += (int32_t)troupe_sample_targets(&info);
        batch->samples_cu_len[i - mine.begin + 1] = row;
    }
    batch->language = (struct troupe_language_batch){
        .samples = mine.end - mine.begin,
        .rows = row,
        .image_tokens = image_row,
        .cu_len = batch->samples_cu_len,
        .token_ids = batch->token_ids,
        .targets = batch->targets,
        .positions = batch->positions,
        .image_rows = batch->image_rows,
        .targets_count = targets,
        .step_targets = troupe_sample_plan_step_targets(plan),
    };
    return TROUPE_OK;
}

/* ---- the vision view, picture by picture ---- */

static void begin_vision(troupe_microbatch *batch) {
    batch->images_cu_len[0] = 0;
    batch->vision = (struct troupe_vision_batch){
        .patch = batch->bounds.patch,
        .cu_len = batch->images_cu_len,
        .grid_rows = batch->grid_rows,
        .grid_columns = batch->grid_columns,
        .pixels = batch->pixels,
    };
}

static troupe_status add_picture(troupe_microbatch *batch, troupe_source *source, int64_t sample,
                                 const struct troupe_sample_info *info, int32_t picture) {
    struct troupe_vision_batch *vision = &batch->vision;
    const struct troupe_grid *grid = &info->grids[picture];
    TROUPE_TRY(troupe_source_load_image(source, sample, picture,
                                        batch->pixels + (size_t)vision->patches *
                                                            patch_bytes(batch->bounds.patch)));
    batch->grid_rows[vision->images] = grid->rows;
    batch->grid_columns[vision->images] = grid->columns;
    vision->images++;
    vision->patches += (int64_t)grid->rows * grid->columns;
    batch->images_cu_len[vision->images] = (int32_t)vision->patches;
    return TROUPE_OK;
}

static troupe_status fill_vision(troupe_microbatch *batch, const troupe_sample_plan *plan,
                                 troupe_source *source, struct troupe_interval mine) {
    const int64_t *ids = troupe_sample_plan_ids(plan);
    begin_vision(batch);
    for (int64_t i = mine.begin; i < mine.end; i++) {
        struct troupe_sample_info info;
        troupe_source_info(source, ids[i], &info);
        for (int32_t k = 0; k < info.images; k++) {
            TROUPE_TRY(add_picture(batch, source, ids[i], &info, k));
        }
    }
    return TROUPE_OK;
}

/* What the source's bounds promised must hold, or the arrays would overflow. */
static void check_bounds(const troupe_microbatch *batch, const troupe_sample_plan *plan,
                         struct troupe_interval mine) {
    const int64_t *rows = troupe_sample_plan_rows(plan);
    const int64_t *tokens = troupe_sample_plan_image_tokens(plan);
    const int64_t *images = troupe_sample_plan_images(plan);
    const struct troupe_batch_bounds *b = &batch->bounds;
    TROUPE_ASSERT(
        mine.end - mine.begin <= b->samples && rows[mine.end] - rows[mine.begin] <= b->rows,
        "%lld samples, %lld rows; the batch holds %lld and %lld",
        (long long)(mine.end - mine.begin), (long long)(rows[mine.end] - rows[mine.begin]),
        (long long)b->samples, (long long)b->rows);
    TROUPE_ASSERT(tokens[mine.end] - tokens[mine.begin] <= b->image_tokens &&
                      images[mine.end] - images[mine.begin] <= b->images,
                  "%lld image tokens of %lld pictures; the batch holds %lld and %lld",
                  (long long)(tokens[mine.end] - tokens[mine.begin]),
                  (long long)(images[mine.end] - images[mine.begin]), (long long)b->image_tokens,
                  (long long)b->images);
}

troupe_status troupe_microbatch_fill(troupe_microbatch *batch, const troupe_sample_plan *plan,
                                     troupe_source *source, int microbatch, int shard, int shards) {
    struct troupe_interval mine = troupe_sample_plan_interval(plan, microbatch, shard, shards);
    check_bounds(batch, plan, mine);
    if (batch->parts & TROUPE_SAMPLE_TEXT) {
        TROUPE_TRY(fill_language(batch, plan, source, mine));
    }
    if (batch->parts & TROUPE_SAMPLE_IMAGES) {
        TROUPE_TRY(fill_vision(batch, plan, source, mine));
    }
    return TROUPE_OK;
}

troupe_status troupe_microbatch_fill_split(troupe_microbatch *batch,
                                           const troupe_image_split *split, troupe_source *source,
                                           int microbatch, int shard) {
    const int64_t *ids = troupe_sample_plan_ids(troupe_image_split_plan(split));
    const struct troupe_split_image *images = NULL;
    int count = troupe_image_split_images(split, microbatch, &images);
    int64_t rows = troupe_image_split_rows(split, microbatch, shard);
    TROUPE_ASSERT(batch->parts == TROUPE_SAMPLE_IMAGES && count <= batch->bounds.images &&
                      rows <= batch->bounds.image_tokens,
                  "%d images, %lld rows; the batch holds %lld and %lld", count, (long long)rows,
                  (long long)batch->bounds.images, (long long)batch->bounds.image_tokens);
    begin_vision(batch);
    for (int i = 0; i < count; i++) {
        struct troupe_sample_info info;
        if (images[i].owner == shard) {
            troupe_source_info(source, ids[images[i].at], &info);
            TROUPE_TRY(add_picture(batch, source, ids[images[i].at], &info, images[i].picture));
        }
    }
    return TROUPE_OK;
}

const struct troupe_language_batch *troupe_microbatch_language(const troupe_microbatch *batch) {
    return &batch->language;
}

const struct troupe_vision_batch *troupe_microbatch_vision(const troupe_microbatch *batch) {
    return &batch->vision;
}
