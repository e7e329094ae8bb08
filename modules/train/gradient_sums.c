/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/gradient_sums.h"

#include <string.h>

#include "runtime/memory.h"

/* Of one collective: long enough that its latency does not count, and two of them in flight keep a
 * link busy. */
enum { RUN_ELEMENTS_MAX = 1 << 20 };

/* ---- runs ---- */

/* A tied parameter has runs of its own: its neighbours at the other end are different ones. */
static bool joins(const struct troupe_gradient_run *run, const float *data, bool tied) {
    return !tied && !run->tied && run->data + run->count == data && run->count < RUN_ELEMENTS_MAX;
}

static void add_gradient(struct troupe_gradient_sums *sums, float *data, int64_t count, bool tied) {
    while (count > 0) {
        if (sums->run_count == 0 || !joins(&sums->runs[sums->run_count - 1], data, tied)) {
            sums->runs[sums->run_count++] =
                (struct troupe_gradient_run){.data = data, .tied = tied};
        }
        struct troupe_gradient_run *run = &sums->runs[sums->run_count - 1];
        int64_t room = RUN_ELEMENTS_MAX - run->count, taken = count < room ? count : room;
        run->count += taken;
        data += taken;
        count -= taken;
    }
}

/* Whether the other end of a divided module holds the parameter, too. */
static bool is_tied(const struct troupe_parameter *parameter,
                    const struct troupe_parameter_spec *others, int count) {
    for (int i = 0; i < count; i++) {
        if (strcmp(others[i].name, parameter->spec.name) == 0) {
            return true;
        }
    }
    return false;
}

/* The parameters of the last stage for the first, of the first for the last, else none. */
static troupe_status other_end(const struct troupe_gradient_sums_options *o,
                               struct troupe_parameter_spec **specs_out, int *count_out) {
    const struct troupe_module_plan *module = o->module;
    int last = module->pp - 1;
    if (last == 0 || (o->stage != 0 && o->stage != last)) {
        return TROUPE_OK;
    }
    struct troupe_shard shard = troupe_plan_shard(module, last - o->stage, o->tp);
    int count = module->module_class->specs(o->config, &shard, NULL);
    TROUPE_TRY(TROUPE_NEW(specs_out, count));
    *count_out = module->module_class->specs(o->config, &shard, *specs_out);
    return TROUPE_OK;
}

static troupe_status make_runs(const struct troupe_gradient_sums_options *o,
                               struct troupe_gradient_sums *sums) {
    struct troupe_parameter_spec *others = NULL;
    int other_count = 0;
    int64_t elements = 0;
    for (int i = 0; i < o->count; i++) {
        elements += troupe_parameter_elements(&o->parameters[i]);
    }
    TROUPE_TRY(TROUPE_NEW(&sums->runs, o->count + elements / RUN_ELEMENTS_MAX));
    TROUPE_TRY(other_end(o, &others, &other_count));
    for (int i = 0; i < o->count; i++) {
        const struct troupe_parameter *p = &o->parameters[i];
        bool tied = is_tied(p, others, other_count);
        if (tied || o->module->dp > 1) {
            add_gradient(sums, p->gradient, troupe_parameter_elements(p), tied);
        }
    }
    troupe_free(others);
    return TROUPE_OK;
}

/* ---- groups ---- */

static size_t largest_run(const struct troupe_gradient_sums *sums, bool tied) {
    int64_t most = 0;
    for (int i = 0; i < sums->run_count; i++) {
        const struct troupe_gradient_run *run = &sums->runs[i];
        most = run->tied == tied && run->count > most ? run->count : most;
    }
    return (size_t)most * sizeof(float);
}

static troupe_status make_groups(const struct troupe_gradient_sums_options *o,
                                 struct troupe_gradient_sums *sums) {
    const struct troupe_module_plan *module = o->module;
    struct troupe_group_options dp = {
        .id = o->dp_group, .bytes_max = largest_run(sums, false), .alone = o->alone};
    struct troupe_group_options tied = {
        .id = o->tied_group, .bytes_max = largest_run(sums, true), .alone = o->alone};
    troupe_status status = TROUPE_OK;
    int *ranks = NULL;
    TROUPE_TRY(TROUPE_NEW(&ranks, 2 * module->dp));
    dp.ranks = tied.ranks = ranks;
    if (dp.bytes_max > 0) {
        dp.count = troupe_plan_dp_ranks(module, o->stage, o->tp, ranks);
        status = troupe_group_create(o->comm, &dp, &sums->dp);
    }
    if (status == TROUPE_OK && tied.bytes_max > 0) {
        tied.count = troupe_plan_dp_ranks(module, 0, o->tp, ranks);
        tied.count += troupe_plan_dp_ranks(module, module->pp - 1, o->tp, ranks + tied.count);
        status = troupe_group_create(o->comm, &tied, &sums->tied);
    }
    troupe_free(ranks);
    return status;
}

/* ---- the calls ---- */

troupe_status troupe_gradient_sums_init(const struct troupe_gradient_sums_options *options,
                                        struct troupe_gradient_sums *out) {
    *out = (struct troupe_gradient_sums){.run_count = 0};
    TROUPE_TRY(make_runs(options, out));
    return make_groups(options, out);
}

void troupe_gradient_sums_fini(struct troupe_gradient_sums *sums) {
    troupe_group_destroy(sums->tied);
    troupe_group_destroy(sums->dp);
    troupe_free(sums->runs);
    *sums = (struct troupe_gradient_sums){.run_count = 0};
}

troupe_status troupe_gradient_sums_post(struct troupe_gradient_sums *sums,
                                        struct troupe_firing *firing) {
    for (int i = 0; i < sums->run_count; i++) {
        struct troupe_gradient_run *run = &sums->runs[i];
        TROUPE_TRY(troupe_firing_all_reduce(firing, run->tied ? sums->tied : sums->dp, TROUPE_SUM,
                                            TROUPE_ELEMENT_FLOAT32, run->data, run->count,
                                            &run->operation));
    }
    return TROUPE_OK;
}
