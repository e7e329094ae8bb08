/* SPDX-License-Identifier: Apache-2.0
 *
 * The built-in order policies, one file each (order.c lists them), and what they share: what they
 * know of the gangs of their island, the textbook sequence of a pipeline, and choosing by a key.
 *
 * Ownership: info is create/destroy. Threads: one. Failure: create ERROR_MEMORY.
 */
#ifndef TROUPE_SCHEDULER_ORDER_INTERNAL_H
#define TROUPE_SCHEDULER_ORDER_INTERNAL_H

#include <stdbool.h>

#include "scheduler/order.h"

extern const struct troupe_order_policy troupe_order_fifo; /* the reference */
extern const struct troupe_order_policy troupe_order_gpipe;
extern const struct troupe_order_policy troupe_order_1f1b;
extern const struct troupe_order_policy troupe_order_interleaved;
extern const struct troupe_order_policy troupe_order_three_phase;
extern const struct troupe_order_policy troupe_order_zero_bubble;
extern const struct troupe_order_policy troupe_order_fill;

/* Whether a became a candidate before b; at the same moment the lower microbatch goes first, then
 * the lower method: so any policy that ends with this is deterministic. */
bool troupe_candidate_is_older(const struct troupe_candidate *a, const struct troupe_candidate *b);

/* ---- choosing by a key ---- */

/* The lowest key goes first. HELD: not now. */
#define TROUPE_KEY_HELD INT64_MAX
typedef int64_t (*troupe_order_key)(void *state, const struct troupe_order_view *view,
                                    const struct troupe_candidate *candidate);
/* What can run at once goes before what would hold its ranks up, then the lowest key, then the
 * oldest; TROUPE_ORDER_HOLD if all are held. */
int troupe_order_pick_least(void *state, const struct troupe_order_view *view,
                            const struct troupe_candidate *candidates, int count,
                            troupe_order_key key);

struct troupe_order_info;
/* zero_bubble's choice without a plan. */
int troupe_order_pick_eager(const struct troupe_order_info *info,
                            const struct troupe_order_view *view,
                            const struct troupe_candidate *candidates, int count);

/* ---- what policies know of a gang ---- */

struct troupe_order_gang {
    int forward, backward, weight; /* its methods, -1: none */
    int microbatches;              /* firings of forward */
    int left;   /* gangs on the longest way from here to the loss, itself included */
    bool trunk; /* it holds part of the module with the loss, e.g. the language model */
    /* Of its module's pipeline: how many ranks it has, on which of them this is, and how many
     * stages each holds. */
    int pipeline_ranks, pipeline_rank, chunks;
    int chunk;
};

struct troupe_order_info {
    const struct troupe_graph_index *index;
    int island;
    struct troupe_order_gang *gangs; /* of the island, see troupe_order_gang_at */
    /* All activations of a step fit everywhere: slots and credits for all microbatches, and no
     * bound on a rank's memory. */
    bool roomy;
};

troupe_status troupe_order_info_create(const struct troupe_order_setting *setting,
                                       struct troupe_order_info **out);
/* Gangs on the longest way along forward edges from this one to the loss, itself included; `left`,
 * all 0 at first, by gang, remembers what has been found. */
int troupe_order_gangs_left(const struct troupe_graph_index *index, int gang, int *left);
/* create and destroy for policies whose state is the info alone. */
troupe_status troupe_order_create_info(const struct troupe_order_setting *setting,
                                       void **state_out);
void troupe_order_destroy_info(void *state);

static inline const struct troupe_order_gang *
troupe_order_gang_at(const struct troupe_order_info *info, int gang) {
    return &info->gangs[info->index->place_of_gang[gang]];
}

/* ---- the textbook ---- */

/* The place of a forward or backward in its rank's sequence when each rank of the pipeline runs
 * warm-up forwards, then one forward and one backward in turn, then the last backwards (Narayanan
 * et al., "Efficient large-scale language model training on GPU clusters", SC21; one stage a rank
 * gives plain 1F1B). */
int64_t troupe_textbook_forward(const struct troupe_order_gang *gang, int microbatch);
int64_t troupe_textbook_backward(const struct troupe_order_gang *gang, int microbatch);
/* The most microbatches that the gang holds in that sequence. */
int troupe_textbook_in_flight(const struct troupe_order_gang *gang);

/* Classes of keys: lower ones first. Within the trunk's, places in the textbook. */
#define TROUPE_KEY_OF(class, place) (((int64_t)(class) << 40) + (place))

#endif
