/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/group_stream.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "comm/group_internal.h"
#include "runtime/check.h"
#include "runtime/log.h"
#include "runtime/memory.h"

enum { DEVICES_GROUP = (1 << 20) - 3, ENGINE_NAME_BYTES = 16, BLOCKS_DEFAULT = 8 };
static const int64_t TIMEOUT_NS_DEFAULT = INT64_C(60) * 1000 * 1000 * 1000;

/* For devices other than the CPU, best first. */
static const struct troupe_group_stream_engine *const engines[] = {
#ifdef TROUPE_HAVE_NCCL
    &troupe_group_stream_engine_nccl,
#endif
    &troupe_group_stream_engine_staged,
};

/* ---- what each rank tells the others ---- */

struct introduction {
    unsigned char gpu[TROUPE_DEVICE_IDENTITY_BYTES];
    int32_t kind;    /* enum troupe_device_kind */
    int32_t process; /* of its host */
    int32_t host;
    char wanted[ENGINE_NAME_BYTES], best[ENGINE_NAME_BYTES];
};

static bool same_gpu(const struct introduction *a, const struct introduction *b) {
    static const unsigned char none[TROUPE_DEVICE_IDENTITY_BYTES] = {0};
    return memcmp(a->gpu, none, sizeof none) != 0 && memcmp(a->gpu, b->gpu, sizeof a->gpu) == 0;
}

static const char *kind_name(const struct introduction *introduction) {
    return troupe_device_kind_name((enum troupe_device_kind)introduction->kind);
}

static troupe_status check_agreement(const struct introduction *all, int size) {
    for (int r = 1; r < size; r++) {
        if (all[r].kind != all[0].kind || strcmp(all[r].wanted, all[0].wanted) != 0 ||
            strcmp(all[r].best, all[0].best) != 0) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "rank 0 has a %s device and collectives by %s (its build: %s), "
                               "rank %d a %s device and %s (%s); start one program with one "
                               "setting on all ranks",
                               kind_name(&all[0]), all[0].wanted, all[0].best, r,
                               kind_name(&all[r]), all[r].wanted, all[r].best);
        }
    }
    return TROUPE_OK;
}

static void compare(const struct introduction *all, int rank, int size,
                    struct troupe_group_devices *out) {
    for (int a = 0; a < size; a++) {
        for (int b = 0; b < a; b++) {
            if (same_gpu(&all[a], &all[b])) {
                out->shared = true;
                out->threads |= all[a].host == all[b].host && all[a].process == all[b].process;
                out->before += a == rank;
            }
        }
    }
}

static troupe_status gather(troupe_comm *comm, const struct introduction *mine,
                            struct introduction *all) {
    troupe_group *world = NULL;
    struct troupe_group_options options = {.id = DEVICES_GROUP};
    TROUPE_TRY(troupe_group_create(comm, &options, &world));
    troupe_status status = troupe_group_all_gather(world, mine, sizeof *mine, all);
    troupe_group_destroy(world);
    return status;
}

static troupe_status introduce(troupe_comm *comm, struct troupe_group_devices *devices) {
    struct introduction mine, *all = NULL;
    int size = troupe_comm_size(comm), rank = troupe_comm_rank(comm);
    const char *wanted = devices->options.engine;
    memset(&mine, 0, sizeof mine);
    memcpy(mine.gpu, troupe_device_identity(devices->device), sizeof mine.gpu);
    mine.kind = (int32_t)troupe_device_kind(devices->device);
    mine.process = getpid();
    mine.host = troupe_comm_host(comm, rank);
    snprintf(mine.wanted, sizeof mine.wanted, "%s", wanted);
    snprintf(mine.best, sizeof mine.best, "%s", engines[0]->name);
    TROUPE_TRY(TROUPE_NEW(&all, size));
    troupe_status status = gather(comm, &mine, all);
    if (status == TROUPE_OK) {
        status = check_agreement(all, size);
        compare(all, rank, size, devices);
    }
    troupe_free(all);
    return status;
}

/* ---- choice ---- */

/* The same on every rank, because all know the same. */
static troupe_status choose(const struct troupe_group_devices *devices,
                            const struct troupe_group_stream_engine **out) {
    const char *wanted = devices->options.engine;
    bool any = strcmp(wanted, "auto") == 0;
    if (troupe_device_is_host(devices->device) && (any || strcmp(wanted, "host") == 0)) {
        *out = &troupe_group_stream_engine_host;
        return TROUPE_OK;
    }
    for (size_t i = 0; i < TROUPE_COUNT_OF(engines); i++) {
        if (!any && strcmp(wanted, engines[i]->name) != 0) {
            continue;
        }
        troupe_status status = engines[i]->check(devices);
        if (status == TROUPE_OK) {
            *out = engines[i];
            return TROUPE_OK;
        }
        if (!any) {
            return status;
        }
        TROUPE_LOG_INFO("comm", "collectives on %s not by %s: %s",
                        troupe_device_name(devices->device), engines[i]->name, troupe_last_error());
    }
    char known[64];
    troupe_group_engines_summary(known, sizeof known);
    return troupe_fail(TROUPE_ERROR_UNSUPPORTED, "no collectives by %s on %s; this build has: %s",
                       wanted, troupe_device_name(devices->device), known);
}

int troupe_groups_order(troupe_group **groups, int count) {
    int kept = 0;
    for (int i = 0; i < count; i++) {
        troupe_group *group = groups[i];
        if (group == NULL || group->count == 1) {
            continue;
        }
        int place = kept++; /* insertion: a rank has few groups */
        while (place > 0 && groups[place - 1]->id > group->id) {
            groups[place] = groups[place - 1];
            place--;
        }
        TROUPE_ASSERT(place == 0 || groups[place - 1]->id != group->id, "two groups have id %u",
                      group->id);
        groups[place] = group;
    }
    return kept;
}

static troupe_status open_groups(const struct troupe_group_stream_engine *engine,
                                 const struct troupe_group_devices *devices,
                                 troupe_group *const *groups, int count) {
    troupe_group **ordered = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY(TROUPE_NEW(&ordered, count));
    memcpy(ordered, groups, (size_t)count * sizeof *ordered);
    count = troupe_groups_order(ordered, count);
    for (int i = 0; status == TROUPE_OK && i < count; i++) {
        TROUPE_ASSERT(ordered[i]->stream_state == NULL, "group %u has its device already",
                      ordered[i]->id);
        ordered[i]->stream_engine = engine;
        status = engine->open(ordered[i], devices);
    }
    troupe_free(ordered);
    return status;
}

static troupe_status open_device(troupe_comm *comm, struct troupe_group_devices *devices,
                                 troupe_group *const *groups, int count) {
    const struct troupe_group_stream_engine *engine = NULL;
    TROUPE_TRY(introduce(comm, devices));
    TROUPE_TRY(choose(devices, &engine));
    TROUPE_TRY(engine->prepare(comm, devices));
    if (count == 0) {
        return TROUPE_OK;
    }
    TROUPE_TRY(troupe_stream_create(devices->device, &devices->stream));
    return open_groups(engine, devices, groups, count);
}

troupe_status troupe_groups_open_device(troupe_comm *comm, troupe_device *device,
                                        troupe_group *const *groups, int count,
                                        const struct troupe_group_device_options *options) {
    struct troupe_group_devices devices = {.device = device};
    if (options != NULL) {
        devices.options = *options;
    }
    if (devices.options.engine == NULL) {
        devices.options.engine = "auto";
    }
    if (devices.options.blocks_max == 0) {
        devices.options.blocks_max = BLOCKS_DEFAULT;
    }
    if (devices.options.timeout_ns == 0) {
        devices.options.timeout_ns = TIMEOUT_NS_DEFAULT;
    }
    troupe_status status = open_device(comm, &devices, groups, count);
    troupe_stream_destroy(devices.stream);
    return status;
}

const char *troupe_group_engine_name(const troupe_group *group) {
    return group->stream_engine->name;
}

void troupe_group_engines_summary(char *text, size_t bytes) {
    size_t length = 0;
    text[0] = '\0';
    for (size_t i = 0; i < TROUPE_COUNT_OF(engines) && length < bytes; i++) {
        length += (size_t)snprintf(text + length, bytes - length, "%s%s", i > 0 ? ", " : "",
                                   engines[i]->name);
    }
}

/* ---- operations ---- */

static troupe_status begin(const troupe_group *group, const troupe_stream *stream) {
    const troupe_device *device = troupe_stream_device(stream);
    TROUPE_ASSERT(troupe_device_is_host(device) || group->stream_state != NULL || group->count == 1,
                  "group %u runs on %s without troupe_groups_open_device", group->id,
                  troupe_device_name(device));
    return troupe_comm_failure(group->comm);
}

static void check_sum(const troupe_group *group, enum troupe_element element, int64_t count) {
    TROUPE_ASSERT(count >= 0 && (size_t)count <= group->bytes_max / troupe_element_bytes(element),
                  "a sum of %lld elements in group %u made for %zu bytes", (long long)count,
                  group->id, group->bytes_max);
}

static troupe_status copy_own(troupe_stream *stream, const void *from, void *to, size_t bytes) {
    if (from == to) {
        return TROUPE_OK;
    }
    struct troupe_copy copy = {.to = to, .from = from, .rows = 1, .row_bytes = bytes};
    return troupe_stream_copy(stream, &copy);
}

troupe_status troupe_group_enqueue_all_reduce(troupe_group *group, troupe_stream *stream,
                                              enum troupe_reduction reduction,
                                              enum troupe_element element, void *data,
                                              int64_t count) {
    TROUPE_TRY(begin(group, stream));
    check_sum(group, element, count);
    if (group->count == 1 || count == 0) {
        return TROUPE_OK;
    }
    return group->stream_engine->all_reduce(group, stream, reduction, element, data, count);
}

troupe_status troupe_group_enqueue_reduce_scatter(troupe_group *group, troupe_stream *stream,
                                                  enum troupe_reduction reduction,
                                                  enum troupe_element element, const void *data,
                                                  int64_t count, void *out) {
    TROUPE_TRY(begin(group, stream));
    check_sum(group, element, count * group->count);
    if (group->count == 1) {
        return copy_own(stream, data, out, (size_t)count * troupe_element_bytes(element));
    }
    return count == 0 ? TROUPE_OK
                      : group->stream_engine->reduce_scatter(group, stream, reduction, element,
                                                             data, count, out);
}

troupe_status troupe_group_enqueue_all_gather(troupe_group *group, troupe_stream *stream,
                                              const void *mine, size_t bytes, void *out) {
    TROUPE_TRY(begin(group, stream));
    if (group->count == 1) {
        return copy_own(stream, mine, out, bytes);
    }
    return bytes == 0 ? TROUPE_OK
                      : group->stream_engine->all_gather(group, stream, mine, bytes, out);
}

troupe_status troupe_group_enqueue_broadcast(troupe_group *group, troupe_stream *stream,
                                             int root_index, void *data, size_t bytes) {
    TROUPE_ASSERT(root_index >= 0 && root_index < group->count, "member %d of %d", root_index,
                  group->count);
    TROUPE_TRY(begin(group, stream));
    if (group->count == 1 || bytes == 0) {
        return TROUPE_OK;
    }
    return group->stream_engine->broadcast(group, stream, root_index, data, bytes);
}

troupe_status troupe_group_enqueue_exchange(troupe_group *group, troupe_stream *stream,
                                            const struct troupe_move *moves, int count) {
    TROUPE_ASSERT(count >= 0 && count <= TROUPE_MOVES_MAX, "%d moves, at most %d", count,
                  TROUPE_MOVES_MAX);
    for (int i = 0; i < count; i++) {
        TROUPE_ASSERT(moves[i].member >= 0 && moves[i].member < group->count &&
                          moves[i].member != group->index,
                      "move %d of an exchange is with member %d of %d; this one is %d", i,
                      moves[i].member, group->count, group->index);
    }
    TROUPE_TRY(begin(group, stream));
    return count == 0 ? TROUPE_OK : group->stream_engine->exchange(group, stream, moves, count);
}
