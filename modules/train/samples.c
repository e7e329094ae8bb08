/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/samples.h"

#include "modules/data/index.h"
#include "modules/data/reader.h"
#include "modules/data/synthetic.h"

/* Held-out synthetic samples come from another stream of the same seed. */
enum { HELDOUT_SEED_OFFSET = 1000003 };

struct troupe_sample_shape troupe_config_sample_shape(const struct troupe_config *config) {
    return (struct troupe_sample_shape){
        .patch = config->model.vision.patch,
        .image = config->model.vision.image,
        .sequence = config->model.llm.sequence,
        .images_max = config->data.max_images,
    };
}

static troupe_status open_synthetic(const struct troupe_config *config, enum troupe_split split,
                                    troupe_source **out) {
    const struct troupe_config_synthetic *s = &config->data.synthetic;
    struct troupe_sample_shape shape = troupe_config_sample_shape(config);
    struct troupe_synthetic_options options = {
        .seed = (uint64_t)config->train.seed +
                (split == TROUPE_SPLIT_HELDOUT ? HELDOUT_SEED_OFFSET : 0),
        .samples = s->samples,
        .images_min = s->images_min,
        .images_max = s->images_max,
        .text_min = s->text_min,
        .text_max = s->text_max,
        .text_only_fraction = s->text_only,
    };
    return troupe_synthetic_create(&shape, &options, out);
}

troupe_status troupe_samples_open(const struct troupe_config *config, enum troupe_split split,
                                  troupe_source **out) {
    if (config->data.synthetic.samples > 0) {
        return open_synthetic(config, split, out);
    }
    bool train = split == TROUPE_SPLIT_TRAIN;
    const char *pattern = train ? config->data.train : config->data.heldout;
    if (pattern[0] == '\0') {
        return troupe_fail(TROUPE_ERROR_INVALID, "the config names no shards: set %s",
                           train ? "data.train" : "data.heldout");
    }
    struct troupe_shards shards = {
        .patterns = &pattern,
        .count = 1,
        .index = train && config->data.index[0] != '\0' ? config->data.index : NULL,
    };
    struct troupe_sample_shape shape = troupe_config_sample_shape(config);
    return troupe_reader_open(&shards, &shape, &(struct troupe_reader_options){0}, out);
}
