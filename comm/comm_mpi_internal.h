/* SPDX-License-Identifier: Apache-2.0
 *
 * The one place where an MPI error becomes a status, and what comm_mpi.c and group_mpi.c share.
 *
 *     TROUPE_TRY_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &rank));
 *
 * Ownership: a collective's record belongs to its group's slot. Threads: the communicating thread.
 * Failure: TROUPE_ERROR_TRANSPORT with MPI's own words.
 */
#ifndef TROUPE_COMM_COMM_MPI_INTERNAL_H
#define TROUPE_COMM_COMM_MPI_INTERNAL_H

#include <mpi.h>

#include "comm/group_internal.h"
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

/* A started MPI collective, on the endpoint's list until MPI says that it is done. */
struct troupe_mpi_collective {
    MPI_Request request;
    struct troupe_group_slot *slot;
    struct troupe_mpi_collective *next;
};

void troupe_mpi_add_collective(troupe_comm *comm, struct troupe_mpi_collective *collective);
void troupe_mpi_poll_collectives(struct troupe_mpi_collective **list);
/* Ends all of them with the endpoint's failure. */
void troupe_mpi_withdraw_collectives(struct troupe_mpi_collective **list, troupe_status failure);

#endif
