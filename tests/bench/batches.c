/* SPDX-License-Identifier: Apache-2.0
 *
 * Prints the sizes of the samples that a configuration trains on, as JSON, so that another program
 * can train on batches just as ragged: a list of steps, each a list of microbatches, each a list of
 * samples {"text": caption bytes, "grids": [[rows, columns] of patches, ...]}.
 *
 *     bench.batches CONFIG.yaml STEPS > sizes.json
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "modules/data/sample_plan.h"
#include "modules/train/dataset.h"
#include "runtime/check.h"

static void print_sample(const troupe_source *source, int64_t sample) {
    struct troupe_sample_info info;
    troupe_source_info(source, sample, &info);
    printf("{\"text\": %d, \"grids\": [", info.text_tokens);
    for (int i = 0; i < info.images; i++) {
        printf("%s[%d, %d]", i > 0 ? ", " : "", info.grids[i].rows, info.grids[i].columns);
    }
    printf("]}");
}

static void print_step(const troupe_source *source, const troupe_sample_plan *plan) {
    for (int k = 0; k < troupe_sample_plan_microbatches(plan); k++) {
        struct troupe_interval interval = troupe_sample_plan_interval(plan, k, 0, 1);
        printf("%s", k > 0 ? ",\n  [" : " [[");
        for (int64_t i = interval.begin; i < interval.end; i++) {
            printf("%s", i > interval.begin ? ",\n   " : "");
            print_sample(source, troupe_sample_plan_ids(plan)[i]);
        }
        printf("]");
    }
    printf("]");
}

static troupe_status print_steps(const struct troupe_config *config, int steps) {
    troupe_source *source = NULL;
    troupe_sample_plan *plan = NULL;
    TROUPE_TRY(troupe_dataset_open(config, TROUPE_DATASET_TRAIN, &source));
    troupe_status status = troupe_sample_plan_create(
        source,
        &(struct troupe_sample_plan_options){.seed = (uint64_t)config->train.seed,
                                             .global_batch = config->train.global_batch,
                                             .microbatches = config->train.microbatches},
        &plan);
    printf("[\n");
    for (int step = 0; status == TROUPE_OK && step < steps; step++) {
        printf("%s", step > 0 ? ",\n" : "");
        troupe_sample_plan_set_step(plan, step);
        print_step(source, plan);
    }
    printf("\n]\n");
    troupe_sample_plan_destroy(plan);
    troupe_source_destroy(source);
    return status;
}

static troupe_status run(const char *path, int steps) {
    static struct troupe_config config;
    troupe_config_init(&config);
    TROUPE_TRY(troupe_config_read(&config, path));
    TROUPE_TRY(troupe_config_resolve(&config));
    return print_steps(&config, steps);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: bench.batches CONFIG.yaml STEPS\n");
        return 2;
    }
    if (run(argv[1], atoi(argv[2])) != TROUPE_OK) {
        fprintf(stderr, "bench.batches: %s\n", troupe_last_error());
        return 1;
    }
    return 0;
}
