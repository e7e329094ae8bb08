/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/restore.h"

#include <string.h>

#include "modules/train/agree.h"
#include "modules/train/checkpoint.h"
#include "runtime/memory.h"

struct restore {
    struct troupe_fleet *fleet;
    struct troupe_state_map from, to;
    struct troupe_parameter *boxes; /* by tensor: what this rank reads */
    struct troupe_state_part *from_parts, *to_parts;
    float *memory; /* of from_parts */
    struct troupe_state_move *move;
};

/* ---- this rank's share ---- */

/* Rows of the tensor as a matrix are slices of its dimension 0. */
static void describe_box(const struct restore *r, int tensor, struct troupe_parameter *out) {
    struct troupe_box box = {.begin = {0}};
    *out = (struct troupe_parameter){.spec = r->from.specs[tensor]};
    memcpy(out->extent, out->spec.shape, sizeof out->extent);
    troupe_state_map_box(&r->from, tensor, r->fleet->rank, &box);
    out->begin[0] = box.begin[0];
    out->extent[0] = box.end[0] - box.begin[0];
}

static troupe_status make_share(struct restore *r) {
    int64_t elements = 0;
    TROUPE_TRY(TROUPE_NEW(&r->boxes, r->from.tensor_count));
    TROUPE_TRY(TROUPE_NEW(&r->from_parts, r->from.tensor_count));
    for (int t = 0; t < r->from.tensor_count; t++) {
        describe_box(r, t, &r->boxes[t]);
        elements += troupe_parameter_elements(&r->boxes[t]);
    }
    TROUPE_TRY(TROUPE_NEW(&r->memory, elements * TROUPE_STATE_KINDS));
    float *next = r->memory;
    for (int t = 0; t < r->from.tensor_count; t++) {
        for (int k = 0; k < TROUPE_STATE_KINDS; k++) {
            r->from_parts[t].data[k] = next;
            next += troupe_parameter_elements(&r->boxes[t]);
        }
    }
    return TROUPE_OK;
}

static troupe_status read_share(struct restore *r, const char *path) {
    static const enum troupe_checkpoint_file files[TROUPE_STATE_KINDS] = {
        [TROUPE_STATE_VALUE] = TROUPE_CHECKPOINT_MODEL,
        [TROUPE_STATE_FIRST] = TROUPE_CHECKPOINT_FIRST_MOMENTS,
        [TROUPE_STATE_SECOND] = TROUPE_CHECKPOINT_SECOND_MOMENTS};
    for (int k = 0; k < TROUPE_STATE_KINDS; k++) {
        for (int t = 0; t < r->from.tensor_count; t++) {
            r->boxes[t].value = r->from_parts[t].data[k];
        }
        TROUPE_TRY(troupe_checkpoint_read(path, files[k], r->boxes, r->from.tensor_count));
    }
    return TROUPE_OK;
}

/* ---- the call ---- */

static troupe_status plan_move(struct restore *r) {
    const struct troupe_fleet_options *o = &r->fleet->options;
    TROUPE_TRY(troupe_fleet_state(r->fleet, &r->to, &r->to_parts));
    return troupe_state_move_create(&(struct troupe_state_move_options){.comm = o->comm,
                                                                        .stream = r->fleet->stream,
                                                                        .from = &r->from,
                                                                        .to = &r->to,
                                                                        .from_parts = r->from_parts,
                                                                        .to_parts = r->to_parts},
                                    &r->move);
}

static troupe_status prepare(struct restore *r, const char *path) {
    const struct troupe_model_config *model = &r->fleet->options.config->model;
    const struct troupe_plan *plan = r->fleet->plan;
    TROUPE_TRY(troupe_state_map_of_readers(model, plan->rank_count, &r->from));
    TROUPE_TRY(troupe_state_map_of_plan(model, plan, &r->to));
    TROUPE_TRY(make_share(r));
    TROUPE_TRY(plan_move(r));
    return read_share(r, path);
}

troupe_status troupe_restore(struct troupe_fleet *fleet, troupe_group *world, const char *path) {
    struct restore r = {.fleet = fleet};
    troupe_status status = troupe_agree(world, prepare(&r, path), 0);
    if (status == TROUPE_OK) {
        status = troupe_state_move_run(r.move);
    }
    troupe_state_move_destroy(r.move);
    troupe_free(r.from_parts);
    troupe_free(r.to_parts);
    troupe_free(r.boxes);
    troupe_free(r.memory);
    troupe_state_map_fini(&r.from);
    troupe_state_map_fini(&r.to);
    return status;
}
