/* SPDX-License-Identifier: Apache-2.0 */
/* Tickets and reports of a large island go along a tree of its ranks, several in a message: so the
 * conductor sends and hears a few messages where it would a gang's worth for each ticket. The ranks
 * of the island, ascending, are a heap with FANOUT children each and the conductor on top. Between
 * two ranks there is one way, and messages keep their order on it: each rank gets its tickets in
 * the order of their issue, and each rank's reports arrive in that of what happened. */
#include <stddef.h>
#include <string.h>

#include "actors/runtime_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

enum {
    FANOUT = 8,
    BATCH = (TROUPE_CONTROL_BYTES_MAX - 2 * sizeof(int32_t)) / sizeof(struct troupe_control)
};

/* What is about to go to one neighbour; sent when full, or when the rank has heard all there is. */
struct batch {
    int32_t kind; /* TROUPE_CONTROL_BATCH */
    int32_t count;
    struct troupe_control controls[BATCH];
};

struct troupe_tree {
    const int *ranks;                     /* of the island; the index's */
    int first_child, child_count, parent; /* places in ranks; parent of the conductor: -1 */
    uint8_t *below; /* by gang of the graph: bit i, child i or a rank below it is a member */
    struct batch up, down[FANOUT];
};

static void send_batch(troupe_runtime *runtime, int place, struct batch *batch) {
    if (batch->count > 0) {
        size_t bytes =
            offsetof(struct batch, controls) + (size_t)batch->count * sizeof *batch->controls;
        batch->kind = TROUPE_CONTROL_BATCH;
        troupe_send_control_bytes(runtime, runtime->tree->ranks[place], batch, bytes);
        batch->count = 0;
    }
}

static void add(troupe_runtime *runtime, int place, struct batch *batch,
                const struct troupe_control *control) {
    batch->controls[batch->count++] = *control;
    if (batch->count == BATCH) {
        send_batch(runtime, place, batch);
    }
}

void troupe_tree_flush(troupe_runtime *runtime) {
    struct troupe_tree *tree = runtime->tree;
    for (int i = 0; tree != NULL && i < tree->child_count; i++) {
        send_batch(runtime, tree->first_child + i, &tree->down[i]);
    }
    if (tree != NULL && tree->parent >= 0) {
        send_batch(runtime, tree->parent, &tree->up);
    }
}

/* The ticket to this rank, if it is a member, and on to those below. */
void troupe_tree_send_ticket(troupe_runtime *runtime, const struct troupe_control *ticket) {
    struct troupe_tree *tree = runtime->tree;
    const struct troupe_method *method = &runtime->graph_methods[ticket->index];
    for (int i = 0; i < tree->child_count; i++) {
        if (tree->below[method->gang] >> i & 1) {
            add(runtime, tree->first_child + i, &tree->down[i], ticket);
        }
    }
    if (runtime->gangs[method->gang].member != TROUPE_NOBODY) {
        troupe_push_ticket(runtime, ticket);
    }
}

void troupe_tree_tell_conductor(troupe_runtime *runtime, const struct troupe_control *control) {
    add(runtime, runtime->tree->parent, &runtime->tree->up, control);
}

void troupe_tree_heed(troupe_runtime *runtime, const void *message, size_t bytes) {
    struct batch batch;
    TROUPE_ASSERT(runtime->tree != NULL && bytes >= offsetof(struct batch, controls) &&
                      bytes <= sizeof batch,
                  "rank %d got a batch of %zu bytes", runtime->rank, bytes);
    memcpy(&batch, message, bytes);
    for (int i = 0; i < batch.count; i++) {
        if (batch.controls[i].kind == TROUPE_CONTROL_TICKET) {
            troupe_tree_send_ticket(runtime, &batch.controls[i]);
        } else {
            troupe_tell_conductor(runtime, &batch.controls[i]);
        }
    }
}

/* Marks each gang at the child under which a rank lies that is a member. */
static void mark_below(troupe_runtime *runtime, int own, int place) {
    struct troupe_tree *tree = runtime->tree;
    const struct troupe_lists *gangs = &runtime->graph_index->gangs;
    int rank = tree->ranks[place], child = place;
    while (child > 0 && (child - 1) / FANOUT != own) {
        child = (child - 1) / FANOUT;
    }
    for (int i = gangs->begin[rank]; child > 0 && i < gangs->begin[rank + 1]; i++) {
        tree->below[gangs->items[i]] |= (uint8_t)(1 << (child - tree->first_child));
    }
}

troupe_status troupe_make_tree(troupe_runtime *runtime) {
    const struct troupe_graph_index *index = runtime->graph_index;
    int island = index->island_of_rank[runtime->rank];
    bool conducted = island >= 0 && runtime->options.microbatches > 0 &&
                     !runtime->options.static_order && !runtime->options.host_may_wait;
    int begin = conducted ? index->island_ranks.begin[island] : 0;
    int count = conducted ? index->island_ranks.begin[island + 1] - begin : 0;
    if (count <= runtime->options.tree_ranks) {
        return TROUPE_OK;
    }
    TROUPE_TRY(TROUPE_NEW(&runtime->tree, 1));
    struct troupe_tree *tree = runtime->tree;
    int own = index->place_of_rank[runtime->rank];
    tree->ranks = &index->island_ranks.items[begin];
    TROUPE_ASSERT(tree->ranks[own] == runtime->rank, "rank %d is not at place %d", runtime->rank,
                  own);
    tree->parent = own > 0 ? (own - 1) / FANOUT : -1;
    tree->first_child = own * FANOUT + 1;
    int children = count - tree->first_child;
    tree->child_count = children < 0 ? 0 : children < FANOUT ? children : FANOUT;
    TROUPE_TRY(TROUPE_NEW(&tree->below, runtime->graph.gang_count));
    for (int place = own + 1; place < count; place++) {
        mark_below(runtime, own, place);
    }
    return TROUPE_OK;
}

void troupe_destroy_tree(troupe_runtime *runtime) {
    if (runtime->tree != NULL) {
        troupe_free(runtime->tree->below);
        troupe_free(runtime->tree);
    }
}
