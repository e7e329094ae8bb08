/* SPDX-License-Identifier: Apache-2.0 */
/* Builds the runtime of a rank: actors and connections become the task graph that every rank knows,
 * and this rank's ports, buffers and, if it is one, conductor. */
#include "actors/runtime.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "actors/runtime_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"
#include "runtime/random.h"

enum { CREDITS_DEFAULT = 2, CONSTRUCTION_GROUP = (1 << 20) - 1 };

static const int64_t stall_ns_default = INT64_C(120000000000);

troupe_status troupe_runtime_create(const struct troupe_runtime_options *options,
                                    troupe_runtime **out) {
    troupe_runtime *runtime = NULL;
    TROUPE_TRY(TROUPE_NEW(&runtime, 1));
    runtime->options = *options;
    if (runtime->options.stall_ns == 0) {
        runtime->options.stall_ns = stall_ns_default;
    }
    runtime->comm = options->comm;
    runtime->rank = troupe_comm_rank(options->comm);
    runtime->rank_count = troupe_comm_size(options->comm);
    runtime->step = -1;
    *out = runtime;
    return TROUPE_OK;
}

static void destroy_actor(struct actor *actor) {
    for (size_t p = 0; p < TROUPE_COUNT_OF(actor->output); p++) {
        struct output_port *port = &actor->output[p];
        for (int b = 0; port->buffers != NULL && b < port->buffer_count; b++) {
            troupe_free(port->buffers[b]);
        }
        troupe_free(port->buffers);
        troupe_free(port->connections);
    }
    troupe_free((void *)actor->options.ranks);
}

void troupe_runtime_destroy(troupe_runtime *runtime) {
    if (runtime == NULL) {
        return;
    }
    if (runtime->started) {
        troupe_comm_set_control_handler(runtime->comm, NULL, NULL);
    }
    troupe_engine_destroy(runtime->engine);
    for (int i = 0; i < runtime->connection_count; i++) {
        troupe_connection_destroy(runtime->connections[i]);
    }
    for (int i = 0; i < runtime->actor_count; i++) {
        destroy_actor(&runtime->actors[i]);
    }
    troupe_free(runtime->actors);
    troupe_free(runtime->connections);
    troupe_free(runtime->gangs);
    troupe_free(runtime->methods);
    troupe_free(runtime->edges);
    troupe_free(runtime->method_after);
    troupe_free(runtime->conductor_of);
    troupe_free(runtime->tickets);
    troupe_free(runtime->awaited);
    troupe_free(runtime);
}

/* ---- spawning and connecting ---- */

/* Makes room for one more element: capacities are powers of two. */
static void grow(void **array, int count, size_t bytes) {
    if (count > 0 && (count & (count - 1)) != 0) {
        return;
    }
    void *larger = NULL;
    troupe_status status = troupe_alloc(count > 0 ? (size_t)count * 2 : 1, bytes, &larger);
    TROUPE_ASSERT(status == TROUPE_OK, "%s", troupe_last_error());
    if (count > 0) {
        memcpy(larger, *array, (size_t)count * bytes);
    }
    troupe_free(*array);
    *array = larger;
}

static int *copy_ints(const int *values, int count) {
    int *copy = NULL;
    troupe_status status = TROUPE_NEW(&copy, count);
    TROUPE_ASSERT(status == TROUPE_OK, "%s", troupe_last_error());
    memcpy(copy, values, (size_t)count * sizeof *copy);
    return copy;
}

/* Folds what a call said into the hash that start compares between ranks. */
static void fold(troupe_runtime *runtime, const char *name, const int64_t *values, int count) {
    uint64_t hash = runtime->construction ^ troupe_random_stream(name);
    for (int i = 0; i < count; i++) {
        hash = troupe_random_bits(hash, (uint64_t)values[i], (uint64_t)i);
    }
    runtime->construction = hash;
}

int troupe_spawn(troupe_runtime *runtime, const struct troupe_spawn_options *options) {
    TROUPE_ASSERT(!runtime->started, "spawn of %s after start", options->name);
    TROUPE_ASSERT(options->rank_count >= 1 && options->rank_count <= TROUPE_GANG_RANKS_MAX,
                  "%s: a gang of %d ranks", options->name, options->rank_count);
    grow((void **)&runtime->actors, runtime->actor_count, sizeof *runtime->actors);
    struct actor *actor = &runtime->actors[runtime->actor_count];
    *actor = (struct actor){.options = *options, .member = -1};
    snprintf(actor->name, sizeof actor->name, "%s", options->name);
    actor->options.ranks = copy_ints(options->ranks, options->rank_count);
    for (int k = 0; k < options->rank_count; k++) {
        if (options->ranks[k] == runtime->rank) {
            actor->member = k;
        }
        fold(runtime, actor->name, (int64_t[]){options->ranks[k], options->slots}, 2);
    }
    for (size_t p = 0; p < TROUPE_COUNT_OF(actor->input_connection); p++) {
        actor->input_connection[p] = -1;
    }
    return runtime->actor_count++;
}

troupe_status troupe_connect(troupe_runtime *runtime,
                             const struct troupe_connect_options *options) {
    struct connection *c = NULL;
    TROUPE_ASSERT(!runtime->started, "connect of %s after start", options->name);
    TROUPE_TRY(TROUPE_NEW(&c, 1));
    c->options = *options;
    c->runtime = runtime;
    c->index = runtime->connection_count;
    snprintf(c->name, sizeof c->name, "%s", options->name);
    c->options.from = copy_ints(options->from, options->from_count);
    c->options.to = copy_ints(options->to, options->to_count);
    if (c->options.credits < 1) {
        c->options.credits = CREDITS_DEFAULT;
    }
    if (c->options.route == NULL) {
        c->options.to_rows_max = c->options.from_rows_max;
    }
    grow((void **)&runtime->connections, runtime->connection_count, sizeof *runtime->connections);
    runtime->connections[runtime->connection_count++] = c;
    fold(runtime, c->name,
         (int64_t[]){options->from_count, options->to_count, options->credits, options->columns,
                     options->from_rows_max, options->to_rows_max},
         6);
    return TROUPE_OK;
}

/* ---- the task graph ---- */

int troupe_method_of_input(const struct troupe_actor_class *actor, int port) {
    for (int m = 0; m < actor->method_count; m++) {
        for (int i = 0; i < actor->methods[m].input_count; i++) {
            if (actor->methods[m].inputs[i] == port) {
                return m;
            }
        }
    }
    return -1;
}

int troupe_method_of_output(const struct troupe_actor_class *actor, int port) {
    for (int m = 0; m < actor->method_count; m++) {
        for (int i = 0; i < actor->methods[m].output_count; i++) {
            if (actor->methods[m].outputs[i] == port) {
                return m;
            }
        }
    }
    return -1;
}

static void add_gang(troupe_runtime *runtime, int index) {
    const struct actor *actor = &runtime->actors[index];
    const struct troupe_spawn_options *o = &actor->options;
    runtime->gangs[index] = (struct troupe_gang){
        .name = actor->name,
        .ranks = o->ranks,
        .rank_count = o->rank_count,
        .slots = o->slots > 0 ? o->slots : 1,
        .module = o->module,
        .depth = o->depth,
        .stage = o->stage,
        .stage_count = o->stage_count > 0 ? o->stage_count : 1,
        .dp = o->dp,
    };
}

static int firings_of(const troupe_runtime *runtime, const struct troupe_method_class *method) {
    if (runtime->options.microbatches == 0) {
        return 0;
    }
    return method->once ? 1 : runtime->options.microbatches;
}

static void add_methods(troupe_runtime *runtime, int index, int *after_count) {
    struct actor *actor = &runtime->actors[index];
    const struct troupe_actor_class *class = actor->options.actor;
    actor->method_base = runtime->graph.method_count;
    for (int m = 0; m < class->method_count; m++) {
        const struct troupe_method_class *method = &class->methods[m];
        int *after = runtime->method_after + *after_count;
        for (int i = 0; i < method->after_count; i++) {
            after[i] = actor->method_base + method->after[i];
        }
        *after_count += method->after_count;
        runtime->methods[runtime->graph.method_count++] = (struct troupe_method){
            .name = method->name,
            .gang = index,
            .kind = method->kind,
            .lane = method->lane,
            .lane_order = actor->options.lane_order,
            .firings = firings_of(runtime, method),
            .after = after,
            .after_count = method->after_count,
            .slot_take = method->slot_take,
            .slot_return = method->slot_return,
        };
        if (actor->member >= 0) {
            runtime->tasks_in_step += firings_of(runtime, method);
            runtime->awaited_count += method->lane == TROUPE_LANE_REDUCTION;
        }
    }
}

static troupe_status add_edges(troupe_runtime *runtime, struct connection *c) {
    c->edge_base = runtime->graph.edge_count;
    for (int a = 0; a < c->options.from_count; a++) {
        for (int b = 0; b < c->options.to_count; b++) {
            const struct actor *from = &runtime->actors[c->options.from[a]];
            const struct actor *to = &runtime->actors[c->options.to[b]];
            int out = troupe_method_of_output(from->options.actor, c->options.from_port);
            int in = troupe_method_of_input(to->options.actor, c->options.to_port);
            if (out < 0 || in < 0) {
                return troupe_fail(TROUPE_ERROR_INVALID,
                                   "connection %s: %s has no output port %d, or %s no input port "
                                   "%d",
                                   c->name, from->name, c->options.from_port, to->name,
                                   c->options.to_port);
            }
            runtime->edges[runtime->graph.edge_count++] = (struct troupe_edge){
                .name = c->name,
                .from = from->method_base + out,
                .to = to->method_base + in,
                .credits = c->options.credits,
                .initial = c->options.initial,
            };
        }
    }
    return TROUPE_OK;
}

static troupe_status build_graph(troupe_runtime *runtime) {
    int methods = 0, after = 0, edges = 0;
    for (int i = 0; i < runtime->actor_count; i++) {
        const struct troupe_actor_class *class = runtime->actors[i].options.actor;
        methods += class->method_count;
        for (int m = 0; m < class->method_count; m++) {
            after += class->methods[m].after_count;
        }
    }
    for (int i = 0; i < runtime->connection_count; i++) {
        const struct troupe_connect_options *o = &runtime->connections[i]->options;
        edges += o->from_count * o->to_count;
    }
    TROUPE_TRY(TROUPE_NEW(&runtime->gangs, runtime->actor_count));
    TROUPE_TRY(TROUPE_NEW(&runtime->methods, methods));
    TROUPE_TRY(TROUPE_NEW(&runtime->method_after, after));
    TROUPE_TRY(TROUPE_NEW(&runtime->edges, edges));
    after = 0;
    for (int i = 0; i < runtime->actor_count; i++) {
        add_gang(runtime, i);
        add_methods(runtime, i, &after);
    }
    for (int i = 0; i < runtime->connection_count; i++) {
        TROUPE_TRY(add_edges(runtime, runtime->connections[i]));
    }
    runtime->graph.rank_count = runtime->rank_count;
    runtime->graph.gangs = runtime->gangs;
    runtime->graph.gang_count = runtime->actor_count;
    runtime->graph.methods = runtime->methods;
    runtime->graph.edges = runtime->edges;
    TROUPE_TRY(troupe_graph_check(&runtime->graph));
    TROUPE_TRY(TROUPE_NEW(&runtime->conductor_of, runtime->rank_count));
    troupe_graph_conductors(&runtime->graph, runtime->conductor_of);
    return TROUPE_OK;
}

/* ---- ports ---- */

static troupe_status join_input(troupe_runtime *runtime, const struct connection *c) {
    for (int b = 0; b < c->options.to_count; b++) {
        struct actor *actor = &runtime->actors[c->options.to[b]];
        int *input = &actor->input_connection[c->options.to_port];
        if (*input >= 0) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "input port %d of %s is fed by both %s and %s; a port has one feeder",
                               c->options.to_port, actor->name, runtime->connections[*input]->name,
                               c->name);
        }
        *input = c->index;
    }
    return TROUPE_OK;
}

/* Adds the connection to its output port; the port has as many buffers as the most credits. */
static troupe_status join_output(troupe_runtime *runtime, const struct connection *c) {
    for (int a = 0; a < c->options.from_count; a++) {
        struct output_port *port =
            &runtime->actors[c->options.from[a]].output[c->options.from_port];
        grow((void **)&port->connections, port->connection_count, sizeof *port->connections);
        port->connections[port->connection_count++] = c->index;
        if (port->buffer_count < c->options.credits) {
            port->buffer_count = c->options.credits;
        }
    }
    return TROUPE_OK;
}

static troupe_status allocate_outputs(troupe_runtime *runtime, struct actor *actor) {
    for (size_t p = 0; p < TROUPE_COUNT_OF(actor->output); p++) {
        struct output_port *port = &actor->output[p];
        size_t bytes = 0;
        for (int i = 0; i < port->connection_count; i++) {
            const struct troupe_connect_options *o =
                &runtime->connections[port->connections[i]]->options;
            size_t need = (size_t)o->from_rows_max * (size_t)o->columns *
                          troupe_dtype_bytes(o->dtype);
            bytes = need > bytes ? need : bytes;
        }
        if (port->connection_count > 0) {
            TROUPE_TRY(TROUPE_NEW(&port->buffers, port->buffer_count));
        }
        for (int b = 0; port->connection_count > 0 && b < port->buffer_count; b++) {
            TROUPE_TRY(troupe_alloc(1, bytes, &port->buffers[b]));
        }
    }
    return TROUPE_OK;
}

static troupe_status check_ports(const struct actor *actor) {
    const struct troupe_actor_class *class = actor->options.actor;
    for (int m = 0; m < class->method_count; m++) {
        for (int i = 0; i < class->methods[m].input_count; i++) {
            if (actor->input_connection[class->methods[m].inputs[i]] < 0) {
                return troupe_fail(TROUPE_ERROR_INVALID,
                                   "input port %d of %s is not connected: its method %s could "
                                   "never fire",
                                   class->methods[m].inputs[i], actor->name,
                                   class->methods[m].name);
            }
        }
        for (int i = 0; i < class->methods[m].output_count; i++) {
            if (actor->output[class->methods[m].outputs[i]].connection_count == 0) {
                return troupe_fail(TROUPE_ERROR_INVALID, "output port %d of %s is not connected",
                                   class->methods[m].outputs[i], actor->name);
            }
        }
    }
    return TROUPE_OK;
}

static troupe_status build_ports(troupe_runtime *runtime) {
    for (int i = 0; i < runtime->connection_count; i++) {
        TROUPE_TRY(join_input(runtime, runtime->connections[i]));
        TROUPE_TRY(join_output(runtime, runtime->connections[i]));
    }
    for (int i = 0; i < runtime->actor_count; i++) {
        TROUPE_TRY(check_ports(&runtime->actors[i]));
        if (runtime->actors[i].member >= 0) {
            TROUPE_TRY(allocate_outputs(runtime, &runtime->actors[i]));
        }
    }
    for (int i = 0; i < runtime->connection_count; i++) {
        TROUPE_TRY(troupe_connection_build(runtime->connections[i]));
    }
    return TROUPE_OK;
}

/* ---- start ---- */

static troupe_status create_world(troupe_runtime *runtime, troupe_group **out) {
    int *ranks = NULL;
    TROUPE_TRY(TROUPE_NEW(&ranks, runtime->rank_count));
    for (int r = 0; r < runtime->rank_count; r++) {
        ranks[r] = r;
    }
    troupe_status status = troupe_group_create(
        runtime->comm,
        &(struct troupe_group_options){.ranks = ranks,
                                       .count = runtime->rank_count,
                                       .id = CONSTRUCTION_GROUP,
                                       .bytes_max = sizeof runtime->construction},
        out);
    troupe_free(ranks);
    return status;
}

/* A rank that was built differently would wait for messages that never come. */
static troupe_status compare_construction(troupe_runtime *runtime, troupe_group *world) {
    uint64_t *hashes = NULL;
    TROUPE_TRY(TROUPE_NEW(&hashes, runtime->rank_count));
    troupe_status status =
        troupe_group_all_gather(world, &runtime->construction, sizeof *hashes, hashes);
    for (int r = 0; status == TROUPE_OK && r < runtime->rank_count; r++) {
        if (hashes[r] != hashes[0]) {
            status = troupe_fail(TROUPE_ERROR_INVALID,
                                 "rank %d has built other actors or connections than rank 0; give "
                                 "every rank the same program, arguments and config",
                                 r);
        }
    }
    troupe_free(hashes);
    return status;
}

static troupe_status allocate_tickets(troupe_runtime *runtime) {
    int look_ahead = runtime->options.look_ahead > 0 ? runtime->options.look_ahead : 2;
    runtime->ticket_capacity = look_ahead + runtime->awaited_count + 1;
    TROUPE_TRY(TROUPE_NEW(&runtime->tickets, runtime->ticket_capacity));
    return TROUPE_NEW(&runtime->awaited, runtime->awaited_count);
}

static troupe_status build(troupe_runtime *runtime) {
    TROUPE_TRY(build_graph(runtime));
    TROUPE_TRY(build_ports(runtime));
    TROUPE_TRY(allocate_tickets(runtime));
    return troupe_conductor_create(runtime);
}

troupe_status troupe_runtime_start(troupe_runtime *runtime) {
    troupe_group *world = NULL;
    TROUPE_TRY(create_world(runtime, &world));
    troupe_status status = compare_construction(runtime, world);
    if (status == TROUPE_OK) {
        status = build(runtime);
    }
    if (status == TROUPE_OK) {
        runtime->started = true;
        troupe_comm_set_control_handler(runtime->comm, troupe_conductor_handle, runtime);
        status = troupe_group_barrier(world); /* nobody speaks before everybody listens */
    }
    troupe_group_destroy(world);
    return status;
}

/* ---- queries ---- */

int troupe_runtime_islands(const troupe_runtime *runtime, int *conductor_of) {
    return troupe_graph_conductors(&runtime->graph, conductor_of);
}

struct troupe_actor_times troupe_runtime_times(const troupe_runtime *runtime, int actor) {
    return runtime->actors[actor].times;
}

int troupe_runtime_connection_count(const troupe_runtime *runtime) {
    return runtime->connection_count;
}

const char *troupe_runtime_connection_name(const troupe_runtime *runtime, int connection) {
    return runtime->connections[connection]->name;
}

uint64_t troupe_runtime_connection_bytes(const troupe_runtime *runtime, int connection) {
    return runtime->connections[connection]->bytes_sent;
}
