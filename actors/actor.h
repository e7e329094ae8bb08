/* SPDX-License-Identifier: Apache-2.0
 *
 * Actors: what an app is written in. A class names its ports and methods; a method fires when a
 * message is there on each of its input ports and room on each output port, and nothing else is
 * needed for pipelining, or for modules to share ranks or not. `troupe_spawn` puts an actor on a
 * gang of ranks that fire it together (one rank for a plain actor, a TP group for a module shard);
 * `troupe_connect` joins output ports to input ports.
 *
 *     static troupe_status add_one(void *state, struct troupe_firing *firing) {
 *         *(float *)firing->outputs[0].data = *(const float *)firing->inputs[0].data + 1;
 *         return TROUPE_OK;
 *     }
 *     static const struct troupe_method_class methods[] = {
 *         {.name = "add", .run = add_one, .input_count = 1, .output_count = 1}};
 *     const struct troupe_actor_class adder = {
 *         .name = "adder", .methods = methods, .method_count = 1};
 *
 * Ports are numbered per class, inputs and outputs apart. Every input port is fed by exactly one
 * connection; an output port may feed several.
 *
 * Ownership: classes are constant; tensors of a firing are the runtime's and hold for the call.
 * Threads: methods run on their rank's thread. Failure: a method's status ends the rank's step with
 * the method's sentence.
 */
#ifndef TROUPE_ACTORS_ACTOR_H
#define TROUPE_ACTORS_ACTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "comm/group.h"
#include "comm/route.h"
#include "runtime/status.h"
#include "runtime/tensor.h"
#include "scheduler/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TROUPE_METHOD_PORTS_MAX = 4, TROUPE_METHOD_AFTER_MAX = 4 };

typedef struct troupe_runtime troupe_runtime;

/* One firing of a method on this rank. */
struct troupe_firing {
    int64_t step;   /* of a free-running method: how often it has fired before */
    int microbatch; /* 0 for a free-running or once-a-step method */
    int slot;       /* activation slot, the same for all methods of one microbatch */
    int member;     /* which member of the gang this is; 0 for a plain actor */
    struct troupe_tensor inputs[TROUPE_METHOD_PORTS_MAX];  /* in the method's order of ports */
    struct troupe_tensor outputs[TROUPE_METHOD_PORTS_MAX]; /* to be written in full */
    troupe_runtime *runtime;
};

struct troupe_method_class {
    const char *name;
    enum troupe_method_kind kind;
    enum troupe_lane lane; /* REDUCTION: run posts collectives and returns, see troupe_await */
    bool once;             /* once a step, after all microbatches of its `after` methods */
    int inputs[TROUPE_METHOD_PORTS_MAX];
    int input_count;
    int outputs[TROUPE_METHOD_PORTS_MAX];
    int output_count;
    int after[TROUPE_METHOD_AFTER_MAX]; /* methods of the class that go first */
    int after_count;
    bool slot_take;
    bool slot_return;
    troupe_status (*run)(void *state, struct troupe_firing *firing);
};

struct troupe_actor_class {
    const char *name;
    const struct troupe_method_class *methods;
    int method_count;
};

struct troupe_spawn_options {
    const struct troupe_actor_class *actor;
    const char *name;  /* for people: "llm stage 0 dp 1"; copied */
    const int *ranks;  /* the gang, in member order; copied */
    int rank_count;
    void *state;       /* this rank's, where it is a member; borrowed until destroy */
    int slots;         /* activation slots; 0 means 1 */
    int lane_order;    /* of its reduction methods, see scheduler/graph.h */
    int module;        /* labels for order policies and reports, see struct troupe_gang */
    int depth;
    int stage;
    int stage_count; /* 0 means 1 */
    int dp;
};

/* What a message of a connection is, known on every rank before the step. */
struct troupe_message_plan {
    int64_t *source_offsets;      /* to fill: row split of the source layout, parts + 1 numbers */
    int64_t *destination_offsets; /* to fill: likewise */
    uint64_t sample_set;          /* to fill, for the contract */
    uint64_t normalisation;
};

/* A connection between the DP shards of two stages is one route over all of them. */
struct troupe_connect_options {
    const char *name;         /* "vision->projector"; copied */
    const int *from;          /* actors whose output port feeds it */
    int from_count;
    int from_port;
    const int *to; /* actors whose input port it feeds */
    int to_count;
    int to_port;
    int credits;          /* messages in flight between two gangs; 0 means 2 */
    int initial;          /* messages of zeros that are there at the start: what closes a cycle */
    enum troupe_dtype dtype;
    int64_t columns;
    int64_t from_rows_max; /* largest output (input) of a member */
    int64_t to_rows_max;
    /* Ragged layouts with the plan of each message. NULL: member i of each gang in turn sends a
     * message of from_rows_max rows to member i of the other side. */
    const struct troupe_route_options *route;
    int source_parts; /* of the ragged layouts */
    int destination_parts;
    void (*plan)(void *arg, int64_t step, int microbatch, struct troupe_message_plan *out);
    void *arg;
};

/* Every rank makes the same calls in the same order before troupe_runtime_start; returns the number
 * of the actor. */
int troupe_spawn(troupe_runtime *runtime, const struct troupe_spawn_options *options);
troupe_status troupe_connect(troupe_runtime *runtime, const struct troupe_connect_options *options);

/* From a method in the reduction lane: the firing is done when the operation is. */
void troupe_await(struct troupe_firing *firing, struct troupe_collective *operation);
/* From any method: troupe_runtime_run returns on all ranks once this firing is done. */
void troupe_stop(struct troupe_firing *firing);

#ifdef __cplusplus
}
#endif
#endif
