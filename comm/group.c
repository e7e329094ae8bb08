/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/group_internal.h"

#include <string.h>

#include "runtime/memory.h"

enum {
    GROUP_ID_MAX = 1 << 20,
    SMALL_TOTAL_BYTES = 32768, /* members * operand up to here: everyone gets everything */
    BLOCK_BYTES = 4096,        /* of an ordered sum: the accumulator stays in the first cache */
};

enum kind { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST };

/* A posted operation: lives in the state of the caller's troupe_collective. */
struct __attribute__((may_alias)) request {
    struct troupe_collective *next; /* while it waits for a slot */
    char *data;
    char *out;    /* of a reduce_scatter; holds this rank's own block from the beginning */
    size_t bytes; /* of the operand, or of a member's block */
    size_t element_bytes;
    enum kind kind;
    enum troupe_reduction reduction;
    enum troupe_element element;
    int root;
};
_Static_assert(sizeof(struct request) <= sizeof(((struct troupe_collective *)0)->state),
               "request fits the state");

static struct request *request_of(struct troupe_collective *operation) {
    return (struct request *)operation->state;
}

size_t troupe_element_bytes(enum troupe_element element) {
    return element == TROUPE_ELEMENT_FLOAT32 ? 4 : 8;
}

/* ---- ordered reduction ---- */

#define DEFINE_COMBINE(name, type)                                                                 \
    static void add_##name(void *total, const void *values, size_t bytes) {                        \
        type *t = total;                                                                           \
        const type *v = values;                                                                    \
        for (size_t i = 0; i < bytes / sizeof(type); i++) {                                        \
            t[i] += v[i];                                                                          \
        }                                                                                          \
    }                                                                                              \
    static void max_##name(void *total, const void *values, size_t bytes) {                        \
        type *t = total;                                                                           \
        const type *v = values;                                                                    \
        for (size_t i = 0; i < bytes / sizeof(type); i++) {                                        \
            t[i] = v[i] > t[i] || v[i] != v[i] ? v[i] : t[i]; /* a NaN stays */                    \
        }                                                                                          \
    }
DEFINE_COMBINE(float32, float)
DEFINE_COMBINE(float64, double)
/* Integers wrap: unsigned addition gives the bits of both. */
DEFINE_COMBINE(uint64, uint64_t)
static void max_int64(void *total, const void *values, size_t bytes) {
    int64_t *t = total;
    const int64_t *v = values;
    for (size_t i = 0; i < bytes / sizeof(*t); i++) {
        t[i] = v[i] > t[i] ? v[i] : t[i];
    }
}

typedef void (*combine_function)(void *total, const void *values, size_t bytes);

static combine_function combine_for(enum troupe_reduction reduction, enum troupe_element element) {
    static const combine_function table[2][4] = {
        [TROUPE_SUM] = {add_float32, add_float64, add_uint64, add_uint64},
        [TROUPE_MAX] = {max_float32, max_float64, max_int64, max_uint64},
    };
    return table[reduction][element];
}

/* target = the members' contributions, combined in group order. This rank's own lies in target,
 * the others' in the slot's staging. */
static void reduce(struct troupe_group_slot *slot, const struct request *request, char *target,
                   size_t bytes) {
    _Alignas(TROUPE_CACHE_LINE) char total[BLOCK_BYTES];
    const troupe_group *group = slot->group;
    combine_function combine = combine_for(request->reduction, request->element);
    for (size_t at = 0; at < bytes; at += BLOCK_BYTES) {
        size_t block = bytes - at < BLOCK_BYTES ? bytes - at : BLOCK_BYTES;
        for (int i = 0; i < group->count; i++) {
            const char *values =
                i == group->index ? target : slot->staging + slot->exchange.receive_at[i];
            if (i == 0) {
                memcpy(total, values + at, block);
            } else {
                combine(total, values + at, block);
            }
        }
        memcpy(target + at, total, block);
    }
}

/* ---- exchanges of an operation ---- */

size_t troupe_group_piece_at(const troupe_group *group, size_t count, int i) {
    size_t n = (size_t)group->count;
    return count / n * (size_t)i + count % n * (size_t)i / n;
}

/* Member i owns the bytes [piece_at(i), piece_at(i + 1)) of the operand. */
static size_t piece_at(const troupe_group *group, const struct request *request, int i) {
    size_t count = request->bytes / request->element_bytes;
    return troupe_group_piece_at(group, count, i) * request->element_bytes;
}

static size_t piece_bytes(const troupe_group *group, const struct request *request, int i) {
    return piece_at(group, request, i + 1) - piece_at(group, request, i);
}

static bool is_small(const troupe_group *group, size_t bytes) {
    return bytes <= SMALL_TOTAL_BYTES / (size_t)group->count;
}

static size_t staging_bytes(const troupe_group *group, size_t bytes_max) {
    size_t pieces = bytes_max + 8 * (size_t)group->count;
    size_t small =
        bytes_max < SMALL_TOTAL_BYTES ? bytes_max * (size_t)group->count : SMALL_TOTAL_BYTES;
    return pieces > small ? pieces : small;
}

/* Every member's whole operand comes into staging. */
static void plan_small(struct troupe_group_slot *slot, const struct request *request) {
    struct troupe_exchange *exchange = &slot->exchange;
    exchange->gather = false;
    exchange->send = request->data;
    exchange->receive = slot->staging;
    for (int i = 0; i < slot->group->count; i++) {
        exchange->send_at[i] = 0;
        exchange->receive_at[i] = (size_t)i * request->bytes;
        exchange->send_bytes[i] = exchange->receive_bytes[i] = request->bytes;
    }
}

/* The owner's piece of every member's operand comes into the owner's staging. */
static void plan_scatter(struct troupe_group_slot *slot, const struct request *request) {
    const troupe_group *group = slot->group;
    struct troupe_exchange *exchange = &slot->exchange;
    size_t own_bytes = piece_bytes(group, request, group->index);
    exchange->gather = false;
    exchange->send = request->data;
    exchange->receive = slot->staging;
    for (int i = 0; i < group->count; i++) {
        exchange->send_at[i] = piece_at(group, request, i);
        exchange->send_bytes[i] = piece_bytes(group, request, i);
        exchange->receive_at[i] = (size_t)i * own_bytes;
        exchange->receive_bytes[i] = own_bytes;
    }
}

/* Member i's part of `data` goes to everyone; at and bytes say where it lies. */
static void plan_gather(struct troupe_group_slot *slot, struct request *request,
                        size_t (*at)(const troupe_group *, const struct request *, int),
                        size_t (*bytes)(const troupe_group *, const struct request *, int)) {
    const troupe_group *group = slot->group;
    struct troupe_exchange *exchange = &slot->exchange;
    exchange->gather = true;
    exchange->send = exchange->receive = request->data;
    for (int i = 0; i < group->count; i++) {
        exchange->send_at[i] = at(group, request, group->index);
        exchange->send_bytes[i] = bytes(group, request, group->index);
        exchange->receive_at[i] = at(group, request, i);
        exchange->receive_bytes[i] = bytes(group, request, i);
    }
}

static size_t block_at(const troupe_group *group, const struct request *request, int i) {
    (void)group;
    return request->kind == BROADCAST ? 0 : (size_t)i * request->bytes;
}

static size_t block_bytes(const troupe_group *group, const struct request *request, int i) {
    (void)group;
    return request->kind == BROADCAST && i != request->root ? 0 : request->bytes;
}

/* ---- operations ---- */

static void start_waiting(troupe_group *group);

static void finish(struct troupe_group_slot *slot, troupe_status status) {
    struct troupe_collective *operation = slot->operation;
    slot->operation = NULL;
    if (status != TROUPE_OK && slot->group->failure == TROUPE_OK) {
        slot->group->failure = status;
    }
    start_waiting(slot->group);
    operation->status = status;
    if (operation->done != NULL) {
        operation->done(operation);
    }
}

static void begin(struct troupe_group_slot *slot, struct troupe_collective *operation) {
    struct request *request = request_of(operation);
    troupe_group *group = slot->group;
    slot->operation = operation;
    slot->sequence = group->started++ * 2;
    slot->phase = 0;
    if (group->failure != TROUPE_OK) {
        finish(slot, group->failure);
        return;
    }
    if (request->kind == ALL_GATHER || request->kind == BROADCAST) {
        plan_gather(slot, request, block_at, block_bytes);
    } else if (request->kind == ALL_REDUCE && is_small(group, request->bytes)) {
        plan_small(slot, request);
    } else {
        plan_scatter(slot, request);
    }
    group->engine->start(slot);
}

static void start_waiting(troupe_group *group) {
    struct troupe_group_slot *slot = &group->slots[group->started % TROUPE_GROUP_SLOTS];
    while (group->waiting_head != NULL && slot->operation == NULL) {
        struct troupe_collective *operation = group->waiting_head;
        group->waiting_head = request_of(operation)->next;
        begin(slot, operation);
        slot = &group->slots[group->started % TROUPE_GROUP_SLOTS];
    }
}

void troupe_group_exchanged(struct troupe_group_slot *slot, troupe_status status) {
    const troupe_group *group = slot->group;
    struct request *request = request_of(slot->operation);
    bool sums = request->kind == ALL_REDUCE || request->kind == REDUCE_SCATTER;
    if (status != TROUPE_OK || !sums || slot->phase == 1) {
        finish(slot, status);
    } else if (request->kind == REDUCE_SCATTER) {
        reduce(slot, request, request->out, piece_bytes(group, request, group->index));
        finish(slot, TROUPE_OK);
    } else if (is_small(group, request->bytes)) {
        reduce(slot, request, request->data, request->bytes);
        finish(slot, TROUPE_OK);
    } else {
        reduce(slot, request, request->data + piece_at(group, request, group->index),
               piece_bytes(group, request, group->index));
        slot->phase = 1;
        slot->sequence++;
        plan_gather(slot, request, piece_at, piece_bytes);
        group->engine->start(slot);
    }
}

static troupe_status report_failure(const troupe_group *group) {
    return troupe_fail(group->failure, "group %u failed before on rank %d", group->id,
                       troupe_comm_rank(group->comm));
}

static troupe_status post(troupe_group *group, const struct request *request,
                          struct troupe_collective *operation) {
    TROUPE_TRY(troupe_comm_failure(group->comm));
    if (group->failure != TROUPE_OK) {
        return report_failure(group);
    }
    *request_of(operation) = *request;
    operation->status = TROUPE_AGAIN;
    if (group->waiting_head == NULL) {
        group->waiting_head = operation;
    } else {
        request_of(group->waiting_tail)->next = operation;
    }
    group->waiting_tail = operation;
    start_waiting(group);
    return TROUPE_OK;
}

static troupe_status run(troupe_group *group, const struct request *request) {
    struct troupe_collective operation = {0};
    if (group->count == 1) {
        return troupe_comm_failure(group->comm);
    }
    TROUPE_TRY(post(group, request, &operation));
    group->comm->active = true; /* quiet since now */
    while (operation.status == TROUPE_AGAIN) {
        if (troupe_comm_progress(group->comm) == 0) {
            troupe_comm_wait(group->comm);
        }
    }
    return operation.status;
}

static struct request all_reduce_request(const troupe_group *group, enum troupe_reduction reduction,
                                         enum troupe_element element, void *data, int64_t count) {
    size_t bytes = (size_t)count * troupe_element_bytes(element);
    TROUPE_ASSERT(count >= 0 && bytes <= group->bytes_max,
                  "a sum of %zu bytes in group %u made for %zu", bytes, group->id,
                  group->bytes_max);
    return (struct request){.kind = ALL_REDUCE,
                            .data = data,
                            .bytes = bytes,
                            .element_bytes = troupe_element_bytes(element),
                            .reduction = reduction,
                            .element = element};
}

static troupe_status copy_ranks(troupe_group *group, const int *ranks) {
    TROUPE_TRY(TROUPE_NEW(&group->ranks, group->count));
    for (int i = 0; i < group->count; i++) {
        group->ranks[i] = ranks != NULL ? ranks[i] : i;
    }
    return TROUPE_OK;
}

static troupe_status find_self(troupe_group *group) {
    int rank = troupe_comm_rank(group->comm);
    for (int i = 0; i < group->count; i++) {
        if (group->ranks[i] == rank) {
            group->index = i;
            return TROUPE_OK;
        }
    }
    return troupe_fail(TROUPE_ERROR_INVALID, "rank %d makes group %u without being in it", rank,
                       group->id);
}

static troupe_status open_slot(troupe_group *group, struct troupe_group_slot *slot) {
    struct troupe_exchange *exchange = &slot->exchange;
    slot->group = group;
    TROUPE_TRY(TROUPE_NEW(&exchange->send_at, group->count));
    TROUPE_TRY(TROUPE_NEW(&exchange->send_bytes, group->count));
    TROUPE_TRY(TROUPE_NEW(&exchange->receive_at, group->count));
    TROUPE_TRY(TROUPE_NEW(&exchange->receive_bytes, group->count));
    TROUPE_TRY(TROUPE_NEW(&slot->staging, staging_bytes(group, group->bytes_max)));
    return group->engine->open(group, slot);
}

static void close_slot(struct troupe_group_slot *slot) {
    TROUPE_ASSERT(slot->operation == NULL, "a group is destroyed with a collective in flight");
    if (slot->group != NULL) {
        slot->group->engine->close(slot);
    }
    troupe_free(slot->exchange.send_at);
    troupe_free(slot->exchange.send_bytes);
    troupe_free(slot->exchange.receive_at);
    troupe_free(slot->exchange.receive_bytes);
    troupe_free(slot->staging);
}

troupe_status troupe_group_create(troupe_comm *comm, const struct troupe_group_options *options,
                                  troupe_group **out) {
    bool all = options->ranks == NULL;
    TROUPE_ASSERT(all ? options->count == 0 : options->count > 0, "a group of %d ranks",
                  options->count);
    TROUPE_ASSERT(options->id < GROUP_ID_MAX, "group id %u, at most %d", options->id,
                  GROUP_ID_MAX - 1);
    troupe_group *group = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY(TROUPE_NEW(&group, 1));
    group->comm = comm;
    group->engine = options->alone ? &troupe_group_engine_direct : comm->backend->group_engine;
    group->stream_engine = &troupe_group_stream_engine_host;
    group->count = all ? comm->size : options->count;
    group->id = options->id;
    group->bytes_max = options->bytes_max < sizeof(int64_t) ? sizeof(int64_t) /* a barrier's */
                                                            : options->bytes_max;
    TROUPE_TRY_FAIL(copy_ranks(group, options->ranks));
    TROUPE_TRY_FAIL(find_self(group));
    for (int i = 0; group->count > 1 && i < TROUPE_GROUP_SLOTS; i++) {
        TROUPE_TRY_FAIL(open_slot(group, &group->slots[i]));
    }
    *out = group;
    return TROUPE_OK;
fail:
    troupe_group_destroy(group);
    return status;
}

void troupe_group_destroy(troupe_group *group) {
    if (group == NULL) {
        return;
    }
    group->stream_engine->close(group);
    for (int i = 0; i < TROUPE_GROUP_SLOTS; i++) {
        close_slot(&group->slots[i]);
    }
    troupe_free(group->ranks);
    troupe_free(group);
}

int troupe_group_size(const troupe_group *group) {
    return group->count;
}

int troupe_group_index(const troupe_group *group) {
    return group->index;
}

int troupe_group_rank(const troupe_group *group, int index) {
    TROUPE_ASSERT(index >= 0 && index < group->count, "member %d of %d", index, group->count);
    return group->ranks[index];
}

troupe_status troupe_group_all_reduce(troupe_group *group, enum troupe_reduction reduction,
                                      enum troupe_element element, void *data, int64_t count) {
    struct request request = all_reduce_request(group, reduction, element, data, count);
    return run(group, &request);
}

troupe_status troupe_group_reduce_scatter(troupe_group *group, enum troupe_reduction reduction,
                                          enum troupe_element element, const void *data,
                                          int64_t count, void *out) {
    struct request request =
        all_reduce_request(group, reduction, element, (void *)data, count * group->count);
    size_t block = (size_t)count * troupe_element_bytes(element);
    const char *own = (const char *)data + (size_t)group->index * block;
    if (own != out && block > 0) {
        memcpy(out, own, block);
    }
    request.kind = REDUCE_SCATTER;
    request.out = out;
    return run(group, &request);
}

troupe_status troupe_group_all_gather(troupe_group *group, const void *mine, size_t bytes,
                                      void *out) {
    char *own = (char *)out + (size_t)group->index * bytes;
    if (own != mine && bytes > 0) {
        memcpy(own, mine, bytes);
    }
    struct request request = {.kind = ALL_GATHER, .data = out, .bytes = bytes};
    return run(group, &request);
}

troupe_status troupe_group_broadcast(troupe_group *group, int root_index, void *data,
                                     size_t bytes) {
    TROUPE_ASSERT(root_index >= 0 && root_index < group->count, "member %d of %d", root_index,
                  group->count);
    struct request request = {.kind = BROADCAST, .data = data, .bytes = bytes, .root = root_index};
    return run(group, &request);
}

troupe_status troupe_group_barrier(troupe_group *group) {
    int64_t arrived = 0; /* the sum of nothing: every member hears from every other */
    struct request request =
        all_reduce_request(group, TROUPE_SUM, TROUPE_ELEMENT_INT64, &arrived, 1);
    return run(group, &request);
}

troupe_status troupe_group_post_all_reduce(troupe_group *group, enum troupe_reduction reduction,
                                           enum troupe_element element, void *data, int64_t count,
                                           struct troupe_collective *operation) {
    struct request request = all_reduce_request(group, reduction, element, data, count);
    if (group->count > 1) {
        return post(group, &request, operation);
    }
    operation->status = TROUPE_OK;
    if (operation->done != NULL) {
        operation->done(operation);
    }
    return TROUPE_OK;
}
