/* SPDX-License-Identifier: Apache-2.0
 *
 * A source whose captions are another source's, but each with the pictures of a different sample:
 * the loss over it says how much a model reads from the pictures (the same captions with the true
 * pictures must be easier). A decorator: it wraps a source and is one.
 *
 *     TROUPE_TRY(troupe_mismatch_create(source, seed, &shuffled));
 *
 * The partner is drawn by a keyed permutation; where pictures and caption together would exceed the
 * sequence, the next sample that fits is taken instead. A sample that fits with no other one keeps
 * its own pictures (troupe_mismatch_own counts them).
 *
 * Ownership: the wrapped source is borrowed for its life; destroy with troupe_source_destroy.
 * Threads: as the wrapped source. Failure: create: ERROR_INVALID for fewer than two samples,
 * ERROR_MEMORY; loading: the wrapped source's.
 */
#ifndef TROUPE_MODULES_DATA_MISMATCH_H
#define TROUPE_MODULES_DATA_MISMATCH_H

#include <stdint.h>

#include "modules/data/source.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

troupe_status troupe_mismatch_create(troupe_source *source, uint64_t seed, troupe_source **out);
/* Samples that kept their own pictures. */
int64_t troupe_mismatch_own(const troupe_source *mismatch);

#ifdef __cplusplus
}
#endif
#endif
