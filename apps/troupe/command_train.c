/* SPDX-License-Identifier: Apache-2.0 */
/* `troupe train`: one rank of a training job, or all of them as threads of this process. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "actors/job.h"
#include "apps/launch.h"
#include "apps/troupe/arguments.h"
#include "apps/troupe/chart.h"
#include "apps/troupe/progress.h"
#include "apps/troupe/switches.h"
#include "modules/train/checkpoint.h"
#include "modules/train/folder.h"
#include "modules/train/metrics.h"
#include "modules/train/train.h"
#include "runtime/clock.h"

struct train_job {
    struct troupe_config config;
    char resume[PATH_MAX]; /* checkpoint; "": from step 0 */
    int ranks;             /* loopback threads; 0: one rank of a launched job */
    struct switches switches;
    struct chart_paths charts; /* of the last step */
};

/* What rank 0 writes. */
struct record {
    FILE *metrics;
    FILE *log;
    struct troupe_metrics_switch switches[CONFIG_EDITS_MAX]; /* since the last step */
    int switch_count;
    struct progress progress;
    int64_t first_step;
    uint64_t started_ns;
};

/* SIGUSR1: one screen says what every rank waits for. The only state a signal can reach. */
static _Atomic(troupe_train *) signal_trains[LAUNCH_RANKS_MAX];

static void on_report_signal(int number) {
    (void)number;
    for (int i = 0; i < LAUNCH_RANKS_MAX; i++) {
        troupe_train *train = atomic_load(&signal_trains[i]);
        if (train != NULL) {
            troupe_train_request_report(train);
        }
    }
}

static void print_config(const void *arg, FILE *file) {
    troupe_config_write(arg, file);
}

/* A fresh start beside older checkpoints would let a later --resume pick one of them. */
static troupe_status refuse_older_run(const struct train_job *job) {
    char found[PATH_MAX];
    const char *run_dir = job->config.train.run_dir;
    if (job->resume[0] == '\0' &&
        troupe_checkpoint_newest(run_dir, found, sizeof found) == TROUPE_OK) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "%s is there from an earlier run: give --resume to go on from it, or "
                           "another train.run_dir, or remove %s",
                           found, run_dir);
    }
    return TROUPE_OK;
}

/* Whole lines, to the terminal and the log. */
static void describe(const struct record *record, const char *lines) {
    fprintf(record->log, "%s", lines);
    fflush(record->log);
    printf("%s", lines);
    fflush(stdout);
}

static void warn_of_ignored(const struct train_job *job, const char *ignored, FILE *log) {
    FILE *const files[] = {log, stderr};
    for (int i = 0; ignored[0] != '\0' && i < 2; i++) {
        fprintf(files[i], "warning: placement.policy %s does not follow %s\n",
                job->config.placement.policy, ignored);
    }
}

static troupe_status open_record(const struct train_job *job, const troupe_train *train,
                                 struct record *out) {
    int64_t position = troupe_train_position(train);
    const char *run_dir = job->config.train.run_dir;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/config.yaml", run_dir);
    TROUPE_TRY(troupe_folder_write_text(path, print_config, &job->config));
    TROUPE_TRY(troupe_metrics_open(run_dir, position, &out->metrics));
    snprintf(path, sizeof path, "%s/train.log", run_dir);
    out->log = fopen(path, position > 0 ? "a" : "w");
    if (out->log == NULL) {
        return troupe_fail(TROUPE_ERROR_IO, "%s: cannot be written: %s", path, strerror(errno));
    }
    warn_of_ignored(job, troupe_train_ignored(train), out->log);
    describe(out, troupe_train_describe(train));
    out->progress.lines = job->ranks == 0;
    out->first_step = position;
    out->started_ns = troupe_clock_ns();
    return TROUPE_OK;
}

static void close_record(struct record *record) {
    if (record->metrics != NULL) {
        fclose(record->metrics);
    }
    if (record->log != NULL) {
        fclose(record->log);
    }
}

static troupe_status record_step(struct record *record, const struct troupe_step_report *report,
                                 int64_t steps) {
    char line[160];
    double elapsed = troupe_clock_seconds(record->started_ns, troupe_clock_ns());
    double left =
        elapsed * (double)(steps - report->step) / (double)(report->step - record->first_step);
    troupe_metrics_progress(report, steps, left, line, sizeof line);
    if (report->step == steps) {
        progress_end(&record->progress, "%s", line);
    } else {
        progress_show(&record->progress, "%s", line);
    }
    fprintf(record->log, "%s\n", line);
    if (fflush(record->log) != 0 || ferror(record->log)) {
        return troupe_fail(TROUPE_ERROR_IO, "train.log: cannot be written: %s", strerror(errno));
    }
    int switches = record->switch_count;
    record->switch_count = 0;
    return troupe_metrics_write(record->metrics, report, record->switches, switches);
}

static bool is_checkpoint_step(const struct troupe_config *config, int64_t step) {
    int every = config->train.checkpoint_every;
    return step == config->train.steps || (every > 0 && step % every == 0);
}

/* ---- switches ---- */

static void say(struct record *record, const char *text) {
    progress_end(&record->progress, "%s", text);
    fprintf(record->log, "%s\n", text);
    fflush(record->log);
}

static void record_switch(struct record *record, const struct switch_wish *wish,
                          const troupe_train *train, const struct troupe_switch_report *report) {
    char text[512];
    snprintf(text, sizeof text,
             "switched to %s after step %" PRId64 ": %" PRId64 " bytes moved, the least there is "
             "(%" PRId64 "), of %" PRId64 "; %d ranks relabelled; planned in %.1f ms, paused for "
             "%.1f ms",
             wish->what, report->step, report->bytes_moved, report->bytes_bound,
             report->bytes_state, report->relabelled, report->plan_ms, report->pause_ms);
    say(record, text);
    describe(record, troupe_train_describe(train));
    record->switches[record->switch_count++] =
        (struct troupe_metrics_switch){.to = wish->what, .report = *report};
}

static void record_refusal(struct record *record, const struct switch_wish *wish) {
    char text[1280];
    snprintf(text, sizeof text, "not switched to %s: %s; training goes on as before", wish->what,
             troupe_last_error());
    say(record, text);
}

/* current: the rank's configuration, which follows the switch. */
static troupe_status switch_now(const struct switch_wish *wish, troupe_train *train,
                                struct troupe_config *current, struct record *record) {
    struct troupe_config next = *current;
    struct troupe_switch_report report;
    troupe_status status = troupe_train_agree(train, switch_apply(wish, &next));
    if (status == TROUPE_OK) {
        status = troupe_train_switch(train, &next, &report);
    }
    if (status == TROUPE_OK) {
        *current = next;
    }
    if (record != NULL && status == TROUPE_OK) {
        record_switch(record, wish, train, &report);
    } else if (record != NULL) {
        record_refusal(record, wish);
    }
    return troupe_train_is_alive(train) ? TROUPE_OK : status;
}

static troupe_status draw_step(const struct train_job *job,
                               const struct troupe_step_report *report) {
    char title[160];
    snprintf(title, sizeof title, "%.60s, step %lld, %d microbatches, measured",
             job->config.schedule.order, (long long)report->step, job->config.train.microbatches);
    return chart_write(&job->charts, &report->timeline->schedule, &report->timeline->bound, title);
}

/* record: NULL but on rank 0. A resumed job takes up first the switches that lie behind it. */
static troupe_status run_steps(const struct train_job *job, troupe_train *train,
                               struct record *record) {
    const int64_t steps = job->config.train.steps;
    struct troupe_config current = job->config;
    struct troupe_step_report report;
    int switched = 0;
    while (troupe_train_position(train) < steps) {
        for (; switched < job->switches.count &&
               job->switches.list[switched].step <= troupe_train_position(train);
             switched++) {
            TROUPE_TRY(switch_now(&job->switches.list[switched], train, &current, record));
        }
        TROUPE_TRY(troupe_train_step(train, &report));
        if (record != NULL) {
            TROUPE_TRY(record_step(record, &report, steps));
        }
        if (record != NULL && report.step == steps) {
            TROUPE_TRY(draw_step(job, &report));
        }
        if (is_checkpoint_step(&job->config, report.step)) {
            TROUPE_TRY(troupe_train_save(train));
        }
    }
    return TROUPE_OK;
}

static troupe_status train_and_record(const struct train_job *job, troupe_train *train,
                                      bool records) {
    struct record record = {0};
    troupe_status status = TROUPE_OK;
    if (records) {
        status = open_record(job, train, &record);
    }
    if (status == TROUPE_OK) {
        status = run_steps(job, train, records ? &record : NULL);
    }
    close_record(&record);
    return status;
}

static troupe_status train_rank(void *arg, troupe_comm *comm, troupe_workers *workers) {
    const struct train_job *job = arg;
    int rank = troupe_comm_rank(comm);
    if (rank == 0) {
        TROUPE_TRY(refuse_older_run(job));
        TROUPE_TRY(troupe_folder_make(job->config.train.run_dir));
    }
    troupe_train *train = NULL;
    TROUPE_TRY(troupe_train_create(
        &(struct troupe_train_options){.config = &job->config,
                                       .comm = comm,
                                       .workers = workers,
                                       .resume = job->resume[0] != '\0' ? job->resume : NULL},
        &train));
    int slot = job->ranks > 0 ? rank : 0;
    atomic_store(&signal_trains[slot], train);
    troupe_status status = train_and_record(job, train, rank == 0);
    atomic_store(&signal_trains[slot], NULL);
    if (status != TROUPE_OK) {
        status = troupe_job_abort(comm, status);
    }
    troupe_train_destroy(train);
    return status;
}

static troupe_status prepare(struct train_job *job, const char *path,
                             const struct config_edits *edits, bool resume) {
    TROUPE_TRY(config_load(&job->config, path, edits));
    TROUPE_TRY(troupe_config_resolve(&job->config));
    return resume ? troupe_checkpoint_newest(job->config.train.run_dir, job->resume,
                                             sizeof job->resume)
                  : TROUPE_OK;
}

static int run(int argc, char **argv) {
    struct train_job job = {0};
    static struct config_edits edits, switches;
    bool resume = false;
    const struct argument options[] = {
        {"--placement", .edits = &edits, .key = "placement.policy"},
        {"--order", .edits = &edits, .key = "schedule.order"},
        {"--mode", .edits = &edits, .key = "schedule.mode"},
        {"--device", .edits = &edits, .key = "train.device"},
        {"--steps", .edits = &edits, .key = "train.steps"},
        {"--set", .edits = &edits},
        {"--switch", .edits = &switches},
        {"--ranks", .number = &job.ranks},
        {"--resume", .flag = &resume},
        {"--trace", .text = &job.charts.trace},
        {"--svg", .text = &job.charts.svg},
        {0},
    };
    int operands = arguments_parse(&command_train, argc, argv, options);
    if (operands < 0) {
        return EXIT_USAGE;
    }
    if (operands > 1 || (operands == 0 && edits.count == 0)) {
        return command_usage(&command_train, "name one config file, or give its keys with --set");
    }
    if (job.ranks > LAUNCH_RANKS_MAX) {
        return command_usage(&command_train, "--ranks %d: at most %d", job.ranks, LAUNCH_RANKS_MAX);
    }
    troupe_status status = prepare(&job, operands == 1 ? argv[1] : NULL, &edits, resume);
    if (status == TROUPE_OK) {
        status = switches_read(&switches, &job.switches);
    }
    signal(SIGUSR1, on_report_signal);
    status = launch(&(struct launch_options){.ranks = job.ranks,
                                             .provider = job.config.comm.provider,
                                             .device = job.config.train.device,
                                             .workers = job.config.train.workers,
                                             .refused = status,
                                             .verbose = true},
                    train_rank, &job);
    return command_end(&command_train, status);
}

const struct command command_train = {
    .name = "train",
    .usage =
        "train [CONFIG.yaml] [--placement POLICY] [--order POLICY] [--mode MODE]\n"
        "                    [--device KIND] [--steps N] [--ranks N] [--switch STEP:POLICY]...\n"
        "                    [--resume] [--svg FILE] [--trace FILE] [--set KEY=VALUE]...",
    .summary = "trains a model; start it with mpirun or srun for several ranks",
    .help =
        "  --placement POLICY  homogeneous, colocated, disjoint, manual (the config's mapping), or\n"
        "                      a shared object ./policy.so\n"
        "  --order POLICY      fifo, 1f1b, fill and others (`troupe info`), or a shared object\n"
        "  --mode MODE         dynamic, or static: the order of a step is found before it begins\n"
        "  --device KIND       cpu, cuda, or sim, a simulated device (train.device)\n"
        "  --steps N           optimizer steps in all\n"
        "  --ranks N           N ranks as threads of this process instead of a launched job\n"
        "  --switch STEP:WHAT  after so many steps goes on with another placement: a policy, ./policy.so,\n"
        "                      or ./file.yaml with a placement section; or order=POLICY\n"
        "  --svg FILE          Gantt chart of the last step: ranks down, time across, bound\n"
        "  --trace FILE        the last step for https://ui.perfetto.dev or chrome://tracing\n"
        "  --resume            go on from the newest checkpoint of train.run_dir\n"
        "  --set KEY=VALUE     overrides the config file; `troupe help config` lists the keys\n\n"
        "The run directory receives metrics.jsonl, train.log, config.yaml and step-N checkpoints.\n"
        "SIGUSR1 prints one screen that says what every rank waits for.\n",
    .run = run,
};
