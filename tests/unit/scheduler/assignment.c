/* SPDX-License-Identifier: Apache-2.0 */
/* Linear assignment against trying all permutations, and on sizes where that cannot be. */
#include "scheduler/assignment.h"

#include <stdbool.h>

#include "runtime/random.h"
#include "tests/test.h"

enum { SMALL = 7, LARGE = 64 };

static int64_t gain_of(const int64_t *gains, int n, const int *columns) {
    int64_t sum = 0;
    bool used[LARGE] = {false};
    for (int r = 0; r < n; r++) {
        EXPECT(columns[r] >= 0 && columns[r] < n && !used[columns[r]], "row %d has column %d", r,
               columns[r]);
        used[columns[r]] = true;
        sum += gains[r * n + columns[r]];
    }
    return sum;
}

struct best {
    int64_t gain;
    int kept; /* most rows on their own column among the best */
};

/* All ways to give the rows from `row` on the columns that are left in columns[row ..]. */
static void try_all(const int64_t *gains, int n, int row, int *columns, struct best *best) {
    if (row == n) {
        int64_t gain = gain_of(gains, n, columns);
        int kept = 0;
        for (int r = 0; r < n; r++) {
            kept += columns[r] == r;
        }
        if (gain > best->gain || (gain == best->gain && kept > best->kept)) {
            *best = (struct best){gain, kept};
        }
        return;
    }
    for (int i = row; i < n; i++) {
        int held = columns[i];
        columns[i] = columns[row];
        columns[row] = held;
        try_all(gains, n, row + 1, columns, best);
        columns[row] = columns[i];
        columns[i] = held;
    }
}

static void random_gains(uint64_t seed, uint64_t stream, int n, uint64_t below, int64_t *out) {
    for (int i = 0; i < n * n; i++) {
        out[i] = (int64_t)(troupe_random_bits(seed, stream, (uint64_t)i) % below);
    }
}

static void equals_trying_all_permutations(void) {
    static const uint64_t below[] = {2, 4, 10, 1000000000000};
    uint64_t seed = test_seed();
    for (int k = 0; k < 1200; k++) {
        int64_t gains[SMALL * SMALL];
        int columns[SMALL], all[SMALL], kept = 0;
        int n = 1 + k % SMALL;
        random_gains(seed, (uint64_t)k, n, below[k % 4], gains);
        for (int r = 0; r < n; r++) {
            all[r] = r;
        }
        struct best best = {-1, 0};
        try_all(gains, n, 0, all, &best);
        EXPECT_OK(troupe_assign(gains, n, columns));
        for (int r = 0; r < n; r++) {
            kept += columns[r] == r;
        }
        EXPECT(gain_of(gains, n, columns) == best.gain && kept == best.kept,
               "case %d of %d rows: gain %" PRId64 " with %d in place; best is %" PRId64 " with %d",
               k, n, gain_of(gains, n, columns), kept, best.gain, best.kept);
    }
}

static void a_hidden_permutation_is_found(void) {
    static int64_t gains[LARGE * LARGE];
    int columns[LARGE], hidden[LARGE];
    uint64_t seed = test_seed();
    random_gains(seed, 1, LARGE, 100, gains);
    for (int r = 0; r < LARGE; r++) {
        hidden[r] = (r * 37 + 11) % LARGE;
        gains[r * LARGE + hidden[r]] = 100;
    }
    EXPECT_OK(troupe_assign(gains, LARGE, columns));
    for (int r = 0; r < LARGE; r++) {
        EXPECT_EQ(columns[r], hidden[r]);
    }
}

static void rows_stay_where_nothing_is_gained(void) {
    static int64_t gains[LARGE * LARGE];
    int columns[LARGE];
    EXPECT_OK(troupe_assign(gains, LARGE, columns));
    for (int r = 0; r < LARGE; r++) {
        EXPECT_EQ(columns[r], r);
    }
}

int main(void) {
    TEST(equals_trying_all_permutations);
    TEST(a_hidden_permutation_is_found);
    TEST(rows_stay_where_nothing_is_gained);
    return TEST_END();
}
