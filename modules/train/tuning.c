/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/tuning.h"

#include <string.h>

#include "modules/train/plan.h"
#include "runtime/check.h"

/* Simulated for each trial, as steps differ. A shard begins with so many parts of the work. */
enum { STEPS = 3, PARTS = 12, TRIALS_DEFAULT = 300, LISTS_MAX = TROUPE_CONFIG_MODULES + 1 };

/* Of the time; less is not worth a change. */
static const int64_t gain = 1000;

/* Numbers of the config whose sum stays, and what each must be at least. */
struct numbers {
    struct troupe_config_list *list;
    int least;
};

struct search {
    const struct troupe_tuning_options *options;
    struct troupe_config *config;
    struct numbers numbers[LISTS_MAX];
    int count;
    struct troupe_config_list *shares; /* of those; NULL: they stay */
    struct troupe_tuning *out;
};

static troupe_status run_steps(troupe_simulation *simulation, int64_t first, int64_t *ns_out) {
    *ns_out = 0;
    for (int64_t step = first; step < first + STEPS; step++) {
        struct troupe_simulation_result result;
        TROUPE_TRY(troupe_simulation_step(simulation, step, &result));
        *ns_out += result.account->makespan_ns;
    }
    return TROUPE_OK;
}

static troupe_status simulate(struct search *s, int64_t *ns_out) {
    const struct troupe_tuning_options *o = s->options;
    troupe_simulation *simulation = NULL;
    TROUPE_TRY(
        troupe_simulation_create(&(struct troupe_simulation_options){.config = s->config,
                                                                     .rank_count = o->rank_count,
                                                                     .cluster = o->cluster,
                                                                     .profile = o->profile},
                                 &simulation));
    troupe_status status = run_steps(simulation, o->step, ns_out);
    troupe_simulation_destroy(simulation);
    s->out->trials++;
    return status;
}

/* ---- what may be moved ---- */

static void take_layers(const struct troupe_module_plan *module, struct troupe_config_list *list) {
    list->count = module->pp;
    for (int i = 0; i < module->pp; i++) {
        list->values[i] = module->layer_begin[i + 1] - module->layer_begin[i];
    }
}

static void take_shares(const struct troupe_module_plan *module, struct troupe_config_list *list) {
    list->count = module->dp;
    for (int i = 0; i < module->dp; i++) {
        list->values[i] = module->shares != NULL ? module->shares[i] : PARTS;
    }
}

static void add(struct search *s, struct troupe_config_list *list, int least) {
    s->numbers[s->count++] = (struct numbers){list, least};
}

static troupe_status begin(struct search *s) {
    struct troupe_plan *plan = NULL;
    struct troupe_config *config = s->config;
    TROUPE_TRY(troupe_plan_create(config, s->options->rank_count, &plan));
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        struct troupe_config_placement *placement = &config->placement.module[i];
        if (plan->modules[i].pp > 1 && plan->modules[i].pp <= TROUPE_CONFIG_LIST_MAX) {
            take_layers(&plan->modules[i], &placement->layers);
            add(s, &placement->layers, 1);
        }
    }
    const struct troupe_module_plan *vision = &plan->modules[TROUPE_VISION];
    if (strcmp(config->data.assign, "balanced") == 0 && vision->dp > 1 &&
        vision->dp <= TROUPE_CONFIG_LIST_MAX) {
        s->shares = &config->placement.module[TROUPE_VISION].shares;
        take_shares(vision, s->shares);
        add(s, s->shares, 0);
    }
    troupe_plan_destroy(plan);
    return TROUPE_OK;
}

/* ---- the search ---- */

/* Simulates the lists as they are; whether the steps are shorter than ever. */
static troupe_status try_lists(struct search *s, bool *better) {
    int64_t ns = 0;
    TROUPE_TRY(simulate(s, &ns));
    *better = ns < s->out->ns - s->out->ns / gain;
    s->out->ns = *better ? ns : s->out->ns;
    return TROUPE_OK;
}

/* Shares that rise or fall evenly from the first shard to the last, by `quarters` of an even one:
 * single moves do not get there, as the ones between may be worse. */
static troupe_status try_tilts(struct search *s, struct troupe_config_list *shares) {
    static const int quarters[] = {-4, -2, 2, 4};
    const struct troupe_config_list even = *shares;
    struct troupe_config_list best = even;
    int last = even.count - 1;
    for (size_t t = 0; t < TROUPE_COUNT_OF(quarters); t++) {
        bool better = false;
        for (int i = 0; i <= last; i++) {
            shares->values[i] =
                even.values[i] + even.values[i] * quarters[t] * (2 * i - last) / (4 * last);
        }
        TROUPE_TRY(try_lists(s, &better));
        best = better ? *shares : best;
    }
    *shares = best;
    return TROUPE_OK;
}

/* Keeps the move if the steps get shorter. */
static troupe_status try_move(struct search *s, const struct numbers *numbers, int from, int to,
                              bool *better) {
    int *values = numbers->list->values;
    bool kept = false;
    if (from == to || values[from] <= numbers->least) {
        return TROUPE_OK;
    }
    values[from]--;
    values[to]++;
    TROUPE_TRY(try_lists(s, &kept));
    values[from] += !kept;
    values[to] -= !kept;
    *better = *better || kept;
    return TROUPE_OK;
}

static troupe_status try_all_moves(struct search *s, int trials_max, bool *better) {
    for (int n = 0; n < s->count; n++) {
        const struct numbers *numbers = &s->numbers[n];
        for (int from = 0; from < numbers->list->count; from++) {
            for (int to = 0; to < numbers->list->count && s->out->trials < trials_max; to++) {
                TROUPE_TRY(try_move(s, numbers, from, to, better));
            }
        }
    }
    return TROUPE_OK;
}

troupe_status troupe_tune(const struct troupe_tuning_options *options, struct troupe_config *config,
                          struct troupe_tuning *out) {
    int trials_max = options->trials_max > 0 ? options->trials_max : TRIALS_DEFAULT;
    struct search s = {.options = options, .config = config, .out = out};
    bool better = true;
    *out = (struct troupe_tuning){.trials = 0};
    TROUPE_TRY(begin(&s));
    TROUPE_TRY(simulate(&s, &out->before_ns));
    out->ns = out->before_ns;
    if (s.shares != NULL) {
        TROUPE_TRY(try_tilts(&s, s.shares));
    }
    while (better && out->trials < trials_max) {
        better = false;
        TROUPE_TRY(try_all_moves(&s, trials_max, &better));
    }
    return TROUPE_OK;
}
