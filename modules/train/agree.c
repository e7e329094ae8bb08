/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/agree.h"

#include <stdio.h>

/* The last error of the member `index` becomes everyone's. */
static troupe_status spread_failure(troupe_group *group, int index, troupe_status status) {
    char text[1024];
    bool mine = index == troupe_group_index(group);
    snprintf(text, sizeof text, "%s", troupe_last_error());
    TROUPE_TRY(troupe_group_broadcast(group, index, text, sizeof text));
    return mine ? status
                : troupe_fail(TROUPE_ERROR_ABORTED, "rank %d: %s", troupe_group_rank(group, index),
                              text);
}

troupe_status troupe_agree(troupe_group *group, troupe_status status, uint64_t fingerprint) {
    bool good = status == TROUPE_OK;
    int size = troupe_group_size(group);
    /* Maxima: of the failed ranks, of the fingerprints, and of their complements. */
    uint64_t most[3] = {good ? 0 : (uint64_t)(size - troupe_group_index(group)),
                        good ? fingerprint : 0, good ? ~fingerprint : 0};
    TROUPE_TRY(troupe_group_all_reduce(group, TROUPE_MAX, TROUPE_ELEMENT_UINT64, most, 3));
    if (most[0] > 0) {
        return spread_failure(group, size - (int)most[0], status);
    }
    if (most[1] != ~most[2]) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "the ranks worked out different things; give all of them the same "
                           "files and settings");
    }
    return TROUPE_OK;
}
