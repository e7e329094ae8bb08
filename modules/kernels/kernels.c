/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/kernels/kernels.h"

#include "modules/kernels/shape_internal.h"

const struct troupe_kernels *troupe_kernels_for(enum troupe_device_kind kind) {
    return kind == TROUPE_DEVICE_CPU ? &troupe_kernels_reference_table : NULL;
}

const struct troupe_kernels *troupe_kernels_reference(void) {
    return &troupe_kernels_reference_table;
}
