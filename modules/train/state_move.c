/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/state_move.h"

#include "runtime/memory.h"

/* Tensors of one class before and one after share a route. */
struct way {
    int from_class, to_class;
    troupe_route *route;
    struct troupe_route_binding *binding;
};

struct troupe_state_move {
    struct troupe_state_move_options options;
    int rank;
    struct way *ways;
    int way_count;
    struct troupe_moved_tensor *tensors;
    troupe_move *move;
};

static troupe_status open_way(const struct troupe_state_move *move, struct way *way) {
    const struct troupe_state_move_options *o = &move->options;
    TROUPE_TRY(troupe_route_compile(
        &(struct troupe_route_options){.source = &o->from->layouts[way->from_class],
                                       .destination = &o->to->layouts[way->to_class],
                                       .host_of_rank = o->host_of_rank,
                                       .element_bytes = sizeof(float)},
        &way->route));
    TROUPE_TRY(troupe_route_binding_create(way->route, move->rank, &way->binding));
    return troupe_route_bind(way->binding, NULL, NULL);
}

static troupe_status find_way(struct troupe_state_move *move, int tensor, struct way **out) {
    int from = move->options.from->class_of_tensor[tensor];
    int to = move->options.to->class_of_tensor[tensor];
    for (int i = 0; i < move->way_count; i++) {
        if (move->ways[i].from_class == from && move->ways[i].to_class == to) {
            *out = &move->ways[i];
            return TROUPE_OK;
        }
    }
    struct way *way = &move->ways[move->way_count++];
    *way = (struct way){.from_class = from, .to_class = to};
    *out = way;
    return open_way(move, way);
}

/* The rank's box of the tensor, in the memory of its part. */
static struct troupe_route_view view_of(const struct troupe_state_map *map, int tensor, int rank,
                                        float *data) {
    struct troupe_route_view view = {.data = data, .element_bytes = sizeof(float)};
    if (data != NULL && troupe_state_map_box(map, tensor, rank, &view.box)) {
        view.row_bytes = (size_t)(view.box.end[1] - view.box.begin[1]) * sizeof(float);
    }
    return view;
}

static troupe_status add_tensor(struct troupe_state_move *move, int tensor) {
    const struct troupe_state_move_options *o = &move->options;
    struct way *way = NULL;
    TROUPE_TRY(find_way(move, tensor, &way));
    for (int k = 0; k < TROUPE_STATE_KINDS; k++) {
        move->tensors[tensor * TROUPE_STATE_KINDS + k] = (struct troupe_moved_tensor){
            .binding = way->binding,
            .from = view_of(o->from, tensor, move->rank, o->from_parts[tensor].data[k]),
            .to = view_of(o->to, tensor, move->rank, o->to_parts[tensor].data[k])};
    }
    return TROUPE_OK;
}

static troupe_status build(struct troupe_state_move *move) {
    const struct troupe_state_move_options *o = &move->options;
    int count = o->to->tensor_count;
    TROUPE_TRY(TROUPE_NEW(&move->ways, count));
    TROUPE_TRY(TROUPE_NEW(&move->tensors, count * TROUPE_STATE_KINDS));
    for (int t = 0; t < count; t++) {
        TROUPE_TRY(add_tensor(move, t));
    }
    return troupe_move_create(&(struct troupe_move_options){.comm = o->comm,
                                                            .stream = o->stream,
                                                            .tensors = move->tensors,
                                                            .count = count * TROUPE_STATE_KINDS},
                              &move->move);
}

troupe_status troupe_state_move_create(const struct troupe_state_move_options *options,
                                       struct troupe_state_move **out) {
    struct troupe_state_move *move = NULL;
    TROUPE_TRY(TROUPE_NEW(&move, 1));
    move->options = *options;
    move->rank = troupe_comm_rank(options->comm);
    troupe_status status = build(move);
    if (status != TROUPE_OK) {
        troupe_state_move_destroy(move);
        return status;
    }
    *out = move;
    return TROUPE_OK;
}

void troupe_state_move_destroy(struct troupe_state_move *move) {
    if (move == NULL) {
        return;
    }
    troupe_move_destroy(move->move);
    for (int i = 0; i < move->way_count; i++) {
        troupe_route_binding_destroy(move->ways[i].binding);
        troupe_route_destroy(move->ways[i].route);
    }
    troupe_free(move->ways);
    troupe_free(move->tensors);
    troupe_free(move);
}

troupe_status troupe_state_move_run(struct troupe_state_move *move) {
    return troupe_move_run(move->move);
}

struct troupe_route_bytes troupe_state_move_bytes(const struct troupe_state_move *move) {
    return troupe_move_bytes(move->move);
}
