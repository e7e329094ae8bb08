/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/portfolio.h"

#include "runtime/check.h"
#include "runtime/memory.h"
#include "scheduler/graph_part.h"
#include "scheduler/order_internal.h"
#include "scheduler/sim.h"

static const struct troupe_order_policy *const members[] = {
    &troupe_order_zero_bubble,
    &troupe_order_1f1b,
    &troupe_order_interleaved,
    &troupe_order_three_phase,
};
enum { MEMBER_COUNT = TROUPE_COUNT_OF(members) };

struct troupe_portfolio {
    struct troupe_step_plan *plan;
    const struct troupe_costs *whole; /* costs of the whole graph */
    struct troupe_costs costs;        /* the same, asked with numbers of the part */
    int64_t step;
    struct troupe_graph_part *part;
    troupe_sim *sims[MEMBER_COUNT];
    int64_t *begin_ns; /* by task of the plan */
};

/* ---- costs of the part; the simulator counts its own steps ---- */

static int64_t task_ns(void *arg, int method, int64_t step, int microbatch) {
    const troupe_portfolio *portfolio = arg;
    (void)step;
    return troupe_cost_of_task(portfolio->whole, portfolio->part->method_of[method],
                               portfolio->step, microbatch);
}

static int64_t edge_ns(void *arg, int edge, int64_t step, int microbatch) {
    const troupe_portfolio *portfolio = arg;
    (void)step;
    return troupe_cost_of_edge(portfolio->whole, portfolio->part->edge_of[edge], portfolio->step,
                               microbatch);
}

/* ---- creation ---- */

static troupe_status make_part(troupe_portfolio *portfolio, const int *slots) {
    const struct troupe_graph *graph = portfolio->plan->index->graph;
    troupe_status status = TROUPE_OK;
    bool *is_in_part = NULL;
    TROUPE_TRY_FAIL(TROUPE_NEW(&is_in_part, graph->method_count));
    for (int m = 0; m < graph->method_count; m++) {
        is_in_part[m] = portfolio->plan->first_task[m] >= 0;
    }
    TROUPE_TRY_FAIL(troupe_graph_part_create(graph, is_in_part, slots, &portfolio->part));
fail:
    troupe_free(is_in_part);
    return status;
}

troupe_status troupe_portfolio_create(struct troupe_step_plan *plan, const int *slots,
                                      const struct troupe_costs *costs, troupe_portfolio **out) {
    troupe_status status = TROUPE_OK;
    troupe_portfolio *portfolio = NULL;
    TROUPE_TRY(TROUPE_NEW(&portfolio, 1));
    portfolio->plan = plan;
    portfolio->whole = costs;
    portfolio->costs = (struct troupe_costs){
        .task_ns = task_ns, .edge_ns = edge_ns, .arg = portfolio, .steady = costs->steady};
    TROUPE_TRY_FAIL(TROUPE_NEW(&portfolio->begin_ns, plan->task_count));
    TROUPE_TRY_FAIL(make_part(portfolio, slots));
    for (int i = 0; i < MEMBER_COUNT; i++) {
        const struct troupe_sim_options options = {.order = members[i], .costs = &portfolio->costs};
        TROUPE_TRY_FAIL(troupe_sim_create(&portfolio->part->graph, &options, &portfolio->sims[i]));
    }
    *out = portfolio;
    return TROUPE_OK;
fail:
    troupe_portfolio_destroy(portfolio);
    return status;
}

void troupe_portfolio_destroy(troupe_portfolio *portfolio) {
    if (portfolio == NULL) {
        return;
    }
    for (int i = 0; i < MEMBER_COUNT; i++) {
        troupe_sim_destroy(portfolio->sims[i]);
    }
    troupe_graph_part_destroy(portfolio->part);
    troupe_free(portfolio->begin_ns);
    troupe_free(portfolio);
}

/* ---- trying ---- */

/* Offers the plan one policy's schedule; whether that made a shorter one. */
static bool try_member(troupe_portfolio *portfolio, int member) {
    struct troupe_step_plan *plan = portfolio->plan;
    struct troupe_sim_result result;
    int64_t before = plan->makespan_ns;
    if (troupe_sim_run(portfolio->sims[member], &result) != TROUPE_OK) {
        return false;
    }
    for (int i = 0; i < result.schedule.task_count; i++) {
        const struct troupe_task *task = &result.schedule.tasks[i];
        int method = portfolio->part->method_of[task->method];
        portfolio->begin_ns[plan->first_task[method] + task->microbatch] = task->begin_ns;
    }
    troupe_step_plan_try(plan, portfolio->begin_ns);
    return plan->makespan_ns < before;
}

const char *troupe_portfolio_try(troupe_portfolio *portfolio, int64_t step) {
    const char *best = NULL;
    const struct troupe_step_plan *plan = portfolio->plan;
    int64_t tolerance_ns = portfolio->whole->tolerance_ns;
    portfolio->step = step;
    portfolio->costs.search_ns = portfolio->whole->search_ns;
    portfolio->costs.tolerance_ns = tolerance_ns;
    for (int i = 0; i < MEMBER_COUNT && plan->makespan_ns - plan->bound_ns > tolerance_ns; i++) {
        best = try_member(portfolio, i) ? members[i]->name : best;
    }
    return best;
}
