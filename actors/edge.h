/* SPDX-License-Identifier: Apache-2.0
 *
 * Edges join output ports to input ports. Both ends are lists of gangs, because a boundary between
 * an encoder of three data-parallel shards and a language model of two is one edge with one route.
 *
 *     troupe_connect(rt, &(struct troupe_connect_options){.name = "vision -> llm",
 *         .from = vision, .from_count = 3, .from_port = "tokens",
 *         .to = llm, .to_count = 2, .to_port = "images", .credits = 2, .columns = hidden,
 *         .from_rows_max = 512, .to_rows_max = 768, .route = route, .plan = plan, .arg = &data},
 *         NULL);
 *
 * With a route, each row goes straight to the ranks that need it. Without one, gang k sends to gang
 * k and member i to member i, the whole message. Both ends work out the size of every message from
 * `plan`; there is no handshake, and a piece of zero rows is not sent. What stays on a rank is
 * handed over without a copy when it is all of the rank's output and all of its input.
 *
 * Each end holds `credits` buffers (an output with a plan one more). A message carries a header
 * that the receiver checks against its own plan (comm/contract.h).
 *
 * Ownership: names and lists are copied; route, plan and arg are borrowed until destroy; what plan
 * returns stays valid while its step runs. Threads: the rank's own.
 * Failure: ERROR_INVALID with a sentence; at run time ERROR_CONTRACT naming both ends.
 */
#ifndef TROUPE_ACTORS_EDGE_H
#define TROUPE_ACTORS_EDGE_H

#include <stdint.h>

#include "actors/actor.h"
#include "comm/route.h"
#include "comm/wire.h"
#include "runtime/status.h"
#include "runtime/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What both ends know about the message of one microbatch before it is sent. */
struct troupe_message_plan {
    const int64_t *source_offsets;      /* with a ragged route: see troupe_route_bind */
    const int64_t *destination_offsets; /* the same */
    int64_t rows;                       /* without a route: of each member of the pair */
    uint64_t sample_set;                /* of the microbatch, see comm/wire.h */
    uint64_t normalisation;
};

struct troupe_connect_options {
    const char *name; /* unique */
    const int *from;  /* gangs */
    int from_count;   /* 0: 1 */
    const char *from_port;
    const int *to;
    int to_count; /* 0: 1; without a route: from_count */
    const char *to_port;
    int credits; /* messages in flight, 0: 2 */
    /* Messages that exist before the start, all zeros: how a cycle gets going. Firing k then
     * produces what firing k + initial consumes. Only without a route and a plan. */
    int initial;
    int64_t columns; /* of the logical tensor; 0: messages without payload */
    enum troupe_dtype dtype;
    int64_t from_rows_max; /* of a member's buffer, 0: 1 */
    int64_t to_rows_max;   /* 0: as from */
    /* Compiled for these ranks: the rows (and columns) that each member of `from` and of `to`
     * holds. Every rank is in at most one gang of either end. Several pieces of a rank have the
     * same columns; its tensor has their rows one after the other, ascending. */
    const troupe_route *route;
    /* Fills *out (zeroed) for a microbatch; `shard` is the index into from and to, 0 with a route.
     * NULL: always from_rows_max rows, no samples. Asked when a buffer gets free, at any time from
     * the beginning of the message's step. */
    void (*plan)(void *arg, int64_t step, int microbatch, int shard,
                 struct troupe_message_plan *out);
    void *arg;
};

troupe_status troupe_connect(troupe_runtime *runtime, const struct troupe_connect_options *options,
                             int *edge_out);

#ifdef __cplusplus
}
#endif
#endif
