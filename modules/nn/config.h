/* SPDX-License-Identifier: Apache-2.0
 *
 * The sizes of a model, as in the `model:` part of a config file. Zero means the stated default.
 *
 * Ownership: plain data. Threads: any. Failure: troupe_model_config_resolve names the key.
 */
#ifndef TROUPE_MODULES_NN_CONFIG_H
#define TROUPE_MODULES_NN_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The modules of the model in graph order, which is that of troupe_module_classes. */
enum { TROUPE_VISION, TROUPE_PROJECTOR, TROUPE_LLM, TROUPE_CONFIG_MODULES };

struct troupe_vision_config {
    int layers;
    int hidden;
    int heads;
    int ffn;   /* 0: 4 * hidden */
    int patch; /* pixels */
    int image; /* largest side in pixels, a multiple of patch; positions form an image/patch grid */
};

struct troupe_projector_config {
    int hidden;
};

struct troupe_llm_config {
    int layers;
    int hidden;
    int heads;
    int kv_heads; /* 0: heads */
    int ffn;
    int sequence;      /* longest fused sequence of a sample in tokens */
    int vocabulary;    /* 0: the byte tokenizer's */
    bool untied;       /* a head of its own instead of the token embedding's transpose */
    double rope_theta; /* 0: 10000 */
    double norm_eps;   /* 0: 1e-5 */
};

struct troupe_model_config {
    struct troupe_vision_config vision;
    struct troupe_projector_config projector;
    struct troupe_llm_config llm;
};

/* Fills defaults and checks sizes: one sentence with the key and what it must be. */
troupe_status troupe_model_config_resolve(struct troupe_model_config *config);

#ifdef __cplusplus
}
#endif
#endif
