/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/kernels.h"

#include <cblas.h>
#include <pthread.h>

#include "modules/kernels/shape_internal.h"

/* Threads are the workers' business; the BLAS computes one tile in one thread. */
static void make_blas_serial(void) {
    openblas_set_num_threads(1);
}

const struct troupe_kernels *troupe_kernels_for(enum troupe_device_kind kind) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (kind != TROUPE_DEVICE_CPU) {
        return NULL;
    }
    pthread_once(&once, make_blas_serial);
    return &troupe_kernels_cpu_table;
}

const struct troupe_kernels *troupe_kernels_reference(void) {
    return &troupe_kernels_reference_table;
}
