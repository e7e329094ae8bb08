/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/order_planned.h"

#include "runtime/check.h"
#include "runtime/memory.h"
#include "scheduler/portfolio.h"

/* Tasks placed in the search before each step, where costs are not steady, and what one takes. */
enum { SEARCH_EACH_STEP = 30000, PLACEMENT_NS = 200 };
/* In so many parts, where the step waits for it. */
enum { SEARCH_PARTS = 16 };

struct troupe_shared_plan {
    int users;
    int64_t step;  /* the one planned; -1: none */
    int64_t epoch; /* of the costs */
    int *limits;   /* by gang of the graph: microbatches in flight */
    int *sequence;
    struct troupe_step_plan *plan;
    troupe_portfolio *portfolio; /* NULL: the policy has none, or is done with it */
    int64_t placements;          /* of the search */
    const char *begun_from;      /* of the portfolio; NULL: from a schedule of its own */
};

/* ---- memory ---- */

static bool has_memory(const struct troupe_graph *graph, int gang, const int64_t *taken) {
    const struct troupe_gang *plan = &graph->gangs[gang];
    for (int k = 0; graph->memory_bytes != NULL && k < plan->rank_count; k++) {
        if (taken[plan->ranks[k]] + plan->slot_bytes > graph->memory_bytes[plan->ranks[k]]) {
            return false;
        }
    }
    return true;
}

static void take_memory(const struct troupe_graph *graph, int gang, int64_t *taken) {
    const struct troupe_gang *plan = &graph->gangs[gang];
    for (int k = 0; k < plan->rank_count; k++) {
        taken[plan->ranks[k]] += plan->slot_bytes;
    }
}

/* Shares out what memory allows: one slot for every gang, then one more for each in turn. So what
 * is in flight is bounded gang by gang, as a plan needs it. `wanted` becomes what is granted. */
static void share_memory(const struct troupe_graph *graph, int *wanted, int *granted,
                         int64_t *taken) {
    for (int g = 0; g < graph->gang_count; g++) {
        granted[g] = 1;
        take_memory(graph, g, taken);
    }
    for (bool more = true; more;) {
        more = false;
        for (int g = 0; g < graph->gang_count; g++) {
            if (granted[g] < wanted[g] && has_memory(graph, g, taken)) {
                granted[g]++;
                take_memory(graph, g, taken);
                more = true;
            }
        }
    }
}

static troupe_status make_limits(const struct troupe_graph_index *index, troupe_wanted_slots wanted,
                                 int **limits_out) {
    const struct troupe_graph *graph = index->graph;
    troupe_status status = TROUPE_OK;
    int *left = NULL, *wants = NULL, *granted = NULL;
    int64_t *taken = NULL;
    TROUPE_TRY_FAIL(TROUPE_NEW(&left, graph->gang_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&wants, graph->gang_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&granted, graph->gang_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&taken, graph->rank_count));
    for (int g = 0; g < graph->gang_count; g++) {
        int behind = troupe_order_gangs_left(index, g, left);
        int slots = wanted(graph, g, behind > 0 ? behind : 1);
        wants[g] = slots < graph->gangs[g].slots ? slots : graph->gangs[g].slots;
    }
    share_memory(graph, wants, granted, taken);
    *limits_out = granted;
    granted = NULL;
fail:
    troupe_free(left);
    troupe_free(wants);
    troupe_free(granted);
    troupe_free(taken);
    return status;
}

/* ---- the plan that peers share ---- */

static void release_plan(struct troupe_shared_plan *shared) {
    if (shared != NULL && --shared->users <= 0) {
        troupe_portfolio_destroy(shared->portfolio);
        troupe_step_plan_destroy(shared->plan);
        troupe_free(shared->limits);
        troupe_free(shared->sequence);
        troupe_free(shared);
    }
}

/* Where the step waits for the plan, the search goes on only as long as it shortens the step by
 * more than it takes itself. The same on all ranks: it counts placements, not time. */
static void search(struct troupe_shared_plan *shared, const struct troupe_costs *costs) {
    if (costs->search_ns == 0) {
        troupe_step_plan_improve(shared->plan, shared->placements);
        return;
    }
    const struct troupe_step_plan *plan = shared->plan;
    int64_t part = 1 + costs->search_ns / PLACEMENT_NS / SEARCH_PARTS;
    for (int i = 0; i < SEARCH_PARTS && plan->makespan_ns - plan->bound_ns > costs->tolerance_ns;
         i++) {
        int64_t before_ns = shared->plan->makespan_ns;
        troupe_step_plan_improve(shared->plan, part);
        if (before_ns - shared->plan->makespan_ns < part * PLACEMENT_NS) {
            return;
        }
    }
}

static bool is_planned(const struct troupe_shared_plan *shared, const struct troupe_costs *costs,
                       int64_t step) {
    bool lasts = costs->epoch > 0 ? shared->epoch == costs->epoch : costs->steady;
    return shared->step == step || (shared->step >= 0 && lasts);
}

static void plan_step(struct troupe_shared_plan *shared, const struct troupe_costs *costs,
                      int64_t step) {
    if (is_planned(shared, costs, step)) {
        return;
    }
    troupe_step_plan_costs(shared->plan, costs, costs->steady ? 0 : step);
    if (shared->portfolio != NULL) {
        shared->begun_from = troupe_portfolio_try(shared->portfolio, costs->steady ? 0 : step);
    }
    search(shared, costs);
    troupe_step_plan_sequence(shared->plan, shared->sequence);
    shared->step = step;
    shared->epoch = costs->epoch;
}

/* Steady costs: a replica has the plan of the one before. */
static bool take_plan(struct troupe_shared_plan *shared, const struct troupe_costs *costs,
                      const struct troupe_order_planned *peer) {
    troupe_step_plan_costs(shared->plan, costs, 0);
    for (; peer != NULL; peer = peer->peer) {
        if (troupe_step_plan_take(shared->plan, peer->plan->plan)) {
            troupe_step_plan_sequence(shared->plan, shared->sequence);
            shared->begun_from = peer->plan->begun_from;
            shared->step = 0;
            return true;
        }
    }
    return false;
}

static troupe_status make_plan(const struct troupe_order_setting *setting,
                               const struct troupe_planning *planning,
                               struct troupe_shared_plan **out) {
    troupe_status status = TROUPE_OK;
    struct troupe_shared_plan *shared = NULL;
    TROUPE_TRY(TROUPE_NEW(&shared, 1));
    shared->users = 1;
    shared->step = -1;
    shared->placements = setting->costs->steady ? planning->search_once : SEARCH_EACH_STEP;
    TROUPE_TRY_FAIL(make_limits(setting->index, planning->wanted, &shared->limits));
    TROUPE_TRY_FAIL(
        troupe_step_plan_create(setting->index, setting->conductor, shared->limits, &shared->plan));
    TROUPE_TRY_FAIL(TROUPE_NEW(&shared->sequence, shared->plan->task_count));
    bool taken = setting->costs->steady && take_plan(shared, setting->costs, setting->peer);
    if (planning->portfolio && !taken) {
        TROUPE_TRY_FAIL(troupe_portfolio_create(shared->plan, shared->limits, setting->costs,
                                                &shared->portfolio));
    }
    if (setting->costs->steady) { /* now, so that simulators of many parts do not add up */
        plan_step(shared, setting->costs, 0);
        troupe_portfolio_destroy(shared->portfolio);
        shared->portfolio = NULL;
    }
    *out = shared;
    return TROUPE_OK;
fail:
    release_plan(shared);
    return status;
}

/* A peer's plan that the rank has a part in, or NULL. */
static struct troupe_shared_plan *find_plan(const struct troupe_order_planned *peer,
                                            const struct troupe_graph_index *index, int rank) {
    for (; peer != NULL; peer = peer->peer) {
        for (int i = index->gangs.begin[rank]; i < index->gangs.begin[rank + 1]; i++) {
            int gang = index->gangs.items[i];
            for (int j = index->methods.begin[gang]; j < index->methods.begin[gang + 1]; j++) {
                if (peer->plan->plan->first_task[index->methods.items[j]] >= 0) {
                    return peer->plan;
                }
            }
        }
    }
    return NULL;
}

/* ---- the part of an island ---- */

static int place_of_rank(const struct troupe_order_planned *state, int rank) {
    return state->info->index->place_of_rank[rank];
}

static int gang_of_task(const struct troupe_order_planned *state, int task) {
    return state->info->index->graph->methods[state->plan->plan->method_of[task]].gang;
}

static bool is_here(const struct troupe_order_planned *state, int gang) {
    const struct troupe_graph_index *index = state->info->index;
    return index->island_of_rank[index->graph->gangs[gang].ranks[0]] == state->info->island;
}

static int ranks_here(const struct troupe_order_planned *state) {
    const struct troupe_lists *ranks = &state->info->index->island_ranks;
    return ranks->begin[state->info->island + 1] - ranks->begin[state->info->island];
}

static troupe_status make_ranks(struct troupe_order_planned *state) {
    int places = 0, count = ranks_here(state);
    TROUPE_TRY(TROUPE_NEW(&state->ranks, count));
    for (int t = 0; t < state->plan->plan->task_count; t++) {
        int g = gang_of_task(state, t);
        const struct troupe_gang *gang = &state->info->index->graph->gangs[g];
        for (int k = 0; is_here(state, g) && k < gang->rank_count; k++) {
            state->ranks[place_of_rank(state, gang->ranks[k])].count++;
            places++;
        }
    }
    TROUPE_TRY(TROUPE_NEW(&state->ranks_memory, places));
    int *memory = state->ranks_memory;
    for (int i = 0; i < count; i++) {
        state->ranks[i].tasks = memory;
        memory += state->ranks[i].count;
    }
    return TROUPE_OK;
}

static void follow_plan(struct troupe_order_planned *state) {
    for (int i = 0; i < ranks_here(state); i++) {
        state->ranks[i].count = 0;
    }
    for (int i = 0; i < state->plan->plan->task_count; i++) {
        int t = state->plan->sequence[i], g = gang_of_task(state, t);
        const struct troupe_gang *gang = &state->info->index->graph->gangs[g];
        state->place[t] = i;
        for (int k = 0; is_here(state, g) && k < gang->rank_count; k++) {
            struct troupe_planned_rank *rank = &state->ranks[place_of_rank(state, gang->ranks[k])];
            rank->tasks[rank->count++] = t;
        }
    }
}

void troupe_order_planned_begin_step(void *arg, int64_t step) {
    struct troupe_order_planned *state = arg;
    if (state->plan == NULL) {
        return;
    }
    plan_step(state->plan, state->costs, step);
    if (state->step_followed != state->plan->step) {
        follow_plan(state);
        state->step_followed = state->plan->step;
    }
    for (int i = 0; i < ranks_here(state); i++) {
        state->ranks[i].next = 0;
    }
}

/* ---- creation ---- */

void troupe_order_planned_destroy(void *arg) {
    struct troupe_order_planned *state = arg;
    if (state == NULL) {
        return;
    }
    release_plan(state->plan);
    troupe_order_destroy_info(state->info);
    troupe_free(state->limits);
    troupe_free(state->place);
    troupe_free(state->ranks);
    troupe_free(state->ranks_memory);
    troupe_free(state);
}

static troupe_status join_plan(struct troupe_order_planned *state,
                               const struct troupe_order_setting *setting,
                               const struct troupe_planning *planning) {
    state->plan = find_plan(state->peer, setting->index, setting->conductor);
    if (state->plan != NULL) {
        state->plan->users++;
    } else {
        TROUPE_TRY(make_plan(setting, planning, &state->plan));
    }
    TROUPE_TRY(TROUPE_NEW(&state->place, state->plan->plan->task_count));
    return make_ranks(state);
}

/* The limits of the island's own gangs: the plan may go before the state does. */
static troupe_status copy_limits(struct troupe_order_planned *state,
                                 const struct troupe_order_setting *setting,
                                 troupe_wanted_slots wanted) {
    const struct troupe_lists *gangs = &setting->index->island_gangs;
    int island = state->info->island, *limits = NULL;
    TROUPE_TRY(TROUPE_NEW(&state->limits, gangs->begin[island + 1] - gangs->begin[island]));
    if (state->plan == NULL) {
        TROUPE_TRY(make_limits(setting->index, wanted, &limits));
    }
    for (int i = gangs->begin[island]; i < gangs->begin[island + 1]; i++) {
        int g = gangs->items[i];
        state->limits[i - gangs->begin[island]] =
            (limits != NULL ? limits : state->plan->limits)[g];
    }
    troupe_free(limits);
    return TROUPE_OK;
}

troupe_status troupe_order_planned_create(const struct troupe_order_setting *setting,
                                          const struct troupe_planning *planning,
                                          void **state_out) {
    troupe_status status = TROUPE_OK;
    struct troupe_order_planned *state = NULL;
    TROUPE_TRY(TROUPE_NEW(&state, 1));
    state->costs = setting->costs;
    state->peer = setting->peer;
    state->step_followed = -1;
    TROUPE_TRY_FAIL(troupe_order_info_create(setting, &state->info));
    if (setting->costs != NULL) {
        TROUPE_TRY_FAIL(join_plan(state, setting, planning));
    }
    TROUPE_TRY_FAIL(copy_limits(state, setting, planning->wanted));
    *state_out = state;
    return TROUPE_OK;
fail:
    troupe_order_planned_destroy(state);
    return status;
}

int troupe_order_planned_in_flight(const void *arg, const struct troupe_graph *graph, int gang) {
    const struct troupe_order_planned *state = arg;
    (void)graph;
    return state->limits[state->info->index->place_of_gang[gang]];
}

const char *troupe_order_planned_choice(const void *arg) {
    const struct troupe_order_planned *state = arg;
    return state->plan != NULL ? state->plan->begun_from : NULL;
}

/* ---- choosing ---- */

/* Whether the task comes next on all its ranks. */
static bool is_next(struct troupe_order_planned *state, const struct troupe_order_view *view,
                    int task) {
    const struct troupe_step_plan *plan = state->plan->plan;
    const struct troupe_gang *gang = &view->graph->gangs[gang_of_task(state, task)];
    for (int k = 0; k < gang->rank_count; k++) {
        struct troupe_planned_rank *rank = &state->ranks[place_of_rank(state, gang->ranks[k])];
        while (rank->next < rank->count) {
            int t = rank->tasks[rank->next], m = plan->method_of[t];
            if (t - plan->first_task[m] >= view->issued[m]) {
                break;
            }
            rank->next++;
        }
        if (rank->next == rank->count || rank->tasks[rank->next] != task) {
            return false;
        }
    }
    return true;
}

static int64_t key(void *arg, const struct troupe_order_view *view,
                   const struct troupe_candidate *candidate) {
    struct troupe_order_planned *state = arg;
    int first = state->plan->plan->first_task[candidate->method];
    if (first < 0) {
        return -1; /* not in the plan: at once */
    }
    int task = first + candidate->microbatch;
    return is_next(state, view, task) ? state->place[task] : TROUPE_KEY_HELD;
}

int troupe_order_planned_pick(void *state, const struct troupe_order_view *view,
                              const struct troupe_candidate *candidates, int count) {
    return troupe_order_pick_least(state, view, candidates, count, key);
}
