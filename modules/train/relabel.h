/* SPDX-License-Identifier: Apache-2.0
 *
 * Relabelling: which rank shall play which role when the state goes from one map to another. A
 * placement numbers its roles by ranks; ranks of one host are alike, and so are hosts on which a
 * placement uses as many ranks, so they may change places, and they do where that leaves more bytes
 * where they are (linear assignment, within hosts and between them). The set of ranks that a
 * placement uses stays as it is.
 *
 *     TROUPE_TRY(troupe_relabel(&options, rank_of_role, &needed, &kept));
 *     troupe_plan_relabel(plan, rank_of_role);  troupe_state_map_relabel(&map, rank_of_role);
 *
 * Ownership: the caller's arrays. Threads: any; the same result on every rank.
 * Failure: ERROR_MEMORY.
 */
#ifndef TROUPE_MODULES_TRAIN_RELABEL_H
#define TROUPE_MODULES_TRAIN_RELABEL_H

#include "modules/train/state_map.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_relabel_options {
    const struct troupe_state_map *from;
    const struct troupe_state_map *to; /* in roles */
    const int *host_of_rank;
    int rank_count;
};

/* rank_of_role_out: (rank_count), a permutation. needed_out, kept_out: elements that all roles
 * need, and those of them that their ranks hold already; their difference is the least that can
 * move. */
troupe_status troupe_relabel(const struct troupe_relabel_options *options, int *rank_of_role_out,
                             int64_t *needed_out, int64_t *kept_out);

#ifdef __cplusplus
}
#endif
#endif
