/* SPDX-License-Identifier: Apache-2.0
 *
 * What the messages of a step will be, for all ranks of the job, from the plans of the edges alone:
 * so that the simulator can run a graph that has been declared but never started.
 *
 *     troupe_spawn(runtime, ...); troupe_connect(runtime, ...);       (no start)
 *     TROUPE_TRY(troupe_forecast_create(runtime, &forecast));
 *     TROUPE_TRY(troupe_forecast_step(forecast, step));
 *     int64_t bytes = troupe_forecast_bytes(forecast, edge, step, microbatch, member);
 *
 * Edges, members and receivers are those of the task graph (troupe_runtime_graph, engine.h).
 *
 * Ownership: create/destroy; the runtime is borrowed. Threads: the rank's own.
 * Failure: what the graph, the routes or the plans say; step does not allocate.
 */
#ifndef TROUPE_ACTORS_FORECAST_H
#define TROUPE_ACTORS_FORECAST_H

#include <stdbool.h>
#include <stdint.h>

#include "actors/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_forecast troupe_forecast;

troupe_status troupe_forecast_create(troupe_runtime *runtime, troupe_forecast **out);
/* Works out the messages of the step; the functions below speak of it. */
troupe_status troupe_forecast_step(troupe_forecast *forecast, int64_t step);
/* Payload that the member receives from other ranks; 0 also where it receives nothing. */
int64_t troupe_forecast_bytes(void *forecast, int edge, int64_t step, int microbatch, int member);
/* Bit i: member i receives something, be it from its own rank. */
uint64_t troupe_forecast_receivers(void *forecast, int edge, int64_t step, int microbatch);
/* Whether messages of the edge may be empty, in any step. */
bool troupe_forecast_may_be_empty(void *forecast, int edge);
/* Accepts NULL. */
void troupe_forecast_destroy(troupe_forecast *forecast);

#ifdef __cplusplus
}
#endif
#endif
