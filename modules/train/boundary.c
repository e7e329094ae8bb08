/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/boundary.h"

#include <stdio.h>

#include "comm/wire.h"
#include "runtime/memory.h"

/* The one rule there is: sums over target tokens divided by the step's global token count. */
enum { NORMALISATION_TOKENS = 1 };

/* Parts of a side's rows. */
static int parts_of(const struct troupe_boundary_side *side) {
    int rounds = side->split == NULL ? 1 : troupe_image_split_rounds(side->split);
    return rounds * side->module->dp;
}

/* Rows split over DP, copies on every TP rank. */
static troupe_status layout_of(const struct troupe_boundary_side *side, int64_t columns,
                               struct troupe_layout *out) {
    return troupe_layout_init(
        &(struct troupe_layout_options){.mesh = &side->module->mesh,
                                        .stage = side->stage,
                                        .shape = {0, columns},
                                        .ragged = true,
                                        .rounds = parts_of(side) / side->module->dp,
                                        .split = {TROUPE_AXES(TROUPE_DP)}},
        out);
}

static troupe_status compile_routes(struct troupe_boundary *boundary) {
    const struct troupe_boundary_options *o = &boundary->options;
    struct troupe_layout source = {.ragged = true}, destination = {.ragged = true};
    troupe_status status = layout_of(&o->source, o->columns, &source);
    if (status == TROUPE_OK) {
        status = layout_of(&o->destination, o->columns, &destination);
    }
    for (int d = 0; status == TROUPE_OK && d < 2; d++) {
        status = troupe_route_compile(
            &(struct troupe_route_options){.source = d == 0 ? &source : &destination,
                                           .destination = d == 0 ? &destination : &source,
                                           .host_of_rank = o->host_of_rank,
                                           .element_bytes = sizeof(float)},
            &boundary->directions[d].route);
    }
    troupe_layout_fini(&source);
    troupe_layout_fini(&destination);
    return status;
}

static troupe_status build(struct troupe_boundary *boundary) {
    const struct troupe_boundary_options *o = &boundary->options;
    int m = boundary->microbatches;
    TROUPE_TRY(TROUPE_NEW(&boundary->source_offsets, m * (parts_of(&o->source) + 1)));
    TROUPE_TRY(TROUPE_NEW(&boundary->destination_offsets, m * (parts_of(&o->destination) + 1)));
    TROUPE_TRY(TROUPE_NEW(&boundary->sample_sets, m));
    return compile_routes(boundary);
}

troupe_status troupe_boundary_init(const struct troupe_boundary_options *options,
                                   struct troupe_boundary *out) {
    *out = (struct troupe_boundary){
        .options = *options, .microbatches = troupe_sample_plan_microbatches(options->samples)};
    for (int d = 0; d < 2; d++) {
        out->directions[d].boundary = out;
        out->directions[d].backward = d == 1;
    }
    troupe_status status = build(out);
    if (status != TROUPE_OK) {
        troupe_boundary_fini(out);
    }
    return status;
}

void troupe_boundary_fini(struct troupe_boundary *boundary) {
    troupe_route_destroy(boundary->directions[0].route);
    troupe_route_destroy(boundary->directions[1].route);
    troupe_free(boundary->source_offsets);
    troupe_free(boundary->destination_offsets);
    troupe_free(boundary->sample_sets);
    *boundary = (struct troupe_boundary){.microbatches = 0};
}

static void plan_message(void *arg, int64_t step, int microbatch, int shard,
                         struct troupe_message_plan *out) {
    (void)step;
    (void)shard;
    const struct troupe_boundary_direction *direction = arg;
    const struct troupe_boundary *b = direction->boundary;
    const int64_t *source = troupe_boundary_source_offsets(b, microbatch);
    const int64_t *destination = troupe_boundary_destination_offsets(b, microbatch);
    out->source_offsets = direction->backward ? destination : source;
    out->destination_offsets = direction->backward ? source : destination;
    out->sample_set = b->sample_sets[microbatch];
    out->normalisation = b->normalisation;
}

static int64_t rows_max(const struct troupe_boundary_options *o,
                        const struct troupe_boundary_side *side) {
    struct troupe_batch_bounds bounds =
        side->split != NULL ? troupe_image_split_bounds(side->split)
                            : troupe_sample_plan_bounds(o->samples, side->module->dp);
    return o->fused ? bounds.rows : bounds.image_tokens;
}

troupe_status troupe_boundary_connect(struct troupe_boundary *boundary, troupe_runtime *runtime) {
    const struct troupe_boundary_options *o = &boundary->options;
    for (int d = 0; d < 2; d++) {
        char name[96];
        const struct troupe_boundary_side *from = d == 0 ? &o->source : &o->destination;
        const struct troupe_boundary_side *to = d == 0 ? &o->destination : &o->source;
        snprintf(name, sizeof name, "%s%s", o->name, d == 0 ? "" : " gradients");
        struct troupe_connect_options options = {
            .name = name,
            .from = from->gangs,
            .from_count = from->module->dp,
            .from_port = d == 0 ? from->rows_port : from->gradients_port,
            .to = to->gangs,
            .to_count = to->module->dp,
            .to_port = d == 0 ? to->rows_port : to->gradients_port,
            .credits = o->credits,
            .columns = o->columns,
            .dtype = TROUPE_FLOAT32,
            .from_rows_max = rows_max(o, from),
            .to_rows_max = rows_max(o, to),
            .route = boundary->directions[d].route,
            .plan = plan_message,
            .arg = &boundary->directions[d],
        };
        TROUPE_TRY(troupe_connect(runtime, &options, NULL));
    }
    return TROUPE_OK;
}

const int64_t *troupe_boundary_source_offsets(const struct troupe_boundary *boundary,
                                              int microbatch) {
    return boundary->source_offsets + microbatch * (parts_of(&boundary->options.source) + 1);
}

const int64_t *troupe_boundary_destination_offsets(const struct troupe_boundary *boundary,
                                                   int microbatch) {
    return boundary->destination_offsets +
           microbatch * (parts_of(&boundary->options.destination) + 1);
}

static void fill_offsets(const struct troupe_boundary_options *o,
                         const struct troupe_boundary_side *side, int microbatch,
                         int64_t *offsets_out) {
    if (side->split != NULL) {
        troupe_image_split_offsets(side->split, microbatch, offsets_out);
    } else if (o->fused) {
        troupe_sample_plan_row_offsets(o->samples, microbatch, side->module->dp, offsets_out);
    } else {
        troupe_sample_plan_image_offsets(o->samples, microbatch, side->module->dp, offsets_out);
    }
}

void troupe_boundary_begin_step(struct troupe_boundary *boundary) {
    const struct troupe_boundary_options *o = &boundary->options;
    int source_parts = parts_of(&o->source), destination_parts = parts_of(&o->destination);
    for (int k = 0; k < boundary->microbatches; k++) {
        fill_offsets(o, &o->source, k, boundary->source_offsets + k * (source_parts + 1));
        fill_offsets(o, &o->destination, k,
                     boundary->destination_offsets + k * (destination_parts + 1));
        boundary->sample_sets[k] = troupe_sample_plan_hash(o->samples, k);
    }
    boundary->normalisation = troupe_normalisation_tag(
        NORMALISATION_TOKENS, (uint64_t)troupe_sample_plan_step_targets(o->samples));
}
