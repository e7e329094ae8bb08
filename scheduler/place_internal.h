/* SPDX-License-Identifier: Apache-2.0
 *
 * The built-in placement policies, one file each, and what they share; place.c lists them.
 */
#ifndef TROUPE_SCHEDULER_PLACE_INTERNAL_H
#define TROUPE_SCHEDULER_PLACE_INTERNAL_H

#include <stdbool.h>

#include "scheduler/place.h"

extern const struct troupe_place_policy troupe_place_homogeneous; /* the reference */
extern const struct troupe_place_policy troupe_place_colocated;
extern const struct troupe_place_policy troupe_place_disjoint;
extern const struct troupe_place_policy troupe_place_manual;

/* Whether the module is placed by following another unless its own ranks are asked for. */
bool troupe_place_follows(const struct troupe_place_module *module);
/* tp * cp * pp of a wish: the ranks that one replica takes. */
int troupe_place_replica_ranks(const struct troupe_place_layout *wish);
/* Takes the sizes of a wish (but not dp) and the ranks first, first + 1, ... */
void troupe_place_fill(struct troupe_place_layout *layout, const struct troupe_place_layout *wish,
                       int first_rank, int rank_count);

#endif
