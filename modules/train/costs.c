/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/costs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "modules/train/line_fit.h"
#include "modules/train/link_costs.h"
#include "runtime/check.h"
#include "runtime/memory.h"

enum { PROFILE_LINE_BYTES = 256 };

/* Of a step's expected work: what planning may take, and by how much it may change without. */
enum { WORK_PER_SEARCH = 50, WORK_PER_CHANGE = 20 };
/* And what two runs of the same tasks differ by, at least. */
enum { WORK_PER_TOLERANCE = 100 };

/* The shard that fires a method. */
struct shape {
    int module;
    int tp;
    int64_t parameters; /* of one TP shard */
};

/* A line of a profile. */
struct sample {
    struct shape shape;
    enum troupe_method_kind kind;
    int64_t rows;
    int64_t ns;
};

struct troupe_fleet_costs {
    struct troupe_fleet_costs_options options;
    const struct troupe_graph *graph;
    struct troupe_costs table;
    int *first; /* by method: of its microbatches in ns */
    int64_t *ns;
    int64_t *expected;            /* of the step, like ns; in which it may be not worth a change */
    struct troupe_line_fit *fits; /* by method; those of one shape and kind share the first's */
    int *fit_of;
    int steps_learnt;
    int64_t *reduction_ns; /* by gang, of the roofline */
    troupe_link_costs *links;
    int64_t *edge_ns; /* (edges, microbatches) */
    int64_t *edge_expected;
    int microbatches;
    struct shape *shapes; /* by gang */
    struct sample *samples;
    int sample_count;
    int32_t *lengths; /* scratch: lengths of sequences, added up */
};

/* ---- shards ---- */

static troupe_status count_parameters(const struct troupe_module_plan *module,
                                      const struct troupe_model_config *config, int stage,
                                      int64_t *out) {
    struct troupe_shard shard = troupe_plan_shard(module, stage, 0);
    struct troupe_parameter_spec *specs = NULL;
    int count = module->module_class->specs(config, &shard, NULL);
    TROUPE_TRY(TROUPE_NEW(&specs, count));
    module->module_class->specs(config, &shard, specs);
    *out = 0;
    for (int i = 0; i < count; i++) {
        int64_t elements = specs[i].tp_dimension < 0 ? module->tp : 1;
        for (int d = 0; d < specs[i].dimensions; d++) {
            elements *= specs[i].shape[d];
        }
        *out += elements / module->tp;
    }
    troupe_free(specs);
    return TROUPE_OK;
}

static const struct troupe_module_plan *module_of(const struct troupe_fleet *fleet,
                                                  const struct troupe_gang *gang) {
    return &fleet->plan->modules[gang->module];
}

static troupe_status shape_of(const struct troupe_fleet *fleet, const struct troupe_gang *gang,
                              struct shape *out) {
    const struct troupe_module_plan *module = module_of(fleet, gang);
    *out = (struct shape){.module = gang->module, .tp = module->tp};
    return count_parameters(module, &fleet->options.config->model, gang->stage, &out->parameters);
}

/* Rows of the microbatch that a DP shard of the module has. */
static int64_t rows_of(const struct troupe_fleet *fleet, const struct troupe_gang *gang,
                       int microbatch) {
    const troupe_image_split *split = fleet->splits.of[gang->module];
    if (split != NULL) {
        return troupe_image_split_rows(split, microbatch, gang->dp);
    }
    const troupe_sample_plan *plan = fleet->options.samples;
    struct troupe_interval part =
        troupe_sample_plan_interval(plan, microbatch, gang->dp, module_of(fleet, gang)->dp);
    const int64_t *sums = gang->module == TROUPE_LLM ? troupe_sample_plan_rows(plan)
                                                     : troupe_sample_plan_image_tokens(plan);
    return sums[part.end] - sums[part.begin];
}

/* ---- the roofline ---- */

static double flops_of_task(const troupe_fleet_costs *costs, const struct troupe_gang *gang,
                            const struct troupe_module_task *task) {
    const struct troupe_fleet *fleet = costs->options.fleet;
    const struct troupe_module_plan *module = module_of(fleet, gang);
    struct troupe_shard shard = troupe_plan_shard(module, gang->stage, 0);
    return module->module_class->flops(&fleet->options.config->model, &shard, task);
}

/* Of the images that a split gives the shard. */
static double flops_of_split(troupe_fleet_costs *costs, const struct troupe_gang *gang,
                             const troupe_image_split *split, int microbatch) {
    const struct troupe_split_image *images = NULL;
    int count = troupe_image_split_images(split, microbatch, &images), own = 0;
    costs->lengths[0] = 0;
    for (int i = 0; i < count; i++) {
        if (images[i].owner == gang->dp) {
            costs->lengths[own + 1] = costs->lengths[own] + images[i].tokens;
            own++;
        }
    }
    struct troupe_vision_batch vision = {
        .images = own, .patches = costs->lengths[own], .cu_len = costs->lengths};
    return flops_of_task(costs, gang, &(struct troupe_module_task){.vision = &vision});
}

/* What the module's formula reads of a batch, without loading it: pictures of one sample count as
 * equally large. */
static double flops_of(troupe_fleet_costs *costs, const struct troupe_gang *gang, int microbatch) {
    const struct troupe_fleet *fleet = costs->options.fleet;
    const troupe_sample_plan *plan = fleet->options.samples;
    const troupe_image_split *split = fleet->splits.of[gang->module];
    if (split != NULL) {
        return flops_of_split(costs, gang, split, microbatch);
    }
    struct troupe_interval part =
        troupe_sample_plan_interval(plan, microbatch, gang->dp, module_of(fleet, gang)->dp);
    const int64_t *rows = troupe_sample_plan_rows(plan);
    const int64_t *tokens = troupe_sample_plan_image_tokens(plan);
    const int64_t *images = troupe_sample_plan_images(plan);
    const int64_t *targets = troupe_sample_plan_targets(plan);
    int count = 0;
    costs->lengths[0] = 0;
    for (int64_t i = part.begin; i < part.end; i++) {
        int64_t pieces = gang->module == TROUPE_LLM ? 1 : images[i + 1] - images[i];
        int64_t length =
            gang->module == TROUPE_LLM ? rows[i + 1] - rows[i] : tokens[i + 1] - tokens[i];
        for (int64_t k = 0; k < pieces; k++, count++) {
            costs->lengths[count + 1] = costs->lengths[count] + (int32_t)(length / pieces);
        }
    }
    struct troupe_language_batch language = {.samples = part.end - part.begin,
                                             .rows = rows[part.end] - rows[part.begin],
                                             .image_tokens = tokens[part.end] - tokens[part.begin],
                                             .cu_len = costs->lengths,
                                             .targets_count =
                                                 targets[part.end] - targets[part.begin]};
    struct troupe_vision_batch vision = {.images = images[part.end] - images[part.begin],
                                         .patches = tokens[part.end] - tokens[part.begin],
                                         .cu_len = costs->lengths};
    return flops_of_task(costs, gang,
                         &(struct troupe_module_task){.vision = &vision, .language = &language});
}

/* The all-reduces of TP in one direction. */
static int64_t tp_ns(const troupe_fleet_costs *costs, const struct troupe_gang *gang,
                     int64_t rows) {
    enum { PER_LAYER = 2 };
    const struct troupe_fleet *fleet = costs->options.fleet;
    const struct troupe_module_plan *module = module_of(fleet, gang);
    struct troupe_shard shard = troupe_plan_shard(module, gang->stage, 0);
    int64_t columns = gang->module == TROUPE_VISION ? fleet->options.config->model.vision.hidden
                                                    : fleet->options.config->model.llm.hidden;
    return PER_LAYER * (shard.layer_end - shard.layer_begin) *
           troupe_cluster_collective_ns(costs->options.cluster, TROUPE_COLLECTIVE_ALL_REDUCE,
                                        gang->ranks, gang->rank_count,
                                        rows * columns * (int64_t)sizeof(float));
}

static troupe_status find_reduction_ns(const troupe_fleet_costs *costs,
                                       const struct troupe_gang *gang, int64_t *out) {
    const struct troupe_module_plan *module = module_of(costs->options.fleet, gang);
    const struct shape *shape = &costs->shapes[gang - costs->graph->gangs];
    int *ranks = NULL;
    TROUPE_TRY(TROUPE_NEW(&ranks, module->dp));
    int count = troupe_plan_dp_ranks(module, gang->stage, 0, ranks);
    *out = troupe_cluster_collective_ns(costs->options.cluster, TROUPE_COLLECTIVE_ALL_REDUCE, ranks,
                                        count, shape->parameters * (int64_t)sizeof(float));
    troupe_free(ranks);
    return TROUPE_OK;
}

static int64_t roofline_ns(troupe_fleet_costs *costs, const struct troupe_method *method,
                           int microbatch) {
    const struct troupe_gang *gang = &costs->graph->gangs[method->gang];
    const struct shape *shape = &costs->shapes[method->gang];
    if (method->kind == TROUPE_METHOD_REDUCE) {
        return costs->reduction_ns[method->gang];
    }
    int64_t rows = rows_of(costs->options.fleet, gang, microbatch);
    struct troupe_work work = {.flops = flops_of(costs, gang, microbatch) / shape->tp,
                               .bytes = (double)shape->parameters * sizeof(float),
                               .rows = (double)rows};
    int64_t ns = rows == 0 ? 0 : troupe_cluster_compute_ns(costs->options.cluster, &work);
    return method->kind != TROUPE_METHOD_BACKWARD_WEIGHT ? ns + tp_ns(costs, gang, rows) : ns;
}

/* ---- profiles ---- */

static const struct {
    const char *name;
    enum troupe_method_kind kind;
} kinds[] = {{"forward", TROUPE_METHOD_FORWARD},
             {"backward_input", TROUPE_METHOD_BACKWARD_INPUT},
             {"backward_weight", TROUPE_METHOD_BACKWARD_WEIGHT},
             {"reduce", TROUPE_METHOD_REDUCE},
             {"update", TROUPE_METHOD_UPDATE}};

static const char *kind_name(enum troupe_method_kind kind) {
    for (size_t i = 0; i < TROUPE_COUNT_OF(kinds); i++) {
        if (kinds[i].kind == kind) {
            return kinds[i].name;
        }
    }
    return NULL;
}

void troupe_profile_write(FILE *file, const struct troupe_fleet *fleet,
                          const struct troupe_schedule *schedule) {
    for (int i = 0; i < schedule->task_count; i++) {
        const struct troupe_task *task = &schedule->tasks[i];
        const struct troupe_method *method = &schedule->graph->methods[task->method];
        const struct troupe_gang *gang = &schedule->graph->gangs[method->gang];
        const char *kind = kind_name(method->kind);
        struct shape shape;
        if (kind != NULL && shape_of(fleet, gang, &shape) == TROUPE_OK) {
            int64_t rows = method->firings > 1 ? rows_of(fleet, gang, task->microbatch) : 0;
            fprintf(file, "%s tp %d parameters %" PRId64 " %s rows %" PRId64 " ns %" PRId64 "\n",
                    module_of(fleet, gang)->module_class->name, shape.tp, shape.parameters, kind,
                    rows, task->end_ns - task->begin_ns);
        }
    }
}

static troupe_status read_sample(const char *line, struct sample *out) {
    char module[32], kind[32];
    *out = (struct sample){.shape = {.module = -1}};
    int fields = sscanf(line, "%31s tp %d parameters %" SCNd64 " %31s rows %" SCNd64 " ns %" SCNd64,
                        module, &out->shape.tp, &out->shape.parameters, kind, &out->rows, &out->ns);
    bool known = false;
    for (int i = 0; fields == 6 && i < TROUPE_CONFIG_MODULES; i++) {
        if (strcmp(troupe_module_classes()[i]->name, module) == 0) {
            out->shape.module = i;
        }
    }
    for (size_t i = 0; fields == 6 && i < TROUPE_COUNT_OF(kinds); i++) {
        if (strcmp(kinds[i].name, kind) == 0) {
            out->kind = kinds[i].kind;
            known = true;
        }
    }
    if (!known || out->shape.module < 0 || out->ns < 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "\"%.60s\" is not a line of a profile, \"llm tp 1 parameters 9 forward "
                           "rows 9 ns 9\"",
                           line);
    }
    return TROUPE_OK;
}

static int compare_shapes(const struct sample *a, const struct sample *b) {
    const int64_t x[] = {a->shape.module, a->shape.tp, a->shape.parameters, a->kind};
    const int64_t y[] = {b->shape.module, b->shape.tp, b->shape.parameters, b->kind};
    for (size_t i = 0; i < TROUPE_COUNT_OF(x); i++) {
        if (x[i] != y[i]) {
            return x[i] < y[i] ? -1 : 1;
        }
    }
    return 0;
}

static int compare_samples(const void *a, const void *b) {
    const struct sample *x = a, *y = b;
    int shapes = compare_shapes(x, y);
    if (shapes != 0) {
        return shapes;
    }
    if (x->rows != y->rows) {
        return x->rows < y->rows ? -1 : 1;
    }
    return (x->ns > y->ns) - (x->ns < y->ns);
}

/* Of samples of the same shape, kind and rows the median stays. */
static void keep_medians(troupe_fleet_costs *costs) {
    int kept = 0;
    qsort(costs->samples, (size_t)costs->sample_count, sizeof *costs->samples, compare_samples);
    for (int begin = 0, end = 0; begin < costs->sample_count; begin = end) {
        while (end < costs->sample_count &&
               compare_shapes(&costs->samples[begin], &costs->samples[end]) == 0 &&
               costs->samples[begin].rows == costs->samples[end].rows) {
            end++;
        }
        costs->samples[kept++] = costs->samples[begin + (end - begin) / 2];
    }
    costs->sample_count = kept;
}

static troupe_status read_samples(FILE *file, const char *path, troupe_fleet_costs *costs) {
    char line[PROFILE_LINE_BYTES];
    for (int number = 1; fgets(line, sizeof line, file) != NULL; number++) {
        if (line[0] == '#' || line[0] == '\n') {
            continue;
        }
        if (costs->samples == NULL) {
            costs->sample_count++; /* the first time through they are counted */
            continue;
        }
        troupe_status status = read_sample(line, &costs->samples[costs->sample_count++]);
        if (status != TROUPE_OK) {
            return troupe_fail_in(status, "%s:%d", path, number);
        }
    }
    return TROUPE_OK;
}

static troupe_status read_profile(troupe_fleet_costs *costs) {
    const char *path = costs->options.profile;
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return troupe_fail(TROUPE_ERROR_IO, "%s: %s", path, strerror(errno));
    }
    troupe_status status = read_samples(file, path, costs);
    if (status == TROUPE_OK) {
        status = TROUPE_NEW(&costs->samples, costs->sample_count);
    }
    if (status == TROUPE_OK) {
        rewind(file);
        costs->sample_count = 0;
        status = read_samples(file, path, costs);
    }
    fclose(file);
    keep_medians(costs);
    return status;
}

/* samples[0 .. count) have the task's shape and kind, by ascending rows. */
static int64_t interpolate(const struct sample *samples, int count, int64_t rows) {
    const struct sample *last = &samples[count - 1];
    if (rows <= samples[0].rows || count == 1) {
        return samples[0].rows == 0 ? samples[0].ns : samples[0].ns * rows / samples[0].rows;
    }
    for (int i = 1; i < count; i++) {
        const struct sample *a = &samples[i - 1], *b = &samples[i];
        if (rows <= b->rows) {
            return a->ns + (b->ns - a->ns) * (rows - a->rows) / (b->rows - a->rows);
        }
    }
    return last->ns * rows / last->rows;
}

static troupe_status profile_ns(const troupe_fleet_costs *costs, const struct troupe_method *method,
                                int microbatch, int64_t *out) {
    const struct troupe_gang *gang = &costs->graph->gangs[method->gang];
    const struct sample wanted = {.shape = costs->shapes[method->gang], .kind = method->kind};
    int64_t rows = method->firings > 1 ? rows_of(costs->options.fleet, gang, microbatch) : 0;
    int begin = 0, end = 0;
    while (begin < costs->sample_count && compare_shapes(&costs->samples[begin], &wanted) != 0) {
        begin++;
    }
    for (end = begin;
         end < costs->sample_count && compare_shapes(&costs->samples[end], &wanted) == 0; end++) {
    }
    if (begin == end) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "%s has no %s of %s with tp %d and %" PRId64
                           " parameters; run `troupe profile` with this placement, or leave "
                           "--profile out for a roofline",
                           costs->options.profile, method->name, gang->name, wanted.shape.tp,
                           wanted.shape.parameters);
    }
    *out = interpolate(costs->samples + begin, end - begin, rows);
    return TROUPE_OK;
}

/* ---- the table ---- */

static int64_t task_ns(void *arg, int method, int64_t step, int microbatch) {
    const troupe_fleet_costs *costs = arg;
    (void)step;
    return costs->ns[costs->first[method] + microbatch];
}

static int64_t edge_ns(void *arg, int edge, int64_t step, int microbatch) {
    const troupe_fleet_costs *costs = arg;
    (void)step;
    return costs->edge_ns[edge * costs->microbatches + microbatch];
}

/* ---- what has been learnt ---- */

/* Rows that a task's time goes by; 0 for those once a step. */
static int64_t rows_of_task(const troupe_fleet_costs *costs, int method, int microbatch) {
    const struct troupe_method *plan = &costs->graph->methods[method];
    const struct troupe_gang *gang = &costs->graph->gangs[plan->gang];
    return plan->firings > 1 ? rows_of(costs->options.fleet, gang, microbatch) : 0;
}

void troupe_fleet_costs_learn(troupe_fleet_costs *costs, const struct troupe_schedule *schedule) {
    const double keep = costs->steps_learnt == 1 ? 0 : 0.7; /* the very first step warms up */
    for (int m = 0; m < costs->graph->method_count; m++) {
        troupe_line_fit_fade(&costs->fits[m], keep);
    }
    for (int i = 0; i < schedule->task_count; i++) {
        const struct troupe_task *task = &schedule->tasks[i];
        troupe_line_fit_add(&costs->fits[costs->fit_of[task->method]],
                            (double)rows_of_task(costs, task->method, task->microbatch),
                            (double)(task->end_ns - task->begin_ns));
    }
    if (costs->links != NULL) {
        troupe_link_costs_learn(costs->links, schedule, keep);
    }
    costs->steps_learnt++;
}

static troupe_status expect_task(troupe_fleet_costs *costs, int method, int microbatch,
                                 int64_t *out) {
    const struct troupe_method *plan = &costs->graph->methods[method];
    const struct troupe_line_fit *fit = &costs->fits[costs->fit_of[method]];
    if (fit->weight > 0) {
        *out = (int64_t)troupe_line_fit_at(fit, (double)rows_of_task(costs, method, microbatch));
        return TROUPE_OK;
    }
    if (costs->options.profile != NULL) {
        return profile_ns(costs, plan, microbatch, out);
    }
    *out = roofline_ns(costs, plan, microbatch);
    return TROUPE_OK;
}

/* The table becomes what is expected, unless that is nearly what it says. */
static void take_expected(troupe_fleet_costs *costs) {
    int64_t work = 0, change = 0, rank_work = 0;
    const struct troupe_graph *graph = costs->graph;
    for (int m = 0; m < graph->method_count; m++) {
        for (int i = costs->first[m]; i < costs->first[m + 1]; i++) {
            work += costs->expected[i];
            change += llabs(costs->expected[i] - costs->ns[i]);
            rank_work += costs->expected[i] * graph->gangs[graph->methods[m].gang].rank_count;
        }
    }
    for (int i = 0; i < graph->edge_count * costs->microbatches; i++) {
        change += llabs(costs->edge_expected[i] - costs->edge_ns[i]);
    }
    if (costs->table.epoch == 0 || change > work / WORK_PER_CHANGE) {
        memcpy(costs->ns, costs->expected,
               (size_t)costs->first[graph->method_count] * sizeof *costs->ns);
        memcpy(costs->edge_ns, costs->edge_expected,
               (size_t)(graph->edge_count * costs->microbatches) * sizeof *costs->edge_ns);
        costs->table.epoch++;
    }
    int64_t work_of_rank = rank_work / graph->rank_count;
    costs->table.search_ns = 1 + work_of_rank / WORK_PER_SEARCH;
    costs->table.tolerance_ns = work_of_rank / WORK_PER_TOLERANCE;
}

troupe_status troupe_fleet_costs_step(troupe_fleet_costs *costs) {
    const struct troupe_graph *graph = costs->graph;
    for (int m = 0; m < graph->method_count; m++) {
        for (int k = 0; k < graph->methods[m].firings; k++) {
            TROUPE_TRY(expect_task(costs, m, k, &costs->expected[costs->first[m] + k]));
        }
    }
    for (int e = 0; costs->links != NULL && e < graph->edge_count; e++) {
        for (int k = 0; k < graph->methods[graph->edges[e].to].firings; k++) {
            costs->edge_expected[e * costs->microbatches + k] =
                troupe_link_costs_ns(costs->links, e, k);
        }
    }
    take_expected(costs);
    return TROUPE_OK;
}

const struct troupe_costs *troupe_fleet_costs_table(const troupe_fleet_costs *costs) {
    return &costs->table;
}

/* ---- life ---- */

/* Methods of one shape and kind learn together. */
static troupe_status make_fits(troupe_fleet_costs *costs) {
    const struct troupe_graph *graph = costs->graph;
    TROUPE_TRY(TROUPE_NEW(&costs->fits, graph->method_count));
    TROUPE_TRY(TROUPE_NEW(&costs->fit_of, graph->method_count));
    for (int m = 0; m < graph->method_count; m++) {
        const struct troupe_method *method = &graph->methods[m];
        const struct sample own = {.shape = costs->shapes[method->gang], .kind = method->kind};
        int first = 0;
        for (; first < m; first++) {
            const struct troupe_method *other = &graph->methods[first];
            const struct sample sample = {.shape = costs->shapes[other->gang], .kind = other->kind};
            if (costs->fit_of[first] == first && compare_shapes(&own, &sample) == 0) {
                break;
            }
        }
        costs->fit_of[m] = first;
    }
    return TROUPE_OK;
}

static troupe_status make_shapes(troupe_fleet_costs *costs) {
    const struct troupe_graph *graph = costs->graph;
    TROUPE_TRY(TROUPE_NEW(&costs->shapes, graph->gang_count));
    TROUPE_TRY(TROUPE_NEW(&costs->reduction_ns, graph->gang_count));
    for (int g = 0; g < graph->gang_count; g++) {
        TROUPE_TRY(shape_of(costs->options.fleet, &graph->gangs[g], &costs->shapes[g]));
        TROUPE_TRY(find_reduction_ns(costs, &graph->gangs[g], &costs->reduction_ns[g]));
    }
    return TROUPE_OK;
}

static troupe_status make(troupe_fleet_costs *costs) {
    const struct troupe_fleet *fleet = costs->options.fleet;
    const struct troupe_graph *graph = NULL;
    TROUPE_TRY(troupe_runtime_graph(fleet->runtime, &graph));
    costs->graph = graph;
    costs->microbatches = fleet->options.config->train.microbatches;
    costs->table = (struct troupe_costs){.task_ns = task_ns, .edge_ns = edge_ns, .arg = costs};
    TROUPE_TRY(TROUPE_NEW(&costs->first, graph->method_count + 1));
    for (int m = 0; m < graph->method_count; m++) {
        costs->first[m + 1] = costs->first[m] + graph->methods[m].firings;
    }
    TROUPE_TRY(TROUPE_NEW(&costs->ns, costs->first[graph->method_count]));
    TROUPE_TRY(TROUPE_NEW(&costs->expected, costs->first[graph->method_count]));
    TROUPE_TRY(TROUPE_NEW(&costs->edge_ns, graph->edge_count * costs->microbatches));
    TROUPE_TRY(TROUPE_NEW(&costs->edge_expected, graph->edge_count * costs->microbatches));
    if (costs->options.forecast != NULL) {
        TROUPE_TRY(troupe_link_costs_create(
            &(struct troupe_link_costs_options){.graph = graph,
                                                .forecast = costs->options.forecast,
                                                .cluster = costs->options.cluster,
                                                .comm = fleet->options.comm},
            &costs->links));
    }
    TROUPE_TRY(make_shapes(costs));
    TROUPE_TRY(make_fits(costs));
    struct troupe_batch_bounds bounds = troupe_sample_plan_bounds(fleet->options.samples, 1);
    TROUPE_TRY(TROUPE_NEW(&costs->lengths, bounds.samples + bounds.images + 1));
    return costs->options.profile != NULL ? read_profile(costs) : TROUPE_OK;
}

troupe_status troupe_fleet_costs_create(const struct troupe_fleet_costs_options *options,
                                        troupe_fleet_costs **out) {
    troupe_fleet_costs *costs = NULL;
    TROUPE_TRY(TROUPE_NEW(&costs, 1));
    costs->options = *options;
    troupe_status status = make(costs);
    if (status != TROUPE_OK) {
        troupe_fleet_costs_destroy(costs);
        return status;
    }
    *out = costs;
    return TROUPE_OK;
}

void troupe_fleet_costs_destroy(troupe_fleet_costs *costs) {
    if (costs != NULL) {
        troupe_free(costs->first);
        troupe_free(costs->ns);
        troupe_free(costs->expected);
        troupe_free(costs->fits);
        troupe_free(costs->fit_of);
        troupe_free(costs->reduction_ns);
        troupe_link_costs_destroy(costs->links);
        troupe_free(costs->edge_ns);
        troupe_free(costs->edge_expected);
        troupe_free(costs->shapes);
        troupe_free(costs->samples);
        troupe_free(costs->lengths);
        troupe_free(costs);
    }
}
