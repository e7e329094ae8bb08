/* SPDX-License-Identifier: Apache-2.0
 *
 * Routes that a person can follow: tables of bytes, the reference's cases, refusals, packing.
 * Random ones are in route_random.c.
 */
#include "comm/route.h"

#include "runtime/check.h"
#include "runtime/memory.h"
#include "runtime/random.h"
#include "tests/test.h"

enum { RANKS_MAX = 24, ROWS_MAX = 64, COLUMNS_MAX = 12, PARTS_MAX = 24, SPLITS_MAX = 12 };

/* ---- a ragged pair of layouts ---- */

struct pair {
    struct troupe_mesh mesh[2]; /* source, destination */
    struct troupe_layout ragged[2];
    struct troupe_layout bound[2];
    int64_t offsets[2][PARTS_MAX + 1];
    int hosts[RANKS_MAX];
    int64_t rows, columns;
    troupe_route *route;
    int count; /* of bindings: the ranks of both */
    struct troupe_route_binding *bindings[RANKS_MAX];
};

static void init_mesh(struct troupe_mesh *mesh, const int *ranks, int tp, int dp, int pp) {
    EXPECT_OK(troupe_mesh_init(
        &(struct troupe_mesh_options){
            .ranks = ranks, .rank_count = tp * dp * pp, .tp = tp, .dp = dp, .pp = pp},
        mesh));
}

/* The ragged layout of one side's mesh. */
static void init_side(struct pair *p, int s, struct troupe_axes rows, struct troupe_axes columns,
                      const int64_t *column_offsets) {
    EXPECT_OK(troupe_layout_init(
        &(struct troupe_layout_options){.mesh = &p->mesh[s],
                                        .stage = s == 0 ? p->mesh[s].size[TROUPE_PP] - 1 : 0,
                                        .shape = {0, p->columns},
                                        .split = {rows, columns},
                                        .offsets = {NULL, column_offsets},
                                        .ragged = true},
        &p->ragged[s]));
}

static void compile_pair(struct pair *p) {
    EXPECT_OK(troupe_route_compile(&(struct troupe_route_options){.source = &p->ragged[0],
                                                                  .destination = &p->ragged[1],
                                                                  .host_of_rank = p->hosts,
                                                                  .element_bytes = 4},
                                   &p->route));
    p->count = troupe_route_rank_count(p->route);
    for (int i = 0; i < p->count; i++) {
        EXPECT_OK(
            troupe_route_binding_create(p->route, troupe_route_rank(p->route, i), &p->bindings[i]));
    }
}

/* Rows over dp, copies on tp, on both sides. */
static void compile_boundary(struct pair *p) {
    for (int s = 0; s < 2; s++) {
        init_side(p, s, TROUPE_AXES(TROUPE_DP), (struct troupe_axes){0}, NULL);
    }
    compile_pair(p);
}

static void bind_pair(struct pair *p) {
    troupe_memory_set_steady(true); /* an allocation would abort */
    for (int i = 0; i < p->count; i++) {
        EXPECT_OK(troupe_route_bind(p->bindings[i], p->offsets[0], p->offsets[1]));
    }
    troupe_memory_set_steady(false);
    for (int s = 0; s < 2; s++) {
        EXPECT_OK(troupe_layout_bind(&p->ragged[s], p->offsets[s], &p->bound[s]));
    }
}

static void fini_pair(struct pair *p) {
    for (int i = 0; i < p->count; i++) {
        troupe_route_binding_destroy(p->bindings[i]);
    }
    troupe_route_destroy(p->route);
    for (int s = 0; s < 2; s++) {
        troupe_layout_fini(&p->ragged[s]);
        troupe_layout_fini(&p->bound[s]);
        troupe_mesh_fini(&p->mesh[s]);
    }
}

static void even_offsets(int64_t rows, int parts, int64_t *offsets) {
    for (int i = 0; i <= parts; i++) {
        offsets[i] = troupe_split_begin(rows, parts, i);
    }
}

static const struct troupe_route_binding *binding_of(const struct pair *p, int rank) {
    for (int i = 0; i < p->count; i++) {
        if (p->bindings[i]->rank == rank) {
            return p->bindings[i];
        }
    }
    TEST_FAIL("rank %d has no binding", rank);
}

static struct troupe_route_bytes bytes_of(const struct pair *p, int rank) {
    return troupe_route_binding_bytes(binding_of(p, rank));
}

static const struct troupe_route_message *receive_from(const struct troupe_route_binding *b,
                                                       int peer) {
    for (int i = 0; i < b->receive_count; i++) {
        if (b->receives[i].peer == peer) {
            return &b->receives[i];
        }
    }
    TEST_FAIL("rank %d expects nothing from rank %d", b->rank, peer);
}

static void expect_check(const struct pair *p) {
    EXPECT_OK(
        troupe_route_check_bindings(&p->bound[0], &p->bound[1], p->hosts, p->bindings, p->count));
    EXPECT_OK(troupe_route_check(p->route, p->offsets[0], p->offsets[1]));
}

/* ---- tables: bytes against theory.md, in units of one tensor ---- */

/* A boundary of 48 rows x 1 column of one byte units; ranks first, first + 1, ... */
static void even_pair(struct pair *p, const int source[3], const int destination[3],
                      bool sequence) {
    const int *size[2] = {source, destination}; /* first rank, tp, dp */
    int ranks[RANKS_MAX];
    *p = (struct pair){.rows = 48, .columns = 1};
    for (int s = 0; s < 2; s++) {
        for (int i = 0; i < RANKS_MAX; i++) {
            ranks[i] = size[s][0] + i;
        }
        init_mesh(&p->mesh[s], ranks, size[s][1], size[s][2], 1);
    }
    for (int r = 0; r < RANKS_MAX; r++) { /* disjoint ranks are on hosts of their own */
        p->hosts[r] = destination[0] > 0 && r >= destination[0];
    }
    init_side(p, 0, TROUPE_AXES(TROUPE_DP), (struct troupe_axes){0}, NULL);
    init_side(p, 1, sequence ? TROUPE_AXES(TROUPE_DP, TROUPE_TP) : TROUPE_AXES(TROUPE_DP),
              (struct troupe_axes){0}, NULL);
    compile_pair(p);
    for (int s = 0; s < 2; s++) {
        even_offsets(p->rows, p->ragged[s].part_count, p->offsets[s]);
    }
    bind_pair(p);
}

/* Rows, not bytes: over all ranks, and of the busiest holder. */
static void expect_rows(const int source[3], const int destination[3], bool sequence, int64_t total,
                        int64_t busiest) {
    struct pair p;
    even_pair(&p, source, destination, sequence);
    expect_check(&p);
    size_t received = 0, most = 0;
    for (int i = 0; i < p.count; i++) {
        struct troupe_route_bytes bytes = troupe_route_binding_bytes(p.bindings[i]);
        received += bytes.received;
        most = bytes.sent > most ? bytes.sent : most;
    }
    EXPECT_EQ(received, 4 * total);
    EXPECT_EQ(most, 4 * busiest);
    fini_pair(&p);
}

static void colocated_transforms_meet_the_lower_bounds(void) {
    /* {first rank, tp, dp} -> {...}, sequence sharded?, rows in all, rows of the busiest sender */
    expect_rows((int[]){0, 1, 8}, (int[]){0, 4, 2}, true, 0, 0);
    expect_rows((int[]){0, 1, 8}, (int[]){0, 4, 2}, false, 3 * 48, 18);
    expect_rows((int[]){0, 1, 8}, (int[]){0, 8, 1}, true, 0, 0);
    expect_rows((int[]){0, 1, 8}, (int[]){0, 8, 1}, false, 7 * 48, 42);
    expect_rows((int[]){0, 2, 4}, (int[]){0, 8, 1}, true, 0, 0);
    expect_rows((int[]){0, 2, 4}, (int[]){0, 8, 1}, false, 6 * 48, 36);
    expect_rows((int[]){0, 1, 6}, (int[]){0, 1, 4}, false, 48 * 3 / 4, 8);
    expect_rows((int[]){0, 1, 6}, (int[]){0, 3, 2}, false, 2 * 48, 16);
    expect_rows((int[]){0, 1, 6}, (int[]){0, 2, 3}, true, 0, 0);
}

static void disjoint_transforms_meet_the_lower_bounds(void) {
    expect_rows((int[]){0, 1, 2}, (int[]){2, 8, 1}, true, 48, 24);
    expect_rows((int[]){0, 1, 2}, (int[]){2, 8, 1}, false, 8 * 48, 24);
    expect_rows((int[]){0, 2, 2}, (int[]){4, 4, 2}, true, 48, 12);
    expect_rows((int[]){0, 2, 2}, (int[]){4, 4, 2}, false, 4 * 48, 12);
    expect_rows((int[]){0, 1, 4}, (int[]){4, 8, 1}, true, 48, 12);
    expect_rows((int[]){0, 1, 4}, (int[]){4, 8, 1}, false, 8 * 48, 12);
    expect_rows((int[]){0, 1, 3}, (int[]){3, 4, 2}, true, 48, 16);
    expect_rows((int[]){0, 1, 3}, (int[]){3, 4, 2}, false, 4 * 48, 16);
    expect_rows((int[]){0, 4, 1}, (int[]){4, 8, 1}, true, 48, 12);
    expect_rows((int[]){0, 4, 1}, (int[]){4, 8, 1}, false, 8 * 48, 12);
}

static int greatest_divisor(int a, int b) {
    return b == 0 ? a : greatest_divisor(b, a % b);
}

/* Two contiguous even splits overlap in S + D - gcd(S, D) intervals: that many messages (LB5), or
 * fewer where parts have no rows or fall together because rows are whole. */
static void message_counts_are_minimal(void) {
    for (int s = 1; s <= SPLITS_MAX; s++) {
        for (int d = 1; d <= SPLITS_MAX; d++) {
            struct pair p;
            even_pair(&p, (int[]){0, 1, s}, (int[]){s, 1, d}, false);
            int messages = 0, least = s + d - greatest_divisor(s, d);
            for (int b = 0; b < p.count; b++) {
                messages += p.bindings[b]->send_count;
            }
            if (48 % s == 0 && 48 % d == 0) {
                EXPECT_EQ(messages, least);
            } else {
                EXPECT(messages <= least, "%d messages from %d to %d", messages, s, d);
            }
            fini_pair(&p);
        }
    }
}

/* ---- the reference's tables ---- */

static void expect_interval(const struct pair *p, int rank, int64_t begin, int64_t end) {
    const struct troupe_route_binding *b = binding_of(p, rank);
    int64_t first = end, last = begin;
    for (int m = 0; m <= b->receive_count; m++) {
        const struct troupe_route_message *in = m < b->receive_count ? &b->receives[m] : &b->kept;
        if (in->elements > 0) {
            first = in->row_begin < first ? in->row_begin : first;
            last = in->row_begin + in->row_count > last ? in->row_begin + in->row_count : last;
        }
    }
    EXPECT_EQ(first, begin);
    EXPECT_EQ(last, end);
}

/* TP2 DP4 -> TP4 DP2 on eight ranks: each rank has its own rows and gets those of its sibling slot,
 * rank r + 2 or r - 2; together they are the concatenation in slot order. */
static void fan_in_concatenates_the_sibling_slots(void) {
    struct pair p;
    even_pair(&p, (int[]){0, 2, 4}, (int[]){0, 4, 2}, false);
    for (int rank = 0; rank < 8; rank++) {
        const struct troupe_route_binding *b = binding_of(&p, rank);
        int sibling = rank % 4 < 2 ? rank + 2 : rank - 2;
        EXPECT_EQ(b->receive_count, 1);
        EXPECT_EQ(b->receives[0].peer, sibling);
        EXPECT_EQ(b->receives[0].row_begin, sibling / 2 * 12);
        EXPECT_EQ(b->kept.row_begin, rank / 2 * 12);
        EXPECT_EQ(b->kept.row_count, 12);
        expect_interval(&p, rank, rank / 4 * 24, rank / 4 * 24 + 24);
    }
    fini_pair(&p);
}

/* TP4 DP2 -> TP2 DP4: every rank has its slot already. */
static void fan_out_keeps_the_own_slot(void) {
    struct pair p;
    even_pair(&p, (int[]){0, 4, 2}, (int[]){0, 2, 4}, false);
    for (int rank = 0; rank < 8; rank++) {
        const struct troupe_route_binding *b = binding_of(&p, rank);
        EXPECT_EQ(b->receive_count + b->send_count, 0);
        EXPECT_EQ(b->kept.row_begin, rank / 2 * 12);
        EXPECT_EQ(b->kept.row_count, 12);
    }
    fini_pair(&p);
}

static void equal_layouts_are_the_identity(void) {
    struct pair p;
    even_pair(&p, (int[]){4, 2, 4}, (int[]){4, 2, 4}, false);
    for (int rank = 4; rank < 12; rank++) {
        EXPECT_EQ(bytes_of(&p, rank).received, 0);
        EXPECT_EQ(bytes_of(&p, rank).kept, 48);
    }
    fini_pair(&p);
}

/* The sender and receiver ranks of the four grids of the reference, whose order of axes is
 * tp, cp, pp, dp: only the last stage of the source and the first of the destination take part,
 * and each of their ranks does (the reference's leaders carry everything alone). */
static void only_boundary_stages_take_part(void) {
    static const struct {
        int tp, pp, dp;
        int senders[8], receivers[8]; /* as many as tp * dp */
    } grids[] = {{2, 2, 2, {2, 3, 6, 7}, {0, 1, 4, 5}},
                 {4, 2, 1, {4, 5, 6, 7}, {0, 1, 2, 3}},
                 {1, 2, 4, {1, 3, 5, 7}, {0, 2, 4, 6}},
                 {2, 4, 1, {6, 7}, {0, 1}}};
    for (size_t g = 0; g < TROUPE_COUNT_OF(grids); g++) {
        int tp = grids[g].tp, pp = grids[g].pp, dp = grids[g].dp;
        struct pair p = {.rows = 48, .columns = 1};
        for (int s = 0; s < 2; s++) {
            int list[8]; /* our order is tp, dp, pp */
            for (int i = 0; i < 8; i++) {
                int t = i % tp, d = i / tp % dp, stage = i / (tp * dp);
                list[i] = 8 * s + t + tp * (stage + pp * d);
            }
            init_mesh(&p.mesh[s], list, tp, dp, pp);
        }
        compile_boundary(&p);
        EXPECT_EQ(p.count, 2 * tp * dp);
        for (int i = 0; i < tp * dp; i++) {
            EXPECT_EQ(troupe_route_rank(p.route, i), grids[g].senders[i]);
            EXPECT_EQ(troupe_route_rank(p.route, tp * dp + i), 8 + grids[g].receivers[i]);
        }
        even_offsets(p.rows, dp, p.offsets[0]);
        even_offsets(p.rows, dp, p.offsets[1]);
        bind_pair(&p);
        for (int i = 0; i < tp * dp; i++) { /* same tp index, same dp index: rank to rank */
            EXPECT_EQ(binding_of(&p, grids[g].senders[i])->send_count, 1);
            EXPECT_EQ(bytes_of(&p, 8 + grids[g].receivers[i]).received, 4 * 48 / dp);
        }
        fini_pair(&p);
    }
}

/* Rows per sample, given to destinations in intervals of samples. */
static void sample_counts_give_ragged_rows(void) {
    struct pair p = {.rows = 6, .columns = 1};
    int ranks[RANKS_MAX] = {0, 1, 2, 3, 4, 5, 6};
    init_mesh(&p.mesh[0], ranks, 1, 4, 1);
    init_mesh(&p.mesh[1], ranks + 4, 1, 2, 1);
    compile_boundary(&p);
    memcpy(p.offsets[0], (int64_t[]){0, 0, 3, 4, 6}, 5 * sizeof(int64_t)); /* [0, 3, 1, 2] */
    memcpy(p.offsets[1], (int64_t[]){0, 3, 6}, 3 * sizeof(int64_t));
    bind_pair(&p);
    expect_check(&p);
    EXPECT_EQ(binding_of(&p, 0)->send_count, 0); /* a sender without rows sends nothing */
    EXPECT_EQ(binding_of(&p, 4)->receive_count, 1);
    EXPECT_EQ(binding_of(&p, 4)->receives[0].peer, 1);
    EXPECT_EQ(binding_of(&p, 4)->receives[0].elements, 3);
    EXPECT_EQ(binding_of(&p, 5)->receive_count, 2);
    EXPECT_EQ(bytes_of(&p, 5).received, 12);
    fini_pair(&p);
}

static void unequal_counts_fan_in(void) {
    struct pair p = {.rows = 6, .columns = 1};
    int ranks[] = {0, 1, 2, 3, 4};
    init_mesh(&p.mesh[0], ranks, 1, 3, 1);
    init_mesh(&p.mesh[1], ranks + 3, 2, 1, 1);
    compile_boundary(&p);
    memcpy(p.offsets[0], (int64_t[]){0, 1, 4, 6}, 4 * sizeof(int64_t)); /* [1, 3, 2] */
    memcpy(p.offsets[1], (int64_t[]){0, 6}, 2 * sizeof(int64_t));
    bind_pair(&p);
    expect_check(&p);
    for (int rank = 3; rank < 5; rank++) {
        for (int from = 0; from < 3; from++) {
            EXPECT_EQ(receive_from(binding_of(&p, rank), from)->row_begin, p.offsets[0][from]);
            EXPECT_EQ(receive_from(binding_of(&p, rank), from)->elements,
                      p.offsets[0][from + 1] - p.offsets[0][from]);
        }
    }
    fini_pair(&p);
}

/* A microbatch of text only: no message anywhere, and the binding stays usable. */
static void a_microbatch_without_rows_sends_nothing(void) {
    struct pair p;
    even_pair(&p, (int[]){0, 2, 3}, (int[]){4, 1, 4}, false);
    int64_t none[PARTS_MAX + 1] = {0};
    for (int i = 0; i < p.count; i++) {
        EXPECT_OK(troupe_route_bind(p.bindings[i], none, none));
        EXPECT_EQ(p.bindings[i]->send_count + p.bindings[i]->receive_count, 0);
        EXPECT_EQ(p.bindings[i]->kept.box_count, 0);
        EXPECT_OK(troupe_route_bind(p.bindings[i], p.offsets[0], p.offsets[1]));
    }
    expect_check(&p);
    fini_pair(&p);
}

static void a_holder_on_the_same_host_is_preferred(void) {
    struct pair p = {.rows = 8, .columns = 1};
    int ranks[] = {0, 1, 2, 3};
    for (int r = 0; r < RANKS_MAX; r++) {
        p.hosts[r] = r % 2; /* 0 and 2 are on one host, 1 and 3 on another */
    }
    init_mesh(&p.mesh[0], ranks, 2, 1, 1);
    init_mesh(&p.mesh[1], (int[]){3, 2}, 1, 2, 1);
    compile_boundary(&p);
    even_offsets(8, 1, p.offsets[0]);
    even_offsets(8, 2, p.offsets[1]);
    bind_pair(&p);
    EXPECT_EQ(binding_of(&p, 3)->receives[0].peer, 1);
    EXPECT_EQ(binding_of(&p, 2)->receives[0].peer, 0);
    fini_pair(&p);
}

/* ---- refusals ---- */

static void offsets_that_disagree_are_refused(void) {
    struct pair p;
    even_pair(&p, (int[]){0, 1, 3}, (int[]){3, 1, 2}, false);
    struct troupe_route_binding *b = p.bindings[0];
    EXPECT_ERROR(troupe_route_bind(b, (int64_t[]){0, 3, 5, 6}, (int64_t[]){0, 3, 7}),
                 TROUPE_ERROR_INVALID, "splits 6 rows and the destination 7");
    EXPECT_EQ(b->send_count, 0);
    EXPECT_ERROR(troupe_route_bind(b, (int64_t[]){0, 5, 3, 6}, (int64_t[]){0, 3, 6}),
                 TROUPE_ERROR_INVALID, "source part 1 has rows 5..3");
    EXPECT_ERROR(troupe_route_bind(b, (int64_t[]){0, 3, 5, 6}, (int64_t[]){1, 3, 6}),
                 TROUPE_ERROR_INVALID, "destination rows begin at 1");
    fini_pair(&p);
}

static void elements_nobody_holds_are_refused(void) {
    struct troupe_layout half = {0}, whole = {0};
    troupe_route *route = NULL;
    EXPECT_OK(troupe_layout_init(&(struct troupe_layout_options){.shape = {4, 4}}, &half));
    EXPECT_OK(troupe_layout_init(&(struct troupe_layout_options){.shape = {4, 4}}, &whole));
    struct troupe_box left = troupe_box_2d(0, 4, 0, 3), all = troupe_box_2d(0, 4, 0, 4);
    EXPECT_OK(troupe_layout_add(&half, 0, -1, &left));
    EXPECT_OK(troupe_layout_add(&whole, 1, -1, &all));
    EXPECT_ERROR(troupe_route_compile(&(struct troupe_route_options){.source = &half,
                                                                     .destination = &whole,
                                                                     .element_bytes = 4},
                                      &route),
                 TROUPE_ERROR_INVALID, "rank 1 needs elements at row 0, column 3");
    troupe_layout_fini(&half);
    troupe_layout_fini(&whole);
}

static void layouts_of_different_tensors_are_refused(void) {
    struct troupe_layout a = {0}, b = {0}, ragged = {0};
    troupe_route *route = NULL;
    EXPECT_OK(troupe_layout_init(&(struct troupe_layout_options){.shape = {4, 4}}, &a));
    EXPECT_OK(troupe_layout_init(&(struct troupe_layout_options){.shape = {4, 5}}, &b));
    EXPECT_OK(troupe_layout_init(
        &(struct troupe_layout_options){.shape = {0, 4}, .ragged = true, .part_count = 1},
        &ragged));
    struct troupe_route_options options = {.source = &a, .destination = &b, .element_bytes = 4};
    EXPECT_ERROR(troupe_route_compile(&options, &route), TROUPE_ERROR_INVALID,
                 "dimension 1 has extent 4 in the source layout and 5");
    options.destination = &ragged;
    EXPECT_ERROR(troupe_route_compile(&options, &route), TROUPE_ERROR_INVALID, "ragged");
    troupe_layout_fini(&a);
    troupe_layout_fini(&b);
    troupe_layout_fini(&ragged);
}

static void the_check_finds_planted_faults(void) {
    struct pair p;
    even_pair(&p, (int[]){0, 1, 3}, (int[]){3, 1, 2}, false);
    struct troupe_route_binding *to = p.bindings[3], *from = p.bindings[0];
    struct troupe_route_message saved = to->receives[0];
    struct troupe_box box = saved.boxes[0];
    EXPECT_EQ(to->rank, 3);

#define EXPECT_FAULT(part)                                                                         \
    EXPECT_ERROR(                                                                                  \
        troupe_route_check_bindings(&p.bound[0], &p.bound[1], p.hosts, p.bindings, p.count),       \
        TROUPE_ERROR_INVALID, part)

    to->receive_count--;
    EXPECT_FAULT("needs 24 elements, but gets");
    to->receive_count++;
    from->send_count--;
    EXPECT_FAULT("messages are expected, but");
    from->send_count++;
    box.end[0]--;
    to->receives[0].boxes = &box;
    to->receives[0].elements--;
    EXPECT_FAULT("needs 24 elements, but gets 23");
    box.end[0] += 2; /* one row of the next message, too */
    to->receives[0].elements += 2;
    EXPECT_FAULT("gets row 16 column 0 twice");
    box.begin[0] += 24;
    box.end[0] += 24;
    EXPECT_FAULT("not all its own");
    to->receives[0] = saved;
    to->receives[0].bytes++;
    EXPECT_FAULT("expects otherwise");
    to->receives[0] = saved;
    to->receives[0].peer = 2;
    EXPECT_FAULT("does not expect");
    to->receives[0] = saved;
    expect_check(&p);
#undef EXPECT_FAULT
    fini_pair(&p);
}

/* Two holders on one host, four that need all rows on another. */
static void the_check_finds_faults_of_relays(void) {
    struct pair p;
    even_pair(&p, (int[]){0, 1, 2}, (int[]){2, 4, 1}, false);
    struct troupe_route_binding *entry = p.bindings[2], *other = p.bindings[3];
    expect_check(&p);
    EXPECT_EQ(entry->relay_count, 3);
    EXPECT_EQ(entry->receives[0].relayed, false);
    EXPECT_EQ(entry->receives[0].row_count, 12);
    EXPECT_EQ(entry->relays[0].row_count, 12);
    EXPECT_EQ(entry->relays[0].origin, 0);
    EXPECT_EQ(entry->receives[entry->receive_count - 1].relayed, true);
    struct troupe_box not_entered = troupe_box_2d(12, 24, 0, 1);
    struct troupe_route_message saved = entry->relays[0];
    entry->relays[0].boxes = &not_entered;
    EXPECT_ERROR(
        troupe_route_check_bindings(&p.bound[0], &p.bound[1], p.hosts, p.bindings, p.count),
        TROUPE_ERROR_INVALID, "rank 2 relays rows 12..24 to rank 3, but does not get them");
    entry->relays[0] = saved;
    for (int r = 0; r < other->receive_count; r++) { /* as if rank 0 sent it itself */
        struct troupe_route_message *receive = &other->receives[r];
        receive->peer = receive->relayed && receive->peer == 2 ? 0 : receive->peer;
    }
    EXPECT_ERROR(
        troupe_route_check_bindings(&p.bound[0], &p.bound[1], p.hosts, p.bindings, p.count),
        TROUPE_ERROR_INVALID, "rank 2 sends rank 3 a message of 48 bytes that rank 3 does");
    fini_pair(&p);
}

/* ---- messages in memory ---- */

static void full_width_row_intervals_are_contiguous(void) {
    int32_t x[6][4];
    struct troupe_route_view view = {.data = x,
                                     .row_bytes = sizeof x[0],
                                     .element_bytes = 4,
                                     .box = troupe_box_2d(10, 16, 8, 12)};
    struct troupe_box boxes[2] = {troupe_box_2d(12, 14, 8, 12), troupe_box_2d(15, 16, 8, 12)};
    struct troupe_route_message message = {.box_count = 1, .boxes = boxes};
    EXPECT(troupe_route_message_is_contiguous(&message, &view), "two full rows");
    EXPECT(troupe_route_message_data(&message, &view) == &x[2][0], "row 12 is row 2 of the view");
    boxes[0] = troupe_box_2d(12, 14, 9, 12);
    EXPECT(!troupe_route_message_is_contiguous(&message, &view), "two rows of three columns");
    boxes[0] = troupe_box_2d(12, 13, 9, 12);
    EXPECT(troupe_route_message_is_contiguous(&message, &view), "a part of one row");
    EXPECT(troupe_route_message_data(&message, &view) == &x[2][1], "column 9 is column 1");
    message.box_count = 2;
    EXPECT(!troupe_route_message_is_contiguous(&message, &view), "two boxes");
}

/* Rows over two dp parts of one rank's columns: boxes with a gap keep their order in the bytes. */
static void packing_gathers_boxes_in_order(void) {
    int16_t x[4][3] = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}, {10, 11, 12}}, y[4][3] = {{0}};
    struct troupe_box boxes[2] = {troupe_box_2d(0, 2, 1, 3), troupe_box_2d(3, 4, 0, 2)};
    struct troupe_route_message message = {
        .box_count = 2, .boxes = boxes, .elements = 6, .bytes = 12};
    struct troupe_route_view view = {
        .data = x, .row_bytes = 6, .element_bytes = 2, .box = troupe_box_2d(0, 4, 0, 3)};
    int16_t bytes[6];
    troupe_route_message_pack(&message, &view, bytes);
    EXPECT(memcmp(bytes, (int16_t[]){2, 3, 5, 6, 10, 11}, 12) == 0, "row major, box after box");
    view.data = y;
    troupe_route_message_unpack(&message, bytes, &view);
    EXPECT(memcmp(y, (int16_t[4][3]){{0, 2, 3}, {0, 5, 6}, {0}, {10, 11, 0}}, sizeof y) == 0,
           "what is not in the boxes stays");
}

/* ---- parameters: n dimensions ---- */

/* A 4-D parameter resharded from dimension 1 over tp to dimensions 0 and 3 over dp and tp. */
static void parameters_of_four_dimensions_move(void) {
    int ranks[] = {0, 1, 2, 3, 4, 5};
    struct troupe_mesh three, six;
    struct troupe_layout source, destination;
    troupe_route *route = NULL;
    init_mesh(&three, ranks, 3, 1, 1);
    init_mesh(&six, ranks, 2, 3, 1);
    EXPECT_OK(troupe_layout_init(
        &(struct troupe_layout_options){
            .mesh = &three, .shape = {5, 7, 2, 9}, .split = {[1] = TROUPE_AXES(TROUPE_TP)}},
        &source));
    EXPECT_OK(troupe_layout_init(
        &(struct troupe_layout_options){
            .mesh = &six,
            .shape = {5, 7, 2, 9},
            .split = {[0] = TROUPE_AXES(TROUPE_DP), [3] = TROUPE_AXES(TROUPE_TP)}},
        &destination));
    EXPECT_OK(troupe_route_compile(&(struct troupe_route_options){.source = &source,
                                                                  .destination = &destination,
                                                                  .element_bytes = 4},
                                   &route));
    EXPECT_OK(troupe_route_check(route, NULL, NULL));
    troupe_route_destroy(route);
    troupe_layout_fini(&source);
    troupe_layout_fini(&destination);
    troupe_mesh_fini(&three);
    troupe_mesh_fini(&six);
}

/* A rank holding a head and a tail chunk, as a zig-zag sequence split does. */
static void a_rank_may_hold_several_parts(void) {
    struct troupe_layout source = {0}, zigzag = {0};
    struct troupe_box all = troupe_box_2d(0, 1, 0, 3);
    troupe_route *route = NULL;
    struct troupe_layout_options options = {.shape = {0, 3}, .ragged = true, .part_count = 2};
    EXPECT_OK(troupe_layout_init(&options, &source));
    options.part_count = 4;
    EXPECT_OK(troupe_layout_init(&options, &zigzag));
    for (int part = 0; part < 4; part++) {
        EXPECT_OK(troupe_layout_add(&zigzag, part == 0 || part == 3 ? 0 : 1, part, &all));
    }
    EXPECT_OK(troupe_layout_add(&source, 0, 0, &all));
    EXPECT_OK(troupe_layout_add(&source, 1, 1, &all));
    EXPECT_OK(troupe_route_compile(&(struct troupe_route_options){.source = &source,
                                                                  .destination = &zigzag,
                                                                  .element_bytes = 4},
                                   &route));
    int64_t from[] = {0, 5, 11}, to[] = {0, 2, 6, 8, 11};
    EXPECT_OK(troupe_route_check(route, from, to));
    struct troupe_route_binding *binding = NULL;
    EXPECT_OK(troupe_route_binding_create(route, 1, &binding));
    EXPECT_OK(troupe_route_bind(binding, from, to));
    EXPECT_EQ(binding->receives[0].elements, 3 * 3); /* rows 2..5 */
    EXPECT_EQ(binding->kept.elements, 3 * 3);        /* rows 5..6 and 6..8, joined */
    EXPECT_EQ(binding->kept.box_count, 1);
    EXPECT_EQ(binding->sends[0].row_begin, 8);
    troupe_route_binding_destroy(binding);
    troupe_route_destroy(route);
    troupe_layout_fini(&source);
    troupe_layout_fini(&zigzag);
}

/* ---- dealt rows ---- */

enum { DEALERS = 5, ROUNDS = 9, DEALT_PARTS = DEALERS * ROUNDS };

/* Each item to the next part of its owner. */
static void deal(uint64_t seed, uint64_t deal_number, int64_t offsets[DEALT_PARTS + 1]) {
    int part = 0;
    int64_t row = 0;
    offsets[0] = 0;
    for (uint64_t item = 0; item < ROUNDS; item++) {
        int owner = (int)troupe_random_below(seed, deal_number, 2 * item, DEALERS);
        for (; part % DEALERS != owner; part++) {
            offsets[part + 1] = row;
        }
        row += (int64_t)troupe_random_below(seed, deal_number, 2 * item + 1, 9);
    }
    for (; part < DEALT_PARTS; part++) {
        offsets[part + 1] = row;
    }
}

static void dealt_rows_meet_the_lower_bounds(void) {
    const int ranks[] = {0, 1, 2, 3, 4, 5, 6, 7}, hosts[] = {0, 0, 0, 1, 1, 1, 2, 2};
    struct troupe_mesh meshes[2];
    struct troupe_layout layouts[2];
    troupe_route *routes[2] = {NULL};
    int64_t offsets[2][DEALT_PARTS + 1];
    uint64_t seed = test_seed();
    EXPECT_OK(troupe_mesh_init(
        &(struct troupe_mesh_options){.ranks = ranks, .rank_count = DEALERS, .dp = DEALERS},
        &meshes[0]));
    EXPECT_OK(troupe_mesh_init(
        &(struct troupe_mesh_options){.ranks = ranks + 2, .rank_count = 6, .tp = 2, .dp = 3},
        &meshes[1]));
    for (int s = 0; s < 2; s++) {
        EXPECT_OK(
            troupe_layout_init(&(struct troupe_layout_options){.mesh = &meshes[s],
                                                               .shape = {0, 3},
                                                               .split = {TROUPE_AXES(TROUPE_DP)},
                                                               .ragged = true,
                                                               .rounds = s == 0 ? ROUNDS : 0},
                               &layouts[s]));
    }
    for (int s = 0; s < 2; s++) {
        EXPECT_OK(troupe_route_compile(&(struct troupe_route_options){.source = &layouts[s],
                                                                      .destination = &layouts[!s],
                                                                      .host_of_rank = hosts,
                                                                      .element_bytes = 4},
                                       &routes[s]));
    }
    for (uint64_t k = 0; k < 200; k++) {
        deal(seed, k, offsets[0]);
        for (int i = 0; i <= 3; i++) {
            offsets[1][i] = troupe_split_begin(offsets[0][DEALT_PARTS], 3, i);
        }
        EXPECT_OK(troupe_route_check(routes[0], offsets[0], offsets[1]));
        EXPECT_OK(troupe_route_check(routes[1], offsets[1], offsets[0]));
    }
    for (int i = 0; i <= DEALT_PARTS; i++) {
        offsets[0][i] = i;
        offsets[1][i < 3 ? i : 3] = i;
    }
    EXPECT_ERROR(troupe_route_check(routes[0], offsets[0], offsets[1]), TROUPE_ERROR_INVALID,
                 "45 of 45 source parts have rows; at most 9 may");
    for (int s = 0; s < 2; s++) {
        troupe_route_destroy(routes[s]);
        troupe_layout_fini(&layouts[s]);
        troupe_mesh_fini(&meshes[s]);
    }
}

int main(void) {
    TEST(colocated_transforms_meet_the_lower_bounds);
    TEST(disjoint_transforms_meet_the_lower_bounds);
    TEST(message_counts_are_minimal);
    TEST(fan_in_concatenates_the_sibling_slots);
    TEST(fan_out_keeps_the_own_slot);
    TEST(equal_layouts_are_the_identity);
    TEST(only_boundary_stages_take_part);
    TEST(sample_counts_give_ragged_rows);
    TEST(unequal_counts_fan_in);
    TEST(a_microbatch_without_rows_sends_nothing);
    TEST(a_holder_on_the_same_host_is_preferred);
    TEST(offsets_that_disagree_are_refused);
    TEST(elements_nobody_holds_are_refused);
    TEST(layouts_of_different_tensors_are_refused);
    TEST(the_check_finds_planted_faults);
    TEST(the_check_finds_faults_of_relays);
    TEST(full_width_row_intervals_are_contiguous);
    TEST(packing_gathers_boxes_in_order);
    TEST(parameters_of_four_dimensions_move);
    TEST(a_rank_may_hold_several_parts);
    TEST(dealt_rows_meet_the_lower_bounds);
    return TEST_END();
}
