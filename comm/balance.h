/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares out work so that the loads of the ranks are as even as they can be. Work comes in groups,
 * each an amount that only the group's members may do, in whole units. No other shares make the
 * largest load smaller; nor, the ranks of that load set aside, the next one, and so on. (Where
 * units of different weights meet, this holds to the largest of them.)
 *
 *     troupe_balance_begin(b);
 *     troupe_balance_add(b, amount, weight);         (a group: its members follow)
 *     troupe_balance_member(b, 3, true);
 *     troupe_balance_member(b, 5, false);
 *     troupe_balance_solve(b, 0);
 *     ... troupe_balance_end(b, 0, i): where the share of its member i ends ...
 *
 * Preferred members do all the work of their group as long as that is even enough. The result
 * depends on the calls only, so ranks that make the same calls get the same shares.
 *
 * Ownership: create/destroy; results hold until the next begin. Threads: one at a time.
 * Failure: create ERROR_MEMORY; more groups or members than announced are programmer errors.
 * Nothing but create allocates.
 */
#ifndef TROUPE_COMM_BALANCE_H
#define TROUPE_COMM_BALANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_balance troupe_balance;

/* For members 0 .. rank_count - 1, and at most so many groups and memberships at a time. */
troupe_status troupe_balance_create(int rank_count, int64_t groups_max, int64_t members_max,
                                    troupe_balance **out);
void troupe_balance_destroy(troupe_balance *balance);

void troupe_balance_begin(troupe_balance *balance);
/* A group of `amount` units, each of which adds `weight` to a load. Returns its index. */
int troupe_balance_add(troupe_balance *balance, int64_t amount, int64_t weight);
/* A member of the group added last, not yet in it. Preferred ones come first. */
void troupe_balance_member(troupe_balance *balance, int rank, bool preferred);
/* Where all groups have preferred members, these do everything if no load then exceeds `allowed`.
 */
void troupe_balance_solve(troupe_balance *balance, int64_t allowed);

/* The group's amount as one interval cut into the shares of its members in the order they were
 * added: where each ends. */
int64_t troupe_balance_end(const troupe_balance *balance, int group, int member);
int troupe_balance_groups(const troupe_balance *balance);
int troupe_balance_members(const troupe_balance *balance, int group);
int troupe_balance_rank(const troupe_balance *balance, int group, int member);
/* Of a rank that is in a group of this solve. */
int64_t troupe_balance_load(const troupe_balance *balance, int rank);

#ifdef __cplusplus
}
#endif
#endif
