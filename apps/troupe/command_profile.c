/* SPDX-License-Identifier: Apache-2.0 */
/* `troupe profile`: what the tasks of a configuration take on this machine. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "actors/job.h"
#include "apps/launch.h"
#include "apps/troupe/arguments.h"
#include "modules/train/train.h"

struct profile_job {
    struct troupe_config config;
    const char *path;
    int ranks;
    int steps;
};

enum { STEPS_DEFAULT = 5, STEPS_OF_WARMUP = 1 };

static troupe_status open_profile(const struct profile_job *job, FILE **out) {
    *out = fopen(job->path, "w");
    if (*out == NULL) {
        return troupe_fail(TROUPE_ERROR_IO, "%s: %s", job->path, strerror(errno));
    }
    fprintf(*out, "# task times of %d steps on device %s, %s\n", job->steps,
            job->config.train.device,
            job->ranks > 0 ? "ranks as threads of one process" : "ranks as processes");
    return TROUPE_OK;
}

/* file: NULL but on rank 0. The first step is slower than the others and not kept. */
static troupe_status run_steps(const struct profile_job *job, troupe_train *train, FILE *file) {
    struct troupe_step_report report;
    for (int i = 0; i < STEPS_OF_WARMUP + job->steps; i++) {
        TROUPE_TRY(troupe_train_step(train, &report));
        if (i >= STEPS_OF_WARMUP && file != NULL) {
            troupe_train_write_profile(train, file);
        }
    }
    return TROUPE_OK;
}

static troupe_status profile_rank(void *arg, troupe_comm *comm, troupe_workers *workers) {
    const struct profile_job *job = arg;
    troupe_train *train = NULL;
    FILE *file = NULL;
    TROUPE_TRY(troupe_train_create(
        &(struct troupe_train_options){.config = &job->config, .comm = comm, .workers = workers},
        &train));
    troupe_status status = troupe_comm_rank(comm) == 0 ? open_profile(job, &file) : TROUPE_OK;
    if (status == TROUPE_OK) {
        status = run_steps(job, train, file);
    }
    if (file != NULL && fclose(file) != 0 && status == TROUPE_OK) {
        status = troupe_fail(TROUPE_ERROR_IO, "%s: %s", job->path, strerror(errno));
    }
    if (status != TROUPE_OK) {
        status = troupe_job_abort(comm, status);
    }
    troupe_train_destroy(train);
    return status;
}

static troupe_status prepare(struct profile_job *job, const char *path,
                             const struct config_edits *edits) {
    TROUPE_TRY(config_load(&job->config, path, edits));
    TROUPE_TRY(troupe_config_resolve(&job->config));
    if (job->config.train.steps < STEPS_OF_WARMUP + job->steps) {
        job->config.train.steps = STEPS_OF_WARMUP + job->steps;
    }
    return TROUPE_OK;
}

static int run(int argc, char **argv) {
    struct profile_job job = {.path = "profile.txt", .steps = STEPS_DEFAULT};
    struct config_edits edits = {0};
    const struct argument options[] = {
        {"--placement", .edits = &edits, .key = "placement.policy"},
        {"--set", .edits = &edits},
        {"--ranks", .number = &job.ranks},
        {"--steps", .number = &job.steps},
        {"--out", .text = &job.path},
        {0},
    };
    int operands = arguments_parse(&command_profile, argc, argv, options);
    if (operands < 0) {
        return EXIT_USAGE;
    }
    if (operands != 1) {
        return command_usage(&command_profile, "name one config file");
    }
    if (job.ranks > LAUNCH_RANKS_MAX) {
        return command_usage(&command_profile, "--ranks %d: at most %d", job.ranks,
                             LAUNCH_RANKS_MAX);
    }
    troupe_status status = prepare(&job, argv[1], &edits);
    if (status == TROUPE_OK) {
        status = launch(&(struct launch_options){.ranks = job.ranks,
                                                 .provider = job.config.comm.provider,
                                                 .device = job.config.train.device,
                                                 .workers = job.config.train.workers},
                        profile_rank, &job);
    }
    return command_end(&command_profile, status);
}

const struct command command_profile = {
    .name = "profile",
    .usage = "profile CONFIG.yaml [--out FILE] [--ranks N] [--steps N] [--placement POLICY]\n"
             "                      [--set KEY=VALUE]...",
    .summary = "measures what the tasks of a configuration take on this machine",
    .help = "  --out FILE          where to write the times, profile.txt unless said\n"
            "  --ranks N           N ranks as threads of this process instead of a launched job\n"
            "  --steps N           that are measured after one of warm-up, 5 unless said\n"
            "  --placement POLICY  as in train\n"
            "  --set KEY=VALUE     overrides the config file\n\n"
            "The file has a line a task: module, shape, method, rows, nanoseconds. `troupe sim\n"
            "--profile FILE` takes its costs from there. Several ranks on one core measure each\n"
            "other's load, too.\n",
    .run = run,
};
