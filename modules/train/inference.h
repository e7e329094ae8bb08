/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole model on one rank, forward only: captions for pictures, and the loss of samples.
 *
 *     TROUPE_TRY(troupe_inference_open("runs/demo/step-300", workers, &model));
 *     TROUPE_TRY(troupe_inference_caption(model, &pictures, text, sizeof text));
 *
 * Ownership: open/close by the caller; close accepts NULL. Threads: one at a time.
 * Failure: what reading the checkpoint, its config or the picture says.
 */
#ifndef TROUPE_MODULES_TRAIN_INFERENCE_H
#define TROUPE_MODULES_TRAIN_INFERENCE_H

#include <stddef.h>
#include <stdint.h>

#include "modules/data/source.h"
#include "modules/train/config.h"
#include "runtime/status.h"
#include "runtime/workers.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_inference troupe_inference;

/* Reads the checkpoint's config.yaml and model.safetensors. */
troupe_status troupe_inference_open(const char *checkpoint, troupe_workers *workers,
                                    troupe_inference **out);
void troupe_inference_close(troupe_inference *model);
const struct troupe_config *troupe_inference_config(const troupe_inference *model);

/* The pictures of one sample, as the model takes them: sides multiples of the patch and at most
 * model.vision.image. */
struct troupe_inference_pictures {
    const struct troupe_grid *grids; /* (count,) patches of each */
    int count;                       /* at most data.max_images */
    const uint8_t *pixels;           /* for each in turn (height, width, 3) uint8, without gaps */
};

/* The most probable next byte again and again, until the end token or the sequence is full.
 * ERROR_INVALID if the pictures leave no room for text. */
troupe_status troupe_inference_caption(troupe_inference *model,
                                       const struct troupe_inference_pictures *pictures,
                                       char *text_out, size_t capacity);

/* Mean of -log p over the target tokens of `count` samples of the source, drawn without
 * replacement in the order of train.seed. */
troupe_status troupe_inference_loss(troupe_inference *model, troupe_source *source, int64_t count,
                                    double *loss_out);

#ifdef __cplusplus
}
#endif
#endif
