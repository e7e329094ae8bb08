/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of this layer share. The parts, in the order of a message's life:
 *
 *     actor.c, edge.c     what the app declares (gangs, edges), and that all ranks declare the same
 *     plan.c              the task graph made of it: channels, islands
 *     mailbox.c           outlets and inlets: buffers, sends, receives, contracts
 *     relay.c             what an inlet hands on to other ranks of its host
 *     copies.c            tensors on a device: copies to and from messages, events
 *     flow.c              messages that the sender's device writes into the receiver's tensor
 *     conductor.c         the engine of an island, fed by control messages
 *     tree.c              how tickets and reports get about in a large island
 *     static_step.c       instead of engines: a step's tickets in one message
 *     task_clock.c        how long tasks take on a device
 *     runtime.c           the executor: tickets in order, waits, accounting, failure
 *     crew.c              instead of all these from mailbox.c on: worker threads on one rank
 *     crew_make.c         what those fire: tasks, gates, buffers
 *     report.h            who waits for what, over all ranks
 *
 * Ownership: everything hangs from troupe_runtime. Threads: the rank's own. Failure: callbacks that
 * cannot return a status keep it with troupe_runtime_fail.
 */
#ifndef TROUPE_ACTORS_RUNTIME_INTERNAL_H
#define TROUPE_ACTORS_RUNTIME_INTERNAL_H

#include <stdatomic.h>

#include "actors/report.h"
#include "actors/runtime.h"
#include "comm/contract.h"
#include "comm/window.h"
#include "comm/wire.h"
#include "scheduler/engine.h"

enum {
    TROUPE_CREDITS_DEFAULT = 2,
    TROUPE_LOOK_AHEAD_DEFAULT = 2,
    TROUPE_TREE_RANKS_DEFAULT = 64,
    TROUPE_NOBODY = -1, /* a rank or shard that is none */
};

/* Tag of a channel's messages, apart from those of other users of the endpoint. */
#define TROUPE_EDGE_TAG   UINT64_C(0x0e00000000000000)
#define TROUPE_SCRIPT_TAG (UINT64_C(1) << 54) /* a step's tickets */

/* ---- what the app declares ---- */

/* One spawn or connect, for comparing the ranks. */
struct troupe_call {
    uint64_t hash; /* over this and all calls before */
    const char *what;
    const char *name; /* the gang's or edge's */
};

/* Times of work in a stream: a pair of events for each piece of it in a step. */
struct troupe_task_clock {
    troupe_stream *stream;
    troupe_event **begins, **ends;
    int count, capacity;
    int read; /* of count: whose times the trace has */
};

struct troupe_actor_gang {
    struct troupe_spawn_options options; /* name and ranks are copies */
    char *name;
    int *ranks;
    int member;            /* of this rank, or TROUPE_NOBODY */
    troupe_stream *stream; /* of its member here; NULL: it computes on the host */
    struct troupe_task_clock clock;
    void *state;
    bool created;
    int first_method;               /* in the task graph */
    struct troupe_inlet **inlets;   /* by port; NULL: not connected, or no member here */
    struct troupe_outlet **outlets; /* by port */
    struct troupe_gang_times times;
};

struct troupe_actor_edge {
    struct troupe_connect_options options; /* name and lists are copies, defaults filled in */
    char *name;
    int *from;
    int *to;
    int from_port;
    int to_port;
    int from_method; /* index in the class that writes the port */
    int to_method;
    int firings;          /* a step; 0: without steps */
    int first_channel;    /* of from_count x to_count with a route, else of from_count */
    int first_return;     /* first of from_count buffer returns, or -1, see plan.c */
    int *shard_of_source; /* with a route: index into from, by rank; TROUPE_NOBODY */
    int *shard_of_destination;
    size_t element_bytes;
    uint64_t bytes_sent; /* by this rank in this step */
};

/* ---- the task graph ---- */

/* An edge of the task graph: messages from one gang to another; to_shard TROUPE_NOBODY: the return
 * of the output buffers of from_shard. */
struct troupe_channel {
    int edge;
    int from_shard;
    int to_shard;
    uint64_t *receivers; /* by microbatch of this step; known to conductors, NULL: everyone */
};

/* ---- mailboxes ---- */

/* Rows of a layout that a rank holds: a part of the ragged row split, or, part -1, [begin, end). */
struct troupe_rows {
    int part;
    int64_t begin, end;
};

/* What a rank holds of an edge's tensor where it is one piece. */
struct troupe_held {
    int pieces; /* the rest describes one of them */
    struct troupe_rows rows;
    int64_t column_begin, columns;
};

/* One end of an edge at an actor. */
struct troupe_end {
    troupe_runtime *runtime;
    struct troupe_actor_edge *edge;
    int edge_index;
    int shard;
    int member;
    troupe_stream *stream; /* the actor's; NULL: its tensors are in host memory */
    int64_t rows_max;
    struct troupe_rows
        *rows; /* with a route: what the rank holds, ascending; packed in that order */
    int rows_count;
    int64_t column_begin; /* of the tensor */
    int64_t columns;
};

/* The end's part of one message. */
struct troupe_bound {
    struct troupe_message_plan plan;
    struct troupe_route_binding *binding; /* NULL without a route */
    struct troupe_route_view view;
    struct troupe_route_stretch *stretches; /* with a route: of the view; memory for rows_count */
    int64_t rows;
    bool travels; /* without a route: whether it is sent at all */
};

/* A send or a receive. */
struct troupe_piece {
    struct troupe_transfer transfer;
    uint8_t header[TROUPE_WIRE_BYTES];
    /* For a payload in several stretches, NULL where that cannot be; on a device pinned, for any.
     */
    void *staging;
    troupe_event *copied; /* of sends from a device: the payload is in staging */
    const struct troupe_route_message *message; /* NULL without a route */
    void *owner;                                /* the outlet buffer or inlet entry */
    int shard;                                  /* of the peer */
    struct troupe_flow *flow; /* the sender's device writes the payload; NULL: it is sent */
    /* Of sends from a device. */
    int64_t sequence; /* the message */
    bool relayed;
    const struct troupe_bound *bound; /* the owner's */
    troupe_event *taken;              /* the owner's: behind the copies out of its tensor */
    struct troupe_box box_there;      /* with a flow: what the receiver's tensor covers */
    struct troupe_piece *next;        /* that waits for a grant */
};

/* A pair of ranks on an edge, in one direction, see flow.c. */
struct troupe_flow {
    int edge;
    int shard; /* 0 with a route */
    int peer;
    bool outgoing;              /* this rank writes */
    bool tried, agreed;         /* the peer has such a device; both ends can do it */
    int32_t works;              /* during the handshake: as far as known */
    struct troupe_inlet *inlet; /* incoming */
    struct troupe_held held;    /* outgoing: the peer's */
    troupe_window **windows;    /* by slot, message % credits */
    int64_t (*granted)[2];      /* outgoing: latest message, by slot and whether relayed */
    struct troupe_window_offer *offers;
    struct troupe_window_answer *answers;
    struct troupe_transfer transfer; /* of the handshake */
};

struct troupe_outlet_buffer {
    struct troupe_outlet *outlet;
    void *data;
    bool busy;      /* being written, sent, or read by the local consumer */
    int holds;      /* sends in flight, local consumer */
    bool for_local; /* the local inlet has not taken it yet */
    int64_t firing;
    struct troupe_bound bound;
    struct troupe_piece *sends;
    int send_count;                       /* of the array */
    troupe_event *written, *read, *taken; /* on a device, see copies.c */
};

struct troupe_outlet {
    struct troupe_end end;
    int buffer_count;
    struct troupe_outlet_buffer *buffers;
    struct troupe_inlet *local; /* of the same edge on this rank, or NULL */
    void *memory;
    void *staging;
};

enum troupe_entry_state { TROUPE_ENTRY_FREE, TROUPE_ENTRY_WAITING, TROUPE_ENTRY_READY };

/* Room for message `message`; messages take the entries in turn. */
struct troupe_inlet_entry {
    struct troupe_inlet *inlet;
    enum troupe_entry_state state;
    int64_t message;
    uint64_t since_ns;
    void *data;
    struct troupe_bound bound;
    struct troupe_tensor tensor;
    int pending;                         /* pieces that have not arrived */
    int *pending_from;                   /* of them, by shard of the source */
    bool hand_over;                      /* the local producer's buffer is the input */
    struct troupe_outlet_buffer *handed; /* to be released when consumed */
    int receive_count;                   /* of the message */
    struct troupe_piece *receives;
    char *staging;               /* for all of them together; NULL where none needs any */
    int entering;                /* receives from holders that have not arrived */
    struct troupe_piece *relays; /* sent when those have; see relay.c */
    int relays_made;             /* of the array */
    troupe_event *filled, *kept, *consumed; /* on a device, see copies.c */
    troupe_window
        *window; /* of some flow into it: all are released together; NULL: there is none */
};

struct troupe_inlet {
    struct troupe_end end;
    int depth;
    struct troupe_inlet_entry *entries;
    int64_t next;  /* the message that gets an entry next */
    int64_t limit; /* messages below are known */
    int64_t initial_end;
    struct troupe_outlet *local; /* of the same edge on this rank, or NULL */
    void *memory;
    void *staging;
    void *relay_staging;
    int *counts;
};

/* ---- tickets ---- */

struct troupe_rank_ticket {
    int method;
    int slot;
    int64_t firing;
    uint64_t since_ns;
};

/* A firing in the reduction lane. */
struct troupe_posted_reduction {
    troupe_runtime *runtime;
    int method;
    int outstanding;
    bool running;
    int64_t firing;
    uint64_t since_ns;
};

enum troupe_control_kind {
    TROUPE_CONTROL_TICKET,  /* conductor to member: index = method, firing, slot */
    TROUPE_CONTROL_ARRIVED, /* member to conductor: index = channel, firing, member */
    TROUPE_CONTROL_DONE,    /* member to conductor: index = method, firing, member */
    TROUPE_CONTROL_CREDIT,  /* conductor to conductor: index = channel */
    TROUPE_CONTROL_GRANT,   /* consumer to producer: index = edge, slot = shard, member = relayed */
    TROUPE_CONTROL_SENT,    /* without steps, producer to consumer: index = channel, firing */
    TROUPE_CONTROL_STOP,    /* to all: issue nothing more */
    TROUPE_CONTROL_LAST,    /* conductor to member: no ticket comes after this */
    TROUPE_CONTROL_QUIET,   /* to rank 0: all tickets run, all sends complete */
    TROUPE_CONTROL_EXIT,    /* rank 0 to all: everyone is quiet */
    TROUPE_CONTROL_REPORT,  /* to all: say what you wait for; index = round, slot = whether the job
                               ends with it */
    TROUPE_CONTROL_FACT,    /* struct troupe_wait_fact */
    TROUPE_CONTROL_REPORTED, /* no more facts: index = round */
    TROUPE_CONTROL_BYE,      /* to all: nothing more comes from this runtime */
    TROUPE_CONTROL_BATCH,    /* several of the first three, see tree.c */
    TROUPE_CONTROL_COME,     /* in mode static, member to first member: it could run the gang's next
                                task; index = gang */
    TROUPE_CONTROL_GO,       /* first member to member: all have come; index = gang */
};

struct troupe_control {
    int32_t kind;
    int32_t index;
    int32_t member;
    int32_t slot;
    int64_t firing;
};

struct troupe_crew; /* crew_internal.h */

enum troupe_wait_cause {
    TROUPE_WAIT_NOTHING,
    TROUPE_WAIT_INPUT,
    TROUPE_WAIT_OUTPUT,
    TROUPE_WAIT_REDUCTION, /* one that goes before, in mode static */
    TROUPE_WAIT_GANG,      /* other members of it, in mode static where the host may wait */
};

struct troupe_runtime {
    troupe_comm *comm;
    struct troupe_runtime_options options;
    char *order_name;
    const struct troupe_order_policy *order;
    int rank;
    int rank_count;
    bool prepared;  /* all memory is there */
    bool listening; /* the endpoint calls this runtime */
    bool started;

    struct troupe_call *calls;
    int call_count, call_capacity;
    struct troupe_actor_gang *gangs;
    int gang_count, gang_capacity;
    struct troupe_actor_edge *edges;
    int edge_count, edge_capacity;

    struct troupe_graph graph;
    struct troupe_graph_index *graph_index;
    struct troupe_gang *graph_gangs;
    struct troupe_method *graph_methods;
    struct troupe_edge *graph_edges;
    int *graph_after;
    struct troupe_channel *channels; /* beside graph_edges */
    uint64_t plan_ns;                /* troupe_runtime_plan_ns */
    int *conductor_of;
    troupe_group *world;
    uint64_t *hashes; /* by rank: scratch of compare_calls */

    struct troupe_inlet *inlets;
    int inlet_count;
    struct troupe_outlet *outlets;
    int outlet_count;
    int sends_in_flight;
    struct troupe_flow *flows;
    int flow_count, flow_capacity;
    int64_t flows_agreed, flows_refused; /* of all ranks */
    struct troupe_piece *ungranted;      /* to be written when their receivers grant it */

    troupe_stream *outgoing, *incoming; /* copies to and from the host; NULL without a device */
    struct troupe_task_clock outgoing_clock, incoming_clock;
    troupe_event *lane;   /* behind the latest task of several ranks, on the device */
    troupe_event *origin; /* on the device, where the step began */
    uint64_t origin_ns;   /* the host's clock then */

    troupe_engine *engine;                  /* of the island that this rank conducts, or NULL */
    struct troupe_route_binding **bindings; /* of destination ranks, by edge and rank; conductors */
    uint64_t *receivers_memory;
    bool pumping;
    int64_t tickets_issued; /* by this conductor, counted per member */
    uint64_t *issued_ns;    /* by method of the graph: its latest ticket; conductors */
    bool last_said;
    struct troupe_tree *tree;               /* of a large island; NULL: messages go straight */
    struct troupe_static_step *static_step; /* instead of an engine; NULL: mode dynamic */

    struct troupe_crew *crew;           /* fires instead of all below; NULL: no workers */
    struct troupe_rank_ticket *tickets; /* a ring */
    int ticket_capacity, ticket_first, ticket_count;
    struct troupe_rank_ticket *late; /* reductions set aside until the step's tasks have run */
    int late_count;
    int64_t tasks_done, tasks_target;           /* firings once a microbatch */
    struct troupe_rank_ticket running;          /* method TROUPE_NOBODY: none */
    struct troupe_posted_reduction *reductions; /* by method of the graph; used for own ones */
    int64_t firings_done, firings_target;
    int64_t step;
    int64_t first_step; /* -1: no step yet */

    bool stopping, last_seen, quiet_said, exiting;
    int quiet_count;
    atomic_bool report_requested;
    struct troupe_report report;
    int byes_received;
    uint64_t progress_ns;        /* when something last happened */
    struct troupe_timer *timers; /* by due time */
    troupe_status failure;
    char failure_text[1024];
};

/* ---- actor.c ---- */

/* The array has room for one more; grows it by copying. */
troupe_status troupe_grow(void **array, int count, int *capacity, size_t bytes);
troupe_status troupe_copy_ints(const int *values, int count, int **out);
uint64_t troupe_hash_bytes(uint64_t hash, const void *data, size_t bytes);
uint64_t troupe_hash_text(uint64_t hash, const char *text);
uint64_t troupe_hash_int(uint64_t hash, int64_t value);
troupe_status troupe_record_call(troupe_runtime *runtime, const char *what, const char *name,
                                 uint64_t hash);
/* Collective: ERROR_INVALID on every rank if the ranks made different calls. */
troupe_status troupe_compare_calls(troupe_runtime *runtime);
troupe_status troupe_create_actors(troupe_runtime *runtime);
void troupe_destroy_gangs(troupe_runtime *runtime);
void troupe_destroy_edges(troupe_runtime *runtime);

/* ---- plan.c ---- */

troupe_status troupe_make_graph(troupe_runtime *runtime);
void troupe_destroy_graph(troupe_runtime *runtime);
const struct troupe_actor_method *troupe_method_of(const troupe_runtime *runtime, int method);
struct troupe_actor_gang *troupe_gang_of(const troupe_runtime *runtime, int method);
/* Conductor of the gang's island. */
int troupe_conductor_of_gang(const troupe_runtime *runtime, int gang);
int troupe_channel_of(const struct troupe_actor_edge *edge, int from_shard, int to_shard);
int64_t troupe_edge_step(const struct troupe_actor_edge *edge, int64_t message);
int troupe_edge_microbatch(const struct troupe_actor_edge *edge, int64_t message);
void troupe_edge_plan(const struct troupe_actor_edge *edge, int64_t step, int microbatch, int shard,
                      struct troupe_message_plan *out);

/* ---- mailbox.c ---- */

/* What a receiver of a routed edge holds. */
void troupe_find_held(const struct troupe_actor_edge *edge, int rank, struct troupe_held *out);
/* Of one message, where that is one piece. */
struct troupe_box troupe_box_held(const struct troupe_held *held, const int64_t *offsets);
troupe_status troupe_make_mailboxes(troupe_runtime *runtime);
void troupe_destroy_mailboxes(troupe_runtime *runtime);
/* Messages of the steps up to this one are known: post receives for as many as there is room. */
void troupe_inlet_begin_step(struct troupe_inlet *inlet, int64_t step, bool first);
/* Without steps: messages below `limit` have been sent. */
void troupe_inlet_announce(struct troupe_inlet *inlet, int64_t limit);
/* The entry of the message if it is all here, else NULL. */
struct troupe_inlet_entry *troupe_inlet_ready(struct troupe_inlet *inlet, int64_t message);
/* The method that reads it has run, or is enqueued. */
void troupe_inlet_consume(struct troupe_inlet *inlet, struct troupe_inlet_entry *entry);
bool troupe_inlet_is_waiting(const struct troupe_inlet *inlet);
/* A buffer that nobody uses, or NULL. */
struct troupe_outlet_buffer *troupe_outlet_free(struct troupe_outlet *outlet);
/* Binds it to the firing and gives the tensor to write. */
troupe_status troupe_outlet_begin(struct troupe_outlet_buffer *buffer, int64_t firing,
                                  struct troupe_tensor *out);
/* The tensor is written: sends it off. */
void troupe_outlet_finish(struct troupe_outlet_buffer *buffer);

/* ---- copies.c: without effect at ends on the host, unless said otherwise ---- */

/* The streams of a rank with a device; checks that it has one. */
troupe_status troupe_make_streams(troupe_runtime *runtime);
void troupe_destroy_streams(troupe_runtime *runtime);
/* Waits until the device is done with all memory of this layer. */
void troupe_drain_streams(const troupe_runtime *runtime);
troupe_status troupe_end_alloc(const struct troupe_end *end, size_t bytes, void **out);
troupe_status troupe_end_alloc_staging(const struct troupe_end *end, size_t bytes, void **out);
void troupe_end_free(const struct troupe_end *end, void *memory, void *staging);
troupe_status troupe_end_create_event(const struct troupe_end *end, troupe_event **out);
/* The actor's stream writes the buffer behind its latest readers. */
troupe_status troupe_buffer_await_readers(const struct troupe_outlet_buffer *buffer);
/* The method is enqueued: copies out of the buffer come behind it. */
troupe_status troupe_buffer_mark_written(const struct troupe_outlet_buffer *buffer);
/* On a device only: the payload to staging; piece->copied and piece->taken behind it. */
troupe_status troupe_piece_copy_out(troupe_runtime *runtime, const struct troupe_piece *piece);
/* On a device only: the payload into the receiver's tensor; piece->taken behind it. */
troupe_status troupe_piece_copy_across(troupe_runtime *runtime, const struct troupe_piece *piece,
                                       troupe_window *window,
                                       const struct troupe_route_view *there);
/* On a device only: the payload from staging, entry->filled behind it. */
troupe_status troupe_piece_copy_in(const struct troupe_inlet_entry *entry,
                                   const struct troupe_piece *piece);
/* On a device only: what stays on the rank, entry->kept behind it. */
troupe_status troupe_entry_copy_kept(const struct troupe_inlet_entry *entry,
                                     const struct troupe_outlet_buffer *buffer);
/* On a device only: later work of the stream sees the pieces that have arrived. */
troupe_status troupe_entry_await_pieces(const struct troupe_inlet_entry *entry,
                                        troupe_stream *stream);
/* The actor's stream reads the entry behind what fills it. */
troupe_status troupe_entry_await(const struct troupe_inlet_entry *entry);
/* The method is enqueued: the entry is filled again behind it. */
troupe_status troupe_entry_mark_consumed(const struct troupe_inlet_entry *entry);

/* ---- flow.c: on a device only ---- */

/* Those that this rank may have; alone. */
troupe_status troupe_make_flows(troupe_runtime *runtime);
/* Collective. Which of them there are. */
troupe_status troupe_agree_on_flows(troupe_runtime *runtime);
/* The flow of an end with the peer, or NULL. */
struct troupe_flow *troupe_flow_of(const struct troupe_end *end, int peer, bool outgoing);
/* The receive of an inlet entry is posted: its flow may write. */
void troupe_flow_grant(const struct troupe_piece *piece);
void troupe_heed_grant(troupe_runtime *runtime, int from, const struct troupe_control *control);
/* Sends a piece of a tensor on the device, addressed and sealed, on its way. */
troupe_status troupe_piece_depart(troupe_runtime *runtime, struct troupe_piece *piece);
/* Gives up the memory of others; then, when all have, this rank's own windows. */
void troupe_let_go_of_flows(troupe_runtime *runtime);
void troupe_destroy_flows(troupe_runtime *runtime);

/* ---- task_clock.c ---- */

troupe_status troupe_task_clock_make(struct troupe_task_clock *clock, troupe_stream *stream,
                                     int capacity);
void troupe_task_clock_destroy(struct troupe_task_clock *clock);
/* Around a piece of work; beyond the capacity without effect. */
troupe_status troupe_task_clock_begin(const struct troupe_task_clock *clock);
troupe_status troupe_task_clock_end(struct troupe_task_clock *clock);
/* Of what the device has done. */
uint64_t troupe_task_clock_total_ns(const struct troupe_task_clock *clock);
/* From here on the device's times are on the host's clock. */
troupe_status troupe_mark_origin(troupe_runtime *runtime);

/* Addresses the piece to (or from) the peer on a channel, with the payload where it lies; the flow
 * is set. */
void troupe_piece_address(const struct troupe_end *end, const struct troupe_bound *bound,
                          int channel, int peer, struct troupe_piece *piece);
/* Writes the piece's header, payload checksum included. */
void troupe_piece_seal(const struct troupe_end *end, const struct troupe_bound *bound,
                       int64_t message, struct troupe_piece *piece);
/* Whether its payload is not in the tensor. */
bool troupe_piece_is_staged(const struct troupe_piece *piece);
size_t troupe_end_buffer_bytes(const struct troupe_end *end);

/* ---- relay.c ---- */

/* Marks relays in a tag, those of each entry apart: they may overtake those of the one before. */
uint64_t troupe_relay_tag(const struct troupe_inlet_entry *entry);
troupe_status troupe_make_relays(struct troupe_inlet *inlet);
void troupe_destroy_relays(struct troupe_inlet *inlet);
/* All that comes from holders is there: hands on what others need of it. The entry is ready when
 * that is sent, too. */
void troupe_entry_post_relays(struct troupe_inlet_entry *entry);

/* ---- conductor.c ---- */

troupe_status troupe_make_conductor(troupe_runtime *runtime);
void troupe_destroy_conductor(troupe_runtime *runtime);
void troupe_conductor_begin_step(troupe_runtime *runtime, int64_t step);
/* Issues what may be issued. */
void troupe_conductor_pump(troupe_runtime *runtime);
/* Tells the own island's conductor, by a call or by a message. */
void troupe_tell_conductor(troupe_runtime *runtime, const struct troupe_control *control);
/* An event for the engine of this rank. */
void troupe_conductor_event(troupe_runtime *runtime, const struct troupe_control *control);

/* Who receives something of each message of the step, as far as conductors here ask. */
troupe_status troupe_mark_step_receivers(troupe_runtime *runtime, int64_t step);
uint64_t troupe_ask_receivers(void *arg, int edge, int64_t step, int microbatch);

/* ---- tree.c ---- */

/* Where the island is large. */
troupe_status troupe_make_tree(troupe_runtime *runtime);
void troupe_destroy_tree(troupe_runtime *runtime);
void troupe_tree_send_ticket(troupe_runtime *runtime, const struct troupe_control *ticket);
void troupe_tree_tell_conductor(troupe_runtime *runtime, const struct troupe_control *control);
void troupe_tree_heed(troupe_runtime *runtime, const void *message, size_t bytes);
/* Wherever the rank has heard all there is for now; without a tree nothing. */
void troupe_tree_flush(troupe_runtime *runtime);

/* ---- static_step.c: without effect in mode dynamic ---- */

troupe_status troupe_make_static_step(troupe_runtime *runtime);
void troupe_destroy_static_step(troupe_runtime *runtime);
void troupe_static_begin_step(troupe_runtime *runtime, int64_t step);
/* The rank's next ticket, where it has none. */
void troupe_static_feed(troupe_runtime *runtime);
/* Whether a reduction that goes before the method has not completed. */
bool troupe_static_awaits_reduction(const troupe_runtime *runtime, int method);
/* Whether other members of its gang may not have come to the method, which is next here. */
bool troupe_static_awaits_gang(const troupe_runtime *runtime, int method);
/* The method could run here but for them: says so, once. */
void troupe_static_come(troupe_runtime *runtime, int method);
/* The method runs here. */
void troupe_static_begin_task(troupe_runtime *runtime, int method);
/* COME and GO. */
void troupe_static_heed(troupe_runtime *runtime, const struct troupe_control *control);

/* ---- runtime.c ---- */

/* Keeps the first failure, with this thread's last error, and tells all ranks. */
void troupe_runtime_fail(troupe_runtime *runtime, troupe_status status);
void troupe_send_control_bytes(troupe_runtime *runtime, int to, const void *message, size_t bytes);
void troupe_send_control(troupe_runtime *runtime, int to, const struct troupe_control *control);
void troupe_send_fact(troupe_runtime *runtime, int to, const struct troupe_wait_fact *fact);
void troupe_push_ticket(troupe_runtime *runtime, const struct troupe_control *control);
/* What the first ticket waits for; `port_out` gets the end concerned. */
enum troupe_wait_cause troupe_ticket_wait(const troupe_runtime *runtime,
                                          const struct troupe_rank_ticket *ticket, int *port_out);

#endif
