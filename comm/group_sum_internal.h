/* SPDX-License-Identifier: Apache-2.0
 *
 * The ordered sum of a collective on a GPU, the twin of group.c's `reduce`: enqueues one kernel and
 * returns its cudaError_t.
 *
 *     TROUPE_TRY_CUDA(troupe_cuda_launch_ordered_sum(&sum, native.stream));
 *
 * Ownership: none. Threads: any. Failure: as said.
 */
#ifndef TROUPE_COMM_GROUP_SUM_INTERNAL_H
#define TROUPE_COMM_GROUP_SUM_INTERNAL_H

#include <stdint.h>

#include "comm/group.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out[e] = the members' values of element e, combined in group order. All in device memory. */
struct troupe_ordered_sum {
    enum troupe_reduction reduction;
    enum troupe_element element;
    const void *own;    /* (count,): those of member `index` */
    const void *others; /* (members, count): row i is member i's; row `index` is not read */
    void *out;          /* (count,), may be own */
    int64_t count;
    int members, index;
};
int troupe_cuda_launch_ordered_sum(const struct troupe_ordered_sum *sum, void *stream);

#ifdef __cplusplus
}
#endif
#endif
