/* SPDX-License-Identifier: Apache-2.0
 *
 * Actor classes and how actors come to life. A class is a constant table: named ports, and methods
 * that read input ports and write output ports. A method fires when each input of that microbatch
 * has arrived and each output has room; nothing else is needed for pipelining to follow. It sees
 * tensors, its own state and the microbatch, never ranks.
 *
 *     enum { BALL_IN, BALL_OUT };
 *     static const struct troupe_port ports[] = {{"in", TROUPE_IN}, {"out", TROUPE_OUT}};
 *     static const struct troupe_actor_method methods[] = {
 *         {.name = "hit", .inputs = {BALL_IN}, .input_count = 1,
 *          .outputs = {BALL_OUT}, .output_count = 1, .run = hit}};
 *     static const struct troupe_actor_class player = {
 *         .name = "player", .ports = ports, .port_count = 2, .methods = methods, .method_count =
 * 1}; troupe_spawn(rt, &(struct troupe_spawn_options){.actor_class = &player, .name = "ping",
 *                  .ranks = (int[]){0}, .rank_count = 1}, &ping);
 *
 * Ownership: class tables are the caller's and outlive the runtime; names and ranks of spawn are
 * copied. The state belongs to the actor: `create` makes it, `destroy` frees it. Tensors of a
 * firing are valid until `run` returns; an input that is needed later is copied into the state.
 * Threads: the rank's own. `run` may wait inside collectives of its own gang, and nowhere else; in
 * the reduction lane nowhere, unless the runtime serialises the lanes.
 * Failure: a status that is not OK from `create` or `run` ends the job on every rank with the
 * sentence of troupe_fail; spawn returns ERROR_INVALID for options that cannot be.
 */
#ifndef TROUPE_ACTORS_ACTOR_H
#define TROUPE_ACTORS_ACTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "comm/group.h"
#include "runtime/device.h"
#include "runtime/status.h"
#include "runtime/tensor.h"
#include "scheduler/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_runtime troupe_runtime;

enum { TROUPE_PORTS_MAX = 16, TROUPE_AFTER_MAX = 4 };

enum troupe_direction { TROUPE_IN, TROUPE_OUT };

/* Each port belongs to one method and takes part in at most one edge; a method whose ports are not
 * connected fires without them (their tensors then have no data and 0 rows). */
struct troupe_port {
    const char *name;
    enum troupe_direction direction;
};

/* One firing: what `run` gets. */
struct troupe_firing {
    troupe_runtime *runtime;
    void *argument; /* of spawn */
    int gang;
    int member;            /* which shard of the gang this actor is */
    int64_t step;          /* in a runtime without steps: how often the method has fired */
    int microbatch;        /* in a runtime without steps, and of methods once a step: 0 */
    int slot;              /* the activation slot of this microbatch; 0 where there is no pool */
    troupe_stream *stream; /* the actor's; NULL: it computes on the host */
    /* In the order of the method's ports. Rows are those of the edge's plan: packed, stride =
     * columns. An output must be written in full. */
    struct troupe_tensor inputs[TROUPE_PORTS_MAX];
    struct troupe_tensor outputs[TROUPE_PORTS_MAX];
    void *internal; /* the runtime's */
};

typedef troupe_status (*troupe_run)(void *state, struct troupe_firing *firing);

struct troupe_actor_method {
    const char *name; /* "forward" */
    enum troupe_method_kind kind;
    int inputs[TROUPE_PORTS_MAX]; /* indices of ports */
    int input_count;
    int outputs[TROUPE_PORTS_MAX];
    int output_count;
    /* Methods of this class (their indices) that go first: for the same microbatch, or for all
     * microbatches of the step where one of the two fires once a step. */
    int after[TROUPE_AFTER_MAX];
    int after_count;
    bool slot_take;   /* takes an activation slot of the actor's own pool, e.g. forward */
    bool slot_return; /* gives it back: the last of the backward methods */
    bool once;        /* once a step, not once a microbatch */
    /* Posts collectives that cross islands with troupe_firing_all_reduce and returns; it is done
     * when they are, and the rank goes on meanwhile. Implies once; no ports. */
    enum troupe_lane lane;
    troupe_run run;
};

struct troupe_spawn_options;

struct troupe_actor_class {
    const char *name;
    const struct troupe_port *ports;
    int port_count;
    const struct troupe_actor_method *methods;
    int method_count;
    /* Makes the state of one member. NULL: the state is the argument. */
    troupe_status (*create)(troupe_runtime *runtime, const struct troupe_spawn_options *options,
                            int member, void **state_out);
    void (*destroy)(void *state); /* accepts NULL; NULL: nothing to do */
};

struct troupe_spawn_options {
    const struct troupe_actor_class *actor_class;
    const char *name; /* "llm stage 0 dp 1"; unique; first word of every diagnosis */
    const int *ranks; /* member i lives on ranks[i]; they fire together */
    int rank_count;   /* 0: one member, on rank 0 */
    int slots;        /* activation slots of the pool; >= 1 where a method takes one */
    int lane_order;   /* of its reduction methods in the job's one order, see scheduler/graph.h;
                         equal in gangs whose methods meet in one collective */
    int worker;       /* the worker that it begins at, from 1, modulo their number; 0: in turn; see
                         `workers` of the runtime */
    /* Labels for order policies and diagnosis, see struct troupe_gang. */
    int module, depth, stage, stage_count, dp;
    void *argument; /* for the members on this rank; may differ from rank to rank */
    /* The stream in which this rank's member computes; borrowed. Its tensors are in the memory of
     * the stream's device, and methods enqueue: a firing is done when `run` returns, for what comes
     * after it is behind it in streams or waits for its events. NULL, or of a device that is the
     * host: tensors in host memory. All actors of a rank that have streams share a device. */
    troupe_stream *stream;
};

/* Makes a gang of actors. Every rank makes the same calls in the same order with the same options
 * (but `argument`), whether it has a member or not; troupe_runtime_start compares. */
troupe_status troupe_spawn(troupe_runtime *runtime, const struct troupe_spawn_options *options,
                           int *gang_out);
/* The state of the gang's member on this rank; NULL if it has none. */
void *troupe_actor_state(const troupe_runtime *runtime, int gang);

/* From a method of the reduction lane: posts a sum over the group that the firing waits for.
 * `operation` is the caller's, zero before its first use, and lives until the method is done. */
troupe_status troupe_firing_all_reduce(struct troupe_firing *firing, troupe_group *group,
                                       enum troupe_reduction reduction, enum troupe_element element,
                                       void *data, int64_t count,
                                       struct troupe_collective *operation);

#ifdef __cplusplus
}
#endif
#endif
