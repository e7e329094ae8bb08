/* SPDX-License-Identifier: Apache-2.0
 *
 * Exchanges as point-to-point messages, straight from member to member.
 */
#include "comm/group_internal.h"
#include "runtime/memory.h"

/* A slot's transfers, one of each per member. */
struct direct {
    struct troupe_transfer *sends, *receives;
    int pending;
    troupe_status status;
};

static void transfer_done(struct troupe_transfer *transfer) {
    struct troupe_group_slot *slot = transfer->arg;
    struct direct *direct = slot->engine;
    if (transfer->status != TROUPE_OK && direct->status == TROUPE_OK) {
        direct->status = transfer->status;
    }
    if (--direct->pending == 0) {
        troupe_group_exchanged(slot, direct->status);
    }
}

/* namespace 4 bits, group 20 bits, sequence 40 bits */
static uint64_t tag_of(const struct troupe_group_slot *slot) {
    return (uint64_t)TROUPE_TAG_GROUP << TROUPE_TAG_NAMESPACE_SHIFT |
           (uint64_t)slot->group->id << 40 | (slot->sequence & ((UINT64_C(1) << 40) - 1));
}

static void fill(struct troupe_group_slot *slot, struct troupe_transfer *transfer, int member,
                 void *data, size_t bytes) {
    transfer->peer = slot->group->ranks[member];
    transfer->tag = tag_of(slot);
    transfer->segments[0] = (struct troupe_segment){data, bytes};
    transfer->segment_count = 1;
    transfer->done = transfer_done;
    transfer->arg = slot;
}

/* A post that is refused ends like a transfer that fails. */
static void post(struct troupe_transfer *transfer,
                 troupe_status (*how)(troupe_comm *, struct troupe_transfer *)) {
    struct troupe_group_slot *slot = transfer->arg;
    struct direct *direct = slot->engine;
    direct->pending++;
    troupe_status status = how(slot->group->comm, transfer);
    if (status != TROUPE_OK) {
        direct->pending--;
        direct->status = status;
    }
}

static void start(struct troupe_group_slot *slot) {
    const troupe_group *group = slot->group;
    const struct troupe_exchange *exchange = &slot->exchange;
    struct direct *direct = slot->engine;
    direct->status = TROUPE_OK;
    direct->pending = 1; /* this function's own, so that it cannot end before all is posted */
    for (int step = 1; step < group->count; step++) {
        int from = (group->index + group->count - step) % group->count;
        if (exchange->receive_bytes[from] > 0) {
            fill(slot, &direct->receives[from], from,
                 exchange->receive + exchange->receive_at[from], exchange->receive_bytes[from]);
            post(&direct->receives[from], troupe_comm_post_receive);
        }
    }
    for (int step = 1; step < group->count; step++) {
        int to = (group->index + step) % group->count;
        if (exchange->send_bytes[to] > 0) {
            fill(slot, &direct->sends[to], to, exchange->send + exchange->send_at[to],
                 exchange->send_bytes[to]);
            post(&direct->sends[to], troupe_comm_post_send);
        }
    }
    if (--direct->pending == 0) {
        troupe_group_exchanged(slot, direct->status);
    }
}

static void close_slot(struct troupe_group_slot *slot) {
    struct direct *direct = slot->engine;
    if (direct != NULL) {
        TROUPE_ASSERT(direct->pending == 0, "a group is destroyed with %d messages in flight",
                      direct->pending);
        troupe_free(direct->sends);
        troupe_free(direct->receives);
        troupe_free(direct);
    }
}

static troupe_status open_slot(troupe_group *group, struct troupe_group_slot *slot) {
    struct direct *direct = NULL;
    TROUPE_TRY(TROUPE_NEW(&direct, 1));
    slot->engine = direct;
    TROUPE_TRY(TROUPE_NEW(&direct->sends, group->count));
    return TROUPE_NEW(&direct->receives, group->count);
}

const struct troupe_group_engine troupe_group_engine_direct = {
    .open = open_slot,
    .start = start,
    .close = close_slot,
};
