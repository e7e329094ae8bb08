/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/kernels.h"

#include "modules/kernels/shape_internal.h"
#include "runtime/check.h"

/* The one list of tables. */
static const struct troupe_kernels *const tables[] = {
    [TROUPE_DEVICE_CPU] = &troupe_kernels_cpu_table,
    [TROUPE_DEVICE_SIM] = &troupe_kernels_sim_table,
#ifdef TROUPE_HAVE_CUDA
    [TROUPE_DEVICE_CUDA] = &troupe_kernels_cuda_table,
#endif
};

const struct troupe_kernels *troupe_kernels_for(enum troupe_device_kind kind) {
    return (size_t)kind < TROUPE_COUNT_OF(tables) ? tables[kind] : NULL;
}

const struct troupe_kernels *troupe_kernels_reference(void) {
    return &troupe_kernels_reference_table;
}
