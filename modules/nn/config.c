/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/nn/config.h"

#include "modules/data/tokenizer.h"
#include "modules/kernels/kernels.h"

static troupe_status positive(const char *key, int value) {
    if (value < 1) {
        return troupe_fail(TROUPE_ERROR_INVALID, "model.%s is %d; it must be at least 1", key,
                           value);
    }
    return TROUPE_OK;
}

/* Heads divide the hidden size into columns that the attention kernels take. */
static troupe_status check_heads(const char *module, int hidden, int heads) {
    if (hidden % heads != 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "model.%s.hidden %d is not divisible by model.%s.heads %d", module,
                           hidden, module, heads);
    }
    if (hidden / heads > TROUPE_HEAD_DIM_MAX) {
        return troupe_fail(
            TROUPE_ERROR_INVALID,
            "model.%s.hidden %d over model.%s.heads %d gives heads of %d columns; at "
            "most %d are possible",
            module, hidden, module, heads, hidden / heads, TROUPE_HEAD_DIM_MAX);
    }
    return TROUPE_OK;
}

static troupe_status resolve_vision(struct troupe_vision_config *vision) {
    TROUPE_TRY(positive("vision.layers", vision->layers));
    TROUPE_TRY(positive("vision.hidden", vision->hidden));
    TROUPE_TRY(positive("vision.heads", vision->heads));
    TROUPE_TRY(positive("vision.patch", vision->patch));
    TROUPE_TRY(positive("vision.image", vision->image));
    vision->ffn = vision->ffn == 0 ? 4 * vision->hidden : vision->ffn;
    TROUPE_TRY(positive("vision.ffn", vision->ffn));
    TROUPE_TRY(check_heads("vision", vision->hidden, vision->heads));
    if (vision->image % vision->patch != 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "model.vision.image %d is not a multiple of model.vision.patch %d",
                           vision->image, vision->patch);
    }
    return TROUPE_OK;
}

static troupe_status resolve_llm(struct troupe_llm_config *llm) {
    TROUPE_TRY(positive("llm.layers", llm->layers));
    TROUPE_TRY(positive("llm.hidden", llm->hidden));
    TROUPE_TRY(positive("llm.heads", llm->heads));
    TROUPE_TRY(positive("llm.ffn", llm->ffn));
    TROUPE_TRY(positive("llm.sequence", llm->sequence));
    llm->kv_heads = llm->kv_heads == 0 ? llm->heads : llm->kv_heads;
    llm->vocabulary = llm->vocabulary == 0 ? TROUPE_TOKEN_COUNT : llm->vocabulary;
    llm->rope_theta = llm->rope_theta == 0 ? 10000 : llm->rope_theta;
    llm->norm_eps = llm->norm_eps == 0 ? 1e-5 : llm->norm_eps;
    TROUPE_TRY(positive("llm.kv_heads", llm->kv_heads));
    TROUPE_TRY(positive("llm.vocabulary", llm->vocabulary));
    TROUPE_TRY(check_heads("llm", llm->hidden, llm->heads));
    if (llm->heads % llm->kv_heads != 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "model.llm.heads %d is not divisible by model.llm.kv_heads %d",
                           llm->heads, llm->kv_heads);
    }
    if (llm->hidden / llm->heads % 2 != 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "model.llm.hidden %d over model.llm.heads %d is odd; rotary positions "
                           "need an even number of columns per head",
                           llm->hidden, llm->heads);
    }
    return TROUPE_OK;
}

troupe_status troupe_model_config_resolve(struct troupe_model_config *config) {
    TROUPE_TRY(resolve_vision(&config->vision));
    TROUPE_TRY(positive("projector.hidden", config->projector.hidden));
    return resolve_llm(&config->llm);
}
