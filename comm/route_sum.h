/* SPDX-License-Identifier: Apache-2.0
 *
 * A route from partial sums: each element of the source layout is the sum of c summands on as many
 * ranks (or groups of replicas), and every rank of the destination gets the sum. It is reduced on
 * the way, never summed everywhere and then cut: each element has one rank that adds, one of those
 * that need it; the others send their summands there, and it hands the sum to the rest.
 *
 *     troupe_route_sum_compile(&(struct troupe_route_options){.source = &gradients,
 *                              .destination = &shards, .element_bytes = 4}, &sum);
 *     troupe_route_sum_binding_create(sum, rank, &binding);
 *     troupe_route_sum_run(binding, comm, &(struct troupe_route_sum_io){.from = &x, .to = &y,
 *                          .element = TROUPE_ELEMENT_FLOAT32, .tag = 8});
 *
 * Bytes. To know a sum of c summands a rank must have been reached by all c: c - 1 transfers if it
 * has one of them, else c. Each other rank that needs the sum must receive it, or the last of its
 * parts, later: one transfer each. So the ranks D that need an element receive it c + |D| - 1 times
 * at least, or once less where one of them holds a summand; that many times it is sent here. With D
 * all holders that is an all-reduce, with D one rank of them a reduce-scatter. Where several ranks
 * may add, they share the elements to one index of the longest dimension.
 *
 * It is the adjoint of the route that makes copies: the gradient of copies are partial sums, the
 * gradient of partial sums copies. Sums are added in the order of the summands, whenever they come.
 *
 * The layouts have their rows (troupe_layout_bind). Across hosts every summand travels by itself.
 *
 * Ownership: a sum owns its routes, a binding its staging; it must not outlive its sum.
 * Threads: a sum is constant; a binding has one user, the rank's communicating thread.
 * Failure: TROUPE_ERROR_INVALID if there is nothing to add, for layouts that troupe_route_compile
 * refuses, and if an element lacks a summand. run: the transport's; `to` then holds anything.
 */
#ifndef TROUPE_COMM_ROUTE_SUM_H
#define TROUPE_COMM_ROUTE_SUM_H

#include "comm/comm.h"
#include "comm/group.h"
#include "comm/route.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_route_sum troupe_route_sum;
typedef struct troupe_route_sum_binding troupe_route_sum_binding;

troupe_status troupe_route_sum_compile(const struct troupe_route_options *options,
                                       troupe_route_sum **out);
void troupe_route_sum_destroy(troupe_route_sum *sum);

int troupe_route_sum_count(const troupe_route_sum *sum);
/* The way of summand k to the ranks that add; its destination says which rank adds what. */
const troupe_route *troupe_route_sum_gather(const troupe_route_sum *sum, int k);
/* The way of the sums from there. */
const troupe_route *troupe_route_sum_spread(const troupe_route_sum *sum);

troupe_status troupe_route_sum_binding_create(const troupe_route_sum *sum, int rank,
                                              troupe_route_sum_binding **out);
/* Accepts NULL. */
void troupe_route_sum_binding_destroy(troupe_route_sum_binding *binding);
struct troupe_route_bytes troupe_route_sum_bytes(const troupe_route_sum_binding *binding);

struct troupe_route_sum_io {
    const struct troupe_route_view *from; /* the rank's summand; data NULL: it has none */
    const struct troupe_route_view *to;   /* what it needs; data NULL: nothing */
    enum troupe_element element;
    uint64_t tag; /* the first of troupe_route_sum_count + 2, the same on all ranks */
};

/* Every rank of both layouts; returns when this one has what it needs. Does not allocate. */
troupe_status troupe_route_sum_run(troupe_route_sum_binding *binding, troupe_comm *comm,
                                   const struct troupe_route_sum_io *io);

#ifdef __cplusplus
}
#endif
#endif
