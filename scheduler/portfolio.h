/* SPDX-License-Identifier: Apache-2.0
 *
 * What other order policies make of a plan's part, found by simulation: schedules to begin a search
 * from, so that a planned step is not slower than theirs.
 *
 *     TROUPE_TRY(troupe_portfolio_create(plan, slots, costs, &portfolio));
 *     troupe_step_plan_costs(plan, costs, step);
 *     name = troupe_portfolio_try(portfolio, step);      of the policy that did best, NULL: none
 *
 * The policies have the slots that the plan has, so their schedules obey its rules; links and ranks
 * do what costs say, control messages take no time.
 *
 * Ownership: create/destroy; plan and costs are borrowed. Only create allocates; memory is that of
 * a simulator of the part for each policy. Threads: one at a time. Failure: create ERROR_MEMORY.
 */
#ifndef TROUPE_SCHEDULER_PORTFOLIO_H
#define TROUPE_SCHEDULER_PORTFOLIO_H

#include "runtime/status.h"
#include "scheduler/cost.h"
#include "scheduler/step_plan.h"

typedef struct troupe_portfolio troupe_portfolio;

/* slots: by gang of the graph, as given to troupe_step_plan_create. */
troupe_status troupe_portfolio_create(struct troupe_step_plan *plan, const int *slots,
                                      const struct troupe_costs *costs, troupe_portfolio **out);
/* Simulates `step` with each policy and offers the plan what comes out. The plan has the costs of
 * the step and its first schedule; the name is of the policy whose schedule, pushed to and fro, is
 * its schedule now, NULL where none was shorter than that one. A policy that cannot run the part
 * offers nothing. */
const char *troupe_portfolio_try(troupe_portfolio *portfolio, int64_t step);
/* Accepts NULL. */
void troupe_portfolio_destroy(troupe_portfolio *portfolio);

#endif
