/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of this folder share: the runtime of one rank. runtime.c builds it, edge.c moves
 * messages, conductor.c talks with the engine, executor.c runs tickets.
 *
 * A message of a connection is known by the firing that consumes it: the firing that produces it
 * plus the connection's initial messages.
 */
#ifndef TROUPE_ACTORS_RUNTIME_INTERNAL_H
#define TROUPE_ACTORS_RUNTIME_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "actors/runtime.h"
#include "comm/contract.h"
#include "comm/wire.h"
#include "scheduler/engine.h"

enum { AWAITED_MAX = 32, TEXT_BYTES = 96 };

/* One output buffer's way to the other ranks over one connection. */
struct outgoing {
    struct connection *connection;
    struct troupe_route_binding *binding;
    struct troupe_transfer *transfers; /* one a message */
    uint8_t *headers;                  /* TROUPE_WIRE_BYTES each */
    uint8_t *staging;                  /* messages that are not one stretch of the buffer */
    int in_flight;                     /* transfers not complete: the buffer may not be reused */
};

/* One input buffer of a connection. */
struct incoming {
    struct connection *connection;
    struct troupe_route_binding *binding;
    struct troupe_transfer *transfers;
    uint8_t *headers;
    uint8_t *staging;
    void *memory;               /* to_rows_max x columns */
    struct troupe_tensor view;  /* what the method sees: of memory, or the producer's own buffer */
    int64_t firing;             /* that consumes it */
    int64_t row_begin;          /* of this rank's rows in the microbatch */
    uint64_t sample_set, normalisation;
    int *missing;               /* by source gang: messages not here yet */
    int missing_total;
    bool kept_missing;          /* rows that this rank itself will produce */
};

struct connection {
    struct troupe_connect_options options; /* name, from, to are copies */
    char name[TEXT_BYTES];
    int index;
    troupe_runtime *runtime;
    struct troupe_layout source, destination; /* ours, where there is no route given */
    bool owns_layouts;
    troupe_route *route;
    int edge_base;  /* engine edge of (from a, to b): edge_base + a * to_count + b */
    int from_index; /* index in from[] and to[] of the gang that this rank is in, or -1 */
    int to_index;
    int *from_of_rank; /* by rank: index in from[] or -1 */
    struct troupe_layout_piece source_piece; /* of this rank */
    struct troupe_layout_piece destination_piece;
    int64_t *source_offsets; /* scratch of the plan */
    int64_t *destination_offsets;
    struct outgoing *outgoing; /* by buffer of the output port */
    int outgoing_count;
    struct incoming *incoming; /* credits of them */
    int64_t next_receive;      /* first consuming firing whose buffer is not bound */
    int64_t consumed;          /* firings consumed on this rank */
    struct troupe_route_binding **probes; /* conductors: by rank, for receivers of a message */
    uint64_t bytes_sent;
};

/* An output port of an actor on this rank. */
struct output_port {
    void **buffers;
    int buffer_count;
    int *connections; /* that it feeds */
    int connection_count;
};

struct actor {
    struct troupe_spawn_options options; /* name, ranks are copies */
    char name[TEXT_BYTES];
    int member; /* this rank's index in the gang, or -1 */
    int method_base;
    int input_connection[TROUPE_METHOD_PORTS_MAX * 2]; /* by input port; -1: none */
    struct output_port output[TROUPE_METHOD_PORTS_MAX * 2];
    struct troupe_actor_times times;
};

/* A reduction ticket whose operations are under way. */
struct awaited {
    struct troupe_ticket ticket;
    struct troupe_collective *operations[AWAITED_MAX];
    int count;
    bool used;
};

struct troupe_runtime {
    struct troupe_runtime_options options;
    troupe_comm *comm;
    int rank;
    int rank_count;
    bool started;

    struct actor *actors; /* = gangs of the graph */
    int actor_count;
    struct connection **connections;
    int connection_count;
    struct troupe_graph graph;
    struct troupe_gang *gangs;
    struct troupe_method *methods;
    struct troupe_edge *edges;
    int *method_after; /* backs methods[].after */

    int *conductor_of;
    troupe_engine *engine; /* of this rank's island, if it is the conductor */
    bool pumping;

    int64_t step;
    struct troupe_ticket *tickets; /* ring of tickets for this rank, in order */
    int ticket_capacity;
    uint64_t ticket_head, ticket_tail;
    int64_t tasks_in_step; /* of this rank */
    int64_t tasks_done;    /* of the current step */
    struct awaited *awaited;
    int awaited_count;
    struct awaited *posting; /* of the reduction method that runs now */
    int in_flight;           /* sends not complete */

    bool stop_sent, stopped;
    troupe_status failure; /* from a callback of progress */
    uint64_t last_progress_ns;
    uint64_t waiting_since_ns; /* 0: not waiting */
    atomic_bool report_requested;
    uint64_t construction; /* hash of all spawns and connects */
};

/* edge.c */
troupe_status troupe_connection_build(struct connection *connection);
void troupe_connection_destroy(struct connection *connection);
/* Binds free input buffers to the next firings of the steps begun and posts their receives. */
troupe_status troupe_connection_receive(struct connection *connection);
/* Binds output buffer `buffer` for the message that firing `produced` sends; fills the view. */
troupe_status troupe_connection_bind_output(struct connection *connection, int buffer,
                                            int64_t produced, void *memory,
                                            struct troupe_tensor *view);
/* Sends what other ranks need of the buffer and keeps what this one needs. */
troupe_status troupe_connection_send(struct connection *connection, int buffer, int64_t produced,
                                     const struct troupe_tensor *view);
/* The input of firing `firing` has been read; its buffer is free. */
troupe_status troupe_connection_consume(struct connection *connection, int64_t firing);
bool troupe_connection_input_ready(const struct connection *connection, int64_t firing);
/* Members of `to` that get rows of `from`'s message; for edges between islands. */
uint64_t troupe_connection_receivers(struct connection *connection, int from, int to, int64_t step,
                                     int microbatch);

/* conductor.c */
void troupe_conductor_handle(void *arg, int from, const void *message, size_t bytes);
troupe_status troupe_conductor_create(troupe_runtime *runtime);
void troupe_conductor_begin_step(troupe_runtime *runtime, int64_t step);
bool troupe_conductor_step_done(const troupe_runtime *runtime);
void troupe_conductor_pump(troupe_runtime *runtime);
void troupe_report_arrived(troupe_runtime *runtime, int edge, int64_t firing, int member);
void troupe_report_done(troupe_runtime *runtime, const struct troupe_ticket *ticket, int member);
void troupe_report_stop(troupe_runtime *runtime);

/* The method that consumes from (produces for) a port of the actor's class. */
int troupe_method_of_input(const struct troupe_actor_class *actor, int port);
int troupe_method_of_output(const struct troupe_actor_class *actor, int port);

#endif
