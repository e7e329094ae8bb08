/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/contract.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

/* Ends the sentence "edge E: rank S sent to rank R ..." with what differs and what that means. */
#define DIFFERS(contract, received, ...)                                                           \
    do {                                                                                           \
        char difference[512];                                                                      \
        snprintf(difference, sizeof difference, __VA_ARGS__);                                      \
        return differs(contract, received, difference);                                            \
    } while (0)

static troupe_status differs(const struct troupe_contract *contract,
                             const struct troupe_wire_header *received, const char *difference) {
    return troupe_fail(TROUPE_ERROR_CONTRACT,
                       "edge %s: rank %d sent to rank %d rows %" PRId64 "..%" PRId64
                       " of step %" PRIu64 " microbatch %" PRIu32 "%s",
                       contract->edge_name, contract->sender, contract->receiver,
                       received->row_begin, received->row_begin + received->row_count,
                       received->step, received->microbatch, difference);
}

static troupe_status check_identity(const struct troupe_contract *c,
                                    const struct troupe_wire_header *got) {
    const struct troupe_wire_header *want = &c->expected;
    if (got->version != want->version) {
        return troupe_fail(TROUPE_ERROR_CONTRACT,
                           "edge %s: rank %d sent to rank %d a message of wire version %u in step "
                           "%" PRIu64 " microbatch %" PRIu32 ", but rank %d speaks version %u: "
                           "start all ranks from the same build",
                           c->edge_name, c->sender, c->receiver, got->version, want->step,
                           want->microbatch, c->receiver, want->version);
    }
    if (got->edge != want->edge) {
        DIFFERS(c, got,
                " for edge %" PRIu32 "; rank %d expected edge %" PRIu32
                ": the message was routed to the wrong edge",
                got->edge, c->receiver, want->edge);
    }
    if (got->step != want->step) {
        DIFFERS(c, got, "; rank %d expected step %" PRIu64 ": %s", c->receiver, want->step,
                got->step < want->step ? "the message is stale, left over from an earlier step"
                                       : "the sender is ahead by a step");
    }
    if (got->microbatch != want->microbatch) {
        DIFFERS(c, got,
                "; rank %d expected microbatch %" PRIu32
                ": the two ends run the microbatches in different orders",
                c->receiver, want->microbatch);
    }
    return TROUPE_OK;
}

static troupe_status check_meaning(const struct troupe_contract *c,
                                   const struct troupe_wire_header *got) {
    const struct troupe_wire_header *want = &c->expected;
    if (got->sample_set != want->sample_set) {
        DIFFERS(c, got,
                " with sample set %016" PRIx64 "; rank %d expected sample set %016" PRIx64
                ": the two modules disagree about the samples of this microbatch",
                got->sample_set, c->receiver, want->sample_set);
    }
    if (got->normalisation != want->normalisation) {
        DIFFERS(c, got,
                " with normalisation %016" PRIx64 "; rank %d expected normalisation %016" PRIx64
                ": the two modules scale the loss differently",
                got->normalisation, c->receiver, want->normalisation);
    }
    return TROUPE_OK;
}

static troupe_status check_extent(const struct troupe_contract *c,
                                  const struct troupe_wire_header *got) {
    const struct troupe_wire_header *want = &c->expected;
    if (got->row_begin != want->row_begin || got->row_count != want->row_count) {
        DIFFERS(c, got,
                "; rank %d expected rows %" PRId64 "..%" PRId64
                ": the two ends split the rows of this microbatch differently",
                c->receiver, want->row_begin, want->row_begin + want->row_count);
    }
    if (got->piece != want->piece || got->piece_count != want->piece_count) {
        DIFFERS(c, got,
                ", piece %u of %u; rank %d expected piece %u of %u: the two ends cut the message "
                "differently",
                got->piece, got->piece_count, c->receiver, want->piece, want->piece_count);
    }
    return TROUPE_OK;
}

static troupe_status check_payload(const struct troupe_contract *c,
                                   const struct troupe_wire_header *got) {
    bool computed = got->checksum != 0 && c->expected.checksum != 0;
    if (computed && got->checksum != c->expected.checksum) {
        DIFFERS(c, got,
                " with checksum %016" PRIx64 "; rank %d computes %016" PRIx64
                ": the payload changed on the way",
                got->checksum, c->receiver, c->expected.checksum);
    }
    return TROUPE_OK;
}

troupe_status troupe_contract_check(const struct troupe_contract *contract,
                                    const struct troupe_wire_header *received) {
    TROUPE_TRY(check_identity(contract, received));
    TROUPE_TRY(check_meaning(contract, received));
    TROUPE_TRY(check_extent(contract, received));
    return check_payload(contract, received);
}
