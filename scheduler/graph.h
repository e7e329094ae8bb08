/* SPDX-License-Identifier: Apache-2.0
 *
 * The task graph: what may run and what must wait for what, as plain data filled from above. A gang
 * is the list of ranks that fire a task together because the task contains a collective (a TP
 * group; one rank for a plain actor). A method belongs to a gang and fires `firings` times a step,
 * always in ascending order. An edge carries one message a firing from one method to another and
 * bounds by its credits how many exist at once. The graph is compiled once per plan and replayed
 * every step; engine.h runs it, one engine per island.
 *
 *     const int tp[2] = {0, 1};
 *     const struct troupe_gang gangs[] = {{.name = "llm dp 0", .ranks = tp, .rank_count = 2, ...}};
 *     struct troupe_graph graph = {.rank_count = 4, .gangs = gangs, .gang_count = 1, ...};
 *     TROUPE_TRY(troupe_graph_check(&graph));
 *     troupe_graph_conductors(&graph, conductor_of);
 *
 * Numbers. The firing of a method is absolute: step * firings + microbatch (of a method with
 * firings 0 it just counts up). A message is known by its edge and the firing that consumes it,
 * which is the producing firing plus the edge's initial messages.
 *
 * Ownership: all arrays and names are the caller's and outlive every engine made from the graph.
 * Threads: plain data, read only. Failure: ERROR_INVALID with one sentence that names the culprit.
 */
#ifndef TROUPE_SCHEDULER_GRAPH_H
#define TROUPE_SCHEDULER_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TROUPE_GANG_RANKS_MAX = 64 }; /* members are kept as bits of one word */

struct troupe_gang {
    const char *name; /* "llm stage 0 dp 1"; first word of every diagnosis */
    const int *ranks; /* member i is ranks[i] */
    int rank_count;
    int slots;          /* activation slots of the gang's own pool; >= 1 where a method takes one */
    int64_t slot_bytes; /* of one, on each member; 0: not counted against the ranks' memory */
    int module;         /* index of the module, the caller's numbering */
    int depth;          /* modules between this one and the loss: 0 language model, 1 encoder */
    int stage;          /* in the order of the forward pass, 0 first, all chunks counted */
    int stage_count;    /* of the module: pipeline ranks * chunks */
    int chunk;          /* of the stages that its ranks hold of the module, which */
    int chunk_count;    /* of them; 0 and 1 both mean one */
    int dp;             /* which replica */
};

enum troupe_method_kind {
    TROUPE_METHOD_USER,
    TROUPE_METHOD_FORWARD,
    TROUPE_METHOD_BACKWARD_INPUT,
    TROUPE_METHOD_BACKWARD_WEIGHT,
    TROUPE_METHOD_REDUCE,
    TROUPE_METHOD_UPDATE,
    TROUPE_METHOD_RECOMPUTE, /* makes activations again, just before their backward */
    TROUPE_METHOD_PREFETCH,  /* brings what a forward reads closer; credits bound how far ahead */
};
enum { TROUPE_METHOD_KIND_COUNT = TROUPE_METHOD_PREFETCH + 1 };

enum troupe_lane {
    /* Runs when the rank reaches its ticket; the rank is busy until it is done. */
    TROUPE_LANE_TICKET,
    /* Posted when the rank reaches its ticket; the rank goes on, and completion comes back as the
     * done event. For collectives that cross islands. Once a step. */
    TROUPE_LANE_REDUCTION,
};

struct troupe_method {
    const char *name; /* "forward" */
    int gang;
    enum troupe_method_kind kind;
    enum troupe_lane lane;
    /* Reduction lane: the place in the one order that the whole job posts reductions in. The
     * members of one collective, in any gang, share the number; a rank posts in ascending order. */
    int lane_order;
    int firings; /* a step; 0: no steps, fires whenever it can */
    /* Methods of the same gang that go first: firing k waits for their firing k, or for all of the
     * step's where the counts differ. They must be issued (members run tickets in order), or done
     * on every member where they are in the reduction lane. */
    const int *after;
    int after_count;
    bool slot_take;   /* takes an activation slot of the gang's pool, e.g. forward */
    bool slot_return; /* gives it back: the last of the backward methods */
};

struct troupe_edge {
    const char *name; /* "vision -> llm" */
    int from;         /* method; fires as often a step as `to` */
    int to;
    int credits; /* messages that may exist at once, from issue of the producer to issue of the
                    consumer; >= 1. An empty message (no receivers, see engine.h) needs none. */
    int initial; /* messages that exist before the start, never empty; how a cycle gets going */
    bool strict; /* only the message itself counts, not that its producer has been issued; edges
                    from the reduction lane are strict by themselves */
};

struct troupe_graph {
    int rank_count;
    const struct troupe_gang *gangs;
    int gang_count;
    const struct troupe_method *methods;
    int method_count;
    const struct troupe_edge *edges;
    int edge_count;
    /* By rank: bytes that the activation slots of all its gangs may take together; NULL: no bound
     * but the slots. One slot of each gang is always granted (the reserve), others only while the
     * reserve of the rest stays free. */
    const int64_t *memory_bytes;
};

/* Every index, count and rule above, and that no firing waits for itself. */
troupe_status troupe_graph_check(const struct troupe_graph *graph);

/* Islands: ranks tied together by gangs, transitively. An island is known by its lowest rank, its
 * conductor: fills conductor_of[rank] for all graph->rank_count ranks (a rank of no gang is its own
 * conductor) and returns how many islands there are. */
int troupe_graph_conductors(const struct troupe_graph *graph, int *conductor_of);

#ifdef __cplusplus
}
#endif
#endif
