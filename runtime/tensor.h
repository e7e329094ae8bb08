/* SPDX-License-Identifier: Apache-2.0
 *
 * A tensor is a view: rows x columns of one dtype with a row stride, in memory that someone else
 * owns. Boundary tensors are rows (one row is one token of one sample) x hidden.
 *
 * Ownership: a view owns nothing. Threads: plain data. Failure: none.
 */
#ifndef TROUPE_RUNTIME_TENSOR_H
#define TROUPE_RUNTIME_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum troupe_dtype { TROUPE_FLOAT32, TROUPE_BFLOAT16, TROUPE_INT32, TROUPE_UINT8 };

/* Bytes of one element. */
size_t troupe_dtype_bytes(enum troupe_dtype dtype);
/* "float32", as in configs; safetensors spells them its own way. */
const char *troupe_dtype_name(enum troupe_dtype dtype);

/* Rows x columns; row r starts at data + r * stride elements. Rows may be 0, data then is NULL or
 * anything. */
struct troupe_tensor {
    void *data;
    int64_t rows;
    int64_t columns;
    int64_t stride; /* elements from one row to the next, >= columns */
    enum troupe_dtype dtype;
};

#ifdef __cplusplus
}
#endif
#endif
