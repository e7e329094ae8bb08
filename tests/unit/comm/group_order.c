/* SPDX-License-Identifier: Apache-2.0
 *
 * What needs no device: the order in which communicators are made, and NCCL's results as statuses.
 */
#include "comm/group_internal.h"
#include "tests/test.h"

static void communicators_are_made_in_order_of_id(void) {
    troupe_group a = {.id = 700, .count = 2}, b = {.id = 3, .count = 4}, c = {.id = 20, .count = 1},
                 d = {.id = 21, .count = 2}, e = {.id = 4, .count = 2};
    troupe_group *orders[][6] = {{&a, &b, &c, &d, &e, NULL}, {NULL, &e, &d, &c, &b, &a}};
    for (int k = 0; k < 2; k++) {
        EXPECT_EQ(troupe_groups_order(orders[k], 6), 4); /* neither NULL nor the group of one */
        EXPECT(orders[k][0] == &b && orders[k][1] == &e && orders[k][2] == &d && orders[k][3] == &a,
               "list %d is not in the order 3, 4, 21, 700", k);
    }
    EXPECT_EQ(troupe_groups_order(orders[0], 0), 0);
}

/* Overlapping groups of two: whoever makes its groups in this order waits for nobody in a circle,
 * because the lowest unmade id is next on all of its members. */
static void no_two_ranks_wait_for_each_other(void) {
    enum { RANKS = 6, LIST = RANKS * (RANKS - 1) / 2 };
    uint64_t seed = test_seed();
    int members[LIST][2], count = 0, next[RANKS] = {0};
    troupe_group groups[LIST] = {{0}}, *lists[RANKS][LIST];
    int lengths[RANKS] = {0};
    for (int i = 0; i < RANKS; i++) {
        for (int j = 0; j < i; j++, count++) {
            members[count][0] = i;
            members[count][1] = j;
            groups[count].count = 2;
            groups[count].id = (uint32_t)(count * 37 % LIST); /* 37 and 15 have no common factor */
        }
    }
    for (int r = 0; r < RANKS; r++) { /* each rank's list begins somewhere else */
        for (int k = 0; k < LIST; k++) {
            int g = (int)(((uint64_t)k + seed + (uint64_t)r * 7) % LIST);
            if (members[g][0] == r || members[g][1] == r) {
                lists[r][lengths[r]++] = &groups[g];
            }
        }
        EXPECT_EQ(troupe_groups_order(lists[r], lengths[r]), RANKS - 1);
    }
    int made = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int g = 0; g < LIST; g++) {
            int i = members[g][0], j = members[g][1];
            if (next[i] < lengths[i] && next[j] < lengths[j] && lists[i][next[i]] == &groups[g] &&
                lists[j][next[j]] == &groups[g]) {
                next[i]++;
                next[j]++;
                made++;
                moved = true;
            }
        }
    }
    EXPECT_EQ(made, LIST);
}

static void summary_names_the_engines(void) {
    char text[64];
    troupe_group_engines_summary(text, sizeof text);
    EXPECT(strstr(text, "staged") != NULL, "summary is %s", text);
}

int main(void) {
    TEST(communicators_are_made_in_order_of_id);
    TEST(no_two_ranks_wait_for_each_other);
    TEST(summary_names_the_engines);
    return TEST_END();
}
