/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/dataset.h"

#include "modules/data/reader.h"
#include "modules/data/synthetic.h"

struct troupe_sample_shape troupe_dataset_shape(const struct troupe_config *config) {
    const struct troupe_config_synthetic *synthetic = &config->data.synthetic;
    return (struct troupe_sample_shape){
        .patch = config->model.vision.patch,
        .image = config->model.vision.image,
        .sequence = config->model.llm.sequence,
        .images_max = synthetic->samples > 0 ? synthetic->images_max : config->data.max_images};
}

static troupe_status open_synthetic(const struct troupe_config *config,
                                    enum troupe_dataset_part part, troupe_source **out) {
    const struct troupe_config_synthetic *synthetic = &config->data.synthetic;
    struct troupe_sample_shape shape = troupe_dataset_shape(config);
    struct troupe_synthetic_options options = {
        .seed = (uint64_t)config->train.seed + (part == TROUPE_DATASET_HELDOUT),
        .samples = synthetic->samples,
        .images_min = synthetic->images_min,
        .images_max = synthetic->images_max,
        .side_min = synthetic->side_min,
        .text_min = synthetic->text_min,
        .text_max = synthetic->text_max,
        .text_only_fraction = synthetic->text_only,
    };
    return troupe_synthetic_create(&shape, &options, out);
}

troupe_status troupe_dataset_open(const struct troupe_config *config, enum troupe_dataset_part part,
                                  troupe_source **out) {
    if (config->data.synthetic.samples > 0) {
        return open_synthetic(config, part, out);
    }
    bool train = part == TROUPE_DATASET_TRAIN;
    const char *pattern = train ? config->data.train : config->data.heldout;
    const char *index = train && config->data.index[0] != '\0' ? config->data.index : NULL;
    if (pattern[0] == '\0') {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "data.heldout names no shards; give it a glob such as "
                           "\"data/heldout-*.tar\"");
    }
    struct troupe_sample_shape shape = troupe_dataset_shape(config);
    return troupe_reader_open(
        &(struct troupe_shards){.patterns = &pattern, .count = 1, .index = index}, &shape,
        &(struct troupe_reader_options){0}, out);
}
