/* SPDX-License-Identifier: Apache-2.0
 *
 * Random pairs of layouts, both ways: what arrives against the layouts element by element, values,
 * the adjoint in exact integers, and the bounds: bytes received (LB1), imported (LB2), the largest
 * first-hop load (LB3, against a maximum flow) and relays, evened out within each host.
 *
 * The tensors are ragged matrices or, if asked for, parameters of two to four dimensions: dense
 * ones split over tp, experts over ep and etp, shards of an optimizer of any size, and any boxes.
 *
 *     unit.comm.route_random [pairs [seed [parameters]]]
 */
#include "comm/route_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"
#include "tests/test.h"

enum {
    RANKS = 64,
    ROWS = 48,
    COLUMNS = 32,
    PAIRS = 2500,
    PARTS = 512,
    GROUPS = 2048,
    RAGGED_COLUMNS = 8
};

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
    struct troupe_layout layouts[2]; /* source, destination; ragged, or of a parameter */
    struct troupe_layout bound[2];
    int64_t offsets[2][PARTS + 1];
    bool parameter;
    int64_t shape[TROUPE_BOX_DIMENSIONS];
    int hosts[RANKS];
    uint64_t near[RANKS];  /* ranks of its host */
    int64_t rows, columns; /* of a parameter: dimension 0, and the others in one */
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
    EXPECT_OK(troupe_layout_init(&options, &p->layouts[s]));
    random_offsets(p->rows, p->layouts[s].part_count / p->layouts[s].chunks, sequences);
    troupe_layout_row_offsets(&p->layouts[s], sequences, p->offsets[s]);
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
                                 &p->layouts[s]));
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
                EXPECT_OK(troupe_layout_add(&p->layouts[s], (first + copy) % few, part, &box));
            }
        }
    }
    random_offsets(p->rows, parts, p->offsets[s]);
}

/* ---- parameters ---- */

static void random_shape(struct pair *p) {
    static const int largest[][3] = {{COLUMNS, 1, 1}, {COLUMNS / 3, 3, 1}, {COLUMNS / 6, 3, 2}};
    const int *most = largest[chance(0, 2)];
    p->parameter = true;
    p->columns = 1;
    p->shape[0] = p->rows = chance(1, ROWS / 2);
    for (int d = 1; d < TROUPE_BOX_DIMENSIONS; d++) {
        p->shape[d] = chance(1, most[d - 1]);
        p->columns *= p->shape[d];
    }
}

static void init_parameter(struct pair *p, int s, struct troupe_layout_options options) {
    memcpy(options.shape, p->shape, sizeof p->shape);
    EXPECT_OK(troupe_layout_init(&options, &p->layouts[s]));
}

/* One dimension over tp, evenly or not; another over dp, or copies there. */
static void random_dense_side(struct pair *p, int s) {
    struct troupe_mesh mesh;
    int64_t uneven[RANKS + 1];
    random_mesh(&mesh);
    struct troupe_layout_options options = {.mesh = &mesh,
                                            .stage = s == 0 ? mesh.size[TROUPE_PP] - 1 : 0};
    int d = chance(0, TROUPE_BOX_DIMENSIONS - 1), other = (d + chance(1, 3)) % 4;
    random_offsets(p->shape[d], mesh.size[TROUPE_TP], uneven);
    options.split[d] = TROUPE_AXES(TROUPE_TP);
    options.offsets[d] = chance(0, 1) == 0 ? uneven : NULL;
    if (chance(0, 1) == 0) {
        options.split[other] = TROUPE_AXES(TROUPE_DP);
    }
    init_parameter(p, s, options);
    troupe_mesh_fini(&mesh);
}

/* Experts, dimension 0, over ep; below each, another dimension over etp; copies on edp. */
static void random_expert_side(struct pair *p, int s) {
    static const int sizes[][3] = {{1, 2, 2}, {2, 4, 1},  {3, 5, 1}, {2, 2, 5},  {1, 7, 3},
                                   {4, 8, 2}, {1, 13, 1}, {3, 3, 7}, {2, 1, 11}, {1, 64, 1}};
    const int *size = sizes[chance(0, (int)TROUPE_COUNT_OF(sizes) - 1)]; /* etp, ep, edp */
    struct troupe_mesh mesh;
    int ranks[RANKS], count = size[0] * size[1] * size[2];
    random_ranks(count, ranks);
    EXPECT_OK(troupe_mesh_init(
        &(struct troupe_mesh_options){
            .ranks = ranks, .rank_count = count, .dp = count, .etp = size[0], .ep = size[1]},
        &mesh));
    struct troupe_layout_options options = {.mesh = &mesh, .split = {TROUPE_AXES(TROUPE_EP)}};
    options.split[chance(1, TROUPE_BOX_DIMENSIONS - 1)] = TROUPE_AXES(TROUPE_ETP);
    init_parameter(p, s, options);
    troupe_mesh_fini(&mesh);
}

/* Rows, each rank's as many as chance gives it: shards of an optimizer, some of them empty. */
static void random_shards_side(struct pair *p, int s) {
    int64_t offsets[RANKS + 1];
    int ranks[RANKS], count = chance(1, RANKS);
    random_ranks(count, ranks);
    random_offsets(p->shape[0], count, offsets);
    init_parameter(p, s, (struct troupe_layout_options){.mesh = NULL});
    for (int i = 0; i < count; i++) {
        struct troupe_box box = {.begin = {offsets[i]}};
        memcpy(box.end, p->shape, sizeof box.end);
        box.end[0] = offsets[i + 1];
        EXPECT_OK(troupe_layout_add(&p->layouts[s], ranks[i], -1, &box));
    }
}

/* A grid over two dimensions, each of its boxes on a few ranks; not all need be wanted. */
static void random_boxes_side(struct pair *p, int s) {
    int64_t low[4], high[4];
    int d = chance(1, TROUPE_BOX_DIMENSIONS - 1), few = chance(6, RANKS), cuts = chance(1, 3);
    random_offsets(p->shape[0], cuts, low);
    random_offsets(p->shape[d], cuts, high);
    init_parameter(p, s, (struct troupe_layout_options){.mesh = NULL});
    for (int i = 0; i < cuts * cuts; i++) {
        struct troupe_box box = {.begin = {low[i / cuts]}};
        memcpy(box.end, p->shape, sizeof box.end);
        box.end[0] = low[i / cuts + 1];
        box.begin[d] = high[i % cuts];
        box.end[d] = high[i % cuts + 1];
        int first = chance(0, few - 1), copies = s == 0 ? chance(1, 6) : chance(0, 6);
        p->partly_wanted = p->partly_wanted || copies == 0;
        for (int copy = 0; copy < copies; copy++) {
            EXPECT_OK(troupe_layout_add(&p->layouts[s], (first + copy) % few, -1, &box));
        }
    }
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

static void random_ragged_pair(struct pair *p) {
    p->rows = p->shape[0] = chance(0, ROWS);
    p->columns = p->shape[1] = chance(1, RAGGED_COLUMNS);
    p->shape[2] = p->shape[3] = 1;
    for (int s = 0; s < 2; s++) {
        (chance(0, 3) == 0 ? random_cells_side : random_mesh_side)(p, s);
        EXPECT_OK(troupe_layout_bind(&p->layouts[s], p->offsets[s], &p->bound[s]));
    }
}

static void random_parameter_pair(struct pair *p) {
    static void (*const sides[])(struct pair *, int) = {random_dense_side, random_expert_side,
                                                        random_shards_side, random_boxes_side};
    random_shape(p);
    for (int s = 0; s < 2; s++) {
        sides[chance(0, (int)TROUPE_COUNT_OF(sides) - 1)](p, s);
    }
}

static void random_pair(struct pair *p, bool parameter) {
    *p = (struct pair){.parameter = false};
    random_hosts(p);
    (parameter ? random_parameter_pair : random_ragged_pair)(p);
}

/* With its rows. */
static const struct troupe_layout *bound_of(const struct pair *p, int side) {
    return p->parameter ? &p->layouts[side] : &p->bound[side];
}

static const int64_t *offsets_of(const struct pair *p, int side) {
    return p->parameter ? NULL : p->offsets[side];
}

static void fini_pair(struct pair *p) {
    for (int s = 0; s < 2; s++) {
        troupe_layout_fini(&p->layouts[s]);
        troupe_layout_fini(&p->bound[s]);
    }
}

struct element {
    int64_t row, column;
};

/* The box's elements, row major; returns how many. */
static int64_t list_elements(const struct pair *p, const struct troupe_box *box,
                             struct element out[ROWS * COLUMNS]) {
    int64_t at[TROUPE_BOX_DIMENSIONS], count = troupe_box_elements(box);
    memcpy(at, box->begin, sizeof at);
    for (int64_t i = 0; i < count; i++) {
        out[i] = (struct element){at[0], (at[1] * p->shape[2] + at[2]) * p->shape[3] + at[3]};
        for (int d = TROUPE_BOX_DIMENSIONS - 1; ++at[d] == box->end[d] && d > 0; d--) {
            at[d] = box->begin[d];
        }
    }
    return count;
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

static void map_layout(const struct pair *p, int side, ranks_map map) {
    static struct element elements[ROWS * COLUMNS];
    const struct troupe_layout *layout = bound_of(p, side);
    memset(map, 0, sizeof(ranks_map));
    for (int i = 0; i < layout->piece_count; i++) {
        int64_t count = list_elements(p, &layout->pieces[i].box, elements);
        for (int64_t e = 0; e < count; e++) {
            map[elements[e].row][elements[e].column] |= UINT64_C(1) << layout->pieces[i].rank;
        }
    }
}

static void make_plan(struct plan *plan, const struct pair *p, bool backward) {
    static struct problem firsts;
    firsts.count = 0;
    *plan = (struct plan){.pair = p, .from = backward, .to = !backward, .firsts = &firsts};
    EXPECT_OK(
        troupe_route_compile(&(struct troupe_route_options){.source = &p->layouts[plan->from],
                                                            .destination = &p->layouts[plan->to],
                                                            .host_of_rank = p->hosts,
                                                            .element_bytes = 4},
                             &plan->route));
    plan->count = troupe_route_rank_count(plan->route);
    for (int i = 0; i < plan->count; i++) {
        int rank = troupe_route_rank(plan->route, i);
        EXPECT_OK(troupe_route_binding_create(plan->route, rank, &plan->bindings[rank]));
        troupe_memory_set_steady(true); /* an allocation would abort */
        EXPECT_OK(troupe_route_bind(plan->bindings[rank], offsets_of(p, plan->from),
                                    offsets_of(p, plan->to)));
        troupe_memory_set_steady(false);
    }
    map_layout(p, plan->from, plan->have);
    map_layout(p, plan->to, plan->lack);
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

static void paint(const struct pair *p, const struct troupe_route_message *m, int rank,
                  struct arrivals *arrivals) {
    static struct element elements[ROWS * COLUMNS];
    int64_t all = 0;
    for (int i = 0; i < m->box_count; i++) {
        int64_t count = list_elements(p, &m->boxes[i], elements);
        for (int64_t e = 0; e < count; e++) {
            int64_t r = elements[e].row, c = elements[e].column;
            EXPECT_EQ(arrivals->from[r][c][rank], -1);
            arrivals->from[r][c][rank] = (int8_t)m->peer;
            arrivals->relayed[r][c] |= m->relayed ? UINT64_C(1) << rank : 0;
        }
        all += count;
    }
    EXPECT_EQ(m->elements, all);
    EXPECT_EQ(m->bytes, 4 * (size_t)all);
    EXPECT(all > 0, "an empty message from rank %d", m->peer);
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
            paint(p, &b->receives[m], rank, &arrivals);
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

/* Between a tensor and the bytes of a message; the boxes of a parameter are no matrices. */
static void copy_elements(const struct pair *p, const struct troupe_route_message *message,
                          tensor *x, int32_t *wire, bool pack) {
    static struct element elements[ROWS * COLUMNS];
    for (int b = 0; b < message->box_count; b++) {
        int64_t count = list_elements(p, &message->boxes[b], elements);
        for (int64_t e = 0; e < count; e++, wire++) {
            int32_t *at = &(*x)[elements[e].row][elements[e].column];
            *(pack ? wire : at) = pack ? *at : *wire;
        }
    }
}

static void pack(const struct pair *p, const struct troupe_route_message *message, tensor *x,
                 int32_t *wire) {
    struct troupe_route_view view = view_of(p, x);
    if (p->parameter) {
        copy_elements(p, message, x, wire, true);
    } else {
        troupe_route_message_pack(message, &view, wire);
    }
}

static void unpack(const struct pair *p, const struct troupe_route_message *message, int32_t *wire,
                   tensor *x) {
    struct troupe_route_view view = view_of(p, x);
    if (p->parameter) {
        copy_elements(p, message, x, wire, false);
    } else {
        troupe_route_message_unpack(message, wire, &view);
    }
}

static void carry(const struct plan *plan, const struct troupe_route_message *send, int from,
                  tensor *x, tensor *y) {
    static int32_t wire[ROWS * COLUMNS];
    const struct troupe_route_binding *to = plan->bindings[send->peer];
    pack(plan->pair, send, &x[from], wire);
    for (int i = 0; i < to->receive_count; i++) {
        if (to->receives[i].peer == from && to->receives[i].relayed == send->relayed) {
            EXPECT_EQ(to->receives[i].bytes, send->bytes);
            EXPECT_EQ(to->receives[i].origin, send->origin);
            unpack(plan->pair, &to->receives[i], wire, &y[send->peer]);
            return;
        }
    }
    TEST_FAIL("rank %d expects nothing from rank %d", send->peer, from);
}

/* Moves `logical` from the holders to everyone who needs it: afterwards y is it there. */
static void expect_values(const struct plan *plan, const tensor *logical, tensor *out) {
    static tensor x[RANKS], y[RANKS];
    static int32_t wire[ROWS * COLUMNS];
    ranks_map need;
    const struct pair *p = plan->pair;
    map_layout(p, plan->to, need);
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
        for (int m = 0; b != NULL && m < b->send_count; m++) {
            carry(plan, &b->sends[m], rank, x, y);
        }
        if (b != NULL) {
            pack(p, &b->kept, &x[rank], wire);
            unpack(p, &b->kept, wire, &y[rank]);
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
        EXPECT_OK(troupe_route_check(plan.route, offsets_of(p, plan.from), offsets_of(p, plan.to)));
    }
    fini_plan(&plan);
}

static int pairs = PAIRS;
static bool parameters;

static void random_pairs_meet_every_bound(void) {
    static tensor x, y, tx, ty;
    for (int i = 0; i < pairs; i++) {
        struct pair p;
        random_pair(&p, parameters);
        fill_random(&x);
        fill_random(&y);
        expect_direction(&p, false, &x, &tx);
        if (!p.partly_wanted) { /* no gradient comes for what nobody wants */
            expect_direction(&p, true, &y, &ty);
            EXPECT_EQ(dot(&p, &tx, &y), dot(&p, &x, &ty));
        }
        fini_pair(&p);
    }
    printf("    %d pairs, both ways\n", pairs);
}

int main(int argc, char **argv) {
    chance_state = test_seed() + (argc > 2 ? (uint64_t)atoi(argv[2]) : 0);
    pairs = argc > 1 ? atoi(argv[1]) : PAIRS;
    parameters = argc > 3 && strcmp(argv[3], "parameters") == 0;
    TEST(random_pairs_meet_every_bound);
    return TEST_END();
}
