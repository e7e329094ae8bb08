/* SPDX-License-Identifier: Apache-2.0 */
/* `troupe data`: makes the demo's data set, and the index that training needs. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "apps/launch.h"
#include "apps/troupe/arguments.h"
#include "apps/troupe/progress.h"
#include "modules/data/stamps.h"
#include "modules/train/dataset.h"
#include "runtime/check.h"

/* ---- data stamps ---- */

struct stamps_job {
    const char *folder;
    struct troupe_stamps_options options;
};

static void show_pictures(void *arg, int64_t done, int64_t total) {
    progress_show(arg, "%" PRId64 " of %" PRId64 " pictures", done, total);
}

static troupe_status convert(void *arg, troupe_comm *comm, troupe_workers *workers) {
    (void)comm;
    const struct stamps_job *job = arg;
    struct troupe_stamps_options options = job->options;
    struct troupe_stamps_summary summary;
    struct progress progress = {0};
    options.workers = workers;
    options.progress = show_pictures;
    options.arg = &progress;
    TROUPE_TRY(troupe_stamps_convert(job->folder, &options, &summary));
    if (summary.up_to_date) {
        progress_end(&progress, "%s: up to date", job->folder);
        return TROUPE_OK;
    }
    progress_end(&progress,
                 "%s: %" PRId64 " samples in %" PRId64 " train shards, %" PRId64 " held out",
                 job->folder, summary.train, summary.shards, summary.heldout);
    return TROUPE_OK;
}

static int run_stamps(int argc, char **argv) {
    struct stamps_job job = {0};
    const struct argument options[] = {
        {"--source", .text = &job.options.source},
        {"--image", .number = &job.options.image},
        {"--patch", .number = &job.options.patch},
        {"--shard-samples", .number = &job.options.shard_samples},
        {"--rebuild", .flag = &job.options.rebuild},
        {0},
    };
    int operands = arguments_parse(&command_data, argc, argv, options);
    if (operands < 0) {
        return EXIT_USAGE;
    }
    if (operands != 1) {
        return command_usage(&command_data, "stamps: name one folder for the shards");
    }
    job.folder = argv[1];
    return command_end(&command_data, launch(&(struct launch_options){.ranks = 1}, convert, &job));
}

/* ---- data index ---- */

struct index_progress {
    const char *name; /* of the shards */
    struct progress line;
};

static void show_bytes(void *arg, int64_t done, int64_t total) {
    struct index_progress *progress = arg;
    progress_show(&progress->line, "%s: %.1f of %.1f MB", progress->name, (double)done * 1e-6,
                  (double)total * 1e-6);
}

static void show_summary(struct index_progress *progress,
                         const struct troupe_index_summary *summary) {
    char notes[128] = "";
    if (summary->skipped > 0 || summary->truncated > 0) {
        snprintf(notes, sizeof notes, ", %" PRId64 " left out, %" PRId64 " captions cut",
                 summary->skipped, summary->truncated);
    }
    progress_end(&progress->line,
                 "%s: %" PRId64 " samples with %" PRId64 " pictures in %" PRId64 " shards%s%s",
                 progress->name, summary->samples, summary->images, summary->shards, notes,
                 summary->up_to_date ? ", up to date" : "");
}

static troupe_status build_index(const struct troupe_config *config,
                                 const struct troupe_shards *shards, bool rebuild) {
    struct index_progress progress = {.name = shards->patterns[0]};
    struct troupe_index_summary summary;
    struct troupe_index_options options = {.shape = troupe_dataset_shape(config),
                                           .truncate = config->data.truncate,
                                           .skip_undecodable = config->data.skip_undecodable,
                                           .rebuild = rebuild,
                                           .progress = show_bytes,
                                           .arg = &progress};
    TROUPE_TRY(troupe_index_build(shards, &options, &summary));
    show_summary(&progress, &summary);
    return TROUPE_OK;
}

/* The shards that the configuration names: train, and heldout if there is any. */
static troupe_status build_of_config(const struct troupe_config *config, bool rebuild) {
    const char *train = config->data.train, *heldout = config->data.heldout;
    const char *index = config->data.index[0] != '\0' ? config->data.index : NULL;
    if (train[0] == '\0') {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "name shards, or a config file whose data.train does (--config FILE)");
    }
    TROUPE_TRY(build_index(
        config, &(struct troupe_shards){.patterns = &train, .count = 1, .index = index}, rebuild));
    return heldout[0] == '\0'
               ? TROUPE_OK
               : build_index(config, &(struct troupe_shards){.patterns = &heldout, .count = 1},
                             rebuild);
}

static int run_index(int argc, char **argv) {
    struct troupe_config config;
    struct config_edits edits = {0};
    const char *path = NULL, *index = NULL;
    bool rebuild = false;
    const struct argument options[] = {
        {"--config", .text = &path},
        {"--set", .edits = &edits},
        {"--index", .text = &index},
        {"--rebuild", .flag = &rebuild},
        {0},
    };
    int operands = arguments_parse(&command_data, argc, argv, options);
    if (operands < 0) {
        return EXIT_USAGE;
    }
    troupe_status status = config_load(&config, path, &edits);
    if (status == TROUPE_OK && operands == 0) {
        status = build_of_config(&config, rebuild);
    } else if (status == TROUPE_OK) {
        const char *const *patterns = (const char *const *)argv + 1;
        struct troupe_shards shards = {.patterns = patterns, .count = operands, .index = index};
        status = build_index(&config, &shards, rebuild);
    }
    return command_end(&command_data, status);
}

static int run(int argc, char **argv) {
    if (argc >= 2 && strcmp(argv[1], "stamps") == 0) {
        return run_stamps(argc - 1, argv + 1);
    }
    if (argc >= 2 && strcmp(argv[1], "index") == 0) {
        return run_index(argc - 1, argv + 1);
    }
    return command_usage(&command_data, "say stamps or index%s%s", argc >= 2 ? ", not " : "",
                         argc >= 2 ? argv[1] : "");
}

const struct command command_data = {
    .name = "data",
    .usage = "data stamps FOLDER [--source DIR] [--image N] [--patch N] [--shard-samples N]\n"
             "                   [--rebuild]\n"
             "       troupe data index [SHARDS...] [--config FILE] [--set KEY=VALUE]...\n"
             "                   [--index FILE] [--rebuild]",
    .summary = "makes WebDataset shards and their index",
    .help =
        "stamps turns the captioned pictures of the package tuxpaint-stamps-default into WebDataset\n"
        "tar shards, 5 % of the pictures held out:\n"
        "  --source DIR       where the package's pictures are (/usr/share/tuxpaint/stamps)\n"
        "  --image N          longest side in pixels (64)\n"
        "  --patch N          the other side is a multiple of it (8)\n"
        "  --shard-samples N  samples of a train shard (256)\n\n"
        "index reads every sample once, decodes its pictures and records what training must know\n"
        "beforehand. SHARDS are files or quoted patterns, in order, with one index together; without\n"
        "them, the data.train and data.heldout of the config file, with an index each:\n"
        "  --config FILE      model.vision.{patch,image}, model.llm.sequence and\n"
        "                     data.{max_images,skip_undecodable,truncate} come from here\n"
        "  --set KEY=VALUE    overrides them\n"
        "  --index FILE       the index (beside the first shard)\n\n"
        "Both do nothing when all is up to date, unless --rebuild is given.\n",
    .run = run,
};
