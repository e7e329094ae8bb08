/* SPDX-License-Identifier: Apache-2.0 */
/* `troupe sim`: a step of a training job on a machine that need not be there. */
#include <stdio.h>

#include "apps/troupe/arguments.h"
#include "apps/troupe/chart.h"
#include "modules/nn/module.h"
#include "modules/train/simulation.h"
#include "modules/train/tuning.h"
#include "runtime/clock.h"

struct sim_job {
    struct troupe_config config;
    struct troupe_cluster cluster;
    struct chart_paths charts;
    const char *profile;
    const char *cluster_path;
    int ranks;
    int step; /* counted from 1 */
};

static void print_line(void *arg, const char *text) {
    (void)arg;
    printf("%s\n", text);
}

static troupe_status simulate(const struct sim_job *job, troupe_simulation *simulation) {
    struct troupe_simulation_result result;
    char title[160];
    uint64_t begin_ns = troupe_clock_ns();
    TROUPE_TRY(troupe_simulation_step(simulation, job->step - 1, &result));
    double seconds = troupe_clock_seconds(begin_ns, troupe_clock_ns());
    printf("\n%d tasks and %lld events of step %d on %d ranks in order %s, simulated in %.3f s\n",
           result.sim.schedule.task_count, (long long)result.sim.events, job->step, job->ranks,
           job->config.schedule.order, seconds);
    if (result.sim.choice != NULL) {
        printf("planned from what %s makes of it\n", result.sim.choice);
    }
    chart_print_account(result.account, &result.bound);
    snprintf(title, sizeof title, "%.60s, %d ranks, %d microbatches, simulated",
             job->config.schedule.order, job->ranks, job->config.train.microbatches);
    return chart_write(&job->charts, &result.sim.schedule, &result.bound, title);
}

static troupe_status run_job(const struct sim_job *job) {
    troupe_simulation *simulation = NULL;
    TROUPE_TRY(
        troupe_simulation_create(&(struct troupe_simulation_options){.config = &job->config,
                                                                     .rank_count = job->ranks,
                                                                     .cluster = &job->cluster,
                                                                     .profile = job->profile},
                                 &simulation));
    troupe_simulation_describe(simulation, print_line, NULL);
    troupe_status status = simulate(job, simulation);
    troupe_simulation_destroy(simulation);
    return status;
}

/* " --set placement.llm.layers=[3,2]", if the config has such a list. */
static void print_list(const char *module, const char *key, const struct troupe_config_list *list) {
    for (int i = 0; i < list->count; i++) {
        if (i == 0) {
            printf(" --set placement.%s.%s=[", module, key);
        }
        printf("%d%c", list->values[i], i + 1 < list->count ? ',' : ']');
    }
}

static troupe_status tune(struct sim_job *job) {
    struct troupe_tuning tuning;
    TROUPE_TRY(troupe_tune(&(struct troupe_tuning_options){.rank_count = job->ranks,
                                                           .cluster = &job->cluster,
                                                           .profile = job->profile,
                                                           .step = job->step - 1},
                           &job->config, &tuning));
    printf("tuned: %d trials shorten the simulated steps by %.2f %%:", tuning.trials,
           100 * (1 - (double)tuning.ns / (double)tuning.before_ns));
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        const struct troupe_config_placement *placement = &job->config.placement.module[i];
        print_list(troupe_module_classes()[i]->name, "layers", &placement->layers);
        print_list(troupe_module_classes()[i]->name, "shares", &placement->shares);
    }
    printf("\n");
    return TROUPE_OK;
}

static troupe_status prepare(struct sim_job *job, const char *path,
                             const struct config_edits *edits) {
    TROUPE_TRY(config_load(&job->config, path, edits));
    TROUPE_TRY(troupe_config_resolve(&job->config));
    troupe_cluster_default(&job->cluster);
    return job->cluster_path != NULL ? troupe_cluster_read(job->cluster_path, &job->cluster)
                                     : TROUPE_OK;
}

static int run(int argc, char **argv) {
    struct sim_job job = {.ranks = 1, .step = 1};
    struct config_edits edits = {0};
    bool print_cluster = false, tunes = false;
    const struct argument options[] = {
        {"--placement", .edits = &edits, .key = "placement.policy"},
        {"--order", .edits = &edits, .key = "schedule.order"},
        {"--mode", .edits = &edits, .key = "schedule.mode"},
        {"--set", .edits = &edits},
        {"--ranks", .number = &job.ranks},
        {"--step", .number = &job.step},
        {"--cluster", .text = &job.cluster_path},
        {"--profile", .text = &job.profile},
        {"--trace", .text = &job.charts.trace},
        {"--svg", .text = &job.charts.svg},
        {"--tune", .flag = &tunes},
        {"--print-cluster", .flag = &print_cluster},
        {0},
    };
    int operands = arguments_parse(&command_sim, argc, argv, options);
    if (operands < 0) {
        return EXIT_USAGE;
    }
    if (operands != 1) {
        return command_usage(&command_sim, "name one config file");
    }
    troupe_status status = prepare(&job, argv[1], &edits);
    if (status == TROUPE_OK && print_cluster) {
        troupe_cluster_write(&job.cluster, stdout);
        return EXIT_DONE;
    }
    if (status == TROUPE_OK && tunes) {
        status = tune(&job);
    }
    return command_end(&command_sim, status == TROUPE_OK ? run_job(&job) : status);
}

const struct command command_sim = {
    .name = "sim",
    .usage = "sim CONFIG.yaml [--ranks N] [--placement POLICY] [--order POLICY] [--mode MODE]\n"
             "                  [--cluster FILE] [--profile FILE] [--step N] [--svg FILE]\n"
             "                  [--trace FILE] [--tune] [--print-cluster] [--set KEY=VALUE]...",
    .summary = "simulates a training step on a machine that need not be there",
    .help =
        "  --ranks N           of the job, 1 unless said\n"
        "  --placement POLICY  as in train\n"
        "  --order POLICY      as in train\n"
        "  --mode MODE         as in train\n"
        "  --cluster FILE      devices and links, `key: value` lines; without: H100, 8 a host\n"
        "  --print-cluster     prints those keys with their values, and ends\n"
        "  --profile FILE      task times that `troupe profile` measured; without: a roofline\n"
        "  --step N            whose samples, 1 unless said\n"
        "  --svg FILE          Gantt chart: ranks down, time across, the bound drawn in\n"
        "  --trace FILE        for https://ui.perfetto.dev or chrome://tracing\n"
        "  --tune              first moves layers between pipeline stages, and image work between\n"
        "                      encoder shards (data.assign: balanced), while that shortens the step\n"
        "  --set KEY=VALUE     overrides the config file\n\n"
        "The task graph, its messages and the order policy are those of training. T* is a lower\n"
        "bound: no order of these tasks takes less (scheduler/bound.h).\n",
    .run = run,
};
