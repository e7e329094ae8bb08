/* SPDX-License-Identifier: Apache-2.0
 *
 * The one place where an NCCL result becomes a status.
 *
 *     TROUPE_TRY_NCCL(ncclGetUniqueId(&id));
 *
 * Ownership: none. Threads: any. Failure: NCCL's own words in the sentence; ERROR_PEER for a rank
 * that is gone, ERROR_INVALID for misuse (two ranks on one GPU, say), else ERROR_DEVICE or
 * ERROR_TRANSPORT.
 */
#ifndef TROUPE_COMM_NCCL_INTERNAL_H
#define TROUPE_COMM_NCCL_INTERNAL_H

#include <nccl.h>

#include "runtime/status.h"

static inline troupe_status troupe_nccl_code(ncclResult_t result) {
    switch (result) {
    case ncclSuccess:
        return TROUPE_OK;
    case ncclInProgress:
        return TROUPE_AGAIN;
    case ncclUnhandledCudaError:
        return TROUPE_ERROR_DEVICE;
    case ncclInvalidArgument:
    case ncclInvalidUsage:
        return TROUPE_ERROR_INVALID;
    case ncclRemoteError:
        return TROUPE_ERROR_PEER;
    default:
        return TROUPE_ERROR_TRANSPORT;
    }
}

static inline troupe_status troupe_nccl_status(ncclResult_t result, const char *call) {
    troupe_status status = troupe_nccl_code(result);
    if (status == TROUPE_OK || status == TROUPE_AGAIN) {
        return status;
    }
    const char *details = ncclGetLastError(NULL);
    return troupe_fail(status, "%s: %s%s%s; NCCL_DEBUG=WARN tells more", call,
                       ncclGetErrorString(result), details[0] != '\0' ? ": " : "", details);
}

#define TROUPE_TRY_NCCL(call) TROUPE_TRY(troupe_nccl_status((call), #call))

#endif
