/* SPDX-License-Identifier: Apache-2.0
 *
 * Random pairs of layouts, both ways: what arrives against the layouts element by element, values,
 * the adjoint in exact integers, and the bounds: bytes received (LB1), imported (LB2), the largest
 * first-hop load (LB3, against a maximum flow) and relays, evened out within each host.
 *
 *     unit.comm.route_random [pairs]
 */
#include "comm/route_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"
#include "tests/test.h"

enum { RANKS = 64, ROWS = 48, COLUMNS = 8, PAIRS = 2500, PARTS = 512, GROUPS = 2048 };

/* ---- chance ---- */

static uint64_t chance_state;

/* splitmix64 (Steele, Lea, Flood, 2014); uniform in [low, high]. */
static int chance(int low, int high) {
    uint64_t z = chance_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return low + (int)((z ^ (z >> 31)) % (uint64_t)(high - low + 1));
}

/* Ascending from 0 to total; about a quarter of the parts are empty. */
static void random_offsets(int64_t total, int parts, int64_t *offsets) {
    offsets[0] = 0;
    for (int i = 1; i < parts; i++) {
        int step = chance(0, 3) == 0 ? 0 : chance(0, (int)(2 * total / parts) + 1);
        offsets[i] = offsets[i - 1] + step < total ? offsets[i - 1] + step : total;
    }
    offsets[parts] = total;
}

/* ---- a pair ---- */

struct pair {
    struct troupe_layout ragged[2]; /* source, destination */
    struct troupe_layout bound[2];
    int64_t offsets[2][PARTS + 1];
    int hosts[RANKS];
    uint64_t near[RANKS]; /* ranks of its host */
    int64_t rows, columns;
    bool partly_wanted;
};

/* Distinct ranks: consecutive from anywhere, or any. */
static void random_ranks(int count, int *ranks) {
    int all[RANKS], first = chance(0, RANKS - count);
    for (int i = 0; i < RANKS; i++) {
        int j = chance(0, i);
        all[i] = all[j];
        all[j] = i;
    }
    bool scattered = chance(0, 3) == 0;
    for (int i = 0; i < count; i++) {
        ranks[i] = scattered ? all[i] : first + i;
    }
}

static void random_mesh(struct troupe_mesh *mesh) {
    static const int sizes[][4] = {
        /* tp, cp, dp, pp */
        {1, 1, 1, 1},  {1, 1, 2, 1},  {2, 1, 1, 1},  {1, 1, 3, 1},  {2, 1, 2, 1}, {3, 1, 2, 1},
        {2, 1, 3, 1},  {1, 1, 5, 1},  {1, 1, 7, 2},  {4, 1, 2, 1},  {2, 2, 2, 1}, {1, 2, 3, 2},
        {8, 1, 1, 2},  {1, 1, 8, 1},  {3, 1, 5, 1},  {1, 1, 11, 2}, {5, 1, 3, 1}, {1, 4, 1, 1},
        {2, 4, 2, 1},  {1, 3, 2, 1},  {3, 3, 1, 1},  {2, 2, 4, 2},  {4, 2, 2, 2}, {1, 1, 13, 1},
        {8, 2, 2, 1},  {1, 1, 31, 1}, {1, 1, 64, 1}, {8, 1, 8, 1},  {4, 4, 4, 1}, {7, 1, 5, 1},
        {16, 1, 2, 1}, {2, 8, 2, 1}};
    const int *size = sizes[chance(0, (int)TROUPE_COUNT_OF(sizes) - 1)];
    int ranks[RANKS], count = size[0] * size[1] * size[2] * size[3];
    random_ranks(count, ranks);
    EXPECT_OK(troupe_mesh_init(&(struct troupe_mesh_options){.ranks = ranks,
                                                             .rank_count = count,
                                                             .tp = size[0],
                                                             .cp = size[1],
                                                             .dp = size[2],
                                                             .pp = size[3]},
                               mesh));
}

/* Rows over dp; or over dp and cp, in a zig-zag or not; and below over tp, or columns over tp, even
 * or not, or copies on tp. Rows of sequences at chance. */
static void random_mesh_side(struct pair *p, int s) {
    struct troupe_mesh mesh;
    int64_t uneven[RANKS + 1], sequences[RANKS * 3 + 1];
    random_mesh(&mesh);
    bool context = chance(0, 2) > 0, sequence_parallel = chance(0, 2) == 0;
    int columns = sequence_parallel ? 0 : chance(0, 3);
    struct troupe_layout_options options = {.mesh = &mesh,
                                            .stage = s == 0 ? mesh.size[TROUPE_PP] - 1 : 0,
                                            .shape = {0, p->columns},
                                            .sequences = chance(0, 3),
                                            .ragged = true};
    struct troupe_axes *rows = &options.split[0];
    rows->axis[rows->count++] = TROUPE_DP;
    if (context) {
        rows->axis[rows->count++] = TROUPE_CP;
        options.zigzag = chance(0, 1) == 0;
    }
    if (sequence_parallel) {
        rows->axis[rows->count++] = TROUPE_TP;
    }
    if (columns > 1) {
        random_offsets(p->columns, mesh.size[TROUPE_TP], uneven);
        options.split[1] = TROUPE_AXES(TROUPE_TP);
        options.offsets[1] = columns == 3 ? uneven : NULL;
    }
    EXPECT_OK(troupe_layout_init(&options, &p->ragged[s]));
    random_offsets(p->rows, p->ragged[s].part_count / p->ragged[s].chunks, sequences);
    troupe_layout_row_offsets(&p->ragged[s], sequences, p->offsets[s]);
    troupe_mesh_fini(&mesh);
}

/* Parts cut into columns, each cell on a few ranks of any kind; a destination need not want a cell.
 * So ranks hold several parts and boxes with gaps. */
static void random_cells_side(struct pair *p, int s) {
    int parts = chance(1, 8), cuts = chance(1, 3), few = chance(6, RANKS);
    int64_t columns[4];
    EXPECT_OK(troupe_layout_init(&(struct troupe_layout_options){.shape = {0, p->columns},
                                                                 .ragged = true,
                                                                 .part_count = parts},
                                 &p->ragged[s]));
    for (int part = 0; part < parts; part++) {
        random_offsets(p->columns, cuts, columns);
        for (int cut = 0; cut < cuts; cut++) {
            struct troupe_box box = troupe_box_2d(0, 1, columns[cut], columns[cut + 1]);
            int first = chance(0, few - 1), copies = chance(0, 6);
            if (copies == 0 && (s == 0 || chance(0, 3) != 0)) {
                copies = 1;
            }
            p->partly_wanted = p->partly_wanted || copies == 0;
            for (int copy = 0; copy < copies; copy++) {
                EXPECT_OK(troupe_layout_add(&p->ragged[s], (first + copy) % few, part, &box));
            }
        }
    }
    random_offsets(p->rows, parts, p->offsets[s]);
}

static void random_hosts(struct pair *p) {
    int host_size = chance(0, 3) == 0 ? RANKS : chance(1, 16);
    bool scattered = chance(0, 3) == 0;
    for (int r = 0; r < RANKS; r++) {
        p->hosts[r] = scattered ? chance(0, RANKS / host_size) : r / host_size;
    }
    for (int r = 0; r < RANKS; r++) {
        p->near[r] = 0;
        for (int other = 0; other < RANKS; other++) {
            p->near[r] |= p->hosts[r] == p->hosts[other] ? UINT64_C(1) << other : 0;
        }
    }
}

static void random_pair(struct pair *p) {
    *p = (struct pair){.rows = chance(0, ROWS), .columns = chance(1, COLUMNS)};
    random_hosts(p);
    for (int s = 0; s < 2; s++) {
        (chance(0, 3) == 0 ? random_cells_side : random_mesh_side)(p, s);
        EXPECT_OK(troupe_layout_bind(&p->ragged[s], p->offsets[s], &p->bound[s]));
    }
}

static void fini_pair(struct pair *p) {
    for (int s = 0; s < 2; s++) {
        troupe_layout_fini(&p->ragged[s]);
        troupe_layout_fini(&p->bound[s]);
    }
}

static int lowest(uint64_t ranks) {
    return __builtin_ctzll(ranks);
}

/* ---- the optimum by maximum flow ---- */

/* Work that any rank of the set may do. */
struct problem {
    int count;
    uint64_t ranks[GROUPS];
    int64_t amount[GROUPS];
    int64_t share[GROUPS][RANKS];
    int64_t load[RANKS];
};

static void add_work(struct problem *problem, uint64_t ranks, int64_t amount) {
    int g = 0;
    while (g < problem->count && problem->ranks[g] != ranks) {
        g++;
    }
    EXPECT(g < GROUPS, "more than %d groups", GROUPS);
    if (g == problem->count) {
        problem->ranks[problem->count++] = ranks;
        problem->amount[g] = 0;
    }
    problem->amount[g] += amount;
}

/* Finds an augmenting path for group `start` and pushes over it at most `amount`; 0 if there is
 * none, then *cut_groups and *cut_ranks are what the search reached. */
static int64_t augment(struct problem *x, int start, int64_t amount, int64_t limit,
                       bool *cut_groups, uint64_t *cut_ranks) {
    static int queue[GROUPS], from_rank[GROUPS];
    int from_group[RANKS], end = 0;
    memset(cut_groups, 0, sizeof(bool) * (size_t)x->count);
    *cut_ranks = 0;
    cut_groups[start] = true;
    from_rank[start] = -1;
    queue[end++] = start;
    for (int begin = 0; begin < end; begin++) {
        uint64_t fresh = x->ranks[queue[begin]] & ~*cut_ranks;
        for (; fresh != 0; fresh &= fresh - 1) {
            int rank = lowest(fresh);
            *cut_ranks |= UINT64_C(1) << rank;
            from_group[rank] = queue[begin];
            if (x->load[rank] < limit) {
                int64_t push = limit - x->load[rank] < amount ? limit - x->load[rank] : amount;
                for (int r = rank; from_rank[from_group[r]] >= 0;) {
                    int g = from_group[r];
                    r = from_rank[g];
                    push = x->share[g][r] < push ? x->share[g][r] : push;
                }
                x->load[rank] += push;
                for (int r = rank; r >= 0; r = from_rank[from_group[r]]) {
                    x->share[from_group[r]][r] += push;
                    int back = from_rank[from_group[r]];
                    if (back >= 0) {
                        x->share[from_group[r]][back] -= push;
                    }
                }
                return push;
            }
            for (int g = 0; g < x->count; g++) {
                if (!cut_groups[g] && x->share[g][rank] > 0) {
                    cut_groups[g] = true;
                    from_rank[g] = rank;
                    queue[end++] = g;
                }
            }
        }
    }
    return 0;
}

/* The smallest limit on every load under which all work is done: raised by the cuts that forbid a
 * smaller one. */
static int64_t smallest_load(struct problem *x) {
    static bool cut_groups[GROUPS];
    int64_t limit = 0;
    memset(x->load, 0, sizeof x->load);
    memset(x->share, 0, sizeof x->share[0] * (size_t)x->count);
    for (int g = 0; g < x->count; g++) {
        for (int64_t left = x->amount[g]; left > 0;) {
            uint64_t cut_ranks = 0;
            int64_t pushed = augment(x, g, left, limit, cut_groups, &cut_ranks);
            left -= pushed;
            if (pushed == 0) {
                int64_t work = left; /* of the groups in the cut, as far as it is in them so far */
                for (uint64_t rest = cut_ranks; rest != 0; rest &= rest - 1) {
                    work += x->load[lowest(rest)];
                }
                int ranks = __builtin_popcountll(cut_ranks);
                limit = (work + ranks - 1) / ranks;
            }
        }
    }
    return limit;
}

/* ---- one direction of it, bound on all ranks ---- */

typedef uint64_t ranks_map[ROWS][COLUMNS]; /* a set of ranks for each element */

struct plan {
    const struct pair *pair;
    int from, to; /* sides */
    troupe_route *route;
    int count;
    struct troupe_route_binding *bindings[RANKS];        /* by rank, NULL for others */
    ranks_map have, lack;                                /* lack: need without have */
    int64_t first[RANKS], copied[RANKS], relayed[RANKS]; /* elements sent */
    int64_t either[RANKS];  /* where several holders on a host send copies of an element there */
    struct problem *firsts; /* who may have made the first hops, going by what is sent */
};

static void map_layout(const struct troupe_layout *layout, ranks_map map) {
    memset(map, 0, sizeof(ranks_map));
    for (int i = 0; i < layout->piece_count; i++) {
        const struct troupe_box *box = &layout->pieces[i].box;
        for (int64_t r = box->begin[0]; r < box->end[0]; r++) {
            for (int64_t c = box->begin[1]; c < box->end[1]; c++) {
                map[r][c] |= UINT64_C(1) << layout->pieces[i].rank;
            }
        }
    }
}

static void make_plan(struct plan *plan, const struct pair *p, bool backward) {
    static struct problem firsts;
    firsts.count = 0;
    *plan = (struct plan){.pair = p, .from = backward, .to = !backward, .firsts = &firsts};
    EXPECT_OK(
        troupe_route_compile(&(struct troupe_route_options){.source = &p->ragged[plan->from],
                                                            .destination = &p->ragged[plan->to],
                                                            .host_of_rank = p->hosts,
                                                            .element_bytes = 4},
                             &plan->route));
    plan->count = troupe_route_rank_count(plan->route);
    for (int i = 0; i < plan->count; i++) {
        int rank = troupe_route_rank(plan->route, i);
        EXPECT_OK(troupe_route_binding_create(plan->route, rank, &plan->bindings[rank]));
        troupe_memory_set_steady(true); /* an allocation would abort */
        EXPECT_OK(
            troupe_route_bind(plan->bindings[rank], p->offsets[plan->from], p->offsets[plan->to]));
        troupe_memory_set_steady(false);
    }
    map_layout(&p->bound[plan->from], plan->have);
    map_layout(&p->bound[plan->to], plan->lack);
    for (int64_t r = 0; r < p->rows; r++) {
        for (int64_t c = 0; c < p->columns; c++) {
            plan->lack[r][c] &= ~plan->have[r][c];
        }
    }
}

static void fini_plan(struct plan *plan) {
    for (int rank = 0; rank < RANKS; rank++) {
        troupe_route_binding_destroy(plan->bindings[rank]);
    }
    troupe_route_destroy(plan->route);
}

/* ---- every element once, LB1, LB2, and who sends ---- */

/* Who sends the element to each rank, and whether it is a relay. */
struct arrivals {
    int8_t from[ROWS][COLUMNS][RANKS]; /* -1: nobody */
    uint64_t relayed[ROWS][COLUMNS];
};

static void paint(const struct troupe_route_message *m, int rank, struct arrivals *arrivals) {
    int64_t elements = 0;
    for (int i = 0; i < m->box_count; i++) {
        for (int64_t r = m->boxes[i].begin[0]; r < m->boxes[i].end[0]; r++) {
            for (int64_t c = m->boxes[i].begin[1]; c < m->boxes[i].end[1]; c++) {
                EXPECT_EQ(arrivals->from[r][c][rank], -1);
                arrivals->from[r][c][rank] = (int8_t)m->peer;
                arrivals->relayed[r][c] |= m->relayed ? UINT64_C(1) << rank : 0;
                elements++;
            }
        }
    }
    EXPECT_EQ(m->elements, elements);
    EXPECT_EQ(m->bytes, 4 * (size_t)elements);
    EXPECT(elements > 0, "an empty message from rank %d", m->peer);
}

/* The sends into one host of an element: one first hop, from a near holder if there is one, and
 * relays from those on the host that have it by then. Adds up the loads. */
static void expect_host(struct plan *plan, const struct arrivals *arrivals, int64_t r, int64_t c,
                        uint64_t lacking) {
    uint64_t near = plan->pair->near[lowest(lacking)], holders = plan->have[r][c];
    uint64_t direct = lacking & ~arrivals->relayed[r][c], holders_sending = 0;
    uint64_t senders = (holders & near) != 0 ? holders & near : holders;
    EXPECT(direct != 0, "row %d column %d has no first hop", (int)r, (int)c);
    EXPECT((holders & near) != 0 || (direct & (direct - 1)) == 0, "two imports of an element");
    for (uint64_t rest = direct; rest != 0; rest &= rest - 1) {
        holders_sending |= UINT64_C(1) << arrivals->from[r][c][lowest(rest)];
    }
    bool several = (holders_sending & (holders_sending - 1)) != 0;
    add_work(plan->firsts, holders_sending, 1);
    for (uint64_t rest = lacking; rest != 0; rest &= rest - 1) {
        int to = lowest(rest), from = arrivals->from[r][c][to];
        uint64_t allowed = (direct >> to & 1) != 0 ? senders : direct;
        EXPECT(from >= 0 && (allowed >> from & 1) != 0, "rank %d gets it from rank %d", to, from);
        bool is_holder = (holders >> from & 1) != 0;
        int64_t *loads = !is_holder             ? plan->relayed
                         : several              ? plan->either
                         : to == lowest(direct) ? plan->first
                                                : plan->copied;
        loads[from]++;
    }
}

static void expect_arrivals(struct plan *plan) {
    static struct arrivals arrivals;
    const struct pair *p = plan->pair;
    memset(arrivals.from, -1, sizeof arrivals.from);
    memset(arrivals.relayed, 0, sizeof arrivals.relayed);
    for (int rank = 0; rank < RANKS; rank++) {
        const struct troupe_route_binding *b = plan->bindings[rank];
        for (int m = 0; b != NULL && m < b->receive_count; m++) {
            paint(&b->receives[m], rank, &arrivals);
        }
    }
    for (int64_t r = 0; r < p->rows; r++) {
        for (int64_t c = 0; c < p->columns; c++) {
            uint64_t lack = plan->lack[r][c];
            for (int rank = 0; rank < RANKS; rank++) { /* LB1: to those that lack it, once */
                EXPECT_EQ(arrivals.from[r][c][rank] >= 0, lack >> rank & 1);
            }
            for (; lack != 0; lack &= ~p->near[lowest(lack)]) {
                expect_host(plan, &arrivals, r, c, lack & p->near[lowest(lack)]);
            }
        }
    }
}

static struct problem problem;

static int64_t in_units(struct problem *x, int64_t unit) {
    for (int g = 0; g < x->count; g++) {
        EXPECT_EQ(x->amount[g] % unit, 0);
        x->amount[g] /= unit;
    }
    return unit * smallest_load(x);
}

/* LB3: nobody sends more than the optimum, in whole units. Returns it. */
static int64_t expect_first_hops(const struct plan *plan) {
    const struct pair *p = plan->pair;
    problem.count = 0;
    for (int64_t r = 0; r < p->rows; r++) {
        for (int64_t c = 0; c < p->columns; c++) {
            uint64_t holders = plan->have[r][c];
            for (uint64_t lack = plan->lack[r][c]; lack != 0; lack &= ~p->near[lowest(lack)]) {
                uint64_t near = p->near[lowest(lack)];
                add_work(&problem, (holders & near) != 0 ? holders & near : holders, 1);
            }
        }
    }
    int64_t optimum = in_units(&problem, plan->route->unit);
    EXPECT_EQ(in_units(plan->firsts, plan->route->unit), optimum);
    return optimum;
}

/* Relays of a host: the largest load is the optimum, to what one row brings. Copies that holders
 * send themselves may be more, but no more than a rank receives. */
static void expect_relays(const struct plan *plan, int host, int64_t first_hops) {
    const struct pair *p = plan->pair;
    int64_t most_copies = 0;
    problem.count = 0;
    for (int64_t r = 0; r < p->rows; r++) {
        for (int64_t c = 0; c < p->columns; c++) {
            uint64_t lack = plan->lack[r][c] & p->near[host];
            int64_t copies = __builtin_popcountll(lack) - 1;
            if (copies > 0) {
                add_work(&problem, lack | (plan->have[r][c] & p->near[host]), copies);
                most_copies = copies > most_copies ? copies : most_copies;
            }
        }
    }
    int64_t optimum = problem.count > 0 ? smallest_load(&problem) : 0, received = 0;
    for (uint64_t ranks = p->near[host]; ranks != 0; ranks &= ranks - 1) {
        int64_t own = 0;
        for (int64_t e = 0; e < p->rows * p->columns; e++) {
            own += plan->lack[e / p->columns][e % p->columns] >> lowest(ranks) & 1;
        }
        received = own > received ? own : received;
    }
    for (uint64_t ranks = p->near[host]; ranks != 0; ranks &= ranks - 1) {
        int rank = lowest(ranks);
        int64_t limit = optimum + most_copies * p->columns;
        EXPECT(plan->relayed[rank] <= limit, "rank %d relays %d, optimum %d, %d copies of a row",
               rank, (int)plan->relayed[rank], (int)optimum, (int)most_copies);
        int64_t copied = plan->either[rank] + plan->copied[rank];
        limit = (limit > received ? limit : received) + (plan->either[rank] > 0 ? first_hops : 0);
        EXPECT(copied <= limit, "rank %d sends %d copies, optima %d and %d, largest receive %d",
               rank, (int)copied, (int)optimum, (int)first_hops, (int)received);
    }
}

/* ---- values ---- */

typedef int32_t tensor[ROWS][COLUMNS];

static struct troupe_route_view view_of(const struct pair *p, tensor *x) {
    return (struct troupe_route_view){.data = x,
                                      .row_bytes = sizeof(int32_t) * COLUMNS,
                                      .element_bytes = sizeof(int32_t),
                                      .box = troupe_box_2d(0, p->rows, 0, p->columns)};
}

static void carry(const struct plan *plan, const struct troupe_route_message *send, int from,
                  tensor *x, tensor *y) {
    static int32_t wire[ROWS * COLUMNS];
    const struct troupe_route_binding *to = plan->bindings[send->peer];
    struct troupe_route_view in = view_of(plan->pair, &x[from]);
    struct troupe_route_view out = view_of(plan->pair, &y[send->peer]);
    troupe_route_message_pack(send, &in, wire);
    for (int i = 0; i < to->receive_count; i++) {
        if (to->receives[i].peer == from && to->receives[i].relayed == send->relayed) {
            EXPECT_EQ(to->receives[i].bytes, send->bytes);
            EXPECT_EQ(to->receives[i].origin, send->origin);
            troupe_route_message_unpack(&to->receives[i], wire, &out);
            return;
        }
    }
    TEST_FAIL("rank %d expects nothing from rank %d", send->peer, from);
}

/* Moves `logical` from the holders to everyone who needs it: afterwards y is it there. */
static void expect_values(const struct plan *plan, const tensor *logical, tensor *out) {
    static tensor x[RANKS], y[RANKS], wire;
    ranks_map need;
    const struct pair *p = plan->pair;
    map_layout(&p->bound[plan->to], need);
    for (int rank = 0; rank < RANKS; rank++) {
        for (int64_t r = 0; r < p->rows; r++) {
            for (int64_t c = 0; c < p->columns; c++) {
                x[rank][r][c] = (plan->have[r][c] >> rank & 1) != 0 ? (*logical)[r][c] : -999;
                y[rank][r][c] = -555;
            }
        }
    }
    for (int rank = 0; rank < RANKS; rank++) {
        const struct troupe_route_binding *b = plan->bindings[rank];
        struct troupe_route_view in = view_of(p, &x[rank]), own = view_of(p, &y[rank]);
        for (int m = 0; b != NULL && m < b->send_count; m++) {
            carry(plan, &b->sends[m], rank, x, y);
        }
        if (b != NULL) {
            troupe_route_message_pack(&b->kept, &in, wire);
            troupe_route_message_unpack(&b->kept, wire, &own);
        }
    }
    for (int rank = 0; rank < RANKS; rank++) {
        const struct troupe_route_binding *b = plan->bindings[rank];
        for (int m = 0; b != NULL && m < b->relay_count; m++) {
            carry(plan, &b->relays[m], rank, y, y);
        }
    }
    for (int64_t r = 0; r < p->rows; r++) {
        for (int64_t c = 0; c < p->columns; c++) {
            for (int rank = 0; rank < RANKS; rank++) {
                bool needs = (need[r][c] >> rank & 1) != 0;
                EXPECT_EQ(y[rank][r][c], needs ? (*logical)[r][c] : -555);
                if (needs) {
                    (*out)[r][c] = y[rank][r][c]; /* replicas are equal: any one counts */
                }
            }
        }
    }
}

static void fill_random(tensor *logical) {
    for (int r = 0; r < ROWS; r++) {
        for (int c = 0; c < COLUMNS; c++) {
            (*logical)[r][c] = chance(-1000, 1000);
        }
    }
}

static int64_t dot(const struct pair *p, const tensor *a, const tensor *b) {
    int64_t sum = 0;
    for (int64_t r = 0; r < p->rows; r++) {
        for (int64_t c = 0; c < p->columns; c++) {
            sum += (int64_t)(*a)[r][c] * (*b)[r][c];
        }
    }
    return sum;
}

/* ---- the claim ---- */

static void expect_direction(const struct pair *p, bool backward, const tensor *in, tensor *out) {
    static struct plan plan;
    make_plan(&plan, p, backward);
    expect_arrivals(&plan);
    int64_t first_hops = expect_first_hops(&plan);
    for (uint64_t rest = UINT64_MAX; rest != 0; rest &= ~p->near[lowest(rest)]) {
        expect_relays(&plan, lowest(rest), first_hops);
    }
    expect_values(&plan, in, out);
    if (chance(0, 9) == 0) {
        EXPECT_OK(troupe_route_check(plan.route, p->offsets[plan.from], p->offsets[plan.to]));
    }
    fini_plan(&plan);
}

static int pairs = PAIRS;

static void random_pairs_meet_every_bound(void) {
    static tensor x, y, tx, ty;
    for (int i = 0; i < pairs; i++) {
        struct pair p;
        uint64_t state = chance_state;
        random_pair(&p);
        fill_random(&x);
        fill_random(&y);
        expect_direction(&p, false, &x, &tx);
        if (!p.partly_wanted) { /* no gradient comes for what nobody wants */
            expect_direction(&p, true, &y, &ty);
            EXPECT_EQ(dot(&p, &tx, &y), dot(&p, &x, &ty));
        }
        fini_pair(&p);
        (void)state;
    }
    printf("    %d pairs, both ways\n", pairs);
}

int main(int argc, char **argv) {
    chance_state = test_seed() + (argc > 2 ? (uint64_t)atoi(argv[2]) : 0);
    pairs = argc > 1 ? atoi(argv[1]) : PAIRS;
    TEST(random_pairs_meet_every_bound);
    return TEST_END();
}
