/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract of a message: what the receiver expects, worked out from the plan alone. A message
 * that was mis-routed, is stale, or comes from a module that saw other samples or another
 * normaliser stops the job with one sentence that names both ends; it never trains.
 *
 *     struct troupe_contract contract = {.edge_name = "vision->llm", .sender = 2, .receiver = 0,
 *                                        .expected = header};
 *     TROUPE_TRY(troupe_contract_check(&contract, &received));
 *
 * Ownership: nothing is kept. Threads: any.
 * Failure: TROUPE_ERROR_CONTRACT; troupe_last_error is the sentence. Does not allocate.
 */
#ifndef TROUPE_COMM_CONTRACT_H
#define TROUPE_COMM_CONTRACT_H

#include "comm/wire.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_contract {
    const char *edge_name;
    int sender;
    int receiver;
    struct troupe_wire_header expected; /* checksum: of the payload that came, 0: not checked */
};

/* The first difference, the most telling first: version, edge, step, microbatch, sample set,
 * normalisation, rows, piece, checksum (only if both sides computed one). */
troupe_status troupe_contract_check(const struct troupe_contract *contract,
                                    const struct troupe_wire_header *received);

#ifdef __cplusplus
}
#endif
#endif
