/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/tensor.h"

#include "runtime/check.h"

static const struct {
    size_t bytes;
    const char *name;
} dtypes[] = {
    [TROUPE_FLOAT32] = {4, "float32"},
    [TROUPE_BFLOAT16] = {2, "bfloat16"},
    [TROUPE_INT32] = {4, "int32"},
    [TROUPE_UINT8] = {1, "uint8"},
};

size_t troupe_dtype_bytes(enum troupe_dtype dtype) {
    TROUPE_ASSERT((size_t)dtype < TROUPE_COUNT_OF(dtypes), "dtype %d", (int)dtype);
    return dtypes[dtype].bytes;
}

const char *troupe_dtype_name(enum troupe_dtype dtype) {
    TROUPE_ASSERT((size_t)dtype < TROUPE_COUNT_OF(dtypes), "dtype %d", (int)dtype);
    return dtypes[dtype].name;
}
