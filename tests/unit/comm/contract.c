/* SPDX-License-Identifier: Apache-2.0
 *
 * The wire header byte by byte, its hashes, and the sentence for each way to break a contract.
 */
#include "comm/contract.h"

#include "runtime/check.h"
#include "runtime/memory.h"
#include "tests/test.h"

static const struct troupe_wire_header header = {.version = TROUPE_WIRE_VERSION,
                                                 .edge = 0x01020304,
                                                 .step = 7,
                                                 .microbatch = 1,
                                                 .piece = 0,
                                                 .piece_count = 1,
                                                 .row_begin = 0,
                                                 .row_count = 12,
                                                 .sample_set = 0x31,
                                                 .normalisation = 0x1122334455667788,
                                                 .checksum = 0xabcd};

static void the_header_has_these_bytes(void) {
    static const uint8_t golden[TROUPE_WIRE_BYTES] = {
        1,    0,    0,    0,    4,    3,    2,    1,    /* version, reserved, edge */
        7,    0,    0,    0,    0,    0,    0,    0,    /* step */
        1,    0,    0,    0,    0,    0,    1,    0,    /* microbatch, piece, piece count */
        0,    0,    0,    0,    0,    0,    0,    0,    /* row begin */
        12,   0,    0,    0,    0,    0,    0,    0,    /* row count */
        0x31, 0,    0,    0,    0,    0,    0,    0,    /* sample set */
        0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, /* normalisation */
        0xcd, 0xab, 0,    0,    0,    0,    0,    0};   /* checksum */
    uint8_t bytes[TROUPE_WIRE_BYTES];
    struct troupe_wire_header back;
    troupe_wire_pack(&header, bytes);
    for (int i = 0; i < TROUPE_WIRE_BYTES; i++) {
        EXPECT(bytes[i] == golden[i], "byte %d is %d", i, bytes[i]);
    }
    troupe_wire_unpack(bytes, &back);
    EXPECT(memcmp(&back, &header, sizeof back) == 0, "unpack is the inverse");
}

static uint64_t hash_of(int count, const uint64_t (*samples)[2]) {
    uint64_t hash = TROUPE_SAMPLE_SET_EMPTY;
    for (int i = 0; i < count; i++) {
        hash = troupe_sample_set_add(hash, samples[i][0], samples[i][1]);
    }
    return hash;
}

static void sample_sets_differ_in_order_ids_counts_and_length(void) {
    const uint64_t sets[][3][2] = {{{1, 5}, {2, 6}, {3, 7}}, {{2, 6}, {1, 5}, {3, 7}},
                                   {{1, 5}, {2, 6}, {4, 7}}, {{1, 5}, {2, 7}, {3, 6}},
                                   {{5, 1}, {2, 6}, {3, 7}}, {{0, 0}, {0, 0}, {0, 0}},
                                   {{1, 5}, {3, 7}, {2, 6}}};
    uint64_t hashes[TROUPE_COUNT_OF(sets)];
    for (size_t i = 0; i < TROUPE_COUNT_OF(sets); i++) {
        hashes[i] = hash_of(3, sets[i]);
        EXPECT(hashes[i] != hash_of(2, sets[i]), "two samples hash as three");
        for (size_t j = 0; j < i; j++) {
            EXPECT(hashes[j] != hashes[i], "sets %zu and %zu", i, j);
        }
    }
    /* Fixed forever: different builds of one job must agree. */
    EXPECT_EQ(hash_of(3, sets[0]), UINT64_C(0x363b33ebde12b685));
}

static void normalisation_tags_tell_rules_and_totals_apart(void) {
    EXPECT(troupe_normalisation_tag(1, 4) != troupe_normalisation_tag(4, 1), "swapped");
    EXPECT(troupe_normalisation_tag(1, 4) != troupe_normalisation_tag(1, 5), "other total");
    EXPECT(troupe_normalisation_tag(1, 4) != troupe_normalisation_tag(2, 4), "other rule");
}

static void checksums_see_every_byte_and_continue(void) {
    uint8_t payload[27];
    for (size_t i = 0; i < sizeof payload; i++) {
        payload[i] = (uint8_t)(37 * i);
    }
    uint64_t sum = troupe_wire_checksum(0, payload, sizeof payload);
    EXPECT(sum != 0, "0 means not computed");
    EXPECT(troupe_wire_checksum(0, payload, 0) != 0, "also for an empty payload");
    uint64_t parts = troupe_wire_checksum(0, payload, 16);
    EXPECT_EQ(troupe_wire_checksum(parts, payload + 16, sizeof payload - 16), sum);
    for (size_t i = 0; i < sizeof payload; i++) {
        payload[i] ^= 1;
        EXPECT(troupe_wire_checksum(0, payload, sizeof payload) != sum, "byte %zu", i);
        payload[i] ^= 1;
    }
}

/* The receiver expects `header`; the message is a changed copy of it. */
static void expect_sentence(struct troupe_wire_header received, const char *sentence) {
    struct troupe_contract contract = {
        .edge_name = "vision->llm", .sender = 2, .receiver = 0, .expected = header};
    troupe_memory_set_steady(true); /* an allocation would abort */
    troupe_status status = troupe_contract_check(&contract, &received);
    troupe_memory_set_steady(false);
    EXPECT_EQ(status, TROUPE_ERROR_CONTRACT);
    EXPECT_STRING(troupe_last_error(), sentence);
}

static void a_message_as_expected_passes(void) {
    struct troupe_contract contract = {.edge_name = "vision->llm", .expected = header};
    struct troupe_wire_header received = header;
    EXPECT_OK(troupe_contract_check(&contract, &received));
    received.checksum = 0; /* the sender did not compute one */
    EXPECT_OK(troupe_contract_check(&contract, &received));
    contract.expected.checksum = 0;
    received.checksum = 5;
    EXPECT_OK(troupe_contract_check(&contract, &received));
}

#define ROWS "edge vision->llm: rank 2 sent to rank 0 rows "

static void another_sample_set_names_both_sides(void) {
    struct troupe_wire_header h = header;
    h.sample_set = 0x9f;
    expect_sentence(h, ROWS "0..12 of step 7 microbatch 1 with sample set 000000000000009f; rank 0 "
                            "expected sample set 0000000000000031: the two modules disagree about "
                            "the samples of this microbatch");
}

static void a_stale_step_is_told_from_one_ahead(void) {
    struct troupe_wire_header h = header;
    h.step = 6;
    h.sample_set = 0; /* a stale message differs in its samples, too */
    expect_sentence(h, ROWS "0..12 of step 6 microbatch 1; rank 0 expected step 7: the message is "
                            "stale, left over from an earlier step");
    h.step = 8;
    expect_sentence(h, ROWS "0..12 of step 8 microbatch 1; rank 0 expected step 7: the sender is "
                            "ahead by a step");
}

static void swapped_microbatches_are_named(void) {
    struct troupe_wire_header h = header;
    h.microbatch = 3;
    expect_sentence(h, ROWS "0..12 of step 7 microbatch 3; rank 0 expected microbatch 1: the two "
                            "ends run the microbatches in different orders");
}

static void other_rows_are_named(void) {
    struct troupe_wire_header h = header;
    h.row_begin = 4;
    expect_sentence(h, ROWS "4..16 of step 7 microbatch 1; rank 0 expected rows 0..12: the two "
                            "ends split the rows of this microbatch differently");
    h.row_begin = 0;
    h.row_count = 11;
    expect_sentence(h, ROWS "0..11 of step 7 microbatch 1; rank 0 expected rows 0..12: the two "
                            "ends split the rows of this microbatch differently");
}

static void another_normalisation_is_named(void) {
    struct troupe_wire_header h = header;
    h.normalisation = 1;
    expect_sentence(h, ROWS "0..12 of step 7 microbatch 1 with normalisation 0000000000000001; "
                            "rank 0 expected normalisation 1122334455667788: the two modules scale "
                            "the loss differently");
}

static void another_edge_is_named(void) {
    struct troupe_wire_header h = header;
    h.edge = 9;
    expect_sentence(h, ROWS "0..12 of step 7 microbatch 1 for edge 9; rank 0 expected edge "
                            "16909060: the message was routed to the wrong edge");
}

static void another_version_is_named(void) {
    struct troupe_wire_header h = header;
    h.version = 2;
    h.edge = 77; /* nothing else of another version can be read */
    expect_sentence(h,
                    "edge vision->llm: rank 2 sent to rank 0 a message of wire version 2 in step "
                    "7 microbatch 1, but rank 0 speaks version 1: start all ranks from the same "
                    "build");
}

static void another_piece_is_named(void) {
    struct troupe_wire_header h = header;
    h.piece = 1;
    h.piece_count = 3;
    expect_sentence(h, ROWS "0..12 of step 7 microbatch 1, piece 1 of 3; rank 0 expected piece 0 "
                            "of 1: the two ends cut the message differently");
}

static void a_changed_payload_is_named(void) {
    struct troupe_wire_header h = header;
    h.checksum = 0xabce;
    expect_sentence(h, ROWS "0..12 of step 7 microbatch 1 with checksum 000000000000abce; rank 0 "
                            "computes 000000000000abcd: the payload changed on the way");
}

int main(void) {
    TEST(the_header_has_these_bytes);
    TEST(sample_sets_differ_in_order_ids_counts_and_length);
    TEST(normalisation_tags_tell_rules_and_totals_apart);
    TEST(checksums_see_every_byte_and_continue);
    TEST(a_message_as_expected_passes);
    TEST(another_sample_set_names_both_sides);
    TEST(a_stale_step_is_told_from_one_ahead);
    TEST(swapped_microbatches_are_named);
    TEST(other_rows_are_named);
    TEST(another_normalisation_is_named);
    TEST(another_edge_is_named);
    TEST(another_version_is_named);
    TEST(another_piece_is_named);
    TEST(a_changed_payload_is_named);
    return TEST_END();
}
