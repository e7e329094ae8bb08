/* SPDX-License-Identifier: Apache-2.0
 *
 * Collectives between GPUs by NCCL. A communicator is non-blocking: whatever NCCL does in the
 * background (connecting, launching), this rank keeps calling progress until it is done, and a
 * failure of the endpoint aborts it.
 *
 * A sum is three enqueued steps: the members send each other their pieces, a kernel adds what came
 * in group order, and the sums go round. These are as many bytes as in a ring, and the same bits as
 * on the host. NCCL's own sums are taken if the order is left to it.
 */
#include <cuda_runtime_api.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/group_internal.h"
#include "comm/group_sum_internal.h"
#include "comm/nccl_internal.h"
#include "runtime/check.h"
#include "runtime/clock.h"
#include "runtime/device_cuda.h"
#include "runtime/log.h"
#include "runtime/memory.h"

struct nccl_group {
    struct troupe_comm_poller poller; /* first: the poller is the group */
    troupe_group *group;
    troupe_device *device;
    ncclComm_t comm; /* NULL: not made yet, or aborted */
    char *staging;   /* device: the other members' parts of a sum */
    bool any_order;
    uint64_t give_up_ns;  /* while the members come together; then never: the job's watch decides */
    uint64_t bereaved_ns; /* since when NCCL misses a peer; 0: it does not */
    uint64_t enqueued;
    const char *latest; /* what was enqueued last */
};

static struct nccl_group *state_of(const troupe_group *group) {
    return group->stream_state;
}

/* ---- failure ---- */

static void abort_communicator(struct nccl_group *n) {
    if (n->comm != NULL) {
        ncclCommAbort(n->comm); /* its result says nothing that could still be acted upon */
        n->comm = NULL;
    }
}

static troupe_status fail_endpoint(struct nccl_group *n, troupe_status status) {
    char why[512];
    snprintf(why, sizeof why, "%s", troupe_last_error());
    troupe_status failed = troupe_comm_fail(
        n->group->comm, status, "group %u of %d ranks, %s, operation %llu: %s", n->group->id,
        n->group->count, n->latest, (unsigned long long)n->enqueued, why);
    abort_communicator(n);
    return failed;
}

/* Whether to wait: NCCL sees that a process is gone, the endpoint will say which. */
static bool may_be_named(struct nccl_group *n, troupe_status status) {
    static const uint64_t patience_ns = UINT64_C(3000000000);
    uint64_t now_ns = troupe_clock_ns();
    if (n->bereaved_ns == 0) {
        n->bereaved_ns = now_ns;
    }
    return status == TROUPE_ERROR_PEER && now_ns - n->bereaved_ns < patience_ns;
}

static void poll(struct troupe_comm_poller *poller) {
    struct nccl_group *n = (struct nccl_group *)poller;
    ncclResult_t state = ncclSuccess;
    if (n->comm == NULL) {
        return;
    }
    ncclResult_t asked = ncclCommGetAsyncError(n->comm, &state);
    troupe_status status =
        troupe_nccl_status(asked != ncclSuccess ? asked : state, "ncclCommGetAsyncError");
    if (status != TROUPE_OK && status != TROUPE_AGAIN && !may_be_named(n, status)) {
        fail_endpoint(n, status);
    }
}

static void withdraw(struct troupe_comm_poller *poller) {
    abort_communicator((struct nccl_group *)poller);
}

/* ---- waiting for NCCL's background work ---- */

/* One turn of a wait. Fails when the endpoint does, or when the members take too long. */
static troupe_status advance(struct nccl_group *n) {
    troupe_comm *comm = n->group->comm;
    if (comm->in_progress) {
        sched_yield();
    } else if (troupe_comm_progress(comm) == 0) {
        troupe_comm_idle(comm);
    }
    TROUPE_TRY(troupe_comm_failure(comm));
    if (troupe_clock_ns() > n->give_up_ns) {
        troupe_fail(TROUPE_ERROR_STALL,
                    "not all members have come; every rank opens the same groups on its device, "
                    "and NCCL must find a network between them (NCCL_SOCKET_IFNAME)");
        return fail_endpoint(n, TROUPE_ERROR_STALL);
    }
    return TROUPE_OK;
}

/* Until NCCL has finished what `call` began: afterwards its work is in the stream. */
static troupe_status settle(struct nccl_group *n, ncclResult_t result, const char *call) {
    n->group->comm->active = true; /* quiet since now */
    while (result == ncclInProgress) {
        TROUPE_TRY(advance(n));
        ncclResult_t asked = ncclCommGetAsyncError(n->comm, &result);
        result = asked != ncclSuccess ? asked : result;
    }
    troupe_status status = troupe_nccl_status(result, call);
    while (status != TROUPE_OK && may_be_named(n, status)) {
        TROUPE_TRY(advance(n));
    }
    return status == TROUPE_OK ? TROUPE_OK : fail_endpoint(n, troupe_nccl_status(result, call));
}

#define SETTLE(n, call) TROUPE_TRY(settle((n), (call), #call))

static troupe_status begin(struct nccl_group *n, const char *what) {
    n->latest = what;
    n->enqueued++;
    /* A failure may have aborted the communicator since the endpoint was asked. */
    return n->comm != NULL ? TROUPE_OK : troupe_comm_failure(n->group->comm);
}

/* ---- moves ---- */

static cudaStream_t native_of(troupe_stream *stream) {
    return troupe_cuda_native(stream).stream;
}

/* Between ncclGroupStart and ncclGroupEnd; the first failure stays in *result. */
static void add_send(struct nccl_group *n, cudaStream_t stream, int to, const void *data,
                     size_t bytes, ncclResult_t *result) {
    if (bytes > 0 && *result == ncclSuccess) {
        *result = ncclSend(data, bytes, ncclInt8, to, n->comm, stream);
    }
}

static void add_receive(struct nccl_group *n, cudaStream_t stream, int from, void *data,
                        size_t bytes, ncclResult_t *result) {
    if (bytes > 0 && *result == ncclSuccess) {
        *result = ncclRecv(data, bytes, ncclInt8, from, n->comm, stream);
    }
}

/* Ends the group of calls in any case, and waits until its work is in the stream. */
static troupe_status end_moves(struct nccl_group *n, ncclResult_t result) {
    ncclResult_t ended = ncclGroupEnd();
    bool refused = result != ncclSuccess && result != ncclInProgress;
    return settle(n, refused ? result : ended, "ncclGroupEnd");
}

/* Where the pieces of an operand lie. */
struct pieces {
    char *data;
    size_t count, element_bytes;
};

static char *piece_of(const troupe_group *group, const struct pieces *pieces, int i,
                      size_t *bytes_out) {
    size_t begin = troupe_group_piece_at(group, pieces->count, i);
    size_t end = troupe_group_piece_at(group, pieces->count, i + 1);
    *bytes_out = (end - begin) * pieces->element_bytes;
    return pieces->data + begin * pieces->element_bytes;
}

/* Every member gets the others' operands of its own piece, in staging. */
static troupe_status scatter(struct nccl_group *n, cudaStream_t stream,
                             const struct pieces *pieces) {
    const troupe_group *group = n->group;
    size_t own_bytes, bytes;
    piece_of(group, pieces, group->index, &own_bytes);
    ncclResult_t result = ncclGroupStart();
    for (int step = 1; step < group->count; step++) {
        int to = (group->index + step) % group->count;
        int from = (group->index + group->count - step) % group->count;
        const char *piece = piece_of(group, pieces, to, &bytes);
        add_send(n, stream, to, piece, bytes, &result);
        add_receive(n, stream, from, n->staging + (size_t)from * own_bytes, own_bytes, &result);
    }
    return end_moves(n, result);
}

/* Every member's piece goes to all. */
static troupe_status gather(struct nccl_group *n, cudaStream_t stream,
                            const struct pieces *pieces) {
    const troupe_group *group = n->group;
    size_t own_bytes, bytes;
    const char *own = piece_of(group, pieces, group->index, &own_bytes);
    ncclResult_t result = ncclGroupStart();
    for (int step = 1; step < group->count; step++) {
        int to = (group->index + step) % group->count;
        int from = (group->index + group->count - step) % group->count;
        char *piece = piece_of(group, pieces, from, &bytes);
        add_send(n, stream, to, own, own_bytes, &result);
        add_receive(n, stream, from, piece, bytes, &result);
    }
    return end_moves(n, result);
}

/* ---- operations ---- */

static ncclDataType_t type_of(enum troupe_element element) {
    static const ncclDataType_t types[] = {
        [TROUPE_ELEMENT_FLOAT32] = ncclFloat32,
        [TROUPE_ELEMENT_FLOAT64] = ncclFloat64,
        [TROUPE_ELEMENT_INT64] = ncclInt64,
        [TROUPE_ELEMENT_UINT64] = ncclUint64,
    };
    return types[element];
}

static ncclRedOp_t operation_of(enum troupe_reduction reduction) {
    return reduction == TROUPE_SUM ? ncclSum : ncclMax;
}

/* The sum of this member's piece: scatter, then the kernel. */
static troupe_status sum_own_piece(struct nccl_group *n, cudaStream_t stream,
                                   enum troupe_reduction reduction, enum troupe_element element,
                                   const struct pieces *pieces, void *out) {
    size_t bytes;
    const char *own = piece_of(n->group, pieces, n->group->index, &bytes);
    TROUPE_TRY(scatter(n, stream, pieces));
    struct troupe_ordered_sum sum = {.reduction = reduction,
                                     .element = element,
                                     .own = own,
                                     .others = n->staging,
                                     .out = out,
                                     .count = (int64_t)(bytes / pieces->element_bytes),
                                     .members = n->group->count,
                                     .index = n->group->index};
    TROUPE_TRY_CUDA(troupe_cuda_launch_ordered_sum(&sum, stream));
    return TROUPE_OK;
}

static troupe_status all_reduce(troupe_group *group, troupe_stream *stream,
                                enum troupe_reduction reduction, enum troupe_element element,
                                void *data, int64_t count) {
    struct nccl_group *n = state_of(group);
    cudaStream_t native = native_of(stream);
    struct pieces pieces = {data, (size_t)count, troupe_element_bytes(element)};
    size_t bytes;
    TROUPE_TRY(begin(n, "all_reduce"));
    if (n->any_order) {
        SETTLE(n, ncclAllReduce(data, data, (size_t)count, type_of(element),
                                operation_of(reduction), n->comm, native));
        return TROUPE_OK;
    }
    char *own = piece_of(group, &pieces, group->index, &bytes);
    TROUPE_TRY(sum_own_piece(n, native, reduction, element, &pieces, own));
    return gather(n, native, &pieces);
}

static troupe_status reduce_scatter(troupe_group *group, troupe_stream *stream,
                                    enum troupe_reduction reduction, enum troupe_element element,
                                    const void *data, int64_t count, void *out) {
    struct nccl_group *n = state_of(group);
    cudaStream_t native = native_of(stream);
    size_t total = (size_t)count * (size_t)group->count;
    struct pieces pieces = {(char *)data, total, troupe_element_bytes(element)};
    TROUPE_TRY(begin(n, "reduce_scatter"));
    if (n->any_order) {
        SETTLE(n, ncclReduceScatter(data, out, (size_t)count, type_of(element),
                                    operation_of(reduction), n->comm, native));
        return TROUPE_OK;
    }
    return sum_own_piece(n, native, reduction, element, &pieces, out);
}

static troupe_status all_gather(troupe_group *group, troupe_stream *stream, const void *mine,
                                size_t bytes, void *out) {
    struct nccl_group *n = state_of(group);
    TROUPE_TRY(begin(n, "all_gather"));
    SETTLE(n, ncclAllGather(mine, out, bytes, ncclInt8, n->comm, native_of(stream)));
    return TROUPE_OK;
}

static troupe_status broadcast(troupe_group *group, troupe_stream *stream, int root_index,
                               void *data, size_t bytes) {
    struct nccl_group *n = state_of(group);
    TROUPE_TRY(begin(n, "broadcast"));
    SETTLE(n, ncclBroadcast(data, data, bytes, ncclInt8, root_index, n->comm, native_of(stream)));
    return TROUPE_OK;
}

static troupe_status exchange(troupe_group *group, troupe_stream *stream,
                              const struct troupe_move *moves, int count) {
    struct nccl_group *n = state_of(group);
    cudaStream_t native = native_of(stream);
    TROUPE_TRY(begin(n, "exchange"));
    ncclResult_t result = ncclGroupStart();
    for (int i = 0; i < count; i++) {
        if (moves[i].sends) {
            add_send(n, native, moves[i].member, moves[i].data, moves[i].bytes, &result);
        } else {
            add_receive(n, native, moves[i].member, moves[i].data, moves[i].bytes, &result);
        }
    }
    return end_moves(n, result);
}

/* ---- opening ---- */

static troupe_status check(const struct troupe_group_devices *devices) {
    if (troupe_device_kind(devices->device) != TROUPE_DEVICE_CUDA) {
        return troupe_fail(TROUPE_ERROR_UNSUPPORTED, "nccl needs cuda devices, this rank has %s",
                           troupe_device_name(devices->device));
    }
    if (devices->threads) {
        return troupe_fail(TROUPE_ERROR_UNSUPPORTED,
                           "nccl cannot serve two ranks of one process on one GPU; start a process "
                           "for each");
    }
    return TROUPE_OK;
}

/* NCCL refuses two ranks of one host on one GPU. The k-th ranks of the GPUs of a host call
 * themselves one host: among those NCCL copies directly, between others it uses sockets. */
static troupe_status prepare(troupe_comm *comm, const struct troupe_group_devices *devices) {
    if (devices->shared) {
        char host[64];
        int rank = troupe_comm_rank(comm);
        snprintf(host, sizeof host, "troupe-%d-%d", troupe_comm_host(comm, rank), devices->before);
        setenv("NCCL_HOSTID", host, 0); /* nccl's */
        TROUPE_LOG_INFO("comm",
                        "ranks share GPUs; rank %d calls itself %s to nccl unless "
                        "NCCL_HOSTID was set",
                        rank, host);
    }
    return TROUPE_OK;
}

/* Member 0 makes the id; all learn whether it could. */
static troupe_status agree_on_id(troupe_group *group, ncclUniqueId *out) {
    struct {
        int32_t status;
        ncclUniqueId id;
    } word;
    memset(&word, 0, sizeof word);
    if (group->index == 0) {
        word.status = troupe_nccl_status(ncclGetUniqueId(&word.id), "ncclGetUniqueId");
    }
    TROUPE_TRY(troupe_group_broadcast(group, 0, &word, sizeof word));
    if (word.status != TROUPE_OK) {
        return group->index == 0 ? (troupe_status)word.status
                                 : troupe_fail((troupe_status)word.status,
                                               "group %u: rank %d could not start NCCL; its own "
                                               "message says why",
                                               group->id, group->ranks[0]);
    }
    *out = word.id;
    return TROUPE_OK;
}

static troupe_status open_communicator(struct nccl_group *n, int blocks_max) {
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.minCTAs = 1;
    config.maxCTAs = blocks_max;
    TROUPE_TRY(agree_on_id(n->group, &id));
    n->latest = "making the communicator";
    ncclResult_t result =
        ncclCommInitRankConfig(&n->comm, n->group->count, id, n->group->index, &config);
    return settle(n, result, "ncclCommInitRankConfig");
}

/* One byte of every kind, so that connections are made now and not in the middle of a step. */
static troupe_status enqueue_trial(struct nccl_group *n, troupe_stream *stream) {
    troupe_group *group = n->group;
    cudaStream_t native = native_of(stream);
    ncclResult_t result = ncclGroupStart();
    for (int i = 0; i < group->count; i++) {
        if (i != group->index) {
            add_send(n, native, i, n->staging, 1, &result);
            add_receive(n, native, i, n->staging + 1 + i, 1, &result);
        }
    }
    TROUPE_TRY(end_moves(n, result));
    TROUPE_TRY(all_gather(group, stream, n->staging + group->index, 1, n->staging));
    TROUPE_TRY(broadcast(group, stream, 0, n->staging, 1));
    if (n->any_order) {
        float *values = (float *)n->staging;
        TROUPE_TRY(all_reduce(group, stream, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32, values, 1));
        TROUPE_TRY(reduce_scatter(group, stream, TROUPE_SUM, TROUPE_ELEMENT_FLOAT32, values, 1,
                                  values + group->index));
    }
    return TROUPE_OK;
}

/* The host waits: start-up only. */
static troupe_status wait_for(struct nccl_group *n, troupe_stream *stream) {
    troupe_event *done = NULL;
    TROUPE_TRY(troupe_event_create(n->device, &done));
    troupe_status status = troupe_event_record(done, stream);
    if (status == TROUPE_OK) {
        status = troupe_event_query(done);
    }
    n->latest = "trial";
    while (status == TROUPE_AGAIN) {
        troupe_status advanced = advance(n);
        status = advanced == TROUPE_OK ? troupe_event_query(done) : advanced;
    }
    troupe_event_destroy(done);
    return status;
}

static troupe_status open_group(troupe_group *group, const struct troupe_group_devices *devices) {
    struct nccl_group *n = NULL;
    /* A piece may be one element larger than the operand's share. */
    size_t staging_bytes = group->bytes_max + 8 * (size_t)group->count;
    TROUPE_TRY(TROUPE_NEW(&n, 1));
    n->group = group;
    n->device = devices->device;
    n->any_order = devices->options.any_order;
    n->give_up_ns = troupe_clock_ns() + (uint64_t)devices->options.timeout_ns;
    n->poller.poll = poll;
    n->poller.withdraw = withdraw;
    group->stream_state = n;
    troupe_comm_add_poller(group->comm, &n->poller);
    TROUPE_TRY(troupe_device_alloc(n->device, staging_bytes, (void **)&n->staging));
    native_of(devices->stream); /* makes the device current */
    TROUPE_TRY(open_communicator(n, devices->options.blocks_max));
    TROUPE_TRY(enqueue_trial(n, devices->stream));
    TROUPE_TRY(wait_for(n, devices->stream));
    n->give_up_ns = UINT64_MAX;
    n->enqueued = 0;
    return TROUPE_OK;
}

/* Orderly where nothing has failed; the members then close together. */
static void close_communicator(struct nccl_group *n) {
    n->latest = "closing";
    if (n->comm != NULL && n->group->comm->failure == TROUPE_OK &&
        settle(n, ncclCommFinalize(n->comm), "ncclCommFinalize") == TROUPE_OK) {
        ncclCommDestroy(n->comm);
        n->comm = NULL;
    }
    abort_communicator(n);
}

static void close_group(troupe_group *group) {
    struct nccl_group *n = state_of(group);
    if (n == NULL) {
        return;
    }
    close_communicator(n);
    troupe_comm_remove_poller(group->comm, &n->poller);
    troupe_device_free(n->device, n->staging);
    troupe_free(n);
}

const struct troupe_group_stream_engine troupe_group_stream_engine_nccl = {
    .name = "nccl",
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
