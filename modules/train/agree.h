/* SPDX-License-Identifier: Apache-2.0
 *
 * One verdict for all ranks about what each did alone: if it failed on one, it has failed on all,
 * and all know the sentence of the lowest rank that failed.
 *
 *     troupe_status status = prepare(...);                              (on this rank)
 *     TROUPE_TRY(troupe_agree(world, status, hash));                    (on all)
 *
 * Ownership: none. Threads: the rank's thread; collective over the group, also a barrier.
 * Failure: on that rank its own; on the others ERROR_ABORTED, "rank 2: ..."; on all ERROR_INVALID
 * if they did different things; the transport's. Does not allocate.
 */
#ifndef TROUPE_MODULES_TRAIN_AGREE_H
#define TROUPE_MODULES_TRAIN_AGREE_H

#include <stdint.h>

#include "comm/group.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TROUPE_AGREE_BYTES = 3 * sizeof(uint64_t) }; /* bytes_max of the group, at least */

/* A failed rank's sentence is its last error. fingerprint: of what was done, equal on all ranks
 * that did the same; those that failed are not asked. */
troupe_status troupe_agree(troupe_group *group, troupe_status status, uint64_t fingerprint);

#ifdef __cplusplus
}
#endif
#endif
