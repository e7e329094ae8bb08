/* SPDX-License-Identifier: Apache-2.0 */
/* Who encodes what, on log-normal image sizes: the largest load and the rows moved against their
 * bounds; the same twice. */
#include "modules/data/image_owners.h"

#include "runtime/clock.h"
#include "runtime/random.h"
#include "tests/test.h"

enum { RANKS_MAX = 64, PER_RANK_MAX = 16, IMAGES_MAX = RANKS_MAX * PER_RANK_MAX };

struct images {
    struct troupe_image_problem problem;
    int32_t tokens[IMAGES_MAX];
    int homes[IMAGES_MAX], owners[IMAGES_MAX], again[IMAGES_MAX];
};

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
    struct troupe_image_balance balance;
    EXPECT_OK(troupe_image_owners(&m->problem, m->owners));
    EXPECT_OK(troupe_image_owners(&m->problem, m->again));
    for (int i = 0; i < m->problem.images; i++) {
        EXPECT(m->owners[i] >= 0 && m->owners[i] < m->problem.ranks, "image %d has owner %d", i,
               m->owners[i]);
        EXPECT_EQ(m->owners[i], m->again[i]);
    }
    EXPECT_OK(troupe_image_balance(&m->problem, m->owners, &balance));
    return balance;
}

static double load_ratio(const struct images *m, const struct troupe_image_balance *b) {
    double mean = (double)b->load_total / m->problem.ranks;
    return (double)b->load_max / (mean > (double)b->largest ? mean : (double)b->largest);
}

struct worst {
    double load, moved, ms;
    int cases, near; /* rows moved within a tenth of the bound */
};

static void check(struct images *m, struct worst *worst) {
    uint64_t begin_ns = troupe_clock_ns();
    struct troupe_image_balance b = solve(m);
    double ms = (double)(troupe_clock_ns() - begin_ns) * 1e-6 / 2;
    double load = load_ratio(m, &b);
    double moved =
        b.loads_over > 0 ? (double)b.rows_moved / (double)b.loads_over : 1 + (double)b.rows_moved;
    EXPECT(load <= 1.05, "load %g of the larger of mean and largest image", load);
    worst->cases++;
    worst->near += moved <= 1.1;
    worst->load = fmax(worst->load, load);
    worst->moved = fmax(worst->moved, moved);
    worst->ms = fmax(worst->ms, ms);
}

static void loads_and_moves_are_near_their_bounds(void) {
    static const double sigmas[] = {0.5, 0.75, 1.0};
    static const int ranks[] = {8, 12, 16, 31, 32, 64};
    static struct images m;
    uint64_t seed = test_seed(), stream = 0;
    for (size_t s = 0; s < sizeof sigmas / sizeof *sigmas; s++) {
        struct worst worst = {0};
        for (size_t r = 0; r < sizeof ranks / sizeof *ranks; r++) {
            for (int k = 0; k < 20; k++, stream++) {
                int per_rank = k % 2 == 0 ? 8 : 16;
                draw(&m, seed, stream, sigmas[s], ranks[r], per_rank, ranks[r]);
                check(&m, &worst);
            }
        }
        printf("    sigma %.2f: load at most %.4f; %d of %d within 1.1 of the bound on rows, worst "
               "%.2f; %.0f ms\n",
               sigmas[s], worst.load, worst.near, worst.cases, worst.moved, worst.ms);
        EXPECT(worst.near >= worst.cases * 3 / 4, "%d of %d", worst.near, worst.cases);
    }
}

static void a_pipeline_takes_the_images_of_its_first_stage(void) {
    static struct images m;
    struct worst worst = {0};
    uint64_t seed = test_seed();
    for (int k = 0; k < 40; k++) {
        draw(&m, seed, 1000 + (uint64_t)k, 0.75, 32, 8, k % 2 == 0 ? 16 : 8);
        check(&m, &worst);
    }
    printf("    load at most %.4f, rows moved %.3f of the bound\n", worst.load, worst.moved);
    EXPECT_EQ(worst.near, worst.cases);
}

static void quadratic_costs_are_balanced(void) {
    static struct images m;
    uint64_t seed = test_seed();
    for (int k = 0; k < 40; k++) {
        draw(&m, seed, 2000 + (uint64_t)k, 0.75, 16, 8, 16);
        m.problem.linear = 1000;
        m.problem.quadratic = 1;
        struct troupe_image_balance b = solve(&m);
        EXPECT(load_ratio(&m, &b) <= 1.05, "load %g", load_ratio(&m, &b));
    }
}

static void nothing_moves_where_all_is_balanced(void) {
    static struct images m;
    draw(&m, 1, 1, 0, 8, 8, 8);
    struct troupe_image_balance b = solve(&m);
    EXPECT_EQ(b.rows_moved, 0);
}

int main(void) {
    TEST(loads_and_moves_are_near_their_bounds);
    TEST(a_pipeline_takes_the_images_of_its_first_stage);
    TEST(quadratic_costs_are_balanced);
    TEST(nothing_moves_where_all_is_balanced);
    return TEST_END();
}
