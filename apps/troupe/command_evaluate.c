/* SPDX-License-Identifier: Apache-2.0 */
/* `troupe evaluate`: does the model look at the picture? */
#include <inttypes.h>
#include <stdio.h>

#include "apps/launch.h"
#include "apps/troupe/arguments.h"
#include "modules/data/mismatch.h"
#include "modules/train/dataset.h"
#include "modules/train/inference.h"

struct evaluate_job {
    const char *checkpoint;
    int samples; /* at most, of each part */
};

struct losses {
    double own;      /* nats per target token, each caption with its own pictures */
    double shuffled; /* with those of another sample */
};

static troupe_status compare(troupe_inference *model, troupe_source *source, int64_t count,
                             struct losses *out) {
    uint64_t seed = (uint64_t)troupe_inference_config(model)->train.seed;
    troupe_source *shuffled = NULL;
    TROUPE_TRY(troupe_inference_loss(model, source, count, &out->own));
    TROUPE_TRY(troupe_mismatch_create(source, seed, &shuffled));
    troupe_status status = troupe_inference_loss(model, shuffled, count, &out->shuffled);
    troupe_source_destroy(shuffled);
    return status;
}

static troupe_status evaluate_part(const struct evaluate_job *job, troupe_inference *model,
                                   enum troupe_dataset_part part, const char *name) {
    troupe_source *source = NULL;
    struct losses losses;
    TROUPE_TRY(troupe_dataset_open(troupe_inference_config(model), part, &source));
    int64_t count = source->samples < job->samples ? source->samples : job->samples;
    troupe_status status = compare(model, source, count, &losses);
    troupe_source_destroy(source);
    TROUPE_TRY(status);
    printf("%-12s %8" PRId64 " %15.4f %19.4f %+8.1f %%\n", name, count, losses.own, losses.shuffled,
           100 * (losses.shuffled - losses.own) / losses.own);
    fflush(stdout);
    return TROUPE_OK;
}

static bool has_heldout(const struct troupe_config *config) {
    return config->data.heldout[0] != '\0' || config->data.synthetic.samples > 0;
}

static troupe_status evaluate(void *arg, troupe_comm *comm, troupe_workers *workers) {
    (void)comm;
    const struct evaluate_job *job = arg;
    troupe_inference *model = NULL;
    TROUPE_TRY(troupe_inference_open(job->checkpoint, workers, &model));
    printf("%-12s %8s %15s %19s %10s\n", "loss on", "samples", "true pictures", "shuffled pictures",
           "gap");
    fflush(stdout);
    troupe_status status = evaluate_part(job, model, TROUPE_DATASET_TRAIN, "training");
    if (status == TROUPE_OK && has_heldout(troupe_inference_config(model))) {
        status = evaluate_part(job, model, TROUPE_DATASET_HELDOUT, "held out");
    }
    troupe_inference_close(model);
    return status;
}

static int run(int argc, char **argv) {
    struct evaluate_job job = {.samples = 128};
    const struct argument options[] = {{"--samples", .number = &job.samples}, {0}};
    int operands = arguments_parse(&command_evaluate, argc, argv, options);
    if (operands < 0) {
        return EXIT_USAGE;
    }
    if (operands != 1) {
        return command_usage(&command_evaluate, "name one checkpoint, such as runs/demo/step-300");
    }
    job.checkpoint = argv[1];
    return command_end(&command_evaluate,
                       launch(&(struct launch_options){.ranks = 1}, evaluate, &job));
}

const struct command command_evaluate = {
    .name = "evaluate",
    .usage = "evaluate CHECKPOINT [--samples N]",
    .summary = "compares the loss with the true pictures to that with shuffled ones",
    .help =
        "The loss is the mean of -log p over the caption's bytes and its end. Shuffled: each\n"
        "caption with the pictures of another sample. A model that reads its pictures loses by\n"
        "that, and the gap says how much; no gap means that the encoder has learnt nothing.\n"
        "  --samples N  at most so many of the training and of the held-out samples (128)\n",
    .run = run,
};
