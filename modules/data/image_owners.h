/* SPDX-License-Identifier: Apache-2.0
 *
 * Which rank encodes which image, where the sample plan leaves that free: chosen jointly for
 * balance (no rank's load above a cap) and locality (rows stay on the rank whose language model
 * needs them). A pure function of sizes, so every rank works out the same.
 *
 *     TROUPE_TRY(troupe_image_owners(&problem, owners));
 *     troupe_image_balance(&problem, owners, &balance);
 *
 * An image weighs linear * tokens + quadratic * tokens^2. Each rank starts with the images at home
 * on it and gives up those with the fewest rows that bring it under the cap (branch and bound);
 * what is given up goes, largest first, where it fits most closely. The cap is at most 5
 * percent above the larger of the mean load and the largest image, lower where that moves fewer
 * rows than must be moved for it anyhow. The training graph does not use it yet: encoders take
 * contiguous intervals of samples.
 *
 * Ownership: the caller's arrays. Threads: any. Failure: ERROR_MEMORY.
 */
#ifndef TROUPE_MODULES_DATA_IMAGE_OWNERS_H
#define TROUPE_MODULES_DATA_IMAGE_OWNERS_H

#include <stdint.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_image_problem {
    const int32_t *tokens; /* (images,) rows of each image */
    const int *homes; /* (images,) the rank that needs its rows, 0 .. ranks - 1; -1: none here */
    int images;
    int ranks;
    int64_t linear, quadratic; /* the cost model's weights; not both 0 */
};

struct troupe_image_balance {
    int64_t load_max;   /* of a rank */
    int64_t load_total; /* of all */
    int64_t largest;    /* of an image */
    int64_t rows_moved; /* of images that are not encoded at home */
    int64_t loads_over; /* sum over the ranks of what is at home above load_max: with cost =
                           tokens, the least that any assignment with this load_max moves */
};

/* owners_out: (images,). */
troupe_status troupe_image_owners(const struct troupe_image_problem *problem, int *owners_out);
troupe_status troupe_image_balance(const struct troupe_image_problem *problem, const int *owners,
                                   struct troupe_image_balance *out);

#ifdef __cplusplus
}
#endif
#endif
