/* SPDX-License-Identifier: Apache-2.0
 *
 * Stream order where it is the order of calls, on a CPU device: the collectives of group.h.
 */
#include "comm/group_internal.h"

/* namespace 4 bits, group 20 bits; group_direct.c never reaches the uppermost sequence number. All
 * messages of a pair have one tag and so arrive in the order in which both ends list them. */
static uint64_t exchange_tag(const troupe_group *group) {
    return (uint64_t)TROUPE_TAG_GROUP << TROUPE_TAG_NAMESPACE_SHIFT | (uint64_t)group->id << 40 |
           ((UINT64_C(1) << 40) - 1);
}

static troupe_status wait_all(troupe_comm *comm, const struct troupe_transfer *transfers,
                              int count) {
    comm->active = true; /* quiet since now */
    for (int i = 0; i < count; i++) {
        while (transfers[i].status == TROUPE_AGAIN) {
            if (troupe_comm_progress(comm) == 0) {
                troupe_comm_idle(comm);
            }
        }
    }
    for (int i = 0; i < count; i++) {
        TROUPE_TRY(transfers[i].status);
    }
    return TROUPE_OK;
}

troupe_status troupe_group_exchange(troupe_group *group, const struct troupe_move *moves,
                                    int count) {
    struct troupe_transfer transfers[TROUPE_MOVES_MAX];
    int posted = 0;
    troupe_status status = TROUPE_OK;
    for (int pass = 0; pass < 2; pass++) { /* receives first */
        for (int i = 0; i < count && status == TROUPE_OK; i++) {
            if (moves[i].sends != (pass == 1) || moves[i].bytes == 0) {
                continue;
            }
            transfers[posted] =
                (struct troupe_transfer){.peer = group->ranks[moves[i].member],
                                         .tag = exchange_tag(group),
                                         .segments = {{moves[i].data, moves[i].bytes}},
                                         .segment_count = 1};
            status = pass == 1 ? troupe_comm_post_send(group->comm, &transfers[posted])
                               : troupe_comm_post_receive(group->comm, &transfers[posted]);
            posted += status == TROUPE_OK;
        }
    }
    troupe_status waited = wait_all(group->comm, transfers, posted);
    return status == TROUPE_OK ? waited : status;
}

static troupe_status check(const struct troupe_group_devices *devices) {
    (void)devices;
    return TROUPE_OK;
}

static troupe_status prepare(troupe_comm *comm, const struct troupe_group_devices *devices) {
    (void)comm;
    (void)devices;
    return TROUPE_OK;
}

static troupe_status open_group(troupe_group *group, const struct troupe_group_devices *devices) {
    (void)group;
    (void)devices;
    return TROUPE_OK;
}

static troupe_status all_reduce(troupe_group *group, troupe_stream *stream,
                                enum troupe_reduction reduction, enum troupe_element element,
                                void *data, int64_t count) {
    (void)stream;
    return troupe_group_all_reduce(group, reduction, element, data, count);
}

static troupe_status reduce_scatter(troupe_group *group, troupe_stream *stream,
                                    enum troupe_reduction reduction, enum troupe_element element,
                                    const void *data, int64_t count, void *out) {
    (void)stream;
    return troupe_group_reduce_scatter(group, reduction, element, data, count, out);
}

static troupe_status all_gather(troupe_group *group, troupe_stream *stream, const void *mine,
                                size_t bytes, void *out) {
    (void)stream;
    return troupe_group_all_gather(group, mine, bytes, out);
}

static troupe_status broadcast(troupe_group *group, troupe_stream *stream, int root_index,
                               void *data, size_t bytes) {
    (void)stream;
    return troupe_group_broadcast(group, root_index, data, bytes);
}

static troupe_status exchange(troupe_group *group, troupe_stream *stream,
                              const struct troupe_move *moves, int count) {
    (void)stream;
    return troupe_group_exchange(group, moves, count);
}

static void close_group(troupe_group *group) {
    (void)group;
}

const struct troupe_group_stream_engine troupe_group_stream_engine_host = {
    .name = "host",
    .check = check,
    .prepare = prepare,
    .open = open_group,
    .all_reduce = all_reduce,
    .reduce_scatter = reduce_scatter,
    .all_gather = all_gather,
    .broadcast = broadcast,
    .exchange = exchange,
    .close = close_group,
};
