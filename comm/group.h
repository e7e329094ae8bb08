/* SPDX-License-Identifier: Apache-2.0
 *
 * A group is an ordered list of ranks that run collectives on host tensors together (a TP, DP or
 * world group). Sums add the members' values in group order, element by element, never in arrival
 * order, and each element is summed by exactly one member and then distributed: the result is
 * bitwise the same on every member, on every transport, in every run. (A small operand is sent
 * whole to all, and every member does the same sum in the same order.)
 *
 *     troupe_group_create(comm, &(struct troupe_group_options){.ranks = ranks, .count = 4,
 *                         .id = 7, .bytes_max = bytes}, &group);
 *     troupe_group_all_reduce(group, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32, x, count);
 *
 * The waiting calls drive troupe_comm_progress until done. The posted form returns at once; its
 * `operation` belongs to the group until operation->status leaves TROUPE_AGAIN.
 *
 * Ownership: create/destroy by one owner, on every member, in the same order; operands stay the
 * caller's. A group of one does nothing and needs no messages.
 * Threads: the rank's communicating thread only.
 * Failure: the status of the transport, e.g. TROUPE_ERROR_PEER; the group then stays failed.
 * No call but create allocates.
 */
#ifndef TROUPE_COMM_GROUP_H
#define TROUPE_COMM_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "comm/comm.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_group troupe_group;

enum troupe_reduction { TROUPE_SUM, TROUPE_MAX };
enum troupe_element {
    TROUPE_ELEMENT_FLOAT32,
    TROUPE_ELEMENT_FLOAT64,
    TROUPE_ELEMENT_INT64,
    TROUPE_ELEMENT_UINT64
};

/* Ids that Troupe itself takes; an app's own groups stay below them. */
enum {
    TROUPE_GROUP_ID_MODULES = 1 << 18,       /* 2^19 of them: TP, DP, tied stages of modules */
    TROUPE_GROUP_ID_TRAIN = (1 << 20) - 4,   /* all ranks of a training job */
    TROUPE_GROUP_ID_LAUNCH = (1 << 20) - 3,  /* all ranks, while they settle on their cores */
    TROUPE_GROUP_ID_RUNTIME = (1 << 20) - 2, /* and the next: all ranks of a runtime */
};

struct troupe_group_options {
    const int *ranks; /* global ranks in group order; copied. NULL: all ranks of the job */
    int count;        /* of `ranks` */
    uint32_t id;      /* the same on all members, unique among the live groups; < 2^20 */
    size_t bytes_max; /* largest all_reduce operand; staging is allocated for it at creation */
    /* Uses the endpoint's messages, not a library's collectives: then create needs no other member,
     * and a member whose create fails holds nobody up. */
    bool alone;
};

/* A posted collective: the caller's storage, zero before the first post. */
struct troupe_collective {
    /* From progress (in a group of one from the post); NULL: none. May post. */
    void (*done)(struct troupe_collective *operation);
    void *arg;
    troupe_status status; /* AGAIN while in flight */
    uint64_t state[10];   /* the group's */
};

troupe_status troupe_group_create(troupe_comm *comm, const struct troupe_group_options *options,
                                  troupe_group **out);
void troupe_group_destroy(troupe_group *group);
int troupe_group_size(const troupe_group *group);
int troupe_group_index(const troupe_group *group); /* of this rank */
int troupe_group_rank(const troupe_group *group, int index);

/* In place; data: count elements. Waits, driving progress. */
troupe_status troupe_group_all_reduce(troupe_group *group, enum troupe_reduction reduction,
                                      enum troupe_element element, void *data, int64_t count);
/* data: size blocks of count elements, unchanged; out: the sum of all members' block `index`; may
 * be this rank's own block. Waits. */
troupe_status troupe_group_reduce_scatter(troupe_group *group, enum troupe_reduction reduction,
                                          enum troupe_element element, const void *data,
                                          int64_t count, void *out);
/* out holds size * bytes, member i's block at i * bytes; this rank's block may alias `mine`. */
troupe_status troupe_group_all_gather(troupe_group *group, const void *mine, size_t bytes,
                                      void *out);
troupe_status troupe_group_broadcast(troupe_group *group, int root_index, void *data, size_t bytes);
troupe_status troupe_group_barrier(troupe_group *group);

/* Posted form of all_reduce: advances inside troupe_comm_progress. Several may be in flight on one
 * group if every member posts them in the same order; data must not be touched until done. */
troupe_status troupe_group_post_all_reduce(troupe_group *group, enum troupe_reduction reduction,
                                           enum troupe_element element, void *data, int64_t count,
                                           struct troupe_collective *operation);

#ifdef __cplusplus
}
#endif
#endif
