/* SPDX-License-Identifier: Apache-2.0
 *
 * A route moves a tensor from one layout to another: every needed element exactly once, straight
 * from a rank that holds it, and nothing that a rank has already. Compiled once per pair of
 * layouts, it is bound to the row offsets of each microbatch without allocation; all ranks bind
 * alike, so sender and receiver know size and order of every message without a handshake.
 *
 *     troupe_route_compile(&(struct troupe_route_options){.source = &vision, .destination = &llm,
 *                          .host_of_rank = hosts, .element_bytes = 4}, &route);
 *     troupe_route_binding_create(route, rank, &binding);
 *     ... per microbatch:
 *     troupe_route_bind(binding, source_offsets, destination_offsets);
 *     for (int i = 0; i < binding->send_count; i++) { post(&binding->sends[i]); }
 *
 * Who sends. A rank receives only what it needs and lacks. Each row enters a host that lacks it
 * once, straight from a holder (from one on the host, where there is one): the first hop, to one of
 * the ranks that need it. That one *relays* it to the others; on a host with holders these send the
 * other copies themselves, as long as none sends more than the busiest receiver gets. Holders are
 * chosen so that the largest first-hop load is as small as can be, relays so that the loads within
 * a host are even (comm/balance.h). The choice depends on the offsets of the microbatch, and a rank
 * works out its own part alone.
 *
 * Backward is route(destination -> source): one replica of a gradient is used, the nearest.
 *
 * Ownership: the route copies what it needs of the layouts. A binding belongs to its creator, and
 * its messages and boxes stay valid until the next bind; it must not outlive its route.
 * Threads: a route is constant, any thread may use it; a binding has one user at a time.
 * Failure: TROUPE_ERROR_INVALID if the layouts have different shapes, an element is held by no
 * rank, or offsets are no prefix sums of one total; the binding is then empty.
 */
#ifndef TROUPE_COMM_ROUTE_H
#define TROUPE_COMM_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "comm/layout.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_route troupe_route;

struct troupe_route_options {
    const struct troupe_layout *source;
    const struct troupe_layout *destination;
    const int *host_of_rank; /* by rank; NULL: all ranks on one host */
    size_t element_bytes;
};

/* Everything one rank sends to one peer (or receives from it): the boxes back to back, each row
 * major, in an order that both know. Never empty. What the sender holds from the start and what it
 * relays are two messages. */
struct troupe_route_message {
    int peer;
    bool relayed; /* the sender receives these boxes itself first */
    int origin;   /* a rank that holds the first box in the source layout, and sends it */
    int box_count;
    const struct troupe_box *boxes;
    int64_t elements;
    size_t bytes;
    int64_t row_begin; /* the rows that the boxes span */
    int64_t row_count;
};

/* One rank's part of one microbatch; messages in ascending order of peer, relayed ones after all
 * others. */
struct troupe_route_binding {
    int rank;
    int sends_max; /* most messages of any bind, for sizing transfers */
    int relays_max;
    int receives_max;
    bool scattered; /* relays may make messages of several boxes, even where no columns are cut */
    int send_count;
    int relay_count;
    int receive_count;
    struct troupe_route_message *sends;  /* read from the rank's piece of the source layout */
    struct troupe_route_message *relays; /* read from that of the destination layout */
    struct troupe_route_message *receives;
    struct troupe_route_message kept; /* what stays on the rank; box_count may be 0 */
    const troupe_route *route;
    struct troupe_route_work *work;  /* memory of bind; NULL in a copy */
    struct troupe_box *copied_boxes; /* of a copy */
};

struct troupe_route_bytes {
    size_t sent, relayed, received, kept;
};

troupe_status troupe_route_compile(const struct troupe_route_options *options, troupe_route **out);
void troupe_route_destroy(troupe_route *route);

/* Storage for the largest possible part of the rank. */
troupe_status troupe_route_binding_create(const troupe_route *route, int rank,
                                          struct troupe_route_binding **out);
void troupe_route_binding_destroy(struct troupe_route_binding *binding);
/* Offsets: part_count + 1 row numbers of each ragged layout, from 0 to the same total; NULL for a
 * layout that is not ragged. A ragged layout pairs with a ragged one. */
troupe_status troupe_route_bind(struct troupe_route_binding *binding, const int64_t *source_offsets,
                                const int64_t *destination_offsets);
struct troupe_route_bytes troupe_route_binding_bytes(const struct troupe_route_binding *binding);

/* The ranks of both layouts, ascending. */
int troupe_route_rank_count(const troupe_route *route);
int troupe_route_rank(const troupe_route *route, int index);
/* Its copies of the layouts. */
const struct troupe_layout *troupe_route_source(const troupe_route *route);
const struct troupe_layout *troupe_route_destination(const troupe_route *route);

/* Checks the bindings of all ranks of one microbatch against the layouts, both not ragged:
 * everything needed arrives or stays exactly once, senders have what they send, both ends of a
 * message agree, nothing arrives that was there (LB1), and nothing enters a host that was there or
 * enters twice (LB2). For tests and debugging. */
troupe_status troupe_route_check_bindings(const struct troupe_layout *source,
                                          const struct troupe_layout *destination,
                                          const int *host_of_rank,
                                          struct troupe_route_binding *const *bindings, int count);
/* Binds all ranks and checks that. Allocates. */
troupe_status troupe_route_check(const troupe_route *route, const int64_t *source_offsets,
                                 const int64_t *destination_offsets);

/* Rows [begin, end) of a tensor, the first of which is row `at` of a matrix. */
struct troupe_route_stretch {
    int64_t begin, end;
    int64_t at;
};

/* A rank's matrix in memory: the element (box.begin[0], box.begin[1]) is at `data`, the next row
 * row_bytes further, columns adjacent. It covers `box`, rows x columns; of its rows, if there are
 * stretches, only those: ascending, not adjacent to each other, and without gaps in memory. */
struct troupe_route_view {
    void *data;
    size_t row_bytes;
    size_t element_bytes;
    struct troupe_box box;
    const struct troupe_route_stretch *stretches;
    int stretch_count;
};

/* Where the box begins in memory; the view must cover it. Its rows are row_bytes apart. */
void *troupe_route_view_at(const struct troupe_route_view *view, const struct troupe_box *box);

/* Whether the message is one stretch of the view's memory: then it needs no packing, and
 * troupe_route_message_data is its address. */
bool troupe_route_message_is_contiguous(const struct troupe_route_message *message,
                                        const struct troupe_route_view *view);
void *troupe_route_message_data(const struct troupe_route_message *message,
                                const struct troupe_route_view *view);
/* Between the view and message->bytes contiguous bytes. The view must cover every box. */
void troupe_route_message_pack(const struct troupe_route_message *message,
                               const struct troupe_route_view *view, void *bytes_out);
void troupe_route_message_unpack(const struct troupe_route_message *message, const void *bytes,
                                 const struct troupe_route_view *view);
/* From one matrix to another, which both cover every box: what stays on a rank. */
void troupe_route_message_copy(const struct troupe_route_message *message,
                               const struct troupe_route_view *from,
                               const struct troupe_route_view *to);

#ifdef __cplusplus
}
#endif
#endif
