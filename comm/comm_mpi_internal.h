/* SPDX-License-Identifier: Apache-2.0
 *
 * The one place where an MPI error becomes a status.
 */
#ifndef TROUPE_COMM_COMM_MPI_INTERNAL_H
#define TROUPE_COMM_COMM_MPI_INTERNAL_H

#include <mpi.h>

#include "runtime/status.h"

/* Returns TROUPE_ERROR_TRANSPORT with MPI's own words. */
static inline troupe_status troupe_mpi_status(int code, const char *what) {
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length = 0;
    if (code == MPI_SUCCESS) {
        return TROUPE_OK;
    }
    MPI_Error_string(code, text, &length);
    return troupe_fail(TROUPE_ERROR_TRANSPORT, "%s: %s", what, text);
}

#define TROUPE_TRY_MPI(call) TROUPE_TRY(troupe_mpi_status((call), #call))

#endif
