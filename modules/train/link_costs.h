/* SPDX-License-Identifier: Apache-2.0
 *
 * What the messages of a step take to arrive: from a cluster's links, latency and bytes over
 * bandwidth, until steps have run; then from what those showed.
 *
 *     TROUPE_TRY(troupe_link_costs_create(&options, &links));
 *     int64_t ns = troupe_link_costs_ns(links, edge, microbatch);
 *     troupe_link_costs_learn(links, &schedule, 0.7);                  (the step has run)
 *
 * A message is seen to take the time between its producer's end and its consumer's begin, where the
 * consumer's ranks had nothing else to do meanwhile and no other input came later. That includes
 * the ticket. Of the messages of one edge in one step the quickest counts: what else holds one up
 * only adds. Messages within a host and those between hosts get a line each, over the bytes.
 *
 * Ownership: create/destroy; what the options name is borrowed. ns and learn do not allocate.
 * Threads: the rank's. Failure: create ERROR_MEMORY.
 */
#ifndef TROUPE_MODULES_TRAIN_LINK_COSTS_H
#define TROUPE_MODULES_TRAIN_LINK_COSTS_H

#include "actors/forecast.h"
#include "comm/comm.h"
#include "scheduler/cluster.h"
#include "scheduler/graph.h"
#include "scheduler/schedule.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_link_costs troupe_link_costs;

struct troupe_link_costs_options {
    const struct troupe_graph *graph;
    troupe_forecast *forecast;            /* has the step that the calls below speak of */
    const struct troupe_cluster *cluster; /* whose links count before there is anything to see */
    const troupe_comm *comm;              /* says which ranks share a host, of what is seen */
};

troupe_status troupe_link_costs_create(const struct troupe_link_costs_options *options,
                                       troupe_link_costs **out);
/* Accepts NULL. */
void troupe_link_costs_destroy(troupe_link_costs *links);
/* From the producer's end until the last receiver has the message; 0 where nothing leaves its rank.
 */
int64_t troupe_link_costs_ns(const troupe_link_costs *links, int edge, int microbatch);
/* What was seen before keeps this part of its weight; 0 forgets it. */
void troupe_link_costs_learn(troupe_link_costs *links, const struct troupe_schedule *schedule,
                             double keep);

#ifdef __cplusplus
}
#endif
#endif
