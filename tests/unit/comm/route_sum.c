/* SPDX-License-Identifier: Apache-2.0
 *
 * Routes of partial sums. Random pairs of layouts of up to 64 ranks: each sum is made once, of all
 * summands, on a rank that needs it; the bytes are the bound's; the route back, of the copies' own
 * gradients to copies for the summands, is the adjoint in exact integers. And real runs over
 * loopback with delays: every element is bitwise the sum in the order of the summands.
 *
 *     unit.comm.route_sum [pairs [seed]]
 */
#include "comm/route_sum.h"

#include <pthread.h>

#include "runtime/check.h"
#include "tests/test.h"

enum { RANKS = 64, ROWS = 24, COLUMNS = 8, SUMMANDS = 64, PAIRS = 2500, RUN_RANKS = 8, RUNS = 60 };

/* ---- chance ---- */

static uint64_t chance_state;

/* splitmix64 (Steele, Lea, Flood, 2014); uniform in [low, high]. */
static int chance(int low, int high) {
    uint64_t z = chance_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return low + (int)((z ^ (z >> 31)) % (uint64_t)(high - low + 1));
}

/* ---- pairs ---- */

enum form { COPIES, SUMS, FORMS };

struct pair {
    int64_t rows, columns;
    int ranks;                              /* all are below */
    struct troupe_layout layouts[2][FORMS]; /* the same boxes */
    int hosts[RANKS];
};

static void random_offsets(int64_t total, int parts, int64_t *offsets) {
    offsets[0] = 0;
    for (int i = 1; i < parts; i++) {
        int step = chance(0, 3) == 0 ? 0 : chance(0, (int)(2 * total / parts) + 1);
        offsets[i] = offsets[i - 1] + step < total ? offsets[i - 1] + step : total;
    }
    offsets[parts] = total;
}

static void random_mesh(const struct pair *p, struct troupe_mesh *mesh) {
    static const int sizes[][3] = {/* tp, cp, dp */
                                   {1, 1, 1}, {2, 1, 1},  {1, 1, 3},  {2, 1, 2},  {3, 1, 2},
                                   {5, 1, 1}, {1, 2, 3},  {7, 1, 1},  {2, 2, 2},  {1, 1, 8},
                                   {3, 1, 5}, {1, 1, 11}, {13, 1, 1}, {4, 1, 4},  {2, 3, 4},
                                   {8, 1, 4}, {2, 2, 16}, {8, 2, 4},  {1, 1, 31}, {7, 3, 3}};
    const int *size = NULL;
    int ranks[RANKS], count = 0;
    do {
        size = sizes[chance(0, (int)TROUPE_COUNT_OF(sizes) - 1)];
        count = size[0] * size[1] * size[2];
    } while (count > p->ranks);
    int first = chance(0, p->ranks - count);
    for (int i = 0; i < count; i++) {
        ranks[i] = first + i;
    }
    EXPECT_OK(troupe_mesh_init(
        &(struct troupe_mesh_options){
            .ranks = ranks, .rank_count = count, .tp = size[0], .cp = size[1], .dp = size[2]},
        mesh));
}

/* Each axis splits the rows, or the columns, or is left over: then it has copies, or sums if asked
 * for and, at chance, not all of them. */
static void random_side(struct pair *p, int s) {
    static const enum troupe_axis axes[] = {TROUPE_DP, TROUPE_CP, TROUPE_TP};
    struct troupe_mesh mesh;
    int64_t uneven[RANKS + 1];
    random_mesh(p, &mesh);
    struct troupe_layout_options options = {.mesh = &mesh, .shape = {p->rows, p->columns}};
    struct troupe_axes partial = {0};
    bool all = chance(0, 2) > 0;
    for (size_t i = 0; i < TROUPE_COUNT_OF(axes); i++) {
        int use = chance(0, 4);
        struct troupe_axes *to = use < 2 ? &options.split[use] : all || use == 2 ? &partial : NULL;
        if (to != NULL) {
            to->axis[to->count++] = axes[i];
        }
    }
    int parts = troupe_mesh_group_size(&mesh, options.split[1]);
    random_offsets(p->columns, parts, uneven);
    options.offsets[1] = chance(0, 1) == 0 ? uneven : NULL;
    for (int form = 0; form < FORMS; form++) {
        options.partial = form == SUMS ? partial : (struct troupe_axes){0};
        EXPECT_OK(troupe_layout_init(&options, &p->layouts[s][form]));
    }
    troupe_mesh_fini(&mesh);
}

static void random_pair(struct pair *p, int ranks) {
    *p = (struct pair){.rows = chance(1, ROWS), .columns = chance(1, COLUMNS), .ranks = ranks};
    int host_size = chance(1, 16);
    for (int r = 0; r < RANKS; r++) {
        p->hosts[r] = r / host_size;
    }
    random_side(p, 0);
    random_side(p, 1);
}

static void fini_pair(struct pair *p) {
    for (int s = 0; s < 2; s++) {
        for (int form = 0; form < FORMS; form++) {
            troupe_layout_fini(&p->layouts[s][form]);
        }
    }
}

/* ---- the plan, element by element ---- */

typedef int64_t tensor[ROWS][COLUMNS];
typedef uint64_t ranks_map[ROWS][COLUMNS];

struct plan {
    const struct pair *pair;
    const struct troupe_layout *from, *to;
    troupe_route_sum *sum;
    ranks_map have, need;
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

static void make_plan(struct plan *plan, const struct pair *p, int from) {
    *plan =
        (struct plan){.pair = p, .from = &p->layouts[from][SUMS], .to = &p->layouts[!from][COPIES]};
    EXPECT_OK(troupe_route_sum_compile(&(struct troupe_route_options){.source = plan->from,
                                                                      .destination = plan->to,
                                                                      .host_of_rank = p->hosts,
                                                                      .element_bytes = 8},
                                       &plan->sum));
    map_layout(plan->from, plan->have);
    map_layout(plan->to, plan->need);
}

/* One rank adds, one that has a summand if such a one needs the sum; and the bytes. */
static void expect_bound(const struct plan *plan) {
    static ranks_map adders;
    int count = troupe_route_sum_count(plan->sum);
    size_t received = 0, bound = 0;
    map_layout(troupe_route_source(troupe_route_sum_spread(plan->sum)), adders);
    for (int64_t r = 0; r < plan->pair->rows; r++) {
        for (int64_t c = 0; c < plan->pair->columns; c++) {
            uint64_t need = plan->need[r][c], both = need & plan->have[r][c];
            EXPECT_EQ(__builtin_popcountll(adders[r][c]), need != 0);
            EXPECT_EQ(adders[r][c] & ~(both != 0 ? both : need), 0);
            if (need != 0) {
                bound += (size_t)(count + __builtin_popcountll(need) - 1 - (both != 0));
            }
        }
    }
    for (int rank = 0; rank < plan->pair->ranks; rank++) {
        troupe_route_sum_binding *binding = NULL;
        EXPECT_OK(troupe_route_sum_binding_create(plan->sum, rank, &binding));
        received += troupe_route_sum_bytes(binding).received;
        troupe_route_sum_binding_destroy(binding);
    }
    EXPECT_EQ(received, 8 * bound);
}

/* For each element of the message: to = from, or += if it adds. */
static void carry(const struct troupe_route_message *m, const tensor *from, tensor *to, bool add) {
    for (int b = 0; b < m->box_count; b++) {
        const struct troupe_box *box = &m->boxes[b];
        for (int64_t r = box->begin[0]; r < box->end[0]; r++) {
            for (int64_t c = box->begin[1]; c < box->end[1]; c++) {
                (*to)[r][c] = (*from)[r][c] + (add ? (*to)[r][c] : 0);
            }
        }
    }
}

static struct troupe_route_binding *bind(const troupe_route *route, int rank) {
    struct troupe_route_binding *binding = NULL;
    EXPECT_OK(troupe_route_binding_create(route, rank, &binding));
    EXPECT_OK(troupe_route_bind(binding, NULL, NULL));
    return binding;
}

/* y: by rank, what it has afterwards; -1 where it needs nothing. */
static void apply(const struct plan *plan, const tensor *summands, tensor *y) {
    static tensor sums[RANKS];
    int ranks = plan->pair->ranks;
    memset(sums, 0, sizeof sums);
    memset(y, -1, sizeof(tensor) * RANKS);
    for (int k = 0; k < troupe_route_sum_count(plan->sum); k++) {
        for (int rank = 0; rank < ranks; rank++) {
            struct troupe_route_binding *b = bind(troupe_route_sum_gather(plan->sum, k), rank);
            carry(&b->kept, &summands[k], &sums[rank], true);
            for (int m = 0; m < b->receive_count; m++) {
                carry(&b->receives[m], &summands[k], &sums[rank], true);
            }
            troupe_route_binding_destroy(b);
        }
    }
    for (int relayed = 0; relayed < 2; relayed++) {
        for (int rank = 0; rank < ranks; rank++) {
            struct troupe_route_binding *b = bind(troupe_route_sum_spread(plan->sum), rank);
            carry(&b->kept, &sums[rank], &y[rank], false);
            for (int m = 0; m < b->receive_count; m++) {
                const struct troupe_route_message *receive = &b->receives[m];
                if (receive->relayed == (relayed == 1)) {
                    carry(receive, relayed ? &y[receive->peer] : &sums[receive->peer], &y[rank],
                          false);
                }
            }
            troupe_route_binding_destroy(b);
        }
    }
}

/* Every rank that needs an element has the sum, and nothing else is touched. */
static void expect_sums(const struct plan *plan, const tensor *summands, const tensor *y) {
    for (int64_t r = 0; r < plan->pair->rows; r++) {
        for (int64_t c = 0; c < plan->pair->columns; c++) {
            int64_t sum = 0;
            for (int k = 0; k < troupe_route_sum_count(plan->sum); k++) {
                sum += summands[k][r][c];
            }
            for (int rank = 0; rank < plan->pair->ranks; rank++) {
                EXPECT_EQ(y[rank][r][c], (plan->need[r][c] >> rank & 1) != 0 ? sum : -1);
            }
        }
    }
}

/* The composed routes are whole, by the check that knows nothing of how they were made. */
static void expect_routes(const struct plan *plan) {
    for (int k = 0; k < troupe_route_sum_count(plan->sum); k++) {
        EXPECT_OK(troupe_route_check(troupe_route_sum_gather(plan->sum, k), NULL, NULL));
    }
    EXPECT_OK(troupe_route_check(troupe_route_sum_spread(plan->sum), NULL, NULL));
}

static void fill_random(tensor *x, int count) {
    for (int64_t i = 0; i < count * ROWS * COLUMNS; i++) {
        x[i / (ROWS * COLUMNS)][i / COLUMNS % ROWS][i % COLUMNS] = chance(0, 1000);
    }
}

/* The sum over all that the ranks of the layout have, each summand and each of its copies by
 * itself: weights[summand] . values[rank]. */
static int64_t dot(const struct troupe_layout *layout, const tensor *weights,
                   const tensor *values) {
    int64_t sum = 0;
    for (int i = 0; i < layout->piece_count; i++) {
        const struct troupe_layout_piece *piece = &layout->pieces[i];
        for (int64_t r = piece->box.begin[0]; r < piece->box.end[0]; r++) {
            for (int64_t c = piece->box.begin[1]; c < piece->box.end[1]; c++) {
                sum += weights[piece->summand][r][c] * values[piece->rank][r][c];
            }
        }
    }
    return sum;
}

/* How many ranks hold copies of one summand, where that is the same everywhere. */
static int64_t copies_of(const struct troupe_layout *layout) {
    int64_t held = 0;
    for (int i = 0; i < layout->piece_count; i++) {
        held += troupe_box_elements(&layout->pieces[i].box);
    }
    return held / (layout->shape[0] * layout->shape[1] * layout->summands);
}

static int pairs = PAIRS;

/* Both ways; the layouts have summands on both sides, or the way back is one of mere copies. */
static void random_pairs_meet_the_bound_and_are_adjoint(void) {
    static tensor x[2][SUMMANDS], y[2][RANKS];
    int adjoint = 0;
    for (int done = 0; done < pairs;) {
        struct pair p;
        struct plan plan;
        random_pair(&p, RANKS);
        bool sums[2] = {p.layouts[0][SUMS].summands > 1, p.layouts[1][SUMS].summands > 1};
        for (int from = 0; from < 2; from++) {
            if (sums[from]) {
                make_plan(&plan, &p, from);
                fill_random(x[from], troupe_route_sum_count(plan.sum));
                expect_bound(&plan);
                apply(&plan, x[from], y[!from]);
                expect_sums(&plan, x[from], y[!from]);
                if (chance(0, 19) == 0) {
                    expect_routes(&plan);
                }
                troupe_route_sum_destroy(plan.sum);
            }
        }
        if (sums[0] && sums[1]) { /* <T x, y> = <x, T* y>, once for each copy of a summand */
            const struct troupe_layout *a = &p.layouts[0][SUMS], *b = &p.layouts[1][SUMS];
            EXPECT_EQ(dot(b, x[1], y[1]) * copies_of(a), dot(a, x[0], y[0]) * copies_of(b));
            adjoint++;
        }
        done += sums[0] || sums[1];
        fini_pair(&p);
    }
    printf("    %d pairs, %d of them both ways\n", pairs, adjoint);
}

/* ---- runs ---- */

struct job {
    struct pair pair;
    troupe_route_sum *sum;
    troupe_loopback *world;
    float summands[SUMMANDS][ROWS][COLUMNS];
};

struct rank {
    struct job *job;
    int rank;
    pthread_t thread;
};

static const struct troupe_layout_piece *piece_of(const struct troupe_layout *layout, int rank) {
    for (int i = 0; i < layout->piece_count; i++) {
        if (layout->pieces[i].rank == rank) {
            return &layout->pieces[i];
        }
    }
    return NULL;
}

/* The rank's box of a matrix that lies whole in memory. */
static struct troupe_route_view view_of(const struct troupe_layout_piece *piece,
                                        float (*data)[COLUMNS]) {
    if (piece == NULL) {
        return (struct troupe_route_view){.data = NULL};
    }
    return (struct troupe_route_view){.data = &data[piece->box.begin[0]][piece->box.begin[1]],
                                      .row_bytes = sizeof data[0],
                                      .element_bytes = sizeof(float),
                                      .box = piece->box};
}

static void *run_rank(void *arg) {
    struct rank *me = arg;
    struct job *job = me->job;
    const struct troupe_layout_piece *in = piece_of(&job->pair.layouts[0][SUMS], me->rank);
    const struct troupe_layout_piece *out = piece_of(&job->pair.layouts[1][COPIES], me->rank);
    float own[ROWS][COLUMNS], y[ROWS][COLUMNS];
    memcpy(own, job->summands[in != NULL ? in->summand : 0], sizeof own);
    struct troupe_route_view from = view_of(in, own), to = view_of(out, y);
    troupe_route_sum_binding *binding = NULL;
    troupe_comm *comm = NULL;
    EXPECT_OK(troupe_comm_open_loopback(job->world, me->rank, &comm));
    EXPECT_OK(troupe_route_sum_binding_create(job->sum, me->rank, &binding));
    for (int repeat = 0; repeat < 2; repeat++) {
        for (int i = 0; i < ROWS * COLUMNS; i++) {
            y[i / COLUMNS][i % COLUMNS] = -1;
        }
        EXPECT_OK(troupe_route_sum_run(
            binding, comm,
            &(struct troupe_route_sum_io){
                .from = &from, .to = &to, .element = TROUPE_ELEMENT_FLOAT32, .tag = 100}));
        for (int r = 0; r < ROWS; r++) {
            for (int c = 0; c < COLUMNS; c++) {
                float sum = job->summands[0][r][c];
                for (int k = 1; k < troupe_route_sum_count(job->sum); k++) {
                    sum += job->summands[k][r][c];
                }
                bool needed = out != NULL && r >= out->box.begin[0] && r < out->box.end[0] &&
                              c >= out->box.begin[1] && c < out->box.end[1];
                float expected = needed ? sum : -1;
                EXPECT(memcmp(&y[r][c], &expected, sizeof expected) == 0,
                       "rank %d row %d column %d: %g, not %g", me->rank, r, c, (double)y[r][c],
                       (double)expected);
            }
        }
    }
    EXPECT_EQ(troupe_comm_bytes_sent(comm),
              2 * (troupe_route_sum_bytes(binding).sent + troupe_route_sum_bytes(binding).relayed));
    troupe_route_sum_binding_destroy(binding);
    troupe_comm_close(comm);
    return NULL;
}

static void run_job(struct job *job, uint64_t seed) {
    struct rank all[RUN_RANKS];
    EXPECT_OK(troupe_loopback_create(
        &(struct troupe_loopback_options){
            .ranks = RUN_RANKS, .seed = seed, .delay_ns_max = seed % 3 == 0 ? 0 : 20000},
        &job->world));
    for (int r = 0; r < RUN_RANKS; r++) {
        all[r] = (struct rank){.job = job, .rank = r};
        EXPECT_EQ(pthread_create(&all[r].thread, NULL, run_rank, &all[r]), 0);
    }
    for (int r = 0; r < RUN_RANKS; r++) {
        pthread_join(all[r].thread, NULL);
    }
    troupe_loopback_destroy(job->world);
}

static void runs_add_in_the_order_of_the_summands(void) {
    static struct job job;
    for (uint64_t done = 0; done < RUNS;) {
        random_pair(&job.pair, RUN_RANKS);
        if (job.pair.layouts[0][SUMS].summands > 1) {
            EXPECT_OK(troupe_route_sum_compile(
                &(struct troupe_route_options){.source = &job.pair.layouts[0][SUMS],
                                               .destination = &job.pair.layouts[1][COPIES],
                                               .host_of_rank = job.pair.hosts,
                                               .element_bytes = sizeof(float)},
                &job.sum));
            for (int i = 0; i < SUMMANDS * ROWS * COLUMNS; i++) { /* sums depend on their order */
                job.summands[i / (ROWS * COLUMNS)][i / COLUMNS % ROWS][i % COLUMNS] =
                    (float)chance(1, 1 << 20) / (float)chance(1, 1 << 10);
            }
            run_job(&job, done);
            troupe_route_sum_destroy(job.sum);
            done++;
        }
        fini_pair(&job.pair);
    }
}

/* ---- known counts, and what is refused ---- */

/* c ranks with partial sums of 12 x 4. */
static void init_partial(int ranks_count, struct troupe_axes rows, struct troupe_axes partial,
                         struct troupe_layout *out) {
    int ranks[] = {0, 1, 2, 3};
    struct troupe_mesh mesh;
    EXPECT_OK(troupe_mesh_init(
        &(struct troupe_mesh_options){.ranks = ranks, .rank_count = ranks_count, .tp = ranks_count},
        &mesh));
    EXPECT_OK(troupe_layout_init(
        &(struct troupe_layout_options){
            .mesh = &mesh, .shape = {12, 4}, .split = {rows}, .partial = partial},
        out));
    troupe_mesh_fini(&mesh);
}

/* What each of four ranks receives, in rows. */
static void expect_rows(struct troupe_layout *to, const int rows[4]) {
    struct troupe_layout from;
    troupe_route_sum *sum = NULL;
    init_partial(4, (struct troupe_axes){0}, TROUPE_AXES(TROUPE_TP), &from);
    EXPECT_OK(troupe_route_sum_compile(
        &(struct troupe_route_options){.source = &from, .destination = to, .element_bytes = 4},
        &sum));
    for (int rank = 0; rank < 4; rank++) {
        troupe_route_sum_binding *binding = NULL;
        EXPECT_OK(troupe_route_sum_binding_create(sum, rank, &binding));
        EXPECT_EQ(troupe_route_sum_bytes(binding).received, (size_t)rows[rank] * 16);
        troupe_route_sum_binding_destroy(binding);
    }
    troupe_route_sum_destroy(sum);
    troupe_layout_fini(&from);
    troupe_layout_fini(to);
}

static void shards_are_a_reduce_scatter(void) {
    struct troupe_layout shards;
    init_partial(4, TROUPE_AXES(TROUPE_TP), (struct troupe_axes){0}, &shards);
    expect_rows(&shards, (int[]){9, 9, 9, 9}); /* (c - 1) / c of 12 rows */
}

static void copies_are_an_all_reduce(void) {
    struct troupe_layout copies;
    init_partial(4, (struct troupe_axes){0}, (struct troupe_axes){0}, &copies);
    expect_rows(&copies, (int[]){18, 18, 18, 18}); /* 2 (c - 1) / c */
}

static void one_rank_gets_all_summands(void) {
    struct troupe_layout one;
    init_partial(1, (struct troupe_axes){0}, (struct troupe_axes){0}, &one);
    expect_rows(&one, (int[]){36, 0, 0, 0});
}

static void what_cannot_be_added_is_refused(void) {
    struct troupe_layout sums, copies;
    troupe_route_sum *sum = NULL;
    troupe_route *route = NULL;
    init_partial(2, (struct troupe_axes){0}, TROUPE_AXES(TROUPE_TP), &sums);
    init_partial(2, (struct troupe_axes){0}, (struct troupe_axes){0}, &copies);
    struct troupe_route_options options = {
        .source = &sums, .destination = &copies, .element_bytes = 4};
    EXPECT_ERROR(troupe_route_compile(&options, &route), TROUPE_ERROR_INVALID,
                 "the source layout has partial sums");
    options.source = &copies;
    EXPECT_ERROR(troupe_route_sum_compile(&options, &sum), TROUPE_ERROR_INVALID,
                 "at least two summands");
    options.destination = &sums;
    EXPECT_ERROR(troupe_route_compile(&options, &route), TROUPE_ERROR_INVALID,
                 "the destination layout has partial sums");
    troupe_layout_fini(&sums);
    troupe_layout_fini(&copies);
}

int main(int argc, char **argv) {
    chance_state = test_seed() + (argc > 2 ? (uint64_t)atoi(argv[2]) : 0);
    pairs = argc > 1 ? atoi(argv[1]) : PAIRS;
    TEST(random_pairs_meet_the_bound_and_are_adjoint);
    TEST(runs_add_in_the_order_of_the_summands);
    TEST(shards_are_a_reduce_scatter);
    TEST(copies_are_an_all_reduce);
    TEST(one_rank_gets_all_summands);
    TEST(what_cannot_be_added_is_refused);
    return TEST_END();
}
