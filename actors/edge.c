/* SPDX-License-Identifier: Apache-2.0 */
/* Edges as the app declares them. */
#include "actors/edge.h"

#include <inttypes.h>
#include <string.h>

#include "actors/runtime_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

/* Index of the named port, and of the method that uses it. */
static troupe_status find_port(const struct troupe_connect_options *options,
                               const struct troupe_actor_class *class, const char *name,
                               enum troupe_direction direction, int *port_out, int *method_out) {
    for (int p = 0; p < class->port_count; p++) {
        if (strcmp(class->ports[p].name, name) != 0 || class->ports[p].direction != direction) {
            continue;
        }
        for (int m = 0; m < class->method_count; m++) {
            const struct troupe_actor_method *method = &class->methods[m];
            const int *ports = direction == TROUPE_IN ? method->inputs : method->outputs;
            int count = direction == TROUPE_IN ? method->input_count : method->output_count;
            for (int i = 0; i < count; i++) {
                if (ports[i] == p) {
                    *port_out = p;
                    *method_out = m;
                    return TROUPE_OK;
                }
            }
        }
    }
    return troupe_fail(TROUPE_ERROR_INVALID, "edge %s: class %s has no method with an %s port %s",
                       options->name, class->name, direction == TROUPE_IN ? "input" : "output",
                       name);
}

static troupe_status check_gangs(const troupe_runtime *runtime,
                                 const struct troupe_connect_options *options, const int *gangs,
                                 int count) {
    for (int i = 0; i < count; i++) {
        TROUPE_ASSERT(gangs[i] >= 0 && gangs[i] < runtime->gang_count, "edge %s: gang %d of %d",
                      options->name, gangs[i], runtime->gang_count);
        if (runtime->gangs[gangs[i]].options.actor_class !=
            runtime->gangs[gangs[0]].options.actor_class) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "edge %s: the gangs of one end must have one class; %s is a %s, %s "
                               "a %s",
                               options->name, runtime->gangs[gangs[0]].name,
                               runtime->gangs[gangs[0]].options.actor_class->name,
                               runtime->gangs[gangs[i]].name,
                               runtime->gangs[gangs[i]].options.actor_class->name);
        }
    }
    return TROUPE_OK;
}

/* The port of each gang is in no other edge yet. */
static troupe_status check_free(const troupe_runtime *runtime,
                                const struct troupe_actor_edge *edge) {
    for (int e = 0; e < runtime->edge_count; e++) {
        const struct troupe_actor_edge *other = &runtime->edges[e];
        if (strcmp(other->name, edge->options.name) == 0) {
            return troupe_fail(TROUPE_ERROR_INVALID, "two edges are named %s", other->name);
        }
        for (int i = 0; i < edge->options.from_count; i++) {
            for (int j = 0; j < other->options.from_count; j++) {
                if (edge->options.from[i] == other->from[j] &&
                    edge->from_port == other->from_port) {
                    return troupe_fail(TROUPE_ERROR_INVALID,
                                       "edges %s and %s both leave port %s of %s", other->name,
                                       edge->options.name, edge->options.from_port,
                                       runtime->gangs[other->from[j]].name);
                }
            }
        }
        for (int i = 0; i < edge->options.to_count; i++) {
            for (int j = 0; j < other->options.to_count; j++) {
                if (edge->options.to[i] == other->to[j] && edge->to_port == other->to_port) {
                    return troupe_fail(TROUPE_ERROR_INVALID,
                                       "edges %s and %s both reach port %s of %s", other->name,
                                       edge->options.name, edge->options.to_port,
                                       runtime->gangs[other->to[j]].name);
                }
            }
        }
    }
    return TROUPE_OK;
}

static troupe_status check_pairs(const troupe_runtime *runtime,
                                 const struct troupe_connect_options *options) {
    if (options->from_count != options->to_count) {
        return troupe_fail(
            TROUPE_ERROR_INVALID,
            "edge %s without a route joins %d gangs to %d; the numbers must be equal",
            options->name, options->from_count, options->to_count);
    }
    for (int i = 0; i < options->from_count; i++) {
        const struct troupe_actor_gang *from = &runtime->gangs[options->from[i]];
        const struct troupe_actor_gang *to = &runtime->gangs[options->to[i]];
        if (from->options.rank_count != to->options.rank_count) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "edge %s without a route joins %s with %d members to %s with %d; "
                               "they must be as many, or give a route",
                               options->name, from->name, from->options.rank_count, to->name,
                               to->options.rank_count);
        }
    }
    return TROUPE_OK;
}

static troupe_status check_options(const troupe_runtime *runtime,
                                   const struct troupe_connect_options *options) {
    bool routed = options->route != NULL;
    if (options->credits < 1 || options->initial < 0 || options->initial > options->credits) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "edge %s has %d credits and %d initial messages; it needs at least 1 "
                           "credit and one for each initial message",
                           options->name, options->credits, options->initial);
    }
    if (options->initial > 0 && (routed || options->plan != NULL)) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "edge %s has initial messages, so it can have no route and no plan",
                           options->name);
    }
    if (runtime->options.microbatches == 0 && (routed || options->plan != NULL)) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "edge %s has a route or a plan, which need steps; set microbatches",
                           options->name);
    }
    return routed ? TROUPE_OK : check_pairs(runtime, options);
}

static uint64_t hash_connect(const struct troupe_connect_options *o) {
    uint64_t hash = troupe_hash_text(TROUPE_SAMPLE_SET_EMPTY, o->name);
    hash = troupe_hash_text(troupe_hash_text(hash, o->from_port), o->to_port);
    hash = troupe_hash_bytes(hash, o->from, (size_t)o->from_count * sizeof *o->from);
    hash = troupe_hash_bytes(hash, o->to, (size_t)o->to_count * sizeof *o->to);
    const int64_t numbers[] = {
        o->from_count,     o->to_count,      o->credits,     o->initial,       o->columns,
        (int64_t)o->dtype, o->from_rows_max, o->to_rows_max, o->route != NULL, o->plan != NULL};
    return troupe_hash_bytes(hash, numbers, sizeof numbers);
}

static void set_defaults(struct troupe_connect_options *options) {
    options->from_count = options->from_count == 0 ? 1 : options->from_count;
    int to_count = options->route != NULL ? 1 : options->from_count;
    options->to_count = options->to_count == 0 ? to_count : options->to_count;
    options->credits = options->credits == 0 ? TROUPE_CREDITS_DEFAULT : options->credits;
    options->from_rows_max = options->from_rows_max == 0 ? 1 : options->from_rows_max;
    options->to_rows_max =
        options->to_rows_max == 0 ? options->from_rows_max : options->to_rows_max;
}

/* Which gang of the list the rank is in; with a route each rank is in at most one. */
static troupe_status make_shards(const troupe_runtime *runtime, const char *name, const int *gangs,
                                 int count, int **out) {
    TROUPE_TRY(TROUPE_NEW(out, runtime->rank_count));
    for (int r = 0; r < runtime->rank_count; r++) {
        (*out)[r] = TROUPE_NOBODY;
    }
    for (int i = 0; i < count; i++) {
        const struct troupe_actor_gang *gang = &runtime->gangs[gangs[i]];
        for (int k = 0; k < gang->options.rank_count; k++) {
            int *shard = &(*out)[gang->ranks[k]];
            if (*shard != TROUPE_NOBODY) {
                return troupe_fail(TROUPE_ERROR_INVALID,
                                   "edge %s: rank %d is in %s and in %s; with a route a rank can "
                                   "be in one gang of each end",
                                   name, gang->ranks[k], runtime->gangs[gangs[*shard]].name,
                                   gang->name);
            }
            *shard = i;
        }
    }
    return TROUPE_OK;
}

static troupe_status copy_lists(const troupe_runtime *runtime, struct troupe_actor_edge *edge) {
    struct troupe_connect_options *options = &edge->options;
    TROUPE_TRY(troupe_string_copy(options->name, &edge->name));
    TROUPE_TRY(troupe_copy_ints(options->from, options->from_count, &edge->from));
    TROUPE_TRY(troupe_copy_ints(options->to, options->to_count, &edge->to));
    options->name = edge->name;
    options->from = edge->from;
    options->to = edge->to;
    if (options->route == NULL) {
        return TROUPE_OK;
    }
    TROUPE_TRY(
        make_shards(runtime, edge->name, edge->from, options->from_count, &edge->shard_of_source));
    return make_shards(runtime, edge->name, edge->to, options->to_count,
                       &edge->shard_of_destination);
}

troupe_status troupe_connect(troupe_runtime *runtime, const struct troupe_connect_options *options,
                             int *edge_out) {
    struct troupe_actor_edge edge = {.options = *options, .first_return = -1};
    struct troupe_connect_options *own = &edge.options;
    TROUPE_ASSERT(!runtime->started, "connect of %s after start", own->name);
    TROUPE_ASSERT(own->name != NULL && own->from_port != NULL && own->to_port != NULL,
                  "an edge needs a name and two ports");
    set_defaults(own);
    TROUPE_TRY(check_gangs(runtime, own, own->from, own->from_count));
    TROUPE_TRY(check_gangs(runtime, own, own->to, own->to_count));
    const struct troupe_actor_class *from = runtime->gangs[own->from[0]].options.actor_class;
    const struct troupe_actor_class *to = runtime->gangs[own->to[0]].options.actor_class;
    TROUPE_TRY(
        find_port(own, from, own->from_port, TROUPE_OUT, &edge.from_port, &edge.from_method));
    TROUPE_TRY(find_port(own, to, own->to_port, TROUPE_IN, &edge.to_port, &edge.to_method));
    TROUPE_TRY(check_free(runtime, &edge));
    TROUPE_TRY(check_options(runtime, own));
    edge.firings = from->methods[edge.from_method].once ? 1 : runtime->options.microbatches;
    edge.element_bytes = troupe_dtype_bytes(own->dtype);
    uint64_t hash = hash_connect(own);
    TROUPE_TRY(troupe_grow((void **)&runtime->edges, runtime->edge_count, &runtime->edge_capacity,
                           sizeof *runtime->edges));
    runtime->edges[runtime->edge_count++] = edge; /* from here on destroy frees it */
    struct troupe_actor_edge *kept = &runtime->edges[runtime->edge_count - 1];
    TROUPE_TRY(copy_lists(runtime, kept));
    if (edge_out != NULL) {
        *edge_out = runtime->edge_count - 1;
    }
    return troupe_record_call(runtime, "connect ", kept->name, hash);
}

void troupe_destroy_edges(troupe_runtime *runtime) {
    for (int e = 0; e < runtime->edge_count; e++) {
        struct troupe_actor_edge *edge = &runtime->edges[e];
        troupe_free(edge->name);
        troupe_free(edge->from);
        troupe_free(edge->to);
        troupe_free(edge->shard_of_source);
        troupe_free(edge->shard_of_destination);
    }
    troupe_free(runtime->edges);
}
