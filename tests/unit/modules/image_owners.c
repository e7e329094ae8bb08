/* SPDX-License-Identifier: Apache-2.0 */
/* Who encodes what, on log-normal image sizes: the largest load and the rows moved against their
 * bounds; the same twice. */
#include "modules/data/image_owners.h"

#include <stdbool.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/clock.h"
#include "runtime/random.h"
#include "tests/test.h"

enum { RANKS_MAX = 64, PER_RANK_MAX = 16, IMAGES_MAX = RANKS_MAX * PER_RANK_MAX };

struct images {
    troupe_image_owners *solver;
    struct troupe_image_problem problem;
    int32_t tokens[IMAGES_MAX];
    int homes[IMAGES_MAX], owners[IMAGES_MAX], again[IMAGES_MAX];
    int home_of_rank[RANKS_MAX];
};

static struct images all;

/* `home_ranks`: the first LLM stage's; images in order of sample, shared out as near-evenly as the
 * samples are. */
static void draw(struct images *m, uint64_t seed, uint64_t stream, double sigma, int ranks,
                 int per_rank, int home_ranks) {
    int images = ranks * per_rank;
    for (int i = 0; i < images; i++) {
        double size = 256 * exp(sigma * troupe_random_normal(seed, stream, (uint64_t)i));
        m->tokens[i] = size < 1 ? 1 : (int32_t)size;
        m->homes[i] = i * home_ranks / images;
    }
    m->problem = (struct troupe_image_problem){
        .tokens = m->tokens, .homes = m->homes, .images = images, .ranks = ranks, .linear = 1};
}

static struct troupe_image_balance solve(struct images *m) {
    troupe_image_owners_find(m->solver, &m->problem, m->owners);
    troupe_image_owners_find(m->solver, &m->problem, m->again);
    for (int i = 0; i < m->problem.images; i++) {
        EXPECT(m->owners[i] >= 0 && m->owners[i] < m->problem.ranks, "image %d has owner %d", i,
               m->owners[i]);
        EXPECT_EQ(m->owners[i], m->again[i]);
    }
    return troupe_image_owners_balance(m->solver, &m->problem, m->owners);
}

static double load_ratio(const struct images *m, const struct troupe_image_balance *b) {
    double mean = (double)b->load_total / m->problem.ranks;
    return (double)b->load_max / (mean > (double)b->largest ? mean : (double)b->largest);
}

/* The fewest rows that leave one home of at most PER_RANK_MAX whole images, by trying all. */
static int64_t whole_rows(const int32_t *tokens, int count, int64_t excess) {
    int64_t fewest = INT64_MAX;
    for (unsigned set = 0; set < 1U << count; set++) {
        int64_t rows = 0;
        for (int i = 0; i < count; i++) {
            rows += set >> i & 1 ? tokens[i] : 0;
        }
        fewest = rows >= excess && rows < fewest ? rows : fewest;
    }
    return fewest;
}

/* What must move at least under this largest load, as images are moved whole; cost is tokens, a
 * rank's images are adjacent. */
static int64_t whole_bound(const struct images *m, int64_t load_max) {
    int per_rank = m->problem.images / m->problem.ranks;
    int64_t bound = 0;
    for (int r = 0; r < m->problem.ranks; r++) {
        const int32_t *tokens = m->tokens + r * per_rank;
        int64_t load = 0;
        for (int i = 0; i < per_rank; i++) {
            load += tokens[i];
        }
        bound += load > load_max ? whole_rows(tokens, per_rank, load - load_max) : 0;
    }
    return bound;
}

struct worst {
    double load, moved, ms;
    int cases, near; /* rows moved within a tenth of the bound */
    int whole;       /* of the others, within a tenth of the bound for whole images */
};

static bool within_a_tenth(int64_t rows, int64_t bound) {
    return 10 * rows <= 11 * bound;
}

static void check(struct images *m, struct worst *worst) {
    uint64_t begin_ns = troupe_clock_ns();
    struct troupe_image_balance b = solve(m);
    double ms = (double)(troupe_clock_ns() - begin_ns) * 1e-6 / 2;
    double load = load_ratio(m, &b);
    bool near = within_a_tenth(b.rows_moved, b.rows_least);
    EXPECT(load <= 1.05, "load %g of the larger of mean and largest image", load);
    worst->cases++;
    worst->near += near;
    worst->whole += !near && within_a_tenth(b.rows_moved, whole_bound(m, b.load_max));
    worst->load = fmax(worst->load, load);
    worst->moved = fmax(worst->moved, (double)(b.rows_moved + 1) / (double)(b.rows_least + 1));
    worst->ms = fmax(worst->ms, ms);
}

static void loads_and_moves_are_near_their_bounds(void) {
    static const double sigmas[] = {0.5, 0.75, 1.0};
    static const int ranks[] = {8, 12, 16, 31, 32, 64};
    uint64_t seed = test_seed(), stream = 0;
    for (size_t s = 0; s < TROUPE_COUNT_OF(sigmas); s++) {
        struct worst worst = {0};
        for (size_t r = 0; r < TROUPE_COUNT_OF(ranks); r++) {
            for (int k = 0; k < 20; k++, stream++) {
                int per_rank = k % 2 == 0 ? 8 : 16;
                draw(&all, seed, stream, sigmas[s], ranks[r], per_rank, ranks[r]);
                check(&all, &worst);
            }
        }
        printf("    sigma %.2f: load at most %.4f; %d of %d within 1.1 of the bound on rows, %d "
               "more within 1.1 of that for whole images, worst %.2f; %.1f ms\n",
               sigmas[s], worst.load, worst.near, worst.cases, worst.whole, worst.moved, worst.ms);
        EXPECT(worst.near + worst.whole >= worst.cases * 9 / 10, "%d and %d of %d", worst.near,
               worst.whole, worst.cases);
        EXPECT(worst.moved < 4, "rows moved are %g of the bound", worst.moved);
    }
}

static void a_pipeline_takes_the_images_of_its_first_stage(void) {

    struct worst worst = {0};
    uint64_t seed = test_seed();
    for (int k = 0; k < 40; k++) {
        draw(&all, seed, 1000 + (uint64_t)k, 0.75, 32, 8, k % 2 == 0 ? 16 : 8);
        check(&all, &worst);
    }
    printf("    load at most %.4f, rows moved %.3f of the bound\n", worst.load, worst.moved);
    EXPECT_EQ(worst.near, worst.cases);
}

static void quadratic_costs_are_balanced(void) {

    uint64_t seed = test_seed();
    for (int k = 0; k < 40; k++) {
        draw(&all, seed, 2000 + (uint64_t)k, 0.75, 16, 8, 16);
        all.problem.linear = 1000;
        all.problem.quadratic = 1;
        struct troupe_image_balance b = solve(&all);
        EXPECT(load_ratio(&all, &b) <= 1.05, "load %g", load_ratio(&all, &b));
    }
}

static void nothing_moves_where_all_is_balanced(void) {

    draw(&all, 1, 1, 0, 8, 8, 8);
    struct troupe_image_balance b = solve(&all);
    EXPECT_EQ(b.rows_moved, 0);
}

static void several_ranks_share_a_home(void) {
    uint64_t seed = test_seed();
    int64_t moved = 0, least = 0;
    for (int k = 0; k < 40; k++) {
        draw(&all, seed, 3000 + (uint64_t)k, 0.75, 32, 8, 8);
        for (int r = 0; r < 32; r++) {
            all.home_of_rank[r] = r / 4;
        }
        all.problem.home_of_rank = all.home_of_rank;
        struct troupe_image_balance b = solve(&all);
        EXPECT(load_ratio(&all, &b) <= 1.05, "load %g", load_ratio(&all, &b));
        moved += b.rows_moved;
        least += b.rows_least;
    }
    printf("    rows moved %.3f of the bound\n", (double)moved / (double)least);
    EXPECT(4 * moved < 5 * least, "%lld rows moved of at least %lld", (long long)moved,
           (long long)least);
}

static void images_at_home_nowhere_are_balanced(void) {
    draw(&all, test_seed(), 4000, 0.75, 12, 16, 12);
    for (int i = 0; i < all.problem.images; i++) {
        all.homes[i] = -1;
    }
    struct troupe_image_balance b = solve(&all);
    EXPECT(load_ratio(&all, &b) <= 1.05, "load %g", load_ratio(&all, &b));
    EXPECT_EQ(b.rows_moved, b.rows_least);
}

/* The load of every rank is at most 5 % of the cap's base above its part. */
static void expect_parts(const struct images *m, const int *shares) {
    const struct troupe_image_problem *p = &m->problem;
    int64_t loads[RANKS_MAX] = {0}, total = 0, largest = 0;
    int sum = 0, most = 0;
    for (int i = 0; i < p->images; i++) {
        loads[m->owners[i]] += m->tokens[i];
        total += m->tokens[i];
        largest = m->tokens[i] > largest ? m->tokens[i] : largest;
    }
    for (int r = 0; r < p->ranks; r++) {
        sum += shares[r];
        most = shares[r] > most ? shares[r] : most;
    }
    double part = (double)total * most / sum, base = fmax(part, (double)largest);
    for (int r = 0; r < p->ranks; r++) {
        double room = (double)total * shares[r] / sum + 1.05 * base - part + 2;
        EXPECT((double)loads[r] <= room && (shares[r] > 0 || loads[r] == 0),
               "rank %d with share %d of %d has %lld of %lld", r, shares[r], sum,
               (long long)loads[r], (long long)total);
    }
}

static void loads_are_in_proportion_to_shares(void) {
    uint64_t seed = test_seed();
    for (int k = 0; k < 60; k++) {
        int shares[RANKS_MAX], ranks = 2 + k % 15;
        draw(&all, seed, 5000 + (uint64_t)k, 0.5, ranks, 16, k % 3 == 0 ? ranks : 1 + ranks / 2);
        for (int r = 0; r < ranks; r++) {
            shares[r] = k % 2 == 0 ? r : ranks + 3 * (ranks - r); /* the first one closed, or not */
        }
        all.problem.shares = shares;
        solve(&all);
        expect_parts(&all, shares);
    }
}

static void equal_shares_change_nothing(void) {
    int shares[RANKS_MAX], owners[IMAGES_MAX];
    draw(&all, test_seed(), 6000, 0.75, 16, 8, 16);
    solve(&all);
    memcpy(owners, all.owners, sizeof owners);
    for (int r = 0; r < 16; r++) {
        shares[r] = 7;
    }
    all.problem.shares = shares;
    solve(&all);
    EXPECT_EQ(memcmp(owners, all.owners, (size_t)all.problem.images * sizeof *owners), 0);
}

static void no_images_are_no_trouble(void) {
    draw(&all, 1, 1, 0.75, 8, 0, 8);
    struct troupe_image_balance b = solve(&all);
    EXPECT_EQ(b.load_max, 0);
}

int main(void) {
    EXPECT_OK(troupe_image_owners_create(IMAGES_MAX, RANKS_MAX, &all.solver));
    TEST(loads_and_moves_are_near_their_bounds);
    TEST(a_pipeline_takes_the_images_of_its_first_stage);
    TEST(quadratic_costs_are_balanced);
    TEST(nothing_moves_where_all_is_balanced);
    TEST(several_ranks_share_a_home);
    TEST(images_at_home_nowhere_are_balanced);
    TEST(loads_are_in_proportion_to_shares);
    TEST(equal_shares_change_nothing);
    TEST(no_images_are_no_trouble);
    troupe_image_owners_destroy(all.solver);
    return TEST_END();
}
