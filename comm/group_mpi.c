/* SPDX-License-Identifier: Apache-2.0
 *
 * Exchanges through MPI's own collectives. Each slot has a communicator: operation k runs in slot
 * k % slots on every member, so each communicator sees its collectives in one order, however the
 * two steps of neighbouring operations interleave.
 */
#include <limits.h>
#include <string.h>

#include "comm/comm_mpi_internal.h"
#include "runtime/memory.h"

struct mpi_slot {
    struct troupe_mpi_collective collective;
    MPI_Comm comm;
    int *send_counts, *send_places, *receive_counts, *receive_places;
};

static bool to_int(size_t value, int *out) {
    *out = (int)value;
    return value <= INT_MAX;
}

/* MPI counts in int; this rank's own part is not moved. */
static bool fill(const struct troupe_group_slot *slot, struct mpi_slot *mpi) {
    const struct troupe_exchange *exchange = &slot->exchange;
    bool fits = true;
    for (int i = 0; i < slot->group->count; i++) {
        bool moves = exchange->gather || i != slot->group->index;
        fits &= to_int(moves ? exchange->send_bytes[i] : 0, &mpi->send_counts[i]);
        fits &= to_int(exchange->send_at[i], &mpi->send_places[i]);
        fits &= to_int(moves ? exchange->receive_bytes[i] : 0, &mpi->receive_counts[i]);
        fits &= to_int(exchange->receive_at[i], &mpi->receive_places[i]);
    }
    return fits;
}

static void start(struct troupe_group_slot *slot) {
    struct mpi_slot *mpi = slot->engine;
    const struct troupe_exchange *exchange = &slot->exchange;
    MPI_Request *request = &mpi->collective.request;
    if (!fill(slot, mpi)) {
        troupe_group_exchanged(slot, troupe_fail(TROUPE_ERROR_UNSUPPORTED,
                                                 "group %u: MPI takes operands below 2 GiB; split "
                                                 "it, or use libfabric",
                                                 slot->group->id));
        return;
    }
    int code = exchange->gather ? MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_BYTE, exchange->receive,
                                                  mpi->receive_counts, mpi->receive_places,
                                                  MPI_BYTE, mpi->comm, request)
                                : MPI_Ialltoallv(exchange->send, mpi->send_counts, mpi->send_places,
                                                 MPI_BYTE, exchange->receive, mpi->receive_counts,
                                                 mpi->receive_places, MPI_BYTE, mpi->comm, request);
    if (code != MPI_SUCCESS) {
        troupe_group_exchanged(slot, troupe_mpi_status(code, "MPI collective"));
        return;
    }
    troupe_mpi_add_collective(slot->group->comm, &mpi->collective);
}

void troupe_mpi_poll_collectives(struct troupe_mpi_collective **list) {
    struct troupe_mpi_collective *next, *collective = *list;
    *list = NULL; /* a finished one may start the next step, which joins the list anew */
    for (; collective != NULL; collective = next) {
        int done = 0;
        next = collective->next;
        int code = MPI_Test(&collective->request, &done, MPI_STATUS_IGNORE);
        if (code != MPI_SUCCESS || done) {
            troupe_group_exchanged(collective->slot, troupe_mpi_status(code, "MPI collective"));
        } else {
            collective->next = *list;
            *list = collective;
        }
    }
}

void troupe_mpi_withdraw_collectives(struct troupe_mpi_collective **list, troupe_status failure) {
    struct troupe_mpi_collective *collective = *list;
    *list = NULL;
    while (collective != NULL) {
        struct troupe_mpi_collective *next = collective->next;
        troupe_group_exchanged(collective->slot, failure);
        collective = next;
    }
}

/* From the world's communicator: Open MPI sends messages with this tag while it makes the new one,
 * and the endpoint's own receives, on its own communicator, must not catch them. */
static troupe_status open_communicator(troupe_group *group, const struct troupe_group_slot *slot,
                                       MPI_Comm *out) {
    MPI_Group all, members;
    int tag = (int)(group->id * TROUPE_GROUP_SLOTS) + (int)(slot - group->slots);
    TROUPE_TRY_MPI(MPI_Comm_group(MPI_COMM_WORLD, &all));
    TROUPE_TRY_MPI(MPI_Group_incl(all, group->count, group->ranks, &members));
    TROUPE_TRY_MPI(MPI_Comm_create_group(MPI_COMM_WORLD, members, tag, out));
    MPI_Group_free(&members);
    MPI_Group_free(&all);
    TROUPE_TRY_MPI(MPI_Comm_set_errhandler(*out, MPI_ERRORS_RETURN));
    return TROUPE_OK;
}

static troupe_status open_slot(troupe_group *group, struct troupe_group_slot *slot) {
    struct mpi_slot *mpi = NULL;
    TROUPE_TRY(TROUPE_NEW(&mpi, 1));
    slot->engine = mpi;
    mpi->collective.slot = slot;
    mpi->comm = MPI_COMM_NULL;
    TROUPE_TRY(TROUPE_NEW(&mpi->send_counts, group->count));
    TROUPE_TRY(TROUPE_NEW(&mpi->send_places, group->count));
    TROUPE_TRY(TROUPE_NEW(&mpi->receive_counts, group->count));
    TROUPE_TRY(TROUPE_NEW(&mpi->receive_places, group->count));
    return open_communicator(group, slot, &mpi->comm);
}

static void close_slot(struct troupe_group_slot *slot) {
    struct mpi_slot *mpi = slot->engine;
    if (mpi == NULL) {
        return;
    }
    /* After a failure MPI might wait here for a rank that is gone. */
    if (mpi->comm != MPI_COMM_NULL && slot->group->comm->failure == TROUPE_OK) {
        MPI_Comm_free(&mpi->comm);
    }
    troupe_free(mpi->send_counts);
    troupe_free(mpi->send_places);
    troupe_free(mpi->receive_counts);
    troupe_free(mpi->receive_places);
    troupe_free(mpi);
}

const struct troupe_group_engine troupe_group_engine_mpi = {
    .open = open_slot,
    .start = start,
    .close = close_slot,
};
