/* SPDX-License-Identifier: Apache-2.0
 *
 * Which rank encodes which image, where the sample plan leaves that free: chosen jointly for
 * balance (no rank's load above a cap) and locality (rows stay where they are needed next). A pure
 * function of sizes, so every rank works out the same.
 *
 *     troupe_image_owners_create(images_max, ranks_max, &solver);
 *     troupe_image_owners_find(solver, &problem, owners);
 *
 * An image weighs linear * tokens + quadratic * tokens^2. A *home* is one or more ranks that need
 * the rows of the same images. Each rank starts with images at home on it and gives up those with
 * the fewest rows that bring it under the cap (branch and bound); what is given up goes, largest
 * first, where there is room, and where there is none an image of another home makes room for it.
 * With shares, each rank's part of the load is to be in proportion to its share: one that is to
 * have less than the most counts as carrying the difference already, so one cap serves all.
 *
 * The cap is at most 5 percent above the larger of the mean load and the largest image; of the caps
 * tried, one is taken that moves few more rows than must be moved for its balance.
 *
 * Ownership: create/destroy; arrays are the caller's. Threads: one at a time.
 * Failure: create: ERROR_MEMORY. find neither fails nor allocates.
 */
#ifndef TROUPE_MODULES_DATA_IMAGE_OWNERS_H
#define TROUPE_MODULES_DATA_IMAGE_OWNERS_H

#include <stdint.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_image_problem {
    const int32_t *tokens;   /* (images,) rows of each image */
    const int *homes;        /* (images,) where its rows are needed, 0 .. ; -1: nowhere here */
    int images;              /* may be 0 */
    const int *home_of_rank; /* (ranks,) -1: none; NULL: rank r is home r */
    int ranks;
    const int *shares;         /* (ranks,) relative, 0 where no image is to go; NULL: all alike */
    int64_t linear, quadratic; /* the cost model's weights; not both 0 */
};

struct troupe_image_balance {
    int64_t load_max;   /* of a rank, with what it is to have less than the most */
    int64_t load_total; /* of all */
    int64_t largest;    /* of an image */
    int64_t rows_moved; /* of images that are not encoded at home */
    int64_t rows_least; /* that any assignment with this load_max moves, even of parts of images */
};

typedef struct troupe_image_owners troupe_image_owners;

troupe_status troupe_image_owners_create(int images_max, int ranks_max, troupe_image_owners **out);
/* Accepts NULL. */
void troupe_image_owners_destroy(troupe_image_owners *solver);

/* owners_out: (images,). */
void troupe_image_owners_find(troupe_image_owners *solver,
                              const struct troupe_image_problem *problem, int *owners_out);
struct troupe_image_balance troupe_image_owners_balance(troupe_image_owners *solver,
                                                        const struct troupe_image_problem *problem,
                                                        const int *owners);

#ifdef __cplusplus
}
#endif
#endif
