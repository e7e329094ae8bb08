/* SPDX-License-Identifier: Apache-2.0
 *
 * The header of a message on an edge: 64 bytes, little endian, in front of the payload. It names
 * what the payload is, so that a message can be checked against what was expected (contract.h).
 *
 *     struct troupe_wire_header h = {.version = TROUPE_WIRE_VERSION, .edge = 2, .step = 7, ...};
 *     troupe_wire_pack(&h, bytes);
 *
 * Ownership: none. Threads: any, pure. Failure: none; unpack accepts any 64 bytes.
 */
#ifndef TROUPE_COMM_WIRE_H
#define TROUPE_COMM_WIRE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TROUPE_WIRE_VERSION = 1, TROUPE_WIRE_BYTES = 64 };

/* In the order of the wire, without padding. */
struct troupe_wire_header {
    uint16_t version;
    uint16_t reserved; /* 0 */
    uint32_t edge;
    uint64_t step;
    uint32_t microbatch;
    uint16_t piece; /* 0 .. piece_count - 1, if a payload is cut */
    uint16_t piece_count;
    int64_t row_begin; /* the rows of the microbatch that the payload spans */
    int64_t row_count;
    uint64_t sample_set;    /* hash of the samples of the microbatch */
    uint64_t normalisation; /* tag of the rule that scales the loss */
    uint64_t checksum;      /* of the payload; 0: not computed */
};

void troupe_wire_pack(const struct troupe_wire_header *header, uint8_t out[TROUPE_WIRE_BYTES]);
void troupe_wire_unpack(const uint8_t bytes[TROUPE_WIRE_BYTES], struct troupe_wire_header *out);

/* Hash over the ordered samples of a microbatch: start with TROUPE_SAMPLE_SET_EMPTY, add each. The
 * same on every message of the microbatch; any other order or count gives another value. */
#define TROUPE_SAMPLE_SET_EMPTY UINT64_C(0xcbf29ce484222325)
uint64_t troupe_sample_set_add(uint64_t sample_set, uint64_t sample_id, uint64_t token_count);

/* Tag of "the sum over target tokens divided by `normaliser`", e.g. the step's global token count,
 * under the rule of that number. */
uint64_t troupe_normalisation_tag(uint64_t rule, uint64_t normaliser);

/* Checksum of a payload, never 0; pass 0 to start, or the checksum so far to continue. Parts must
 * be multiples of 8 bytes except the last. */
uint64_t troupe_wire_checksum(uint64_t checksum, const void *data, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
