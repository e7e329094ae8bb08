/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/state_map.h"

#include <string.h>

#include "runtime/check.h"
#include "runtime/memory.h"

enum { HOLDERS_MAX = 2, NO_STAGE = -1 }; /* a tied tensor lives on the first and the last stage */

/* What makes two tensors of a plan share a layout. */
struct kind {
    int module;
    int stages[HOLDERS_MAX];
    int64_t rows, columns;
    int tp_dimension;
};

static void matrix_shape(const struct troupe_parameter_spec *spec, int64_t *rows,
                         int64_t *columns) {
    *rows = spec->shape[0];
    *columns = 1;
    for (int d = 1; d < spec->dimensions; d++) {
        *columns *= spec->shape[d];
    }
}

/* ---- tensors ---- */

static troupe_status init_tensors(const struct troupe_model_config *config,
                                  struct troupe_state_map *map) {
    *map = (struct troupe_state_map){.tensor_count = troupe_model_specs(config, NULL)};
    TROUPE_TRY(TROUPE_NEW(&map->specs, map->tensor_count));
    TROUPE_TRY(TROUPE_NEW(&map->class_of_tensor, map->tensor_count));
    TROUPE_TRY(TROUPE_NEW(&map->layouts, map->tensor_count));
    troupe_model_specs(config, map->specs);
    return TROUPE_OK;
}

void troupe_state_map_fini(struct troupe_state_map *map) {
    for (int c = 0; c < map->class_count; c++) {
        troupe_layout_fini(&map->layouts[c]);
    }
    troupe_free(map->specs);
    troupe_free(map->class_of_tensor);
    troupe_free(map->layouts);
    *map = (struct troupe_state_map){.tensor_count = 0};
}

int troupe_state_map_find(const struct troupe_state_map *map, const char *name, int hint) {
    for (int i = 0; i < map->tensor_count; i++) {
        int tensor = (hint + i) % map->tensor_count;
        if (strcmp(map->specs[tensor].name, name) == 0) {
            return tensor;
        }
    }
    TROUPE_ASSERT(false, "the model has no parameter %s", name);
    return -1;
}

/* ---- a plan's ---- */

/* Notes which stages of the module hold which tensors. */
static troupe_status find_stages(const struct troupe_model_config *config,
                                 const struct troupe_plan *plan, int module,
                                 const struct troupe_state_map *map, struct kind *kinds) {
    const struct troupe_module_plan *m = &plan->modules[module];
    int hint = 0;
    for (int s = 0; s < m->pp; s++) {
        struct troupe_shard shard = troupe_plan_shard(m, s, 0);
        struct troupe_parameter_spec *specs = NULL;
        int count = m->module_class->specs(config, &shard, NULL);
        TROUPE_TRY(TROUPE_NEW(&specs, count));
        m->module_class->specs(config, &shard, specs);
        for (int i = 0; i < count; i++) {
            int tensor = troupe_state_map_find(map, specs[i].name, hint);
            int *stages = kinds[tensor].stages;
            hint = tensor + 1;
            kinds[tensor].module = module;
            stages[stages[0] == NO_STAGE ? 0 : 1] = s;
        }
        troupe_free(specs);
    }
    return TROUPE_OK;
}

/* The pieces of one stage; where TP splits columns that stand for several dimensions, a part is
 * whole slices of the split one. */
static troupe_status layout_of_stage(const struct troupe_plan *plan, const struct kind *kind,
                                     int stage, int64_t extent, struct troupe_layout *out) {
    const struct troupe_module_plan *module = &plan->modules[kind->module];
    struct troupe_layout_options options = {
        .mesh = &module->mesh, .stage = stage, .shape = {kind->rows, kind->columns}};
    int64_t *offsets = NULL;
    TROUPE_TRY(TROUPE_NEW(&offsets, module->tp + 1));
    if (kind->tp_dimension >= 0) {
        int64_t slice = kind->tp_dimension == 0 ? 1 : kind->columns / extent;
        for (int t = 0; t <= module->tp; t++) {
            offsets[t] = troupe_split_begin(extent, module->tp, t) * slice;
        }
        options.split[kind->tp_dimension] = TROUPE_AXES(TROUPE_TP);
        options.offsets[kind->tp_dimension] = offsets;
    }
    troupe_status status = troupe_layout_init(&options, out);
    troupe_free(offsets);
    return status;
}

static troupe_status append_pieces(struct troupe_layout *layout, const struct troupe_layout *more) {
    for (int i = 0; i < more->piece_count; i++) {
        TROUPE_TRY(troupe_layout_add(layout, more->pieces[i].rank, -1, &more->pieces[i].box));
    }
    return TROUPE_OK;
}

static troupe_status layout_of_kind(const struct troupe_plan *plan, const struct kind *kind,
                                    int64_t extent, struct troupe_layout *out) {
    struct troupe_layout second = {.piece_count = 0};
    TROUPE_TRY(layout_of_stage(plan, kind, kind->stages[0], extent, out));
    if (kind->stages[1] == NO_STAGE) {
        return TROUPE_OK;
    }
    troupe_status status = layout_of_stage(plan, kind, kind->stages[1], extent, &second);
    if (status == TROUPE_OK) {
        status = append_pieces(out, &second);
    }
    troupe_layout_fini(&second);
    if (status != TROUPE_OK) {
        troupe_layout_fini(out);
    }
    return status;
}

static bool same_kind(const struct kind *a, const struct kind *b) {
    return a->module == b->module && a->stages[0] == b->stages[0] && a->stages[1] == b->stages[1] &&
           a->rows == b->rows && a->columns == b->columns && a->tp_dimension == b->tp_dimension;
}

/* The first tensor of a kind stands for its class. */
static troupe_status make_classes(const struct troupe_plan *plan, const struct kind *kinds,
                                  struct troupe_state_map *map) {
    for (int t = 0; t < map->tensor_count; t++) {
        int like = 0;
        while (!same_kind(&kinds[like], &kinds[t])) {
            like++;
        }
        if (like < t) {
            map->class_of_tensor[t] = map->class_of_tensor[like];
            continue;
        }
        int split = kinds[t].tp_dimension;
        TROUPE_TRY(layout_of_kind(plan, &kinds[t], split >= 0 ? map->specs[t].shape[split] : 0,
                                  &map->layouts[map->class_count]));
        map->class_of_tensor[t] = map->class_count++;
    }
    return TROUPE_OK;
}

static troupe_status fill_kinds(const struct troupe_model_config *config,
                                const struct troupe_plan *plan, const struct troupe_state_map *map,
                                struct kind *kinds) {
    for (int t = 0; t < map->tensor_count; t++) {
        kinds[t] = (struct kind){.stages = {NO_STAGE, NO_STAGE},
                                 .tp_dimension = map->specs[t].tp_dimension};
        TROUPE_ASSERT(kinds[t].tp_dimension <= 1, "%s is split along dimension %d",
                      map->specs[t].name, kinds[t].tp_dimension);
        matrix_shape(&map->specs[t], &kinds[t].rows, &kinds[t].columns);
    }
    for (int m = 0; m < TROUPE_CONFIG_MODULES; m++) {
        TROUPE_TRY(find_stages(config, plan, m, map, kinds));
    }
    return TROUPE_OK;
}

troupe_status troupe_state_map_of_plan(const struct troupe_model_config *config,
                                       const struct troupe_plan *plan,
                                       struct troupe_state_map *out) {
    struct kind *kinds = NULL;
    TROUPE_TRY(init_tensors(config, out));
    TROUPE_TRY(TROUPE_NEW(&kinds, out->tensor_count));
    troupe_status status = fill_kinds(config, plan, out, kinds);
    if (status == TROUPE_OK) {
        status = make_classes(plan, kinds, out);
    }
    troupe_free(kinds);
    return status;
}

/* ---- readers' ---- */

static troupe_status split_rows(struct troupe_layout *layout, int parts) {
    for (int r = 0; r < parts; r++) {
        int64_t begin = troupe_split_begin(layout->shape[0], parts, r);
        int64_t end = troupe_split_begin(layout->shape[0], parts, r + 1);
        struct troupe_box box = troupe_box_2d(begin, end, 0, layout->shape[1]);
        TROUPE_TRY(troupe_layout_add(layout, r, -1, &box));
    }
    return TROUPE_OK;
}

static int class_of_shape(const struct troupe_state_map *map, int64_t rows, int64_t columns) {
    int c = 0;
    while (c < map->class_count &&
           (map->layouts[c].shape[0] != rows || map->layouts[c].shape[1] != columns)) {
        c++;
    }
    return c;
}

troupe_status troupe_state_map_of_readers(const struct troupe_model_config *config, int rank_count,
                                          struct troupe_state_map *out) {
    TROUPE_TRY(init_tensors(config, out));
    for (int t = 0; t < out->tensor_count; t++) {
        int64_t rows = 0, columns = 0;
        matrix_shape(&out->specs[t], &rows, &columns);
        int c = out->class_of_tensor[t] = class_of_shape(out, rows, columns);
        if (c == out->class_count) {
            out->class_count++;
            TROUPE_TRY(troupe_layout_init(&(struct troupe_layout_options){.shape = {rows, columns}},
                                          &out->layouts[c]));
            TROUPE_TRY(split_rows(&out->layouts[c], rank_count));
        }
    }
    return TROUPE_OK;
}

/* ---- use ---- */

void troupe_state_map_relabel(struct troupe_state_map *map, const int *rank_of_role) {
    for (int c = 0; c < map->class_count; c++) {
        struct troupe_layout *layout = &map->layouts[c];
        for (int i = 0; i < layout->piece_count; i++) {
            layout->pieces[i].rank = rank_of_role[layout->pieces[i].rank];
        }
    }
}

bool troupe_state_map_box(const struct troupe_state_map *map, int tensor, int rank,
                          struct troupe_box *out) {
    const struct troupe_layout *layout = &map->layouts[map->class_of_tensor[tensor]];
    for (int i = 0; i < layout->piece_count; i++) {
        if (layout->pieces[i].rank == rank) {
            *out = layout->pieces[i].box;
            return true;
        }
    }
    return false;
}
