/* SPDX-License-Identifier: Apache-2.0
 *
 * Exact counts: what boundaries of known layouts must move, in fractions of a tensor of 768 rows;
 * in the given order, and where the encoder's shards may change places, by linear assignment; and
 * what two usual methods move. *Slice*: the rows of a data-parallel shard of the language model are
 * gathered on all of its ranks, which slice them. *Leader*: they are gathered on one of its ranks,
 * which broadcasts them to the others. Both have the encoder's shards in the best places.
 */
#include "comm/route.h"
#include "runtime/check.h"
#include "tests/test.h"

enum { ROWS = 768, RANKS_MAX = 256, PARTS_MAX = 512 };

/* SP: the language model's rows are split over tp too. */
enum sequence { WHOLE, SP };

/* Rows are sums over all ranks; -1: not said. */
struct boundary {
    const char *name;
    int source[2];      /* tp, dp; ranks from 0 */
    int destination[3]; /* tp, cp, dp; the first of its stages */
    int first;          /* its first rank; if not 0, on hosts of its own */
    bool zigzag;
    enum sequence sequence;
    int64_t received;
    int64_t largest; /* that the busiest holder sends, each into a host once */
    int64_t relabelled;
    int64_t slice, leader;
};

#define N(numerator, denominator) (ROWS * (numerator) / (denominator))

static const struct boundary colocated[] = {
    {"DP8 -> DP2 TP4, SP", {1, 8}, {4, 1, 2}, 0, false, SP, 0, 0, 0, N(3, 1), -1},
    {"DP8 -> DP2 TP4", {1, 8}, {4, 1, 2}, 0, false, WHOLE, N(3, 1), -1, N(3, 1), N(3, 1), -1},
    {"DP8 -> TP8, SP", {1, 8}, {8, 1, 1}, 0, false, SP, 0, 0, 0, N(7, 1), -1},
    {"DP8 -> TP8", {1, 8}, {8, 1, 1}, 0, false, WHOLE, N(7, 1), -1, N(7, 1), N(7, 1), -1},
    {"DP8 -> CP2 TP4, SP", {1, 8}, {4, 2, 1}, 0, false, SP, 0, 0, 0, N(7, 1), -1},
    {"DP8 -> CP2 TP4", {1, 8}, {4, 2, 1}, 0, false, WHOLE, N(3, 1), -1, N(3, 1), N(7, 1), -1},
    {"DP8 -> CP2 TP4 zig-zag, SP",
     {1, 8},
     {4, 2, 1},
     0,
     true,
     SP,
     N(3, 4),
     N(1, 8),
     0,
     N(7, 1),
     -1},
    {"DP8 -> CP2 TP4 zig-zag",
     {1, 8},
     {4, 2, 1},
     0,
     true,
     WHOLE,
     N(7, 2),
     -1,
     N(3, 1),
     N(7, 1),
     -1},
    {"DP8 -> DP2 CP2 TP2 zig-zag, SP",
     {1, 8},
     {2, 2, 2},
     0,
     true,
     SP,
     N(3, 4),
     N(1, 8),
     0,
     N(3, 1),
     -1},
    {"DP8 -> DP2 CP2 TP2 zig-zag",
     {1, 8},
     {2, 2, 2},
     0,
     true,
     WHOLE,
     N(3, 2),
     -1,
     N(1, 1),
     N(3, 1),
     -1},
    {"DP4 TP2 -> TP8, SP", {2, 4}, {8, 1, 1}, 0, false, SP, 0, 0, 0, N(6, 1), -1},
    {"DP4 TP2 -> TP8", {2, 4}, {8, 1, 1}, 0, false, WHOLE, N(6, 1), -1, N(6, 1), N(6, 1), -1},
    {"DP6 -> DP4", {1, 6}, {1, 1, 4}, 0, false, WHOLE, N(3, 4), N(1, 6), N(1, 3), -1, -1},
    {"DP6 -> DP3 TP2, SP", {1, 6}, {2, 1, 3}, 0, false, SP, 0, 0, 0, N(1, 1), -1},
    {"DP6 -> DP2 TP3, SP", {1, 6}, {3, 1, 2}, 0, false, SP, 0, 0, 0, N(2, 1), -1},
    {"DP32 -> DP2 CP8 TP2 zig-zag, SP",
     {1, 32},
     {2, 8, 2},
     0,
     true,
     SP,
     N(15, 16),
     N(1, 32),
     0,
     N(15, 1),
     -1},
    {"DP64 -> DP2 CP8 TP4 zig-zag, SP",
     {1, 64},
     {4, 8, 2},
     0,
     true,
     SP,
     N(15, 16),
     N(1, 64),
     0,
     N(31, 1),
     -1},
};

/* Only the first of the language model's stages needs anything; the encoder is on all ranks. */
static const struct boundary pipelines[] = {
    {"8 ranks, TP4 PP2",
     {1, 8},
     {4, 1, 1},
     0,
     false,
     SP,
     N(7, 8),
     N(1, 8),
     N(1, 2),
     N(7, 2),
     N(31, 8)},
    {"8 ranks, TP2 PP4",
     {1, 8},
     {2, 1, 1},
     0,
     false,
     SP,
     N(7, 8),
     N(1, 8),
     N(3, 4),
     N(7, 4),
     N(15, 8)},
    {"16 ranks, CP2 TP4 PP2",
     {1, 16},
     {4, 2, 1},
     0,
     false,
     SP,
     N(15, 16),
     N(1, 16),
     N(1, 2),
     N(15, 2),
     N(127, 16)},
    {"256 ranks, DP16 TP8 PP2",
     {1, 256},
     {8, 1, 16},
     0,
     false,
     SP,
     N(255, 256),
     N(1, 256),
     N(1, 2),
     N(15, 2),
     N(127, 16)},
    {"256 ranks, DP8 TP8 PP4",
     {1, 256},
     {8, 1, 8},
     0,
     false,
     SP,
     N(255, 256),
     N(1, 256),
     N(3, 4),
     N(31, 4),
     N(255, 32)},
};

static const struct boundary disjoint[] = {
    {"DP2 -> TP8, SP", {1, 2}, {8, 1, 1}, 2, false, SP, ROWS, N(1, 2), ROWS, -1, N(8, 1)},
    {"DP2 -> TP8", {1, 2}, {8, 1, 1}, 2, false, WHOLE, N(8, 1), N(1, 2), N(8, 1), -1, N(8, 1)},
    {"DP2 TP2 -> DP2 TP4, SP", {2, 2}, {4, 1, 2}, 4, false, SP, ROWS, N(1, 4), ROWS, -1, N(4, 1)},
    {"DP2 TP2 -> DP2 TP4",
     {2, 2},
     {4, 1, 2},
     4,
     false,
     WHOLE,
     N(4, 1),
     N(1, 4),
     N(4, 1),
     -1,
     N(4, 1)},
    {"DP4 -> TP8, SP", {1, 4}, {8, 1, 1}, 4, false, SP, ROWS, N(1, 4), ROWS, -1, N(8, 1)},
    {"DP4 -> TP8", {1, 4}, {8, 1, 1}, 4, false, WHOLE, N(8, 1), N(1, 4), N(8, 1), -1, N(8, 1)},
    {"DP3 -> DP2 TP4, SP", {1, 3}, {4, 1, 2}, 3, false, SP, ROWS, N(1, 3), ROWS, -1, -1},
    {"DP3 -> DP2 TP4", {1, 3}, {4, 1, 2}, 3, false, WHOLE, N(4, 1), N(1, 3), N(4, 1), -1, -1},
    {"TP4 -> TP8, SP", {4, 1}, {8, 1, 1}, 4, false, SP, ROWS, N(1, 4), ROWS, -1, N(8, 1)},
    {"TP4 -> TP8", {4, 1}, {8, 1, 1}, 4, false, WHOLE, N(8, 1), N(1, 4), N(8, 1), -1, N(8, 1)},
    {"DP8 -> DP4 CP2 TP4, SP", {1, 8}, {4, 2, 4}, 8, true, SP, ROWS, N(1, 8), ROWS, -1, N(8, 1)},
    {"DP8 -> DP4 CP2 TP4",
     {1, 8},
     {4, 2, 4},
     8,
     true,
     WHOLE,
     N(4, 1),
     N(1, 8),
     N(4, 1),
     -1,
     N(8, 1)},
};

enum split { OVER_DP, OVER_CP, OVER_TP }; /* how far the rows are split */

static void make_layout(const int *ranks, const int sizes[3], bool zigzag, enum split split,
                        struct troupe_layout *out, int64_t *offsets) {
    int tp = sizes[0], cp = sizes[1], dp = sizes[2];
    int64_t sequences[RANKS_MAX + 1];
    struct troupe_mesh mesh;
    EXPECT_OK(troupe_mesh_init(
        &(struct troupe_mesh_options){
            .ranks = ranks, .rank_count = tp * cp * dp, .tp = tp, .cp = cp, .dp = dp},
        &mesh));
    struct troupe_layout_options options = {
        .mesh = &mesh, .shape = {0, 1}, .zigzag = zigzag, .ragged = true};
    options.split[0] = TROUPE_AXES(TROUPE_DP, TROUPE_CP, TROUPE_TP);
    options.split[0].count = 1 + (int)split;
    options.zigzag = zigzag && split > OVER_DP;
    EXPECT_OK(troupe_layout_init(&options, out));
    for (int i = 0; i <= dp; i++) {
        sequences[i] = troupe_split_begin(ROWS, dp, i);
    }
    troupe_layout_row_offsets(out, sequences, offsets);
    troupe_mesh_fini(&mesh);
}

/* Rows received, and rows that the busiest holder sends, of one direction. */
static void count(const troupe_route *route, const int64_t *from, const int64_t *to,
                  const int *hosts, int64_t *received, int64_t *largest, int64_t *imported) {
    *received = *largest = *imported = 0;
    EXPECT_OK(troupe_route_check(route, from, to));
    for (int i = 0; i < troupe_route_rank_count(route); i++) {
        struct troupe_route_binding *binding = NULL;
        EXPECT_OK(troupe_route_binding_create(route, troupe_route_rank(route, i), &binding));
        EXPECT_OK(troupe_route_bind(binding, from, to));
        struct troupe_route_bytes bytes = troupe_route_binding_bytes(binding);
        *received += (int64_t)bytes.received;
        *largest = (int64_t)bytes.sent > *largest ? (int64_t)bytes.sent : *largest;
        for (int m = 0; m < binding->receive_count; m++) {
            bool far = hosts[binding->receives[m].peer] != hosts[binding->rank];
            *imported += far ? (int64_t)binding->receives[m].bytes : 0;
        }
        troupe_route_binding_destroy(binding);
    }
}

/* Both sides of a boundary; the encoder's shards, by their number, on the ranks given. */
struct sides {
    struct troupe_layout layouts[2];
    int64_t offsets[2][PARTS_MAX + 1];
};

static void make_sides(const struct boundary *b, const int *encoder_ranks, enum split split,
                       struct sides *out) {
    const int source[3] = {b->source[0], 1, b->source[1]};
    int ranks[RANKS_MAX];
    for (int i = 0; i < RANKS_MAX; i++) {
        ranks[i] = b->first + i;
    }
    make_layout(encoder_ranks, source, false, OVER_DP, &out->layouts[0], out->offsets[0]);
    make_layout(ranks, b->destination, b->zigzag, split, &out->layouts[1], out->offsets[1]);
}

static void free_sides(struct sides *sides) {
    troupe_layout_fini(&sides->layouts[0]);
    troupe_layout_fini(&sides->layouts[1]);
}

static enum split split_of(const struct boundary *b) {
    return b->sequence == SP ? OVER_TP : OVER_CP;
}

static void in_order(int ranks_out[RANKS_MAX]) {
    for (int i = 0; i < RANKS_MAX; i++) {
        ranks_out[i] = i;
    }
}

/* ---- relabelling ---- */

/* The assignment of rows to columns with the largest sum: shortest augmenting paths (Jonker and
 * Volgenant, 1987). column_out: by row. */
static void assign(int count, const int64_t *gains, int *column_out) {
    static int64_t u[RANKS_MAX + 1], v[RANKS_MAX + 1], least[RANKS_MAX + 1];
    static int row_of[RANKS_MAX + 1], way[RANKS_MAX + 1];
    static bool used[RANKS_MAX + 1];
    memset(u, 0, sizeof u);
    memset(v, 0, sizeof v);
    memset(row_of, 0, sizeof row_of);
    for (int row = 1; row <= count; row++) {
        int column = 0;
        row_of[0] = row;
        for (int j = 0; j <= count; j++) {
            least[j] = INT64_MAX;
            used[j] = false;
        }
        do {
            int64_t delta = INT64_MAX;
            int i = row_of[column], next = 0;
            used[column] = true;
            for (int j = 1; j <= count; j++) {
                int64_t cost = -gains[(i - 1) * count + j - 1] - u[i] - v[j];
                if (!used[j] && cost < least[j]) {
                    least[j] = cost;
                    way[j] = column;
                }
                if (!used[j] && least[j] < delta) {
                    delta = least[j];
                    next = j;
                }
            }
            for (int j = 0; j <= count; j++) {
                u[row_of[j]] += used[j] ? delta : 0;
                v[j] -= used[j] ? delta : 0;
                least[j] -= used[j] ? 0 : delta;
            }
            column = next;
        } while (row_of[column] != 0);
        for (; column != 0; column = way[column]) {
            row_of[column] = row_of[way[column]];
        }
    }
    for (int j = 1; j <= count; j++) {
        column_out[row_of[j] - 1] = j - 1;
    }
}

/* Rows of the encoder's rank `role` that rank `rank` needs. */
static int64_t common_rows(const struct sides *sides, int role, int rank) {
    int64_t rows = 0;
    for (int i = 0; i < sides->layouts[0].piece_count; i++) {
        const struct troupe_layout_piece *have = &sides->layouts[0].pieces[i];
        for (int j = 0; have->rank == role && j < sides->layouts[1].piece_count; j++) {
            const struct troupe_layout_piece *need = &sides->layouts[1].pieces[j];
            int64_t begin = sides->offsets[0][have->part], end = sides->offsets[0][have->part + 1];
            int64_t need_begin = sides->offsets[1][need->part];
            int64_t need_end = sides->offsets[1][need->part + 1];
            begin = need_begin > begin ? need_begin : begin;
            end = need_end < end ? need_end : end;
            rows += need->rank == rank && end > begin ? end - begin : 0;
        }
    }
    return rows;
}

/* Where the encoder's shards lie best. */
static void relabel(const struct boundary *b, int ranks_out[RANKS_MAX]) {
    static int64_t gains[RANKS_MAX * RANKS_MAX];
    int count = b->source[0] * b->source[1];
    struct sides sides;
    in_order(ranks_out);
    make_sides(b, ranks_out, split_of(b), &sides);
    for (int role = 0; role < count; role++) {
        for (int rank = 0; rank < count; rank++) {
            gains[role * count + rank] = common_rows(&sides, role, rank);
        }
    }
    free_sides(&sides);
    assign(count, gains, ranks_out);
}

/* ---- the usual methods ---- */

/* The language model's data-parallel shards, gathered on all of their ranks; or on the first of
 * each, and from there to the others. */
static int64_t count_usual(const struct boundary *b, const int *encoder_ranks, bool by_leader) {
    struct sides sides;
    struct troupe_layout have, need;
    int group = b->destination[0] * b->destination[1];
    int64_t rows = 0;
    make_sides(b, encoder_ranks, OVER_DP, &sides);
    EXPECT_OK(troupe_layout_bind(&sides.layouts[0], sides.offsets[0], &have));
    EXPECT_OK(troupe_layout_bind(&sides.layouts[1], sides.offsets[1], &need));
    for (int i = 0; i < group * b->destination[2]; i++) {
        rows += by_leader && i % group > 0 ? troupe_layout_held(&need, b->first + i)
                                           : troupe_layout_lacking(&have, &need, b->first + i);
    }
    troupe_layout_fini(&have);
    troupe_layout_fini(&need);
    free_sides(&sides);
    return rows;
}

/* ---- the tables ---- */

static void expect_rows(const struct boundary *b, const char *what, int64_t rows,
                        int64_t expected) {
    EXPECT(expected < 0 || rows == expected, "%s: %d rows %s, expected %d", b->name, (int)rows,
           what, (int)expected);
}

/* Rows received of the compiled route, both ways; backward all rows return to one holder each. */
static int64_t run(const struct boundary *b, const int *encoder_ranks, int64_t *largest_out) {
    struct sides sides;
    int64_t received[2], largest[2], imported;
    int hosts[2 * RANKS_MAX];
    for (int r = 0; r < 2 * RANKS_MAX; r++) {
        hosts[r] = b->first > 0 && r >= b->first;
    }
    make_sides(b, encoder_ranks, split_of(b), &sides);
    for (int backward = 0; backward < 2; backward++) {
        troupe_route *route = NULL;
        EXPECT_OK(troupe_route_compile(
            &(struct troupe_route_options){.source = &sides.layouts[backward],
                                           .destination = &sides.layouts[!backward],
                                           .host_of_rank = hosts,
                                           .element_bytes = 1},
            &route));
        count(route, sides.offsets[backward], sides.offsets[!backward], hosts, &received[backward],
              &largest[backward], &imported);
        troupe_route_destroy(route);
        EXPECT(imported == (b->first > 0 ? ROWS : 0), "%s: %d rows cross the hosts", b->name,
               (int)imported);
    }
    free_sides(&sides);
    *largest_out = largest[0];
    return received[0];
}

static void expect_boundary(const struct boundary *b) {
    int ranks[RANKS_MAX];
    int64_t largest;
    in_order(ranks);
    expect_rows(b, "received", run(b, ranks, &largest), b->received);
    expect_rows(b, "sent", largest, b->largest);
    relabel(b, ranks);
    expect_rows(b, "received after relabelling", run(b, ranks, &largest), b->relabelled);
    if (b->slice >= 0) {
        expect_rows(b, "received for slices", count_usual(b, ranks, false), b->slice);
    }
    if (b->leader >= 0) {
        expect_rows(b, "received by way of leaders", count_usual(b, ranks, true), b->leader);
    }
}

static void colocated_boundaries_receive_the_bound(void) {
    for (size_t i = 0; i < TROUPE_COUNT_OF(colocated); i++) {
        expect_boundary(&colocated[i]);
    }
}

static void first_stages_of_pipelines_receive_the_bound(void) {
    for (size_t i = 0; i < TROUPE_COUNT_OF(pipelines); i++) {
        expect_boundary(&pipelines[i]);
    }
}

static void disjoint_boundaries_cross_the_hosts_once(void) {
    for (size_t i = 0; i < TROUPE_COUNT_OF(disjoint); i++) {
        expect_boundary(&disjoint[i]);
    }
}

int main(void) {
    TEST(colocated_boundaries_receive_the_bound);
    TEST(first_stages_of_pipelines_receive_the_bound);
    TEST(disjoint_boundaries_cross_the_hosts_once);
    return TEST_END();
}
