/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/image_owners.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/memory.h"

enum {
    NOBODY = -1,
    NODES_MAX = 256,  /* of one search */
    CAPS = 32,        /* tried */
    TROUBLE_MAX = 32, /* images without a place, until a cap is given up */
};

static const int64_t ROWS_NEVER = INT64_MAX / 2;
static const int64_t LOAD_NEVER = INT64_MAX / 4;

/* Rows moved for each that must be: a cap that costs no more is taken. */
static const double bargain = 1.06;

struct item {
    int image;
    int home; /* the number of ranks: none */
    int64_t cost;
    int64_t rows;
};

/* Whether an image may be given up at home. */
enum tie { FREE, STAYS, GOES };

/* Items [begin, end). */
struct span {
    int begin, end;
};

struct troupe_image_owners {
    int images_max, ranks_max;
    const struct troupe_image_problem *problem;
    struct item *items;      /* (images) by home, those to give up first in front */
    struct span *of_home;    /* (ranks + 1) items */
    int *ranks_of_home;      /* (ranks + 1) how many */
    int *rank_of_home;       /* (ranks + 1) one of them */
    int64_t *ballast;        /* (ranks) how much less than the most each is to have */
    int64_t *rooms;          /* (ranks + 1) scratch, by home */
    int64_t *costs;          /* (images) */
    int *largest_first;      /* (images) */
    bool *chosen, *best;     /* (images): of the search, by item */
    enum tie *ties;          /* (images) under the cap at hand */
    int64_t *loads;          /* (ranks) under the cap at hand */
    struct item *candidates; /* (images): what a rank may give up */
    int candidate_count;
    int *trial; /* (images): owners under the cap at hand */
};

/* ---- life ---- */

troupe_status troupe_image_owners_create(int images_max, int ranks_max, troupe_image_owners **out) {
    troupe_image_owners *s = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY(TROUPE_NEW(&s, 1));
    s->images_max = images_max;
    s->ranks_max = ranks_max;
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->items, images_max));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->of_home, ranks_max + 1));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->ranks_of_home, ranks_max + 1));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->rank_of_home, ranks_max + 1));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->ballast, ranks_max));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->rooms, ranks_max + 1));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->costs, images_max));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->largest_first, images_max));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->chosen, images_max));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->best, images_max));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->candidates, images_max));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->ties, images_max));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->loads, ranks_max));
    TROUPE_TRY_FAIL(TROUPE_NEW(&s->trial, images_max));
    *out = s;
    return TROUPE_OK;
fail:
    troupe_image_owners_destroy(s);
    return status;
}

void troupe_image_owners_destroy(troupe_image_owners *s) {
    if (s == NULL) {
        return;
    }
    troupe_free(s->items);
    troupe_free(s->of_home);
    troupe_free(s->ranks_of_home);
    troupe_free(s->rank_of_home);
    troupe_free(s->ballast);
    troupe_free(s->rooms);
    troupe_free(s->costs);
    troupe_free(s->largest_first);
    troupe_free(s->chosen);
    troupe_free(s->best);
    troupe_free(s->candidates);
    troupe_free(s->ties);
    troupe_free(s->loads);
    troupe_free(s->trial);
    troupe_free(s);
}

/* ---- the problem, in order ---- */

static int home_of_rank(const struct troupe_image_problem *p, int rank) {
    int home = p->home_of_rank == NULL ? rank : p->home_of_rank[rank];
    return home == NOBODY ? p->ranks : home;
}

static bool is_home(const troupe_image_owners *s, int image, int rank) {
    return s->problem->homes[image] != NOBODY &&
           home_of_rank(s->problem, rank) == s->problem->homes[image];
}

static int compare_cost(const void *left, const void *right) {
    const struct item *a = left, *b = right;
    return a->cost != b->cost ? (a->cost > b->cost ? -1 : 1) : a->image - b->image;
}

/* By home; then most cost for a row first, so that the relaxed problem is solved from the front;
 * then large ones; then in order, for the result to be the same everywhere. */
static int compare_gain(const void *left, const void *right) {
    const struct item *a = left, *b = right;
    int64_t x = a->cost * b->rows, y = b->cost * a->rows;
    if (a->home != b->home) {
        return a->home - b->home;
    }
    return x != y ? (x > y ? -1 : 1) : compare_cost(left, right);
}

static bool is_closed(const struct troupe_image_problem *p, int rank) {
    return p->shares != NULL && p->shares[rank] == 0;
}

/* A closed rank has more than any cap, so nothing goes there. */
static void find_ballast(troupe_image_owners *s) {
    const struct troupe_image_problem *p = s->problem;
    int64_t total = 0, sum = 0, most = 0;
    memset(s->ballast, 0, (size_t)p->ranks * sizeof *s->ballast);
    for (int i = 0; i < p->images; i++) {
        total += s->costs[i];
    }
    for (int r = 0; p->shares != NULL && r < p->ranks; r++) {
        sum += p->shares[r];
        most = p->shares[r] > most ? p->shares[r] : most;
    }
    for (int r = 0; p->shares != NULL && r < p->ranks; r++) {
        double missing = (double)(most - p->shares[r]) / (double)sum;
        s->ballast[r] = is_closed(p, r) ? LOAD_NEVER : (int64_t)((double)total * missing);
    }
}

static void begin(troupe_image_owners *s, const struct troupe_image_problem *p) {
    TROUPE_ASSERT(p->images <= s->images_max && p->ranks <= s->ranks_max,
                  "%d images, %d ranks; there is room for %d and %d", p->images, p->ranks,
                  s->images_max, s->ranks_max);
    s->problem = p;
    for (int i = 0; i < p->images; i++) {
        int64_t tokens = p->tokens[i];
        int home = p->homes[i] == NOBODY ? p->ranks : p->homes[i];
        s->costs[i] = p->linear * tokens + p->quadratic * tokens * tokens;
        s->items[i] = (struct item){i, home, s->costs[i], tokens};
    }
    find_ballast(s);
    qsort(s->items, (size_t)p->images, sizeof *s->items, compare_cost);
    for (int i = 0; i < p->images; i++) {
        s->largest_first[i] = s->items[i].image;
    }
    qsort(s->items, (size_t)p->images, sizeof *s->items, compare_gain);
    memset(s->ranks_of_home, 0, (size_t)(p->ranks + 1) * sizeof *s->ranks_of_home);
    for (int r = 0; r < p->ranks; r++) {
        s->ranks_of_home[home_of_rank(p, r)]++;
        s->rank_of_home[home_of_rank(p, r)] = r;
    }
    for (int h = 0, i = 0; h <= p->ranks; h++) {
        s->of_home[h].begin = i;
        while (i < p->images && s->items[i].home == h) {
            i++;
        }
        s->of_home[h].end = i;
    }
}

/* ---- what is given up at home ---- */

struct search {
    const struct item *items;
    int count;
    bool *chosen, *best;
    int64_t best_rows;
    int64_t good_rows; /* so few are good enough */
    int nodes;
};

/* No way to shed `excess` with the items from `at` on has fewer rows; fractions are allowed. */
static int64_t least_rows(const struct item *items, int count, int at, int64_t excess) {
    int64_t rows = 0;
    for (; at < count && excess > 0; at++) {
        const struct item *item = &items[at];
        if (item->cost > excess) {
            return rows + (item->rows * excess + item->cost - 1) / item->cost;
        }
        rows += item->rows;
        excess -= item->cost;
    }
    return excess > 0 ? ROWS_NEVER : rows;
}

/* Fewest rows whose costs reach the excess: take an item, or leave it. */
static void search(struct search *s, int at, int64_t excess, int64_t rows) {
    if (excess <= 0) {
        if (rows < s->best_rows) {
            s->best_rows = rows;
            memcpy(s->best, s->chosen, (size_t)s->count * sizeof *s->best);
        }
        return;
    }
    bool enough = s->best_rows <= s->good_rows || s->nodes++ > NODES_MAX;
    if ((enough && s->best_rows < ROWS_NEVER) ||
        rows + least_rows(s->items, s->count, at, excess) >= s->best_rows) {
        return;
    }
    s->chosen[at] = true;
    search(s, at + 1, excess - s->items[at].cost, rows + s->items[at].rows);
    s->chosen[at] = false;
    search(s, at + 1, excess, rows);
}

static void own(troupe_image_owners *s, int image, int rank) {
    s->trial[image] = rank;
    s->loads[rank] += s->costs[image];
}

static void disown(troupe_image_owners *s, int image) {
    if (s->trial[image] != NOBODY) {
        s->loads[s->trial[image]] -= s->costs[image];
        s->trial[image] = NOBODY;
    }
}

/* Chooses (in s->best) those of the candidates, the best to give up first, that have the fewest
 * rows and cost at least `excess`; returns the rows, or ROWS_NEVER. */
static int64_t choose(troupe_image_owners *s, int64_t excess) {
    struct search q = {.items = s->candidates,
                       .count = s->candidate_count,
                       .chosen = s->chosen,
                       .best = s->best,
                       .best_rows = ROWS_NEVER};
    int64_t least = least_rows(q.items, q.count, 0, excess);
    if (least < ROWS_NEVER) {
        q.good_rows = least + least / 200;
        memset(s->chosen, 0, (size_t)q.count * sizeof *s->chosen);
        search(&q, 0, excess, 0);
    }
    return q.best_rows;
}

/* The only rank of a home gives up the fewest rows; false if it may not give up enough. */
static bool give_up(troupe_image_owners *s, int home, int rank, int64_t cap) {
    s->candidate_count = 0;
    for (int i = s->of_home[home].begin; i < s->of_home[home].end; i++) {
        int image = s->items[i].image;
        if (s->trial[image] != rank) {
            disown(s, image);
            own(s, image, rank);
        }
        if (s->ties[image] != STAYS) {
            s->candidates[s->candidate_count++] = s->items[i];
        }
    }
    int64_t room = cap > s->ballast[rank] ? cap : s->ballast[rank]; /* or all must go */
    int64_t excess = s->loads[rank] - room;
    if (excess <= 0) {
        return true;
    }
    if (choose(s, excess) == ROWS_NEVER) {
        return false;
    }
    for (int i = 0; i < s->candidate_count; i++) {
        if (s->best[i]) {
            disown(s, s->candidates[i].image);
        }
    }
    return true;
}

/* ---- where they go ---- */

enum choice { EMPTIEST, FULLEST };

/* Of the ranks with room for it, at home or anywhere: the emptiest, or the one that it fills most.
 */
static int place_of(const troupe_image_owners *s, int image, int64_t cap, bool at_home,
                    enum choice choice) {
    int found = NOBODY;
    for (int r = 0; r < s->problem->ranks; r++) {
        if (s->loads[r] + s->costs[image] > cap || (at_home && !is_home(s, image, r))) {
            continue;
        }
        if (found == NOBODY ||
            (choice == EMPTIEST ? s->loads[r] < s->loads[found] : s->loads[r] > s->loads[found])) {
            found = r;
        }
    }
    return found;
}

/* The smallest image away from home whose rank, without it, has room for this one. */
static int image_to_replace(const troupe_image_owners *s, int image, int64_t cap) {
    int found = NOBODY;
    for (int i = 0; i < s->problem->images; i++) {
        int owner = s->trial[i];
        if (owner != NOBODY && s->costs[i] < s->costs[image] &&
            (found == NOBODY || s->costs[i] < s->costs[found]) &&
            s->loads[owner] - s->costs[i] + s->costs[image] <= cap && !is_home(s, i, owner)) {
            found = i;
        }
    }
    return found;
}

/* Places the image, and what has to make room for it, and so on; returns the one that finds no
 * place, or NOBODY. Images that are replaced get smaller and smaller, so that comes to an end. */
static int place(troupe_image_owners *s, int image, int64_t cap, enum choice choice) {
    while (image != NOBODY) {
        int rank = place_of(s, image, cap, true, choice), next = NOBODY;
        rank = rank == NOBODY ? place_of(s, image, cap, false, choice) : rank;
        if (rank == NOBODY) {
            next = image_to_replace(s, image, cap);
            if (next == NOBODY) {
                break;
            }
            rank = s->trial[next];
            disown(s, next);
        }
        own(s, image, rank);
        image = next;
    }
    return image;
}

/* What the rank would give up for the image: smaller ones, of the fewest rows; returns those. */
static int64_t choose_on(troupe_image_owners *s, int rank, int image, int64_t cap) {
    s->candidate_count = 0;
    for (int i = 0; i < s->problem->images; i++) {
        const struct item *item = &s->items[i];
        if (s->trial[item->image] == rank && item->cost < s->costs[image]) {
            s->candidates[s->candidate_count] = *item;
            s->candidates[s->candidate_count++].home = 0; /* the order is of all together */
        }
    }
    qsort(s->candidates, (size_t)s->candidate_count, sizeof *s->candidates, compare_gain);
    return choose(s, s->loads[rank] + s->costs[image] - cap);
}

/* Places the image where the fewest rows of smaller ones have to make room for it; these have no
 * owner then. */
static bool evict(troupe_image_owners *s, int image, int64_t cap) {
    int64_t fewest = ROWS_NEVER;
    int found = NOBODY;
    for (int r = 0; r < s->problem->ranks; r++) {
        int64_t rows = choose_on(s, r, image, cap);
        if (rows < fewest) {
            fewest = rows;
            found = r;
        }
    }
    if (found == NOBODY) {
        return false;
    }
    choose_on(s, found, image, cap);
    for (int i = 0; i < s->candidate_count; i++) {
        if (s->best[i]) {
            disown(s, s->candidates[i].image);
        }
    }
    own(s, image, found);
    return true;
}

/* The rank that alone is the home of the image, or NOBODY. */
static int only_home(const troupe_image_owners *s, int image) {
    int home = s->problem->homes[image];
    return home == NOBODY || s->ranks_of_home[home] != 1 ? NOBODY : s->rank_of_home[home];
}

/* Keeps the image at home, where others are given up instead. */
static bool keep(troupe_image_owners *s, int image, int64_t cap) {
    int rank = only_home(s, image);
    if (rank == NOBODY || s->ties[image] != FREE) {
        return false;
    }
    s->ties[image] = STAYS;
    if (!give_up(s, s->problem->homes[image], rank, cap)) {
        s->ties[image] = GOES;
        give_up(s, s->problem->homes[image], rank, cap);
    }
    return true;
}

/* Largest first; what finds no place stays at home after all, or others make room for it. */
static bool place_all(troupe_image_owners *s, int64_t cap, enum choice choice) {
    int trouble = 0;
    for (int i = 0; i < s->problem->images; i++) {
        int image = s->largest_first[i];
        int left = s->trial[image] == NOBODY ? place(s, image, cap, choice) : NOBODY;
        if (left != NOBODY) {
            if (trouble++ == TROUBLE_MAX || !(keep(s, left, cap) || evict(s, left, cap))) {
                return false;
            }
            i = -1; /* again, with what has no owner now */
        }
    }
    return true;
}

/* ---- under one cap ---- */

/* The most room that a rank has with all its images at home. */
static int64_t largest_room(const troupe_image_owners *s, int64_t cap) {
    int64_t room = 0;
    for (int r = 0; r < s->problem->ranks; r++) {
        int64_t load = 0, home = home_of_rank(s->problem, r);
        for (int i = s->of_home[home].begin; home < s->problem->ranks && i < s->of_home[home].end;
             i++) {
            load += s->items[i].cost;
        }
        int64_t left = cap - s->ballast[r] - load / s->ranks_of_home[home];
        room = left > room ? left : room;
    }
    return room;
}

/* All at home, but for what the homes of one rank give up to get under the cap. */
static void start_at_home(troupe_image_owners *s, int64_t cap) {
    const struct troupe_image_problem *p = s->problem;
    int64_t room = largest_room(s, cap);
    memcpy(s->loads, s->ballast, (size_t)p->ranks * sizeof *s->loads);
    for (int i = 0; i < p->images; i++) {
        s->trial[i] = NOBODY;
        s->ties[i] = s->costs[i] > room ? STAYS : FREE;
    }
    for (int r = 0; r < p->ranks; r++) {
        int home = home_of_rank(p, r);
        if (home < p->ranks && s->ranks_of_home[home] == 1 && !give_up(s, home, r, cap)) {
            for (int i = s->of_home[home].begin; i < s->of_home[home].end; i++) {
                s->ties[s->items[i].image] = FREE;
            }
            give_up(s, home, r, cap);
        }
    }
    for (int i = 0; i < p->images; i++) {
        int image = s->largest_first[i];
        if (s->trial[image] == NOBODY && only_home(s, image) == NOBODY) {
            int rank = place_of(s, image, cap, true, EMPTIEST);
            if (rank != NOBODY) {
                own(s, image, rank);
            }
        }
    }
}

/* ---- the calls ---- */

/* What is left where all else fails: each image, largest first, where there is least. */
static void spread(troupe_image_owners *s, int *owners) {
    const struct troupe_image_problem *p = s->problem;
    memcpy(s->loads, s->ballast, (size_t)p->ranks * sizeof *s->loads);
    for (int i = 0; i < p->images; i++) {
        int image = s->largest_first[i];
        owners[image] = place_of(s, image, ROWS_NEVER, false, EMPTIEST);
        s->loads[owners[image]] += s->costs[image];
    }
}

/* That leave their homes under any assignment with this largest load, were images divisible. */
static int64_t rows_least(const troupe_image_owners *s, int64_t load_max) {
    int64_t rows = 0;
    memset(s->rooms, 0, (size_t)(s->problem->ranks + 1) * sizeof *s->rooms);
    for (int r = 0; r < s->problem->ranks; r++) {
        int64_t room = load_max - s->ballast[r];
        s->rooms[home_of_rank(s->problem, r)] += room > 0 ? room : 0;
    }
    for (int h = 0; h <= s->problem->ranks; h++) {
        const struct item *items = s->items + s->of_home[h].begin;
        int count = s->of_home[h].end - s->of_home[h].begin;
        int64_t excess = h == s->problem->ranks ? 0 : -s->rooms[h];
        for (int i = 0; i < count; i++) {
            excess += items[i].cost;
        }
        rows += least_rows(items, count, 0, excess);
    }
    return rows;
}

static int64_t rows_given_up(const troupe_image_owners *s) {
    int64_t rows = 0;
    for (int i = 0; i < s->problem->images; i++) {
        rows += s->trial[i] == NOBODY && only_home(s, i) != NOBODY ? s->problem->tokens[i] : 0;
    }
    return rows;
}

static struct troupe_image_balance measure(const troupe_image_owners *s, const int *owners,
                                           int64_t *loads) {
    const struct troupe_image_problem *p = s->problem;
    struct troupe_image_balance b = {.load_max = 0};
    memcpy(loads, s->ballast, (size_t)p->ranks * sizeof *loads);
    for (int i = 0; i < p->images; i++) {
        loads[owners[i]] += s->costs[i];
        b.load_total += s->costs[i];
        b.largest = s->costs[i] > b.largest ? s->costs[i] : b.largest;
        b.rows_moved += is_home(s, i, owners[i]) ? 0 : p->tokens[i];
    }
    for (int r = 0; r < p->ranks; r++) {
        bool counts = !is_closed(p, r) || loads[r] > s->ballast[r];
        b.load_max = counts && loads[r] > b.load_max ? loads[r] : b.load_max;
    }
    b.rows_least = rows_least(s, b.load_max);
    return b;
}

static double price_of(int64_t rows_moved, int64_t rows_least) {
    return ((double)rows_moved + 1) / ((double)rows_least + 1);
}

/* Of the ranks that get any, with their ballast: what the one with the largest share is to have. */
static int64_t mean_load(const troupe_image_owners *s, int64_t total) {
    int open = 0;
    for (int r = 0; r < s->problem->ranks; r++) {
        total += is_closed(s->problem, r) ? 0 : s->ballast[r];
        open += !is_closed(s->problem, r);
    }
    return total / open;
}

/* Tries the cap, with homes that give up a little more than they must; keeps what is cheaper. */
static void try_cap(troupe_image_owners *s, int64_t cap, double *least, int *owners_out) {
    for (int choice = EMPTIEST; choice <= FULLEST; choice++) {
        start_at_home(s, cap);
        if (price_of(rows_given_up(s), rows_least(s, cap)) >= *least) {
            return;
        }
        if (!place_all(s, cap, (enum choice)choice)) {
            continue;
        }
        struct troupe_image_balance b = measure(s, s->trial, s->loads);
        double price = price_of(b.rows_moved, b.rows_least);
        if (price < *least) {
            memcpy(owners_out, s->trial, (size_t)s->problem->images * sizeof *owners_out);
            *least = price;
        }
    }
}

/* Images are lumps: under a cap that few exceed, what they give up may be far more than they must.
 * Then a lower one is a better bargain: more balance for the rows. */
void troupe_image_owners_find(troupe_image_owners *s, const struct troupe_image_problem *problem,
                              int *owners_out) {
    begin(s, problem);
    spread(s, owners_out);
    struct troupe_image_balance even = measure(s, owners_out, s->loads);
    int64_t mean = mean_load(s, even.load_total);
    int64_t base = mean > even.largest ? mean : even.largest;
    double least = price_of(even.rows_moved, even.rows_least);
    for (int i = CAPS; i > 0 && least > bargain; i--) {
        try_cap(s, base + base * i / (20 * CAPS), &least, owners_out);
    }
}

struct troupe_image_balance troupe_image_owners_balance(troupe_image_owners *s,
                                                        const struct troupe_image_problem *problem,
                                                        const int *owners) {
    begin(s, problem);
    return measure(s, owners, s->loads);
}
