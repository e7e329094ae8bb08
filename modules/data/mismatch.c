/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/mismatch.h"

#include "modules/data/sample_plan.h"
#include "runtime/check.h"
#include "runtime/memory.h"

struct mismatch {
    troupe_source base;
    troupe_source *source;
    int64_t *partners; /* (samples,) whose pictures a sample gets */
    int64_t own;
};

static void mismatch_info(const troupe_source *base, int64_t sample,
                          struct troupe_sample_info *out) {
    const struct mismatch *m = (const struct mismatch *)base;
    struct troupe_sample_info caption;
    troupe_source_info(m->source, sample, &caption);
    troupe_source_info(m->source, m->partners[sample], out);
    out->text_tokens = caption.text_tokens;
}

static troupe_status mismatch_load_text(troupe_source *base, int64_t sample, int32_t *tokens_out) {
    struct mismatch *m = (struct mismatch *)base;
    return troupe_source_load_text(m->source, sample, tokens_out);
}

static troupe_status mismatch_load_image(troupe_source *base, int64_t sample, int picture,
                                         uint8_t *pixels_out) {
    struct mismatch *m = (struct mismatch *)base;
    return troupe_source_load_image(m->source, m->partners[sample], picture, pixels_out);
}

static troupe_status mismatch_prepare(troupe_source *base, int parts, const uint8_t *needed) {
    struct mismatch *m = (struct mismatch *)base;
    if (parts & TROUPE_SAMPLE_TEXT) {
        TROUPE_TRY(troupe_source_prepare(m->source, TROUPE_SAMPLE_TEXT, needed));
    }
    if (!(parts & TROUPE_SAMPLE_IMAGES)) {
        return TROUPE_OK;
    }
    uint8_t *partners_needed = NULL;
    TROUPE_TRY(TROUPE_NEW(&partners_needed, base->samples));
    for (int64_t i = 0; i < base->samples; i++) {
        if (needed[i]) {
            partners_needed[m->partners[i]] = 1;
        }
    }
    troupe_status status = troupe_source_prepare(m->source, TROUPE_SAMPLE_IMAGES, partners_needed);
    troupe_free(partners_needed);
    return status;
}

static void mismatch_destroy(troupe_source *base) {
    struct mismatch *m = (struct mismatch *)base;
    troupe_free(m->partners);
    troupe_free(m);
}

static const struct troupe_source_table mismatch_table = {
    .info = mismatch_info,
    .load_text = mismatch_load_text,
    .load_image = mismatch_load_image,
    .prepare = mismatch_prepare,
    .destroy = mismatch_destroy,
};

/* Of all samples after the one drawn, the first other one whose pictures fit the caption. */
static int64_t choose_partner(const troupe_source *source, uint64_t seed, int64_t sample) {
    struct troupe_sample_info caption;
    int64_t count = source->samples;
    int64_t drawn = troupe_sample_order(seed, 0, count, sample);
    troupe_source_info(source, sample, &caption);
    for (int64_t i = 0; i < count; i++) {
        struct troupe_sample_info pictures;
        int64_t partner = (drawn + i) % count;
        troupe_source_info(source, partner, &pictures);
        pictures.text_tokens = caption.text_tokens;
        if (partner != sample && troupe_sample_rows(&pictures) <= source->shape.sequence) {
            return partner;
        }
    }
    return sample;
}

/* The pairs have longer samples than the wrapped source may have. */
static void choose_partners(struct mismatch *m, uint64_t seed) {
    m->base.bounds = (struct troupe_sample_bounds){0};
    for (int64_t i = 0; i < m->base.samples; i++) {
        struct troupe_sample_info info;
        m->partners[i] = choose_partner(m->source, seed, i);
        m->own += m->partners[i] == i;
        mismatch_info(&m->base, i, &info);
        troupe_sample_bounds_include(&m->base.bounds, &info);
    }
}

troupe_status troupe_mismatch_create(troupe_source *source, uint64_t seed, troupe_source **out) {
    if (source->samples < 2) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "pictures of %lld samples cannot be exchanged; two are needed",
                           (long long)source->samples);
    }
    struct mismatch *m = NULL;
    TROUPE_TRY(TROUPE_NEW(&m, 1));
    m->base = *source;
    m->base.table = &mismatch_table;
    m->base.bytes_read = 0;
    m->source = source;
    troupe_status status = TROUPE_NEW(&m->partners, source->samples);
    if (status != TROUPE_OK) {
        mismatch_destroy(&m->base);
        return status;
    }
    choose_partners(m, seed);
    *out = &m->base;
    return TROUPE_OK;
}

int64_t troupe_mismatch_own(const troupe_source *mismatch) {
    TROUPE_ASSERT(mismatch->table == &mismatch_table, "not a source of troupe_mismatch_create");
    return ((const struct mismatch *)mismatch)->own;
}
