/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/wire.h"

#include <assert.h>
#include <string.h>

/* The struct is the wire image on a little-endian host, which is the only kind supported. */
static_assert(sizeof(struct troupe_wire_header) == TROUPE_WIRE_BYTES, "the header has no padding");
static_assert(offsetof(struct troupe_wire_header, checksum) == 56, "fields are in wire order");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "pack must swap bytes on this host");

static const uint64_t fnv_prime = UINT64_C(0x100000001b3);

void troupe_wire_pack(const struct troupe_wire_header *header, uint8_t out[TROUPE_WIRE_BYTES]) {
    memcpy(out, header, TROUPE_WIRE_BYTES);
}

void troupe_wire_unpack(const uint8_t bytes[TROUPE_WIRE_BYTES], struct troupe_wire_header *out) {
    memcpy(out, bytes, TROUPE_WIRE_BYTES);
}

/* Finaliser of MurmurHash3 (Appleby, 2011): every input bit changes about half of the output. */
static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 33)) * UINT64_C(0xff51afd7ed558ccd);
    x = (x ^ (x >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
    return x ^ (x >> 33);
}

/* Not commutative: the hash so far is multiplied before the next word enters. */
static uint64_t hash_word(uint64_t hash, uint64_t word) {
    return mix(hash * fnv_prime ^ word);
}

uint64_t troupe_sample_set_add(uint64_t sample_set, uint64_t sample_id, uint64_t token_count) {
    return hash_word(hash_word(sample_set, sample_id), token_count);
}

uint64_t troupe_normalisation_tag(uint64_t rule, uint64_t normaliser) {
    return hash_word(hash_word(TROUPE_SAMPLE_SET_EMPTY, rule), normaliser);
}

uint64_t troupe_wire_checksum(uint64_t checksum, const void *data, size_t bytes) {
    const uint8_t *cursor = data;
    uint64_t hash = checksum == 0 ? TROUPE_SAMPLE_SET_EMPTY : checksum;
    for (; bytes > 0;) {
        size_t taken = bytes < sizeof(uint64_t) ? bytes : sizeof(uint64_t);
        uint64_t word = 0;
        memcpy(&word, cursor, taken);
        hash = hash_word(hash, word);
        cursor += taken;
        bytes -= taken;
    }
    return hash == 0 ? 1 : hash;
}
