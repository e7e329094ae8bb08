/* SPDX-License-Identifier: Apache-2.0 */
/* What order policies know of the gangs of their island. */
#include <string.h>

#include "runtime/check.h"
#include "runtime/memory.h"
#include "scheduler/order_internal.h"

enum { NONE = -1, UNKNOWN = 0 };

static bool is_forward(const struct troupe_graph *graph, int method) {
    return graph->methods[method].kind == TROUPE_METHOD_FORWARD;
}

static int method_of_kind(const struct troupe_graph_index *index, int gang,
                          enum troupe_method_kind kind) {
    for (int i = index->methods.begin[gang]; i < index->methods.begin[gang + 1]; i++) {
        if (index->graph->methods[index->methods.items[i]].kind == kind) {
            return index->methods.items[i];
        }
    }
    return NONE;
}

/* Forward edges without initial messages have no cycle (graph.h), so this ends. */
int troupe_order_gangs_left(const struct troupe_graph_index *index, int gang, int *left) {
    const struct troupe_graph *graph = index->graph;
    int forward = method_of_kind(index, gang, TROUPE_METHOD_FORWARD), most = 0;
    if (left[gang] != UNKNOWN || forward == NONE) {
        return left[gang];
    }
    for (int i = index->outputs.begin[forward]; i < index->outputs.begin[forward + 1]; i++) {
        const struct troupe_edge *edge = &graph->edges[index->outputs.items[i]];
        if (edge->initial == 0 && is_forward(graph, edge->to)) {
            int behind = troupe_order_gangs_left(index, graph->methods[edge->to].gang, left);
            most = behind > most ? behind : most;
        }
    }
    left[gang] = 1 + most;
    return left[gang];
}

/* The stage that the gang's first rank holds of the same module in its first chunk. */
static int pipeline_rank_of(const struct troupe_graph_index *index, int gang) {
    const struct troupe_gang *plan = &index->graph->gangs[gang];
    int rank = plan->ranks[0], lowest = plan->stage;
    for (int i = index->gangs.begin[rank]; i < index->gangs.begin[rank + 1]; i++) {
        const struct troupe_gang *other = &index->graph->gangs[index->gangs.items[i]];
        if (other->module == plan->module && other->dp == plan->dp && other->stage < lowest) {
            lowest = other->stage;
        }
    }
    return lowest;
}

static void fill_gang(struct troupe_order_info *info, int g, int *left) {
    const struct troupe_graph_index *index = info->index;
    const struct troupe_gang *plan = &index->graph->gangs[g];
    struct troupe_order_gang *gang = &info->gangs[index->place_of_gang[g]];
    gang->forward = method_of_kind(index, g, TROUPE_METHOD_FORWARD);
    gang->backward = method_of_kind(index, g, TROUPE_METHOD_BACKWARD_INPUT);
    gang->weight = method_of_kind(index, g, TROUPE_METHOD_BACKWARD_WEIGHT);
    gang->microbatches = gang->forward != NONE ? index->graph->methods[gang->forward].firings : 0;
    gang->left = troupe_order_gangs_left(index, g, left);
    gang->left = gang->left > 0 ? gang->left : 1;
    gang->trunk = plan->depth == 0;
    gang->chunks = plan->chunk_count > 1 ? plan->chunk_count : 1;
    gang->chunk = plan->chunk;
    gang->pipeline_ranks = plan->stage_count > gang->chunks ? plan->stage_count / gang->chunks : 1;
    gang->pipeline_rank = pipeline_rank_of(index, g);
}

static bool is_roomy(const struct troupe_graph *graph) {
    bool roomy = graph->memory_bytes == NULL;
    for (int m = 0; m < graph->method_count; m++) {
        const struct troupe_method *method = &graph->methods[m];
        roomy =
            roomy && (!method->slot_take || graph->gangs[method->gang].slots >= method->firings);
    }
    for (int e = 0; e < graph->edge_count; e++) {
        const struct troupe_edge *edge = &graph->edges[e];
        roomy = roomy && edge->credits >= graph->methods[edge->to].firings;
    }
    return roomy;
}

troupe_status troupe_order_info_create(const struct troupe_order_setting *setting,
                                       struct troupe_order_info **out) {
    troupe_status status = TROUPE_OK;
    const struct troupe_graph_index *index = setting->index;
    int island = index->island_of_rank[setting->conductor];
    const int *gangs = index->island_gangs.items + index->island_gangs.begin[island];
    int count = index->island_gangs.begin[island + 1] - index->island_gangs.begin[island];
    int *left = NULL;
    struct troupe_order_info *info = NULL;
    TROUPE_TRY(TROUPE_NEW(&info, 1));
    info->index = index;
    info->island = island;
    info->roomy = is_roomy(index->graph);
    TROUPE_TRY_FAIL(TROUPE_NEW(&info->gangs, count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&left, index->graph->gang_count));
    for (int i = 0; i < count; i++) {
        fill_gang(info, gangs[i], left);
    }
    troupe_free(left);
    *out = info;
    return TROUPE_OK;
fail:
    troupe_free(left);
    troupe_order_destroy_info(info);
    return status;
}

troupe_status troupe_order_create_info(const struct troupe_order_setting *setting,
                                       void **state_out) {
    struct troupe_order_info *info = NULL;
    TROUPE_TRY(troupe_order_info_create(setting, &info));
    *state_out = info;
    return TROUPE_OK;
}

void troupe_order_destroy_info(void *state) {
    struct troupe_order_info *info = state;
    if (info != NULL) {
        troupe_free(info->gangs);
        troupe_free(info);
    }
}

/* ---- choosing by a key ---- */

int troupe_order_pick_least(void *state, const struct troupe_order_view *view,
                            const struct troupe_candidate *candidates, int count,
                            troupe_order_key key) {
    int best = TROUPE_ORDER_HOLD;
    int64_t least = TROUPE_KEY_HELD;
    for (int i = 0; i < count; i++) {
        const struct troupe_candidate *c = &candidates[i];
        int64_t k = key(state, view, c);
        if (k == TROUPE_KEY_HELD) {
            continue;
        }
        if (best != TROUPE_ORDER_HOLD && c->waits != candidates[best].waits) {
            best = c->waits ? best : i;
            least = c->waits ? least : k;
        } else if (best == TROUPE_ORDER_HOLD || k < least ||
                   (k == least && troupe_candidate_is_older(c, &candidates[best]))) {
            best = i;
            least = k;
        }
    }
    return best;
}

/* ---- the textbook ---- */

/* Microbatches go round the chunks in groups of as many as the pipeline has ranks. */
static int64_t place_among(const struct troupe_order_gang *gang, int microbatch, int chunk) {
    int group = microbatch / gang->pipeline_ranks, first = group * gang->pipeline_ranks;
    int size = gang->microbatches - first;
    size = size < gang->pipeline_ranks ? size : gang->pipeline_ranks;
    return (int64_t)first * gang->chunks + chunk * size + (microbatch - first);
}

static int64_t total_of(const struct troupe_order_gang *gang) {
    return (int64_t)gang->microbatches * gang->chunks;
}

/* Forwards before the first pair. */
static int64_t warm_up_of(const struct troupe_order_gang *gang) {
    int64_t behind = gang->pipeline_ranks - gang->pipeline_rank - 1;
    int64_t forwards =
        gang->chunks > 1 ? 2 * behind + (gang->chunks - 1) * gang->pipeline_ranks : behind;
    return forwards < total_of(gang) ? forwards : total_of(gang);
}

int64_t troupe_textbook_forward(const struct troupe_order_gang *gang, int microbatch) {
    int64_t i = place_among(gang, microbatch, gang->chunk), warm_up = warm_up_of(gang);
    return i < warm_up ? i : warm_up + 2 * (i - warm_up);
}

int64_t troupe_textbook_backward(const struct troupe_order_gang *gang, int microbatch) {
    int64_t i = place_among(gang, microbatch, gang->chunks - 1 - gang->chunk);
    int64_t warm_up = warm_up_of(gang), pairs = total_of(gang) - warm_up;
    return i < pairs ? warm_up + 2 * i + 1 : warm_up + pairs + i;
}

int troupe_textbook_in_flight(const struct troupe_order_gang *gang) {
    int most = 1, ended = 0;
    for (int k = 0; k < gang->microbatches; k++) {
        while (troupe_textbook_backward(gang, ended) < troupe_textbook_forward(gang, k)) {
            ended++;
        }
        most = k + 1 - ended > most ? k + 1 - ended : most;
    }
    return most;
}
