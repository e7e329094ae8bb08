/* SPDX-License-Identifier: Apache-2.0 */
/* `troupe train`: one rank of a training job, or all of them as threads of this process. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/troupe/command.h"
#include "apps/troupe/launch.h"
#include "modules/train/checkpoint.h"
#include "modules/train/metrics.h"
#include "modules/train/train.h"
#include "runtime/check.h"
#include "runtime/clock.h"
#include "runtime/log.h"
#include "runtime/memory.h"

struct train_job {
    struct troupe_config config;
    const char *resume; /* checkpoint directory, or NULL */
    int ranks;          /* loopback threads; 0: one rank of a launched job */
};

/* SIGUSR1: every rank prints what its actors wait for. The only state a signal can reach. */
static _Atomic(troupe_train *) signal_trains[TROUPE_LAUNCH_RANKS_MAX];

static void on_report_signal(int number) {
    (void)number;
    for (int i = 0; i < TROUPE_LAUNCH_RANKS_MAX; i++) {
        troupe_train *train = atomic_load(&signal_trains[i]);
        if (train != NULL) {
            troupe_train_request_report(train);
        }
    }
}

static void show_progress(const struct troupe_step_report *report, const struct train_job *job,
                          uint64_t started_ns, int64_t first_step) {
    char line[160];
    int64_t done = report->step - first_step;
    double elapsed = troupe_clock_seconds(started_ns, troupe_clock_ns());
    double left = elapsed / (double)done * (double)(job->config.train.steps - report->step);
    troupe_metrics_progress(report, job->config.train.steps, left, line, sizeof line);
    if (isatty(STDOUT_FILENO)) {
        printf("\r%-78s%s", line, report->step == job->config.train.steps ? "\n" : "");
    } else if (report->step % 10 == 0 || done == 1 || report->step == job->config.train.steps) {
        printf("%s\n", line);
    }
    fflush(stdout);
}

static bool is_checkpoint_step(const struct troupe_config *config, int64_t step) {
    int every = config->train.checkpoint_every;
    return step == config->train.steps || (every > 0 && step % every == 0);
}

static troupe_status run_steps(const struct train_job *job, troupe_train *train, FILE *metrics) {
    struct troupe_step_report report;
    int64_t first = troupe_train_position(train);
    uint64_t started_ns = troupe_clock_ns();
    while (troupe_train_position(train) < job->config.train.steps) {
        TROUPE_TRY(troupe_train_step(train, &report));
        if (metrics != NULL) {
            TROUPE_TRY(troupe_metrics_write(metrics, &report));
            show_progress(&report, job, started_ns, first);
        }
        if (is_checkpoint_step(&job->config, troupe_train_position(train))) {
            TROUPE_TRY(troupe_train_save(train));
        }
    }
    return TROUPE_OK;
}

static troupe_status train_rank(void *arg, troupe_comm *comm, troupe_workers *workers) {
    const struct train_job *job = arg;
    int rank = troupe_comm_rank(comm);
    troupe_train *train = NULL;
    FILE *metrics = NULL;
    troupe_status status = troupe_train_create(
        &(struct troupe_train_options){
            .config = &job->config, .comm = comm, .workers = workers, .resume = job->resume},
        &train);
    if (status == TROUPE_OK && rank == 0) {
        printf("%s", troupe_train_describe(train));
        fflush(stdout);
        status =
            troupe_metrics_open(job->config.train.run_dir, troupe_train_position(train), &metrics);
    }
    if (status == TROUPE_OK) {
        int slot = job->ranks > 0 ? rank : 0;
        atomic_store(&signal_trains[slot], train);
        status = run_steps(job, train, metrics);
        atomic_store(&signal_trains[slot], NULL);
    }
    if (metrics != NULL) {
        fclose(metrics);
    }
    if (status != TROUPE_OK) {
        troupe_comm_abort(comm, troupe_last_error());
    }
    troupe_train_destroy(train);
    return status;
}

static int parse(int argc, char **argv, struct train_job *job) {
    const char *path = NULL;
    bool resume = false;
    const char *sets[64];
    int set_count = 0;
    char shortcuts[3][TROUPE_CONFIG_TEXT_BYTES];
    static const struct {
        const char *option, *key;
    } shortcut_keys[] = {{"--placement", "placement.policy"},
                         {"--order", "schedule.order"},
                         {"--steps", "train.steps"}};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        int shortcut = 0;
        while (shortcut < 3 && strcmp(argv[i], shortcut_keys[shortcut].option) != 0) {
            shortcut++;
        }
        if (argv[i][0] != '-') {
            if (path != NULL) {
                return command_usage(&command_train, "two config files: %s and %s", path, argv[i]);
            }
            path = argv[i];
        } else if (strcmp(argv[i], "--resume") == 0) {
            resume = true;
        } else if (value == NULL) {
            return command_usage(&command_train, "%s: no such option, or its value is missing",
                                 argv[i]);
        } else if (strcmp(argv[i], "--ranks") == 0) {
            job->ranks = atoi(argv[++i]);
            if (job->ranks < 1 || job->ranks > TROUPE_LAUNCH_RANKS_MAX) {
                return command_usage(&command_train, "--ranks %s is not in 1..%d", value,
                                     TROUPE_LAUNCH_RANKS_MAX);
            }
        } else if (shortcut < 3) {
            snprintf(shortcuts[shortcut], sizeof shortcuts[shortcut], "%s=%s",
                     shortcut_keys[shortcut].key, argv[++i]);
            sets[set_count++] = shortcuts[shortcut];
        } else if (strcmp(argv[i], "--set") == 0) {
            if (set_count == (int)TROUPE_COUNT_OF(sets)) {
                return command_usage(&command_train, "more than %d --set", set_count);
            }
            sets[set_count++] = argv[++i];
        } else {
            return command_usage(&command_train, "no option '%s'", argv[i]);
        }
    }
    if (path == NULL) {
        return command_usage(&command_train, "name a config file");
    }
    troupe_config_init(&job->config);
    if (troupe_config_read(&job->config, path) != TROUPE_OK) {
        return command_fail("train");
    }
    for (int i = 0; i < set_count; i++) {
        if (troupe_config_set(&job->config, sets[i]) != TROUPE_OK) {
            return command_fail("train");
        }
    }
    if (troupe_config_resolve(&job->config) != TROUPE_OK) {
        return command_fail("train");
    }
    if (resume) {
        static char newest[TROUPE_CONFIG_TEXT_BYTES + 64];
        if (troupe_checkpoint_newest(job->config.train.run_dir, newest, sizeof newest) !=
            TROUPE_OK) {
            return command_fail("train");
        }
        job->resume = newest;
    }
    return EXIT_DONE;
}

static int run(int argc, char **argv) {
    static struct train_job job;
    int parsed = parse(argc, argv, &job);
    if (parsed != EXIT_DONE) {
        return parsed;
    }
    signal(SIGUSR1, on_report_signal);
    struct troupe_launch_options options = {
        .ranks = job.ranks,
        .provider = job.config.comm.provider,
        .workers = job.config.train.workers,
    };
    return troupe_launch(&options, train_rank, &job) == TROUPE_OK ? EXIT_DONE : EXIT_FAILED;
}

const struct command command_train = {
    .name = "train",
    .usage = "train CONFIG.yaml [--placement POLICY] [--order POLICY] [--steps N] [--ranks N] "
             "[--resume]\n                    [--set KEY.PATH=VALUE]...",
    .summary = "trains a model; start it with mpirun or srun for several ranks",
    .help =
        "  --placement POLICY  homogeneous, colocated, disjoint, manual (the config's mapping), or\n"
        "                      a shared object ./policy.so\n"
        "  --order POLICY      fifo, 1f1b, or a shared object\n"
        "  --steps N           optimizer steps in all\n"
        "  --ranks N           N ranks as threads of this process instead of a launched job\n"
        "  --resume            go on from the newest checkpoint of train.run_dir\n"
        "  --set KEY=VALUE     overrides the config file; `troupe help config` lists the keys\n\n"
        "The run directory receives metrics.jsonl, config.yaml and step-N checkpoints.\n"
        "SIGUSR1 makes every rank print what its actors wait for.\n",
    .run = run,
};
