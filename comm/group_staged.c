/* SPDX-License-Identifier: Apache-2.0
 *
 * Collectives on device memory through host memory: each part is copied into a pinned block, for
 * which the host waits, goes through the host group, and is copied back. Slow, and simple enough to
 * be what faster engines are compared with. Sums of parts are those of the whole, because the host
 * group adds element by element in group order.
 */
#include <string.h>
#include <time.h>

#include "comm/group_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

/* One block is cut among the members of a gather, or among the moves of an exchange. */
enum { BLOCK_BYTES = 4 << 20, MOVE_BYTES = BLOCK_BYTES / TROUPE_MOVES_MAX };
enum { CLOSE_POLL_NS = 50000 };

struct staged {
    troupe_device *device;
    char *block;               /* pinned, BLOCK_BYTES */
    troupe_event *copied_back; /* behind the latest use of the block */
};

static struct staged *state_of(const troupe_group *group) {
    return group->stream_state;
}

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static troupe_status copy(troupe_stream *stream, void *to, const void *from, size_t bytes) {
    struct troupe_copy copy = {.to = to, .from = from, .rows = 1, .row_bytes = bytes};
    return troupe_stream_copy(stream, &copy);
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
    struct staged *staged = NULL;
    TROUPE_TRY(TROUPE_NEW(&staged, 1));
    staged->device = devices->device;
    group->stream_state = staged;
    TROUPE_TRY(troupe_event_create(staged->device, &staged->copied_back));
    return troupe_device_alloc_host(staged->device, BLOCK_BYTES, (void **)&staged->block);
}

/* Around the use of the block, which may be in another stream the next time. */
static troupe_status begin(troupe_group *group, troupe_stream *stream) {
    return troupe_stream_wait(stream, state_of(group)->copied_back);
}

static troupe_status end(troupe_group *group, troupe_stream *stream) {
    return troupe_event_record(state_of(group)->copied_back, stream);
}

static void close_group(troupe_group *group) {
    struct staged *staged = state_of(group);
    if (staged != NULL) {
        while (staged->copied_back != NULL &&
               troupe_event_query(staged->copied_back) == TROUPE_AGAIN) {
            nanosleep(&(struct timespec){.tv_nsec = CLOSE_POLL_NS}, NULL);
        }
        troupe_event_destroy(staged->copied_back);
        troupe_device_free_host(staged->device, staged->block);
        troupe_free(staged);
    }
}

static troupe_status all_reduce(troupe_group *group, troupe_stream *stream,
                                enum troupe_reduction reduction, enum troupe_element element,
                                void *data, int64_t count) {
    char *block = state_of(group)->block;
    size_t element_bytes = troupe_element_bytes(element), bytes = (size_t)count * element_bytes;
    size_t part_max = smaller(BLOCK_BYTES, group->bytes_max) / element_bytes * element_bytes;
    TROUPE_TRY(begin(group, stream));
    for (size_t at = 0; at < bytes; at += part_max) {
        size_t part = smaller(bytes - at, part_max);
        char *place = (char *)data + at;
        TROUPE_TRY(copy(stream, block, place, part));
        TROUPE_TRY(troupe_stream_synchronize(stream));
        TROUPE_TRY(troupe_group_all_reduce(group, reduction, element, block,
                                           (int64_t)(part / element_bytes)));
        TROUPE_TRY(copy(stream, place, block, part));
    }
    return end(group, stream);
}

static troupe_status reduce_scatter(troupe_group *group, troupe_stream *stream,
                                    enum troupe_reduction reduction, enum troupe_element element,
                                    const void *data, int64_t count, void *out) {
    char *block = state_of(group)->block;
    size_t n = (size_t)group->count, element_bytes = troupe_element_bytes(element);
    size_t bytes = (size_t)count * element_bytes; /* of a member's block */
    size_t part_max = smaller(BLOCK_BYTES, group->bytes_max) / n / element_bytes * element_bytes;
    TROUPE_TRY(begin(group, stream));
    for (size_t at = 0; at < bytes; at += part_max) {
        size_t part = smaller(bytes - at, part_max);
        char *sum = block + (size_t)group->index * part;
        struct troupe_copy parts = {.to = block,
                                    .from = (const char *)data + at,
                                    .rows = n,
                                    .row_bytes = part,
                                    .to_stride_bytes = part,
                                    .from_stride_bytes = bytes};
        TROUPE_TRY(troupe_stream_copy(stream, &parts));
        TROUPE_TRY(troupe_stream_synchronize(stream));
        TROUPE_TRY(troupe_group_reduce_scatter(group, reduction, element, block,
                                               (int64_t)(part / element_bytes), sum));
        TROUPE_TRY(copy(stream, (char *)out + at, sum, part));
    }
    return end(group, stream);
}

static troupe_status all_gather(troupe_group *group, troupe_stream *stream, const void *mine,
                                size_t bytes, void *out) {
    char *block = state_of(group)->block;
    size_t n = (size_t)group->count, part_max = BLOCK_BYTES / n;
    TROUPE_TRY(begin(group, stream));
    for (size_t at = 0; at < bytes; at += part_max) {
        size_t part = smaller(bytes - at, part_max);
        char *own = block + (size_t)group->index * part;
        TROUPE_TRY(copy(stream, own, (const char *)mine + at, part));
        TROUPE_TRY(troupe_stream_synchronize(stream));
        TROUPE_TRY(troupe_group_all_gather(group, own, part, block));
        struct troupe_copy parts = {.to = (char *)out + at,
                                    .from = block,
                                    .rows = n,
                                    .row_bytes = part,
                                    .to_stride_bytes = bytes,
                                    .from_stride_bytes = part};
        TROUPE_TRY(troupe_stream_copy(stream, &parts));
    }
    return end(group, stream);
}

static troupe_status broadcast(troupe_group *group, troupe_stream *stream, int root_index,
                               void *data, size_t bytes) {
    char *block = state_of(group)->block;
    TROUPE_TRY(begin(group, stream));
    for (size_t at = 0; at < bytes; at += BLOCK_BYTES) {
        size_t part = smaller(bytes - at, BLOCK_BYTES);
        char *place = (char *)data + at;
        TROUPE_TRY(copy(stream, block, place, part));
        TROUPE_TRY(troupe_stream_synchronize(stream));
        TROUPE_TRY(troupe_group_broadcast(group, root_index, block, part));
        TROUPE_TRY(copy(stream, place, block, part));
    }
    return end(group, stream);
}

/* The parts of all moves that begin at `at`, each in its own place of the block. */
static int parts_at(const struct staged *staged, const struct troupe_move *moves, int count,
                    size_t at, struct troupe_move *parts) {
    int rest = 0;
    for (int i = 0; i < count; i++) {
        parts[i] = moves[i];
        parts[i].data = staged->block + (size_t)i * MOVE_BYTES;
        parts[i].bytes = at < moves[i].bytes ? smaller(moves[i].bytes - at, MOVE_BYTES) : 0;
        rest += parts[i].bytes > 0;
    }
    return rest;
}

static troupe_status exchange(troupe_group *group, troupe_stream *stream,
                              const struct troupe_move *moves, int count) {
    struct staged *staged = state_of(group);
    struct troupe_move parts[TROUPE_MOVES_MAX];
    TROUPE_TRY(begin(group, stream));
    /* Both ends of a move cut it alike, so the rounds of all members fit together. */
    for (size_t at = 0; parts_at(staged, moves, count, at, parts) > 0; at += MOVE_BYTES) {
        for (int i = 0; i < count; i++) {
            if (parts[i].sends && parts[i].bytes > 0) {
                TROUPE_TRY(copy(stream, parts[i].data, (char *)moves[i].data + at, parts[i].bytes));
            }
        }
        TROUPE_TRY(troupe_stream_synchronize(stream));
        TROUPE_TRY(troupe_group_exchange(group, parts, count));
        for (int i = 0; i < count; i++) {
            if (!parts[i].sends && parts[i].bytes > 0) {
                TROUPE_TRY(copy(stream, (char *)moves[i].data + at, parts[i].data, parts[i].bytes));
            }
        }
    }
    return end(group, stream);
}

const struct troupe_group_stream_engine troupe_group_stream_engine_staged = {
    .name = "staged",
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
