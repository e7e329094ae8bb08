/* SPDX-License-Identifier: Apache-2.0
 *
 * The compiled form of a route, shared by route_compile.c (makes it) and route_bind.c (reads it).
 *
 * The tensor is cut into *cells*, boxes that no border of a piece cuts; of a ragged tensor only the
 * columns are. Each part of the rows and each cell has a *set* of ranks on either side. Bind cuts
 * the rows into *segments*, each of one source part and one destination part; a segment of a cell,
 * seen from a host that has needers of it, is a *demand*. Inside a set, ranks are *slots*, indices
 * into the route's ranks, sorted by host, so that the ranks of one host are a *run*.
 *
 * Ownership: everything is the route's. Threads: constant after compile.
 */
#ifndef TROUPE_COMM_ROUTE_INTERNAL_H
#define TROUPE_COMM_ROUTE_INTERNAL_H

#include "comm/balance.h"
#include "comm/route.h"

enum { TROUPE_ROUTE_NOBODY = -1 };

struct troupe_route_run {
    int host;
    int begin, end; /* into the members of its set */
};

struct troupe_route_set {
    int count;
    const int *members;
    int run_count;
    const struct troupe_route_run *runs; /* ascending hosts */
    int component;   /* of the sets that share ranks directly or through others */
    int first_share; /* of 2 * count: as a whole, then run by run */
    int first_group; /* of 1 + run_count groups of holders: the same */
};

/* An interval of indices into a list. */
struct troupe_route_span {
    int begin, end;
};

struct troupe_route_side {
    struct troupe_layout layout;
    int parts;       /* 1 if not ragged */
    int filled_max;  /* of them, those that may have rows at a time */
    int *set_of;     /* parts x cells: index into sets, or NOBODY */
    int *part_lists; /* for each slot the parts of which it is in a set, ascending */
    struct troupe_route_span *parts_of;
    int *host_part_lists; /* the same for each host */
    struct troupe_route_span *parts_of_host;
};

struct troupe_route {
    size_t element_bytes;
    bool ragged;
    int rank_count;
    int *ranks; /* ascending; by slot */
    int *hosts; /* by slot, numbered from 0 */
    int host_count;
    int cell_count;
    struct troupe_box *cells;
    int64_t unit; /* elements: the largest that divides a row of every cell */
    struct troupe_route_side source;
    struct troupe_route_side destination;
    int set_count;
    struct troupe_route_set *sets;
    int *members;                  /* of all sets */
    struct troupe_route_run *runs; /* of all sets */
    int share_count;
    int group_count;
    int component_count;
    struct troupe_route_span *components; /* of items */
    int *items;                           /* source part * cells + cell, of each component */
    int runs_max;                         /* hosts that need the same, at most */
    int *needers_max;                     /* by host: its ranks that need the same, at most */
    int64_t groups_max, members_max;      /* of one balance */
};

/* Sets the fields with the maxima. */
troupe_status troupe_route_find_maxima(troupe_route *route);
/* Makes it the binding of another rank of the route, to be bound. */
troupe_status troupe_route_binding_retarget(struct troupe_route_binding *binding, int rank);
/* What it is bound to, in no more memory than that takes. */
troupe_status troupe_route_binding_copy(const struct troupe_route_binding *binding,
                                        struct troupe_route_binding **out);

/* ---- binding ---- */

enum troupe_route_hop_kind {
    TROUPE_HOP_SEND,
    TROUPE_HOP_RELAY,
    TROUPE_HOP_RECEIVE,
    TROUPE_HOP_RECEIVE_RELAYED,
    TROUPE_HOP_KEEP,
    TROUPE_HOP_KINDS
};

/* Rows of one source part and one destination part. */
struct troupe_route_segment {
    int from, to;
    int64_t begin, end;
};

/* Units [begin, end) of a segment of a cell, on their way between this rank and a peer. */
struct troupe_route_hop {
    enum troupe_route_hop_kind kind;
    int peer;   /* slot */
    int origin; /* slot */
    int segment, cell;
    int64_t begin, end;
};

/* Relays of demands with the same needers and holders on a host. */
struct troupe_relay_group {
    uint64_t key;
    uint64_t epoch; /* of the host's walk in which it was met; older ones are empty */
    int64_t amount;
    int index; /* in the balance, or NOBODY */
};

/* Memory of bind. */
struct troupe_route_work {
    int slot;
    int segment_count;
    struct troupe_route_segment *segments;
    struct troupe_route_span *of_source; /* by part: its segments */
    struct troupe_route_span *of_destination;
    int *first_demand; /* by segment and cell */
    int demands_max;
    int64_t *first_offset; /* by demand: where it begins in its group of holders */
    int64_t *relay_offset; /* by demand: in its group of relays */
    int *relay_group;      /* by demand; NOBODY: nothing to relay */
    int64_t *amounts;      /* by group of holders */
    int *group_shares;     /* by group of the balance: where its shares go */
    int64_t *shares;       /* of holders: where each ends in its group */
    uint64_t epoch;
    uint64_t *solved; /* by component: the epoch */
    uint64_t *walked; /* by host */
    troupe_balance *balance;
    struct troupe_relay_group *relay_groups; /* a hash table, of relay_mask + 1 */
    uint64_t relay_mask;
    uint64_t host_epoch;
    int *lacking;      /* slots */
    int64_t *received; /* by slot: units, of the host that is walked */
    int64_t received_max;
    struct troupe_route_hop *hops;
    int64_t hop_count, hops_max;
    int *order;    /* hops by message */
    int *position; /* by kind and peer */
    struct troupe_box *boxes;
    int64_t box_count, boxes_max;
};

static inline int troupe_route_slot(const troupe_route *route, int rank) {
    int low = 0, high = route->rank_count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (route->ranks[middle] < rank) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < route->rank_count && route->ranks[low] == rank ? low : TROUPE_ROUTE_NOBODY;
}

/* The run of the host in the set, or NULL. */
static inline const struct troupe_route_run *troupe_route_run_of(const struct troupe_route_set *set,
                                                                 int host) {
    int low = 0, high = set->run_count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (set->runs[middle].host < host) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < set->run_count && set->runs[low].host == host ? &set->runs[low] : NULL;
}

#endif
