/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "comm/layout.h"
#include "runtime/check.h"
#include "runtime/memory.h"
#include "scheduler/place.h"

/* Floating-point numbers per parameter while training: value, gradient, two moments. */
enum { FLOATS_PER_PARAMETER = 4 };

static troupe_status count_parameters(const struct troupe_model_config *config,
                                      const struct troupe_module_class *class, double *out) {
    struct troupe_shard shard = troupe_shard_whole(class, config);
    struct troupe_parameter_spec *specs = NULL;
    int count = class->specs(config, &shard, NULL);
    TROUPE_TRY(TROUPE_NEW(&specs, count));
    class->specs(config, &shard, specs);
    *out = 0;
    for (int i = 0; i < count; i++) {
        double elements = 1;
        for (int d = 0; d < specs[i].dimensions; d++) {
            elements *= (double)specs[i].shape[d];
        }
        *out += elements;
    }
    troupe_free(specs);
    return TROUPE_OK;
}

/* What the config says of one module; `ranks` and `layers` are the caller's memory. */
struct wish {
    int *ranks;
    int layers[TROUPE_CONFIG_LIST_MAX];
    struct troupe_place_divisible divisible[2];
};

static troupe_status read_wish(const struct troupe_config *config, int index, int rank_count,
                               struct wish *memory, struct troupe_place_layout *out) {
    const struct troupe_config_placement *p = &config->placement.module[index];
    /* Ranks that this job lacks may be meant for a larger one and another policy. */
    bool binds = strcmp(config->placement.policy, "manual") == 0;
    TROUPE_TRY(TROUPE_NEW(&memory->ranks, rank_count));
    *out = (struct troupe_place_layout){.ranks = memory->ranks,
                                        .tp = p->tp,
                                        .cp = p->cp,
                                        .dp = binds || p->dp <= rank_count ? p->dp : 0,
                                        .pp = p->pp,
                                        .layers = memory->layers,
                                        .layers_count = p->layers.count};
    for (int i = 0; i < p->layers.count; i++) {
        memory->layers[i] = p->layers.values[i];
    }
    if (p->ranks[0] == '\0') {
        return TROUPE_OK;
    }
    troupe_status status =
        troupe_ranks_parse(p->ranks, rank_count, memory->ranks, &out->rank_count);
    if (status != TROUPE_OK && binds) {
        return troupe_fail_in(status, "placement.%s.ranks", troupe_module_classes()[index]->name);
    }
    return TROUPE_OK;
}

static troupe_status pose_module(const struct troupe_config *config, int index, int rank_count,
                                 struct wish *wish, struct troupe_place_module *out) {
    const struct troupe_module_class *class = troupe_module_classes()[index];
    const struct troupe_model_config *model = &config->model;
    double parameters = 0;
    TROUPE_TRY(count_parameters(model, class, &parameters));
    int side = model->vision.image / model->vision.patch;
    double rows =
        index == TROUPE_LLM ? model->llm.sequence : (double)side * side * config->data.max_images;
    *out = (struct troupe_place_module){
        .name = class->name,
        .depth = TROUPE_LLM - index,
        .follows = index == TROUPE_PROJECTOR ? 1 + TROUPE_VISION : 0,
        .layers = index == TROUPE_PROJECTOR ? 0 : class->layer_count(model),
        .cost = parameters * rows,
        .bytes = parameters * FLOATS_PER_PARAMETER * sizeof(float),
        .divisible = wish->divisible,
    };
    if (index == TROUPE_VISION) {
        wish->divisible[out->divisible_count++] =
            (struct troupe_place_divisible){"heads", model->vision.heads};
    } else if (index == TROUPE_LLM) {
        wish->divisible[out->divisible_count++] =
            (struct troupe_place_divisible){"heads", model->llm.heads};
        wish->divisible[out->divisible_count++] =
            (struct troupe_place_divisible){"kv_heads", model->llm.kv_heads};
    }
    return read_wish(config, index, rank_count, wish, &out->wish);
}

static troupe_status take_layout(const struct troupe_config *config, int index,
                                 const struct troupe_place_layout *layout,
                                 struct troupe_module_plan *out) {
    out->module_class = troupe_module_classes()[index];
    out->tp = layout->tp;
    out->dp = layout->dp;
    out->pp = layout->pp;
    TROUPE_TRY(out->module_class->check(&config->model, layout->tp));
    TROUPE_TRY(troupe_mesh_init(&(struct troupe_mesh_options){.ranks = layout->ranks,
                                                              .rank_count = layout->rank_count,
                                                              .tp = layout->tp,
                                                              .cp = layout->cp,
                                                              .dp = layout->dp,
                                                              .pp = layout->pp},
                                &out->mesh));
    TROUPE_TRY(TROUPE_NEW(&out->layer_begin, layout->pp + 1));
    int layers = out->module_class->layer_count(&config->model);
    for (int s = 0; s <= layout->pp; s++) {
        out->layer_begin[s] = layout->layers_count > 0 && s > 0
                                  ? out->layer_begin[s - 1] + layout->layers[s - 1]
                                  : (int)troupe_split_begin(layers, layout->pp, s);
    }
    return TROUPE_OK;
}

/* The projector does what the encoder in front of it does, unless it has shares of its own. */
static const struct troupe_config_list *shares_of(const struct troupe_config *config, int index,
                                                  const struct troupe_plan *plan) {
    const struct troupe_config_list *own = &config->placement.module[index].shares;
    bool follows = index == TROUPE_PROJECTOR && own->count == 0 &&
                   plan->modules[TROUPE_VISION].shares != NULL &&
                   plan->modules[TROUPE_VISION].dp == plan->modules[index].dp;
    return follows ? &config->placement.module[TROUPE_VISION].shares : own;
}

static troupe_status take_shares(const struct troupe_config *config, int index,
                                 struct troupe_plan *plan) {
    const struct troupe_config_list *shares = shares_of(config, index, plan);
    struct troupe_module_plan *module = &plan->modules[index];
    bool binds = strcmp(config->placement.policy, "manual") == 0;
    if (binds && shares->count > 0 && shares->count != module->dp) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "placement.%s.shares: %d shares are listed, but dp is %d; list one for "
                           "each shard",
                           module->module_class->name, shares->count, module->dp);
    }
    if (shares->count != module->dp) {
        return TROUPE_OK;
    }
    TROUPE_TRY(TROUPE_NEW(&module->shares, module->dp));
    for (int i = 0; i < module->dp; i++) {
        module->shares[i] = shares->values[i];
    }
    return TROUPE_OK;
}

static void add_ignored(struct troupe_plan *plan, int module, const char *key) {
    size_t used = strlen(plan->ignored);
    snprintf(plan->ignored + used, sizeof plan->ignored - used, "%splacement.%s.%s",
             used > 0 ? ", " : "", plan->modules[module].module_class->name, key);
}

static bool has_ranks(const struct troupe_mesh *mesh, const struct troupe_place_layout *wish) {
    return wish->rank_count == mesh->rank_count &&
           memcmp(wish->ranks, mesh->ranks, (size_t)mesh->rank_count * sizeof *mesh->ranks) == 0;
}

static bool has_layers(const struct troupe_module_plan *module,
                       const struct troupe_place_layout *wish) {
    bool has = wish->layers_count == module->pp;
    for (int s = 0; has && s < module->pp; s++) {
        has = wish->layers[s] == module->layer_begin[s + 1] - module->layer_begin[s];
    }
    return has;
}

/* A mapping is often written for one policy and run with another; but not unnoticed. */
static void list_ignored(const struct troupe_config *config, int index,
                         const struct troupe_place_layout *wish, struct troupe_plan *plan) {
    const struct troupe_module_plan *module = &plan->modules[index];
    const struct {
        const char *key;
        int wished, got;
    } sizes[] = {
        {"tp", wish->tp, module->tp}, {"dp", wish->dp, module->dp}, {"pp", wish->pp, module->pp}};
    if (config->placement.module[index].ranks[0] != '\0' && !has_ranks(&module->mesh, wish)) {
        add_ignored(plan, index, "ranks");
    }
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (sizes[i].wished > 0 && sizes[i].wished != sizes[i].got) {
            add_ignored(plan, index, sizes[i].key);
        }
    }
    if (wish->layers_count > 0 && !has_layers(module, wish)) {
        add_ignored(plan, index, "layers");
    }
    if (config->placement.module[index].shares.count > 0 && module->shares == NULL) {
        add_ignored(plan, index, "shares");
    }
}

static troupe_status place(const struct troupe_config *config,
                           const struct troupe_place_module *modules, struct troupe_plan *plan) {
    const struct troupe_place_policy *policy = NULL;
    struct troupe_place_problem problem = {
        .rank_count = plan->rank_count, .modules = modules, .module_count = TROUPE_CONFIG_MODULES};
    struct troupe_placement placement = {0};
    TROUPE_TRY(troupe_place_find(config->placement.policy, &policy));
    TROUPE_TRY(troupe_place(policy, &problem, &placement));
    troupe_status status = TROUPE_OK;
    for (int i = 0; status == TROUPE_OK && i < TROUPE_CONFIG_MODULES; i++) {
        status = take_layout(config, i, &placement.modules[i], &plan->modules[i]);
        if (status == TROUPE_OK) {
            status = take_shares(config, i, plan);
        }
        if (status == TROUPE_OK) {
            list_ignored(config, i, &modules[i].wish, plan);
        }
    }
    troupe_placement_fini(&placement);
    return status;
}

troupe_status troupe_plan_create(const struct troupe_config *config, int rank_count,
                                 struct troupe_plan **out) {
    struct troupe_place_module modules[TROUPE_CONFIG_MODULES];
    struct wish wishes[TROUPE_CONFIG_MODULES] = {{0}};
    struct troupe_plan *plan = NULL;
    TROUPE_TRY(TROUPE_NEW(&plan, 1));
    plan->rank_count = rank_count;
    troupe_status status = TROUPE_OK;
    for (int i = 0; status == TROUPE_OK && i < TROUPE_CONFIG_MODULES; i++) {
        status = pose_module(config, i, rank_count, &wishes[i], &modules[i]);
    }
    if (status == TROUPE_OK) {
        status = place(config, modules, plan);
    }
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        troupe_free(wishes[i].ranks);
    }
    if (status != TROUPE_OK) {
        troupe_plan_destroy(plan);
        return status;
    }
    *out = plan;
    return TROUPE_OK;
}

void troupe_plan_destroy(struct troupe_plan *plan) {
    if (plan == NULL) {
        return;
    }
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        troupe_mesh_fini(&plan->modules[i].mesh);
        troupe_free(plan->modules[i].layer_begin);
        troupe_free(plan->modules[i].shares);
    }
    troupe_free(plan);
}

struct troupe_shard troupe_plan_shard(const struct troupe_module_plan *module, int stage,
                                      int tp_index) {
    return (struct troupe_shard){.tp_index = tp_index,
                                 .tp_count = module->tp,
                                 .layer_begin = module->layer_begin[stage],
                                 .layer_end = module->layer_begin[stage + 1],
                                 .first_stage = stage == 0,
                                 .last_stage = stage == module->pp - 1};
}

static int rank_at(const struct troupe_module_plan *module, int tp, int dp, int stage) {
    return module->mesh
        .ranks[tp * module->mesh.stride[TROUPE_TP] + dp * module->mesh.stride[TROUPE_DP] +
               stage * module->mesh.stride[TROUPE_PP]];
}

int troupe_plan_tp_ranks(const struct troupe_module_plan *module, int stage, int dp, int *ranks) {
    for (int t = 0; t < module->tp; t++) {
        ranks[t] = rank_at(module, t, dp, stage);
    }
    return module->tp;
}

int troupe_plan_dp_ranks(const struct troupe_module_plan *module, int stage, int tp, int *ranks) {
    for (int d = 0; d < module->dp; d++) {
        ranks[d] = rank_at(module, tp, d, stage);
    }
    return module->dp;
}

void troupe_plan_relabel(struct troupe_plan *plan, const int *rank_of_role) {
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        struct troupe_mesh *mesh = &plan->modules[i].mesh;
        for (int r = 0; r < mesh->rank_count; r++) {
            mesh->ranks[r] = rank_of_role[mesh->ranks[r]];
        }
    }
}

/* ---- in words ---- */

enum { LINE_BYTES = 1024 };

struct text {
    char line[LINE_BYTES];
    size_t used;
};

static void add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What does not fit is cut off. */
static void add(struct text *text, const char *format, ...) {
    size_t room = sizeof text->line - text->used;
    va_list args;
    va_start(args, format);
    int wrote = vsnprintf(text->line + text->used, room, format, args);
    va_end(args);
    text->used += wrote < (int)room ? (size_t)wrote : room - 1;
}

static void describe_module(const struct troupe_module_plan *module, struct text *text) {
    add(text, "%-9s tp %d, dp %d, pp %d on ranks", module->module_class->name, module->tp,
        module->dp, module->pp);
    for (int r = 0; r < module->mesh.rank_count; r++) {
        add(text, " %d", module->mesh.ranks[r]);
    }
    for (int s = 0; module->pp > 1 && s < module->pp; s++) {
        add(text, "%s %d-%d", s == 0 ? ", layers by stage" : "", module->layer_begin[s],
            module->layer_begin[s + 1] - 1);
    }
    for (int d = 0; module->shares != NULL && d < module->dp; d++) {
        add(text, "%s %d", d == 0 ? ", shares of image work" : "", module->shares[d]);
    }
}

void troupe_plan_describe(const struct troupe_plan *plan, void (*line)(void *arg, const char *text),
                          void *arg) {
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        struct text text = {.used = 0};
        describe_module(&plan->modules[i], &text);
        line(arg, text.line);
    }
}
