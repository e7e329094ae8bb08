/* SPDX-License-Identifier: Apache-2.0
 *
 * Exact counts: what boundaries of known layouts must move, in fractions of a tensor of 768 rows.
 */
#include "comm/route.h"
#include "runtime/check.h"
#include "tests/test.h"

enum { ROWS = 768, RANKS_MAX = 256, PARTS_MAX = 512 };

/* SP: the language model's rows are split over tp too. */
enum sequence { WHOLE, SP };

struct boundary {
    const char *name;
    int source[2];      /* tp, dp; ranks from 0 */
    int destination[3]; /* tp, cp, dp; the first of its stages */
    int first;          /* its first rank; if not 0, on hosts of its own */
    bool zigzag;
    enum sequence sequence;
    int64_t received; /* rows, over all ranks */
    int64_t largest;  /* rows that the busiest holder sends, each into a host once; -1: not said */
};

#define N(numerator, denominator) (ROWS * (numerator) / (denominator))

static const struct boundary colocated[] = {
    {"DP8 -> DP2 TP4, SP", {1, 8}, {4, 1, 2}, 0, false, SP, 0, 0},
    {"DP8 -> DP2 TP4", {1, 8}, {4, 1, 2}, 0, false, WHOLE, 3 * ROWS, -1},
    {"DP8 -> TP8, SP", {1, 8}, {8, 1, 1}, 0, false, SP, 0, 0},
    {"DP8 -> TP8", {1, 8}, {8, 1, 1}, 0, false, WHOLE, 7 * ROWS, -1},
    {"DP8 -> CP2 TP4, SP", {1, 8}, {4, 2, 1}, 0, false, SP, 0, 0},
    {"DP8 -> CP2 TP4", {1, 8}, {4, 2, 1}, 0, false, WHOLE, 3 * ROWS, -1},
    {"DP8 -> CP2 TP4 zig-zag, SP", {1, 8}, {4, 2, 1}, 0, true, SP, N(3, 4), N(1, 8)},
    {"DP8 -> CP2 TP4 zig-zag", {1, 8}, {4, 2, 1}, 0, true, WHOLE, N(7, 2), -1},
    {"DP8 -> DP2 CP2 TP2 zig-zag, SP", {1, 8}, {2, 2, 2}, 0, true, SP, N(3, 4), N(1, 8)},
    {"DP8 -> DP2 CP2 TP2 zig-zag", {1, 8}, {2, 2, 2}, 0, true, WHOLE, N(3, 2), -1},
    {"DP4 TP2 -> TP8, SP", {2, 4}, {8, 1, 1}, 0, false, SP, 0, 0},
    {"DP4 TP2 -> TP8", {2, 4}, {8, 1, 1}, 0, false, WHOLE, 6 * ROWS, -1},
    {"DP6 -> DP4", {1, 6}, {1, 1, 4}, 0, false, WHOLE, N(3, 4), N(1, 6)},
    {"DP6 -> DP3 TP2, SP", {1, 6}, {2, 1, 3}, 0, false, SP, 0, 0},
    {"DP6 -> DP2 TP3, SP", {1, 6}, {3, 1, 2}, 0, false, SP, 0, 0},
    {"DP32 -> DP2 CP8 TP2 zig-zag, SP", {1, 32}, {2, 8, 2}, 0, true, SP, N(15, 16), N(1, 32)},
    {"DP64 -> DP2 CP8 TP4 zig-zag, SP", {1, 64}, {4, 8, 2}, 0, true, SP, N(15, 16), N(1, 64)},
};

/* Only the first of the language model's stages needs anything; the encoder is on all ranks. */
static const struct boundary pipelines[] = {
    {"8 ranks, TP4 PP2", {1, 8}, {4, 1, 1}, 0, false, SP, N(7, 8), N(1, 8)},
    {"8 ranks, TP2 PP4", {1, 8}, {2, 1, 1}, 0, false, SP, N(7, 8), N(1, 8)},
    {"16 ranks, CP2 TP4 PP2", {1, 16}, {4, 2, 1}, 0, false, SP, N(15, 16), N(1, 16)},
    {"256 ranks, DP16 TP8 PP2", {1, 256}, {8, 1, 16}, 0, false, SP, N(255, 256), N(1, 256)},
    {"256 ranks, DP8 TP8 PP4", {1, 256}, {8, 1, 8}, 0, false, SP, N(255, 256), N(1, 256)},
};

static const struct boundary disjoint[] = {
    {"DP2 -> TP8, SP", {1, 2}, {8, 1, 1}, 2, false, SP, ROWS, N(1, 2)},
    {"DP2 -> TP8", {1, 2}, {8, 1, 1}, 2, false, WHOLE, 8 * ROWS, N(1, 2)},
    {"DP2 TP2 -> DP2 TP4, SP", {2, 2}, {4, 1, 2}, 4, false, SP, ROWS, N(1, 4)},
    {"DP2 TP2 -> DP2 TP4", {2, 2}, {4, 1, 2}, 4, false, WHOLE, 4 * ROWS, N(1, 4)},
    {"DP4 -> TP8, SP", {1, 4}, {8, 1, 1}, 4, false, SP, ROWS, N(1, 4)},
    {"DP4 -> TP8", {1, 4}, {8, 1, 1}, 4, false, WHOLE, 8 * ROWS, N(1, 4)},
    {"DP3 -> DP2 TP4, SP", {1, 3}, {4, 1, 2}, 3, false, SP, ROWS, N(1, 3)},
    {"DP3 -> DP2 TP4", {1, 3}, {4, 1, 2}, 3, false, WHOLE, 4 * ROWS, N(1, 3)},
    {"TP4 -> TP8, SP", {4, 1}, {8, 1, 1}, 4, false, SP, ROWS, N(1, 4)},
    {"TP4 -> TP8", {4, 1}, {8, 1, 1}, 4, false, WHOLE, 8 * ROWS, N(1, 4)},
    {"DP8 -> DP4 CP2 TP4, SP", {1, 8}, {4, 2, 4}, 8, true, SP, ROWS, N(1, 8)},
    {"DP8 -> DP4 CP2 TP4", {1, 8}, {4, 2, 4}, 8, true, WHOLE, 4 * ROWS, N(1, 8)},
};

static void make_layout(int first, int tp, int cp, int dp, bool zigzag, enum sequence sequence,
                        struct troupe_layout *out, int64_t *offsets) {
    int ranks[RANKS_MAX];
    int64_t sequences[RANKS_MAX + 1];
    struct troupe_mesh mesh;
    for (int i = 0; i < tp * cp * dp; i++) {
        ranks[i] = first + i;
    }
    EXPECT_OK(troupe_mesh_init(
        &(struct troupe_mesh_options){
            .ranks = ranks, .rank_count = tp * cp * dp, .tp = tp, .cp = cp, .dp = dp},
        &mesh));
    struct troupe_layout_options options = {
        .mesh = &mesh, .shape = {0, 1}, .zigzag = zigzag, .ragged = true};
    options.split[0] = TROUPE_AXES(TROUPE_DP, TROUPE_CP, TROUPE_TP);
    options.split[0].count = sequence == SP ? 3 : 2;
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

static void expect_boundary(const struct boundary *b) {
    struct troupe_layout layouts[2];
    int64_t offsets[2][PARTS_MAX + 1], received, largest, imported;
    int hosts[2 * RANKS_MAX];
    for (int r = 0; r < 2 * RANKS_MAX; r++) {
        hosts[r] = b->first > 0 && r >= b->first;
    }
    make_layout(0, b->source[0], 1, b->source[1], false, WHOLE, &layouts[0], offsets[0]);
    make_layout(b->first, b->destination[0], b->destination[1], b->destination[2], b->zigzag,
                b->sequence, &layouts[1], offsets[1]);
    for (int backward = 0; backward < 2; backward++) {
        troupe_route *route = NULL;
        EXPECT_OK(
            troupe_route_compile(&(struct troupe_route_options){.source = &layouts[backward],
                                                                .destination = &layouts[!backward],
                                                                .host_of_rank = hosts,
                                                                .element_bytes = 1},
                                 &route));
        count(route, offsets[backward], offsets[!backward], hosts, &received, &largest, &imported);
        troupe_route_destroy(route);
        if (!backward) {
            EXPECT(received == b->received, "%s: %d rows received, expected %d", b->name,
                   (int)received, (int)b->received);
            EXPECT(b->largest < 0 || largest == b->largest, "%s: %d rows sent, expected %d",
                   b->name, (int)largest, (int)b->largest);
        }
        EXPECT(imported == (b->first > 0 ? ROWS : 0), "%s: %d rows cross the hosts", b->name,
               (int)imported);
    }
    troupe_layout_fini(&layouts[0]);
    troupe_layout_fini(&layouts[1]);
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
