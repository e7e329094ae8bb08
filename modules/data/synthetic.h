/* SPDX-License-Identifier: Apache-2.0
 *
 * Seeded ragged samples of any number and size, for tests and benchmarks. A picture is one coloured
 * shape (circle, square, triangle, cross) on a light ground, and the caption names colour and
 * shape, so a model can learn to read the picture. Every sample is a pure function of (seed,
 * number): any rank makes any sample alone, nothing is stored.
 *
 *     struct troupe_synthetic_options options = {.samples = 1000, .images_max = 2};
 *     TROUPE_TRY(troupe_synthetic_create(&shape, &options, &source));
 *
 * Ownership: destroy with troupe_source_destroy. Threads: any may read at once.
 * Failure: create: ERROR_INVALID naming the config key, ERROR_MEMORY. Loading never fails or
 * allocates.
 */
#ifndef TROUPE_MODULES_DATA_SYNTHETIC_H
#define TROUPE_MODULES_DATA_SYNTHETIC_H

#include <stdint.h>

#include "modules/data/source.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The keys of data.synthetic; 0 means the default. Bounds are inclusive; values between them are
 * drawn uniformly for each sample. */
struct troupe_synthetic_options {
    uint64_t seed;
    int64_t samples;           /* default 1024 */
    int images_min;            /* pictures of a sample that has any; default 1 */
    int images_max;            /* default images_min */
    int side_min;              /* picture sides in pixels, rounded down to patches; default patch */
    int side_max;              /* default and at most shape.image */
    int text_min;              /* caption bytes; default 12 */
    int text_max;              /* default the larger of text_min and 32 */
    double text_only_fraction; /* of the samples, without pictures; default 0 */
};

/* shape.images_max may be 0 here and then becomes options.images_max. */
troupe_status troupe_synthetic_create(const struct troupe_sample_shape *shape,
                                      const struct troupe_synthetic_options *options,
                                      troupe_source **out);

#ifdef __cplusplus
}
#endif
#endif
