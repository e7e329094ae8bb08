/* SPDX-License-Identifier: Apache-2.0 */
/* Status names, the last error and its contexts, and the early-return macros. */
#include "tests/test.h"

static void status_has_name_and_text(void) {
    EXPECT_STRING(troupe_status_name(TROUPE_ERROR_PEER), "TROUPE_ERROR_PEER");
    EXPECT_STRING(troupe_status_text(TROUPE_OK), "success");
    EXPECT_STRING(troupe_status_name((troupe_status)-1000), "unknown status");
}

static troupe_status open_shard(int shard) {
    return troupe_fail(TROUPE_ERROR_IO, "shard %d: no such file", shard);
}

static troupe_status open_index(void) {
    TROUPE_TRY(open_shard(7));
    TEST_FAIL("a failure must return early");
}

static void failure_keeps_its_sentence_on_the_way_up(void) {
    EXPECT_ERROR(open_index(), TROUPE_ERROR_IO, "shard 7: no such file");
}

static void context_goes_in_front(void) {
    EXPECT_ERROR(troupe_fail_in(open_shard(7), "index %s", "a.idx"), TROUPE_ERROR_IO,
                 "index a.idx: shard 7: no such file");
}

static void long_sentence_is_cut_not_overrun(void) {
    char text[4096];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    EXPECT_EQ(troupe_fail(TROUPE_ERROR_DATA, "%s", text), TROUPE_ERROR_DATA);
    EXPECT_EQ(strlen(troupe_last_error()), 1023);
}

int main(void) {
    TEST(status_has_name_and_text);
    TEST(failure_keeps_its_sentence_on_the_way_up);
    TEST(context_goes_in_front);
    TEST(long_sentence_is_cut_not_overrun);
    return TEST_END();
}
